"""The verbs about releases over memory ports: what is recorded, what the host is told, what is refused."""

import dataclasses
import json

import pytest

from deployctl.config import locks
from deployctl.core.artifact import TensorSpec
from deployctl.core.bundle import Bundle
from deployctl.core.demand import RateStep
from deployctl.core.kube_drift import Difference
from deployctl.core.lock import ScaleOverride
from deployctl.core.project import Environment, Limits, ModelSource, Project, Traffic
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.core.slo import Objective, Slo
from deployctl.errors import ClusterError, LockHeld, MachineError, NotConverged, NotFound, Refused, RolledBack
from deployctl.flows import _change, call, status
from deployctl.flows._exactly import up_exactly
from deployctl.flows.diff import diff
from deployctl.flows.down import down
from deployctl.flows.history import history
from deployctl.flows.logs import logs
from deployctl.flows.plan import plan
from deployctl.flows.release import allow
from deployctl.flows.rollback import rollback
from deployctl.flows.scale import scale
from deployctl.flows.up import UpOptions, up
from deployctl.testing.memory import EchoClient, FixedLauncher, MemoryTarget, MemoryToolbox, NotedProgress

BY = UpOptions(by="ada@host (pid 1)")


class Killed(BaseException):
    """What kill -9 looks like to the code: nothing runs after it."""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"a model")  # plans hash it; nothing here reads it
    return Project(
        name="svc",
        model=ModelSource(kind="onnx", value="m.onnx"),
        slo=Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),)),
        traffic=Traffic(steps=(RateStep(start_s=0.0, rate_rps=40.0),)),
        environments=(Environment(name="local"),),
    )


@pytest.fixture
def tools(tmp_path):
    return MemoryToolbox(tmp_path)


def a_bundle(tools, variant="fp32", sizes=(4, 4, 8)):
    lines = [json.dumps({"size": n, "inputs": {"INPUT0": {"dtype": "FP32", "shape": [1, n], "data": [1.0] * n}}}) for n in sizes]
    tensor = TensorSpec(name="INPUT0", dtype="FP32", shape=(-1,))
    model = ModelSpec(
        name="svc", backend="python", inputs=(tensor,), outputs=(dataclasses.replace(tensor, name="OUTPUT0"),), parameters={"v": variant}
    )
    bundle = Bundle(name="svc", entry="svc", variant=variant, models=(model,), files=(), sample=tools.blobs.put_bytes("\n".join(lines).encode()))
    tools.bundles.save(bundle)
    return bundle


class Asked(list):
    def __call__(self, planned, current):
        self.append((planned, current))


def bring_up(project, tools, variant="fp32", options=BY, ask=None):
    return up(project, "local", tools, NotedProgress(), make=lambda: a_bundle(tools, variant), ask=Asked() if ask is None else ask, options=options)


def back(project, tools, to=None, **facts):
    return rollback(project, "local", tools, NotedProgress(), to=to, reason="r", by="ada", ask=lambda *_: None, timeout_s=60.0, **facts)


def scaled(project, tools, override, ask=lambda *_: None):
    return scale(project, "local", tools, NotedProgress(), override=override, by="ada", ask=ask, timeout_s=60.0)


def lock_of(tools):
    return locks.read(tools.workspace.lock("local"), "local")


def revisions(tools):
    return [(r.revision, r.action) for r in tools.records.history().releases]


# --- up ---------------------------------------------------------------------------------------------------------------


def test_up_records_tells_the_host_verifies_and_writes_the_lock(project, tools):
    ask = Asked()
    outcome = bring_up(project, tools, ask=ask)
    assert outcome.url == MemoryTarget.URL and outcome.changed and outcome.verified == 3
    assert revisions(tools) == [(1, "up")] and tools.target.applied == [1]
    assert len(ask) == 1 and ask[0][1] is None
    release = tools.records.history().current
    assert lock_of(tools).bundle == release.plan.bundle == release.lock.bundle
    assert release.by == BY.by
    assert [model for model, _ in tools.http.asked] == ["svc"] * 3


def test_up_again_makes_no_release_and_asks_nothing(project, tools):
    bring_up(project, tools)
    ask = Asked()
    outcome = bring_up(project, tools, ask=ask)
    assert not outcome.changed and outcome.verified == 3 and ask == []
    assert revisions(tools) == [(1, "up")] and tools.target.applied == [1]


def test_up_puts_back_what_was_removed_and_only_tells_what_was_changed(project, tools):
    bring_up(project, tools)
    changed = Difference(kind="Service", name="svc", path="spec.type", live="NodePort", wanted="ClusterIP", manager="kubectl-edit")
    tools.target.differences = [changed]
    said = NotedProgress()
    assert not up(project, "local", tools, said, make=lambda: a_bundle(tools), ask=Asked(), options=BY).changed
    assert tools.target.applied == [1] and [text for kind, text in said.said if kind == "warn" and "not as released: 1 field of" in text]
    tools.target.differences = [Difference(kind="Service", name="svc", path="", wanted="present"), changed]
    said = NotedProgress()
    outcome = up(project, "local", tools, said, make=lambda: a_bundle(tools), ask=Asked(), options=BY)
    assert outcome.changed and tools.target.applied == [1, 1] and revisions(tools) == [(1, "up")]
    assert ("step", "putting back what is gone: Service svc") in said.said


def test_up_after_down_starts_the_same_release(project, tools):
    bring_up(project, tools)
    assert down(tools, NotedProgress())
    outcome = bring_up(project, tools)
    assert outcome.changed and revisions(tools) == [(1, "up")] and tools.target.applied == [1, 1]


def test_a_no_changes_nothing(project, tools):
    def no(planned, current):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_up(project, tools, ask=no)
    assert revisions(tools) == [] and tools.target.applied == [] and lock_of(tools).bundle is None


def test_what_cannot_start_is_refused_before_anything_is_recorded(project, tools):
    """A taken port, say: nothing is left in history or lock, and the same command does it all once the port is free."""
    tools.target.in_the_way = MachineError("port 8000 of this machine is taken by another program", code="port-taken", hint="end it")
    with pytest.raises(MachineError, match="taken"):
        bring_up(project, tools)
    assert revisions(tools) == [] and tools.target.applied == [] and lock_of(tools).bundle is None
    tools.target.in_the_way = None
    assert bring_up(project, tools).release.revision == 1


def test_traffic_mix_comes_from_the_sample(project, tools):
    bring_up(project, tools)
    mix = tools.records.history().current.plan.demand.mix
    assert [(s.size, round(s.share_ratio, 3)) for s in mix] == [(4, 0.667), (8, 0.333)]


def test_a_first_roll_out_that_fails_names_the_cause(project, tools):
    tools.target.fail = {1: "libfoo is missing"}
    with pytest.raises(ClusterError) as failure:
        bring_up(project, tools)
    assert failure.value.exit_code == 4 and failure.value.why == "libfoo is missing" and "nothing serves" in failure.value.message


def test_a_failed_roll_out_goes_back_in_records_and_lock(project, tools):
    first = bring_up(project, tools).release
    tools.target.fail = {2: "out of memory"}
    with pytest.raises(RolledBack) as failure:
        bring_up(project, tools, variant="int8")
    assert failure.value.exit_code == 10 and "revision 1 keeps serving" in failure.value.message
    newest = tools.records.history().current
    assert (newest.revision, newest.action, newest.rolled_back_to) == (3, "rollback", 1)
    assert newest.plan == first.plan and "out of memory" in newest.reason
    assert lock_of(tools).bundle == first.plan.bundle and tools.target.applied == [1, 2, 3]
    assert tools.records.history().held == ()


def test_wrong_answers_bring_the_former_release_back(project, tools):
    bring_up(project, tools)
    tools.http = EchoClient(broken="shape mismatch")
    with pytest.raises(RolledBack) as failure:
        bring_up(project, tools, variant="int8")
    assert failure.value.code == "verify-failed" and tools.records.history().current.rolled_back_to == 1


def test_up_gives_up_waiting_and_says_that_it_goes_on(project, tools):
    tools.target.steps = 10**6
    with pytest.raises(NotConverged) as failure:
        bring_up(project, tools, options=dataclasses.replace(BY, timeout_s=5.0))
    assert failure.value.exit_code == 9 and "goes on" in failure.value.message
    tools.target.steps = tools.target._left = 0
    assert bring_up(project, tools).url and revisions(tools) == [(1, "up")]


def test_the_slower_of_two_is_told_who_was_faster(project, tools):
    def meanwhile(planned, current):
        bring_up(project, tools, variant="theirs", options=UpOptions(by="bob@host (pid 2)"))

    with pytest.raises(LockHeld) as refusal:
        bring_up(project, tools, variant="mine", ask=meanwhile)
    assert refusal.value.exit_code == 7 and "bob@host" in refusal.value.why
    assert revisions(tools) == [(1, "up")]
    assert lock_of(tools).variant == "theirs"


@pytest.mark.parametrize("step", ["lock", "append", "apply", "status"])
def test_killed_at_any_step_the_same_command_completes(project, tools, monkeypatch, step):
    bring_up(project, tools)

    def die(*_, **__):
        raise Killed

    place, name = {
        "lock": (_change, "write_lock"),
        "append": (tools.records, "append"),
        "apply": (tools.target, "apply"),
        "status": (tools.target, "status"),
    }[step]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, name, die)
        bring_up(project, tools, variant="int8")
    outcome = bring_up(project, tools, variant="int8")
    assert revisions(tools) == [(1, "up"), (2, "up")]
    assert outcome.release.revision == 2 and tools.target.serving.revision == 2
    assert lock_of(tools).variant == "int8" == outcome.release.plan.variant


# --- plan, plan files, diff -------------------------------------------------------------------------------------------


def test_plan_changes_nothing_and_says_what_is_missing(project, tools):
    view = plan(project, "local", tools)
    assert view.planned.plan.bundle is None and "nothing is packaged" in view.planned.notices[0]
    assert revisions(tools) == [] and not tools.workspace.lock("local").exists()


def test_a_plan_file_is_done_exactly(project, tools):
    bring_up(project, tools)
    faster = dataclasses.replace(project, environments=(Environment(name="local", limits=Limits(min_replicas=2)),))
    reviewed = plan(faster, "local", tools).planned.plan
    outcome = up_exactly(faster, "local", tools, NotedProgress(), reviewed, ask=Asked(), options=BY)
    assert outcome.release.plan == dataclasses.replace(reviewed, base=None) and outcome.release.plan.replicas == 2


def test_a_plan_file_is_stale_once_the_world_moved(project, tools):
    bring_up(project, tools)
    reviewed = plan(project, "local", tools).planned.plan
    bring_up(project, tools, variant="int8")
    with pytest.raises(LockHeld) as refusal:
        up_exactly(project, "local", tools, NotedProgress(), reviewed, ask=Asked(), options=BY)
    assert refusal.value.exit_code == 7 and "newest release" in refusal.value.why and "bundle" in refusal.value.why
    assert len(revisions(tools)) == 2


def test_a_plan_for_another_device_is_stale(project, tools):
    bring_up(project, tools)
    reviewed = plan(project, "local", tools).planned.plan
    tools.launcher = FixedLauncher(device="cpu-4c")
    with pytest.raises(LockHeld, match="stale") as refusal:
        up_exactly(project, "local", tools, NotedProgress(), reviewed, ask=Asked(), options=BY)
    assert "cpu-4c" in refusal.value.why


def test_diff_of_revisions_and_of_what_up_would_do(project, tools):
    bring_up(project, tools)
    bring_up(project, tools, variant="int8")
    between = diff(project, "local", tools, 1, 2)
    assert {c.path for c in between.comparison.changes} == {"bundle", "variant"}
    assert not diff(project, "local", tools, None, None).comparison.differs
    assert not diff(project, "local", tools, 2, 2).comparison.differs
    more = dataclasses.replace(project, environments=(Environment(name="local", limits=Limits(min_replicas=2)),))
    found = diff(more, "local", tools, None, None).comparison
    assert {c.path for c in found.changes} == {"replicas", "scaling.min_replicas", "scaling.max_replicas"}
    assert (found.cores_before, found.cores_after) == (1, 2)
    with pytest.raises(NotFound):
        diff(project, "local", tools, 9, 1)


# --- rollback and holds -----------------------------------------------------------------------------------------------


def test_rollback_restores_everything_forward_and_holds_what_it_left(project, tools):
    first = bring_up(project, tools).release
    second = bring_up(project, tools, variant="int8").release
    outcome = back(project, tools)
    assert (outcome.release.revision, outcome.release.action, outcome.release.rolled_back_to) == (3, "rollback", 1)
    assert outcome.release.plan == first.plan and outcome.verified == 3
    lock = lock_of(tools)
    assert dataclasses.replace(lock, held=()) == first.lock and lock.held == (second.content,)
    assert tools.records.history().held == (second.content,)
    assert tools.target.serving.plan == first.plan


def test_up_refuses_what_a_rollback_left_until_it_is_allowed(project, tools):
    bring_up(project, tools)
    left = bring_up(project, tools, variant="int8").release
    back(project, tools)
    with pytest.raises(Refused) as refusal:
        bring_up(project, tools, variant="int8")
    assert refusal.value.code == "release-on-hold" and len(revisions(tools)) == 3
    assert allow(project, "local", tools, left.content.removeprefix("sha256:")[:12]) == left.content
    assert lock_of(tools).held == () == tools.records.history().held
    assert bring_up(project, tools, variant="int8").release.revision == 4


def test_a_hold_in_the_committed_lock_counts_on_another_machine(project, tools, tmp_path):
    bring_up(project, tools)
    bring_up(project, tools, variant="int8")
    back(project, tools)
    elsewhere = MemoryToolbox(tmp_path)  # the same lock, other records
    with pytest.raises(Refused):
        bring_up(project, elsewhere, variant="int8")


def test_up_after_a_rollback_changes_nothing(project, tools):
    bring_up(project, tools)
    bring_up(project, tools, variant="int8")
    back(project, tools)
    assert not bring_up(project, tools).changed


def test_rollback_to_a_held_revision_lifts_its_hold(project, tools):
    bring_up(project, tools)
    second = bring_up(project, tools, variant="int8").release
    back(project, tools)
    outcome = back(project, tools, to=2)
    assert outcome.release.plan == second.plan
    assert tools.records.history().held == (outcome.held,) != (second.content,)


def test_rollback_of_counts_only_holds_nothing(project, tools):
    bring_up(project, tools)
    scaled(project, tools, ScaleOverride(min_replicas=3, max_replicas=3))
    outcome = back(project, tools, to=1)
    assert outcome.held is None and lock_of(tools).override is None and tools.target.serving.plan.replicas == 1


def test_rollback_without_an_earlier_content_is_refused(project, tools):
    with pytest.raises(NotFound):
        back(project, tools)
    bring_up(project, tools)
    with pytest.raises(NotFound) as refusal:
        back(project, tools)
    assert refusal.value.code == "nothing-to-roll-back"
    with pytest.raises(NotFound):
        back(project, tools, to=7)


@pytest.mark.parametrize("step", ["hold", "append", "apply", "status"])
def test_a_killed_rollback_completes_and_does_not_go_further_back(project, tools, monkeypatch, step):
    bring_up(project, tools, variant="oldest")
    wanted = bring_up(project, tools).release
    left = bring_up(project, tools, variant="int8").release

    def die(*_, **__):
        raise Killed

    place = tools.records if step in ("hold", "append") else tools.target
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, step, die)
        back(project, tools)
    outcome = back(project, tools) if step != "status" else bring_up(project, tools)
    assert outcome.release.plan == wanted.plan == tools.target.serving.plan
    assert tools.records.history().held == (left.content,)
    assert len(revisions(tools)) == 4


def test_a_rollback_that_does_not_start_leaves_what_served_free(project, tools):
    bring_up(project, tools)
    second = bring_up(project, tools, variant="int8").release
    tools.target.fail = {3: "the disk is full"}
    with pytest.raises(RolledBack) as failure:
        back(project, tools)
    assert "revision 2 keeps serving" in failure.value.message
    newest = tools.records.history().current
    assert (newest.action, newest.rolled_back_to, newest.plan) == ("rollback", 2, second.plan)
    assert tools.records.history().held == () == lock_of(tools).held and lock_of(tools).variant == "int8"
    tools.target.fail = {}
    assert not bring_up(project, tools, variant="int8").changed or tools.target.serving.plan == second.plan


# --- scale ------------------------------------------------------------------------------------------------------------


def test_scale_keeps_the_content_and_up_keeps_the_scale(project, tools):
    first = bring_up(project, tools).release
    outcome = scaled(project, tools, ScaleOverride(min_replicas=3, max_replicas=3, reason="sale"))
    assert outcome.replicas_ready == 3 and outcome.release.action == "scale" and outcome.release.content == first.content
    assert lock_of(tools).override.min_replicas == 3
    ask = Asked()
    assert not bring_up(project, tools, ask=ask).changed
    notices = plan(project, "local", tools).planned.notices
    assert any("set by hand to 3 (sale)" in n for n in notices)
    assert scaled(project, tools, None).release.plan == first.plan


def test_bounds_and_then_up_is_no_change(project, tools):
    bring_up(project, tools)
    scaled(project, tools, ScaleOverride(min_replicas=2, max_replicas=2))
    outcome = scaled(project, tools, ScaleOverride(min_replicas=1, max_replicas=4))
    assert outcome.release.plan.replicas == 2  # goes on from what runs
    assert not bring_up(project, tools).changed


def test_the_same_scale_twice_is_one_release(project, tools):
    bring_up(project, tools)
    scaled(project, tools, ScaleOverride(min_replicas=2, max_replicas=2))
    assert not scaled(project, tools, ScaleOverride(min_replicas=2, max_replicas=2)).changed
    assert len(revisions(tools)) == 2


def test_a_scale_with_an_end_gives_way_by_itself(project, tools):
    bring_up(project, tools)
    until_s = tools.clock.now_s() + 7200
    release = scaled(project, tools, ScaleOverride(min_replicas=3, max_replicas=3, until_s=until_s)).release
    assert release.plan.scaling_at(until_s - 1).min_replicas == 3
    assert release.plan.scaling_at(until_s).max_replicas == 1
    tools.clock.sleep_s(7300)
    outcome = bring_up(project, tools)
    assert outcome.changed and outcome.release.plan.replicas == 1


def test_a_scale_up_that_does_not_start_goes_back_to_what_serves(project, tools):
    bring_up(project, tools)
    tools.target.fail[2] = "revision 2 was given up: no memory left"
    with pytest.raises(RolledBack, match="revision 1 keeps serving"):
        scaled(project, tools, ScaleOverride(min_replicas=2, max_replicas=2))
    assert revisions(tools) == [(1, "up"), (2, "scale"), (3, "rollback")]
    assert tools.records.history().current.plan == tools.records.history().revision(1).plan
    assert lock_of(tools).override is None and tools.records.history().held == ()
    bring_up(project, tools)
    assert len(revisions(tools)) == 3


def test_scale_over_the_limit_is_refused(project, tools):
    bring_up(project, tools)
    limited = dataclasses.replace(project, environments=(Environment(name="local", limits=Limits(max_replicas=2)),))
    with pytest.raises(Refused) as refusal:
        scaled(limited, tools, ScaleOverride(min_replicas=3, max_replicas=3))
    assert refusal.value.code == "over-limit" and len(revisions(tools)) == 1 and lock_of(tools).override is None


def test_scale_needs_a_running_release(project, tools):
    with pytest.raises(NotFound) as refusal:
        scaled(project, tools, ScaleOverride(min_replicas=3, max_replicas=3))
    assert refusal.value.code == "nothing-released"
    bring_up(project, tools)
    down(tools, NotedProgress())
    with pytest.raises(NotFound) as refusal:
        scaled(project, tools, ScaleOverride(min_replicas=3, max_replicas=3))
    assert refusal.value.code == "not-running"


# --- looking ----------------------------------------------------------------------------------------------------------


def test_history_marks_what_serves_and_what_is_held(project, tools):
    bring_up(project, tools)
    bring_up(project, tools, variant="int8")
    back(project, tools)
    rows = history(project, "local", tools)
    assert [(r.release.revision, r.serving, r.held) for r in rows] == [(1, False, False), (2, False, True), (3, True, False)]


def test_status_from_nothing_to_serving(project, tools):
    view = status.status(project, "local", tools)
    assert view.health == "stopped" and view.exit_code == 6 and "never" not in view.message and view.p99_s is None
    bring_up(project, tools)
    now_s = tools.clock.now_s()
    tools.target.rows = tuple({"at_s": now_s - 10 + i, "arrivals_rps": 40.0 + i, "p99_s": 0.05 + i / 100} for i in range(10))
    view = status.status(project, "local", tools)
    assert view.health == "healthy" and view.exit_code == 0 and view.revision_serving == 1
    assert view.p99_s == pytest.approx(0.14) and view.slo_kept is False and view.load_rps == 49.0


def test_old_measurements_are_unknown_not_zero(project, tools):
    bring_up(project, tools)
    tools.target.rows = ({"at_s": tools.clock.now_s() - 500, "arrivals_rps": 40.0, "p99_s": 0.05},)
    view = status.status(project, "local", tools)
    assert view.p99_s is None and view.slo_kept is None and view.load_rps is None


def test_call_sends_the_sample_text_or_data(project, tools):
    with pytest.raises(NotFound):
        call.prepare(project, tools, text=None, data=None)
    bring_up(project, tools)
    request = call.prepare(project, tools, text=None, data=None, line=3)
    assert request.inputs["INPUT0"]["shape"] == [1, 8]
    assert call.send(tools, request, timeout_s=1.0).outputs["OUTPUT0"] == [1.0] * 8
    given = call.prepare(project, tools, text=None, data='{"INPUT0": [2, 3]}')
    assert given.inputs["INPUT0"] == {"dtype": "FP32", "shape": [1, 2], "data": [2.0, 3.0]}
    with pytest.raises(Exception, match="takes no text"):
        call.prepare(project, tools, text="hello", data=None)
    with pytest.raises(NotFound):
        call.prepare(project, tools, text=None, data=None, line=4)


class Kept:
    """RepositoryBuilder that only says whether the model answers in pieces."""

    def __init__(self, pieces):
        self.in_pieces = lambda bundle: pieces


def test_snippets_say_the_same_request(project, tools):
    bring_up(project, tools)
    tools.repository = Kept(pieces=False)
    request = call.prepare(project, tools, text=None, data=None)
    curl = call.snippet(tools, request, "curl")
    assert curl.startswith("curl ") and f"{MemoryTarget.URL}/v2/models/svc/infer" in curl
    compile(call.snippet(tools, request, "python"), "snippet", "exec")


def test_snippets_for_answers_in_pieces_use_the_generate_extension(project, tools):
    bring_up(project, tools)
    tools.repository = Kept(pieces=True)
    request = call.prepare(project, tools, text=None, data='{"INPUT0": [2, 3]}')
    curl = call.snippet(tools, request, "curl")
    assert curl.startswith("curl -sN ") and f"{MemoryTarget.URL}/v2/models/svc/generate_stream" in curl
    assert json.loads(curl.partition("-d '")[2][:-1]) == {"INPUT0": [2.0, 3.0]}
    compile(call.snippet(tools, request, "python"), "snippet", "exec")


def test_logs_by_component(tools):
    assert list(logs(tools, replica=None, component="front-door", since_s=None, follow=False)) == ["front-door speaks"]


def test_settings_are_explicit(project, tools):
    bring_up(project, tools)
    assert tools.records.history().current.plan.settings == {"svc": ServingConfig()}
