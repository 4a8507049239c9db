"""A small metrics adapter on loopback: external.metrics.k8s.io and custom.metrics.k8s.io, fed by the test.

The controller-manager reaches it through the real API server's aggregation layer, as it would reach a Prometheus adapter.
"""

import http.server
import json
import ssl
import subprocess
import threading
import time
import urllib.parse

GROUPS = {"external.metrics.k8s.io": "v1beta1", "custom.metrics.k8s.io": "v1beta2"}


class MetricsApi:
    """What the test says is what the controller is told.

    `external[name]` or `external[name, service]` is a value or None for no answer, `pods[name]` maps a pod to its value, and
    `served` remembers (when, service, name, value) of each external answer.
    """

    def __init__(self, plane, folder):
        self.plane = plane
        self.external, self.pods, self.asked, self.served = {}, {}, [], []
        folder.mkdir(parents=True)
        words = ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", folder / "key", "-out", folder / "crt"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *words], check=True, capture_output=True)
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = api.answer(*self.path.partition("?")[::2])
                data = json.dumps(body or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """The API server drops idle connections."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "crt", folder / "key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path, query):
        """The document at a path, None for what is not there."""
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if len(parts) < 3 or parts[0] != "apis":
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        group, rest = parts[1], parts[3:]
        version = f"{group}/{GROUPS[group]}"
        if not rest:
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": []}
        labels = dict(pair.split("=") for pair in urllib.parse.parse_qs(query).get("labelSelector", [""])[0].split(",") if pair)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if group.startswith("external"):
            value = self.external.get((rest[2], labels.get("service")), self.external.get(rest[2]))
            self.served.append((time.monotonic(), labels.get("service"), rest[2], value))
            item = {"metricName": rest[2], "metricLabels": {}, "timestamp": now, "value": _thousandths(value)} if value is not None else None
            return {"kind": "ExternalMetricValueList", "apiVersion": version, "metadata": {}, "items": [item] if item else []}
        items = [
            {"describedObject": {"kind": "Pod", "namespace": rest[1], "name": pod, "apiVersion": "/v1"},
             "metric": {"name": rest[-1], "selector": None}, "timestamp": now, "value": _thousandths(value)}
            for pod, value in self.pods.get(rest[-1], {}).items()
            if pod.startswith(f"{labels['app.kubernetes.io/name']}-")
        ]  # fmt: skip
        return {"kind": "MetricValueList", "apiVersion": version, "metadata": {}, "items": items}

    def start(self):
        """Register with the API server and wait until it says that both groups are there."""
        port = self._server.server_port
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "test-metrics"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }
        self.plane.apply("/api/v1/namespaces/default/services/test-metrics", service)
        for group, version in GROUPS.items():
            spec = {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": True,
                    "service": {"name": "test-metrics", "namespace": "default", "port": port}}  # fmt: skip
            body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"{version}.{group}"}, "spec": spec}
            path = f"/apis/apiregistration.k8s.io/v1/apiservices/{version}.{group}"
            self.plane.apply(path, body)
            self.plane.until(lambda path=path: _available(self.plane.get(path)), f"an available {group}")
        return self

    def stop(self):
        """Unregister and end."""
        for group, version in GROUPS.items():
            self.plane.request("DELETE", f"/apis/apiregistration.k8s.io/v1/apiservices/{version}.{group}")
        self._server.shutdown()
        self._server.server_close()


def _thousandths(value):
    return f"{round(value * 1000)}m"


def _available(item):
    return any(c["type"] == "Available" and c["status"] == "True" for c in item.get("status", {}).get("conditions", []))
