"""An environment that commits release, on a real control plane. A few lines stand in for the controller: they apply the last commit's files."""

import os
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gitops"))
from gitops_kit import YAML, project

from deployctl.adapters.git import Git
from deployctl.adapters.kubernetes import Cluster

pytestmark = pytest.mark.kube


@pytest.fixture
def work(plane, namespace, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    for name, value in {"AUTHOR": "Ada", "COMMITTER": "Ada"}.items():
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ada@example.test")
    text = YAML.replace("namespace: team-a", f"context: admin, namespace: {namespace}")
    return project(tmp_path / "project", text)


def sync(work, namespace):
    """What Argo CD or Flux does: server-side apply of the branch, then removal of what it no longer has."""
    cluster = Cluster("admin", kubeconfig=os.environ["KUBECONFIG"])
    files = Git(work.root).files("HEAD", "rendered/prod")
    wanted = [yaml.safe_load(text) for text in files.values()]
    for item in wanted:
        cluster.apply(item, manager="argocd-controller", force=True)
    names = {(i["kind"], i["metadata"]["name"]) for i in wanted}
    for item in cluster.list("v1", "ConfigMap", namespace):
        if "deployctl/writer" in (item["metadata"].get("annotations") or {}) and ("ConfigMap", item["metadata"]["name"]) not in names:
            cluster.delete("v1", "ConfigMap", namespace, item["metadata"]["name"])


def told(work, *words):
    """The command's stdout; exit codes are 0 or 1 (differs)."""
    result = work.run(*words)
    assert result.exception is None, (words, result.exception)
    return result.stdout


def status(work):
    return yaml.safe_load(told(work, "status", "--env", "prod", "-o", "json"))


def serving(work, plane, revision):
    plane.until(lambda: status(work).get("revision_serving") == revision, f"revision {revision} serves")


def bundle_of(plane, namespace):
    pods = plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/echo")["spec"]["template"]
    return pods["metadata"]["annotations"]["deployctl/bundle"]


def test_commits_are_the_record_and_the_cluster_is_only_read(work, plane, namespace):
    work.in_dev(0.01)
    work.promote()
    assert "the controller has made nothing yet" in told(work, "status", "--env", "prod")
    sync(work, namespace)
    serving(work, plane, 1)
    assert told(work, "drift", "--env", "prod") == "echo in prod: runs as its newest release says\n"
    work.in_dev(0.02)
    work.promote()
    behind = told(work, "status", "--env", "prod")
    assert "its controller has not applied revision 2 yet" in " ".join(behind.split())
    sync(work, namespace)
    serving(work, plane, 2)
    assert work.run("scale", "3", "--env", "prod", "--yes").exit_code == 0
    assert plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/echo")["spec"]["replicas"] == 2  # a commit, and nothing else
    sync(work, namespace)
    serving(work, plane, 3)
    assert plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/echo")["status"]["readyReplicas"] == 3
    assert work.run("scale", "--reset", "--env", "prod", "--yes").exit_code == 0
    sync(work, namespace)
    serving(work, plane, 4)
    assert work.error("down", "--env", "prod", "--yes").code == "committed-only"
    assert work.git("status", "--short") == ""
    assert plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/echo")["spec"]["replicas"] == 2


def test_drift_names_a_human_and_leaves_out_the_autoscaler(work, plane, namespace):
    work.in_dev(0.01)
    work.promote()
    sync(work, namespace)
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/echo"
    edit = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo"}, "spec": {"progressDeadlineSeconds": 77}}
    plane.apply(path, edit, manager="kubectl-edit")
    text = told(work, "drift", "--env", "prod")
    assert "spec.progressDeadlineSeconds: 900 -> 77   by kubectl-edit" in text
    sync(work, namespace)
    assert "runs as its newest release says" in told(work, "drift", "--env", "prod")


def test_break_glass_writes_now_says_what_undoes_it_and_prepares_the_commit(work, plane, namespace):
    first = work.in_dev(0.01)
    work.promote()
    sync(work, namespace)
    serving(work, plane, 1)
    second = work.in_dev(0.02)
    work.promote()
    sync(work, namespace)
    serving(work, plane, 2)
    result = work.run("rollback", "--env", "prod", "--live", "--confirm=echo", "--yes", "--reason", "on fire")
    assert result.exit_code == 0, result.exception
    assert "its controller undoes that until the commit below is on main" in " ".join(result.stderr.split())
    assert bundle_of(plane, namespace) == first
    assert plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/echo")["status"]["readyReplicas"] == 2
    assert result.stdout.strip() == work.head()
    # The controller comes before the commit is pushed: the new release is back, as was said.
    work.git("checkout", "-q", "HEAD~1")
    sync(work, namespace)
    assert bundle_of(plane, namespace) == second
    work.git("checkout", "-q", "main")
    sync(work, namespace)
    serving(work, plane, 3)
    assert work.lock("prod").bundle == first


def test_break_glass_takes_over_nothing_of_others(work, plane, namespace):
    work.in_dev(0.01)
    work.promote()
    work.in_dev(0.02)
    work.promote()
    plane.apply(
        f"/api/v1/namespaces/{namespace}/services/echo",
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"}, "spec": {"ports": [{"port": 80}]}},
        manager="somebody",
    )
    before = work.head()
    error = work.error("rollback", "--env", "prod", "--live", "--confirm=echo", "--yes")
    assert error.code == "not-ours"
    assert work.head() == before and work.git("status", "--short") == ""
