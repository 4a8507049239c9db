"""Example requests as values: what enters are lines that a person wrote, what leaves is the one form that everybody sends.

A line for a model that takes text is a text: bare, a JSON string, or `{"text": …}`. A line for a model that takes numbers maps
input names to values: nested lists, or `{"shape", "data"}` with an optional `dtype` or `datatype`; the Open Inference
Protocol's own request body is understood too. The normal form has the complete shape (with a leading batch of 1 where the
model batches) and flat data. Refuses to know files and tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from deployctl.core.artifact import TensorSpec
from deployctl.errors import ModelError

NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
_CODE = "sample-invalid"
_SHORT = 60


def text_of(line: str, *, where: str) -> str:
    """The text that a sample line stands for.

    Raises:
        ModelError: a JSON object without `text` (`sample-invalid`).
    """
    if line.lstrip()[:1] not in ('"', "{"):
        return line.strip()
    value = _json(line, where)
    if isinstance(value, dict):
        value = value.get("text", value.get("TEXT", value))
    if not isinstance(value, str):
        raise _error(
            f"{_short(value)} is no text", where, "this model has a tokenizer, so each line is a text", 'write "some text" or {"text": "some text"}'
        )
    return value


def inputs_of(line: str, specs: Sequence[TensorSpec], *, batched: bool, where: str) -> dict[str, dict[str, Any]]:
    """The input map that a sample line stands for, complete and flat.

    Raises:
        ModelError: no JSON object, a missing or unknown input, a wrong type or shape (`sample-invalid`); the message names all.
    """
    value = _json(line, where)
    given = _given(value, where)
    known = {s.name for s in specs}
    if set(given) != known:
        raise _error(
            f"the inputs are {', '.join(sorted(given)) or 'none'}, the model takes {', '.join(sorted(known))}",
            where,
            None,
            "write one value for each input of the model",
        )
    return {s.name: _tensor(given[s.name], s, batched=batched, where=where) for s in specs}


def zeros(specs: Sequence[TensorSpec], *, batched: bool) -> dict[str, dict[str, Any]]:
    """A request of zeros, one element where a dimension varies: stands in where nobody gave a sample."""
    found = {}
    for spec in specs:
        shape = [*([1] if batched else []), *(1 if d < 0 else d for d in spec.shape)]
        fill: Any = "" if spec.dtype == "BYTES" else False if spec.dtype == "BOOL" else 0
        found[spec.name] = {"dtype": spec.dtype, "shape": shape, "data": [fill] * _product(shape)}
    return found


def generate_body(inputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The body of Triton's generate extension: values by input name, whose shapes it takes from the model's own."""
    flat = {name: _leaves(tensor["data"]) for name, tensor in inputs.items()}
    return {name: values[0] if len(values) == 1 else values for name, values in flat.items()}


def _leaves(data: Any) -> list[Any]:
    return [leaf for item in data for leaf in _leaves(item)] if isinstance(data, (list, tuple)) else [data]


def _given(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict) and isinstance(value.get("inputs"), list):
        return {str(row.get("name")): row for row in value["inputs"] if isinstance(row, dict)}
    if isinstance(value, dict) and isinstance(value.get("inputs"), dict):
        return dict(value["inputs"])
    if isinstance(value, dict):
        return dict(value)
    raise _error(f"{_short(value)} is no map of inputs", where, None, 'write one JSON object a line, such as {"x": [1.0, 2.0]}')


def _tensor(value: Any, spec: TensorSpec, *, batched: bool, where: str) -> dict[str, Any]:
    shape: list[int] | None = None
    if isinstance(value, dict):
        dtype = value.get("dtype", value.get("datatype", spec.dtype))
        if dtype != spec.dtype:
            raise _error(
                f"input {spec.name} has the type {dtype}, the model takes {spec.dtype}", where, None, f"write {spec.dtype}, or leave the type out"
            )
        if not isinstance(value.get("data"), list):
            raise _error(f"input {spec.name} has no list of data", where, None, 'write {"shape": [2], "data": [1.0, 2.0]}')
        shape = value.get("shape")
        value = value["data"]
    flat: list[Any] = []
    nested = _flatten(value, flat, spec, where)
    shape = _complete(shape if shape is not None else nested, spec, batched=batched, where=where)
    if _product(shape) != len(flat):
        raise _error(f"input {spec.name} has {len(flat)} values for the shape {shape}", where, None, "write as many values as the shape has places")
    return {"dtype": spec.dtype, "shape": shape, "data": flat}


def _flatten(value: Any, into: list[Any], spec: TensorSpec, where: str) -> list[int]:
    """Append all elements in row-major order and return the nested shape."""
    if not isinstance(value, list):
        into.append(_element(value, spec, where))
        return []
    shapes = [_flatten(v, into, spec, where) for v in value]
    if any(s != shapes[0] for s in shapes):
        raise _error(f"input {spec.name} is ragged", where, "its rows have different lengths", "make all rows of one input equally long")
    return [len(value), *(shapes[0] if shapes else [])]


def _element(value: Any, spec: TensorSpec, where: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if spec.dtype == "BYTES":
        fits = isinstance(value, str)
    elif spec.dtype == "BOOL":
        fits = isinstance(value, bool)
    elif spec.dtype.startswith(("FP", "BF")):
        fits = whole or isinstance(value, float)
        value = float(value) if whole else value
    else:
        bits = int(spec.dtype.removeprefix("U").removeprefix("INT"))
        low, high = (0, 2**bits) if spec.dtype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        fits = whole and low <= value < high
    if not fits:
        raise _error(f"input {spec.name}: {_short(value)} is no {spec.dtype}", where, f"the model takes {spec.dtype}", "write a value of that type")
    return value


def _complete(shape: Any, spec: TensorSpec, *, batched: bool, where: str) -> list[int]:
    if not (isinstance(shape, list) and all(isinstance(d, int) and d >= 0 for d in shape)):
        raise _error(f"input {spec.name}: {_short(shape)} is no shape", where, None, "a shape is a list of counts, such as [2, 3]")
    if batched and _fits(shape, spec.shape):
        return [1, *shape]
    if _fits(shape, ((1,) if batched else ()) + spec.shape):
        return shape
    if _fits([1, *shape], spec.shape):  # a graph that was exported for exactly one row
        return [1, *shape]
    wanted = "[" + ", ".join("any" if d < 0 else str(d) for d in spec.shape) + "]"
    raise _error(
        f"input {spec.name} has the shape {shape}, the model takes {wanted}", where, "a line is one request, without other rows", f"write {wanted}"
    )


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))


def _product(shape: Sequence[int]) -> int:
    total = 1
    for d in shape:
        total *= d
    return total


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise _error("this line is no JSON", where, str(error), "write one JSON value a line") from error


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def _error(message: str, where: str, why: str | None, hint: str) -> ModelError:
    return ModelError(message, where=where, why=why, hint=hint, code=_CODE)
