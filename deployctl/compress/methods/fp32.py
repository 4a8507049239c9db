"""From torch to ONNX in full precision; for a source that is ONNX already, the graph as it is.

The batch dimension varies, and so does the sequence where the inputs are tokens. Pooling goes into the graph, so that one
request gives one vector. Nothing is accepted before ONNX Runtime has loaded it: PyTorch's exporter can name an output like an
inner value and still report success.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployctl.compress import graph
from deployctl.compress.model import Model
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact
from deployctl.errors import ModelError

OPSET = 18


def export(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Make the ONNX graph that every other method starts from."""
    folder = settings.scratch("fp32")
    main = folder / "model.onnx"
    if settings.source is not None:
        _copy_source(settings.source, main)
        summary = "the ONNX graph as it is"
    else:
        assert settings.model is not None
        _export_torch(settings.model, calibration, main)
        summary = f"exported from torch, opset {OPSET}"
    model = settings.model
    if model is not None and model.pooling:
        graph.add_pooling(main, main, pooling=model.pooling, normalize=model.normalize)
        summary += f", {model.pooling} pooling"
    graph.session(main)
    return settings.adopt(main, parent=artifact.digest), Report(summary=summary)


def _copy_source(source: Path, main: Path) -> None:
    model = graph.load(source, weights=False)
    shutil.copyfile(source, main)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not (main.parent / entry.value).exists():
                shutil.copyfile(source.parent / entry.value, main.parent / entry.value)


def _export_torch(model: Model, calibration: Calibration, main: Path) -> None:
    """Export, then load; an output name that collides with an inner value is found by loading, and left to the exporter."""
    import torch

    feed = {name: torch.from_numpy(value) for name, value in calibration.feeds[0].items()}
    module = wrapped(model)
    try:
        names = _output_names(module, feed, model)
        _write(module, feed, main, tokens=model.tokenizer is not None, names=names)
    except Exception as error:  # the exporter raises whatever the user's forward raises, and a dozen classes of its own
        raise explained(error) from error
    try:
        graph.session(main)
    except ModelError:
        _write(module, feed, main, tokens=model.tokenizer is not None, names=None)


def _write(module: Any, feed: dict[str, Any], main: Path, *, tokens: bool, names: list[str] | None) -> None:
    import torch

    size = sum(p.numel() * p.element_size() for p in module.parameters())
    torch.onnx.export(
        module,
        args=(),
        kwargs={"feed": feed},
        f=str(main),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes={"feed": {name: _varying(value, tokens=tokens) for name, value in feed.items()}},
        input_names=list(feed),
        output_names=names,
        external_data=size > graph.EMBED_LIMIT_BYTES,
        verbose=False,
    )


def _output_names(module: Any, feed: dict[str, Any], model: Model) -> list[str]:
    import torch

    if model.pooling:
        return ["deployctl_hidden"]
    with torch.no_grad():
        out = module.inner_outputs(feed)
    if isinstance(out, dict):
        return [str(k) for k, v in out.items() if isinstance(v, torch.Tensor)]
    tensors = [out] if isinstance(out, torch.Tensor) else [v for v in out if isinstance(v, torch.Tensor)]
    return [f"OUTPUT{i}" for i in range(len(tensors))]


def explained(error: BaseException) -> ModelError:
    """A failure inside PyTorch or the user's forward, with the cause and the user's own line."""
    cause = _root(error)
    return ModelError(
        "PyTorch could not run or export the model",
        why=f"{type(cause).__name__}: {(str(cause).strip().splitlines() or ['no message'])[0][:300]}",
        where=_user_line(cause),
        hint="make forward() accept its example and free of branches on tensor values, or export an ONNX file and use model.source: onnx:FILE",
        code="export-failed",
    )


def wrapped(model: Model) -> Any:
    """The user's module behind a forward that takes a map of tensors and returns tensors only."""
    import torch

    by_name = isinstance(model.example_inputs, Mapping) or model.tokenizer is not None

    class Wrapped(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.inner = model.module

        def inner_outputs(self, feed: dict[str, Any]) -> Any:
            return self.inner(**feed) if by_name else self.inner(*feed.values())

        def forward(self, feed: dict[str, Any]) -> Any:
            out = self.inner_outputs(feed)
            if isinstance(out, torch.Tensor):
                return out
            values = list(out.values()) if isinstance(out, dict) else list(out)
            return values[0] if model.pooling else tuple(v for v in values if isinstance(v, torch.Tensor))

    return Wrapped().eval().cpu()


def _varying(value: Any, *, tokens: bool) -> dict[int, Any]:
    import torch

    return {0: torch.export.Dim.DYNAMIC, **({1: torch.export.Dim.DYNAMIC} if tokens and value.dim() > 1 else {})}


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _user_line(error: BaseException) -> str | None:
    """The innermost line that is neither ours nor a library's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename and "/deployctl/" not in f.filename]
    own = [f for f in frames if not f.filename.startswith("<") and "/lib/python3" not in f.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None
