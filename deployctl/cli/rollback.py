"""`deployctl rollback`: words and flags."""

from __future__ import annotations

import click

from deployctl.cli import _gitops
from deployctl.cli._anywhere import cluster_options, elsewhere, opened_anywhere
from deployctl.cli._console import ConsoleProgress, confirm, env_option, yes_option
from deployctl.cli._setup import me, timeout_option
from deployctl.core import words
from deployctl.core.diff import compare
from deployctl.core.release import Release


@click.command()
@click.argument("typed", nargs=-1, metavar="[NAME] [REV]")
@env_option
@cluster_options
@yes_option
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the record.")
@_gitops.push_option
@click.option("--live", is_flag=True, help="Writer gitops, break-glass: write the old release to the cluster first; its controller undoes that.")
@click.option("--confirm", "confirmed", metavar="NAME", help="For --live: the service's name.")
@timeout_option
@click.pass_context
def rollback(
    ctx: click.Context,
    typed: tuple[str, ...],
    env: str,
    context: str | None,
    namespace: str | None,
    yes: bool,
    reason: str,
    push: bool,
    live: bool,
    confirmed: str | None,
    timeout_s: float,
) -> None:
    """Return to an earlier release as a whole: weights, settings, policy and lock.

    Goes forward as a new revision. Without REV it takes the newest release that served something else. What is left is put on
    hold: `up` refuses it until `release allow`. Where the environment's writer is gitops it is a commit that restores lock and
    manifests. With NAME it works from the cluster's records and needs no project.
    """
    name, revision = _typed(typed)
    if not elsewhere(name, context, namespace):
        if committed := _gitops.by_commits(ctx.obj, env):
            return _gitops.rollback(ctx.obj, committed, env, revision=revision, reason=reason, yes=yes, push=push, live=live, name=confirmed)
        _gitops.no_push(push=push or live, env=env)
    from deployctl.flows.rollback import rollback as rollback_flow

    project, tools, env = opened_anywhere(ctx, env, name, context, namespace)
    progress = ConsoleProgress()

    def ask(current: Release, to: Release) -> None:
        click.echo(f"rollback: {project.name} in {env}, from revision {current.revision} to what revision {to.rolled_back_to} served", err=True)
        for change in compare(current.plan, to.plan).changes:
            if not change.derived:
                click.echo(f"  {change}", err=True)
        confirm("Roll back?", yes=yes)

    outcome = rollback_flow(project, env, tools, progress, to=revision, reason=reason, by=me(), ask=ask, timeout_s=timeout_s)
    if outcome.held:
        progress.note(f"on hold: {words.short(outcome.held)}   (deployctl release allow {words.short(outcome.held)} lifts it)")
    if outcome.verified:
        progress.note(f"{words.count(outcome.verified, 'request')} of the sample answered")
    if name is not None:
        progress.note(f"lock/{env}.lock in git still says what was left; `up` from there is refused until that is allowed or changed")
    click.echo(f"revision {outcome.release.revision} serves what revision {outcome.release.rolled_back_to} served, at {outcome.url}")


def _typed(words_typed: tuple[str, ...]) -> tuple[str | None, int | None]:
    """(NAME, REV) in any order: a name begins with a letter, a revision is a number.

    Raises:
        click.UsageError: more than one of each.
    """
    numbers = [int(w) for w in words_typed if w.isdigit()]
    names = [w for w in words_typed if not w.isdigit()]
    if len(numbers) > 1 or len(names) > 1 or 0 in numbers:
        raise click.UsageError("give at most one service's name and one revision, such as: deployctl rollback 3")
    return (names[0] if names else None), (numbers[0] if numbers else None)
