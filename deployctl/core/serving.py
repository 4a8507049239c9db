"""How Triton is told to serve: what enters are counts and seconds, what leaves is what a config.pbtxt says.

The text form is written and read by `adapters/pbtxt.py` through NVIDIA's own protobuf; this module knows no protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from deployctl.core.artifact import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """The settings of one model that tuning may change.

    Attributes:
        max_batch: largest batch that the dynamic batcher forms; 1 means batching off.
        queue_delay_s: longest time a request waits for batch mates; 0 means only what queues up anyway.
        instances: copies that run at once inside one replica.
        queue_size: requests that may wait; 0 is unlimited. Beyond it Triton answers REJECTED at once.
        queue_timeout_s: a request that waited longer is REJECTED; 0 is never.
        warmup_batches: batch sizes executed before the model reports ready.
        preferred_batches: sizes that the dynamic batcher sends at once, rising; none: Triton takes `max_batch`. None leaves what the
            model's own config.pbtxt names, where it has one.
    """

    max_batch: int = 8
    queue_delay_s: float = 0.0
    instances: int = 1
    queue_size: int = 0
    queue_timeout_s: float = 0.0
    warmup_batches: tuple[int, ...] = (1,)
    preferred_batches: tuple[int, ...] | None = None  # None stands in no record: those of before keep their digests

    @property
    def named_batches(self) -> tuple[int, ...]:
        """Preferred sizes that change what the batcher does: none where the largest batch alone is named, or batching is off."""
        fit = tuple(b for b in self.preferred_batches or () if b <= self.max_batch)
        return () if self.max_batch <= 1 or fit == (self.max_batch,) else fit


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One Triton model of a bundle as packaged.

    Attributes:
        name: the folder's and the model's name.
        backend: `python`, `onnxruntime`, `ensemble`, or whatever an existing repository says.
        inputs, outputs: tensors without the batch dimension.
        serving: the packaged defaults; a plan may override them.
        tunable: False for ensembles and for models whose own config.pbtxt is kept as it is.
        parameters: config.pbtxt parameters (string to string).
        joins_requests: False where config.pbtxt allows batches but names no batcher: Triton then executes each request alone.
    """

    name: str
    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    serving: ServingConfig = ServingConfig()
    tunable: bool = True
    parameters: dict[str, str]
    ensemble_steps: tuple[EnsembleStep, ...] = ()
    joins_requests: Literal[False] | None = None  # None stands in no record: those of before keep their digests

    @property
    def as_executed(self) -> ServingConfig:
        """`serving` as Triton acts on it, for forecasts: one request at a time where nothing joins them or they have no batch dimension."""
        if self.joins_requests is None and self.serving.max_batch > 0:
            return self.serving
        return replace(self.serving, max_batch=1, queue_delay_s=0.0, preferred_batches=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleStep:
    """One step of an ensemble: maps are model tensor name -> ensemble tensor name."""

    model: str
    input_map: dict[str, str]
    output_map: dict[str, str]
