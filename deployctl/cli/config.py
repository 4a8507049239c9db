"""`deployctl config show`: flags and words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deployctl.cli import _console


@click.group()
def config() -> None:
    """Show the completed configuration and where each value came from."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@_console.output_option
@click.pass_obj
def show(root: Path, origin: bool, output: str) -> None:
    """Check deploy.yaml and print every key with its value, defaults included."""
    from deployctl import config as files
    from deployctl.config import show as shown

    rows = shown.rows(files.load(root))
    document = [{"key": r.key, "value": r.value, "origin": r.origin} if origin else {"key": r.key, "value": r.value} for r in rows]

    def table() -> str:
        cells: list[tuple[str, ...]] = [(r.key, _text(r.value), r.origin) if origin else (r.key, _text(r.value)) for r in rows]
        return _console.columns(cells, ("KEY", "VALUE", "ORIGIN") if origin else ("KEY", "VALUE"))

    _console.emit(document, output, table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(f"{item['rate']} from {item['at']}" if isinstance(item, dict) else str(item) for item in value)
    return str(value)
