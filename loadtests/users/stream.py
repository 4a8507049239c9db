"""Answers that come in pieces, over HTTP/1.1: Triton's generate extension, each server-sent event noted when it comes.

The sending, the connections and the pacing are those of `http.py`; what is added is the time of the first piece and the number of pieces.
"""

from __future__ import annotations

import re
import time

from loadtests.bodies import generate_requests
from loadtests.users.http import Connection, HttpDriver

# A JSON text holds no bare line end, so this begins an event and nothing else.
_EVENT = b"\ndata:"
_ERROR = re.compile(rb'\ndata:\s*\{"error":\s*"([^"\r\n]{0,200})')
_CHUNKED_END, _SIZED = b"0\r\n\r\n", b"\r\ncontent-length:"


class StreamDriver(HttpDriver):
    """Open-loop requests to a model that answers in pieces."""

    def encoded(self) -> list[bytes]:
        """Whole requests to the streaming endpoint."""
        return generate_requests(self.plan.bodies, host=self.request.url, model=self.request.model)

    def problem(self, status: int, data: bytes | bytearray, begin: int, end: int) -> str | None:
        """What is wrong with a whole answer: an error status, an error event, or no piece at all."""
        text = super().problem(status, data, begin, end)
        if text is not None:
            return text
        error = _ERROR.search(data, begin - 2, end)
        if error is not None:
            return f"in the stream: {error[1].decode(errors='replace')}"
        return None if data.find(_EVENT, begin - 2, end) >= 0 else "the stream ended without a piece"

    def arrived(self, conn: Connection, data: bytes | bytearray) -> bool:
        """Note the pieces in what has come so far; whether it may be a whole answer."""
        if conn.request >= 0:
            count = data.count(_EVENT, conn.seen)
            if count:
                if self.rec.pieces[conn.request] == 0:
                    self.rec.first[conn.request] = time.monotonic() - self.t0
                self.rec.pieces[conn.request] += count
            conn.seen = max(len(data) - len(_EVENT) + 1, conn.seen)
        return data.endswith(_CHUNKED_END) or _SIZED in bytes(data[:2000]).lower()
