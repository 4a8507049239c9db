"""One Grafana dashboard as data: is the promise kept, where does the time go, are there enough replicas, which release is it.

What enters is the service that is shown first; what leaves is Grafana's dashboard JSON. Every query stands in PANELS, so that a
test can run each on a real Prometheus. Variables choose data source, namespace, service and model. Refuses to know Grafana's API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployctl.core.signals import query
from deployctl.core.spans import REQUEST_HISTOGRAM

_SERVICE = 'namespace="$namespace",service="$service"'
_MODEL = f'{_SERVICE},model="$model"'
_WINDOW = "$__rate_interval"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: `queries` are (legend, PromQL); `note` says what it shows and where it was measured."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    note: str
    kind: str = "timeseries"
    width: int = 8


def _signal(name: str) -> str:
    text = query(name, selector=_MODEL, window=_WINDOW)
    assert text is not None, name
    return text


def _quantile(q: float) -> str:
    return f"histogram_quantile({q}, sum by (le) (rate({REQUEST_HISTOGRAM}_bucket{{{_MODEL}}}[{_WINDOW}]))) / 1e6"


def _stage(name: str) -> str:
    """Mean seconds a request spends in a stage; every model of the service, since an ensemble's time is its steps'."""
    return (
        f"sum by (model) (rate(nv_inference_{name}_duration_us{{{_SERVICE}}}[{_WINDOW}]))"
        f" / sum by (model) (rate(nv_inference_request_success{{{_SERVICE}}}[{_WINDOW}])) / 1e6"
    )


_STAGES = (("queue", "queue"), ("input", "compute_input"), ("compute", "compute_infer"), ("output", "compute_output"))
_BATCHED = f"sum by (model) (rate(nv_inference_count{{{_SERVICE}}}[{_WINDOW}]))"
_RUN = f"sum by (model) (rate(nv_inference_exec_count{{{_SERVICE}}}[{_WINDOW}]))"
_FAILED = f"(sum(rate(nv_inference_request_failure{{{_MODEL}}}[{_WINDOW}])) or vector(0))"
_SERVED = f"sum(rate(nv_inference_request_success{{{_MODEL}}}[{_WINDOW}]))"
_RELEASES = f"count by (app_kubernetes_io_version) (count by (app_kubernetes_io_version, instance) (nv_inference_request_success{{{_MODEL}}}))"

PANELS: tuple[Panel, ...] = (
    Panel(
        title="Latency",
        unit="s",
        queries=tuple((f"p{q * 100:g}", _quantile(q)) for q in (0.5, 0.95, 0.99)),
        note="Root spans on the server, without network; of the share of requests that is traced.",
        width=12,
    ),
    Panel(
        title="Failed requests", unit="percentunit", queries=(("failed", f"{_FAILED} / ({_SERVED} + {_FAILED})"),), note="Triton's counters.", width=6
    ),
    Panel(
        title="Replicas",
        unit="short",
        queries=(("replicas", _signal("replicas")),),
        note="Replicas that are scraped.",
        kind="stat",
        width=6,
    ),
    Panel(
        title="Load",
        unit="reqps",
        queries=(("arrivals", _signal("arrivals_rps")), ("completions", _signal("completions_rps"))),
        note="What arrives and what ends; apart while a queue grows.",
    ),
    Panel(
        title="Replicas against load",
        unit="short",
        queries=(("replicas", _signal("replicas")), ("requests a second for each", f"({_signal('arrivals_rps')}) / ({_signal('replicas')})")),
        note="Whether the autoscaler follows the load.",
    ),
    Panel(
        title="Busy share", unit="percentunit", queries=(("busy", _signal("busy_ratio")),), note="Share of the time in which an instance computes."
    ),
    Panel(
        title="Where the time goes (mean)",
        unit="s",
        queries=tuple((f"{label} {{{{model}}}}", _stage(name)) for label, name in _STAGES),
        note="Means from Triton's counters, for each model; a tail shows in Latency only.",
        width=12,
    ),
    Panel(
        title="Batch size (mean)",
        unit="short",
        queries=(("{{model}}", f"{_BATCHED} / {_RUN}"),),
        note="Requests that ran as one.",
        width=6,
    ),
    Panel(
        title="Waiting requests",
        unit="short",
        queries=(("{{model}}", f"sum by (model) (nv_inference_pending_request_count{{{_SERVICE}}})"),),
        note="Triton's queues now; an ensemble has none of its own.",
        width=6,
    ),
    Panel(
        title="Releases",
        unit="short",
        queries=(("{{app_kubernetes_io_version}}", _RELEASES),),
        note="Replicas of each release: the label is the start of the bundle's digest.",
        width=12,
    ),
    Panel(
        title="Failures by reason",
        unit="reqps",
        queries=(("{{reason}}", f"sum by (reason) (rate(nv_inference_request_failure{{{_MODEL}}}[{_WINDOW}]))"),),
        note="REJECTED is a full queue; BACKEND and OTHER are the model's.",
        width=12,
    ),
)


def dashboard(service: str = "") -> dict[str, Any]:
    """The dashboard; `service` is the one that is shown first, empty lets Grafana choose."""
    return {
        "uid": "deployctl-triton" + (f"-{service}"[:24] if service else ""),
        "title": f"{service or 'Triton services'}: promise, load and releases",
        "tags": ["deployctl", "triton"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(service)},
        "panels": _placed(),
    }


def _variables(service: str) -> list[dict[str, Any]]:
    """Data source, then namespace, service and model as Prometheus has them; each list follows from the choices before it."""
    series = "nv_inference_request_success"
    chosen = {"current": {"text": f"{service}-pods", "value": f"{service}-pods"}} if service else {}
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        _values("namespace", "Namespace", f"label_values({series}, namespace)"),
        {**_values("service", "Service", f'label_values({series}{{namespace="$namespace"}}, service)'), **chosen},
        _values("model", "Model", f"label_values({series}{{{_SERVICE}}}, model)"),
    ]


def _values(name: str, label: str, text: str) -> dict[str, Any]:
    return {"name": name, "label": label, "type": "query", "datasource": _SOURCE, "query": text, "refresh": 2, "sort": 1}


def _placed() -> list[dict[str, Any]]:
    """Panels from left to right in rows of 24 columns."""
    found, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > 24:
            x, y = 0, y + 8
        found.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": 8}))
        x += panel.width
    return found


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.note,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8}} if panel.kind == "timeseries" else {"unit": panel.unit},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": text, "legendFormat": legend}
            for i, (legend, text) in enumerate(panel.queries)
        ],
    }
