"""Weights and activations in 8 bits; the activations' scale is found while it runs, one for the whole batch.

Fast where the processor has integer dot products. Because the scale is shared, an answer depends on padding and batch mates:
the fidelity cases `padded` and `batched` exist for this method.
"""

from __future__ import annotations

import logging

from deployctl.compress import graph
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact


def quantize(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Quantise every matrix product, gather and convolution that can be, per output channel, symmetric."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # the library advises a pre-processing that fails on dynamic shapes
    main = settings.scratch("int8-dynamic") / "model.onnx"
    large = artifact.size_bytes > graph.EMBED_LIMIT_BYTES
    quantize_dynamic(str(settings.path(artifact)), str(main), per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=large)
    return settings.adopt(main, parent=artifact.digest), Report(summary="8-bit weights per channel, 8-bit activations at run time")
