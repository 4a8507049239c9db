"""A loopback OTLP/HTTP receiver for Triton's spans: what enters are export requests, what leaves are `Span`s.

Triton (opentelemetry-cpp) posts JSON with ids in hex and numbers as strings; protobuf bodies of other senders are taken too.
Answers follow the OTLP specification: 200 with what was rejected, 400 for what does not parse, 413, 415, 503 to try again.
Refuses to know where spans are kept.
"""

from __future__ import annotations

import json
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deployctl.core.spans import Span

MAX_BODY_BYTES = 8 * 1024 * 1024


class OtlpReceiver:
    """Serves `POST /v1/traces` on 127.0.0.1 in threads of its own from construction until `stop`.

    Args:
        on_spans: called with the spans of each request, from several threads; if it raises, the sender is told to try again.
        on_document: then called with the whole request as JSON data, ids in hex; it must not raise.
        port: 0 takes a free one.
        max_body_bytes: larger bodies (also after decompression) are refused with 413.
    """

    def __init__(
        self,
        on_spans: Callable[[Sequence[Span]], None],
        *,
        on_document: Callable[[dict[str, Any]], None] | None = None,
        port: int = 0,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        own = {"on_spans": staticmethod(on_spans), "on_document": staticmethod(on_document or _ignore), "max_body_bytes": max_body_bytes}
        handler = type("Handler", (_Handler,), own)
        self._server = _Server(("127.0.0.1", port), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp", daemon=True, kwargs={"poll_interval": 0.2})
        self._thread.start()

    @property
    def url(self) -> str:
        """What Triton's `--trace-config opentelemetry,url=` wants."""
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def stop(self) -> None:
        """Close the port; safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)


def _ignore(document: dict[str, Any]) -> None:
    """Nobody wants the documents."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a request is not taken: an answer, not an error of ours."""

    status: int
    message: str


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that went away in the middle is its own business."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    on_spans: Callable[[Sequence[Span]], None]
    on_document: Callable[[dict[str, Any]], None]
    max_body_bytes: int

    def do_POST(self) -> None:
        """One export request."""
        body = self._body()
        parsed = body if isinstance(body, _Refusal) else self._parse(body)
        if isinstance(parsed, _Refusal):
            self.close_connection = True  # the body may not have been read to its end
            return self._answer(parsed.status, {"code": 3, "message": parsed.message})
        document, spans, rejected, why = parsed
        try:
            if spans:
                self.on_spans(spans)
        except Exception as error:  # the sink's trouble is the sender's cue to repeat, whatever it is
            return self._answer(503, {"code": 14, "message": str(error)})
        self.on_document(document)
        partial = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": why}} if rejected else {}
        return self._answer(200, partial)

    def do_GET(self) -> None:
        """Nothing to read here."""
        self._answer(405, {"code": 12, "message": "only POST /v1/traces"})

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the supervisor's log is for people."""

    def _body(self) -> bytes | _Refusal:
        if self.path.split("?")[0] != "/v1/traces":
            return _Refusal(404, "only /v1/traces is served")
        text = self.headers.get("Content-Length", "")
        if not text.isdigit():
            return _Refusal(411, "Content-Length is needed")
        length = int(text)
        if length > self.max_body_bytes:
            return _Refusal(413, f"at most {self.max_body_bytes} bytes")
        body = self.rfile.read(length)
        if len(body) < length:
            return _Refusal(400, "the body is shorter than Content-Length")
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding == "gzip":
            return self._gunzip(body)
        return body if encoding == "identity" else _Refusal(415, f"unknown Content-Encoding {encoding}")

    def _gunzip(self, body: bytes) -> bytes | _Refusal:
        unzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            plain = unzip.decompress(body, self.max_body_bytes + 1)
        except zlib.error as error:
            return _Refusal(400, f"not gzip: {error}")
        return plain if len(plain) <= self.max_body_bytes else _Refusal(413, f"at most {self.max_body_bytes} bytes after decompression")

    def _parse(self, body: bytes) -> tuple[dict[str, Any], list[Span], int, str] | _Refusal:
        readers: dict[str, Callable[[bytes], dict[str, Any]]] = {"application/json": json.loads, "application/x-protobuf": _protobuf_data}
        read = readers.get(self.headers.get_content_type())
        if read is None:
            return _Refusal(415, "application/json or application/x-protobuf")
        try:
            document = read(body)
            return document, *parse_json(document)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            return _Refusal(400, f"the body does not parse: {error}")

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def parse_json(document: Any) -> tuple[list[Span], int, str]:
    """Spans of an ExportTraceServiceRequest as JSON data, the number of those that make no sense, and why.

    Raises:
        ValueError, TypeError, AttributeError: the document as a whole is not an export request.
    """
    spans: list[Span] = []
    rejected, why = 0, ""
    for resource_spans in document.get("resourceSpans", []):
        resource = _attributes(resource_spans.get("resource", {}).get("attributes", []))
        for scope_spans in resource_spans.get("scopeSpans", []):
            for data in scope_spans.get("spans", []):
                try:
                    spans.append(_span(data, resource))
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    rejected, why = rejected + 1, f"{type(error).__name__}: {error}"
    return spans, rejected, why


def _span(data: dict[str, Any], resource: dict[str, str]) -> Span:
    return Span(
        trace_id=_hex(data["traceId"], 16),
        span_id=_hex(data["spanId"], 8),
        parent_id=_hex(data["parentSpanId"], 8) if data.get("parentSpanId") else "",
        name=str(data.get("name", "")),
        start_ns=int(data["startTimeUnixNano"]),
        end_ns=int(data["endTimeUnixNano"]),
        attributes=_attributes(data.get("attributes", [])),
        events={str(e["name"]): int(e["timeUnixNano"]) for e in data.get("events", [])},
        resource=resource,
    )


def _hex(text: Any, size_bytes: int) -> str:
    if len(bytes.fromhex(text)) != size_bytes:
        raise ValueError(f"an id of {size_bytes} bytes in hex is needed, not {text!r}")
    return str(text).lower()


def _attributes(items: Any) -> dict[str, str]:
    """Attribute values as text; nested ones as JSON."""
    out = {}
    for item in items:
        value = next(iter(item.get("value", {}).values()), "")
        out[str(item["key"])] = value if isinstance(value, str) else json.dumps(value)
    return out


def _protobuf_data(body: bytes) -> dict[str, Any]:
    """A protobuf body as the JSON that opentelemetry-cpp would have sent: ids in hex instead of protobuf JSON's base64."""
    import base64

    from google.protobuf import json_format
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    data: dict[str, Any] = json_format.MessageToDict(request)
    for span in (s for r in data.get("resourceSpans", []) for c in r.get("scopeSpans", []) for s in c.get("spans", [])):
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = base64.b64decode(span[name]).hex()
    return data
