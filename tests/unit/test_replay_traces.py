"""Traces from tables, replays from traces, the document, the page, the compiled rules as text."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deployctl.cli.main import run
from deployctl.core import replay, rules, traces
from deployctl.core.advise import present, quantity
from deployctl.core.decision import ScalingPolicy
from deployctl.core.fluid import Plant
from deployctl.core.policies import POLICIES
from deployctl.core.policies.slo import EXPERTS
from deployctl.core.profile import ColdStart
from deployctl.errors import DeployctlError, ProjectError
from deployctl.flows.replay import Question
from deployctl.flows.replay import replay as flow
from deployctl.report import replay as report

PLANT = Plant(capacity_rps=40.0, start_up_s=30)


class Quiet:
    def step(self, message: str) -> None: ...
    def update(self, message: str) -> None: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


def test_counts_become_arrivals_with_the_same_sum_and_the_same_seed_the_same_bytes() -> None:
    table = "minute,requests\n" + "".join(f"{i},{600 + 60 * i}\n" for i in range(10))
    first = traces.parse(table, column="requests", per_s=60.0, seed=4)
    again = traces.parse(table, column="requests", per_s=60.0, seed=4)
    other = traces.parse(table, column="requests", per_s=60.0, seed=5)
    assert first.arrivals.tobytes() == again.arrivals.tobytes() != other.arrivals.tobytes()
    assert first.duration_s == 600 and first.resolution_s == 60.0
    assert first.arrivals.sum() == pytest.approx(8700, rel=0.05)


def test_linear_within_an_interval_has_no_step() -> None:
    rate = traces.spread(np.array([10.0, 20.0, 10.0]), per_s=300.0, within="linear")
    assert rate[150] == pytest.approx(10.0, abs=0.1) and rate[450] == pytest.approx(20.0, abs=0.1)
    assert np.abs(np.diff(rate)).max() < 0.05


@pytest.mark.parametrize(
    "column, cells, seconds",
    [
        ("t", ["0.2", "1.7", "1.9", "5.0"], [1, 2, 0, 0, 1]),
        ("t_ms", ["200", "1700", "1900", "5000"], [1, 2, 0, 0, 1]),
        ("when", ["2023-11-16 18:17:03.9", "2023-11-16T18:17:05.0", "2023-11-16 18:17:05.4"], [1, 2]),
    ],
)
def test_single_arrivals(column: str, cells: list[str], seconds: list[int]) -> None:
    found = traces.parse("\n".join([column, *cells]), column=column, per_s=None)
    assert found.arrivals.tolist() == seconds


@pytest.mark.parametrize(
    "text, column, per_s, code",
    [
        ("a,b\n1,2\n", "c", 60.0, "trace-column-missing"),
        ("a\n1\nx\n", "a", 60.0, "trace-cell-invalid"),
        ("a\n-1\n", "a", 60.0, "trace-cell-invalid"),
        ("a\nnan\n", "a", 60.0, "trace-cell-invalid"),
        ("a\nyesterday\n", "a", None, "trace-cell-invalid"),
        ("a\n", "a", 60.0, "trace-empty"),
        ("", "a", 60.0, "trace-empty"),
    ],
)
def test_a_bad_table_names_the_place(text: str, column: str, per_s: float | None, code: str) -> None:
    with pytest.raises(ProjectError) as caught:
        traces.parse(text, column=column, per_s=per_s, where="day.csv")
    assert caught.value.code == code
    assert (caught.value.where or "").startswith("day.csv")


class Notes(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("stated_s", [None, 12.0])
def test_a_measured_start_is_told_by_its_stages_and_a_stated_one_is_not(tmp_path: Path, stated_s: float | None) -> None:
    (tmp_path / "day.csv").write_text("n\n" + "40\n" * 600)
    cold = ColdStart(process_s=1.0, fetch_s=0.5, load_s=4.0, warmup_s=0.25, first_reply_s=0.25)
    plan = SimpleNamespace(scaling=ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=cold.total_s), evidence="sha256:1", forecast=None)
    tools = SimpleNamespace(
        records=SimpleNamespace(history=lambda: SimpleNamespace(current=SimpleNamespace(plan=plan))),
        evidence=SimpleNamespace(get={"sha256:1": SimpleNamespace(profile=SimpleNamespace(cold_start=cold))}.get),
    )
    project = SimpleNamespace(slo=SimpleNamespace(latency=SimpleNamespace(max=1.0)))
    asked = Question(trace=tmp_path / "day.csv", column="n", per_s=1.0, start_up_s=stated_s, out=tmp_path / "r.html")
    said = Notes()
    done = flow(project, tools, said, asked)  # type: ignore[arg-type]
    by_stage = {"process": 1.0, "fetch": 0.5, "load": 4.0, "warm-up": 0.25, "first reply": 0.25}
    assert done.document["plant"]["start_up_by_stage_s"] == ({} if stated_s else by_stage)
    told = "a replica takes 6 s to start: process 1 s, fetch 500 ms, load 4 s, warm-up 250 ms, first reply 250 ms"
    assert [note for note in said.notes if "to start" in note] == ([] if stated_s else [told])
    page = (tmp_path / "r.html").read_text()
    assert ("6 s to start (process 1 s, fetch 0.5 s, load 4 s, warm-up 0.25 s, first reply 0.25 s)." in page) is (stated_s is None)
    assert ("12 s to start." in page) is (stated_s is not None)


def test_history_is_learned_from_and_not_judged() -> None:
    arrivals = np.concatenate([np.full(1800, 400.0), np.full(1800, 40.0)])
    run = replay.replay(traces.Trace(name="t", arrivals=arrivals, history_s=1800), PLANT, replay.peer("hpa", PLANT))
    whole = replay.replay(traces.Trace(name="t", arrivals=arrivals), PLANT, replay.peer("hpa", PLANT))
    assert run.outcome.cost_s < whole.outcome.cost_s
    assert run.changes == whole.changes


def test_a_flow_from_a_file_to_a_table_and_a_page(tmp_path: Path) -> None:
    rate = 200 + 120 * np.sin(np.arange(120) / 10)
    (tmp_path / "day.csv").write_text("minute,n\n" + "".join(f"{i},{int(r * 60)}\n" for i, r in enumerate(rate)))
    asked = Question(
        trace=tmp_path / "day.csv", column="n", per_s=60.0, capacity_rps=40.0, start_up_s=30.0, against=("hpa", "kpa"), out=tmp_path / "r.html"
    )
    done = flow(None, None, Quiet(), asked)
    assert [row[0] for row in done.rows] == ["slo", "hpa", "kpa", "minimum possible", "without foresight"]
    json.dumps(done.document, allow_nan=False)
    page = (tmp_path / "r.html").read_text()
    assert len(page) < 300_000
    assert page.count("<svg") == 12
    for name in ("hpa", "kpa"):  # a name explains itself
        assert report.ABOUT[name].replace("'", "&#39;") in page
    assert "minimum possible" in page and "SLO 1 s" in page
    assert "<script" not in page and "http://" not in page and "https://" not in page.replace("http-equiv", "")
    with pytest.raises(ProjectError) as caught:
        flow(None, None, Quiet(), Question(trace=tmp_path / "day.csv", column="n", per_s=60.0))
    assert caught.value.code == "capacity-unknown"
    with pytest.raises(DeployctlError) as missing:
        flow(None, None, Quiet(), Question(trace=tmp_path / "no.csv", column="n", capacity_rps=1.0, start_up_s=1.0))
    assert missing.value.code == "file-unreadable"


def test_the_best_hpa_in_hindsight_keeps_the_promise_and_is_the_cheapest_found() -> None:
    t = np.arange(3 * 3600)
    trace = traces.Trace(name="sine", arrivals=traces.poisson(260 + 100 * np.sin(t / 1500), seed=2))
    found = replay.search_hpa(trace, PLANT)
    assert found and all(result.keeps(start_up_s=30) for result, _ in found)
    costs = [result.cost_s for result, _ in found]
    assert costs == sorted(costs)
    closed = replay.replay(trace, PLANT, found[0][1])
    assert closed.outcome.cost_s == pytest.approx(costs[0], rel=0.02)


def test_compiled_rules_carry_their_labels_and_one_rule_an_envelope() -> None:
    settings = ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=60.0, max_replicas=9)
    groups = rules.groups(settings, selector='namespace="p",model="m"', labels={"service": "s", "namespace": "p"})
    every = [rule for group in groups for rule in group["rules"]]
    assert all({"service", "namespace"} <= set(rule["labels"]) for rule in every)
    assert {rule["labels"].get("expert") for rule in every if rule["record"] in (rules.RAW, rules.HELD)} - {None} == {e.name for e in EXPERTS}
    assert len({e.name for e in EXPERTS}) == len(EXPERTS)
    assert [rule["record"] for rule in every[-2:]] == [rules.WANTED, rules.FOLLOWED]
    json.dumps(groups)


@pytest.mark.parametrize("text, value", [("50", 50.0), ("500m", 0.5), ("2k", 2000.0), (3, 3.0), ("abc", None), (None, None)])
def test_quantities(text: object, value: float | None) -> None:
    assert quantity(text) == value


def test_somebody_elses_autoscaler_becomes_settings() -> None:
    behaviour = {"scaleDown": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}
    hpa = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "t"}, "spec": {"maxReplicas": 5, "behavior": behaviour, "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}}  # fmt: skip
    found = present([{"kind": "Service"}, hpa])
    assert found is not None
    assert (found.settings.signal, found.settings.target, found.settings.scale_down_window_s) == ("busy_ratio", 0.7, 60.0)
    assert found.settings.down_limits[0].value == 10
    keda = {"kind": "ScaledObject", "metadata": {"name": "t"}, "spec": {"maxReplicaCount": 4, "triggers": [
        {"type": "prometheus", "metadata": {"query": "sum(rate(nv_inference_request_success[1m]))", "threshold": "30"}}]}}  # fmt: skip
    other = present([keda])
    assert other is not None and (other.settings.policy, other.settings.signal, other.settings.target) == ("keda", "arrivals_rps", 30.0)
    assert present([{"kind": "Deployment"}]) is None


def test_the_screen_of_a_replay_says_what_each_policy_is_and_aims_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "day.csv").write_text("n\n" + "600\n" * 3)
    words = ["--replay", str(tmp_path / "day.csv"), "--per", "60s", "--capacity", "40/s", "--start-up", "30s", "--against", "hpa,kpa"]
    assert run(["-C", str(tmp_path), "scale", *words]) == 0
    table, _, legend = capsys.readouterr().out.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["slo", "hpa", "kpa"]
    said = " ".join(legend.split())
    assert "hpa Kubernetes' own autoscaler (HPA); aims at 70% busy" in said and "kpa Knative's autoscaler; aims at 0.7 requests in progress" in said
    assert "a replica serves 40/s and takes 30 s to start" in said and max(len(line) for line in legend.splitlines()) <= 100


def test_every_policy_says_what_it_is() -> None:
    assert set(report.ABOUT) == set(POLICIES)


@pytest.mark.parametrize(("heights", "history", "can"), [((60, 100, 140), 0, False), ((60, 100, 140), 1, True), ((60, 60, 60), 0, False)])
def test_windows_that_only_a_reserve_keeps_leave_no_cost_for_a_scaler_without_foresight(heights, history, can):
    """A base load of 20 with 40 s of a height in each five minutes; the history has seen the highest of them."""
    peak = np.full(300, 20.0)
    peak[100:140] = 140.0
    load = np.full(300 * len(heights), 20.0)
    for i, height in enumerate(heights):
        load[300 * i + 100 : 300 * i + 140] = height
    recorded = traces.Trace(name="steps", arrivals=np.concatenate([*[peak] * history, load]), history_s=300 * history)
    least = replay.yardstick(recorded, PLANT, miss_ratio=0.5)
    document = report.document(recorded, PLANT, [replay.replay(recorded, PLANT, replay.peer("slo", PLANT))], least, slo_s=1.0)
    assert least.unforeseen.feasible and least.can_react is can
    assert (document["bound"]["without_foresight_hours"] is not None) is can
    assert (document["bound"]["without_foresight_least_broken_ratio"] == 0.0) is can
