"""What `tune` prints: every candidate with its reason, the choice, and where it was measured."""

import dataclasses
import json

import pytest
from forecast_models import profile, stage

from deployctl.cli._console import show_error
from deployctl.cli.tune import _candidates, _table, showing_candidates
from deployctl.core import codec, sizing, tuner
from deployctl.core.demand import constant
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario
from deployctl.core.slo import Objective, Slo
from deployctl.core.verdict import Interval, ObjectiveVerdict, Verdict
from deployctl.errors import SloUnreachable
from deployctl.flows._search import _jointly
from deployctl.flows.tune import Tuning

SLO = Slo(objectives=(Objective(metric="latency", max=0.05, percentile=99.0),))


@pytest.fixture(scope="module")
def estimate():
    """One that keeps the SLO."""
    quick = Scenario(requests=2000)
    return sizing.size(profile(stage()), {"m": ServingConfig(max_batch=4)}, constant(50.0), SLO, limit=1, seed=1, scenario=quick)


def test_table_names_reasons_choice_and_point_of_measurement():
    p, demand = profile(stage()), constant(150.0)
    axes = tuner.Axes(max_batch=(1, 4), queue_delay_s=(0.0,), instances=(1,))
    quick = Scenario(requests=3000)
    rows = [sizing.size(p, c, demand, SLO, limit=1, seed=1, scenario=quick) for c in tuner.candidates(axes, ["m"])]
    outcome = ObjectiveVerdict(
        metric="latency", percentile=99.0, max=0.05, estimate=0.02, interval=Interval(low=0.01, high=0.03), result="PASS", reason="keeps 50 ms"
    )
    verdict = Verdict(result="PASS", objectives=(outcome,), requests=9, failed=0, late_sends=0, offered_rps=1.0, reached_rps=1.0)
    key = EvidenceKey(bundle="sha256:0", device="cpu-2c", triton_version="2.51.0", demand=demand, slo=SLO)
    evidence = Evidence(
        key=key, settings=rows[1].settings, replicas=1, profile=p, forecast=rows[1].forecast, verdict=verdict, error_ratio=-0.1, probes=7, versions={}
    )
    tested = tuner.Tested(estimate=rows[1], verdict=verdict, measured_s=0.02)
    text = _table(Tuning(evidence=evidence, estimates=tuple(rows), tested=(tested,), reused=False))
    assert len([line for line in text.splitlines() if line.startswith(("1 ", "4 "))]) == 2
    assert "chosen    m: batch 4, 1 instance; 1 replica" in text
    assert "PASS: latency, keeps 50 ms (at the client)" in text and "off by -10%" in text and "7 live measurements" in text
    assert "why       the cheapest that keep the SLO" in text and "limit     m saturates first" in text
    assert "second    m: batch 1, 1 instance; costs the same" in text


@pytest.fixture(scope="module")
def too_slow():
    """Every candidate for more than the service can do: batches of one saturate, larger ones are late."""
    p, demand, quick = profile(stage()), constant(230.0), Scenario(requests=3000)
    strict = Slo(objectives=(Objective(metric="latency", max=0.011, percentile=99.0),))
    axes = tuner.Axes(max_batch=(1, 4, 8), queue_delay_s=(0.0, 0.005), instances=(1,))
    return strict, [sizing.size(p, c, demand, strict, limit=1, seed=1, scenario=quick) for c in tuner.candidates(axes, ["m"])]


def test_the_nearest_candidates_come_first_and_those_that_saturate_last(too_slow):
    _, rows = too_slow
    found = tuner.nearest(list(reversed(rows)))
    late = [e.percentile_s for e in found]
    alive = [s for s in late if s is not None]
    assert alive == sorted(alive) and 0 < len(alive) < len(late) and late[: len(alive)] == alive
    assert tuner.infeasible(rows, 1).best == found[0]  # the one that the message names


def test_an_infeasible_search_shows_how_near_each_candidate_comes_before_the_error(too_slow, capsys):
    slo, rows = too_slow
    error = SloUnreachable("no setting keeps the SLO", hint="promise less")
    error.candidates = tuple(tuner.nearest(rows))
    with pytest.raises(SloUnreachable), showing_candidates(slo, err=False):
        raise error
    said = capsys.readouterr()
    title, header, *lines = said.out.splitlines()
    assert title == "nearest to p99 11 ms, by forecast (which must have 10% to spare):" and said.err == ""
    assert header.split("  ")[0] == "batch" and header.endswith("bottleneck") and all(word in header for word in ("cost", "p99 ms", "late"))
    assert f"{error.candidates[0].percentile_s * 1e3:.1f}" in lines[0] and "saturated" not in lines[0]
    assert lines[-1].endswith("saturated") and "  -  " in lines[-1]
    assert len(lines) == len(rows) and max(map(len, said.out.splitlines())) <= 80
    with pytest.raises(SloUnreachable), showing_candidates(slo, err=True):
        raise error
    assert capsys.readouterr() == ("", said.out)


def test_of_many_candidates_the_nearest_ten_are_shown_and_the_json_error_has_all(too_slow, capsys, monkeypatch):
    slo, rows = too_slow
    error = SloUnreachable("no setting keeps the SLO", hint="promise less")
    error.candidates = tuple(rows * 3)
    with pytest.raises(SloUnreachable), showing_candidates(slo, err=False):
        raise error
    assert capsys.readouterr().out.endswith(f"\nand {3 * len(rows) - 10} more\n")
    monkeypatch.setattr("sys.argv", ["deployctl", "tune", "-o", "json"])
    show_error(error)
    shown = json.loads(capsys.readouterr().out)["error"]
    assert codec.from_data(tuple[sizing.Estimate, ...], shown["candidates"]) == error.candidates
    error.candidates = ()  # as where it was missed under load
    show_error(error)
    assert "candidates" not in json.loads(capsys.readouterr().out)["error"]


def joint(batch, instances):
    return {"a": ServingConfig(max_batch=batch, instances=instances), "b": ServingConfig(max_batch=1)}


def test_an_ensemble_shows_every_stage_and_a_long_table_says_what_it_leaves_out(estimate):
    rows = [dataclasses.replace(estimate, settings=joint(batch, 1), cost=batch) for batch in range(1, 40)]
    lines = _candidates(rows)
    assert "a: batch 1, 1 instance; b: batch 1, 1 instance" in lines[1]
    assert lines[-1] == "and 9 more, of which 9 keep the SLO"


def test_the_second_best_says_what_it_would_cost_or_where_it_is_worse(estimate):
    chosen = dataclasses.replace(estimate, settings=joint(2, 1), cost=2.0, stressed_s=0.02)
    dearer = dataclasses.replace(estimate, settings=joint(2, 2), cost=3.0, stressed_s=0.01)
    tighter = dataclasses.replace(estimate, settings=joint(1, 1), cost=2.0, stressed_s=0.04)
    brittle = dataclasses.replace(tighter, stressed_s=None)
    assert tuner.explained([chosen, dearer], chosen, failed=0).against == "costs 1 more"
    assert tuner.explained([chosen, tighter, dearer], chosen, failed=0).against == "costs the same, but 40 ms at 30 % more traffic instead of 20 ms"
    assert "saturates at 30 % more" in tuner.explained([chosen, brittle], chosen, failed=0).against
    after = tuner.explained([chosen, tighter], chosen, failed=2)
    assert after.why.startswith("the cheapest left after 2 that missed it under load") and after.second.settings == joint(1, 1)


def test_one_stage_is_varied_and_the_others_stay():
    axes = tuner.Axes(max_batch=(1, 4), queue_delay_s=(0.0,), instances=(1, 2))
    found = tuner.variations(joint(4, 1), "b", axes)
    assert all(one["a"] == joint(4, 1)["a"] for one in found) and len({one["b"] for one in found}) == len(found) == 3


def test_an_ensembles_stages_are_set_apart_where_that_is_cheaper(estimate):
    """Only stage `a` needs two instances: equal settings cost 4, apart they cost 3."""
    axes = tuner.Axes(max_batch=(1,), queue_delay_s=(0.0,), instances=(1, 2))

    def judged(settings):
        forecast = dataclasses.replace(estimate.forecast, bottleneck="a")
        cost = sum(s.instances for s in settings.values())
        return dataclasses.replace(estimate, settings=settings, keeps=settings["a"].instances == 2, cost=cost, forecast=forecast, stressed_s=0.02)

    equal = [judged(s) for s in tuner.candidates(axes, ["a", "b"])]
    best = tuner.ranked([*equal, *_jointly(equal, ["a", "b"], axes, judged)])[0]
    assert (best.settings["a"].instances, best.settings["b"].instances, best.cost) == (2, 1, 3)
    assert _jointly([dataclasses.replace(e, keeps=False) for e in equal], ["a", "b"], axes, judged) == []
