"""Weights and activations in 8 bits, with the activations' scales fixed beforehand from real inputs.

No scale is looked for at run time, and an answer depends on neither padding nor batch mates. What lies outside the calibrated
range is cut, which transformers with outliers take badly; the gate says whether this one does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from deployctl.compress import graph
from deployctl.compress.workbench import Calibration, Feed, Report, Settings
from deployctl.core.artifact import Artifact


class _Reader:
    """The calibration rows as ONNX Runtime reads them."""

    def __init__(self, feeds: Iterator[Feed], names: set[str]) -> None:
        self._feeds, self._names = feeds, names

    def get_next(self) -> dict[str, Any] | None:
        """The next row, None at the end."""
        feed = next(self._feeds, None)
        return None if feed is None else {k: v for k, v in feed.items() if k in self._names}


def quantize(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Quantise every matrix product with a constant, per output channel, with the ranges that the calibration rows show."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    logging.getLogger().setLevel(logging.ERROR)
    main = settings.scratch("int8-static") / "model.onnx"
    quantize_static(
        str(settings.path(artifact)),
        str(main),
        _Reader(iter(calibration.feeds), {i.name for i in artifact.inputs}),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=artifact.size_bytes > graph.EMBED_LIMIT_BYTES,
        extra_options={"MatMulConstBOnly": True},
    )
    rows = len(calibration.feeds)
    return settings.adopt(main, parent=artifact.digest), Report(
        summary=f"8-bit weights per channel, 8-bit activations in ranges of {rows} rows", calibrated=True
    )
