"""Rows that methods learn from: some to fit with, some to see how far to go. Neither are the rows that variants are judged by.

Where the sample is too small for three parts they are the same rows, and `shared` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployctl.compress import graph, verify
from deployctl.compress.inputs import Rows
from deployctl.compress.workbench import Calibration, Feed, Method, Settings
from deployctl.core.artifact import Artifact
from deployctl.core.fidelity import FloatArray, cosine, lower_bound

_MOST_FITTED, _MOST_AIMED = 128, 48
_LEAST = 16  # of each part
_RESERVE_RATIO = 0.1  # of what the gate allows: other rows, and other ways of asking, may do a little worse
_SEED = 1


class Trial:
    """Calibration for the methods of one run.

    Args:
        rows: the rows to learn from.
        judged: the rows that variants are judged by, taken where there are no others.
        base: the graph that likeness is measured against.
        settings: where artifacts lie.
        gate: the fidelity gate.
    """

    def __init__(self, rows: Rows | None, judged: Rows, base: Artifact, settings: Settings, gate: float) -> None:
        self.shared = rows is None or len(rows.sizes) < 2 * _LEAST
        source = judged if rows is None or self.shared else rows
        order = [int(r) for r in np.random.default_rng(_SEED).permutation(len(source.sizes))]
        part = max(_LEAST, len(order) // 4)
        aimed, fitted = (order, order) if self.shared else (order[:part][:_MOST_AIMED], order[part:][:_MOST_FITTED])
        self.feeds: tuple[Feed, ...] = tuple(source.feed([r]) for r in fitted)
        self._aimed = source.only(sorted(aimed))
        self._training = None if self.shared else rows
        self._base, self._settings = base, settings
        self._least = gate + _RESERVE_RATIO * (1.0 - gate)
        self._parent: FloatArray | None = None

    def calibration(self, later: Sequence[Method]) -> Calibration:
        """For a method after which `later` ones follow."""
        return Calibration(feeds=self.feeds, accepts=lambda artifact: self._accepts(artifact, later), training=self._training)

    def _accepts(self, artifact: Artifact, later: Sequence[Method]) -> bool:
        if later:
            made, _ = later[0](artifact, self._settings, self.calibration(later[1:]))
            try:
                return self._accepts(made, later[1:])
            finally:
                if made.digest != artifact.digest:
                    self._settings.discard(made)
        if self._parent is None:
            self._parent = self._answers(self._base)
        values = cosine(self._parent, self._answers(artifact))
        return lower_bound(values, np.random.default_rng(_SEED)) >= self._least

    def _answers(self, artifact: Artifact) -> FloatArray:
        return verify.flat(verify.alone(verify.asker(graph.session(self._settings.path(artifact))), self._aimed))
