"""Spans as a second source of a service profile: where each traced request's time went enters, points and splits by input size leave.

Batch statistics add up over all sizes; a span belongs to one request, whose size its sender knows. So spans split queueing and computing
by size for every size of the traffic, also for those that no round measured. Only traced requests show: batch sizes are right
where every request was traced, and the caller says so by not calling `points` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deployctl.core import profiling
from deployctl.core.profile import ServicePoint, StageProfile, StageSplit
from deployctl.core.spans import RequestTimes, StageTimes

# Measured and interpolated times of a size that differ by more than this are told.
DIFFERS_RATIO = 0.25


@dataclass(frozen=True, slots=True)
class _Member:
    size: int
    stage: StageTimes


def _by_model(times: Iterable[RequestTimes], size_of: Mapping[str, int]) -> dict[str, list[tuple[str, _Member]]]:
    """(server, member) by model, of requests whose size is known."""
    found: dict[str, list[tuple[str, _Member]]] = {}
    for request in times:
        size = size_of.get(request.trace_id)
        for stage in request.stages if size is not None else ():
            server = request.resource.get("service.instance.id", request.resource.get("service.name", ""))
            found.setdefault(stage.model, []).append((server, _Member(size or 0, stage)))
    return found


def splits(times: Sequence[RequestTimes], size_of: Mapping[str, int]) -> tuple[StageSplit, ...]:
    """Median queueing and computing time of each stage by input size; stages that answered from a cache count as neither.

    Args:
        times: traced requests.
        size_of: input size bucket by trace id; others are left out.
    """
    rows = []
    for model, members in _by_model(times, size_of).items():
        for size in sorted({m.size for _, m in members}):
            seen = [m.stage for _, m in members if m.size == size and m.stage.batch_ns is not None]
            if seen:
                queue_s, compute_s = (float(np.median(v)) for v in ([s.queue_s or 0.0 for s in seen], [s.compute_s for s in seen]))
                rows.append(StageSplit(model=model, size=size, requests=len(seen), queue_s=queue_s, compute_s=compute_s))
    return tuple(rows)


def points(times: Sequence[RequestTimes], size_of: Mapping[str, int]) -> dict[str, tuple[ServicePoint, ...]]:
    """Service points by model: requests of one server that began to execute at the same nanosecond were one batch.

    Each request holds one row. Batches of several sizes are left out (such a stage is not described by one size).
    """
    found: dict[str, tuple[ServicePoint, ...]] = {}
    for model, members in _by_model(times, size_of).items():
        batches: dict[tuple[str, int], list[_Member]] = {}
        for server, member in members:
            if member.stage.batch_ns is not None:
                batches.setdefault((server, member.stage.batch_ns), []).append(member)
        single = []
        for batch in batches.values():
            if len({m.size for m in batch}) == 1:
                mean_s = max(m.stage.compute_s for m in batch)
                single.append(ServicePoint(batch=len(batch), size=batch[0].size, mean_s=mean_s, std_s=0.0, count=1))
        found[model] = profiling.merge(single)
    return found


def surprises(stage: StageProfile, seen: Sequence[StageSplit]) -> list[str]:
    """Sizes at which computing takes clearly longer or shorter than the profile says, in words.

    Profile and spans may differ by a common factor (warm caches, other work); what counts is a size that leaves the curve.
    """
    rows = [s for s in seen if s.model == stage.model]
    if len(rows) < 3 or not stage.points:
        return []
    table = profiling.service_table(stage, [r.size for r in rows], 1).mean_s[1]
    ratios = np.array([r.compute_s for r in rows]) / np.maximum(table, 1e-9)
    common = float(np.median(ratios))
    return [
        f"{stage.model} at size {row.size} takes {ratio / common - 1:+.0%} of what its neighbours say"
        for row, ratio in zip(rows, ratios, strict=True)
        if abs(ratio / common - 1) > DIFFERS_RATIO
    ]
