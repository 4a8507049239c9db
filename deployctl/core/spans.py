"""Triton's trace spans as values: what enters are spans of any requests, what leaves is where each request's time went.

The shape (server `src/tracer.cc`): root `InferRequest` > one span per model > leaf `compute`; an ensemble nests its models.
All have kind SERVER, so whoever counts spans counts a request three times or more: only the root counts here. Queueing is no
span; it is COMPUTE_START minus QUEUE_START, two events on different spans. Refuses to know OTLP, HTTP and files.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ROOT = "InferRequest"
COMPUTE = "compute"

# Upper bounds in microseconds, about 1.35x apart: a quantile read from them is off by at most that factor, and the counts
# of any number of replicas add.
BOUNDS_US: tuple[float, ...] = tuple(round(100 * 1.35**i) for i in range(40))

# The names that upstream proposes for its own histograms (triton core PR 474), so that theirs can replace ours.
REQUEST_HISTOGRAM = "nv_inference_request_duration_histogram_us"
QUEUE_HISTOGRAM = "nv_inference_queue_duration_histogram_us"
COMPUTE_INPUT_HISTOGRAM = "nv_inference_compute_input_duration_histogram_us"
COMPUTE_INFER_HISTOGRAM = "nv_inference_compute_infer_duration_histogram_us"
COMPUTE_OUTPUT_HISTOGRAM = "nv_inference_compute_output_duration_histogram_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span: ids in lower-case hex, times in Unix nanoseconds, the last time of each event name."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """One model's part of one request, in seconds; None where an event is missing (a cache hit has no compute).

    `batch_ns` is the moment at which the batch began to execute: requests of one instance that share it ran as one batch.
    """

    model: str
    queue_s: float | None
    input_s: float | None
    infer_s: float | None
    output_s: float | None
    batch_ns: int | None

    @property
    def compute_s(self) -> float:
        """Input, inference and output together; 0 without compute."""
        return (self.input_s or 0.0) + (self.infer_s or 0.0) + (self.output_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimes:
    """Where one request's time went inside the server.

    Attributes:
        trace_id: of the whole trace; the client's where it sent a traceparent.
        at_s: Unix time of the end.
        model: the model that was asked for (the ensemble where there is one).
        total_s: the root span's length.
        receive_s, send_s: reading the request and writing the answer; None where the protocol reports none.
        stages: models in order of their start, without ensembles.
        resource: of the server that answered, such as service.name.
    """

    trace_id: str
    at_s: float
    model: str
    total_s: float
    receive_s: float | None
    send_s: float | None
    stages: tuple[StageTimes, ...]
    resource: dict[str, str] = field(default_factory=dict)

    @property
    def queue_s(self) -> float:
        """Waiting for batch mates and a free instance, all stages."""
        return sum(s.queue_s or 0.0 for s in self.stages)

    @property
    def compute_s(self) -> float:
        """Executing, all stages."""
        return sum(s.compute_s for s in self.stages)

    @property
    def other_s(self) -> float:
        """What is neither queue nor compute: protocol, ensemble scheduling; never below 0 (parallel stages overlap)."""
        return max(0.0, self.total_s - self.queue_s - self.compute_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts per bucket (one more than bounds: the last has no upper bound); adds over replicas and time."""

    bounds_us: tuple[float, ...] = BOUNDS_US
    counts: tuple[int, ...] = (0,) * (len(BOUNDS_US) + 1)
    sum_us: float = 0.0

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.counts)

    def __add__(self, other: Histogram) -> Histogram:
        if self.bounds_us != other.bounds_us:
            raise ValueError("histograms with different bounds do not add")
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(bounds_us=self.bounds_us, counts=counts, sum_us=self.sum_us + other.sum_us)

    def quantile_us(self, ratio: float) -> float | None:
        """The upper bound of the bucket that holds the quantile; None when empty or beyond the last bound."""
        wanted, seen = ratio * self.count, 0
        if self.count == 0:
            return None
        for bound, count in zip(self.bounds_us, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return None


def histogram(values_s: Iterable[float]) -> Histogram:
    """A histogram of durations given in seconds."""
    counts = [0] * (len(BOUNDS_US) + 1)
    total_us = 0.0
    for value_s in values_s:
        counts[bisect_left(BOUNDS_US, value_s * 1e6)] += 1
        total_us += value_s * 1e6
    return Histogram(counts=tuple(counts), sum_us=total_us)


def histograms(times: Sequence[RequestTimes]) -> dict[tuple[str, str], Histogram]:
    """Histograms by (metric name, model): requests by the model asked for, queue and compute by each stage's model."""
    values: dict[tuple[str, str], list[float]] = {}
    for request in times:
        values.setdefault((REQUEST_HISTOGRAM, request.model), []).append(request.total_s)
        for stage in request.stages:
            parts = {
                QUEUE_HISTOGRAM: stage.queue_s,
                COMPUTE_INPUT_HISTOGRAM: stage.input_s,
                COMPUTE_INFER_HISTOGRAM: stage.infer_s,
                COMPUTE_OUTPUT_HISTOGRAM: stage.output_s,
            }
            for name, value_s in parts.items():
                if value_s is not None:
                    values.setdefault((name, stage.model), []).append(value_s)
    return {key: histogram(v) for key, v in sorted(values.items())}


def request_times(spans: Iterable[Span]) -> list[RequestTimes]:
    """One row per root span whose model span has arrived, by end time. A root without its model span is left for later."""
    spans = list(spans)
    children: dict[tuple[str, str], list[Span]] = {}
    for span in spans:
        children.setdefault((span.trace_id, span.parent_id), []).append(span)
    rows = [row for span in spans if span.name == ROOT and (row := _request(span, children)) is not None]
    return sorted(rows, key=lambda r: r.at_s)


def _request(root: Span, children: dict[tuple[str, str], list[Span]]) -> RequestTimes | None:
    models = children.get((root.trace_id, root.span_id), [])
    if not models:
        return None
    top = min(models, key=lambda s: s.start_ns)
    leaves = sorted(_leaves(top, children), key=lambda s: s.start_ns)
    return RequestTimes(
        trace_id=root.trace_id,
        at_s=root.end_ns / 1e9,
        model=top.attributes.get("triton.model_name", top.name),
        total_s=(root.end_ns - root.start_ns) / 1e9,
        receive_s=_gap(root, "HTTP_RECV_START", root, "HTTP_RECV_END"),  # gRPC's wait for a read began before the request: ignored
        send_s=_first(_gap(root, "HTTP_SEND_START", root, "HTTP_SEND_END"), _gap(root, "GRPC_SEND_START", root, "GRPC_SEND_END")),
        stages=tuple(_stage(leaf, children) for leaf in leaves),
        resource=root.resource,
    )


def _leaves(span: Span, children: dict[tuple[str, str], list[Span]]) -> list[Span]:
    """Model spans that have no model below them: an ensemble is replaced by its parts."""
    below = [s for s in children.get((span.trace_id, span.span_id), []) if s.name != COMPUTE]
    models = [s for s in below if "REQUEST_START" in s.events or "triton.model_name" in s.attributes]
    return [leaf for model in models for leaf in _leaves(model, children)] if models else [span]


def _stage(model: Span, children: dict[tuple[str, str], list[Span]]) -> StageTimes:
    computes = [s for s in children.get((model.trace_id, model.span_id), []) if s.name == COMPUTE]
    name = model.attributes.get("triton.model_name", model.name)
    if not computes:
        return StageTimes(model=name, queue_s=None, input_s=None, infer_s=None, output_s=None, batch_ns=None)
    compute = computes[0]
    return StageTimes(
        model=name,
        queue_s=_gap(model, "QUEUE_START", compute, "COMPUTE_START"),
        input_s=_gap(compute, "COMPUTE_START", compute, "COMPUTE_INPUT_END"),
        infer_s=_gap(compute, "COMPUTE_INPUT_END", compute, "COMPUTE_OUTPUT_START"),
        output_s=_gap(compute, "COMPUTE_OUTPUT_START", compute, "COMPUTE_END"),
        batch_ns=compute.events.get("COMPUTE_START"),
    )


def _gap(a: Span, begin: str, b: Span, end: str) -> float | None:
    if begin not in a.events or end not in b.events:
        return None
    return max(0.0, (b.events[end] - a.events[begin]) / 1e9)


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)
