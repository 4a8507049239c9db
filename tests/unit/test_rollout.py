"""Roll-out decisions: named cases, and a simulated host in which replicas fail at every chance and order must still hold."""

import dataclasses

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployctl.core import rollout
from deployctl.core.rollout import Drain, Pace, ReplicaView, Route, Start, Stop, Wanted

PACE = Pace(starts=2, drain_min_s=2.0, drain_max_s=30.0)


def replica(name, content="new", state="ready", since_s=0.0, in_rotation=False, idle=True):
    return ReplicaView(name=name, content=content, state=state, since_s=since_s, in_rotation=in_rotation, idle=idle)


def decide(wanted, *replicas, now_s=100.0):
    return rollout.decide(wanted, replicas, now_s, PACE)


def wanted(replicas, may_start_s=0.0):
    return Wanted(content="new", replicas=replicas, may_start_s=may_start_s)


def test_starts_at_most_two_at_once():
    assert decide(wanted(5)) == [Start(content="new")] * 2
    assert decide(wanted(5), replica("1", state="starting")) == [Start(content="new")]


def test_back_off_holds_a_start_back():
    assert decide(wanted(1, may_start_s=101.0)) == []
    assert decide(wanted(1, may_start_s=101.0), now_s=101.0) == [Start(content="new")]


def test_first_replica_serves_at_once_where_nothing_else_does():
    assert decide(wanted(2), replica("1"), replica("2", state="starting")) == [Route(names=("1",))]


def test_old_serves_until_the_new_is_at_full_size():
    old = replica("1", "old", in_rotation=True)
    assert decide(wanted(2), old, replica("2"), replica("3", state="starting")) == []
    assert decide(wanted(2), old, replica("2"), replica("3")) == [Route(names=("2", "3")), Drain(name="1", reason="replaced")]


def test_of_two_old_contents_the_one_that_serves_goes_on_alone():
    """The second release was half ready when a third was wanted; its ready replica never gets traffic."""
    serving, half = replica("1", "old", in_rotation=True), replica("2", "half")
    assert decide(wanted(2), serving, half, replica("3", state="starting"), replica("4", state="starting")) == [Drain(name="2", reason="replaced")]
    # where what served is gone, one of the others serves alone: the larger, and of equals the newer
    a, b, c = replica("1", "a"), replica("2", "b"), replica("3", "a")
    loading = [replica("8", state="starting"), replica("9", state="starting")]
    assert rollout.next_rotation(wanted(2), [a, b, *loading]) == ("2",)
    assert rollout.next_rotation(wanted(2), [a, b, c, *loading]) == ("1", "3")


def test_drained_only_when_idle_and_never_before_the_least_time():
    new = replica("2", in_rotation=True)
    assert decide(wanted(1), replica("1", "old", "draining", since_s=99.0), new) == []
    assert decide(wanted(1), replica("1", "old", "draining", since_s=97.0, idle=False), new) == []
    assert decide(wanted(1), replica("1", "old", "draining", since_s=97.0, idle=None), new) == []
    assert decide(wanted(1), replica("1", "old", "draining", since_s=97.0), new) == [Stop(name="1", reason="drained", graceful=True)]
    late = decide(wanted(1), replica("1", "old", "draining", since_s=69.0, idle=False), new)
    assert late == [Stop(name="1", reason="drain timeout", graceful=True)]


def test_scale_down_keeps_the_oldest_that_serve():
    three = [replica(str(n), in_rotation=True) for n in (1, 2, 3)]
    assert decide(wanted(2), *three) == [Route(names=("1", "2")), Drain(name="3", reason="scaled down")]


def test_scale_down_stops_what_still_starts_first():
    assert decide(wanted(1), replica("1", state="starting"), replica("2", in_rotation=True)) == [
        Stop(name="1", reason="no longer wanted", graceful=False)
    ]


def test_a_start_of_an_abandoned_release_is_ended():
    actions = decide(wanted(1), replica("1", in_rotation=True), replica("2", "other", "starting"))
    assert actions == [Stop(name="2", reason="no longer wanted", graceful=False)]


def test_hung_leaves_when_another_answers():
    actions = decide(wanted(2), replica("1", state="hung", in_rotation=True), replica("2", in_rotation=True))
    assert actions == [Start(content="new"), Route(names=("2",)), Stop(name="1", reason="hung", graceful=False)]


def test_the_last_one_stays_in_rotation_though_it_hangs():
    assert decide(wanted(1), replica("1", state="hung", in_rotation=True)) == [Start(content="new")]
    assert decide(wanted(1), replica("1", state="hung", in_rotation=True), replica("2", state="starting")) == []


def test_nothing_to_do_is_no_action():
    assert decide(wanted(2), replica("1", in_rotation=True), replica("2", in_rotation=True)) == []


# ── a host in miniature: applies the actions, and lets replicas get ready, fail and die as hypothesis likes ──


class Host:
    def __init__(self):
        self.replicas, self.number, self.now_s, self.wanted = [], 0, 0.0, wanted(1)

    def names(self):
        return {r.name for r in self.replicas}

    def set(self, name, **changes):
        self.replicas = [dataclasses.replace(r, since_s=self.now_s, **changes) if r.name == name else r for r in self.replicas]

    def step(self):
        self.now_s += 1.0
        before = [r for r in self.replicas if r.in_rotation and r.state == "ready"]
        actions = rollout.decide(self.wanted, self.replicas, self.now_s, PACE)
        for position, action in enumerate(actions):
            if isinstance(action, Start):
                self.number += 1
                self.replicas.append(replica(f"r{self.number:05}", action.content, "starting", self.now_s))
            elif isinstance(action, Route):
                self.check_route(action, before)
                self.replicas = [dataclasses.replace(r, in_rotation=r.name in action.names) for r in self.replicas]
            elif isinstance(action, Drain):
                assert not any(isinstance(a, Route) for a in actions[position:]), "nobody drains before traffic has moved"
                self.set(action.name, state="draining")
            else:
                victim = next(r for r in self.replicas if r.name == action.name)
                assert not victim.in_rotation, "nobody is stopped while it gets traffic"
                if victim.state == "draining":
                    assert self.now_s - victim.since_s >= PACE.drain_min_s
                self.replicas = [r for r in self.replicas if r.name != action.name]

    def check_route(self, action, before):
        routed = [r for r in self.replicas if r.name in action.names]
        assert all(r.state in ("ready", "hung") for r in routed)
        if before:
            assert routed, "a serving service is never left without a replica"
        assert len({r.content for r in routed}) <= 1, "two contents never serve side by side"


events = st.lists(
    st.tuples(st.sampled_from(["ready", "ready", "ready", "die", "hang", "fail", "want", "scale", "tick"]), st.integers(0, 5)), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(events)
@example([("scale", 1), ("ready", 0), ("want", 0), ("ready", 1), ("want", 1)])  # a third release while the second was half ready
def test_whatever_happens_order_holds_and_calm_brings_what_is_wanted(happenings):
    host = Host()
    for kind, number in happenings:
        pool = sorted(host.names())
        name = pool[number % len(pool)] if pool else None
        state = next((r.state for r in host.replicas if r.name == name), None)
        if kind == "ready" and state == "starting":
            host.set(name, state="ready")
        elif (kind == "die" and state is not None) or (kind == "fail" and state == "starting"):
            host.set(name, state="dead")
        elif kind == "hang" and state == "ready":
            host.set(name, state="hung")
        elif kind == "want":
            host.wanted = Wanted(content=f"content-{number % 3}", replicas=host.wanted.replicas)
        elif kind == "scale":
            host.wanted = Wanted(content=host.wanted.content, replicas=1 + number % 4)
        host.step()
    for _ in range(80):  # calm: everything that starts gets ready
        for r in list(host.replicas):
            if r.state == "starting":
                host.set(r.name, state="ready")
        host.step()
    assert [(r.content, r.state, r.in_rotation) for r in host.replicas] == [(host.wanted.content, "ready", True)] * host.wanted.replicas
