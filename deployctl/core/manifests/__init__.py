"""Plan to Kubernetes objects: the same list for `render`, `apply` and Pulumi, pure and byte-identical when serialised.

What enters is a plan, the bundle that its digest names, the configuration texts and the pod's scripts; what leaves are
plain dicts in the order in which they should be applied. No object of ours runs in the cluster: only standard ones.
Refuses to know how they are written, by whom, and whether the cluster takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deployctl.core import kube_names
from deployctl.core.bundle import Bundle
from deployctl.core.manifests import autoscaling, observe, policy, prepull, workload
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec, Writer
from deployctl.core.serving import ServingConfig
from deployctl.errors import Bug, Refused

Manifest = dict[str, Any]
ConfigText = Callable[[Bundle, str, ServingConfig], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that the objects of one service are a function of.

    Attributes:
        plan: with `cluster` set.
        bundle: the one that `plan.bundle` names; None while that is unresolved.
        configs: model name -> config.pbtxt text under the plan's settings, one for every model of the bundle.
        scripts: file name -> text of what runs in the pod (`deployctl/templates/kube`).
        writer: who will write the objects; recorded on each.
    """

    plan: Plan
    bundle: Bundle | None = None
    configs: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str]
    writer: Writer = "apply"


def gather(plan: Plan, bundle: Bundle | None, config_text: ConfigText, scripts: dict[str, str], writer: Writer) -> Inputs:
    """Inputs of a plan; `config_text(bundle, model, serving)` writes one model's config.pbtxt for the real backends."""
    configs = configs_of(plan, bundle, config_text) if bundle else {}
    return Inputs(plan=plan, bundle=bundle, configs=configs, scripts=scripts, writer=writer)


def configs_of(plan: Plan, bundle: Bundle, config_text: ConfigText) -> dict[str, str]:
    """Model name -> config.pbtxt text under the plan's settings."""
    return {name: config_text(bundle, name, serving) for name, serving in settings_of(plan, bundle).items()}


def settings_of(plan: Plan, bundle: Bundle) -> dict[str, ServingConfig]:
    """Settings of every model: the plan's where it may be tuned, else the packaged ones; an ensemble's batch is its narrowest step's."""
    chosen = {m.name: plan.settings.get(m.name, m.serving) if m.tunable else m.serving for m in bundle.models}
    for spec in bundle.models:
        if spec.ensemble_steps and spec.serving.max_batch:
            chosen[spec.name] = ServingConfig(max_batch=min(chosen[s.model].max_batch for s in spec.ensemble_steps), warmup_batches=())
    return chosen


def cluster_of(plan: Plan) -> ClusterSpec:
    """The plan's cluster; a plan for another target has none and cannot be rendered."""
    if plan.cluster is None:
        raise Refused(
            f"the environment {plan.env} does not run on Kubernetes",
            hint="name an environment with `on: kubernetes` in deploy.yaml",
            code="not-kubernetes",
        )
    return plan.cluster


def unresolved(plan: Plan) -> list[str]:
    """What the plan does not know yet, in words: objects are rendered marked, and must not be applied."""
    cluster = cluster_of(plan)
    known = {"bundle": plan.bundle, "image": cluster.image, "store": cluster.store}
    return [name for name, value in known.items() if not value]


def require_resolved(plan: Plan) -> None:
    """Refuse a plan that does not pin everything by digest (`unresolved`)."""
    missing = unresolved(plan)
    if missing:
        say = {"bundle": "deployctl package", "image": "name `image: NAME@sha256:…`", "store": "name `store: s3://…`"}
        raise Refused(
            f"not known yet: {', '.join(missing)}",
            why="nothing runs whose content is not pinned by digest",
            hint=f"{', then '.join(say[m] for m in missing)} in {plan.env} of deploy.yaml" if missing != ["bundle"] else say["bundle"],
            code="unresolved",
        )


def objects(inputs: Inputs) -> list[Manifest]:
    """Every object of the service, in the order of application.

    Raises:
        Refused: the plan asks for what cannot be kept (scale to zero, a Triton older than the bundle needs, KEDA without a
            Prometheus, a manifest too big for a ConfigMap).
        Bug: the bundle or a configuration text is not the one that the plan names.
    """
    plan, cluster = inputs.plan, cluster_of(inputs.plan)
    _check(inputs)
    record = workload.config_map(inputs.plan, inputs.bundle, inputs.configs, inputs.scripts, cluster)
    found = [
        workload.service_account(plan, cluster),
        record,
        *policy.network_policies(plan, cluster),
        *policy.services(plan),
        *prepull.objects(plan, cluster),
        workload.deployment(plan, inputs.bundle, cluster, record["metadata"]["name"]),
        policy.disruption_budget(plan),
        *autoscaling.autoscaler(plan, cluster),
        *observe.objects(plan, cluster),
    ]
    return [finished(item, inputs) for item in found]


def _check(inputs: Inputs) -> None:
    plan, bundle = inputs.plan, inputs.bundle
    if (bundle.digest if bundle else None) != plan.bundle:
        raise Bug("the bundle is not the one that the plan names", hint="report this with the plan", why=f"plan: {plan.bundle}")
    missing = sorted({m.name for m in bundle.models} - set(inputs.configs)) if bundle else []
    if missing:
        raise Bug(f"no configuration text for {', '.join(missing)}", hint="report this with the plan")
    lacking = sorted(set(workload.SCRIPTS) - set(inputs.scripts))
    if lacking:
        raise Bug(f"the pod's scripts {', '.join(lacking)} are missing", hint="install deployctl again", code="share-missing")
    if bundle and _numbers(plan.triton_version) < _numbers(bundle.triton_min):
        raise Refused(
            f"Triton {plan.triton_version} is older than {bundle.triton_min}, which this bundle needs",
            hint="name a newer Triton image in the environment",
            code="triton-too-old",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def finished(item: Manifest, inputs: Inputs) -> Manifest:
    """Namespace, labels and ownership, the same on every object."""
    plan, cluster = inputs.plan, cluster_of(inputs.plan)
    meta = item["metadata"]
    notes = {kube_names.OWNER: kube_names.owner(plan), kube_names.WRITER: inputs.writer, **meta.get("annotations", {})}
    open_ends = unresolved(plan)
    if open_ends:
        notes[kube_names.UNRESOLVED] = ",".join(open_ends)
    metadata = {
        "name": meta["name"],
        "namespace": cluster.namespace,
        "labels": {**kube_names.labels(plan), **meta.get("labels", {})},
        "annotations": dict(sorted(notes.items())),
    }
    rest = {k: v for k, v in item.items() if k not in ("apiVersion", "kind", "metadata")}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, **rest}
