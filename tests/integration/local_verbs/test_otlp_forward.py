"""Traces that are sent on: to a real receiver, through its bad moments, and never at the cost of the sender."""

import http.server
import json
import threading

import pytest
from test_otlp_receiver import a_span, document, post

from deployctl.adapters import processes
from deployctl.adapters.otlp import OtlpReceiver
from deployctl.adapters.otlp_forward import OtlpForward, wanted


@pytest.fixture
def collector():
    """A collector that answers with the next of `answers` (then 200) and keeps what it took."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = server.answers.pop(0) if server.answers else 200
            server.asked.append((status, self.path, self.headers.get("Authorization")))
            if status == 200:
                server.took += [s["name"] for r in data["resourceSpans"] for c in r["scopeSpans"] for s in c["spans"]]
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked, server.took = [], [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def forward_to(collector, told=None, **options):
    said = [] if told is None else told
    return OtlpForward(f"http://127.0.0.1:{collector.server_port}/v1/traces", told=said.append, **{"gather_s": 0.02, **options})


def offered(forward, *names):
    for name in names:
        forward.offer(document(a_span(name=name)))


def test_what_a_receiver_took_goes_on_whole(collector):
    """Through our own receiver into another of ours: the same spans at both ends, from JSON and from protobuf alike."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    first, last = [], []
    end = OtlpReceiver(last.extend)
    forward = OtlpForward(end.url, told=lambda text: None, gather_s=0.02)
    start = OtlpReceiver(first.extend, on_document=forward.offer)
    try:
        events = [{"name": "QUEUE_START", "timeUnixNano": "7"}]
        assert post(start, json.dumps(document(a_span(events=events), a_span(name="again", parentSpanId="01" * 8)))) == (200, {})
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id, span.span_id, span.name, span.start_time_unix_nano, span.end_time_unix_nano = b"t" * 16, b"s" * 8, "binary", 1, 2
        assert post(start, request.SerializeToString(), kind="application/x-protobuf") == (200, {})
        assert processes.wait_for(lambda: len(last) == 3, 20.0), last
        assert last == first and forward.dropped == 0
    finally:
        start.stop()
        forward.stop()
        end.stop()


def test_many_become_few_requests_and_all_arrive(collector):
    forward = forward_to(collector, gather_s=0.3)
    names = [f"span-{n}" for n in range(500)]
    offered(forward, *names)
    forward.stop()
    assert collector.took == names and forward.sent == 500
    assert len(collector.asked) < 50


def test_a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not(collector):
    told = []
    forward = forward_to(collector, told)
    collector.answers = [503, 429]
    offered(forward, "first")
    assert processes.wait_for(lambda: collector.took == ["first"], 20.0)
    collector.answers = [400]
    offered(forward, "second")
    assert processes.wait_for(lambda: forward.dropped == 1, 20.0)
    assert [status for status, _, _ in collector.asked] == [503, 429, 200, 400]
    assert told == ["not sent on to 127.0.0.1 so far: 1 span (it answers 400)"]
    forward.stop()


def test_while_it_is_away_the_oldest_go_and_are_counted(collector):
    told = []
    forward = forward_to(collector, told, most_spans=5, gather_s=2.0)
    collector.answers = [503]
    offered(forward, "held")
    assert processes.wait_for(lambda: len(collector.asked) == 1, 20.0)
    offered(forward, *(f"span-{n}" for n in range(12)))  # while the first waits for its second try
    forward.stop()
    assert collector.took[-5:] == [f"span-{n}" for n in range(7, 12)] and told
    assert (forward.sent, forward.dropped) in ((5, 8), (6, 7))  # the first is given up at the end, or had its second try by then


def test_nobody_there(collector):
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    collector.shutdown()
    collector.server_close()
    told = []
    forward = OtlpForward(url, told=told.append, gather_s=0.001)
    offered(forward, "lost")
    assert processes.wait_for(lambda: forward.dropped == 1, 20.0)
    assert len(told) == 1 and "not sent on" in told[0]
    forward.stop()


def test_the_address_is_what_the_specification_says(collector):
    base = f"http://127.0.0.1:{collector.server_port}"
    assert wanted({}, print) is None and wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc:4317"}, print) is None
    for variables, path in (
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{base}/", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,other=1"}, "/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{base}/own/path"}, "/own/path"),
    ):
        forward = wanted(variables, print)
        offered(forward, "one")
        forward.stop()
        assert collector.asked[-1][:2] == (200, path)
    assert collector.asked[0][2] == "Bearer x"
