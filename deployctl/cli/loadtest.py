"""`deployctl loadtest`: words and flags; the verdict on stdout and as the exit code (0 pass, 98 inconclusive, 99 missed)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from deployctl.cli._console import ConsoleProgress, columns, emit, env_option, output_option, require_name
from deployctl.cli._setup import Duration, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from deployctl.core.project import Project
    from deployctl.core.slo import Metric, Slo
    from deployctl.flows.loadtest import Aim, Outcome
    from deployctl.ports import Toolbox

EXIT = {"PASS": 0, "INCONCLUSIVE": 98, "FAIL": 99}


@click.command()
@env_option
@output_option
@click.option("--rate", "rate", metavar="RATE", help="Send this rate, such as 40 or 40/s, instead of the traffic in deploy.yaml.")
@click.option("--duration", "duration_s", type=Duration(), metavar="TIME", help="Length; by default what the percentile needs, 20s to 5m.")
@click.option(
    "--protocol",
    type=click.Choice(["http", "grpc", "stream"]),
    help="Default: stream where the SLO is about pieces of an answer (ttft, itl), else http.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed sends the same requests at the same moments.")
@click.option("--max-rate", metavar="RATE", help="Never send more; where the environment serves people this or --isolated is required.")
@click.option("--isolated", is_flag=True, help="Test a replica of its own with its share of the traffic; what serves gets nothing.")
@click.option("--confirm", "typed", metavar="NAME", help="The service's name, instead of typing it, where people are served.")
@click.option(
    "--trace", "trace_ratio", type=click.FloatRange(0, 0.01), default=0.0, metavar="SHARE", help="Share of requests to trace, at most 0.01."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the HTML report here too.")
@click.option("--reuse", is_flag=True, help="Show the former result where the same test of the same release passed already.")
@click.option("--url", metavar="HOST:PORT", help="Test any Triton instead of the project's service; needs --model and --bodies.")
@click.option("--model", metavar="NAME", help="With --url: the model to send to.")
@click.option("--bodies", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE", help='With --url: JSON lines {"inputs": …}.')
@click.option(
    "--slo",
    "promise",
    multiple=True,
    metavar="[METRIC.]pNN=TIME",
    help="Judge this instead of deploy.yaml's promise: p99=100ms; ttft.p99=200ms and itl.p99=50ms beside it. Repeatable.",
)
@click.pass_context
def loadtest(
    ctx: click.Context,
    env: str,
    output: str,
    rate: str | None,
    duration_s: float | None,
    protocol: str,
    seed: int,
    max_rate: str | None,
    isolated: bool,
    typed: str | None,
    trace_ratio: float,
    report: Path | None,
    reuse: bool,
    url: str | None,
    model: str | None,
    bodies: Path | None,
    promise: tuple[str, ...],
) -> int:
    """Send the stated traffic (open loop), judge the SLO, write an HTML report.

    Exit code 0: kept, 99: missed, 98: this test cannot decide.
    """
    from deployctl.flows import loadtest as flow

    options = flow.Options(
        protocol=protocol,
        rate_rps=_rate(rate),
        duration_s=duration_s,
        max_rate_rps=_rate(max_rate),
        seed=seed,
        trace_ratio=trace_ratio,
        report=report,
        reuse=reuse,
        command="deployctl " + shlex.join(sys.argv[1:]),
    )
    with contextlib.ExitStack() as until_done:
        if url is not None:
            aim, tools = _elsewhere(ctx.obj, env, url, model, bodies, promise, options)
        else:
            project, tools = opened(ctx.obj, env)
            if isolated:
                aim, tools = until_done.enter_context(_isolated(project, tools, env))
            else:
                aim = flow.running(project, tools, env, options)
                if project.environment(env).serves_people:
                    require_name(project.name, f"This sends load to {project.name} in {env}, beside people's requests.", typed)
            if promise:
                aim = dataclasses.replace(aim, slo=_slo(promise))
        outcome = flow.loadtest(aim, tools, ConsoleProgress(), options)
    emit({**outcome.document, "report": str(outcome.html)}, output, lambda: _table(outcome))
    return EXIT[outcome.verdict.result]


def _isolated(project: Project, tools: Toolbox, env: str) -> AbstractContextManager[tuple[Aim, Toolbox]]:
    """A replica of what the lock names, packaged first where that was not done."""
    from deployctl.config import locks
    from deployctl.flows._measuring import isolated
    from deployctl.flows.package import package

    progress = ConsoleProgress()
    bundle = package(project, tools, progress, variant=locks.read(tools.workspace.lock(env), env).variant)
    return isolated(project, env, tools, progress, bundle)


def _elsewhere(root: Path, env: str, url: str, model: str | None, bodies: Path | None, promise: tuple[str, ...], options: Any) -> tuple[Any, Any]:
    """A Triton that deployctl does not run: the promise and the rate come from flags, the examples from a file."""
    from deployctl import wiring
    from deployctl.core.demand import constant
    from deployctl.errors import ProjectError
    from deployctl.flows.loadtest import Aim

    missing = [name for name, value in (("--model", model), ("--bodies", bodies), ("--rate", options.rate_rps), ("--slo", promise)) if not value]
    if missing or model is None or bodies is None:
        raise ProjectError(f"--url also needs {', '.join(missing)}", hint="deployctl loadtest --help", code="loadtest-usage")
    address = url.split("://")[-1].rstrip("/")
    if not re.fullmatch(r"[^/\s]+:\d+", address):
        raise ProjectError(f"{url!r} is no HOST:PORT", hint="such as 127.0.0.1:8000", code="loadtest-usage")
    aim = Aim(
        name=model,
        url=address,
        model=model,
        bodies=bodies,
        slo=_slo(promise),
        demand=constant(options.rate_rps),
        own=False,
        environment={},
    )
    return aim, wiring.LazyToolbox(root, env)


def _slo(texts: Sequence[str]) -> Slo:
    from deployctl.core.slo import Objective, Slo, implied_error_ratio
    from deployctl.errors import ProjectError

    rows = []
    for text in texts:
        match = re.fullmatch(r"(?:(latency|ttft|itl)[. ])?p(\d{1,2}(?:\.\d+)?)\s*[=≤<]+\s*(\S+)", text.strip())
        if match is None or float(match[2]) <= 0:
            raise ProjectError(f"{text!r} is no promise", hint="write it such as --slo p99=100ms or --slo ttft.p99=200ms", code="loadtest-usage")
        limit_s = Duration().convert(match[3], None, None)
        rows.append(Objective(metric=cast("Metric", match[1] or "latency"), percentile=float(match[2]), max=limit_s))
    tails = [o.percentile or 0.0 for o in rows if o.metric == "latency"]
    if not tails:
        raise ProjectError("a promise on the whole latency is needed too", hint="add --slo p99=5s", code="loadtest-usage")
    return Slo(objectives=(*rows, Objective(metric="errors", max=implied_error_ratio(tails))))


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(/s|rps)?", text.strip())
    if match is None or float(match[1]) <= 0:
        from deployctl.errors import ProjectError

        raise ProjectError(f"{text!r} is no rate", hint="write requests per second, such as 40 or 40/s", code="loadtest-usage")
    return float(match[1])


def _piece(row: dict[str, Any]) -> str:
    from deployctl.core import words

    return ", ".join(f"{p} {words.seconds(row[p]) if row['unit'] else f'{row[p] or 0:g}'}" for p in ("p50", "p99"))


def _table(outcome: Outcome) -> str:
    from deployctl.core import words
    from deployctl.report.load_page import headline

    data, verdict = outcome.document, outcome.verdict
    rows: list[tuple[str, ...]] = [(o.metric + (f" p{o.percentile:g}" if o.percentile else ""), o.result, o.reason) for o in verdict.objectives]
    shown = [p for p in data["percentiles"] if p["percentile"] in (50.0, 90.0, 99.0)]
    facts = [
        ("requests", f"{verdict.requests:,} in {data['duration_s']:g} s, {verdict.failed} failed, {verdict.late_sends} sent late"),
        ("rate", f"offered {words.rate(verdict.offered_rps)}, answered {words.rate(verdict.reached_rps)}"),
        ("latency", ", ".join(f"p{p['percentile']:g} {words.seconds(p['latency_s'])}" for p in shown) + f" (at the {verdict.measured_at})"),
        *[(row["name"], _piece(row)) for row in data.get("pieces", [])],
        ("time", ", ".join(f"{s['name']} {words.seconds(s.get('mean_s'))}" for s in data["stages"]) or "unknown"),
        ("generator", f"{words.percent(verdict.generator_cpu_ratio or 0.0)} of a core"),
        ("report", str(outcome.html)),
    ]
    notes = [f"warning: {w}" for w in data["warnings"]]
    return "\n".join([f"{verdict.result}  {headline(data)}", "", columns(rows, ("OBJECTIVE", "RESULT", "WHY")), "", *words.rows(facts), *notes])
