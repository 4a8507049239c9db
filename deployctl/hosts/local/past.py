"""What arrived in the past two weeks: counted step by step, and given back to a policy that starts anew.

What enters is the front door's count of requests; what leaves are rows for the store, and the readings of past ticks. A step
that was not watched from end to end is left out: unknown is not zero. Refuses to decide anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from deployctl.adapters.spanstore import LOAD_STEP_S, SpanStore
from deployctl.core.decision import Reading
from deployctl.hosts.local.layout import EnvFolder
from deployctl.hosts.local.meter import DoorMeter
from deployctl.ports import Workspace

MEMORY_S = 2 * 86_400.0  # the policy `slo` looks one day back, and judges what it would have done with the day before


class Past:
    """The arrivals of one environment; its only state is the step that is under way."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store
        self._step: int | None = None
        self._began = 0.0
        self._whole = False

    def note(self, at_s: float, door: DoorMeter) -> None:
        """Take the front door's running count at a moment (Unix time); a step is stored when the next one has begun.

        The first step is left out, and so is one that was followed by silence: nobody knows when the requests came.
        """
        step = math.floor(at_s / LOAD_STEP_S)
        if step == self._step or door.in_flight is None:  # it did not answer
            return
        follows = self._step == step - 1
        if self._whole and follows:
            self._store.add_loads([((step - 1) * LOAD_STEP_S, max(door.requests - self._began, 0.0))])
        self._whole, self._step, self._began = follows, step, door.requests

    def readings(self, sync_s: float, now_s: float) -> Iterator[dict[str, Reading]]:
        """Arrivals of each past tick of `sync_s`, oldest first, ending now (Unix time); nothing for a tick that was not watched whole."""
        rates = {round(at / LOAD_STEP_S): requests / LOAD_STEP_S for at, requests in self._store.load(now_s - MEMORY_S)}
        if not rates:
            return
        first = min(rates) * LOAD_STEP_S
        for tick in range(math.floor((now_s - first) / sync_s), 0, -1):
            start, end = now_s - tick * sync_s, now_s - (tick - 1) * sync_s
            seen = [rates.get(step) for step in range(math.ceil(start / LOAD_STEP_S), math.ceil(end / LOAD_STEP_S))]
            known = [rate for rate in seen if rate is not None]
            if not known or len(known) < len(seen):
                yield {}
            else:
                yield {"arrivals_rps": Reading(value=sum(known) / len(known)), "arrivals_peak_rps": Reading(value=max(known))}


class StoredLoad:
    """The recorded arrivals of one environment as a `ports.MetricSource`, whether it runs or not.

    Args:
        workspace, env: whose.
        end_s: Unix time of the newest step asked for.
        window_s: how far back.
    """

    def __init__(self, workspace: Workspace, env: str, *, end_s: float, window_s: float) -> None:
        self._file = EnvFolder(workspace, env).store
        self._end_s, self._window_s = end_s, window_s

    def history(self, query: str) -> list[tuple[float, float]]:
        """(Unix time, requests a second) of every step from the first to the last that is known; NaN where nobody watched.

        Raises:
            MachineError: the file cannot be read (`store-unusable`).
        """
        del query  # there is one series
        if not self._file.is_file():
            return []
        store = SpanStore(self._file)
        try:
            found = {round(at / LOAD_STEP_S): n / LOAD_STEP_S for at, n in store.load(self._end_s - self._window_s) if at <= self._end_s}
        finally:
            store.close()
        steps = range(min(found), max(found) + 1) if found else ()
        return [(step * LOAD_STEP_S, found.get(step, math.nan)) for step in steps]

    def names(self, query: str, label: str) -> list[str]:
        """Nothing: the one series has no labels."""
        del query, label
        return []
