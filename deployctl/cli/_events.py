"""`--events FILE`: what a verb does as one JSON document a line, for programs that follow along.

The first line is `{"type": "version", "events_version": "1.0"}`; within a major version types and fields are only added. Then
`step`, `update`, `note` and `warning` with `message`, `error` with the fields of an error document, and `end` with `exit_code`.
Each line has `at_s` (Unix time) and is flushed. `-` is stdout.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from deployctl.errors import ProjectError

VERSION = "1.0"
_sink: TextIO | None = None


def start(target: str) -> None:
    """Open the stream and write its version.

    Raises:
        ProjectError: the file cannot be written (`events-unwritable`).
    """
    global _sink  # one command line is one process: the stream is as global as stdout
    try:
        _sink = sys.stdout if target == "-" else Path(target).open("w", encoding="utf-8")  # noqa: SIM115 - open until the last event
    except OSError as error:
        raise ProjectError(
            f"the event file {target} cannot be written: {error.strerror}",
            code="events-unwritable",
            hint="name another file for --events, or - for stdout",
        ) from error
    emit("version", events_version=VERSION)


def emit(kind: str, **fields: Any) -> None:
    """Write one event; nothing without `--events`. A stream that broke ends, the verb goes on."""
    global _sink
    if _sink is None:
        return
    try:
        _sink.write(json.dumps({"type": kind, "at_s": round(time.time(), 3), **fields}, ensure_ascii=False) + "\n")
        _sink.flush()
    except OSError as error:
        _sink = None
        print(f"warning: events end here: {error.strerror}", file=sys.stderr)


def end(exit_code: int) -> None:
    """The last event."""
    global _sink
    emit("end", exit_code=exit_code)
    if _sink is not None and _sink is not sys.stdout:
        _sink.close()
    _sink = None
