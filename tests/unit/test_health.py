"""When a replica counts as hung, dead, busy or overloaded."""

import pytest

from deployctl.core import health
from deployctl.core.health import Look, Memory


def look(canary, completed=None, detail=""):
    return Look(at_s=0.0, completed=completed, canary=canary, detail=detail)


def judge(memory, *looks):
    for one in looks:
        verdict, reason, memory = health.judge(memory, one)
    return verdict, reason, memory


def test_an_answer_is_health_and_clears_strikes():
    assert judge(Memory(completed=5, strikes=1), look("ok", 6)) == ("healthy", "answers", Memory(completed=6, strikes=0))


def test_hung_is_a_late_canary_and_no_progress():
    verdict, reason, _ = judge(Memory(completed=5), look("timeout", 5))
    assert verdict == "sick"
    assert reason.startswith("hung")
    assert judge(Memory(completed=5), look("timeout", None))[0] == "sick"


def test_a_late_canary_while_requests_complete_is_only_busy():
    verdict, reason, memory = judge(Memory(completed=5), look("timeout", 6))
    assert (verdict, memory) == ("healthy", Memory(completed=6, strikes=0))
    assert "busy" in reason


def test_overload_never_condemns():
    memory = Memory(completed=5)
    for _ in range(20):
        verdict, reason, memory = health.judge(memory, look("rejected", 5))
        assert verdict == "healthy"
        assert "overloaded" in reason


def test_one_error_is_a_doubt_two_are_a_verdict():
    assert judge(Memory(completed=5), look("error", 5, "Stub process is not healthy"))[0] == "doubtful"
    verdict, reason, _ = judge(Memory(completed=5), look("error", 5), look("error", 5, "Stub process is not healthy"))
    assert verdict == "sick"
    assert "Stub process is not healthy" in reason


def test_errors_with_progress_between_them_do_not_add_up():
    assert judge(Memory(completed=5), look("error", 5), look("error", 6), look("error", 6))[0] == "doubtful"


@pytest.mark.parametrize(("completed", "needed"), [(None, True), (5, True), (6, False)])
def test_work_done_replaces_the_canary(completed, needed):
    assert health.needs_canary(Memory(completed=5), completed) is needed


@pytest.mark.parametrize(("usual_s", "timeout_s", "interval_s"), [(0.001, 5.0, 2.0), (0.3, 5.0, 3.0), (1.0, 5.0, 4.0), (4.0, 12.0, 4.0)])
def test_a_canary_never_takes_much_of_a_replica(usual_s, timeout_s, interval_s):
    assert health.canary_timeout_s(usual_s) == pytest.approx(timeout_s)
    assert health.canary_interval_s(usual_s) == pytest.approx(interval_s)


def test_a_hang_is_found_within_ten_seconds():
    """Interval, canary, and one look of half a second with a second for the counters on each side of it."""
    for usual_s in (0.001, 0.1, 0.5, 1.0, 1.6):
        assert health.canary_interval_s(usual_s) + health.canary_timeout_s(usual_s) + 0.5 < 10.0


def test_back_off_doubles_up_to_the_cap():
    assert [health.backoff_s(n) for n in range(9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert health.backoff_s(10_000) == 60.0
