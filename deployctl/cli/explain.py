"""`deployctl explain`: an error code, offline; or why a service runs as it does, from the cluster's records."""

from __future__ import annotations

import click

from deployctl.cli import _console
from deployctl.cli._anywhere import cluster_options, opened_anywhere
from deployctl.cli._codes import CODES
from deployctl.errors import NotFound


@click.command()
@click.argument("code", required=False, metavar="[CODE | NAME]")
@_console.env_option
@cluster_options
@_console.output_option
@click.pass_context
def explain(ctx: click.Context, code: str | None, env: str, context: str | None, namespace: str | None, output: str) -> None:
    """Explain an error code, offline; list all codes without one.

    With --context or --namespace: why the service NAME runs as it does there. Who released what, when and why, its settings, replicas and
    their proof.
    """
    import textwrap

    if (context, namespace) != (None, None):
        return _service(ctx, code, env, context, namespace, output)
    if code is None:
        items = [{"code": name, "text": CODES[name]} for name in sorted(CODES)]
        _console.emit(items, output, lambda: "\n".join(sorted(CODES)))
        return
    if code not in CODES:
        import difflib

        close = difflib.get_close_matches(code, CODES, n=1)
        hint = f"deployctl explain {close[0]}" if close else "deployctl explain   (lists every code)"
        question = f"; did you mean {close[0]}?" if close else ""
        raise NotFound(f"there is no error code {code[:60]!r}{question}", hint=hint, code="code-not-found")
    _console.emit({"code": code, "text": CODES[code]}, output, lambda: f"{code}\n\n{textwrap.fill(CODES[code], 100)}")


def _service(ctx: click.Context, name: str | None, env: str, context: str | None, namespace: str | None, output: str) -> None:
    from deployctl.core.plan_view import release_lines
    from deployctl.flows import recorded

    _, tools, _ = opened_anywhere(ctx, env, name, context, namespace)
    release, serves = recorded.release(tools)
    _console.emit({"release": release, "serves": serves}, output, lambda: "\n".join(release_lines(release, serves=serves, now_s=tools.clock.now_s())))
