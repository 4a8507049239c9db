"""The `slo` policy as standard objects: Prometheus recording rules and the HPA that follows them.

What enters are the policy's settings and how its series are selected; what leaves are rule groups as plain data (what stands
under `groups:` in a rule file or under `spec` of a PrometheusRule). Refuses to know Kubernetes objects (`manifests` does) and
to decide anything: each rule is one line of `policies/slo.py`, and a test on a real Prometheus holds the two together.

A range of k ticks is written half a tick longer than k-1, so that it holds exactly k samples whether the left end of a range
counts (Prometheus 2) or not (3). Every rule is silent while arrivals are unknown: the HPA then has no metric and keeps what runs.
"""

from __future__ import annotations

from typing import Any

from deployctl.core import envelopes
from deployctl.core.decision import ScalingPolicy
from deployctl.core.envelopes import EXPERTS, FORECASTS, Expert, Forecast, Ticks
from deployctl.core.policies import slo
from deployctl.core.signals import query

MEAN, PEAK, SHORT_RATE = "deployctl:arrivals_rps", "deployctl:arrivals_peak_rps", "deployctl:arrivals:short_rate_rps"
GROWTH, FORECAST, ERROR = "deployctl:arrivals:growth_rps", "deployctl:arrivals:forecast_rps", "deployctl:arrivals:forecast_error_rps"
RAW, HELD = "deployctl:envelope:asked_replicas", "deployctl:envelope:replicas"
SHORT, BROKEN, SCORE = "deployctl:envelope:shortfall_rps", "deployctl:envelope:broken", "deployctl:envelope:score"
WANTED, FOLLOWED, MISSED = "deployctl:wanted_replicas", "deployctl:followed_replicas", "deployctl:shortfall_rps"

Rule = dict[str, Any]


def groups(settings: ScalingPolicy, *, selector: str, labels: dict[str, str], scrape_s: float = 5.0) -> list[dict[str, Any]]:
    """All rule groups of one service.

    Args:
        settings: of the `slo` policy: capacity, start-up, tick.
        selector: label matchers of Triton's series, such as `namespace="prod",model="embed"`.
        labels: put on every recorded series; together they must name the service.
        scrape_s: how often Triton is scraped.
    """
    window, short = f"{round(4 * scrape_s)}s", f"{round(2.4 * scrape_s)}s"
    arrivals, brief = query("arrivals_rps", selector=selector, window=window), query("arrivals_rps", selector=selector, window=short)
    name = "-".join(["deployctl", *(labels[key] for key in sorted(labels))])
    own = _own(labels)
    tick = settings.sync_s
    load = [
        {"record": MEAN, "expr": f"clamp_min({arrivals}, 0)", "labels": labels},
        {"record": PEAK, "expr": f"max_over_time({SHORT_RATE}{own}[{_ms(tick + scrape_s / 2)}]) > {MEAN}{own} or {MEAN}{own}", "labels": labels},
    ]
    return [
        {
            "name": f"{name}-load",
            "interval": _ms(scrape_s),
            "rules": [{"record": SHORT_RATE, "expr": f"clamp_min({brief}, 0)", "labels": labels}],
        },
        {"name": f"{name}-policy", "interval": _ms(tick), "rules": [*load, *policy_rules(settings, labels=labels)]},
    ]


def policy_rules(settings: ScalingPolicy, *, labels: dict[str, str]) -> list[Rule]:
    """The rules from arrivals to wanted replicas, in the order in which they must be evaluated."""
    text = _Text(settings, labels)
    return [
        text.rule(GROWTH, text.growth()),
        text.rule(ERROR, text.error()),
        *(text.rule(FORECAST, text.forecast(forecast), forecast=forecast.name) for forecast in FORECASTS),
        *(text.rule(RAW if expert.held else HELD, text.envelope(expert), expert=expert.name) for expert in EXPERTS),
        text.rule(HELD, text.held()),
        text.rule(SHORT, text.shortfall()),
        text.rule(BROKEN, text.broken()),
        text.rule(SCORE, text.score()),
        text.rule(MISSED, text.missed()),
        text.rule(WANTED, text.wanted()),
        text.rule(FOLLOWED, text.followed()),
    ]


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _own(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}"


def _number(value: float) -> str:
    return format(value, ".15g")


class _Text:
    """PromQL of each step; names follow `policies/slo.py`."""

    def __init__(self, settings: ScalingPolicy, labels: dict[str, str]) -> None:
        self.step: Ticks = slo.ticks(settings)
        self.capacity = _number(settings.capacity_rps)
        self.labels = labels
        self.own = _own(labels)
        self.known = f"last_over_time({PEAK}{self.own}{self.ticks(1)})"

    def rule(self, record: str, expr: str, **more: str) -> Rule:
        """One recording rule."""
        return {"record": record, "expr": expr, "labels": {**self.labels, **more}}

    def ticks(self, count: int, *, back: int = 0) -> str:
        """A range of `count` ticks whose newest lies `back` ticks ago."""
        span = f"[{_ms((count - 0.5) * self.step.sync_s)}]"
        return f"{span} offset {_ms(back * self.step.sync_s)}" if back else span

    def growth(self) -> str:
        """How much the load grew within one start-up and two ticks."""
        earlier = f"last_over_time({PEAK}{self.own}{self.ticks(1, back=self.step.start_up + 2)})"
        return f"clamp_min({self.known} - {earlier}, 0)"

    def error(self) -> str:
        """What each forecast of one lead ago was short of."""
        told = f"last_over_time({FORECAST}{self.own}{self.ticks(1, back=self.step.lead)})"
        return f"-1 * ({told} - on() group_left() {self.known})"

    def forecast(self, forecast: Forecast) -> str:
        """The load one lead ahead."""
        now = f"last_over_time({MEAN}{self.own}{self.ticks(1)})"
        parts = [f"{_number(1 - forecast.trend_ratio - forecast.mean_ratio)} * {now}"]
        if forecast.trend_ratio:
            line = f"predict_linear({MEAN}{self.own}{self.ticks(self.step.of(envelopes.TREND_S))}, {_number(self.step.lead * self.step.sync_s)})"
            parts.append(f"{_number(forecast.trend_ratio)} * ({line} or {now})")
        if forecast.mean_ratio:
            parts.append(f"{_number(forecast.mean_ratio)} * avg_over_time({MEAN}{self.own}{self.ticks(self.step.of(forecast.mean_s))})")
        return f"({' + '.join(parts)}) and {self.known}"

    def top(self, seconds: float) -> str:
        """The largest load of a window."""
        return f"max_over_time({PEAK}{self.own}{self.ticks(self.step.of(seconds))})"

    def envelope(self, expert: Expert) -> str:
        """Replicas that one envelope asks for."""
        load = {"flat": self.flat, "growth": self.recent_and_growth, "season": self.season, "forecast": self.forecast_and_error}[expert.kind](expert)
        return f"{self.replicas(load)} and {self.known}"

    def replicas(self, load: str) -> str:
        """Replicas for a load, under the ceiling of all envelopes, at least one."""
        ceiling = f"{_number(envelopes.CEILING)} * {self.top(envelopes.DAY_S)}"
        return f"clamp_min(ceil((({load}) < ({ceiling}) or {ceiling}) / {self.capacity} - {_number(envelopes.SLACK)}), 1)"

    def flat(self, expert: Expert) -> str:
        """The highest load of a window, times a headroom."""
        return f"{_number(expert.headroom_ratio)} * {self.top(expert.window_s)}"

    def recent_and_growth(self, expert: Expert) -> str:
        """The highest recent load and a quantile of the growth."""
        recent = self.top(expert.window_s)
        grown = f"quantile_over_time({_number(expert.quantile)}, {GROWTH}{self.own}{self.ticks(self.step.day)})"
        return f"{recent} + ({grown} or 0 * {recent})"

    def season(self, expert: Expert) -> str:
        """The load one period ago, or the present one."""
        recent = self.top(expert.window_s)
        newest, count = envelopes.season_span(expert, self.step)
        before = f"{_number(expert.headroom_ratio)} * max_over_time({PEAK}{self.own}{self.ticks(count, back=newest)})"
        return f"({before} > {recent}) or {recent}" if newest >= 1 else recent

    def forecast_and_error(self, expert: Expert) -> str:
        """A forecast and a quantile of its errors, or the present load."""
        which = f'{{forecast="{FORECASTS[expert.forecast].name}",{self.own[1:]}'
        told = f"sum without (forecast) (last_over_time({FORECAST}{which}{self.ticks(1)}))"
        error = f"sum without (forecast) (quantile_over_time({_number(expert.quantile)}, {ERROR}{which}{self.ticks(self.step.day)}))"
        return f"(({told} + ({error} or 0 * {told})) > {self.known}) or {self.known}"

    def held(self) -> str:
        """What was asked for is kept for one start-up."""
        return f"max_over_time({RAW}{self.own}{self.ticks(self.step.start_up + 1)}) and on() {self.known}"

    def arrived(self) -> str:
        """The load that a shortfall is counted against."""
        return f"(last_over_time({MEAN}{self.own}{self.ticks(1)}) + {self.known}) / 2"

    def shortfall(self) -> str:
        """Load beyond what each envelope would have had ready."""
        ready = f"min_over_time({HELD}{self.own}{self.ticks(self.step.start_up + 1, back=1)})"
        return f"clamp_min({self.arrived()} - on() group_right() ({self.capacity} * {ready}), 0)"

    def missed(self) -> str:
        """Load beyond what would be ready had the wanted replicas been followed."""
        ready = f"min_over_time({FOLLOWED}{self.own}{self.ticks(self.step.start_up + 1, back=1)})"
        return f"clamp_min({self.arrived()} - {self.capacity} * {ready}, 0)"

    def followed(self) -> str:
        """What the HPA makes of the wanted replicas: it holds each for two ticks."""
        return f"max_over_time({WANTED}{self.own}{self.ticks(2)}) and {self.known}"

    def broken(self) -> str:
        """1 while the last five minutes of an envelope would have broken the percentile."""
        missed = f"sum_over_time({SHORT}{self.own}{self.ticks(self.step.judged)})"
        offered = f"{_number(slo.WINDOW_MISS)} * sum_over_time({MEAN}{self.own}{self.ticks(self.step.judged)})"
        return f"({missed} > bool on() group_left() ({offered})) and on() {self.known}"

    def score(self) -> str:
        """Cost of the past day times the squares of how far the misses exceed their budgets."""
        day = self.ticks(self.step.day)
        count = f"count_over_time({PEAK}{self.own}{day})"
        cost = f"sum_over_time({HELD}{self.own}{day}) / on() group_left() {count}"
        missed = f"sum_over_time({SHORT}{self.own}{day}) / on() group_left() clamp_min(sum_over_time({MEAN}{self.own}{day}), 1e-9)"
        broken = f"(sum_over_time({BROKEN}{self.own}{day}) + {self.step.lead}) / on() group_left() {count}"
        over = f"clamp_min(({missed}) / {_number(slo.MISS_BUDGET)}, 1) ^ 2 * clamp_min(({broken}) / {_number(slo.WINDOW_BUDGET)}, 1) ^ 2"
        return f"round(({cost}) * ({over}), {_number(1 / slo.PER_SCORE)}) and on() {self.known}"

    def alarm(self) -> str:
        """What the line through the last minute asks for, while the past five minutes miss too much."""
        missed = f"sum_over_time({MISSED}{self.own}{self.ticks(self.step.judged)})"
        offered = f"sum_over_time({MEAN}{self.own}{self.ticks(self.step.judged, back=1)})"
        which = f'{{forecast="{FORECASTS[slo.LINE].name}",{self.own[1:]}'
        told = f"sum without (forecast) (last_over_time({FORECAST}{which}{self.ticks(1)}))"
        load = f"{_number(slo.ALARM_HEADROOM)} * ({told} > {self.known} or {self.known})"
        return f"{self.replicas(load)} and {missed} > ({_number(slo.ALARM_MISS)} * {offered} or 0 * {missed})"

    def wanted(self) -> str:
        """The default envelope until enough is known, then the one with the lowest score; more where an alarm asks for more."""
        first = f'max({HELD}{{expert="{EXPERTS[slo.DEFAULT].name}",{self.own[1:]})'
        young = f"count_over_time({PEAK}{self.own}{self.ticks(self.step.day)}) < {slo.learned(self.step)}"
        score = f"last_over_time({SCORE}{self.own}{self.ticks(self.step.judged, back=1)})"
        best = f"max(last_over_time({HELD}{self.own}{self.ticks(1)}) and on(expert) ({score} == on() group_left() min({score})))"
        chosen = f"({first} and on() ({young})) or {best} or {first}"
        return f"(max(({self.alarm()}) or on() vector(0)) > ({chosen}) or ({chosen})) and on() {self.known}"
