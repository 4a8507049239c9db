"""Weights and activations in 16-bit floats, inputs and outputs as they were: half the memory and tensor cores, on a GPU.

A processor casts each product back to 32 bits, so here it is checked, and slower. Values beyond the range of 16 bits (such as the
-3.4e38 of an attention mask) are cut to it.
"""

from __future__ import annotations

from deployctl.compress import graph
from deployctl.compress.workbench import Calibration, Report, Settings
from deployctl.core.artifact import Artifact


def convert(artifact: Artifact, settings: Settings, calibration: Calibration) -> tuple[Artifact, Report]:
    """Cast everything between the inputs and the outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(graph.load(settings.path(artifact)), keep_io_types=True)
    main = settings.scratch("fp16") / "model.onnx"
    graph.save(model, main)
    return settings.adopt(main, parent=artifact.digest), Report(summary="16-bit floats inside, for GPUs; a processor computes in 32 bits and casts")
