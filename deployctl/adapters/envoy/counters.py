"""Envoy's statistics: what enters is the JSON of its admin interface, what leaves are counters of inference calls and config versions."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from deployctl.adapters.envoy.config import INFER_CLUSTERS
from deployctl.core.histogram import Histogram, added

_COUNTS = ("upstream_rq_active", "upstream_rq_pending_active", "upstream_rq_completed", "upstream_rq_5xx")
_NAMES = rf"^cluster\.({'|'.join(INFER_CLUSTERS)})\.({'|'.join(_COUNTS)}|upstream_rq_time)$"
COUNTERS_PATH = f"/stats?format=json&histogram_buckets=cumulative&filter={quote(_NAMES)}"
VERSIONS_PATH = f"/stats?format=json&type=TextReadouts&filter={quote('version_text$')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorCounters:
    """One reading of the front door's counters of single inference calls; a restart sets them to zero, a change does not.

    Attributes:
        latency: cumulative histogram in seconds, HTTP and gRPC together: from the end of the request to the end of the answer.
        requests: answered calls; `errors`: those with a 5xx status (gRPC errors stand in trailers and are not among them).
        in_flight: calls that a server works on, or that wait for a connection to one.
    """

    latency: dict[float, float]
    requests: float
    errors: float
    in_flight: float


def parse_counters(text: bytes) -> DoorCounters:
    """The answer to COUNTERS_PATH; what was never counted is absent there and zero here."""
    values: dict[str, float] = {}
    histograms: list[Histogram] = []
    for item in json.loads(text)["stats"]:
        if "histograms" in item:
            histograms += [_histogram(h["buckets"]) for h in item["histograms"]]
        else:
            name = item["name"].rpartition(".")[2]
            values[name] = values.get(name, 0.0) + float(item["value"])
    return DoorCounters(
        latency=added(histograms),
        requests=values.get("upstream_rq_completed", 0.0),
        errors=values.get("upstream_rq_5xx", 0.0),
        in_flight=values.get("upstream_rq_active", 0.0) + values.get("upstream_rq_pending_active", 0.0),
    )


def _histogram(buckets: list[dict[str, Any]]) -> Histogram:
    found = {float(b["upper_bound"]) / 1e3: float(b["cumulative"]) for b in buckets}
    return found | {math.inf: max(found.values(), default=0.0)}


def parse_versions(text: bytes) -> dict[str, str]:
    """The answer to VERSIONS_PATH: which version of each file Envoy has taken."""
    return {item["name"]: str(item["value"]) for item in json.loads(text)["stats"] if re.search("version_text$", item.get("name", ""))}
