"""The run of the torch room: source -> fp32 graph -> every method -> fidelity, time, reference answers.

What enters is a request (a plain mapping), what leaves is a plain mapping with files by path; the caller stores them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployctl.compress import graph, inputs, measure, methods, verify
from deployctl.compress.inputs import Rows
from deployctl.compress.model import Model
from deployctl.compress.sources import Source, load
from deployctl.compress.trial import Trial
from deployctl.compress.workbench import Calibration, Feed, Method, Report, Settings, file_digest
from deployctl.core import codec
from deployctl.core.artifact import Artifact, DataType, TensorSpec, Variant
from deployctl.core.fidelity import FloatArray
from deployctl.core.pareto import mark_dominated
from deployctl.core.project import DistillSpec
from deployctl.errors import ModelError

_FEW_LINES = 20
_ANSWERS = 16

Emit = Callable[[str, str], None]  # (step | note | warn, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """The fp32 graph with what variants are compared with."""

    artifact: Artifact
    settings: Settings
    rows: Rows
    judged: Rows  # the part of them that is compared
    trial: Trial
    batched: bool
    kept: dict[tuple[str, str], tuple[Artifact, Report]]  # by parent and step: what is the same in every recipe
    reference: FloatArray  # torch's answers where there is torch, else the source graph's own
    parent: FloatArray  # the fp32 graph's answers


def run(request: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Make, compare and measure every variant that `request["methods"]` names.

    Returns:
        The fields of core's `Compressed`, with `paths`: digest -> file for every content that it names.

    Raises:
        ProjectError, ModelError, MachineError: with the cause, for the person to mend.
    """
    names = list(dict.fromkeys(request["methods"]))
    recipes = {name: methods.recipe(name) for name in names}
    folder = Path(request["work"])
    emit("step", f"loading {request['source']['kind']}:{request['source']['value']}")
    source = load(request, folder)
    base = _base(source, request, folder, emit)
    notes = _sample_notes(base.rows, request)
    made = {name: _variant(name, recipes[name], base, request["gate"], emit) for name in sorted(names, key=_students_first)}
    found = [made[name][0] for name in names]
    answers = {name: made[name][1] for name in names}
    aimed = any(to_gate for _, _, to_gate in made.values())
    sample = folder / "sample.jsonl"
    sample.write_text("".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in base.rows.lines), encoding="utf-8")
    result = _result(source, base, list(mark_dominated(found)), sample, answers, notes)
    result["compressed"]["aimed_at"] = request["gate"] if aimed else None
    return result


def _students_first(name: str) -> bool:
    """Sorts those first that may be refused for the model or the sample, so that nobody waits for the others in vain."""
    return name.split("+")[0] not in methods.FIRST


def _base(source: Source, request: dict[str, Any], folder: Path, emit: Emit) -> _Base:
    sample = Path(request["root"]) / request["sample"] if request.get("sample") else None
    spec = DistillSpec(**request.get("distill", {}))
    settings = Settings(folder=folder, model=source.model, source=source.onnx, distill=spec, say=lambda text: emit("update", text))
    if source.tokenizer is not None and sample is None:
        raise ModelError(
            "a model that takes text needs a sample",
            why="fidelity and time are measured on texts like yours",
            hint="write some 50 texts, one a line, and name the file in deploy.yaml: model: {sample: samples.jsonl}",
            code="sample-missing",
        )
    first = methods.load(methods.BASE)
    if source.onnx is not None:
        emit("step", "reading the ONNX graph")
        artifact, report = first(source.artifact, settings, Calibration(feeds=()))
        rows, batched = _rows(settings.path(artifact), sample, source.tokenizer)
        ask = verify.asker(graph.session(settings.path(artifact)))
    else:
        assert source.model is not None
        emit("step", "exporting to ONNX")
        feed, raw = _example(source, sample)
        artifact, report = first(source.artifact, settings, Calibration(feeds=(feed,)))
        rows, batched = (raw, True) if raw is not None else _rows(settings.path(artifact), sample, None, example=feed)
        ask = _torch_asker(source.model)
    emit("note", report.summary)
    judged, others = verify.split(rows)
    reference = verify.flat(verify.alone(ask, judged))
    parent = reference
    if source.model is not None and source.onnx is None:
        parent = verify.flat(verify.alone(verify.asker(graph.session(settings.path(artifact))), judged))
    trial = Trial(others, judged, artifact, settings, request["gate"])
    return _Base(
        artifact=artifact,
        settings=settings,
        rows=rows,
        judged=judged,
        trial=trial,
        batched=batched,
        kept={},
        reference=reference,
        parent=parent,
    )


def _rows(path: Path, sample: Path | None, tokenizer: Path | None, *, example: Feed | None = None) -> tuple[Rows, bool]:
    specs, _, batched = graph.tensors(path)
    if tokenizer is not None:
        assert sample is not None
        return inputs.text_rows(sample, tokenizer, specs), batched
    if any(s.dtype == "BYTES" for s in specs):
        raise ModelError(
            "the graph takes strings and there is no tokenizer",
            hint="name a tokenizer.json in deploy.yaml: model: {tokenizer: tokenizer.json}, or export a graph that takes numbers",
            code="onnx-type",
        )
    rows = inputs.number_rows(sample, specs, batched=batched)
    if sample is None and example is not None:
        rows.arrays = [{name: np.asarray(example[name])[:1] for name in rows.arrays[0]}]
        maps = {s.name: {"dtype": s.dtype, "shape": list(v.shape), "data": v.ravel().tolist()} for s in specs for v in [rows.arrays[0][s.name]]}
        rows.lines = [{"size": rows.sizes[0], "inputs": maps}]
    return rows, batched


def _example(source: Source, sample: Path | None) -> tuple[Feed, Rows | None]:
    """What to trace with: two rows at least, since one would be taken for a constant."""
    model = source.model
    assert model is not None
    if source.tokenizer is not None:
        assert sample is not None
        rows = inputs.text_rows(sample, source.tokenizer, _text_inputs(model))
        return rows.feed([0, min(1, len(rows.sizes) - 1)]), rows
    given = model.example_inputs
    named = dict(given.items()) if hasattr(given, "items") else {f"INPUT{i}": v for i, v in enumerate(given)}
    if not named:
        raise ModelError(
            "the model has neither a tokenizer nor example inputs",
            hint="return Model(module=…, example_inputs={name: tensor})",
            code="model-build-failed",
        )
    feed = {name: np.asarray(v.detach().cpu().numpy()) for name, v in named.items()}
    return {name: np.concatenate([v, v]) if v.shape[0] == 1 else v for name, v in feed.items()}, None


def _text_inputs(model: Model) -> tuple[TensorSpec, ...]:
    """The tokenizer's tensors that forward() takes, by its signature."""
    import inspect

    names = ("input_ids", "attention_mask", "token_type_ids")
    parameters = inspect.signature(model.module.forward).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    taken = [n for n in names if n in parameters or (open_ended and not set(names) & set(parameters))]
    dtype: DataType = "INT64"
    return tuple(TensorSpec(name=n, dtype=dtype, shape=(-1,)) for n in taken)


def _torch_asker(model: Model) -> verify.Ask:
    """PyTorch itself as the reference, with pooling done once more in numpy: a check of the export and of the graph's pooling."""
    import torch

    from deployctl.compress.methods import fp32

    module = fp32.wrapped(model)

    def ask(feed: inputs.Arrays) -> dict[str, Any]:
        with torch.no_grad():
            try:
                out = module({k: torch.from_numpy(v) for k, v in feed.items()})
            except Exception as error:  # whatever the user's forward raises
                raise fp32.explained(error) from error
        values = [out] if isinstance(out, torch.Tensor) else list(out)
        arrays = [v.numpy() for v in values]
        if model.pooling:
            arrays = [pooled(arrays[0], feed.get("attention_mask"), model)]
        return {str(i): v for i, v in enumerate(arrays)}

    return ask


def pooled(hidden: Any, mask: Any, model: Model) -> Any:
    """Pooling as the graph does it, in numpy, for comparison."""
    if model.pooling == "cls":
        vectors = hidden[:, 0]
    else:
        kept = mask[..., None].astype(hidden.dtype)
        vectors = (hidden * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1e-9)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9) if model.normalize else vectors


def _variant(name: str, recipe: methods.Recipe, base: _Base, gate: float, emit: Emit) -> tuple[Variant, Path, bool]:
    """A variant, its answers, and whether the gate decided how it was made."""
    emit("step", f"variant {name}")
    artifact, calibrated, aimed = base.artifact, False, False
    for place, (step, method) in enumerate(recipe):
        artifact, report = _made(step, method, artifact, [m for _, m in recipe[place + 1 :]], base)
        calibrated = calibrated or report.calibrated
        aimed = aimed or (report.calibrated and not report.any_gate)
        emit("note", report.summary)
        for note in report.notes:
            emit("warn", f"{step}: {note}")
    if calibrated and base.trial.shared:
        emit("warn", f"{name}: it was fitted to the rows that it is judged by; {verify.MOST_JUDGED + 40} lines of sample keep them apart")
    against = base.parent if recipe else base.reference
    ask = verify.asker(graph.session(base.settings.path(artifact)))
    emit("update", "comparing answers")
    neighbours = base.rows.pads
    fidelity = verify.fidelity(ask, base.judged, against, gate=gate, neighbours=neighbours, batched=base.batched)
    emit("update", "measuring time")
    latency = measure.latency(ask, base.rows, batched=base.batched)
    steps = (methods.BASE, *(step for step, _ in recipe))
    variant = Variant(name=name, steps=steps, artifact=artifact, fidelity=fidelity, latency=latency, device=measure.device())
    return variant, _reference_answers(name, ask, base), aimed


def _made(step: str, method: Method, artifact: Artifact, later: list[Method], base: _Base) -> tuple[Artifact, Report]:
    """One step; a student that two recipes begin with is trained once."""
    known = base.kept.get((artifact.digest, step))
    if known is not None:
        return known
    made = method(artifact, base.settings, base.trial.calibration(later))
    if made[1].any_gate:
        base.kept[artifact.digest, step] = made
    return made


def _reference_answers(name: str, ask: verify.Ask, base: _Base) -> Path:
    """What a server must answer to the sample's first lines, each asked alone."""
    path = base.settings.folder / f"answers-{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(min(len(base.rows.sizes), _ANSWERS)):
            outputs = ask(base.rows.feed([row]))
            file.write(json.dumps({"outputs": {k: np.asarray(v).ravel().tolist() for k, v in outputs.items()}}) + "\n")
    return path


def _sample_notes(rows: Rows, request: dict[str, Any]) -> tuple[str, ...]:
    count = len(rows.sizes)
    if not request.get("sample"):
        return ("there is no sample: fidelity and time were measured on one made-up request and say little; add model.sample",)
    if count < _FEW_LINES:
        return (f"the sample has {count} lines: bounds on so few say little; {_FEW_LINES} or more are better",)
    if count == inputs.MOST_ROWS:
        return (f"only the first {count} lines of the sample are used",)
    return ()


def _result(source: Source, base: _Base, variants: list[Variant], sample: Path, answers: dict[str, Path], notes: tuple[str, ...]) -> dict[str, Any]:
    paths: dict[str, str] = {}

    def named(path: Path) -> str:
        digest = file_digest(path)
        paths[digest] = str(path)
        return digest

    for variant in variants:
        home = base.settings.path(variant.artifact).parent
        paths.update({f.digest: str(home / f.path) for f in variant.artifact.files})
    sizes = sorted(set(base.rows.sizes))
    data: dict[str, Any] = {
        "variants": [codec.to_data(v) for v in variants],
        "batched": base.batched,
        "sample": named(sample),
        "answers": {name: named(path) for name, path in answers.items()},
        "size_rule": codec.to_data(base.rows.rule),
        "sizes": {str(s): base.rows.sizes.count(s) for s in sizes},
        "depends": source.depends,
        "notes": list(notes),
    }
    if source.tokenizer is not None:
        size = source.tokenizer.stat().st_size
        data["tokenizer"] = {"path": "tokenizer.json", "digest": named(source.tokenizer), "size_bytes": size, "executable": False}
    return {"compressed": data, "paths": paths}
