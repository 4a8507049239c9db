"""The torch room as a child process: what enters is a request, what leaves are variants whose files lie in the blob store.

User code runs in the child only. The child has its own process group, which is killed when this side ends for whatever
reason; its standard error is kept, and its tail is the cause when it dies. Refuses to know torch and ONNX.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from deployctl import errors, scratch
from deployctl.core import codec
from deployctl.core.compressed import Compressed
from deployctl.errors import DeployctlError, ModelError
from deployctl.ports import BlobStore, Progress

# Model libraries must not fetch anything behind the person's back: what is compressed is what lies here.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
_TAIL_LINES = 3


class ProcessCompressor:
    """Runs `python -m deployctl.compress` in a scratch folder that is gone afterwards."""

    def __init__(self, blobs: BlobStore, scratch: Path) -> None:
        self._blobs = blobs
        self._scratch = scratch

    def run(self, request: dict[str, Any], progress: Progress) -> Compressed:
        """Make the variants; see the port.

        Raises:
            ProjectError, ModelError, MachineError: as the child found out; ModelError `compress-died` if it ended without a word.
        """
        with scratch.folder(self._scratch) as work:
            file = work / "request.json"
            file.write_text(json.dumps({**request, "work": str(work), "parent_pid": os.getpid()}), encoding="utf-8")
            result = self._converse(file, work / "stderr.txt", Path(request["root"]), progress)
            progress.update("storing files")
            for digest, path in sorted(result["paths"].items()):
                if self._blobs.put_file(Path(path)) != digest:
                    raise errors.Bug(f"{path} changed while it was stored", hint="run the command again")
        return codec.loads(Compressed, json.dumps(result["compressed"]))

    def _converse(self, request: Path, log: Path, root: Path, progress: Progress) -> dict[str, Any]:
        with log.open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "deployctl.compress", str(request)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=root,
                env={**os.environ, **_OFFLINE, "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
                text=True,
            )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                event = json.loads(line)
                if event["event"] == "result":
                    return dict(event)
                if event["event"] == "error":
                    raise _error_of(event)
                getattr(progress, event["event"])(event["text"])
            raise _died(child.wait(), log)
        finally:
            _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the child's whole group (user code may have started more) and collect it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _error_of(event: dict[str, Any]) -> DeployctlError:
    """The child's error as the same class on this side."""
    kind = getattr(errors, event["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, DeployctlError)):
        kind = ModelError
    error: DeployctlError = kind(event["message"], hint=event["hint"], code=event["code"], why=event["why"], where=event["where"])
    return error


def _died(code: int, log: Path) -> ModelError:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    tail = " | ".join(line.strip()[:200] for line in lines[-_TAIL_LINES:])
    if code == -signal.SIGKILL:
        end, hint = "was killed (most often because memory ran out)", "free some memory, or compress on a larger machine"
    elif code < 0:
        end, hint = f"crashed with {signal.Signals(-code).name}", "run the model's build() in plain Python to see whether it crashes there too"
    else:
        end, hint = f"ended with status {code}", "model code must not call sys.exit(); run its build() in plain Python"
    return ModelError(f"the process that runs the model {end}", why=tail or "it wrote nothing", hint=hint, code="compress-died")
