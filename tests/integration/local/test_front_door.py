"""The front door as clients meet it: real Envoy before small real servers. What passes, what does not, and that a change costs nobody anything."""

import collections
import contextlib
import dataclasses
import errno
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from door_kit import GRPC_INFER, INFER, WAIT_S, Door, GrpcUpstream, HttpUpstream, Senders, grpc_sender, http_sender

from deployctl.adapters import processes
from deployctl.adapters.envoy import EnvoyDoor
from deployctl.adapters.envoy.config import BODY_LIMIT_BYTES
from deployctl.errors import MachineError

NOBODY = "127.0.0.1:1"  # no program may listen there but root's, and none does


@pytest.fixture(scope="module")
def http_upstreams():
    made = [HttpUpstream() for _ in range(3)]
    yield made
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def grpc_upstreams():
    made = [GrpcUpstream() for _ in range(3)]
    yield made
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory, http_upstreams, grpc_upstreams):
    made = Door(tmp_path_factory.mktemp("door"))
    yield made
    made.envoy.stop(made.process)


@pytest.fixture(autouse=True)
def both_upstreams(request, http_upstreams, grpc_upstreams):
    """Each test begins with the first two servers of each kind."""
    if "door" in request.fixturenames:
        request.getfixturevalue("door").envoy.change(spec_of(request.getfixturevalue("door"), http_upstreams[:2], grpc_upstreams[:2]))


def spec_of(door, http, grpc, **more):
    return dataclasses.replace(door.spec, http_upstreams=tuple(u.address for u in http), grpc_upstreams=tuple(u.address for u in grpc), **more)


# ── a change costs nobody anything ──


def sets(servers, number):
    """One, another, two, all three: each change takes somebody out and brings somebody in."""
    a, b, c = servers
    return [[a], [b], [a, c], [c], [a, b, c], [b, c]][number % 6]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sixty_changes_under_load_lose_no_request_and_no_connection(door, http_upstreams, grpc_upstreams, protocol):
    """Sixteen persistent connections that send without pause, and that send nothing twice."""
    open_one = (lambda: http_sender(door)) if protocol == "http" else (lambda: grpc_sender(door))
    before = door.accepted(protocol)
    with Senders(16, open_one) as senders:
        for number in range(60):
            door.envoy.change(spec_of(door, sets(http_upstreams, number), sets(grpc_upstreams, number)))
            senders.wait_for(32)
    assert senders.failures == []
    assert door.accepted(protocol) - before == 16
    assert len(senders.answers) >= 60 * 32
    assert set(senders.answers) == {s.port for s in (http_upstreams if protocol == "http" else grpc_upstreams)}


def test_idle_connections_survive_changes(door, http_upstreams, grpc_upstreams):
    senders = [http_sender(door), grpc_sender(door)]
    before = [send() for send in senders]
    opened = [door.accepted(p) for p in ("http", "grpc")]
    for number in range(12):
        door.envoy.change(spec_of(door, sets(http_upstreams, number), sets(grpc_upstreams, number)))
    door.envoy.change(spec_of(door, http_upstreams[2:], grpc_upstreams[2:]))
    assert [send() for send in senders] == [http_upstreams[2].port, grpc_upstreams[2].port] != before
    assert [door.accepted(p) for p in ("http", "grpc")] == opened


def test_who_left_gets_nothing_any_more_once_a_change_is_confirmed(door, http_upstreams, grpc_upstreams):
    """But for what was under way in that moment: then the others get everything, and go on getting it."""
    first, second, _ = http_upstreams
    with Senders(8, lambda: http_sender(door)) as senders:

        def sends_nothing_to(server):
            before = server.seen
            senders.wait_for(32)
            return server.seen == before

        for server, left in ((first, second), (second, first)) * 5:
            door.envoy.change(spec_of(door, [server], grpc_upstreams))
            assert processes.wait_for(lambda left=left: sends_nothing_to(left), 10.0)
            assert sends_nothing_to(left)
    assert senders.failures == []


def test_a_request_inside_ends_where_it_began(door, http_upstreams, grpc_upstreams):
    first, second, _ = http_upstreams
    door.envoy.change(spec_of(door, [first], grpc_upstreams))
    answers = []
    slow = threading.Thread(target=lambda: answers.append(door.ask(x_sleep="1.0")))
    seen = first.seen
    slow.start()
    assert processes.wait_for(lambda: first.seen == seen + 1, WAIT_S)
    assert door.envoy.counters().in_flight == 1
    door.envoy.change(spec_of(door, [second], grpc_upstreams))
    assert door.ask()[1]["port"] == second.port
    slow.join()
    assert [(status, answer["port"]) for status, answer in answers] == [(200, first.port)]


def test_an_open_stream_survives_a_change_of_others(door, http_upstreams, grpc_upstreams):
    """Messages come through one by one, not at the end, and the stream stays where it is."""
    sent = iter([b"one", b"two", b"three"])
    gate = threading.Semaphore(1)

    def requests():
        for message in sent:
            gate.acquire()
            yield message

    door.envoy.change(spec_of(door, http_upstreams, grpc_upstreams[:1]))
    with door.channel() as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(requests(), timeout=WAIT_S)
        assert next(stream) == b"one"
        door.envoy.change(spec_of(door, http_upstreams, grpc_upstreams[1:2]))
        gate.release()
        assert next(stream) == b"two"
        gate.release()
        assert list(stream) == [b"three"]


# ── what passes ──


def test_only_inference_metadata_and_health_pass_over_http(door):
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/versions/3", "/v2?x=1"):
        assert door.ask(path, "GET", None)[0] == 200, path
    for path in ("/v2/models/m/versions/3/infer", "/v2/models/m/generate", "/v2/models/m/generate_stream"):
        assert door.ask(path)[0] == 200, path
    closed = [
        "/",
        "/metrics",
        "/v2/models/stats",
        "/v2/models/m/stats",
        "/v2/models/m/config",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/repository/index",
    ]
    hidden = ["/v2/models/%2e%2e/repository/index", "/v2/models/m%2Fstats", "/v2/models/../repository/index", "/v2//models/m", "/V2/models/m", INFER]
    for path in (*closed, *hidden):
        status, answer = door.ask(path, "GET", None)
        assert (status, answer) == (404, {"error": "only inference, metadata and health are served here"}), path
    for path in ("/v2/repository/index", "/v2/repository/models/m/load", "/v2/models/m", "/v2/systemsharedmemory/region/r/register"):
        assert door.ask(path)[0] == 404, path


def test_only_inference_metadata_and_health_pass_over_grpc(door):
    import grpc

    with door.channel() as channel:
        for name in ("ServerLive", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer"):
            assert channel.unary_unary(f"/inference.GRPCInferenceService/{name}")(b"", timeout=WAIT_S)
        for name in ("RepositoryIndex", "RepositoryModelLoad", "ModelStatistics", "ModelConfig", "TraceSetting", "ServerLiveX"):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(f"/inference.GRPCInferenceService/{name}")(b"", timeout=WAIT_S)
            assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert raised.value.details() == "only inference, metadata and health are served here"


def test_bodies_up_to_the_limit_pass_and_larger_ones_are_refused_at_once(door):
    assert door.ask(body=b"x" * (40 << 20))[1]["bytes"] == 40 << 20
    with door.channel() as channel:
        infer = channel.unary_unary(GRPC_INFER)
        assert int(infer(b"x" * (40 << 20), timeout=WAIT_S).split()[1]) == 40 << 20
        with pytest.raises(Exception, match=r"Payload Too Large|too large"):
            infer(b"x" * (BODY_LIMIT_BYTES + 1), timeout=WAIT_S)
    with socket.create_connection(("127.0.0.1", door.spec.http_port), timeout=WAIT_S) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY_LIMIT_BYTES + 1}\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_unknown_length_is_limited_too_and_arrives_whole(door):
    connection = door.connect()
    connection.request("POST", INFER, body=iter([b"x" * 1000] * 50), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert json.loads(connection.getresponse().read())["bytes"] == 50_000
    with pytest.raises((ConnectionError, http.client.HTTPException, AssertionError)):
        connection.request("POST", INFER, body=iter([b"x" * (1 << 20)] * 80), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert connection.getresponse().status == 200


def test_older_and_careful_clients_are_served(door):
    """HTTP/1.0 without a host, and a client that waits for 100 Continue before it sends its body."""

    def first_line(head):
        with socket.create_connection(("127.0.0.1", door.spec.http_port), timeout=WAIT_S) as client:
            client.sendall(head)
            return client.recv(65536).split(b"\r\n")[0]

    assert first_line(f"POST {INFER} HTTP/1.0\r\ncontent-length: 1\r\n\r\nx".encode()).endswith(b" 200 OK")
    assert first_line(f"POST {INFER} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n".encode()) == b"HTTP/1.1 100 Continue"


def test_trace_headers_pass_only_where_they_are_wanted_and_asked_for(door, http_upstreams, grpc_upstreams):
    def seen(**headers):
        return set(door.ask(traceparent="00-1-2-01", tracestate="a=b", **headers)[1]["headers"]) & {"traceparent", "tracestate"}

    assert seen() == seen(x_deployctl_trace="1") == set()
    door.envoy.change(spec_of(door, http_upstreams, grpc_upstreams[:1], traced=True))
    assert seen(x_deployctl_trace="1") == {"traceparent", "tracestate"}
    assert seen() == seen(x_deployctl_trace="0") == set()
    with door.channel() as channel:
        call = channel.unary_unary(GRPC_INFER)
        call(b"", timeout=WAIT_S, metadata=[("traceparent", "00-1-2-01")])
        assert "traceparent" not in grpc_upstreams[0].metadata
        call(b"", timeout=WAIT_S, metadata=[("traceparent", "00-1-2-01"), ("x-deployctl-trace", "1")])
        assert grpc_upstreams[0].metadata["traceparent"] == "00-1-2-01"


# ── who gets what ──


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_requests_of_one_connection_are_shared_out(door, protocol):
    send = http_sender(door) if protocol == "http" else grpc_sender(door)
    shares = collections.Counter(send() for _ in range(400))
    assert len(shares) == 2
    assert min(shares.values()) > 120


def test_the_least_busy_gets_the_next(door, http_upstreams):
    first, second, _ = http_upstreams
    before = first.seen, second.seen
    threads = [threading.Thread(target=door.ask, kwargs={"x_sleep": "1.0"}) for _ in range(6)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        assert processes.wait_for(lambda n=number: first.seen + second.seen - sum(before) == n, WAIT_S)
    assert (first.seen - before[0], second.seen - before[1]) == (3, 3)
    for thread in threads:
        thread.join()


def test_nobody_there_is_said_at_once(door):
    import grpc

    door.envoy.change(spec_of(door, [], []))
    status, answer = door.ask()
    assert status == 503
    assert answer["error"].startswith("no replica serves at the moment")
    with door.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(GRPC_INFER)(b"", timeout=WAIT_S)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert raised.value.details().startswith("no replica serves")


def test_a_failed_connection_is_tried_elsewhere_and_the_dead_one_left_alone(door, http_upstreams, grpc_upstreams):
    door.envoy.change(dataclasses.replace(spec_of(door, http_upstreams[:1], grpc_upstreams), http_upstreams=(NOBODY, http_upstreams[0].address)))
    before, began_s = door.stat("cluster.http-infer.upstream_cx_connect_fail"), time.monotonic()
    for _ in range(20):
        for size in (10, 3 << 20):
            assert door.ask(body=b"x" * size)[0] == 200
    failed = door.stat("cluster.http-infer.upstream_cx_connect_fail") - before
    assert 0 < failed <= 2 + time.monotonic() - began_s  # it is asked again once a second, not at each request


def test_the_last_one_is_never_ejected(door, http_upstreams, grpc_upstreams):
    """Every connection to it fails, so a request is refused; as soon as it listens again, it serves."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        door.envoy.change(dataclasses.replace(spec_of(door, [], grpc_upstreams), http_upstreams=(address,)))
        assert door.ask()[0] == 503
        reserved.listen()
        answered = threading.Thread(target=lambda: door.connect().request("POST", INFER, body=b"x"))
        answered.start()
        reserved.settimeout(WAIT_S)
        peer, _ = reserved.accept()  # the very next request is sent to it
        answered.join()
        peer.close()


def test_what_reached_a_server_is_never_repeated(door, grpc_upstreams):
    """A server that takes a request and ends the connection: the client is told, and nobody else gets it."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                taken.append(peer.recv(65536))
                peer.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        door.envoy.change(dataclasses.replace(spec_of(door, [], grpc_upstreams), http_upstreams=(address,)))
        assert door.ask()[0] == 503
        assert len(taken) == 1
        server.shutdown(socket.SHUT_RDWR)


# ── counting ──


def test_counters_are_of_single_inference_calls_and_go_on_over_changes(tmp_path, http_upstreams, grpc_upstreams):
    door = Door(tmp_path)
    try:
        for number in range(10):
            door.envoy.change(spec_of(door, sets(http_upstreams, number), sets(grpc_upstreams, number)))
            door.ask()
            door.ask("/v2", "GET", None)
            door.ask("/metrics", "GET", None)
            with door.channel() as channel:
                channel.unary_unary(GRPC_INFER)(b"", timeout=WAIT_S)
                channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=WAIT_S)
        door.envoy.change(spec_of(door, [], []))
        door.ask()
        seen = door.envoy.counters()
        assert (seen.requests, seen.errors, seen.in_flight) == (21, 1, 0)
        # Envoy merges its histograms once a second; a call that found nobody has no latency.
        assert processes.wait_for(lambda: max(door.envoy.counters().latency.values(), default=0.0) == 20, WAIT_S)
    finally:
        door.envoy.stop(door.process)


# ── its place on the machine ──


def test_a_taken_port_is_found_also_when_another_envoy_has_it(door, tmp_path):
    other = EnvoyDoor(tmp_path / "other")
    free = processes.free_ports(1)[0]
    for spec in (dataclasses.replace(door.spec, grpc_port=free), dataclasses.replace(door.spec, http_port=free)):
        with pytest.raises(MachineError) as raised:
            other.start(spec, log=tmp_path / "log", mark={"DEPLOYCTL_TEST": "other"})
        assert raised.value.code == "port-taken"
    assert door.ask()[0] == 200
    assert processes.marked("DEPLOYCTL_TEST", "other") == []


def test_a_port_that_is_taken_at_the_last_moment_is_the_same_error(tmp_path, monkeypatch):
    """Between the look and Envoy's own bind somebody else may come: Envoy must fail, not share."""
    ports = processes.free_ports(2)
    with socket.create_server(("127.0.0.1", ports[1]), reuse_port=True):
        monkeypatch.setattr(processes, "port_taken", lambda port: False)
        with pytest.raises(MachineError) as raised:
            Door(tmp_path, ports)
    assert (raised.value.code, str(ports[1]) in raised.value.message) == ("port-taken", True)
    assert not EnvoyDoor(tmp_path / "door").socket.parent.exists()


def open_for_writing(pid):
    """Plain files that a process may write to now (`flags` of fdinfo are octal; the last two bits are the access mode)."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            flags = int((file.parent.parent / "fdinfo" / file.name).read_text().split("flags:")[1].split()[0], 8)
            target = str(file.readlink())
            if flags & 3 and target.startswith("/") and not target.startswith("/dev/"):
                yield target


def test_it_writes_only_where_it_may_and_its_admin_socket_is_private(door):
    assert set(open_for_writing(door.process.pid)) == {str(door.log)}
    assert door.envoy.socket.stat().st_mode & 0o777 == 0o600
    assert door.envoy.socket.parent.stat().st_mode & 0o777 == 0o700
    assert not list(Path("/dev/shm").glob("*envoy*"))


def test_connections_beyond_what_its_files_allow_are_closed_and_the_others_go_on(tmp_path, http_upstreams, monkeypatch):
    monkeypatch.setattr("deployctl.adapters.envoy.door._MOST_FILES", 300)
    door = Door(tmp_path, http_upstreams=(http_upstreams[0].address,))
    try:
        limits = Path(f"/proc/{door.process.pid}/limits").read_text()
        assert limits.split("Max open files")[1].split()[:2] == ["300", "300"]
        senders = [http_sender(door) for _ in range(64)]
        assert {send() for send in senders} == {http_upstreams[0].port}
        with socket.create_connection(("127.0.0.1", door.spec.http_port), timeout=WAIT_S) as one_more:
            assert one_more.recv(1) == b""
        assert {send() for send in senders} == {http_upstreams[0].port}
    finally:
        door.envoy.stop(door.process)


def test_a_full_disk_is_an_error_and_nobody_notices(door, http_upstreams, grpc_upstreams, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(MachineError) as raised:
            door.envoy.change(spec_of(door, http_upstreams[2:], grpc_upstreams))
    assert (raised.value.code, "No space left" in raised.value.why) == ("door-failed", True)
    assert door.ask()[1]["port"] in {u.port for u in http_upstreams[:2]}
    assert not list((door.root / "door" / "live").glob(".*"))


def test_a_log_that_nobody_cuts_stops_growing_and_costs_no_request(tmp_path, http_upstreams, monkeypatch):
    monkeypatch.setattr("deployctl.adapters.envoy.door._LOG_BYTES", 4096)
    door = Door(tmp_path, http_upstreams=(http_upstreams[0].address,))
    try:
        door.envoy._admin("POST", "/logging?level=trace")
        assert {door.ask()[0] for _ in range(50)} == {200}
        assert door.log.stat().st_size == 4096
    finally:
        door.envoy.stop(door.process)


def test_its_end_lets_requests_finish_and_accepts_nobody(tmp_path, http_upstreams):
    door = Door(tmp_path, http_upstreams=(http_upstreams[0].address,))
    answers = []
    seen = http_upstreams[0].seen
    slow = threading.Thread(target=lambda: answers.append(door.ask(x_sleep="1.0")[0]))
    slow.start()
    assert processes.wait_for(lambda: http_upstreams[0].seen == seen + 1, WAIT_S)
    door.envoy.stop(door.process)
    slow.join()
    assert answers == [200]
    assert not processes.alive(door.process)
    assert not door.envoy.socket.exists()
    with pytest.raises(ConnectionRefusedError):
        door.ask()
    door.envoy.stop(door.process)


def test_it_is_found_again_by_whoever_comes_next_and_does_what_it_is_told(door, http_upstreams, grpc_upstreams):
    """Another object over the same folder, as the next supervisor has it; telling it what it does already changes nothing."""
    next_one = EnvoyDoor(door.root / "door")
    assert next_one.reachable()
    spec = spec_of(door, http_upstreams[2:], grpc_upstreams)
    next_one.change(spec)
    assert door.ask()[1]["port"] == http_upstreams[2].port
    stamps = [p.stat().st_mtime_ns for p in sorted((door.root / "door" / "live").iterdir())]
    next_one.change(spec)
    assert stamps == [p.stat().st_mtime_ns for p in sorted((door.root / "door" / "live").iterdir())]


def test_a_door_that_is_gone_is_an_error_not_a_hang(tmp_path):
    door = Door(tmp_path)
    processes.kill_all([door.process])
    with pytest.raises(MachineError) as raised:
        door.envoy.change(dataclasses.replace(door.spec, http_upstreams=("127.0.0.1:2",)))
    assert raised.value.code == "door-failed"
    assert door.envoy.counters() is None
    door.envoy.clean()
