"""`deployctl recover`: words and flags."""

from __future__ import annotations

import click

from deployctl.cli import _console
from deployctl.cli._console import env_option, output_option
from deployctl.cli._setup import opened
from deployctl.core import words
from deployctl.flows.recover import Recovered


@click.command()
@env_option
@output_option
@click.pass_context
def recover(ctx: click.Context, env: str, output: str) -> None:
    """Rebuild the release records from the shared store.

    For a new machine, a lost .deployctl/ or a new cluster: brings back every record whose chain of digests holds, the holds
    and a missing lock file, and says what is lost. Starts nothing: `up` or `rollback` do. Safe to repeat.
    """
    from deployctl.flows.recover import recover as recover_flow

    project, tools = opened(ctx.obj, env)
    found = recover_flow(project, env, tools)
    _console.emit(found, output, lambda: _table(found))
    for line in found.lost:
        click.echo(f"lost: {line}", err=True)
    if found.repaired:
        click.echo(f"{words.count(found.repaired, 'record')} that the store had lost came from here", err=True)
    if found.lock_written:
        click.echo(f"lock/{env}.lock was missing and stands again as it was with the newest release", err=True)
    if found.releases:
        click.echo(f"deployctl up --env {env} --release {found.releases[-1].bundle}   starts what was released last", err=True)


def _table(found: Recovered) -> str:
    if not found.releases:
        return f"{found.address} has no releases of {found.env}"
    source = {"both": "here and in the store", "store": "brought back from the store", "here": "copied to the store"}
    rows: list[tuple[str, ...]] = [
        (str(r.revision), r.action, words.short(r.bundle), "whole" if r.bundle_whole else "not in the store", source[r.source])
        for r in found.releases
    ]
    return _console.columns(rows, ("REVISION", "ACTION", "BUNDLE", "FILES", "RECORD"))
