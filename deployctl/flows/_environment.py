"""A Python model's own packages as one file by digest: a folder of packages enters, a relocatable environment leaves.

The archive is what Triton's Python backend takes as EXECUTION_ENV_PATH: it unpacks it beside its other temporary files and sources
`bin/activate`, which makes a virtual environment around whichever `python3` is there, whose packages stay visible behind ours.
Refuses to know pip: the folder is what `pip install --target FOLDER -r requirements.txt` makes for the server's Python version.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tarfile
from pathlib import Path

from deployctl import scratch, share
from deployctl.core.artifact import FileRef
from deployctl.core.bundle import Bundle
from deployctl.core.packaging import ENVIRONMENT
from deployctl.core.project import Project
from deployctl.errors import ModelError, ProjectError
from deployctl.flows import _cache
from deployctl.ports import Toolbox

KIND = "environment"  # of a record in the cache
_PACKAGES = "lib/site-packages"


def added(bundle: Bundle, project: Project, tools: Toolbox) -> Bundle:
    """The bundle with `model.environment` beside each of its Python models; unchanged where the project names none.

    Raises:
        ProjectError: there is no such folder (`model-not-found`); ModelError: it has links, or no package (`environment-unfit`).
    """
    if project.model.environment is None:
        return bundle
    folder = tools.workspace.root / project.model.environment
    if not folder.is_dir():
        raise ProjectError(
            f"there is no folder {project.model.environment}",
            where="deploy.yaml: model.environment",
            hint=f"pip install --target {project.model.environment} -r requirements.txt",
            code="model-not-found",
        )
    blob = _packed(folder, tools)
    files = [dataclasses.replace(blob, path=f"{m.name}/{ENVIRONMENT}") for m in bundle.models if m.backend == "python"]
    return dataclasses.replace(bundle, files=tuple(sorted((*bundle.files, *files), key=lambda f: f.path)))


def _packed(folder: Path, tools: Toolbox) -> FileRef:
    """The archive's blob; a folder that looks the same as last time is not packed again."""
    found = share.files(folder)
    if not found:
        raise _unfit(folder, "it has no package in it")
    for name, path in found:
        if path.is_symlink():
            raise _unfit(folder, f"{name} is a link, which would point elsewhere in the server")
    key = {"format": 1, "files": [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in found]}
    known = _cache.read(FileRef, tools.workspace.cache, KIND, key)
    if known is not None and tools.blobs.has(known.digest):
        return known
    with scratch.folder(tools.workspace.state / "environment") as work:
        packed = work / "environment.tar.gz"
        _write(found, packed)
        blob = FileRef(path=ENVIRONMENT, digest=tools.blobs.put_file(packed), size_bytes=packed.stat().st_size)
    _cache.write(tools.workspace.cache, KIND, key, blob)
    return blob


def _write(found: list[tuple[str, Path]], to: Path) -> None:
    """The same files give the same bytes: sorted, no times, no owners."""
    with (
        to.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, "bin/activate", share.text("environment/activate").encode(), executable=True)
        for name, path in sorted(found):
            _add(archive, f"{_PACKAGES}/{name}", path.read_bytes(), executable=os.access(path, os.X_OK))


def _add(archive: tarfile.TarFile, name: str, data: bytes, *, executable: bool) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755 if executable else 0o644
    archive.addfile(entry, io.BytesIO(data))


def _unfit(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"{folder.name} cannot be a model's environment",
        why=why,
        where="deploy.yaml: model.environment",
        hint="make it with pip install --target FOLDER -r requirements.txt, with the Python version of the Triton image",
        code="environment-unfit",
    )
