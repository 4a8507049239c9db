"""The signals that a policy may scale on: name, unit, who reports it, how Prometheus computes it, and when it is too old.

What enters is nothing; what leaves is a table. A new signal is a row here. Refuses to know where values are read: the
local supervisor, the replay and a Prometheus each fill the same names.

`scope` decides the HPA metric type: `replica` is a mean over replicas (HPA `Pods`, `AverageValue`), `service` a total
over all of them (HPA `External`, `AverageValue`). In a `Reading` of scope `replica`, `samples` counts the replicas that
reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from deployctl.core.decision import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One measurable fact about a service.

    Attributes:
        unit: of the value, as it is written in reports.
        scope: mean over replicas or total of the service.
        source: who can report it.
        promql: query over Triton's own counters; `{selector}` and `{window}` are filled in. None where Triton has none.
        max_age_s: older readings count as missing.
    """

    unit: str
    scope: Literal["replica", "service"]
    source: str
    promql: str | None
    max_age_s: float = 60.0


# Triton counts requests when they end. What arrived in a window is what ended in it plus what the queue grew by.
_ARRIVALS = (
    "sum(rate(nv_inference_request_success{{{selector}}}[{window}]))"
    " + (sum(rate(nv_inference_request_failure{{{selector}}}[{window}])) or vector(0))"
    " + (sum(deriv(nv_inference_pending_request_count{{{selector}}}[{window}])) or vector(0))"
)

SIGNALS: dict[str, Signal] = {
    "arrivals_rps": Signal(unit="req/s", scope="service", source="front door or Triton counters", promql=_ARRIVALS),
    "arrivals_peak_rps": Signal(unit="req/s", scope="service", source="largest of the rates of 5 s since the last tick", promql=None),
    "wanted_replicas": Signal(
        unit="replicas", scope="service", source="recording rules compiled by deployctl", promql="deployctl:wanted_replicas{{{selector}}}"
    ),
    "completions_rps": Signal(
        unit="req/s", scope="service", source="Triton counters", promql="sum(rate(nv_inference_request_success{{{selector}}}[{window}]))"
    ),
    "pending": Signal(unit="req", scope="service", source="Triton gauge", promql="sum(nv_inference_pending_request_count{{{selector}}})"),
    "concurrency": Signal(unit="req", scope="service", source="front door", promql=None),
    "busy_ratio": Signal(
        unit="ratio",
        scope="replica",
        source="Triton counters",
        # An execution is counted once with the time of its whole batch: the share of the time in which an instance computed.
        promql=(
            "avg(sum by (instance) (rate(nv_inference_compute_infer_duration_us{{{selector}}}[{window}])"
            " * rate(nv_inference_exec_count{{{selector}}}[{window}]) / rate(nv_inference_request_success{{{selector}}}[{window}]))) / 1e6"
        ),
    ),
    "queue_s": Signal(
        unit="s",
        scope="replica",
        source="Triton counters",
        promql=(
            "sum(rate(nv_inference_queue_duration_us{{{selector}}}[{window}]))"
            " / sum(rate(nv_inference_request_success{{{selector}}}[{window}])) / 1e6"
        ),
    ),
    "service_s": Signal(
        unit="s",
        scope="replica",
        source="Triton counters",
        promql=(
            "sum(rate(nv_inference_compute_infer_duration_us{{{selector}}}[{window}]))"
            " / sum(rate(nv_inference_request_success{{{selector}}}[{window}])) / 1e6"
        ),
    ),
    "response_s": Signal(
        unit="s",
        scope="replica",
        source="Triton counters",
        promql=(
            "sum(rate(nv_inference_request_duration_us{{{selector}}}[{window}]))"
            " / sum(rate(nv_inference_request_success{{{selector}}}[{window}])) / 1e6"
        ),
    ),
    "failures_rps": Signal(
        unit="req/s", scope="service", source="Triton counters", promql="sum(rate(nv_inference_request_failure{{{selector}}}[{window}]))"
    ),
    "replicas": Signal(
        unit="replicas", scope="service", source="scraped replicas", promql="count(count by (instance) (nv_inference_request_success{{{selector}}}))"
    ),
    "latency_p99_s": Signal(unit="s", scope="replica", source="front door, client or span histogram", promql=None),
}


def usable(observation: Observation, name: str) -> float | None:
    """The value of a signal if it may be believed: present, finite, not negative, not too old. Else None."""
    reading = observation.readings.get(name)
    if reading is None or reading.value is None or not math.isfinite(reading.value) or reading.value < 0:
        return None
    signal = SIGNALS.get(name)
    return None if reading.age_s > (signal.max_age_s if signal else 60.0) else reading.value


def query(name: str, *, selector: str, window: str) -> str | None:
    """The PromQL text of a signal for one model, or None where Triton's metrics cannot tell."""
    signal = SIGNALS[name]
    return None if signal.promql is None else signal.promql.format(selector=selector, window=window)
