"""Planning: limits are limits, proofs count only for what they prove, every number is explicit."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import codec
from deployctl.core.bundle import Bundle
from deployctl.core.demand import RateStep, SizeShare
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.forecast import Forecast
from deployctl.core.lock import Lock, ScaleOverride, Tuned
from deployctl.core.plan import Plan
from deployctl.core.plan_view import plan_lines
from deployctl.core.planner import demand_for, mismatches, mix_of, plan, trace_ratio
from deployctl.core.profile import ColdStart, ServiceProfile
from deployctl.core.project import Environment, Limits, ModelSource, Project, ScalingSpec, Traffic
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.core.slo import Objective, Slo
from deployctl.core.verdict import Verdict
from deployctl.errors import ProjectError, Refused, SloUnreachable

SLO = Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),))
FAST = ServingConfig(max_batch=16, queue_delay_s=0.002, instances=2)
NOW_S = 1_800_000_000.0


def a_project(**place):
    return Project(
        name="svc",
        model=ModelSource(kind="onnx", value="m.onnx"),
        slo=SLO,
        traffic=Traffic(steps=(RateStep(start_s=0.0, rate_rps=40.0),)),
        environments=(Environment(name="local", **place), Environment(name="prod", on="kubernetes")),
    )


def a_bundle():
    model = ModelSpec(name="svc", backend="python", inputs=(), outputs=(), parameters={})
    whole = dataclasses.replace(model, name="whole", backend="ensemble", tunable=False)
    return Bundle(name="svc", entry="whole", variant="int8", models=(model, whole), files=(), sample="sha256:0")


def a_proof(project, bundle, **changes):
    key = EvidenceKey(bundle=bundle.digest, device="cpu-2c", triton_version="2.51.0", demand=demand_for(project, ()), slo=SLO)
    verdict = Verdict(result="PASS", objectives=(), requests=1, failed=0, late_sends=0, offered_rps=40, reached_rps=40)
    profile = ServiceProfile(
        stages=(), overhead_s=0.001, device="cpu-2c", bundle=bundle.digest, triton_version="2.51.0", cold_start=ColdStart(load_s=2.0, warmup_s=1.0)
    )
    forecast = Forecast(p50_s=0.01, p95_s=0.03, p99_s=0.04, utilisation_ratio=0.5, throughput_rps=40, method="simulation", error_ratio=0.06)
    proof = Evidence(
        key=key, settings={"svc": FAST}, replicas=2, profile=profile, forecast=forecast, verdict=verdict, error_ratio=0.06, probes=9, versions={}
    )
    return dataclasses.replace(proof, **changes)


def tuned_lock(proof, **changes):
    tuned = Tuned(settings={"svc": FAST}, replicas=2, max_replicas=4, target=0.6, signal="busy_ratio", evidence=proof.digest, capacity_rps=31.5)
    return Lock(env="local", bundle=proof.key.bundle, tuned=dataclasses.replace(tuned, **changes))


def planned(project, lock, evidence=None, *, env="local", bundle=None, **facts):
    facts = {"triton_version": "2.51.0", "device": "cpu-2c", "now_s": NOW_S, **facts}
    return plan(project, env, bundle=bundle or a_bundle(), lock=lock, evidence=evidence, **facts)


def test_untuned_runs_here_with_packaged_settings_and_a_notice():
    result = planned(a_project(), Lock(env="local"))
    assert result.plan.settings == {"svc": ServingConfig()} and result.plan.replicas == 1 and not result.proven
    assert result.plan.forecast is None and result.plan.evidence is None
    assert any("not proven on cpu-2c" in n for n in result.notices)


def test_untuned_elsewhere_is_refused_unless_asked_for():
    with pytest.raises(Refused) as refusal:
        planned(a_project(), Lock(env="prod"), env="prod")
    assert refusal.value.code == "unproven" and refusal.value.exit_code == 5
    assert planned(a_project(), Lock(env="prod"), env="prod", unverified=True).plan.target == "kubernetes"


def test_proven_settings_carry_their_proof_and_forecast():
    project, bundle = a_project(), a_bundle()
    proof = a_proof(project, bundle)
    result = planned(project, tuned_lock(proof), proof)
    assert result.proven and result.notices == ()
    assert result.plan.evidence == proof.digest and result.plan.forecast == proof.forecast and result.plan.settings == {"svc": FAST}
    assert (result.plan.replicas, result.plan.scaling.min_replicas, result.plan.scaling.max_replicas) == (2, 2, 4)
    assert result.plan.scaling.target == 0.6 and result.plan.scaling.start_up_s == 3.0 and result.plan.scaling.capacity_rps == 31.5
    assert result.cores == 4


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"device": "cpu-8c"}, "device cpu-2c, this is cpu-8c"),
        ({"triton_version": "2.60.0"}, "Triton 2.51.0"),
        ({"sizes": (4, 8)}, "other traffic"),
    ],
)
def test_a_proof_for_something_else_does_not_count(facts, word):
    project, bundle = a_project(), a_bundle()
    proof = a_proof(project, bundle)
    with pytest.raises(Refused) as refusal:
        planned(project, tuned_lock(proof), proof, **facts)
    assert refusal.value.code == "unproven" and refusal.value.exit_code == 5 and word in refusal.value.why
    allowed = planned(project, tuned_lock(proof), proof, unverified=True, **facts)
    assert allowed.plan.settings == {"svc": FAST} and allowed.plan.evidence is None and allowed.plan.forecast is None
    assert any("not proven" in n and word in n for n in allowed.notices)


def test_a_changed_slo_bundle_verdict_or_missing_file_does_not_count():
    project, bundle = a_project(), a_bundle()
    proof = a_proof(project, bundle)
    tighter = Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.05),))
    assert mismatches(proof.key, proof) == []
    assert "another SLO (p99 100 ms; now p99 50 ms)" in mismatches(dataclasses.replace(proof.key, slo=tighter), proof)[0]
    assert "bundle" in mismatches(dataclasses.replace(proof.key, bundle="sha256:" + "b" * 64), proof)[0]
    failed = dataclasses.replace(proof, verdict=dataclasses.replace(proof.verdict, result="FAIL"))
    assert mismatches(proof.key, failed) == ["its verdict is FAIL"]
    with pytest.raises(Refused, match="not proven"):
        planned(project, tuned_lock(proof), None)


def test_an_slo_that_needs_more_than_the_limit_is_infeasible():
    project, bundle = a_project(limits=Limits(max_replicas=1)), a_bundle()
    proof = a_proof(project, bundle)
    with pytest.raises(SloUnreachable) as refusal:
        planned(project, tuned_lock(proof), proof)
    assert refusal.value.exit_code == 96 and refusal.value.code == "slo-over-limit"


def test_the_upper_bound_is_capped_and_the_lower_limit_raises():
    bundle = a_bundle()
    proof = a_proof(a_project(), bundle)
    result = planned(a_project(limits=Limits(min_replicas=3, max_replicas=3)), tuned_lock(proof), proof)
    assert (result.plan.replicas, result.plan.scaling.max_replicas) == (3, 3)


def test_an_override_is_kept_with_a_notice_and_below_the_proof_has_no_forecast():
    project, bundle = a_project(), a_bundle()
    proof = a_proof(project, bundle)
    lock = dataclasses.replace(tuned_lock(proof), override=ScaleOverride(min_replicas=1, max_replicas=1, reason="saving"))
    result = planned(project, lock, proof)
    assert result.plan.replicas == 1 and result.plan.forecast is None and result.plan.evidence == proof.digest
    assert any("by hand to 1 (saving)" in n for n in result.notices) and any("below the 2 replicas" in n for n in result.notices)


def test_an_override_that_ran_out_counts_no_more():
    lock = Lock(env="local", override=ScaleOverride(min_replicas=3, max_replicas=3, until_s=NOW_S))
    result = planned(a_project(), lock)
    assert result.plan.replicas == 1 and result.plan.scaling_until_s is None and any("has run out" in n for n in result.notices)
    later = dataclasses.replace(lock, override=dataclasses.replace(lock.override, until_s=NOW_S + 7200))
    held = planned(a_project(), later)
    assert held.plan.replicas == 3 and any("for 2h more" in n for n in held.notices)
    assert held.plan.scaling_at(NOW_S + 7199).max_replicas == 3 and held.plan.scaling_at(NOW_S + 7200).max_replicas == 1


def test_an_override_over_the_limit_is_refused():
    with pytest.raises(Refused) as refusal:
        planned(a_project(limits=Limits(max_replicas=2)), Lock(env="local", override=ScaleOverride(min_replicas=1, max_replicas=3)))
    assert refusal.value.code == "over-limit"


@given(low=st.integers(1, 20), width=st.integers(0, 20), running=st.integers(1, 60))
def test_an_autoscaled_service_goes_on_from_what_runs_within_bounds(low, width, running):
    lock = Lock(env="local", override=ScaleOverride(min_replicas=low, max_replicas=low + width))
    result = planned(a_project(), lock, running=running).plan
    assert low <= result.replicas <= low + width and (result.replicas == running or running in (*range(1, low), *range(low + width + 1, 61)))


def test_settings_of_a_person_beat_defaults():
    result = planned(a_project(scaling=ScalingSpec(target=0.5, sync_s=5.0, scale_down_window_s=10.0)), Lock(env="local"))
    assert (result.plan.scaling.target, result.plan.scaling.sync_s, result.plan.scaling.scale_down_window_s) == (0.5, 5.0, 10.0)


def test_nothing_packaged_is_said_and_not_invented():
    result = plan(a_project(), "local", bundle=None, lock=Lock(env="local"), evidence=None, triton_version="2.51.0", device="cpu-2c", now_s=NOW_S)
    assert result.plan.bundle is None and "unresolved" in result.notices[0]


def test_an_unknown_environment_names_the_known_ones():
    with pytest.raises(ProjectError) as refusal:
        planned(a_project(), Lock(env="x"), env="staging")
    assert refusal.value.why == "it has: local, prod"


@given(st.lists(st.integers(1, 512), max_size=50))
def test_shares_of_a_mix_add_to_one_in_order(sizes):
    mix = mix_of(sizes)
    assert sum(s.share_ratio for s in mix) == pytest.approx(1.0)
    assert [s.size for s in mix] == sorted(set(sizes) or {1})


def test_a_written_mix_is_kept():
    project = a_project()
    mix = (SizeShare(size=7, share_ratio=1.0),)
    written = dataclasses.replace(project, traffic=dataclasses.replace(project.traffic, mix=mix))
    assert demand_for(written, (4, 8)).mix == mix


def test_a_trace_keeps_its_times():
    project = a_project()
    traced = dataclasses.replace(project, traffic=dataclasses.replace(project.traffic, trace_times_s=(0.0, 0.5)))
    demand = demand_for(traced, ())
    assert demand.arrivals == "trace" and demand.times_s == (0.0, 0.5)


def test_old_triton_traces_only_small_loads():
    assert trace_ratio("2.51.0", 40.0) > 0 == trace_ratio("2.51.0", 1000.0)
    assert trace_ratio("2.57.0", 1000.0) > 0 and trace_ratio("2.60.0rc1", 1000.0) > 0


def test_a_plan_survives_its_file_byte_by_byte():
    project, bundle = a_project(), a_bundle()
    proof = a_proof(project, bundle)
    lock = dataclasses.replace(tuned_lock(proof), override=ScaleOverride(min_replicas=2, max_replicas=3, until_s=NOW_S + 60))
    text = codec.dumps(planned(project, lock, proof).plan)
    assert codec.dumps(codec.loads(Plan, text)) == text


def test_the_shown_plan_says_what_matters():
    project, bundle = a_project(), a_bundle()
    proof = a_proof(project, bundle)
    text = "\n".join(plan_lines(planned(project, tuned_lock(proof), proof), None))
    for words in ("p99 40 ms at 40/s (simulation, last measured error 6 %)", "p99 at most 100 ms, measured at the client", "2 instances", "2..4"):
        assert words in text
    unknown = "\n".join(plan_lines(planned(project, Lock(env="local")), None))
    assert "p99 unknown on cpu-2c: run deployctl tune" in unknown
