"""A packaged model: the list of every file by digest, and what is known about the models in it.

A bundle is the unit that a release pins. It names content only; `.deployctl/blobs` (or a bucket) holds the bytes. Triton
never reads a mutable repository: a replica checks every digest into a private folder first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployctl.core import codec
from deployctl.core.artifact import FileRef, TensorSpec
from deployctl.core.serving import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRule:
    """How the size bucket of a request is found: round the request's unit count up to a multiple of `step`, at most `maximum`.

    `unit` is what is counted: `tokens` (a tokenizer stage decides), `elements` of the first variable dimension, or `one`
    where all inputs have the same size.
    """

    unit: Literal["tokens", "elements", "one"] = "one"
    step: int = 1
    maximum: int = 1

    def bucket(self, units: int) -> int:
        """The bucket of a request that has `units` tokens or elements: at least one step, at most `maximum`."""
        rounded = -(-max(units, 1) // self.step) * self.step
        return min(rounded, self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything Triton needs to serve one model, by digest.

    Attributes:
        name: the service's model name.
        entry: the model that requests are sent to (the ensemble where there is one).
        variant: name of the compressed variant inside, such as `int8-dynamic`.
        models: every Triton model, in load order.
        files: the repository tree, sorted by path, without caches.
        size_rule: how requests fall into size buckets.
        sample: digest of the JSON-lines file with example requests (one OIP input map or one text a line).
        triton_min: lowest Triton version that may serve it.
    """

    schema_version: Literal[1] = 1
    name: str
    entry: str
    variant: str
    models: tuple[ModelSpec, ...]
    files: tuple[FileRef, ...]
    size_rule: SizeRule = SizeRule()
    sample: str
    triton_min: str = "2.51.0"

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical manifest; the bundle's name everywhere."""
        return codec.digest(self)

    def model(self, name: str) -> ModelSpec:
        """The model of that name; KeyError if the bundle has none."""
        return {m.name: m for m in self.models}[name]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the entry model."""
        return self.model(self.entry).inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleCheck:
    """The record that a bundle was loaded by a real Triton and answered as the variant does when it is run directly.

    Attributes:
        bundle: its digest.
        triton_version, device: where it was checked.
        requests: sample lines that were sent.
        compared: of those, how many answers were compared; 0 for a repository that came without a reference.
        worst_difference: largest absolute difference of any output element, relative to the largest element of that answer.
    """

    schema_version: Literal[1] = 1
    bundle: str
    triton_version: str
    device: str
    requests: int
    compared: int
    worst_difference: float
