"""A Prometheus over its HTTP API, read only, with nothing but the standard library.

What enters are PromQL texts, what leaves are numbers. Long windows are asked for in pieces, since a server refuses more than
11,000 points at once. Refuses to know what the series mean.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from deployctl.errors import ClusterError

_POINTS = 10_000


class Prometheus:
    """One server and one window of its history.

    Args:
        url: base address, such as `http://127.0.0.1:9090`; user and password may stand in it as for any URL.
        end_s: Unix time of the newest sample asked for.
        window_s: how far back.
        step_s: distance of samples.
        timeout_s: of one request.
    """

    def __init__(self, url: str, *, end_s: float, window_s: float, step_s: float = 15.0, timeout_s: float = 60.0) -> None:
        self._base = url.rstrip("/")
        self._timeout_s = timeout_s
        self.step_s = step_s
        self.end_s = math.floor(end_s / step_s) * step_s
        self.start_s = self.end_s - math.floor(window_s / step_s) * step_s

    def history(self, query: str) -> list[tuple[float, float]]:
        """Samples of the single series that the query gives; see `ports.MetricSource`."""
        found: dict[int, float] = {}
        start = self.start_s
        while start <= self.end_s:
            end = min(start + (_POINTS - 1) * self.step_s, self.end_s)
            data = self._get("query_range", {"query": query, "start": repr(start), "end": repr(end), "step": repr(self.step_s)})
            series = data["result"]
            if len(series) > 1:
                raise ClusterError(
                    f"the query gives {len(series)} series where one is needed",
                    why=query,
                    code="prometheus-query",
                    hint="name the model with --model, or sum over the series",
                )
            for at, value in series[0]["values"] if series else []:
                found[round((float(at) - self.start_s) / self.step_s)] = float(value)
            start = end + self.step_s
        if not found:
            return []
        count = round((self.end_s - self.start_s) / self.step_s) + 1
        return [(self.start_s + i * self.step_s, found.get(i, math.nan)) for i in range(count)]

    def names(self, query: str, label: str) -> list[str]:
        """Values of a label over all matching series, sorted."""
        values = {"match[]": query, "start": repr(self.start_s), "end": repr(self.end_s)}
        return sorted({row[label] for row in self._get("series", values) if label in row})

    def _get(self, path: str, values: dict[str, str]) -> Any:
        """The `data` of one API call."""
        body = urllib.parse.urlencode(values).encode()
        try:
            request = urllib.request.Request(f"{self._base}/api/v1/{path}", data=body, method="POST")
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no Prometheus answers at {self._base}",
                why=str(getattr(error, "reason", error)),
                code="prometheus-unreachable",
                hint=f"curl {self._base}/-/ready   (a port-forward may have ended)"
                if self._base.startswith(("http://", "https://"))
                else f"write the scheme too: http://{self._base}",
            ) from error
        if not isinstance(document, dict) or document.get("status") != "success":
            raise ClusterError(f"{self._base} is no Prometheus", code="prometheus-unreachable", hint="give the base address, without /graph or /api")
        return document["data"]

    def _refused(self, error: urllib.error.HTTPError) -> ClusterError:
        reason = error.read(2000).decode("utf-8", "replace")
        try:
            reason = json.loads(reason)["error"]
        except (ValueError, KeyError, TypeError):
            reason = reason.strip()[:200]
        if error.code in (401, 403):
            return ClusterError(
                f"{self._base} wants other credentials", why=reason, code="prometheus-unreachable", hint="put them into the URL", exit_code=3
            )
        return ClusterError(
            f"Prometheus refuses the query ({error.code})",
            why=reason,
            code="prometheus-query",
            hint="try the query in its web page with a smaller window",
        )
