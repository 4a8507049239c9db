"""Weights as two thin factors: x W becomes (x A) B, where that is less work.

The rank of each product is the smallest that keeps a share of the variance of its *answers*, not of its weights: with C the mean of
x xᵀ over real inputs and C = L Lᵀ, the best A B of rank r minimises ‖Lᵀ(W - A B)‖, the mean square error of x A B, and comes from the
singular values of LᵀW (Eckart and Young 1936; "activation-aware" as in ASVD, arXiv 2312.05821, and SVD-LLM, arXiv 2403.07378). The
share is the smallest one with which the calibration rows still pass the gate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deployctl.compress import aim, graph, products
from deployctl.compress.products import Matrix, Moments, Product
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact

SHARES = (0.9995, 0.999, 0.998, 0.997, 0.995, 0.993, 0.99, 0.985, 0.98, 0.97, 0.96, 0.94, 0.92, 0.89, 0.85, 0.8)
_WORTH_RATIO = 0.9  # two factors count as less work below this share of the multiplications
_FLOOR_RATIO = 1e-6  # of the mean diagonal: keeps C invertible


def factor(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Factor every product with a constant matrix that gets cheaper by it."""
    path = settings.path(artifact)
    widths = {p.source: p.shape[0] for p in products.find(graph.load(path))}
    moments = products.moments(path, widths, calibration.feeds)

    def build(share: float) -> tuple[Artifact, str]:
        model = graph.load(path)
        found = products.find(model)
        ranks = [_factored(model, p, moments[p.source], share) for p in found]
        made = [r for r in ranks if r]
        main = settings.scratch("low-rank") / "model.onnx"
        graph.save(model, main)
        words = (
            f"{len(made)} of {len(found)} products in two factors, mean rank {np.mean(made):.0f}"
            if made
            else "no product gets cheaper in two factors"
        )
        return settings.adopt(main, parent=artifact.digest), f"{words}; {share:.2%} of the variance kept"

    return aim.strongest(SHARES, build, settings, calibration)


def _factored(model: Any, product: Product, moment: Moments, share: float) -> int:
    """Split one product; its rank, or 0 where it was left alone."""
    left, right = decompose(product.get(), moment, share)
    rank, (rows, columns) = left.shape[1], product.shape
    if rank * (rows + columns) > _WORTH_RATIO * rows * columns:
        return 0
    from onnx import helper, numpy_helper

    node, name = product.node, f"{product.node.output[0]}_low_rank"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(left, dtype=np.float32), f"{name}_weight"))
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, helper.make_node("MatMul", [product.source, f"{name}_weight"], [name], name=f"{name}_node"))
    node.input[0] = name
    product.put(right)
    return rank


def decompose(weight: Matrix, moments: Moments, share: float) -> tuple[Matrix, Matrix]:
    """A (k, r) and B (r, n) of the smallest rank that keeps `share` of the variance of x W.

    Args:
        weight: W (k, n).
        moments: of x.
        share: above 0 and below 1.
    """
    from scipy import linalg

    second = moments.second
    root = np.linalg.cholesky(second + np.eye(len(second)) * (_FLOOR_RATIO * np.trace(second) / len(second) + 1e-12))
    u, s, vt = np.linalg.svd(root.T @ weight, full_matrices=False)
    lost = np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0)  # lost[r]: by rank r
    rank = max(1, int(np.argmax(lost <= (1.0 - share) * moments.variance(weight))))
    left = linalg.solve_triangular(root.T, u[:, :rank] * s[:rank], lower=False)
    return np.asarray(left), np.asarray(vt[:rank])
