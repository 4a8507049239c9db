"""What the verbs share where releases are commits: the repository, what is asked, and what is told afterwards."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployctl import config, wiring
from deployctl.cli._console import ConsoleProgress, columns, confirm, emit
from deployctl.core import words
from deployctl.core.diff import compare
from deployctl.core.gitops import Committed
from deployctl.core.lock import ScaleOverride
from deployctl.core.plan import Plan
from deployctl.core.project import Project
from deployctl.errors import ProjectError
from deployctl.ports import Repository

if TYPE_CHECKING:
    from deployctl.flows._release_commit import CommitOutcome
    from deployctl.flows._render_files import Rendered
    from deployctl.flows.rollback_commit import Live

push_option = click.option("--push", is_flag=True, help="Writer gitops: push the commit; without it nothing leaves this machine.")


def by_commits(root: Path, env: str) -> Project | None:
    """The project if commits release this environment, else None (an unknown environment is the caller's to refuse)."""
    project = config.load(root)
    return project if any(e.name == env and e.writer == "gitops" for e in project.environments) else None


def repository(root: Path) -> Repository:
    """Version control of the project folder."""
    port: Repository = wiring.load(wiring.ADAPTERS["git"])(root)
    return port


def no_push(*, push: bool, env: str) -> None:
    """Refuse --push where no commit is made."""
    if push:
        message = f"--push is for environments with `writer: gitops`; {env} has another writer"
        raise ProjectError(message, hint="leave --push out", code="flag-invalid")


def up(
    root: Path, project: Project, env: str, *, yes: bool, variant: str | None, digest: str | None, tune: bool, unverified: bool, push: bool
) -> None:
    """`up` as a commit; its id on stdout."""
    from deployctl.config import locks
    from deployctl.flows._publish import fetch
    from deployctl.flows.package import package
    from deployctl.flows.up_commit import up as up_flow

    if tune:
        raise ProjectError("tune first, then release: a commit is made of what the lock has", hint=f"deployctl tune --env {env}", code="flag-invalid")
    progress, tools = ConsoleProgress(), wiring.LazyToolbox(root, env, place=project.environment(env))
    chosen = variant or locks.read(tools.workspace.lock(env), env).variant
    make = partial(fetch, tools, digest, progress, env=env) if digest else partial(package, project, tools, progress, variant=chosen, elsewhere=True)
    ask = partial(ask_release, yes=yes)
    outcome = up_flow(project, env, tools, repository(root), progress, make=make, ask=ask, unverified=unverified, push=push)
    report(outcome, progress)


def rollback(
    root: Path, project: Project, env: str, *, revision: int | None, reason: str, yes: bool, push: bool, live: bool, name: str | None
) -> None:
    """`rollback` as a commit; its id on stdout."""
    from deployctl.flows.rollback_commit import Wish
    from deployctl.flows.rollback_commit import rollback as rollback_flow

    progress, tools = ConsoleProgress(), wiring.LazyToolbox(root, env, place=project.environment(env))
    now: Live | None = wiring.load(wiring.BREAK_GLASS)() if live else None
    if live:
        _confirm_live(project, env, name)
    wish = Wish(revision=revision, reason=reason, push=push)
    ask = partial(_ask_return, service=project.name, env=env, yes=yes)
    report(rollback_flow(project, env, tools, repository(root), progress, wish=wish, ask=ask, live=now), progress)


def scale(root: Path, project: Project, env: str, *, override: ScaleOverride | None, yes: bool, push: bool, output: str) -> None:
    """`scale` as a commit; its id on stdout."""
    from deployctl.flows.scale_commit import scale as scale_flow

    progress, tools = ConsoleProgress(), wiring.LazyToolbox(root, env, place=project.environment(env))
    ask = partial(_ask_scale, yes=yes)
    outcome = scale_flow(project, env, tools, repository(root), progress, override=override, push=push, ask=ask)
    if output == "table":
        return report(outcome, progress)
    policy = outcome.plan.scaling
    document = {
        "commit": outcome.commit,
        "branch": outcome.branch,
        "pushed": outcome.pushed,
        "changed": outcome.commit is not None,
        "min_replicas": policy.min_replicas,
        "max_replicas": policy.max_replicas,
    }
    emit(document, output, str)


def _ask_scale(rendered: Rendered, before: Plan, needed: int, *, yes: bool) -> None:
    plan = rendered.inputs.plan
    was, span = (words.bounds(p.scaling.min_replicas, p.scaling.max_replicas) for p in (before, plan))
    click.echo(f"scale: {plan.service} in {plan.env}, {was} -> {span}, as a commit", err=True)
    if plan.scaling.max_replicas < needed:
        confirm(f"The SLO was proven with {words.count(needed, 'replica')}. Commit {span} anyway?", yes=yes)
        return
    confirm("Commit this?", yes=yes)


def _confirm_live(project: Project, env: str, name: str | None) -> None:
    if name == project.name:
        return
    raise ProjectError(
        f"--live writes to the cluster of {env} past its controller, which undoes it unless the commit follows",
        why="the name was not confirmed" if name is None else f"--confirm={name} is not this service's name",
        hint=f"deployctl rollback --env {env} --live --confirm={project.name}",
        code="not-confirmed",
    )


def ask_release(rendered: Rendered, before: Plan | None, *, yes: bool) -> None:
    """What the commit changes, in the words of `diff`, then the question."""
    plan = rendered.inputs.plan
    comparison = compare(before, plan)
    click.echo(f"release: {plan.service} in {plan.env}, bundle {words.short(plan.bundle)}, as a commit", err=True)
    for change in comparison.changes:
        if not change.derived:
            click.echo(f"  {change}", err=True)
    confirm("Commit this release?", yes=yes)


def _ask_return(current: Committed, to: Committed, *, service: str, env: str, yes: bool) -> None:
    click.echo(f"rollback: {service} in {env}, from revision {current.revision} ({current.commit.id[:12]}) to revision {to.revision}", err=True)
    assert to.plan is not None
    for change in compare(current.plan, to.plan).changes:
        if not change.derived:
            click.echo(f"  {change}", err=True)
    confirm("Commit this rollback?", yes=yes)


def report(outcome: CommitOutcome, progress: ConsoleProgress) -> None:
    """Where the commit is, on stderr; its id on stdout where one was made."""
    if outcome.pushed:
        progress.note(f"pushed to {outcome.pushed}")
    if outcome.commit is not None:
        progress.note(f"committed on {outcome.branch}")
        click.echo(outcome.commit)


def show_history(root: Path, project: Project, env: str, output: str) -> None:
    """Print the release commits, oldest first."""
    from deployctl.flows.rollback_commit import history

    found = history(repository(root), wiring.LazyToolbox(root, env).workspace, project.environment(env))
    held = set(found[-1].lock.held) if found and found[-1].lock else set()
    emit([_row(e, held) for e in found], output, lambda: _table(found, held))


def _row(entry: Committed, held: set[str]) -> dict[str, Any]:
    plan = entry.plan
    return {
        "revision": entry.revision,
        "commit": entry.commit.id,
        "created_at": datetime.fromtimestamp(entry.commit.at_s, tz=UTC).isoformat(timespec="seconds"),
        "by": entry.commit.by,
        "subject": entry.commit.subject,
        "bundle": plan.bundle if plan else None,
        "evidence": plan.evidence if plan else None,
        "content": entry.content,
        "held": entry.content in held,
    }


def _table(found: list[Committed], held: set[str]) -> str:
    if not found:
        return "no commit has released anything here yet: deployctl up"
    cells: list[tuple[str, ...]] = []
    for entry in found:
        plan = entry.plan
        age = words.duration(time.time() - entry.commit.at_s) + " ago"
        proof = ("proven" if plan.evidence else "unproven") if plan else "-"
        state = "on hold" if entry.content in held else "newest" if entry is found[-1] else ""
        cells.append(
            (str(entry.revision), age, entry.commit.id[:12], words.short(entry.content) if plan else "-", proof, state, entry.commit.subject)
        )
    return columns(cells, ("REV", "AGE", "COMMIT", "CONTENT", "PROOF", "STATE", "SUBJECT"))
