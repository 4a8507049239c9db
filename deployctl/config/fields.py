"""What one value of deploy.yaml or platform.yaml may be: a type for each kind of value, and the mapping that holds them.

Text as it was written (`config/tree.py`) enters, a number in base units (`config/units.py`), a word or a complaint leaves, with its
part of the JSON Schema. Refuses to know which key holds what.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema, model_validator

from deployctl.config import units

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_RECIPE = re.compile(rf"{_WORD.pattern}(\+{_WORD.pattern}){{0,3}}", re.ASCII)
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}", re.ASCII)
_URL = re.compile(r"https?://[^\s@]+", re.ASCII)
_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,252}", re.ASCII)
SOURCE_KINDS = ("python", "onnx", "triton", "opaque")


def _text(value: Any) -> str:
    if value is None:
        raise ValueError("a value is missing here")
    if not isinstance(value, str):
        raise ValueError(f"one value is needed here, not a {'list' if isinstance(value, list) else 'mapping'}")
    return value


def parsed(parse: Callable[[str], Any]) -> BeforeValidator:
    """A field whose text `parse` turns into its value; its ValueError is the complaint."""
    return BeforeValidator(lambda value: parse(_text(value)))


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`; did you mean X?`, or an empty text where nothing is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def one_of(*known: str) -> BeforeValidator:
    """A field that takes one of the known words."""

    def choose(value: Any) -> str:
        word = _text(value)
        if word not in known:
            raise ValueError(f"{word[:40]!r} is none of {', '.join(known)}{did_you_mean(word, known)}")
        return word

    return BeforeValidator(choose)


def matching(pattern: re.Pattern[str], what: str) -> BeforeValidator:
    """A field whose whole text matches; `what` completes the sentence `X is not …`."""

    def match(value: Any) -> str:
        word = _text(value)
        if not pattern.fullmatch(word):
            raise ValueError(f"{word[:60]!r} is not {what}")
        return word

    return BeforeValidator(match)


def positive(parse: Callable[[str], float]) -> Callable[[str], float]:
    """The parser, which then refuses zero."""

    def check(text: str) -> float:
        value = parse(text)
        if value <= 0:
            raise ValueError(f"{text!r} must be more than zero")
        return value

    return check


def _bounded(parse: Callable[[str], int], low: int, high: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError(f"{text} is outside {low}..{high}")
        return value

    return check


def _source(text: str) -> tuple[str, str]:
    kind, colon, rest = text.partition(":")
    if kind not in SOURCE_KINDS:
        raise ValueError(f"{text[:60]!r} must begin with one of {', '.join(k + ':' for k in SOURCE_KINDS)}{did_you_mean(kind, SOURCE_KINDS)}")
    if not colon or not rest:
        raise ValueError(f"nothing follows {kind}:; write it like python:my_model:build or onnx:model.onnx")
    if kind == "python" and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", rest, re.ASCII):
        raise ValueError(f"{text[:60]!r} must name a module and a function, like python:my_model:build")
    return kind, rest


def _path(text: str) -> str:
    if "\x00" in text or not text.strip():
        raise ValueError("a path is needed here")
    return text


def _version(text: str) -> int:
    if text != "1":
        raise ValueError(f"version {text[:20]!r} is not known to this deployctl, which reads version 1")
    return 1


_NUM = r"\d+(\.\d+)?"
_DURATION_SCHEMA = {"type": "string", "pattern": rf"^{_NUM} ?(us|ms|s|m|min|h|d)$", "examples": ["50ms", "1.5s", "2h"]}
_RATIO_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": rf"^{_NUM}( ?%)?$"}, {"type": "number", "minimum": 0, "maximum": 1}],
    "examples": ["0.1%", 0.98],
}
_RATE_SCHEMA = {"type": "string", "pattern": rf"^{_NUM} ?/ ?(s|sec|m|min|h)$", "examples": ["40/s", "3/min"]}
_COUNT_SCHEMA = {"type": "integer", "minimum": 0}

Duration = Annotated[float, parsed(positive(units.seconds)), WithJsonSchema(_DURATION_SCHEMA)]
Delay = Annotated[float, parsed(units.seconds), WithJsonSchema(_DURATION_SCHEMA)]
Rate = Annotated[float, parsed(units.rate_rps), WithJsonSchema(_RATE_SCHEMA)]
PositiveRate = Annotated[float, parsed(positive(units.rate_rps)), WithJsonSchema(_RATE_SCHEMA)]
Ratio = Annotated[float, parsed(units.ratio), WithJsonSchema(_RATIO_SCHEMA)]
Percentile = Annotated[float, parsed(units.percentile)]
SizeBucket = Annotated[int, parsed(_bounded(units.count, 1, 10_000_000))]
Positive = Annotated[float, parsed(positive(units.number)), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Steps = Annotated[int, parsed(_bounded(units.count, 1, 1_000_000)), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 1_000_000})]
Seed = Annotated[int, parsed(_bounded(units.count, 0, 2**31 - 1)), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**31 - 1})]
Port = Annotated[int, parsed(_bounded(units.count, 0, 65535)), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 65535})]
Bool = Annotated[bool, parsed(units.boolean), WithJsonSchema({"type": "boolean"})]
Span = Annotated[
    tuple[int | None, int | None],
    parsed(units.span),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^(\d+\.\.(\d+)?|\.\.\d+|\d+)$"}, _COUNT_SCHEMA], "examples": ["..12", "2..12", 3]}),
]
Money = Annotated[
    tuple[float, str],
    parsed(units.money_per_day),
    WithJsonSchema({"type": "string", "pattern": rf"^{_NUM} ?[A-Z]{{3}} ?/ ?day$", "examples": ["40 USD/day"]}),
]
Column = Annotated[str, parsed(_path), WithJsonSchema({"type": "string"})]
Path = Annotated[str, parsed(_path), WithJsonSchema({"type": "string", "minLength": 1})]
Name = Annotated[
    str,
    matching(units.NAME, units.NAME_FORM),
    WithJsonSchema({"type": "string", "pattern": f"^{units.NAME.pattern}$"}),
]
Word = Annotated[
    str, matching(_WORD, "a name made of letters, digits, dots and dashes"), WithJsonSchema({"type": "string", "pattern": f"^{_WORD.pattern}$"})
]
Recipe = Annotated[
    str,
    matching(_RECIPE, "the name of a method, or of several joined by +"),
    WithJsonSchema({"type": "string", "pattern": f"^{_RECIPE.pattern}$"}),
]
Context = Annotated[str, matching(_CONTEXT, "the name of a kubectl context"), WithJsonSchema({"type": "string", "pattern": f"^{_CONTEXT.pattern}$"})]
# deployctl's own annotations say whose an object is; nobody may write them.
_ANNOTATION = re.compile(r"(?!deployctl/)([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
AnnotationKey = Annotated[str, matching(_ANNOTATION, "an annotation key like azure.workload.identity/client-id"), WithJsonSchema({"type": "string"})]
AnnotationValue = Annotated[
    str, matching(re.compile(r"[!-~]([ -~]{0,1022}[!-~])?", re.ASCII), "a line of text"), WithJsonSchema({"type": "string", "minLength": 1})
]
Branch = Annotated[str, matching(_BRANCH, "the name of a branch"), WithJsonSchema({"type": "string", "pattern": f"^{_BRANCH.pattern}$"})]
OtlpUrl = Annotated[str, matching(_URL, "an http(s) address without credentials"), WithJsonSchema({"type": "string", "pattern": f"^{_URL.pattern}$"})]
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}", re.ASCII)
Image = Annotated[
    str,
    matching(_IMAGE, "an image pinned by digest, NAME@sha256:…; a tag may mean another server tomorrow"),
    WithJsonSchema({"type": "string", "pattern": f"^{_IMAGE.pattern}$"}),
]
Source = Annotated[
    tuple[str, str],
    parsed(_source),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(python:[A-Za-z_][\w.]*:[A-Za-z_]\w*|(onnx|triton|opaque):.+)$",
            "examples": ["python:my_model:build", "onnx:model.onnx", "triton:model_repository"],
        }
    ),
]
Version = Annotated[int, parsed(_version), WithJsonSchema({"const": 1})]
_LATENCY_SCHEMA = {
    "type": "object",
    "patternProperties": {r"^p\d{1,2}(\.\d+)?$": _DURATION_SCHEMA},
    "additionalProperties": False,
    "minProperties": 1,
}
_MIX_SCHEMA = {"type": "object", "patternProperties": {r"^[1-9]\d*$": _RATIO_SCHEMA}, "additionalProperties": False, "minProperties": 1}
Latencies = Annotated[dict[Percentile, Duration], WithJsonSchema(_LATENCY_SCHEMA)]
Mix = Annotated[dict[SizeBucket, Ratio], WithJsonSchema(_MIX_SCHEMA)]


class Section(BaseModel):
    """A mapping that accepts only the keys it names; an empty value is an empty mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict):
            keys = ", ".join(f.alias or n for n, f in cls.model_fields.items())
            raise ValueError(f"a mapping is needed here, with some of the keys {keys}")
        return value
