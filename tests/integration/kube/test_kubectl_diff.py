"""What `diff --live` and `drift` say beside the real `kubectl diff` on the same objects: the same objects, the same fields, the same values.

kubectl shows one thing more, `metadata.generation`, which the server counts up by itself. What `up` would remove it does not know.
"""

import dataclasses
import json
import os
import subprocess

import kube_rig
import pytest
import yaml

from deployctl.config import locks

pytestmark = pytest.mark.kube
KEEP = """\
#!/bin/sh
rm -rf "$SEEN"; mkdir "$SEEN"; cp -r "$1" "$SEEN/live"; cp -r "$2" "$SEEN/merged"
diff -r "$1" "$2" >/dev/null
"""


class Kubectl:
    """`kubectl diff --server-side` of what `render` writes, read as values."""

    def __init__(self, project, folder):
        self._project, self._folder = project, folder
        self._program = kube_rig.built() / "kubectl"
        (folder / "keep.sh").write_text(KEEP)
        (folder / "keep.sh").chmod(0o755)

    def differences(self):
        """(exit code, {(kind, name, path, live, wanted)}); an object that is not there has the path "" and no values."""
        out = self._folder / "rendered"
        self._project.run("render", "-e", "prod", "--out", str(out))
        for path in out.glob("*.yaml"):  # the one word in which the two differ: who writes them
            path.write_text(path.read_text().replace("deployctl/writer: gitops", "deployctl/writer: apply"))
        words = ["diff", "--server-side", "--force-conflicts", "--field-manager=deployctl", "-f", out]
        env = {**os.environ, "KUBECONFIG": str(self._project.plane.kubeconfig), "KUBECTL_EXTERNAL_DIFF": str(self._folder / "keep.sh"),
               "SEEN": str(self._folder / "seen")}  # fmt: skip
        done = subprocess.run([self._program, *words], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, self._read()

    def _read(self):
        live, merged = ({p.name: yaml.safe_load(p.read_text()) for p in (self._folder / "seen" / side).iterdir()} for side in ("live", "merged"))
        found = set()
        for name, wanted in merged.items():
            head = (wanted["kind"], wanted["metadata"]["name"])
            if not live.get(name):
                found.add((*head, "", None, None))
                continue
            for item in (live[name], wanted):
                item["metadata"].pop("generation", None)
            found |= {(*head, *leaf) for leaf in leaves(live[name], wanted)}
        return found


def text(value):
    return json.dumps(value, sort_keys=True)


def leaves(live, wanted, path=""):
    """(path, live, wanted) of every leaf that differs, values as text; elements of a list go by their names where they have them."""
    if live == wanted:
        return
    if isinstance(live, dict) and isinstance(wanted, dict):
        for key in {*live, *wanted}:
            yield from leaves(live.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
    elif (
        isinstance(live, list) and isinstance(wanted, list) and all("name" in e for e in (*live, *wanted) if isinstance(e, dict)) and live and wanted
    ):
        before, after = ({e["name"]: e for e in side} for side in (live, wanted))
        for name in {*before, *after}:
            yield from leaves(before.get(name), after.get(name), f"{path}[{name}]")
    else:
        yield path, text(live), text(wanted)


def ours(project, *words):
    """(exit code, the same set) of our own command; and what it would remove."""
    ran = project.run(*words, "-e", "prod", "-o", "json", ok=(0, 1))
    rows = ran.data["differences"]
    gone = {(r["kind"], r["name"]) for r in rows if not r["path"] and r.get("wanted") is None}
    present = {(r["kind"], r["name"], r["path"], *((text(r.get("live")), text(r.get("wanted"))) if r["path"] else (None, None)))
               for r in rows if (r["kind"], r["name"]) not in gone}  # fmt: skip
    return ran.code, present, gone


@pytest.fixture
def kubectl(cluster_project, tmp_path):
    (tmp_path / "kubectl").mkdir()
    return Kubectl(cluster_project, tmp_path / "kubectl")


def test_diff_equals_kubectl_diff_from_nothing_to_nothing_to_do(cluster_project, kubectl):
    project = cluster_project
    code, present, gone = ours(project, "diff", "--live")
    assert (code, present) == kubectl.differences() and code == 1 and gone == set()
    assert len(present) >= 7 and {path for _, _, path, _, _ in present} == {""}
    project.up()
    assert ours(project, "diff", "--live") == (0, set(), set())
    assert kubectl.differences() == (0, set())


def test_diff_equals_kubectl_diff_for_a_new_model_and_beside_an_autoscaler(cluster_project, kubectl):
    project = cluster_project
    project.write(replicas="..4")
    project.up()
    project.run("scale", "2..4", "-e", "prod", "--yes")
    number = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sleeper"}, "spec": {"replicas": 4}}
    project.plane.apply(f"/apis/apps/v1/namespaces/{project.namespace}/deployments/sleeper", number, manager="kube-controller-manager")
    assert ours(project, "diff", "--live") == (0, set(), set()) and kubectl.differences() == (0, set())  # an autoscaler's number is nobody's change

    project.model(0.019)
    assert "code: bundle-not-found" in project.run("diff", "--live", "-e", "prod", ok=(6,)).err
    project.run("package", "--lock", "prod")  # what `render` reads
    project.write(target="0.5")
    code, present, gone = ours(project, "diff", "--live")
    theirs = kubectl.differences()
    assert (code, present - theirs[1], theirs[1] - present) == (theirs[0], set(), set()) and gone == set()
    assert {"Deployment", "ConfigMap", "HorizontalPodAutoscaler"} <= {kind for kind, *_ in present}
    project.up()

    lock = project.root / "lock" / "prod.lock"
    locks.write(lock, dataclasses.replace(locks.read(lock, "prod"), override=None))  # back to a fixed number, which nobody has applied yet
    code, present, gone = ours(project, "diff", "--live")
    assert (code, present) == kubectl.differences() and gone == {("HorizontalPodAutoscaler", "sleeper")}
    assert ("Deployment", "sleeper", "spec.replicas", "4", "1") in present
    project.up()
    assert ours(project, "diff", "--live") == (0, set(), set()) and kubectl.differences() == (0, set())


def test_drift_equals_kubectl_diff_of_the_release_that_should_run(cluster_project, kubectl):
    project, plane = cluster_project, cluster_project.plane
    project.up()
    root = f"/namespaces/{project.namespace}"
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sleeper"}}
    edit = {"revisionHistoryLimit": 9, "template": {"spec": {"containers": [{"name": "triton", "image": "registry.example.test/other:latest"}]}}}
    plane.apply(f"/apis/apps/v1{root}/deployments/sleeper", {**deployment, "spec": edit}, manager="kubectl-edit")
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sleeper", "labels": {"team": "search"}}}
    plane.apply(f"/api/v1{root}/services/sleeper", service, manager="somebody")  # a label beside ours is theirs, and no drift
    policies = plane.get(f"/apis/networking.k8s.io/v1{root}/networkpolicies")["items"]
    assert plane.request("DELETE", f"/apis/networking.k8s.io/v1{root}/networkpolicies/{policies[0]['metadata']['name']}")[0] == 200
    code, present, _ = ours(project, "drift")
    assert (code, present) == kubectl.differences()
    assert {(kind, path) for kind, _, path, _, _ in present} == {
        ("Deployment", "spec.revisionHistoryLimit"),
        ("Deployment", "spec.template.spec.containers[triton].image"),
        ("NetworkPolicy", ""),
    }
