"""What scaling an existing Triton missed and cost, and what would have been better: series and objects enter, advice leaves.

Triton counts what ended and what waits, so arrivals are what ended plus what the queue grew by, and the capacity of a replica
follows from the utilisation law: at rate x a replica is busy for a share u, so it is saturated at x/u. Latency here is Triton's own mean,
since it exports no percentile that adds over replicas: what is said about the past is called that. Refuses to know HTTP and files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.core import kube_names, replay, rules, traces
from deployctl.core.decision import RateLimit, ScalingPolicy, Select
from deployctl.core.fluid import Plant
from deployctl.core.policies import slo
from deployctl.errors import ProjectError

FloatArray = npt.NDArray[np.float64]
SERIES = ("arrivals_rps", "completions_rps", "failures_rps", "busy_ratio", "queue_s", "response_s", "replicas")
SAFE_BUSY = 0.8  # share of its saturation rate at which a replica is planned; the tail grows steeply beyond it
_NAMES: tuple[tuple[str, str], ...] = (
    (r"queue", "queue_s"),
    (r"duty_cycle|gpu_util|utili[sz]ation|busy|cpu", "busy_ratio"),
    (r"pending|in_?flight|concurren", "concurrency"),
    (r"request|rps|rate|inference|arrival|qps", "arrivals_rps"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """What a Prometheus remembers of one model, evenly spaced; NaN where there is no sample."""

    step_s: float
    series: dict[str, FloatArray]

    def __getitem__(self, name: str) -> FloatArray:
        return self.series[name]

    @property
    def known_ratio(self) -> float:
        """Share of the window with known arrivals."""
        arrivals = self["arrivals_rps"]
        return float(np.isfinite(arrivals).mean()) if arrivals.size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The past as it was.

    Attributes:
        requests: in the window.
        replica_hours: replicas that were scraped.
        windows_missed_ratio: share of five-minute windows with a mean response above the SLO or more than 1 % failures.
        peak_rps: highest arrival rate of a step.
        largest_mean_response_s: over five minutes.
    """

    requests: float
    replica_hours: float
    windows_missed_ratio: float
    peak_rps: float
    largest_mean_response_s: float


def known_part(past: Past) -> Past | None:
    """From the first to the last known sample: a window that is longer than the data is no time without load. None where nothing is known."""
    known = np.flatnonzero(np.isfinite(past["arrivals_rps"]))
    if known.size < 2:
        return None
    inside = slice(int(known[0]), int(known[-1]) + 1)
    return replace(past, series={name: values[inside] for name, values in past.series.items()})


def measured(past: Past, slo_s: float) -> Measured:
    """Figures of the past from Triton's counters."""
    arrivals = np.nan_to_num(past["arrivals_rps"])
    width = max(round(300 / past.step_s), 1)
    ended, failed = _windows(past["completions_rps"], width), _windows(past["failures_rps"], width)
    response = _windows(past["response_s"] * past["completions_rps"], width) / np.maximum(ended, 1e-9)
    busy_windows = ended + failed > 0
    missed = ((response > slo_s) | (failed > 0.01 * (ended + failed))) & busy_windows
    return Measured(
        requests=float(arrivals.sum() * past.step_s),
        replica_hours=float(np.nansum(past["replicas"]) * past.step_s / 3600),
        windows_missed_ratio=float(missed.sum() / max(busy_windows.sum(), 1)),
        peak_rps=float(arrivals.max(initial=0.0)),
        largest_mean_response_s=float(response[busy_windows].max(initial=0.0)),
    )


def _windows(values: FloatArray, width: int) -> FloatArray:
    count = max(values.shape[0] // width, 1)
    sums: FloatArray = np.nan_to_num(values[: count * width]).reshape(count, -1).sum(axis=1)
    return sums


def capacity_rps(past: Past) -> float | None:
    """Rate that one replica can be planned with, by the utilisation law; None where it was never busy enough to tell."""
    busy, ended, replicas = past["busy_ratio"], past["completions_rps"], past["replicas"]
    with np.errstate(invalid="ignore", divide="ignore"):
        saturated = ended / replicas / busy
    use = np.isfinite(saturated) & (busy > 0.05) & (ended > 0)
    if use.sum() < 10:
        return None
    return SAFE_BUSY * float(np.median(saturated[use]))


def quick_s(past: Past) -> float:
    """Mean response without waiting: what is left of the SLO is the time that a request may queue."""
    response, queue = past["response_s"], past["queue_s"]
    plain = (response - queue)[np.isfinite(response) & np.isfinite(queue)]
    return max(float(np.median(plain)), 0.0) if plain.size else 0.0


def trace_of(past: Past, name: str) -> traces.Trace:
    """Arrivals of the window as a trace; unknown stretches count as no traffic."""
    counts = np.nan_to_num(np.maximum(past["arrivals_rps"], 0.0)) * past.step_s
    return traces.from_counts(counts, per_s=past.step_s, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The autoscaler that is there: as settings that can be replayed, and what had to be assumed."""

    name: str
    settings: ScalingPolicy
    assumed: tuple[str, ...]


def present(objects: Sequence[dict[str, Any]]) -> Present | None:
    """The first HPA or ScaledObject among the objects; None without one or without a metric that a replay knows.

    Raises:
        ProjectError: a field of it holds what Kubernetes would refuse (`manifest-invalid`).
    """
    item = autoscaler(objects)
    if item is None:
        return None
    name = f"{item['kind']}/{(item.get('metadata') or {}).get('name', '?')}"
    try:
        return (_hpa if item["kind"] == "HorizontalPodAutoscaler" else _scaled_object)(name, item.get("spec") or {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # what the API server checks, nobody has checked in a file
        raise ProjectError(
            f"{name} is no object that Kubernetes would accept",
            why=_why(error),
            hint="kubectl get hpa NAME -o yaml > hpa.yaml writes one that is read",
            code="manifest-invalid",
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return (
        f"{str(error).rpartition(': ')[2]} is no number" if isinstance(error, ValueError) else "a field is of another type than Kubernetes has there"
    )


def autoscaler(objects: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The first HPA or ScaledObject; None without one."""
    return next((item for item in objects if item.get("kind") in ("HorizontalPodAutoscaler", "ScaledObject")), None)


def _hpa(name: str, spec: dict[str, Any]) -> Present | None:
    for metric in spec.get("metrics") or []:
        source = (
            metric.get(
                {"Resource": "resource", "ContainerResource": "containerResource"}.get(metric.get("type", ""), str(metric.get("type", "")).lower())
            )
            or {}
        )
        label = str((source.get("metric") or {}).get("name") or source.get("metricName") or source.get("name") or "")
        target = source.get("target") or {}
        raw = next((v for v in (target.get("averageUtilization"), source.get("targetAverageUtilization")) if v is not None), None)
        value = (
            float(raw) / 100 if raw is not None else quantity(target.get("averageValue") or target.get("value") or source.get("targetAverageValue"))
        )
        found = _signal(label, value, per_cent=raw is not None)
        if found is not None:
            signal, wanted, assumed = found
            settings = ScalingPolicy(
                policy="hpa",
                signal=signal,
                target=wanted,
                min_replicas=int(spec.get("minReplicas", 1)),
                max_replicas=int(spec.get("maxReplicas", 1)),
            )
            return Present(name=name, settings=_behaviour(settings, spec.get("behavior") or {}), assumed=tuple(assumed))
    return None


def _scaled_object(name: str, spec: dict[str, Any]) -> Present | None:
    for trigger in spec.get("triggers") or []:
        data = trigger.get("metadata") or {}
        found = _signal(str(data.get("query") or trigger.get("type", "")), quantity(data.get("threshold") or data.get("value")), per_cent=False)
        if found is not None:
            signal, wanted, assumed = found
            options = {"polling_s": float(spec.get("pollingInterval", 30)), "cooldown_s": float(spec.get("cooldownPeriod", 300))}
            settings = ScalingPolicy(
                policy="keda",
                signal=signal,
                target=wanted,
                min_replicas=int(spec.get("minReplicaCount", 0)),
                max_replicas=int(spec.get("maxReplicaCount", 100)),
                options=options,
            )
            advanced = ((spec.get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}).get("behavior") or {}
            return Present(name=name, settings=_behaviour(settings, advanced), assumed=tuple(assumed))
    return None


def _signal(label: str, value: float | None, *, per_cent: bool) -> tuple[str, float, list[str]] | None:
    """(signal, target in our unit, what was assumed) for a metric of somebody else's naming."""
    signal = next((ours for pattern, ours in _NAMES if re.search(pattern, label, re.IGNORECASE)), None)
    if signal is None or not value:
        return None
    assumed = [f"the metric {label[:80]!r} is replayed as {signal}"]
    if signal == "queue_s":
        value = value / 1e6 if re.search(r"_us\b|micro", label) or value >= 10 else value
        assumed.append(f"its target is {value:g} s")
    elif signal == "busy_ratio" and not per_cent and value > 1:
        value /= 100
    return signal, value, assumed


def _behaviour(settings: ScalingPolicy, behaviour: dict[str, Any]) -> ScalingPolicy:
    up, down = behaviour.get("scaleUp") or {}, behaviour.get("scaleDown") or {}
    choices: dict[str, Select] = {"Max": "max", "Min": "min", "Disabled": "disabled"}
    return replace(
        settings,
        scale_up_window_s=float(up.get("stabilizationWindowSeconds") or 0.0),
        scale_down_window_s=float(down["stabilizationWindowSeconds"] if down.get("stabilizationWindowSeconds") is not None else 300.0),
        up_limits=_limits(up) or settings.up_limits,
        down_limits=_limits(down) or settings.down_limits,
        up_select=choices.get(str(up.get("selectPolicy")), "max"),
        down_select=choices.get(str(down.get("selectPolicy")), "max"),
    )


def _limits(side: dict[str, Any]) -> tuple[RateLimit, ...]:
    return tuple(
        RateLimit(kind="pods" if rule.get("type") == "Pods" else "percent", value=int(rule["value"]), period_s=float(rule["periodSeconds"]))
        for rule in side.get("policies") or []
    )


def quantity(value: Any) -> float | None:
    """A number as Kubernetes writes it: 50, "0.5", "500m", "2k"; None if it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([munkMG]?)i?\s*", str(value))
    scale = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "k": 1e3, "M": 1e6, "G": 1e9}
    return float(match[1]) * scale[match[2]] if match else None


def replay_error(past: Past, run: replay.Run) -> float | None:
    """How far the replay of the present autoscaler is from what it really did: mean absolute difference over mean replicas."""
    real = past["replicas"]
    steps = (np.arange(real.shape[0]) * past.step_s).astype(np.int64)
    inside = steps < run.flow.ready.shape[0]
    told, real = run.flow.ready[steps[inside]], real[inside]
    use = np.isfinite(real) & (real > 0)
    return float(np.abs(told[use] - real[use]).mean() / real[use].mean()) if use.any() else None


def objects(
    plant: Plant, *, service: str, namespace: str, selector: str, deployment: str, low: int, high: int, replaces: str | None = None
) -> list[dict[str, Any]]:
    """What to apply: the recording rules of the `slo` policy and the HPA that follows them.

    Args:
        plant: capacity and start-up of a replica.
        service: Triton's model; label of the recorded series.
        namespace: of the objects.
        selector: PromQL labels of the model's counters.
        deployment: what is scaled.
        low: fewest replicas.
        high: most replicas.
        replaces: name of the HPA that is there; ours takes its name, since two of one Deployment would undo each other.
    """
    settings = ScalingPolicy(policy="slo", capacity_rps=plant.capacity_rps, start_up_s=float(plant.start_up_s), min_replicas=low, max_replicas=high)
    labels = {"service": kube_names.label_value(service), "namespace": namespace}
    follower = slo.hpa_settings(settings)
    meta = {"name": kube_names.name(_dns(service), "scaling"), "namespace": namespace}
    limit = [{"type": "Pods", "value": rule.value, "periodSeconds": round(rule.period_s)} for rule in follower.up_limits]
    side = {"selectPolicy": "Max", "policies": limit, "tolerance": "0"}
    metric = {
        "metric": {"name": "deployctl_wanted_replicas", "selector": {"matchLabels": labels}},
        "target": {"type": "AverageValue", "averageValue": "1"},
    }
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": meta,
            "spec": {"groups": rules.groups(settings, selector=selector, labels=labels)},
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": replaces or meta["name"], "namespace": namespace},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
                "minReplicas": low,
                "maxReplicas": high,
                "metrics": [{"type": "External", "external": metric}],
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0, **side},
                    "scaleDown": {"stabilizationWindowSeconds": round(follower.scale_down_window_s), **side},
                },
            },
        },
    ]


def _dns(model: str) -> str:
    """Triton's names may hold capitals and underscores, those of Kubernetes may not."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return plain if plain[:1].isalpha() else f"model-{plain}".rstrip("-")


def highest(trace: traces.Trace, plant: Plant) -> int:
    """An upper bound that leaves room above the busiest second of the window."""
    return max(math.ceil(1.5 * float(trace.arrivals.max(initial=0.0)) / plant.capacity_rps), 2)
