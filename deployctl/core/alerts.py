"""The promise as Prometheus rules: what enters is a plan and how its series are selected, what leaves are rule groups as data.

Burn rates over two windows each, as in Google's SRE workbook, chapter 5: the long one says that it matters, the short one that
it is still so. Latency is judged by the histogram of Triton's root spans: on the server, without network, and only of the share
of requests that is traced. Refuses to know Kubernetes objects and who is woken.
"""

from __future__ import annotations

from typing import Any

from deployctl.core import words
from deployctl.core.plan import Plan
from deployctl.core.slo import Slo
from deployctl.core.spans import REQUEST_HISTOGRAM

Rule = dict[str, Any]

# (long window, short window, multiple of the even burn, severity): 2 % of a 30-day budget in an hour, 5 % in 6 hours, 10 % in 3 days.
BURNS = (("1h", "5m", 14.4, "page"), ("6h", "30m", 6.0, "page"), ("3d", "6h", 1.0, "ticket"))
_WINDOWS = ("5m", "30m", "1h", "6h", "3d")
_ENOUGH = 10  # requests in the long window below which a ratio says nothing


def groups(plan: Plan, *, selector: str, labels: dict[str, str], spans: bool) -> list[dict[str, Any]]:
    """Recording rules and alerts of one service.

    Args:
        plan: its SLO, bounds and names.
        selector: label matchers of Triton's series, without model.
        labels: put on every recorded series and alert; together they name the service.
        spans: whether a collector makes histograms of spans; without it latency has no alert, because nothing there can tell a tail.
    """
    own = "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}"
    model = f'{selector},model="{plan.entry}"'
    promises = [("error", plan.slo.error_max_ratio, _errors)]
    if spans:
        promises.insert(0, ("latency", latency_budget_ratio(plan.slo), _late(plan.slo)))
    recorded = [
        {"record": f"deployctl:{name}_misses:ratio_{w}", "expr": ratio(model, w), "labels": labels} for name, _, ratio in promises for w in _WINDOWS
    ]
    alerts = [_burn(plan, name, budget, burn, own, labels) for name, budget, _ in promises for burn in BURNS]
    name = "-".join(["deployctl", *(labels[key] for key in sorted(labels))])
    return [
        {"name": f"{name}-slo", "interval": "30s", "rules": [*recorded, *alerts]},
        {"name": f"{name}-health", "interval": "30s", "rules": _health(plan, model, labels, spans=spans)},
    ]


def latency_budget_ratio(slo: Slo) -> float:
    """The share of requests that may be late: 0.01 for a p99."""
    return round(1 - (slo.latency.percentile or 0.0) / 100, 6)


def limit_us(slo: Slo) -> int:
    """The latency limit in whole microseconds: a bound of the histogram, so that lateness is counted and not interpolated."""
    return round(slo.latency.max * 1e6)


def _late(slo: Slo) -> Any:
    bound = limit_us(slo)

    def ratio(selector: str, window: str) -> str:
        # Prometheus 2 keeps the bound as it was written, with or without a fraction.
        inside = f'sum(rate({REQUEST_HISTOGRAM}_bucket{{{selector},le=~"{bound}([.]0)?"}}[{window}]))'
        every = f"sum(rate({REQUEST_HISTOGRAM}_count{{{selector}}}[{window}]))"
        enough = f"sum(increase({REQUEST_HISTOGRAM}_count{{{selector}}}[{window}])) >= {_ENOUGH}"
        return f"(1 - {inside} / {every}) and ({enough})"

    return ratio


def _errors(selector: str, window: str) -> str:
    failed = f"(sum(rate(nv_inference_request_failure{{{selector}}}[{window}])) or vector(0))"
    good = f"sum(rate(nv_inference_request_success{{{selector}}}[{window}]))"
    enough = f"sum(increase(nv_inference_request_success{{{selector}}}[{window}])) + {failed} > 0"
    return f"({failed} / ({good} + {failed})) and ({enough})"


def _burn(plan: Plan, name: str, budget: float, burn: tuple[str, str, float, str], own: str, labels: dict[str, str]) -> Rule:
    long, short, factor, severity = burn
    limit = min(factor * budget, (1 + budget) / 2)  # a p50 has half of all requests as its budget: 14 times that cannot be
    over = [f"deployctl:{name}_misses:ratio_{window}{own} > {limit:.6g}" for window in (long, short)]
    objective = plan.slo.latency
    promise = f"p{objective.percentile:g} at most {words.seconds(objective.max)}" if name == "latency" else f"errors at most {words.percent(budget)}"
    return {
        "alert": f"Deployctl{name.capitalize()}BudgetBurns",
        "expr": " and ".join(over),
        "for": "2m" if severity == "page" else "15m",
        "labels": {**labels, "severity": severity, "window": long},
        "annotations": {
            "summary": f"{plan.service} in {plan.env} misses its promise ({promise})",
            "description": f"{{{{ $value | humanizePercentage }}}} of the requests of {long} missed it; {words.percent(limit)} would use the budget "
            f"{factor:g} times too fast.",
            "next": f"deployctl status --env {plan.env}; deployctl rollback --env {plan.env} if it began with a release",
        },
    }


def _health(plan: Plan, selector: str, labels: dict[str, str], *, spans: bool) -> list[Rule]:
    """What no latency figure tells: silence, a backend that is dead behind a healthy server, a service that cannot grow."""
    good, bad = (f"nv_inference_request_{kind}{{{selector}}}" for kind in ("success", "failure"))
    where = f"{plan.service} in {plan.env}"
    rules = [
        _alert(
            "DeployctlMetricsAbsent",
            f"absent({good})",
            "5m",
            labels,
            f"{where} has no metrics: nobody scrapes it, or no replica runs",
            "deployctl status; without metrics the autoscaler keeps what runs",
        ),
        _alert(
            # Triton says healthy while every request of a dead Python backend fails (triton core issue 8604).
            "DeployctlBackendDead",
            f"(sum by (instance) (rate({bad}[2m])) > 0) unless (sum by (instance) (rate({good}[2m])) > 0)",
            "1m",
            labels,
            f"a replica of {where} fails every request",
            "deployctl logs; the liveness probe restarts it within minutes, deleting the pod is faster",
        ),
    ]
    policy = plan.scaling
    if policy.min_replicas < policy.max_replicas:
        rules.append(
            _alert(
                "DeployctlReplicasAtMaximum",
                f"count(count by (instance) ({good})) >= {policy.max_replicas}",
                "15m",
                labels,
                f"{where} runs at its limit of {policy.max_replicas} replicas",
                "raise limits.replicas, or tune for less",
                severity="ticket",
            )
        )
    if spans:
        served = f"sum(increase({good}[30m]))"
        seen = f"sum(increase({REQUEST_HISTOGRAM}_count{{{selector}}}[30m]))"
        rate = max(1, round(1 / plan.trace_ratio)) if plan.trace_ratio else 1
        rules.append(
            _alert(
                "DeployctlSpansAbsent",
                f"({served} > {20 * rate}) unless ({seen} > 0)",
                "10m",
                labels,
                f"{where} serves and no span arrives: latency is not watched",
                "look at the collector's pod and its logs",
                severity="ticket",
            )
        )
    return rules


def _alert(name: str, expr: str, hold: str, labels: dict[str, str], summary: str, following: str, *, severity: str = "page") -> Rule:
    return {
        "alert": name,
        "expr": expr,
        "for": hold,
        "labels": {**labels, "severity": severity},
        "annotations": {"summary": summary, "next": following},
    }
