"""A first profile of a bundle from earlier ones: a few probed points and earlier profiles enter, the nearest of them scaled to the points leaves.

Another variant or release of a model does the same work faster or slower, by a factor that may grow or shrink with the batch, and no more
on a large input than on a small one. Two points a stage give the factor, a third of another size checks it. What leaves is a guess with
its origin written on it, good for choosing what to test; refuses to be proof of anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployctl.core import profiling
from deployctl.core.profile import ServicePoint, ServiceProfile, StageProfile

TRUSTED_RATIO = 0.20  # further off than this at the third point and an earlier profile describes something else
_PROBED_BATCHES = (1, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a bundle is measured; a profile from elsewhere says nothing here."""

    bundle: str
    device: str
    triton_version: str
    cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """An earlier profile, scaled.

    Attributes:
        profile: with `scaled_from` set; without spans and without a cold start, which belong to the earlier bundle.
        factors: by model, the time of one request now over then.
        misfit_ratio: how far off the checked points are, the worst of the stages.
    """

    profile: ServiceProfile
    factors: dict[str, float]
    misfit_ratio: float


def probed(sizes: Sequence[int], usual: int, largest: int) -> tuple[tuple[int, int], ...]:
    """(batch, size) of the points to probe: the first two set the factor at the usual size, the third checks it at another.

    Args:
        sizes: measured size buckets, rising.
        usual: the one most requests have.
        largest: batch that the stage takes.
    """
    high = min(_PROBED_BATCHES[1], largest)
    other = max(sizes, key=lambda s: abs(math.log(s / usual)))
    fitted = ((1, usual), (high, usual)) if high > 1 else ((1, usual),)
    check = (1, other) if other != usual else (min(2, largest), usual)
    return (*fitted, check) if check not in fitted else fitted


def earlier(profiles: Sequence[ServiceProfile], place: Place, models: Sequence[str]) -> list[ServiceProfile]:
    """Those that were measured in the same place on other bundles with the same stages; none that was itself scaled."""
    return [
        p
        for p in profiles
        if not p.scaled_from
        and p.bundle != place.bundle
        and (p.device, p.triton_version, p.cores) == (place.device, place.triton_version, place.cores)
        and [s.model for s in p.stages] == list(models)
    ]


def nearest(profiles: Sequence[ServiceProfile], seen: Mapping[str, Sequence[ServicePoint]], place: Place) -> Scaled | None:
    """The earlier profile that the probed points fit best, scaled to them; None where none is within TRUSTED_RATIO.

    Args:
        profiles: as `earlier` left them.
        seen: by model, the points of `probed` in that order; a point that could not be measured is absent.
        place: the bundle that is tuned now.
    """
    found = [scaled for p in profiles if (scaled := _scaled(p, seen, place)) is not None]
    best = min(found, key=lambda s: s.misfit_ratio, default=None)
    return best if best is not None and best.misfit_ratio <= TRUSTED_RATIO else None


def _scaled(prior: ServiceProfile, seen: Mapping[str, Sequence[ServicePoint]], place: Place) -> Scaled | None:
    stages, factors, misfit = [], {}, 0.0
    for stage in prior.stages:
        points = seen.get(stage.model, ())
        if not points or not stage.points:
            return None
        factor = _factor(stage, points)
        factors[stage.model] = factor.at(1)
        misfit = max([misfit, *(abs(factor.at(p.batch) * _known_s(stage, p) / p.mean_s - 1) for p in points)])
        stages.append(dataclasses.replace(stage, points=tuple(_times(p, factor.at(p.batch)) for p in stage.points)))
    profile = dataclasses.replace(prior, stages=tuple(stages), bundle=place.bundle, splits=(), cold_start=None, scaled_from=prior.bundle)
    return Scaled(profile=profile, factors=factors, misfit_ratio=misfit)


def _factor(stage: StageProfile, points: Sequence[ServicePoint]) -> Factor:
    """Through the ratios at the usual size: a power of the batch (a line on logarithms), constant where only one batch was probed."""
    usual = [p for p in points if p.size == points[0].size]
    low, high = usual[0], max(usual, key=lambda p: p.batch)
    ratio = low.mean_s / _known_s(stage, low)
    if high.batch == low.batch:
        return Factor(ratio=ratio, exponent=0.0)
    return Factor(ratio=ratio, exponent=math.log(high.mean_s / _known_s(stage, high) / ratio) / math.log(high.batch / low.batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Time now over time then: ratio * batch ** exponent."""

    ratio: float
    exponent: float

    def at(self, batch: int) -> float:
        """The factor for a batch."""
        return float(self.ratio * batch**self.exponent)


def _known_s(stage: StageProfile, point: ServicePoint) -> float:
    return float(profiling.service_table(stage, [point.size], point.batch).mean_s[point.batch, 0])


def _times(point: ServicePoint, factor: float) -> ServicePoint:
    """A scaled point; its count is 0, because this bundle never executed it."""
    return dataclasses.replace(point, mean_s=point.mean_s * factor, std_s=point.std_s * factor, count=0)
