"""gc: mark what any release, lock or proof needs, then remove the rest, here and in the shared store.

What cannot be read counts as needed by somebody: then nothing is removed. In the store, publishing and collecting exclude each
other by a lease for the moment that matters; a manifest goes before its blobs, so none is ever seen without them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from deployctl.config import locks
from deployctl.core import codec, collect, store, words
from deployctl.core.collect import Content
from deployctl.core.evidence import Evidence
from deployctl.core.lock import Lock
from deployctl.core.project import Project
from deployctl.core.release import History
from deployctl.errors import DeployctlError, NotFound, ProjectError, Refused
from deployctl.flows import _cache
from deployctl.flows._gc_cache import Needed, Swept, sweep_cache, swept
from deployctl.flows._publish import STORE_LEASE
from deployctl.flows.compress import KINDS, cache_key, remembered
from deployctl.ports import BlobStore, BundleStore, Progress, RemoteStore, Toolbox

T = TypeVar("T")
_BATCH = 500  # removed between two renewals of the lease


def gc(
    project: Project,
    tools: Toolbox,
    progress: Progress,
    *,
    toolbox_of: Callable[[str], Toolbox],
    grace_s: float = collect.GRACE_S,
    dry_run: bool = False,
) -> tuple[Swept, ...]:
    """Collect this project's own blobs and cached results and, where the environment names one, its shared store.

    Args:
        project: deploy.yaml, completed.
        tools: ports of the environment whose store is meant.
        progress: talk.
        toolbox_of: ports of each other environment of this project; all their releases count.
        grace_s: younger content stays.
        dry_run: only say what would go.

    Raises:
        Refused: the grace period is shorter than publishing needs (`gc-grace`), or something that might name content cannot be
            read (`gc-unreadable`); nothing was removed.
        LockHeld: somebody else is publishing or collecting (`store-lease-held`), or took over meanwhile (`store-lease-lost`).
    """
    if grace_s < collect.LEAST_GRACE_S:
        raise Refused(
            f"{words.duration(grace_s)} is too short: a bundle that was just published could go before it is released",
            hint=f"wait at least {words.duration(collect.LEAST_GRACE_S)}, such as --grace 24h",
            code="gc-grace",
        )
    here = _readable(lambda: frozenset(_named_here(project, tools, toolbox_of)))
    progress.step("looking at .deployctl/blobs")
    extra = _readable(lambda: _cached(project, tools))
    found = [_sweep(".deployctl", tools.blobs, tools.bundles, here, extra, grace_s, dry_run, lambda: None)]
    cached = sweep_cache(tools, _readable(lambda: _results_needed(project, tools, here, grace_s)), grace_s, dry_run=dry_run)
    if (remote := tools.remote) is not None:
        progress.step(f"looking at {remote.objects.address}")
        with remote.lease(STORE_LEASE) as renew:
            there = _readable(lambda: frozenset(_named_there(remote)))
            found.append(_sweep(remote.objects.address, remote.blobs, remote.bundles, here | there, frozenset(), grace_s, dry_run, renew))
            if not dry_run:
                remote.objects.drop_unfinished(grace_s)
    return (*found, cached)


def _named_here(project: Project, tools: Toolbox, toolbox_of: Callable[[str], Toolbox]) -> Iterator[str]:
    """Bundles that this checkout's locks, proofs and environments name, those included that deploy.yaml no longer has."""
    folder = tools.workspace.root / "lock"
    for path in sorted(folder.glob("*.lock")):
        yield from _of_lock(locks.read(path, path.stem))
    for path in sorted((folder / "evidence").glob("*.json")):
        yield codec.loads(Evidence, path.read_text("utf-8"), where=str(path)).key.bundle
    left = {p.name for p in tools.workspace.env("x").parent.glob("*") if p.is_dir()}
    for env in sorted({e.name for e in project.environments} | left):
        yield from _of_history(toolbox_of(env).records.history())


def _named_there(remote: RemoteStore) -> Iterator[str]:
    """Bundles that the store's locks and the records of every service and environment in it name."""
    environments = {row[:2] for item in remote.objects.list(store.RELEASES) if (row := store.release_at(item.key))}
    for service, env in sorted(environments):
        yield from _of_history(remote.records(service, env).history())
    for item in remote.objects.list(store.LOCKS):
        if found := remote.objects.get(item.key):
            yield from _of_lock(codec.loads(Lock, found.data.decode(), where=item.key))


def _of_history(history: History) -> Iterator[str]:
    for release in history.releases:
        if release.plan.bundle:
            yield release.plan.bundle
        if release.lock:
            yield from _of_lock(release.lock)


def _of_lock(lock: Lock) -> Iterator[str]:
    if lock.bundle:
        yield lock.bundle


def _cached(project: Project, tools: Toolbox) -> frozenset[str]:
    """Blobs of the variants that were made from the model as it is now: without them everything would be compressed again."""
    record = remembered(project, tools) if project.model.kind in KINDS else None
    return frozenset(record.digests) if record else frozenset()


def _sweep(
    place: str,
    blobs: BlobStore,
    bundles: BundleStore,
    roots: frozenset[str],
    extra: frozenset[str],
    grace_s: float,
    dry_run: bool,  # noqa: FBT001 - one of several facts about one sweep
    renew: Callable[[], object],
) -> Swept:
    """Mark and sweep one place: manifests first."""
    manifests = collect.sort(bundles.stored(), roots, grace_s)
    kept = [*manifests.needed, *manifests.young]
    needed = frozenset(itertools.chain(extra, *_readable(lambda: [_blobs_of(bundles, m.digest) for m in kept])))
    content = collect.sort(blobs.stored(), needed, grace_s)
    for group, discard in ((manifests.garbage, bundles.discard), (content.garbage, blobs.discard)):
        for batch in _batches(group):
            if not dry_run:
                renew()
                discard([item.digest for item in batch], older_than_s=grace_s)
    return swept(place, content)


def _results_needed(project: Project, tools: Toolbox, roots: frozenset[str], grace_s: float) -> Needed:
    """Whose cached results stay: of what is named or young, and of the model as it is now."""
    manifests = collect.sort(tools.bundles.stored(), roots, grace_s)
    kept = roots | {m.digest for m in (*manifests.needed, *manifests.young)}
    blobs = itertools.chain.from_iterable(_blobs_of(tools.bundles, digest) for digest in kept)
    current = {_cache.name("compress", cache_key(project, tools.workspace.root))} if project.model.kind in KINDS else set()
    return Needed(bundles=frozenset(kept), blobs=frozenset(blobs), names=frozenset(current))


def _blobs_of(bundles: BundleStore, digest: str) -> frozenset[str]:
    """What a kept manifest names; nothing where it went meanwhile."""
    try:
        return collect.content_of(bundles.load(digest))
    except NotFound:
        return frozenset()


def _batches(items: tuple[Content, ...]) -> Iterable[tuple[Content, ...]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _readable(act: Callable[[], T]) -> T:
    """Whatever might name content must be readable, or nothing is removed."""
    try:
        return act()
    except (ProjectError, OSError, UnicodeDecodeError) as error:
        raise _unreadable(error) from error
    except DeployctlError as error:
        if error.code.startswith("store-") and error.code != "store-damaged":
            raise
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> Refused:
    return Refused(
        "nothing was removed: something that may name content cannot be read",
        why=str(error),
        where=getattr(error, "where", None),
        hint="mend it (deployctl recover brings back records; deployctl package --push --force a manifest), then repeat the command",
        code="gc-unreadable",
    )
