"""How strongly to compress: the strongest step of a method with which calibration rows still pass the gate.

Those rows are not the ones that the variant is judged by afterwards, so the judgement stays independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact


def strongest(
    steps: Sequence[float], build: Callable[[float], tuple[Artifact, str]], settings: Settings, calibration: Calibration
) -> tuple[Artifact, Report]:
    """The variant of the last step that passes, found by halving (a stronger step is taken to be further from the original).

    Where none passes it is the first step's, which the gate will refuse.

    Args:
        steps: from mild to strong.
        build: makes a step's artifact and says in a line what was done.
        settings: takes back what is not used.
        calibration: says whether an artifact passes.
    """
    passing, failing = 0, len(steps)  # steps[:passing] pass, steps[failing:] do not
    kept: tuple[Artifact, str] | None = None
    while passing < failing:
        middle = (passing + failing) // 2
        made = build(steps[middle])
        if calibration.accepts(made[0]):
            passing, kept, unused = middle + 1, made, kept
        else:
            failing, unused = middle, made
        if unused is not None and (kept is None or unused[0].digest != kept[0].digest):
            settings.discard(unused[0])
    artifact, summary = kept or build(steps[0])
    return artifact, Report(summary=summary, calibrated=True)
