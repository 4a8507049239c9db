"""The JSON Schemas of deploy.yaml and platform.yaml, made from the models that read them, so that the two cannot differ in their keys."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from deployctl.config.model import RawProject
from deployctl.config.platform_model import RawPlatform

FILE_NAME = "deployctl.schema.json"
PLATFORM_FILE_NAME = "platform.schema.json"


def document() -> dict[str, Any]:
    """JSON Schema, draft 2020-12; editors use it through the first line of deploy.yaml."""
    return _schema(RawProject, "deploy.yaml")


def platform_document() -> dict[str, Any]:
    """The same for platform.yaml."""
    return _schema(RawPlatform, "platform.yaml")


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = _tidy(model.model_json_schema(by_alias=True))
    assert isinstance(schema, dict)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def text(made: dict[str, Any] | None = None) -> str:
    """A schema, deploy.yaml's where none is given, as the text of a file."""
    return json.dumps(made or document(), indent=2, ensure_ascii=False) + "\n"


def _tidy(node: Any) -> Any:
    """Without defaults in internal units, without the null that means 'left out', without generated titles."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        node = {**{k: v for k, v in node.items() if k != "anyOf"}, **(rest[0] if len(rest) == 1 else {"anyOf": rest})}
    named = "properties" in node
    kept = {k: v for k, v in node.items() if k != "default" and not (k == "title" and isinstance(v, str))}
    if named:
        kept["properties"] = {name: _tidy(value) for name, value in node["properties"].items()}
    return {k: (v if k == "properties" else _tidy(v)) for k, v in kept.items()}
