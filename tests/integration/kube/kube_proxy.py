"""A proxy in front of the API server: it counts, it fails on purpose, and it can be told of each write before it happens."""

import http.server
import ssl
import threading
import time
import urllib.error
import urllib.request

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "host", "accept-encoding"}


class ApiProxy:
    """Plain HTTP on loopback; `fault(method, path)` gives None, "429", "503", "slow", "reset" or "lost" for each call.

    `before_call(number)` is called with the count of calls so far, before the call is passed on, and `before_write` likewise;
    `after_write(method, path)` when a write is done and its answer is not given yet. `bearer` is added to calls without a token:
    Go's clients send theirs over TLS only.
    """

    def __init__(self, plane, fault=None, before_write=None, before_call=None, after_write=None, bearer=None):
        self._plane, self._bearer = plane, bearer
        self.fault = fault or (lambda method, path: None)
        self.before_write = before_write or (lambda number: None)
        self.before_call = before_call or (lambda number: None)
        self.after_write = after_write or (lambda method, path: None)
        self.calls, self.writes, self.faults = [], [], 0
        self._underway, self._settled = 0, threading.Condition()
        self._context = ssl.create_default_context(cafile=plane.ca)
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self):
                proxy._pass(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

            def log_message(self, *words):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that was killed is no fault of the proxy
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _pass(self, near):
        body = near.rfile.read(int(near.headers.get("Content-Length") or 0))
        watch = "watch=" in near.path
        self._count(not watch)
        try:
            self.before_call(len(self.calls))
            self.calls.append((near.command, near.path))
            return self._watch(near) if watch else self._passed_on(near, body)
        finally:
            self._count(-(not watch))

    def _count(self, change):
        with self._settled:
            self._underway += change
            self._settled.notify_all()

    def _passed_on(self, near, body):
        write = near.command != "GET" and "dryRun" not in near.path
        if write:
            self.before_write(len(self.writes))
            self.writes.append((near.command, near.path))
        fault = self.fault(near.command, near.path)
        self.faults += fault is not None
        if fault in ("429", "503"):
            return self._answer(near, int(fault), {}, b'{"kind": "Status", "message": "try again"}')
        if fault == "reset":
            near.close_connection = True
            return near.connection.close()
        if fault == "slow":
            time.sleep(2.0)
        status, headers, data = self._forward(near, body)
        if write:
            self.after_write(near.command, near.path)
        if fault == "lost":
            near.close_connection = True
            return near.connection.close()
        return self._answer(near, status, headers, data)

    def _call(self, near, body=None):
        headers = {k: v for k, v in near.headers.items() if k.lower() not in _HOP}
        if self._bearer and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self._bearer}"
        return urllib.request.Request(self._plane.url + near.path, data=body or None, method=near.command, headers=headers)

    def _watch(self, near):
        """A watch is an answer without an end: each piece is passed on as it comes."""
        near.close_connection = True
        try:
            with urllib.request.urlopen(self._call(near), timeout=60, context=self._context) as answer:
                near.send_response_only(answer.status)
                near.send_header("Content-Type", answer.headers["Content-Type"])
                near.end_headers()
                while piece := answer.read1(65536):
                    near.wfile.write(piece)
        except OSError:
            pass  # either side is gone; the client looks again

    def settle(self):
        """Wait until the API server has answered every call that was passed on, watches left out."""
        with self._settled:
            assert self._settled.wait_for(lambda: self._underway == 0, timeout=60)

    def _forward(self, near, body):
        call = self._call(near, body)
        try:
            with urllib.request.urlopen(call, timeout=60, context=self._context) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()
        except OSError as error:
            return 503, {}, f'{{"message": "{error}"}}'.encode()

    @staticmethod
    def _answer(near, status, headers, data):
        try:
            near.send_response_only(status)
            for name, value in dict(headers).items():
                if name.lower() not in _HOP:
                    near.send_header(name, value)
            near.send_header("Content-Length", str(len(data)))
            near.end_headers()
            near.wfile.write(data)
        except OSError:
            near.close_connection = True  # the client is gone
