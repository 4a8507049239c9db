"""Runs text scripts: `-- file NAME --` makes a file, `$ command` runs one, the lines below it are what it prints.

A script is a text file `*.txt` in this folder. Each runs in an empty directory with the installed `deployctl` first on PATH.

    # text up to the first section is a comment
    -- file deploy.yaml --
    model: {source: onnx:model.onnx}
    -- run --
    $ deployctl config show
    # exit 2
    ! error: deploy.yaml:1:17: there is no file model.onnx
    ! ...
    ! hint: create it...

Expected lines: `! ` in front means stderr, else stdout. `...` alone on a line stands for any number of lines, within a line
for any text. `# exit N` states the exit code (0 without it). `# untouched` states that the command changed no file.
`# early TEXT` states that TEXT stands in the first five
lines of the error (progress of earlier steps does not count). `# skip-unless PROGRAM` skips visibly where PROGRAM
is missing. `#   ` and text is a comment. A stderr without expected lines is not looked at, except that it never holds a traceback.
`-- link NAME TARGET --` and `-- mode NAME OCTAL --` do what they say after the files are made.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
BLOCKERS = Path(__file__).parent / "blockers"
TIMEOUT_S = 120


@dataclass
class Step:
    """One command and what is expected of it."""

    line: int
    command: str
    exit: int = 0
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    untouched: bool = False


@dataclass
class Script:
    """A parsed script."""

    files: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class Mismatch(AssertionError):
    """A step did not do what its script says."""


def parse(text: str) -> Script:
    """Text to a script; a line that no rule knows is an error, so that a typing slip cannot weaken a test."""
    script = Script()
    body: list[str] | None = None
    running = False
    for number, line in enumerate(text.splitlines(), 1):
        section = re.fullmatch(r"-- (file|mode|link|run)(?: (\S+))?(?: (\S+))? --", line)
        if section:
            kind, name, value = section.groups()
            body, running = None, kind == "run"
            if kind == "file":
                body = []
                script.files[name] = body  # type: ignore[assignment]
            elif kind == "mode":
                script.modes[name] = int(value, 8)
            elif kind == "link":
                script.links[name] = value
        elif body is not None:
            body.append(line)
        elif running:
            _read_run_line(script, number, line)
        elif line.startswith("# skip-unless "):
            script.needs.append(line.split()[2])
    script.files = {name: "\n".join(lines) + "\n" for name, lines in script.files.items()}
    if not script.steps:
        raise ValueError("the script runs nothing")
    return script


def _read_run_line(script: Script, number: int, line: str) -> None:
    if line.startswith("$ "):
        script.steps.append(Step(number, line[2:]))
        return
    if not script.steps:
        if line.strip() and not line.startswith("#   "):
            raise ValueError(f"line {number} stands before the first command: {line}")
        return
    step = script.steps[-1]
    if line.startswith("# exit "):
        step.exit = int(line.split()[2])
    elif line.startswith("# early "):
        step.early.append(line.removeprefix("# early "))
    elif line == "# untouched":
        step.untouched = True
    elif line.startswith("#   "):
        return
    elif line == "!" or line.startswith("! "):
        step.stderr.append(line[2:])
    elif line.strip():
        step.stdout.append(line)


def matches(expected: list[str], lines: list[str]) -> bool:
    """Whether the lines are as expected, with `...` for any lines or any text; blank lines do not count."""
    pattern = []
    for want in expected:
        if not want.strip():
            continue
        if want.strip() == "...":
            pattern.append(r"(?:[^\n]*\n)*")
        else:
            pattern.append(".*".join(re.escape(part) for part in want.split("...")) + r"\n")
    return re.fullmatch("".join(pattern), "".join(f"{line.rstrip()}\n" for line in lines if line.strip())) is not None


def environment(folder: Path) -> dict[str, str]:
    """What a plain user has: no colour, no terminal, an own home."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("DEPLOYCTL_", "XDG_", "PYTHON")) and k != "VIRTUAL_ENV"}
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    return {**keep, "PATH": f"{BIN}:{keep.get('PATH', '')}", "HOME": str(home), "NO_COLOR": "1", "COLUMNS": "120", "BLOCKERS": str(BLOCKERS)}


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and os.access(path, os.R_OK):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_dir():
            found[name] = "folder"
    return found


def play(script: Script, folder: Path) -> None:
    """Make the files, run every step, raise Mismatch at the first that differs."""
    for name, text in script.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, target in script.links.items():
        (folder / name).symlink_to(target)
    for name, mode in script.modes.items():
        (folder / name).chmod(mode)
    env = environment(folder)
    for step in script.steps:
        before = snapshot(folder)
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        check(step, done.returncode, done.stdout, done.stderr, changed=before != snapshot(folder))


def told(stderr: str) -> list[str]:
    """What is printed from the error on; the progress of the steps before it is no part of it."""
    lines = stderr.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    return lines[starts[0] :] if starts else lines


def check(step: Step, code: int, stdout: str, stderr: str, *, changed: bool) -> None:
    """Compare one finished command with its expectations."""
    problems = []
    if code != step.exit:
        problems.append(f"exit code {code}, not {step.exit}")
    if "Traceback (most recent call last)" in stdout + stderr:
        problems.append("a traceback was printed")
    if step.stdout and not matches(step.stdout, stdout.splitlines()):
        problems.append("stdout differs; expected:\n" + "\n".join(step.stdout))
    if step.stderr and not matches(step.stderr, stderr.splitlines()):
        problems.append("stderr differs; expected:\n" + "\n".join(step.stderr))
    first = "\n".join(told(stderr)[:5])
    problems += [f"{text!r} is not in the first five lines of the error" for text in step.early if text not in first]
    if step.untouched and changed:
        problems.append("files were changed")
    if problems:
        raise Mismatch(f"line {step.line}: $ {step.command}\n" + "\n".join(problems) + f"\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
