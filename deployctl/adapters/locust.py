"""Load tests by Locust in a process of its own: a LoadRequest enters, exact samples and the generator's own health leave.

The child is bounded in time and is ended, as a group, whatever happens here. Refuses to know what the samples mean.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from deployctl import scratch, share
from deployctl.adapters import processes
from deployctl.core import codec, load_samples
from deployctl.errors import DeployctlError, ModelError, NotConverged, ProjectError
from deployctl.ports import LoadRequest, LoadResult, Progress

START_S = 60.0  # Locust's import alone takes seconds on a busy machine
MENDERS: dict[str, type[DeployctlError]] = {
    "demand-too-large": ProjectError,
    "demand-invalid": ProjectError,
    "loadtest-bodies-invalid": ProjectError,
    "loadtest-size-missing": ProjectError,
    "loadtest-refused": ModelError,
}
HINTS = {
    "demand-too-large": "shorten the test (--duration) or lower the rate (--rate)",
    "demand-invalid": "correct traffic in deploy.yaml",
    "loadtest-bodies-invalid": "correct the example requests (model.sample or --bodies)",
    "loadtest-size-missing": "add an example of that size to model.sample, or leave traffic.mix out",
    "loadtest-refused": "try one request by hand: deployctl call",
}


class LocustGenerator:
    """Implements the LoadGenerator port.

    Args:
        scratch: folder for request and sample files; each run has its own inside and removes it.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def run(self, request: LoadRequest, progress: Progress | None = None) -> LoadResult:
        """Run to the end and return every sample.

        Raises:
            NotConverged: the generator died or overran its time (`loadgen-failed`).
            ModelError: the model does not answer the examples (`loadtest-refused`).
            ProjectError: bodies or demand cannot be used.
        """
        with scratch.folder(self._scratch) as folder:
            data = {**codec.to_data(request_data(request)), "bodies": str(request.bodies.resolve())}
            (folder / "request.json").write_text(json.dumps(data))
            result = self._drive(folder, request, progress)
            return _load(folder / "samples.bin", result)

    def _drive(self, folder: Path, request: LoadRequest, progress: Progress | None) -> dict[str, Any]:
        command = [sys.executable, "-P", str(share.folder("loadtests") / "run.py"), str(folder / "request.json"), str(folder)]
        deadline = time.monotonic() + START_S + request.warmup_s + request.duration_s + request.grace_s
        with (folder / "stderr").open("wb") as stderr, processes.on_cores(request.cpus):  # its start alone computes for seconds
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, cwd=folder, env=_environment()
            )
        grace_s = 0.0
        try:
            for line in _lines(child.stdout, deadline):
                document = json.loads(line)
                grace_s = 2.0 if "result" in document or "error" in document else 0.0
                if "result" in document:
                    return dict(document["result"])
                if "error" in document:
                    raise _failure(*document["error"], why=None)
                if progress is not None:
                    progress.update(_progress(document, request))
            if time.monotonic() >= deadline:
                raise _failure("loadgen-failed", f"the load generator did not end {START_S:g} s after its time", why=_tail(folder / "stderr"))
            code = child.wait(timeout=10)
            raise _failure("loadgen-failed", f"the load generator died ({_cause(code)})", why=_tail(folder / "stderr"))
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise _failure("loadgen-failed", f"the load generator said something unexpected: {error}", why=_tail(folder / "stderr")) from error
        finally:
            _end(child, grace_s=grace_s)


def request_data(request: LoadRequest) -> dict[str, Any]:
    """The request file's fields; `loadtests/plan.py` reads them."""
    return {
        "url": request.url,
        "protocol": request.protocol,
        "model": request.model,
        "demand": request.demand,
        "duration_s": request.duration_s,
        "seed": request.seed,
        "warmup_s": request.warmup_s,
        "grace_s": request.grace_s,
        "trace_ratio": request.trace_ratio,
        "timeout_s": request.timeout_s,
    }


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOCUST_")}
    return {**kept, "GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "NONE", "OPENBLAS_NUM_THREADS": "1"}


def _lines(stream: IO[bytes] | None, deadline: float) -> Iterator[bytes]:
    """Whole lines until the end of the stream or the deadline."""
    assert stream is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(timeout=left):
                return
            data = os.read(stream.fileno(), 65536)
            if not data:
                return
            *whole, rest = (rest + data).split(b"\n")
            yield from whole


def _end(child: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """End the child's whole group: after `grace_s` when it said its result, at once when it did not."""
    try:
        child.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _failure(code: str, message: str, *, why: str | None) -> DeployctlError:
    kind = MENDERS.get(code, NotConverged)
    if "decoupled transaction policy" in message:
        return kind(message, code=code, why="the model answers in pieces", hint="deployctl loadtest --protocol stream")
    return kind(message, code=code, why=why, hint=HINTS.get(code, "run the same command again; if it repeats, lower --rate or raise --duration"))


def _progress(document: dict[str, Any], request: LoadRequest) -> str:
    at = max(float(document["at_s"]), 0.0)
    failed = f", {document['failed']} failed in the last second" if document["failed"] else ""
    return f"{at:.0f} of {request.duration_s:.0f} s, {document['sent']} of {document['planned']} sent, {document['open']} waiting{failed}"


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(path: Path) -> str | None:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else None


def _load(path: Path, result: dict[str, Any]) -> LoadResult:
    """The sample file's judged part; its layout is described in `loadtests/record.py`."""
    n = int(result["requests"]) + int(result["warmup_requests"])
    samples = load_samples.decode(path.read_bytes(), n, tuple(result["errors"]))
    return LoadResult(
        samples=samples,
        generator_cpu_ratio=float(result["cpu_ratio"]),
        late_sends=int(result["late_sends"]),
        started_at_s=float(result["started_at_s"]),
        warmup_requests=int(result["warmup_requests"]),
    )
