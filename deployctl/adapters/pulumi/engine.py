"""Pulumi's engine, run by the Automation API in one process a stack: what enters are stacks, what leaves is what was done.

The process and the engine are a group of their own: after a first Ctrl-C no step begins and the provider ends or gives up the one in
hand; a second one does not wait for that, a third kills.
The lease of a stack stands in front of Pulumi's own lock, so that a lock which a killed run left behind can be told from one
that is held. Refuses to know what the resources are for.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from deployctl.adapters import processes
from deployctl.adapters.processes import ProcessId
from deployctl.core import stack as stacks
from deployctl.core.platform import PulumiSettings
from deployctl.core.stack import Stack, StackOutcome, Step
from deployctl.errors import LockHeld, MachineError, NotFound
from deployctl.ports import Progress

# The oldest engine that these programs were written for; the SDK itself accepts 3.1.
OLDEST = (3, 200, 0)
INSTALL = "python -c 'from pulumi.automation import PulumiCommand; PulumiCommand.install()'"
# So long a command waits for the run of another one that was killed alone, and so often it looks.
_ORPHAN_S = 120.0
_LOOK_S = 0.5
_STOPPING = "stopping: no further step begins; Ctrl-C again does not wait for the one in hand"


class PulumiEngine:
    """Stacks of one project, their work folders and leases under `folder`.

    Args:
        folder: local folder for work files, and for state where no backend is named.
        settings: backend and secrets provider.
        environment: variables beside those of this process, such as KUBECONFIG.
    """

    def __init__(self, folder: Path, settings: PulumiSettings | None = None, *, environment: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._settings = settings or PulumiSettings()
        self._environment = environment or {}
        self._root: str | None = None
        self._checked = False

    def preview(self, stack: Stack, progress: Progress, *, removal: bool = False) -> StackOutcome:
        """What `up`, or with `removal` `destroy`, would do; nothing where there is nothing to remove."""
        try:
            return self._run("preview", stack, progress, removal=removal)
        except NotFound:
            return StackOutcome(steps=())

    def up(self, stack: Stack, progress: Progress, *, look: bool = False) -> StackOutcome:
        """Make it so; the same call finishes what a killed one began.

        Args:
            stack: what is to be so.
            progress: who is told.
            look: ask first what still exists: the state alone does not know what somebody removed. Only for stacks whose provider
                takes what exists, since it also forgets creations that a killed run could not note.

        Raises:
            MachineError: no engine, or one that is too old (`pulumi-missing`, `pulumi-too-old`).
            LockHeld: somebody else changes this stack (`stack-locked`).
            CloudError, ProjectError: see `core.stack.failure`.
            KeyboardInterrupt: a person stopped it; what was done is in the state.
        """
        return self._run("up", stack, progress, look=look)

    def destroy(self, stack: Stack, progress: Progress) -> StackOutcome:
        """Remove every resource; none where there is no such stack. The stack's history stays until `forget`."""
        try:
            return self._run("destroy", stack, progress)
        except NotFound:
            return StackOutcome(steps=())

    def outputs(self, stack: Stack) -> dict[str, Any] | None:
        """Outputs of the last run without secrets; None where there is no such stack."""
        try:
            return self._run("outputs", stack, _Silent()).outputs
        except NotFound:
            return None

    def forget(self, stack: Stack) -> None:
        """Remove the stack itself, after its resources."""
        self._run("forget", stack, _Silent())

    def _run(self, verb: str, stack: Stack, progress: Progress, *, look: bool = False, removal: bool = False) -> StackOutcome:
        self._check()
        request = {**self._request(verb, stack), "look": look, "removal": removal}
        steps, messages, end = self._in_turn(request, progress)
        if end.get("event") == "done":
            return StackOutcome(steps=stacks.changes(steps), outputs=end["outputs"])
        if end.get("event") == "held":
            raise _held(stack, end)
        messages.append(str(end.get("message", "the process that ran Pulumi ended without a word")))
        text = "\n".join(messages)
        if f"no stack named '{stack.name}'" in text:
            raise NotFound(f"there is no stack {stack.name}", hint="deployctl platform up   (makes it)", code="stack-missing")
        if verb != "unlock" and self._left_behind(text):
            progress.note("a run that was killed left its lock; its process is gone, so the lock is removed")
            self._run("unlock", stack, _Silent())
            return self._run(verb, stack, progress, look=look, removal=removal)
        raise stacks.failure(stack.name, messages, "run the same command again", self._by_hand(request, "cancel"))

    @staticmethod
    def _left_behind(text: str) -> bool:
        """Whether everybody who holds Pulumi's lock was a process of this machine that has ended: we hold the lease, so no run of ours is alive."""
        held = stacks.holders(text)
        return bool(held) and all(h.host == socket.gethostname() and processes.identify(h.pid) is None for h in held)

    def _in_turn(self, request: dict[str, Any], progress: Progress) -> tuple[list[Step], list[str], dict[str, Any]]:
        """Run one request; after the run of a command that was killed alone, whose engine still works."""
        end_s, told = time.monotonic() + _ORPHAN_S, False
        while True:
            steps, messages, end = self._child(request, progress)
            if end.get("event") != "held" or not _orphaned(end) or time.monotonic() > end_s:
                return steps, messages, end
            if not told:
                progress.note("a command was killed and its Pulumi run still works: waiting for its end")
                told = True
            time.sleep(_LOOK_S)

    def _by_hand(self, request: dict[str, Any], words: str) -> str:
        """The command line of plain Pulumi that does something to this stack."""
        program = shlex.quote(str(Path(self._root) / "bin" / "pulumi") if self._root else "pulumi")
        backend = f"PULUMI_BACKEND_URL={shlex.quote(request['backend'])}"
        return f"{backend} {program} {words} --yes --cwd {shlex.quote(request['work'])} --stack {request['stack']}"

    def _warn(self, text: str, request: dict[str, Any], progress: Progress) -> None:
        """Tell of cloud resources that a killed run may have made without a note; the provider of Kubernetes takes them by itself."""
        for urn in stacks.interrupted(text):
            step = stacks.step_of("create", urn)
            if not step.type.startswith("kubernetes:"):
                known = self._by_hand(request, f"refresh --import-pending-creates '{urn}' --import-pending-creates ID")
                progress.warn(f"an earlier run was killed in `{step}`: look whether it exists, under the tag of this platform")
                progress.warn(f"  if it does: {known}")
                progress.warn(f"  if not: {self._by_hand(request, 'refresh --clear-pending-creates')}")

    def _check(self) -> None:
        """Find the engine: on PATH, or where the SDK's own installer puts it."""
        if self._checked:
            return
        from importlib.metadata import version

        wanted = version("pulumi")
        home = Path.home() / ".pulumi" / "versions" / wanted
        for root in (None, str(home)):
            program = str(Path(root) / "bin" / "pulumi") if root else "pulumi"
            try:
                said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60, env=self._variables(), check=True).stdout
            except (OSError, subprocess.SubprocessError):
                continue
            found = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in said.strip().lstrip("v").split("-")[0].split("."))
            if found < OLDEST:
                raise MachineError(
                    f"pulumi {said.strip()} is too old; at least {'.'.join(map(str, OLDEST))} is needed", hint=INSTALL, code="pulumi-too-old"
                )
            self._root, self._checked = root, True
            return
        raise MachineError(
            "the pulumi engine is not installed",
            why="pip brings Pulumi's Python SDK; the engine is a program of its own",
            hint=f"{INSTALL}   (puts it into {home})",
            code="pulumi-missing",
        )

    def _variables(self) -> dict[str, str]:
        found = {**os.environ, **self._environment, "PULUMI_SKIP_UPDATE_CHECK": "1"}
        private = self._settings.backend is None and self._settings.secrets_provider is None
        if private and "PULUMI_CONFIG_PASSPHRASE_FILE" not in found:
            # Without a backend the state is this machine's own, and no resource of ours has a secret in it.
            found.setdefault("PULUMI_CONFIG_PASSPHRASE", "")
        return found

    def _request(self, verb: str, stack: Stack) -> dict[str, Any]:
        folder = self._folder / stack.name
        work = folder / "work"
        state = self._folder / "state"
        try:
            for path in (work, state):
                path.mkdir(parents=True, exist_ok=True)
            document = _written(folder / f"{stack.kind}.json", stack.document)
        except OSError as error:
            raise MachineError(
                f"{folder} cannot be written: {error.strerror}",
                hint="free disk space or mend the folder's rights, and repeat the command",
                code="disk-full",
            ) from error
        return {
            "verb": verb,
            "stack": stack.name,
            "kind": stack.kind,
            "document": str(document),
            "work": str(work),
            "lease": str(folder / "lease"),
            "holder": _me(),
            "backend": self._settings.backend or state.resolve().as_uri(),
            "secrets_provider": self._settings.secrets_provider or "passphrase",
            "root": self._root,
        }

    def _child(self, request: dict[str, Any], progress: Progress) -> tuple[list[Step], list[str], dict[str, Any]]:
        """Run one request; steps, complaints, and the last word."""
        steps: list[Step] = []
        messages: list[str] = []
        end: dict[str, Any] = {}
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file, tempfile.TemporaryFile() as talk:
            json.dump(request, file)
            file.flush()
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "deployctl.adapters.pulumi.child", file.name],
                stdout=subprocess.PIPE,
                stderr=talk,
                stdin=subprocess.DEVNULL,
                env=self._variables(),
                text=True,
                start_new_session=True,
            )
            with _interruptible(child, progress) as stopped:
                for event in _events(child):
                    if event["event"] == "step":
                        steps.append(Step(op=event["op"], type=event["type"], name=event["name"]))
                        if stacks.changes(steps[-1:]):
                            progress.update(str(steps[-1]))
                    elif event["event"] == "diagnostic" and event["severity"] == "error":
                        messages.append(event["message"])
                    elif event["event"] == "diagnostic":
                        self._warn(event["message"], request, progress)
                    elif event["event"] != "lost":
                        end = event
                child.wait()
            if stopped:
                raise KeyboardInterrupt
            if not end:
                talk.seek(0)
                messages.append(talk.read().decode(errors="replace")[-2000:])
        return steps, messages, end


def _me() -> dict[str, Any]:
    """Who holds a lease, for people and for the next command."""
    me = processes.identify(os.getpid())
    assert me is not None
    by = f"{getpass.getuser()}@{socket.gethostname()} (pid {me.pid})"
    return {"by": by, "pid": me.pid, "start_ticks": me.start_ticks}


def _holder(end: dict[str, Any]) -> dict[str, Any]:
    """What the lease says; nothing in the moment in which it is being written."""
    try:
        found = json.loads(end["holder"])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _orphaned(end: dict[str, Any]) -> bool:
    """Whether the command whose run holds the lease has ended; the lease is of this machine, since it is a lock on a local file."""
    found = _holder(end)
    return bool(found) and not processes.alive(ProcessId(pid=found["pid"], start_ticks=found["start_ticks"]))


def _held(stack: Stack, end: dict[str, Any]) -> LockHeld:
    found = _holder(end)
    hint = "wait for it, then repeat the command"
    if found and _orphaned(end):
        hint = f"wait for it, or end it with   kill -INT -- -{found['run']}   and repeat the command"
    who = found.get("by", "another process")
    return LockHeld(f"the stack {stack.name} is being changed by {who}", hint=hint, code="stack-locked")


@contextmanager
def _interruptible(child: subprocess.Popen[str], progress: Progress) -> Iterator[list[int]]:
    """While the child runs, Ctrl-C and SIGTERM are passed on to its group; what came is in the list."""
    came: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            progress.note(_STOPPING)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT if len(came) <= 2 else signal.SIGKILL)

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, pass_on)
    except ValueError:  # not the main thread: a server's or a test's; nobody presses Ctrl-C there
        pass
    try:
        yield came
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)


def _events(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a provider or the program printed something
        if isinstance(event, dict) and "event" in event:
            yield event


def _written(path: Path, text: str) -> Path:
    """Put the text there whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


class _Silent:
    """A Progress that says nothing."""

    def step(self, message: str) -> None:
        """Nothing."""

    def update(self, message: str) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Nothing."""


__all__ = ["INSTALL", "OLDEST", "PulumiEngine"]
