"""The promise in Locust's web UI: a tab that counts late answers while the test runs and shows the verdict when it has ended.

What enters are the flags --slo-ms, --slo-percentile and --slo-errors; what leaves are rows for the UI's own table. The verdict is that
of `deployctl loadtest`, from the exact samples. It is computed once, after the last answer: a bootstrap beside the sending would
make sends late.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from flask import Response, request
from locust.env import Environment

from deployctl.core.judging import assess
from deployctl.core.load_samples import decode
from deployctl.core.slo import Objective, Slo
from deployctl.core.verdict import ObjectiveVerdict
from loadtests.users.openloop import Job

KEY = "slo"
COLUMNS = {"objective": "Objective", "limit": "Limit", "measured": "Measured", "interval": "95 % interval", "result": "Verdict", "reason": "Why"}


def add_options(parser: Any) -> None:
    """The promise as flags; they stand in the web UI's form too."""
    parser.add_argument("--slo-ms", type=float, default=0.0, metavar="MS", help="Latency limit in milliseconds; 0 judges nothing")
    parser.add_argument("--slo-percentile", type=float, default=99.0, metavar="P", help="Percentile that the limit is for")
    parser.add_argument("--slo-errors", type=float, default=0.01, metavar="RATIO", help="Largest share of failed requests")


def slo_of(options: Any) -> Slo | None:
    """The promise that the flags state; None where they state none."""
    if not options.slo_ms or options.slo_ms <= 0:
        return None
    latency = Objective(metric="latency", percentile=options.slo_percentile, max=options.slo_ms / 1000)
    return Slo(objectives=(latency, Objective(metric="errors", max=options.slo_errors)))


def install(environment: Environment) -> None:
    """Add the tab and its rows to the web UI, where there is one."""
    ui = environment.web_ui
    if ui is None:
        return
    structure = [{"key": key, "title": title} for key, title in COLUMNS.items()]
    ui.template_args |= {"extended_tabs": [{"title": "SLO", "key": KEY}], "extended_tables": [{"key": KEY, "structure": structure}]}

    @ui.app.after_request
    def with_rows(response: Response) -> Response:
        """Locust's page reads further tables from the answer that it polls anyway."""
        if request.path == "/stats/requests" and response.is_json:
            response.set_data(json.dumps({**response.get_json(), "extended_stats": [{"key": KEY, "data": rows(environment)}]}))
        return response


def rows(environment: Environment) -> list[dict[str, str]]:
    """One row an objective; a sentence where there is nothing to judge yet."""
    slo = slo_of(environment.parsed_options)
    job: Job | None = getattr(environment, "job", None)
    if slo is None:
        return [_row("latency", result="not judged", reason="give --slo-ms, or fill it in when you start the test")]
    if job is None or job.plan is None or job.error is not None:
        reason = job.error[1] if job and job.error else "no test yet"
        return [_row(_name(o), limit=_value(o, o.max), result="-", reason=reason) for o in slo.objectives]
    if not job.done:
        return [_running(environment, o) for o in slo.objectives]
    if job.rows is None:
        job.rows = verdict_rows(job, slo)
    return job.rows


def verdict_rows(job: Job, slo: Slo) -> list[dict[str, str]]:
    """The verdict on a finished run."""
    assert job.plan is not None
    planned, asked = len(job.plan.times_s), job.plan.request
    samples = decode((job.out / "samples.bin").read_bytes(), planned, tuple(job.result["errors"]))
    judged = assess(
        samples,
        slo,
        rng=np.random.default_rng(asked.seed),
        offered_rps=samples.ok.size / asked.duration_s,
        duration_s=asked.duration_s,
        generator_cpu_ratio=job.result["cpu_ratio"],
    )
    return [_judged(o) for o in judged.objectives]


def _judged(o: ObjectiveVerdict) -> dict[str, str]:
    interval = o.interval
    span = f"{_value(o, interval.low)} to {_value(o, interval.high)}{' or more' if interval.open_above else ''}" if interval else "unknown"
    measured = _value(o, o.estimate) if o.estimate is not None else "unknown"
    return _row(_name(o), limit=_value(o, o.max), measured=measured, interval=span, result=o.result, reason=o.reason)


def _running(environment: Environment, o: Objective) -> dict[str, str]:
    """Counts so far, from Locust's own statistics, which round latencies to milliseconds."""
    total = environment.stats.total
    late = sum(n for ms, n in total.response_times.items() if ms > o.max * 1000) if o.metric == "latency" else 0
    measured = f"{late + total.num_failures} of {total.num_requests} {'late or failed' if o.metric == 'latency' else 'failed'}"
    return _row(_name(o), limit=_value(o, o.max), measured=measured, result="running", reason="the verdict comes after the last answer")


def _name(o: Objective | ObjectiveVerdict) -> str:
    return f"p{o.percentile:g}, at the client" if o.percentile is not None else o.metric


def _value(o: Objective | ObjectiveVerdict, value: float) -> str:
    return f"{value * 100:.3g} %" if o.metric == "errors" else f"{value * 1000:.3g} ms"


def _row(objective: str, *, limit: str = "-", measured: str = "-", interval: str = "-", result: str, reason: str) -> dict[str, str]:
    return {"objective": objective, "limit": limit, "measured": measured, "interval": interval, "result": result, "reason": reason}
