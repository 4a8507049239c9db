"""Sends traces on to another collector by OTLP/HTTP: documents that were accepted here enter, batches of them leave, later or never.

A bounded queue stands between: a collector that is slow or away costs the oldest spans, never a replica's time or the machine's
memory, and what is lost is counted and told. Where to is what the OpenTelemetry SDKs read, OTEL_EXPORTER_OTLP_ENDPOINT and
OTEL_EXPORTER_OTLP_HEADERS. Refuses to know what a span means.
"""

from __future__ import annotations

import collections
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from deployctl.core import words

MOST_SPANS = 20_000
BATCH_SPANS = 2_000
_TIMEOUT_S = 10.0
_TRIES = 5
_AGAIN = {429, 502, 503, 504}  # what the OTLP specification calls retryable
_TELL_S = 60.0

Document = Mapping[str, Any]


class OtlpForward:
    """Sends from construction until `stop`, in a thread of its own.

    Args:
        url: the collector's `/v1/traces`.
        headers: added to each request, such as its credentials.
        told: gets a sentence when spans were lost, at most once a minute.
        most_spans: how many may wait; beyond it the oldest go.
        gather_s: how long spans are gathered before they are sent, and the first pause before a try is repeated.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, told: Callable[[str], None], most_spans: int = MOST_SPANS, gather_s: float = 1.0
    ) -> None:
        self._url, self._headers, self._told = url, dict(headers or {}), told
        self._most_spans, self._gather_s = most_spans, gather_s
        self._waiting: collections.deque[tuple[int, list[Any]]] = collections.deque()
        self._spans, self._next_word_s = 0, 0.0
        self._changed, self._stopped = threading.Condition(), threading.Event()
        self.sent = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="otlp-forward", daemon=True)
        self._thread.start()

    def offer(self, document: Document) -> None:
        """Take an export request as JSON data (ids in hex); returns at once."""
        parts = list(document.get("resourceSpans", []))
        count = sum(len(scope.get("spans", [])) for part in parts for scope in part.get("scopeSpans", []))
        if not count:
            return
        with self._changed:
            self._waiting.append((count, parts))
            self._spans += count
            lost = 0
            while self._spans > self._most_spans:
                old, _ = self._waiting.popleft()
                self._spans -= old
                lost += old
            self._changed.notify()
        if lost:
            self._lose(lost, "more come than it takes")

    def stop(self) -> None:
        """Try once to send what waits, then end; safe to call twice."""
        self._stopped.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopped.is_set() or self._spans:
            with self._changed:
                self._changed.wait_for(lambda: self._spans or self._stopped.is_set())
            self._stopped.wait(self._gather_s)
            count, parts = self._batch()
            if count:
                self._deliver(count, parts)

    def _batch(self) -> tuple[int, list[Any]]:
        """The oldest documents, as many as make one request."""
        count = 0
        parts: list[Any] = []
        with self._changed:
            while self._waiting and (not count or count + self._waiting[0][0] <= BATCH_SPANS):
                spans, part = self._waiting.popleft()
                count, parts = count + spans, parts + part
            self._spans -= count
        return count, parts

    def _deliver(self, count: int, parts: list[Any]) -> None:
        pause_s, why = self._gather_s, ""
        for _ in range(_TRIES):
            status, why = self._post(parts)
            if 200 <= status < 300:
                self.sent += count
                return
            if status and status not in _AGAIN:
                break
            if self._stopped.wait(pause_s):
                break
            pause_s = min(pause_s * 2, 30.0)
        self._lose(count, why)

    def _post(self, parts: list[Any]) -> tuple[int, str]:
        """(status or 0 for no answer, why not)."""
        body = json.dumps({"resourceSpans": parts}).encode()
        request = urllib.request.Request(self._url, data=body, headers={"Content-Type": "application/json", **self._headers})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                return int(answer.status), ""
        except urllib.error.HTTPError as error:
            return error.code, f"it answers {error.code}"
        except OSError as error:
            return 0, str(error)

    def _lose(self, count: int, why: str) -> None:
        self.dropped += count
        now_s = time.monotonic()
        if now_s >= self._next_word_s:
            self._next_word_s = now_s + _TELL_S
            self._told(f"not sent on to {urlsplit(self._url).hostname} so far: {words.count(self.dropped, 'span')} ({why})")


def wanted(environ: Mapping[str, str], told: Callable[[str], None]) -> OtlpForward | None:
    """What the environment variables of the OpenTelemetry specification ask for; None where they name no address."""
    url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not url and (base := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        url = f"{base.rstrip('/')}/v1/traces"
    if not url or urlsplit(url).scheme not in ("http", "https"):
        return None
    text = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = (item.partition("=") for item in text.split(","))
    return OtlpForward(url, headers={unquote(k.strip()): unquote(v.strip()) for k, mark, v in pairs if mark}, told=told)
