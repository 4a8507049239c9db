"""What a cluster says, judged: twenty ways to fail with the right cause, and waiting where waiting helps."""

import copy

import pytest

from deployctl.core import kube_drift
from deployctl.core.kube_rollout import judge

DIGEST = "f" * 64


def deployment(replicas=2, updated=2, ready=2, total=2, generation=3, seen=3, conditions=()):
    return {
        "metadata": {"name": "echo", "uid": "d", "generation": generation, "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": seen, "replicas": total, "updatedReplicas": updated, "readyReplicas": ready, "conditions": list(conditions)},
    }


SETS = [
    {"metadata": {"name": f"echo-{n}", "ownerReferences": [{"uid": "d"}], "annotations": {"deployment.kubernetes.io/revision": str(n)}}}
    for n in (1, 2)
]


def pod(name="echo-2-a", replica_set="echo-2", ready=False, conditions=(), main=None, init=None, **meta):
    status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}, *conditions]}
    if init:
        status["initContainerStatuses"] = [{"name": "fetch", **init}]
    if main:
        status["containerStatuses"] = [{"name": "triton", **main}]
    return {"metadata": {"name": name, "ownerReferences": [{"name": replica_set}], **meta}, "status": status}


def waiting(reason, message="", restarts=0, last=None):
    found = {"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": restarts}
    return {**found, "lastState": {"terminated": last}} if last else found


def ended(code, message="", reason="Error", restarts=0):
    return {"state": {"terminated": {"exitCode": code, "message": message, "reason": reason}}, "restartCount": restarts}


def fetch(slug, text="echo/1/model.py: …"):
    return {"init": ended(65, f"some log line\ndeployctl-fetch: {slug}: {text}\n")}


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
}
REFUSED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}

FINAL = {
    "image-unavailable": {"main": waiting("ImagePullBackOff", "not found")},
    "image-unavailable-name": {"main": waiting("InvalidImageName", "bad")},
    "image-unavailable-init": {"init": waiting("ImagePullBackOff", "denied")},
    "container-config-wrong": {"main": waiting("CreateContainerConfigError", 'configmap "x" not found')},
    "container-config-wrong-run": {"main": waiting("RunContainerError", "no such file")},
    "crash-loop": {"main": waiting("CrashLoopBackOff", restarts=3, last={"exitCode": 1, "message": "line\nfailed to load model"})},
    "out-of-memory": {"main": waiting("CrashLoopBackOff", restarts=2, last={"exitCode": 137, "reason": "OOMKilled"})},
    "fetch-blob-damaged": fetch("blob-damaged"),
    "fetch-blob-damaged-again": {
        "init": waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 65, "message": "deployctl-fetch: blob-damaged: x"})
    },
    "fetch-bundle-damaged": fetch("bundle-damaged"),
    "fetch-blob-missing": fetch("blob-missing"),
    "fetch-access-denied": fetch("access-denied"),
    "fetch-no-identity": fetch("no-identity"),
    "fetch-release-damaged": fetch("release-damaged"),
    "fetch-path-escapes": fetch("path-escapes"),
    "fetch-unresolved": fetch("unresolved"),
}
CONDITIONS = {
    "quota-exceeded": {**REFUSED, "message": 'pods "echo-2-a" is forbidden: exceeded quota: gpu, requested: 1'},
    "webhook-refused": {**REFUSED, "message": 'admission webhook "policy.example" denied the request: no'},
    "pod-security-refused": {**REFUSED, "message": 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'},
    "pod-refused": {**REFUSED, "message": "something else"},
    "rollout-stalled": {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "…"},
}


@pytest.mark.parametrize("case", FINAL)
def test_final_conditions_of_pods(case):
    found = judge(deployment(ready=1), [pod("echo-1-a", "echo-1", ready=True), pod(**FINAL[case])], SETS)
    assert found.phase == "failed"
    assert case.startswith(found.code)
    assert found.hint
    assert "echo-2-a" in found.message


@pytest.mark.parametrize("case", CONDITIONS)
def test_final_conditions_of_the_deployment(case):
    found = judge(deployment(updated=0, ready=1, conditions=[CONDITIONS[case]]), [], SETS)
    assert (found.phase, found.code) == ("failed", case)


def test_a_full_pool_is_final_only_if_it_cannot_grow():
    view = deployment(ready=0), [pod(conditions=[UNSCHEDULABLE])], SETS
    assert judge(*view).phase == "progressing"
    assert "Insufficient nvidia.com/gpu" in judge(*view).message
    assert judge(*view, pool_can_grow=False).code == "pool-full"


@pytest.mark.parametrize(
    "state",
    [
        {"main": waiting("ContainerCreating")},
        {"main": waiting("ErrImagePull", "one failed try")},
        {"main": waiting("CrashLoopBackOff", restarts=2, last={"exitCode": 1})},
        {"main": waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 137, "reason": "OOMKilled"})},
        {"init": ended(69, "deployctl-fetch: store-unreachable: 503")},  # the kubelet tries again
        {"main": {"state": {"running": {}}, "restartCount": 1}},
        {},
    ],
)
def test_what_may_still_become_well_is_waited_for(state):
    assert judge(deployment(ready=1), [pod(**state)], SETS).phase == "progressing"


def test_a_failure_of_the_old_release_does_not_fail_the_new_one():
    old = pod("echo-1-a", "echo-1", main=waiting("CrashLoopBackOff", restarts=9, last={"exitCode": 1}))
    assert judge(deployment(ready=1, total=3), [old, pod()], SETS).phase == "progressing"


def test_conditions_of_before_the_change_are_not_believed():
    stale = deployment(generation=4, seen=3, conditions=[CONDITIONS["rollout-stalled"]])
    assert judge(stale, [pod(ready=True), pod("echo-2-b", ready=True)], SETS).phase == "progressing"


@pytest.mark.parametrize(
    ("changes", "phase"),
    [({}, "done"), ({"total": 3}, "progressing"), ({"updated": 1}, "progressing"), ({"ready": 1}, "progressing"), ({"seen": 2}, "progressing")],
)
def test_done_means_all_new_ready_and_none_old(changes, phase):
    pods = [pod(ready=True), pod("echo-2-b", ready=True)]
    assert judge(deployment(**changes), pods, SETS).phase == phase


def test_ready_pods_of_the_old_release_do_not_count_as_new():
    pods = [pod("echo-1-a", "echo-1", ready=True), pod("echo-1-b", "echo-1", ready=True)]
    found = judge(deployment(), pods, SETS)
    assert (found.phase, found.ready) == ("progressing", 0)


LIVE = {
    "kind": "Deployment",
    "metadata": {
        "name": "echo",
        "resourceVersion": "7",
        "managedFields": [
            {"manager": "deployctl", "operation": "Apply", "time": "1",
             "fieldsV1": {"f:spec": {"f:a": {}, "f:list": {'k:{"name":"x"}': {".": {}, "f:image": {}}}}}},
            {"manager": "kubectl-edit", "operation": "Update", "time": "2", "fieldsV1": {"f:spec": {"f:list": {'k:{"name":"x"}': {"f:image": {}}}}}},
        ],
    },
    "spec": {"a": 1, "list": [{"name": "x", "image": "theirs"}, {"name": "y", "image": "z"}]},
    "status": {"x": 1},
}  # fmt: skip


def test_drift_names_path_values_and_who():
    wanted = copy.deepcopy(LIVE)
    wanted["spec"]["list"][0]["image"] = "ours"
    wanted["metadata"]["resourceVersion"] = "8"
    wanted["status"] = {}
    found = kube_drift.differences(LIVE, wanted)
    assert [(d.path, d.live, d.wanted, d.manager) for d in found] == [("spec.list[x].image", "theirs", "ours", "kubectl-edit")]


def test_an_apply_that_changes_only_ownership_is_a_change():
    other = copy.deepcopy(LIVE)
    assert kube_drift.unchanged(LIVE, other, "deployctl")
    del other["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:a"]
    assert not kube_drift.unchanged(LIVE, other, "deployctl")
