"""What may be removed from a store of content: the needed digests and a listing enter, the digests that nobody needs leave.

Young content is never removed: it may belong to an upload under way, or to a bundle that is published and not yet released.
Refuses to know where content lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployctl.core.bundle import Bundle

GRACE_S = 24 * 3600.0
LEAST_GRACE_S = 2 * 3600.0  # a manifest is written anew when it is published again after an hour; collecting must not be faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One stored piece: a blob or a manifest, by digest."""

    digest: str
    size_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """A listing, sorted: what stays because it is needed, what stays because it is young, and what may go."""

    needed: tuple[Content, ...]
    young: tuple[Content, ...]
    garbage: tuple[Content, ...]


def sort(listing: Iterable[Content], needed: frozenset[str], grace_s: float) -> Sorted:
    """Every piece into one of three; what is needed is needed at any age."""
    rows: tuple[list[Content], list[Content], list[Content]] = ([], [], [])
    for item in listing:
        rows[0 if item.digest in needed else 1 if item.age_s < grace_s else 2].append(item)
    return Sorted(needed=tuple(rows[0]), young=tuple(rows[1]), garbage=tuple(rows[2]))


def content_of(bundle: Bundle) -> frozenset[str]:
    """Every blob that a bundle names."""
    return frozenset({*(f.digest for f in bundle.files), bundle.sample})
