"""Following the logs of several replicas: side by side, with those that come later, and without saying an excuse twice."""

import itertools
import threading

import pytest

from deployctl.errors import ClusterError, NotFound
from deployctl.hosts.kubernetes.logs import followed, once


class Node:
    """Containers whose lines a test writes; a follower waits for more until the container ends."""

    def __init__(self):
        self.lines, self.ended, self.asked, self.silent = {}, set(), [], set()
        self.changed = threading.Condition()

    def write(self, pod, *lines):
        with self.changed:
            self.lines.setdefault(pod, []).extend(lines)
            self.changed.notify_all()

    def read(self, pod, container, *, since_s, follow):
        self.asked.append((pod, container, since_s, follow))
        if pod not in self.lines:
            raise NotFound(f"no pod {pod}", hint="-", code="object-not-found")
        if container == "fetch":
            yield "fetched"
            return
        if pod in self.silent:
            raise ClusterError("cannot be read", hint="-", why="container is waiting to start", code="logs-unreachable")
        for n in itertools.count():
            with self.changed:
                if not self.changed.wait_for(lambda n=n: len(self.lines[pod]) > n or pod in self.ended or not follow, timeout=20):
                    return
                if len(self.lines[pod]) <= n:
                    return
                line = self.lines[pod][n]
            yield line


@pytest.fixture
def node():
    return Node()


def take(stream, count):
    return [next(stream) for _ in range(count)]


def test_all_replicas_are_followed_side_by_side(node):
    node.write("a", "a1")
    node.write("b", "b1")
    stream = followed(lambda: ["a", "b"], node.read, None, look_s=0.05)
    assert sorted(take(stream, 4)) == ["[a fetch] fetched", "[a triton] a1", "[b fetch] fetched", "[b triton] b1"]
    node.write("a", "a2")
    assert take(stream, 1) == ["[a triton] a2"]
    node.write("b", "b2")
    assert take(stream, 1) == ["[b triton] b2"]


def test_a_replica_that_comes_later_is_followed_too_and_one_that_left_ends_nothing(node):
    pods = ["a", "gone"]
    node.write("a", "a1")
    stream = followed(lambda: list(pods), node.read, None, look_s=0.05)
    assert take(stream, 2) == ["[a fetch] fetched", "[a triton] a1"]
    node.write("c", "c1")
    pods.append("c")
    assert take(stream, 2) == ["[c fetch] fetched", "[c triton] c1"]


def test_a_container_without_a_log_says_so_once_and_is_read_when_it_has_one(node):
    node.write("a", "a1")
    node.silent.add("a")
    stream = followed(lambda: ["a"], node.read, 60.0, look_s=0.02)
    assert take(stream, 2) == ["[a fetch] fetched", "[a triton] (no log: container is waiting to start)"]
    threading.Timer(0.2, node.silent.clear).start()
    assert take(stream, 1) == ["[a triton] a1"]


def test_an_error_of_the_cluster_ends_it(node):
    def refuse(pod, container, *, since_s, follow):
        raise ClusterError("the token has expired", hint="log in", code="cluster-unauthorized")
        yield

    with pytest.raises(ClusterError, match="expired"):
        next(followed(lambda: ["a"], refuse, None))


def test_without_follow_each_replica_is_read_to_its_end(node):
    node.write("a", "a1", "a2")
    node.write("b", "b1")
    node.silent.add("b")
    assert list(once(["a", "b"], node.read, None)) == [
        *("[a fetch] fetched", "[a triton] a1", "[a triton] a2"),
        *("[b fetch] fetched", "[b triton] (no log: container is waiting to start)"),
    ]
    assert not any(follow for *_, follow in node.asked)
