"""Tuning by a measured grid alone, as ask and tell: measurements of points enter, the next point or the end leaves.

Nothing was profiled. What the axes mean is known, and that the thing is some server: imagined servers (`core/servers.py`), weighted
by what was measured, say what the rest of the grid may do; a Gaussian process over the axes learns what no simple server does. The
next point is the one with the largest expected gain times the chance to keep the limit; a failed measurement counts as far over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from deployctl.core.servers import Role, imagined, load_of

FloatArray = npt.NDArray[np.float64]

_NOISE = 0.03  # of one measurement's logarithm
_MISFIT = (0.10, 0.20)  # by how much the logarithms of a real server's throughput and latency differ from a simple one's
_ENOUGH = 0.0005  # less expected gain than this ends the search
_LENGTHS = (0.15, 0.4, 1.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Points of a grid by their axes; positive axes are compared by ratio.

    `roles` says what each axis means (None: something else). With clients or a rate among them, the search knows that it is a server.
    """

    points: tuple[tuple[float, ...], ...]
    roles: tuple[Role | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement of a grid point: `value` to maximise (throughput), `limited` to keep under a limit (latency in seconds)."""

    index: int
    value: float | None
    limited: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A grid with what was measured of it so far, at most one measurement a point."""

    grid: Grid
    measured: tuple[Measured, ...]

    def best(self, limit: float | None) -> int | None:
        """The measured point with the largest value that keeps the limit."""
        return _best(self.measured, limit, "").index

    def named(self, index: int) -> dict[str, float]:
        """A point by what its axes mean."""
        return {role or f"axis {i + 1}": value for i, (role, value) in enumerate(zip(self.grid.roles, self.grid.points[index], strict=True))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Measure this grid point next."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The end: the point to use, None when no measured one keeps the limit."""

    index: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Belief:
    """Means and deviations of log(value) and log(limited) at every point."""

    value: FloatArray
    value_std: FloatArray
    limited: FloatArray
    limited_std: FloatArray


def propose_on_grid(history: Sequence[Measured], grid: Grid, *, limit: float | None, budget: int, seed: int) -> Ask | Best:
    """The next point of a grid that nothing is known about, by expected gain under the limit.

    The first point lies near the middle of the settings with little load. The end comes when the budget is spent, or after five
    measurements when no point is expected to gain 0.05 %.

    Args:
        history: measurements so far; a failed one (None) counts as far over the limit.
        grid: all points.
        limit: for `limited`; None means unlimited.
        budget: most measurements.
        seed: places the first point.
    """
    done = {m.index for m in history}
    if len(history) >= min(budget, len(grid.points)):
        return _best(history, limit, "the budget is spent")
    good = [m for m in history if m.value is not None and m.limited is not None]
    if not good:
        return Ask(index=_opening(grid, seed, done), reason="everything failed so far" if history else "opening")
    belief = _belief(history, good, grid, limit)
    gain = _gain(good, belief, limit)
    gain[list(done)] = -1.0
    index = int(np.argmax(gain))
    if gain[index] < _ENOUGH and len(history) >= 5 and _best(history, limit, "").index is not None:
        return _best(history, limit, "nothing is expected to gain more")
    return Ask(index=index, reason=f"expected gain {max(gain[index], 0):.1%}")


def _best(history: Sequence[Measured], limit: float | None, reason: str) -> Best:
    fit = [m for m in history if m.value is not None and m.limited is not None and (limit is None or m.limited <= limit)]
    return Best(index=max(fit, key=lambda m: m.value or 0.0).index if fit else None, reason=reason)


def _opening(grid: Grid, seed: int, done: set[int]) -> int:
    """A point near the middle of the settings, with little load; moved a little by the seed."""
    x = _unit(grid)
    target = np.full(x.shape[1], 0.5)
    for axis, role in enumerate(grid.roles):
        if role in ("clients", "rate_rps"):
            target[axis] = 0.2
    distance = ((x - target - np.random.default_rng(seed).normal(scale=0.08, size=x.shape[1])) ** 2).sum(axis=1)
    distance[list(done)] = np.inf
    return int(np.argmin(distance))


@lru_cache(maxsize=8)
def _unit(grid: Grid) -> FloatArray:
    """Coordinates on [0, 1]: logarithms where an axis is positive."""
    x = np.array(grid.points, dtype=np.float64)
    x = np.where(x.min(axis=0) > 0, np.log(np.maximum(x, 1e-12)), x)
    low, high = x.min(axis=0), x.max(axis=0)
    return np.asarray((x - low) / np.where(high > low, high - low, 1.0), dtype=np.float64)


@lru_cache(maxsize=8)
def _servers(grid: Grid) -> tuple[FloatArray, FloatArray] | None:
    """Predictions of the imagined servers, None where the axes do not say what is offered."""
    load = load_of(grid.points, grid.roles)
    return None if load is None else imagined(load)


def _belief(history: Sequence[Measured], good: Sequence[Measured], grid: Grid, limit: float | None) -> _Belief:
    """The weighted servers, and a Gaussian process on what they leave over."""
    x, at = _unit(grid), np.array([m.index for m in good])
    value = np.log([m.value or 1e-9 for m in good])
    limited = np.log([m.limited or 1e-9 for m in good])
    # How far beyond the limit a latency lies says little about where the limit is.
    far = math.inf if limit is None else math.log(limit * 4)
    servers = _servers(grid)
    if servers is None:
        prior = _Belief(*(np.full(len(x), part) for part in (value.mean(), 0.0, np.minimum(limited, far).mean(), 0.0)))
    else:
        closed = "clients" in grid.roles
        prior = _weighted(servers, at, value, limited, far, free_scale=closed)
    rest, rest_std = _process(x[at], value - prior.value[at], x, least=_MISFIT[0] if servers else 0.2)
    spoilt = np.array([m.index for m in history if m.value is None or m.limited is None], dtype=np.int64)
    rows = np.concatenate([at, spoilt])
    over = np.concatenate([np.minimum(limited, far), np.full(len(spoilt), 0.0 if limit is None else far)])
    seen = over - np.minimum(prior.limited[rows], far)
    late, late_std = _process(x[rows], seen, x, least=_MISFIT[1] if servers else 0.2)
    return _Belief(prior.value + rest, np.hypot(prior.value_std, rest_std), prior.limited + late, np.hypot(prior.limited_std, late_std))


def _weighted(
    servers: tuple[FloatArray, FloatArray], at: FloatArray, value: FloatArray, limited: FloatArray, far: float, *, free_scale: bool
) -> _Belief:
    """Means and deviations over the servers, weighted by the likelihood of what was measured.

    In a closed loop all times of a server may be stretched by one factor, which is fitted to each server.
    """
    rates, tails = servers
    off_value = value - rates[:, at]
    off_tail = np.minimum(limited, far) - np.minimum(tails[:, at], far)
    precise = 1 / np.hypot(_NOISE, np.array(_MISFIT)) ** 2
    shift = np.zeros(len(rates))
    if free_scale:
        off_tail = limited - tails[:, at]
        shift = (precise[0] * off_value.sum(axis=1) - precise[1] * off_tail.sum(axis=1)) / (precise.sum() * len(value))
    fit = -0.5 * (precise[0] * (off_value - shift[:, None]) ** 2 + precise[1] * (off_tail + shift[:, None]) ** 2).sum(axis=1)
    weight = np.exp(fit - fit.max())
    weight /= weight.sum()
    means, deviations = [], []
    for part in (rates + shift[:, None], np.minimum(tails - shift[:, None], far + 1.0)):
        mean = weight @ part
        means.append(mean)
        deviations.append(np.sqrt(np.maximum(weight @ (part - mean) ** 2, 1e-8)))
    return _Belief(means[0], deviations[0], means[1], deviations[1])


def _gain(good: Sequence[Measured], belief: _Belief, limit: float | None) -> FloatArray:
    """Relative expected improvement of each point, times its chance to keep the limit."""
    chance = np.ones(len(belief.value))
    if limit is not None:
        chance = _normal_cdf((math.log(limit) - belief.limited) / belief.limited_std)
    fit = [m.value for m in good if m.value and (limit is None or (m.limited or math.inf) <= limit)]
    if not fit:  # first of all a point that keeps the limit
        return np.asarray(chance * np.exp(belief.value - belief.value.max()) + 0.01 * chance, dtype=np.float64)
    u = (belief.value - math.log(max(fit))) / belief.value_std
    improvement = belief.value_std * (u * _normal_cdf(u) + np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi))
    return np.asarray(improvement * chance, dtype=np.float64)


def _process(x: FloatArray, y: FloatArray, at: FloatArray, *, least: float) -> tuple[FloatArray, FloatArray]:
    """Gaussian process regression around zero: predictions and deviations at `at`.

    Matern 5/2 kernel with one length an axis from a small set, by marginal likelihood (Rasmussen and Williams, Gaussian Processes
    for Machine Learning, 2006, eq. 2.25, 2.30 and 4.17). `least` is the smallest deviation that it believes in.
    """
    scale = max(float(np.sqrt(np.mean(y**2))), least)
    best: tuple[float, FloatArray, FloatArray] | None = None
    for lengths in _length_choices(x.shape[1]):
        factor = np.linalg.cholesky(_matern(x, x, lengths) * scale**2 + np.eye(len(x)) * _NOISE**2)
        alpha = np.linalg.solve(factor.T, np.linalg.solve(factor, y))
        likelihood = float(-0.5 * y @ alpha - np.log(np.diag(factor)).sum())
        if best is None or likelihood > best[0]:
            cross = _matern(at, x, lengths) * scale**2
            v = np.linalg.solve(factor, cross.T)
            spread = np.sqrt(np.maximum(scale**2 - (v**2).sum(axis=0), 1e-6))
            best = (likelihood, cross @ alpha, spread)
    assert best is not None
    return best[1], best[2]


def _length_choices(axes: int) -> list[tuple[float, ...]]:
    if axes > 3:
        return [(length,) * axes for length in _LENGTHS]
    choices: list[tuple[float, ...]] = [()]
    for _ in range(axes):
        choices = [(*c, length) for c in choices for length in _LENGTHS]
    return choices


def _matern(a: FloatArray, b: FloatArray, lengths: Sequence[float]) -> FloatArray:
    scaled = (a[:, None, :] - b[None, :, :]) / np.array(lengths)
    r = np.sqrt((scaled**2).sum(axis=2)) * math.sqrt(5)
    return np.asarray((1 + r + r**2 / 3) * np.exp(-r), dtype=np.float64)


def _normal_cdf(u: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(ndtr(u), dtype=np.float64)
