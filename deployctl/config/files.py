"""Files whole or not at all: what enters is a path and bytes, what is left behind is the old file or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from deployctl.errors import MachineError


def replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` by a synced sibling and a rename; the folder is made where it is missing.

    Raises:
        MachineError: the disk is full or the folder may not be written (`file-not-written`); the old file is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise MachineError(
            f"{path.name} cannot be written: {error.strerror or error}",
            code="file-not-written",
            where=str(path),
            hint="free disk space or mend the folder's rights, and repeat the command",
        ) from error


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
