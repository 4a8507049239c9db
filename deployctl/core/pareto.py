"""Which variants are worth having: what enters are measured variants, what leaves are marks and one choice.

Only fidelity refuses a variant. One that is slower, bigger and no better than another is marked, on the device where that
was measured, and stays available: on another device it may win.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from deployctl.core.artifact import Variant

# Two times this close are the same: repeated measurements of one variant differ by as much.
_SAME_RATIO = 0.03
_SAME_FIDELITY = 1e-6


def cost_s(variant: Variant) -> float:
    """Geometric mean of the measured times, so that no size of batch outweighs the others."""
    if not variant.latency:
        return math.inf
    return math.exp(sum(math.log(max(p.cost_s, 1e-9)) for p in variant.latency) / len(variant.latency))


def mark_dominated(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Fill `dominated_by` with the name of the best variant that passes the gate and is no worse in anything and better in something."""
    marked = []
    for variant in variants:
        rivals = [r for r in variants if r.name != variant.name and r.fidelity.passed and _dominates(r, variant)]
        marked.append(dataclasses.replace(variant, dominated_by=min(rivals, key=cost_s).name if rivals else None))
    return tuple(marked)


def _dominates(a: Variant, b: Variant) -> bool:
    if a.device != b.device:
        return False
    times = {(p.batch, p.size): p.cost_s for p in a.latency}
    points = [(times[(p.batch, p.size)], p.cost_s) for p in b.latency if (p.batch, p.size) in times]
    if not points or len(points) != len(b.latency):
        return False
    no_slower = all(x <= y * (1 + _SAME_RATIO) for x, y in points)
    faster = any(x < y * (1 - _SAME_RATIO) for x, y in points)
    gap = a.fidelity.worst.lower95 - b.fidelity.worst.lower95
    sizes = a.artifact.size_bytes, b.artifact.size_bytes
    no_worse = no_slower and sizes[0] <= sizes[1] and gap >= -_SAME_FIDELITY
    return no_worse and (faster or sizes[0] < sizes[1] or gap > _SAME_FIDELITY)


def choose(variants: Sequence[Variant]) -> Variant | None:
    """The fastest variant that passes its gate, the smaller one where times are the same; None if none passes."""
    passing = [v for v in variants if v.fidelity.passed]
    if not passing:
        return None
    fastest = min(cost_s(v) for v in passing)
    close = [v for v in passing if cost_s(v) <= fastest * (1 + _SAME_RATIO)]
    return min(close, key=lambda v: (v.artifact.size_bytes, cost_s(v), v.name))
