"""Finds what somebody else's process runs (infra/, model_repo/, loadtests/): beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

from deployctl.errors import Bug

_HERE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder `infra`, `model_repo` or `loadtests`.

    Raises:
        Bug: the installation is not whole (`share-missing`).
    """
    for candidate in (_HERE / "_share" / name, _HERE.parent / name):
        if candidate.is_dir():
            return candidate
    raise Bug(f"the folder {name} is missing from this installation", hint="install deployctl again", code="share-missing")


def package(name: str) -> Path:
    """A file or folder of this package itself, such as `core`."""
    return _HERE / name


def text(path: str) -> str:
    """A text file of `deployctl/templates`, such as `kube/fetch.py`.

    Raises:
        Bug: the installation is not whole (`share-missing`).
    """
    file = _HERE / "templates" / path
    if not file.is_file():
        raise Bug(f"the file templates/{path} is missing from this installation", hint="install deployctl again", code="share-missing")
    return file.read_text(encoding="utf-8")


def files(root: Path) -> list[tuple[str, Path]]:
    """Every file below `root` as (relative path, file), sorted, without Python's caches: what a digest may cover."""
    found = ((p.relative_to(root).as_posix(), p) for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc")
    return sorted(found)
