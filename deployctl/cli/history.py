"""`deployctl history`: words and flags."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from deployctl.cli import _gitops
from deployctl.cli._anywhere import cluster_options, elsewhere, opened_anywhere
from deployctl.cli._console import columns, emit, env_option, output_option
from deployctl.core import words
from deployctl.flows.history import HistoryRow

_SHOWN = 60


@click.command()
@click.argument("name", required=False)
@env_option
@cluster_options
@output_option
@click.pass_context
def history(ctx: click.Context, name: str | None, env: str, context: str | None, namespace: str | None, output: str) -> None:
    """List the releases, oldest first, with what each serves, which one serves now and which are on hold.

    With NAME it works from the cluster's records and needs no project.
    """
    from deployctl.flows.history import history as history_flow

    if not elsewhere(name, context, namespace) and (committed := _gitops.by_commits(ctx.obj, env)):
        return _gitops.show_history(ctx.obj, committed, env, output)
    project, tools, env = opened_anywhere(ctx, env, name, context, namespace)
    rows = history_flow(project, env, tools)
    emit([_data(r) for r in rows], output, lambda: _table(rows))


def _data(row: HistoryRow) -> dict[str, Any]:
    release = row.release
    return {
        "revision": release.revision,
        "created_at": datetime.fromtimestamp(release.created_at_s, tz=UTC).isoformat(timespec="seconds"),
        "action": release.action,
        "rolled_back_to": release.rolled_back_to,
        "variant": release.plan.variant,
        "bundle": release.plan.bundle,
        "replicas": release.plan.replicas,
        "min_replicas": release.plan.scaling.min_replicas,
        "max_replicas": release.plan.scaling.max_replicas,
        "evidence": release.plan.evidence,
        "content": release.content,
        "digest": release.digest,
        "parent": release.parent,
        "by": release.by,
        "reason": release.reason,
        "serving": row.serving,
        "held": row.held,
    }


def _table(rows: list[HistoryRow]) -> str:
    if not rows:
        return "nothing was released here yet: deployctl up"
    cells: list[tuple[str, ...]] = []
    for row in rows:
        release = row.release
        policy = release.plan.scaling
        action = f"{release.action} to {release.rolled_back_to}" if release.rolled_back_to else release.action
        state = " ".join(word for word, true in (("serving", row.serving), ("on hold", row.held)) if true)
        age = words.duration(time.time() - release.created_at_s) + " ago"
        proof = "proven" if release.plan.evidence else "unproven"
        cells.append(
            (
                str(release.revision),
                age,
                action,
                release.plan.variant or "-",
                words.short(release.content),
                words.bounds(policy.min_replicas, policy.max_replicas),
                proof,
                state,
                release.reason if len(release.reason) <= _SHOWN else release.reason[: _SHOWN - 1] + "…",
            )
        )
    return columns(cells, ("REV", "AGE", "ACTION", "VARIANT", "CONTENT", "REPLICAS", "PROOF", "STATE", "REASON"))
