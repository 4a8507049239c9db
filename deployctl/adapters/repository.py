"""Bundle to Triton repository: what enters is a bundle and settings, what leaves is a private, verified folder.

`config.pbtxt` is written and read through NVIDIA's own protobuf, never by string work. A config that came with an existing
repository is the base of what is written; only the settings that tuning may change are put over it. Refuses to know how a
Triton is started and where the bundle came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployctl.core import packaging
from deployctl.core.artifact import FileRef, TensorSpec
from deployctl.core.bundle import Bundle
from deployctl.core.serving import EnsembleStep, ModelSpec, ServingConfig
from deployctl.errors import ModelError
from deployctl.ports import BlobStore

# What Triton's older `platform` field says, as the backend that serves it.
_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "ensemble": "ensemble",
}
_TWIN = "model.py"


def _proto() -> Any:
    """NVIDIA's message classes; imported late, since they bring gRPC along (a second of start-up)."""
    import tritonclient.grpc.model_config_pb2 as messages

    return messages


class TritonRepository:
    """Writes what `tritonserver --model-repository` reads."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def build(self, bundle: Bundle, into: Path, *, settings: dict[str, ServingConfig] | None = None, native: bool = False) -> None:
        """Write the repository atomically; see the port. Every file is hashed while it is copied.

        Raises:
            NotFound: a blob is missing; ModelError: a blob is damaged, or a model needs a backend that this machine's Triton
            lacks (`backend-not-here`); ProjectError: the folder is not empty.
        """
        if not native:
            _require_here(bundle)
        chosen = effective_settings(bundle, settings or {})
        files = [f for f in bundle.files if _wanted(bundle, f, native=native)]
        for spec in bundle.models:
            text = self.config_text(bundle, spec.name, chosen[spec.name], native=native).encode()
            files.append(FileRef(path=f"{spec.name}/config.pbtxt", digest=self._blobs.put_bytes(text), size_bytes=len(text)))
        self._blobs.materialise(sorted(files, key=lambda f: f.path), into)

    def config_text(self, bundle: Bundle, model: str, serving: ServingConfig, *, native: bool = False) -> str:
        """The config.pbtxt text of one model under other settings."""
        from google.protobuf import text_format

        spec = bundle.model(model)
        kept = self._kept(bundle, model)
        config = _proto().ModelConfig() if kept is None else _parse(kept, where=f"{model}/config.pbtxt")
        if kept is None:
            _describe(config, spec)
            _serve(config, spec, serving, warm_size=bundle.size_rule.step)
        elif spec.tunable:
            _adjust(config, spec, serving)
        _place(config, spec, native=native)
        if any(ref.path == f"{model}/{packaging.ENVIRONMENT}" for ref in bundle.files) and "EXECUTION_ENV_PATH" not in config.parameters:
            config.parameters["EXECUTION_ENV_PATH"].string_value = f"$$TRITON_MODEL_DIRECTORY/{packaging.ENVIRONMENT}"
        text: str = text_format.MessageToString(config)
        return text

    def parse(self, text: str, *, where: str) -> ModelSpec:
        """A config.pbtxt as a ModelSpec; see `parse_config`."""
        return parse_config(text, where=where)

    def in_pieces(self, bundle: Bundle) -> bool:
        """Whether a model of the bundle is decoupled; then Triton refuses the ordinary endpoint of the entry too."""
        kept = [(m.name, self._kept(bundle, m.name)) for m in bundle.models]
        return any(_parse(text, where=f"{name}/config.pbtxt").model_transaction_policy.decoupled for name, text in kept if text is not None)

    def _kept(self, bundle: Bundle, model: str) -> str | None:
        for ref in bundle.files:
            if ref.path == f"{model}/config.pbtxt":
                return self._blobs.path(ref.digest).read_text()
        return None


def _require_here(bundle: Bundle) -> None:
    foreign = packaging.foreign_backends(bundle.models)
    if foreign:
        raise ModelError(
            f"{bundle.name} does not run on this machine: its Triton has no backend {', '.join(foreign)}",
            hint="serve it from an environment with `on: kubernetes`, or write the repository with `deployctl package -o DIR`",
            code="backend-not-here",
        )


def effective_settings(bundle: Bundle, settings: dict[str, ServingConfig]) -> dict[str, ServingConfig]:
    """Settings of every model: the given ones where the model is tunable, an ensemble's batch by its narrowest step."""
    chosen = {m.name: settings.get(m.name, m.serving) if m.tunable else m.serving for m in bundle.models}
    for spec in bundle.models:
        if spec.ensemble_steps and spec.serving.max_batch:
            narrowest = min(chosen[s.model].max_batch for s in spec.ensemble_steps)
            chosen[spec.name] = ServingConfig(max_batch=narrowest, warmup_batches=())
    return chosen


def parse_config(text: str, *, where: str = "config.pbtxt") -> ModelSpec:
    """A config.pbtxt as a ModelSpec. `max_batch` 0 says that the model has no batch dimension.

    Raises:
        ModelError: the text is no model configuration (`config-pbtxt-invalid`), with line and column.
    """
    config = _parse(text, where=where)
    dynamic = config.dynamic_batching
    policy = dynamic.default_queue_policy
    serving = ServingConfig(
        max_batch=config.max_batch_size,
        queue_delay_s=dynamic.max_queue_delay_microseconds / 1e6,
        instances=max([sum(g.count or 1 for g in config.instance_group), 1]),
        queue_size=policy.max_queue_size,
        queue_timeout_s=policy.default_timeout_microseconds / 1e6,
        warmup_batches=tuple(w.batch_size for w in config.model_warmup),
        preferred_batches=tuple(sorted(set(dynamic.preferred_batch_size))) or None,
    )
    backend = config.backend or _PLATFORMS.get(config.platform, config.platform)
    return ModelSpec(
        name=config.name,
        backend="ensemble" if config.HasField("ensemble_scheduling") else backend,
        inputs=tuple(_tensors(config.input)),
        outputs=tuple(_tensors(config.output)),
        serving=serving,
        tunable=config.HasField("dynamic_batching"),
        parameters={k: v.string_value for k, v in sorted(config.parameters.items())},
        ensemble_steps=tuple(
            EnsembleStep(model=s.model_name, input_map=dict(s.input_map), output_map=dict(s.output_map)) for s in config.ensemble_scheduling.step
        ),
        joins_requests=None if _may_join(config) else False,
    )


def _may_join(config: Any) -> bool:
    """Whether requests may be joined, or none ever could: a backend that has to find the tensors itself may add a batcher."""
    return bool(config.max_batch_size <= 1 or config.WhichOneof("scheduling_choice") or not (config.input and config.output))


def _parse(text: str, *, where: str) -> Any:
    from google.protobuf import text_format

    config = _proto().ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise ModelError(
            "this is no Triton model configuration",
            why=str(error),
            where=where,
            hint="correct config.pbtxt; its fields are those of NVIDIA's model_config.proto",
            code="config-pbtxt-invalid",
        ) from error
    return config


def _tensors(rows: Any) -> Iterator[TensorSpec]:
    names = _proto().DataType
    for row in rows:
        word = names.Name(row.data_type).removeprefix("TYPE_")
        yield TensorSpec(name=row.name, dtype="BYTES" if word == "STRING" else word, shape=tuple(row.dims))


def _type_value(dtype: str) -> int:
    value: int = _proto().DataType.Value("TYPE_STRING" if dtype == "BYTES" else f"TYPE_{dtype}")
    return value


def _describe(config: Any, spec: ModelSpec) -> None:
    """What the model is: name, tensors, steps, parameters."""
    config.name = spec.name
    if spec.backend == "ensemble":
        config.platform = "ensemble"
    else:
        config.backend = spec.backend
    for row, rows in ((t, config.input) for t in spec.inputs):
        rows.add(name=row.name, data_type=_type_value(row.dtype), dims=row.shape)
    for row, rows in ((t, config.output) for t in spec.outputs):
        rows.add(name=row.name, data_type=_type_value(row.dtype), dims=row.shape)
    for step in spec.ensemble_steps:
        config.ensemble_scheduling.step.add(model_name=step.model, model_version=-1, input_map=step.input_map, output_map=step.output_map)
    for key, value in sorted(spec.parameters.items()):
        config.parameters[key].string_value = value


def _serve(config: Any, spec: ModelSpec, serving: ServingConfig, *, warm_size: int) -> None:
    """How it is served: batching, queue, instances, warm-up. The version that is served is the newest one in the bundle."""
    config.max_batch_size = serving.max_batch
    if spec.backend == "ensemble":
        return
    _batching(config, serving)
    config.instance_group.add(count=serving.instances)
    config.version_policy.latest.num_versions = 1
    for batch in serving.warmup_batches:
        _warm(config, spec, min(batch, max(serving.max_batch, 1)), warm_size)


def _adjust(config: Any, spec: ModelSpec, serving: ServingConfig) -> None:
    """Put tuned settings over a config that people wrote: only what tuning means, and nothing that the new batch rules out."""
    config.max_batch_size = serving.max_batch
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = round(serving.queue_delay_s * 1e6)
    named = batching.preferred_batch_size if serving.preferred_batches is None else serving.preferred_batches
    preferred = [size for size in named if size <= serving.max_batch]
    del batching.preferred_batch_size[:]
    batching.preferred_batch_size.extend(preferred)
    _queue_policy(batching, serving)
    if len(config.instance_group) == 1:
        config.instance_group[0].count = serving.instances
    elif not config.instance_group:
        config.instance_group.add(count=serving.instances)
    warmups = [w for w in config.model_warmup if w.batch_size <= serving.max_batch]
    del config.model_warmup[:]
    config.model_warmup.extend(warmups)


def _batching(config: Any, serving: ServingConfig) -> None:
    queued = serving.queue_size or serving.queue_timeout_s
    if serving.max_batch == 0 or (serving.max_batch == 1 and not queued):
        return
    config.dynamic_batching.max_queue_delay_microseconds = round(serving.queue_delay_s * 1e6)
    config.dynamic_batching.preferred_batch_size.extend(serving.named_batches)
    _queue_policy(config.dynamic_batching, serving)


def _queue_policy(batching: Any, serving: ServingConfig) -> None:
    if serving.queue_size or serving.queue_timeout_s:
        policy = batching.default_queue_policy
        policy.timeout_action = policy.REJECT
        policy.default_timeout_microseconds = round(serving.queue_timeout_s * 1e6)
        policy.max_queue_size = serving.queue_size


def _warm(config: Any, spec: ModelSpec, batch: int, size: int) -> None:
    name = f"batch-{batch}"
    if any(w.name == name for w in config.model_warmup):
        return
    warm = config.model_warmup.add(name=name, batch_size=batch if config.max_batch_size else 0, count=1)
    for tensor in spec.inputs:
        cell = warm.inputs[tensor.name]
        cell.data_type = _type_value(tensor.dtype)
        cell.dims.extend(size if d < 0 else d for d in tensor.shape)
        cell.zero_data = True


def _place(config: Any, spec: ModelSpec, *, native: bool) -> None:
    """Which backend and device: this machine's Triton runs an ONNX model through its Python twin, on the CPU."""
    if spec.backend == "onnxruntime" and not native:
        config.ClearField("platform")
        config.ClearField("optimization")
        config.backend = "python"
        config.default_model_filename = _TWIN
    for group in config.instance_group:
        if not native or spec.backend == "python":
            group.kind = _proto().ModelInstanceGroup.KIND_CPU
            group.ClearField("gpus")


def _wanted(bundle: Bundle, file: FileRef, *, native: bool) -> bool:
    """config.pbtxt is written anew; the Python twin of an ONNX model stays away where the real backend serves."""
    model, _, rest = file.path.partition("/")
    if rest == "config.pbtxt":
        return False
    spec = next((m for m in bundle.models if m.name == model), None)
    return not (native and spec is not None and spec.backend == "onnxruntime" and file.path.endswith(f"/{_TWIN}"))
