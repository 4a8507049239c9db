"""`deployctl scale`: words and flags; `--replay` hands over to the replay."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from deployctl.cli import _gitops
from deployctl.cli._console import ConsoleProgress, confirm, emit, env_option, output_option, yes_option
from deployctl.cli._replay import replay_options
from deployctl.cli._replay import run as run_replay
from deployctl.cli._setup import Duration, me, opened, timeout_option
from deployctl.core import words
from deployctl.core.lock import ScaleOverride
from deployctl.core.plan_view import cost_text
from deployctl.core.planner import Planned
from deployctl.core.release import Release
from deployctl.errors import ProjectError


@click.command()
@click.argument("replicas", required=False, metavar="[N | LOW..HIGH]")
@env_option
@yes_option
@click.option("--for", "for_s", type=Duration(), metavar="TIME", help="Give the replicas back to the policy after this time.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the record and shown by status.")
@click.option("--reset", is_flag=True, help="Give the replicas back to the policy now.")
@_gitops.push_option
@timeout_option
@output_option
@replay_options
@click.pass_context
def scale(
    ctx: click.Context,
    /,
    replicas: str | None,
    env: str,
    yes: bool,
    for_s: float | None,
    reason: str,
    reset: bool,
    push: bool,
    timeout_s: float,
    output: str,
    trace: str | None,
    **options: Any,
) -> None:
    """Change the number of replicas: `3` fixes it, `1..4` lets the policy choose within, `--reset` gives it back.

    Kept in the lock: `up` keeps it too, with a notice. Fewer than the SLO was proven with asks first. Where the environment's
    writer is gitops it is a commit of lock and manifests. With `--replay` nothing changes: it shows what a policy would have done on
    recorded traffic, what that costs, and how far from the least possible.
    """
    if trace is not None:
        if replicas is not None or reset:
            raise ProjectError("--replay changes nothing, so it takes no number", hint="deployctl scale --replay TRACE", code="scale-usage")
        return run_replay(ctx.obj, env, output, trace, options)
    override = _override(replicas, for_s, reason, reset=reset)
    if committed := _gitops.by_commits(ctx.obj, env):
        return _gitops.scale(ctx.obj, committed, env, override=override, yes=yes, push=push, output=output)
    _gitops.no_push(push=push, env=env)
    from deployctl.flows.scale import scale as scale_flow

    project, tools = opened(ctx.obj, env)
    progress = ConsoleProgress()

    def ask(planned: Planned, current: Release, needed: int) -> None:
        policy = planned.plan.scaling
        was = current.plan.scaling
        span = words.bounds(policy.min_replicas, policy.max_replicas)
        click.echo(
            f"scale: {project.name} in {env}, {words.bounds(was.min_replicas, was.max_replicas)} -> {span}; {cost_text(planned.cores)}", err=True
        )
        for notice in planned.notices:
            click.echo(f"note: {notice}", err=True)
        if policy.max_replicas < needed:
            confirm(f"The SLO was proven with {words.count(needed, 'replica')}. Scale to {span} anyway?", yes=yes)

    outcome = scale_flow(project, env, tools, progress, override=override, by=me(), ask=ask, timeout_s=timeout_s)
    policy = outcome.release.plan.scaling
    if not outcome.changed:
        progress.note("that is already so; nothing was changed")
    span = words.bounds(policy.min_replicas, policy.max_replicas)
    document = {
        "revision": outcome.release.revision,
        "changed": outcome.changed,
        "replicas_before": outcome.replicas_before,
        "replicas_ready": outcome.replicas_ready,
        "min_replicas": policy.min_replicas,
        "max_replicas": policy.max_replicas,
        "notices": list(outcome.notices),
    }
    sentence = f"{words.count(outcome.replicas_ready, 'replica')} ready, bounds {span}, revision {outcome.release.revision}"
    emit(document, output, lambda: sentence)


def _override(text: str | None, for_s: float | None, reason: str, *, reset: bool) -> ScaleOverride | None:
    """The bounds that were typed; None for a reset.

    Raises:
        ProjectError: neither or both were given, or the number does not parse (`scale-usage`, exit 2).
    """
    example = "deployctl scale 3   (or 1..4, or --reset)"
    if reset == (text is not None):
        raise ProjectError("say either a number of replicas or --reset", hint=example, code="scale-usage")
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if low < 1 or high < low:
        raise ProjectError(f"{text!r} is no number of replicas", why="at least one, and the lower bound first", hint=example, code="scale-usage")
    return ScaleOverride(min_replicas=low, max_replicas=high, until_s=time.time() + for_s if for_s else None, reason=reason)
