"""Models as values: what compression works on and what it found out.

Paths never stand in here: content is named by digest and lives in a blob store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Open Inference Protocol names of tensor types; BYTES is a string.
DataType = Literal["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: `shape` without the batch dimension, -1 where a dimension varies."""

    name: str
    dtype: DataType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file of a tree, by content: `path` is relative with forward slashes and never escapes the tree."""

    path: str
    digest: str
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model at one stage of compression.

    Attributes:
        stage: torch (a serialised module) or onnx.
        digest: of the main file.
        files: every file that belongs to it (ONNX external data too).
        inputs, outputs: tensors read from the graph, never typed by hand.
        parent: digest of the artifact it was made from.
    """

    stage: Literal["torch", "onnx"]
    digest: str
    files: tuple[FileRef, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parent: str | None = None

    @property
    def size_bytes(self) -> int:
        """Sum over all files."""
        return sum(f.size_bytes for f in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityCase:
    """How close a variant's answers are to the parent's under one way of asking (alone, padded, batched)."""

    name: Literal["alone", "padded", "batched"]
    mean: float
    minimum: float
    lower95: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelitySlice:
    """A part of the sample, or another measure on all of it, printed beside the gate: `size 32`, `top1`."""

    name: str
    mean: float
    minimum: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """A variant against its parent: the gate reads the worst case's 95 % lower bound of the mean."""

    metric: str
    cases: tuple[FidelityCase, ...]
    gate: float
    slices: tuple[FidelitySlice, ...] = ()

    @property
    def worst(self) -> FidelityCase:
        """The case with the smallest lower bound."""
        return min(self.cases, key=lambda c: c.lower95)

    @property
    def passed(self) -> bool:
        """Whether the worst case clears the gate."""
        return self.worst.lower95 >= self.gate


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPoint:
    """Measured single-thread time of one batch of `batch` inputs of size `size` on `device`.

    `seconds` is the median wall time; `cpu_s` the smallest processor time, which other work on the machine hardly moves.
    """

    batch: int
    size: int
    seconds: float
    cpu_s: float | None = None

    @property
    def cost_s(self) -> float:
        """Processor time where it was measured, else wall time: what variants are compared by."""
        return self.seconds if self.cpu_s is None else self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A candidate for serving: an ONNX artifact, the steps that made it, what it costs and how faithful it is."""

    name: str
    steps: tuple[str, ...]
    artifact: Artifact
    fidelity: Fidelity
    latency: tuple[LatencyPoint, ...]
    device: str
    dominated_by: str | None = None
