"""What flows need from the outside, as Protocols over core types.

Adapters and hosts implement these; `wiring.py` is the only place that joins the two. Nothing here does anything.
"""

from deployctl.ports.basics import Clock, Progress, Workspace
from deployctl.ports.content import (
    BlobStore,
    BundleStore,
    EvidenceStore,
    ObjectStore,
    RecordStore,
    RemoteStore,
    Repository,
    RepositoryBuilder,
    SharedRecordStore,
    Stored,
    StoredObject,
)
from deployctl.ports.measuring import (
    Compressor,
    CoreUse,
    InferenceClient,
    LoadGenerator,
    LoadRequest,
    LoadResult,
    MetricSource,
    ModelInspector,
    Piece,
    RunningServer,
    ServerLauncher,
    ServerStats,
)
from deployctl.ports.running import ClusterReader, Fleet, Machine, ObjectReader, ReplicaStatus, StackEngine, Target, TargetStatus
from deployctl.ports.toolbox import Toolbox

__all__ = [
    "BlobStore",
    "BundleStore",
    "Clock",
    "ClusterReader",
    "Compressor",
    "CoreUse",
    "EvidenceStore",
    "Fleet",
    "InferenceClient",
    "LoadGenerator",
    "LoadRequest",
    "LoadResult",
    "Machine",
    "MetricSource",
    "ModelInspector",
    "ObjectReader",
    "ObjectStore",
    "Piece",
    "Progress",
    "RecordStore",
    "RemoteStore",
    "ReplicaStatus",
    "Repository",
    "RepositoryBuilder",
    "RunningServer",
    "ServerLauncher",
    "ServerStats",
    "SharedRecordStore",
    "StackEngine",
    "Stored",
    "StoredObject",
    "Target",
    "TargetStatus",
    "Toolbox",
    "Workspace",
]
