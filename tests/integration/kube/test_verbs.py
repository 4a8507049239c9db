"""The verbs of an environment on Kubernetes through the real command line: plan, up, status, scale, roll back, drift, take down."""

import pytest
from kube_service import bind_role_of_guide

pytestmark = pytest.mark.kube


def test_a_whole_life(cluster_project):
    project = cluster_project
    assert "nothing was released here yet" in project.run("status", "-e", "prod", ok=(6,)).out
    planned = project.run("plan", "-e", "prod", "--unverified").out
    assert "on Kubernetes (pool-gpu-l4, Triton 2.51.0), revision 1" in planned and "p99 unknown on pool-gpu-l4" in planned
    assert project.objects(records=True) == set()

    first = project.up()
    assert first.out == f"http://sleeper.{project.namespace}.svc:8000\n"
    assert "not verified from outside" in first.err  # kwok has no kubelet to forward to; test_verbs_joined.py has
    status = project.status()
    assert (status["health"], status["revision_serving"], status["replicas_ready"]) == ("healthy", 1, 1)
    assert project.run("diff", "-e", "prod").out.startswith("revision 1 -> what up would do: no changes")
    assert project.run("drift", "-e", "prod").out == "sleeper in prod: runs as its newest release says\n"

    project.model(0.007)
    assert project.run("diff", "-e", "prod", ok=(1,)).code == 1
    project.up()
    assert project.status()["revision_serving"] == 2
    project.write(replicas="..4")
    scaled = project.run("scale", "3", "-e", "prod", "--yes", "-o", "json").data
    assert (scaled["revision"], scaled["replicas_ready"]) == (3, 3)
    assert '"max_replicas": 3' in (project.root / "lock" / "prod.lock").read_text()

    back = project.run("rollback", "-e", "prod", "--yes", "--reason", "slower than before")
    assert "revision 4 serves what revision 1 served" in back.out
    assert [action for _, action in project.revisions()] == ["up", "up", "scale", "rollback"]
    refused = project.up(ok=(5,))  # what was left is on hold, for every checkout
    assert "code: release-on-hold" in refused.err
    assert "stopped" in project.run("down", "-e", "prod", "--yes").out
    assert project.objects() == set()
    assert project.status()["health"] == "stopped"
    assert len(project.revisions()) == 4
    assert "nothing was running" in project.run("down", "-e", "prod", "--yes").out


def test_the_second_up_writes_nothing(cluster_project, api_proxy):
    project, proxy = cluster_project, api_proxy()
    project.up()
    project.through(proxy.url)
    assert "already serves exactly this" in project.up().err
    assert proxy.writes == [] and len(proxy.calls) > 5


def test_up_puts_back_what_somebody_deleted_and_nothing_else(cluster_project, api_proxy):
    project, proxy = cluster_project, api_proxy()
    project.write(replicas="1..3")
    project.up()
    project.run("scale", "1..3", "-e", "prod", "--yes")
    released, whole = project.revisions(), project.objects()
    project.through(proxy.url)
    paths = {"services": "/api/v1", "serviceaccounts": "/api/v1", "poddisruptionbudgets": "/apis/policy/v1",
             "horizontalpodautoscalers": "/apis/autoscaling/v2", "networkpolicies": "/apis/networking.k8s.io/v1"}  # fmt: skip
    content = [
        f"configmaps/{name}" for kind, _, name in (o.partition("/") for o in sorted(whole)) if kind == "configmaps" and "deployctl-" not in name
    ]
    assert content
    for item in [*(o for o in sorted(whole) if o.partition("/")[0] in paths), content[0]]:
        kind, _, name = item.partition("/")
        assert project.plane.request("DELETE", f"{paths.get(kind, '/api/v1')}/namespaces/{project.namespace}/{kind}/{name}")[0] == 200
        project.plane.until(lambda i=item: i not in project.objects(), f"{item} is gone")
        proxy.writes.clear()
        said = project.up().err
        assert "putting back what is gone: " in said and f" {name}\n" in said
        written = [path.partition("?")[0].partition(f"/{project.namespace}/")[2] for method, path in proxy.writes if "/leases/" not in path]
        assert sorted({*written, "configmaps/deployctl-sleeper-prod"}) == sorted({item, "configmaps/deployctl-sleeper-prod"})  # and its lease's token
        assert project.objects() == whole and project.revisions() == released
    proxy.writes.clear()
    assert "already serves exactly this" in project.up().err and proxy.writes == []


def test_a_human_edit_is_drift_with_its_author_and_an_autoscaler_is_none(cluster_project):
    project = cluster_project
    project.write(replicas="1..3")
    project.up()
    project.run("scale", "1..3", "-e", "prod", "--yes")
    path = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/sleeper"
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sleeper"}}
    project.plane.apply(path, {**head, "spec": {"replicas": 2}}, manager="kube-controller-manager")
    assert project.run("drift", "-e", "prod").code == 0
    project.plane.apply(path, {**head, "spec": {"revisionHistoryLimit": 9}}, manager="kubectl-edit")
    found = project.run("drift", "-e", "prod", "-o", "json", ok=(1,)).data["differences"]
    assert [(d["path"], d["manager"]) for d in found] == [("spec.revisionHistoryLimit", "kubectl-edit")]
    again = project.up().err
    assert "already serves exactly this" in again and "not as released: 1 field of the live objects" in again


def test_scale_for_a_time_says_who_ends_it(cluster_project):
    project = cluster_project
    project.write(replicas="..3")
    project.up()
    ran = project.run("scale", "2", "--for", "1s", "-e", "prod", "--yes")
    assert "the next `deployctl up`" in ran.err
    over = "has run out and holds in the cluster until the next `deployctl up`"
    project.plane.until(lambda: over in project.run("status", "-e", "prod").out, "the end of the manual scale", step_s=0.5)
    project.up()
    assert project.status()["replicas_wanted"] == 1


def test_an_unresolved_image_is_refused_before_anything_is_recorded(cluster_project):
    project = cluster_project
    text = (project.root / "deploy.yaml").read_text()
    (project.root / "deploy.yaml").write_text("".join(line for line in text.splitlines(keepends=True) if "image:" not in line))
    refused = project.up(ok=(5,))
    assert "not known yet: image" in refused.err and project.objects(records=True) == set()
    from deployctl.testing import kube

    assert project.up("--image", kube.IMAGE).code == 0
    assert kube.IMAGE in (project.root / "lock" / "prod.lock").read_text()


def test_a_machine_without_triton_packages_and_says_so(cluster_project, monkeypatch):
    project = cluster_project
    project.model(0.011)
    import deployctl.adapters.triton.install as install

    def absent(*_):
        raise install.MachineError("Triton is not installed in this Python environment", code="triton-missing", hint="-")

    monkeypatch.setattr(install.Installation, "check", absent)
    monkeypatch.setattr("deployctl.adapters.triton.launcher.TritonLauncher.version", absent)
    ran = project.up()
    assert "not proven on this machine, which has no Triton" in ran.err


def test_the_least_role_of_the_guide_is_enough_for_every_verb(cluster_project, tmp_path):
    """The Role in docs/guides/kubernetes.md, bound to a user without any other right; records and the lease included."""
    project = cluster_project
    bind_role_of_guide(project.plane, project.namespace)
    project.write(context="least", replicas="..3")
    project.up()
    project.model(0.061)
    project.up()
    project.run("scale", "1..2", "-e", "prod", "--yes")
    project.run("drift", "-e", "prod")
    project.run("rollback", "1", "-e", "prod", "--yes")
    empty = tmp_path / "empty"
    empty.mkdir()
    place = ("--context", "least", "-n", project.namespace)
    assert project.run("status", *place, "sleeper", "-o", "json", root=empty).data["health"] == "healthy"
    assert len(project.run("status", "--all", *place, "-o", "json", root=empty).data["services"]) == 1
    project.run("logs", "-e", "prod")
    project.run("down", "-e", "prod", "--yes")
    assert project.objects() == set()


def test_down_waits_for_an_object_that_leaves_late(cluster_project):
    """A Deployment goes after its pods, here also after a finalizer: before that nobody says "stopped", and nothing is left after it."""
    project, plane = cluster_project, cluster_project.plane
    project.up()
    path = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/sleeper"
    merge = "application/merge-patch+json"
    plane.request("PATCH", path, {"metadata": {"finalizers": ["example.test/holds"]}}, content=merge)
    command = project.start("down", "-e", "prod", "--yes")
    held = {"deployments/sleeper", "configmaps/deployctl-sleeper-prod"}  # and the record, which goes last
    plane.until(lambda: "deletionTimestamp" in (meta := plane.get(path)["metadata"]) and len(meta["finalizers"]) == 1, "end of the pods")
    plane.until(lambda: project.objects() == held, "end of everything else")
    assert command.poll() is None
    plane.request("PATCH", path, {"metadata": {"finalizers": None}}, content=merge)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0 and "stopped" in out, (out, err)
    assert project.objects() == set()
