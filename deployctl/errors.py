"""The error tree: what enters is a failure seen anywhere, what leaves is something a person can act on.

Every error says what happened, why, where, and the next command. Children are named by who can fix it. SDK errors are
turned into these inside the adapter that met them, with the cause chained. This module refuses to know any SDK.

`code` is a stable slug that `deployctl explain CODE` expands offline (see `cli/_codes.py`).
"""

from __future__ import annotations

import errno
from typing import Any


class DeployctlError(Exception):
    """Base of all errors that deployctl raises on purpose.

    Args:
        message: What happened, in one sentence, with the offending value.
        code: Stable slug such as `config-unknown-key`; the key of the explanation.
        hint: What to do next, as a sentence or a command.
        why: The cause, when it is known and is not the message itself.
        where: `file:line:column` or another address of the thing to mend.
        exit_code: Overrides the class's process exit code (design section 4).
    """

    exit_code: int = 1
    default_code: str = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        code: str | None = None,
        why: str | None = None,
        where: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        self.why = why
        self.where = where
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class ProjectError(DeployctlError):
    """Your files: deploy.yaml, platform.yaml, a lock, a flag. Exit 2."""

    exit_code = 2
    default_code = "config-invalid"


class ModelError(DeployctlError):
    """Your model: it does not import, export, load or answer. Exit 1."""

    exit_code = 1
    default_code = "model-invalid"


class MachineError(DeployctlError):
    """This machine: a missing package, a taken port, a full disk, an unsupported interpreter. Exit 1."""

    exit_code = 1
    default_code = "machine-unfit"


def from_disk(error: OSError, where: object = None) -> MachineError | None:
    """What the disk said, with its remedy: it is full, or may not be written; None for everything else.

    Args:
        error: as the operating system raised it.
        where: the file or folder, where the error does not name it.
    """
    place = error.filename or where or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MachineError(
            f"the disk is full: {place} could not be written",
            why=error.strerror,
            hint="free some space (.deployctl/ may be deleted while nothing runs) and run the same command again",
            code="disk-full",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return MachineError(
            f"{place} cannot be written",
            why=error.strerror,
            hint="make the folder writable for you, or work in another one with -C DIR",
            code="folder-not-writable",
        )
    return None


class ClusterError(DeployctlError):
    """The place where the service runs: a replica that does not start, a cluster that refuses. Exit 4."""

    exit_code = 4
    default_code = "cluster-failed"


class CloudError(DeployctlError):
    """The cloud account or the object store. Exit 4."""

    exit_code = 4
    default_code = "cloud-failed"


class Refused(DeployctlError):
    """A rule of the product: unproven on this device, a release on hold, a breached limit. Exit 5."""

    exit_code = 5
    default_code = "refused"


class NotFound(DeployctlError):
    """Nothing of that name: a service, a release, a replica, a file in a store. Exit 6."""

    exit_code = 6
    default_code = "not-found"


class LockHeld(DeployctlError):
    """Another deployctl is changing the same thing; the message names who. Exit 12."""

    exit_code = 12
    default_code = "lock-held"


class SloUnreachable(DeployctlError):
    """No setting keeps the SLO: by forecast exit 96, no variant passes the fidelity gate 97, missed under load 99."""

    exit_code = 96
    default_code = "slo-infeasible"
    candidates: tuple[Any, ...] = ()  # `core.sizing.Estimate`: all that was judged by forecast, the nearest to the SLO first


class NotConverged(DeployctlError):
    """The change was begun and did not reach its end in time; it says what goes on. Exit 9."""

    exit_code = 9
    default_code = "not-converged"


class RolledBack(DeployctlError):
    """The change failed and the former release serves again. Exit 10."""

    exit_code = 10
    default_code = "rolled-back"


class Bug(DeployctlError):
    """A broken promise of our own code. Exit 255."""

    exit_code = 255
    default_code = "bug"
