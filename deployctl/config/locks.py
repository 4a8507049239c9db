"""`lock/<env>.lock`: what enters is a path and a Lock, what leaves is the same. Written whole or not at all, as canonical JSON."""

from __future__ import annotations

from pathlib import Path

from deployctl.config.files import replace
from deployctl.core import codec
from deployctl.core.lock import Lock
from deployctl.errors import ProjectError


def read(path: Path, env: str) -> Lock:
    """The lock at `path`; an empty one for `env` where there is no file.

    Raises:
        ProjectError: the file is damaged (`record-damaged`), or belongs to another environment (`lock-other-env`).
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Lock(env=env)
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(
            f"the lock cannot be read: {error}",
            code="record-damaged",
            where=str(path),
            hint=f"restore {path.name} from git, or delete it and run deployctl tune",
        ) from error
    lock = codec.loads(Lock, text, where=str(path))
    if lock.env != env:
        raise ProjectError(
            f"this lock was written for environment {lock.env}, not {env}",
            code="lock-other-env",
            where=str(path),
            hint="restore it from git, or delete it and run deployctl tune",
        )
    return lock


def write(path: Path, lock: Lock) -> None:
    """Write the lock atomically: readers see the old file or the new one, also after a crash or a full disk.

    Raises:
        MachineError: the folder cannot be written (`file-not-written`).
    """
    replace(path, codec.dumps(lock).encode())


__all__ = ["read", "replace", "write"]
