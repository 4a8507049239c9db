"""What runs in the pod, run here: fetched blobs become a repository, a real Triton serves it, the probe tells sound from not.

Same scripts, same arguments, same files as in the ConfigMap; only ports, and where this machine keeps Triton, differ.
"""

import concurrent.futures
import contextlib
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kube_rig import free_ports

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.repository import TritonRepository
from deployctl.adapters.triton.install import Installation
from deployctl.core import manifests
from deployctl.core.manifests import workload
from deployctl.testing import builders, kube

pytestmark = pytest.mark.triton
SERVICE_S = 0.4


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Pod:
    """One pod's containers as processes on this machine."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "root").mkdir(parents=True)
        blobs = FileBlobStore(folder / "root" / "blobs")
        bundle = builders.sleep_bundle(blobs, FileBundleStore(blobs, folder / "bundles"), SERVICE_S, 0.0, max_batch=1)
        handler = functools.partial(Quiet, directory=str(folder / "root"))
        self._store = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._store.serve_forever, daemon=True).start()
        made = kube.plan(bundle, cluster={"store": f"http://127.0.0.1:{self._store.server_port}", "longest_request_s": 4.0}, entry=bundle.entry)
        text = functools.partial(TritonRepository(blobs).config_text, native=True)
        items = manifests.objects(manifests.gather(made, bundle, text, kube.scripts(), "apply"))
        self.release = folder / "deployctl"
        self.release.mkdir()
        for name, content in next(o for o in items if o["kind"] == "ConfigMap")["data"].items():
            (self.release / name).write_text(content)
        self.model = bundle.entry
        self.spec = next(o for o in items if o["kind"] == "Deployment")["spec"]["template"]["spec"]
        self.http, self.grpc, self.metrics = free_ports(3)
        request = json.loads((self.release / "request.json").read_text())
        (self.release / "request.json").write_text(json.dumps({**request, "http_port": self.http, "metrics_port": self.metrics}))

    def fetch(self):
        command = self._here(self.spec["initContainers"][0]["command"])
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def serve(self):
        installed = Installation(self.folder / "triton")
        container = self.spec["containers"][0]
        ports = {workload.HTTP: self.http, workload.GRPC: self.grpc, workload.METRICS: self.metrics}
        words = [functools.reduce(lambda w, p: w.replace(f"={p[0]}", f"={p[1]}"), ports.items(), w) for w in self._here(container["args"])]
        local = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")] + [f"--backend-directory={installed.backends()}",
                 f"--backend-config=python,shm-region-prefix-name=h{os.getpid()}_"]  # fmt: skip
        environment = installed.environment()
        environment["PATH"] = f"{installed.home / 'bin'}:{environment['PATH']}"
        with (self.folder / "triton.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self._here(container["command"]), *words, *local], stdout=log, stderr=log, env=environment, start_new_session=True
            )
        end = time.monotonic() + 60
        while self.probe("start") != 0:
            assert self.process.poll() is None, (self.folder / "triton.log").read_text()[-3000:]
            assert time.monotonic() < end, "the startup probe never passed"
            time.sleep(0.2)

    def _here(self, words):
        """The container's words with this machine's places."""
        places = {"python3": sys.executable, "/deployctl": str(self.release), "/models": str(self.folder / "models")}
        return [functools.reduce(lambda w, p: w.replace(*p), places.items(), w) for w in words]

    def probe(self, mode):
        command = self._here(self.spec["containers"][0]["readinessProbe"]["exec"]["command"][:2])
        return subprocess.run([*command, mode], capture_output=True, timeout=30, env={**os.environ, "TMPDIR": str(self.folder)}).returncode

    def infer(self, timeout_s=30):
        body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/models/{self.model}/infer", body, timeout=timeout_s) as answer:
            return json.loads(answer.read())

    def status(self, method, path):
        call = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=b"{}" if method == "POST" else None, method=method)
        try:
            with urllib.request.urlopen(call, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def stub(self):
        children = subprocess.run(
            ["pgrep", "-g", str(os.getpgid(self.process.pid)), "-f", "triton_python_backend_stub"], capture_output=True, text=True
        )
        return [int(pid) for pid in children.stdout.split()]

    def stop(self):
        self._store.shutdown()
        self._store.server_close()
        with contextlib.suppress(ProcessLookupError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        for region in Path("/dev/shm").glob(f"h{os.getpid()}_*"):
            region.unlink()


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    made = Pod(tmp_path_factory.mktemp("pod"))
    try:
        fetched = made.fetch()
        assert fetched.returncode == 0, fetched.stderr
        made.serve()
        yield made
    finally:
        made.stop()


def test_the_fetched_repository_serves_real_inference(pod):
    assert pod.infer()["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
    assert pod.probe("ready") == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/sleeper/load"),
        ("GET", "/v2/models/sleeper/config"),
        ("GET", "/v2/models/sleeper/stats"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
    ],
)
def test_admin_interfaces_are_closed(pod, method, path):
    assert pod.status(method, path) == 403
    assert pod.status("GET", "/v2/models/sleeper") == 200


def test_the_key_is_in_no_file_and_differs_at_every_start(pod):
    command = Path(f"/proc/{pod.process.pid}/cmdline").read_text()
    key = command.partition("deployctl-admin=")[2].partition("\0")[0]
    assert len(key) == 48
    assert not [p for p in pod.folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


def test_overload_does_not_trip_the_probe_and_still_does_not_after_it(pod):
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        jobs = [pool.submit(pod.infer) for _ in range(24)]  # 24 * 0.4 s of work in one queue: the canary waits beyond its timeout
        time.sleep(0.5)
        assert pod.probe("ready") == 0
        assert not all(j.done() for j in jobs), "the probe must have run while the queue was full"
        assert all(j.result()["outputs"] for j in jobs)
    assert pod.probe("live") == 0


def test_the_repository_is_read_only(pod):
    assert (pod.folder / "models" / "repository" / "sleeper" / "1" / "model.py").stat().st_mode & 0o222 == 0


def test_a_backend_that_hangs_and_then_dies_trips_the_probe(pod):  # the last one: it ends the backend
    stubs = pod.stub()
    assert stubs
    for pid in stubs:
        os.kill(pid, signal.SIGSTOP)
    assert pod.probe("ready") == 1
    assert pod.status("GET", "/v2/health/ready") == 200  # which is why nobody may ask that
    for pid in stubs:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert pod.probe("ready") == 1
    assert pod.probe("live") == 1
    assert pod.status("GET", "/v2/health/live") == 200
