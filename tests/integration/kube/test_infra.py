"""infra/program.py on the real API server: Pulumi's mocks, with each object really applied and the live object given back."""

import json
from pathlib import Path

import pulumi
import pulumi.runtime
import pytest

from deployctl.adapters.kubernetes import Cluster
from deployctl.config.platform import platform_from
from deployctl.config.tree import parse
from deployctl.core import manifests
from deployctl.core.platform import PlatformInputs
from deployctl.errors import Refused
from deployctl.testing import kube
from infra import platform_stack
from infra.program import service as program

pytestmark = pytest.mark.kube


class Applying(pulumi.runtime.Mocks):
    """The engine and the provider, played by server-side apply with Pulumi's name."""

    def __init__(self, api):
        self.api, self.order = api, []

    def new_resource(self, args):
        if not args.typ.startswith("kubernetes:"):
            return f"{args.name}-id", dict(args.inputs)
        live = self.api.apply(dict(args.inputs), manager="pulumi-kubernetes")
        self.order.append(args.inputs["kind"])
        return live["metadata"]["uid"], live

    def call(self, args):
        return {}


def pulumi_up(plane, inputs):
    mocks = Applying(Cluster("admin", kubeconfig=str(plane.kubeconfig)))
    pulumi.runtime.set_mocks(mocks, project="deployctl", stack="test", preview=False)

    @pulumi.runtime.test
    def run():
        program(inputs)

    run()
    return mocks


def test_the_program_brings_the_service_up_with_the_same_objects_as_apply(service):
    packed, made = service.plan()
    inputs = kube.inputs(packed, made, writer="pulumi")
    mocks = pulumi_up(service.plane, inputs)
    assert mocks.order == [o["kind"] for o in manifests.objects(inputs)]  # depends_on keeps the order of application
    assert service.wait(made).ready == 3
    assert service.live("deployments")["metadata"]["annotations"]["deployctl/writer"] == "pulumi"
    # The pods are those that `apply` would make: only the writer's name differs.
    applied = manifests.objects(kube.inputs(packed, made))
    assert [dict(o, metadata=None) for o in applied] == [dict(o, metadata=None) for o in manifests.objects(inputs)]


def test_apply_refuses_what_pulumi_writes(service):
    packed, made = service.plan()
    pulumi_up(service.plane, kube.inputs(packed, made, writer="pulumi"))
    with pytest.raises(Refused) as caught:
        service.up(packed, made)
    assert caught.value.code == "other-writer"
    assert "pulumi" in caught.value.message


def test_a_second_program_with_another_release_rolls_out(service):
    first, plan1 = service.plan(b"one")
    second, plan2 = service.plan(b"two")
    pulumi_up(service.plane, kube.inputs(first, plan1, writer="pulumi"))
    service.wait(plan1)
    pulumi_up(service.plane, kube.inputs(second, plan2, writer="pulumi"))
    service.wait(plan2)
    assert service.live("deployments")["spec"]["template"]["metadata"]["annotations"]["deployctl/bundle"] == second.digest


RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {
    "DaemonSet": "/apis/apps/v1/namespaces/kube-system/daemonsets",
    "ServiceAccount": "/api/v1/namespaces/kube-system/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
}


def whole(value):
    """The mocks' protocol has no integers: 65534 comes as 65534.0, which the real engine's provider writes as a whole number."""
    return json.loads(json.dumps(value), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text))


class DryRun(pulumi.runtime.Mocks):
    """The engine and the provider, played by a strict dry run: the API server checks each object and keeps none."""

    def __init__(self, plane):
        self.plane, self.answers = plane, {}

    def new_resource(self, args):
        if args.typ.startswith("kubernetes:") and args.inputs["kind"] in PATHS:
            code, text = self.plane.request("POST", f"{PATHS[args.inputs['kind']]}?dryRun=All&fieldValidation=Strict", whole(dict(args.inputs)))
            self.answers[args.inputs["kind"]] = (code, text)
        return f"{args.name}-id", {**args.inputs, "endpoint": "https://x.test", "certificateAuthority": {"data": "Q0E="}}

    def call(self, args):
        return {}


def test_what_removes_the_start_up_taint_is_accepted_by_the_api_server(plane):
    head = "name: p\ncloud: eks\nregion: r\nnetwork: {zones: [a, b]}\n"
    spec = platform_from(parse(f"{head}pools: {{gpu-l4: {{instance: g6.xlarge, nodes: ..2}}}}\n".encode(), "platform.yaml"), Path("/nowhere"))
    mocks = DryRun(plane)
    pulumi.runtime.set_mocks(mocks, project="deployctl", stack="test", preview=False)
    pulumi.runtime.test(lambda: platform_stack.platform(PlatformInputs(platform=spec, charts={})))()
    assert set(mocks.answers) == set(PATHS)
    assert {kind: text for kind, (code, text) in mocks.answers.items() if code != 201} == {}
