"""Weights in 8 bits by blocks of 32, activations in float: the faithful option, smaller than fp32 and hardly different."""

from __future__ import annotations

import logging

from deployctl.compress import graph
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact

BLOCK = 32
# 4 = the products inside a block may be computed in 8 bits, with a scale for each row and block, so no row sees another's.
ACCURACY_LEVEL = 4


def quantize(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Replace every product with a constant matrix by MatMulNBits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    logging.getLogger().setLevel(logging.ERROR)
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=ACCURACY_LEVEL, bits=8)
    quantizer = MatMulNBitsQuantizer(graph.load(settings.path(artifact)), algo_config=config)
    quantizer.process()
    main = settings.scratch("int8-weights") / "model.onnx"
    quantizer.model.save_model_to_file(str(main), artifact.size_bytes > graph.EMBED_LIMIT_BYTES)
    changed = sum(n.op_type == "MatMulNBits" for n in graph.load(main, weights=False).graph.node)
    notes = () if changed else ("no product with a constant matrix was found: this variant is the fp32 graph",)
    return settings.adopt(main, parent=artifact.digest), Report(summary=f"{changed} products with 8-bit weights, blocks of {BLOCK}", notes=notes)
