"""From counters to a service profile: differences of Triton's `batch_stats` enter, service times by batch and size leave.

Triton counts executions and nanoseconds per executed batch size. The difference of two readings around executions of one
input size is a point; several differences around single executions give the spread as well. Interpolates only inside what was
measured and names every place where it had to go beyond. Refuses to know servers and clocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deployctl.core.profile import Interference, ServicePoint, ServiceProfile, StageProfile

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
BatchStats = Mapping[int, tuple[int, float, float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What one difference of counters says: `count` executions of `batch` rows took `total_s` together."""

    batch: int
    count: int
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AffineLaw:
    """s(b) = base_s + per_item_s * b, with the largest relative residual over the points it was fitted to."""

    base_s: float
    per_item_s: float
    residual_ratio: float

    def at(self, batch: float) -> float:
        """Seconds for a batch; never below a tenth of the base or zero slope's worth."""
        return max(self.base_s + self.per_item_s * batch, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServiceTable:
    """Mean and coefficient of variation [batch, size index] for batches 0 … max_batch; `unknown` names what was not measured.

    `beyond` repeats those of `unknown` that concern batches: (largest measured batch, text). They matter only if such batches occur.
    """

    mean_s: npt.NDArray[np.float64]
    cv: npt.NDArray[np.float64]
    unknown: tuple[str, ...]
    beyond: tuple[tuple[int, str], ...] = ()


def executions(before: BatchStats, after: BatchStats) -> list[Execution]:
    """What was executed between two readings of one model's cumulative statistics.

    A counter that fell (the model was loaded anew) counts from zero.
    """
    found = []
    for batch, (count, *parts) in sorted(after.items()):
        old_count, *old_parts = before.get(batch, (0, 0.0, 0.0, 0.0))
        if count < old_count:
            old_count, old_parts = 0, [0.0, 0.0, 0.0]
        if count > old_count:
            total_s = sum(parts) - sum(old_parts)
            found.append(Execution(batch=batch, count=count - old_count, total_s=max(total_s, 0.0)))
    return found


def undisturbed(seen: Sequence[tuple[Execution, float]]) -> list[Execution]:
    """Those executions whose thread waited for a core for at most 5 % of their time; `seen` pairs an execution and that wait in seconds."""
    return [e for e, wait_s in seen if wait_s <= 0.05 * e.total_s]


def net(seen: Sequence[tuple[Execution, float]]) -> list[Execution]:
    """Executions as they would have been without other work: the undisturbed ones where there are three, else all less their wait.

    The wait is known for the thread, not for the execution alone, so taking it off is a little too much; a tenth always stays.
    """
    calm = undisturbed(seen)
    if len(calm) >= 3:
        return calm
    return [replace(e, total_s=max(e.total_s - wait_s, 0.1 * e.total_s)) for e, wait_s in seen]


LEAST_IDLE = 10


def met_idle(sent_s: FloatArray, latency_s: FloatArray) -> BoolArray:
    """Which answered requests (n,) came when every earlier one had its answer; arguments as in `unexplained`."""
    done_s = np.where(np.isnan(latency_s), np.inf, sent_s + latency_s)
    return np.concatenate(([True], sent_s[1:] >= np.maximum.accumulate(done_s)[:-1])) & ~np.isnan(latency_s)


def unexplained(sent_s: FloatArray, latency_s: FloatArray, expected_s: FloatArray) -> tuple[float, float]:
    """Median and spread of measured less expected latency over the requests that met an idle service.

    A request that had to queue also carries what disturbed the ones before it, so it counts only where fewer than LEAST_IDLE did not; then
    the least tenth of the differences is taken. The spread is that of the lower half: what lies above the median may be others' work.

    Args:
        sent_s: rising send times (n,).
        latency_s: measured (n,), NaN where no answer came.
        expected_s: by the simulator, without time outside the stages (n,).
    """
    rest_s, idle = latency_s - expected_s, met_idle(sent_s, latency_s)
    if np.count_nonzero(idle) < LEAST_IDLE:
        answered = rest_s[~np.isnan(rest_s)]
        return (max(float(np.quantile(answered, 0.1)), 0.0), 0.0) if answered.size else (0.0, 0.0)
    middle, low = np.percentile(rest_s[idle], [50, 16])
    return max(float(middle), 0.0), max(float(middle - low), 0.0)


TRAFFIC_RATIOS = (0.7, 1.5)  # beyond these it is not the traffic
_LEAST_STAGES_RATIO = 0.2


def outside_cpu_s(loops: Sequence[tuple[float, float]]) -> float:
    """Core-seconds a request that do not grow with its work: the intercept of what was measured over what the stages should use.

    Measured service times and a loop may differ by a common factor (warm caches, a slower moment), which an intercept leaves out; it
    needs two clearly different sizes, else it is the plain difference.

    Args:
        loops: (core-seconds by the stages' service times, core-seconds measured) a request, by rising size.
    """
    (small_s, small_used_s), (large_s, large_used_s) = loops[0], loops[-1]
    if large_s <= 1.5 * small_s:  # also where both are 0: nobody saw the stages use a core
        return max(small_used_s - small_s, 0.0)
    slope = (large_used_s - small_used_s) / (large_s - small_s)
    return min(max(small_used_s - slope * small_s, 0.0), small_used_s / 2)


def wake_law(pauses: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares of w (1 - exp(-t / tau)): (w, tau) in seconds.

    Args:
        pauses: (pause t in seconds, core-seconds that a request after it used more than one without a pause).
    """
    t, more_s = np.array([p[0] for p in pauses]), np.array([p[1] for p in pauses])
    best = (math.inf, 0.0, float(t.mean()))
    for tau in np.geomspace(t.min() / 4, t.max() * 2, 40):
        shape = 1.0 - np.exp(-t / tau)
        w = max(float(more_s @ shape / (shape @ shape)), 0.0)
        best = min(best, (float(np.sum((more_s - w * shape) ** 2)), w, float(tau)))
    return best[1], best[2]


def compute(stages_s: float, used_s: float) -> bool:
    """Whether stages that use `stages_s` of the `used_s` core-seconds of a request compute enough to be told from what is beside them."""
    return used_s > 0 and stages_s > _LEAST_STAGES_RATIO * used_s


def traffic_ratio(stages_s: float, beside_s: float, used_s: float) -> float:
    """Core-seconds that the stages used in traffic over what their service times say; 1 where they hardly compute.

    Args:
        stages_s: core-seconds a request by the stages' service times.
        beside_s: core-seconds a request beside them: outside the stages and after pauses.
        used_s: core-seconds a request measured in traffic; 0 where that is not known.
    """
    if not compute(stages_s, used_s):
        return 1.0
    return min(max((used_s - beside_s) / stages_s, TRAFFIC_RATIOS[0]), TRAFFIC_RATIOS[1])


LEAST_GAPS = 50  # between answers of a backlog, of all sizes together
_LEAST_GAPS_OF_A_SIZE = 10


def backlog_ratio(sent_s: FloatArray, measured_s: FloatArray, simulated_s: FloatArray, size: IntArray) -> float | None:
    """Time between two answers while others wait, measured over simulated; None where a backlog is too rare to tell.

    In a backlog the time from one answer to the next is the time that the later request takes of what all of them share. It knows
    neither pauses nor what idle threads burn, and medians by size leave out moments in which something else ran.

    Args:
        sent_s: send times (n,).
        measured_s: latencies (n,), NaN where no answer came.
        simulated_s: of the same requests (n,).
        size: of each request (n,).
    """
    measured, simulated = _gaps(sent_s, measured_s, size), _gaps(sent_s, simulated_s, size)
    pairs = [tuple(gaps[of == one] for of, gaps in (measured, simulated)) for one in np.unique(size)]
    rows = np.array([(min(a.size, b.size), np.median(a), np.median(b)) for a, b in pairs if min(a.size, b.size) >= _LEAST_GAPS_OF_A_SIZE])
    if not rows.size or rows[:, 0].sum() < LEAST_GAPS:
        return None
    seen_s, told_s = rows[:, 0] @ rows[:, 1:]
    return float(seen_s / told_s) if told_s > 0 else None


def _gaps(sent_s: FloatArray, latency_s: FloatArray, size: IntArray) -> tuple[IntArray, FloatArray]:
    """For each answer that came while the one before left others waiting: size of its request, seconds since the one before."""
    order = np.argsort(sent_s + latency_s, kind="stable")[: np.count_nonzero(~np.isnan(latency_s))]  # NaN sorts last
    done_s = (sent_s + latency_s)[order]
    waiting = np.searchsorted(np.sort(sent_s[order]), done_s[:-1], side="right") - np.arange(1, done_s.size) > 0
    return size[order][1:][waiting], np.diff(done_s)[waiting]


def point(batch: int, size: int, seen: Sequence[Execution], *, trim_ratio: float = 0.0) -> ServicePoint | None:
    """Mean and spread of a batch size from several differences; None when it was never executed.

    The spread comes from the differences' means; where there are fewer than three it is 0 (unknown).
    `trim_ratio` drops that share of the differences with the longest executions, which on a shared machine are other people's work.
    """
    rows = sorted((e for e in seen if e.batch == batch), key=lambda e: e.total_s / e.count)
    if not rows:
        return None
    kept = rows[: max(1, math.ceil(len(rows) * (1.0 - trim_ratio)))]
    count = sum(e.count for e in kept)
    means = [e.total_s / e.count for e in kept]
    # The mean of n executions has 1/n of the variance of one.
    spread = float(np.std(means, ddof=1)) * math.sqrt(count / len(kept)) if len(kept) >= 3 else 0.0
    return ServicePoint(batch=batch, size=size, mean_s=sum(e.total_s for e in kept) / count, std_s=spread, count=count)


def merge(points: Iterable[ServicePoint]) -> tuple[ServicePoint, ...]:
    """Points of equal (size, batch) pooled by their counts, sorted by (size, batch)."""
    pools: dict[tuple[int, int], list[ServicePoint]] = {}
    for p in points:
        pools.setdefault((p.size, p.batch), []).append(p)
    return tuple(_pool(group) for _, group in sorted(pools.items()))


def _pool(group: Sequence[ServicePoint]) -> ServicePoint:
    count = sum(p.count for p in group)
    mean = sum(p.mean_s * p.count for p in group) / count
    # Law of total variance over the pooled groups.
    variance = sum(p.count * (p.std_s**2 + (p.mean_s - mean) ** 2) for p in group) / count
    first = group[0]
    return ServicePoint(batch=first.batch, size=first.size, mean_s=mean, std_s=math.sqrt(variance), count=count)


def affine(points: Sequence[ServicePoint]) -> AffineLaw:
    """Least squares of relative error through the points of one size (a law for planning; the table keeps the points).

    With one point the base is 0: all of the time is taken as per item, which never flatters larger batches.
    """
    batch = np.array([p.batch for p in points], dtype=np.float64)
    seconds = np.array([p.mean_s for p in points])
    if len(points) == 1:
        return AffineLaw(base_s=0.0, per_item_s=float(seconds[0] / batch[0]), residual_ratio=0.0)
    weight = 1.0 / np.maximum(seconds, 1e-9)
    matrix = np.stack([np.ones_like(batch), batch], axis=1) * weight[:, None]
    (base, slope), *_ = np.linalg.lstsq(matrix, seconds * weight, rcond=None)
    fitted = base + slope * batch
    residual = float(np.max(np.abs(fitted - seconds) / np.maximum(seconds, 1e-9)))
    return AffineLaw(base_s=float(base), per_item_s=float(slope), residual_ratio=residual)


def service_table(stage: StageProfile, sizes: Sequence[int], max_batch: int) -> ServiceTable:
    """Service times of one stage for batches 1 … max_batch and the wanted sizes.

    As in traffic: what computes is scaled by the stage's `traffic_ratio`.
    Linear between measured batches and between measured sizes. Beyond the largest measured batch the affine law's slope goes
    on, and outside the measured sizes the nearest one is scaled; both are named in `unknown`.

    Raises:
        ValueError: the stage has no points at all.
    """
    if not stage.points:
        raise ValueError(f"stage {stage.model} has no measured point")
    measured = sorted({p.size for p in stage.points})
    rows = {size: _by_batch(stage, size, max_batch) for size in measured}
    beyond = tuple(
        (rows[s][2], f"{stage.model}: batch {max_batch} at size {s} (measured to {rows[s][2]})") for s in measured if rows[s][2] < max_batch
    )
    unknown = [text for _, text in beyond]
    in_traffic = 1.0 + stage.cpu_ratio * (stage.traffic_ratio - 1.0)
    mean_s = np.zeros((max_batch + 1, len(sizes)))
    cv = np.zeros((max_batch + 1, len(sizes)))
    for j, size in enumerate(sizes):
        low = max((m for m in measured if m <= size), default=measured[0])
        high = min((m for m in measured if m >= size), default=measured[-1])
        if size < measured[0] or size > measured[-1]:
            unknown.append(f"{stage.model}: size {size} (measured {measured[0]} to {measured[-1]})")
        share = 0.0 if high == low else (size - low) / (high - low)
        scale = size / low if low == high and size > low else 1.0
        mean_s[:, j] = (rows[low][0] * (1 - share) + rows[high][0] * share) * scale * in_traffic
        cv[:, j] = rows[low][1] * (1 - share) + rows[high][1] * share
    return ServiceTable(mean_s=mean_s, cv=cv, unknown=tuple(unknown), beyond=beyond)


def _by_batch(stage: StageProfile, size: int, max_batch: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    points = sorted((p for p in stage.points if p.size == size), key=lambda p: p.batch)
    batch = np.array([p.batch for p in points], dtype=np.float64)
    mean = np.array([p.mean_s for p in points])
    spread = np.array([p.std_s / p.mean_s if p.mean_s > 0 else 0.0 for p in points])
    wanted = np.arange(max_batch + 1, dtype=np.float64)
    law = affine(points)
    table = np.interp(wanted, batch, mean)
    beyond = wanted > batch[-1]
    table[beyond] = mean[-1] + max(law.per_item_s, 0.0) * (wanted[beyond] - batch[-1])
    below = wanted < batch[0]
    table[below] = mean[0]
    return table, np.interp(wanted, batch, spread), int(batch[-1])


def slowdowns(profile: ServiceProfile, model: str, instances: int) -> tuple[npt.NDArray[np.float64], bool]:
    """Slowdown by number of busy instances 0 … instances, and whether all of it was measured.

    Linear between measured counts; beyond them the last slope goes on. With shared cores (`profile.cores`) it is all ones,
    because the simulator shares the cores itself.
    """
    if profile.cores > 0 or instances == 1:
        return np.ones(instances + 1), True
    rows = sorted((i.instances, i.slowdown_ratio) for i in profile.interference if i.model == model)
    rows = [(1, 1.0), *[r for r in rows if r[0] > 1]]
    known = np.array([r[0] for r in rows], dtype=np.float64)
    ratio = np.array([r[1] for r in rows])
    wanted = np.arange(instances + 1, dtype=np.float64)
    table = np.interp(wanted, known, ratio)
    if len(rows) > 1:
        slope = (ratio[-1] - ratio[-2]) / (known[-1] - known[-2])
        beyond = wanted > known[-1]
        table[beyond] = ratio[-1] + max(slope, 0.0) * (wanted[beyond] - known[-1])
    return table, bool(known[-1] >= instances)


def interference(model: str, instances: int, alone: ServicePoint, together: ServicePoint) -> Interference:
    """The slowdown of one execution with `instances` busy, from the same batch and size measured alone."""
    return Interference(model=model, instances=instances, slowdown_ratio=max(1.0, together.mean_s / alone.mean_s))
