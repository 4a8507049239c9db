"""advise: read an existing Triton's history, replay the autoscaler it has against ours, and say what to apply. Changes nothing.

outcome = advise(source, progress, Asked(slo_s=0.1, manifests=(Path("hpa.yaml"),)))
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployctl.config.objects import read_objects
from deployctl.core import advise as core
from deployctl.core import advise_words, lint, words
from deployctl.core import replay as replaying
from deployctl.core.advise import SERIES, Past
from deployctl.core.advise_live import scaled
from deployctl.core.fluid import Plant
from deployctl.core.replay import Run
from deployctl.core.signals import query
from deployctl.errors import NotFound, ProjectError
from deployctl.flows import _files
from deployctl.ports import MetricSource, ObjectReader, Progress
from deployctl.report import replay as report


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to advise on.

    Attributes:
        slo_s: limit of the latency objective.
        step_s: distance of the source's samples.
        model: Triton's model name; None where there is only one.
        namespace: of the objects to apply, and where a cluster is looked at; None takes that of the present autoscaler, else `default`.
        manifests: files with the present HPA or ScaledObject, and whatever else is to be looked at.
        deployment: the one to look at in a cluster; None takes the only one that runs Triton.
        start_up_s: from asking for a replica to its first answer.
        capacity_rps: of a replica; None estimates it from the history.
    """

    slo_s: float
    step_s: float = 15.0
    model: str | None = None
    namespace: str | None = None
    manifests: tuple[Path, ...] = ()
    deployment: str | None = None
    start_up_s: float = 60.0
    capacity_rps: float | None = None


def advise(source: MetricSource, progress: Progress, asked: Asked, *, cluster: ObjectReader | None = None) -> dict[str, Any]:
    """Everything as one document; `objects` in it is what to apply.

    Args:
        source: the Prometheus that scrapes Triton.
        progress: talk.
        asked: what to advise on.
        cluster: where the present autoscaler and Deployment are read from, in the namespace asked for; None takes the manifests alone.

    Raises:
        NotFound: `deployment-missing`; ProjectError: `deployment-ambiguous` (`core/advise_live.py`).
        NotFound: no Triton series in the window (`triton-history-missing`).
        ProjectError: several models and none named (`model-ambiguous`), the capacity cannot be told (`capacity-unknown`), the model alone
            takes longer than the SLO (`slo-out-of-reach`), or a manifest is none (`manifest-invalid`).
        ClusterError: Prometheus does not answer.
    """
    found = [item for file in asked.manifests for item in read_objects(_files.read_text(file, what="manifest"), where=str(file))]
    if cluster is not None:
        progress.step(f"reading the autoscaler in {asked.namespace or 'default'}")
        found += _live(cluster, asked.namespace or "default", asked.deployment)
    now = core.present(found)
    model = _model(source, asked.model)
    progress.step(f"reading the history of {model}")
    past, asked_s = _past(source, model, asked.step_s)
    plant, estimated = _plant(past, asked)
    trace = core.trace_of(past, model)
    progress.step(f"replaying {words.duration(trace.duration_s)}")
    least = replaying.yardstick(trace, plant)
    ours = replaying.replay(trace, plant, replaying.peer("slo", plant))
    runs = [ours] if now is None else [replaying.replay(trace, plant, now.settings, name=now.name), ours]
    low, high = 1, core.highest(trace, plant)
    there = core.autoscaler(found)
    apply = core.objects(
        plant,
        service=model,
        namespace=asked.namespace or _namespace(found),
        selector=f'model="{model}"',
        deployment=_deployment(found, model),
        low=low,
        high=high,
        replaces=there["metadata"]["name"] if there and there["kind"] == "HorizontalPodAutoscaler" and _named(there) else None,
    )
    figures, measured = report.document(trace, plant, runs, least, slo_s=asked.slo_s), core.measured(past, asked.slo_s)
    present = None if now is None else _present(now, past, runs[0])
    return {
        "model": model,
        "asked_s": asked_s,
        "window_s": trace.duration_s,
        "known_ratio": past.known_ratio,
        "measured": measured,
        "capacity_estimated": estimated,
        "replay": figures,
        "present": present,
        "advice": advise_words.advice(measured, figures["policies"], present, start_up_s=plant.start_up_s),
        "findings": [finding for finding in lint.lint(found) if finding.severity != "ok"],
        "objects": apply,
    }


def _live(cluster: ObjectReader, namespace: str, deployment: str | None) -> list[dict[str, Any]]:
    """The present autoscaler and its Deployment, as the API server has them."""

    def read(api: str, kind: str) -> list[dict[str, Any]]:
        return [{**item, "apiVersion": api, "kind": kind} for item in cluster.list(api, kind, namespace)]  # a list leaves both out

    autoscalers = read("autoscaling/v2", "HorizontalPodAutoscaler")
    with contextlib.suppress(NotFound):  # KEDA is not installed there
        autoscalers += read("keda.sh/v1alpha1", "ScaledObject")
    deployments = read("apps/v1", "Deployment")
    return scaled(autoscalers, deployments, deployment=deployment, namespace=namespace)


def _present(now: core.Present, past: Past, run: Run) -> dict[str, Any]:
    return {
        "name": now.name,
        "assumed": list(now.assumed),
        "min_replicas": now.settings.min_replicas,
        "forecast_error_ratio": core.replay_error(past, run),
    }


def _model(source: MetricSource, wanted: str | None) -> str:
    models = source.names("nv_inference_request_success", "model")
    if not models:
        raise NotFound(
            "this Prometheus has no series of a Triton in the window",
            why="nv_inference_request_success is missing",
            hint="check that it scrapes Triton's metrics port (8002), or widen --window",
            code="triton-history-missing",
        )
    if wanted is None and len(models) == 1:
        return models[0]
    if wanted not in models:
        raise ProjectError(
            f"there is no model {wanted!r}" if wanted else f"there are {len(models)} models",
            why=f"known: {', '.join(models)}",
            hint="name one with --model (for an ensemble, the ensemble)",
            code="model-ambiguous",
        )
    return wanted


def _past(source: MetricSource, model: str, step_s: float) -> tuple[Past, float]:
    """What is known, and how long the window is that was asked for, in seconds."""
    window = f"{round(4 * step_s)}s"
    series: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for name in SERIES:
        text = query(name, selector=f'model="{model}"', window=window)
        assert text is not None
        series[name] = np.array([value for _, value in source.history(text)], dtype=np.float64)
    count = max(values.shape[0] for values in series.values())
    whole = Past(step_s=step_s, series={name: v if v.shape[0] == count else np.full(count, np.nan) for name, v in series.items()})
    past = core.known_part(whole) if count >= 2 else None
    if past is None:
        raise NotFound(f"{model} has no history in the window", hint="widen --window", code="triton-history-missing")
    return past, count * step_s


def _plant(past: Past, asked: Asked) -> tuple[Plant, bool]:
    capacity = asked.capacity_rps or core.capacity_rps(past)
    if capacity is None:
        raise ProjectError(
            "the history does not tell what one replica can serve",
            why="it was busy for less than 5 % of the time, or its counters are missing",
            hint="state it with --capacity 40/s, or choose a busier --window",
            code="capacity-unknown",
        )
    quick_s = core.quick_s(past)
    if quick_s >= asked.slo_s:
        raise ProjectError(
            f"no number of replicas keeps {words.seconds(asked.slo_s)}: a request that waits for nothing takes {words.seconds(quick_s)}",
            why="half of the samples of Triton's mean response without its queue are above that",
            hint=f"a faster variant or machine, or --slo above {words.seconds(quick_s)}",
            code="slo-out-of-reach",
        )
    wait_s = asked.slo_s - quick_s
    plant = Plant(capacity_rps=capacity, start_up_s=math.ceil(asked.start_up_s), wait_s=wait_s, base_p99_s=asked.slo_s - wait_s)
    return plant, asked.capacity_rps is None


def _deployment(objects: list[dict[str, Any]], model: str) -> str:
    for item in objects:
        if item.get("kind") in ("HorizontalPodAutoscaler", "ScaledObject"):
            return str(((item.get("spec") or {}).get("scaleTargetRef") or {}).get("name", model))
    return next((str(item["metadata"]["name"]) for item in objects if item.get("kind") == "Deployment"), model)


def _named(item: dict[str, Any]) -> bool:
    return bool((item.get("metadata") or {}).get("name"))


def _namespace(objects: list[dict[str, Any]]) -> str:
    """Where the present autoscaler is, else the workload."""
    kinds = ("HorizontalPodAutoscaler", "ScaledObject", "Deployment")
    named = [
        (kinds.index(o["kind"]), str(o["metadata"]["namespace"]))
        for o in objects
        if o.get("kind") in kinds and (o.get("metadata") or {}).get("namespace")
    ]
    return min(named)[1] if named else "default"
