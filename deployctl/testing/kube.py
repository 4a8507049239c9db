"""A small service on Kubernetes as values, for tests and plug-in authors: no store, no cluster, no project folder."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from deployctl import share
from deployctl.core import manifests
from deployctl.core.artifact import FileRef, TensorSpec
from deployctl.core.bundle import Bundle
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import constant
from deployctl.core.manifests.workload import SCRIPTS
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec, NodePool, Writer
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.core.slo import Objective, Slo

IMAGE = f"registry.example.test/tritonserver@sha256:{'a1' * 32}"


def digest(data: bytes) -> str:
    """`sha256:…` of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def bundle(files: dict[str, bytes] | None = None, *, name: str = "echo", max_batch: int = 8) -> Bundle:
    """A bundle with one Python model; `files` are paths below the model's version folder and their content."""
    content = files or {"model.py": b"# answers what it is asked\n"}
    tensor = TensorSpec(name="INPUT0", dtype="FP32", shape=(4,))
    refs = (FileRef(path=f"{name}/1/{path}", digest=digest(data), size_bytes=len(data)) for path, data in sorted(content.items()))
    return Bundle(
        name=name,
        entry=name,
        variant="identity",
        models=(
            ModelSpec(
                name=name,
                backend="python",
                inputs=(tensor,),
                outputs=(dataclasses.replace(tensor, name="OUTPUT0"),),
                serving=ServingConfig(max_batch=max_batch),
                parameters={},
            ),
        ),
        files=tuple(refs),
        sample=digest(b""),
    )


def plan(packed: Bundle | None, *, cluster: dict[str, Any] | None = None, scaling: ScalingPolicy | None = None, **changes: Any) -> Plan:
    """A plan on one GPU pool: one to four replicas scaled on arrivals; `cluster` and `changes` replace fields."""
    spec = ClusterSpec(namespace="team-a", pool=NodePool(name="gpu-l4", device="L4"), image=IMAGE, store="s3://models/prod")
    fields: dict[str, Any] = {
        "service": "echo",
        "env": "prod",
        "target": "kubernetes",
        "bundle": packed.digest if packed else None,
        "entry": packed.entry if packed else "echo",
        "settings": {},
        "replicas": 2,
        "scaling": scaling or ScalingPolicy(min_replicas=1, max_replicas=4, target=12.5, signal="arrivals_rps"),
        "slo": Slo(objectives=(Objective(metric="latency", max=0.1, percentile=99.0),)),
        "demand": constant(40.0),
        "triton_version": "2.51.0",
        "device": "L4",
        "cluster": dataclasses.replace(spec, **(cluster or {})),
    }
    return Plan(**{**fields, **changes})


def scripts() -> dict[str, str]:
    """The pod's scripts as they are shipped."""
    return {name: share.text(f"kube/{name}") for name in SCRIPTS}


def inputs(packed: Bundle | None = None, made: Plan | None = None, *, writer: Writer = "apply") -> manifests.Inputs:
    """Everything that manifests are a function of; without arguments the default service."""
    chosen = packed or (None if made is not None and made.bundle is None else bundle())
    configs = {m.name: f'name: "{m.name}"\nbackend: "{m.backend}"\n' for m in chosen.models} if chosen else {}
    return manifests.Inputs(plan=made or plan(chosen), bundle=chosen, configs=configs, scripts=scripts(), writer=writer)
