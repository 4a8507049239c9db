"""Blobs and bundle manifests as files: what enters are bytes and trees, what leaves are digests and verified copies.

A blob is written to a temporary file, flushed to the disk, and renamed to its digest: it is visible whole or not at all,
whoever is killed and however many write at once. Everything is hashed again when it is read. Content is always copied,
never hard-linked, in both directions: a file that somebody edits in place, or a replica's copy that is damaged, must not
reach the blob through a shared inode. Refuses to know what a bundle is good for, and Triton.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from deployctl.core import codec
from deployctl.core.artifact import FileRef
from deployctl.core.bundle import Bundle
from deployctl.core.collect import Content
from deployctl.errors import ModelError, NotFound, ProjectError, from_disk
from deployctl.ports import BlobStore

_CHUNK_BYTES = 1 << 20
_STALE_S = 3600.0  # a temporary file this old belongs to a process that was killed


@contextlib.contextmanager
def _explained(where: Path) -> Iterator[None]:
    """Turn what the disk says into an error that names the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:  # somebody else wrote it between the look and the rename
            raise ProjectError(f"the folder {where} is not empty", hint="name another folder, or empty this one", code="folder-not-empty") from error
        if (known := from_disk(error, where)) is not None:
            raise known from error
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_hashed(source: BinaryIO, target: BinaryIO) -> str:
    """Copy to the end, flush to the disk, and return the digest of exactly what was written."""
    hasher = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        hasher.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())
    return f"sha256:{hasher.hexdigest()}"


def file_digest(path: Path) -> str:
    """`sha256:…` of a file's content."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def safe_relative(path: str) -> PurePosixPath:
    """A tree path that stays inside the tree.

    Raises:
        ModelError: absolute, empty, or with `..` (`path-escapes`).
    """
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or str(pure) != path or path == ".":
        raise ModelError(
            f"the path {path!r} leaves its folder",
            why="files of a bundle have plain relative paths",
            hint="rename the file, or make the bundle again with `deployctl package`",
            code="path-escapes",
        )
    return pure


def _damaged(digest: str, found: str, where: Path) -> ModelError:
    return ModelError(
        f"the stored file {digest[:19]}… is damaged",
        why=f"its content hashes to {found[:19]}…",
        where=str(where),
        hint="delete that file and run `deployctl package --force`, which makes it again",
        code="blob-damaged",
    )


class FileBlobStore:
    """`root/sha256/<2>/<62>`, read-only files; temporary files live in `root/tmp` on the same file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tmp = root / "tmp"

    def put_bytes(self, data: bytes) -> str:
        """Store and return `sha256:…`; storing what is already there does nothing, unless it is damaged."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self._intact(digest):
            return digest
        with _explained(self._root), self._temporary() as (temporary, file):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            self._publish(temporary, digest)
        return digest

    def put_file(self, path: Path) -> str:
        """Store a copy of a file's content and return `sha256:…`.

        Raises:
            NotFound: no such file (`file-not-found`).
        """
        try:
            source = path.open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFound(f"there is no file {path}", hint="check the path", code="file-not-found") from error
        with source:
            digest = f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"
            if self._intact(digest):
                return digest
            source.seek(0)
            with _explained(self._root), self._temporary() as (temporary, file):
                digest = _copy_hashed(source, file)  # of what was written, should the file change under us
                self._publish(temporary, digest)
        return digest

    def path(self, digest: str) -> Path:
        """The local file of a blob, hashed again at each call. Read it; never write to it.

        Raises:
            NotFound: no such blob (`blob-not-found`); ModelError: content does not match its name (`blob-damaged`).
        """
        path = self._require(digest)
        found = file_digest(path)
        if found != digest:
            raise _damaged(digest, found, path)
        return path

    def has(self, digest: str) -> bool:
        """Whether the blob is here (its content is checked when it is read)."""
        return self._place(digest).is_file()

    def materialise(self, files: Sequence[FileRef], into: Path) -> None:
        """Write a tree of verified private copies under `into`, atomically (a sibling folder renamed into place).

        Raises:
            NotFound: a blob is missing (`blob-not-found`); ModelError: a blob is damaged (`blob-damaged`) or a path
            leaves the tree (`path-escapes`); ProjectError: `into` exists and is not empty (`folder-not-empty`).
        """
        if into.is_dir() and any(into.iterdir()):
            raise ProjectError(f"the folder {into} is not empty", hint="name another folder, or empty this one", code="folder-not-empty")
        places = [(ref, safe_relative(ref.path), self._require(ref.digest)) for ref in files]
        with _explained(into), staging_folder(into) as staging:
            for ref, relative, blob in places:
                self._copy_out(ref, blob, staging / relative)
            for folder in sorted({p.parent for p in staging.rglob("*")} | {staging}, reverse=True):
                _sync_folder(folder)
            staging.rename(into)
            _sync_folder(into.parent)

    @staticmethod
    def _copy_out(ref: FileRef, blob: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with blob.open("rb") as source, target.open("xb") as file:
            found = _copy_hashed(source, file)
            os.fchmod(file.fileno(), 0o555 if ref.executable else 0o444)
        if found != ref.digest:
            raise _damaged(ref.digest, found, blob)

    def _place(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise NotFound(f"{digest!r} is no digest", hint="a digest is `sha256:` and 64 hexadecimal digits", code="blob-not-found")
        return self._root / "sha256" / name[:2] / name[2:]

    def _require(self, digest: str) -> Path:
        place = self._place(digest)
        if not place.is_file():
            raise NotFound(
                f"the content {digest[:19]}… is not stored here",
                hint="run `deployctl package`, which makes whatever is missing",
                code="blob-not-found",
            )
        return place

    def stored(self) -> Iterator[Content]:
        """Every blob, in the order of digests."""
        for path in sorted((self._root / "sha256").glob("[0-9a-f][0-9a-f]/*")):
            yield from _content(path, f"sha256:{path.parent.name}{path.name}")

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove old blobs. A put that relies on one makes it young under the same lock, so none is taken from under it."""
        with self._locked(fcntl.LOCK_EX):
            return sum(_discarded(self._place(digest), older_than_s) for digest in digests)

    def _intact(self, digest: str) -> bool:
        """Whether the blob is here and sound; it is young then."""
        place = self._place(digest)
        if not place.is_file():
            return False
        with self._locked(fcntl.LOCK_SH):
            try:
                os.utime(place)
            except FileNotFoundError:  # collected in this moment
                return False
        return file_digest(place) == digest

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "collect.lock").open("w") as file:
            fcntl.flock(file, kind)
            yield

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        self._tmp.mkdir(parents=True, exist_ok=True)
        _sweep(self._tmp)
        path = self._tmp / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _publish(self, temporary: Path, digest: str) -> None:
        place = self._place(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o444)
        temporary.replace(place)  # the same content by whoever comes second
        _sync_folder(place.parent)


def _content(path: Path, digest: str) -> Iterator[Content]:
    """One file of a store as a listing tells it; nothing where it went meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        yield Content(digest=digest, size_bytes=facts.st_size, age_s=max(0.0, time.time() - facts.st_mtime))


def _discarded(path: Path, older_than_s: float) -> bool:
    """Remove one file if it is old."""
    try:
        if time.time() - path.stat().st_mtime <= older_than_s:
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _sweep(folder: Path) -> None:
    oldest = time.time() - _STALE_S
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()


@contextlib.contextmanager
def staging_folder(into: Path) -> Iterator[Path]:
    """A fresh sibling of `into` to build in; whatever was not renamed away is removed at the end."""
    into.parent.mkdir(parents=True, exist_ok=True)
    for left in into.parent.glob(f".{glob.escape(into.name)}.*-*.tmp"):  # by a process that was killed
        pid = left.name.removeprefix(f".{into.name}.").partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
    staging = into.parent / f".{into.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content whole: temporary sibling, fsync, rename."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


class FileBundleStore:
    """`folder/<64 hex>.json` over a blob store: the manifest is written last, so a manifest means a whole bundle."""

    def __init__(self, blobs: BlobStore, folder: Path) -> None:
        self._blobs = blobs
        self._folder = folder

    def save(self, bundle: Bundle) -> str:
        """Store the manifest and return the bundle's digest.

        Raises:
            NotFound: a blob that the manifest names is missing (`blob-not-found`).
        """
        for digest in (*(f.digest for f in bundle.files), bundle.sample):
            if not self._blobs.has(digest):
                raise NotFound(
                    f"the bundle {bundle.name} names {digest[:19]}…, which is not stored here",
                    hint="run `deployctl package --force`, which makes it again",
                    code="blob-not-found",
                )
        write_atomically(self._path(bundle.digest), codec.dumps(bundle).encode())
        return bundle.digest

    def load(self, digest: str) -> Bundle:
        """The bundle of that digest.

        Raises:
            NotFound: it is not here (`bundle-not-found`); ModelError: the manifest is damaged (`blob-damaged`).
        """
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(
                f"the bundle {digest[:19]}… is not stored here",
                hint="run `deployctl package`, which makes it from deploy.yaml",
                code="bundle-not-found",
            ) from error
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            raise _damaged(digest, found, path)
        return codec.loads(Bundle, data.decode(), where=str(path))

    def stored(self) -> Iterator[Content]:
        """Every manifest, in the order of digests."""
        for path in sorted(self._folder.glob("*.json")):
            yield from _content(path, f"sha256:{path.stem}")

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove old manifests."""
        return sum(_discarded(self._path(digest), older_than_s) for digest in digests)

    def _path(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise NotFound(f"{digest!r} is no bundle digest", hint="`deployctl history` lists the bundles of releases", code="bundle-not-found")
        return self._folder / f"{name}.json"
