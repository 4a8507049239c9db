"""How close a variant's answers are to its parent's: what enters are answers, what leaves are figures with a lower bound.

The answer of a dynamically quantised model depends on its padding and on its batch mates, so every way of asking is a case
of its own and the gate reads the worst one. Refuses to know how answers were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from deployctl.core.artifact import Fidelity, FidelityCase, FidelitySlice

FloatArray = npt.NDArray[np.float64]
CaseName = Literal["alone", "padded", "batched"]
_RESAMPLES = 2000


def cosine(parent: FloatArray, variant: FloatArray) -> FloatArray:
    """Row-wise cosine of two (n, d) arrays, (n,).

    Two zero rows agree (1); one zero row against another disagrees (0); a row with NaN or infinity is as wrong as can be (-1).
    """
    dot = np.einsum("ij,ij->i", parent, variant)
    norms = np.linalg.norm(parent, axis=1) * np.linalg.norm(variant, axis=1)
    both_zero = ~parent.any(axis=1) & ~variant.any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(norms > 0, dot / norms, np.where(both_zero, 1.0, 0.0))
    finite = np.isfinite(parent).all(axis=1) & np.isfinite(variant).all(axis=1)
    return np.where(finite, np.clip(values, -1.0, 1.0), -1.0)


def lower_bound(values: FloatArray, rng: np.random.Generator) -> float:
    """One-sided 95 % lower confidence bound of the mean: the smaller of Student's t and the percentile bootstrap.

    Formulas: mean - t(0.95, n-1) * s / sqrt(n); the 5th percentile of the means of 2,000 resamples. The first assumes a shape
    that a measure bounded at 1 has not, the second is too bold on small samples; taking the smaller guards both. One value
    alone has no bound: it is its own.
    """
    n = len(values)
    if n < 2 or float(values.std()) == 0.0:
        return float(values.min())
    from scipy.special import stdtrit

    student = float(values.mean() - stdtrit(n - 1, 0.95) * values.std(ddof=1) / np.sqrt(n))
    means = values[rng.integers(0, n, size=(_RESAMPLES, n))].mean(axis=1)
    return min(student, float(np.percentile(means, 5)))


def case(name: CaseName, values: FloatArray, rng: np.random.Generator) -> FidelityCase:
    """One way of asking, summed up."""
    return FidelityCase(name=name, mean=float(values.mean()), minimum=float(values.min()), lower95=lower_bound(values, rng), samples=len(values))


def top1_agreement(parent: FloatArray, variant: FloatArray, *, neighbours: bool) -> FloatArray:
    """Per row 1.0 where the first choice is the same, else 0.0.

    Args:
        parent: (n, d) answers.
        variant: (n, d) answers.
        neighbours: for embeddings: the nearest other row by cosine; else the index of the largest element.
    """
    if not neighbours:
        return np.asarray(parent.argmax(axis=1) == variant.argmax(axis=1), dtype=np.float64)
    return np.asarray(_nearest(parent) == _nearest(variant), dtype=np.float64)


def _nearest(rows: FloatArray) -> npt.NDArray[np.intp]:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    return np.asarray(likeness.argmax(axis=1))


def assess(
    parent: FloatArray,
    answers: Mapping[CaseName, FloatArray],
    *,
    sizes: Sequence[int],
    gate: float,
    neighbours: bool,
    rng: np.random.Generator,
) -> Fidelity:
    """Compare answers under each way of asking with the parent's answers to the same inputs asked alone.

    Args:
        parent: (n, d) reference answers.
        answers: by case, (n, d) each, rows in the same order.
        sizes: size bucket of each row, (n,).
        gate: smallest acceptable lower bound.
        neighbours: see `top1_agreement`.
        rng: source of the bootstrap's resamples.
    """
    values = {name: cosine(parent, rows) for name, rows in answers.items()}
    cases = tuple(case(name, v, rng) for name, v in values.items())
    worst = min(cases, key=lambda c: c.lower95).name
    slices = [_slice(f"size {size}", values[worst][np.asarray(sizes) == size]) for size in sorted(set(sizes))]
    if parent.shape[1] > 1 and len(parent) > 1:
        slices.append(_slice("top1", top1_agreement(parent, answers[worst], neighbours=neighbours)))
    return Fidelity(metric="cosine", cases=cases, gate=gate, slices=tuple(slices))


def _slice(name: str, values: FloatArray) -> FidelitySlice:
    return FidelitySlice(name=name, mean=float(values.mean()), minimum=float(values.min()), samples=len(values))
