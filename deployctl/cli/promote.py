"""`deployctl promote`: words and flags; the commit's id on stdout."""

from __future__ import annotations

import click

from deployctl.cli._console import ConsoleProgress, yes_option


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@yes_option
@click.option("--unverified", is_flag=True, help="Promote settings although nothing proves them on the target's device.")
@click.option("--push", is_flag=True, help="Push the commit; without it nothing leaves this machine.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the commit message.")
@click.pass_context
def promote(ctx: click.Context, source: str, target: str, yes: bool, unverified: bool, push: bool, reason: str) -> None:
    """Release in TO what FROM has: bundle, settings and proof, by digest, as one commit.

    Nothing is built again and no user code runs. Refused where the proof is for another device than TO's, unless --unverified.
    TO has `writer: gitops`.
    """
    from functools import partial

    from deployctl import config, wiring
    from deployctl.cli import _gitops
    from deployctl.errors import ProjectError
    from deployctl.flows.promote import Promotion
    from deployctl.flows.promote import promote as promote_flow

    project = config.load(ctx.obj)
    known = [e.name for e in project.environments]
    for name in (source, target):
        if name not in known:
            message = f"deploy.yaml has no environment {name!r}"
            raise ProjectError(message, why=f"it has: {', '.join(known)}", hint="name two of these", code="env-unknown")
    progress, tools = ConsoleProgress(), wiring.LazyToolbox(ctx.obj, target, place=project.environment(target))
    wish = Promotion(source=source, target=target, unverified=unverified, push=push, reason=reason)
    ask = partial(_gitops.ask_release, yes=yes)
    _gitops.report(promote_flow(project, tools, _gitops.repository(ctx.obj), progress, wish=wish, ask=ask), progress)
