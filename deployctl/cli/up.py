"""`deployctl up`: words and flags; the URL on stdout and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from deployctl.cli import _gitops
from deployctl.cli._console import ConsoleProgress, confirm, env_option, yes_option
from deployctl.cli._setup import me, opened, timeout_option
from deployctl.core import codec, words
from deployctl.core.plan import Plan
from deployctl.core.plan_view import plan_lines
from deployctl.core.planner import Planned
from deployctl.core.project import Project
from deployctl.core.release import Release
from deployctl.flows.up import UpOptions, UpOutcome
from deployctl.ports import Toolbox


@click.command()
@click.argument("plan_file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[PLAN.json]")
@env_option
@yes_option
@click.option("--variant", metavar="NAME", help="Serve this variant instead of the one in the lock.")
@click.option("--release", "digest", metavar="DIGEST", help="Serve this bundle (sha256:…) as it was pushed; fetched and verified, never rebuilt.")
@click.option("--tune", is_flag=True, help="Tune first, then run what it found.")
@click.option("--unverified", is_flag=True, help="Run tuned settings although their proof is for another device, traffic or SLO.")
@click.option("--image", metavar="NAME@sha256:…", help="The Triton image, on Kubernetes; remembered in the lock.")
@click.option("--no-wait", is_flag=True, help="Record and start, but do not watch.")
@_gitops.push_option
@timeout_option
@click.pass_context
def up(
    ctx: click.Context,
    plan_file: Path | None,
    env: str,
    yes: bool,
    variant: str | None,
    digest: str | None,
    tune: bool,
    unverified: bool,
    image: str | None,
    no_wait: bool,
    push: bool,
    timeout_s: float,
) -> None:
    """Run the service as deploy.yaml says; prints its URL.

    Makes what is missing (variants, bundle), shows the plan, asks, rolls out without losing a request, and verifies by real
    inference. Does nothing where that already serves. With PLAN.json it does exactly that plan, or exits 7 if the world moved.
    Where the environment's writer is gitops it commits the rendered manifests instead, and prints the commit.
    """
    if digest is not None and (variant is not None or tune or plan_file is not None):
        raise click.UsageError("--release names what is served: it goes with neither PLAN.json, --variant nor --tune")
    if plan_file is None and (committed := _gitops.by_commits(ctx.obj, env)):
        return _gitops.up(ctx.obj, committed, env, yes=yes, variant=variant, digest=digest, tune=tune, unverified=unverified, push=push)
    _gitops.no_push(push=push, env=env)
    project, tools = opened(ctx.obj, env)
    progress = ConsoleProgress()
    options = UpOptions(by=me(), variant=variant, unverified=unverified, timeout_s=timeout_s, wait=not no_wait, image=image)
    if plan_file is not None:
        from deployctl.flows._exactly import up_exactly

        plan = codec.loads(Plan, plan_file.read_text("utf-8"), where=str(plan_file))
        outcome = up_exactly(project, env, tools, progress, plan, ask=partial(_ask, yes=yes), options=options)
    else:
        outcome = _compute_and_up(project, env, tools, progress, options, yes=yes, tune=tune, digest=digest)
    _report(outcome, progress)


def _compute_and_up(
    project: Project, env: str, tools: Toolbox, progress: ConsoleProgress, options: UpOptions, *, yes: bool, tune: bool, digest: str | None
) -> UpOutcome:
    from deployctl.config import locks
    from deployctl.flows._publish import fetch
    from deployctl.flows.package import package
    from deployctl.flows.up import up as up_flow

    variant = options.variant or locks.read(tools.workspace.lock(env), env).variant
    elsewhere = project.environment(env).on != "local"
    make = partial(package, project, tools, progress, variant=variant, elsewhere=elsewhere)
    if digest is not None:
        make = partial(fetch, tools, digest, progress, env=env)
    if tune:
        from deployctl.cli.tune import showing_candidates
        from deployctl.flows.tune import tune as tune_flow

        with showing_candidates(project.slo, err=True):  # the result of `up` is one URL
            tune_flow(project, tools, progress, env=env, bundle=make())
    return up_flow(project, env, tools, progress, make=make, ask=partial(_ask, yes=yes), options=options)


def _ask(planned: Planned, current: Release | None, *, yes: bool) -> None:
    for line in plan_lines(planned, current):
        click.echo(line, err=True)
    confirm(f"Bring {planned.plan.service} to this in {planned.plan.env}?", yes=yes)


def _report(outcome: UpOutcome, progress: ConsoleProgress) -> None:
    if outcome.verified:
        progress.note(f"{words.count(outcome.verified, 'request')} of the sample answered; revision {outcome.release.revision} serves")
    if outcome.url is None:
        progress.note(f"revision {outcome.release.revision} is being started: deployctl status --watch")
        return
    progress.note(f"gRPC at {outcome.grpc_url}; try: deployctl call")
    click.echo(outcome.url)
