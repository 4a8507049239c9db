"""The command line: what enters are words, what leaves is an exit code that scripts can rely on.

Verbs load when they are named, so `--help` imports neither torch nor kubernetes nor locust. Everything that a person
reads goes to stderr; results go to stdout.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

import click

from deployctl.cli import VERBS
from deployctl.errors import Bug, DeployctlError, MachineError, ProjectError, from_disk

SUPPORTED = ((3, 11), (3, 12))


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of VERBS: the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, with a suggestion for a misspelt verb."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            import difflib

            close = difflib.get_close_matches(args[0], VERBS, n=1)
            ctx.fail(f"no such verb: {args[0]}" + (f". Did you mean {close[0]}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs and their one-line texts, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deployctl", prog_name="deployctl")
@click.option("-C", "--project", default=".", metavar="DIR", help="Work in this project folder instead of the present one.")
@click.option("--events", metavar="FILE", help="Also write what happens as JSON lines; - is stdout.")
@click.pass_context
def deployctl(ctx: click.Context, project: str, events: str | None) -> None:
    """Run a model at the lowest cost that keeps its latency SLO, with proof.

    Start with `deployctl init`. deployctl collects nothing and calls nobody.
    """
    from pathlib import Path  # not needed to print help

    ctx.obj = Path(project)
    if events is not None:
        from deployctl.cli import _events  # what follows is told; --help never needs it

        _events.start(events)
    if sys.version_info[:2] not in SUPPORTED and ctx.invoked_subcommand not in ("doctor", "explain"):
        raise MachineError(
            f"this is Python {sys.version_info[0]}.{sys.version_info[1]}; deployctl runs on {' and '.join(f'{a}.{b}' for a, b in SUPPORTED)}",
            why="Triton's Python stub needs numpy 1, which has no wheels for later versions",
            hint="make a virtual environment with Python 3.12 and install deployctl there",
            code="python-unsupported",
        )
    ctx.default_map = _user_defaults()


def _user_defaults() -> dict[str, Any] | None:
    """The user's own defaults for every verb; flags and DEPLOYCTL_* stand above them."""
    import os
    from pathlib import Path

    file = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "deployctl" / "config.yaml"
    if not file.is_file():
        return None
    from deployctl.config import user

    defaults = user.read(file)
    return {verb: {**defaults, "show": defaults} for verb in VERBS}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script; always ends in sys.exit."""
    # A scheduler's or a closed terminal's end is a cancelled command, too: servers of its own are stopped, nothing is half-written.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # under nohup SIGHUP stays ignored
            signal.signal(number, _cancel)
    sys.exit(run(argv))


def _cancel(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # the first is enough; what it interrupts is cleared up in peace
    raise KeyboardInterrupt


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return the exit code (design section 4)."""
    code = _run(argv)
    if events := sys.modules.get("deployctl.cli._events"):
        events.end(code)
    return code


def _run(argv: list[str] | None) -> int:
    try:
        result = deployctl.main(args=argv, prog_name="deployctl", standalone_mode=False)
    except DeployctlError as error:
        return _show(error)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else " ".join(["deployctl", *_verb(sys.argv[1:] if argv is None else argv)])
        return _show(ProjectError(error.format_message(), hint=f"{path} --help", code="usage"))
    except (click.Abort, KeyboardInterrupt):
        click.echo("cancelled; run the same command again to finish what was begun", err=True)
        return 8
    except BrokenPipeError:
        return 141
    except Exception as error:  # every other exception is a bug of ours: report it without a traceback on the screen
        return _show((from_disk(error) if isinstance(error, OSError) else None) or bug_from(error))
    return result if isinstance(result, int) else 0


def _verb(argv: list[str]) -> list[str]:
    """The verb of a command line whose option has no value: click does not say where it stood."""
    return next(([word] for word in argv if word in VERBS), [])


def _show(error: DeployctlError) -> int:
    """Print an error and return its exit code; `--help` never needs what this imports."""
    from deployctl.cli import _console

    _console.show_error(error)
    return error.exit_code


def bug_from(error: Exception) -> Bug:
    """Write the traceback to a file that a report can attach, and turn the exception into a Bug."""
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile("w", prefix="deployctl-crash-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        hint = f"report it with the file {file.name}"
    except OSError:
        hint = "report it with this message; there was no room for a file with more"
    return Bug(
        f"deployctl failed in a way it did not expect: {type(error).__name__}: {error}",
        hint=hint,
        why="this is a defect of deployctl, not of your project",
    )


if __name__ == "__main__":
    main()
