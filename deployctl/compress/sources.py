"""A model source as something to compress: user code is imported here and nowhere else."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployctl.compress import graph
from deployctl.compress.model import Model
from deployctl.compress.workbench import file_digest
from deployctl.core.artifact import Artifact
from deployctl.errors import DeployctlError, MachineError, ModelError, ProjectError

EXTRA_HINT = "pip install 'deployctl[compress]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A loaded source: `onnx` is its file, or `model` what the user's function returned."""

    artifact: Artifact
    model: Model | None
    onnx: Path | None
    tokenizer: Path | None
    depends: dict[str, str]


def load(request: dict[str, Any], scratch: Path) -> Source:
    """Load what `request["source"]` names.

    Raises:
        MachineError: torch or ONNX is not installed; ModelError, ProjectError: the source is missing or wrong.
    """
    source = request["source"]
    root = Path(request["root"])
    _require_onnx()
    if source["kind"] == "onnx":
        return _onnx(source, root)
    return _python(source["value"], root, scratch)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MachineError("compressing needs ONNX, which is not installed here", why=str(error), hint=EXTRA_HINT, code="onnx-missing") from error


def _onnx(source: dict[str, Any], root: Path) -> Source:
    path = root / source["value"]
    if not path.is_file():
        raise ProjectError(
            f"there is no file {source['value']}", where="deploy.yaml: model.source", hint="correct the path after `onnx:`", code="model-not-found"
        )
    inputs, outputs, _ = graph.tensors(path)
    tokenizer = root / source["tokenizer"] if source.get("tokenizer") else None
    if tokenizer is not None and not tokenizer.is_file():
        raise ProjectError(
            f"there is no file {source['tokenizer']}", where="deploy.yaml: model.tokenizer", hint="correct the path", code="model-not-found"
        )
    model = Model(module=None, tokenizer=tokenizer, pooling=source["pooling"]) if source.get("pooling") else None
    artifact = Artifact(stage="onnx", digest=file_digest(path), files=(), inputs=inputs, outputs=outputs)
    return Source(artifact=artifact, model=model, onnx=path, tokenizer=tokenizer, depends={})


def _python(value: str, root: Path, scratch: Path) -> Source:
    _require_torch()
    name, _, attribute = value.partition(":")
    if not name or not attribute:
        raise ProjectError(
            f"python:{value} is no address of a function",
            where="deploy.yaml: model.source",
            hint='write "python:MODULE:FUNCTION", such as "python:my_model:build"',
            code="model-not-found",
        )
    sys.path.insert(0, str(root))
    build = _imported(name, attribute, root)
    try:
        model = build()
    except Exception as error:  # whatever the user's function raises
        _blame_torch(error)
        raise _users(f"{name}.{attribute}() failed", error, root) from error
    if not isinstance(model, Model):
        raise ModelError(
            f"{name}.{attribute}() returned {type(model).__name__}, not a Model",
            where=f"{name}.py",
            hint="return deployctl.compress.Model(module=…, example_inputs=…)",
            code="model-build-failed",
        )
    if model.pooling not in (None, "mean", "cls"):
        raise ModelError(f"there is no pooling {model.pooling!r}", where=f"{name}.py", hint="use mean, cls or None", code="model-build-failed")
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        raise _torch_missing(error) from error
    depends = own_files(root)
    digest = depends.get(_main_file(name, root), "sha256:" + "0" * 64)
    artifact = Artifact(stage="torch", digest=digest, files=(), inputs=(), outputs=())
    return Source(artifact=artifact, model=model, onnx=None, tokenizer=_tokenizer_file(model.tokenizer, root, scratch), depends=depends)


def _require_torch() -> None:
    """Say early that torch is absent; importing it (seconds) is left to the user's module."""
    try:
        present = importlib.util.find_spec("torch") is not None
    except ImportError as error:
        raise _torch_missing(error) from error
    if not present:
        raise _torch_missing(None)


def _torch_missing(error: Exception | None) -> MachineError:
    why = str(error) if error is not None else "no package of that name is installed"
    return MachineError(
        "this model source needs PyTorch, which does not work here"
        if error is not None
        else "this model source needs PyTorch, which is not installed",
        why=why,
        hint=f"{EXTRA_HINT} (5.3 GB)",
        code="torch-missing",
    )


def _blame_torch(error: Exception) -> None:
    """Raise `torch-missing` where an import failed because torch itself does not import (its CUDA libraries are not all there)."""
    if not isinstance(error, (ImportError, OSError)):
        return
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as cause:
        raise _torch_missing(cause) from error


def _imported(name: str, attribute: str, root: Path) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            _blame_torch(error)
            raise _users(f"the module {name} does not import", error, root) from error
        raise ProjectError(
            f"there is no module {name}",
            why=f"neither {name.replace('.', '/')}.py in this folder nor an installed package",
            where="deploy.yaml: model.source",
            hint="correct the name after `python:`, or create the file",
            code="model-not-found",
        ) from error
    except Exception as error:  # whatever the user's module raises while it is imported
        _blame_torch(error)
        raise _users(f"the module {name} does not import", error, root) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ProjectError(
            f"the module {name} has no function {attribute}",
            where="deploy.yaml: model.source",
            hint=f"name one of: {', '.join(k for k, v in vars(module).items() if callable(v) and not k.startswith('_')) or 'none there'}",
            code="model-not-found",
        )
    return function


def _users(message: str, error: Exception, root: Path) -> DeployctlError:
    """The user's error with the innermost line of their own files."""
    if isinstance(error, DeployctlError):
        return error
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(root))]
    where = f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno}" if frames else None
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{Path(error.filename).name}:{error.lineno}"
    lines = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    return ModelError(message, why=why, where=where, hint="correct the model's code and run the command again", code="model-build-failed")


def own_files(root: Path) -> dict[str, str]:
    """The project's own modules that are loaded now, relative path -> digest."""
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not file or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        if path.is_relative_to(root.resolve()) and "site-packages" not in path.parts and path.is_file():
            found[path.relative_to(root.resolve()).as_posix()] = file_digest(path)
    return found


def _main_file(name: str, root: Path) -> str:
    file = getattr(sys.modules[name], "__file__", None) or ""
    path = Path(file).resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else file


def _tokenizer_file(tokenizer: Any, root: Path, scratch: Path) -> Path | None:
    """A `tokenizer.json` of whatever the user gave."""
    if tokenizer is None:
        return None
    if isinstance(tokenizer, (str, Path)):
        path = root / tokenizer
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ModelError(f"there is no file {tokenizer}", hint="give Model(tokenizer=…) the path of a tokenizer.json", code="tokenizer-invalid")
        return path
    inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(inner, "to_str"):
        raise ModelError(
            f"{type(tokenizer).__name__} cannot be saved as a tokenizer.json",
            hint="give Model(tokenizer=…) a fast tokenizer or the path of a tokenizer.json",
            code="tokenizer-invalid",
        )
    limit = getattr(tokenizer, "model_max_length", None)
    if inner.truncation is None and isinstance(limit, int) and limit < 1_000_000:
        inner.enable_truncation(limit)
    path = scratch / "tokenizer.json"
    path.write_text(inner.to_str(), encoding="utf-8")
    return path
