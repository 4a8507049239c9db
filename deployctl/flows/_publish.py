"""A bundle to and from the store that machines share: only what is missing travels, and every byte is verified on arrival."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployctl.core import codec, store, words
from deployctl.core.bundle import Bundle
from deployctl.core.collect import content_of
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.errors import LockHeld, NotFound, ProjectError
from deployctl.ports import ObjectStore, Progress, RemoteStore, Toolbox

PARALLEL = 6
_SEALS = 3  # a lease that is lost more often means a machine that cannot keep up
FRESH_S = 3600.0  # a manifest this young needs no refreshing: collecting counts from when it was written
STORE_LEASE = "store"  # held for the moment in which content becomes needed, or is found to be needed by nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What publishing did: `sent` files of `sent_bytes` in all; the rest was there."""

    bundle: str
    address: str
    sent: int
    sent_bytes: int


def remote_of(tools: Toolbox, env: str) -> RemoteStore:
    """The environment's store.

    Raises:
        ProjectError: it names none (`store-not-named`).
    """
    if tools.remote is None:
        raise ProjectError(
            f"the environment {env} names no store that deployctl can write to",
            hint=f"add `store: s3://bucket/prefix` under environments.{env} in deploy.yaml",
            code="store-not-named",
        )
    return tools.remote


def publish(tools: Toolbox, bundle: Bundle, progress: Progress, *, env: str, again: bool = False) -> Published:
    """Make the store hold everything that `bundle` names, the manifest last. Writes nothing where that is so already.

    Args:
        tools: ports.
        bundle: as it was packaged on this machine.
        progress: talk.
        env: the environment whose store it is.
        again: send every file, also those that are there.

    Raises:
        ProjectError: the environment names no store (`store-not-named`); CloudError: see `ports.ObjectStore`.
        LockHeld: somebody else is collecting or publishing for longer than one waits (`store-lease-held`).
    """
    remote = remote_of(tools, env)
    needed = sorted(content_of(bundle))
    missing = needed if again else _missing(remote.objects, needed)
    if not missing and _is_fresh(remote.objects, bundle.digest):
        return Published(bundle=bundle.digest, address=remote.objects.address, sent=0, sent_bytes=0)
    sent_bytes = _send(tools, remote.objects, missing, progress)
    gone, gone_bytes = _seal(tools, remote, bundle, progress)
    return Published(bundle=bundle.digest, address=remote.objects.address, sent=len(missing) + gone, sent_bytes=sent_bytes + gone_bytes)


def share(tools: Toolbox, bundle: Bundle | None, progress: Progress, *, env: str) -> None:
    """What is released must lie where other machines and pods find it, before anybody is told to run it; nothing without a store."""
    if bundle is not None and tools.remote is not None:
        publish(tools, bundle, progress, env=env)


def keep(tools: Toolbox, bundle: Bundle | None, service: str, lock: Lock, progress: Progress) -> None:
    """`share`, and keep it there: a release's record is a commit, a later one may return to it, and no history in the store names it."""
    share(tools, bundle, progress, env=lock.env)
    if tools.remote is not None and lock.bundle is not None:
        tools.remote.objects.put(store.pin_key(service, lock.env, lock.bundle), codec.dumps(lock).encode(), expected=None)  # there already is as good


def _seal(tools: Toolbox, remote: RemoteStore, bundle: Bundle, progress: Progress) -> tuple[int, int]:
    """Write the manifest while nobody collects; files and bytes that a collection had taken and that were sent again.

    The last renewal proves that the lease was ours from the look at the blobs to the manifest; where it was not, all is looked at again.
    """
    sent = sent_bytes = 0
    for attempt in range(_SEALS):
        with remote.lease(STORE_LEASE) as renew:
            gone = _missing(remote.objects, sorted(content_of(bundle)))
            sent, sent_bytes = sent + len(gone), sent_bytes + _send(tools, remote.objects, gone, progress)
            try:
                remote.bundles.save(bundle)
                renew()
                break
            except (LockHeld, NotFound) as error:
                if error.code not in ("store-lease-lost", "blob-not-found") or attempt == _SEALS - 1:
                    raise
    return sent, sent_bytes


def bring(bundle: Bundle | None, plan: Plan, tools: Toolbox, progress: Progress) -> None:
    """What is released must lie where pods and other machines find it, before anybody is told to run it."""
    if bundle is None:
        return
    if plan.cluster is not None and not (plan.cluster.store or "").startswith("s3://"):
        progress.note(f"deployctl only reads {plan.cluster.store}: the blobs of {words.short(bundle.digest)} have to be there already")
        return
    share(tools, bundle, progress, env=plan.env)


def fetch(tools: Toolbox, digest: str, progress: Progress, *, env: str) -> Bundle:
    """The bundle of that digest with all its blobs on this machine, each verified; what is here already is not fetched.

    Raises:
        NotFound: it was never published (`bundle-not-found`), or a blob is in neither place (`blob-not-found`).
        CloudError: see `ports.ObjectStore`; what arrived whole stays, so the same command goes on.
    """
    bundle = _local(tools, digest)
    remote = None if bundle else remote_of(tools, env)
    if bundle is None and remote is not None:
        progress.step(f"fetching {words.short(digest)} from {remote.objects.address}")
        bundle = remote.bundles.load(digest)
    assert bundle is not None
    needed = sorted(content_of(bundle))
    if remote is not None:
        blobs = remote.blobs
        _each(needed, lambda blob, _moved: blobs.path(blob), progress, "fetched")
    tools.bundles.save(bundle)
    return bundle


def _local(tools: Toolbox, digest: str) -> Bundle | None:
    try:
        bundle = tools.bundles.load(digest)
    except NotFound:
        return None
    whole = all(tools.blobs.has(blob) for blob in content_of(bundle))
    return bundle if whole else None


def _missing(objects: ObjectStore, needed: list[str]) -> list[str]:
    """Blobs that are not in the store, or that were not written as this content (by hand, or by whoever changed them)."""
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        found = pool.map(lambda digest: objects.head(store.blob_key(digest)), needed)
        rows = list(zip(needed, found, strict=True))
    return [digest for digest, row in rows if row is None or row.digest != digest]


def _is_fresh(objects: ObjectStore, digest: str) -> bool:
    manifest = objects.head(store.bundle_key(digest))
    return manifest is not None and manifest.age_s < FRESH_S


def _send(tools: Toolbox, objects: ObjectStore, blobs: list[str], progress: Progress) -> int:
    paths: dict[str, Path] = {digest: tools.blobs.path(digest) for digest in blobs}
    total = sum(path.stat().st_size for path in paths.values())
    if blobs:
        progress.step(f"sending {words.count(len(blobs), 'file')}, {total / 1e6:.1f} MB, to {objects.address}")
    _each(blobs, lambda digest, moved: objects.upload(store.blob_key(digest), paths[digest], digest=digest, moved=moved), progress, "sent", total)
    return total


def _each(
    items: list[str], act: Callable[[str, Callable[[int], None]], object], progress: Progress, done_word: str, total_bytes: int | None = None
) -> None:
    """Do it for all, a few at once; the first failure ends it, and what is done stays done."""
    bytes_moved, lock = 0, threading.Lock()

    def moved(count: int) -> None:
        nonlocal bytes_moved
        with lock:
            bytes_moved += count

    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        jobs = {pool.submit(act, item, moved) for item in items}
        waiting = jobs
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, timeout=0.5, return_when=concurrent.futures.FIRST_EXCEPTION)
            if any(job.exception() for job in done):
                pool.shutdown(cancel_futures=True)
                waiting = set()
            whole = f" of {total_bytes / 1e6:.1f} MB" if total_bytes is not None else ""
            progress.update(f"{done_word} {len(items) - len(waiting)} of {len(items)} files" + (f", {bytes_moved / 1e6:.1f}{whole}" if whole else ""))
    for job in jobs:
        if not job.cancelled():
            job.result()
