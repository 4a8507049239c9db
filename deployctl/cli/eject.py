"""`deployctl eject infra`: words and flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployctl.cli.platform import platform_option
from deployctl.errors import ProjectError

if TYPE_CHECKING:
    from deployctl.core.stack import Stack


@click.group()
def eject() -> None:
    """Write out what deployctl runs, to run it without deployctl."""


@eject.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR", help="A new or empty folder.")
@click.option("--env", metavar="NAME", help="The service in this environment; without it the platform of platform.yaml.")
@platform_option
@click.pass_obj
def infra(root: Path, out: Path, env: str | None, file: Path | None) -> None:
    """Write the Pulumi project of the platform, or of the service in one environment; plain `pulumi up` runs it."""
    from deployctl.config import platform as platforms
    from deployctl.flows import platform as flow
    from deployctl.flows.eject import eject as eject_flow

    if env is not None and file is not None:
        raise click.UsageError("--env is about a service and --platform about a platform; give one of them")
    if env is None:
        found = platforms.load(file or root)
        stack, cloud = flow.stack_of(found), found.cloud
    else:
        stack, cloud = _service(root, env), "existing"
    written = eject_flow(stack, cloud, out)
    click.echo(f"{len(written)} files; README.md there has the commands", err=True)
    click.echo(str(out))


def _service(root: Path, env: str) -> Stack:
    import dataclasses

    from deployctl import config, wiring
    from deployctl.core import codec
    from deployctl.core.stack import Stack
    from deployctl.flows import render as flow

    project = config.load(root)
    if env not in (e.name for e in project.environments):
        known = ", ".join(e.name for e in project.environments)
        raise ProjectError(f"deploy.yaml has no environment {env!r}", why=f"it has: {known}", hint="choose one with --env", code="env-unknown")
    rendered = flow.render(project, env, wiring.LazyToolbox(root, env))
    inputs = dataclasses.replace(rendered.inputs, writer="pulumi")
    return Stack(name=f"{project.name}-{env}", kind="inputs", document=codec.dumps(inputs))
