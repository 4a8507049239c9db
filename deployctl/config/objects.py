"""Kubernetes objects from a YAML or JSON file that somebody else wrote: text enters, plain dicts leave.

Values become what YAML says (these files are Kubernetes', not ours). Anchors and aliases are refused, since a few lines of
them can stand for gigabytes. Refuses to know any kind of object.
"""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from deployctl.errors import ProjectError

MAX_BYTES = 4_000_000


def read_objects(text: str, *, where: str) -> list[dict[str, Any]]:
    """Every object of a multi-document file; the items of a List one by one.

    Raises:
        ProjectError: it is no YAML, has aliases, is too large, or holds something that is no object (`manifest-invalid`).
    """
    if len(text) > MAX_BYTES:
        raise _invalid(where, "the file is larger than 4 MB", None)
    try:
        if any(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(text)):
            raise _invalid(where, "anchors and aliases are not read", None)
        documents = [d for d in YAML(typ="safe", pure=True).load_all(text) if d is not None]
    except YAMLError as error:
        raise _invalid(where, "this is no YAML", " ".join(str(error).split())[:200]) from error
    objects: list[dict[str, Any]] = []
    for document in documents:
        if not isinstance(document, dict) or "kind" not in document:
            raise _invalid(where, "a document is no Kubernetes object: it has no kind", None)
        objects += document["items"] if document["kind"] == "List" and isinstance(document.get("items"), list) else [document]
    return objects


def _invalid(where: str, message: str, why: str | None) -> ProjectError:
    return ProjectError(
        message, why=why, where=where, code="manifest-invalid", hint="kubectl get hpa NAME -o yaml > hpa.yaml writes one that is read"
    )
