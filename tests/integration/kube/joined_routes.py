"""Stands in for kube-proxy and CoreDNS: follows the real EndpointSlices, forwards connections, answers names.

A Service's address is a loopback port; each new connection goes to a random ready endpoint, as kube-proxy does it, and where there is none to
one that still serves while it ends. One thing is kinder than kube-proxy: a refused connection is tried at another endpoint, as gRPC
clients, gateways and service meshes do. Names of headless Services give the addresses of the ready pods, so that a gRPC client resolves,
balances and resolves again by itself. Pod IPs are 10.x in the API, which refuses loopback addresses, and 127.x here.
"""

import contextlib
import random
import re
import socket
import struct
import threading

from joined_watch import Watch

TTL_S = 5  # CoreDNS' own
DOMAIN = "svc.cluster.local"
NAME = re.compile(r"\b([a-z0-9-]+)\.([a-z0-9-]+)\.svc:(\d+)")


class Routes:
    """What the EndpointSlices say, and the servers that act on it."""

    def __init__(self, plane):
        self._slices, self._lock, self._servers, self._opened = {}, threading.Lock(), [], {}
        self.stopped = threading.Event()
        self._watch = Watch(plane, "/apis/discovery.k8s.io/v1/endpointslices", self._listed, self._heard)
        self._watch.start()
        self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._names.bind(("127.0.0.1", 0))
        self.resolver = f"127.0.0.1:{self._names.getsockname()[1]}"
        threading.Thread(target=self._answer_names, daemon=True).start()

    def _listed(self, items):
        with self._lock:
            self._slices = {i["metadata"]["uid"]: i for i in items}

    def _heard(self, kind, item):
        with self._lock:
            if kind == "DELETED":
                self._slices.pop(item["metadata"]["uid"], None)
            else:
                self._slices[item["metadata"]["uid"]] = item

    def endpoints(self, namespace, service):
        """(loopback address, conditions) of every endpoint of a Service."""
        with self._lock:
            slices = [s for s in self._slices.values() if s["metadata"]["namespace"] == namespace]
        mine = [s for s in slices if s["metadata"].get("labels", {}).get("kubernetes.io/service-name") == service]
        return [(f"127{e['addresses'][0][2:]}", e.get("conditions", {})) for s in mine for e in s.get("endpoints") or []]

    def ready(self, namespace, service):
        """Addresses that take traffic: ready ones, else those that end and still serve."""
        found = self.endpoints(namespace, service)
        return [a for a, c in found if c.get("ready")] or [a for a, c in found if c.get("serving") and c.get("terminating")]

    def open(self, namespace, service, port):
        """`127.0.0.1:port` that forwards to the Service's port until `stop`."""
        server = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._servers.append(server)
        threading.Thread(target=self._accept, args=(server, namespace, service, port), daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    def translate(self, text):
        """Names of Services in a text become the addresses where they are forwarded: for programs that look names up as the machine does."""
        return NAME.sub(lambda m: self._known(m[2], m[1], int(m[3])), text)

    def _known(self, *service):
        if service not in self._opened:
            self._opened[service] = self.open(*service)
        return self._opened[service]

    def grpc_target(self, namespace, service, port):
        """What a gRPC client dials to resolve a headless Service by its name."""
        return f"dns://{self.resolver}/{service}.{namespace}.{DOMAIN}:{port}"

    def _accept(self, server, namespace, service, port):
        with contextlib.suppress(OSError):
            while not self.stopped.is_set():
                client, _ = server.accept()
                threading.Thread(target=self._splice, args=(client, namespace, service, port), daemon=True).start()

    def _splice(self, client, namespace, service, port):
        addresses = self.ready(namespace, service)
        random.shuffle(addresses)
        with client:
            for address in addresses:
                with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5) as backend:
                    backend.settimeout(None)
                    back = threading.Thread(target=_copy, args=(backend, client), daemon=True)
                    back.start()
                    _copy(client, backend)
                    back.join()
                    return

    def _answer_names(self):
        with contextlib.suppress(OSError):
            while not self.stopped.is_set():
                question, sender = self._names.recvfrom(4096)
                self._names.sendto(self._answer(question), sender)

    def _answer(self, question):
        """A DNS answer: addresses for a headless Service's name, none for any other question."""
        words, at = [], 12
        while question[at]:
            words.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
        known = ".".join(words[2:]).lower() == DOMAIN
        found = self.ready(words[1], words[0]) if known and kind == 1 else []
        records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, TTL_S, 4) + socket.inet_aton(a) for a in found)
        code = 0x8580 if known else 0x8583
        return question[:2] + struct.pack("!HHHHH", code, 1, len(found), 0, 0) + question[12 : at + 5] + records

    def stop(self):
        self.stopped.set()
        self._watch.stop()
        for server in [*self._servers, self._names]:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()


def _copy(source, sink):
    """Bytes one way until the end, then the end."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
