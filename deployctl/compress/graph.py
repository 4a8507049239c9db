"""ONNX graphs: tensors as the graph declares them, pooling added to a graph, and sessions that run one.

Tensors are read, never typed by hand. A graph counts as good only after ONNX Runtime has loaded it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from deployctl.core.artifact import DataType, TensorSpec
from deployctl.errors import ModelError

POOLED = "sentence_embedding"
EMBED_LIMIT_BYTES = 1_800_000_000  # protobuf ends at 2 GB; beyond this the weights lie in a file beside the graph
_DTYPES: dict[str, DataType] = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT": "FP32",
    "DOUBLE": "FP64",
    "STRING": "BYTES",
}


def load(path: Path, *, weights: bool = True) -> Any:
    """The ONNX model of a file.

    Raises:
        ModelError: no ONNX model, or its external weights are missing (`onnx-invalid`).
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=weights)
        if not model.graph.node:
            raise ValueError("the graph has no nodes")
    except Exception as error:  # protobuf, file and checker errors share no base class
        raise ModelError(
            f"{path.name} is no readable ONNX model",
            why=_first_line(error),
            hint="export the model again, and keep its external weights, if it has any, beside it",
            code="onnx-invalid",
        ) from error
    return model


def save(model: Any, path: Path) -> None:
    """Write a model, its weights in a file beside it where they are too large to be inside."""
    import onnx

    if model.ByteSize() > EMBED_LIMIT_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def tensors(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], bool]:
    """Inputs and outputs of a graph without the batch dimension, and whether there is one.

    A model batches if the first dimension of every input and output varies. Otherwise shapes are complete.
    """
    model = load(path, weights=False)
    weights = {i.name for i in model.graph.initializer}
    inputs = [_declared(v) for v in model.graph.input if v.name not in weights]
    outputs = [_declared(v) for v in model.graph.output]
    batched = bool(inputs) and all(shape and shape[0] == -1 for _, _, shape in [*inputs, *outputs])
    cut = 1 if batched else 0

    def specs(rows: list[tuple[str, DataType, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=n, dtype=d, shape=s[cut:]) for n, d, s in rows)

    return specs(inputs), specs(outputs), batched


def _declared(value: Any) -> tuple[str, DataType, tuple[int, ...]]:
    import onnx

    tensor = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type)
    if name not in _DTYPES:
        raise ModelError(
            f"the tensor {value.name} has the type {name}, which cannot be sent to a server",
            hint="cast it inside the graph and export again",
            code="onnx-type",
        )
    dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return value.name, _DTYPES[name], dims


def session(path: Path) -> Any:
    """A single-threaded CPU session, as the Python twin in Triton makes it.

    Raises:
        ModelError: ONNX Runtime refuses the graph (`onnx-refused`).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelError(
            "ONNX Runtime refuses the graph",
            why=_first_line(error),
            hint="export with another opset, or report the graph to ONNX Runtime",
            code="onnx-refused",
        ) from error


def run(sess: Any, feed: Any) -> dict[str, Any]:
    """All outputs of one call, by name."""
    names = [o.name for o in sess.get_outputs()]
    wanted = {i.name for i in sess.get_inputs()}
    return dict(zip(names, sess.run(names, {k: v for k, v in feed.items() if k in wanted}), strict=True))


def add_pooling(source: Path, target: Path, *, pooling: Literal["mean", "cls"], normalize: bool, mask: str = "attention_mask") -> None:
    """Write `source` with its first output pooled into one vector a row, named `sentence_embedding`.

    Mean: sum of the token vectors that the mask keeps over their number, at least 1e-9. The other outputs go.

    Raises:
        ModelError: the first output has no token dimension, or there is no mask (`pooling-impossible`).
    """
    from onnx import TensorProto, helper, numpy_helper

    model = load(source)
    hidden = model.graph.output[0]
    _, dtype, shape = _declared(hidden)
    if len(shape) != 3 or (pooling == "mean" and mask not in {i.name for i in model.graph.input}):
        raise ModelError(
            f"the output {hidden.name} {list(shape)} cannot be pooled",
            why=f"pooling needs an output [batch, tokens, width] and, for the mean, an input {mask}",
            hint="leave pooling out, or export the model with its last hidden state as first output",
            code="pooling-impossible",
        )
    element = TensorProto.FLOAT16 if dtype == "FP16" else TensorProto.FLOAT
    kind = np.float16 if dtype == "FP16" else np.float32
    nodes: list[Any] = []
    constants = {
        "deployctl_pool_axis": np.array([1], np.int64),
        "deployctl_pool_last": np.array([-1], np.int64),
        "deployctl_pool_first": np.array(0, np.int64),
    }
    constants["deployctl_pool_floor"] = np.array(1e-9 if kind is np.float32 else 1e-4, kind)

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes))
        return output

    if pooling == "cls":
        pooled = node("Gather", [hidden.name, "deployctl_pool_first"], "deployctl_pool_cls", axis=1)
    else:
        kept = node("Cast", [mask], "deployctl_pool_mask", to=element)
        kept = node("Unsqueeze", [kept, "deployctl_pool_last"], "deployctl_pool_mask3")
        total = node(
            "ReduceSum", [node("Mul", [hidden.name, kept], "deployctl_pool_kept"), "deployctl_pool_axis"], "deployctl_pool_total", keepdims=0
        )
        count = node(
            "Max",
            [node("ReduceSum", [kept, "deployctl_pool_axis"], "deployctl_pool_number", keepdims=0), "deployctl_pool_floor"],
            "deployctl_pool_count",
        )
        pooled = node("Div", [total, count], "deployctl_pool_mean")
    if normalize:
        square = node(
            "ReduceSum", [node("Mul", [pooled, pooled], "deployctl_pool_square"), "deployctl_pool_last"], "deployctl_pool_squares", keepdims=1
        )
        pooled = node(
            "Div",
            [pooled, node("Max", [node("Sqrt", [square], "deployctl_pool_length"), "deployctl_pool_floor"], "deployctl_pool_norm")],
            "deployctl_pool_unit",
        )
    node("Identity", [pooled], POOLED)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    first = hidden.type.tensor_type.shape.dim[0]
    rows = first.dim_param or (first.dim_value if first.HasField("dim_value") else "batch")
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(POOLED, element, [rows, shape[2] if shape[2] > 0 else None]))
    save(model, target)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
