"""Small profiles that several tests share."""

from __future__ import annotations

from deployctl.core.profile import ServicePoint, ServiceProfile, StageProfile


def stage(model="m", *, base_s=0.004, item_s=0.001, sizes=(1,), batches=(1, 2, 4, 8), cv=0.0, **more):
    points = tuple(
        ServicePoint(batch=b, size=s, mean_s=(base_s + item_s * b) * s / sizes[0], std_s=cv * (base_s + item_s * b) * s / sizes[0], count=50)
        for s in sizes
        for b in batches
    )
    return StageProfile(model=model, points=points, **more)


def profile(*stages, **more):
    facts = {"overhead_s": 0.0, "device": "cpu-2c", "bundle": "sha256:0", "triton_version": "2.51.0"} | more
    return ServiceProfile(stages=stages, **facts)
