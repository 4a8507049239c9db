"""config.pbtxt through NVIDIA's own protobuf: to text and back, overrides, twins, and configs that are kept."""

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.repository import TritonRepository, effective_settings, parse_config
from deployctl.core.artifact import FileRef, TensorSpec
from deployctl.core.bundle import Bundle
from deployctl.core.serving import EnsembleStep, ModelSpec, ServingConfig
from deployctl.errors import ModelError
from deployctl.testing.builders import sleep_bundle

TYPES = ["BOOL", "UINT8", "INT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"]
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
TENSORS = st.builds(
    TensorSpec, name=NAMES, dtype=st.sampled_from(TYPES), shape=st.lists(st.sampled_from([-1, 1, 4, 384]), min_size=1, max_size=3).map(tuple)
)


def unique(tensors):
    return tuple({t.name: t for t in tensors}.values())


SERVING = st.builds(
    ServingConfig,
    max_batch=st.integers(2, 64),
    queue_delay_s=st.integers(0, 100_000).map(lambda us: us / 1e6),
    instances=st.integers(1, 8),
    queue_size=st.integers(0, 100),
    queue_timeout_s=st.integers(0, 1000).map(lambda ms: ms / 1e3),
    warmup_batches=st.sampled_from([(), (1,), (1, 2)]),
)
SPECS = st.builds(
    ModelSpec,
    name=NAMES,
    backend=st.just("python"),
    inputs=st.lists(TENSORS, min_size=1, max_size=3).map(unique),
    outputs=st.lists(TENSORS, min_size=1, max_size=3).map(unique),
    serving=SERVING,
    parameters=st.dictionaries(NAMES, st.text("xyz 0\"'\\\n", max_size=6), max_size=2),
)


def config_of(spec, tmp, **kwargs):
    blobs = FileBlobStore(tmp)
    files = ()
    if kwargs.get("kept"):
        text = kwargs.pop("kept").encode()
        files = (FileRef(path=f"{spec.name}/config.pbtxt", digest=blobs.put_bytes(text), size_bytes=len(text)),)
    bundle = Bundle(name="b", entry=spec.name, variant="v", models=(spec,), files=files, sample="sha256:" + "0" * 64)
    return TritonRepository(blobs).config_text(bundle, spec.name, kwargs.pop("serving", spec.serving), **kwargs)


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_to_text_and_back(tmp_path_factory, spec):
    text = config_of(spec, tmp_path_factory.mktemp("b"))
    assert parse_config(text) == spec
    text_format.Parse(text, model_config_pb2.ModelConfig())


def spec_of(**changes):
    x = (TensorSpec(name="x", dtype="FP32", shape=(4,)),)
    return ModelSpec(**{"name": "m", "backend": "onnxruntime", "inputs": x, "outputs": x, "parameters": {}, **changes})


def message(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_twin_has_the_python_backend_and_the_native_form_keeps_its_own(tmp_path):
    here, native = message(config_of(spec_of(), tmp_path)), message(config_of(spec_of(), tmp_path, native=True))
    assert (here.backend, here.default_model_filename) == ("python", "model.py")
    assert (native.backend, native.default_model_filename) == ("onnxruntime", "")
    kinds = model_config_pb2.ModelInstanceGroup
    assert here.instance_group[0].kind == kinds.KIND_CPU and native.instance_group[0].kind == kinds.KIND_AUTO


def test_a_python_model_stays_on_the_cpu_everywhere(tmp_path):
    native = message(config_of(spec_of(backend="python"), tmp_path, native=True))
    assert native.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize(
    ("serving", "batching", "size"),
    [
        (ServingConfig(max_batch=0, warmup_batches=()), False, 0),
        (ServingConfig(max_batch=1), False, 1),
        (ServingConfig(max_batch=1, queue_size=5), True, 1),
        (ServingConfig(max_batch=8), True, 8),
    ],
)
def test_the_batcher_is_there_when_it_has_something_to_do(tmp_path, serving, batching, size):
    config = message(config_of(spec_of(serving=serving), tmp_path))
    assert config.HasField("dynamic_batching") is batching
    assert config.max_batch_size == size


def test_a_full_queue_rejects_and_late_requests_are_rejected(tmp_path):
    policy = message(config_of(spec_of(serving=ServingConfig(queue_size=9, queue_timeout_s=0.25)), tmp_path)).dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds, policy.timeout_action) == (9, 250_000, policy.REJECT)


def test_warm_up_never_exceeds_the_batch_and_names_are_unique(tmp_path):
    config = message(config_of(spec_of(serving=ServingConfig(max_batch=4, warmup_batches=(1, 8, 4))), tmp_path))
    assert [(w.name, w.batch_size) for w in config.model_warmup] == [("batch-1", 1), ("batch-4", 4)]


KEPT = """name: "m" platform: "onnxruntime_onnx" max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } output { name: "y" data_type: TYPE_STRING dims: [ -1 ] }
optimization { graph { level: 1 } } metric_tags { key: "team" value: "a" } instance_group { count: 3 kind: KIND_GPU gpus: [ 0 ] }
%s"""


def test_a_kept_config_without_dynamic_batching_stays_as_it_is(tmp_path):
    spec = parse_config(KEPT % "")
    assert (spec.backend, spec.tunable, spec.serving.max_batch, spec.serving.instances) == ("onnxruntime", False, 16, 3)
    assert spec.outputs == (TensorSpec(name="y", dtype="BYTES", shape=(-1,)),)
    native = config_of(spec, tmp_path, kept=KEPT % "", serving=ServingConfig(max_batch=2), native=True)
    assert message(native) == message(KEPT % "")


@pytest.mark.parametrize(
    ("batching", "known", "executed"),
    [
        ("", False, ServingConfig(max_batch=1, instances=3, warmup_batches=())),
        (
            "dynamic_batching { max_queue_delay_microseconds: 5000 }",
            None,
            ServingConfig(max_batch=16, queue_delay_s=0.005, instances=3, warmup_batches=()),
        ),
        ("sequence_batching { }", None, ServingConfig(max_batch=16, instances=3, warmup_batches=())),
    ],
)
def test_a_kept_config_without_a_batcher_executes_each_request_alone(batching, known, executed):
    spec = parse_config(KEPT % batching)
    assert spec.serving.max_batch == 16  # what a client may send in one request
    assert spec.joins_requests is known
    assert spec.as_executed == executed


def test_a_model_without_a_batch_dimension_executes_each_request_alone():
    spec = parse_config(KEPT.replace("max_batch_size: 16", "") % "")
    assert (spec.serving.max_batch, spec.joins_requests, spec.as_executed.max_batch) == (0, None, 1)


def test_a_config_whose_tensors_the_backend_finds_may_get_a_batcher_from_it():
    """Triton's onnxruntime backend adds dynamic_batching where it completes a config; it completes none that names both sides."""
    bare = parse_config('name: "m" platform: "onnxruntime_onnx" max_batch_size: 16')
    assert bare.joins_requests is None and bare.as_executed.max_batch == 16


def test_a_kept_config_with_dynamic_batching_takes_new_settings_and_keeps_the_rest(tmp_path):
    own = 'model_warmup { name: "w%d" batch_size: %d inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 random_data: true } } }'
    text = KEPT % (
        "dynamic_batching { preferred_batch_size: [ 2, 4 ] preserve_ordering: true max_queue_delay_microseconds: 100 }" + own % (1, 1) + own % (8, 8)
    )
    spec = parse_config(text)
    assert spec.tunable and spec.serving.queue_delay_s == pytest.approx(1e-4) and spec.serving.preferred_batches == (2, 4)
    none, two = (
        message(config_of(spec, tmp_path / str(n), kept=text, serving=ServingConfig(preferred_batches=named), native=True))
        for n, named in enumerate([(), (2, 16)])
    )
    assert [list(m.dynamic_batching.preferred_batch_size) for m in (none, two)] == [[], [2]]  # 16 is beyond the batch limit of 8
    config = message(config_of(spec, tmp_path, kept=text, serving=ServingConfig(max_batch=2, queue_delay_s=0.002, instances=1), native=True))
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (2, 2000)
    assert (list(config.dynamic_batching.preferred_batch_size), config.dynamic_batching.preserve_ordering) == ([2], True)
    assert [w.name for w in config.model_warmup] == ["w1"] and config.model_warmup[0].inputs["x"].random_data
    assert config.metric_tags["team"] == "a" and config.instance_group[0].gpus == [0]


def test_a_kept_gpu_config_runs_on_the_cpu_here(tmp_path):
    config = message(config_of(parse_config(KEPT % ""), tmp_path, kept=KEPT % ""))
    assert (config.backend, config.platform, list(config.instance_group[0].gpus)) == ("python", "", [])


@pytest.mark.parametrize(("text", "place"), [("name: ", "1:"), ('nmae: "x"', "1:1"), ('name: "x"\nmax_batch_size: many', "2:")])
def test_no_config_at_all_is_named_with_its_place(text, place):
    with pytest.raises(ModelError) as found:
        parse_config(text, where="m/config.pbtxt")
    assert (found.value.code, found.value.where) == ("config-pbtxt-invalid", "m/config.pbtxt")
    assert place in (found.value.why or "")


def ensemble():
    x = (TensorSpec(name="x", dtype="FP32", shape=(4,)),)
    step = EnsembleStep(model="m", input_map={"x": "x"}, output_map={"x": "y"})
    top = ModelSpec(name="top", backend="ensemble", inputs=x, outputs=x, tunable=False, parameters={}, ensemble_steps=(step,))
    return Bundle(name="top", entry="top", variant="v", models=(spec_of(backend="python"), top), files=(), sample="sha256:" + "0" * 64)


def test_an_ensemble_never_batches_wider_than_its_narrowest_step():
    chosen = effective_settings(ensemble(), {"m": ServingConfig(max_batch=3), "top": ServingConfig(max_batch=64)})
    assert (chosen["m"].max_batch, chosen["top"].max_batch) == (3, 3)


def test_build_writes_every_file_and_one_config_a_model(tmp_path):
    blobs = FileBlobStore(tmp_path / "blobs")
    bundle = sleep_bundle(blobs, FileBundleStore(blobs, tmp_path / "bundles"), 0.01, 0.002, 8, 2)
    TritonRepository(blobs).build(bundle, tmp_path / "repo", settings={"sleeper": ServingConfig(max_batch=4)})
    found = sorted(p.relative_to(tmp_path / "repo").as_posix() for p in (tmp_path / "repo").rglob("*") if p.is_file())
    assert found == ["sleeper/1/model.py", "sleeper/config.pbtxt"]
    config = message((tmp_path / "repo/sleeper/config.pbtxt").read_text())
    assert (config.max_batch_size, config.parameters["a_s"].string_value) == (4, "0.002")


def test_a_backend_that_is_not_here_is_refused_before_anything_is_written(tmp_path):
    bundle = Bundle(name="m", entry="m", variant="v", models=(spec_of(backend="tensorrt"),), files=(), sample="sha256:" + "0" * 64)
    repository = TritonRepository(FileBlobStore(tmp_path / "blobs"))
    with pytest.raises(ModelError) as found:
        repository.build(bundle, tmp_path / "repo")
    assert found.value.code == "backend-not-here" and not (tmp_path / "repo").exists()
    repository.build(bundle, tmp_path / "repo", native=True)
    assert message((tmp_path / "repo/m/config.pbtxt").read_text()).backend == "tensorrt"
