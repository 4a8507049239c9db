"""Triton over HTTP/1.1 with binary tensors, at a few tens of microseconds a request.

Keep-alive connections on the event loop itself: a request is one `send` of bytes made ahead, an answer is one `recv` in a
callback. No greenlet, no client library and no encoding per request, because the generator shares this machine's cores
with what it measures.
"""

from __future__ import annotations

import _socket  # the bare C socket: `socket` is monkey-patched and would wait where a callback must not
import errno
import os
import re
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket as gsocket

from loadtests.bodies import error_text, http_requests
from loadtests.driver import Driver

_READ, _WRITE = 1, 2
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
PRECONNECT = 32


class Connection:
    """One socket: `request` is the index in flight or -1."""

    __slots__ = ("buffer", "need", "out", "reader", "request", "seen", "sock", "writer")

    def __init__(self, sock: Any, loop: Any) -> None:
        self.sock = sock
        self.request = -1
        self.buffer: bytearray | None = None
        self.need = 0
        self.seen = 0  # bytes of the answer in which pieces were counted
        self.out: memoryview | None = None
        self.reader = loop.io(sock.fileno(), _READ)
        self.writer = loop.io(sock.fileno(), _WRITE)

    def close(self) -> None:
        """Stop watching and close."""
        for watcher in (self.reader, self.writer):
            watcher.stop()
            watcher.close()
        self.sock.close()


def parse(data: bytes | bytearray) -> tuple[int, int, int] | None:
    """(status, where the content begins, where the answer ends) of a whole answer, or None when more bytes are needed.

    Raises:
        ValueError: this is no HTTP/1.1 answer that can be delimited.
    """
    head = data.find(b"\r\n\r\n")
    if head < 0:
        if len(data) > 65536:
            raise ValueError("headers longer than 64 KiB")
        return None
    if data[:7] != b"HTTP/1.":
        raise ValueError("not an HTTP/1.1 answer")
    status, begin = int(data[9:12]), head + 4
    length = _LENGTH.search(data, 0, head)
    if length is not None:
        end = begin + int(length.group(1))
    elif _CHUNKED.search(data, 0, head):
        end = _chunks_end(data, begin)
    elif status in (204, 304):
        end = begin
    else:
        raise ValueError("an answer without a length")
    return (status, begin, end) if 0 <= end <= len(data) else None


def _chunks_end(data: bytes | bytearray, at: int) -> int:
    """Where a chunked content ends, or -1 when it is not all here."""
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return -1
        size = int(bytes(data[at:line]).split(b";")[0], 16)
        if size == 0:
            end = data.find(b"\r\n\r\n", line)  # trailers, if any, end with an empty line
            return end + 4 if end >= 0 else -1
        at = line + 2 + size + 2
        if at > len(data):
            return -1


class HttpDriver(Driver):
    """Open-loop HTTP."""

    def connect(self) -> None:
        """Encode every body and open some connections, so that the first requests pay for none."""
        host, _, port = self.request.url.rpartition(":")
        self._family, *_, self._address = gsocket.getaddrinfo(host.strip("[]"), int(port), type=gsocket.SOCK_STREAM)[0]
        self._refusal = ""
        self._loop = gevent.get_hub().loop
        self._wire = self.encoded()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        for _ in range(min(PRECONNECT, self.request.max_in_flight, self.n)):
            conn = self._connect()
            if conn is not None:
                self._idle.append(conn)

    def encoded(self) -> list[bytes]:
        """Every example as a whole request."""
        return http_requests(self.plan.bodies, host=self.request.url, model=self.request.model)

    def problem(self, status: int, data: bytes | bytearray, begin: int, end: int) -> str | None:
        """What is wrong with a whole answer; None if nothing is."""
        return None if status == 200 else error_text(status, bytes(data[begin:end]))

    def arrived(self, conn: Connection, data: bytes | bytearray) -> bool:
        """Called with all that has come of an answer; whether it is worth looking for its end."""
        return True

    def probe(self, body: int) -> str | None:
        """One request on a connection of its own, with gevent's cooperative sockets."""
        try:
            with gsocket.create_connection(self._address[:2], timeout=self.request.timeout_s) as sock:
                sock.sendall(self._wire[body])
                data = bytearray()
                while (answer := parse(data)) is None:
                    got = sock.recv(65536)
                    if not got:
                        return "the server closed the connection without an answer"
                    data += got
        except (OSError, ValueError) as error:
            return f"{self.request.url}: {error}"
        status, begin, end = answer
        return self.problem(status, data, begin, end)

    def send(self, i: int, now_s: float) -> None:
        """Take an idle connection or open one, and write."""
        wire = self._wire[self.body[i]]
        if self._trace_every:
            trace = self.traceparent(i, now_s)
            if trace is not None:
                head, content = wire.split(b"\r\n\r\n", 1)
                wire = head + b"\r\nX-Deployctl-Trace: 1\r\ntraceparent: " + trace.encode() + b"\r\n\r\n" + content
        conn = self._idle.pop() if self._idle else self._connect()
        if conn is None:
            self.failed(i, self._refusal)
            return
        conn.request = i
        self._waiting.append((now_s + self.request.timeout_s, i, conn))
        self._write(conn, wire)

    def expire(self, i: int, handle: object) -> None:
        """No answer in time: the connection cannot be used again, for its answer may still come."""
        assert isinstance(handle, Connection)
        if handle.request == i:
            self._drop(handle, f"timeout: no answer within {self.request.timeout_s:g} s")

    def close(self) -> None:
        """Close all connections."""
        for conn in self._all:
            conn.close()
        self._all.clear()
        self._idle.clear()

    def _connect(self) -> Connection | None:
        sock = _socket.socket(self._family, _socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._refusal = f"connection to {self.request.url}: {os.strerror(code)}"
            return None
        conn = Connection(sock, self._loop)
        conn.reader.start(self._guarded, self._read, conn)
        self._all.add(conn)
        return conn

    def _guarded(self, step: Callable[[Connection], None], conn: Connection) -> None:
        try:
            step(conn)
        except BaseException as error:
            self.crash = error
            self._finished.set()

    def _write(self, conn: Connection, wire: bytes) -> None:
        try:
            done = conn.sock.send(wire)
        except BlockingIOError:
            done = 0
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # still connecting: the writer waits for it
                self._drop(conn, f"connection lost: {error}")
                return
            done = 0
        if done < len(wire):
            conn.out = memoryview(wire)[done:]
            conn.writer.start(self._guarded, self._flush, conn)

    def _flush(self, conn: Connection) -> None:
        assert conn.out is not None
        try:
            done = conn.sock.send(conn.out)
        except BlockingIOError:
            return
        except OSError as error:
            conn.writer.stop()
            self._drop(conn, f"connection lost: {error}")
            return
        conn.out = conn.out[done:]
        if not conn.out:
            conn.out = None
            conn.writer.stop()

    def _read(self, conn: Connection) -> None:
        try:
            data: bytes | bytearray = conn.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(conn, f"connection lost: {error}")
            return
        if not data:
            self._drop(conn, "connection lost: closed before an answer")
            return
        if conn.buffer is not None:
            conn.buffer += data
            data = conn.buffer
            if len(data) < conn.need:
                return
        try:
            answer = parse(data) if self.arrived(conn, data) else None
        except ValueError as error:
            self._drop(conn, f"damaged answer: {error}")
            return
        if answer is None:
            self._keep(conn, data)
            return
        self._answered(conn, data, answer)

    def _keep(self, conn: Connection, data: bytes | bytearray) -> None:
        """Part of an answer: remember how much is needed, so that a long one is parsed twice and not once a segment."""
        conn.buffer = bytearray(data) if conn.buffer is None else conn.buffer
        head = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head) if head >= 0 else None
        conn.need = head + 4 + int(length.group(1)) if length else 0

    def _answered(self, conn: Connection, data: bytes | bytearray, answer: tuple[int, int, int]) -> None:
        i, conn.request = conn.request, -1
        conn.buffer, conn.need, conn.seen = None, 0, 0
        status, begin, end = answer
        if i < 0 or conn.out is not None or _CLOSE.search(data, 0, begin):
            self._forget(conn)  # an answer nobody asked for, or before the question ended, or the last on this connection
        else:
            self._idle.append(conn)
        if i < 0:
            return
        text = self.problem(status, data, begin, end)
        if text is None:
            self.succeeded(i)
        else:
            self.failed(i, text)

    def _drop(self, conn: Connection, text: str) -> None:
        """The connection is of no more use. A request on it has failed: nothing is sent twice, as its first copy may have been served."""
        i, conn.request = conn.request, -1
        self._forget(conn)
        if i >= 0:
            self.failed(i, text)

    def _forget(self, conn: Connection) -> None:
        if conn in self._all:
            self._all.discard(conn)
            if conn in self._idle:
                self._idle.remove(conn)
            conn.close()
