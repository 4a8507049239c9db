"""Where the time of a load test went: samples and two readings of the servers' statistics enter, mean seconds by part leave.

Means only, since only means add up over parts. What was not readable is absent, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deployctl.core.load_samples import Samples
from deployctl.ports import ServerStats
from deployctl.report.load import Stage

Readings = Mapping[str, ServerStats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What all servers did between two readings, by model."""

    success: dict[str, int]
    request_s: dict[str, float]
    queue_s: dict[str, float]
    batches: dict[str, dict[int, tuple[int, float]]]
    cache_hits: int


def between(before: Readings, after: Readings) -> Delta:
    """Sums over servers; one that is new began at zero, one that has gone is left out."""
    delta = Delta(success={}, request_s={}, queue_s={}, batches={}, cache_hits=0)
    hits = 0
    for name, now in after.items():
        then = before.get(name)
        for into, key in ((delta.success, "success"), (delta.request_s, "request_s"), (delta.queue_s, "queue_s")):
            for model, value in getattr(now, key).items():
                into[model] = into.get(model, 0) + max(value - (getattr(then, key).get(model, 0) if then else 0), 0)
        hits += sum(now.cache_hits.values()) - (sum(then.cache_hits.values()) if then else 0)
        for model, rows in now.batch_stats.items():
            old = then.batch_stats.get(model, {}) if then else {}
            _add_batches(delta.batches.setdefault(model, {}), rows, old)
    return Delta(success=delta.success, request_s=delta.request_s, queue_s=delta.queue_s, batches=delta.batches, cache_hits=max(hits, 0))


Row = tuple[int, float, float, float]


def _add_batches(into: dict[int, tuple[int, float]], rows: Mapping[int, Row], old: Mapping[int, Row]) -> None:
    for batch, row in rows.items():
        was = old.get(batch, (0, 0.0, 0.0, 0.0))
        count, spent = into.get(batch, (0, 0.0))
        into[batch] = (count + max(row[0] - was[0], 0), spent + max(sum(row[1:]) - sum(was[1:]), 0.0))


def stages(samples: Samples, delta: Delta | None, entry: str) -> tuple[Stage, ...]:
    """Client wait, front door, queue, compute and the rest inside the server, in the order a request passes them.

    Args:
        samples: of the judged part.
        delta: of the whole test with its warm-up; None where no statistics were readable.
        entry: the model that requests were sent to.
    """
    if not samples.ok.any():
        return ()
    wait_s = float(np.mean((samples.sent_s - samples.intended_s)[samples.ok]))
    outside_s = float(np.mean(samples.latency_s[samples.ok])) - wait_s
    first = Stage(name="wait in the client", mean_s=wait_s, note="from the planned to the real send time")
    served = delta.success.get(entry, 0) if delta else 0
    if delta is None or served == 0:
        return (first, Stage(name="front door and server", mean_s=outside_s, note="from the send to the answer; the server's statistics are unknown"))
    server_s = delta.request_s[entry] / served
    models = executed(delta, entry)
    queue_s = sum(delta.queue_s.get(m, 0.0) for m in models) / served
    compute_s = sum(batch * spent for m in models for batch, (_, spent) in delta.batches[m].items()) / served
    return (
        first,
        Stage(name="front door and network", mean_s=max(outside_s - server_s, 0.0), note="the client's time less the server's"),
        Stage(name="queue and batch forming", mean_s=queue_s, note="Triton's queue time, all models"),
        Stage(name="compute", mean_s=compute_s, note="executions of the request's own batches, all models"),
        Stage(name="rest of the server", mean_s=max(server_s - queue_s - compute_s, 0.0), note="steps between models, copies, scheduling"),
    )


def executed(delta: Delta, entry: str) -> list[str]:
    """The models that computed. Triton books the time of an ensemble's steps under the ensemble too, so it is left out beside them."""
    found = [model for model, rows in delta.batches.items() if any(count for count, _ in rows.values())]
    return [model for model in found if model != entry] if len(found) > 1 else found


def mean_batch(delta: Delta | None, entry: str) -> dict[str, float]:
    """Mean executed batch size of each model that computed."""
    found = {}
    for model in executed(delta, entry) if delta else ():
        rows = delta.batches[model] if delta else {}
        found[model] = sum(batch * count for batch, (count, _) in rows.items()) / sum(count for count, _ in rows.values())
    return found


def cache_hit_ratio(delta: Delta | None, entry: str) -> float | None:
    """Answers from the response cache over answered requests; None where unknown."""
    served = delta.success.get(entry, 0) if delta else 0
    return None if delta is None or served == 0 else min(delta.cache_hits / served, 1.0)
