"""One control plane a test session, one namespace a test."""

import os
import sys
from pathlib import Path

import kube_rig
import pytest
from joined_project import JoinedProject
from joined_rig import JoinedRig
from kube_service import Service

# verbs_kit: a project driven by the command line; s3_kit: a store with S3's protocol
sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("local_verbs", "s3"))


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    programs = kube_rig.built()
    if programs is None:
        words = "the control plane is not built: run tests/integration/kube/controlplane/build.sh (13 CPU minutes, once)"
        if "kube" in os.environ.get("DEPLOYCTL_REQUIRE", "").split(","):
            pytest.fail(words)
        pytest.skip(words)
    rig = kube_rig.ControlPlane(tmp_path_factory.mktemp("plane"), programs)
    try:
        yield rig.start()
    finally:
        rig.stop()


@pytest.fixture
def namespace(plane):
    name = plane.namespace()
    yield name
    plane.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def service(plane, namespace):
    return Service(plane, namespace)


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    from kube_project import template

    return template(tmp_path_factory.mktemp("packaged") / "project")


@pytest.fixture
def cluster_project(plane, namespace, packaged, tmp_path):
    from kube_project import ClusterProject

    return ClusterProject(plane, namespace, tmp_path / "project", packaged)


@pytest.fixture
def api_proxy(plane):
    from kube_proxy import ApiProxy

    made = []

    def make(**options):
        made.append(ApiProxy(plane, **options))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture(scope="session")
def account():
    from s3_kit import moto

    with moto() as running:
        yield running


@pytest.fixture
def bucket(account, monkeypatch):
    """A bucket of its own, and the identity that may use it."""
    for name, value in account.identity.items():
        monkeypatch.setenv(name, value)
    return account.bucket()


@pytest.fixture(scope="session")
def joined(plane, tmp_path_factory):
    """Two nodes whose pods are real processes: see joined_rig.py."""
    rig = JoinedRig(plane, tmp_path_factory.mktemp("joined"))
    try:
        yield rig.start()
    finally:
        rig.stop()


@pytest.fixture
def joined_project(joined, namespace, packaged, tmp_path):
    """A project whose releases run on the joined nodes, driven by the command line; blobs come from its own folder."""
    from kube_project import ClusterProject

    project = ClusterProject(joined.plane, namespace, tmp_path / "project", packaged, pool=joined.pool.name)
    project.write(store=joined.serve(project.root / ".deployctl"))
    yield project
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/sleeper"
    joined.plane.request("DELETE", path)
    project.plane.until(lambda: not project.plane.get(f"/apis/apps/v1/namespaces/{namespace}/replicasets")["items"], "no ReplicaSet")
    for pod in project.plane.get(f"/api/v1/namespaces/{namespace}/pods")["items"]:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        project.plane.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}", body)
    project.plane.until(lambda: not joined.workers(namespace), "pods that are gone")


@pytest.fixture
def project(joined, namespace, tmp_path):
    """A project folder whose releases run on those nodes; a test's namespace ends with its pods gone."""
    made = JoinedProject(joined, namespace, tmp_path)
    yield made
    made.end()


@pytest.fixture
def engine(service, tmp_path):
    """The real Pulumi engine on the rig; the test is skipped where there is none."""
    from deployctl.adapters.pulumi import PulumiEngine

    return PulumiEngine(tmp_path / "pulumi", environment={"KUBECONFIG": str(service.plane.kubeconfig)})


@pytest.fixture
def pulumi_project(cluster_project):
    """The project of the verbs' tests, its objects written by Pulumi."""
    project, write = cluster_project, cluster_project.write

    def through_pulumi(**values):
        write(**values)
        with (project.root / "deploy.yaml").open("a") as file:
            file.write("    writer: pulumi\n")

    project.write = through_pulumi
    project.write()
    return project
