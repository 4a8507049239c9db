"""Answers of a graph under each way of asking, and their distance from the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deployctl.compress import graph
from deployctl.compress.inputs import Arrays, Rows
from deployctl.core.artifact import Fidelity
from deployctl.core.fidelity import CaseName, FloatArray, assess
from deployctl.errors import ModelError

BATCH = 8
MOST_JUDGED = 96  # rows compared: bounds on more hardly narrow, and each is asked nine times and more
_SEED = 0

Ask = Callable[[Arrays], dict[str, Any]]


def split(rows: Rows) -> tuple[Rows, Rows | None]:
    """The rows that are compared (all, or a random part that is the same each time), and the others."""
    if len(rows.sizes) <= MOST_JUDGED:
        return rows, None
    chosen = {int(r) for r in np.random.default_rng(_SEED).choice(len(rows.sizes), size=MOST_JUDGED, replace=False)}
    return rows.only(sorted(chosen)), rows.only([r for r in range(len(rows.sizes)) if r not in chosen])


def asker(session: Any) -> Ask:
    """A session as a function from feeds to outputs."""
    return lambda feed: graph.run(session, feed)


def alone(ask: Ask, rows: Rows) -> list[dict[str, Any]]:
    """Every row by itself, at its own bucket: what a quiet server answers."""
    return [ask(rows.feed([r])) for r in range(len(rows.sizes))]


def flat(answers: Sequence[dict[str, Any]]) -> FloatArray:
    """Answers as an array: one row each, all outputs joined.

    Raises:
        ModelError: answers differ in length, as where an output follows the input's length (`outputs-vary`).
    """
    rows = [np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in a.values()]) for a in answers]
    if len({len(r) for r in rows}) > 1:
        raise ModelError(
            "the model's answers have different lengths, so variants cannot be compared row by row",
            why="an output follows the length of the input",
            hint="for a text encoder set model.pooling to mean or cls; else give a sample in which all requests have one size",
            code="outputs-vary",
        )
    return np.stack(rows)


def fidelity(ask: Ask, rows: Rows, parent: FloatArray, *, gate: float, neighbours: bool, batched: bool) -> Fidelity:
    """All cases against the parent's answers to the same rows asked alone."""
    answers: dict[CaseName, FloatArray] = {"alone": flat(alone(ask, rows))}
    if rows.pads:
        answers["padded"] = flat(_padded(ask, rows))
    if batched:
        answers["batched"] = _batched(ask, rows, parent.shape)
    return assess(parent, answers, sizes=rows.sizes, gate=gate, neighbours=neighbours, rng=np.random.default_rng(_SEED))


def _padded(ask: Ask, rows: Rows) -> list[dict[str, Any]]:
    """Each row by itself, two steps longer than it needs: a server that pads more coarsely, or a client that pads itself."""
    return [ask(rows.feed([r], size=min(size + 2 * rows.rule.step, rows.rule.maximum))) for r, size in enumerate(rows.sizes)]


def _batched(ask: Ask, rows: Rows, shape: tuple[int, ...]) -> FloatArray:
    """Rows in full batches with mates drawn at random; texts padded to the longest mate, numbers only with their own size."""
    rng = np.random.default_rng(_SEED)
    found = np.empty(shape, dtype=np.float64)
    for group in groups(rows):
        order = [int(r) for r in rng.permutation(group)]
        for start in range(0, len(order), BATCH):
            members = order[start : start + BATCH]
            mates = (members + order * BATCH)[:BATCH]
            values = ask(rows.feed(mates))
            for place, row in enumerate(members):
                found[row] = np.concatenate([np.asarray(v[place], dtype=np.float64).ravel() for v in values.values()])
    return found


def groups(rows: Rows) -> list[list[int]]:
    """Rows that can share a batch: all of them where they can be padded, else those of one size."""
    if rows.pads:
        return [list(range(len(rows.sizes)))]
    return [[r for r, s in enumerate(rows.sizes) if s == size] for size in sorted(set(rows.sizes))]
