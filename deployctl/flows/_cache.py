"""Results keyed by the digest of their inputs, as files under `.deployctl/cache`. A damaged or half-known record is no record."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeVar

from deployctl.config import files
from deployctl.core import codec
from deployctl.errors import ProjectError

T = TypeVar("T")


def read(cls: type[T], folder: Path, kind: str, key: Any) -> T | None:
    """The record that was written for this key, None without one."""
    path = _path(folder, kind, key)
    with contextlib.suppress(FileNotFoundError, ProjectError):
        return codec.loads(cls, path.read_text(encoding="utf-8"), where=str(path))
    return None


def write(folder: Path, kind: str, key: Any, record: Any) -> None:
    """Store a record for this key, whole or not at all."""
    files.replace(_path(folder, kind, key), codec.dumps(record).encode())


def _path(folder: Path, kind: str, key: Any) -> Path:
    return folder / kind / f"{codec.digest(key).removeprefix('sha256:')}.json"
