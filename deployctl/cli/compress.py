"""`deployctl compress`: words and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deployctl.cli import _console
from deployctl.core import pareto, words
from deployctl.core.artifact import FidelitySlice, Variant


@click.command()
@click.option("--force", is_flag=True, help="Make every variant again, also where nothing changed.")
@_console.output_option
@click.pass_obj
def compress(root: Path, force: bool, output: str) -> int:
    """Make smaller variants of the model and measure what they cost and lose.

    Times are processor time of one thread on this machine. Fidelity is the likeness to the parent's answers when each input is
    asked alone, padded longer, and in a batch; the gate reads the lower bound of the worst of the three. Nothing is done again
    while model, sample and methods are the same; weight files that `build()` reads from elsewhere need --force.

    Ends with 97 when no variant passes the gate.
    """
    from deployctl import config, wiring
    from deployctl.flows.compress import compress as compress_flow

    project = config.load(root)
    variants = compress_flow(project, wiring.LazyToolbox(root), _console.ConsoleProgress(), force=force)
    chosen = pareto.choose(variants)
    document = {"chosen": chosen.name if chosen else None, "gate": project.compress.gate, "variants": [_data(v) for v in variants]}
    _console.emit(document, output, lambda: tables(variants, chosen))
    if variants and chosen is None:
        click.echo(f"no variant passes the fidelity gate of {project.compress.gate:g} (deployctl explain fidelity-gate)", err=True)
        return 97
    return 0


def _data(variant: Variant) -> dict[str, Any]:
    from deployctl.core import codec

    data: dict[str, Any] = codec.to_data(variant)
    worst = variant.fidelity.worst
    return {**data, "size_bytes": variant.artifact.size_bytes, "passed": variant.fidelity.passed, "worst_case": worst.name, "lower95": worst.lower95}


def tables(variants: tuple[Variant, ...], chosen: Variant | None) -> str:
    """Cost and verdict, then fidelity by case and by slice."""
    if not variants:
        return "nothing is compressed for this source"
    parts = [_costs(variants, chosen), _cases(variants), _slices(variants)]
    return "\n\n".join(p for p in parts if p)


def _costs(variants: tuple[Variant, ...], chosen: Variant | None) -> str:
    points = [(p.batch, p.size) for p in variants[0].latency]
    header = ("VARIANT", "SIZE", *(f"{b} x {s}" for b, s in points), "FIDELITY", "ASKED", "GATE", "")
    rows = []
    for v in variants:
        times = {(p.batch, p.size): words.seconds(p.cost_s) for p in v.latency}
        worst = v.fidelity.worst
        gate = f"{'pass' if v.fidelity.passed else 'FAIL'} {v.fidelity.gate:g}"
        size = f"{v.artifact.size_bytes / 1e6:.1f} MB"
        rows.append((v.name, size, *(times.get(p, "-") for p in points), f"{worst.lower95:.4f}", worst.name, gate, _remark(v, chosen)))
    title = f"Cost on {variants[0].device}, one thread, batch x size; fidelity is the lower bound (95 %) of the worst case"
    return f"{title}\n{_console.columns(rows, header)}"


def _remark(variant: Variant, chosen: Variant | None) -> str:
    if chosen is not None and variant.name == chosen.name:
        return "<- packaged unless tune finds better"
    return f"dominated by {variant.dominated_by} on {variant.device}" if variant.dominated_by else ""


def _cases(variants: tuple[Variant, ...]) -> str:
    rows: list[tuple[str, ...]] = []
    for v in variants:
        against = "the source" if len(v.steps) == 1 else v.steps[0]
        rows += [(v.name, c.name, f"{c.mean:.5f}", f"{c.lower95:.5f}", f"{c.minimum:.5f}", str(c.samples), against) for c in v.fidelity.cases]
    header = ("VARIANT", "ASKED", "MEAN", "LOWER 95 %", "MINIMUM", "N", "AGAINST")
    return f"Fidelity ({variants[0].fidelity.metric}) by the way of asking\n{_console.columns(rows, header)}"


def _slices(variants: tuple[Variant, ...]) -> str:
    names = [s.name for s in variants[0].fidelity.slices]
    if not names:
        return ""
    rows = []
    for name in names:
        found = [next((s for s in v.fidelity.slices if s.name == name), None) for v in variants]
        count = next((s.samples for s in found if s), 0)
        rows.append((name, str(count), *(_slice(s) for s in found)))
    header = ("SLICE", "N", *(v.name for v in variants))
    return f"Mean (minimum) by slice in the worst case; top1: share with the same first choice\n{_console.columns(rows, header)}"


def _slice(part: FidelitySlice | None) -> str:
    if part is None:
        return "-"
    return f"{part.mean:.4f}" if part.name == "top1" else f"{part.mean:.4f} ({part.minimum:.4f})"
