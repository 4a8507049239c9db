"""What differs between two plans: what enters are two Plans, what leaves are changes with the old and the new value.

Refuses to know why they differ and how they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deployctl.core import codec, words
from deployctl.core.cost import CostSpan, of_plan
from deployctl.core.plan import Plan
from deployctl.core.planner import cores_per_replica
from deployctl.core.platform import Platform

# Follow from the rest or name a file of their own: shown last, and never a change by themselves.
_DERIVED = ("forecast", "evidence")
_LEFT_OUT = ("base", "schema_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value: `before` None means added, `after` None means removed; `derived` ones follow from others."""

    path: str
    before: str | None
    after: str | None
    derived: bool = False

    @property
    def sign(self) -> Literal["+", "-", "~"]:
        """Added, removed, changed: readable without colour."""
        return "+" if self.before is None else "-" if self.after is None else "~"

    def __str__(self) -> str:
        values = " -> ".join(v for v in (self.before, self.after) if v is not None)
        return f"{self.sign} {self.path}  {values}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All changes from one plan to another, and what they do to the cost.

    Attributes:
        changes: in a stable order.
        cores_before, cores_after: reserved by all replicas at the starting number; what a service on this machine costs.
        cost_before, cost_after: of the nodes, both at today's prices; None on this machine and before the first release.
    """

    changes: tuple[Change, ...]
    cores_before: int
    cores_after: int
    cost_before: CostSpan | None = None
    cost_after: CostSpan | None = None

    @property
    def differs(self) -> bool:
        """Whether anything would be done differently."""
        return bool(self.changes)

    @property
    def cost_texts(self) -> tuple[str, str]:
        """The cost before and after, as a person reads it; equal where it does not change."""
        if self.cost_after is not None:
            return str(self.cost_before or "nothing"), str(self.cost_after)
        return f"{words.count(self.cores_before, 'core')} reserved", f"{words.count(self.cores_after, 'core')} reserved"


def compare(before: Plan | None, after: Plan, platform: Platform | None = None) -> Comparison:
    """Changes from `before` to `after`; before the first release (None) there is nothing to compare with. `platform` knows the prices."""
    return Comparison(
        changes=tuple(changes(before, after)) if before is not None else (),
        cores_before=before.replicas * cores_per_replica(before.settings) if before else 0,
        cores_after=after.replicas * cores_per_replica(after.settings),
        cost_before=of_plan(before, platform) if before else None,
        cost_after=of_plan(after, platform),
    )


def changes(before: Plan, after: Plan) -> list[Change]:
    """Changed values in a stable order: what serves first, what follows from it last."""
    old, new = (_flat(codec.to_data(p)) for p in (before, after))
    found = []
    for path in sorted(old.keys() | new.keys(), key=_order):
        was, now = (None if path not in side else _text(path, side[path]) for side in (old, new))
        if old.get(path) != new.get(path):
            found.append(Change(path=path, before=was, after=now, derived=path.split(".")[0] in _DERIVED))
    return found


def _order(path: str) -> tuple[int, str]:
    first = ("bundle", "variant", "entry", "settings", "replicas", "scaling")
    head = path.split(".")[0]
    return (first.index(head) if head in first else 99 if head in _DERIVED else 50, path)


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested maps as dotted paths; lists stay values."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if not prefix and key in _LEFT_OUT:
            continue
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            out.update(_flat(value, f"{path}."))
        else:
            out[path] = value
    return out


def _text(path: str, value: Any) -> str:
    name = path.rsplit(".", 1)[-1]
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float) and name.endswith("_until_s"):
        return f"{value:.0f}"
    if isinstance(value, (int, float)) and name.endswith("_s"):
        return words.seconds(float(value))
    if isinstance(value, str):
        return words.short(value) if value.startswith("sha256:") else value
    if isinstance(value, list):
        return ", ".join(_item(v) for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _item(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in value.items() if not isinstance(v, (dict, list)))
    return str(value)
