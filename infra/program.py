"""Inputs to Pulumi resources: what plain `pulumi up` runs, one stack a platform and one a service.

What enters is a file that deployctl wrote; what leaves are resource registrations and stack outputs. A service's objects are
those that `render` prints and `apply` writes, each as a typed resource.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from deployctl.core import codec, manifests
from deployctl.core.platform import PlatformInputs
from infra import platform_stack
from infra.components.cluster import reached

# (apiVersion, kind) -> resource class; anything else is a custom resource.
KINDS: dict[tuple[str, str], Any] = {
    ("v1", "ConfigMap"): k8s.core.v1.ConfigMap,
    ("v1", "Service"): k8s.core.v1.Service,
    ("v1", "ServiceAccount"): k8s.core.v1.ServiceAccount,
    ("apps/v1", "DaemonSet"): k8s.apps.v1.DaemonSet,
    ("apps/v1", "Deployment"): k8s.apps.v1.Deployment,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): k8s.autoscaling.v2.HorizontalPodAutoscaler,
    ("networking.k8s.io/v1", "NetworkPolicy"): k8s.networking.v1.NetworkPolicy,
    ("policy/v1", "PodDisruptionBudget"): k8s.policy.v1.PodDisruptionBudget,
}
# Pulumi would wait for these to become ready, up to ten minutes and without a cause: deployctl watches the pods itself.
_WAITED = {"DaemonSet", "Deployment", "Service"}
SKIP_WAIT = {"pulumi.com/skipAwait": "true"}
# One name for every run, where Pulumi would make one up: a run that goes on after a killed one, or with its state lost, then owns
# the fields that the other wrote instead of meeting them as a stranger's.
FIELD_MANAGER = {"pulumi.com/patchFieldManager": "deployctl-pulumi"}
# Keys whose Python name is not theirs in snake case by the SDK's rules stand here; all others are converted.
_SNAKE = {"imagePullSecrets": "image_pull_secrets", "automountServiceAccountToken": "automount_service_account_token"}


def main() -> None:
    """The stack that plain `pulumi up` runs. Nobody has asked then whose an existing object is: only `deployctl:adopt` takes it."""
    config = pulumi.Config("deployctl")
    if file := config.get("platform"):
        from_files(platform=Path(file))
    elif file := config.get("inputs"):
        from_files(inputs=Path(file), adopt=config.get_bool("adopt") or False)
    else:
        raise pulumi.RunError("this stack has no input. Run `pulumi config set deployctl:inputs FILE` (a service) or `deployctl:platform FILE`.")


def from_files(*, platform: Path | None = None, inputs: Path | None = None, adopt: bool = False) -> None:
    """Register what one of the two files describes; `adopt` as in `service`."""
    if platform is not None:
        platform_stack.platform(codec.loads(PlatformInputs, platform.read_text(encoding="utf-8"), where=str(platform)))
    if inputs is not None:
        service(codec.loads(manifests.Inputs, inputs.read_text(encoding="utf-8"), where=str(inputs)), adopt=adopt)


def service(inputs: manifests.Inputs, *, adopt: bool = False) -> list[pulumi.Resource]:
    """Register every object of the service.

    Args:
        inputs: what the objects are a function of; its writer must be `pulumi`, which each object then says.
        adopt: take into the stack what exists and is not in it, such as what a killed run made and could not note. Only for who has
            asked whose each object is.

    Raises:
        RunError: a digest is unresolved, or the inputs were made for another writer.
    """
    missing = manifests.unresolved(inputs.plan)
    if missing:
        raise pulumi.RunError(f"not known yet: {', '.join(missing)}. Run `deployctl package` and render the inputs again.")
    if inputs.writer != "pulumi":
        raise pulumi.RunError(f"these inputs are for the writer {inputs.writer}. Make them with `deployctl render --inputs FILE`.")
    spec = manifests.cluster_of(inputs.plan)
    provider = reached(spec.context, spec.namespace, adopt=adopt)
    made: list[pulumi.Resource] = []
    for item in manifests.objects(inputs):
        # In the order of application: the pods come after all that they need, the autoscaler after what it scales.
        options = pulumi.ResourceOptions(provider=provider, depends_on=made[-1:])
        made.append(_resource(item, options))
    pulumi.export("service", inputs.plan.service)
    pulumi.export("namespace", spec.namespace)
    pulumi.export("bundle", inputs.plan.bundle)
    return made


def _resource(item: dict[str, Any], options: pulumi.ResourceOptions) -> pulumi.Resource:
    # One logical name is one object for ever. If two releases' contents shared one, a run that was killed while one replaced the
    # other would leave the old one marked for deletion, and a rollback would write it again and then delete it.
    logical = f"{item['kind']}-{item['metadata']['name']}".lower()
    kind = KINDS.get((item["apiVersion"], item["kind"]))
    metadata = item["metadata"]
    notes = {**FIELD_MANAGER, **(SKIP_WAIT if item["kind"] in _WAITED else {})}
    item = {**item, "metadata": {**metadata, "annotations": {**metadata["annotations"], **notes}}}
    if kind is None:
        return k8s.apiextensions.CustomResource(
            logical, api_version=item["apiVersion"], kind=item["kind"], metadata=item["metadata"], spec=item["spec"], opts=options
        )
    fields = {_SNAKE.get(k, k): v for k, v in item.items() if k not in ("apiVersion", "kind")}
    resource: pulumi.Resource = kind(logical, opts=options, **fields)
    return resource
