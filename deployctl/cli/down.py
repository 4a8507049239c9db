"""`deployctl down`: words and flags; the name is typed."""

from __future__ import annotations

import click

from deployctl.cli._console import ConsoleProgress, env_option, require_name, yes_option
from deployctl.cli._setup import opened
from deployctl.core import words


@click.command()
@env_option
@yes_option
@click.option("--confirm", "typed", metavar="NAME", help="The service's name, instead of typing it.")
@click.pass_context
def down(ctx: click.Context, env: str, yes: bool, typed: str | None) -> None:
    """Stop the service: supervisor, front door and replicas. Releases, lock and proofs stay; `up` starts it again."""
    from deployctl.flows.down import down as down_flow

    project, tools = opened(ctx.obj, env)
    if not yes:
        require_name(project.name, f"This stops {project.name} in {env}.", typed)
    ran = down_flow(tools, ConsoleProgress())
    click.echo(f"{project.name} in {env}: " + (f"stopped; {words.command('up', env)} starts it again" if ran else "nothing was running"))
