"""Contract tests that every adapter of a port inherits: give the class a `make` fixture and pytest does the rest.

    class TestMyStore(RecordStoreContract):
        def make(self, tmp_path): return MyStore(tmp_path)

Refuses to know any adapter. Releases are built by `a_release`, plans by `a_plan`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import constant
from deployctl.core.plan import Plan
from deployctl.core.release import Release, next_release
from deployctl.core.serving import ServingConfig
from deployctl.core.slo import Objective, Slo
from deployctl.errors import LockHeld, NotFound
from deployctl.ports import RecordStore


def a_plan(**changes: Any) -> Plan:
    """A small valid plan; `changes` replace fields."""
    values: dict[str, Any] = {
        "service": "svc",
        "env": "local",
        "target": "local",
        "bundle": "sha256:" + "a" * 64,
        "entry": "svc",
        "settings": {"svc": ServingConfig()},
        "replicas": 1,
        "scaling": ScalingPolicy(),
        "slo": Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),)),
        "demand": constant(10.0),
        "triton_version": "2.51.0",
        "device": "cpu-2c",
    }
    return Plan(**{**values, **changes})


class RecordStoreContract(ABC):
    """What flows rely on: append-only, compare-and-set, chained, holds by digest or unique prefix."""

    @abstractmethod
    def make(self, folder: Path) -> RecordStore:
        """A store that keeps its things under `folder`; called once a test."""

    def append(self, store: RecordStore, **changes: Any) -> Release:
        """Append one more release with a changed plan."""
        history = store.history()
        release = next_release(history, a_plan(**changes), action="up", now_s=1.0, by="ada@host (pid 1)")
        store.append(release, expected_parent=history.current.digest if history.current else None)
        return release

    def test_empty_at_first(self, tmp_path: Path) -> None:
        """No history, nothing held."""
        history = self.make(tmp_path).history()
        assert history.releases == () and history.held == () and history.current is None

    def test_what_was_appended_comes_back_in_order(self, tmp_path: Path) -> None:
        """Records survive unchanged and chained."""
        store = self.make(tmp_path)
        made = [self.append(store, replicas=n) for n in (1, 2, 3)]
        history = store.history()
        assert list(history.releases) == made
        assert [r.parent for r in history.releases] == [None, made[0].digest, made[1].digest]

    def test_a_stale_parent_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        """Who computed against an older world is told who was faster."""
        store = self.make(tmp_path)
        before = store.history()
        late = next_release(before, a_plan(replicas=9), action="up", now_s=2.0)
        self.append(store)
        with pytest.raises(LockHeld) as refusal:
            store.append(late, expected_parent=None)
        assert refusal.value.code == "plan-stale" and refusal.value.exit_code == 7
        assert "ada@host" in (refusal.value.why or "")
        assert [r.plan.replicas for r in store.history().releases] == [1]

    def test_of_racing_writers_exactly_one_wins(self, tmp_path: Path) -> None:
        """Eight threads append revision 1; one succeeds, seven are refused."""
        store = self.make(tmp_path)
        history = store.history()
        start = threading.Barrier(8)
        outcomes: list[str] = []

        def race(number: int) -> None:
            release = next_release(history, a_plan(replicas=number + 1), action="up", now_s=1.0, by=f"racer {number}")
            start.wait()
            try:
                with store.exclusive():
                    store.append(release, expected_parent=None)
                outcomes.append("won")
            except LockHeld as refusal:
                outcomes.append(refusal.code)

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["plan-stale"] * 7 + ["won"]
        assert len(store.history().releases) == 1

    def test_holds_by_prefix(self, tmp_path: Path) -> None:
        """A hold is put once, and lifted by a prefix with or without the algorithm's name."""
        store = self.make(tmp_path)
        content = "sha256:" + "ab" * 32
        store.hold(content)
        store.hold(content)
        assert store.history().held == (content,)
        with pytest.raises(NotFound):
            store.allow("sha256:ff")
        store.allow("abab")
        assert store.history().held == ()

    def test_an_ambiguous_or_empty_prefix_lifts_nothing(self, tmp_path: Path) -> None:
        """Two holds that match stay."""
        store = self.make(tmp_path)
        for end in ("1", "2"):
            store.hold("sha256:ab" + end * 62)
        for prefix in ("ab", "sha256:ab", ""):
            with pytest.raises(NotFound):
                store.allow(prefix)
        assert len(store.history().held) == 2
