"""What every compression method promises, on a real graph: it loads, keeps its tensors, is no copy, and says what it did."""

import numpy as np
import pytest

from deployctl.compress import graph, methods, products
from deployctl.compress.inputs import NumberRows
from deployctl.compress.model import Model
from deployctl.compress.workbench import Calibration, Settings, file_digest
from deployctl.core.artifact import Artifact
from deployctl.core.bundle import SizeRule
from deployctl.core.fidelity import cosine
from deployctl.core.project import DistillSpec
from deployctl.errors import ProjectError
from deployctl.testing.onnx_models import write_mlp

FEEDS = tuple({"x": np.random.default_rng(i).normal(size=(1, 64)).astype(np.float32)} for i in range(8))


class MethodContract:
    """Inherit and set `name` for a method of your own."""

    name = ""
    least = 0.999  # likeness of the answers

    def accepts(self, base, settings):
        """A gate of 0.98 on the same rows."""

        def answers(artifact):
            return np.concatenate([graph.run(graph.session(settings.path(artifact)), f)["y"] for f in FEEDS]).astype(np.float64)

        return lambda artifact: cosine(answers(base), answers(artifact)).mean() >= 0.98

    def run(self, tmp_path):
        source = write_mlp(tmp_path / "mlp.onnx")
        settings = Settings(folder=tmp_path / "work", source=source)
        inputs, outputs, _ = graph.tensors(source)
        origin = Artifact(stage="onnx", digest=file_digest(source), files=(), inputs=inputs, outputs=outputs)
        base, report = methods.load(methods.BASE)(origin, settings, Calibration(feeds=FEEDS))
        if self.name != methods.BASE:
            made, report = methods.load(self.name)(base, settings, Calibration(feeds=FEEDS, accepts=self.accepts(base, settings)))
            return source, settings, base, made, report
        return source, settings, origin, base, report

    def test_it_makes_a_graph_with_the_same_tensors_that_runs_alone_and_in_batches(self, tmp_path):
        source, settings, _, made, _ = self.run(tmp_path)
        want, got = graph.session(source), graph.session(settings.path(made))
        assert (made.inputs, made.outputs) == graph.tensors(source)[:2]
        for feed in (FEEDS[0], {"x": np.concatenate([f["x"] for f in FEEDS])}):
            a, b = graph.run(want, feed)["y"], graph.run(got, feed)["y"]
            assert a.shape == b.shape
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > self.least

    def test_it_names_its_parent_its_files_and_what_it_did(self, tmp_path):
        _, settings, parent, made, report = self.run(tmp_path)
        assert made.parent == parent.digest and made.stage == "onnx"
        assert report.summary
        for ref in made.files:
            file = settings.path(made).parent / ref.path
            assert (file_digest(file), file.stat().st_size) == (ref.digest, ref.size_bytes)

    def test_it_leaves_its_input_alone(self, tmp_path):
        source, settings, parent, _, _ = self.run(tmp_path)
        if parent.files:
            assert file_digest(settings.path(parent)) == parent.digest
        assert file_digest(source) == file_digest(write_mlp(tmp_path / "again.onnx"))


class TestFp32(MethodContract):
    name = "fp32"

    def test_an_onnx_source_stays_byte_for_byte(self, tmp_path):
        source, _, _, made, _ = self.run(tmp_path)
        assert made.digest == file_digest(source)


class TestInt8Dynamic(MethodContract):
    name = "int8-dynamic"

    def test_it_is_smaller_and_integer(self, tmp_path):
        _, settings, parent, made, _ = self.run(tmp_path)
        assert made.size_bytes < 0.6 * parent.size_bytes
        kinds = {n.op_type for n in graph.load(settings.path(made)).graph.node}
        assert "MatMulInteger" in kinds and "MatMul" not in kinds


class TestInt8Weights(MethodContract):
    name = "int8-weights"

    def test_the_products_are_blocked_and_a_row_does_not_see_its_mates(self, tmp_path):
        _, settings, parent, made, _ = self.run(tmp_path)
        assert made.size_bytes < 0.6 * parent.size_bytes
        session = graph.session(settings.path(made))
        alone = graph.run(session, FEEDS[0])["y"]
        mates = {"x": np.concatenate([FEEDS[0]["x"], 1000 * FEEDS[1]["x"]])}
        assert graph.run(session, mates)["y"][:1] == pytest.approx(alone, abs=1e-5)


class TestInt8Static(MethodContract):
    name = "int8-static"
    least = 0.99

    def test_it_is_smaller_and_a_row_does_not_see_its_mates(self, tmp_path):
        _, settings, parent, made, report = self.run(tmp_path)
        assert made.size_bytes < 0.6 * parent.size_bytes and report.calibrated
        session = graph.session(settings.path(made))
        mates = {"x": np.concatenate([FEEDS[0]["x"], 1000 * FEEDS[1]["x"]])}
        assert graph.run(session, mates)["y"][:1] == pytest.approx(graph.run(session, FEEDS[0])["y"], abs=1e-5)


class TestFp16(MethodContract):
    name = "fp16"

    def test_it_is_half_as_large_and_its_inputs_and_outputs_stay_as_they_were(self, tmp_path):
        _, _, parent, made, _ = self.run(tmp_path)
        assert made.size_bytes < 0.6 * parent.size_bytes
        assert {t.dtype for t in (*made.inputs, *made.outputs)} == {"FP32"}


class TestLowRank(MethodContract):
    name = "low-rank"
    least = 0.97

    def test_it_multiplies_less(self, tmp_path):
        _, settings, parent, made, report = self.run(tmp_path)
        assert work(settings.path(made)) < work(settings.path(parent)) and report.calibrated


class TestPrune(MethodContract):
    name = "prune"
    least = 0.97

    def test_it_multiplies_less(self, tmp_path):
        _, settings, parent, made, report = self.run(tmp_path)
        assert work(settings.path(made)) < work(settings.path(parent)) and report.calibrated


@pytest.mark.torch
class TestDistill(MethodContract):
    name = "distill"
    least = 0.97

    def run(self, tmp_path):
        """Of a torch module: there is no student of an ONNX file."""
        torch = pytest.importorskip("torch")

        class Residual(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = torch.nn.ModuleList([torch.nn.Linear(64, 64) for _ in range(4)])
                self.last = torch.nn.Linear(64, 10)

            def forward(self, x):
                for block in self.blocks:
                    x = x + 0.3 * torch.tanh(block(x))
                return {"y": self.last(x)}

        torch.manual_seed(0)
        model = Model(module=Residual(), example_inputs={"x": torch.zeros(2, 64)})
        settings = Settings(folder=tmp_path / "work", model=model, distill=DistillSpec(steps=40, learning_rate=3e-3))
        origin = Artifact(stage="torch", digest="sha256:" + "0" * 64, files=(), inputs=(), outputs=())
        base, _ = methods.load(methods.BASE)(origin, settings, Calibration(feeds=({"x": np.concatenate([f["x"] for f in FEEDS])},)))
        arrays = [{"x": np.random.default_rng(100 + i).normal(size=(1, 64)).astype(np.float32)} for i in range(64)]
        rows = NumberRows(rule=SizeRule(), sizes=[1] * 64, lines=[{}] * 64, arrays=arrays, batched=True)
        made, report = methods.load(self.name)(base, settings, Calibration(feeds=FEEDS, training=rows))
        return settings.path(base), settings, base, made, report

    def test_it_leaves_its_input_alone(self, tmp_path):
        _, settings, base, _, _ = self.run(tmp_path)
        assert file_digest(settings.path(base)) == base.digest
        assert len(settings.model.module.blocks) == 4

    def test_it_multiplies_less(self, tmp_path):
        _, settings, parent, made, report = self.run(tmp_path)
        assert work(settings.path(made)) < work(settings.path(parent)) and report.calibrated


def work(path):
    """Multiplications for one row."""
    return sum(p.shape[0] * p.shape[1] for p in products.find(graph.load(path)))


def test_every_method_has_its_contract_test():
    tested = {c.name for c in MethodContract.__subclasses__()}
    assert tested == set(methods.METHODS)


def test_every_method_file_is_in_the_dict_and_the_reverse():
    from pathlib import Path

    files = {p.stem for p in Path(methods.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {a.split(":")[0].rpartition(".")[2] for a in methods.METHODS.values()}


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(ProjectError, match="did you mean int8-dynamic") as found:
        methods.load("int8-dynamc")
    assert found.value.code == "method-unknown" and "int8-weights" in found.value.hint
