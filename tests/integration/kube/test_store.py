"""The shared store beside a cluster: pods start from what `up` published, records are copied there, and each side is rebuilt from the other.

The store is moto's server; API server and controllers are real, and the pods are real Triton processes on the joined nodes.
"""

import json
import shutil

import kube_rig
import pytest
from kube_project import ClusterProject

from deployctl.core import kube_records, store

pytestmark = [pytest.mark.kube, pytest.mark.timeout(280)]


def on(bucket):
    """The lines of an environment whose store is that bucket."""
    return {"store": bucket.address, "more": f"    store_endpoint: {bucket.endpoint}\n    store_region: eu-west-1\n"}


@pytest.fixture
def shared(cluster_project, bucket):
    """A project on fake nodes over the bucket."""
    cluster_project.write(**on(bucket))
    return cluster_project


def copies(bucket):
    """Revision numbers in the store."""
    return sorted(int(k.rsplit("/", 1)[1].partition(".")[0]) for k in bucket.keys("releases/sleeper/prod/") if "head" not in k)


def recorded(project):
    """Names of the ConfigMaps that are records."""
    path = f"/api/v1/namespaces/{project.namespace}/configmaps?labelSelector=app.kubernetes.io/component%3D{kube_records.RELEASE}"
    return sorted(item["metadata"]["name"] for item in project.plane.get(path)["items"])


def forget(project, *, keep=()):
    """The records are lost from the cluster, as with a namespace that was made anew."""
    for name in recorded(project):
        if name not in keep:
            assert project.plane.request("DELETE", f"/api/v1/namespaces/{project.namespace}/configmaps/{name}")[0] == 200


def test_pods_start_from_what_up_published_and_a_rollback_without_a_checkout_is_copied(joined, joined_project, bucket, account, tmp_path):
    project = joined_project
    joined.environment.update(account.identity)  # what a cloud's identity webhook gives a container
    try:
        project.write(**on(bucket))
        first = project.up("--timeout", "3min")
        assert "3 requests of the sample answered; revision 1 serves" in first.err, first.err
        digest = project.run("history", "-e", "prod", "-o", "json").data["items"][0]["bundle"]
        assert store.bundle_key(digest) in bucket.keys("bundles/") and copies(bucket) == [1]
        project.model(0.009)
        project.up("--timeout", "3min")
        assert copies(bucket) == [1, 2]
        empty = tmp_path / "empty"
        empty.mkdir()
        back = project.run("rollback", "--context", "admin", "-n", project.namespace, "sleeper", "--yes", "--timeout", "3min", root=empty)
        assert "revision 3 serves what revision 1 served" in back.out and "durable copy" not in back.err
        assert copies(bucket) == [1, 2, 3]
        assert len(json.loads(bucket.read(f"{store.releases_prefix('sleeper', 'prod')}head.json"))["held"]) == 1
    finally:
        for name in account.identity:
            joined.environment.pop(name)


def test_records_that_a_cluster_lost_come_back_from_the_store_and_the_reverse(shared, bucket):
    project = shared
    project.up()
    project.model(0.012)
    project.up()
    project.run("rollback", "-e", "prod", "--yes")
    before, held = project.revisions(), [r for r in project.run("history", "-e", "prod", "-o", "json").data["items"] if r["held"]]
    names = recorded(project)
    assert len(before) == 3 and held and copies(bucket) == [1, 2, 3]

    forget(project)
    assert recorded(project) == []
    lock = (project.root / "lock/prod.lock").read_bytes()
    (project.root / "lock/prod.lock").unlink()
    told = project.run("recover", "-e", "prod", "-o", "json").data
    assert [(r["revision"], r["source"], r["bundle_whole"]) for r in told["releases"]] == [(n, "store", True) for n in (1, 2, 3)]
    assert told["lock_written"] and (project.root / "lock/prod.lock").read_bytes() == lock
    assert recorded(project) == names and project.revisions() == before
    assert [r for r in project.run("history", "-e", "prod", "-o", "json").data["items"] if r["held"]] == held
    assert (project.status()["health"], project.status()["revision_serving"]) == ("healthy", 3)
    assert project.run("drift", "-e", "prod").code == 0

    bucket.client.delete_object(Bucket=bucket.name, Key=f"team/x/{store.release_key('sleeper', 'prod', 2)}")
    told = project.run("recover", "-e", "prod", "-o", "json").data
    assert (told["repaired"], told["lost"]) == (1, []) and copies(bucket) == [1, 2, 3]


def test_a_store_that_is_away_stops_no_change_and_is_caught_up(shared, bucket, account):
    project = shared
    project.up()
    project.write(replicas="..3", more=f"    store_endpoint: {_nowhere()}\n    store_region: eu-west-1\n")
    scaled = project.run("scale", "2", "-e", "prod", "--yes")
    assert "the durable copy of the release records is behind" in " ".join(scaled.err.split())
    assert project.status()["replicas_ready"] == 2 and copies(bucket) == [1]
    project.write(**on(bucket))
    project.run("scale", "3", "-e", "prod", "--yes")
    assert copies(bucket) == [1, 2, 3]


def _nowhere():
    return f"http://127.0.0.1:{kube_rig.free_ports(1)[0]}"


def test_what_was_published_in_ci_goes_up_by_digest_where_nothing_was_packaged(shared, bucket, packaged, tmp_path, plane):
    ci = shared
    digest = json.loads(ci.run("package", "--push", "--lock", "prod", "--format", "json").out)["digest"]
    there = ClusterProject(plane, ci.namespace, tmp_path / "there", ci.root, **on(bucket))
    shutil.rmtree(there.root / ".deployctl")
    refused = there.up("--release", "sha256:" + "0" * 64, ok=None)
    assert refused.code == 6 and "code: bundle-not-found" in refused.err
    there.up("--release", digest)
    assert there.status()["revision_serving"] == 1 and copies(bucket) == [1]
