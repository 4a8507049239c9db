"""What nodes cost a day: what enters are pools with a price and numbers of replicas, what leaves are amounts or why there is none.

Counted is what replicas make a pool rent: whole machines, at the hourly price, for 24 hours. Unknown is an answer; it is never
taken for zero. Refuses to know where a price came from beyond repeating its source.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployctl.core import words
from deployctl.core.plan import Plan
from deployctl.core.platform import Platform, Pool
from deployctl.core.project import Environment
from deployctl.errors import Refused, SloUnreachable

_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of some replicas on a pool.

    Attributes:
        per_day: amount, None where it is unknown.
        nodes: machines that they need, None where it is unknown how many fit on one.
        source: who said what a machine costs, and when.
        why_unknown: a sentence where `per_day` is None.
    """

    per_day: float | None
    currency: str = "USD"
    nodes: int | None = None
    source: str = ""
    why_unknown: str = ""


def replicas_per_node(pool: Pool) -> int | None:
    """How many replicas fit on one machine of the pool, at least one; None where the machine is not described.

    The scarcest of devices, cores and memory decides. What the system itself takes is not known and not subtracted: a replica's
    share is chosen with room for it (`config/platform.py`).
    """
    machine, share = pool.instance, pool.nodes
    if machine is None:
        return None
    fits = [int(machine.cpu // share.cpu), machine.memory_bytes // share.memory_bytes]
    if share.gpu_resource and share.gpus:
        fits.append(machine.gpus // share.gpus)
    return max(1, min(fits))


def of_nodes(pool: Pool, nodes: int) -> Cost:
    """Daily cost of so many machines: the first `on_demand_nodes` at the on-demand price, the rest as the pool buys them."""
    price = pool.price
    if price is None:
        what = pool.instance.name if pool.instance else f"the nodes of {pool.nodes.name}"
        return Cost(per_day=None, nodes=nodes, why_unknown=f"no price is known for {what}; add it under pricing: in platform.yaml")
    firm = min(nodes, pool.on_demand_nodes) if pool.nodes.spot else nodes
    rows = [(firm, price.on_demand_per_hour, "on-demand"), (nodes - firm, price.spot_per_hour, "spot")]
    missing = [kind for count, amount, kind in rows if count and amount is None]
    source = f"{price.source}, {price.as_of}"
    if missing:
        why = f"no {missing[0]} price is known for {price.instance}; add it under pricing: in platform.yaml"
        return Cost(per_day=None, currency=price.currency, nodes=nodes, source=source, why_unknown=why)
    amount = sum(count * (hourly or 0.0) * _HOURS for count, hourly, _ in rows)
    return Cost(per_day=amount, currency=price.currency, nodes=nodes, source=source)


def of_replicas(pool: Pool, replicas: int) -> Cost:
    """Daily cost of the machines that so many replicas need, when they have them to themselves."""
    fit = replicas_per_node(pool)
    if fit is None:
        why = f"platform.yaml names no instance for the pool {pool.nodes.name}, so nobody knows how many replicas fit on a node"
        return Cost(per_day=None, why_unknown=why)
    return of_nodes(pool, -(-replicas // fit))


def most_replicas(pool: Pool, limit_per_day: float) -> int | None:
    """The largest number of replicas whose cost is within the limit; None where the cost is unknown."""
    fit = replicas_per_node(pool)
    if fit is None or of_nodes(pool, 1).per_day is None:
        return None
    nodes = 0
    while nodes < 10_000:
        amount = of_nodes(pool, nodes + 1).per_day
        if amount is None or amount > limit_per_day:
            break
        nodes += 1
    return nodes * fit


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSpan:
    """What the nodes of a service cost a day, within its bounds."""

    lowest: Cost
    start: Cost
    highest: Cost

    def __str__(self) -> str:
        """`24.14 USD/day for 1 node, at most 193.15 (price list, 2026-11-01)`, or why it is unknown."""
        if self.start.per_day is None:
            return f"unknown: {self.start.why_unknown}"
        upper = f", at most {self.highest.per_day:.2f}" if self.highest.per_day is not None and self.highest != self.start else ""
        return f"{self.start.per_day:.2f} {self.start.currency}/day for {words.count(self.start.nodes or 0, 'node')}{upper} ({self.start.source})"


def span(platform: Platform | None, pool_name: str | None, low: int, start: int, high: int) -> CostSpan:
    """What so many replicas cost on a pool of the platform as it is described now."""
    pool = next((p for p in platform.pools if p.nodes.name == pool_name), None) if platform else None
    if pool is not None:
        return CostSpan(lowest=of_replicas(pool, low), start=of_replicas(pool, start), highest=of_replicas(pool, high))
    unknown = Cost(per_day=None, why_unknown=f"{platform.file} has no pool {pool_name}" if platform else "no platform.yaml describes the pool")
    return CostSpan(lowest=unknown, start=unknown, highest=unknown)


def of_plan(plan: Plan, platform: Platform | None) -> CostSpan | None:
    """What the nodes of a plan cost at today's prices, whenever it was made; None on this machine, which has no price."""
    if plan.cluster is None:
        return None
    return span(platform, plan.cluster.pool.name, plan.scaling.min_replicas, plan.replicas, plan.scaling.max_replicas)


def within_limit(place: Environment, low: int, start: int, high: int, notices: list[str]) -> CostSpan:
    """What so many replicas cost on the environment's pool; a limit that they break is refused, one that cannot be checked is told.

    Raises:
        SloUnreachable: even `low` replicas cost more than `limits.cost` (`slo-over-cost`).
        Refused: `high` replicas may cost more than `limits.cost` (`over-cost`).
    """
    pool = place.platform.pool(place.pool) if place.platform and place.pool else None
    found = span(place.platform, place.pool, low, start, high)
    limit, unit = place.limits.cost_per_day, f"{place.limits.currency}/day"
    if limit is None:
        return found
    least, most = found.lowest.per_day, found.highest.per_day
    if pool is None or least is None or most is None or found.highest.currency != place.limits.currency:
        why = found.highest.why_unknown or found.lowest.why_unknown or f"prices are in {found.highest.currency}"
        notices.append(f"limits.cost of {limit:g} {unit} cannot be checked: {why}")
        return found
    if least > limit:
        raise SloUnreachable(
            f"{words.count(low, 'replica')} would cost {least:.2f} {unit} and the limit is {limit:g}",
            why=f"limits.cost in deploy.yaml is a hard bound; price: {found.lowest.source}",
            hint="raise the limit, loosen the SLO, or choose a cheaper pool",
            code="slo-over-cost",
        )
    if most > limit:
        raise Refused(
            f"up to {high} replicas may cost {most:.2f} {unit} and the limit is {limit:g}",
            why=f"limits.cost in deploy.yaml is a hard bound; price: {found.highest.source}",
            hint=f"set limits.replicas to ..{most_replicas(pool, limit)} for this environment, or raise limits.cost",
            code="over-cost",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCost:
    """The bounds of one pool in money: at its least and at its largest size; None for `highest` is no upper bound."""

    pool: str
    lowest: Cost
    highest: Cost | None


def of_platform(platform: Platform) -> tuple[PoolCost, ...]:
    """Bounds of every pool, in the order of platform.yaml."""
    found = []
    for pool in platform.pools:
        most = pool.nodes.max_nodes
        found.append(
            PoolCost(pool=pool.nodes.name, lowest=of_nodes(pool, pool.nodes.min_nodes or 0), highest=None if most is None else of_nodes(pool, most))
        )
    return tuple(found)


def check_budget(platform: Platform) -> list[str]:
    """Sentences about the platform's budget; a breach is refused.

    Raises:
        Refused: all pools at their upper bounds cost more than `budget` (`over-budget`).
    """
    if platform.budget_per_day is None:
        return []
    rows = of_platform(platform)
    unit, known = f"{platform.currency}/day", [r.highest.per_day for r in rows if r.highest is not None and r.highest.per_day is not None]
    if sum(known) > platform.budget_per_day:
        raise Refused(
            f"the pools may cost {sum(known):.2f} {unit} and the budget is {platform.budget_per_day:g}",
            why="; ".join(lines(rows)),
            hint="lower the upper bounds of nodes, or raise budget in platform.yaml",
            code="over-budget",
        )
    open_ends = [r.pool for r in rows if r.highest is None or r.highest.per_day is None]
    return [f"the budget of {platform.budget_per_day:g} {unit} cannot be checked for {', '.join(open_ends)}"] if open_ends else []


def lines(rows: tuple[PoolCost, ...]) -> list[str]:
    """`gpu-l4: 24.14 USD/day for 1 node, 193.15 USD/day for 8 nodes (price list, 2026-11-01)`, one line a pool."""
    found = []
    for row in rows:
        low, high = row.lowest, row.highest
        if low.per_day is None or (high is not None and high.per_day is None):
            found.append(f"{row.pool}: cost unknown: {low.why_unknown or (high.why_unknown if high else '')}")
            continue
        upper = "no upper bound" if high is None else f"{high.per_day:.2f} {high.currency}/day for {words.count(high.nodes or 0, 'node')}"
        found.append(f"{row.pool}: {low.per_day:.2f} {low.currency}/day for {words.count(low.nodes or 0, 'node')}, {upper} ({low.source})")
    return found
