"""Releases and proofs that live in memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.release import History, Release
from deployctl.errors import LockHeld, NotFound


class MemoryRecordStore:
    """RecordStore without files."""

    def __init__(self) -> None:
        self._releases: list[Release] = []
        self._held: list[str] = []
        self._lock = threading.Lock()

    def history(self) -> History:
        """All releases."""
        return History(releases=tuple(self._releases), held=tuple(self._held))

    def append(self, release: Release, *, expected_parent: str | None) -> None:
        """Add the next release, or LockHeld (`plan-stale`) if the newest is not `expected_parent`."""
        current = self._releases[-1] if self._releases else None
        if (current.digest if current else None) != expected_parent:
            who = f"revision {current.revision} was made by `deployctl {current.action}` of {current.by}" if current else "the history is empty"
            raise LockHeld("somebody else changed this environment meanwhile", why=who, hint="deployctl history", code="plan-stale", exit_code=7)
        self._releases.append(release)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """One changer at a time."""
        with self._lock:
            yield

    def hold(self, content: str) -> None:
        """Put a content digest on hold."""
        if content not in self._held:
            self._held.append(content)

    def allow(self, content: str) -> None:
        """Lift a hold by digest or unique prefix."""
        matches = [h for h in self._held if h.startswith(content) or h.removeprefix("sha256:").startswith(content)] if content else []
        if len(matches) != 1:
            raise NotFound(f"{len(matches)} releases on hold match {content!r}", hint="deployctl history", code="hold-not-found")
        self._held.remove(matches[0])


class MemoryEvidenceStore:
    """EvidenceStore without files."""

    def __init__(self) -> None:
        self._proofs: list[Evidence] = []

    def find(self, key: EvidenceKey) -> Evidence | None:
        """The newest proof for the key."""
        return next((e for e in reversed(self._proofs) if e.key == key), None)

    def all(self) -> list[Evidence]:
        """Every proof, newest first."""
        return self._proofs[::-1]

    def get(self, digest: str) -> Evidence | None:
        """The proof of that digest."""
        return next((e for e in self._proofs if e.digest == digest), None)

    def save(self, evidence: Evidence) -> str:
        """Store and return the digest."""
        self._proofs.append(evidence)
        return evidence.digest
