"""Fires each planned request at its own time, whatever happened to the ones before: open loop.

A timerfd wakes the event loop at the next arrival (libev's own timers round to milliseconds). Sending happens inside that
callback; a protocol driver adds how a request is sent and how its answer comes back. Never waits for an answer before the
next send. What is bounded: requests in flight, time per request, and the end (`grace_s` after the last planned second).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

from loadtests.plan import Plan
from loadtests.record import OK, PENDING, Recorder

BURST = 32  # sends in one callback; then answers get their turn, however late the rest is
SWEEP_S = 0.05
MAX_TRACED_RPS = 5.0
MAX_TRACED = 500

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    _fields_ = (("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long), ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long))


class AlarmClock:
    """One absolute alarm on CLOCK_MONOTONIC that wakes the gevent loop with a precision of tens of microseconds."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._fd = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, 0o4000 | 0o2000000)  # TFD_NONBLOCK | TFD_CLOEXEC
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Spec()
        self._pointer = ctypes.byref(self._spec)
        self._watcher = gevent.get_hub().loop.io(self._fd, 1)
        self._watcher.start(self._ring, callback)

    def set(self, at_s: float) -> None:
        """Ring at this monotonic time, at once if it has passed."""
        whole = int(at_s)
        self._spec.value_s = whole
        self._spec.value_ns = max(int((at_s - whole) * 1e9), 1)
        _LIBC.timerfd_settime(self._fd, 1, self._pointer, None)  # TFD_TIMER_ABSTIME

    def close(self) -> None:
        """Stop for good."""
        self._watcher.stop()
        self._watcher.close()
        os.close(self._fd)

    def _ring(self, callback: Callable[[], None]) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        callback()


class Driver(ABC):
    """The pacing that every protocol shares; subclasses implement `connect`, `probe`, `send` and `close`."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self.plan = plan
        self.request = plan.request
        self.rec = recorder
        self.n = len(plan.times_s)
        self.times: list[float] = plan.times_s.tolist()
        self.body: list[int] = plan.body.tolist()
        self.next = 0
        self.open = 0
        self.peak_open = 0
        self.not_sent = 0
        self.t0 = 0.0
        self.started_at_s = 0.0
        self.fresh_s: list[float] = []  # latencies since the last report
        self.fresh_errors: list[str] = []
        self.crash: BaseException | None = None
        self._waiting: deque[tuple[float, int, object]] = deque()
        self._finished = Event()
        self._traced = 0
        ratio = min(plan.request.trace_ratio, 0.01)
        self._trace_every = round(1 / ratio) if ratio > 0 else 0
        self._trace_next_s = float("-inf")

    # -- what a protocol adds ------------------------------------------------------------------------------------------

    @abstractmethod
    def connect(self) -> None:
        """Encode the bodies and open what can be opened ahead."""

    @abstractmethod
    def probe(self, body: int) -> str | None:
        """Send one request outside the test and wait; None or what went wrong."""

    @abstractmethod
    def send(self, i: int, now_s: float) -> None:
        """Send request `i` now; must not block."""

    @abstractmethod
    def expire(self, i: int, handle: object) -> None:
        """Give request `i` up: its time is over."""

    def close(self) -> None:  # noqa: B027 - a protocol may have nothing to close
        """Close every connection."""

    # -- pacing --------------------------------------------------------------------------------------------------------

    def run(self, lead_s: float = 0.05) -> None:
        """Send everything, then wait for the last answers. Returns when all is known or the grace is over.

        Raises:
            Exception: whatever a callback raised; it would otherwise vanish in the event loop.
        """
        first = min(self.times[0], 0.0) if self.n else 0.0
        self.t0 = time.monotonic() + lead_s - first
        self.started_at_s = time.time() + lead_s - first
        alarm = AlarmClock(self._guarded_pump)
        sweeper = gevent.get_hub().loop.timer(SWEEP_S, SWEEP_S)
        self._alarm = alarm
        try:
            sweeper.start(self._sweep)
            alarm.set(self.t0 + self.times[0] if self.n else time.monotonic())
            end_s = self.t0 + self.request.duration_s + self.request.grace_s
            self._finished.wait(timeout=max(end_s - time.monotonic(), 0.0))
        finally:
            sweeper.stop()
            sweeper.close()
            alarm.close()
            self.close()
        if self.crash is not None:
            raise self.crash
        self._give_up()

    def _guarded_pump(self) -> None:
        try:
            self._pump()
        except BaseException as error:
            self.crash = error
            self._finished.set()

    def _pump(self) -> None:
        times, t0, clock, i = self.times, self.t0, time.monotonic, self.next
        stop = min(i + BURST, self.n)
        now = clock() - t0
        while i < stop and times[i] <= now:
            if self.open >= self.request.max_in_flight:
                self._refuse(i, now)
            else:
                self.rec.sent[i] = now
                self.open += 1
                self.send(i, now)
            i += 1
            now = clock() - t0
        if self.open > self.peak_open:
            self.peak_open = self.open
        self.next = i
        if i < self.n:
            self._alarm.set(t0 + times[i])
        elif self.open == 0:
            self._finished.set()

    def _refuse(self, i: int, now_s: float) -> None:
        """The bound on requests in flight is hit: the service is so far behind that this one counts as failed."""
        text = f"not sent: {self.request.max_in_flight} requests were already waiting for an answer"
        self.not_sent += 1
        self.rec.sent[i] = now_s
        self.rec.error[i] = self.rec.code(text)
        self.fresh_errors.append(text)

    def watch(self, i: int, now_s: float, handle: object) -> None:
        """Remember when request `i` must be given up."""
        self._waiting.append((now_s + self.request.timeout_s, i, handle))

    def succeeded(self, i: int) -> None:
        """The right answer to request `i` is here."""
        now = time.monotonic() - self.t0
        self.rec.done[i] = now
        self.rec.error[i] = OK
        self.fresh_s.append(now - self.times[i])
        self._ended()

    def failed(self, i: int, text: str) -> None:
        """Request `i` got an error or nothing; when it was known is kept, for people."""
        self.rec.done[i] = time.monotonic() - self.t0
        self.rec.error[i] = self.rec.code(text)
        self.fresh_errors.append(text)
        self._ended()

    def _ended(self) -> None:
        self.open -= 1
        if self.open == 0 and self.next >= self.n:
            self._finished.set()

    def _sweep(self) -> None:
        now = time.monotonic() - self.t0
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            _, i, handle = waiting.popleft()
            if self.rec.error[i] == PENDING:
                self.expire(i, handle)

    def _give_up(self) -> None:
        """Whatever is unknown at the end counts as failed."""
        text = f"no answer within {self.request.grace_s:g} s of the end"
        for i in range(self.n):
            if self.rec.error[i] == PENDING:
                self.rec.error[i] = self.rec.code(text)
                self.fresh_errors.append(text)

    def traceparent(self, i: int, now_s: float) -> str | None:
        """A sampled W3C trace context for at most one in a hundred requests, 5 a second and 500 a test, else None.

        Triton before 25.04 can crash when traced at a high rate, and it traces every request that carries the header, so the
        front door strips it unless a second header asks for it to pass (X-Deployctl-Trace).
        """
        if not self._trace_every or i % self._trace_every or now_s < self._trace_next_s or self._traced >= MAX_TRACED:
            return None
        self._traced += 1
        self._trace_next_s = now_s + 1 / MAX_TRACED_RPS
        return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
