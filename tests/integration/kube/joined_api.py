"""The kubelet's own API, which the API server calls for `kubectl logs` and `kubectl port-forward`: containerLogs and portForward.

HTTPS on loopback with a certificate of its own, as a kubelet has one. Port forwarding speaks the websocket protocol v4.channel.k8s.io: for
each port a channel for data and one for errors, each opened by the server with the port's number.
"""

import base64
import contextlib
import datetime
import functools
import hashlib
import http.server
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping

SUBPROTOCOL = "v4.channel.k8s.io"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DATA, ERROR = 0, 1


class KubeletApi:
    """Serves the pods that `find(namespace, name)` knows."""

    def __init__(self, folder, find):
        folder.mkdir(parents=True)
        words = ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", folder / "key", "-out", folder / "crt"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *words], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "crt", folder / "key")
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"find": staticmethod(find)}))
        self._server.context = context
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self):
        connection, address = super().get_request()
        connection.settimeout(60)
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_):
        """The API server drops connections."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        parts, options = path.strip("/").split("/"), dict(urllib.parse.parse_qsl(query))
        worker = self.find(*parts[1:3]) if len(parts) >= 3 else None
        if worker is None:
            self._say(404, f'pod "{"/".join(parts[1:3])}" is not on this node')
        elif parts[0] == "containerLogs":
            self._logs(worker, parts[3], options)
        elif parts[0] == "portForward" and "websocket" in self.headers.get("Upgrade", "").lower():
            self._forward(worker, [int(port) for port in options["port"].split(",")])
        else:
            self._say(404, f"{path} is not served by this stand-in")

    def _say(self, code, words):
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words.encode())

    # Logs.
    def _logs(self, worker, name, options):
        log = worker.place.logs.get(name)
        if log is None:
            self._say(400, f'container "{name}" in pod "{worker.name}" is waiting to start: PodInitializing')
            return
        container = next(c for c in worker.inits + worker.mains if c.name == name)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        follow, since = options.get("follow") == "true", _since(options)
        skip = _skipped(log.path, options.get("tailLines"))
        with log.path.open("rb") as file, contextlib.suppress(OSError):
            while True:
                ended = container.running is None  # before reading, so that nothing comes after the last look
                for line in iter(file.readline, b""):
                    moment, _, text = line.partition(b" ")
                    skip -= 1
                    if skip < 0 and moment.decode() >= since:
                        self._chunk(line if options.get("timestamps") == "true" else text)
                if not follow or ended or worker.vanished.is_set():
                    break
                time.sleep(0.2)
            self._chunk(b"")

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    # Port forwarding.
    def _forward(self, worker, ports):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + GUID).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", SUBPROTOCOL)
        self.end_headers()
        self.close_connection = True
        channels, lock, machine = {}, threading.Lock(), Connection(ConnectionType.SERVER)

        def send(channel, data):
            with lock, contextlib.suppress(OSError):
                self.wfile.write(machine.send(BytesMessage(data=bytes([channel]) + data)))
                self.wfile.flush()

        for number, port in enumerate(ports):
            send(2 * number + DATA, struct.pack("<H", port))
            send(2 * number + ERROR, struct.pack("<H", port))
            try:
                channels[number] = socket.create_connection((worker.address, port), timeout=10)
            except OSError as error:
                send(2 * number + ERROR, f"error forwarding port {port} to pod {worker.uid}: {error}".encode())
                continue
            threading.Thread(target=_pump, args=(channels[number], functools.partial(send, 2 * number + DATA)), daemon=True).start()
        try:
            self._receive(machine, channels, lock)
        finally:
            for backend in channels.values():
                backend.close()

    def _receive(self, machine, channels, lock):
        """What the client sends, until it closes."""
        while data := self.connection.recv(65536):
            machine.receive_data(data)
            for event in machine.events():
                if isinstance(event, BytesMessage) and event.data:
                    backend = channels.get(event.data[0] // 2)
                    if backend is not None and len(event.data) > 1:
                        backend.sendall(bytes(event.data[1:]))
                elif isinstance(event, Ping | CloseConnection):
                    with lock:
                        self.wfile.write(machine.send(event.response()))
                    if isinstance(event, CloseConnection):
                        return

    def log_message(self, *_):
        pass


def _pump(backend, send):
    """What the pod's port answers, until it closes."""
    with contextlib.suppress(OSError):
        backend.settimeout(None)
        while data := backend.recv(32768):
            send(data)


def _since(options):
    """The first time that counts, as text that sorts as the log's own stamps."""
    if "sinceSeconds" not in options:
        return ""
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=int(options["sinceSeconds"]))
    return moment.isoformat().replace("+00:00", "Z")


def _skipped(path, last):
    """How many lines come before the last ones that are wanted."""
    if last is None:
        return 0
    with path.open("rb") as file:
        return max(0, sum(1 for _ in file) - int(last))
