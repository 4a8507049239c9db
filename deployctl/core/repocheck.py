"""What an existing Triton repository says, and what a person should know about it before it is served.

What enters are the models as read from their config.pbtxt and folders; what leaves are findings. Nothing is changed: the
repository is kept as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployctl.core.artifact import TensorSpec
from deployctl.core.finding import Finding

# Triton's schedulers keep the state of a conversation or the order of an ensemble: batching by time is not theirs.
_UNBATCHED = ("ensemble",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryModel:
    """One model folder.

    Attributes:
        name: of the folder.
        config_name: `name` in config.pbtxt; empty where it says none.
        has_config: whether there is a config.pbtxt.
        backend: backend or platform; empty where Triton would guess it from the files.
        max_batch: largest batch; 0 means that the model does not batch.
        dynamic_batching, sequence_batching, warmup: whether config.pbtxt has such a part.
        instances: copies over all instance groups; 0 where it says nothing.
        versions: numeric version folders.
        inputs, outputs: tensors as config.pbtxt states them.
        steps: model names of an ensemble's steps.
    """

    name: str
    config_name: str = ""
    has_config: bool = True
    backend: str = ""
    max_batch: int = 0
    dynamic_batching: bool = False
    sequence_batching: bool = False
    warmup: bool = False
    instances: int = 0
    versions: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    steps: tuple[str, ...] = ()


def entry(models: tuple[RepositoryModel, ...]) -> str | None:
    """The model that requests go to: the only ensemble, or the only model; None where a person has to say."""
    ensembles = [m.name for m in models if m.steps]
    if len(ensembles) == 1:
        return ensembles[0]
    return models[0].name if len(models) == 1 else None


def findings(models: tuple[RepositoryModel, ...]) -> list[Finding]:
    """Every finding, model by model, the grave ones of a model first."""
    known = {m.name for m in models}
    found: list[Finding] = []
    for model in models:
        rows = [*_broken(model, known), *_slow(model)]
        found += rows or [
            Finding(name=model.name, severity="ok", message=f"{model.backend or 'backend chosen by Triton'}, batches up to {model.max_batch}")
        ]
    return found


def _broken(model: RepositoryModel, known: set[str]) -> list[Finding]:
    rows = []
    if not model.has_config:
        rows.append(_row(model, "fail", "there is no config.pbtxt", f"write {model.name}/config.pbtxt: its tensors decide what can be called"))
    if not model.versions:
        remedy = f"create {model.name}/1/ (for an ensemble an empty folder with a .keep file, which git and S3 preserve)"
        rows.append(_row(model, "fail", "there is no version folder, so Triton would not load it", remedy))
    if model.config_name and model.config_name != model.name:
        rows.append(_row(model, "fail", f"config.pbtxt names it {model.config_name!r}", f'write name: "{model.name}", or rename the folder'))
    missing = sorted(set(model.steps) - known)
    if missing:
        rows.append(
            _row(model, "fail", f"its steps name models that are not here: {', '.join(missing)}", "add them to the repository, or correct the steps")
        )
    return rows


def _slow(model: RepositoryModel) -> list[Finding]:
    if not model.has_config or model.steps or model.backend in _UNBATCHED:
        return []
    rows = []
    if model.max_batch > 1 and not (model.dynamic_batching or model.sequence_batching):
        rows.append(
            _row(model, "warn", "it may batch, but has no dynamic_batching: each request runs alone", "add dynamic_batching { } to config.pbtxt")
        )
    if model.max_batch == 0:
        rows.append(
            _row(model, "warn", "max_batch_size is 0: requests never share a run", "state max_batch_size if the model takes a batch dimension")
        )
    if not model.warmup:
        rows.append(
            _row(model, "warn", "it has no warm-up: the first requests of each start are slow", "add model_warmup with one batch of each usual size")
        )
    return rows


def _row(model: RepositoryModel, severity: Literal["warn", "fail"], message: str, remedy: str) -> Finding:
    return Finding(name=model.name, severity=severity, message=message, remedy=remedy, where=f"{model.name}/config.pbtxt")
