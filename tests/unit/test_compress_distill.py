"""The method distill: which blocks a student keeps, that training brings it nearer, and what it refuses. Tiny real modules."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deployctl.compress import blocks, graph, methods
from deployctl.compress.inputs import NumberRows
from deployctl.compress.model import Model
from deployctl.compress.trial import Trial
from deployctl.compress.workbench import Calibration, Settings
from deployctl.core.artifact import Artifact
from deployctl.core.bundle import SizeRule
from deployctl.core.project import CompressSpec, DistillSpec, ModelSource
from deployctl.errors import ModelError
from deployctl.flows.compress import cache_key

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from deployctl.compress.methods import distill as method  # noqa: E402 - after the check for torch

WIDTH, STEPS = 16, 6
SPEC = DistillSpec(steps=60, learning_rate=3e-3)
ORIGIN = Artifact(stage="torch", digest="sha256:" + "0" * 64, files=(), inputs=(), outputs=())


class Block(torch.nn.Module):
    """Attention with one head, then a feed-forward layer; each adds to what it reads."""

    def __init__(self, inner=32):
        super().__init__()
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.up, self.down = torch.nn.Linear(WIDTH, inner), torch.nn.Linear(inner, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + (q @ k.transpose(1, 2) / WIDTH**0.5).softmax(-1) @ v
        return x + self.down(torch.relu(self.up(x)))


class Encoder(torch.nn.Module):
    """Input [batch, steps, width] -> one answer [batch, 5] a row."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.head = torch.nn.Linear(WIDTH, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=1))


def encoder(count=4, kind=torch.nn.ModuleList):
    torch.manual_seed(0)
    parts = [Block() for _ in range(count)]
    return Encoder(kind(parts) if kind is torch.nn.ModuleList else kind(*parts)).eval()


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [{"x": rng.normal(size=(1, STEPS, WIDTH)).astype(np.float32)} for _ in range(count)]
    return NumberRows(rule=SizeRule(), sizes=[1] * count, lines=[{}] * count, arrays=arrays, batched=True)


def based(folder, module, **spec):
    """Settings for a module, and its fp32 graph."""
    model = Model(module=module, example_inputs={"x": torch.zeros(2, STEPS, WIDTH)})
    settings = Settings(folder=folder, model=model, distill=dataclasses.replace(SPEC, **spec))
    return settings, methods.load("fp32")(ORIGIN, settings, Calibration(feeds=(rows(2).feed([0, 1]),)))[0]


def answers(settings, artifact, feeds):
    session = graph.session(settings.path(artifact))
    return np.concatenate([graph.run(session, f)["OUTPUT0"] for f in feeds])


def trained(module, spec, *, clock=None, said=None):
    """A student of the module that is trained without an export, and what its training did."""
    stack = blocks.find(module)
    model = Model(module=module, example_inputs={"x": torch.zeros(2, STEPS, WIDTH)})
    small = dataclasses.replace(model, module=blocks.shortened(module, stack, blocks.chosen(stack.count, spec.keep_ratio)))
    more = {} if clock is None else {"clock": clock}
    with method.listening(small, stack.path) as student, method.listening(model, stack.path) as teacher:
        done = method.train(student, teacher, rows(64), spec, batch=16, say=(said if said is not None else []).append, **more)
    return small.module, done


def weights(module):
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


# ── which blocks ──


@pytest.mark.parametrize(
    ("count", "ratio", "kept"), [(12, 0.5, [0, 2, 4, 7, 9, 11]), (6, 0.5, [0, 2, 5]), (2, 0.5, [0]), (4, 0.01, [0]), (4, 0.99, [0, 2, 3])]
)
def test_blocks_stay_evenly_from_first_to_last_as_in_distilbert(count, ratio, kept):
    assert blocks.chosen(count, ratio) == kept


@pytest.mark.parametrize("kind", [torch.nn.ModuleList, torch.nn.Sequential])
def test_the_run_of_equal_blocks_is_found_and_the_copy_has_fewer_with_the_same_weights(kind):
    module = encoder(4, kind)
    before = weights(module)
    stack = blocks.find(module)
    student = blocks.shortened(module, stack, [0, 3])
    assert (stack.path, stack.start, stack.count) == ("layers", 0, 4)
    assert len(student.layers) == 2 and len(module.layers) == 4
    assert same(weights(student.layers[1]), weights(module.layers[3])) and same(weights(module), before)


def test_the_largest_run_counts_and_a_block_of_another_form_stays():
    module = encoder()
    module.layers.insert(0, Block(inner=8))
    module.heads = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(9)])
    stack = blocks.find(module)
    assert (stack.path, stack.start, stack.count) == ("layers", 1, 4)
    student = blocks.shortened(module, stack, [0, 3])
    assert [b.up.out_features for b in student.layers] == [8, 32, 32]


def test_layers_that_differ_are_no_blocks():
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.ReLU())
    assert blocks.find(module) is None


# ── what training does ──


def test_the_student_has_fewer_blocks_and_comes_nearer_on_rows_that_it_never_saw(tmp_path):
    module = encoder()
    before = weights(module)
    settings, base = based(tmp_path, module)
    made, report = methods.load("distill")(base, settings, Calibration(feeds=(), training=rows(128)))
    fresh = [rows(40, seed=9).feed([r]) for r in range(40)]
    wanted, got = answers(settings, base, fresh), answers(settings, made, fresh)
    plain = blocks.shortened(module, blocks.find(module), [0, 3])
    with torch.no_grad():
        raw = np.concatenate([plain(torch.from_numpy(f["x"])).numpy() for f in fresh])
    assert np.square(got - wanted).mean() < 0.5 * np.square(raw - wanted).mean()
    assert made.size_bytes < 0.75 * base.size_bytes
    assert (made.inputs, made.outputs) == (base.inputs, base.outputs) and made.parent == base.digest
    assert "2 of 4 blocks of layers (0, 3)" in report.summary and report.calibrated and report.any_gate
    assert same(weights(module), before) and not any(b._forward_hooks for b in module.layers), "the teacher stays as it was"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    def made(name, **spec):
        (tmp_path / name).mkdir()
        settings, base = based(tmp_path / name, encoder(), steps=5, **spec)
        return methods.load("distill")(base, settings, Calibration(feeds=(), training=rows(64)))[0].digest

    assert made("a") == made("b") != made("c", seed=1)


def test_watched_rows_are_not_trained_on_and_the_best_state_is_kept():
    said = []
    module = encoder()
    for block in module.layers[1:3]:  # they do nothing, so the student is as good as its teacher before any step
        for parameter in (*block.qkv.parameters(), *block.down.parameters()):
            torch.nn.init.zeros_(parameter)
    student, done = trained(module, dataclasses.replace(SPEC, steps=40, learning_rate=1.0), said=said)
    first = blocks.shortened(module, blocks.find(module), [0, 3])
    assert (done.rows, done.watched, done.steps) == (56, 8, 40)
    assert len(said) == 20 and "step 40 of 40" in said[-1]
    assert done.after == done.before and same(weights(student), weights(first)), "a training that makes it worse leaves it as it began"


def test_the_time_limit_ends_the_training_and_is_said():
    times = iter(range(100))
    _, done = trained(encoder(), dataclasses.replace(SPEC, limit_s=5.0), clock=lambda: float(next(times)))
    assert done.steps == 4
    (note,) = done.notes(SPEC)
    assert "4 of 60 steps" in note
    _, whole = trained(encoder(), dataclasses.replace(SPEC, steps=3))
    assert whole.steps == 3 and whole.notes(dataclasses.replace(SPEC, steps=3)) == ()


def test_the_rate_rises_and_falls():
    found = [method.rate_ratio(step, 20) for step in range(20)]
    assert found[:3] == [0.5, 1.0, 1.0] and found == sorted(found[:2]) + sorted(found[2:], reverse=True)
    assert 0 < found[-1] < 0.1


# ── what is refused ──


class Fixed(Encoder):
    """Needs all of its blocks."""

    def forward(self, x):
        return self.head((self.layers[0](x) + self.layers[3](x)).mean(dim=1))


def refusal(tmp_path, module, training):
    settings, base = based(tmp_path, module)
    with pytest.raises(ModelError) as found:
        methods.load("distill")(base, settings, Calibration(feeds=(), training=training))
    assert found.value.hint
    return found.value


def test_a_model_without_repeated_blocks_is_refused_with_the_reason(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    error = refusal(tmp_path, _Named(module), rows(64))
    assert error.code == "distill-impossible" and "two equal blocks" in error.why


class _Named(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_a_model_that_needs_all_its_blocks_is_refused_with_the_reason(tmp_path):
    torch.manual_seed(0)
    error = refusal(tmp_path, Fixed(torch.nn.ModuleList(Block() for _ in range(4))), rows(64))
    assert error.code == "distill-impossible" and "IndexError" in error.why and "2 of its 4 blocks" in error.why


def test_too_few_lines_are_refused_with_how_many_it_takes(tmp_path):
    error = refusal(tmp_path, encoder(), None)
    assert error.code == "sample-small" and "136 lines" in error.hint


def test_an_onnx_source_is_refused(tmp_path):
    settings, base = based(tmp_path, encoder())
    with pytest.raises(ModelError) as found:
        methods.load("distill")(base, dataclasses.replace(settings, model=None), Calibration(feeds=(), training=rows(64)))
    assert found.value.code == "distill-impossible" and "python:MODULE:FUNCTION" in found.value.hint


def test_rows_that_judge_are_never_trained_on():
    judged, others = rows(96), rows(32, seed=1)
    settings = Settings(folder=Path("unused"))
    assert Trial(others, judged, ORIGIN, settings, 0.98).calibration([]).training is others
    assert Trial(rows(31), judged, ORIGIN, settings, 0.98).calibration([]).training is None
    assert Trial(None, judged, ORIGIN, settings, 0.98).calibration([]).training is None


# ── what is remembered ──


def test_a_setting_of_the_training_counts_where_a_recipe_names_it_and_nowhere_else(tmp_path):
    def key(methods, steps):
        spec = CompressSpec(methods=methods, distill=DistillSpec(steps=steps))
        return cache_key(SimpleNamespace(model=ModelSource(kind="python", value="m:build"), compress=spec), tmp_path)

    assert key(("fp32", "distill+int8-dynamic"), 10) != key(("fp32", "distill+int8-dynamic"), 20)
    assert key(("fp32", "prune"), 10) == key(("fp32", "prune"), 20)
