"""The Locust side: one User whose only task runs the whole plan, and statistics that Locust's web UI shows.

Locust starts and stops it, shows it and counts; the pacing is ours, because a Locust user waits for its answer before it
sends again, which is a closed loop and hides the latency that people would see.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from locust import LoadTestShape, User, task
from locust.env import Environment
from locust.exception import StopUser
from locust.stats import StatsEntry

from loadtests.driver import Driver
from loadtests.plan import Plan, PlanError
from loadtests.record import Recorder

DRIVERS = {
    "http": "loadtests.users.http:HttpDriver",
    "grpc": "loadtests.users.grpc:GrpcDriver",
    "stream": "loadtests.users.stream:StreamDriver",
}
LATE_S = 0.002
MAX_PROBES = 16


@dataclass
class Job:
    """What a run is given and what it leaves; the entry point hands it to the user through the environment.

    Attributes:
        plan: what to send.
        out: folder for samples.bin and result.json.
        error: (code, message) when the run could not be done.
        result: health and counts of a finished run.
        rows: the verdict as the web UI shows it, once it was computed.
    """

    plan: Plan | None
    out: Path
    say: Any = None
    error: tuple[str, str] | None = None
    result: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    rows: list[dict[str, str]] | None = None


def make_driver(plan: Plan, recorder: Recorder) -> Driver:
    """The driver of the plan's protocol.

    Raises:
        PlanError: no such protocol.
    """
    if plan.request.protocol not in DRIVERS:
        raise PlanError("loadtest-protocol-unknown", f"no protocol {plan.request.protocol}; there are {', '.join(DRIVERS)}")
    module, name = DRIVERS[plan.request.protocol].split(":")
    driver: Driver = getattr(importlib.import_module(module), name)(plan, recorder)
    return driver


class OpenLoopUser(User):
    """The one user of a test."""

    fixed_count = 1

    @task
    def whole_plan(self) -> None:
        """Run the plan once and stop."""
        job: Job = self.environment.job
        if job.done:  # refused before it began
            raise StopUser
        try:
            run(job, self.environment)
        except PlanError as error:
            job.error = (error.code, str(error))
        except Exception as error:
            job.error = ("loadgen-failed", f"{type(error).__name__}: {error}")
        finally:
            job.done = True
        raise StopUser


class PlanShape(LoadTestShape):
    """One user until the plan is done; then the test stops by itself, in the web UI too."""

    def tick(self) -> tuple[int, float] | None:
        """Locust asks every second."""
        environment = self.runner.environment if self.runner else None
        job: Job | None = getattr(environment, "job", None)
        return None if job is not None and job.done else (1, 1.0)


def run(job: Job, environment: Environment) -> None:
    """Probe, send, write the result.

    Raises:
        PlanError: the bodies cannot be encoded or the server refuses one of them (`loadtest-refused`).
    """
    assert job.plan is not None
    recorder = Recorder(job.out / "samples.bin", job.plan)
    driver = make_driver(job.plan, recorder)
    driver.connect()
    _probe(driver)
    meter = CpuMeter(driver, job.plan.request.duration_s)
    reporter = gevent.spawn(_report, driver, environment, job)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection in the middle would be a late send; what the test allocates is bounded
    try:
        driver.run()
    finally:
        gc.enable()
        gc.unfreeze()
        meter.stop()
        reporter.kill()
    _flush(driver, environment)
    job.result = summary(driver, recorder, meter.ratio)
    part = job.out / "result.json.part"
    part.write_text(json.dumps(job.result))
    part.replace(job.out / "result.json")


def _probe(driver: Driver) -> None:
    """One example of each size, before the test: a body that the model refuses is said once and by name."""
    seen: set[int] = set()
    for index, body in enumerate(driver.plan.bodies):
        if body.size in seen or len(seen) >= MAX_PROBES:
            continue
        seen.add(body.size)
        problem = driver.probe(index)
        if problem:
            raise PlanError("loadtest-refused", f"example {index + 1} (size {body.size}) was not answered before the test: {problem}")


class CpuMeter:
    """CPU seconds of this process over the judged part, as a share of one core."""

    def __init__(self, driver: Driver, duration_s: float) -> None:
        self._greenlet = gevent.spawn(self._watch, driver, duration_s)
        self._begin: tuple[float, float] | None = None
        self.ratio = 0.0

    def _watch(self, driver: Driver, duration_s: float) -> None:
        while driver.t0 == 0.0:
            gevent.sleep(0.01)
        gevent.sleep(max(driver.t0 - time.monotonic(), 0.0))
        self._begin = (time.monotonic(), time.process_time())
        gevent.sleep(max(driver.t0 + duration_s - time.monotonic(), 0.0))
        self._measure()

    def _measure(self) -> None:
        if self._begin is not None:
            wall = time.monotonic() - self._begin[0]
            self.ratio = (time.process_time() - self._begin[1]) / wall if wall > 0 else 0.0
            self._begin = None

    def stop(self) -> None:
        """Take the figure now if the judged part ended early."""
        self._measure()
        self._greenlet.kill()


def summary(driver: Driver, recorder: Recorder, cpu_ratio: float) -> dict[str, Any]:
    """Counts of a finished run, JSON-able."""
    late = np.frombuffer(recorder.sent, dtype=np.float64) - driver.plan.times_s
    judged = driver.plan.times_s >= 0
    return {
        "requests": int(judged.sum()),
        "warmup_requests": driver.plan.warmup_requests,
        "late_sends": int(np.count_nonzero(late[judged] > LATE_S)),
        "not_sent": driver.not_sent,
        "peak_in_flight": driver.peak_open,
        "cpu_ratio": cpu_ratio,
        "started_at_s": driver.started_at_s,
        "errors": recorder.errors,
        "traced": driver._traced,
    }


def _report(driver: Driver, environment: Environment, job: Job) -> None:
    while True:
        gevent.sleep(1.0)
        ok, bad = _flush(driver, environment)
        if job.say is not None:
            at = time.monotonic() - driver.t0
            job.say({"at_s": round(at, 2), "sent": driver.next, "planned": driver.n, "open": driver.open, "ok": ok, "failed": bad})


def _flush(driver: Driver, environment: Environment) -> tuple[int, int]:
    """Hand the last second's answers to Locust in one go: its per-request event costs as much as the request itself."""
    latencies, driver.fresh_s = driver.fresh_s, []
    errors, driver.fresh_errors = driver.fresh_errors, []
    if not latencies and not errors:
        return 0, 0
    name, method = driver.request.model, driver.request.protocol.upper()
    part = StatsEntry(environment.stats, name, method)
    now = time.time()
    if latencies:
        ms = np.asarray(latencies) * 1000.0
        values, counts = np.unique(np.rint(ms).astype(np.int64), return_counts=True)
        part.response_times.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        part.total_response_time, part.min_response_time, part.max_response_time = float(ms.sum()), float(ms.min()), float(ms.max())
    part.num_requests, part.num_failures, part.last_request_timestamp = len(latencies) + len(errors), len(errors), now
    part.num_none_requests = len(errors)
    part.num_reqs_per_sec[int(now)] = part.num_requests
    part.num_fail_per_sec[int(now)] = part.num_failures
    for entry in (environment.stats.get(name, method), environment.stats.total):
        entry.extend(part)
    for text in errors[:100]:
        environment.stats.log_error(method, name, text)
        environment.stats.total.num_failures -= 1
        environment.stats.get(name, method).num_failures -= 1
    return len(latencies), len(errors)


def die_with_parent() -> None:
    """Ask the kernel to end this process with its parent: no load generator without somebody who reads it."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)
