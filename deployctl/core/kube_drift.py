"""Where a live object differs from the wanted one, and who made it so.

What enters are the live object and what a forced dry-run apply would make of it; what leaves are differences with the
field manager that owns each. Fields that nobody asked for (defaults, status, what autoscalers own) never appear: the
dry run does not touch them. Refuses to know clients.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Live = dict[str, Any]
Path = tuple[str, ...]
_NOISE = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field: `live` or `wanted` None where it is missing there; `manager` is who owns the live value, `` if nobody."""

    kind: str
    name: str
    path: str
    live: Any = None
    wanted: Any = None
    manager: str = ""


def bare(item: Live) -> Live:
    """The object without what the server writes on every change, and without status."""
    kept = {k: v for k, v in item.items() if k != "status"}
    kept["metadata"] = {k: v for k, v in item.get("metadata", {}).items() if k not in _NOISE}
    return kept


def owned(item: Live, manager: str) -> Any:
    """What the manager owns by server-side apply, as the server writes it; None where it owns nothing."""
    for entry in item.get("metadata", {}).get("managedFields", []):
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return entry.get("fieldsV1")
    return None


def held(item: Live, section: str, name: str) -> bool:
    """Whether anybody owns the field, by whatever kind of write; else its value is the server's default."""
    entries = item.get("metadata", {}).get("managedFields", [])
    return any(f"f:{name}" in ((entry.get("fieldsV1") or {}).get(f"f:{section}") or {}) for entry in entries)


def unchanged(live: Live, dry_run: Live, manager: str) -> bool:
    """Whether the apply that was tried would change neither a value nor who owns what."""
    return bare(live) == bare(dry_run) and owned(live, manager) == owned(dry_run, manager)


def differences(live: Live, wanted: Live) -> list[Difference]:
    """Every leaf that differs, in path order."""
    found = []
    for path, old, new in _leaves(bare(live), bare(wanted), ()):
        found.append(
            Difference(
                kind=str(wanted.get("kind", live.get("kind", ""))),
                name=str(wanted["metadata"]["name"]),
                path=spell(path),
                live=old,
                wanted=new,
                manager=owner_of(live, path),
            )
        )
    return found


def spell(path: Path) -> str:
    """`spec.template.spec.containers[triton].image`."""
    return "".join(part if part.startswith("[") else f".{part}" for part in path).lstrip(".")


def _leaves(live: Any, wanted: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    if live == wanted:
        return
    if isinstance(live, dict) and isinstance(wanted, dict):
        for key in sorted({*live, *wanted}):
            yield from _leaves(live.get(key), wanted.get(key), (*path, key))
    elif isinstance(live, list) and isinstance(wanted, list) and _named(live) and _named(wanted):
        before, after = ({e["name"]: e for e in side} for side in (live, wanted))
        for name in sorted({*before, *after}):
            yield from _leaves(before.get(name), after.get(name), (*path, f"[{name}]"))
    else:
        yield path, live, wanted


def _named(items: list[Any]) -> bool:
    return all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in items)


def owner_of(live: Live, path: Path) -> str:
    """The manager that owns the field or its nearest ancestor; the one who wrote last where several share it."""
    best, best_depth, best_time = "", 0, ""
    for entry in live.get("metadata", {}).get("managedFields", []):
        depth = _depth(entry.get("fieldsV1", {}), path)
        when = str(entry.get("time", ""))
        if depth and (depth, when) > (best_depth, best_time):
            best, best_depth, best_time = str(entry.get("manager", "")), depth, when
    return best


def _depth(fields: Any, path: Path) -> int:
    """How many parts of the path the field set names."""
    for index, part in enumerate(path):
        if not isinstance(fields, dict):
            return index
        key = (
            next((k for k in fields if k.startswith("k:") and json.loads(k[2:]).get("name") == part[1:-1]), None)
            if part.startswith("[")
            else f"f:{part}"
        )
        if key is None or key not in fields:
            return index
        fields = fields[key]
    return len(path)
