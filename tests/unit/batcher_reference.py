"""Triton's batcher thread on one shared core, written down as its source runs: slow, and apart from the compiled loops.

`pump` is one pass of `BatcherThread` until it sleeps (False) or would go round for ever (True): a payload that was formed from the
whole queue may still grow until it executes; one that met another shape or is full is saturated; two payloads an instance may wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Payload:
    """A formed batch that waits or executes."""

    members: list
    saturated: bool = False
    formed: bool = False


@dataclass
class OneCore:
    """One stage of one instance (or more) whose executions, and a polling thread, share one core equally."""

    work_s: dict  # by (batch, size)
    max_batch: int
    instances: int
    handover_s: float
    queue: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    running: list = field(default_factory=list)  # [work left, payload]
    spins: bool = False

    def pump(self, size):
        """The batcher thread after something changed."""
        while True:
            current = self.waiting[-1] if self.waiting and not self.waiting[-1].saturated else None
            if not self.queue:
                return False
            if len(self.waiting) >= 2 * self.instances:
                return False  # no slot: it sleeps
            if current is None:
                current = Payload([self.queue.pop(0)])
                self.waiting.append(current)
                current.saturated = len(current.members) == self.max_batch
            elif size[self.queue[0]] != size[current.members[0]]:
                return True  # nothing pending, nothing to wait for
            while self.queue and not current.saturated and size[self.queue[0]] == size[current.members[0]]:
                current.members.append(self.queue.pop(0))
                current.saturated = len(current.members) == self.max_batch
            if self.queue and not current.formed:
                current.saturated = True  # it was formed with the other shape in sight
            current.formed = True


def serve(at_s, size, core):
    """Completion times of requests that arrive at `at_s`."""
    done = [math.nan] * len(at_s)
    now_s, k = 0.0, 0
    while k < len(at_s) or core.running:
        claims = len(core.running) + core.spins
        speed = min(1.0, 1.0 / claims) if claims else 1.0
        finish_s = now_s + min(left for left, _ in core.running) / speed if core.running else math.inf
        arrival_s = at_s[k] if k < len(at_s) else math.inf
        at = min(finish_s, arrival_s)
        for task in core.running:
            task[0] -= (at - now_s) * speed
        now_s = at
        if arrival_s <= finish_s:
            core.queue.append(k)
            k += 1
        else:
            ended = min(core.running, key=lambda task: task[0])
            core.running.remove(ended)
            for member in ended[1].members:
                done[member] = now_s
        spun = core.spins
        core.spins = core.pump(size)
        while core.waiting and len(core.running) < core.instances:
            payload = core.waiting.pop(0)
            payload.saturated = True  # it executes: stale
            work_s = core.work_s[len(payload.members), size[payload.members[0]]]
            core.running.append([work_s + (core.handover_s if spun else 0.0), payload])
            core.spins = spun = core.pump(size)
    return done
