"""Releases and proofs as files: what enters are records, what leaves are the same records, checked.

A release is one immutable file `releases/000007.json`. It appears whole or not at all (a linked sibling), and exactly one
writer can make number 7, so two racing `up` need no lock: the second is told who won. The chain of parent digests is
checked on every read. This module refuses to know what a release means.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from deployctl.core import codec
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.release import History, Release, check_link, overtaken, without_hold
from deployctl.errors import MachineError, ProjectError


class FileRecordStore:
    """Releases of one environment under `env_dir` (RecordStore)."""

    def __init__(self, env_dir: Path) -> None:
        self._releases = env_dir / "releases"
        self._held = env_dir / "held.json"
        self._env_dir = env_dir

    def history(self) -> History:
        """All releases, oldest first.

        Raises:
            ProjectError: a record is damaged, missing or was changed afterwards (`record-damaged`).
        """
        releases: list[Release] = []
        for path in sorted(self._releases.glob("[0-9]*.json")):
            release = codec.loads(Release, _read(path), where=str(path))
            check_link(release, releases[-1] if releases else None, number=int(path.stem), where=str(path))
            releases.append(release)
        return History(releases=tuple(releases), held=self._read_held())

    def append(self, release: Release, *, expected_parent: str | None) -> None:
        """Add the next release: durable when this returns.

        Raises:
            LockHeld: somebody else appended first (`plan-stale`, exit 7), with their verb, name and age.
        """
        current = self.history().current
        if (current.digest if current else None) != expected_parent:
            raise overtaken(current, time.time())
        path = self._releases / f"{release.revision:06d}.json"
        if not _create(path, codec.dumps(release)):
            raise overtaken(codec.loads(Release, _read(path), where=str(path)), time.time())

    def hold(self, content: str) -> None:
        """Put a content digest on hold; nothing happens if it already is."""
        with self._held_lock():
            held = self._read_held()
            if content not in held:
                self._write_held((*held, content))

    def allow(self, content: str) -> None:
        """Lift a hold by digest or by a unique prefix of it, with or without `sha256:`.

        Raises:
            NotFound: nothing on hold matches, or several do (`hold-not-found`).
        """
        with self._held_lock():
            held = self._read_held()
            self._write_held(without_hold(held, content))

    def _read_held(self) -> tuple[str, ...]:
        if not self._held.exists():
            return ()
        try:
            return tuple(codec.from_data(tuple[str, ...], json.loads(_read(self._held))["held"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ProjectError(
                f"the list of releases on hold does not parse: {error}",
                code="record-damaged",
                where=str(self._held),
                hint="delete the file; `deployctl history` shows which releases rollbacks have left",
            ) from error

    def _write_held(self, held: tuple[str, ...]) -> None:
        _replace(self._held, json.dumps({"schema_version": 1, "held": list(held)}, indent=2) + "\n")

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Keep other changers on this machine out; the kernel drops the lock when the process dies. Not re-entrant."""
        return self._flock("change.lock")

    def _held_lock(self) -> contextlib.AbstractContextManager[None]:
        """Holds change by read and write, so they take a lock of their own (callers may be inside `exclusive`)."""
        return self._flock("held.lock")

    @contextlib.contextmanager
    def _flock(self, name: str) -> Iterator[None]:
        self._env_dir.mkdir(parents=True, exist_ok=True)
        with (self._env_dir / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class FileEvidenceStore:
    """Proofs under one folder that people commit (EvidenceStore): `<first 16 hex digits>.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: EvidenceKey) -> Evidence | None:
        """The newest proof for exactly this key, by file time; a damaged file is an error, never a silent miss.

        Raises:
            ProjectError: a proof does not parse, or its content is not what its name says (`record-damaged`).
        """
        return next((e for e in self._newest_first() if e.key == key), None)

    def all(self) -> list[Evidence]:
        """Every proof, newest first by file time.

        Raises:
            ProjectError: as `find`.
        """
        return list(self._newest_first())

    def _newest_first(self) -> Iterator[Evidence]:
        paths = sorted(self._folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        return (_proof(path) for path in paths)

    def get(self, digest: str) -> Evidence | None:
        """The proof of that digest, whatever it is for; None if it is not here."""
        path = self._folder / f"{digest.removeprefix('sha256:')[:16]}.json"
        return _proof(path) if path.exists() else None

    def save(self, evidence: Evidence) -> str:
        """Store atomically and return the digest."""
        digest = evidence.digest
        _replace(self._folder / f"{digest.removeprefix('sha256:')[:16]}.json", codec.dumps(evidence))
        return digest


def _proof(path: Path) -> Evidence:
    evidence = codec.loads(Evidence, _read(path), where=str(path))
    if evidence.digest.removeprefix("sha256:")[:16] != path.stem:
        raise ProjectError(
            "this proof was changed after it was written",
            why=f"its content has the digest {evidence.digest[:23]}, which is not the file's name",
            where=str(path),
            hint="restore the file from git, or delete it and run deployctl tune",
            code="record-damaged",
        )
    return evidence


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(
            f"a record cannot be read: {error}", code="record-damaged", where=str(path), hint="restore the file or mend its permissions"
        ) from error


def _create(path: Path, text: str) -> bool:
    """Make a file that did not exist, whole and durable; False if it was there already."""
    with _sibling(path, text) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


def _replace(path: Path, text: str) -> None:
    """Write a file whole, in place of whatever was there."""
    with _sibling(path, text) as temporary:
        temporary.replace(path)
    _sync_folder(path.parent)


@contextlib.contextmanager
def _sibling(path: Path, text: str) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        raise MachineError(
            f"a record could not be written: {error.strerror or error}",
            where=str(path),
            hint="free disk space or mend the folder's permissions",
            code="record-unwritable",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
