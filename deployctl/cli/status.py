"""`deployctl status`: words and flags; the exit code says how it stands."""

from __future__ import annotations

import collections
import sys
import time

import click

from deployctl.cli._anywhere import cluster_options, opened_anywhere
from deployctl.cli._console import columns, emit, env_option, output_option
from deployctl.core import fleet_view, words
from deployctl.core.status_view import StatusView, lines

_SHOWN = 90


@click.command()
@click.argument("name", required=False)
@env_option
@cluster_options
@click.option("--all", "-A", "everything", is_flag=True, help="Every service of the cluster, or of the namespace.")
@output_option
@click.option("--watch", "-w", is_flag=True, help="Show it again every two seconds until Ctrl-C.")
@click.pass_context
def status(
    ctx: click.Context, name: str | None, env: str, context: str | None, namespace: str | None, everything: bool, output: str, watch: bool
) -> int:
    """Show revision, health, SLO, load and replicas.

    With NAME it works from the cluster's records and needs no project; with --all it lists every service there.

    Exits 0 if it serves as wanted, 4 if it is degraded or failed, 6 if nothing runs, 9 if it does not serve yet, 11 if it serves
    but nobody supervises it.
    """
    from deployctl.flows.status import status as status_flow

    if everything:
        return _all(context, namespace, output)
    project, tools, env = opened_anywhere(ctx, env, name, context, namespace)
    if not watch:
        return _show(status_flow(project, env, tools), output)
    code = 0
    live = sys.stdout.isatty() and output == "table"
    try:
        while True:
            if live:
                click.echo("\x1b[H\x1b[2J", nl=False)
            code = _show(status_flow(project, env, tools), output)
            time.sleep(2.0)
    except KeyboardInterrupt:
        return code


def _show(view: StatusView, output: str) -> int:
    emit(view, output, lambda: "\n".join(lines(view)))
    return view.exit_code


def _all(context: str | None, namespace: str | None, output: str) -> int:
    from deployctl import wiring

    found = wiring.fleet(context).rows(namespace)
    emit({"services": found}, output, lambda: _fleet_table(found, namespace))
    return fleet_view.exit_code(found)


def _fleet_table(found: list[fleet_view.ServiceRow], namespace: str | None) -> str:
    if not found:
        return f"no service of deployctl in {'namespace ' + namespace if namespace else 'this cluster'}"
    header = ("NAMESPACE", "SERVICE", "ENV", "HEALTH", "READY", "REPLICAS", "REV", "VARIANT", "WRITER", "WHY")
    rows: list[tuple[str, ...]] = [
        (
            r.namespace,
            r.service,
            r.env,
            r.health,
            f"{r.ready}/{r.wanted}",
            r.bounds,
            str(r.revision or "-"),
            r.variant or "-",
            r.writer,
            r.message if len(r.message) <= _SHOWN else r.message[: _SHOWN - 1] + "…",
        )
        for r in found
    ]
    counts = collections.Counter(r.health for r in found)
    head = f"{words.count(len(found), 'service')}: {', '.join(f'{n} {health}' for health, n in counts.items())}"
    return f"{head}\n{columns(rows, header)}"
