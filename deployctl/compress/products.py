"""Products with a constant matrix: where a graph's weights are, and what flows into them.

What enters is an ONNX model in memory and real inputs; what leaves are the products, and the second moments of their inputs.
Methods change weights through `Product.put` only. Refuses to know what is done with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.compress import graph
from deployctl.compress.workbench import Feed

Matrix = npt.NDArray[np.float64]
_MOMENT_BYTES = 1 << 30  # of second moments held at once; more inputs take further runs over the sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`x @ W` with a weight of its own: a MatMul, or a Gemm without scaling, in float32.

    Attributes:
        node: the ONNX node; its first input is `x`, its second the weight.
        weight: the initializer.
        transposed: the initializer holds W transposed (a Gemm with transB).
    """

    node: Any
    weight: Any
    transposed: bool

    @property
    def source(self) -> str:
        """Name of the tensor `x`."""
        return str(self.node.input[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(width of x, width of the result)."""
        rows, columns = self.weight.dims
        return (columns, rows) if self.transposed else (rows, columns)

    def get(self) -> Matrix:
        """W."""
        from onnx import numpy_helper

        values: Matrix = numpy_helper.to_array(self.weight).astype(np.float64)
        return values.T if self.transposed else values

    def put(self, values: Matrix) -> None:
        """Write W, of whatever shape."""
        write(self.weight, values.T if self.transposed else values)


def write(initializer: Any, values: npt.NDArray[Any]) -> None:
    """Replace an initializer's values, in float32."""
    from onnx import numpy_helper

    initializer.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), initializer.name))


def find(model: Any) -> list[Product]:
    """All products of the graph whose weight nobody else uses, in the graph's order."""
    import onnx

    weights = {i.name: i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) == 2}
    used = Counter(name for node in model.graph.node for name in node.input)
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights or used[node.input[1]] > 1:
            continue
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if options.get("transA", 0) or options.get("alpha", 1.0) != 1.0 or options.get("beta", 1.0) != 1.0:
            continue
        found.append(Product(node=node, weight=weights[node.input[1]], transposed=bool(options.get("transB", 0))))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of the rows x of a tensor: `second` is the mean of x xᵀ (width, width), `mean` that of x (width,)."""

    second: Matrix
    mean: Matrix

    def variance(self, weight: Matrix) -> float:
        """Of x W, summed over its columns: what an error is compared with, since the mean of x may be large and says nothing."""
        spread = self.second - np.outer(self.mean, self.mean)
        return max(float(np.einsum("ij,ij->", weight, spread @ weight)), 1e-300)


def moments(path: Path, widths: dict[str, int], feeds: Sequence[Feed]) -> dict[str, Moments]:
    """Moments of the named tensors over all rows of all feeds.

    Args:
        path: the graph.
        widths: tensor -> its last dimension.
        feeds: real inputs.
    """
    found: dict[str, Moments] = {}
    for names in _portions(widths):
        sums = {name: np.zeros((widths[name], widths[name])) for name in names}
        means = {name: np.zeros(widths[name]) for name in names}
        rows = dict.fromkeys(names, 0)
        session = _telling(path, names)
        inner = [o.name for o in session.get_outputs()]
        inputs = {i.name for i in session.get_inputs()}
        for feed in feeds:
            given = {k: v for k, v in feed.items() if k in inputs}
            values = given | dict(zip(inner, session.run(inner, given), strict=True))
            for name in names:
                flat = values[name].reshape(-1, widths[name]).astype(np.float64)
                sums[name] += flat.T @ flat
                means[name] += flat.sum(axis=0)
                rows[name] += len(flat)
        found |= {name: Moments(second=sums[name] / rows[name], mean=means[name] / rows[name]) for name in names}
    return found


def _portions(widths: dict[str, int]) -> Iterable[list[str]]:
    portion: list[str] = []
    size = 0
    for name, width in widths.items():
        if portion and size + 8 * width * width > _MOMENT_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += 8 * width * width
    if portion:
        yield portion


def _telling(path: Path, names: Sequence[str]) -> Any:
    """A session of the graph whose inner tensors can be asked for."""
    import onnx

    model = graph.load(path)
    present = {o.name for o in model.graph.output}
    inputs = {i.name for i in model.graph.input}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in present | inputs)
    beside = path.with_name("telling.onnx")
    graph.save(model, beside)
    try:
        return graph.session(beside)
    finally:
        for file in path.parent.glob("telling.onnx*"):
            file.unlink()
