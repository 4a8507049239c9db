"""`deployctl plan`: words and flags."""

from __future__ import annotations

from pathlib import Path

import click

from deployctl.cli._console import emit, env_option, output_option
from deployctl.cli._setup import opened
from deployctl.core import codec
from deployctl.core.diff import compare
from deployctl.core.plan_view import plan_lines


@click.command()
@env_option
@output_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write plan.json, for `up FILE`.")
@click.option("--unverified", is_flag=True, help="Plan with tuned settings although nothing proves them here.")
@click.pass_context
def plan(ctx: click.Context, env: str, output: str, out: Path | None, unverified: bool) -> None:
    """Show what `up` would do, with the predicted p99. Changes nothing and runs none of your code."""
    from deployctl.config import files
    from deployctl.flows.plan import plan as plan_flow

    project, tools = opened(ctx.obj, env)
    view = plan_flow(project, env, tools, unverified=unverified)
    planned = view.planned
    if out is not None:
        files.replace(out, codec.dumps(planned.plan).encode())
        click.echo(f"written: {out}   (deployctl up {out} does exactly this)", err=True)
    document = {
        "plan": planned.plan,
        "proven": planned.proven,
        "cores": planned.cores,
        "cost": planned.cost,
        "notices": list(planned.notices),
        "changes": list(compare(view.current.plan if view.current else None, planned.plan).changes),
    }
    emit(document, output, lambda: "\n".join(plan_lines(planned, view.current)))
