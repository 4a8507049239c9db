"""A project folder that is driven by the real command line, and a small open-loop load on it."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from deployctl import share
from deployctl.adapters import processes
from deployctl.cli import main

DEPLOYCTL = str(Path(sys.executable).with_name("deployctl"))

YAML = """\
version: 1
name: sleeper
model: {source: "triton:repo", sample: samples.jsonl}
slo: {latency: {p99: 500ms}, errors: 1%}
traffic: {rate: 40/s}
environments:
  local: {ports: {http: 0, grpc: 0}, scaling: {sync: 1s, scale_down_window: 3s}}
"""

CONFIG = """\
name: "sleeper"
backend: "python"
max_batch_size: 8
input [{{ name: "INPUT0" data_type: TYPE_FP32 dims: [4] }}]
output [{{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [4] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{ }}
parameters {{ key: "t0_s" value {{ string_value: "{t0_s}" }} }}
"""

# The proof loads a model before it may be released, so a roll-out that fails needs a cause that comes later: a missing file.
PATCH = """\
    def initialize(self, args):
        if os.path.exists("{marker}"):
            raise RuntimeError("libfoo.so: cannot open shared object file")
"""


@dataclasses.dataclass
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self):
        """The JSON document on stdout."""
        return json.loads(self.out)


def run_in(folder, *words):
    """One command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.run(["-C", str(folder), *words])
    return Ran(code, out.getvalue(), err.getvalue())


class LiveProject:
    """A project in `root`, with the sleeping model as an existing Triton repository."""

    def __init__(self, root):
        self.root = root
        self.marker = root / "break-at-load"
        model = root / "repo" / "sleeper" / "1"
        model.mkdir(parents=True)
        source = (share.folder("model_repo") / "sleep" / "1" / "model.py").read_text()
        (model / "model.py").write_text(source.replace("    def initialize(self, args):\n", PATCH.format(marker=self.marker), 1))
        (root / "deploy.yaml").write_text(YAML)
        (root / "samples.jsonl").write_text("".join(f'{{"INPUT0": [{n}, 2, 3, 4]}}\n' for n in range(1, 5)))
        self.model(0.005)

    def model(self, t0_s):
        """Another model: other content, other bundle."""
        (self.root / "repo" / "sleeper" / "config.pbtxt").write_text(CONFIG.format(t0_s=t0_s))

    def start(self, *words):
        """One command as a process of its own group."""
        return subprocess.Popen(
            [DEPLOYCTL, "-C", str(self.root), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words, ok=(0,)):
        """One command to its end, in this process (half a second less each); `ok` None takes any exit code."""
        ran = run_in(self.root, *words)
        assert ok is None or ran.code in ok, f"{words}: {ran}"
        return ran

    def status(self):
        """`status -o json`, whatever the exit code."""
        return self.run("status", "-o", "json", ok=None).data

    def revisions(self):
        """(revision, action) of every release."""
        return [(r["revision"], r["action"]) for r in self.run("history", "-o", "json").data["items"]]

    def processes(self):
        """Everything that still runs for this project: its servers, front door and supervisor."""
        found = [p for p, mark in processes.marks("DEPLOYCTL_REPLICA") if self._mine(p.pid)]
        return found + [int(d.name) for d in Path("/proc").iterdir() if d.name.isdigit() and self._supervises(int(d.name))]

    def _mine(self, pid):
        try:
            return str(self.root) in Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return False

    def _supervises(self, pid):
        try:
            return f"\0--root\0{self.root}\0" in Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return False

    def clean(self):
        """Down, and nothing left."""
        self.run("down", "--yes")
        left = self.processes()
        assert left == [], left
        shutil.rmtree(self.root / ".deployctl", ignore_errors=True)


class Load:
    """Open-loop load: sends at planned times whatever comes back, until it is told to stop and at least `count` were sent.

    Each worker keeps one connection. Nothing is sent twice, and no connection is opened again unless something failed on it.
    """

    def __init__(self, protocol, url, *, count, rate_rps, workers=8):
        self.failures = []
        self.done = 0
        self._count, self._gap_s, self._url = count, 1.0 / rate_rps, url
        self._next, self._lock, self._stop = 0, threading.Lock(), threading.Event()
        self._began_s = time.monotonic()
        send = self._http if protocol == "http" else self._grpc
        self._threads = [threading.Thread(target=self._work, args=(send,)) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def join(self):
        """Stop, and wait for the last answer; (answered rightly, failures)."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.done, self.failures

    def _work(self, send):
        state = {}
        while True:
            with self._lock:
                number, self._next = self._next, self._next + 1
            if number >= self._count and self._stop.is_set():
                return
            time.sleep(max(0.0, self._began_s + number * self._gap_s - time.monotonic()))
            try:
                first = send(state, float(number % 1000))
                assert first == float(number % 1000), f"another request's answer: {first}"
                with self._lock:
                    self.done += 1
            except Exception as error:  # every kind of failure counts, with its text
                state.clear()
                with self._lock:
                    self.failures.append(f"{number}: {type(error).__name__} {error}")

    def _http(self, state, value):
        import http.client

        if "c" not in state:
            state["c"] = http.client.HTTPConnection(self._url.removeprefix("http://"), timeout=20)
            state["c"].connect()
            state["c"].auto_open = 0  # a connection that the front door closed is a failure
        body = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [value, 2, 3, 4]}]})
        state["c"].request("POST", "/v2/models/sleeper/infer", body, {"Content-Type": "application/json"})
        reply = state["c"].getresponse()
        text = reply.read()
        assert reply.status == 200, f"{reply.status} {text[:200]!r}"
        return json.loads(text)["outputs"][0]["data"][0]

    def _grpc(self, state, value):
        import numpy as np
        import tritonclient.grpc as client

        if "c" not in state:
            state["c"] = client.InferenceServerClient(self._url, channel_args=[("grpc.use_local_subchannel_pool", 1)])
        tensor = client.InferInput("INPUT0", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([[value, 2, 3, 4]], np.float32))
        return float(state["c"].infer("sleeper", [tensor], client_timeout=20).as_numpy("OUTPUT0")[0, 0])


def kill_group(child):
    """kill -9 of a command; what it started in sessions of their own goes on."""
    os.killpg(child.pid, 9)
    child.communicate()
