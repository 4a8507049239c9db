"""Refusing at once what would be late anyway: Triton's queue policy, computed from the SLO and what a replica can do.

What enters are the SLO's limit and measured times; what leaves is a queue length and a time limit for config.pbtxt
(`max_queue_size`, `default_timeout_microseconds` with action REJECT). For a step in load that no scaler can meet in time:
without it, one such step makes every request late until the backlog is gone, also those that are served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A queue policy.

    Attributes:
        queue_size: requests that may wait in one replica; the next one is REJECTED.
        queue_timeout_s: a request that has waited longer is REJECTED.
    """

    queue_size: int
    queue_timeout_s: float


def admission(slo_s: float, *, full_batch_s: float, max_batch: int, instances: int, overhead_s: float = 0.0) -> Admission | None:
    """The longest queue that still keeps the SLO.

    A request that waits w, and then shares a full batch that takes `full_batch_s`, is answered after w + full_batch_s +
    overhead_s. So it may wait w = slo_s - full_batch_s - overhead_s, and at most w times the highest rate (instances times
    max_batch over full_batch_s) requests can be served in that time.

    Args:
        slo_s: limit of the latency objective.
        full_batch_s: high percentile of the service time of a batch of `max_batch`.
        max_batch: largest batch.
        instances: copies that run at once in one replica.
        overhead_s: time outside queue and execution.

    Returns:
        None where even a request that does not wait is late: then no queue policy helps.
    """
    wait_s = slo_s - full_batch_s - overhead_s
    if wait_s <= 0 or full_batch_s <= 0:
        return None
    highest_rps = instances * max_batch / full_batch_s
    return Admission(queue_size=max(math.floor(highest_rps * wait_s), max_batch), queue_timeout_s=wait_s)
