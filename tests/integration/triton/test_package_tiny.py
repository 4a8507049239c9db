"""package on a real Triton with tiny real models: proof, caching, batches, kept repositories, refusals."""

import json
import shutil

import pytest

from deployctl import config, share, wiring
from deployctl.adapters.triton import TritonApi
from deployctl.errors import ModelError, SloUnreachable
from deployctl.flows import _proof
from deployctl.flows.compress import compressed
from deployctl.flows.package import assemble, export, package, pick
from deployctl.testing.memory import NotedProgress
from deployctl.testing.onnx_models import write_encoder, write_mlp, write_numbers, write_project, write_texts, write_tokenizer

pytestmark = pytest.mark.triton


class CountingLauncher:
    """The real launcher; counts starts."""

    def __init__(self, inner):
        self.inner, self.starts = inner, 0

    def start(self, *args, **kwargs):
        self.starts += 1
        return self.inner.start(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Shop:
    """One project folder and its ports."""

    def __init__(self, root):
        self.root = root
        self.project = config.load(root)
        self.tools = wiring.LazyToolbox(root)
        self.launcher = self.tools.__dict__["launcher"] = CountingLauncher(self.tools.launcher)
        self.progress = NotedProgress()

    def package(self, **kwargs):
        return package(self.project, self.tools, self.progress, **kwargs)

    def sample(self, bundle):
        return [json.loads(line) for line in self.tools.blobs.path(bundle.sample).read_text().splitlines()]


@pytest.fixture(scope="module")
def text_shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    write_encoder(root / "enc.onnx")
    write_tokenizer(root / "tokenizer.json")
    write_texts(root / "samples.jsonl", lines=24)
    more = ", tokenizer: tokenizer.json, pooling: mean"
    write_project(root, source="onnx:enc.onnx", more=more, extra="compress: {try: [fp32, int8-dynamic]}\n")
    return Shop(root)


@pytest.fixture(scope="module")
def number_shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("numbers")
    write_mlp(root / "mlp.onnx")
    write_numbers(root / "samples.jsonl", lines=24)
    write_project(root, source="onnx:mlp.onnx", extra="compress: {try: [fp32]}\n")
    return Shop(root)


def test_a_text_model_is_proven_once_and_then_remembered(text_shop):
    first = text_shop.package()
    starts = text_shop.launcher.starts
    assert starts == 1
    assert any("16 compared" in text for _, text in text_shop.progress.said)
    assert text_shop.package() == first
    assert text_shop.launcher.starts == starts
    assert text_shop.tools.bundles.load(first.digest) == first
    assert [m.name for m in first.models] == ["tokenizer", "encoder", "tiny"]
    assert not any("__pycache__" in f.path for f in first.files)


def test_the_sample_carries_sizes_and_complete_shapes(text_shop):
    lines = text_shop.sample(text_shop.package())
    assert len(lines) == 24
    assert {line["size"] for line in lines} <= {16, 32, 48, 64}
    assert all(line["inputs"]["TEXT"]["shape"] == [1, 1] for line in lines)


def test_force_proves_again_and_comes_to_the_same_bundle(number_shop):
    first = number_shop.package()
    starts = number_shop.launcher.starts
    assert number_shop.package(force=True) == first
    assert number_shop.launcher.starts == starts + 1


def test_the_exported_twin_serves_without_deployctl_and_batches_agree_with_single_requests(text_shop, tmp_path):
    bundle = text_shop.package()
    export(bundle, tmp_path / "repo", text_shop.tools, "local", native=False)
    texts = [line["inputs"]["TEXT"]["data"][0] for line in text_shop.sample(bundle)[:3]]
    with text_shop.tools.launcher.start(tmp_path / "repo") as server:

        def ask(data):
            return server.infer("tiny", {"TEXT": {"dtype": "BYTES", "shape": [len(data), 1], "data": data}})["sentence_embedding"]

        singles = [ask([t])[0] for t in texts]
        together = ask(texts)
        assert len(together) == 3
        for one, among in zip(singles, together, strict=True):
            assert among == pytest.approx(one, abs=0.05)
        assert isinstance(server.api, TritonApi)


def test_a_native_export_has_the_real_backend_and_no_twin(text_shop, tmp_path):
    export(text_shop.package(), tmp_path / "repo", text_shop.tools, "local", native=True)
    assert 'backend: "onnxruntime"' in (tmp_path / "repo/encoder/config.pbtxt").read_text()
    assert sorted(p.name for p in (tmp_path / "repo/encoder/1").iterdir()) == ["model.onnx"]
    assert (tmp_path / "repo/encoder/config.pbtxt").stat().st_mode & 0o200


def test_other_answers_than_the_variants_own_are_refused_and_not_remembered(number_shop, tmp_path):
    record = compressed(number_shop.project, number_shop.tools, number_shop.progress)
    variant = pick(record.variants, None)
    bundle = assemble("tiny", record, variant, number_shop.tools)
    lines = number_shop.tools.blobs.path(record.answers[variant.name]).read_text().splitlines()
    wrong = number_shop.tools.blobs.put_bytes("\n".join([*lines[1:], lines[0]]).encode())
    known = set((number_shop.root / ".deployctl/cache/proof").rglob("*.json"))
    with pytest.raises(ModelError) as found:
        _proof.prove(bundle, wrong, number_shop.tools, number_shop.progress)
    assert found.value.code == "proof-differs"
    assert set((number_shop.root / ".deployctl/cache/proof").rglob("*.json")) == known
    assert list((number_shop.root / ".deployctl/proof").iterdir()) == []


def test_a_damaged_blob_is_found_before_anything_starts(number_shop, tmp_path):
    bundle = number_shop.package()
    ref = next(f for f in bundle.files if f.path.endswith("model.onnx"))
    blob = number_shop.tools.blobs.path(ref.digest)
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ModelError) as found:
            number_shop.tools.repository.build(bundle, tmp_path / "repo")
        assert found.value.code == "blob-damaged" and not (tmp_path / "repo").exists()
    finally:
        blob.write_bytes(whole)


def test_a_model_without_a_batch_dimension_is_served(tmp_path):
    write_mlp(tmp_path / "mlp.onnx", batch=1)
    write_numbers(tmp_path / "samples.jsonl", lines=3)
    shop = Shop(write_project(tmp_path, source="onnx:mlp.onnx", extra="compress: {try: [fp32]}\n"))
    bundle = shop.package()
    assert bundle.models[0].serving.max_batch == 0
    assert shop.sample(bundle)[0]["inputs"]["x"]["shape"] == [1, 64]


def test_no_variant_passes_is_97_and_nothing_starts(number_shop):
    text = (number_shop.root / "deploy.yaml").read_text()
    (number_shop.root / "deploy.yaml").write_text(text.replace("try: [fp32]", "fidelity: {min: 0.99999999}, try: [int8-dynamic]"))
    try:
        shop = Shop(number_shop.root)
        with pytest.raises(SloUnreachable) as found:
            shop.package()
        assert (found.value.exit_code, found.value.code, shop.launcher.starts) == (97, "fidelity-gate", 0)
    finally:
        (number_shop.root / "deploy.yaml").write_text(text)


KEPT = """name: "nap" backend: "python" max_batch_size: 4
# a comment that people wrote
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 2 ] } output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 2 ] }
instance_group { kind: KIND_CPU count: 1 } metric_tags { key: "team" value: "a" }
parameters { key: "t0_s" value { string_value: "0.001" } } %s
"""


def repository(root, more=""):
    shutil.copytree(share.folder("model_repo") / "sleep", root / "repo/nap", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "repo/nap/config.pbtxt").write_text(KEPT % more)
    (root / "repo/nap/1/__pycache__").mkdir()
    (root / "repo/nap/1/__pycache__/model.pyc").write_bytes(b"stale")
    (root / "samples.jsonl").write_text('{"INPUT0": [1, 2]}\n{"INPUT0": [3, 4]}\n')
    return Shop(write_project(root, source="triton:repo", name="nap"))


def test_an_existing_repository_is_kept_and_proven(tmp_path):
    shop = repository(tmp_path, "dynamic_batching { max_queue_delay_microseconds: 500 }")
    bundle = shop.package()
    assert (bundle.entry, bundle.variant, bundle.models[0].tunable) == ("nap", "as-is", True)
    assert [f.path for f in bundle.files] == ["nap/1/model.py", "nap/config.pbtxt"]
    kept = next(f for f in bundle.files if f.path == "nap/config.pbtxt")
    assert "a comment that people wrote" in shop.tools.blobs.path(kept.digest).read_text()
    assert any("2 requests answered; 0 compared" in text for _, text in shop.progress.said)


def test_a_repository_that_crashes_at_load_is_refused_with_the_cause(tmp_path):
    shop = repository(tmp_path, 'parameters { key: "fail_at_load" value { string_value: "raise" } }')
    with pytest.raises(ModelError, match="told to fail while it loads") as found:
        shop.package()
    assert found.value.code == "triton-load-failed"
    assert not list((tmp_path / ".deployctl/cache/proof").rglob("*.json"))


def test_a_sample_that_does_not_fit_the_repository_names_its_line(tmp_path):
    shop = repository(tmp_path)
    (tmp_path / "samples.jsonl").write_text('{"INPUT0": [1, 2]}\n{"INPUT0": [1, "b"]}\n')
    with pytest.raises(ModelError, match='"b" is no FP32') as found:
        shop.package()
    assert (found.value.where, shop.launcher.starts) == ("samples.jsonl:2", 0)


def test_an_engine_is_packaged_and_refused_on_this_machine(tmp_path):
    (tmp_path / "net.plan").write_bytes(b"engine")
    tensors = [{"name": "x", "dtype": "FP32", "shape": [2]}]
    described = {"file": "net.plan", "backend": "tensorrt", "max_batch": 8, "inputs": tensors, "outputs": tensors}
    (tmp_path / "net.json").write_text(json.dumps(described))
    (tmp_path / "samples.jsonl").write_text('{"x": [1, 2]}\n')
    shop = Shop(write_project(tmp_path, source="opaque:net.json", name="net"))
    bundle = shop.package()
    assert [f.path for f in bundle.files] == ["net/1/model.plan"]
    assert any("no backend tensorrt" in text for _, text in shop.progress.said)
    with pytest.raises(ModelError) as found:
        shop.tools.repository.build(bundle, tmp_path / "here")
    assert found.value.code == "backend-not-here"
