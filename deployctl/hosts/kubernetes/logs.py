"""Logs of replicas on a cluster: what enters is a way to read one container, what leaves are lines `[replica container] text`.

Followed replicas are read side by side, one thread each; the threads end with the process. Refuses to know the API.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from deployctl.errors import ClusterError, DeployctlError, NotFound

CONTAINERS = ("fetch", "triton")  # in the order in which they run
_LOOK_S = 5.0  # between looks for replicas that came, or whose container began anew


class Read(Protocol):
    """Lines of one container from `since_s` seconds ago (None: all) on."""

    def __call__(self, pod: str, container: str, *, since_s: float | None, follow: bool) -> Iterator[str]:
        """Raise ClusterError `logs-unreachable` where the node does not give them."""
        ...


def once(pods: list[str], read: Read, since_s: float | None) -> Iterator[str]:
    """What there is now, one replica after the other; of a container that cannot be read, why, since the others may tell more."""
    for pod in pods:
        for container in CONTAINERS:
            yield from _lines(read, pod, container, since_s=since_s, follow=False)


def followed(pods: Callable[[], list[str]], read: Read, since_s: float | None, *, look_s: float = _LOOK_S) -> Iterator[str]:
    """Every replica at once, and those that come later, as lines come; it goes on until the caller stops."""
    lines: queue.Queue[str | DeployctlError] = queue.Queue()
    tails: dict[str, _Tail] = {}
    while True:
        for pod in pods():
            if pod not in tails or not tails[pod].is_alive():
                tails[pod] = _Tail(pod, read, lines, since_s, before=tails.get(pod))
                tails[pod].start()
        end_s = time.monotonic() + look_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left_s)
            except queue.Empty:
                break
            if isinstance(line, DeployctlError):
                raise line
            yield line


class _Tail(threading.Thread):
    """One replica until its container ends; `before` is the same replica's former one, after which it goes on."""

    def __init__(self, pod: str, read: Read, lines: queue.Queue[str | DeployctlError], since_s: float | None, before: _Tail | None) -> None:
        super().__init__(daemon=True)
        self._pod, self._read, self._queue = pod, read, lines
        self._told_s: float | None = before._told_s if before else None
        self._excuse: str = before._excuse if before else ""
        self._since_s = since_s if self._told_s is None else time.monotonic() - self._told_s
        self._containers = CONTAINERS if self._told_s is None else CONTAINERS[-1:]

    def run(self) -> None:
        try:
            for container in self._containers:
                for line in _lines(self._read, self._pod, container, since_s=self._since_s, follow=True):
                    self._tell(line)
        except NotFound:
            return  # it has left
        except DeployctlError as error:
            self._queue.put(error)

    def _tell(self, line: str) -> None:
        if "] (no log: " not in line:
            self._told_s = time.monotonic()
        elif line == self._excuse:
            return
        else:
            self._excuse = line
        self._queue.put(line)


def _lines(read: Read, pod: str, container: str, *, since_s: float | None, follow: bool) -> Iterator[str]:
    try:
        for line in read(pod, container, since_s=since_s, follow=follow):
            yield f"[{pod} {container}] {line}"
    except ClusterError as error:
        if error.code != "logs-unreachable":
            raise
        yield f"[{pod} {container}] (no log: {error.why})"
