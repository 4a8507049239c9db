"""The options of `scale --replay` and what is done with them; `cli/scale.py` hands over."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deployctl.cli._console import ConsoleProgress, columns, emit
from deployctl.cli._setup import Duration, Rate, opened
from deployctl.core import words
from deployctl.core.project import Project
from deployctl.errors import ProjectError
from deployctl.ports import MetricSource, Toolbox

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--replay",
        "trace",
        metavar="TRACE",
        help="Change nothing; show what the policy would have done on this CSV file, on the `recent` load of this machine, or on `prometheus:URL`.",
    ),
    click.option("--model", metavar="NAME", help="With prometheus:URL: Triton's model, whose arrivals are rebuilt; for an ensemble, the ensemble."),
    click.option("--query", metavar="PROMQL", help="With prometheus:URL: the total arrival rate, in place of --model."),
    click.option(
        "--window", "window_s", type=Duration(positive=True), default="24h", metavar="TIME", help="With prometheus:URL or recent: how far back."
    ),
    click.option("--step", "step_s", type=Duration(positive=True), default="15s", metavar="TIME", help="With prometheus:URL: distance of samples."),
    click.option("--policy", default="slo", show_default=True, metavar="NAME", help="With --replay: the policy of interest."),
    click.option("--against", default="hpa", show_default=True, metavar="A,B", help="With --replay: peers, such as hpa,keda,kpa,llmd."),
    click.option(
        "--capacity", "capacity_rps", type=Rate(positive=True), metavar="RATE", help="With --replay: what one replica serves within the SLO."
    ),
    click.option("--start-up", "start_up_s", type=Duration(), metavar="TIME", help="With --replay: how long a replica takes to start."),
    click.option("--column", metavar="NAME", help="With --replay: the CSV column that counts requests."),
    click.option("--per", "per_s", type=Duration(positive=True), metavar="TIME", help="With --replay: the interval that a row counts."),
    click.option("--mean", "mean_rps", type=Rate(positive=True), metavar="RATE", help="With --replay: scale the trace to this mean rate."),
    click.option("--history", "history_s", type=Duration(), default="0s", metavar="TIME", help="With --replay: leading part that is not judged."),
    click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="With --replay: also write an HTML page."),
)


def replay_options(command: F) -> F:
    """All options of a replay; they arrive as one dict through `split`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run(root: Path, env: str, output: str, trace: str, options: dict[str, Any]) -> None:
    """Replay and show.

    Args:
        root: project folder; without a deploy.yaml, capacity and start-up must be given.
        env: environment name.
        output: table, json or yaml.
        trace: CSV file, `recent`, or `prometheus:` and an address.
        options: the other options of `replay_options`.

    Raises:
        ProjectError: see `flows.replay.replay`.
    """
    from deployctl.flows.replay import Question, Replayed, replay

    project, tools = _maybe(root, env, given=bool(options["capacity_rps"] and options["start_up_s"] is not None))
    options["against"] = tuple(name for name in options["against"].split(",") if name)
    source, trace = _source(root, env, trace, **{name: options.pop(name) for name in ("model", "query", "window_s", "step_s")})
    asked = Question(trace=trace, command=" ".join(["deployctl", *sys.argv[1:]]), **options)
    outcome = replay(project, tools, ConsoleProgress(), asked, source=source)
    emit(outcome.document, output, lambda: "\n".join([columns(list(outcome.rows), Replayed.HEADER), "", *_legend(outcome.document)]))
    if outcome.page is not None:
        click.echo(f"written: {outcome.page}", err=True)


def _legend(document: dict[str, Any]) -> list[str]:
    """What each policy is and how it was set, and what the trace and a replica were."""
    trace, plant = document["trace"], document["plant"]
    width = max(len(p["policy"]) for p in document["policies"])
    served = f"a replica serves {plant['capacity_rps']:.4g}/s and takes {plant['start_up_s']:g} s to start"
    came = f"{trace['requests']:,.0f} requests in {words.duration(trace['duration_s'])}, {trace['mean_rps']:.4g}/s on average"
    text = [f"{p['policy'].ljust(width)}  {'; '.join(filter(None, (p['about'], p['settings'])))}" for p in document["policies"]]
    text.append(f"{trace['name']}: {came}, {trace['peak_rps']:,.0f} in the busiest second; {served}")
    return [line for part in text for line in textwrap.wrap(part, 100, subsequent_indent=" " * (width + 2), break_long_words=False)]


def _source(
    root: Path, env: str, trace: str, *, model: str | None, query: str | None, window_s: float, step_s: float
) -> tuple[MetricSource | None, str]:
    """The Prometheus and the query, or the store on this machine; for a file, nothing and the trace as it is.

    Raises:
        ProjectError: neither or both of model and query were given, or one of them without a Prometheus (`scale-usage`).
    """
    address = trace.removeprefix("prometheus:")
    if (address == trace and (model or query)) or (address != trace and bool(model) == bool(query)):
        raise ProjectError(
            "--model or --query says what is read from a Prometheus: one of the two, and only with prometheus:URL",
            hint="deployctl scale --replay prometheus:http://127.0.0.1:9090 --model NAME",
            code="scale-usage",
        )
    from deployctl import wiring

    if trace == "recent":
        return wiring.stored_load(root, env, end_s=time.time(), window_s=window_s), trace
    if address == trace:
        return None, trace
    from deployctl.core import signals

    source: MetricSource = wiring.load(wiring.ADAPTERS["prometheus"])(address, end_s=time.time(), window_s=window_s, step_s=step_s)
    return source, query or signals.query("arrivals_rps", selector=f'model="{model}"', window=f"{round(4 * step_s)}s") or ""


def _maybe(root: Path, env: str, *, given: bool) -> tuple[Project | None, Toolbox | None]:
    """The project where there is one; nothing where there is none and everything needed was stated."""
    try:
        return opened(root, env)
    except ProjectError as error:
        if given and error.code == "config-not-found":
            return None, None
        raise
