"""OIP input maps to the bytes that go over the wire, once, before the test: no encoding costs time while it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from loadtests.plan import MAX_BODY_BYTES, Body, PlanError


def array(name: str, tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The numpy array of one OIP input; BYTES become objects.

    Raises:
        PlanError: unknown data type, or data that does not fill the shape (`loadtest-bodies-invalid`).
    """
    try:
        dtype, shape = str(tensor["datatype"] if "datatype" in tensor else tensor["dtype"]), [int(n) for n in tensor["shape"]]
        if dtype == "BYTES":
            flat = [v.encode() if isinstance(v, str) else bytes(v) for v in _flatten(tensor["data"])]
            values = np.empty(len(flat), dtype=np.object_)
            values[:] = flat
            return values.reshape(shape)
        kind = triton_to_np_dtype(dtype)
        if kind is None:
            raise ValueError(f"no data type {dtype}")
        return np.array(tensor["data"], dtype=kind).reshape(shape)
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError("loadtest-bodies-invalid", f"input {name}: {error}") from error


def _flatten(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [leaf for item in data for leaf in _flatten(item)]


def http_requests(bodies: Sequence[Body], *, host: str, model: str) -> list[bytes]:
    """Whole HTTP/1.1 requests as bytes: request line, headers and binary tensors, sent as they are."""
    from tritonclient.http import InferenceServerClient, InferInput

    out = []
    for body in bodies:
        inputs = []
        for name, tensor in body.inputs.items():
            values = array(name, tensor)
            item = InferInput(name, list(values.shape), str(tensor.get("datatype", tensor.get("dtype"))))
            item.set_data_from_numpy(values, binary_data=True)
            inputs.append(item)
        content, json_bytes = InferenceServerClient.generate_request_body(inputs)
        lines = [
            f"POST /v2/models/{model}/infer HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {len(content)}",
        ]
        if json_bytes is not None:
            lines.append(f"Inference-Header-Content-Length: {json_bytes}")
        out.append("\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(content))
    return _bounded(out)


def generate_requests(bodies: Sequence[Body], *, host: str, model: str) -> list[bytes]:
    """Whole HTTP/1.1 requests to Triton's streaming generate endpoint: JSON values by input name, shapes are the model's own."""
    out = []
    for body in bodies:
        flat = {name: _flatten(tensor["data"]) for name, tensor in body.inputs.items()}
        content = json.dumps({name: values[0] if len(values) == 1 else values for name, values in flat.items()}).encode()
        head = [
            f"POST /v2/models/{model}/generate_stream HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        ]
        out.append("\r\n".join(head).encode() + b"\r\n\r\n" + content)
    return _bounded(out)


def grpc_requests(bodies: Sequence[Body], *, model: str) -> list[bytes]:
    """Serialised ModelInferRequest messages with raw contents."""
    from tritonclient.grpc import service_pb2

    out = []
    for body in bodies:
        message = service_pb2.ModelInferRequest(model_name=model)
        for name, tensor in body.inputs.items():
            values = array(name, tensor)
            dtype = str(tensor.get("datatype", tensor.get("dtype")))
            message.inputs.add(name=name, datatype=dtype, shape=list(values.shape))
            message.raw_input_contents.append(serialize_byte_tensor(values).item() if dtype == "BYTES" else values.tobytes())
        out.append(message.SerializeToString())
    return _bounded(out)


def _bounded(encoded: list[bytes]) -> list[bytes]:
    total = sum(map(len, encoded))
    if total > MAX_BODY_BYTES:
        raise PlanError("loadtest-bodies-invalid", f"the examples take {total} bytes encoded; at most {MAX_BODY_BYTES} are kept in memory")
    return encoded


def error_text(status: int, content: bytes) -> str:
    """What Triton says in an error answer, short enough to count by."""
    try:
        text = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        text = content[:200].decode(errors="replace").strip()
    return f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"
