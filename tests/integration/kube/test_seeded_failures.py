"""Twenty-odd things that go wrong on a cluster, each through the real command line: the cause, the exit code and the next command.

Quota, limits, admission, scheduling, rights and ownership are the real API server's and scheduler's. What a kubelet would say of a
container comes from the stand-in of sick_node.py.
"""

import dataclasses
import json
import time
from collections.abc import Callable

import pytest
from sick_node import POOL, SickNode, ended, waiting

pytestmark = pytest.mark.kube
FINAL_S = 10.0


@pytest.fixture(scope="module")
def sick(plane):
    node = SickNode(plane).start()
    yield node
    node.stop()


@dataclasses.dataclass
class Case:
    """`seed(project, sick)` breaks something; then `up` has to end with `code` and `exit_code`, and say `cause` and `hint`."""

    code: str
    exit_code: int
    cause: str
    hint: str
    seed: Callable


def kubelet(container, status):
    def seed(project, sick):
        project.write(pool=POOL)
        sick.seed(project.namespace, container, status)

    return seed


def put(path, body):
    """Make an object as the cluster's admin."""

    def seed(project, sick):
        target = path.format(ns=project.namespace)
        code, text = project.plane.request("POST", target, json.loads(json.dumps(body).replace("{ns}", project.namespace)))
        assert code == 201, text

    return seed


def quota(project, sick):
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpu"}, "spec": {"hard": {"requests.nvidia.com/gpu": "0"}}}
    path = f"/api/v1/namespaces/{project.namespace}/resourcequotas/gpu"
    project.plane.apply(path, body)
    project.plane.until(lambda: "used" in project.plane.get(path).get("status", {}), "a counted quota")


def webhook(project, sick):
    hook = {"name": "policy.example.test", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 1,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": project.namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "clientConfig": {"url": "https://127.0.0.1:9/"}}  # fmt: skip
    put("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "{ns}"},
         "webhooks": [hook]})(project, sick)  # fmt: skip


def admission_policy(project, sick):
    root, api = "/apis/admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    spec = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "freeze until Monday"}]}  # fmt: skip
    put(f"{root}/validatingadmissionpolicies",
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "{ns}"}, "spec": spec})(project, sick)  # fmt: skip
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "{ns}"}}}
    bind = {"policyName": "{ns}", "validationActions": ["Deny"], "matchResources": match}
    put(f"{root}/validatingadmissionpolicybindings",
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "{ns}"}, "spec": bind})(project, sick)  # fmt: skip
    probe = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "probe"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}  # fmt: skip
    path = f"/apis/apps/v1/namespaces/{project.namespace}/deployments?dryRun=All"
    project.plane.until(lambda: project.plane.request("POST", path, probe)[0] == 422, "the policy in force")


def login(project, sick):
    config = json.loads(project.plane.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = "expired"
    project.kubeconfig = project.root / "expired.json"
    project.kubeconfig.write_text(json.dumps(config))


def edited(project, sick):
    project.up()
    path = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/sleeper"
    template = {"spec": {"containers": [{"name": "triton", "image": "registry.example.test/mine:1"}]}}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sleeper"}, "spec": {"template": template}}
    project.plane.apply(path, body, manager="kubectl-edit")
    project.model(0.021)


def old_serves(seed):
    """The same, where an older release serves already."""

    def both(project, sick):
        project.up()
        project.model(0.023)
        seed(project, sick)

    return both


def set_yaml(**values):
    return lambda project, sick: project.write(**values)


SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sleeper"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
LIMITS = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [{"type": "Pod", "max": {"memory": "1Gi"}}]}}
PULL = waiting("ImagePullBackOff", 'Back-off pulling image "registry.example.test/tritonserver": ErrImagePull: manifest unknown')
CASES = {
    "image-pull": Case("image-unavailable", 4, "manifest unknown", "digest and pull secret", kubelet("triton", PULL)),
    "image-pull-old-serves": Case(
        "image-unavailable", 10, "manifest unknown", "digest and pull secret", old_serves(kubelet("triton", PULL))
    ),
    "image-name": Case("image-unavailable", 4, "InvalidImageName", "name", kubelet("triton", waiting("InvalidImageName"))),
    "config-error": Case("container-config-wrong", 4, 'secret "key" not found', "mend what the message names",
                         kubelet("triton", waiting("CreateContainerConfigError", 'secret "key" not found'))),
    "run-error": Case("container-config-wrong", 4, "nvidia-container-cli", "mend what the message names",
                      kubelet("triton", waiting("RunContainerError", "nvidia-container-cli: initialization error"))),
    "crash-loop": Case("crash-loop", 4, "no CUDA-capable device", "deployctl logs", kubelet("triton", waiting(
        "CrashLoopBackOff", restarts=3, ended=ended(1, "E1 start\nCUDA error: no CUDA-capable device is detected")))),
    "out-of-memory": Case("out-of-memory", 4, "killed for memory 2 times", "more memory", kubelet("triton", waiting(
        "CrashLoopBackOff", restarts=2, ended=ended(137, reason="OOMKilled")))),
    "blob-damaged": Case("fetch-blob-damaged", 4, "is not what its digest says", "push the bundle again", kubelet("fetch", waiting(
        "CrashLoopBackOff", restarts=1, ended=ended(1, "deployctl-fetch: blob-damaged: sha256:ab is not what its digest says")))),
    "blob-missing": Case("fetch-blob-missing", 4, "is not in the store", "push the bundle again", kubelet("fetch", waiting(
        "CrashLoopBackOff", restarts=1, ended=ended(1, "deployctl-fetch: blob-missing: sha256:ab is not in the store")))),
    "access-denied": Case("fetch-access-denied", 4, "403", "role that may read the store", kubelet("fetch", waiting(
        "CrashLoopBackOff", restarts=1, ended=ended(1, "deployctl-fetch: access-denied: the store says 403")))),
    "no-identity": Case("fetch-no-identity", 4, "no credentials", "role that may read the store", kubelet("fetch", waiting(
        "CrashLoopBackOff", restarts=1, ended=ended(1, "deployctl-fetch: no-identity: no credentials in the pod")))),
    "quota": Case("quota-exceeded", 4, "exceeded quota: gpu", "higher quota", quota),
    "quota-old-serves": Case("quota-exceeded", 10, "exceeded quota: gpu", "higher quota", old_serves(quota)),
    "limit-range": Case("pod-refused", 4, "maximum memory usage per Pod is 1Gi", "mend what the message names",
                        put("/api/v1/namespaces/{ns}/limitranges", LIMITS)),
    "webhook-down": Case("webhook-refused", 4, "policy.example.test", "ask who runs it", webhook),
    "admission-policy": Case("object-refused", 4, "freeze until Monday", "mend what the message names", admission_policy),
    "not-ours": Case("not-ours", 5, "Service", "another name or namespace", put("/api/v1/namespaces/{ns}/services", SERVICE)),
    "hand-edited": Case("field-owned-elsewhere", 5, "kubectl-edit", "deployctl drift", edited),
    "forbidden": Case("cluster-forbidden", 3, "deployctl-ci", "docs/guides/kubernetes.md", set_yaml(context="least")),
    "login": Case("cluster-login", 3, "Unauthorized", "log in", login),
    "context": Case("context-unknown", 2, "nowhere", "kubectl config get-contexts", set_yaml(context="nowhere")),
    "namespace": Case("namespace-missing", 6, "t-nowhere", "kubectl create namespace", set_yaml(namespace="t-nowhere")),
    "tag": Case("config-invalid", 2, "deploy.yaml:13", "correct the line", set_yaml(image="nvcr.io/nvidia/tritonserver:24.10-py3")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_failure_is_told_with_its_cause_its_code_and_the_next_command(cluster_project, sick, name):
    case, project = CASES[name], cluster_project
    case.seed(project, sick)
    began = time.monotonic()
    ran = project.up("--timeout", "90s", ok=None)
    took_s = time.monotonic() - began
    told = ran.err[ran.err.index("error: ") :].splitlines()
    first = "\n".join(told[:5])
    assert ran.code == case.exit_code, ran
    assert f"code: {case.code} " in "\n".join(told), ran.err
    assert case.cause in first and case.hint in first, first
    assert "Traceback" not in ran.err and ran.out == ""
    assert took_s < FINAL_S + 5, f"{took_s:.1f} s"  # counted from the start of the command, so what comes before the failure is in it


def test_a_pool_that_may_grow_is_waited_for_and_says_for_what(cluster_project):
    project = cluster_project
    project.write(pool="not-there-yet")
    ran = project.up("--timeout", "4s", ok=(9,))
    assert "code: rollout-timeout" in ran.err and "waits for a node" in ran.err


def test_a_failed_rollout_returns_to_what_served_and_records_it(cluster_project, sick):
    project = cluster_project
    old_serves(kubelet("triton", PULL))(project, sick)
    project.up(ok=(10,))
    assert [a for _, a in project.revisions()] == ["up", "up", "rollback"]
    status = project.status()
    assert (status["revision_serving"], status["health"]) == (3, "healthy")
