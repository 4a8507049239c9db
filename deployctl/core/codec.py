"""Frozen dataclasses to canonical JSON and back: what enters is a record, what leaves is bytes that hash the same everywhere.

Canonical means: keys sorted, two-space indent, one trailing newline, floats in Python's shortest form, no NaN. A record
that went out and came back is byte-identical, so a digest can name it. Refuses to know files and the network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from typing import Any, TypeVar

from deployctl.errors import ProjectError

T = TypeVar("T")


def to_data(value: Any) -> Any:
    """A record as plain dicts, lists, strings, numbers, bools and None. Fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kinds = _float_fields(type(value))
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        data = {name: _as_floats(to_data(v), kinds.get(name)) for name, v in pairs if v is not None}
        tag = getattr(type(value), "KIND", None)
        return {"kind": tag, **data} if tag else data
    if isinstance(value, dict):
        return {str(k): to_data(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_data(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot stand in a record")
    return value


@functools.cache
def _float_fields(cls: Any) -> dict[str, str]:
    """Fields that are declared as numbers with a fraction: alone, in a sequence, or as the values of a map."""
    try:
        hints = _hints(cls)
    except NameError:  # a view whose types are imported for the type checker only: it is shown, never read back
        return {}
    kinds: dict[str, str] = {}
    for name, hint in hints.items():
        options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        for option in options:
            origin, args = typing.get_origin(option), typing.get_args(option)
            if option is float and int not in options:
                kinds[name] = "one"
            elif origin in (tuple, list) and args and args[0] is float:
                kinds[name] = "many"
            elif origin is dict and args[1] is float:
                kinds[name] = "map"
    return kinds


def _as_floats(data: Any, kind: str | None) -> Any:
    """`40` in a field of fractions is written `40.0`: what comes back is a float, and its digest must be the same."""
    if kind is None:
        return data
    if kind == "many" and isinstance(data, list):
        return [_as_floats(item, "one") for item in data]
    if kind == "map" and isinstance(data, dict):
        return {key: _as_floats(item, "one") for key, item in data.items()}
    return float(data) if type(data) is int else data


def dumps(value: Any) -> str:
    """Canonical JSON text of a record, ending in a newline."""
    return json.dumps(to_data(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: Any) -> str:
    """`sha256:` and the hex digest of the record's canonical JSON."""
    return "sha256:" + hashlib.sha256(dumps(value).encode()).hexdigest()


def loads(cls: type[T], text: str, *, where: str | None = None) -> T:
    """A record of class `cls` from JSON text.

    Raises:
        ProjectError: the text is no JSON or does not fit the class (`record-damaged`).
    """
    try:
        record: T = from_data(cls, json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise ProjectError(
            f"this is not a {cls.__name__} record: {error}",
            code="record-damaged",
            where=where,
            hint="restore the file from git or delete it and run the command that wrote it again",
        ) from error
    return record


def from_data(cls: Any, data: Any) -> Any:
    """The inverse of `to_data` for the type `cls`; ValueError names the field that does not fit."""
    origin = typing.get_origin(cls)
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(cls), data)
    if origin is typing.Literal:
        if data not in typing.get_args(cls):
            raise ValueError(f"{data!r} is none of {', '.join(map(repr, typing.get_args(cls)))}")
        return data
    if origin in (tuple, list):
        return _from_sequence(origin, typing.get_args(cls), data)
    if origin is dict:
        key_type, value_type = typing.get_args(cls)
        return {from_data(key_type, k): from_data(value_type, v) for k, v in data.items()}
    if dataclasses.is_dataclass(cls):
        return _from_dataclass(typing.cast("type[Any]", cls), data)
    if cls is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if cls is Any or (isinstance(cls, type) and type(data) is cls):
        return data
    raise ValueError(f"{data!r} is no {getattr(cls, '__name__', cls)}")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _from_dataclass(cls: type[Any], data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__} needs a mapping, not {type(data).__name__}")
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    names = {f.name for f in dataclasses.fields(cls)}
    unknown = set(data) - names - {"kind"}
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
    values = {}
    for name, value in data.items():
        if name not in names:
            continue
        try:
            values[name] = from_data(hints[name], value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error
    return cls(**values)


def _from_sequence(origin: Any, args: tuple[Any, ...], data: Any) -> Any:
    if not isinstance(data, list):
        raise ValueError(f"a list is needed, not {type(data).__name__}")
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(args) != len(data):
            raise ValueError(f"{len(args)} items are needed, not {len(data)}")
        return tuple(from_data(a, d) for a, d in zip(args, data, strict=True))
    return origin(from_data(args[0], d) for d in data)


def _from_union(options: tuple[Any, ...], data: Any) -> Any:
    if data is None:
        if type(None) in options:
            return None
        raise ValueError("a value is needed")
    rest = [o for o in options if o is not type(None)]
    if isinstance(data, dict) and "kind" in data:
        for option in rest:
            if getattr(option, "KIND", None) == data["kind"]:
                return from_data(option, data)
    errors = []
    for option in rest:
        try:
            return from_data(option, data)
        except (ValueError, TypeError) as error:
            errors.append(str(error))
    raise ValueError("; ".join(errors))
