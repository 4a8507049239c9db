"""Blobs and bundle manifests of the shared store."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployctl.adapters.remote.parallel import at_once
from deployctl.core import codec, store
from deployctl.core.artifact import FileRef
from deployctl.core.bundle import Bundle
from deployctl.core.collect import Content
from deployctl.errors import CloudError, ModelError, NotFound
from deployctl.ports import BlobStore, ObjectStore

REFRESH_S = 3600.0  # a manifest is written anew at this age, so that collecting counts from the latest publication


class RemoteBlobs:
    """BlobStore whose content is shared; this machine keeps a verified copy of what it sent or fetched."""

    def __init__(self, objects: ObjectStore, local: BlobStore, scratch: Path) -> None:
        self._objects, self._local, self._scratch = objects, local, scratch

    def put_bytes(self, data: bytes) -> str:
        """Store here and there, and return `sha256:…`."""
        digest = self._local.put_bytes(data)
        self._send(digest, len(data))
        return digest

    def put_file(self, path: Path) -> str:
        """Store a copy of a file's content here and there, and return `sha256:…`."""
        digest = self._local.put_file(path)
        self._send(digest, self._local.path(digest).stat().st_size)
        return digest

    def has(self, digest: str) -> bool:
        """Whether the blob is in the shared store."""
        return self._objects.head(_blob_key(digest)) is not None

    def path(self, digest: str) -> Path:
        """The verified local file, fetched where it is missing or damaged here.

        Raises:
            NotFound: it is in neither (`blob-not-found`); CloudError: the store gives other content (`store-damaged`).
        """
        with contextlib.suppress(NotFound, ModelError):
            return self._local.path(digest)
        self._scratch.mkdir(parents=True, exist_ok=True)
        temporary = self._scratch / f"{digest[-16:]}-{secrets.token_hex(4)}"
        try:
            self._objects.download(_blob_key(digest), temporary, digest=digest)
            self._local.put_file(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        return self._local.path(digest)

    def materialise(self, files: Sequence[FileRef], into: Path) -> None:
        """Fetch what is missing here, then write the tree from verified copies."""
        for ref in files:
            self.path(ref.digest)
        self._local.materialise(files, into)

    def stored(self) -> Iterator[Content]:
        """Every blob in the shared store."""
        return _listed(self._objects, store.BLOBS)

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove blobs; their ages were told by the listing, and the lease keeps publishers out since then."""
        self._objects.delete([store.blob_key(digest) for digest in digests])
        return len(digests)

    def _send(self, digest: str, size: int) -> None:
        found = self._objects.head(_blob_key(digest))
        if found is None or found.size_bytes != size:
            self._objects.upload(_blob_key(digest), self._local.path(digest), digest=digest)


def _listed(objects: ObjectStore, prefix: str) -> Iterator[Content]:
    for item in objects.list(prefix):
        if digest := store.digest_at(item.key):
            yield Content(digest=digest, size_bytes=item.size_bytes, age_s=item.age_s)


def _blob_key(digest: str) -> str:
    try:
        return store.blob_key(digest)
    except NotFound as error:
        raise NotFound(error.message, hint=error.hint, code="blob-not-found") from error


class RemoteBundles:
    """BundleStore in the shared store: a manifest there means that all its blobs are there."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def save(self, bundle: Bundle) -> str:
        """Write the manifest, and anew where it is old or damaged; return the bundle's digest.

        Raises:
            NotFound: a blob that it names is not in the store (`blob-not-found`).
        """
        needed = sorted({f.digest for f in bundle.files} | {bundle.sample})
        present = at_once(lambda digest: self._objects.head(store.blob_key(digest)) is not None, needed)
        for digest, there in zip(needed, present, strict=True):
            if not there:
                raise NotFound(
                    f"the bundle {bundle.name} names {digest[:19]}…, which is not in {self._objects.address}",
                    hint="deployctl package --push   (--lock ENV names the environment)",
                    code="blob-not-found",
                )
        key, data = store.bundle_key(bundle.digest), codec.dumps(bundle).encode()
        found = self._objects.get(key)
        if found is None or found.data != data or found.age_s > REFRESH_S:
            self._objects.put(key, data, expected=found.tag if found else None)  # whoever was faster wrote the same
        return bundle.digest

    def load(self, digest: str) -> Bundle:
        """The bundle of that digest.

        Raises:
            NotFound: it was never published there (`bundle-not-found`); CloudError: it is damaged (`store-damaged`).
        """
        key = store.bundle_key(digest)
        found = self._objects.get(key)
        if found is None:
            raise NotFound(
                f"the bundle {digest[:19]}… is not in {self._objects.address}",
                hint="deployctl package --push   (where the model is; --lock ENV names the environment)",
                code="bundle-not-found",
            )
        if f"sha256:{hashlib.sha256(found.data).hexdigest()}" != digest:
            raise CloudError(
                f"the manifest of {digest[:19]}… is damaged",
                where=f"{self._objects.address}/{key}",
                hint="deployctl package --push   (where the model is: it writes the manifest anew)",
                code="store-damaged",
            )
        return codec.loads(Bundle, found.data.decode(), where=f"{self._objects.address}/{key}")

    def stored(self) -> Iterator[Content]:
        """Every manifest in the shared store."""
        return _listed(self._objects, store.BUNDLES)

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove manifests; see RemoteBlobs."""
        self._objects.delete([store.bundle_key(digest) for digest in digests])
        return len(digests)
