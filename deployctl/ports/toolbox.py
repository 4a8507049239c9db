"""All ports of one environment, each built when it is first asked for."""

from __future__ import annotations

from typing import Protocol

from deployctl.core.plan import Plan
from deployctl.ports.basics import Clock, Workspace
from deployctl.ports.content import BlobStore, BundleStore, EvidenceStore, RecordStore, RemoteStore, RepositoryBuilder
from deployctl.ports.measuring import Compressor, InferenceClient, LoadGenerator, ServerLauncher
from deployctl.ports.running import ClusterReader, Target


class Toolbox(Protocol):
    """The ports that a flow may ask for; each is built when it is first used."""

    @property
    def workspace(self) -> Workspace:
        """Folders of the project."""
        ...

    @property
    def blobs(self) -> BlobStore:
        """Content by digest."""
        ...

    @property
    def bundles(self) -> BundleStore:
        """Bundle manifests."""
        ...

    @property
    def repository(self) -> RepositoryBuilder:
        """Bundle to Triton repository."""
        ...

    @property
    def compressor(self) -> Compressor:
        """The torch room."""
        ...

    @property
    def launcher(self) -> ServerLauncher:
        """Real Triton servers."""
        ...

    @property
    def loadgen(self) -> LoadGenerator:
        """Locust."""
        ...

    def client(self, url: str) -> InferenceClient:
        """A client of the service at `http://host:port`."""
        ...

    @property
    def evidence(self) -> EvidenceStore:
        """Proofs."""
        ...

    @property
    def records(self) -> RecordStore:
        """Releases of the environment."""
        ...

    @property
    def remote(self) -> RemoteStore | None:
        """The store that the environment shares with other machines; None where it names none."""
        ...

    @property
    def target(self) -> Target:
        """Where the environment runs."""
        ...

    def measuring(self, plan: Plan) -> Toolbox:
        """These ports, with `launcher`, `repository` and `loadgen` of the place where the plan runs: replicas that only measure."""
        ...

    @property
    def cluster(self) -> ClusterReader | None:
        """The environment's cluster, read only; None on this machine."""
        ...

    @property
    def clock(self) -> Clock:
        """Time."""
        ...
