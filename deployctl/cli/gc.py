"""`deployctl gc`: words and flags."""

from __future__ import annotations

from functools import partial

import click

from deployctl.cli import _console
from deployctl.cli._console import ConsoleProgress, env_option, output_option, yes_option
from deployctl.cli._setup import Duration, toolbox
from deployctl.flows._gc_cache import Swept
from deployctl.ports import Toolbox


@click.command()
@env_option
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option(
    "--grace", "grace_s", type=Duration(), default="24h", show_default=True, metavar="TIME", help="Younger content stays: it may be on its way."
)
@yes_option
@output_option
@click.pass_context
def gc(ctx: click.Context, env: str, dry_run: bool, grace_s: float, yes: bool, output: str) -> None:
    """Remove content that nothing needs, from .deployctl/ and from the environment's store.

    Kept is whatever a release in any history names (of every service and environment that shares the store), a lock, a proof,
    or the variants of the model as it is now. What cannot be read counts as needed: then nothing is removed.
    """
    from deployctl.flows.gc import gc as gc_flow

    project, tools = toolbox(ctx.obj, env)
    run = partial(gc_flow, project, tools, ConsoleProgress(), toolbox_of=lambda name: _toolbox_of(ctx, name), grace_s=grace_s)
    found = run(dry_run=True)
    if not dry_run and any(f.removed for f in found):
        click.echo(_table(found, done=False), err=True)
        _console.confirm("Remove this?", yes=yes)
        found = run(dry_run=False)
    _console.emit(list(found), output, lambda: _table(found, done=not dry_run))


def _toolbox_of(ctx: click.Context, name: str) -> Toolbox:
    return toolbox(ctx.obj, name, named=False)[1]


def _table(found: tuple[Swept, ...], *, done: bool) -> str:
    head = ("PLACE", "NEEDED", "YOUNG", "REMOVED" if done else "WOULD GO")
    rows: list[tuple[str, ...]] = [
        (f.place, f"{f.kept} files, {f.kept_bytes / 1e6:.1f} MB", str(f.young), f"{f.removed} files, {f.removed_bytes / 1e6:.1f} MB") for f in found
    ]
    return _console.columns(rows, head)
