"""Kubernetes: what rendering and listing cost and how closely our copy of the HPA follows the real one: `make bench-kube`.

Rendering: 100 services, each a project of its own with a packaged model, in one process. `status --all`: a real control plane with 200
fake nodes, 500 services with an HPA each and 2,000 pods; making them takes minutes, the command is measured as a process, with compiled
bytecode as pip leaves it (a shell that forbids writing it doubles the command's CPU time and would be what is measured). The HPA: the test
that runs the real kube-controller-manager beside our law on identical inputs, whose figures are taken from its own report. Pulumi, where
its engine is on PATH: CPU of an `up` that changes nothing, beside plain `pulumi up`.
Last lines: BENCH <name> <value> <unit> goal <goal> ok|short|noisy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _crowd import SERVICES as SERVICES_THERE
from _crowd import crowd

ROOT = Path(__file__).resolve().parents[1]
DEPLOYCTL = Path(sys.executable).with_name("deployctl")
SERVICES = 100
REPEATS = 3
RENDER_GOAL_S, STATUS_GOAL_S = 5.0, 5.0
DIFFERENCE_GOAL, RATIO_GOAL = 0.5, 0.03
LAW, NOOP, NOOP_GOAL_S = "HPA-LAW ", "PULUMI-NOOP ", 1.5
MODEL = """\
name: "echo"
backend: "python"
max_batch_size: 8
input [{name: "IN" data_type: TYPE_FP32 dims: [4]}]
output [{name: "OUT" data_type: TYPE_FP32 dims: [4]}]
"""
SAMPLE = '{"IN": [1, 2, 3, 4]}\n'
SERVICE = """\
version: 1
name: service-{number}
model: {{source: "triton:models", sample: sample.jsonl}}
slo: {{latency: {{p99: 100ms}}}}
traffic: {{rate: {rate}/s}}
environments:
  prod: {{on: kubernetes, namespace: search, pool: gpu-l4, store: s3://models/prod, limits: {{replicas: 2}}}}
"""


def bench(name: str, value: float, unit: str, goal: float, *, spread: tuple[float, float] | None = None) -> str:
    """One last line; noisy where the repeats lie on both sides of the goal."""
    low, high = spread or (value, value)
    word = "noisy" if low <= goal < high else ("ok" if value <= goal else "short")
    return f"BENCH {name} {value:.3g} {unit} goal {goal:g} {word}"


def projects(folder: Path) -> list[Path]:
    """The 100 project folders."""
    found = []
    for number in range(SERVICES):
        root = folder / f"service-{number}"
        version = root / "models" / "echo" / "1"
        version.mkdir(parents=True)
        (root / "models" / "echo" / "config.pbtxt").write_text(MODEL)
        (version / "model.py").write_text(f"# {number}\n")
        (root / "sample.jsonl").write_text(SAMPLE)
        (root / "deploy.yaml").write_text(SERVICE.format(number=number, rate=10 + number))
        found.append(root)
    return found


def render_all(roots: list[Path]) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, files) of rendering each once."""
    from deployctl import config, wiring
    from deployctl.flows.render import render

    begun, cpu, files = time.monotonic(), time.process_time(), 0
    for root in roots:
        project = config.load(root)
        rendered = render(project, "prod", wiring.LazyToolbox(root, "prod"), image=f"registry.example.test/tritonserver@sha256:{'a1' * 32}")
        files += len(rendered.files)
    return time.monotonic() - begun, time.process_time() - cpu, files


def status_all(folder: Path) -> tuple[list[float], float] | None:
    """Sorted wall seconds of `status --all` over the crowd, and the least CPU seconds of one; None where the control plane is not built."""
    with crowd(folder / "plane") as plane:
        if plane is None:
            return None
        walls, cpus = [], []
        surroundings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        surroundings |= {"KUBECONFIG": str(plane.kubeconfig), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        for number in range(1 + REPEATS):  # the first one compiles
            begun, before = time.monotonic(), os.times()
            done = subprocess.run(
                [DEPLOYCTL, "status", "--all", "--context", "admin", "-o", "json"],
                capture_output=True,
                text=True,
                cwd=folder,
                env=surroundings,
            )
            if number == 0:
                continue
            walls.append(time.monotonic() - begun)
            after = os.times()
            cpus.append(after.children_user + after.children_system - before.children_user - before.children_system)
            listed = len(json.loads(done.stdout)["services"]) if done.returncode == 0 else 0
            if listed != SERVICES_THERE:
                raise SystemExit(f"status --all listed {listed} services (exit code {done.returncode}): {done.stderr[-500:]}")
        return sorted(walls), min(cpus)


def figures(test: str, mark: str) -> dict[str, Any] | None:
    """What a test of the rig prints after `mark`; None where what it needs is not there, with what it said."""
    words = [sys.executable, "-m", "pytest", f"tests/integration/kube/{test}", "-s", "-rs", "-m", "kube", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    line = next((text for text in done.stdout.splitlines() if mark in text), None)
    if line is None:
        print(done.stdout[-1500:], file=sys.stderr)
        return None
    return dict(json.loads(line.partition(mark)[2]))


def pulumi_noop() -> list[str]:
    """CPU of an `up` through Pulumi that changes nothing, above plain `pulumi up` on the same stack; nothing where there is no engine."""
    if shutil.which("pulumi") is None:
        print("the pulumi engine is not on PATH: no figure for an `up` that changes nothing", file=sys.stderr)
        return []
    found = figures("test_pulumi_engine.py::test_a_second_up_beside_plain_pulumi", NOOP)
    if found is None:
        return []
    ours, plain = sorted(found["ours_s"]), sorted(found["plain_s"])
    print(f"Pulumi, nothing to change: ours {', '.join(f'{s:.2f}' for s in ours)} s CPU, plain {', '.join(f'{s:.2f}' for s in plain)} s CPU")
    over = ours[len(ours) // 2] - plain[len(plain) // 2]
    return [bench("pulumi-noop-up-over-plain", over, "s", NOOP_GOAL_S, spread=(ours[0] - plain[-1], ours[-1] - plain[0]))]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        roots = projects(Path(folder))
        render_all(roots[:2])  # imports
        runs = [render_all(roots) for _ in range(REPEATS)]
        listed = status_all(Path(folder))
    walls = sorted(wall for wall, _, _ in runs)
    print(f"render: {SERVICES} services, {runs[0][2]} files; wall {', '.join(f'{w:.2f}' for w, _, _ in runs)} s, CPU {runs[0][1]:.2f} s")
    if listed:
        print(f"status --all: {SERVICES_THERE} services; wall {', '.join(f'{w:.2f}' for w in listed[0])} s, CPU of the command {listed[1]:.2f} s")
    found = figures("test_hpa_law.py", LAW)
    noop = pulumi_noop()
    if found:
        difference, off = f"{found['difference']:.3f} replica", f"{found['off_ratio']:.2%}"
        print(f"HPA: {found['series']:.0f} series; largest mean difference {difference}, replica-seconds off by {off}")
    print(bench("render-100-services", walls[len(walls) // 2], "s", RENDER_GOAL_S, spread=(walls[0], walls[-1])))
    for line in noop:
        print(line)
    if listed:
        times_s = listed[0]
        print(bench("status-all-500-services", times_s[len(times_s) // 2], "s", STATUS_GOAL_S, spread=(times_s[0], times_s[-1])))
    if found:
        print(bench("hpa-law-mean-difference", found["difference"], "replicas", DIFFERENCE_GOAL))
        print(bench("hpa-law-replica-seconds", found["off_ratio"], "ratio", RATIO_GOAL))
    else:
        print("the control plane is not built: no figures for status and the HPA (tests/integration/kube/controlplane/build.sh)", file=sys.stderr)


if __name__ == "__main__":
    main()
