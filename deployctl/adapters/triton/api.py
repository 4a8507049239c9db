"""Triton's HTTP interface: what enters are plain maps, what leaves are nested lists, counters and our own errors.

Tensors travel in the binary form, so FP16 works and floats are exact. Refuses to know processes.
"""

from __future__ import annotations

import http.client
import json
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from deployctl.adapters.triton.install import SECRET_HEADER
from deployctl.core.answer import joined
from deployctl.core.sample import generate_body
from deployctl.errors import ClusterError, ModelError
from deployctl.ports import Piece, ServerStats

_NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_DECOUPLED = "decoupled transaction policy"  # what Triton says of the ordinary endpoint then
_ABOUT = {"model_name", "model_version", "sequence_id", "sequence_start", "sequence_end"}  # no outputs of the model


class TritonApi:
    """One server at `address` (`127.0.0.1:8000`); `secret` opens its restricted part. A connection lives for one call."""

    def __init__(self, address: str, *, secret: str = "") -> None:
        self.address = address
        self._headers = {SECRET_HEADER: secret} if secret else {}
        self._decoupled: set[str] = set()  # models that answer in pieces

    def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: dict[str, str] | None = None, timeout_s: float = 5.0
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body; OSError or http.client.HTTPException when there is no answer."""
        host, port = self.address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            connection.request(method, path, body=body, headers=self._headers | (headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def ready(self, *, timeout_s: float = 2.0) -> bool:
        """Whether the server says that it and all models are ready (which is not yet a proof)."""
        try:
            return self.request("GET", "/v2/health/ready", timeout_s=timeout_s)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def version(self) -> str:
        """Version that the running server states."""
        return str(self._json("GET", "/v2")["version"])

    def infer(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """One inference; of a model that answers in pieces all of them, joined in order.

        Args:
            model: model name.
            request: input map, or `{"inputs": input map}`; the map is name -> {dtype, shape (with batch), data (flat or nested)}.
            timeout_s: for the whole call.
            headers: more of them, such as a trace context.

        Returns:
            Output name -> nested lists.

        Raises:
            ModelError: the server refused or failed the request (`inference-failed`).
            ClusterError: no answer in time (`server-unreachable`).
        """
        return joined([p.outputs for p in self.pieces(model, request, timeout_s=timeout_s, headers=headers)])

    def pieces(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0, headers: dict[str, str] | None = None) -> list[Piece]:
        """As `infer`, but each part of the answer with its time. A model that does not answer in pieces gives one.

        Which kind a model is shows in how the server refuses the ordinary endpoint; that is asked once.
        """
        begun_s = time.monotonic()
        if model not in self._decoupled:
            body, json_bytes = encode_request(request)
            own = {"Inference-Header-Content-Length": str(json_bytes), "Content-Type": "application/octet-stream"}
            status, told, answer = self._call("POST", f"/v2/models/{model}/infer", body, headers=own | (headers or {}), timeout_s=timeout_s)
            if status == 200:
                outputs = decode_response(answer, int(told.get("inference-header-content-length", len(answer))))
                return [Piece(after_s=time.monotonic() - begun_s, outputs=outputs)]
            if _DECOUPLED not in (why := _error_text(answer)):
                raise _refused(model, why)
            self._decoupled.add(model)
        return self._stream(model, request, begun_s, timeout_s, headers or {})

    def _stream(self, model: str, request: dict[str, Any], begun_s: float, timeout_s: float, headers: dict[str, str]) -> list[Piece]:
        """Triton's generate extension: JSON in, server-sent events out."""
        host, port = self.address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            body = json.dumps(generate_body(request.get("inputs", request))).encode()
            connection.request("POST", f"/v2/models/{model}/generate_stream", body, {"Content-Type": "application/json", **self._headers, **headers})
            response = connection.getresponse()
            if response.status != 200:
                raise _refused(model, _error_text(response.read()))
            return list(_events(model, response, begun_s, timeout_s))
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error
        finally:
            connection.close()

    def load(self, model: str, config_json: str, *, timeout_s: float = 120.0) -> None:
        """Explicit mode: load `model` under this configuration.

        Raises:
            ModelError: it does not load; the message is Triton's reason (`triton-load-failed`).
        """
        body = json.dumps({"parameters": {"config": config_json}}).encode()
        status, _, answer = self._call("POST", f"/v2/repository/models/{model}/load", body, timeout_s=timeout_s)
        if status != 200:
            raise ModelError(
                f"{model} does not load: {_error_text(answer)}", code="triton-load-failed", hint="look at config.pbtxt and the model's code"
            )

    def stats(self, *, timeout_s: float = 5.0) -> ServerStats:
        """Cumulative statistics of every model, summed over versions; a reply is counted a moment after it was sent."""
        return parse_stats(self._json("GET", "/v2/models/stats", timeout_s=timeout_s), time.time())

    def _json(self, method: str, path: str, *, timeout_s: float = 5.0) -> dict[str, Any]:
        status, _, answer = self._call(method, path, None, timeout_s=timeout_s)
        if status != 200:
            raise ClusterError(f"{path} at {self.address} answered {status}: {_error_text(answer)}", code="server-unreachable", hint="deployctl logs")
        data: dict[str, Any] = json.loads(answer)
        return data

    def _call(self, method: str, path: str, body: bytes | None, **options: Any) -> tuple[int, dict[str, str], bytes]:
        try:
            return self.request(method, path, body, **options)
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> ClusterError:
        return ClusterError(
            f"the server at {self.address} gave no answer",
            code="server-unreachable",
            hint="deployctl status",
            why=str(error) or type(error).__name__,
        )


def _refused(model: str, why: str) -> ModelError:
    return ModelError(f"{model} refused the request: {why}", code="inference-failed", hint="compare the request with `deployctl call --snippet curl`")


def _events(model: str, response: http.client.HTTPResponse, begun_s: float, timeout_s: float) -> Iterator[Piece]:
    for line in response:
        if not line.startswith(b"data:"):
            continue
        after_s, data = time.monotonic() - begun_s, json.loads(line[5:])
        if after_s > timeout_s:
            raise TimeoutError(f"it had not ended after {timeout_s:g} s")
        if "error" in data:
            raise _refused(model, str(data["error"]))
        yield Piece(after_s=after_s, outputs={k: v if isinstance(v, list) else [v] for k, v in data.items() if k not in _ABOUT})


def encode_request(request: dict[str, Any]) -> tuple[bytes, int]:
    """The body of a binary inference request and the length of its JSON part."""
    tensors = request.get("inputs", request)
    header = []
    chunks = []
    for name, tensor in tensors.items():
        raw = _encode(tensor["dtype"], tensor["data"])
        chunks.append(raw)
        header.append({"name": name, "datatype": tensor["dtype"], "shape": list(tensor["shape"]), "parameters": {"binary_data_size": len(raw)}})
    text = json.dumps({"inputs": header, "parameters": {"binary_data_output": True}}).encode()
    return b"".join([text, *chunks]), len(text)


def decode_response(body: bytes, json_bytes: int) -> dict[str, Any]:
    """Output name -> nested lists."""
    outputs: dict[str, Any] = {}
    at = json_bytes
    for tensor in json.loads(body[:json_bytes]).get("outputs", []):
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = tensor["data"]
        else:
            flat = _decode(tensor["datatype"], body[at : at + size])
            at += size
        outputs[tensor["name"]] = _nested(flat, tensor["shape"])
    return outputs


def _flatten(data: Any) -> list[Any]:
    if not isinstance(data, (list, tuple)):
        return [data]
    return [leaf for item in data for leaf in _flatten(item)]


def _encode(dtype: str, data: Any) -> bytes:
    if dtype == "BYTES":
        items = [x if isinstance(x, bytes) else str(x).encode() for x in _flatten(data)]
        return b"".join(struct.pack("<I", len(x)) + x for x in items)
    if dtype == "BF16":  # the upper half of a float32
        return (np.asarray(_flatten(data), np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return np.asarray(_flatten(data), _NUMPY[dtype]).tobytes()


def _decode(dtype: str, raw: bytes) -> list[Any]:
    if dtype == "BYTES":
        items, at = [], 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            items.append(raw[at + 4 : at + 4 + size].decode(errors="replace"))
            at += 4 + size
        return items
    if dtype == "BF16":
        floats: list[Any] = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).tolist()
        return floats
    values: list[Any] = np.frombuffer(raw, _NUMPY[dtype]).tolist()
    return values


def _nested(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) <= 1:
        return flat
    inner = math.prod(shape[1:])
    return [_nested(flat[i * inner : (i + 1) * inner], shape[1:]) for i in range(shape[0])]


def _error_text(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace") or "no text"


def parse_stats(data: dict[str, Any], at_s: float) -> ServerStats:
    """`v2/models/stats` as a ServerStats (its nanoseconds become seconds)."""
    stats = ServerStats(at_s=at_s, success={}, failure={}, queue_s={}, request_s={}, executions={}, batch_stats={}, cache_hits={})
    for entry in data["model_stats"]:
        name, figures = entry["name"], entry.get("inference_stats", {})
        for counter, key in ((stats.success, "success"), (stats.failure, "fail"), (stats.cache_hits, "cache_hit")):
            counter[name] = counter.get(name, 0) + int(figures.get(key, {}).get("count", 0))
        for seconds, key in ((stats.queue_s, "queue"), (stats.request_s, "success")):
            seconds[name] = seconds.get(name, 0.0) + int(figures.get(key, {}).get("ns", 0)) / 1e9
        stats.executions[name] = stats.executions.get(name, 0) + int(entry.get("execution_count", 0))
        batches = stats.batch_stats.setdefault(name, {})
        for row in entry.get("batch_stats", []):
            size = int(row["batch_size"])
            count, *times = batches.get(size, (0, 0.0, 0.0, 0.0))
            added = [int(row.get(part, {}).get("ns", 0)) / 1e9 for part in ("compute_input", "compute_infer", "compute_output")]
            total = [a + b for a, b in zip(times, added, strict=True)]
            batches[size] = (count + int(row["compute_infer"]["count"]), total[0], total[1], total[2])
    return stats
