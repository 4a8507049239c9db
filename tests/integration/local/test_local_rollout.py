"""Roll-out, rollback and scaling under open-loop load: nobody's request is lost, and a bad release never displaces a good one."""

import pytest
from local_kit import Load

from deployctl.core.decision import ScalingPolicy

pytestmark = pytest.mark.triton


def roll(project, rate_rps, between):
    """Serve 1, roll to 2 and back, scale up and down, under HTTP and gRPC at once; `between` requests of each after each step."""
    old, new = project.bundle(offset=0), project.bundle(offset=100)
    project.release(old)
    status = project.serving(1, 1)
    with Load(status, "http", rate_rps) as http, Load(status, "grpc", rate_rps) as grpc:
        steps = [(new, 1), (old, 1), (old, 2), (old, 1)]
        for revision, (bundle, replicas) in enumerate(steps, start=2):
            project.release(bundle, replicas=replicas)
            project.serving(revision, replicas)
            for load in (http, grpc):
                load.wait_for(between)
    return http, grpc


def test_no_request_is_lost(project):
    for load in roll(project, rate_rps=25, between=25):
        assert load.failures == []
        assert len(load.answers) >= 100
        assert set(load.answers) == {1.0, 101.0}


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_no_request_of_5000_is_lost(project):
    for load in roll(project, rate_rps=90, between=1250):
        assert load.failures == []
        assert len(load.answers) >= 5000
        assert set(load.answers) == {1.0, 101.0}


@pytest.mark.parametrize("how", ["raise", pytest.param("crash", marks=pytest.mark.full)])
def test_a_bad_release_is_given_up_and_the_old_one_serves_on(project, how):
    project.release(project.bundle())
    with Load(project.serving(1, 1), "http", 20) as load:
        project.release(project.bundle(fail_at_load=how))
        status = project.wait(lambda s: s.phase == "failed" and s.revision_wanted == 2)
        assert status.revision_serving == 1
        assert "revision 2 was given up" in status.message
        project.wait(lambda s: [r.state for r in s.replicas] == ["ready"])
        load.wait_for(20)
    assert load.failures == []
    assert set(load.answers) == {1.0}
    # the way out is a new release, also one with the content that serves
    project.release(project.bundle())
    project.serving(3, 1)


def test_policy_follows_a_load_step_within_its_bounds(project):
    """A sleep model of 50 ms: 30 requests a second keep 1.5 replicas busy, so the policy adds one and later takes it away."""
    scaling = ScalingPolicy(
        min_replicas=1, max_replicas=2, target=0.6, signal="busy_ratio", sync_s=2.0, scale_up_window_s=0.0, scale_down_window_s=6.0
    )
    project.release(project.bundle(t0_s=0.05), scaling=scaling)
    with Load(project.serving(1, 1), "http", 18) as load:
        status = project.wait(lambda s: s.replicas_wanted == 2)
        assert "busy_ratio" in status.policy_says
        project.serving(1, 2)
    assert load.failures == []
    project.serving(1, 1)
