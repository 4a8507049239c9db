"""Commands that are killed, that race, and whose API server fails: the same command finishes, one of two wins, nothing is left over."""

import itertools
import random
import shutil
import threading

import pytest
from kube_project import ClusterProject

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]  # the full counts took four minutes on a machine with load 14
UP = ("up", "-e", "prod", "--yes", "--unverified")
LEAST_CALLS = 30  # of the API, that `up`, `scale` and `rollback` each make when they change something


class Killer:
    """Runs one command through a proxy that kills it just before its `at`-th write, or with `calls` its `at`-th call, is passed on."""

    def __init__(self, api_proxy, project, *, calls=False):
        self.project = project
        self.proxy = api_proxy(**{"before_call" if calls else "before_write": self._before})
        project.through(self.proxy.url)
        self._at, self._child = None, None
        self.killed = 0

    def _before(self, number):
        if self._at is not None and number == self._at:
            self._child.kill()  # SIGKILL; what it was about to write is passed on all the same, as a packet on its way would be

    def run(self, at, *words):
        """Whether the command was killed before it ended."""
        self.proxy.writes.clear()
        self.proxy.calls.clear()
        self._at, self._child = at, self.project.start(*words)
        self._child.communicate(timeout=120)
        self.proxy.settle()  # a write on its way is somebody else's change to a command that began before it arrived
        self._at = None
        self.killed += self._child.returncode == -9
        return self._child.returncode == -9


def finished(project, *words):
    """The same command again does what was asked, and then nothing is left to do."""
    project.run(*words)
    assert project.nothing_left_over()


def points(quick, full):
    return [pytest.param(quick, id="quick"), pytest.param(full, id="full", marks=pytest.mark.full)]


@pytest.mark.parametrize("at", points([1, 4], range(12)))
def test_the_first_up_killed_at_each_write(plane, packaged, api_proxy, tmp_path, at, record_property):
    killed = 0
    for number in at:
        namespace = plane.namespace()
        project = ClusterProject(plane, namespace, tmp_path / str(number), packaged)
        killer = Killer(api_proxy, project)
        killer.run(number, *UP)
        assert project.nothing_left_over()
        finished(project, *UP)
        assert project.status()["health"] == "healthy" and project.revisions() == [(1, "up")]
        killed += killer.killed
        plane.request("DELETE", f"/api/v1/namespaces/{namespace}")
    assert killed == len(at)
    record_property("killed", killed)


@pytest.mark.parametrize("at", points([2], range(6)))
def test_changes_killed_at_each_write(cluster_project, api_proxy, at, record_property):
    project = cluster_project
    project.write(replicas="..4")
    project.up()
    killer = Killer(api_proxy, project)
    models = itertools.cycle([0.031, 0.033])
    counts = itertools.cycle(["2", "3"])
    for number in at:
        project.model(next(models))
        killer.run(number, *UP)
        finished(project, *UP)
        assert project.status()["revision_serving"] == project.revisions()[-1][0]
        count = next(counts)
        killer.run(number, "scale", count, "-e", "prod", "--yes")
        finished(project, "scale", count, "-e", "prod", "--yes")
        assert project.status()["replicas_ready"] == int(count)
    releases = len(project.revisions())
    killer.run(3, "rollback", "1", "-e", "prod", "--yes")
    finished(project, "rollback", "1", "-e", "prod", "--yes")
    assert project.revisions()[-1] == (releases + 1, "rollback")
    for number in at:
        killer.run(number, "down", "-e", "prod", "--yes")
    finished(project, "down", "-e", "prod", "--yes")
    assert project.objects() == set()
    assert killer.killed >= 2 * len(at)
    record_property("killed", killer.killed)


@pytest.mark.parametrize("rounds", points(1, 7))
def test_killed_at_random_calls(cluster_project, api_proxy, rounds, record_property):
    """Not at writes but anywhere: while reading, before and after the lease, waiting, verifying."""
    rng, project = random.Random(11), cluster_project
    project.write(replicas="..3")
    project.up()
    killer = Killer(api_proxy, project, calls=True)
    for number in range(rounds):
        project.model(0.041 + number / 1000)
        for words in (UP, ("scale", str(2 + number % 2), "-e", "prod", "--yes"), ("rollback", "1", "-e", "prod", "--yes")):
            killer.run(rng.randrange(LEAST_CALLS), *words)
            finished(project, *words)
            assert project.status()["revision_serving"] == project.revisions()[-1][0]
    assert killer.killed == 3 * rounds
    record_property("killed", killer.killed)


def test_of_two_ups_at_once_one_wins_and_the_other_is_told_whose(cluster_project, api_proxy, packaged, tmp_path):
    other = ClusterProject(cluster_project.plane, cluster_project.namespace, tmp_path / "other", packaged)
    shutil.copytree(cluster_project.root / "repo", other.root / "repo", dirs_exist_ok=True)
    other.model(0.051)
    other.run("package")
    barrier = threading.Barrier(2, timeout=60)

    def together(number):
        if number == 0:
            barrier.wait()

    children = []
    for project in (cluster_project, other):
        project.through(api_proxy(before_write=together).url)
        children.append(project.start(*UP))
    ended = [child.communicate(timeout=120) for child in children]
    codes = [child.returncode for child in children]
    assert sorted(codes) in ([0, 7], [0, 12]), (codes, ended)
    loser = ended[codes.index(max(codes))][1]
    winner = children[codes.index(0)].pid
    assert f"(pid {winner})" in loser, loser
    assert len(cluster_project.revisions()) == 1 and cluster_project.status()["health"] == "healthy"


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 4))
def test_with_a_third_of_all_answers_failing_commands_succeed_or_end_clearly(cluster_project, api_proxy, seed):
    rng, lock = random.Random(seed), threading.Lock()

    def fault(method, path):
        with lock:
            return rng.choice(["429", "503", "reset", "lost", "slow"]) if rng.random() < 0.3 else None

    project = cluster_project
    project.write(replicas="..3")
    proxy = api_proxy(fault=fault)
    project.through(proxy.url)
    for words in (UP, ("scale", "2", "-e", "prod", "--yes"), ("down", "-e", "prod", "--yes")):
        ran = project.run(*words, ok=None)
        if ran.code != 0:
            assert ran.code in (4, 7, 9, 11, 12) and "code: " in ran.err and "hint: " in ran.err, ran
            proxy.fault = lambda method, path: None
            project.run(*words)
            proxy.fault = fault
    assert proxy.faults > 10
    proxy.fault = lambda method, path: None
    assert project.objects() == set()
