"""What a replica's start consists of: the moments that were seen enter, a ColdStart by stage leaves. The total is what was seen.

Triton loads its models and warms them up before it says that it is ready; its log says that it began and ended to load, and it counts the
warm-up's executions like any others. Refuses to know logs and clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployctl.core import words
from deployctl.core.profile import ColdStart
from deployctl.core.serving import ModelSpec


def split(*, fetch_s: float, ready_s: float, loading_s: float | None, warmup_s: float, first_reply_s: float) -> ColdStart:
    """The stages of one start.

    Args:
        fetch_s: until the server's files were there.
        ready_s: from then until it said that it is ready.
        loading_s: the part of that in which models were loaded and warmed up; None where no log tells, and the process then has it all.
        warmup_s: executions of the warm-up (`warmup_s`).
        first_reply_s: from ready to the first right answer.
    """
    within_s = min(loading_s if loading_s is not None else warmup_s, ready_s)
    warm_s = min(warmup_s, within_s)
    return ColdStart(fetch_s=fetch_s, process_s=ready_s - within_s, load_s=within_s - warm_s, warmup_s=warm_s, first_reply_s=first_reply_s)


def stages_text(cold: ColdStart) -> str:
    """`process 2.1 s, fetch 300 ms, load …`."""
    return ", ".join(f"{name} {words.seconds(value)}" for name, value in cold.by_stage.items())


def warmup_s(models: Sequence[ModelSpec], batch_stats: Mapping[str, Mapping[int, tuple[int, float, float, float]]]) -> float:
    """Seconds of the warm-up's executions, from the counters of a server that has answered nothing yet.

    Instances of a model warm up side by side, so their time counts once; models are taken one after the other, which is what they do on one core.
    """
    return sum(sum(sum(seconds) for _, *seconds in batch_stats.get(model.name, {}).values()) / max(model.serving.instances, 1) for model in models)
