"""What tools write and a git diff shows: the resolved digests, tuned settings and overrides of one environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployctl.core.serving import ServingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOverride:
    """A person's `scale`: kept by `up` with a notice until `scale --reset` or `until_s` (Unix time)."""

    min_replicas: int
    max_replicas: int
    until_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What `tune` chose and proved: settings by model, replicas at the stated traffic, the autoscaling target.

    `capacity_rps` is the rate at which one replica still keeps the SLO; 0 means not known.
    """

    settings: dict[str, ServingConfig]
    replicas: int
    max_replicas: int
    target: float
    signal: str
    evidence: str
    capacity_rps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """`lock/<env>.lock`. None means not resolved yet; nothing is invented."""

    schema_version: Literal[1] = 1
    env: str
    bundle: str | None = None
    variant: str | None = None
    triton_version: str | None = None
    image: str | None = None
    tuned: Tuned | None = None
    override: ScaleOverride | None = None
    held: tuple[str, ...] = ()
