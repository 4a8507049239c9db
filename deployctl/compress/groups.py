"""Columns that can leave a graph together: inner widths of feed-forward layers, and attention heads.

Both are the same thing: a product (the sink) reads columns that other products (the entries) made and that nobody mixed on the way.
What enters is an ONNX model in memory, what leaves are such groups. A graph of another form has none: nothing is guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.compress import products
from deployctl.compress.products import Matrix, Product

Columns = npt.NDArray[np.intp]
# One output value for each input value, whatever its place.
_ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "Neg"}
    | {"Pow", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"}
)
_BETWEEN_SCORES_AND_VALUES = frozenset({"Softmax", "Where", "Add", "Mul", "Div", "Cast", "IsNaN"})
_KEEP_SHAPE_OF_A_HEAD = frozenset({"Transpose", "Mul", "Div", "Cast"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Groups of `size` neighbouring columns between `entries` and `sink`; `vectors` are constants of the same width, such as biases."""

    entries: tuple[Product, ...]
    vectors: tuple[Any, ...]
    sink: Product
    size: int

    @property
    def count(self) -> int:
        """How many groups there are."""
        return self.sink.shape[0] // self.size

    @property
    def weights(self) -> int:
        """Weights that one group stands for."""
        return self.size * (sum(e.shape[0] for e in self.entries) + self.sink.shape[1])

    def columns(self, chosen: npt.NDArray[np.intp]) -> Columns:
        """The columns of these groups, in order."""
        return (np.sort(chosen)[:, None] * self.size + np.arange(self.size)).ravel()

    def cut(self, columns: Columns, sink: Matrix) -> None:
        """Leave only these columns, and give the sink its new weight (kept columns, width of its result)."""
        for entry in self.entries:
            entry.put(entry.get()[:, columns])
        from onnx import numpy_helper

        for vector in self.vectors:
            products.write(vector, numpy_helper.to_array(vector)[..., columns])
        self.sink.put(sink)


def find(model: Any) -> list[Groups]:
    """All groups of the graph, none of which shares a weight with another."""
    view = _View(model)
    found = [g for p in view.products.values() if (g := view.heads(p)) is not None]
    taken = {id(e.node) for g in found for e in g.entries}
    found += [g for p in view.products.values() if id(p.node) not in taken and (g := view.width(p)) is not None]
    return found


class _View:
    """The graph by who makes and who reads each tensor."""

    def __init__(self, model: Any) -> None:
        self.products = {id(p.node): p for p in products.find(model)}
        self.constants = {i.name: i for i in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = {o.name for o in model.graph.output}

    def width(self, entry: Product) -> Groups | None:
        """The columns that `entry` makes, where only elementwise steps lie between it and one sink."""
        width = entry.shape[1]
        region, todo = {entry.node.output[0]}, [entry.node.output[0]]
        vectors = self._bias(entry)
        sinks: dict[int, Product] = {}
        needed: set[str] = set()
        while todo:
            tensor = todo.pop()
            if tensor in self.outputs:
                return None
            for node in self.readers[tensor]:
                reader = self.products.get(id(node))
                if reader is not None and reader.source == tensor:
                    sinks[id(node)] = reader
                    continue
                if node.op_type not in _ELEMENTWISE:
                    return None
                if node.output[0] in region:
                    continue
                for name in node.input:
                    if name in self.constants and self.is_vector(name, width):
                        vectors.append(self.constants[name])
                    elif name not in self.constants:
                        needed.add(name)
                    elif not self.is_scalar(name):
                        return None
                region.add(node.output[0])
                todo.append(node.output[0])
        if len(sinks) != 1 or not needed <= region:
            return None
        (sink,) = sinks.values()
        return Groups(entries=(entry,), vectors=tuple(vectors), sink=sink, size=1) if sink.shape[0] == width else None

    def heads(self, sink: Product) -> Groups | None:
        """The heads whose values `sink` reads, where the graph leaves their number open (-1 in every Reshape)."""
        merge = self.maker.get(sink.source)
        if merge is None or merge.op_type != "Reshape" or self._tail(merge)[-1:] != [-1] or len(self.readers[sink.source]) != 1:
            return None
        turn = self.maker.get(merge.input[0])
        weighed = self.maker.get(turn.input[0]) if turn is not None and turn.op_type == "Transpose" else None
        if weighed is None or weighed.op_type != "MatMul":
            return None
        scores = list(self._scores(weighed.input[0]))
        if len(scores) != 1:
            return None
        found = [self._split(name) for name in (*scores[0].input, weighed.input[1])]
        parts = [f for f in found if f is not None]
        sizes = {size for _, _, size in parts}
        if len(parts) != 3 or len(sizes) != 1 or any(p.shape[1] != sink.shape[0] for p, _, _ in parts):
            return None
        entries = tuple(p for p, _, _ in parts)
        return Groups(entries=entries, vectors=tuple(v for _, vs, _ in parts for v in vs), sink=sink, size=sizes.pop())

    def _scores(self, name: str) -> Iterator[Any]:
        """The products of two computed tensors that a tensor comes from."""
        node = self.maker.get(name)
        if node is None:
            return
        if node.op_type == "MatMul":
            yield node
        elif node.op_type in _BETWEEN_SCORES_AND_VALUES:
            seen = {id(n): n for i in dict.fromkeys(node.input) for n in self._scores(i)}
            yield from seen.values()

    def _split(self, name: str) -> tuple[Product, list[Any], int] | None:
        """The product whose result was split into heads to give this tensor, its biases, and the width of a head."""
        node = self.maker.get(name)
        while node is not None:
            tail = self._tail(node) if node.op_type == "Reshape" else []
            if len(tail) > 1 and tail[-2] == -1 and tail[-1]:
                return self._projected(node.input[0], int(tail[-1]))
            if node.op_type not in _KEEP_SHAPE_OF_A_HEAD and node.op_type != "Reshape":
                return None
            if any(not self.is_scalar(i) for i in node.input[1:]) and node.op_type != "Reshape":
                return None
            node = self.maker.get(node.input[0])
        return None

    def _projected(self, name: str, size: int) -> tuple[Product, list[Any], int] | None:
        node = self.maker.get(name)
        vectors: list[Any] = []
        while node is not None and len(self.readers[name]) == 1:
            product = self.products.get(id(node))
            if product is not None:
                return (product, vectors + self._bias(product), size) if product.shape[1] % size == 0 else None
            added = [i for i in node.input if i in self.constants]
            if node.op_type != "Add" or len(added) != 1 or not self.is_vector(added[0], self.constants[added[0]].dims[-1]):
                return None
            vectors.append(self.constants[added[0]])
            name = next(i for i in node.input if i not in self.constants)
            node = self.maker.get(name)
        return None

    def _tail(self, reshape: Any) -> list[int | None]:
        """The shape that a Reshape asks for; None where that is computed."""
        name = reshape.input[1]
        if name in self.constants:
            return [int(v) for v in self._values(name)]
        node = self.maker.get(name)
        if node is None or node.op_type != "Concat":
            return []
        parts: list[int | None] = []
        for part in node.input:
            parts += [int(v) for v in self._values(part)] if part in self.constants else [None]
        return parts

    def _values(self, name: str) -> Any:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name]).ravel()

    def _bias(self, product: Product) -> list[Any]:
        return [self.constants[n] for n in product.node.input[2:] if n in self.constants]

    def is_scalar(self, name: str) -> bool:
        """Whether it is a constant of one value."""
        return name in self.constants and int(np.prod(self.constants[name].dims)) == 1

    def is_vector(self, name: str, width: int) -> bool:
        """Whether it is a constant with a value for each column, that only one node reads."""
        dims = list(self.constants[name].dims)
        return width > 1 and dims[-1:] == [width] and int(np.prod(dims)) == width and len(self.readers[name]) == 1
