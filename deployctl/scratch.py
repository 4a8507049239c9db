"""Folders for work under way: gone when the work ends, and after a kill at the next work of its kind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def new(home: Path) -> Path:
    """A fresh folder in `home`, named after this process; those of processes that have ended are removed. The caller removes it."""
    home.mkdir(parents=True, exist_ok=True)
    for left in home.iterdir():
        pid = left.name.partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
    made = home / f"{os.getpid()}-{secrets.token_hex(4)}"
    made.mkdir()
    return made


@contextlib.contextmanager
def folder(home: Path) -> Iterator[Path]:
    """The same for the length of a `with` block."""
    made = new(home)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
