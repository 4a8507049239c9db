"""`deployctl diff`: words and flags; exit 0 without changes, 1 with, more on an error."""

from __future__ import annotations

import click

from deployctl.cli._console import emit, env_option, style
from deployctl.cli._setup import opened
from deployctl.cli.drift import shown
from deployctl.core import words
from deployctl.core.kube_drift import Difference
from deployctl.errors import DeployctlError
from deployctl.flows.diff import DiffView

_COLOUR = {"+": "green", "-": "red", "~": "yellow"}


@click.command()
@click.argument("before", required=False, type=click.IntRange(min=1), metavar="[REV]")
@click.argument("after", required=False, type=click.IntRange(min=1), metavar="[REV]")
@env_option
@click.option("--live", "on_cluster", is_flag=True, help="Compare the cluster's live objects with those that `up` would write, field by field.")
@click.option("--base", metavar="COMMIT", help="Compare the rendered manifests of this tree with those of a commit, branch or tag.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "markdown"]),
    default="table",
    show_default=True,
    envvar="DEPLOYCTL_OUTPUT",
    help="Form of the result; markdown is a comment for a pull request and goes with --base.",
)
@click.pass_context
def diff(ctx: click.Context, before: int | None, after: int | None, env: str, on_cluster: bool, base: str | None, output: str) -> int:
    """Compare two revisions, or a revision (default: the newest) with what `up` would do.

    With --live the API server says, by a dry run, what each object would become; an autoscaler's number is no difference.
    With --base it compares what deploy.yaml and the lock say now with what is rendered in a commit: no cluster is asked and none of
    the user's code runs, so that a pull request from a fork is safe to look at. Exits 0 if nothing differs, 1 if something does, and
    with another code on an error.
    """
    if on_cluster + (base is not None) + (before is not None) > 1:
        raise click.UsageError("take one of REV, --live and --base")
    if base is not None:
        from deployctl.cli import _review

        return _review.show(ctx.obj, env, base, output)
    if output == "markdown":
        raise click.UsageError("-o markdown goes with --base COMMIT")
    from deployctl.flows import diff as flow

    project, tools = opened(ctx.obj, env)
    try:
        if on_cluster:
            return _show_live(f"{project.name} in {env}", flow.live(project, env, tools), output)
        view = flow.diff(project, env, tools, before, after)
    except DeployctlError as error:
        error.exit_code = 2 if error.exit_code == 1 else error.exit_code  # 1 means "differs" here
        raise
    comparison = view.comparison
    document = {
        "before": view.before,
        "after": view.after,
        "changes": [{"sign": c.sign, "path": c.path, "before": c.before, "after": c.after, "derived": c.derived} for c in comparison.changes],
        "cores_before": comparison.cores_before,
        "cores_after": comparison.cores_after,
        "cost_before": comparison.cost_before,
        "cost_after": comparison.cost_after,
        "notices": list(view.notices),
    }
    emit(document, output, lambda: _table(view))
    return 1 if comparison.differs else 0


def _show_live(name: str, found: list[Difference], output: str) -> int:
    def table() -> str:
        if not found:
            return f"{name}: up would write nothing"
        return "\n".join([f"{name}: up would change", *(_live_line(d) for d in found)])

    emit({"differences": found}, output, table)
    return 1 if found else 0


def _live_line(found: Difference) -> str:
    sign = "~" if found.path else "+" if found.live is None else "-"
    change = f"  {found.path}: {shown(found.live)} -> {shown(found.wanted)}" if found.path else ""
    return f"  {style(sign, fg=_COLOUR[sign])} {found.kind} {found.name}{change}"


def _table(view: DiffView) -> str:
    comparison = view.comparison
    title = f"{view.before} -> {view.after}: " + (words.count(len(comparison.changes), "change") if comparison.differs else "no changes")
    width = max((len(c.path) for c in comparison.changes), default=0)
    lines = [title]
    for change in comparison.changes:
        values = " -> ".join(v for v in (change.before, change.after) if v is not None)
        lines.append(
            f"  {style(change.sign, fg=_COLOUR[change.sign])} {change.path.ljust(width)}  {values}{'   (follows)' if change.derived else ''}"
        )
    was, now = comparison.cost_texts
    if was != now:
        lines.append(f"  cost: {was} -> {now}")
    return "\n".join([*lines, *(f"note: {n}" for n in view.notices)])
