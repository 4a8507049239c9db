"""Results keyed by the digest of their inputs, as files under `.deployctl/cache`. A damaged or half-known record is no record.

What depends on a bundle lies in a folder of that bundle's name, so that `gc` knows whose it is: a digest of inputs does not tell.
"""

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
    return folder / name(kind, key)


def name(kind: str, key: Any) -> str:
    """Where the record of this key lies in the cache: `proof/BUNDLE/KEY.json`, or `compress/KEY.json` where no bundle is in the key."""
    bundle = key.get("bundle") if isinstance(key, dict) else None
    return "/".join([kind, *([_hex(bundle)] if bundle else []), f"{_hex(codec.digest(key))}.json"])


def bundle_of(name: str) -> str | None:
    """Digest of the bundle that a record of this name depends on, None where it depends on none."""
    parts = name.split("/")
    return f"sha256:{parts[1]}" if len(parts) == 3 else None


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
