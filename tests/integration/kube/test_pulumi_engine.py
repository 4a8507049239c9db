"""The real Pulumi engine and Kubernetes provider on the real API server, wherever `pulumi` is on PATH."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pulumi
import pytest
from kube_service import FIXED
from pulumi_kit import engine_or_skip, inputs_of, stack_for, writer

from deployctl.adapters.pulumi import PulumiEngine
from deployctl.cli.main import run
from deployctl.core import manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.errors import Refused
from deployctl.flows._gather import Silent
from deployctl.flows.eject import eject
from deployctl.testing import kube

pytestmark = [pytest.mark.kube, pytest.mark.pulumi_engine]


@pytest.fixture(autouse=True)
def _engine_is_there():
    engine_or_skip()


def test_preview_up_no_change_and_destroy(service, engine):
    _, made, inputs = inputs_of(service)
    stack = stack_for(service, inputs)
    assert engine.outputs(stack) is None
    planned = engine.preview(stack, Silent())
    assert not service.ours()  # nothing was written
    kinds = sorted(s.type.split(":")[-1] for s in planned.steps if s.type.startswith("kubernetes:"))
    assert kinds == sorted(o["kind"] for o in manifests.objects(inputs))
    assert {s.op for s in planned.steps} == {"create"}
    outcome = engine.up(stack, Silent())
    assert outcome.outputs["bundle"] == made.bundle
    assert service.wait(made).ready == 3
    assert engine.up(stack, Silent()).steps == ()
    assert engine.outputs(stack)["service"] == "echo"
    engine.destroy(stack, Silent())
    service.plane.until(lambda: not service.ours(), "end of every object")
    engine.forget(stack)
    assert engine.outputs(stack) is None


def test_a_change_is_shown_before_it_is_made_and_a_new_release_replaces_its_content(service, engine):
    _, first, inputs = inputs_of(service)
    engine.up(stack_for(service, inputs), Silent())
    service.wait(first)
    _, second, other = inputs_of(service, b"two")
    planned = {(s.op, s.type.split(":")[-1]) for s in engine.preview(stack_for(service, other), Silent()).steps}
    assert ("update", "Deployment") in planned
    assert any(kind == "ConfigMap" for _, kind in planned)
    assert service.live("deployments")["spec"]["template"]["metadata"]["annotations"]["deployctl/bundle"] == first.bundle
    engine.up(stack_for(service, other), Silent())
    service.wait(second)
    assert service.live("deployments")["spec"]["template"]["metadata"]["annotations"]["deployctl/bundle"] == second.bundle
    assert len([o for o in service.ours() if o.startswith("configmaps/echo-")]) == 1


def test_the_writer_keeps_the_inventory_and_refuses_other_peoples_objects(service, engine):
    packed, made, _ = inputs_of(service)
    release = service.release(made)
    own = writer(service, engine, packed, made)
    own.apply(release, manifests.objects(kube.inputs(packed, made, writer="pulumi")))
    service.wait(made)
    found = own.inventory()
    assert (found.writer, found.wanted.digest) == ("pulumi", release.digest)
    assert own.drift(manifests.objects(kube.inputs(packed, made, writer="pulumi"))) == []
    with pytest.raises(Refused) as caught:
        service.up(packed, made)  # the writer `apply`
    assert caught.value.code == "other-writer"
    removed = own.remove_all()
    assert {r.kind for r in removed} >= {"Deployment", "Service"}
    own.forget()
    service.plane.until(lambda: not service.ours(), "end of every object")


def test_what_somebody_removed_by_hand_is_made_again_by_the_same_release(service, engine):
    packed, made, _ = inputs_of(service)
    own, objects = writer(service, engine, packed, made), manifests.objects(kube.inputs(packed, made, writer="pulumi"))
    release = service.release(made)
    own.apply(release, objects)
    service.wait(made)
    assert service.plane.request("DELETE", f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo")[0] == 200
    service.plane.until(lambda: service.live("deployments") is None, "end of the Deployment")
    assert [(d.kind, d.wanted) for d in own.drift(objects)] == [("Deployment", "present")]
    own.apply(release, objects)
    assert service.wait(made).ready == 3
    own.remove_all()


def test_a_stack_whose_state_was_lost_takes_its_objects_back(service, engine, tmp_path):
    """Another machine without a shared backend: nothing is made anew, and the next release goes through."""
    packed, made, _ = inputs_of(service)
    writer(service, engine, packed, made).apply(service.release(made), manifests.objects(kube.inputs(packed, made, writer="pulumi")))
    service.wait(made)
    uid = service.live("deployments")["metadata"]["uid"]
    elsewhere = PulumiEngine(tmp_path / "elsewhere", environment={"KUBECONFIG": str(service.plane.kubeconfig)})
    packed, made, inputs = inputs_of(service, b"two", scaling=ScalingPolicy(min_replicas=2, max_replicas=2))
    own = writer(service, elsewhere, packed, made)
    own.apply(service.release(made), manifests.objects(inputs))
    assert service.wait(made).ready == 2
    assert service.live("deployments")["metadata"]["uid"] == uid
    own.remove_all()
    own.forget()
    service.plane.until(lambda: not service.ours(), "end of every object")


def test_what_somebody_changed_by_hand_is_drift(service, engine):
    packed, made, _ = inputs_of(service)
    own, objects = writer(service, engine, packed, made), manifests.objects(kube.inputs(packed, made, writer="pulumi"))
    own.apply(service.release(made), objects)
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo"}, "spec": {"replicas": 5}}
    service.plane.apply(f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo", body, manager="a-human")
    assert [d.path for d in own.drift(objects)] == ["spec.replicas"]
    own.remove_all()


def test_the_number_of_replicas_survives_each_change_of_its_owner(service, engine):
    """Fixed, then a range, then fixed, then another number: nothing resets it to one and nobody refuses it."""
    ranged = ScalingPolicy(min_replicas=2, max_replicas=5, target=12.5, signal="arrivals_rps")
    for scaling, seen in (
        (FIXED, 3),
        (ranged, 3),
        (ScalingPolicy(min_replicas=2, max_replicas=2), 2),
        (ScalingPolicy(min_replicas=4, max_replicas=4), 4),
    ):
        packed, made = service.plan(scaling=scaling)
        made = dataclasses.replace(made, cluster=dataclasses.replace(made.cluster, context="admin"))
        writer(service, engine, packed, made).apply(service.release(made), manifests.objects(kube.inputs(packed, made, writer="pulumi")))
        assert service.live("deployments")["spec"]["replicas"] == seen
        autoscaled = service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2")
        assert (autoscaled is not None) == (scaling is ranged)
    writer(service, engine, packed, made).remove_all()


@pytest.fixture(scope="module")
def own_python(tmp_path_factory):
    """An environment of the user's own: the packages that requirements.txt names, and no deployctl."""
    folder = tmp_path_factory.mktemp("own-python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "shared.pth").write_text(str(Path(pulumi.__file__).parents[1]) + "\n")
    assert subprocess.run([python, "-P", "-c", "import deployctl.core.plan"], capture_output=True, check=False, cwd=folder).returncode != 0
    return python


def plain(python, folder, state, service, *words):
    """Plain `pulumi`, without deployctl; its output."""
    environment = {**os.environ, "PULUMI_BACKEND_URL": state.resolve().as_uri(), "PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_SKIP_UPDATE_CHECK": "1",
                   "KUBECONFIG": str(service.plane.kubeconfig), "PULUMI_PYTHON_CMD": str(python)}  # fmt: skip
    result = subprocess.run(
        ["pulumi", *words, "--non-interactive"], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_an_ejected_folder_is_run_by_plain_pulumi(service, own_python, tmp_path):
    _, made, inputs = inputs_of(service)
    stack, out, state = stack_for(service, inputs), tmp_path / "own", tmp_path / "state"
    state.mkdir()
    eject(stack, "existing", out)
    plain(own_python, out / "infra", state, service, "stack", "init", stack.name)
    plain(own_python, out / "infra", state, service, "up", "--yes", "--stack", stack.name)
    assert service.wait(made).ready == 3
    assert "unchanged" in plain(own_python, out / "infra", state, service, "up", "--yes", "--expect-no-changes", "--stack", stack.name)
    plain(own_python, out / "infra", state, service, "destroy", "--yes", "--stack", stack.name)
    service.plane.until(lambda: not service.ours(), "end of every object")


def cpu_of(run):
    """CPU seconds of all processes that it started, while nobody else's child ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_second_up_beside_plain_pulumi(service, engine, own_python, tmp_path):
    """Nothing changes in either; the line is read by `make bench-kube`, which holds it against its goal."""
    _, made, inputs = inputs_of(service)
    stack, out = stack_for(service, inputs), tmp_path / "own"
    engine.up(stack, Silent())
    service.wait(made)
    eject(stack, "existing", out)
    state = tmp_path / "pulumi" / "state"

    def ours():
        assert engine.up(stack, Silent()).steps == ()

    def theirs():
        words = ("--expect-no-changes", "--config", "deployctl:adopt=true")  # else the provider's own setting changes
        plain(own_python, out / "infra", state, service, "up", "--yes", *words, "--stack", stack.name)

    costs = {"ours_s": [], "plain_s": []}
    for _ in range(5):
        costs["ours_s"].append(cpu_of(ours))
        costs["plain_s"].append(cpu_of(theirs))
    print("PULUMI-NOOP " + json.dumps(costs))
    engine.destroy(stack, Silent())


def test_the_verbs_mean_the_same_with_pulumi_as_the_writer(pulumi_project):
    project = pulumi_project
    assert project.up().out == f"http://sleeper.{project.namespace}.svc:8000\n"
    assert project.status()["health"] == "healthy"
    assert project.run("drift", "-e", "prod").code == 0
    assert "already serves exactly this" in project.up().err
    project.model(0.007)
    project.up()
    assert project.status()["revision_serving"] == 2
    project.write(replicas="..4")
    scaled = project.run("scale", "3", "-e", "prod", "--yes", "-o", "json").data
    assert scaled["replicas_ready"] == 3
    assert "serves what revision 1 served" in project.run("rollback", "-e", "prod", "--yes").out
    assert "stopped" in project.run("down", "-e", "prod", "--yes").out
    assert project.objects() == set()


def test_platform_verbs_on_a_cluster_that_exists(service, tmp_path, monkeypatch, capsys):
    """Nothing is asked for, so nothing but the way to the cluster is in the stack; then an add-on that is."""
    monkeypatch.setenv("KUBECONFIG", str(service.plane.kubeconfig))
    file = tmp_path / "platform.yaml"
    file.write_text("name: shared\ncluster: {context: admin}\npools: {gpu-l4: {device: L4}}\n")

    def ran(*words):
        code = run(["-C", str(tmp_path), "platform", *words])
        seen = capsys.readouterr()
        assert code == 0, seen.err
        return seen

    assert "platform shared (existing): 3 changes" in ran("plan").out
    assert ran("up", "--yes").out == "admin\n"
    assert "platform shared (existing): 0 changes" in ran("up", "--yes").err
    assert "4 of 4 nodes" in ran("status").out
    gone = ran("down", "--confirm", "shared")
    assert "3 resources to remove" in gone.err and gone.out == "shared: 3 resources removed\n"
    assert "nothing was there" in ran("down", "--confirm", "shared").out
