"""Roll-outs that a real cluster refuses: cause, code, and the old release goes on serving."""

import contextlib
import json
import random
import subprocess
import sys
import threading

import pytest
from kube_service import FIXED, Service, bind_role_of_guide

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import codec, kube_rollout, manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.core.platform import NodePool
from deployctl.hosts.kubernetes.writer import Writer
from deployctl.testing import kube

pytestmark = pytest.mark.kube


def test_a_quota_refuses_more_replicas_and_the_old_ones_stay(service):
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=2, max_replicas=2))
    service.up(packed, made)
    service.wait(made)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpu"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}}
    path = f"/api/v1/namespaces/{service.namespace}/resourcequotas/gpu"
    service.plane.apply(path, quota)
    service.plane.until(lambda: "used" in service.plane.get(path).get("status", {}), "a counted quota")
    other, next_plan = service.plan(b"two", scaling=ScalingPolicy(min_replicas=2, max_replicas=2))
    service.up(other, next_plan)
    failed = service.wait(next_plan, "failed")
    assert failed.code == "quota-exceeded"
    assert failed.old == 2
    # Undone by the same means as it was begun: the older plan is applied.
    service.up(packed, made, action="rollback")
    assert service.wait(made).ready == 2


def test_a_full_pool_waits_if_it_can_grow_and_fails_if_not(service):
    packed, made = service.plan(scaling=FIXED, cluster={"pool": NodePool(name="gpu-l4", gpus=5)})  # one a node, four nodes
    other, big = service.plan(scaling=ScalingPolicy(min_replicas=5, max_replicas=5), cluster={"pool": NodePool(name="gpu-l4", gpus=5)})
    service.up(other, big)
    service.plane.until(lambda: "waits for a node" in service.judged(big).message, "an unschedulable pod")
    assert service.judged(big).phase == "progressing"
    fixed = kube_rollout.judge(*service.writer(big).view(), pool_can_grow=False)
    assert (fixed.phase, fixed.code) == ("failed", "pool-full")
    service.plane.add_node("gpu-9")
    try:
        assert service.wait(big).ready == 5
    finally:
        service.plane.request("DELETE", "/api/v1/nodes/gpu-9")
    assert packed.digest == other.digest and made != big


def test_pod_security_is_really_enforced_here(service):
    """The control for every acceptance test: a pod that is not restricted is refused by this very cluster."""
    packed, made = service.plan()
    service.up(packed, made)
    service.wait(made)
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo"
    containers = [{"name": "triton", "securityContext": {"allowPrivilegeEscalation": True}}]
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo"}, "spec": {"template": {"spec": {"containers": containers}}}}
    service.plane.apply(path, patch, manager="kubectl-edit")
    assert service.wait(made, "failed").code == "pod-security-refused"


def test_a_webhook_that_does_not_answer_is_named(service):
    hook = {"name": "policy.example.test", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 1,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": service.namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "clientConfig": {"url": "https://127.0.0.1:9/"}}  # fmt: skip
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": service.namespace},
        "webhooks": [hook],
    }
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    assert service.plane.request("POST", path, body)[0] == 201
    try:
        packed, made = service.plan()
        service.up(packed, made)
        failed = service.wait(made, "failed")
        assert "policy.example.test" in failed.message
    finally:
        service.plane.request("DELETE", f"{path}/{service.namespace}")


def test_an_api_server_that_is_killed_and_returns_is_waited_for(service):
    packed, made = service.plan()
    release, _ = service.up(packed, made)
    service.wait(made)
    service.plane.kill("kube-apiserver")
    timer = threading.Timer(1.0, service.plane.start_apiserver)
    timer.start()
    try:
        assert service.up(packed, made, release)[1] == 0  # tried again until it answered
    finally:
        timer.join()


def test_the_least_role_of_the_guide_is_enough_and_no_wildcard(service):
    """The Role in docs/guides/kubernetes.md, bound to a user without any other right."""
    assert "*" not in json.dumps(bind_role_of_guide(service.plane, service.namespace))
    least = Service(service.plane, service.namespace, "least")
    packed, made = least.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="arrivals_rps"))
    release, _ = least.up(packed, made)
    least.wait(made)
    assert least.up(packed, made, release)[1] == 0
    fixed, next_plan = least.plan(b"two")
    least.up(fixed, next_plan)
    least.wait(next_plan)
    writer = least.writer(next_plan)
    writer.remove_all()
    writer.forget()
    service.plane.until(lambda: not service.ours(), "end of every object")


@pytest.mark.parametrize("seed", range(3))
def test_a_third_of_all_answers_failing_changes_nothing_in_the_end(service, seed):
    """429, 503 and connections that break before or after the server acted: every call may be repeated."""
    rng = random.Random(seed)

    class Faulty(Cluster):
        faults = 0

        def _once(self, method, path, options, body, content):
            fault = rng.choice(["429", "503", "lost", "reset"]) if rng.random() < 0.3 else ""
            self.faults += bool(fault)
            if fault in ("429", "503"):
                return int(fault), '{"message": "try again"}', 0.0
            if fault == "reset":
                return 0, "connection reset", 0.0
            answer = super()._once(method, path, options, body, content)
            return (0, "the answer was lost on its way", 0.0) if fault == "lost" else answer

    def faulty():
        return Faulty("admin", kubeconfig=str(service.plane.kubeconfig), sleep=lambda _: None)

    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="arrivals_rps"))
    release = service.release(made)
    api = faulty()
    Writer(api, made).apply(release, manifests.objects(kube.inputs(packed, made)))
    assert api.faults >= 5
    assert service.up(packed, made, release)[1] == 0
    service.wait(made)
    other, fixed = service.plan(b"two")
    api = faulty()
    Writer(api, fixed).apply(service.release(fixed), manifests.objects(kube.inputs(other, fixed)))
    service.wait(fixed)
    assert Writer(faulty(), fixed).drift(manifests.objects(kube.inputs(other, fixed))) == []
    Writer(faulty(), fixed).remove_all()
    Writer(faulty(), fixed).forget()
    service.plane.until(lambda: not service.ours(), "end of every object")


def test_a_process_that_is_killed_anywhere_is_finished_by_the_same_one(service, tmp_path):
    """kill -9 of a real process at random moments; then the same command runs to its end and leaves nothing unknown."""
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="arrivals_rps"))
    release = service.release(made)
    (tmp_path / "inputs.json").write_text(codec.dumps(kube.inputs(packed, made)))
    (tmp_path / "release.json").write_text(codec.dumps(release))
    code = f"""
import pathlib
from deployctl.adapters.kubernetes import Cluster
from deployctl.core import codec, manifests
from deployctl.core.release import Release
from deployctl.hosts.kubernetes.writer import Writer
folder = pathlib.Path({str(tmp_path)!r})
inputs = codec.loads(manifests.Inputs, (folder / "inputs.json").read_text())
api = Cluster("admin", kubeconfig={str(service.plane.kubeconfig)!r})
api.client()
print("go", flush=True)
Writer(api, inputs.plan).apply(codec.loads(Release, (folder / "release.json").read_text()), manifests.objects(inputs))
"""
    rng = random.Random(5)
    killed = 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"go\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 0.35))
        killed += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        writer = service.writer(made)
        inventory = writer.inventory()
        known = {r.name for r in inventory.refs} if inventory else set()
        assert {o.partition("/")[2] for o in service.ours() if not o.startswith(("replicasets", "configmaps/deployctl"))} <= known
        if rng.random() < 0.5:  # sometimes everything is gone again before the next try
            writer.remove_all()
            writer.forget()
    assert killed >= 3
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert service.up(packed, made, release)[1] == 0
    service.wait(made)
