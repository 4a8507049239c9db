"""The OTLP receiver: what senders may send, and what a real Triton does send."""

import gzip
import http.client
import json
import socket
import time

import pytest

from deployctl.adapters import processes
from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.otlp import OtlpReceiver
from deployctl.adapters.repository import TritonRepository
from deployctl.adapters.spanstore import SpanStore
from deployctl.adapters.triton import Installation, ServerCommand, TritonApi
from deployctl.core.spans import request_times
from deployctl.testing.builders import sleep_bundle


@pytest.fixture
def received():
    spans = []
    receiver = OtlpReceiver(spans.extend, max_body_bytes=100_000)
    yield receiver, spans
    receiver.stop()


def a_span(**changes):
    span = {"traceId": "AB" * 16, "spanId": "cd" * 8, "name": "InferRequest", "startTimeUnixNano": "5", "endTimeUnixNano": "9"}
    return {**span, **changes}


def document(*spans):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "svc"}}, {"key": "n", "value": {"intValue": "3"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def post(receiver, body, kind="application/json", path="/v1/traces", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    try:
        connection.request("POST", path, body=body, headers={"Content-Type": kind, **headers})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_json_with_hex_ids_and_numbers_as_text(received):
    receiver, spans = received
    events = [{"name": "QUEUE_START", "timeUnixNano": "7"}]
    attributes = [{"key": "triton.model_name", "value": {"stringValue": "m"}}, {"key": "deep", "value": {"arrayValue": {"values": []}}}]
    assert post(receiver, json.dumps(document(a_span(events=events, attributes=attributes, parentSpanId="")))) == (200, {})
    (span,) = spans
    assert (span.trace_id, span.span_id, span.parent_id) == ("ab" * 16, "cd" * 8, "")
    assert (span.start_ns, span.end_ns, span.events) == (5, 9, {"QUEUE_START": 7})
    assert span.attributes["triton.model_name"] == "m" and span.resource == {"service.name": "svc", "n": "3"}


def test_protobuf_and_gzip_bodies(received):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    receiver, spans = received
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name, span.start_time_unix_nano, span.end_time_unix_nano = b"\xab" * 16, b"\xcd" * 8, "x", 5, 9
    assert post(receiver, request.SerializeToString(), "application/x-protobuf") == (200, {})
    assert post(receiver, gzip.compress(json.dumps(document(a_span(name="y"))).encode()), **{"Content-Encoding": "gzip"}) == (200, {})
    assert [(s.name, s.trace_id) for s in spans] == [("x", "ab" * 16), ("y", "ab" * 16)]


def test_bad_spans_are_rejected_one_by_one(received):
    receiver, spans = received
    bad = [a_span(traceId="zz"), a_span(spanId="cd"), {"name": "no ids"}, a_span(startTimeUnixNano="soon"), 7]
    status, answer = post(receiver, json.dumps(document(a_span(), *bad)))
    assert status == 200 and answer["partialSuccess"]["rejectedSpans"] == "5" and answer["partialSuccess"]["errorMessage"]
    assert len(spans) == 1


@pytest.mark.parametrize(
    ("body", "kind", "path", "headers", "status"),
    [
        (b"{", "application/json", "/v1/traces", {}, 400),
        (b"[1]", "application/json", "/v1/traces", {}, 400),
        (b"[" * 50_000, "application/json", "/v1/traces", {}, 400),
        (b"\xff\xff", "application/x-protobuf", "/v1/traces", {}, 400),
        (b"{}", "text/plain", "/v1/traces", {}, 415),
        (b"{}", "application/json", "/v1/metrics", {}, 404),
        (b"x" * 100_001, "application/json", "/v1/traces", {}, 413),
        (b"{}", "application/json", "/v1/traces", {"Content-Encoding": "br"}, 415),
        (b"no gzip", "application/json", "/v1/traces", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 10_000_000), "application/json", "/v1/traces", {"Content-Encoding": "gzip"}, 413),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_status(received, body, kind, path, headers, status):
    receiver, spans = received
    code, answer = post(receiver, body, kind, path, **headers)
    assert code == status and answer["message"] and spans == []
    assert post(receiver, json.dumps(document(a_span())))[0] == 200  # and it still serves


def test_a_body_without_length_or_cut_off_is_refused(received):
    receiver, spans = received
    for head in (
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: 9\r\n\r\nab",
    ):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as raw:
            raw.sendall(head)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(100).split()[1] in (b"411", b"400")
    assert spans == []


def test_when_the_sink_fails_the_sender_is_told_to_try_again():
    def sink(spans):
        raise OSError("disk full")

    receiver = OtlpReceiver(sink)
    status, answer = post(receiver, json.dumps(document(a_span())))
    receiver.stop()
    assert status == 503 and "disk full" in answer["message"]


def test_only_loopback_listens(received):
    receiver, _ = received
    assert receiver.url == f"http://127.0.0.1:{receiver.port}/v1/traces"
    assert receiver._server.server_address[0] == "127.0.0.1"


@pytest.mark.triton
def test_spans_of_a_real_triton_become_stage_times(tmp_path):
    """30 requests with a traceparent, which Triton always traces: each becomes one row with its own stages."""
    blobs = FileBlobStore(tmp_path / "blobs")
    bundle = sleep_bundle(blobs, FileBundleStore(blobs, tmp_path / "bundles"), t0_s=0.005, a_s=0.0)
    TritonRepository(blobs).build(bundle, tmp_path / "repo")
    store = SpanStore(tmp_path / "s.db")
    receiver = OtlpReceiver(store.add_spans)
    install = Installation(tmp_path / "triton")
    ports = processes.free_ports(3)
    command = ServerCommand(
        repository=tmp_path / "repo",
        http_port=ports[0],
        grpc_port=ports[1],
        metrics_port=ports[2],
        shm_prefix="otlptest_",
        trace_rate=1_000_000,
        trace_url=receiver.url,
    )
    process = processes.spawn(install.argv(command), env=install.environment({}), log=tmp_path / "log")
    try:
        api = TritonApi(f"127.0.0.1:{ports[0]}")
        assert processes.wait_for(api.ready, 60.0), (tmp_path / "log").read_text()[-2000:]
        body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
        for n in range(30):
            assert api.request("POST", "/v2/models/sleeper/infer", body, headers={"traceparent": f"00-{n + 1:032x}-{n + 1:016x}-01"})[0] == 200
        assert processes.wait_for(lambda: len(request_times(store.spans())) >= 30, 20.0), store.counts()
    finally:
        processes.stop_group(process, 20.0)
        processes.remove_shared_memory("otlptest_")
        receiver.stop()
    rows = request_times(store.spans())
    assert sorted(int(r.trace_id, 16) for r in rows) == list(range(1, 31))
    assert {r.model for r in rows} == {"sleeper"} and {s.model for r in rows for s in r.stages} == {"sleeper"}
    assert all(0.004 < r.compute_s <= r.total_s and r.stages[0].queue_s is not None and r.stages[0].batch_ns for r in rows)
    assert time.time() - 3600 < rows[0].at_s < time.time() + 60
