"""Fidelity on the back end that will serve: a measured replica answers the sample, and its answers stay within the gate.

The proof of `package` is from this machine's Triton. A GPU's kernels round otherwise, and another back end may optimise otherwise, so what a
cluster's replica answers is compared again before any of its settings are proven.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deployctl.core import agreement
from deployctl.core.bundle import Bundle
from deployctl.core.project import Project
from deployctl.flows import _cache
from deployctl.flows._proof import answered, expected_answers
from deployctl.flows.compress import KINDS, remembered
from deployctl.ports import Progress, Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """How many requests were answered, how many answers had a reference, and the lowest cosine with it (1 where none had)."""

    requests: int
    compared: int
    lowest_cosine: float


def recheck(project: Project, lab: Toolbox, progress: Progress, bundle: Bundle, *, fresh: bool = False) -> Recheck:
    """Ask one replica of the laboratory; what passed before for the same bundle, device and Triton is not asked again.

    Raises:
        SloUnreachable: an answer is outside the gate (`fidelity-gate`, exit 97). ModelError: an output is missing or not finite.
    """
    record = remembered(project, lab) if project.model.kind in KINDS else None
    answers = record.answers.get(bundle.variant, "") if record else ""
    device, version, gate = lab.launcher.device(), lab.launcher.version(), project.compress.gate
    key = {"bundle": bundle.digest, "triton": version, "device": device, "answers": answers, "gate": gate}
    known = None if fresh else _cache.read(Recheck, lab.workspace.cache, "recheck", key)
    if known is not None:
        return known
    progress.step(f"checking the answers on {device}")
    expected = expected_answers(lab, answers)
    got = answered(bundle, lab)
    values = agreement.cosines(got, expected)
    if values.size and not values.min() >= gate:
        raise agreement.outside_gate(float(values.min()), gate, device)
    check = Recheck(requests=len(got), compared=int(values.size), lowest_cosine=float(np.min(values, initial=1.0)))
    _cache.write(lab.workspace.cache, "recheck", key, check)
    told = (
        f"lowest cosine {check.lowest_cosine:.6f} (gate {gate:g})"
        if values.size
        else "nothing to compare with: only that they are numbers was checked"
    )
    progress.note(f"{check.requests} requests answered on {device}; {told}")
    return check
