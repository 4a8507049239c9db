"""Nodes of the control plane whose pods are real: real tritonserver processes, kubelet API, routing and a blob store, all on loopback.

* `joined.pool`: what a plan's cluster needs to land on these nodes
* `joined.serve(folder)`: a blob store over a folder; the address for `store:`
* `joined.routes`: what stands in for kube-proxy and CoreDNS
* `joined.nodes`: the stand-in kubelets
"""

import contextlib
import functools
import http.server
import itertools
import random
import socket
import threading

from joined_api import KubeletApi
from joined_kubelet import Kubelet
from joined_routes import Routes
from joined_watch import Watch

from deployctl.core.platform import GIB, NodePool

POOL = "joined"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class JoinedRig:
    """Some nodes beside the fake ones; pods reach them by the pool `joined`."""

    pool = NodePool(name=POOL, device="cpu-2c", cpu=0.5, memory_bytes=GIB)

    def __init__(self, plane, folder, nodes=2, environment=None, backoff_ratio=1.0):
        self.plane, self.folder = plane, folder
        self.environment, self._backoff_ratio = dict(environment or {}), backoff_ratio  # `environment` may be changed later
        self._claim, self._network = _own_network()
        self._stores, self.nodes, self._numbers = [], {}, itertools.count()
        self._count = nodes
        folder.mkdir(parents=True, exist_ok=True)

    def start(self):
        self._api = KubeletApi(self.folder / "tls", self.worker)
        self.routes = Routes(self.plane)
        for _ in range(self._count):
            self._add_serving()
        self._add({}, [])  # for pods that need no GPU, such as load generators
        self._watch = Watch(self.plane, "/api/v1/pods", self._listed, self._heard)
        self._watch.start()
        self.plane.until(lambda: all(self._schedulable(n) for n in self.nodes), "nodes without a not-ready taint")
        return self

    def add_node(self):
        """One more node that the scheduler may use already; its name."""
        name = self._add_serving()
        self.plane.until(lambda: self._schedulable(name), f"{name} without a not-ready taint")
        return name

    def _add_serving(self):
        return self._add({"deployctl/pool": POOL}, [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])

    def _add(self, labels, taints):
        number = next(self._numbers)
        name = f"joined-{number}"
        kubelet = Kubelet(
            self.plane,
            name,
            self.folder / name,
            number,
            self._api.port,
            network=self._network,
            environment=self.environment,
            translate=self.routes.translate,
            backoff_ratio=self._backoff_ratio,
        )
        kubelet.register(labels, taints)
        self.nodes[name] = kubelet
        return name

    def _schedulable(self, name):
        return not any(t["key"].startswith("node.kubernetes.io/") for t in self.plane.get(f"/api/v1/nodes/{name}")["spec"].get("taints", []))

    def serve(self, folder):
        """Serve a project's state folder as a blob store: the address for `store:`."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._stores.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    def workers(self, namespace=None):
        """Every pod that runs here."""
        return [w for n in list(self.nodes.values()) for w in n.workers() if namespace in (None, w.pod["metadata"]["namespace"])]

    def worker(self, namespace, name):
        return next((w for w in self.workers(namespace) if w.name == name), None)

    def lose_node(self, name):
        """The machine dies, and the cloud takes its Node object away."""
        self.nodes[name].die()
        self.plane.request("DELETE", f"/api/v1/nodes/{name}")

    def _listed(self, pods):
        uids = {p["metadata"]["uid"] for p in pods}
        for node in list(self.nodes.values()):
            node.gone(uids)
            for pod in pods:
                node.heard("ADDED", pod)

    def _heard(self, kind, pod):
        node = self.nodes.get(pod["spec"].get("nodeName"))
        if node is not None:
            node.heard(kind, pod)

    def stop(self):
        self._watch.stop()
        for node in self.nodes.values():
            node.stop()
            self.plane.request("DELETE", f"/api/v1/nodes/{node.name}")
        self.routes.stop()
        self._api.stop()
        for server in self._stores:
            server.shutdown()
            server.server_close()
        self._claim.close()


def _own_network():
    """A second octet that no other rig on this machine uses, and the socket that says so."""
    for octet in random.sample(range(64, 250), 30):
        claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with contextlib.suppress(OSError):
            claim.bind((f"127.{octet}.0.1", 7999))
            return claim, octet
        claim.close()
    raise AssertionError("no free loopback network: is something listening on 0.0.0.0:7999?")
