"""The writer `apply` on a real control plane: acceptance, idempotence, roll-out, rollback, ownership, pruning, drift."""

import dataclasses
import json
import ssl
import urllib.request

import pytest
from kube_service import FIXED, Service

from deployctl.adapters.kubernetes import KINDS, ApplyConflict, Cluster
from deployctl.core import kube_names, manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.core.platform import Telemetry
from deployctl.errors import ClusterError, LockHeld, NotFound, ProjectError, Refused
from deployctl.hosts.kubernetes.writer import HANDOVER, Writer
from deployctl.testing import kube

pytestmark = pytest.mark.kube


def test_up_becomes_ready_on_the_gpu_nodes_and_the_second_up_writes_nothing(service):
    packed, made = service.plan()
    release, writes = service.up(packed, made)
    assert writes == len(manifests.objects(kube.inputs(packed, made))) + 2  # and the inventory, before and after
    done = service.wait(made)
    assert (done.ready, done.old) == (3, 0)
    pods = service.plane.get(f"/api/v1/namespaces/{service.namespace}/pods")["items"]
    assert {p["spec"]["nodeName"].partition("-")[0] for p in pods} == {"gpu"}
    assert len({p["spec"]["nodeName"] for p in pods}) == 3  # spread
    before = {o: service.live("deployments")["metadata"]["resourceVersion"] for o in ("deployment",)}
    for _ in range(3):
        assert service.up(packed, made, release)[1] == 0
    assert {o: service.live("deployments")["metadata"]["resourceVersion"] for o in before} == before


@pytest.mark.parametrize(("autoscaled", "watched"), [(False, False), (True, False), (False, True)])
def test_every_object_is_accepted_without_a_warning_under_pod_security_restricted(service, autoscaled, watched):
    import json

    telemetry = Telemetry(dashboard=True, collector=kube.IMAGE, forward="http://tempo.monitoring:4318") if watched else Telemetry()
    scaling = ScalingPolicy(min_replicas=2, max_replicas=5, target=10.0, signal="arrivals_rps", tolerance_ratio=0.05) if autoscaled else FIXED
    packed, made = service.plan(scaling=scaling, cluster={"telemetry": telemetry}, trace_ratio=0.01)
    context = ssl.create_default_context(cafile=service.plane.ca)
    for item in manifests.objects(kube.inputs(packed, made)):
        root = f"/api/{item['apiVersion']}" if "/" not in item["apiVersion"] else f"/apis/{item['apiVersion']}"
        path = f"{root}/namespaces/{service.namespace}/{KINDS[(item['apiVersion'], item['kind'])]}/{item['metadata']['name']}"
        call = urllib.request.Request(
            f"{service.plane.url}{path}?fieldManager=t&fieldValidation=Strict",
            data=json.dumps(item).encode(),
            method="PATCH",
            headers={"Authorization": "Bearer admin-token", "Content-Type": "application/apply-patch+yaml"},
        )
        with urllib.request.urlopen(call, context=context, timeout=20) as answer:
            assert answer.headers.get_all("Warning") is None, item["kind"]
    # The Deployment only warns: what counts is that its pods are admitted.
    service.wait(made)


def test_a_roll_out_replaces_pods_and_a_rollback_brings_the_old_content_back(service):
    first, plan1 = service.plan(b"one")
    service.up(first, plan1)
    service.wait(plan1)
    old_map = service.live("deployments")["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    second, plan2 = service.plan(b"two")
    service.up(second, plan2)
    service.wait(plan2)
    assert service.writer(plan2).inventory().serving == 1
    assert service.live("deployments")["spec"]["template"]["metadata"]["annotations"]["deployctl/bundle"] == second.digest
    # What an old ReplicaSet mounts stays until that ReplicaSet is gone, so that its pods can still start.
    assert service.live("configmaps", old_map, "/api/v1")
    service.up(first, plan1, action="rollback")
    service.wait(plan1)
    deployment = service.live("deployments")
    assert deployment["spec"]["template"]["metadata"]["annotations"]["deployctl/bundle"] == first.digest
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == old_map
    pods = service.plane.get(f"/api/v1/namespaces/{service.namespace}/pods")["items"]
    assert {p["metadata"]["annotations"]["deployctl/bundle"] for p in pods if "deletionTimestamp" not in p["metadata"]} == {first.digest}


def test_config_maps_of_forgotten_releases_are_pruned(service):
    names = []
    for number in range(6):
        packed, made = service.plan(f"v{number}".encode())
        service.up(packed, made)
        service.wait(made)
        names.append(service.live("deployments")["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"])
    kept = {o.partition("/")[2] for o in service.ours() if o.startswith("configmaps/echo-")}
    assert names[-1] in kept
    assert names[0] not in kept
    assert len(kept) <= 4  # the present one and those of the two kept ReplicaSets, one of which may just have left


def test_scale_and_the_hand_over_of_replicas_to_an_autoscaler_and_back(service):
    packed, fixed = service.plan()
    service.up(packed, fixed)
    service.wait(fixed)
    scaled = dataclasses.replace(fixed, scaling=ScalingPolicy(min_replicas=2, max_replicas=6, target=10.0, signal="arrivals_rps"))
    service.up(packed, scaled)
    deployment = service.live("deployments")
    assert deployment["spec"]["replicas"] == 3  # not 1: leaving the field out did not reset it
    assert service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2")["spec"]["maxReplicas"] == 6
    release, _ = service.up(packed, scaled)
    assert service.up(packed, scaled, release)[1] == 0
    # What the autoscaler sets stays through an apply.
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo/scale"
    scale = service.plane.get(path)
    scale["spec"]["replicas"] = 5
    assert service.plane.request("PUT", path + "?fieldManager=kube-controller-manager", scale)[0] == 200
    assert service.up(packed, scaled, release)[1] == 0
    assert service.live("deployments")["spec"]["replicas"] == 5
    back = dataclasses.replace(fixed, scaling=ScalingPolicy(min_replicas=2, max_replicas=2))
    service.up(packed, back)
    assert service.live("deployments")["spec"]["replicas"] == 2
    assert service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2") is None
    assert service.wait(back).ready == 2


def test_a_new_autoscaled_service_starts_with_the_planned_number(service):
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=6, target=10.0, signal="arrivals_rps"), replicas=4)
    service.up(packed, made)
    assert service.live("deployments")["spec"]["replicas"] == 4


def autoscale(service, replicas):
    """Set the number as the autoscaler does, again where the young Deployment's status changed in between."""
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo/scale"

    def put():
        scale = service.plane.get(path)
        scale["spec"]["replicas"] = replicas
        return service.plane.request("PUT", path + "?fieldManager=kube-controller-manager", scale)[0] == 200

    service.plane.until(put, f"{replicas} replicas")


class DiesBeforeTheNumber(Cluster):
    """A cluster whose writer is killed when the workload is there and its number is not."""

    def apply(self, wanted, *, manager=kube_names.MANAGER, **options):
        if manager == HANDOVER:
            raise KeyboardInterrupt
        return super().apply(wanted, manager=manager, **options)


@pytest.mark.parametrize("set_meanwhile", [None, 5], ids=["nobody set one", "the autoscaler set one"])
def test_killed_before_the_first_number_the_same_command_sets_it_and_never_resets_one(service, set_meanwhile):
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=6, target=10.0, signal="arrivals_rps"), replicas=4)
    release, objects = service.release(made), manifests.objects(kube.inputs(packed, made))
    objects.sort(key=lambda item: item["kind"] == "Deployment")  # last: then nothing but the number is left to do
    with pytest.raises(KeyboardInterrupt):
        Writer(DiesBeforeTheNumber("admin", kubeconfig=str(service.plane.kubeconfig)), made).apply(release, objects)
    assert service.live("deployments")["spec"]["replicas"] == 1
    if set_meanwhile:
        autoscale(service, set_meanwhile)
    service.writer(made).apply(release, objects)
    assert service.live("deployments")["spec"]["replicas"] == (set_meanwhile or 4)
    assert service.writer(made).inventory().whole
    assert service.up(packed, made, release)[1] == 0


class SeesALateAutoscaler(Cluster):
    """A cluster whose autoscaler sets its number between the writer's last look at the workload and its own number."""

    def __init__(self, service):
        super().__init__("admin", kubeconfig=str(service.plane.kubeconfig))
        self.service, self.voided = service, 0

    def apply(self, wanted, *, manager=kube_names.MANAGER, **options):
        if manager == HANDOVER and not self.voided:
            self.voided += 1
            autoscale(self.service, 6)
        return super().apply(wanted, manager=manager, **options)


def test_the_first_number_yields_to_an_autoscaler_that_was_faster(service):
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=6, target=10.0, signal="arrivals_rps"), replicas=4)
    api = SeesALateAutoscaler(service)
    Writer(api, made).apply(service.release(made), manifests.objects(kube.inputs(packed, made)))
    assert api.voided == 1 and service.live("deployments")["spec"]["replicas"] == 6


def test_a_persons_edit_is_found_named_and_not_overwritten(service):
    packed, made = service.plan()
    release, _ = service.up(packed, made)
    service.wait(made)
    edit = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo"}, "spec": {"replicas": 7}}
    service.plane.apply(f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo", edit, manager="kubectl-edit")
    found = service.writer(made).drift(manifests.objects(kube.inputs(packed, made)))
    assert [(d.path, d.live, d.wanted, d.manager) for d in found] == [("spec.replicas", 7, 3, "kubectl-edit")]
    with pytest.raises(ApplyConflict) as caught:
        service.up(packed, made, release)
    assert caught.value.exit_code == 5
    assert "kubectl-edit" in caught.value.why
    assert service.live("deployments")["spec"]["replicas"] == 7


def test_drift_names_a_removed_object_and_leaves_out_what_the_autoscaler_owns(service):
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=6, target=10.0, signal="arrivals_rps"))
    service.up(packed, made)
    objects = manifests.objects(kube.inputs(packed, made))
    assert service.writer(made).drift(objects) == []
    service.plane.request("DELETE", f"/apis/policy/v1/namespaces/{service.namespace}/poddisruptionbudgets/echo")
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/echo/scale"
    scale = service.plane.get(path)
    scale["spec"]["replicas"] = 5
    service.plane.request("PUT", path, scale)
    assert [(d.kind, d.wanted) for d in service.writer(made).drift(objects)] == [("PodDisruptionBudget", "present")]


def test_somebody_elses_object_is_never_taken_over(service):
    packed, made = service.plan()
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"}, "spec": {"ports": [{"port": 80}]}}
    service.plane.apply(f"/api/v1/namespaces/{service.namespace}/services/echo", foreign, manager="helm")
    with pytest.raises(Refused) as caught:
        service.up(packed, made)
    assert caught.value.code == "not-ours"
    assert service.ours() == set()  # nothing was written before the refusal
    assert service.live("services", group="/api/v1")["spec"]["ports"][0]["port"] == 80


def test_another_writers_object_is_refused(service):
    packed, made = service.plan()
    api = Cluster("admin", kubeconfig=str(service.plane.kubeconfig))
    for item in manifests.objects(kube.inputs(packed, made, writer="gitops")):
        api.apply(item, manager="argocd")
    with pytest.raises(Refused) as caught:
        service.up(packed, made)
    assert caught.value.code == "other-writer"
    assert "gitops" in caught.value.message


def test_down_leaves_nothing(service):
    packed, made = service.plan()
    service.up(packed, made)
    service.wait(made)
    writer = service.writer(made)
    writer.remove_all()
    service.plane.until(lambda: not service.plane.get(f"/api/v1/namespaces/{service.namespace}/pods")["items"], "end of the pods")
    writer.forget()
    service.plane.until(lambda: not service.ours(), "end of every object")
    assert service.writer(made).inventory() is None


def test_two_services_in_one_namespace_do_not_touch_each_other(service):
    packed, made = service.plan()
    other = dataclasses.replace(made, service="other")
    service.up(packed, made)
    service.up(packed, other)
    service.writer(other).remove_all()
    service.writer(other).forget()
    assert service.up(packed, made, service.release(made))[1] == 1  # the inventory alone: the new revision's number
    assert service.live("deployments")["metadata"]["annotations"][kube_names.OWNER] == "echo/prod"


def test_a_killed_apply_is_finished_by_the_same_command_without_orphans(service):
    packed, made = service.plan(scaling=ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="arrivals_rps"))
    objects = manifests.objects(kube.inputs(packed, made))
    release = service.release(made)

    class Killed(Exception):
        pass

    class Dying(Cluster):
        left = 0

        def apply(self, *words, **options):
            if not options.get("dry_run"):
                if self.left == 0:
                    raise Killed
                self.left -= 1
            return super().apply(*words, **options)

    for writes in range(len(objects) + 2):
        api = Dying("admin", kubeconfig=str(service.plane.kubeconfig))
        api.left = writes
        try:
            Writer(api, made).apply(release, objects)
            break
        except Killed:
            # Whatever exists is on record: a `down` now would find it.
            inventory = service.writer(made).inventory()
            on_record = {r.name for r in inventory.refs} if inventory else set()
            assert {o.partition("/")[2] for o in service.ours() if not o.startswith(("replicasets", "configmaps/deployctl"))} <= on_record
    assert service.up(packed, made, release)[1] == 0
    service.wait(made)


@pytest.mark.parametrize(("context", "code", "exit_code"), [("nobody", "context-unknown", 2), ("least", "cluster-forbidden", 3)])
def test_errors_of_access(service, context, code, exit_code):
    packed, made = service.plan()
    with pytest.raises((ProjectError, ClusterError)) as caught:
        Service(service.plane, service.namespace, context).up(packed, made)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)


def test_an_unreachable_api_server_is_exit_11_and_a_missing_crd_is_not_found(service, tmp_path):
    packed, made = service.plan()
    config = json.loads(service.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path = tmp_path / "dead.json"
    path.write_text(json.dumps(config))
    api = Cluster("admin", kubeconfig=str(path), sleep=lambda _: None)
    with pytest.raises(ClusterError) as caught:
        Writer(api, made).apply(service.release(made), [])
    assert (caught.value.code, caught.value.exit_code) == ("cluster-unreachable", 11)
    keda = dataclasses.replace(
        made,
        scaling=ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="arrivals_rps"),
        cluster=dataclasses.replace(made.cluster, autoscaler="keda", prometheus="http://p:9090"),
    )
    with pytest.raises(NotFound):
        service.up(packed, keda)


@pytest.mark.parametrize("at", [0, 1, 3, 7, 8])
def test_of_two_applies_at_once_the_later_one_wins_and_the_other_is_told_whose(service, at):
    """The second apply runs whole in the middle of the first, after its `at`-th write."""
    first, plan1 = service.plan(b"one")
    second, plan2 = service.plan(b"two", scaling=ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="arrivals_rps"))
    mine = dataclasses.replace(service.release(plan1), by="ada@desk (pid 1)")
    theirs = dataclasses.replace(service.release(plan2), by="bob@desk (pid 2)")

    class Interrupted(Cluster):
        left = at

        def _between(self):
            self.left -= 1
            if self.left == -1:
                service.up(second, plan2, theirs)

        def create(self, wanted):
            self._between()
            return super().create(wanted)

        def apply(self, wanted, **options):
            if not options.get("dry_run"):
                self._between()
            return super().apply(wanted, **options)

    with pytest.raises(LockHeld) as caught:
        Writer(Interrupted("admin", kubeconfig=str(service.plane.kubeconfig)), plan1).apply(mine, manifests.objects(kube.inputs(first, plan1)))
    assert (caught.value.code, caught.value.exit_code) == ("apply-lost-race", 12)
    assert "bob@desk" in caught.value.message
    # The later one repeats its command: whatever the first wrote in between is put right, and nothing is left unknown.
    service.up(second, plan2, theirs)
    assert service.up(second, plan2, theirs)[1] == 0
    service.wait(plan2)
    on_record = {r.name for r in service.writer(plan2).inventory().refs}
    assert {o.partition("/")[2] for o in service.ours() if not o.startswith(("replicasets", "configmaps/deployctl"))} <= on_record
