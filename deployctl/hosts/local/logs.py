"""Logs of replicas, front door and supervisor: bounded files, merged by time, each line with its source in front."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator
from pathlib import Path

LIMIT_BYTES = 4 * 1024 * 1024
KEEP_FILES = 30
_ISO = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z")
_POLL_S = 0.25


def trim(folder: Path, live: set[str]) -> None:
    """Keep each file below the limit and the number of files of ended replicas bounded.

    Writers append, so a file is cut in place: its newer half is kept. Lines written during the cut may be lost.
    """
    files = sorted(folder.glob("*.log"), key=lambda p: p.stat().st_mtime)
    for file in [f for f in files if f.stem not in live][:-KEEP_FILES]:
        file.unlink(missing_ok=True)
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_size > LIMIT_BYTES:
                with file.open("r+b") as handle:
                    handle.seek(-LIMIT_BYTES // 2, 2)
                    newer = handle.read().partition(b"\n")[2]
                    handle.seek(0)
                    handle.write(newer)
                    handle.truncate()


def read(folder: Path, *, replica: str | None, since_s: float | None, follow: bool) -> Iterator[str]:
    """Lines `[source] text`, oldest first; with `follow` it goes on until the caller stops."""
    places: dict[Path, int] = {}
    lines = [item for file in _files(folder, replica) for item in _new(file, places)]
    for _, text in sorted((i for i in lines if since_s is None or i[0] >= since_s), key=lambda i: i[0]):
        yield text
    while follow:
        fresh = [item for file in _files(folder, replica) for item in _new(file, places)]
        for _, text in sorted(fresh, key=lambda i: i[0]):
            yield text
        if not fresh:
            time.sleep(_POLL_S)


def replicas(folder: Path) -> list[str]:
    """Names of the replicas that have a log, oldest first."""
    return sorted((p.stem for p in folder.glob("replica-*.log")), key=lambda name: int(name.rpartition("-")[2]))


def _files(folder: Path, replica: str | None) -> list[Path]:
    return sorted(p for p in folder.glob("*.log") if replica is None or p.stem in (replica, f"replica-{replica}"))


def _new(file: Path, places: dict[Path, int]) -> list[tuple[float, str]]:
    """Whole lines that were added since the last call; a line without a time has that of the line before."""
    try:
        with file.open("rb") as handle:
            size = handle.seek(0, 2)
            start = places.get(file, 0)
            handle.seek(min(start, size))  # it may have been cut meanwhile: what is left was told before
            data = handle.read()
            end = handle.tell()
    except FileNotFoundError:
        return []
    whole = data.rfind(b"\n") + 1
    places[file] = end - (len(data) - whole)
    out = []
    at_s = 0.0
    for raw in data[:whole].decode(errors="replace").splitlines():
        found, text = _parse(raw)
        at_s = found or at_s
        if text:
            out.append((at_s, f"[{file.stem}] {text}"))
    return out


def _parse(line: str) -> tuple[float | None, str]:
    """Unix time of a line, where it has one, and the line for people."""
    if found := _ISO.match(line):
        return datetime.datetime.fromisoformat(found[1] + "+00:00").timestamp(), line
    return None, line
