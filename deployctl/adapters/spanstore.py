"""Spans, per-interval statistics and the load of weeks in one embedded file: bounded by age and count, read while it is written.

What enters are `Span`s, rows of numbers and counts of requests, what leaves are the same. It is telemetry: a damaged file is moved aside, a full
disk drops data and counts it (`notices`, `dropped`), and neither ever stops the service. Refuses to know what spans mean.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from deployctl.core import codec
from deployctl.core.spans import Span
from deployctl.errors import MachineError

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spans (trace_id TEXT, span_id TEXT, at_s REAL, body TEXT, PRIMARY KEY (trace_id, span_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spans_at ON spans (at_s);
CREATE TABLE IF NOT EXISTS stats (at_s REAL PRIMARY KEY, body TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS load (at_s REAL PRIMARY KEY, requests REAL) WITHOUT ROWID;
"""
_PRUNE_EVERY = 500
LOAD_STEP_S = 5.0  # a row of `load` counts the requests of so many seconds
LOAD_AGE_S = 15 * 86_400.0


class SpanStore:
    """One file in SQLite's write-ahead mode: a kill at any moment loses at most the last moments, never the file.

    Args:
        path: the file; its folder is made.
        max_age_s: what is older than this before the newest entry is dropped.
        max_spans, max_rows: the most that are kept of each.
        load_age_s: the same for the counts of requests, which take 20 bytes each.

    Raises:
        MachineError: the file cannot be opened or read for another reason than damage (`store-unusable`).
    """

    def __init__(
        self, path: Path, *, max_age_s: float = 86_400.0, max_spans: int = 200_000, max_rows: int = 50_000, load_age_s: float = LOAD_AGE_S
    ) -> None:
        self._path = path
        self._keep = {  # the oldest entry in seconds, and the most entries
            "spans": (max_age_s, max_spans),
            "stats": (max_age_s, max_rows),
            "load": (load_age_s, math.ceil(load_age_s / LOAD_STEP_S)),
        }
        self._lock = threading.RLock()
        self._since_prune = 0
        self.notices: list[str] = []
        self.dropped = 0
        self._db = self._open()

    def add_spans(self, spans: Sequence[Span]) -> None:
        """Store spans; one that is already there is replaced."""
        rows = [(s.trace_id, s.span_id, s.end_ns / 1e9, json.dumps(codec.to_data(s), separators=(",", ":"))) for s in spans]
        self._write("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?)", rows)

    def add_row(self, row: dict[str, float]) -> None:
        """Store one interval's statistics; `at_s` is its key."""
        self._write("INSERT OR REPLACE INTO stats VALUES (?, ?)", [(row["at_s"], json.dumps(row, separators=(",", ":")))])

    def add_loads(self, steps: Sequence[tuple[float, float]]) -> None:
        """Store (Unix time, requests that arrived in the LOAD_STEP_S from then on)."""
        self._write("INSERT OR REPLACE INTO load VALUES (?, ?)", steps)

    def spans(self, since_s: float = 0.0, *, limit: int = 50_000) -> list[Span]:
        """The newest `limit` spans that ended after `since_s` (Unix time), oldest first."""
        rows = self._read("SELECT body FROM spans WHERE at_s >= ? ORDER BY at_s DESC LIMIT ?", (since_s, limit))
        return [codec.from_data(Span, json.loads(body)) for (body,) in reversed(rows)]

    def rows(self, since_s: float = 0.0, *, limit: int = 50_000) -> list[dict[str, float]]:
        """Statistics from `since_s` (Unix time) on, oldest first."""
        rows = self._read("SELECT body FROM stats WHERE at_s >= ? ORDER BY at_s DESC LIMIT ?", (since_s, limit))
        return [json.loads(body) for (body,) in reversed(rows)]

    def load(self, since_s: float = 0.0) -> list[tuple[float, float]]:
        """(Unix time, requests) of every step of LOAD_STEP_S from `since_s` on that was watched, oldest first."""
        return [(float(at), float(n)) for at, n in self._read("SELECT at_s, requests FROM load WHERE at_s >= ? ORDER BY at_s", (since_s,))]

    def counts(self) -> dict[str, int]:
        """How many spans and rows are kept."""
        return {table: int(self._read(f"SELECT count(*) FROM {table}", ())[0][0]) for table in self._keep}

    def close(self) -> None:
        """Give the file back; safe to call twice."""
        with self._lock:
            self._db.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.OperationalError as error:  # locked, unreadable, disk full: the file itself is not blamed
            raise _unusable(self._path, error) from error
        except sqlite3.DatabaseError as error:
            self._move_aside(error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last seconds; a kill loses nothing
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(str(verdict))
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _move_aside(self, error: Exception) -> None:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._path.rename(aside)
        self.notices.append(f"{self._path.name} was damaged ({error}); it lies at {aside} now, and the history of measurements begins anew")

    def _write(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        def insert() -> None:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(sql, rows)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

        if not rows:
            return
        try:
            self._healed(insert)
            self._since_prune += len(rows)
            if self._since_prune >= _PRUNE_EVERY:
                self._since_prune = 0
                self._healed(self._prune)
        except sqlite3.OperationalError as error:
            if not self.dropped:
                self.notices.append(f"measurements are being dropped: {error}")
            self.dropped += len(rows)

    def _prune(self) -> None:
        for table, (age_s, most) in self._keep.items():
            self._db.execute(f"DELETE FROM {table} WHERE at_s < (SELECT max(at_s) FROM {table}) - ?", (age_s,))
            self._db.execute(f"DELETE FROM {table} WHERE at_s < (SELECT at_s FROM {table} ORDER BY at_s DESC LIMIT 1 OFFSET ?)", (most - 1,))

    def _read(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._healed(lambda: self._db.execute(sql, parameters).fetchall())
        except sqlite3.OperationalError as error:
            raise _unusable(self._path, error) from error
        return rows

    def _healed(self, work: Callable[[], T]) -> T:
        """Do `work`; if the file turns out damaged, begin a new one and do it again."""
        with self._lock:
            try:
                return work()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._db.close()
                self._move_aside(error)
                self._db = self._connect()
                return work()


def _unusable(path: Path, error: Exception) -> MachineError:
    return MachineError(
        f"the store of measurements cannot be used: {error}",
        where=str(path),
        hint="free disk space, mend the folder's permissions, or delete the file (only past measurements are lost)",
        code="store-unusable",
    )
