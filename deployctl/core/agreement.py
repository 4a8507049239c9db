"""Whether a server answers as the variant does when it is run directly: what enters are two lists of answers.

Refuses to know who gave them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deployctl.core.fidelity import FloatArray, cosine
from deployctl.errors import ModelError, SloUnreachable

# The same graph in the same runtime gives the same numbers; another build of it may round differently, never this much.
TOLERANCE_RATIO = 1e-3


def compare(got: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> float:
    """The largest relative difference over all answers that have a reference.

    The difference of one output is max|got - expected| / max(max|expected|, 1e-6).

    Raises:
        ModelError: an output is missing, has another length, is not finite, or differs by more than 1e-3 (`proof-differs`).
    """
    worst = 0.0
    for number, answer in enumerate(got, start=1):
        reference = expected[number - 1] if number <= len(expected) else {}
        for name, value in answer.items():
            if not _finite(value):
                raise _differs(f"output {name} of request {number} is not finite", "the model divides by zero or overflows on this input")
        for name, value in reference.items():
            worst = max(worst, _difference(answer, name, value, number))
    return worst


def cosines(got: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> FloatArray:
    """Cosine of each answer that has a reference with it, all outputs of one answer as one vector, (m,).

    Raises:
        ModelError: an output is missing, has another length, or is not finite (`proof-differs`).
    """
    compare(got, ())
    found = []
    for number, (answer, reference) in enumerate(zip(got, expected, strict=False), start=1):
        pairs = [_pair(answer, name, value, number) for name, value in sorted(reference.items())]
        ours, theirs = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        found.append(cosine(theirs[None, :], ours[None, :])[0])
    return np.array(found)


def outside_gate(worst: float, gate: float, device: str) -> SloUnreachable:
    """The refusal of a back end whose answers are too far from the variant's own."""
    return SloUnreachable(
        f"answers on {device} are outside the fidelity gate of {gate:g}",
        why=f"the lowest cosine with the variant's own answers is {worst:.6f}; its kernels or its precision differ from those here",
        hint="take a more faithful variant (deployctl compress), or lower compress.fidelity.min; nothing was written",
        code="fidelity-gate",
        exit_code=97,
    )


def _difference(answer: Mapping[str, Any], name: str, reference: Any, number: int) -> float:
    a, b = _pair(answer, name, reference, number)
    if not a.size:
        return 0.0
    ratio = float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-6))
    if not ratio <= TOLERANCE_RATIO:
        raise _differs(
            f"Triton's answer to request {number} differs from the variant's own by {ratio:.2g} (output {name})",
            f"up to {TOLERANCE_RATIO:g} is rounding",
        )
    return ratio


def _pair(answer: Mapping[str, Any], name: str, reference: Any, number: int) -> tuple[FloatArray, FloatArray]:
    """One output and its reference as flat arrays of the same length."""
    if name not in answer:
        raise _differs(f"the answer to request {number} has no output {name}", f"it has {', '.join(answer) or 'none'}")
    a, b = np.asarray(answer[name], dtype=np.float64).ravel(), np.asarray(reference, dtype=np.float64).ravel()
    if a.shape != b.shape:
        raise _differs(f"output {name} of request {number} has {a.size} elements, {b.size} were expected", None)
    return a, b


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _differs(message: str, why: str | None) -> ModelError:
    return ModelError(
        message, why=why, hint="run `deployctl package --force`; if it stays, the server's libraries differ from those here", code="proof-differs"
    )
