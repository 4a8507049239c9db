"""The proof of a bundle: a real Triton loads it and answers its sample as the variant does when it is run directly."""

from __future__ import annotations

import json
from typing import Any

from deployctl import scratch
from deployctl.core import packaging
from deployctl.core.bundle import Bundle, BundleCheck
from deployctl.flows import _cache
from deployctl.ports import Progress, Toolbox

_PROOF_REQUESTS = 16


def prove(bundle: Bundle, answers: str, tools: Toolbox, progress: Progress, *, force: bool = False) -> BundleCheck | None:
    """Load the bundle in a real Triton and compare its answers with those of the variant run directly; None if it cannot run here."""
    foreign = packaging.foreign_backends(bundle.models)
    if foreign:
        progress.warn(f"not proven: this machine's Triton has no backend {', '.join(foreign)}")
        return None
    key = {"bundle": bundle.digest, "triton": tools.launcher.version(), "device": tools.launcher.device(), "answers": answers}
    known = None if force else _cache.read(BundleCheck, tools.workspace.cache, "proof", key)
    if known is not None:
        progress.note(f"bundle {bundle.digest[7:19]} was proven on Triton {known.triton_version}")
        return known
    progress.step(f"proving bundle {bundle.digest[7:19]} in a real Triton")
    from deployctl.core.agreement import compare  # numpy stands behind it; most that import this prove nothing

    expected = expected_answers(tools, answers)
    got = answered(bundle, tools)
    worst = compare(got, expected)
    check = BundleCheck(
        bundle=bundle.digest,
        triton_version=key["triton"],
        device=key["device"],
        requests=len(got),
        compared=min(len(got), len(expected)),
        worst_difference=worst,
    )
    _cache.write(tools.workspace.cache, "proof", key, check)
    progress.note(f"{check.requests} requests answered; {check.compared} compared, largest relative difference {worst:.1e}")
    return check


def answered(bundle: Bundle, tools: Toolbox) -> list[dict[str, Any]]:
    """What a fresh server answers to the first lines of the bundle's sample."""
    lines = _lines(tools, bundle.sample)[:_PROOF_REQUESTS]
    with scratch.folder(tools.workspace.state / "proof") as folder:
        tools.repository.build(bundle, folder / "repository")
        server = tools.launcher.start(folder / "repository")
        try:
            return [server.infer(bundle.entry, line["inputs"]) for line in lines]
        finally:
            server.stop()


def expected_answers(tools: Toolbox, answers: str) -> list[dict[str, Any]]:
    """The variant's own answers, flat lists by output; none where there is no reference."""
    return [line["outputs"] for line in _lines(tools, answers)] if answers else []


def _lines(tools: Toolbox, digest: str) -> list[dict[str, Any]]:
    text = tools.blobs.path(digest).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
