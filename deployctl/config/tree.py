"""YAML text to a tree that remembers where everything stands: what enters is bytes, what leaves are nodes with line and column.

A scalar stays the text that was written: `no`, `010`, `1e3` and `12:30:00` become what the field says, never what YAML
guesses. Anchors, aliases, merge keys, tags, duplicate keys and deep nesting are refused. Refuses to know any field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from deployctl.errors import ProjectError

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_NODES = 50_000
_SHOWN = 100
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written. `text` is None for an empty or null value."""

    text: str | None
    mark: Mark


@dataclass(frozen=True, slots=True)
class Seq:
    """A list."""

    mark: Mark
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping: name -> (where the name stands, value)."""

    mark: Mark
    entries: dict[str, tuple[Mark, Node]] = field(default_factory=dict)


Node = Scalar | Seq | Map


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its name for messages, its lines for the caret, its root mapping."""

    name: str
    lines: tuple[str, ...]
    root: Map

    def address(self, mark: Mark) -> str:
        """`file:line:column`."""
        return f"{self.name}:{mark.line}:{mark.column}"

    def error(self, mark: Mark, message: str, *, hint: str, code: str = "config-invalid", why: str | None = None) -> ProjectError:
        """A ProjectError that shows the line with a caret under the place."""
        return at(self.name, self.lines, mark, message, hint=hint, code=code, why=why)


def at(name: str, lines: tuple[str, ...], mark: Mark, message: str, *, hint: str, code: str, why: str | None = None) -> ProjectError:
    """The error at one place: message, source line, caret; long lines are cut around the caret, control characters shown as ?."""
    source = lines[mark.line - 1] if 0 < mark.line <= len(lines) else ""
    column = min(mark.column - 1, len(source))
    start = max(0, column - _SHOWN // 2) if len(source) > _SHOWN else 0
    shown = "".join(c if c.isprintable() else ("?" if c != "\t" else " ") for c in source[start : start + _SHOWN])
    prefix = f"  {mark.line} | "
    caret = " " * (len(prefix) - 2) + "| " + " " * (column - start) + "^"
    return ProjectError(f"{message}\n{prefix}{shown}\n{caret}", hint=hint, code=code, why=why, where=f"{name}:{mark.line}:{mark.column}")


def parse(data: bytes, name: str) -> Document:
    """Parse one YAML file whose root is a mapping.

    Raises:
        ProjectError: too large, not UTF-8, no YAML, or something that deployctl does not accept in YAML
            (`config-too-large`, `config-encoding`, `config-syntax`, `config-yaml-feature`, `config-duplicate-key`).
    """
    if len(data) > MAX_BYTES:
        raise ProjectError(
            f"the file has {len(data)} bytes; at most {MAX_BYTES} are read",
            code="config-too-large",
            where=name,
            hint="keep traffic and samples in files of their own (traffic.trace, model.sample)",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ProjectError(
            f"the file is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}",
            code="config-encoding",
            where=f"{name}:{line}:1",
            hint="save the file as UTF-8 and repeat the command",
        ) from error
    lines = tuple(text.split("\n"))
    root = _Builder(name, lines).build(text)
    return Document(name, tuple(line.rstrip("\r") for line in lines), root)


class _Builder:
    """Turns parse events into nodes without recursion, so that depth is a limit and never a crash."""

    def __init__(self, name: str, lines: tuple[str, ...]) -> None:
        self.name = name
        self.lines = lines
        self.stack: list[Map | Seq] = []
        self.keys: list[tuple[str, Mark] | None] = []
        self.root: Node | None = None
        self.nodes = 0

    def fail(self, mark: Mark, message: str, *, hint: str, code: str) -> ProjectError:
        return at(self.name, self.lines, mark, message, hint=hint, code=code)

    def build(self, text: str) -> Map:
        documents = 0
        for event in self._events(text):
            if isinstance(event, ev.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fail(
                        _mark(event), "a second document starts here", code="config-yaml-feature", hint="keep one document: remove the ---"
                    )
            self._feed(event)
        if self.root is None or (isinstance(self.root, Scalar) and self.root.text is None):
            raise ProjectError(
                "the file is empty", code="config-empty", where=f"{self.name}:1:1", hint="deployctl init --force   (writes a complete one)"
            )
        if not isinstance(self.root, Map):
            raise self.fail(
                self.root.mark, "the file must be a mapping of `key: value` lines", code="config-syntax", hint="deployctl init shows a complete file"
            )
        return self.root

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except ProjectError:
            raise
        except MarkedYAMLError as error:
            place = error.problem_mark or error.context_mark
            mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
            problem = str(error.problem or error.context or "not YAML").replace("\n", " ")
            raise self.fail(mark, f"this is not YAML: {problem}", code="config-syntax", hint=_syntax_hint(self.lines, mark)) from error
        except ReaderError as error:
            before = text[: error.position] if isinstance(error.position, int) else ""
            mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise self.fail(
                mark, "a control character stands here", code="config-syntax", hint="delete the character and repeat the command"
            ) from error
        except Exception as error:  # the parser is a third party's; whatever it fails with, the file is what has to change
            raise ProjectError(
                f"this is not YAML: {type(error).__name__}", code="config-syntax", where=self.name, hint="deployctl init shows a complete file"
            ) from error

    def _feed(self, event: Any) -> None:
        if isinstance(event, ev.AliasEvent):
            raise self.fail(_mark(event), f"alias *{event.anchor} is not accepted", code="config-yaml-feature", hint="write the value out")
        if isinstance(event, ev.ScalarEvent):
            self._check(event)
            plain = bool(event.implicit[0])
            self._place(Scalar(None if plain and event.value in _NULLS else event.value, _mark(event)), event)
        elif isinstance(event, (ev.MappingStartEvent, ev.SequenceStartEvent)):
            self._check(event)
            node = Map(_mark(event)) if isinstance(event, ev.MappingStartEvent) else Seq(_mark(event))
            self._place(node, event)
            self.stack.append(node)
            self.keys.append(None)
            if len(self.stack) > MAX_DEPTH:
                raise self.fail(node.mark, f"nested deeper than {MAX_DEPTH} levels", code="config-yaml-feature", hint="remove the surplus brackets")
        elif isinstance(event, (ev.MappingEndEvent, ev.SequenceEndEvent)):
            self.stack.pop()
            self.keys.pop()

    def _check(self, event: Any) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(
                _mark(event), f"more than {MAX_NODES} values", code="config-too-large", hint="keep traffic in a file of its own (traffic.trace)"
            )
        if event.anchor is not None:
            raise self.fail(_mark(event), f"anchor &{event.anchor} is not accepted", code="config-yaml-feature", hint="remove the anchor")
        if event.tag is not None:
            raise self.fail(
                _mark(event), f"tag {event.tag} is not accepted", code="config-yaml-feature", hint="remove the tag; each field knows its own type"
            )

    def _place(self, node: Node, event: Any) -> None:
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        if isinstance(parent, Seq):
            parent.items.append(node)
            return
        pending = self.keys[-1]
        if pending is not None:
            if isinstance(node, Scalar) and node.text is None:
                node = Scalar(None, pending[1])  # an empty value stands nowhere: YAML says "where the next key begins"
            parent.entries[pending[0]] = (pending[1], node)
            self.keys[-1] = None
            return
        if not isinstance(node, Scalar):
            raise self.fail(node.mark, "a key must be a word, not a list or mapping", code="config-syntax", hint="remove the brackets around the key")
        key = str(event.value)
        if key == "<<":
            raise self.fail(node.mark, "merge key << is not accepted", code="config-yaml-feature", hint="write the values out")
        if key in parent.entries:
            first = parent.entries[key][0]
            message = f"key {key!r} stands twice; the first is on line {first.line}"
            raise self.fail(node.mark, message, code="config-duplicate-key", hint=f"remove one of the two {key!r}")
        self.keys[-1] = (key, node.mark)


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _syntax_hint(lines: tuple[str, ...], mark: Mark) -> str:
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if line.startswith("\t") or "\t" in line[: mark.column]:
        return "indent with spaces: YAML does not accept tabs"
    return f"check the quotes, brackets and indentation up to line {mark.line}"
