"""`deployctl drift`: words and flags; the exit code says whether anything differs."""

from __future__ import annotations

from typing import Any

import click

from deployctl.cli._console import emit, env_option, output_option, style
from deployctl.cli._setup import opened
from deployctl.core import words
from deployctl.core.kube_drift import Difference
from deployctl.errors import DeployctlError

_SHOWN = 100


@click.command()
@env_option
@output_option
@click.pass_context
def drift(ctx: click.Context, env: str, output: str) -> int:
    """Compare what runs with the newest release, and name who changed it.

    Exits 0 if nothing differs, 1 if something does, and with another code on an error. What an autoscaler decides is no drift.
    """
    from deployctl.flows.drift import drift as drift_flow

    project, tools = opened(ctx.obj, env)
    try:
        found = drift_flow(tools)
    except DeployctlError as error:
        error.exit_code = 2 if error.exit_code == 1 else error.exit_code  # 1 means "differs" here
        raise
    emit({"differences": found}, output, lambda: _table(f"{project.name} in {env}", found))
    return 1 if found else 0


def _table(name: str, found: list[Difference]) -> str:
    if not found:
        return f"{name}: runs as its newest release says"
    lines = [f"{name}: {words.count(len(found), 'difference')} from its newest release"]
    for d in found:
        who = f"   by {d.manager}" if d.manager and d.manager != "deployctl" else ""
        what = "is missing" if not d.path else f"{d.path}: {shown(d.wanted)} -> {shown(d.live)}"
        lines.append(f"  {style('~' if d.path else '-', fg='yellow')} {d.kind} {d.name}  {what}{who}")
    return "\n".join([*lines, "deployctl up puts back what is missing; a field that somebody else set is theirs until they give it up"])


def shown(value: Any) -> str:
    """A field's value on one line."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
