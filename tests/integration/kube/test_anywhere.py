"""Verbs from the cluster's records alone, in an empty folder; and every service of a cluster on one screen."""

import json

import pytest
from kube_project import ClusterProject

pytestmark = pytest.mark.kube


@pytest.fixture
def anywhere(cluster_project, tmp_path):
    """An empty folder, and the words that name the service's place."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*words, ok=(0,)):
        return cluster_project.run(*words, ok=ok, root=folder)

    run.folder, run.place = folder, ("--context", "admin", "-n", cluster_project.namespace)
    return run


def test_status_history_explain_logs_and_rollback_need_no_checkout(cluster_project, anywhere):
    project, place = cluster_project, anywhere.place
    project.up()
    project.model(0.013)
    project.up()
    status = anywhere("status", *place, "sleeper", "-o", "json").data
    assert (status["env"], status["revision_serving"], status["health"]) == ("prod", 2, "healthy")
    assert [r["revision"] for r in anywhere("history", *place, "sleeper", "-o", "json").data["items"]] == [1, 2]
    why = anywhere("explain", *place, "sleeper").out
    assert "sleeper in prod: revision 2 serves" in why and "made by    up" in why and "p99 unknown on pool-gpu-l4" in why
    assert "no log:" in anywhere("logs", *place, "sleeper").out  # kwok's pods have none
    ran = anywhere("rollback", *place, "sleeper", "--yes", "--reason", "pager")
    assert "revision 3 serves what revision 1 served" in ran.out
    assert list(anywhere.folder.iterdir()) == []
    assert "code: release-on-hold" in project.up(ok=(5,)).err  # the checkout that was left out is told
    missing = anywhere("status", *place, "nobody", ok=(6,))
    assert "code: service-not-found" in missing.err and f"status --all -n {project.namespace}" in missing.err
    assert "code: service-not-named" in anywhere("status", *place, ok=(2,)).err


def test_several_environments_are_told_apart_by_env(cluster_project, anywhere, tmp_path):
    cluster_project.up()
    text = (cluster_project.root / "deploy.yaml").read_text().replace("name: sleeper", "name: other").replace("  prod:", "  blue:")
    (cluster_project.root / "deploy.yaml").write_text(text)
    cluster_project.run("up", "-e", "blue", "--yes", "--unverified")
    assert anywhere("status", *anywhere.place, "other", "-o", "json").data["env"] == "blue"
    assert anywhere("status", *anywhere.place, "sleeper", "-e", "prod", "-o", "json").data["env"] == "prod"
    assert anywhere("status", *anywhere.place, "sleeper", "-e", "blue", ok=(6,)).code == 6


def test_status_all_lists_every_service_with_three_lists_however_many(cluster_project, anywhere, api_proxy, packaged, tmp_path, plane):
    project = cluster_project
    project.write(replicas="1..3")
    project.up()
    project.run("scale", "1..3", "-e", "prod", "--yes")
    second = plane.namespace()
    other = ClusterProject(plane, second, tmp_path / "other", packaged)
    other.up()
    other.up("--image", other.values["image"])  # nothing new
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpu"}, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}}
    path = f"/api/v1/namespaces/{second}/resourcequotas/gpu"
    plane.apply(path, quota)
    plane.until(lambda: "used" in plane.get(path).get("status", {}), "a counted quota")
    other.model(0.017)
    refused = other.up("--no-wait")
    assert refused.code == 0
    plane.until(lambda: "degraded" in anywhere("status", "--all", "--context", "admin", ok=None).out, "the quota's refusal", step_s=0.5)

    proxy = api_proxy()
    project.through(proxy.url)
    rows = anywhere("status", "--all", "--context", "admin", "-o", "json", ok=(4,)).data["services"]
    ours = {r["namespace"]: r for r in rows if r["namespace"] in (project.namespace, second)}
    assert (ours[second]["health"], ours[second]["revision"]) == ("degraded", 2) and "exceeded quota" in ours[second]["message"]
    assert (ours[project.namespace]["health"], ours[project.namespace]["bounds"]) == ("healthy", "1..3")
    assert rows[0]["health"] == "degraded"  # worst first
    assert len(proxy.calls) == 3, json.dumps(proxy.calls)
    only = anywhere("status", "--all", *anywhere.place, "-o", "json").data["services"]
    assert [r["namespace"] for r in only] == [project.namespace]
    plane.request("DELETE", f"/api/v1/namespaces/{second}")
