"""What one replica can do, measured: service time by batch size and input size, per stage, and how long a start takes.

What enters are deltas of Triton's `batch_stats` and span trees (as values); what leaves is the input of every forecast.
Says what it does not know: a point that was never executed is absent, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BUSY_RATIO = 0.15  # of the cores: with more for other work, a quieter machine may do clearly better


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePoint:
    """Service time of one execution (compute input + infer + output) at one batch size and input size bucket.

    Attributes:
        batch: executed batch size (requests' rows joined).
        size: input size bucket of the batch (all its members share it).
        mean_s, std_s: over `count` executions; std_s is 0 where only a sum was available.
        count: executions measured; 0 in a profile that was scaled from another bundle's.
    """

    batch: int
    size: int
    mean_s: float
    std_s: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProfile:
    """One model of the bundle: points sorted by (size, batch), measured with `instances` copies in a replica.

    Attributes:
        model: name of the Triton model.
        points: measured service times; a point that was never executed is absent.
        instances: copies that ran while they were measured.
        joins_sizes: its batches may hold inputs of different buckets (every input has a fixed shape).
        cpu_ratio: share of the service time that computes on the replica's cores; the rest waits (a device, a sleep).
        traffic_ratio: what an execution computes in mixed traffic over that of the rounds of one shape in which points were measured.
    """

    model: str
    points: tuple[ServicePoint, ...]
    instances: int = 1
    joins_sizes: bool = False
    cpu_ratio: float = 1.0
    traffic_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSplit:
    """Where traced requests of one input size spent their time in one stage: medians over `requests`, one under way at a time."""

    model: str
    size: int
    requests: int
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """With `instances` busy at once each execution takes `slowdown_ratio` times as long as alone (shared cores or GPU)."""

    model: str
    instances: int
    slowdown_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """Seconds from the decision to add a replica to its first right answer, by stage."""

    process_s: float = 0.0
    fetch_s: float = 0.0
    load_s: float = 0.0
    warmup_s: float = 0.0
    first_reply_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Sum of the stages."""
        return sum(self.by_stage.values())

    @property
    def by_stage(self) -> dict[str, float]:
        """Seconds of each stage by its name in reports, in the order in which they are told."""
        return {"process": self.process_s, "fetch": self.fetch_s, "load": self.load_s, "warm-up": self.warmup_s, "first reply": self.first_reply_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProfile:
    """Measured behaviour of one bundle on one device.

    Attributes:
        stages: in the order a request passes them (one for a plain model, several for an ensemble).
        overhead_s: time a request spends outside every stage's queue and compute at low load (HTTP, front door, client).
        overhead_std_s: its standard deviation.
        interference: measured slowdowns; empty means not measured.
        cold_start: None means not measured.
        splits: queueing and computing by stage and input size, from spans; empty means not traced.
        device: such as `cpu-2c` or `L4`; evidence for another device does not count.
        bundle: digest of the profiled bundle.
        triton_version: of the server that was measured.
        cores: cores that one server had while it was measured; 0 means unknown, and then only `interference` slows instances.
        request_cpu_s: server core-seconds per request outside every stage (protocol, scheduling, copying).
        wake_cpu_s, wake_pause_s: work that finds the cores idle since t costs wake_cpu_s (1 - exp(-t / wake_pause_s)) core-seconds more,
            because what it needs has left the caches.
        polls: Triton's batcher thread polls while the batch that it formed last may still grow and another shape stands behind it;
            False means that it does not, or that it was not measured.
        poll_handover_s: core-seconds that each batch costs more for which it polled.
        scaled_from: bundle whose profile this is, scaled to a few probed points (`core/warmstart.py`); empty where it was measured.
        others_ratio: share of the server's cores that other work took meanwhile; 0 also where the cores were not its own.
    """

    schema_version: Literal[1] = 1
    stages: tuple[StageProfile, ...]
    overhead_s: float
    overhead_std_s: float = 0.0
    interference: tuple[Interference, ...] = ()
    cold_start: ColdStart | None = None
    device: str
    bundle: str
    triton_version: str
    cores: float = 0.0
    request_cpu_s: float = 0.0
    splits: tuple[StageSplit, ...] = ()
    wake_cpu_s: float = 0.0
    wake_pause_s: float = 0.01
    polls: bool = False
    poll_handover_s: float = 0.0
    scaled_from: str = ""
    others_ratio: float = 0.0

    @property
    def of_busy_machine(self) -> bool:
        """Whether other work took so much that a quieter machine may do clearly better."""
        return self.others_ratio > BUSY_RATIO
