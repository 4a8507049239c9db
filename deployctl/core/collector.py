"""The OpenTelemetry Collector's configuration: Triton's spans in, a latency histogram that adds over replicas out.

What enters is a plan and where spans go on to; what leaves is the configuration as data. Only root spans are counted: all of
Triton's spans have kind SERVER, so whoever counts spans counts a request three times or more. Queue and compute are no histograms
here, because a collector cannot subtract events of two spans; their means come from Triton's own counters. The components are
those of the `contrib` distribution, 0.145 or later.
"""

from __future__ import annotations

from typing import Any

from deployctl.core.alerts import limit_us
from deployctl.core.plan import Plan
from deployctl.core.spans import BOUNDS_US, REQUEST_HISTOGRAM, ROOT

OTLP, SCRAPE, HEALTH = 4318, 8889, 13133
_MADE = "traces.span.metrics.duration"  # what the connector calls it, in milliseconds


def bounds_us(plan: Plan) -> list[int]:
    """Upper bounds of the histogram: those of our own spans, and the SLO's limit."""
    return sorted({*(round(b) for b in BOUNDS_US), limit_us(plan.slo)})


def config(plan: Plan, *, forward: str | None, host: str = "0.0.0.0", ports: tuple[int, int, int] = (OTLP, SCRAPE, HEALTH)) -> dict[str, Any]:
    """The whole configuration.

    Args:
        plan: whose spans they are.
        forward: OTLP/HTTP base address that whole traces are sent on to; None keeps none.
        host: address to listen on.
        ports: for OTLP over HTTP, for scrapes, for the health check.
    """
    otlp, scrape, health = ports
    exporters: dict[str, Any] = {"prometheus": {"endpoint": f"{host}:{scrape}", "add_metric_suffixes": False, "send_timestamps": False}}
    pipelines: dict[str, Any] = {
        "traces/slo": {"receivers": ["otlp"], "processors": ["memory_limiter", "filter/root"], "exporters": ["spanmetrics"]},
        "metrics/slo": {"receivers": ["spanmetrics"], "processors": ["filter/durations", "transform/names"], "exporters": ["prometheus"]},
    }
    if forward is not None:
        exporters["otlphttp/forward"] = {"endpoint": forward.rstrip("/"), "sending_queue": {"queue_size": 1000}}
        pipelines["traces/forward"] = {"receivers": ["otlp"], "processors": ["memory_limiter"], "exporters": ["otlphttp/forward"]}
    return {
        "extensions": {"health_check": {"endpoint": f"{host}:{health}"}},
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{host}:{otlp}"}}}},
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 25},
            "filter/root": {"error_mode": "ignore", "traces": {"span": [f'name != "{ROOT}"']}},
            "filter/durations": {"error_mode": "ignore", "metrics": {"metric": [f'name != "{_MADE}"']}},
            "transform/names": {"error_mode": "propagate", "metric_statements": _names(plan)},
        },
        "connectors": {
            "spanmetrics": {
                "histogram": {"unit": "ms", "explicit": {"buckets": [f"{bound}us" for bound in bounds_us(plan)]}},
                "exclude_dimensions": ["service.name", "span.name", "span.kind", "status.code", "collector.instance.id"],
                "resource_metrics_key_attributes": ["service.name"],
                "aggregation_temporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
                "metrics_flush_interval": "5s",
            }
        },
        "exporters": exporters,
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": pipelines,
        },
    }


def _names(plan: Plan) -> list[dict[str, Any]]:
    """Upstream's proposed name, in its unit, with Triton's label for the model."""
    return [
        {"context": "datapoint", "statements": [f'set(datapoint.attributes["model"], "{plan.entry}")']},
        {"context": "metric", "statements": ['scale_metric(1000.0, "us")', f'set(metric.name, "{REQUEST_HISTOGRAM}")']},
    ]
