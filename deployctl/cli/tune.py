"""`deployctl tune`: words and flags; the table of candidates and the proof on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from deployctl.cli._console import ConsoleProgress, columns, emit, env_option, output_option, yes_option
from deployctl.cli._setup import Duration, opened
from deployctl.core import cold_start, sizing, words
from deployctl.core.profile import ServiceProfile
from deployctl.core.sizing import Estimate
from deployctl.core.slo import Slo
from deployctl.core.tuner import explained, ranked, settings_text
from deployctl.errors import SloUnreachable
from deployctl.flows.tune import Tuning

_ROWS, _NEAREST = 30, 10


@click.command()
@env_option
@output_option
@yes_option
@click.option("--resume/--fresh", default=True, show_default=True, help="Take finished measurements of the same key, or measure anew.")
@click.option("--variant", metavar="NAME", help="Tune this variant instead of the one in the lock.")
@click.option(
    "--grid",
    "grid_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Measure nothing: of a table that somebody measured, say the best point and the one to measure next.",
)
@click.option("--limit", "limit_s", type=Duration(), metavar="TIME", help="With --grid: the limit of its p99, instead of deploy.yaml's.")
@click.pass_context
def tune(
    ctx: click.Context,
    env: str,
    output: str = "table",
    yes: bool = False,
    resume: bool = True,
    variant: str | None = None,
    grid_file: Path | None = None,
    limit_s: float | None = None,
) -> None:
    """Find the cheapest settings that keep the SLO, and prove them.

    Profiles the packaged model on a real Triton of its own (on Kubernetes a replica on the same pool), searches in simulation,
    confirms by an independent load test, and writes lock and evidence. What serves is not touched; `deployctl up` applies the
    lock. Exit codes: 96 infeasible by forecast, 98 the test could not decide, 99 the SLO was missed.
    """
    del yes  # nothing that serves is changed, so there is nothing to ask
    from deployctl.config import locks
    from deployctl.flows._measuring import laboratory
    from deployctl.flows.package import package
    from deployctl.flows.tune import tune as tune_flow

    if grid_file is not None:
        _grid(ctx.obj, grid_file, limit_s, output)
        return
    project, tools = opened(ctx.obj, env)
    progress = ConsoleProgress()
    wanted = variant or locks.read(tools.workspace.lock(env), env).variant
    bundle = package(project, tools, progress, variant=wanted)
    lab = laboratory(project, env, tools, progress, bundle, fresh=not resume)
    with showing_candidates(project.slo, err=output != "table"):
        found = tune_flow(project, lab, progress, env=env, bundle=bundle, resume=resume)
    if ctx.parent is not None and ctx.parent.info_name == "up":  # the result of `up --tune` is one URL
        click.echo(_table(found), err=True)
        return
    emit(found.evidence, output, partial(_table, found))


@contextmanager
def showing_candidates(slo: Slo, *, err: bool) -> Iterator[None]:
    """Where no candidate keeps the SLO, show how near they come, before the error: on stdout, or on stderr where that has another form."""
    try:
        yield
    except SloUnreachable as error:
        if error.candidates:
            click.echo(_nearest(error.candidates, slo), err=err)
        raise


def _nearest(candidates: Sequence[Estimate], slo: Slo) -> str:
    """The candidates that come nearest to the SLO, what each would cost, and what stands in its way."""
    several = len(candidates[0].settings) > 1
    name = f"p{slo.latency.percentile:g}"
    header = (*_settings_header(several=several), "replicas", "cost", f"{name} ms", "late", "busy", "bottleneck")
    rows = [
        (
            *_settings_cells(e, several=several),
            f"{e.replicas}",
            f"{e.cost:g}",
            "-" if e.percentile_s is None else f"{e.percentile_s * 1e3:.1f}",
            "-" if e.forecast.miss_ratio is None else f"{e.forecast.miss_ratio:.1%}",
            f"{e.forecast.utilisation_ratio:.2f}",
            (e.forecast.bottleneck or "unknown") + ("" if e.forecast.p50_s is not None else ", saturated"),
        )
        for e in candidates[:_NEAREST]
    ]
    more = f"\nand {len(candidates) - len(rows)} more" if len(candidates) > len(rows) else ""
    title = f"nearest to {name} {words.seconds(slo.latency.max)}, by forecast (which must have {sizing.MARGIN_RATIO:.0%} to spare):"
    return f"{title}\n{columns(rows, header)}{more}"


def _grid(root: Path, file: Path, limit_s: float | None, output: str) -> None:
    """The best of a measured table and the next point, on stdout."""
    from deployctl import config
    from deployctl.flows._grid import advise_on_grid, document

    wanted_s = limit_s if limit_s is not None else config.load(root).slo.latency.max
    data = document(advise_on_grid(file, limit_s=wanted_s), wanted_s)
    emit(data, output, partial(_grid_table, data))


def _grid_table(data: dict[str, Any]) -> str:
    best, then = data["best"], data["next"]
    lines = [f"measured  {data['measured']} of {data['points']} points, limit {words.seconds(data['limit_s'])}"]
    if best is None:
        lines.append("best      none keeps the limit so far")
    else:
        lines.append(f"best      {_point(best)}: {words.rate(best['throughput_rps'])}, p99 {words.seconds(best['p99_s'])}")
    lines.append(f"next      {_point(then)} ({data['reason']})" if then else f"next      none: {data['reason']}")
    return "\n".join(lines)


def _point(point: dict[str, float]) -> str:
    units = {"queue_delay_s": ("wait", words.seconds), "rate_rps": ("rate", words.rate)}
    shown = {k: v for k, v in point.items() if k not in ("throughput_rps", "p99_s")}
    return ", ".join(f"{units[k][0]} {units[k][1](v)}" if k in units else f"{k.replace('_', ' ')} {v:g}" for k, v in shown.items())


def _table(found: Tuning) -> str:
    """Candidates, then what was chosen and why, and how the proof came out."""
    evidence = found.evidence
    lines = [*_candidates(found.estimates), ""] if found.estimates else []
    lines.append(f"chosen    {settings_text(evidence.settings)}; {evidence.replicas} replica{'s' if evidence.replicas > 1 else ''}")
    if found.tested:
        choice = explained(found.estimates, found.tested[-1].estimate, failed=len(found.tested) - 1)
        busy = evidence.forecast.utilisation_ratio
        lines += [f"why       {choice.why}", f"limit     {choice.bottleneck} saturates first; busy {busy:.0%} of the time at this traffic"]
        second = "" if choice.second is None else f"{settings_text(choice.second.settings)}; "
        lines.append(f"second    {second}{choice.against}")
    for objective in evidence.verdict.objectives:
        lines.append(f"measured  {objective.result}: {objective.metric}, {objective.reason} (at the {evidence.verdict.measured_at})")
    if evidence.error_ratio is not None:
        lines.append(
            f"forecast  {(evidence.forecast.percentile_s or 0) * 1e3:.1f} ms by {evidence.forecast.method}, off by {evidence.error_ratio:+.0%}"
        )
    lines += _profile(evidence.profile)
    lines.append(f"evidence  {evidence.digest[7:23]}, {evidence.probes} live measurements" + (", reused" if found.reused else ""))
    return "\n".join(lines)


def _profile(profile: ServiceProfile) -> list[str]:
    """Where the service times come from, and how long a replica takes to its first answer."""
    lines = []
    if profile.scaled_from:
        lines.append(f"profile   scaled from bundle {profile.scaled_from[7:19]} to a few probed points; tune --fresh measures all of it")
    cold = profile.cold_start
    if cold is not None:
        lines.append(f"start-up  {words.seconds(cold.total_s)} to the first reply: {cold_start.stages_text(cold)}")
    return lines


def _candidates(estimates: Sequence[Estimate]) -> list[str]:
    """The table: those that keep the SLO first, in the order in which they would be tried."""
    kept = ranked(estimates)
    rows = [*kept, *(e for e in estimates if not e.keeps)]
    several = len(rows[0].settings) > 1
    header = (*_settings_header(several=several), "replicas", "cost", "p50 ms", "p99 ms", "busy", "verdict")
    lines = columns([_row(e, several=several) for e in rows[:_ROWS]], header).splitlines()
    return [*lines, f"and {len(rows) - _ROWS} more, of which {max(len(kept) - _ROWS, 0)} keep the SLO"] if len(rows) > _ROWS else lines


def _row(e: Estimate, *, several: bool) -> tuple[str, ...]:
    times = tuple("-" if t is None else f"{t * 1e3:.1f}" for t in (e.forecast.p50_s, e.forecast.p99_s))
    return (*_settings_cells(e, several=several), f"{e.replicas}", f"{e.cost:g}", *times, f"{e.forecast.utilisation_ratio:.2f}", e.why)


def _settings_header(*, several: bool) -> tuple[str, ...]:
    return ("settings",) if several else ("batch", "wait ms", "instances")


def _settings_cells(e: Estimate, *, several: bool) -> tuple[str, ...]:
    serving = next(iter(e.settings.values()))
    return (settings_text(e.settings),) if several else (f"{serving.max_batch}", f"{serving.queue_delay_s * 1e3:g}", f"{serving.instances}")
