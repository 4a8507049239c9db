"""A project in a real git repository: `dev`, and `prod` released by commits; bundles without ONNX or Triton."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

from click.testing import CliRunner

from deployctl import config
from deployctl.cli.main import deployctl
from deployctl.config import locks
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.forecast import Forecast
from deployctl.core.lock import Lock, Tuned
from deployctl.core.planner import demand_for
from deployctl.core.profile import ServiceProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.verdict import Verdict
from deployctl.flows._gather import sample_sizes
from deployctl.testing import builders, kube
from deployctl.wiring import LazyToolbox

YAML = """version: 1
name: echo
model: {source: "onnx:model.onnx"}
slo: {latency: {p99: 100ms}}
traffic: {rate: 40/s}
environments:
  dev: {}
  prod: {on: kubernetes, namespace: team-a, pool: gpu-l4, limits: {replicas: 2..6}, store: "https://blobs.example.test/echo", writer: gitops}
"""


class Work:
    """The working tree, its git, and the command line in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def run(self, *words: str):
        return CliRunner().invoke(deployctl, ["-C", str(self.root), *words])

    def diff(self, *words: str) -> tuple[int, str]:
        """(exit code, stdout) of `diff --env prod`; 1 means that something differs."""
        done = CliRunner().invoke(deployctl, ["-C", str(self.root), "diff", "--env", "prod", *words], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.return_value, done.stdout

    def error(self, *words: str):
        result = self.run(*words)
        assert result.exception is not None, result.output
        return result.exception

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").strip()

    def in_dev(self, t0_s: float) -> str:
        """A new bundle that dev's lock names, committed; its digest."""
        tools = LazyToolbox(self.root, "dev")
        bundle = builders.sleep_bundle(tools.blobs, tools.bundles, t0_s)
        locks.write(tools.workspace.lock("dev"), Lock(env="dev", bundle=bundle.digest, variant=bundle.variant))
        self.git("add", "lock/dev.lock")
        self.git("commit", "-qm", f"dev serves {t0_s}")
        return bundle.digest

    def tuned_in_dev(self, device: str, t0_s: float = 0.01) -> str:
        """A new bundle in dev's lock with settings that are proven on `device`, committed; the proof's digest."""
        tools, loaded = LazyToolbox(self.root, "dev"), config.load(self.root)
        bundle = builders.sleep_bundle(tools.blobs, tools.bundles, t0_s)
        demand = demand_for(loaded, sample_sizes(tools, bundle))
        settings = {"sleeper": ServingConfig(max_batch=4)}
        proof = Evidence(
            key=EvidenceKey(bundle=bundle.digest, device=device, triton_version="2.51.0", demand=demand, slo=loaded.slo),
            settings=settings,
            replicas=2,
            profile=ServiceProfile(stages=(), overhead_s=0.001, device=device, bundle=bundle.digest, triton_version="2.51.0"),
            forecast=Forecast(p50_s=0.01, p95_s=0.03, p99_s=0.04, utilisation_ratio=0.5, throughput_rps=40, method="simulation", error_ratio=0.06),
            verdict=Verdict(result="PASS", objectives=(), requests=1, failed=0, late_sends=0, offered_rps=40, reached_rps=40),
            error_ratio=0.06,
            probes=9,
            versions={},
        )
        tools.evidence.save(proof)
        tuned = Tuned(settings=settings, replicas=2, max_replicas=4, target=0.6, signal="busy_ratio", evidence=proof.digest)
        locks.write(tools.workspace.lock("dev"), Lock(env="dev", bundle=bundle.digest, variant=bundle.variant, tuned=tuned))
        self.git("add", "lock")
        self.git("commit", "-qm", f"dev is tuned on {device}")
        return proof.digest

    def lock(self, env: str) -> Lock:
        return locks.read(LazyToolbox(self.root, env).workspace.lock(env), env)

    def rendered(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (self.root / "rendered" / "prod").iterdir()}

    def promote(self, *words: str):
        result = self.run("promote", "dev", "prod", "--yes", "--unverified", *words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result


def project(root: Path, yaml: str = YAML) -> Work:
    """A new one, its first commit made."""
    root.mkdir()
    (root / "deploy.yaml").write_text(yaml)
    (root / "model.onnx").write_bytes(b"")
    (root / ".gitignore").write_text(".deployctl/\n")
    made = Work(root)
    made.git("init", "-q", "-b", "main")
    path = LazyToolbox(root, "prod").workspace.lock("prod")
    locks.write(path, dataclasses.replace(Lock(env="prod"), image=kube.IMAGE))
    made.git("add", ".")
    made.git("commit", "-qm", "start")
    return made
