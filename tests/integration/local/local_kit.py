"""What the tests of the local host share: a project folder with a sleep model, and a bounded open-loop client."""

import concurrent.futures
import http.client
import json
import threading
import time
from pathlib import Path

import numpy as np

from deployctl.adapters import processes
from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.records import FileRecordStore
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import Demand, RateStep
from deployctl.core.plan import Plan, Ports
from deployctl.core.release import next_release
from deployctl.core.slo import Objective, Slo
from deployctl.hosts.local.layout import MARK, EnvFolder
from deployctl.hosts.local.target import LocalTarget
from deployctl.ports import Workspace
from deployctl.testing.builders import sleep_bundle

WAIT_S = 90.0
ANY_PORTS = Ports(http=0, grpc=0)


class Quiet:
    def step(self, message):
        pass

    update = note = warn = step


class Project:
    """One environment `local` in a folder of its own."""

    def __init__(self, root, env="local"):
        self.workspace = Workspace(root)
        self.blobs = FileBlobStore(self.workspace.blobs)
        self.bundles = FileBundleStore(self.blobs, self.workspace.state / "bundles")
        self.records = FileRecordStore(self.workspace.env(env))
        self.target = LocalTarget(self.workspace, env)
        self.folder = EnvFolder(self.workspace, env)

    def bundle(self, offset=0, t0_s=0.002, max_batch=8, **parameters):
        return sleep_bundle(self.blobs, self.bundles, t0_s, 0.0005, max_batch, parameters={"answer_offset": str(offset), **parameters})

    def release(self, bundle, replicas=1, scaling=None, ports=ANY_PORTS, trace_ratio=0.0):
        history = self.records.history()
        plan = Plan(
            service="sleeper",
            env="local",
            target="local",
            bundle=bundle.digest,
            entry=bundle.entry,
            settings={},
            replicas=replicas,
            scaling=scaling or ScalingPolicy(min_replicas=replicas, max_replicas=replicas),
            slo=SLO,
            demand=DEMAND,
            triton_version="2.51.0",
            device="cpu-2c",
            ports=ports,
            trace_ratio=trace_ratio,
        )
        release = next_release(history, plan, action="up", now_s=time.time())
        self.records.append(release, expected_parent=history.current.digest if history.current else None)
        self.target.apply(release)
        return release

    def wait(self, condition, timeout_s=WAIT_S):
        """The first status for which the condition holds."""
        seen = []

        def holds():
            seen[:] = [self.target.status()]
            return condition(seen[0])

        assert processes.wait_for(holds, timeout_s), f"{seen[0]}\n" + "\n".join(self.lines("supervisor")[-30:])
        return seen[0]

    def serving(self, revision, replicas):
        """Wait until the revision serves with so many replicas and nothing else is left."""

        def settled(status):
            ready = [r for r in status.replicas if r.state == "ready"]
            return (
                status.alive and status.revision_serving == revision and status.phase == "serving" and len(ready) == len(status.replicas) == replicas
            )

        return self.wait(settled)

    def lines(self, source=None):
        return [x for x in self.target.logs(replica=None, since_s=None, follow=False) if source is None or x.startswith(f"[{source}]")]

    def processes(self):
        """Every live process of this environment, whoever its parent is."""
        return processes.marked(MARK, self.folder.mark(), prefix=True)

    def supervisor(self):
        return self.folder.holder()

    def ask(self, value=1.0, timeout_s=30.0):
        """One inference through the front door; the first number of the answer."""
        return ask_http(self.target.status().url.removeprefix("http://"), value, timeout_s)


SLO = Slo(objectives=(Objective(metric="latency", percentile=99.0, max=1.0),))
DEMAND = Demand(steps=(RateStep(start_s=0.0, rate_rps=10.0),))


def ask_http(address, value=1.0, timeout_s=30.0, connection=None):
    host, port = address.split(":")
    own = connection is None
    connection = connection or http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}]})
    try:
        connection.request("POST", "/v2/models/sleeper/infer", body=body)
        response = connection.getresponse()
        data = response.read()
        assert response.status == 200, (response.status, data[:300])
        return json.loads(data)["outputs"][0]["data"][0]
    finally:
        if own:
            connection.close()


class Load:
    """Open loop: requests leave at planned times from a pool of workers, whatever the answers do. Nothing is ever sent twice.

    Over HTTP each worker keeps one connection and never opens it again by itself: one that the front door closed is a failure.
    """

    def __init__(self, status, protocol, rate_rps, workers=12):
        self._status, self._protocol, self._gap_s, self._workers = status, protocol, 1.0 / rate_rps, workers
        self._stop = threading.Event()
        self._local = threading.local()
        self.answers, self.failures = [], []

    def __enter__(self):
        if self._protocol == "grpc":
            import tritonclient.grpc as grpc_client

            self._client = grpc_client.InferenceServerClient(self._status.grpc_url)
            self._input = grpc_client.InferInput("INPUT0", [1, 4], "FP32")
            self._input.set_data_from_numpy(np.ones((1, 4), np.float32))
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self._protocol == "grpc":
            self._client.close()

    def _send(self):
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            planned = time.monotonic()
            while not self._stop.is_set():
                planned += self._gap_s
                self._stop.wait(max(0.0, planned - time.monotonic()))
                pool.submit(self._one)

    def _one(self):
        try:
            self.answers.append(self._grpc() if self._protocol == "grpc" else self._http())
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            self._local.connection = None

    def _grpc(self):
        return float(self._client.infer("sleeper", [self._input], client_timeout=30).as_numpy("OUTPUT0")[0, 0])

    def _http(self):
        address = self._status.url.removeprefix("http://")
        if getattr(self._local, "connection", None) is None:
            host, port = address.split(":")
            self._local.connection = http.client.HTTPConnection(host, int(port), timeout=30)
            self._local.connection.connect()
            self._local.connection.auto_open = 0
        return ask_http(address, connection=self._local.connection)

    def wait_for(self, count, timeout_s=WAIT_S):
        target = len(self.answers) + len(self.failures) + count
        assert processes.wait_for(lambda: len(self.answers) + len(self.failures) >= target, timeout_s)


def supervisors(project):
    """Pids of every supervisor process of this project, whether it holds the lock or not."""
    root = str(project.workspace.root).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"deployctl.hosts.local" in words and root in words:
            found.append(int(folder.name))
    return sorted(found)
