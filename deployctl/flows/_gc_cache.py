"""What of `.deployctl/cache` nothing needs any more: the listing and what is needed enter, what stays and what went leaves.

Everything there can be made again, at the price of minutes: a profile is measured, variants are compressed. So what belongs to a bundle
that somebody names stays. Refuses to know who names it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from deployctl.core import codec, collect
from deployctl.core.artifact import FileRef
from deployctl.core.collect import Content
from deployctl.errors import ProjectError
from deployctl.flows import _cache
from deployctl.flows._environment import KIND as ENVIRONMENT
from deployctl.ports import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """One place: what stays, what is young, and what was removed (or would be)."""

    place: str
    kept: int
    kept_bytes: int
    young: int
    removed: int
    removed_bytes: int


def swept(place: str, content: collect.Sorted) -> Swept:
    """The counts of a sorted listing."""
    return Swept(
        place=place,
        kept=len(content.needed),
        kept_bytes=sum(c.size_bytes for c in content.needed),
        young=len(content.young),
        removed=len(content.garbage),
        removed_bytes=sum(c.size_bytes for c in content.garbage),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Bundles whose results stay, blobs of theirs (an environment that was packed is one), and records by name."""

    bundles: frozenset[str]
    blobs: frozenset[str]
    names: frozenset[str]

    def has(self, folder: Path, name: str) -> bool:
        """Whether the record of that name is needed; one of an earlier form, which nothing reads, is not."""
        if name.startswith(f"{ENVIRONMENT}/"):
            return _packed(folder / name) in self.blobs
        return name in self.names or _cache.bundle_of(name) in self.bundles


def sweep_cache(tools: Toolbox, needed: Needed, grace_s: float, *, dry_run: bool) -> Swept:
    """Remove the records that are not needed and older than `grace_s`, or only say which with `dry_run`."""
    folder, now_s = tools.workspace.cache, time.time()
    listing = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        facts = path.stat()
        listing.append(Content(digest=path.relative_to(folder).as_posix(), size_bytes=facts.st_size, age_s=max(0.0, now_s - facts.st_mtime)))
    found = collect.sort(listing, frozenset(item.digest for item in listing if needed.has(folder, item.digest)), grace_s)
    for item in found.garbage if not dry_run else ():
        (folder / item.digest).unlink(missing_ok=True)
    return swept(".deployctl/cache", found)


def _packed(path: Path) -> str | None:
    """Digest of the blob that a packed environment is; None where the record is damaged."""
    try:
        return codec.loads(FileRef, path.read_text("utf-8")).digest
    except (ProjectError, UnicodeDecodeError):
        return None
