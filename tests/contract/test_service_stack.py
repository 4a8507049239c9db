"""The service stack under Pulumi's own mocks: one provider, everything goes through it, and nothing else appears."""

import dataclasses

import pulumi
import pulumi.runtime
import pytest

from deployctl.core import manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.testing import kube
from infra.program import KINDS, service


class Recorder(pulumi.runtime.Mocks):
    """Remembers what was registered; answers with the inputs."""

    def __init__(self):
        self.seen = []

    def new_resource(self, args):
        self.seen.append(args)
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args):
        return {}


def run(inputs, *, adopt=False):
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, project="deployctl", stack="test", preview=False)

    @pulumi.runtime.test
    def program():
        service(inputs, adopt=adopt)

    program()
    return recorder.seen


def resources(seen):
    return [r for r in seen if r.typ.startswith("kubernetes:")]


def inputs(**changes):
    packed = kube.bundle()
    return kube.inputs(packed, kube.plan(packed, cluster={"context": "prod"}, **changes), writer="pulumi")


def test_every_object_is_registered_as_it_would_be_applied():
    given = inputs()
    wanted = {(o["kind"], o["metadata"]["name"]): o for o in manifests.objects(given)}
    found = {(r.inputs["kind"], r.inputs["metadata"]["name"]): r.inputs for r in resources(run(given))}
    waited = {kind for (kind, _), made in found.items() if made["metadata"]["annotations"].pop("pulumi.com/skipAwait", None)}
    managers = {made["metadata"]["annotations"].pop("pulumi.com/patchFieldManager") for made in found.values()}
    assert found == wanted
    assert managers == {"deployctl-pulumi"}  # the same in every run: what a killed one wrote is no stranger's
    assert waited == {"Deployment", "Service"}  # for which Pulumi would wait without telling a cause


def test_every_object_goes_through_the_one_provider_and_nothing_else_is_made():
    seen = run(inputs())
    providers = [r for r in seen if r.typ == "pulumi:providers:kubernetes"]
    assert len(providers) == 1
    assert all(providers[0].name in r.provider for r in resources(seen))
    assert providers[0].inputs["context"] == "prod"
    assert str(providers[0].inputs["enableServerSideApply"]).lower() == "true"
    assert "upsertExistingObjects" not in providers[0].inputs
    assert {r.typ for r in seen if not r.typ.startswith("kubernetes:")} <= {"pulumi:providers:kubernetes", "pulumi:pulumi:Stack"}


def test_what_a_killed_run_made_is_taken_into_the_stack_only_by_who_asked_whose_it_is():
    (provider,) = (r for r in run(inputs(), adopt=True) if r.typ == "pulumi:providers:kubernetes")
    assert str(provider.inputs["upsertExistingObjects"]).lower() == "true"


def test_one_logical_name_is_one_object_for_ever():
    """Else a deletion that a killed run left to do could meet the object that a rollback has just written again."""
    packed = kube.bundle({"model.py": b"two"})
    other = kube.inputs(packed, kube.plan(packed), writer="pulumi")
    objects = [{r.name: (r.inputs["kind"], r.inputs["metadata"]["name"]) for r in resources(run(i))} for i in (inputs(), other)]
    for made in objects:
        assert len(set(made.values())) == len(made)
    both = objects[0].keys() & objects[1].keys()
    assert all(objects[0][name] == objects[1][name] for name in both)
    only = [objects[i].keys() - objects[1 - i].keys() for i in (0, 1)]
    assert [len(names) for names in only] == [1, 1]  # the release's content


def test_custom_resources_keep_their_kind():
    packed = kube.bundle()
    scaling = ScalingPolicy(min_replicas=1, max_replicas=3, target=1.0, signal="pending")
    made = kube.plan(packed, cluster={"autoscaler": "keda", "prometheus": "http://p:9090"}, scaling=scaling)
    found = [r for r in resources(run(kube.inputs(packed, made, writer="pulumi"))) if r.inputs["kind"] == "ScaledObject"]
    assert [r.inputs["spec"]["maxReplicaCount"] for r in found] == [3]


def test_unresolved_inputs_and_foreign_writers_are_refused():
    bare = kube.inputs(None, kube.plan(None, cluster={"image": None}, scaling=ScalingPolicy(min_replicas=1, max_replicas=1)), writer="pulumi")
    for given in (bare, dataclasses.replace(inputs(), writer="gitops")):
        with pytest.raises(Exception, match=r"not known yet|for the writer gitops"):
            run(given)


def test_every_kind_that_manifests_make_has_its_typed_resource():
    packed = kube.bundle()
    made = {(o["apiVersion"], o["kind"]) for o in manifests.objects(kube.inputs(packed))}
    assert made <= set(KINDS)
