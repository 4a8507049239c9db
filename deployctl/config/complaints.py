"""What pydantic found, in the words of the person who wrote the file: what enters is a ValidationError, what leaves is one ProjectError.

The first problem by line is told in full, the others are counted with their places. Unknown keys get a did-you-mean and,
where the key exists elsewhere in the grammar, the place where it belongs.
"""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from deployctl.config.fields import did_you_mean
from deployctl.config.tree import Document, Map, Mark, Node, Scalar, Seq
from deployctl.errors import ProjectError

Path = tuple[str | int, ...]
_NEXT = "correct the line, then run deployctl config show   (`deployctl schema` prints every key and its form)"


def key_mark(document: Document, path: Path) -> Mark:
    """Where the last key of a path stands; the nearest place above it that exists."""
    return _walk(document, path)[0]


def value_mark(document: Document, path: Path) -> Mark:
    """Where the value of a path stands; the nearest place above it that exists."""
    return _walk(document, path)[1].mark


def _walk(document: Document, path: Path) -> tuple[Mark, Node]:
    mark: Mark = document.root.mark
    node: Node = document.root
    for step in path:
        if isinstance(node, Map) and str(step) in node.entries:
            mark, node = node.entries[str(step)]
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            mark = node.mark
        else:
            break
    return mark, node


def explain(document: Document, model: type[BaseModel], error: ValidationError, *, again: str = _NEXT) -> ProjectError:
    """The first problem as an error with line, caret and next command; `again` is what to run where no problem says better."""
    problems = [_problem(document, model, item) for item in error.errors(include_url=False, include_context=True)]
    problems.sort(key=lambda p: (p[2] == "config-missing-key", p[0].line, p[0].column))  # a misspelt key explains the missing one
    mark, message, code, hint = problems[0]
    rest = [document.address(p[0]) for p in problems[1:] if p[0] != mark]
    why = f"also wrong: {', '.join(rest[:4])}{' …' if len(rest) > 4 else ''}" if rest else None
    return document.error(mark, message, hint=again if hint == _NEXT else hint, code=code, why=why)


def refuse_nulls(document: Document, model: type[BaseModel]) -> None:
    """An empty value is an empty section; anywhere else it is a slip of the pen and not a silent default.

    Raises:
        ProjectError: a key stands without its value (`config-invalid`).
    """
    pending: list[tuple[Path, Node]] = [((), document.root)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, Map):
            pending.extend(((*path, key), value) for key, (_, value) in node.entries.items())
        elif isinstance(node, Scalar) and node.text is None and not _is_section(model, path):
            raise document.error(
                key_mark(document, path), f"{path[-1]} has no value", hint="write a value, or remove the line", code="config-invalid"
            )


def _is_section(model: type[BaseModel], path: Path) -> bool:
    owner = _model_at(model, path[:-1])
    info = next((f for name, f in owner.model_fields.items() if (f.alias or name) == path[-1]), None) if owner else None
    return info is None or (bool(_models(info.annotation)) and typing.get_origin(info.annotation) is not list)


def _problem(document: Document, model: type[BaseModel], item: Any) -> tuple[Mark, str, str, str]:
    path: Path = tuple(item["loc"])
    kind = item["type"]
    if kind == "extra_forbidden":
        return _unknown_key(document, model, path)
    if kind == "missing":
        owner = ".".join(str(p) for p in path[:-1]) or document.name
        return key_mark(document, path[:-1]), f"{owner} has no {path[-1]}, which is required", "config-missing-key", _example(path)
    if path and path[-1] == "[key]":
        return key_mark(document, path[:-1]), _words(item), "config-invalid", _NEXT
    if kind == "list_type":
        return value_mark(document, path), "a list is needed here, like [a, b]", "config-invalid", _NEXT
    if kind == "dict_type":
        return value_mark(document, path), "a mapping is needed here, like {key: value}", "config-invalid", _NEXT
    if path == ("version",):
        return value_mark(document, path), _words(item), "config-version", "write version: 1, or install the deployctl that wrote this file"
    return value_mark(document, path), _words(item), "config-invalid", _NEXT


def _words(item: Any) -> str:
    cause = item.get("ctx", {}).get("error")
    return str(cause) if cause is not None else str(item["msg"])


def _example(path: Path) -> str:
    lines = {
        ("model",): "add a line like   model: {source: 'python:my_model:build', sample: samples.jsonl}",
        ("model", "source"): "write it like   model: {source: onnx:model.onnx}",
        ("slo",): "add a line like   slo: {latency: {p99: 100ms}}",
        ("slo", "latency"): "write it like   slo: {latency: {p99: 100ms}}",
        ("traffic",): "add a line like   traffic: {rate: 40/s}",
    }
    return lines.get(tuple(str(p) for p in path), _NEXT)


def _unknown_key(document: Document, model: type[BaseModel], path: Path) -> tuple[Mark, str, str, str]:
    owner = _model_at(model, path[:-1])
    known = [f.alias or name for name, f in owner.model_fields.items()] if owner else []
    key = str(path[-1])
    section = ".".join(str(p) for p in path[:-1])
    message = f"unknown key {key[:40]!r}" + (f" in {section}" if section else "") + did_you_mean(key, known)
    homes = [home for home in _homes(model, key) if home != section]
    hint = f"{key} belongs under {homes[0]}" if homes and not did_you_mean(key, known) else f"known keys here: {', '.join(known)}"
    return key_mark(document, path), message, "config-unknown-key", hint


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    present: type[BaseModel] | None = model
    for step in path:
        if present is None:
            return None
        fields = {f.alias or name: f.annotation for name, f in present.model_fields.items()}
        inner = _models(fields[str(step)]) if str(step) in fields else [present]  # a list index or a free name keeps its section
        present = inner[0] if inner else None
    return present


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in typing.get_args(annotation) for m in _models(part)]


def _homes(model: type[BaseModel], key: str, prefix: str = "") -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        label = info.alias or name
        if label == key and prefix:
            found.append(prefix)
        for inner in _models(info.annotation):
            through = f"{label}.NAME" if typing.get_origin(info.annotation) is dict else label
            found += _homes(inner, key, f"{prefix}.{through}" if prefix else through)
    return found
