"""`deployctl logs`: words and flags."""

from __future__ import annotations

import time

import click

from deployctl.cli._anywhere import cluster_options, opened_anywhere
from deployctl.cli._console import env_option
from deployctl.cli._setup import Duration


@click.command()
@click.argument("name", required=False)
@env_option
@cluster_options
@click.option("--replica", metavar="NAME", help="Only this replica; `status` shows the names.")
@click.option("--component", type=click.Choice(["replica", "front-door", "supervisor"]), help="Only this kind of process.")
@click.option("--since", "since", type=Duration(), metavar="TIME", help="Only the last 90s, 15m, 2h …")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.pass_context
def logs(
    ctx: click.Context,
    name: str | None,
    env: str,
    context: str | None,
    namespace: str | None,
    replica: str | None,
    component: str | None,
    since: float | None,
    follow: bool,
) -> None:
    """Show the logs of replicas, front door and supervisor, each line with its source in front.

    With NAME it works from the cluster's records and needs no project.
    """
    from deployctl.flows.logs import logs as logs_flow

    _, tools, _ = opened_anywhere(ctx, env, name, context, namespace)
    since_s = time.time() - since if since is not None else None
    try:
        for line in logs_flow(tools, replica=replica, component=component, since_s=since_s, follow=follow):
            click.echo(line)
    except KeyboardInterrupt:
        if not follow:
            raise
