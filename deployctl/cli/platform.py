"""`deployctl platform show|plan|up|down|status`: words and flags."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployctl.cli import _console
from deployctl.core import words
from deployctl.errors import ProjectError

if TYPE_CHECKING:
    from deployctl.core.platform import Platform
    from deployctl.core.stack import StackOutcome
    from deployctl.flows.platform import PlatformView

platform_option = click.option(
    "--platform",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The platform.yaml; the project's where none is named.",
)


@click.group()
def platform() -> None:
    """Look at, make, change and remove the cluster that services run on (platform.yaml)."""


@platform.command()
@platform_option
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@_console.output_option
@click.pass_obj
def show(root: Path, file: Path | None, origin: bool, output: str) -> None:
    """Check platform.yaml and print every key with its value, defaults included, and what the pools cost."""
    from deployctl.config import platform as files
    from deployctl.core import cost

    found = files.load(file or root)
    rows = [(key, value, found.origins.get(key, "default")) for key, value in files.values(found).items()]
    costs = cost.of_platform(found)
    document = {"values": [{"key": k, "value": v, **({"origin": o} if origin else {})} for k, v, o in rows], "costs": costs}

    def table() -> str:
        cells: list[tuple[str, ...]] = [(k, _text(v), o) if origin else (k, _text(v)) for k, v, o in rows]
        header = ("KEY", "VALUE", "ORIGIN") if origin else ("KEY", "VALUE")
        return "\n".join([_console.columns(cells, header), "", *cost.lines(costs)])

    _console.emit(document, output, table)


@platform.command()
@platform_option
@_console.output_option
@click.pass_obj
def plan(root: Path, file: Path | None, output: str) -> None:
    """Show what `platform up` would change and what the pools may cost. Changes nothing."""
    from deployctl.flows import platform as flow

    found, engine = _opened(root, file)
    view = flow.plan(found, engine, _console.ConsoleProgress())
    document = {"platform": found.name, "steps": view.outcome.steps, "costs": view.costs, "notices": list(view.notices)}
    _console.emit(document, output, lambda: "\n".join(_plan_lines(found, view)))


@platform.command()
@platform_option
@_console.yes_option
@click.pass_obj
def up(root: Path, file: Path | None, yes: bool) -> None:
    """Make the cluster as platform.yaml says: plan, ask, then do it. Prints the kubectl context.

    After Ctrl-C no further step begins, a second one does not wait for the step in hand; the same command goes on.
    """
    from deployctl.flows import platform as flow

    _console.can_ask(yes=yes)
    found, engine = _opened(root, file)

    def ask(view: PlatformView) -> None:
        for line in _plan_lines(found, view):
            click.echo(line, err=True)
        if view.outcome.steps:
            _console.confirm(f"Make {words.count(len(view.outcome.steps), 'change')}?", yes=yes)

    outcome = flow.up(found, engine, _console.ConsoleProgress(), ask)
    for line in _next_lines(outcome.outputs):
        click.echo(line, err=True)
    click.echo(found.context or "")


@platform.command()
@platform_option
@_console.yes_option
@click.option("--confirm", "typed", metavar="NAME", help="The platform's name, instead of typing it.")
@click.pass_obj
def down(root: Path, file: Path | None, yes: bool, typed: str | None) -> None:
    """Remove what `platform up` made: cluster, pools, identities. The bucket with the models stays."""
    from deployctl.flows import platform as flow

    found, engine = _opened(root, file)
    here = sys.stdin.isatty() and typed is None
    if not yes and not here:
        _require_name(found.name, typed)

    def ask(going: StackOutcome) -> None:
        click.echo(f"platform {found.name} ({found.cloud}): {words.count(len(going.steps), 'resource')} to remove", err=True)
        for step in going.steps:
            click.echo(f"  {step}", err=True)
        if not yes and here and going.steps:
            _require_name(found.name, None)

    outcome = flow.down(found, engine, _console.ConsoleProgress(), ask)
    click.echo(f"{found.name}: " + (f"{words.count(len(outcome.steps), 'resource')} removed" if outcome.steps else "nothing was there"))


@platform.command()
@platform_option
@click.option("--offline", is_flag=True, help="Do not ask Pulumi for the stack's outputs; look at the cluster only.")
@_console.output_option
@click.pass_obj
def status(root: Path, file: Path | None, offline: bool, output: str) -> int:
    """Show what the cluster has: who answers external metrics, add-ons, nodes of each pool. Ends with 1 where something fails."""
    from deployctl import wiring
    from deployctl.flows import platform as flow

    found, engine = _opened(root, file)
    view = flow.status(found, None if offline or found.cloud == "existing" else engine, wiring.load(wiring.ADAPTERS["cluster"])(found.context))

    def table() -> str:
        rows: list[tuple[str, ...]] = [(f.severity, f.name, f.message + (f"; {f.remedy}" if f.remedy else "")) for f in view.findings]
        outputs = [f"{key}: {value}" for key, value in (view.outputs or {}).items() if value]
        return "\n".join([*outputs, _console.columns(rows, ("STATE", "WHAT", "SEEN"))])

    _console.emit({"platform": found.name, "outputs": view.outputs, "findings": view.findings}, output, table)
    return 1 if any(f.severity == "fail" for f in view.findings) else 0


def _opened(root: Path, file: Path | None) -> tuple[Platform, Any]:
    from deployctl import wiring
    from deployctl.config import platform as files

    found = files.load(file or root)
    folder = (file.parent if file else root) / ".deployctl" / "pulumi"
    return found, wiring.load(wiring.ADAPTERS["pulumi"])(folder, found.pulumi)


def _plan_lines(found: Platform, view: PlatformView) -> list[str]:
    from deployctl.core import cost

    steps = view.outcome.steps
    head = f"platform {found.name} ({found.cloud}): {words.count(len(steps), 'change')}"
    return [head, *(f"  {step}" for step in steps), *cost.lines(view.costs), *(f"note: {n}" for n in view.notices)]


def _next_lines(outputs: dict[str, Any]) -> list[str]:
    lines = [f"reach it with: {outputs['connect']}"] if outputs.get("connect") else []
    lines += [f"store: {outputs['store']}"] if outputs.get("store") else []
    for reader, found in (outputs.get("readers") or {}).items():
        notes = ", ".join(f'{key}: "{value}"' for key, value in (found.get("annotations") or {}).items())
        lines += [f"in deploy.yaml of {reader}: identity: {{{notes}}}"] if notes else []
    return lines


def _require_name(name: str, typed: str | None) -> None:
    if typed is None:
        if not sys.stdin.isatty():
            raise ProjectError(
                "this needs a confirmation and there is no terminal to ask on",
                hint=f"repeat the command with --confirm {name} or --yes",
                code="not-confirmed",
            )
        typed = click.prompt(f"This removes the cluster {name} and stops every service on it. Type its name to confirm", err=True)
    if typed != name:
        raise ProjectError(f"{typed!r} is not the platform's name; nothing was removed", hint=f"the name is {name}", code="not-confirmed")


def _text(value: object) -> str:
    if value is None or value == [] or value == "":
        return "-"
    return str(value).lower() if isinstance(value, bool) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
