"""The load report: figures agree with the samples, every verdict has its page, nothing can be smuggled in."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deployctl.cli.loadtest import _table
from deployctl.core.demand import Demand, RateStep, constant
from deployctl.core.judging import assess
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective, Slo
from deployctl.report.load import LoadReport, Stage, document
from deployctl.report.load_page import render
from deployctl.report.svg import log_ticks, nice_ticks

SLO = Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1), Objective(metric="errors", max=0.01)))


def a_report(scale_s=0.01, *, n=2000, duration_s=20.0, failed=0, errors=("HTTP 500: no",), **more):
    rng = np.random.default_rng(0)
    at = np.sort(rng.random(n)) * duration_s
    ok = np.arange(n) >= failed
    samples = Samples(
        intended_s=at,
        sent_s=at + 1e-4,
        latency_s=np.where(ok, rng.gamma(4.0, scale_s / 4, size=n), np.nan),
        ok=ok,
        size=rng.choice([16, 64], size=n),
        error=np.where(ok, -1, 0),
        errors=errors if failed else (),
    )
    verdict = assess(samples, SLO, rng=rng, offered_rps=n / duration_s, duration_s=duration_s, rounds=200, generator_cpu_ratio=0.05)
    more = {"name": "search", "at": "2026-01-01 00:00:00 UTC", "demand": constant(n / duration_s), "command": "deployctl loadtest", **more}
    return LoadReport(verdict=verdict, slo=SLO, samples=samples, duration_s=duration_s, **more)


@pytest.mark.parametrize(
    ("more", "result"),
    [({}, "PASS"), ({"scale_s": 0.5}, "FAIL"), ({"n": 200}, "INCONCLUSIVE"), ({"failed": 100}, "FAIL"), ({"failed": 2000}, "FAIL")],
)
def test_every_verdict_has_its_page(more, result):
    report = a_report(**more)
    page = render(document(report))
    assert report.verdict.result == result
    assert f'class="verdict {result}"' in page
    assert f"{result}: load test of search" in page
    assert "promised 100 ms" in page


def test_empty_test_has_a_page():
    page = render(document(a_report(n=0)))
    assert "INCONCLUSIVE" in page
    assert "no request was sent" in page


def test_figures_agree_with_the_samples():
    report = a_report(failed=7)
    data = json.loads(json.dumps(document(report), allow_nan=False))
    assert sum(row["offered_rps"] for row in data["series"]) * 1.0 == pytest.approx(2000)
    assert sum(row["failed"] for row in data["series"]) == 7
    assert data["errors"] == [{"error": "HTTP 500: no", "count": 7}]
    assert sum(row["requests"] for row in data["sizes"]) == 2000
    latencies = np.sort(np.where(report.samples.ok, report.samples.latency_s, np.inf))
    assert {p["percentile"]: p["latency_s"] for p in data["percentiles"]}[99.0] == latencies[1979]
    xs, ys = zip(*data["cdf"], strict=True)
    assert list(xs) == sorted(xs)
    assert ys[-1] == pytest.approx(1993 / 2000)


def test_large_tests_stay_small_on_disk():
    demand = Demand(steps=tuple(RateStep(start_s=float(t), rate_rps=100.0 + t) for t in range(200)))
    stages = tuple(Stage(name=f"part {i}", mean_s=0.001, note="known") for i in range(6))
    report = a_report(n=200_000, duration_s=300.0, failed=50, demand=demand, stages=stages, replicas=tuple((float(t), 2.0) for t in range(300)))
    assert len(render(document(report)).encode()) <= 300 * 1024


def test_texts_from_outside_are_escaped():
    evil = "<script>alert(1)</script><img src=http://127.0.0.1/x>"
    page = render(document(a_report(failed=100, errors=(evil,), name=evil, command=evil, warnings=(evil,), environment={evil: evil})))
    assert "<script" not in page
    assert "<img" not in page


def test_page_names_nothing_outside_itself():
    page = render(document(a_report()))
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "http://" not in page
    assert "https://" not in page
    assert "prefers-color-scheme: dark" in page


def test_charts_without_colour():
    page = render(document(a_report(replicas=((0.0, 1.0), (5.0, 2.0)))))
    assert page.count("<svg") == 4
    assert page.count('class="slo"') == 2
    assert page.count("SLO 100 ms") == 2
    assert 'class="line b dotted"' in page
    assert 'class="line a"' in page


def test_ticks_are_round_and_inside():
    assert nice_ticks(0, 97, 5) == [0, 20, 40, 60, 80]
    assert log_ticks(0.004, 0.3) == pytest.approx([0.005, 0.01, 0.02, 0.05, 0.1, 0.2])


def test_the_screen_in_the_readme_is_what_loadtest_prints():
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    shown = text.partition("$ deployctl loadtest\n")[2].partition("```")[0].rstrip("\n").replace("250 ms", "100 ms")
    report = a_report()
    screen = _table(SimpleNamespace(document=document(report), verdict=report.verdict, html="report.html"))
    assert "PASS" in shown and re.match(re.escape(shown).replace("…", "[0-9.,]+"), screen), screen
