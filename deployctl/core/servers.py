"""What simple servers would do at each point of a grid: axes with known meanings enter, predictions of many imagined servers leave.

A grid that nothing is known about is still a grid of a server: more clients or a higher rate mean more load, throughput stops at a
capacity that instances and batches set, latency grows before it. A few thousand servers of one family with different times span
what may be; measurements then weight them. Refuses to know how the grid is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Role = Literal["instances", "max_batch", "queue_delay_s", "clients", "rate_rps"]

_SERVERS = 3000
_SHARP = 4.0  # how sharply throughput bends from few clients to capacity
_FULL = 0.97  # of capacity: beyond it an open queue grows without bound
_HOPELESS = 30.0  # service times: latency of a queue that grows


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The grid's axes by meaning, one value a point; what an axis does not say is 1 instance, batch 1, no delay.

    `offered` is clients under way (closed loop) or requests per second (open loop), by `closed`.
    """

    offered: FloatArray
    closed: bool
    instances: FloatArray
    max_batch: FloatArray
    delay_s: FloatArray


def load_of(points: Sequence[Sequence[float]], roles: Sequence[Role | None]) -> Load | None:
    """The axes by meaning; None where no axis says how much is offered."""
    column = {role: np.array([p[i] for p in points], dtype=np.float64) for i, role in enumerate(roles) if role is not None}
    offered = column.get("clients", column.get("rate_rps"))
    if offered is None:
        return None
    one = np.ones(len(points))
    return Load(
        offered=offered,
        closed="clients" in column,
        instances=column.get("instances", one),
        max_batch=column.get("max_batch", one),
        delay_s=column.get("queue_delay_s", 0.0 * one),
    )


def imagined(load: Load) -> tuple[FloatArray, FloatArray]:
    """Logarithms of throughput and tail latency [server, point] of servers drawn from a wide prior.

    A server serves a batch of b in t0 + a b, its k instances slow each other by 1 + x (k - 1), and a request spends z outside.
    Closed loop: throughput is the smooth minimum of clients / response and of capacity (asymptotic bounds; Denning and Buzen 1978),
    latency is clients / throughput (Little) times a tail factor. Open loop: the mean batch solves b = L (t0 + a b), and the wait is
    that of G/G/k by Sakasegawa's approximation (1977), stretched to the tail.
    """
    rng = np.random.default_rng(20_240_607)  # the prior is one fixed set of servers
    u = rng.random((7, _SERVERS, 1))
    share = u[0] ** 2  # of a single execution that is per batch and not per item, most servers little
    slow = np.where(u[1] < 0.15, 0.0, u[1] ** 1.5)
    # A capacity somewhere in or above the offered rates; in a closed loop the measurements fix the scale.
    scale = 10 ** (2.5 * u[2] - 1.2) / (1.0 if load.closed else float(np.median(load.offered)))
    base_s, item_s, outside_s = share * scale, (1 - share) * scale, 0.5 * u[3] ** 2 * scale
    tail = 1.0 + 2.0 * u[4] ** 2
    stretched = 1 + slow * (load.instances - 1)
    if load.closed:
        return _closed(load, base_s * stretched, item_s * stretched, outside_s, 1 + 0.15 * tail)
    return _open(load, base_s * stretched, item_s * stretched, outside_s, tail, 1 + 4 * u[5])


def _closed(load: Load, base_s: FloatArray, item_s: FloatArray, outside_s: FloatArray, tail: FloatArray) -> tuple[FloatArray, FloatArray]:
    batch = np.clip(load.offered / load.instances, 1.0, load.max_batch)
    service_s = base_s + item_s * batch
    capacity = load.instances * batch / service_s
    few = load.offered / (outside_s + base_s + item_s + np.where(load.max_batch > 1, load.delay_s, 0.0))
    rate = (few**-_SHARP + capacity**-_SHARP) ** (-1 / _SHARP)
    return np.log(rate), np.log(tail * load.offered / rate)


def _open(
    load: Load, base_s: FloatArray, item_s: FloatArray, outside_s: FloatArray, tail: FloatArray, wait_tail: FloatArray
) -> tuple[FloatArray, FloatArray]:
    each = load.offered / load.instances
    capacity = load.instances * load.max_batch / (base_s + item_s * load.max_batch)
    room = 1 - each * item_s
    batch = np.where(room > 0, np.clip(each * base_s / np.maximum(room, 1e-9), 1.0, load.max_batch), load.max_batch)
    service_s = base_s + item_s * batch
    busy = load.offered / capacity
    growth = np.clip(busy, 0.0, _FULL)
    wait_s = service_s * growth ** (np.sqrt(2 * (load.instances + 1)) - 1) / (load.instances * (1 - growth))
    delay_s = np.where(load.max_batch > 1, np.minimum(load.delay_s, (load.max_batch - 1) / load.offered), 0.0)
    latency_s = outside_s + delay_s + tail * service_s + wait_tail * wait_s
    latency_s = np.where(busy >= _FULL, np.maximum(latency_s, _HOPELESS * service_s), latency_s)
    return np.log(np.minimum(load.offered, capacity)), np.log(latency_s)
