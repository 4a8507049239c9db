"""Next commands for the environment that was asked about: what enters are a hint and the words typed, what leaves is the hint.

Most errors come from places that know no environment and say `deployctl up`; after `--env prod` that would be another service's
command. Refuses to guess: where no `--env` was typed, the default that led here also leads the next command.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import click

_COMMAND = re.compile(r"deployctl ([a-z]+)( allow)?(?![a-z-])([^;,(`]*)")
_NAMED = re.compile(r"(?<!\S)(-e|--env|--context|-n|--all|--lock|--template)\b")


def for_env(hint: str, typed: Sequence[str]) -> str:
    """The hint with `--env NAME` in each command that takes it and names none, where `typed` has it."""
    env = _env(typed)
    if env is None or env == "local":
        return hint
    return _COMMAND.sub(lambda m: m[0] if _NAMED.search(m[3]) or not _takes_env(m[1]) else f"deployctl {m[1]}{m[2] or ''} --env {env}{m[3]}", hint)


def _env(typed: Sequence[str]) -> str | None:
    for word, after in itertools.pairwise([*typed, ""]):
        if word in ("-e", "--env"):
            return after or None
        if word.startswith("--env="):
            return word.removeprefix("--env=")
    return None


def _takes_env(verb: str) -> bool:
    from deployctl.cli import VERBS
    from deployctl.cli.main import deployctl

    command = deployctl.get_command(click.Context(deployctl), verb) if verb in VERBS and verb != "explain" else None  # its --env goes with a service
    subcommands = command.commands.values() if isinstance(command, click.Group) else ()
    return any(p.name == "env" for c in (command, *subcommands) if c is not None for p in c.params)
