"""Names, labels, quantities and YAML text as Kubernetes wants them: what enters are core values, what leaves is text.

Pure and byte-identical on every machine: the YAML writer is ours because a library's next version may break lines
elsewhere, and a rendered file that changes without a cause is noise in a review. Refuses to know objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Protocol

MANAGER = "deployctl"  # field manager of every write, and the value of app.kubernetes.io/managed-by
WRITER = "deployctl/writer"  # annotation: pulumi | apply | gitops, one writer per object
OWNER = "deployctl/owner"  # annotation: service/env, so that two services cannot take each other's objects
UNRESOLVED = "deployctl/unresolved"  # annotation: which digests are not known yet; such a manifest must not be applied
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_DNS = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?", re.ASCII)
# What YAML 1.1 and 1.2 readers agree to be text: starts with a letter or slash, and is no word that means something else.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9._/@+-]*", re.ASCII)
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "none", "nan", "inf"}


class Named(Protocol):
    """Whatever says which service in which environment: a plan, or a service's address."""

    @property
    def service(self) -> str:
        """The service's name."""
        ...

    @property
    def env(self) -> str:
        """The environment's name."""
        ...


def short_hash(text: str, length: int = 10) -> str:
    """The first hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def name(*parts: str, limit: int = 63) -> str:
    """A DNS label made of the parts; a longer one is cut and keeps a hash of the whole, so that two never meet.

    Raises:
        ValueError: the parts make no DNS label that begins with a letter, as Services need.
    """
    full = "-".join(parts)
    if not _DNS.fullmatch(full):
        raise ValueError(f"{full!r} cannot be the name of a Kubernetes object")
    if len(full) <= limit:
        return full
    return f"{full[: limit - 9].rstrip('-')}-{short_hash(full, 8)}"


def label_value(text: str) -> str:
    """The text as a label value: itself where it may be one, else its longest valid start and a hash."""
    if _LABEL.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", text)[:50].strip("-._")
    return f"{kept}-{short_hash(text, 8)}" if kept else short_hash(text, 8)


def owner(of: Named) -> str:
    """Which service in which environment: the value of the OWNER annotation."""
    return f"{of.service}/{of.env}"


def selector(of: Named) -> dict[str, str]:
    """The labels that find the service's pods; they never change, because a Deployment's selector cannot."""
    return {"app.kubernetes.io/name": of.service, "app.kubernetes.io/instance": label_value(f"{of.service}-{of.env}")}


def labels(of: Named) -> dict[str, str]:
    """Labels of every object: the recommended ones."""
    return {
        **selector(of),
        "app.kubernetes.io/component": "inference",
        "app.kubernetes.io/part-of": of.service,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def quantity(value: float) -> str:
    """A Kubernetes quantity in thousandths, the finest step that the autoscaler computes with.

    Raises:
        ValueError: not positive, or it rounds to nothing.
    """
    thousandths = round(value * 1000)
    if thousandths <= 0:
        raise ValueError(f"{value} is no positive quantity")
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def memory(size_bytes: int) -> str:
    """Bytes as whole MiB, rounded up."""
    return f"{-(-size_bytes // 1024**2)}Mi"


def json_text(value: Any) -> str:
    """Canonical JSON for what is put into a ConfigMap."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def yaml_documents(objects: list[dict[str, Any]]) -> str:
    """All objects as one multi-document YAML text."""
    return "".join("---\n" + yaml_text(item) for item in objects)


def yaml_text(value: dict[str, Any]) -> str:
    """One object as block YAML. Key order is kept; texts that a reader could take for something else are quoted."""
    lines: list[str] = []
    _mapping(value, 0, lines)
    return "\n".join(lines) + "\n"


def _mapping(value: dict[str, Any], indent: int, lines: list[str]) -> None:
    for key, item in value.items():
        _entry(f"{' ' * indent}{_scalar(key)}:", item, indent, lines)


def _entry(head: str, item: Any, indent: int, lines: list[str]) -> None:
    if isinstance(item, dict) and item:
        lines.append(head)
        _mapping(item, indent + 2, lines)
    elif isinstance(item, list) and item:
        lines.append(head)
        for element in item:
            _element(element, indent, lines)
    elif isinstance(item, str) and _literal(item):
        lines.append(f"{head} |")
        lines.extend((" " * (indent + 2) + line) if line else "" for line in item[:-1].split("\n"))
    else:
        lines.append(f"{head} {_scalar(item)}")


def _element(element: Any, indent: int, lines: list[str]) -> None:
    if not isinstance(element, dict) or not element:
        lines.append(f"{' ' * indent}- {_scalar(element)}")
        return
    start = len(lines)
    _mapping(element, indent + 2, lines)
    lines[start] = f"{' ' * indent}- {lines[start][indent + 2 :]}"


def _literal(text: str) -> bool:
    """Whether the text reads back exactly from a `|` block: printable lines, one newline at the end, no leading blank."""
    if "\n" not in text or not text.endswith("\n") or text.endswith("\n\n") or text[0] in " \n\t":
        return False
    return all(c == "\n" or " " <= c <= "~" for c in text)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return json.dumps(value)
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)
    if value == {}:
        return "{}"
    if value == []:
        return "[]"
    raise TypeError(f"{type(value).__name__} cannot stand in a manifest")


def _quoted(text: str) -> str:
    """A double-quoted scalar. JSON's escapes, except that YAML knows no surrogate pairs and no bare DEL."""
    return f'"{"".join(_escaped(c) for c in text)}"'


def _escaped(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code == 0x7F else json.dumps(character)[1:-1]
