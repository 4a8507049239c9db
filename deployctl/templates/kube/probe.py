"""Does a real inference and says with its exit code whether this replica is sound. Standard library only.

    python3 probe.py start|ready|live [FOLDER]

Triton's own health endpoints say ready while a backend is dead, so nothing but an answer counts. Overload must not take
a replica out of service, since that makes the overload of the others worse: where the canary was turned away or timed
out, the replica is still sound if it completed any request since the last probe. At the start there is no such excuse.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Any

WIDTH = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2, "UINT64": 8, "INT64": 8, "FP64": 8}
TURNED_AWAY = (429, 503)  # queue full: Triton says 503 with "Exceeds maximum queue size"


def body(request: dict[str, Any]) -> tuple[bytes, int]:
    """An inference of zeros in Triton's binary form, which every tensor type has: (bytes, length of the JSON head)."""
    inputs, tail = [], b""
    for tensor in request["inputs"]:
        count = 1
        for dimension in tensor["shape"]:
            count *= dimension
        # An empty string is its length, four zero bytes; 32-bit numbers have the same width.
        data = bytes(count * WIDTH.get(tensor["datatype"], 4))
        inputs.append({**tensor, "parameters": {"binary_data_size": len(data)}})
        tail += data
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + tail, len(head)


def completed(request: dict[str, Any]) -> float | None:
    """Requests of all models that ended well so far, or None where the server does not say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{request['metrics_port']}/metrics", timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    found = re.findall(r"^nv_inference_request_success\{[^}]*\} ([0-9.e+]+)$", text, re.MULTILINE)
    return sum(float(number) for number in found)


def infer(request: dict[str, Any]) -> tuple[bool, bool, str]:
    """(answered, whether it looks like overload, what happened)."""
    url = f"http://127.0.0.1:{request['http_port']}/v2/models/{request['model']}/infer"
    if "generate" in request:  # an engine that answers in pieces
        data, headers = json.dumps(request["generate"]).encode(), {"Content-Type": "application/json"}
        url = url.removesuffix("infer") + "generate"
    else:
        data, head = body(request)
        headers = {"Inference-Header-Content-Length": str(head), "Content-Type": "application/octet-stream"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=request["timeout_s"]) as answer:
            answer.read()
            return True, False, "answered"
    except urllib.error.HTTPError as error:
        return False, error.code in TURNED_AWAY, f"{error.code}: {error.read()[:300].decode(errors='replace')}"
    except TimeoutError:
        return False, True, f"no answer within {request['timeout_s']} s"
    except OSError as error:
        return False, isinstance(getattr(error, "reason", None), TimeoutError), str(error)


def judge(*, answered: bool, overload: bool, before: float | None, after: float | None) -> bool:
    """Whether the replica is sound: it answered, or it is busy and something was completed since `before`."""
    return answered or (overload and before is not None and after is not None and after > before)


def main(mode: str, folder: pathlib.Path) -> int:
    """Probe once and return the exit code."""
    request = json.loads((folder / "request.json").read_text())
    memory = pathlib.Path(tempfile.gettempdir()) / f"deployctl-probe-{mode}"
    before: float | None
    try:
        before = float(memory.read_text())
    except (OSError, ValueError):
        before = completed(request)
    answered, overload, words = infer(request)
    after = completed(request)
    if after is not None:
        fresh = memory.with_suffix(f".{os.getpid()}")
        fresh.write_text(repr(after))
        fresh.replace(memory)
    if judge(answered=answered, overload=overload and mode != "start", before=before, after=after):
        return 0
    print(f"deployctl-probe: {mode}: {words}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).resolve().parent))
