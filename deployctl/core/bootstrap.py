"""Confidence intervals for autocorrelated measurements: values with their times enter, interval ends leave.

Requests that are close in time share a queue, so they are not independent, and an interval that assumes so is too narrow. Here
whole stretches of time are resampled (circular block bootstrap), with a length taken from the data. A tail percentile often
rests on a handful of bursts, and resampling a handful cannot show what a further burst would do. So the interval is never
narrower than the exact binomial one for the *effective* number of requests, n over the design effect of time blocks; where
that reaches beyond the largest value, the tail is continued as an exponential, the law of waiting times in a loaded queue.

Sources: Politis and Romano, "A circular block-resampling procedure for stationary data", 1992. Block length: Politis and
White, "Automatic block-length selection for the dependent bootstrap", 2004, corrected by Patton, Politis and White, 2009.
Few blocks: Hesterberg, "What teachers should know about the bootstrap", 2015 (expanded percentile interval). Design
effect: Kish, "Survey Sampling", 1965; binomial ends: Clopper and Pearson, 1934, on the scale of Woodruff, 1952.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv, gammaincinv, ndtr, stdtrit

Floats = npt.NDArray[np.float64]
MIN_BLOCK_S = 1.0
MIN_BLOCKS = 5
MAX_BINS = 800
MAX_CANDIDATES = 4096
BLOCK_FACTOR = 2.0  # Politis and White's length suits means; tails of queues stay correlated longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Time cut into equal bins, and blocks of several bins.

    Attributes:
        index: bin of each sample, (n,).
        count: number of bins.
        width_s: of one bin.
        block: bins in a block.
    """

    index: npt.NDArray[np.int64]
    count: int
    width_s: float
    block: int

    @property
    def blocks(self) -> float:
        """How many blocks fit into the test: the number of nearly independent looks."""
        return self.count / self.block


def cut(at_s: Floats, scores: Floats, duration_s: float) -> Bins | None:
    """Bins and a block length for samples at `at_s`; None if fewer than MIN_BLOCKS blocks of 1 s fit.

    Args:
        at_s: time of each sample in [0, duration_s).
        scores: (n,) what the samples say about the quantity; the autocorrelation of its sums decides the block length.
        duration_s: length of the test.
    """
    if duration_s < MIN_BLOCKS * MIN_BLOCK_S or at_s.size == 0:
        return None
    count = int(min(MAX_BINS, math.floor(duration_s / (MIN_BLOCK_S / 4))))
    width_s = duration_s / count
    index = np.clip((at_s / width_s).astype(np.int64), 0, count - 1)
    series: Floats = np.bincount(index, weights=scores - scores.mean(), minlength=count).astype(np.float64)
    shortest = math.ceil(MIN_BLOCK_S / width_s)
    longest = max(count // (MIN_BLOCKS + 1), shortest)
    wanted = math.ceil(BLOCK_FACTOR * block_length(series))
    return Bins(index=index, count=count, width_s=width_s, block=min(max(wanted, shortest), longest))


def tail_scores(values: Floats) -> Floats:
    """Exponential scores of the ranks, -ln(1 - rank / n): they weigh the tail and do not mind infinite values."""
    n = values.size
    ranks = np.empty(n)
    ranks[np.argsort(values, kind="stable")] = np.arange(1, n + 1)
    scores: Floats = -np.log1p(-ranks / (n + 1))
    return scores


def design_effect(exceeds: npt.NDArray[np.bool_], bins: Bins) -> float:
    """How many times the variance of a count over blocks exceeds that of independent samples; at least 1.

    With e the exceedances and p their share, sums S over circular blocks of L of N bins of (e - p) give
    deff = mean(S^2) / L * N / (n p (1 - p)).
    """
    n, share = exceeds.size, float(exceeds.mean())
    if not 0 < share < 1:
        return 1.0
    y = np.bincount(bins.index, weights=exceeds - share, minlength=bins.count)
    running = np.concatenate(([0.0], np.cumsum(np.concatenate((y, y[: bins.block])))))
    sums = running[bins.block : bins.block + bins.count] - running[: bins.count]
    return max(1.0, float((sums**2).mean()) / bins.block * bins.count / (n * share * (1 - share)))


def block_length(series: Floats) -> float:
    """The block length, in elements, that minimises the error of a circular block bootstrap's variance (Politis-White)."""
    n = series.size
    centred = series - series.mean()
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum))[:n] / n
    if covariance[0] <= 0 or n < 10:
        return 1.0
    horizon = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(math.ceil(math.sqrt(n)) + horizon, n // 2)
    small = np.abs(covariance[1 : longest + horizon + 1] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    runs = np.convolve(small.astype(int), np.ones(horizon, dtype=int), mode="valid")
    first = np.flatnonzero(runs == horizon)
    reach = 2 * max(int(first[0]) if first.size else longest, 1)
    lags = np.arange(1, min(reach, n - 1) + 1)
    taper = np.clip(2 * (1 - lags / reach), 0, 1)
    g = float(np.sum(2 * taper * lags * covariance[lags]))
    spectral = covariance[0] + float(np.sum(2 * taper * covariance[lags]))
    if spectral <= 0:
        return 1.0
    return float((2 * g**2 / (4 / 3 * spectral**2)) ** (1 / 3) * n ** (1 / 3))


def weights(bins: Bins, rounds: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """How often each bin occurs in each resample, (rounds, bins): blocks start anywhere and wrap around the end."""
    need = math.ceil(bins.count / bins.block)
    starts = rng.integers(0, bins.count, size=(rounds, need))
    edges = np.zeros((rounds, 2 * bins.count + 1), dtype=np.int32)
    row = np.repeat(np.arange(rounds), need)
    np.add.at(edges, (row, starts.ravel()), 1)
    np.add.at(edges, (row, starts.ravel() + bins.block), -1)
    cover = np.cumsum(edges[:, :-1], axis=1)
    folded: npt.NDArray[np.float32] = (cover[:, : bins.count] + cover[:, bins.count :]).astype(np.float32)
    return folded


def percentile(values: Floats, q: float) -> float:
    """The smallest value that at least a share `q` of the sample does not exceed; infinite values count."""
    rank = min(max(math.ceil(q * values.size - 1e-9), 1), values.size)
    return float(np.partition(values, rank - 1)[rank - 1])


def percentile_interval(
    values: Floats, at_s: Floats, q: float, duration_s: float, rng: np.random.Generator, *, level: float = 0.95, rounds: int = 1000
) -> tuple[float, float] | None:
    """Ends of the interval on the `q` quantile; an end may be infinite. None where the test is too short to say.

    Args:
        values: (n,), infinite where no right answer came.
        at_s: (n,) times in [0, duration_s).
        q: 0 < q < 1.
        duration_s: length of the test.
        rng: the only source of randomness.
        level: two-sided confidence.
        rounds: resamples.
    """
    bins = cut(at_s, tail_scores(values), duration_s)
    if bins is None:
        return None
    ordered = np.sort(values)
    draws = np.sort(_resampled(values, ordered, q, bins, weights(bins, rounds, rng)))
    tail = _tail(bins, level)
    low = float(draws[math.floor(tail * rounds)])
    high = float(draws[min(math.ceil((1 - tail) * rounds) - 1, rounds - 1)])
    others = (order_interval(ordered, q, level), _effective_interval(values, ordered, q, bins, tail))
    return min(low, *(o[0] for o in others)), max(high, *(o[1] for o in others))


def _effective_interval(values: Floats, ordered: Floats, q: float, bins: Bins, tail: float) -> tuple[float, float]:
    """The binomial interval for n over the design effect, the larger one of two thresholds, since the tail itself is thin."""
    n, share = ordered.size, 1 - q
    wider = min(3 * share, (1 + share) / 2)
    at = ordered[max(math.floor(n * (1 - wider)) - 1, 0)]
    effect = max(design_effect(values > percentile(values, q), bins), design_effect(values > at, bins))
    k, m = n * share / effect, n / effect
    least, most = float(betaincinv(k, m - k + 1, tail)), float(betaincinv(k + 1, max(m - k, 1e-9), 1 - tail))
    low = float(ordered[max(math.floor((1 - most) * n) - 1, 0)])
    rank = math.ceil((1 - least) * n)
    if rank < n or not math.isfinite(ordered[-1]):
        return low, float(ordered[min(rank, n) - 1])
    beyond = ordered[ordered > at] - at
    scale = float(beyond.mean()) if beyond.size else 0.0
    return low, max(float(ordered[-1]), float(at) + scale * math.log(wider / max(least, 1e-12)))


def _resampled(values: Floats, ordered: Floats, q: float, bins: Bins, weight: npt.NDArray[np.float32]) -> Floats:
    """The quantile of each resample, from counts above candidate thresholds; the tail first, everything if that is not enough."""
    begin = max(math.floor(ordered.size * (1 - 6 * (1 - q))), 0)
    totals = weight @ np.bincount(bins.index, minlength=bins.count).astype(np.float32)
    while True:
        candidates = _thin(ordered[begin:])
        slot = np.searchsorted(candidates, values, side="left")
        cells = np.bincount(bins.index * (candidates.size + 1) + slot, minlength=bins.count * (candidates.size + 1))
        table = cells.reshape(bins.count, candidates.size + 1).astype(np.float32)
        above = np.ascontiguousarray(np.cumsum(table[:, ::-1], axis=1)[:, ::-1][:, 1:])  # BLAS wants it so
        enough = (weight @ above) <= (1 - q) * totals[:, None] + 1e-3
        first = np.argmax(enough, axis=1)
        if begin == 0 or np.all(first > 0):
            return np.asarray(candidates[first], dtype=np.float64)
        begin = 0


def _thin(ordered: Floats) -> Floats:
    """At most MAX_CANDIDATES of the ordered values, always with the largest, and without doubles."""
    if ordered.size > MAX_CANDIDATES:
        ordered = ordered[np.linspace(0, ordered.size - 1, MAX_CANDIDATES).round().astype(np.int64)]
    return np.unique(ordered)


def _tail(bins: Bins, level: float) -> float:
    """The share to cut at each end: wider with few blocks, as a t interval is wider than a normal one."""
    blocks = max(bins.blocks, 2.0)
    return float(ndtr(math.sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, (1 - level) / 2)))


def order_interval(ordered: Floats, q: float, level: float = 0.95) -> tuple[float, float]:
    """The interval on a quantile from independent samples, by order statistics (exact, no assumption on the law).

    The upper end is infinite where even the largest of n values does not bound the quantile: q^n > (1 - level) / 2.
    """
    n = ordered.size
    spread = 12 * math.sqrt(n * q * (1 - q)) + 12
    ranks = np.arange(max(math.floor(n * q - spread), 0), min(math.ceil(n * q + spread), n) + 1)
    below = bdtr(ranks, n, q)
    tail = (1 - level) / 2
    low_rank = int(ranks[np.argmax(below >= tail)])
    high = np.flatnonzero(below >= 1 - tail)
    high_rank = int(ranks[high[0]]) + 1 if high.size else n + 1
    low = float(ordered[low_rank - 1]) if low_rank >= 1 else 0.0
    return low, float(ordered[high_rank - 1]) if high_rank <= n else math.inf


def ratio_interval(
    bad: npt.NDArray[np.bool_], at_s: Floats, duration_s: float, rng: np.random.Generator, *, level: float = 0.95, rounds: int = 1000
) -> tuple[float, float]:
    """Ends of the interval on the share of `bad`: Clopper-Pearson, and above it the block bootstrap where that reaches further.

    Failures that came in one burst happened all the same, so the lower end does not resample them away.
    """
    n, k = bad.size, int(bad.sum())
    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    bins = cut(at_s, bad.astype(np.float64), duration_s)
    if bins is None or k in (0, n):
        return low, high
    weight = weights(bins, rounds, rng)
    seen = weight @ np.bincount(bins.index, minlength=bins.count).astype(np.float32)
    hit = weight @ np.bincount(bins.index, weights=bad.astype(np.float64), minlength=bins.count).astype(np.float32)
    draws = np.sort(hit / np.maximum(seen, 1))
    tail = _tail(bins, level)
    return low, max(high, float(draws[min(math.ceil((1 - tail) * rounds) - 1, rounds - 1)]))


def requests_for(failures: int, limit: float, *, level: float = 0.95) -> int:
    """About how many requests bound the share of failures below `limit` if no more than these come.

    The Poisson limit of Clopper and Pearson's upper end: the chi-square quantile with 2 (k + 1) degrees of freedom, halved, over the limit.
    """
    return math.ceil(float(gammaincinv(failures + 1, 1 - (1 - level) / 2)) / limit) if limit > 0 else sys.maxsize
