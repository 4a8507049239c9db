"""Parts of the local host that need no server: logs, counters, the scaler's caution, the words of a status."""

import json
import math

import pytest
from local_kit import DEMAND, SLO

from deployctl.adapters.envoy import DoorCounters, parse_counters
from deployctl.adapters.processes import ProcessId
from deployctl.adapters.triton.launcher import failure_reason
from deployctl.core import codec
from deployctl.core.artifact import TensorSpec
from deployctl.core.bundle import Bundle
from deployctl.core.decision import ScalingPolicy
from deployctl.core.plan import Plan
from deployctl.core.release import Release
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.errors import ModelError
from deployctl.hosts.local import logs
from deployctl.hosts.local.layout import DoorRecord, EnvFolder, Failure, HostState, ReplicaRecord
from deployctl.hosts.local.meter import DoorMeter, ReplicaMeter, row, signals
from deployctl.hosts.local.replica import check_outputs
from deployctl.hosts.local.scaler import Scaler
from deployctl.hosts.local.telling import status_of
from deployctl.ports import ServerStats, Workspace

BUNDLE = Bundle(
    name="m",
    entry="m",
    variant="fp32",
    files=(),
    sample="sha256:0",
    models=(
        ModelSpec(
            name="m",
            backend="python",
            inputs=(TensorSpec(name="X", dtype="FP32", shape=(2,)),),
            outputs=(TensorSpec(name="Y", dtype="FP32", shape=(-1, 3)),),
            serving=ServingConfig(max_batch=8, instances=2),
            parameters={},
        ),
    ),
)


# ── logs ──


def test_logs_are_merged_by_time_and_cut_by_since(tmp_path):
    (tmp_path / "supervisor.log").write_text("2026-01-01T00:00:01Z begins\n2026-01-01T00:00:05Z serves\n")
    (tmp_path / "replica-1.log").write_text('2026-01-01T00:00:03Z E x.cc:1] "boom"\n  a line that belongs to it\n')
    (tmp_path / "front-door.log").write_text("2026-01-01T00:00:04Z warning main: slow\n")
    lines = list(logs.read(tmp_path, replica=None, since_s=None, follow=False))
    assert [x.split("]")[0] + "]" for x in lines] == ["[supervisor]", "[replica-1]", "[replica-1]", "[front-door]", "[supervisor]"]
    assert lines[3] == "[front-door] 2026-01-01T00:00:04Z warning main: slow"
    assert [x[:12] for x in logs.read(tmp_path, replica=None, since_s=1767225604, follow=False)] == ["[front-door]", "[supervisor]"]
    assert len(list(logs.read(tmp_path, replica="1", since_s=None, follow=False))) == 2


def test_logs_stay_bounded_while_a_writer_appends(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LIMIT_BYTES", 1000)
    with (tmp_path / "replica-1.log").open("a") as writer:
        for number in range(500):
            writer.write(f"line {number}\n")
            writer.flush()
            if number % 50 == 0:
                logs.trim(tmp_path, {"replica-1"})
    logs.trim(tmp_path, {"replica-1"})
    text = (tmp_path / "replica-1.log").read_text()
    assert len(text) <= 1000
    assert text.endswith("line 499\n")
    assert text.startswith("line ")


def test_only_so_many_logs_of_ended_replicas_stay(tmp_path):
    for number in range(logs.KEEP_FILES + 5):
        (tmp_path / f"replica-{number}.log").write_text("x\n")
    (tmp_path / "supervisor.log").write_text("x\n")
    logs.trim(tmp_path, {"supervisor"})
    assert len(list(tmp_path.glob("*.log"))) == logs.KEEP_FILES + 1


# ── counters ──


def stats(at_s, done, executions, compute_s):
    batch = {2: (executions, 0.0, compute_s, 0.0)}
    return ServerStats(
        at_s=at_s,
        success={"m": done},
        failure={"m": 0},
        queue_s={"m": done * 0.01},
        request_s={"m": 0.0},
        executions={"m": executions},
        batch_stats={"m": batch},
        cache_hits={},
    )


def test_busy_ratio_counts_each_execution_once_and_shares_over_instances():
    meter = ReplicaMeter(BUNDLE, {})
    assert meter.rates(10.0) is None
    meter.add(stats(100.0, 0, 0, 0.0), 0)
    meter.add(stats(110.0, 40, 20, 8.0), 3)
    rates = meter.rates(10.0)
    assert rates.busy_ratio == pytest.approx(8.0 / (10.0 * 2))
    assert rates.completions_rps == pytest.approx(4.0)
    assert rates.queue_s == pytest.approx(0.01)
    assert meter.idle() is False


def test_a_replica_that_says_nothing_makes_totals_unknown_not_small():
    known, silent = ReplicaMeter(BUNDLE, {}), ReplicaMeter(BUNDLE, {})
    known.add(stats(100.0, 0, 0, 0.0), 0)
    known.add(stats(110.0, 40, 20, 8.0), 3)
    readings = signals([known, silent], DoorMeter(), 10.0)
    assert readings["completions_rps"].value is None
    assert readings["pending"].value is None
    assert readings["arrivals_rps"].value is None
    assert readings["busy_ratio"].samples == 1


def counters(total, errors=0.0):
    return DoorCounters(latency={0.1: total / 2, math.inf: total}, requests=total, errors=errors, in_flight=1.0)


def test_front_door_counters_survive_a_restart():
    meter = DoorMeter()
    meter.add(100.0, counters(50))
    meter.add(101.0, counters(80, errors=2))
    meter.add(102.0, counters(10, errors=1))  # another process, which begins at zero
    meter.add(103.0, None)
    seconds, requests, errors, latency = meter.window(2.0)
    assert (seconds, requests, errors) == (2.0, 40.0, 3.0)
    assert latency[math.inf] == 40.0
    line = row([], meter, 103.0, 2, 7.0)
    assert line["replicas_ready"] == 2.0
    assert line["core_seconds"] == 7.0


def test_counters_add_http_and_grpc_and_what_was_never_counted_is_zero():
    def histogram(*counts):
        buckets = [{"upper_bound": bound, "interval": 0, "cumulative": count} for bound, count in zip((1, 100), counts, strict=True)]
        return {"buckets": buckets}

    values = {"http-infer.upstream_rq_completed": 5, "grpc-infer.upstream_rq_completed": 2, "grpc-infer.upstream_rq_5xx": 1}
    gauges = {"http-infer.upstream_rq_active": 2, "http-infer.upstream_rq_pending_active": 1}
    stats = [{"name": f"cluster.{name}", "value": value} for name, value in (values | gauges).items()]
    text = json.dumps({"stats": [*stats, {"histograms": [histogram(3, 5), histogram(0, 1)]}]}).encode()
    seen = parse_counters(text)
    assert (seen.requests, seen.errors, seen.in_flight) == (7.0, 1.0, 3.0)
    assert seen.latency == {0.001: 3.0, 0.1: 6.0, math.inf: 6.0}
    assert parse_counters(b'{"stats": []}') == DoorCounters(latency={}, requests=0.0, errors=0.0, in_flight=0.0)


# ── the scaler ──


def idle_meters(count):
    meters = []
    for _ in range(count):
        meter = ReplicaMeter(BUNDLE, {})
        meter.add(stats(100.0, 0, 0, 0.0), 0)
        meter.add(stats(110.0, 1, 1, 0.001), 0)
        meters.append(meter)
    return meters


POLICY = ScalingPolicy(min_replicas=1, max_replicas=4, target=0.5, signal="busy_ratio", sync_s=5.0, scale_down_window_s=60.0)


def test_a_new_supervisor_does_not_scale_down_before_it_remembers():
    scaler = Scaler(0.0)
    numbers = []
    for now_s in range(0, 200, 5):
        wanted = numbers[-1] if numbers else 3
        numbers.append(scaler.decide(POLICY, idle_meters(wanted), DoorMeter(), ready=wanted, starting=0, wanted=wanted, now_s=float(now_s)))
    assert numbers[:12] == [3] * 12
    assert numbers[-1] == 1


def test_silence_never_scales_down():
    scaler = Scaler(0.0)
    silent = [ReplicaMeter(BUNDLE, {}) for _ in range(3)]
    for now_s in range(0, 500, 5):
        assert scaler.decide(POLICY, silent, DoorMeter(), ready=3, starting=0, wanted=3, now_s=float(now_s)) == 3
    assert scaler.says.startswith("unknown")


# ── words ──


def release(revision=1):
    plan = Plan(
        service="m",
        env="local",
        target="local",
        bundle="sha256:1",
        entry="m",
        settings={},
        replicas=1,
        scaling=ScalingPolicy(),
        slo=SLO,
        demand=DEMAND,
        triton_version="2.51.0",
        device="cpu-2c",
    )
    return Release(revision=revision, created_at_s=0.0, action="up", plan=plan)


def record(name, state="ready", routed=True):
    process = ProcessId(pid=1, start_ticks=1)
    return ReplicaRecord(name=name, revision=1, content=release().content, state=state, reason="r", since_s=0.0, process=process, in_rotation=routed)


DOOR = DoorRecord(process=ProcessId(pid=1, start_ticks=1), http_port=1, grpc_port=2)
FAILURE = Failure(content=release().content, count=3, reason="no module named x", next_start_s=0.0)


@pytest.mark.parametrize(
    ("state", "phase", "says"),
    [
        (HostState(door=DOOR, replicas_wanted=1), "starting", "0 of 1 replicas of revision 1 ready"),
        (HostState(door=DOOR, replicas_wanted=1, serving=1, replicas=(record("a"),)), "serving", "1 of 1 replicas answer"),
        (HostState(door=DOOR, replicas_wanted=2, serving=1, replicas=(record("a"), record("b", "hung"))), "degraded", "1 of 2 replicas answer; b: r"),
        (HostState(door=DOOR, replicas_wanted=1, failure=FAILURE), "failed", "no module named x"),
        (HostState(door=DOOR, failed=1, failed_reason="bad", serving=None), "failed", "revision 1 was given up: bad"),
        (HostState(door=DOOR, replicas_wanted=1, serving=7, replicas=(record("a"),)), "rolling", "1 of 1 replicas of revision 1 ready"),
    ],
)
def test_phase_and_message(state, phase, says):
    status = status_of(state, release(), trouble="", says="", recent=())
    assert (status.phase, says in status.message) == (phase, True), status.message
    assert codec.loads(type(status), codec.dumps(status)) == status


def test_a_front_door_that_cannot_start_is_the_first_thing_told():
    status = status_of(HostState(), release(), trouble="port 8000 of this machine is taken by another program", says="", recent=())
    assert (status.phase, status.url) == ("failed", None)
    assert "8000" in status.message


def test_state_survives_a_round_trip_and_damage_is_no_obstacle(tmp_path):
    folder = EnvFolder(Workspace(tmp_path), "local")
    state = HostState(replicas=(record("a"),), door=DOOR, failure=FAILURE, sequence=3)
    folder.save(state)
    assert folder.load() == state
    assert folder.state_file.stat().st_mode & 0o077 == 0
    folder.state_file.write_text('{"sequence": ')
    assert folder.load() == HostState()


# ── answers and reasons ──


@pytest.mark.parametrize("answer", [{}, {"Y": []}, {"Y": [[1.0]]}, {"Y": [[[1.0, 2.0]]]}, {"Y": [[]]}])
def test_a_wrong_answer_is_refused(answer):
    with pytest.raises(ModelError) as raised:
        check_outputs(BUNDLE, answer)
    assert raised.value.code == "canary-wrong"


def test_a_right_answer_passes():
    check_outputs(BUNDLE, {"Y": [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]})


def test_the_reason_is_the_models_not_the_noise():
    log = """2026-11-22T13:57:46Z E 24758 server.cc:241] "CudaDriverHelper has not been initialized."
2026-11-22T13:57:46Z I 24758 model_lifecycle.cc:472] "loading: m:1"
2026-11-22T13:57:47Z E 24758 model_lifecycle.cc:642] "failed to load 'm' version 1: Internal: ValueError: weights are missing

At:
  /repo/m/1/model.py(3): initialize
"
error: creating server: Internal - failed to load all models
"""
    assert failure_reason(log) == ("m", "Internal: ValueError: weights are missing")
    assert failure_reason("error: creating server: Invalid argument - no such folder")[0] is None
