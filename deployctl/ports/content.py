"""Where content, records and proofs lie: on this machine, on a shared store, in a repository of commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deployctl.core.artifact import FileRef
from deployctl.core.bundle import Bundle
from deployctl.core.collect import Content
from deployctl.core.release import History, Release
from deployctl.core.serving import ModelSpec, ServingConfig

if TYPE_CHECKING:  # numpy and scipy stand behind these; most verbs never need them
    from deployctl.core.evidence import Evidence, EvidenceKey
    from deployctl.core.gitops import Commit


class BlobStore(Protocol):
    """Immutable content by digest. A blob is visible whole or not at all."""

    def put_bytes(self, data: bytes) -> str:
        """Store and return `sha256:…`."""
        ...

    def put_file(self, path: Path) -> str:
        """Store a file's content (hard link or copy) and return `sha256:…`."""
        ...

    def path(self, digest: str) -> Path:
        """The verified local file of a blob.

        Raises:
            NotFound: no such blob (`blob-not-found`); ModelError: content does not match its name (`blob-damaged`).
        """
        ...

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        ...

    def materialise(self, files: Sequence[FileRef], into: Path) -> None:
        """Write a tree of verified private copies under `into`, atomically (a sibling folder renamed into place)."""
        ...

    def stored(self) -> Iterator[Content]:
        """Every blob, in the order of digests. Storing what is there already makes it young again."""
        ...

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove those that are older than this, looked at again in the moment of removing; how many went."""
        ...


class BundleStore(Protocol):
    """Bundle manifests over a blob store."""

    def save(self, bundle: Bundle) -> str:
        """Store the manifest last, after all blobs, and return the bundle's digest."""
        ...

    def load(self, digest: str) -> Bundle:
        """The bundle of that digest; NotFound if it is not here (`bundle-not-found`)."""
        ...

    def stored(self) -> Iterator[Content]:
        """Every manifest, in the order of digests. Saving what is there already makes it young again."""
        ...

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove those that are older than this, looked at again in the moment of removing; how many went."""
        ...


class RepositoryBuilder(Protocol):
    """Turns a bundle into the folder that a Triton reads: private, verified, never changed afterwards."""

    def build(self, bundle: Bundle, into: Path, *, settings: dict[str, ServingConfig] | None = None, native: bool = False) -> None:
        """Write the repository atomically. Every blob is verified; settings override the packaged ones.

        `native` keeps `backend: onnxruntime`; otherwise (this machine's Triton has none) its python twin is configured.
        """
        ...

    def config_text(self, bundle: Bundle, model: str, serving: ServingConfig, *, native: bool = False) -> str:
        """The config.pbtxt text of one model under other settings, for explicit-mode loads and for people."""
        ...

    def parse(self, text: str, *, where: str) -> ModelSpec:
        """A config.pbtxt as a ModelSpec; ModelError with line and column if it is none (`config-pbtxt-invalid`)."""
        ...

    def in_pieces(self, bundle: Bundle) -> bool:
        """Whether the bundle answers in pieces: a model in it says `decoupled`, which only a config.pbtxt that was kept can."""
        ...


class RecordStore(Protocol):
    """Releases of one environment: append-only, compare-and-set."""

    def history(self) -> History:
        """All releases, chain checked."""
        ...

    def append(self, release: Release, *, expected_parent: str | None) -> None:
        """Add the next release.

        Raises:
            LockHeld: somebody else appended first (`plan-stale`, exit 7).
        """
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other changers of this environment out for the moment of a change; released when the process dies."""
        ...

    def hold(self, content: str) -> None:
        """Put a content digest on hold."""
        ...

    def allow(self, content: str) -> None:
        """Lift a hold (prefixes are accepted when unique)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A small object as it was read: its content, the tag that a later write may be conditioned on, and its age by the store's clock."""

    data: bytes
    tag: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """What a listing or a look tells; `digest` is what the object was written with, None where that is not known."""

    key: str
    size_bytes: int
    age_s: float
    digest: str | None = None


class ObjectStore(Protocol):
    """Keys and bytes in a place that several machines share. An object is visible whole or not at all.

    Every method raises CloudError: `store-denied`, `store-expired`, `store-no-credentials` (exit 3), `store-missing-bucket`,
    `store-throttled`, `store-unreachable`, `store-damaged`, `store-region`, `store-clock`, `store-unsupported`, `store-refused`.
    """

    address: str

    def get(self, key: str) -> Stored | None:
        """A small object; None if there is none."""
        ...

    def head(self, key: str) -> StoredObject | None:
        """Size and age of an object; None if there is none."""
        ...

    def put(self, key: str, data: bytes, *, expected: str | None) -> str | None:
        """Compare and set: write where the object still has the tag `expected` (None: where there is no object), and return the new tag.

        Returns None where somebody else was faster. Where exactly this content lies there already, it counts as written.
        """
        ...

    def upload(self, key: str, path: Path, *, digest: str, moved: Callable[[int], None] = ...) -> None:
        """Write a file whatever is there; `moved` is told of each number of bytes, from any thread.

        Raises:
            ModelError: the file does not have the content `digest` (`blob-damaged`); nothing became visible.
        """
        ...

    def download(self, key: str, into: Path, *, digest: str, moved: Callable[[int], None] = ...) -> None:
        """Read into a new file and verify it; no file is left on an error.

        Raises:
            NotFound: there is no such object (`blob-not-found`).
        """
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose key begins with `prefix`, sorted by key."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        ...

    def drop_unfinished(self, older_than_s: float) -> int:
        """End uploads that were begun longer ago than this and never finished; how many there were."""
        ...


class SharedRecordStore(RecordStore, Protocol):
    """A RecordStore that several machines share, and what keeping a durable copy in it needs."""

    def newest(self) -> Release | None:
        """The last record, without reading all before it; None before the first."""
        ...

    def salvage(self) -> tuple[History, tuple[str, ...]]:
        """The longest sound beginning of the history, and what is lost, in words."""
        ...

    def rewrite(self, release: Release) -> None:
        """Put a record in place of a lost or damaged one; only for who holds the sound chain."""
        ...

    def keep_holds(self, held: tuple[str, ...]) -> None:
        """Make the holds exactly these."""
        ...


class RemoteStore(Protocol):
    """The store that several machines share (`store:` of an environment): bundles, records and leases over one ObjectStore."""

    objects: ObjectStore
    blobs: BlobStore
    bundles: BundleStore

    def records(self, service: str, env: str) -> SharedRecordStore:
        """Releases of one environment; `exclusive()` is a lease with a fencing token."""
        ...

    def lease(self, name: str) -> AbstractContextManager[Callable[[], int]]:
        """Be the only one who changes what `name` stands for. Calling what is given renews the lease and returns its fencing token.

        Raises:
            LockHeld: somebody else has it (`store-lease-held`, exit 12), or it was lost meanwhile (`store-lease-lost`, exit 12).
        """
        ...


class EvidenceStore(Protocol):
    """Proofs, by key and by digest."""

    def find(self, key: EvidenceKey) -> Evidence | None:
        """The newest proof for exactly this key."""
        ...

    def all(self) -> list[Evidence]:
        """Every proof, newest first."""
        ...

    def get(self, digest: str) -> Evidence | None:
        """The proof of that digest, whatever it is for; None if it is not here."""
        ...

    def save(self, evidence: Evidence) -> str:
        """Store atomically and return the digest."""
        ...


class Repository(Protocol):
    """Version control of the project's folder; paths are relative to it. See `adapters.git` for what is raised."""

    def branch(self) -> str:
        """The branch that is checked out; ProjectError where none is."""
        ...

    def require_ready(self) -> None:
        """Refuse, before anything is written, what would make a commit fail."""
        ...

    def changed(self, *, besides: Sequence[str] = ()) -> list[str]:
        """Tracked files that differ from the last commit, except below `besides`."""
        ...

    def untracked(self, paths: Sequence[str]) -> list[str]:
        """Those of the files that are not followed."""
        ...

    def commit(self, paths: Sequence[str], message: str) -> str | None:
        """Commit the present state of exactly these files and folders; None where nothing differs. What else is staged stays so."""
        ...

    def push(self) -> str:
        """Push the branch; where to, as text."""
        ...

    def remote(self) -> str | None:
        """Address of the repository that people share, without credentials."""
        ...

    def log(self, path: str) -> list[Commit]:
        """Commits that changed `path`, newest first."""
        ...

    def resolve(self, revision: str) -> str:
        """Full id of a commit that a person named; NotFound where there is none."""
        ...

    def files(self, revision: str, path: str) -> dict[str, bytes]:
        """Every file at or below `path` as it was in a commit, by path."""
        ...
