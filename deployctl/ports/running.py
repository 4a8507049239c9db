"""Where a service runs, and what can be seen and done there: this machine, a cluster, a stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployctl.core.fleet_view import ServiceRow
from deployctl.core.kube_drift import Difference
from deployctl.core.plan import Plan
from deployctl.core.platform import ServiceAddress
from deployctl.core.release import Release
from deployctl.ports.basics import Progress
from deployctl.ports.measuring import ServerStats

if TYPE_CHECKING:  # numpy and scipy stand behind these; most verbs never need them
    from deployctl.core.contention import CoreReading
    from deployctl.core.stack import Stack, StackOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica as its host sees it; `reason` says why it is in this state."""

    name: str
    state: str  # starting | ready | draining | hung | dead | backoff
    reason: str
    revision: int
    pid: int | None = None
    http_port: int | None = None
    since_s: float
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """The live service: what serves, how it does, and what the policy waits for.

    `recent` is a list of per-interval rows (at_s, arrivals_rps, p50_s, p99_s, replicas_ready, errors). `code` and `hint` belong to
    the error that a phase `failed` becomes; empty where the host knows no better than `rollout-failed`.
    """

    alive: bool
    url: str | None = None
    grpc_url: str | None = None
    revision_serving: int | None = None
    revision_wanted: int | None = None
    phase: str  # stopped | starting | serving | rolling | degraded | failed
    message: str
    replicas: tuple[ReplicaStatus, ...]
    replicas_wanted: int
    policy_says: str
    recent: tuple[dict[str, float], ...]
    code: str = ""
    hint: str = ""


class Target(Protocol):
    """The place where a service runs. `apply` only writes what is wanted; the host alone acts."""

    def check(self, plan: Plan) -> None:
        """Raise what is known to keep a release of this plan from starting; asked before anything is recorded, changes nothing."""
        ...

    def apply(self, release: Release) -> None:
        """Make the release the wanted one and make sure that somebody acts on it."""
        ...

    def status(self) -> TargetStatus:
        """The live state; `alive` False when nothing runs."""
        ...

    def stats(self) -> dict[str, ServerStats]:
        """Cumulative statistics by replica; one that does not tell is left out."""
        ...

    def core_reading(self) -> CoreReading | None:
        """What the service, this command and all others have used of the service's cores so far; None where they are not this machine's."""
        ...

    def reach(self) -> AbstractContextManager[str]:
        """`http://host:port` at which this machine reaches the service, for as long as the context lasts.

        Raises:
            ClusterError: it does not from here, with why (`not-reachable`).
        """
        ...

    def drift(self) -> list[Difference]:
        """What runs otherwise than the newest release says, with who made it so where that is known; nothing is changed."""
        ...

    def pending(self, plan: Plan) -> list[Difference]:
        """What an `up` of this plan would change in the live objects: `path` empty is a whole object, `wanted` None one that would go.

        Raises:
            ProjectError: nothing here consists of objects that could be compared (`no-live-objects`).
        """
        ...

    def logs(self, *, replica: str | None, since_s: float | None, follow: bool) -> Iterator[str]:
        """Log lines with their source in front, oldest first."""
        ...

    def down(self, progress: Progress) -> None:
        """Stop everything that was started; the records stay."""
        ...


class ObjectReader(Protocol):
    """A cluster, read only."""

    def list(self, api: str, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        """All objects of a kind in a namespace.

        Raises:
            NotFound: the cluster does not know the kind (its CRD is not installed).
            DeployctlError: it does not answer, or refuses.
        """
        ...


class Fleet(Protocol):
    """Every service of a cluster, without a checkout; read only."""

    def rows(self, namespace: str | None) -> list[ServiceRow]:
        """Every service of a namespace, or of the cluster for None."""
        ...

    def find(self, context: str | None, namespace: str, service: str, env: str | None) -> ServiceAddress:
        """The address of a service by name; NotFound (`service-not-found`), or ProjectError (`env-ambiguous`)."""
        ...


class ClusterReader(Protocol):
    """A Kubernetes API, read only."""

    def read(self, path: str) -> dict[str, Any] | None:
        """The document at an absolute path, None where there is none.

        Raises:
            ClusterError: no answer, or one may not look (`cluster-forbidden`).
        """
        ...


class StackEngine(Protocol):
    """Makes what a stack describes, and remembers what it made.

    Every method may raise MachineError (`pulumi-missing`, `pulumi-too-old`), LockHeld (`stack-locked`), CloudError and ProjectError
    (`core.stack.failure`); KeyboardInterrupt where a person stopped it.
    """

    def preview(self, stack: Stack, progress: Progress, *, removal: bool = False) -> StackOutcome:
        """What `up`, or with `removal` `destroy`, would do."""
        ...

    def up(self, stack: Stack, progress: Progress, *, look: bool = False) -> StackOutcome:
        """Make it so; the same call finishes what a killed one began. `look` first asks what still exists of what the state says."""
        ...

    def destroy(self, stack: Stack, progress: Progress) -> StackOutcome:
        """Remove every resource; nothing where there is no such stack."""
        ...

    def outputs(self, stack: Stack) -> dict[str, Any] | None:
        """Outputs of the last run without secrets; None where there is no such stack."""
        ...

    def forget(self, stack: Stack) -> None:
        """Remove the empty stack itself."""
        ...


class Machine(Protocol):
    """Facts about this machine, each gathered when it is asked for; nothing is judged here."""

    def python(self) -> tuple[int, int, int]:
        """Version of the interpreter."""
        ...

    def system(self) -> tuple[str, str]:
        """(operating system, architecture) as `uname` says them, such as ("Linux", "x86_64")."""
        ...

    def package(self, name: str) -> str | None:
        """Version of an installed distribution, None where it is absent."""
        ...

    def program(self, name: str) -> str | None:
        """Path of a program beside the interpreter or on PATH, None where it is absent."""
        ...

    def triton_parts(self) -> dict[str, str | None]:
        """`server` and `stub`: paths of tritonserver and of the stub for this interpreter, None where missing."""
        ...

    def libpython(self) -> str | None:
        """Path of the shared library that the stub loads, None where this interpreter has none."""
        ...

    def free_disk_bytes(self, path: Path) -> int:
        """Free space at `path` (or its nearest existing parent)."""
        ...

    def free_memory_bytes(self) -> int:
        """Memory that can be had without swapping, within this process's own limit."""
        ...

    def shared_memory_bytes(self) -> int | None:
        """Free space of /dev/shm, None where there is none."""
        ...

    def open_files(self) -> tuple[int, int]:
        """(soft, hard) limit of open files."""
        ...

    def port_free(self, port: int) -> bool:
        """Whether loopback `port` can be bound now."""
        ...

    def cluster_problem(self, context: str) -> str | None:
        """Why the cluster behind a kubectl context does not answer; None if it does."""
        ...

    def writable(self, path: Path) -> bool:
        """Whether a file can be made in `path` (or its nearest existing parent)."""
        ...
