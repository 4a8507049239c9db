"""Measuring on the cluster itself, by the real command line: a replica of its own, load from a pod, evidence for the pool's device."""

import json
import os
import signal

import pytest
from kube_project import ClusterProject
from kube_service import bind_role_of_guide

from deployctl.core.manifests import bench

pytestmark = [pytest.mark.kube, pytest.mark.triton, pytest.mark.timeout(290)]
OWNED = {"/api/v1": ("pods", "configmaps", "services", "secrets"), "/apis/batch/v1": ("jobs",), "/apis/networking.k8s.io/v1": ("networkpolicies",)}


@pytest.fixture
def measured(plane, joined, namespace, packaged, tmp_path):
    root = tmp_path / "project"
    store = joined.serve(root / ".deployctl")
    made = ClusterProject(plane, namespace, root, packaged, pool=joined.pool.name, store=store)
    yield made
    plane.until(lambda: not joined.workers(namespace) or end(plane, namespace), "no pod", limit_s=30)


def end(plane, namespace):
    """Take everything down at once."""
    now = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    plane.request("DELETE", f"/apis/apps/v1/namespaces/{namespace}/deployments")
    plane.request("DELETE", f"/apis/batch/v1/namespaces/{namespace}/jobs", {**now, "propagationPolicy": "Background"})
    plane.request("DELETE", f"/api/v1/namespaces/{namespace}/pods", now)


def left(project):
    """kind/name of whatever a run made and is still there."""
    found = set()
    for group, kinds in OWNED.items():
        for kind in kinds:
            items = project.plane.get(f"{group}/namespaces/{project.namespace}/{kind}?labelSelector={bench.RUN.replace('/', '%2F')}")["items"]
            found |= {f"{kind}/{i['metadata']['name']}" for i in items}
    return found


def loadtest(project, *words, ok=(0, 98)):
    return project.run("loadtest", "-e", "prod", "-o", "json", "--duration", "6s", *words, ok=ok)


def test_a_replica_of_its_own_is_tested_and_leaves_nothing(measured):
    bind_role_of_guide(measured.plane, measured.namespace)
    measured.write(context="least")  # nothing but the guide's Role
    ran = loadtest(measured, "--isolated", "--rate", "20/s")
    assert ran.data["verdict"]["requests"] > 60
    assert (ran.data["verdict"]["failed"], ran.data["environment"]["device"]) == (0, "pool-joined")
    measured.plane.until(lambda: not left(measured), "nothing left")
    assert measured.plane.get(f"/apis/apps/v1/namespaces/{measured.namespace}/deployments")["items"] == []


def test_where_people_are_served_the_name_is_typed(measured):
    path = measured.root / "deploy.yaml"
    path.write_text(path.read_text().replace("    on: kubernetes\n", "    on: kubernetes\n    serves_people: true\n"))
    measured.up()
    assert "code: loadtest-serves-people" in loadtest(measured, ok=(5,)).err
    assert "code: not-confirmed" in loadtest(measured, "--max-rate", "5/s", ok=(2,)).err
    assert "code: not-confirmed" in loadtest(measured, "--max-rate", "5/s", "--confirm", "other", ok=(2,)).err
    ran = loadtest(measured, "--max-rate", "5/s", "--confirm", "sleeper")  # through the Service
    assert 10 < ran.data["verdict"]["requests"] < 60
    assert ran.data["verdict"]["failed"] == 0


@pytest.mark.full
def test_killed_in_the_middle_the_cluster_clears_up_by_itself(measured):
    process = measured.start("loadtest", "-e", "prod", "--isolated", "--rate", "10/s", "--duration", "200s")
    jobs = f"/apis/batch/v1/namespaces/{measured.namespace}/jobs"
    measured.plane.until(lambda: len(measured.plane.get(jobs)["items"]) == 2, "replica and generator", limit_s=90)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert {kind.split("/")[0] for kind in left(measured)} == {"pods", "configmaps", "services", "jobs", "networkpolicies"}
    for job in measured.plane.get(jobs)["items"]:  # the deadline and the time to live that they have already, only sooner
        spec = {"activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 1}
        code, text = measured.plane.request("PATCH", f"{jobs}/{job['metadata']['name']}", {"spec": spec}, content="application/merge-patch+json")
        assert code == 200, text
        assert job["spec"]["activeDeadlineSeconds"] <= 3600
    measured.plane.until(lambda: not left(measured), "nothing left", limit_s=90)


@pytest.mark.full
def test_tune_on_the_cluster_proves_settings_for_its_device(measured):
    before = measured.run("plan", "-e", "prod", "--unverified").out
    assert "p99 unknown on pool-joined" in before
    ran = measured.run("tune", "-e", "prod", "-o", "json", ok=(0,))
    assert ran.data["key"]["device"] == "pool-joined"
    lock = (measured.root / "lock" / "prod.lock").read_text()
    assert json.loads(lock)["tuned"]["evidence"] if lock.startswith("{") else "evidence" in lock
    after = measured.run("plan", "-e", "prod").out
    assert "p99 unknown" not in after
    measured.plane.until(lambda: not left(measured), "nothing left")
