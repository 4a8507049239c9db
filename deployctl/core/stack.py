"""A Pulumi stack as values: what enters are its name and inputs and what its engine said, what leaves is what was done or why not.

Refuses to know the engine, files and clouds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from deployctl.errors import CloudError, DeployctlError, LockHeld, ProjectError

StackKind = Literal["platform", "inputs"]
# Words of the engine for one resource: create, update, replace, delete, same, read, refresh and their parts.
_SILENT = {"same", "read", "refresh", "import"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One stack.

    Attributes:
        name: unique within its state.
        kind: which input `infra/program.py` reads: a platform, or the inputs of a service.
        document: that input, as JSON text.
    """

    name: str
    kind: StackKind
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One resource that is changed: `op` is the engine's word, `type` Pulumi's type token, `name` the logical name."""

    op: str
    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.op} {self.type.split(':')[-1]} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOutcome:
    """What a run did, or would do: steps without those that change nothing, and the stack's outputs."""

    steps: tuple[Step, ...]
    outputs: dict[str, Any] = field(default_factory=dict)


def changes(steps: list[Step]) -> tuple[Step, ...]:
    """The steps that change something, each once; the stack itself is nothing that anybody could look at."""
    return tuple(dict.fromkeys(s for s in steps if s.op not in _SILENT and s.type != "pulumi:pulumi:Stack"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds Pulumi's own lock."""

    user: str
    host: str
    pid: int


_LOCKED = re.compile(r"created by (?P<user>[^@\s]+)@(?P<host>\S+) \(pid (?P<pid>\d+)\)")


def holders(text: str) -> list[Holder]:
    """Everybody whom the engine's message about a locked stack names."""
    if "locked" not in text:
        return []
    return [Holder(user=m["user"], host=m["host"], pid=int(m["pid"])) for m in _LOCKED.finditer(text)]


_INTERRUPTED = re.compile(r"\* (?P<urn>urn:pulumi:\S+), interrupted while creating")


def interrupted(text: str) -> list[str]:
    """URNs of what a killed run was making when it ended, as the engine's warning lists them."""
    return [m["urn"] for m in _INTERRUPTED.finditer(text)]


def step_of(op: str, urn: str) -> Step:
    """The step that a URN stands for: `urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME`."""
    *_, types, name = urn.split("::")
    return Step(op=op, type=types.rsplit("$", 1)[-1], name=name)


_LOGIN = re.compile(
    r"no valid credential|ExpiredToken|InvalidClientTokenId|UnrecognizedClientException|security token included in the request"
    r"|could not find default credentials|Unable to locate credentials|AADSTS|az login|gcloud auth|invalid_grant",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"quota|LimitExceeded|VcpuLimit|ZONE_RESOURCE_POOL_EXHAUSTED|InsufficientInstanceCapacity", re.IGNORECASE)
_PASSPHRASE = re.compile(r"PULUMI_CONFIG_PASSPHRASE|incorrect passphrase", re.IGNORECASE)


def failure(stack: str, messages: list[str], again: str, unlock: str) -> DeployctlError:
    """The error that the engine's messages mean, the first of them as the cause.

    Args:
        stack: name.
        messages: what the engine and its providers complained about, oldest first.
        again: the command that goes on.
        unlock: the command that takes Pulumi's lock from a run that is dead.
    """
    text = "\n".join(messages)
    cause = next((line.strip() for message in messages for line in message.splitlines() if line.strip()), "it gave no reason")[:400]
    held = holders(text)
    if held:
        who = ", ".join(f"{h.user}@{h.host} (pid {h.pid})" for h in held)
        hint = f"wait for it, then {again}; only if that run is dead:   {unlock}"
        return LockHeld(f"the stack {stack} is being changed by {who}", hint=hint, code="stack-locked")
    if _PASSPHRASE.search(text):
        hint = "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE, or name `pulumi: {secrets: …}` in platform.yaml"
        return ProjectError(f"the secrets of the stack {stack} cannot be read", why=cause, hint=hint, code="stack-passphrase")
    if _LOGIN.search(text):
        return CloudError(
            "the cloud does not accept your credentials", why=cause, hint=f"log in again, then {again}", code="cloud-login", exit_code=3
        )
    if _QUOTA.search(text):
        hint = f"ask for a higher quota in this region or lower the pool's bound, then {again}"
        return CloudError("the cloud has no more of what was asked for", why=cause, hint=hint, code="cloud-quota")
    return CloudError(f"the stack {stack} was not finished", why=cause, hint=f"mend what the message names, then {again}", code="stack-failed")
