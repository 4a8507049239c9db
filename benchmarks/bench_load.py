"""What the load generator costs and how fast it can honestly be: `make bench-load`.

A real Triton with an identity model on one core, the generator on another (where there are two). Three questions:
CPU of the generator per request (ours open loop over HTTP and gRPC; Locust's FastHttpUser and tritonclient as closed loops,
each with the same bytes), the highest rate at which less than 1 % of the sends are late, and what the front door adds to
the p50 (direct and through it in pairs, so that a busy machine slows both alike) and spends itself. CPU is user and system time of the
process while it sends. Last lines: BENCH <name> <value> <unit> goal <goal> ok|short|noisy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from deployctl.adapters import processes
from deployctl.adapters.envoy import DoorSpec, EnvoyDoor
from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.locust import LocustGenerator
from deployctl.adapters.repository import TritonRepository
from deployctl.adapters.triton import TritonLauncher
from deployctl.core.demand import Demand, RateStep
from deployctl.ports import LoadRequest, LoadResult
from deployctl.testing.builders import identity_bundle

REPEATS = 3
PAIRS = 5
DOOR_RPS = 200.0
CPU_GOAL_US = 300.0  # two thirds of what the front door before this one cost (docs/decisions/0003)
SECONDS = 3.0
RATE_RPS = 1500.0
LADDER_RPS = (1000, 2000, 3000, 4000, 5000, 6000, 8000)
LATE_LIMIT_S = 0.002
HONEST_GOAL_RPS = 2000
PEER = """
import json, os, resource, sys, time
import gevent, locust
from locust.env import Environment
address, kind, body_file, length, cpu, seconds = sys.argv[1:]
if int(cpu) >= 0:
    os.sched_setaffinity(0, {int(cpu)})
body = open(body_file, "rb").read()
headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": length}

class Fast(locust.FastHttpUser):
    host = "http://" + address
    @locust.task
    def one(self):
        self.client.post("/v2/models/identity/infer", data=body, headers=headers)

class Client(locust.User):
    def on_start(self):
        import numpy, tritonclient.http as http
        self.client = http.InferenceServerClient(address)
        self.input = http.InferInput("INPUT0", [1, 16], "FP32")
        self.input.set_data_from_numpy(numpy.ones((1, 16), dtype=numpy.float32))
    @locust.task
    def one(self):
        began = time.monotonic()
        self.client.infer("identity", [self.input])
        self.environment.events.request.fire(request_type="HTTP", name="infer", response_time=(time.monotonic() - began) * 1e3,
                                             response_length=0, exception=None, context={})

environment = Environment(user_classes=[Fast if kind == "fast" else Client])
runner = environment.create_local_runner()
runner.start(8, spawn_rate=100)
gevent.sleep(1.0)
def now():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime, environment.stats.total.num_requests
a = now(); gevent.sleep(float(seconds)); b = now()
print(json.dumps({"cpu_s": b[0] - a[0], "requests": b[1] - a[1], "failed": environment.stats.total.num_failures}), flush=True)
os._exit(0)
"""


class Bench:
    """One server and one generator for all questions."""

    def __init__(self, root: Path) -> None:
        blobs = FileBlobStore(root / "blobs")
        bundle = identity_bundle(blobs, FileBundleStore(blobs, root / "bundles"))
        TritonRepository(blobs).build(bundle, root / "repo")
        cpus = processes.cpus()
        self.server_cpus, self.client_cpus = (cpus[:1], cpus[1:2]) if len(cpus) > 1 else ((), ())
        self.root = root
        self.bodies = blobs.path(bundle.sample)
        self.server = TritonLauncher(root / "triton").start(root / "repo", cpus=self.server_cpus)
        self.direct = self.server.http_url.split("://")[-1]
        self.generator = LocustGenerator(root / "scratch")

    def ours(self, rate_rps: float, *, url: str | None = None, protocol: str = "http", seed: int = 0) -> LoadResult:
        grpc = self.server.grpc_url.split("://")[-1]
        return self.generator.run(
            LoadRequest(
                url=url or (grpc if protocol == "grpc" else self.direct),
                protocol=protocol,
                model="identity",
                bodies=self.bodies,
                demand=Demand(steps=(RateStep(start_s=0.0, rate_rps=rate_rps),)),
                duration_s=SECONDS,
                seed=seed,
                cpus=self.client_cpus,
            )
        )

    def our_cost_us(self, protocol: str, rate_rps: float) -> list[float]:
        costs = []
        for seed in range(REPEATS):
            result = self.ours(rate_rps, protocol=protocol, seed=seed)
            costs.append(result.generator_cpu_ratio * SECONDS / result.samples.ok.size * 1e6)
            print(f"  ours {protocol} at {rate_rps:g}/s: {costs[-1]:.0f} us a request, {int((~result.samples.ok).sum())} failed")
        return costs

    def peer_cost_us(self, kind: str) -> list[float]:
        from tritonclient.http import InferenceServerClient, InferInput

        item = InferInput("INPUT0", [1, 16], "FP32")
        item.set_data_from_numpy(np.ones((1, 16), dtype=np.float32))
        body, length = InferenceServerClient.generate_request_body([item])
        (self.root / "body").write_bytes(bytes(body))
        (self.root / "peer.py").write_text(PEER)
        cpu = str(self.client_cpus[0]) if self.client_cpus else "-1"
        command = [sys.executable, str(self.root / "peer.py"), self.direct, kind, str(self.root / "body"), str(length), cpu, str(SECONDS)]
        costs = []
        for _ in range(REPEATS):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=self.root)
            said = json.loads(done.stdout.splitlines()[-1])
            costs.append(said["cpu_s"] / said["requests"] * 1e6)
            print(f"  {kind}: {costs[-1]:.0f} us a request at {said['requests'] / SECONDS:.0f}/s, {said['failed']} failed")
        return costs

    def honest_rps(self) -> tuple[float, str]:
        best = 0.0
        for rate_rps in LADDER_RPS:
            result = self.ours(rate_rps)
            samples = result.samples
            late = float(np.mean(samples.sent_s - samples.intended_s > LATE_LIMIT_S))
            failed = int((~samples.ok).sum())
            print(f"  {rate_rps}/s: {late:.2%} late, {failed} failed, generator at {result.generator_cpu_ratio:.0%} of a core")
            if late >= 0.01 or failed:
                return best, f"{rate_rps}/s had {late:.1%} late sends and {failed} failures"
            best = float(rate_rps)
        return best, "the ladder ended"

    def door_adds(self) -> tuple[list[float], list[float]]:
        """Through the front door and directly, in pairs: added p50 in ms, and CPU of the front door in us a request."""
        ports = processes.free_ports(2)
        door = EnvoyDoor(self.root / "door")
        grpc = self.server.grpc_url.split("://")[-1]
        spec = DoorSpec(http_port=ports[0], grpc_port=ports[1], http_upstreams=(self.direct,), grpc_upstreams=(grpc,))
        process = door.start(spec, log=self.root / "door.log", mark={"DEPLOYCTL_BENCH": str(os.getpid())})
        added, costs = [], []
        try:
            for seed in range(PAIRS):
                urls = [self.direct, f"127.0.0.1:{ports[0]}"]
                before = processes.core_use(process.pid)
                results = {u: self.ours(DOOR_RPS, url=u, seed=seed) for u in (urls if seed % 2 else urls[::-1])}
                spent_s = processes.core_use(process.pid).server_since_s(before)
                p50 = [float(np.median(results[u].samples.latency_s[results[u].samples.ok])) * 1e3 for u in urls]
                passed = results[urls[1]].samples.ok.size + results[urls[1]].warmup_requests
                added.append(p50[1] - p50[0])
                costs.append(spent_s / passed * 1e6)
                print(f"  pair {seed + 1}: direct {p50[0]:.2f} ms, through the front door {p50[1]:.2f} ms, {costs[-1]:.0f} us of its CPU a request")
        finally:
            door.stop(process)
        return added, costs


def line(name: str, values: list[float], unit: str, goal: float, *, digits: int = 0) -> str:
    """Median of the repeats; noisy where they fall on both sides of the goal."""
    middle = statistics.median(values)
    word = "noisy" if min(values) <= goal < max(values) else "ok" if middle <= goal else "short"
    return f"BENCH {name} {middle:.{digits}f} {unit} goal {goal:g} {word}"


def main() -> None:
    """All questions; the BENCH lines come last."""
    with tempfile.TemporaryDirectory(prefix="deployctl-bench-") as folder:
        bench = Bench(Path(folder))
        try:
            busy = os.getloadavg()[0] > len(processes.cpus())
            print(f"load average {os.getloadavg()[0]:.1f}, server on cores {bench.server_cpus or 'any'}, generator on {bench.client_cpus or 'any'}")
            http = bench.our_cost_us("http", RATE_RPS)
            grpc = bench.our_cost_us("grpc", RATE_RPS / 3)
            peers = {kind: bench.peer_cost_us(kind) for kind in ("fast", "tritonclient")}
            honest, why = bench.honest_rps()
            added, door_us = bench.door_adds()
        finally:
            bench.server.stop()
    ours = statistics.median(http)
    for kind, costs in peers.items():
        print(f"{kind} costs {statistics.median(costs) / ours:.1f} times as much as ours ({min(costs):.0f} to {max(costs):.0f} us)")
    print(f"ours: HTTP {min(http):.0f} to {max(http):.0f} us, gRPC {min(grpc):.0f} to {max(grpc):.0f} us; highest honest rate: {why}")
    print(f"front door adds {min(added):.2f} to {max(added):.2f} ms over {PAIRS} pairs")
    print(line("load-http-cpu", http, "us/request", 60.0))
    word = "ok" if honest >= HONEST_GOAL_RPS else "noisy" if busy else "short"
    print(f"BENCH load-honest-rate {honest:.0f} req/s goal {HONEST_GOAL_RPS} {word}")
    print(line("load-front-door-p50", added, "ms", 0.5, digits=2))
    print(line("load-front-door-cpu", door_us, "us/request", CPU_GOAL_US))


if __name__ == "__main__":
    main()
