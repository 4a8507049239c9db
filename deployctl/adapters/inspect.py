"""Reads existing models without running them: what enters is an ONNX file or a Triton repository, what leaves are values.

The ONNX graph is read in a process of its own (`python -m deployctl.adapters.inspect FILE`), so that neither a broken file nor a
slow import touches the command line. Refuses to know what init makes of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from deployctl.core.artifact import TensorSpec
from deployctl.core.repocheck import RepositoryModel
from deployctl.errors import MachineError, ModelError

_TIMEOUT_S = 120.0
_NOT_INSTALLED = 3
# onnx's element types by number, and onnxruntime's names of them
_ONNX_TYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}


class FileInspector:
    """The ModelInspector port on files of this machine."""

    def onnx(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of the graph, without the batch dimension; see the port."""
        command = [sys.executable, "-m", "deployctl.adapters.inspect", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"reading {path.name} took longer than {_TIMEOUT_S:g} s", code="onnx-unreadable", hint="check that the file is whole"
            ) from error
        if done.returncode == _NOT_INSTALLED:
            raise MachineError(
                "neither onnx nor onnxruntime is installed, and one of them has to read the graph",
                code="onnx-not-installed",
                hint="pip install 'deployctl[local]'",
            )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"the reader ended with {done.returncode}"])[-1]
            raise ModelError(
                f"{path.name} is not an ONNX model that can be read: {reason[:300]}",
                code="onnx-unreadable",
                hint="export the model again, and name that file",
            )
        data = json.loads(done.stdout)
        inputs, outputs = (tuple(_tensor(row) for row in data[side]) for side in ("inputs", "outputs"))
        return inputs, outputs

    def triton(self, path: Path) -> tuple[RepositoryModel, ...]:
        """Every model folder of the repository, by name; see the port."""
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        models = tuple(_repository_model(folder) for folder in folders if _is_model(folder))
        if not models:
            hint = "name the folder that holds one folder a model, each with config.pbtxt and 1/"
            raise ModelError(f"{path.name} holds no Triton model", code="triton-repository-empty", hint=hint)
        return models


def _is_model(folder: Path) -> bool:
    return (folder / "config.pbtxt").is_file() or bool(_versions(folder))


def _versions(folder: Path) -> tuple[str, ...]:
    names = [p.name for p in folder.iterdir() if p.is_dir() and p.name.isdecimal() and not p.name.startswith("0")]
    return tuple(sorted(names, key=int))


def _repository_model(folder: Path) -> RepositoryModel:
    file = folder / "config.pbtxt"
    if not file.is_file():
        return RepositoryModel(name=folder.name, has_config=False, versions=_versions(folder))
    import tritonclient.grpc.model_config_pb2 as messages
    from google.protobuf import text_format

    try:
        config = text_format.Parse(file.read_text("utf-8"), messages.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise ModelError(
            f"config.pbtxt cannot be read: {error}",
            code="config-pbtxt-invalid",
            where=f"{folder.name}/config.pbtxt",
            hint="correct the file and repeat the command",
        ) from error
    return RepositoryModel(
        name=folder.name,
        config_name=config.name,
        backend=config.backend or config.platform,
        max_batch=config.max_batch_size,
        dynamic_batching=config.HasField("dynamic_batching"),
        sequence_batching=config.HasField("sequence_batching"),
        warmup=bool(config.model_warmup),
        instances=sum(max(1, group.count) for group in config.instance_group),
        versions=_versions(folder),
        inputs=tuple(_stated(t, messages) for t in config.input),
        outputs=tuple(_stated(t, messages) for t in config.output),
        steps=tuple(step.model_name for step in config.ensemble_scheduling.step),
    )


def _stated(tensor: Any, messages: Any) -> TensorSpec:
    name = messages.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return _tensor([tensor.name, "BYTES" if name == "STRING" else name, list(tensor.dims)])


def _tensor(row: list[Any]) -> TensorSpec:
    name, dtype, shape = row
    return TensorSpec(name=name, dtype=dtype, shape=tuple(shape))


def _read_graph(path: str) -> dict[str, list[list[Any]]]:
    """[name, type, shape without the batch dimension] of every input and output; runs in the child."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    if not graph.output:
        raise ValueError("its graph has no output")
    weights = {w.name for w in graph.initializer}
    return {"inputs": [_graph_row(v) for v in graph.input if v.name not in weights], "outputs": [_graph_row(v) for v in graph.output]}


def _graph_row(value: Any) -> list[Any]:
    tensor = value.type.tensor_type
    if tensor.elem_type not in _ONNX_TYPES:
        raise ValueError(f"{value.name} has element type {tensor.elem_type}, which Triton cannot carry")
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
    return [value.name, _ONNX_TYPES[tensor.elem_type], dims[1:]]


def _read_session(path: str) -> dict[str, list[list[Any]]]:
    """The same through onnxruntime, where onnx is not installed."""
    import onnxruntime

    names = {"float": "FP32", "double": "FP64", "float16": "FP16", "bfloat16": "BF16", "string": "BYTES", "bool": "BOOL"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def row(value: Any) -> list[Any]:
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        dims = [d if isinstance(d, int) else -1 for d in value.shape]
        return [value.name, names.get(kind, kind.upper()), dims[1:]]

    return {"inputs": [row(v) for v in session.get_inputs()], "outputs": [row(v) for v in session.get_outputs()]}


def _child(path: str) -> int:
    for read in (_read_graph, _read_session):
        try:
            print(json.dumps(read(path)))
            return 0
        except ImportError:
            continue
        except Exception as error:  # whatever a third party's reader says about the file goes to the parent as text
            print(str(error).replace("\n", " "), file=sys.stderr)
            return 1
    return _NOT_INSTALLED


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1]))
