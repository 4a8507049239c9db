"""Small real servers behind a real front door, and clients that send without pause and never send anything twice."""

import asyncio
import contextlib
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from deployctl.adapters import processes
from deployctl.adapters.envoy import DoorSpec, EnvoyDoor

INFER = "/v2/models/m/infer"
GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"
WAIT_S = 60.0


class HttpUpstream:
    """An HTTP/1.1 server that answers with its own port and what it got; `x-sleep` in a request makes it wait."""

    def __init__(self):
        self.seen = 0
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.seen += 1
                if "x-sleep" in headers:
                    await asyncio.sleep(float(headers["x-sleep"]))
                answer = json.dumps({"port": self.port, "path": first.split()[1], "bytes": len(body), "headers": headers}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        writer.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class GrpcUpstream:
    """A gRPC server that answers every call with its own port and the bytes that it got; a stream is echoed."""

    def __init__(self):
        import grpc

        outer = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                outer.metadata = dict(details.invocation_metadata)
                if details.method.endswith("ModelStreamInfer"):
                    return grpc.stream_stream_rpc_method_handler(lambda requests, _: iter(requests))
                return grpc.unary_unary_rpc_method_handler(lambda request, _: b"%d %d" % (outer.port, len(request)))

        self.metadata = {}
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[Handler()], options=[("grpc.max_receive_message_length", -1)])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def close(self):
        self._server.stop(None).wait()


class Door:
    """A running front door."""

    def __init__(self, root, ports=None, **upstreams):
        ports = ports or processes.free_ports(2)
        self.root = root
        self.spec = DoorSpec(http_port=ports[0], grpc_port=ports[1], **upstreams)
        self.envoy = EnvoyDoor(root / "door")
        self.log = root / "front-door.log"
        self.process = self.envoy.start(self.spec, log=self.log, mark={"DEPLOYCTL_TEST": "door"})

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.spec.http_port, timeout=WAIT_S)

    def ask(self, path=INFER, method="POST", body=b"x", **headers):
        """One request on a connection of its own: (status, JSON)."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def stat(self, name):
        """One of Envoy's own counters."""
        return json.loads(self.envoy._admin("GET", f"/stats?format=json&filter=^{name}$")[1])["stats"][0]["value"]

    def accepted(self, protocol):
        """Connections of clients since it started."""
        return self.stat(f"http.{protocol}.downstream_cx_total")

    def channel(self):
        import grpc

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.spec.grpc_port}", options=options)


class Senders:
    """Threads that send one request after the other, each on one connection, until the end of the block."""

    def __init__(self, count, open_one):
        self.answers, self.failures = [], []
        self._stop = threading.Event()
        self._open_one = open_one
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self):
        """A failure is written down and ends the connection; the next request opens a new one."""
        send = None
        while not self._stop.is_set():
            try:
                if send is None:
                    send = self._open_one()
                self.answers.append(send())
            except Exception as error:  # every kind of failure counts, with its text
                self.failures.append(f"{time.monotonic():.3f} {type(error).__name__}: {error}")
                send = None

    def wait_for(self, count):
        """Until so many more were answered."""
        target = len(self.answers) + len(self.failures) + count
        assert processes.wait_for(lambda: len(self.answers) + len(self.failures) >= target, WAIT_S)


def http_sender(door):
    """One persistent HTTP connection; it is never opened again by itself."""
    connection = door.connect()
    connection.connect()
    connection.auto_open = 0  # http.client would quietly open a closed one again

    def send():
        connection.request("POST", INFER, body=b"x")
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status == 200, (answer.status, data)
        return json.loads(data)["port"]

    return send


def grpc_sender(door):
    """One gRPC channel that repeats nothing."""
    call = door.channel().unary_unary(GRPC_INFER)
    return lambda: int(call(b"x", timeout=WAIT_S).split()[0])
