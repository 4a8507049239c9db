"""Blobs, bundle manifests and a shared store that live in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployctl.core import codec
from deployctl.core.bundle import Bundle
from deployctl.core.collect import Content
from deployctl.errors import CloudError, ModelError, NotFound
from deployctl.ports import Stored, StoredObject


@dataclass
class MemoryBlobs:
    """BlobStore that keeps bytes; `path` needs a folder to write to."""

    folder: Path
    data: dict[str, bytes] = field(default_factory=dict)

    def put_bytes(self, data: bytes) -> str:
        """Store and return the digest."""
        digest = _digest(data)
        self.data[digest] = data
        return digest

    def put_file(self, path: Path) -> str:
        """Store a file's content."""
        return self.put_bytes(path.read_bytes())

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return digest in self.data

    def path(self, digest: str) -> Path:
        """A file with the content."""
        if digest not in self.data:
            raise NotFound(f"no blob {digest[:19]}", hint="deployctl package", code="blob-not-found")
        path = self.folder / digest.removeprefix("sha256:")
        path.write_bytes(self.data[digest])
        return path

    def stored(self) -> Iterator[Content]:
        """Everything, old."""
        return iter([Content(digest=d, size_bytes=len(b), age_s=float("inf")) for d, b in sorted(self.data.items())])

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Forget."""
        return sum(self.data.pop(digest, None) is not None for digest in digests)

    def materialise(self, files: Sequence[Any], into: Path) -> None:
        """Write a tree."""
        for ref in files:
            target = into / ref.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.data[ref.digest])


class MemoryBundles:
    """BundleStore without files."""

    def __init__(self) -> None:
        self._bundles: dict[str, str] = {}

    def save(self, bundle: Bundle) -> str:
        """Store the manifest."""
        self._bundles[bundle.digest] = codec.dumps(bundle)
        return bundle.digest

    def load(self, digest: str) -> Bundle:
        """The bundle of that digest."""
        if digest not in self._bundles:
            raise NotFound(f"no bundle {digest[:19]}", hint="deployctl package", code="bundle-not-found")
        return codec.loads(Bundle, self._bundles[digest])

    def stored(self) -> Iterator[Content]:
        """Everything, old."""
        return iter([Content(digest=d, size_bytes=len(t), age_s=float("inf")) for d, t in sorted(self._bundles.items())])

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Forget."""
        return sum(self._bundles.pop(digest, None) is not None for digest in digests)


class MemoryObjects:
    """ObjectStore without a network; ages are by `now_s`, which a test may move."""

    address = "memory://store"

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self._rows: dict[str, tuple[bytes, int, float]] = {}  # content, version, written at
        self._version = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Stored | None:
        """The object, or None."""
        row = self._rows.get(key)
        return Stored(data=row[0], tag=str(row[1]), age_s=self.now_s - row[2]) if row else None

    def head(self, key: str) -> StoredObject | None:
        """What a listing would tell of it."""
        row = self._rows.get(key)
        return StoredObject(key=key, size_bytes=len(row[0]), age_s=self.now_s - row[2], digest=_digest(row[0])) if row else None

    def put(self, key: str, data: bytes, *, expected: str | None) -> str | None:
        """Compare and set."""
        with self._lock:
            row = self._rows.get(key)
            if (str(row[1]) if row else None) != expected:
                return str(row[1]) if row and row[0] == data else None
            return self._write(key, data)

    def upload(self, key: str, path: Path, *, digest: str, moved: Callable[[int], None] = lambda _: None) -> None:
        """Write a file that has that digest."""
        data = path.read_bytes()
        if _digest(data) != digest:
            raise ModelError(f"{path} is damaged", hint="deployctl package --force", code="blob-damaged")
        with self._lock:
            self._write(key, data)
        moved(len(data))

    def download(self, key: str, into: Path, *, digest: str, moved: Callable[[int], None] = lambda _: None) -> None:
        """Read into a file and verify it."""
        row = self._rows.get(key)
        if row is None:
            raise NotFound(f"{key} is not in the store", hint="deployctl package --push", code="blob-not-found")
        if _digest(row[0]) != digest:
            raise CloudError(f"{key} is damaged", hint="deployctl package --push --force", code="store-damaged")
        into.write_bytes(row[0])
        moved(len(row[0]))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Sorted by key."""
        rows = sorted((key, row) for key, row in self._rows.items() if key.startswith(prefix))
        return iter([StoredObject(key=key, size_bytes=len(row[0]), age_s=self.now_s - row[2]) for key, row in rows])

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        with self._lock:
            for key in keys:
                self._rows.pop(key, None)

    def drop_unfinished(self, older_than_s: float) -> int:
        """Nothing is ever unfinished here."""
        return 0

    def _write(self, key: str, data: bytes) -> str:
        self._version += 1
        self._rows[key] = (data, self._version, self.now_s)
        return str(self._version)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
