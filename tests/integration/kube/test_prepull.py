"""The DaemonSet that keeps the image on the pool's nodes: on each of them and on no other, replaced, left alone and removed with the rest."""

import pytest
from kube_rig import GPU_NODES

from deployctl.testing import kube

pytestmark = pytest.mark.kube
OTHER = kube.IMAGE.partition("@")[0] + "@sha256:" + "c3" * 32


def daemon_sets(project):
    return project.plane.get(f"/apis/apps/v1/namespaces/{project.namespace}/daemonsets")["items"]


def on_nodes(project, image):
    """Node -> phase of the pods that hold this image."""
    pods = project.plane.get(f"/api/v1/namespaces/{project.namespace}/pods")["items"]
    held = [p for p in pods if p["spec"]["containers"][0]["name"] == "hold" and p["spec"]["containers"][0]["image"] == image]
    return sorted((p["spec"].get("nodeName"), p["status"]["phase"]) for p in held if "deletionTimestamp" not in p["metadata"])


def test_it_is_on_every_node_of_the_pool_and_follows_the_image(cluster_project, api_proxy):
    project = cluster_project
    project.write(more="    image_prepull: true\n")
    ran = project.up()
    assert "Warning" not in ran.err and "would violate" not in ran.err  # Pod Security `restricted` is enforced and warns
    everywhere = [(f"gpu-{n}", "Running") for n in range(GPU_NODES)]
    project.plane.until(lambda: on_nodes(project, kube.IMAGE) == everywhere, "a pod on each node of the pool")
    assert project.status()["replicas_ready"] == 1  # its pods are no replicas
    assert project.run("drift", "-e", "prod").code == 0
    proxy = api_proxy()
    project.through(proxy.url)
    assert "already serves exactly this" in project.up().err and proxy.writes == []

    project.write(image=OTHER)
    project.up()
    project.plane.until(lambda: on_nodes(project, OTHER) == everywhere and not on_nodes(project, kube.IMAGE), "the new image on each node")
    project.write(more="")
    project.up()
    assert daemon_sets(project) == []
    project.plane.until(lambda: not on_nodes(project, OTHER), "no pod that holds an image")
    project.write(more="    image_prepull: true\n")
    project.up()
    project.run("down", "-e", "prod", "--yes")
    assert daemon_sets(project) == [] and project.objects() == set()
