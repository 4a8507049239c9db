"""Each `deployctl …` that a message, an error code's text or a document tells somebody to type is a command that the command line takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deployctl.cli import VERBS, _reference
from deployctl.cli._hints import for_env
from deployctl.cli.main import deployctl

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOLE = "7"  # where a message puts a value in
QUOTED = re.compile(r"`deployctl( [^`\n]+)`")
BARE = re.compile(r"(?<![`\w./-])deployctl((?: [^\s`]+)+)")
VALUE = re.compile(r"[A-Z][A-Z_]*|.*\d.*|'\{…\}'")  # a word of prose is none of these


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of each string that is no docstring; the holes of an f-string are filled."""
    tree = ast.parse(path.read_text())
    doc = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.JoinedStr):
            doc |= {id(v) for v in node.values}
            yield place, "".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in doc:
            yield place, node.value


def told(text: str) -> Iterator[list[str]]:
    """The words behind `deployctl` of each command in a message: all in backticks; outside of them up to where prose goes on."""
    for found in QUOTED.finditer(text):
        yield shlex.split(found[1])
    for found in BARE.finditer(QUOTED.sub("", text)):
        words = found[1].split(" ")[1:]
        for position, word in enumerate(words):
            plain = word.rstrip(".,;:)")
            subcommand = position == 1 and plain in getattr(command_of(words[0]), "commands", {})
            argument = position > 1 and takes_value(words[0], words[position - 1])
            if position and not (plain.startswith("-") or subcommand or argument or VALUE.fullmatch(plain)):
                words = words[:position]
                break
            words[position] = plain
            if plain != word:
                words = words[: position + 1]
                break
        yield shlex.split(" ".join(words))


def command_of(verb: str) -> click.Command | None:
    return deployctl.get_command(_reference.bare_context(deployctl, "deployctl"), verb) if verb in VERBS else None


def takes_value(verb: str, option: str) -> bool:
    command = command_of(verb)
    return any(isinstance(p, click.Option) and not p.is_flag and option in p.opts for p in (command.params if command else ()))


def complaint(words: list[str]) -> str:
    """Why the command line does not take these words, empty if it does; nothing is run and no value is judged."""
    context = _reference.bare_context(deployctl, "deployctl")  # click keeps the first help option that it makes of a command
    while True:
        command = deployctl.get_command(context, words[0]) if context.command is deployctl else context.command.get_command(context, words[0])
        if command is None:
            return f"there is no {words[0]}"
        if not isinstance(command, click.Group) or not words[1:]:
            break
        context, words = click.Context(command, parent=context, info_name=words[0]), words[1:]
    try:
        command.make_context(words[0], list(words[1:]), parent=context)
    except click.exceptions.Exit:
        return ""  # --help
    except click.MissingParameter as error:
        return "" if isinstance(error.param, click.Option) or not words[1:] else str(error)
    except click.BadParameter:
        return ""
    except click.UsageError as error:
        return error.format_message()
    return ""


def test_every_printed_command_exists():
    found = [(place, words) for path in sorted((ROOT / "deployctl").rglob("*.py")) for place, text in texts(path) for words in told(text)]
    commands = [(place, words) for place, words in found if words[0] in VERBS]
    assert len(commands) > 150
    wrong = [f"{place}: deployctl {' '.join(words)}: {why}" for place, words in commands if (why := complaint(words))]
    assert wrong == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_in_a_document_exists(path):
    wrong = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        typed = (
            re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S* )*deployctl ([^#|>&\\]+)", line) if re.match(r"( {4}|\s*\$ |\s*[A-Z_]+=|deployctl )", line) else None
        )
        spans = [typed[1].split("   ")[0], *QUOTED.findall(line)] if typed else QUOTED.findall(line)
        for span in spans:
            words = [w for w in shlex.split(re.sub(r"[\[\]]|…", "", span)) if w]
            if words and words[0] in VERBS and (why := complaint(words)):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: deployctl {' '.join(words)}: {why}")
    assert wrong == []


@pytest.mark.parametrize("words", [["tune", "--no-such"], ["nothing"], ["release", "forbid"], ["status", "a", "b"]])
def test_the_check_can_fail(words):
    assert complaint(words)


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("deployctl up", "deployctl up --env prod"),
        ("deployctl logs   (and deployctl call)", "deployctl logs --env prod   (and deployctl call --env prod)"),
        (
            "deployctl release allow 42ef; or `deployctl tune --fresh`",
            "deployctl release allow --env prod 42ef; or `deployctl tune --env prod --fresh`",
        ),
        ("deployctl status --all -n search", "deployctl status --all -n search"),
        ("deployctl tune --env dev", "deployctl tune --env dev"),
        ("deployctl schema; deployctl explain   (lists every code)", "deployctl schema; deployctl explain   (lists every code)"),
    ],
)
def test_a_hint_is_for_the_environment_that_was_typed(hint, told):
    for typed in (["plan", "--env", "prod"], ["plan", "-e", "prod"], ["plan", "--env=prod"]):
        assert for_env(hint, typed) == told
    assert for_env(hint, ["plan"]) == hint and for_env(hint, ["plan", "--env", "local"]) == hint
