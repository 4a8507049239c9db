"""`deployctl release allow`: words and flags."""

from __future__ import annotations

import click

from deployctl import wiring
from deployctl.cli import _gitops
from deployctl.cli._console import env_option
from deployctl.cli._setup import opened


@click.group()
def release() -> None:
    """Lift the hold that a rollback put on a release."""


@release.command()
@click.argument("content")
@env_option
@click.pass_context
def allow(ctx: click.Context, content: str, env: str) -> None:
    """Let `up` bring back what a rollback left. CONTENT is the digest, or its beginning, that `history` shows."""
    from deployctl.flows.release import allow as allow_flow

    committed = _gitops.by_commits(ctx.obj, env)
    project, tools = (committed, wiring.LazyToolbox(ctx.obj, env)) if committed else opened(ctx.obj, env)
    freed = allow_flow(project, env, tools, content)
    click.echo(f"allowed again: {freed}")
    click.echo("deployctl up brings it back if deploy.yaml and the lock still ask for it", err=True)
