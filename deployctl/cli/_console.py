"""How verbs talk: results on stdout, talk on stderr, the same error shape everywhere, no colour where none is wanted."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from deployctl.cli import _events, _hints
from deployctl.core import codec
from deployctl.errors import DeployctlError, ProjectError, SloUnreachable

F = TypeVar("F", bound=Callable[..., Any])


def wants_colour(stream: Any = None) -> bool:
    """Colour only on a terminal that can, and never against NO_COLOR."""
    stream = stream or sys.stderr
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, **kwargs: Any) -> str:
    """click.style where colour is wanted, else the plain text."""
    return click.style(text, **kwargs) if wants_colour() else text


def show_error(error: DeployctlError) -> None:
    """What, where, why, next command: within the first five lines. With `-o json` the same as one JSON document."""
    names = ("code", "message", "why", "where", "hint", "exit_code")
    facts = {name: getattr(error, name) for name in names} | {"hint": _hints.for_env(error.hint, sys.argv[1:])}
    _events.emit("error", **facts)
    if _json_wanted():
        more = {"candidates": codec.to_data(error.candidates)} if isinstance(error, SloUnreachable) and error.candidates else {}
        click.echo(json.dumps({"schema_version": 1, "error": facts | more}, indent=2))
    prefix = f"{error.where}: " if error.where else ""
    click.echo(f"{style('error:', fg='red', bold=True)} {prefix}{error.message}", err=True)
    if error.why:
        click.echo(f"  why: {error.why}", err=True)
    click.echo(f"{style('hint:', fg='cyan')} {facts['hint']}", err=True)
    click.echo(f"  code: {error.code}   (deployctl explain {error.code})", err=True)


def _json_wanted() -> bool:
    words = sys.argv[1:]
    if not any(w.startswith(("-o", "--output")) for w in words):
        return os.environ.get("DEPLOYCTL_OUTPUT") == "json"
    return any(w in ("-ojson", "--output=json") or (w == "json" and p in ("-o", "--output")) for p, w in zip(["", *words], words, strict=False))


def env_option(command: F) -> F:
    """`--env NAME`, default `local`; else DEPLOYCTL_ENV, else the user's own default (`config/user.py`)."""
    return click.option(
        "--env", "-e", default="local", show_default=True, envvar="DEPLOYCTL_ENV", metavar="NAME", help="Environment in deploy.yaml."
    )(command)


def output_option(command: F) -> F:
    """`-o table|json|yaml`; else DEPLOYCTL_OUTPUT, else the user's own default (`config/user.py`)."""
    forms = click.Choice(["table", "json", "yaml"])
    return click.option("-o", "--output", type=forms, default="table", show_default=True, envvar="DEPLOYCTL_OUTPUT", help="Form of the result.")(
        command
    )


def yes_option(command: F) -> F:
    """`--yes`: answer every question with yes."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, *, yes: bool) -> None:
    """Ask once; without a terminal and without --yes it is a usage error, never a hang.

    Raises:
        ProjectError: nobody can be asked (`not-confirmed`); click.Abort: the answer was no.
    """
    if yes:
        return
    can_ask(yes=yes)
    click.confirm(question, abort=True, err=True)


def require_name(name: str, what: str, typed: str | None) -> None:
    """Have the service's name typed, on the command line or at the prompt, before `what`.

    Raises:
        ProjectError: nobody can be asked, or it is another name (`not-confirmed`).
    """
    if typed is None:
        if not sys.stdin.isatty():
            raise ProjectError(
                "this needs a confirmation and there is no terminal to ask on",
                hint=f"repeat the command with --confirm {name}",
                code="not-confirmed",
            )
        typed = click.prompt(f"{what} Type its name to confirm", err=True)
    if typed != name:
        raise ProjectError(f"{typed!r} is not the service's name; nothing was done", hint=f"the name is {name}", code="not-confirmed")


def can_ask(*, yes: bool) -> None:
    """Refuse early, before a long text is shown, where nobody could answer the question after it.

    Raises:
        ProjectError: nobody can be asked (`not-confirmed`).
    """
    if not yes and not sys.stdin.isatty():
        raise ProjectError("this needs a confirmation and there is no terminal to ask on", hint="repeat the command with --yes", code="not-confirmed")


def emit(document: Any, output: str, table: Callable[[], str]) -> None:
    """Print a result on stdout: `table()` for people, else the document with its schema_version."""
    if output == "table":
        click.echo(table())
        return
    data = codec.to_data(document)
    data = {"schema_version": 1, **data} if isinstance(data, dict) else {"schema_version": 1, "items": data}
    if output == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import io

    from ruamel.yaml import YAML

    buffer = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(data, buffer)
    click.echo(buffer.getvalue(), nl=False)


def columns(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """A plain aligned table without borders; numbers are the caller's text."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join(lines)


class ConsoleProgress:
    """Progress on stderr: a live line on a terminal, one line a change elsewhere, each with elapsed seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._open = False
        self._last = ""

    def step(self, message: str) -> None:
        """Begin a step."""
        self._close()
        _events.emit("step", message=message)
        click.echo(f"{self._stamp()} {message}", err=True)

    def update(self, message: str) -> None:
        """Show where the present step is; on a terminal only, since a log would be flooded."""
        if message == self._last:
            return
        self._last = message
        _events.emit("update", message=message)
        if self._live:
            click.echo(f"\r\x1b[2K{self._stamp()}   {message}", err=True, nl=False)
            self._open = True

    def note(self, message: str) -> None:
        """A fact that stays."""
        self._close()
        _events.emit("note", message=message)
        click.echo(f"        {message}", err=True)

    def warn(self, message: str) -> None:
        """A warning that stays."""
        self._close()
        _events.emit("warning", message=message)
        click.echo(f"{style('warning:', fg='yellow', bold=True)} {message}", err=True)

    def _stamp(self) -> str:
        return f"{self._clock() - self._began:6.1f}s"

    def _close(self) -> None:
        if self._open:
            click.echo("\r\x1b[2K", err=True, nl=False)
            self._open = False
