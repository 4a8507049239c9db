"""Our HTTP/1.1 reader on whole, partial, chunked and damaged answers, and the generator against servers that misbehave."""

import socket
import threading

import numpy as np
import pytest

from deployctl.core.demand import Demand, RateStep
from deployctl.ports import LoadRequest
from loadtests.users.http import parse

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED])
def test_every_prefix_needs_more_and_the_whole_does_not(answer):
    for end in range(len(answer)):
        assert parse(answer[:end]) is None
    status, begin, end = parse(answer)
    assert status == int(answer[9:12])
    assert answer[:begin].endswith(b"\r\n\r\n")
    assert end == len(answer)


def test_what_follows_an_answer_is_left_alone():
    assert parse(WHOLE + b"HTTP/1.1 200")[2] == len(WHOLE)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\ncontent-length: 1\r\n\r\n", b"x" * 70_000])
def test_damaged_answers_are_errors(answer):
    with pytest.raises(ValueError):
        parse(answer)


@pytest.fixture
def bad_server():
    """Answers the first request rightly (the probe) and then does what the test says with each connection's bytes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    plan = {"then": lambda connection: None}
    kept = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    probed = threading.Event()

    def answer(connection):
        try:
            while connection.recv(65536):
                if not probed.is_set():
                    probed.set()
                    connection.sendall(WHOLE)
                else:
                    plan["then"](connection)
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", plan
    listener.close()
    for connection in kept:
        connection.close()


def _run(generator, address, bodies):
    demand = Demand(steps=(RateStep(start_s=0.0, rate_rps=20.0),), arrivals="constant")
    return generator.run(
        LoadRequest(
            url=address,
            protocol="http",
            model="m",
            bodies=bodies(1.0),
            demand=demand,
            duration_s=1.0,
            seed=0,
            warmup_s=0.0,
            timeout_s=1.0,
            grace_s=3.0,
        )
    )


def test_silence_times_out_without_stopping_the_rest(generator, bodies, bad_server):
    address, _ = bad_server
    samples = _run(generator, address, bodies).samples
    assert samples.ok.size == 20
    assert not samples.ok.any()
    assert np.isfinite(samples.sent_s).all()
    assert samples.errors == ("timeout: no answer within 1 s",)


def test_closed_connections_are_failures(generator, bodies, bad_server):
    address, plan = bad_server
    plan["then"] = lambda connection: connection.shutdown(socket.SHUT_RDWR)
    samples = _run(generator, address, bodies).samples
    assert not samples.ok.any()
    assert all(text.startswith("connection lost:") for text in samples.errors)


def test_answers_in_pieces_are_whole(generator, bodies, bad_server):
    address, plan = bad_server

    def in_pieces(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(WHOLE), 7):
            connection.sendall(WHOLE[at : at + 7])

    plan["then"] = in_pieces
    assert _run(generator, address, bodies).samples.ok.all()


def test_nothing_is_ever_sent_twice(generator, bodies, bad_server):
    """Each connection answers once and ends at the second request: that one counts as failed, and no other copy of it arrives."""
    address, plan = bad_server
    seen = []

    def once(connection):
        seen.append(connection)
        if seen.count(connection) > 1:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(WHOLE)

    plan["then"] = once
    samples = _run(generator, address, bodies).samples
    assert 0 < samples.ok.sum() < samples.ok.size
    assert all(text.startswith("connection lost:") for text in samples.errors)
    assert len(seen) == samples.ok.size


def test_part_of_an_answer_is_a_failure(generator, bodies, bad_server):
    address, plan = bad_server
    seen = []

    def cut(connection):
        seen.append(connection)
        connection.sendall(WHOLE[:-3])
        connection.shutdown(socket.SHUT_RDWR)

    plan["then"] = cut
    samples = _run(generator, address, bodies).samples
    assert not samples.ok.any()
    assert len(seen) == samples.ok.size
