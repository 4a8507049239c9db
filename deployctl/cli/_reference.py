"""The reference pages, from the same tables that the program uses: `python -m deployctl.cli._reference docs/reference`.

What enters are the grammar of deploy.yaml, the verbs and the error codes; what leaves are Markdown texts. A test compares
them with what is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from deployctl.cli import VERBS
from deployctl.cli._codes import CODES
from deployctl.cli.main import deployctl

_MADE = "<!-- made by `make golden`; change the program, not this page -->\n"


def pages() -> dict[str, str]:
    """File name -> Markdown of every reference page."""
    return {"deploy-yaml.md": deploy_yaml(), "platform-yaml.md": platform_yaml(), "error-codes.md": error_codes(), "verbs.md": verbs()}


def error_codes() -> str:
    """Every code with its explanation."""
    rows = "\n".join(f"## {code}\n\n{CODES[code]}\n" for code in sorted(CODES))
    return f"# Error codes\n\n{_MADE}\nEvery error carries one of these; `deployctl explain CODE` prints the text offline.\n\n{rows}"


def verbs() -> str:
    """`--help` of every verb and subcommand."""
    parts = []
    context = bare_context(deployctl, "deployctl")
    for name in VERBS:
        command = deployctl.get_command(context, name)
        assert command is not None
        parts += _help(command, bare_context(command, name, context))
    return f"# Verbs\n\n{_MADE}\n" + "\n".join(parts)


_PLAIN: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100, "color": False}


def bare_context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """The context in which a command prints its help, at a width that does not depend on the terminal."""
    return command.make_context(name, [], parent=parent, resilient_parsing=True, **_PLAIN)


def _help(command: click.Command, context: click.Context) -> list[str]:
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    parts = [f"## {context.command_path}\n\n```\n{text}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += _help(inner, bare_context(inner, name, context))
    return parts


def deploy_yaml() -> str:
    """Every key of deploy.yaml, section by section."""
    from deployctl.config import schema

    document = schema.document()
    parts = [
        f"# deploy.yaml\n\n{_MADE}\nOnly `model`, `slo` and `traffic` are required. `deployctl config show --origin` prints every key of yours.\n"
    ]
    parts += _section("", document, document["$defs"])
    return "\n".join(parts)


def platform_yaml() -> str:
    """Every key of platform.yaml, section by section."""
    from deployctl.config import schema

    document = schema.platform_document()
    head = f"# platform.yaml\n\n{_MADE}\nOnly `pools` is required. `deployctl platform show --origin` prints every key of yours.\n"
    return "\n".join([head, *_section("", document, document["$defs"])])


def _section(prefix: str, node: dict[str, Any], defs: dict[str, Any]) -> list[str]:
    required = node.get("required", [])
    rows = ["| key | form | meaning |", "|---|---|---|"]
    inner: list[str] = []
    for name, value in node["properties"].items():
        target = _target(value, defs)
        path = f"{prefix}{name}"
        meaning = value.get("description", target.get("description", ""))
        rows.append(f"| `{path}`{' (required)' if name in required else ''} | {_form(target)} | {meaning.replace('|', chr(92) + '|')} |")
        for suffix, child in _children(target, defs):
            inner += _section(f"{path}{suffix}.", child, defs)
    title = f"## {prefix.rstrip('.')}" if prefix else "## The whole file"
    return [f"{title}\n\n" + "\n".join(rows) + "\n", *inner]


def _target(value: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = defs[value["$ref"].rsplit("/", 1)[-1]] if "$ref" in value else value
    return found


def _children(target: dict[str, Any], defs: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The sections below a key: its own, those of a named map, those of a list."""
    if "properties" in target:
        return [("", target)]
    inner = [*target.get("patternProperties", {}).values(), target.get("additionalProperties"), target.get("items")]
    for value in inner:
        if isinstance(value, dict) and "$ref" in value:
            return [("[]" if value is target.get("items") else ".NAME", _target(value, defs))]
    return []


def _form(target: dict[str, Any]) -> str:
    """How a value is written: an example where there is one, else its type."""
    if "enum" in target:
        return " or ".join(f"`{v}`" for v in target["enum"])
    if "const" in target:
        return f"`{target['const']}`"
    if "examples" in target:
        return ", ".join(f"`{v}`" for v in target["examples"])
    if "properties" in target or "additionalProperties" in target or "patternProperties" in target:
        return "mapping"
    kinds = {"array": "list", "string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
    return kinds.get(target.get("type", ""), "value")


def main() -> None:
    """Write the pages into the named folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
        click.echo(name, err=True)


if __name__ == "__main__":
    main()
