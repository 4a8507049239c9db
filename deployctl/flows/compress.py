"""`compress`: gather what the model is made of, do nothing if that was compressed before, else run the torch room.

The result is keyed by the source's own files, the sample, the methods and the versions of the libraries that do the work. For a
`python:` source that covers every module of the project folder that `build()` loads, not what it reads beside them, such as weight
files: `--force` makes everything anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from deployctl.core import pareto
from deployctl.core.artifact import Variant
from deployctl.core.compressed import Compressed
from deployctl.core.project import Project
from deployctl.errors import ProjectError
from deployctl.flows import _cache
from deployctl.ports import Progress, Toolbox

KINDS = ("python", "onnx")
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "tokenizers", "torch")
_FORMAT = 2  # of what the room makes: raise it when a method changes


def compress(project: Project, tools: Toolbox, progress: Progress, *, force: bool = False) -> tuple[Variant, ...]:
    """All variants that deploy.yaml asks for, made or remembered; empty for a source that is kept as it is."""
    if project.model.kind not in KINDS:
        progress.note(f"a {project.model.kind}: source is served as it is; nothing is compressed")
        return ()
    return compressed(project, tools, progress, force=force).variants


def compressed(project: Project, tools: Toolbox, progress: Progress, *, force: bool = False) -> Compressed:
    """The same with everything that packaging needs.

    Raises:
        ProjectError, ModelError, MachineError: see the port `Compressor`.
    """
    known = None if force else remembered(project, tools)
    if known is None:
        root, cache = tools.workspace.root, tools.workspace.cache
        known = tools.compressor.run(_request(project, root), progress)
        _cache.write(cache, "compress", cache_key(project, root), known)
    else:
        progress.note(f"{len(known.variants)} variants are known for this model and sample (--force makes them again)")
    for note in known.notes:
        progress.warn(note)
    return _gated(known, project.compress.gate)


def remembered(project: Project, tools: Toolbox) -> Compressed | None:
    """What was made before from exactly these files, or None; runs none of the user's code.

    Raises:
        ProjectError: a file that deploy.yaml names is missing (`model-not-found`).
    """
    root, cache = tools.workspace.root, tools.workspace.cache
    known = _cache.read(Compressed, cache, "compress", cache_key(project, root))
    return _gated(known, project.compress.gate) if known is not None and _fresh(known, project, tools) else None


def cache_key(project: Project, root: Path) -> dict[str, Any]:
    """Everything that decides what comes out, as a record that hashes.

    Raises:
        ProjectError: a file that deploy.yaml names is missing (`model-not-found`).
    """
    model = project.model
    files = [f for f in (model.sample, model.tokenizer, model.value if model.kind == "onnx" else None) if f]
    return {
        "format": _FORMAT,
        "source": model,
        "methods": list(project.compress.methods),
        "metric": project.compress.metric,
        "files": {f: _digest(root, f) for f in files},
        "versions": {name: _version(name) for name in _LIBRARIES if model.kind == "python" or name not in ("torch", "onnxscript")},
        "machine": platform.machine(),
        **({"distill": project.compress.distill} if any("distill" in name.split("+") for name in project.compress.methods) else {}),
    }


def _request(project: Project, root: Path) -> dict[str, Any]:
    model = project.model
    source = {"kind": model.kind, "value": model.value, "tokenizer": model.tokenizer, "pooling": model.pooling}
    return {
        "root": str(root),
        "source": source,
        "sample": model.sample,
        "methods": list(project.compress.methods),
        "gate": project.compress.gate,
        "distill": dataclasses.asdict(project.compress.distill),
    }


def _fresh(record: Compressed, project: Project, tools: Toolbox) -> bool:
    """Whether the user's modules are as they were, no method aimed at another gate, and every blob is still here."""
    if record.aimed_at not in (None, project.compress.gate):
        return False
    for name, digest in record.depends.items():
        path = tools.workspace.root / name
        if not path.is_file() or _hash(path) != digest:
            return False
    return all(tools.blobs.has(d) for d in record.digests)


def _gated(record: Compressed, gate: float) -> Compressed:
    """The gate judges what was measured; changing it measures nothing again."""
    variants = tuple(dataclasses.replace(v, fidelity=dataclasses.replace(v.fidelity, gate=gate)) for v in record.variants)
    return dataclasses.replace(record, variants=pareto.mark_dominated(variants))


def _digest(root: Path, name: str) -> str:
    path = root / name
    if not path.is_file():
        raise ProjectError(
            f"there is no file {name}",
            where="deploy.yaml: model",
            why="paths in deploy.yaml are relative to its folder",
            hint="correct the path, or create the file",
            code="model-not-found",
        )
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
