"""`python -m deployctl.compress REQUEST.json`: the torch room as a process. JSON lines leave on stdout, everything else on stderr.

Lines: `{"event": "step" | "update" | "note" | "warn", "text": …}`, then one `{"event": "result", …}` or `{"event": "error", …}`.
User code may print what it likes: the real stdout is put aside before any of it runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from deployctl.errors import Bug, DeployctlError, from_disk

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve one request and exit 0, also for an error that was reported."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    _bound(request["parent_pid"])
    try:
        from deployctl.compress import room

        _say(out, {"event": "result", **room.run(request, lambda kind, text: _say(out, {"event": kind, "text": text}))})
    except DeployctlError as error:
        _say(out, _error(error))
        _log()
    except Exception as error:  # but for a full disk a defect of ours: the parent must learn it as one
        disk = from_disk(error) if isinstance(error, OSError) else None
        _say(out, _error(disk or Bug(f"{type(error).__name__}: {error}", hint="report it with the log that the message names")))
        _log()
    return 0


def _bound(parent_pid: int) -> None:
    """No core files, and no life after the parent: user code ends when the command ends, however that ended."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit("the parent process is gone")


def _log() -> None:
    """The traceback, for the log; a full disk, of which it may tell, does not take it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _error(error: DeployctlError) -> dict[str, Any]:
    return {
        "event": "error",
        "kind": type(error).__name__,
        "message": error.message,
        "code": error.code,
        "hint": error.hint,
        "why": error.why,
        "where": error.where,
    }


def _say(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
