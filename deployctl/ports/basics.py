"""What every flow is given: folders, time, and somebody to talk to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where things lie in a project folder. Everything that may be deleted is under `.deployctl/`."""

    root: Path

    @property
    def config(self) -> Path:
        """deploy.yaml."""
        return self.root / "deploy.yaml"

    @property
    def state(self) -> Path:
        """Scratch, caches and the running service's state."""
        return self.root / ".deployctl"

    @property
    def blobs(self) -> Path:
        """Content-addressed files, `sha256/<2>/<62>`."""
        return self.state / "blobs"

    @property
    def cache(self) -> Path:
        """Results keyed by the digest of their inputs."""
        return self.state / "cache"

    @property
    def reports(self) -> Path:
        """HTML and JSON reports."""
        return self.state / "reports"

    def lock(self, env: str) -> Path:
        """lock/<env>.lock, committed by people."""
        return self.root / "lock" / f"{env}.lock"

    def plan(self, env: str) -> Path:
        """lock/<env>.plan.json: the plan that the committed manifests were rendered from (writer gitops)."""
        return self.root / "lock" / f"{env}.plan.json"

    def manifest(self, digest: str) -> Path:
        """lock/bundles/<hex>.json: the bundle's file list, committed so that CI can render without the bundle's content."""
        return self.root / "lock" / "bundles" / f"{digest.removeprefix('sha256:')[:16]}.json"

    def evidence(self, digest: str) -> Path:
        """lock/evidence/<hex>.json, committed beside the lock."""
        return self.root / "lock" / "evidence" / f"{digest.removeprefix('sha256:')[:16]}.json"

    def env(self, env: str) -> Path:
        """State of one local environment: releases, wanted, supervisor, replicas, store."""
        return self.state / "env" / env


class Clock(Protocol):
    """Time, passed in so that decisions stay pure."""

    def now_s(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic_s(self) -> float:
        """A clock that never steps, in seconds."""
        ...

    def sleep_s(self, seconds: float) -> None:
        """Wait."""
        ...


class Progress(Protocol):
    """Talk to the person: stderr, one line a change without a terminal, live with one."""

    def step(self, message: str) -> None:
        """A step begins (the former one is done)."""
        ...

    def update(self, message: str) -> None:
        """The present step moved on."""
        ...

    def note(self, message: str) -> None:
        """A fact that stays on the screen."""
        ...

    def warn(self, message: str) -> None:
        """A warning that stays on the screen."""
        ...
