"""Attention heads and feed-forward columns taken out of the graph: the products that are left are smaller, on any hardware.

What is taken out is what the rest can best stand in for. With C the mean of x xᵀ over real inputs of the layer that reads the
columns and W its weight, taking group g out and refitting the rest raises the mean square error of x W by tr(W_gᵀ (C⁻¹)_gg⁻¹ W_g)
(Optimal Brain Surgeon, Hassibi and Stork 1993, for groups of rows); the refit is C_KK⁻¹ C_K: W. Groups go in the order of that error,
as a share of the variance of x W, for each weight saved. How many go is the most with which the calibration rows pass the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deployctl.compress import aim, graph, groups, products
from deployctl.compress.groups import Groups
from deployctl.compress.products import Matrix, Moments
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact

SHARES = tuple(n / 100 for n in range(5, 85, 5))  # of the weights that could go
_LEFT_RATIO = 0.125  # of a layer's groups stay whatever it costs
_STEP = 16  # columns of a feed-forward layer come in multiples of a vector register
_DAMPING_RATIO = 1e-3  # of the mean diagonal of C: the sample does not show every direction


@dataclass(frozen=True, slots=True)
class _Layer:
    """Groups with the moments of their columns, and what taking each out costs: share of the variance for each weight saved."""

    groups: Groups
    moments: Moments
    cost: npt.NDArray[np.float64]


def prune(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Take out as many heads and columns as the gate allows."""
    path = settings.path(artifact)
    found = groups.find(graph.load(path))
    if not found:
        main = settings.scratch("prune") / "model.onnx"
        graph.save(graph.load(path), main)
        note = "neither heads nor feed-forward layers were recognised in this graph: this variant is the fp32 graph"
        return settings.adopt(main, parent=artifact.digest), Report(summary="nothing taken out", notes=(note,))
    moments = products.moments(path, {g.sink.source: g.sink.shape[0] for g in found}, calibration.feeds)
    costs = [costs_of(g, moments[g.sink.source]) for g in found]

    def build(share: float) -> tuple[Artifact, str]:
        model = graph.load(path)
        layers = [_Layer(g, moments[g.sink.source], cost) for g, cost in zip(groups.find(model), costs, strict=True)]
        words = _cut(layers, share)
        del model.graph.value_info[:]  # the exporter's notes of inner shapes
        main = settings.scratch("prune") / "model.onnx"
        graph.save(model, main)
        return settings.adopt(main, parent=artifact.digest), words

    return aim.strongest(SHARES, build, settings, calibration)


def costs_of(layer: Groups, moments: Moments) -> npt.NDArray[np.float64]:
    """See the module: one value a group."""
    weight = layer.sink.get()
    inverse = np.linalg.inv(damped(moments.second))
    blocks = np.stack([inverse[s : s + layer.size, s : s + layer.size] for s in range(0, len(inverse), layer.size)])
    parts = weight.reshape(layer.count, layer.size, -1)
    errors = np.einsum("gij,gij->g", parts, np.linalg.solve(blocks, parts))
    return np.asarray(errors / moments.variance(weight) / layer.weights)


def damped(moment: Matrix) -> Matrix:
    """C with a little of the identity, so that it can be inverted."""
    floor: Matrix = np.eye(len(moment)) * (_DAMPING_RATIO * np.trace(moment) / len(moment) + 1e-12)
    return moment + floor


def _cut(layers: list[_Layer], share: float) -> str:
    """Take out groups in the order of their cost until `share` of the weights is gone; what was done, in words."""
    for layer, kept in zip(layers, chosen([x.cost for x in layers], [x.groups for x in layers], share), strict=True):
        columns = layer.groups.columns(kept)
        moment = damped(layer.moments.second)
        refit = np.linalg.solve(moment[np.ix_(columns, columns)], moment[columns] @ layer.groups.sink.get())
        layer.groups.cut(columns, refit)
    return _words(layers)


def chosen(costs: list[npt.NDArray[np.float64]], found: list[Groups], share: float) -> list[npt.NDArray[np.intp]]:
    """The groups of each layer that stay."""
    order = sorted((float(c), layer, g) for layer, values in enumerate(costs) for g, c in enumerate(values))
    least = [_least(f) for f in found]
    left = [set(range(f.count)) for f in found]
    to_go = share * sum(f.count * f.weights for f in found)
    for _, layer, group in order:
        if to_go < found[layer].weights:
            break
        if len(left[layer]) > least[layer]:
            left[layer].discard(group)
            to_go -= found[layer].weights
    kept = []
    for f, cost, stay in zip(found, costs, left, strict=True):
        number = -(-len(stay) // _STEP) * _STEP if f.size == 1 and f.count % _STEP == 0 else len(stay)
        kept.append(np.sort(np.argsort(-cost, kind="stable")[:number]))
    return kept


def _least(layer: Groups) -> int:
    return max(1, round(layer.count * _LEFT_RATIO))


def _words(layers: list[_Layer]) -> str:
    parts = []
    for name, is_heads in (("heads", True), ("feed-forward columns", False)):
        some = [x for x in layers if (x.groups.size > 1) == is_heads]
        if some:
            before = sum(len(x.cost) for x in some)
            parts.append(f"{before - sum(x.groups.count for x in some)} of {before} {name}")
    return f"{' and '.join(parts)} taken out, the rest refitted"
