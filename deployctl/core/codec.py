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
    """A record as plain dicts, lists, strings, numbers, bools and None; a field that is None is left out, unless that would mean its default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fractions, spoken = _float_fields(type(value)), _said_when_none(type(value))
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        data = {name: _as_floats(to_data(v), fractions.get(name)) for name, v in pairs if v is not None or name in spoken}
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
def _said_when_none(cls: Any) -> frozenset[str]:
    """Fields whose default is something: left out they would come back as that."""
    defaults = {f.name: f.default if f.default_factory is dataclasses.MISSING else ... for f in dataclasses.fields(cls)}
    return frozenset(name for name, default in defaults.items() if default not in (None, dataclasses.MISSING))


@functools.cache
def _float_fields(cls: Any) -> dict[str, Any]:
    """Types of the fields that hold numbers with a fraction, alone or at any depth of sequences and maps."""
    try:
        hints = _hints(cls)
    except NameError:  # a view whose types are imported for the type checker only: it is shown, never read back
        return {}
    return {name: hint for name, hint in hints.items() if _has_floats(hint)}


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


@functools.cache
def _has_floats(hint: Any) -> bool:
    """Whether whole numbers in a value of this type are meant as fractions; nested records see to their own fields."""
    options = _options(hint)
    if any(option is float for option in options):
        return int not in options
    return any(_has_floats(arg) for option in options if typing.get_origin(option) in (tuple, list, dict) for arg in typing.get_args(option))


def _as_floats(data: Any, hint: Any) -> Any:
    """`40` in a field of fractions is written `40.0`: what comes back is a float, and its digest must be the same."""
    if hint is None or not _has_floats(hint):
        return data
    if type(data) is int:
        return float(data) if float in _options(hint) else data
    for option in _options(hint):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is dict and isinstance(data, dict):
            return {key: _as_floats(item, args[1]) for key, item in data.items()}
        if origin in (tuple, list) and isinstance(data, list):
            each = args[:1] * len(data) if origin is list or args[-1] is Ellipsis else args
            return [_as_floats(item, arg) for item, arg in zip(data, each, strict=False)]
    return data


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
    missing = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING} - values.keys()
    return cls(**values, **{name: None for name in missing if type(None) in _options(hints[name])})


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
