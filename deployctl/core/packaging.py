"""A variant as Triton models: what enters are tensors and a size rule, what leaves are model specifications.

A text model becomes an ensemble, so that one request carries a text and gets a vector: tokenizer, then encoder. A model that
takes numbers stands alone. Tensors come from the graph. Refuses to know files and protobuf.
"""

from __future__ import annotations

from deployctl.core.artifact import Artifact, TensorSpec
from deployctl.core.bundle import SizeRule
from deployctl.core.compressed import TEXT_INPUT, Compressed
from deployctl.core.serving import EnsembleStep, ModelSpec, ServingConfig

ENVIRONMENT = "env.tar.gz"  # beside a Python model's version folders: its own packages
TOKENIZER, ENCODER = "tokenizer", "encoder"
TOKENIZER_MAX_BATCH = 64
REPOSITORY = "/models/repository"  # where pods have it; engines that want absolute paths are told this one
MODEL_DIR = "${MODEL_DIR}"  # stands for the folder of the model's version in what an engine is told
# Engines that form their own batches and answer in pieces; the tensors are those that Triton's vLLM backend declares itself.
_VLLM = """\
name: "NAME"
backend: "vllm"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }
input { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true }
input { name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true }
input { name: "exclude_input_in_output" data_type: TYPE_BOOL dims: [ 1 ] optional: true }
output { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] }
instance_group { count: 1 kind: KIND_MODEL }
"""
_BACKENDS_HERE = ("python", "onnxruntime", "ensemble")


def models_of(name: str, record: Compressed, artifact: Artifact) -> tuple[ModelSpec, ...]:
    """All Triton models of one variant, in load order; the last one is the entry.

    Args:
        name: the service's name, which the entry model gets.
        record: what compression found out.
        artifact: the variant's graph.
    """
    if record.tokenizer is None:
        return (onnx_model(name, artifact, batched=record.batched),)
    tokenizer, encoder = (part if part != name else f"{part}-part" for part in (TOKENIZER, ENCODER))
    return (
        _tokenizer(tokenizer, artifact.inputs, record.size_rule),
        onnx_model(encoder, artifact, batched=record.batched),
        _ensemble(name, tokenizer, encoder, artifact),
    )


def onnx_model(name: str, artifact: Artifact, *, batched: bool) -> ModelSpec:
    """An ONNX graph: Triton's onnxruntime backend, or its Python twin where that is missing. One thread an instance."""
    return ModelSpec(
        name=name,
        backend="onnxruntime",
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        serving=ServingConfig() if batched else ServingConfig(max_batch=0, warmup_batches=(0,)),
        parameters={"intra_op_thread_count": "1"},
    )


def _tokenizer(name: str, tensors: tuple[TensorSpec, ...], rule: SizeRule) -> ModelSpec:
    return ModelSpec(
        name=name,
        backend="python",
        inputs=(TensorSpec(name=TEXT_INPUT, dtype="BYTES", shape=(1,)),),
        outputs=tensors,
        serving=ServingConfig(max_batch=TOKENIZER_MAX_BATCH),
        tunable=False,
        parameters={"max_tokens": str(rule.maximum), "pad_multiple": str(rule.step)},
    )


def _ensemble(name: str, tokenizer: str, encoder: str, artifact: Artifact) -> ModelSpec:
    tokens = {t.name: t.name for t in artifact.inputs}
    return ModelSpec(
        name=name,
        backend="ensemble",
        inputs=(TensorSpec(name=TEXT_INPUT, dtype="BYTES", shape=(1,)),),
        outputs=artifact.outputs,
        serving=ServingConfig(warmup_batches=()),
        tunable=False,
        parameters={},
        ensemble_steps=(
            EnsembleStep(model=tokenizer, input_map={TEXT_INPUT: TEXT_INPUT}, output_map=tokens),
            EnsembleStep(model=encoder, input_map=tokens, output_map={t.name: t.name for t in artifact.outputs}),
        ),
    )


def model_dir(name: str) -> str:
    """Where a pod has the files of a model's only version."""
    return f"{REPOSITORY}/{name}/1"


def engine_config(name: str, names: set[str]) -> str | None:
    """The config.pbtxt of an engine folder that has none: a `model.json` alone says vLLM. None where it cannot be known."""
    return _VLLM.replace("NAME", name) if "model.json" in names else None


def foreign_backends(models: tuple[ModelSpec, ...]) -> tuple[str, ...]:
    """Backends of these models that the Triton of this machine has not."""
    return tuple(sorted({m.backend for m in models} - set(_BACKENDS_HERE)))
