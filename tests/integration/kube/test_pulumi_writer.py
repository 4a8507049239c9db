"""The writer `pulumi` on the real API server with the engine played by its mocks: what it does with objects that the stack's state does not know.

The program runs under Pulumi's official mocks; what it registers is then really applied, noted in a state, and what the state has
and the program has not is deleted, as the engine does. `dies_at` ends a run between an object and its note.
With the real engine: test_pulumi_interrupted.py.
"""

import json

import pulumi
import pulumi.runtime
import pytest
from kube_service import FIXED

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import codec, kube_inventory, manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.core.stack import StackOutcome
from deployctl.errors import Refused
from deployctl.hosts.kubernetes.pulumi_writer import PulumiWriter
from deployctl.testing import kube
from infra.program import service as program

pytestmark = pytest.mark.kube
RANGED = ScalingPolicy(min_replicas=2, max_replicas=5, target=12.5, signal="arrivals_rps")
MANAGER = "pulumi.com/patchFieldManager"


class Killed(BaseException):
    """kill -9 between an object and its note: nothing catches it."""


class Registered(pulumi.runtime.Mocks):
    def __init__(self):
        self.objects = []

    def new_resource(self, args):
        if args.typ.startswith("kubernetes:"):
            # The mocks' protocol has no whole numbers; the real engine's provider writes 65534.0 as one.
            self.objects.append(
                json.loads(json.dumps(dict(args.inputs)), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text))
            )
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args):
        return {}


class MockedEngine:
    """A StackEngine whose state is a set of references."""

    def __init__(self, plane):
        self.api = Cluster("admin", kubeconfig=str(plane.kubeconfig))
        self.state, self.dies_at, self.looks = set(), None, []

    def preview(self, stack, progress, *, removal=False):
        return StackOutcome(steps=())

    def up(self, stack, progress, *, look=False):
        self.looks.append(look)
        registered = Registered()
        pulumi.runtime.set_mocks(registered, project="deployctl", stack="test", preview=False)
        inputs = codec.loads(manifests.Inputs, stack.document)
        pulumi.runtime.test(lambda: program(inputs, adopt=True))()
        wanted, namespace = set(), registered.objects[0]["metadata"]["namespace"]
        if look:
            self.state = {ref for ref in self.state if self.api.get(ref.api, ref.kind, namespace, ref.name)}
        for number, item in enumerate(registered.objects):
            ref = kube_inventory.ref(item)
            wanted.add(ref)
            self.api.apply(item, manager=item["metadata"]["annotations"][MANAGER])
            if self.dies_at == number:
                raise Killed
            self.state.add(ref)
        for ref in self.state - wanted:
            self.api.delete(ref.api, ref.kind, namespace, ref.name)
        self.state = wanted
        self.namespace = namespace
        return StackOutcome(steps=())

    def destroy(self, stack, progress):
        for ref in self.state:
            self.api.delete(ref.api, ref.kind, self.namespace, ref.name)
        self.state = set()
        return StackOutcome(steps=())

    def outputs(self, stack):
        return None

    def forget(self, stack):
        self.state = set()


@pytest.fixture
def engine(plane):
    return MockedEngine(plane)


def writing(service, engine, text=b"one", scaling=FIXED):
    """A writer, the release that it is to write, and its objects."""
    packed, made = service.plan(text, scaling=scaling)

    def inputs(plan):
        return kube.inputs(packed, plan, writer="pulumi")

    own = PulumiWriter(Cluster("admin", kubeconfig=str(service.plane.kubeconfig)), made, engine=engine, inputs=inputs)
    return own, service.release(made), manifests.objects(inputs(made))


def names(objects):
    return {o["metadata"]["name"] for o in objects}


def test_killed_after_each_object_the_same_command_takes_it_over(service, engine):
    own, release, objects = writing(service, engine, scaling=RANGED)
    for number in range(len(objects)):
        engine.dies_at = number
        with pytest.raises(Killed):
            own.apply(release, objects)
        there = {o.partition("/")[2] for o in service.ours() if not o.startswith("replicasets/")}
        assert names(objects[: number + 1]) <= there <= {r.name for r in own.inventory().refs} | {"deployctl-echo-prod"}
    engine.dies_at = None
    own.apply(release, objects)
    assert engine.looks == [True] * (len(objects) + 1)  # each run knew that the one before it may have died
    assert service.wait(release.plan).ready == 2
    assert own.drift(objects) == []
    engine.looks.clear()
    own.apply(release, objects)
    assert engine.looks == [False]  # a run that ended is believed


def test_the_next_release_goes_through_after_a_kill_with_the_state_lost(service, engine):
    """Nobody's field is in its way: both runs write under one name."""
    own, release, before = writing(service, engine, scaling=RANGED)
    own.apply(release, before)
    engine.state = set()
    own, second, objects = writing(service, engine, b"two")
    own.apply(second, objects)
    assert service.wait(second.plan).ready == 3
    assert service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2") is None
    (content,) = (o["metadata"]["name"] for o in before if o["kind"] == "ConfigMap")  # an old ReplicaSet may start pods from it
    left = {o.partition("/")[2] for o in service.ours() if not o.startswith("replicasets/")}
    assert left == names(objects) | {content, "deployctl-echo-prod"}
    assert {r.name for r in own.inventory().refs} == names(objects) | {content}


def test_a_service_that_is_taken_down_after_a_kill_leaves_nothing(service, engine):
    own, release, objects = writing(service, engine)
    engine.dies_at = len(objects) - 1
    with pytest.raises(Killed):
        own.apply(release, objects)
    engine.state = set()
    assert {r.name for r in own.remove_all()} | {"echo"} == names(objects)  # the Deployment ends when its pods have ended
    own.forget()
    service.plane.until(lambda: not service.ours(), "end of every object")


@pytest.mark.parametrize("owner", [None, "other/prod"])
def test_an_object_of_somebody_else_is_never_taken_over(service, engine, owner):
    own, release, objects = writing(service, engine)
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "echo", "annotations": {"deployctl/owner": owner} if owner else {}}}
    assert service.plane.request("POST", f"/api/v1/namespaces/{service.namespace}/serviceaccounts", body)[0] == 201
    with pytest.raises(Refused) as caught:
        own.apply(release, objects)
    assert caught.value.code == "not-ours"
    assert (engine.looks, own.inventory()) == ([], None)  # nothing was asked of the engine, nothing was recorded
    del body["metadata"]["annotations"]
    assert service.plane.request("DELETE", f"/api/v1/namespaces/{service.namespace}/serviceaccounts/echo")[0] == 200
    own.apply(release, objects)
    assert service.wait(release.plan).ready == 3


def test_what_was_removed_behind_the_stacks_back_is_looked_for(service, engine):
    own, release, objects = writing(service, engine)
    own.apply(release, objects)
    service.plane.request("DELETE", f"/api/v1/namespaces/{service.namespace}/serviceaccounts/echo")
    engine.looks.clear()
    own.apply(release, objects)
    assert engine.looks == [True]
    own, second, objects = writing(service, engine, b"two")
    engine.looks.clear()
    own.apply(second, objects)
    assert engine.looks == [False]  # new content is not there yet, and nothing is wrong with that
