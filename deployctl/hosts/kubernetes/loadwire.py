"""How a load test in a pod is told about and tells back: a LoadRequest as JSON, a LoadResult as lines of a log.

A log is the one way out of a pod that needs no right but reading it. Lines are short, numbered and hashed, since logs are cut and rotated.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deployctl.core import codec
from deployctl.core.demand import Demand
from deployctl.core.load_samples import Samples
from deployctl.errors import DeployctlError
from deployctl.ports import LoadRequest, LoadResult

MARK = "deployctl-load "
_LINE_BYTES = 6000  # runtimes cut lines at 16 KiB
_ARRAYS = ("intended_s", "sent_s", "latency_s", "ok", "size", "error", "first_s", "pieces")  # the last two of answers in pieces only


def request_text(request: LoadRequest) -> str:
    """Everything but the bodies, which travel beside it, and the cores, which are the pod's."""
    left_out = {"bodies", "cpus", "demand"}
    fields = {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.name not in left_out}
    return json.dumps({**fields, "demand": codec.to_data(request.demand)}, sort_keys=True) + "\n"


def read_request(text: str, bodies: Path) -> LoadRequest:
    """The request again, with the bodies where they lie in the pod."""
    data = json.loads(text)
    return LoadRequest(**{**data, "demand": codec.from_data(Demand, data["demand"]), "bodies": bodies})


def progress_line(words: str) -> str:
    """What the one who waits may show."""
    return MARK + json.dumps({"progress": words})


def error_line(error: DeployctlError) -> str:
    """An error with everything that its reader needs."""
    return MARK + json.dumps({"error": {"message": error.message, "why": error.why, "hint": error.hint, "code": error.code}})


def result_lines(result: LoadResult) -> Iterator[str]:
    """The result, the last line with the number of parts and the digest of all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: found for name in _ARRAYS if (found := getattr(result.samples, name)) is not None})
    data = buffer.getvalue()
    text = base64.b64encode(data).decode()
    parts = [text[i : i + _LINE_BYTES] for i in range(0, len(text), _LINE_BYTES)]
    for number, part in enumerate(parts):
        yield MARK + json.dumps({"part": number, "data": part})
    facts = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "samples"}
    yield MARK + json.dumps({"result": {**facts, "errors": result.samples.errors}, "parts": len(parts), "sha256": hashlib.sha256(data).hexdigest()})


class Reader:
    """Collects the lines of one log; `result` or `error` is set when it is complete."""

    def __init__(self) -> None:
        self._parts: dict[int, str] = {}
        self.progress = ""
        self.result: LoadResult | None = None
        self.error: dict[str, Any] | None = None

    def feed(self, line: str) -> bool:
        """Take a line in, whatever stands before the mark; whether the log is complete.

        Raises:
            ValueError: parts are missing or damaged.
        """
        _, mark, text = line.partition(MARK)
        if not mark:
            return False
        data = json.loads(text)
        if "part" in data:
            self._parts[int(data["part"])] = str(data["data"])
        elif "progress" in data:
            self.progress = str(data["progress"])
        elif "error" in data:
            self.error = dict(data["error"])
        elif "result" in data:
            self.result = self._assemble(data)
        return self.result is not None or self.error is not None

    def _assemble(self, data: dict[str, Any]) -> LoadResult:
        count = int(data["parts"])
        if sorted(self._parts) != list(range(count)):
            raise ValueError(f"{len(self._parts)} of {count} parts of the samples came through")
        raw = base64.b64decode("".join(self._parts[i] for i in range(count)))
        if hashlib.sha256(raw).hexdigest() != data["sha256"]:
            raise ValueError("the samples were damaged on their way")
        facts = dict(data["result"])
        errors = tuple(facts.pop("errors"))
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            samples = Samples(**{name: arrays[name] for name in _ARRAYS if name in arrays}, errors=errors)
        return LoadResult(samples=samples, **facts)
