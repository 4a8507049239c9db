"""Where replicas send their spans: one receiver for as long as the supervisor lives, begun when the first replica traces.

Spans enter by OTLP and go to the embedded store, and on to another collector where the environment names one; the address leaves.
Refuses to know what a span means.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from deployctl.adapters import otlp_forward, processes
from deployctl.adapters.otlp import OtlpReceiver
from deployctl.adapters.spanstore import SpanStore
from deployctl.hosts.local.roster import Roster


class SpanReceiver:
    """See the module."""

    def __init__(self, store: SpanStore, roster: Roster, say: Callable[[str], None]) -> None:
        self._store, self._roster, self._say = store, roster, say
        self._otlp: OtlpReceiver | None = None

    def url(self) -> str:
        """Address of the receiver; the port is kept, so that adopted replicas still find it."""
        if self._otlp is None:
            port = self._roster.state.otlp_port
            port = 0 if port and processes.port_taken(port) else port
            forward = otlp_forward.wanted(os.environ, self._say)
            self._otlp = OtlpReceiver(self._store.add_spans, on_document=forward.offer if forward else None, port=port)
            self._roster.save(otlp_port=self._otlp.port)
        return self._otlp.url
