"""Triton's batcher thread with preferred sizes, written down as its source runs, with service times that depend on nothing else.

Slow, and apart from the compiled loop: a queue with a cursor and a mark, payloads with their own flags, and the thread's own clock.
`look` is one `GetDynamicBatch`, `pump` the thread's rounds until it sleeps, `take` an instance's `Dequeue`. Times in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Payload:
    """A formed batch."""

    members: list = field(default_factory=list)
    marked: bool = False  # another shape was seen behind it
    stale: bool = False  # an instance took it, or looked at it


@dataclass
class Batcher:
    """One model: settings, and the thread's state."""

    preferred: tuple
    max_batch: int
    delay_s: float
    instances: int = 1
    timeout_s: float = 0.0
    fixed: bool = False  # its shapes are: then the thread is not woken by each arrival
    queue: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    current: Payload = field(default_factory=Payload)
    closed: bool = False
    wakes: int = 0
    wake_s: float = math.inf
    spins: bool = False
    expired: list = field(default_factory=list)

    def look(self, now_s, at_s, size):
        """(requests to move, seconds until the next look; infinity: round and round without end)."""
        has, cursor, mark = len(self.current.members), 0, None
        send = False
        while cursor < len(self.queue):
            k = self.queue[cursor]
            if has + cursor > 0:
                if has + cursor + 1 > max(self.preferred) and not mark:
                    mark, self.closed = cursor, True
                if has + cursor + 1 > self.max_batch:
                    send = True
                    break
                if size[k] != size[(self.current.members + self.queue)[0]]:
                    self.current.marked = send = True
                    break
            cursor += 1
            if has + cursor in self.preferred:
                mark = cursor
        exceeded = self.delay_s > 0 and now_s >= at_s[self.queue[0]] + self.delay_s
        if mark and not exceeded:
            self.closed |= self.delay_s == 0
            return mark, 0.0
        if cursor == 0:
            return 0, 0.0
        if send or has + cursor >= max(self.preferred):
            self.closed = True
            return cursor, 0.0
        if exceeded or self.delay_s == 0:
            return cursor, 0.0
        self.wakes = min(p for p in self.preferred if p > has + cursor) - has
        if not self.closed and has and has not in self.preferred:
            return cursor, 0.0
        limit_s = min(self.delay_s, self.timeout_s or math.inf)
        return 0, at_s[self.queue[0]] + limit_s

    def pump(self, now_s, at_s, size):
        """Rounds until the thread sleeps."""
        self.wake_s, self.spins = math.inf, False
        while True:
            if self.closed or self.current.stale:
                self.current, self.closed, self.wakes = Payload(), False, 0
            if not self.queue or len(self.waiting) >= 2 * self.instances:
                return
            if self.timeout_s and now_s >= at_s[self.queue[0]] + self.timeout_s:
                self.expired.append(self.queue.pop(0))
                continue
            count, self.wake_s = self.look(now_s, at_s, size)
            if self.wake_s:
                return
            self.wake_s = math.inf
            if count == 0 and not self.closed:
                self.spins = True  # until the payload is taken or the request behind it expires
                return
            moved, self.queue = self.queue[:count], self.queue[count:]
            if moved and not self.current.members:
                self.waiting.append(self.current)
            self.current.members += moved

    def take(self, now_s, at_s, size):
        """The payload that an idle instance executes, with those that join it."""
        taken = self.waiting.pop(0)
        taken.stale = True
        while self.delay_s and not taken.marked and self.waiting:
            head = self.waiting[0]
            if head.marked or now_s <= at_s[head.members[0]] + self.delay_s:
                break
            head.stale = True
            if len(taken.members) + len(head.members) > self.max_batch or size[head.members[0]] != size[taken.members[0]]:
                break
            taken.members += self.waiting.pop(0).members
        return taken.members


def serve(at_s, size, seconds, batcher):
    """(answer time of each request, -2 where it expired; executed batches in the order in which they began)."""
    done, ends, batches, k = [math.nan] * len(at_s), [], [], 0
    while k < len(at_s) or ends or batcher.queue:
        now_s = min(at_s[k] if k < len(at_s) else math.inf, min(ends, default=math.inf), batcher.wake_s)
        woken = True
        if now_s == min(ends, default=math.inf):
            ends.remove(now_s)
            woken = batcher.spins  # else the thread hears of an instance when that takes a payload
        elif k < len(at_s) and now_s == at_s[k]:
            batcher.queue.append(k)
            open_ = batcher.current.members and not batcher.closed and not batcher.current.stale
            woken = not (batcher.fixed and open_ and len(batcher.queue) < batcher.wakes)
            k += 1
        if woken:
            batcher.pump(now_s, at_s, size)
        while batcher.waiting and len(ends) < batcher.instances:
            members = batcher.take(now_s, at_s, size)
            end_s = now_s + seconds(len(members), size[members[0]])
            for member in members:
                done[member] = end_s
            ends.append(end_s)
            batches.append(len(members))
            batcher.pump(now_s, at_s, size)
    for member in batcher.expired:
        done[member] = -2.0
    return done, batches
