"""Sources that are served as they are: an existing Triton repository, or an engine that was built elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from deployctl import share
from deployctl.core import codec, packaging, repocheck
from deployctl.core import sample as samples
from deployctl.core.artifact import FileRef, TensorSpec
from deployctl.core.bundle import Bundle, SizeRule
from deployctl.core.project import Project
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.errors import ModelError, ProjectError
from deployctl.ports import Progress, Toolbox

_ENGINE_FILES = {"tensorrt": "model.plan", "pytorch": "model.pt", "onnxruntime": "model.onnx", "tensorrtllm": "engine.bin"}


def existing_bundle(project: Project, tools: Toolbox, progress: Progress) -> Bundle:
    """The bundle of a `triton:` or `opaque:` source.

    Raises:
        ProjectError: the folder or file is missing (`model-not-found`); ModelError: it cannot be served (`repository-unfit`).
    """
    root = tools.workspace.root
    path = root / project.model.value
    if not path.exists():
        raise ProjectError(
            f"there is no {project.model.value}", where="deploy.yaml: model.source", hint="correct the path after the colon", code="model-not-found"
        )
    if project.model.kind == "triton":
        models, files = _repository(path, tools, progress)
        entry = _entry(models)
    else:
        models, files = (_engine_folder if path.is_dir() else _engine)(project.name, path, tools)
        entry = models[0]
    sample, rule = _sample(project, root, entry, tools)
    return Bundle(
        name=project.name,
        entry=entry.name,
        variant="as-is",
        models=models,
        files=tuple(sorted(files, key=lambda f: f.path)),
        size_rule=rule,
        sample=sample,
    )


def _repository(root: Path, tools: Toolbox, progress: Progress) -> tuple[tuple[ModelSpec, ...], list[FileRef]]:
    """Every file as it is; config.pbtxt is parsed, kept, and the base of what is served."""
    models: list[tuple[str, ModelSpec]] = []  # the folder's name, and what its config says
    files: list[FileRef] = []
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    for folder in folders:
        config = folder / "config.pbtxt"
        if not config.is_file():
            raise ModelError(
                f"the model {folder.name} has no config.pbtxt",
                why="its tensors are not known without one",
                where=str(folder.relative_to(tools.workspace.root)) if folder.is_relative_to(tools.workspace.root) else str(folder),
                hint="write one; a running Triton shows the effective one under /v2/models/NAME/config",
                code="repository-unfit",
            )
        spec = tools.repository.parse(config.read_text(encoding="utf-8"), where=f"{root.name}/{folder.name}/config.pbtxt")
        models.append((folder.name, spec))
        found = share.files(folder)
        files += [_ref(f"{folder.name}/{name}", p, tools) for name, p in found]
        if spec.backend == "onnxruntime":
            twin = share.folder("model_repo") / "onnx_python" / "1" / "model.py"
            versions = {name.partition("/")[0] for name, p in found if p.name == "model.onnx"}
            files += [_ref(f"{folder.name}/{version}/model.py", twin, tools) for version in versions]
    if not models:
        raise ModelError(f"{root.name} has no model in it", hint="name the folder that holds the models' folders", code="repository-unfit")
    _report(models, root, progress)
    order = sorted((dataclasses.replace(m, name=name) for name, m in models), key=lambda m: bool(m.ensemble_steps))
    return tuple(order), files


def _report(models: list[tuple[str, ModelSpec]], root: Path, progress: Progress) -> None:
    rows = []
    for folder, m in models:
        versions = tuple(sorted(p.name for p in (root / folder).iterdir() if p.is_dir() and p.name.isdigit()))
        rows.append(
            repocheck.RepositoryModel(
                name=folder,
                config_name=m.name,
                backend=m.backend,
                max_batch=m.serving.max_batch,
                dynamic_batching=m.tunable,
                warmup=bool(m.serving.warmup_batches),
                instances=m.serving.instances,
                versions=versions,
                inputs=m.inputs,
                outputs=m.outputs,
                steps=tuple(s.model for s in m.ensemble_steps),
            )
        )
    for finding in repocheck.findings(tuple(rows)):
        if finding.severity == "fail":
            raise ModelError(f"{finding.name}: {finding.message}", hint=finding.remedy, code="repository-unfit", where=finding.where)
        if finding.severity == "warn":
            progress.warn(f"{finding.name}: {finding.message} ({finding.remedy})")


def _ref(name: str, path: Path, tools: Toolbox) -> FileRef:
    return FileRef(path=name, digest=tools.blobs.put_file(path), size_bytes=path.stat().st_size)


def _entry(models: tuple[ModelSpec, ...]) -> ModelSpec:
    ensembles = [m for m in models if m.ensemble_steps]
    if len(ensembles) == 1:
        return ensembles[0]
    if len(models) == 1:
        return models[0]
    raise ModelError(
        f"it is not clear which of {', '.join(m.name for m in models)} takes the requests",
        hint="point model.source at a repository with one model or one ensemble",
        code="repository-unfit",
    )


def _engine(name: str, path: Path, tools: Toolbox) -> tuple[tuple[ModelSpec, ...], list[FileRef]]:
    """An engine described by a JSON file: `{"file", "backend", "max_batch", "inputs": [{"name", "dtype", "shape"}], "outputs": …}`."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        engine = path.parent / data["file"]
        spec = ModelSpec(
            name=name,
            backend=data["backend"],
            inputs=tuple(codec.from_data(TensorSpec, t) for t in data["inputs"]),
            outputs=tuple(codec.from_data(TensorSpec, t) for t in data["outputs"]),
            serving=ServingConfig(max_batch=int(data.get("max_batch", 1))),
            parameters={str(k): str(v) for k, v in data.get("parameters", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path.name} does not describe an engine",
            why=f"{type(error).__name__}: {error}",
            where=path.name,
            hint='write {"file": "model.plan", "backend": "tensorrt", "max_batch": 8, "inputs": [{"name", "dtype", "shape"}], "outputs": […]}',
            code="engine-invalid",
        ) from error
    return (spec,), [_ref(f"{name}/1/{_ENGINE_FILES.get(spec.backend, engine.name)}", engine, tools)]


def _engine_folder(name: str, folder: Path, tools: Toolbox) -> tuple[tuple[ModelSpec, ...], list[FileRef]]:
    """An engine's own folder (vLLM: `model.json` and weights; TensorRT-LLM: engines, `config.json`, `config.pbtxt`), as one model's version.

    `${MODEL_DIR}` in `model.json` and `config.pbtxt` becomes the folder that a pod has it in, since engines want absolute paths.

    Raises:
        ModelError: no config.pbtxt and none can be written for it, or weights that are not in the folder (`engine-invalid`).
    """
    found = dict(share.files(folder))
    text = found["config.pbtxt"].read_text("utf-8") if "config.pbtxt" in found else packaging.engine_config(name, set(found))
    if text is None:
        raise ModelError(
            f"{folder.name} does not say how it is served",
            why="it has neither config.pbtxt nor vLLM's model.json",
            hint="put the engine's config.pbtxt beside its files; ${MODEL_DIR} in it stands for their folder",
            code="engine-invalid",
        )
    text = text.replace(packaging.MODEL_DIR, packaging.model_dir(name))
    spec = dataclasses.replace(tools.repository.parse(text, where=f"{folder.name}/config.pbtxt"), name=name, tunable=False)
    files = [FileRef(path=f"{name}/config.pbtxt", digest=tools.blobs.put_bytes(text.encode()), size_bytes=len(text.encode()))]
    for relative, path in found.items():
        if relative == "model.json":
            data = _engine_arguments(name, folder, path).encode()
            files.append(FileRef(path=f"{name}/1/{relative}", digest=tools.blobs.put_bytes(data), size_bytes=len(data)))
        elif relative != "config.pbtxt":
            files.append(_ref(f"{name}/1/{relative}", path, tools))
    return (spec,), files


def _engine_arguments(name: str, folder: Path, path: Path) -> str:
    """VLLM's `model.json` for the pod. Weights by a hub's name would be another content at any time, and are refused."""
    try:
        text = path.read_text("utf-8")
        weights = str(json.loads(text)["model"])
    except (ValueError, KeyError, TypeError) as error:
        why, weights = f"{path.name}: {type(error).__name__}: {error}", ""
    else:
        why = f"model.json names {weights!r}"
    inside = weights.removeprefix(packaging.MODEL_DIR).strip("/")
    if not weights.startswith(packaging.MODEL_DIR) or not (folder / inside).is_dir():
        raise ModelError(
            "the engine's weights are not in its folder, so no digest pins them",
            why=why,
            where=f"{folder.name}/model.json",
            hint='put the weights beside it and write {"model": "${MODEL_DIR}/weights", …}',
            code="engine-invalid",
        )
    return text.replace(packaging.MODEL_DIR, packaging.model_dir(name))


def _sample(project: Project, root: Path, entry: ModelSpec, tools: Toolbox) -> tuple[str, SizeRule]:
    """The sample in wire form, or one request of zeros."""
    batched = entry.serving.max_batch > 0
    if project.model.sample is None:
        maps = [samples.zeros(entry.inputs, batched=batched)]
    else:
        path = root / project.model.sample
        if not path.is_file():
            raise ProjectError(
                f"there is no file {project.model.sample}", where="deploy.yaml: model.sample", hint="correct the path", code="model-not-found"
            )
        lines = path.read_text(encoding="utf-8").split("\n")
        maps = [
            samples.inputs_of(line, entry.inputs, batched=batched, where=f"{path.name}:{n}") for n, line in enumerate(lines, start=1) if line.strip()
        ]
    varying = next(((t.name, axis + int(batched)) for t in entry.inputs if t.dtype != "BYTES" for axis, d in enumerate(t.shape) if d < 0), None)
    sizes = [1 if varying is None else int(m[varying[0]]["shape"][varying[1]]) for m in maps]
    text = "".join(json.dumps({"size": s, "inputs": m}, sort_keys=True, ensure_ascii=False) + "\n" for s, m in zip(sizes, maps, strict=True))
    rule = SizeRule() if varying is None else SizeRule(unit="elements", step=1, maximum=max(sizes))
    return tools.blobs.put_bytes(text.encode()), rule
