"""Methods that change a graph's shape: what they find in it, what they leave, and how far they go. Tiny real graphs, no torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.compress import aim, graph, groups, methods, products
from deployctl.compress.methods import low_rank, prune
from deployctl.compress.products import Moments
from deployctl.compress.workbench import Calibration, Settings, file_digest
from deployctl.core.artifact import Artifact
from deployctl.errors import ProjectError
from deployctl.testing.onnx_models import write_encoder, write_mlp, write_transformer

FEEDS = tuple({"x": np.random.default_rng(i).normal(size=(1, 6, 32)).astype(np.float32)} for i in range(40))


def based(tmp_path, write=write_transformer, **options):
    """An artifact of a tiny graph."""
    settings = Settings(folder=tmp_path / "work", source=write(tmp_path / "source.onnx", **options))
    inputs, outputs, _ = graph.tensors(settings.source)
    origin = Artifact(stage="onnx", digest=file_digest(settings.source), files=(), inputs=inputs, outputs=outputs)
    return settings, methods.load("fp32")(origin, settings, Calibration(feeds=FEEDS))[0]


def answers(settings, artifact):
    session = graph.session(settings.path(artifact))
    return np.concatenate([graph.run(session, f)["y"] for f in FEEDS])


def near(settings, base, bound):
    return lambda artifact: bool(np.abs(answers(settings, artifact) - answers(settings, base)).max() < bound)


# ── what is found ──


def test_products_are_those_with_a_weight_of_their_own(tmp_path):
    found = products.find(graph.load(write_transformer(tmp_path / "t.onnx")))
    assert [p.source for p in found] == ["x", "x", "x", "joined", "attended", "relu"]
    assert [p.shape for p in found] == [(32, 32)] * 4 + [(32, 64), (64, 32)]


def test_moments_are_means_over_all_rows(tmp_path):
    path = write_transformer(tmp_path / "t.onnx")
    found = products.moments(path, {"x": 32, "relu": 64}, FEEDS)
    rows = np.concatenate([f["x"].reshape(-1, 32) for f in FEEDS]).astype(np.float64)
    assert found["x"].second == pytest.approx(rows.T @ rows / len(rows)) and found["x"].mean == pytest.approx(rows.mean(axis=0))
    assert found["relu"].second.shape == (64, 64) and (found["relu"].second >= 0).all()
    weight = np.random.default_rng(0).normal(size=(32, 5))
    assert found["x"].variance(weight) == pytest.approx((rows @ weight).var(axis=0).sum())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.onnx"]


def test_heads_and_inner_columns_are_found(tmp_path):
    found = groups.find(graph.load(write_transformer(tmp_path / "t.onnx")))
    assert [(g.size, g.count, len(g.entries), len(g.vectors)) for g in found] == [(8, 4, 3, 3), (1, 64, 1, 1)]
    (mlp,) = groups.find(graph.load(write_mlp(tmp_path / "m.onnx")))
    assert (mlp.size, mlp.count) == (1, 128)


def test_a_graph_whose_columns_are_its_answer_has_nothing_to_take_out(tmp_path):
    settings, base = based(tmp_path, write_encoder)
    assert groups.find(graph.load(settings.path(base))) == []
    made, report = methods.load("prune")(base, settings, Calibration(feeds=()))
    assert report.notes and not report.calibrated
    assert settings.path(made).exists() and settings.path(base).exists()


# ── what is left ──


def test_heads_and_columns_that_nobody_reads_go_first_and_answers_stay(tmp_path):
    settings, base = based(tmp_path, idle_heads=2, idle_columns=32)
    made, report = methods.load("prune")(base, settings, Calibration(feeds=FEEDS, accepts=near(settings, base, 1e-3)))
    assert report.summary == "2 of 4 heads and 32 of 64 feed-forward columns taken out, the rest refitted"
    assert answers(settings, made) == pytest.approx(answers(settings, base), abs=1e-3)
    shapes = [p.shape for p in products.find(graph.load(settings.path(made)))]
    assert shapes == [(32, 16)] * 3 + [(16, 32), (32, 32), (32, 32)]


def test_the_rest_is_refitted_for_what_was_taken_out(tmp_path):
    settings, base = based(tmp_path, idle_heads=0, idle_columns=0)
    (_, columns) = groups.find(graph.load(settings.path(base)))
    moments = products.moments(settings.path(base), {"relu": 64}, FEEDS)["relu"]
    keep = np.arange(8, 64)
    weight, damped = columns.sink.get(), prune.damped(moments.second)
    refit = np.linalg.solve(damped[np.ix_(keep, keep)], damped[keep] @ weight)

    def error(candidate):
        off = weight.copy()
        off[keep] -= candidate
        return np.einsum("ij,ij->", off, damped @ off)

    assert error(refit) < 0.9 * error(weight[keep])
    # the closed form of the cost is the error of the refit
    alone = np.delete(np.arange(64), 5)
    single = np.linalg.solve(damped[np.ix_(alone, alone)], damped[alone] @ weight)
    off = weight.copy()
    off[alone] -= single
    assert prune.costs_of(columns, moments)[5] * moments.variance(weight) * columns.weights == pytest.approx(
        np.einsum("ij,ij->", off, damped @ off), rel=1e-6
    )


def moments_of(x):
    return Moments(second=x.T @ x / len(x), mean=x.mean(axis=0))


def test_a_product_of_low_rank_loses_nothing_and_one_whose_inputs_lie_in_a_plane_needs_no_more():
    rng = np.random.default_rng(0)
    thin = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 50))
    left, right = low_rank.decompose(thin, moments_of(rng.normal(size=(500, 40))), 1.0 - 1e-6)
    assert left.shape[1] == 6 and left @ right == pytest.approx(thin, abs=1e-3)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 40))
    full = rng.normal(size=(40, 50))
    left, right = low_rank.decompose(full, moments_of(x), 0.999)
    assert left.shape[1] == 3 and x @ left @ right == pytest.approx(x @ full, abs=0.05 * np.abs(x @ full).max())


@given(st.floats(min_value=0.5, max_value=0.999), st.floats(min_value=0.0, max_value=50.0))
def test_the_share_of_variance_is_kept_with_the_smallest_rank_however_far_off_the_mean_is(share, offset):
    rng = np.random.default_rng(1)
    x, weight = offset + rng.normal(size=(300, 12)) * np.arange(1, 13), rng.normal(size=(12, 9))
    left, right = low_rank.decompose(weight, moments_of(x), share)
    off, rank = x @ weight - x @ left @ right, left.shape[1]
    allowed = (1.0 - share) * (x @ weight).var(axis=0).sum()
    assert (off**2).sum(axis=1).mean() <= allowed * 1.01 + 1e-6
    singular = np.linalg.svd(x @ weight / np.sqrt(len(x)), compute_uv=False) ** 2
    assert rank == 1 or singular[rank - 1 :].sum() > allowed * 0.99


# ── how far ──


@given(st.integers(min_value=0, max_value=9))
def test_the_strongest_step_that_passes_is_taken_and_nothing_else_is_left(passing):
    alive, builds = set(), []

    class Bench:
        def discard(self, artifact):
            alive.discard(artifact.digest)

    def build(step):
        builds.append(step)
        alive.add(f"sha256:{step}")
        return Artifact(stage="onnx", digest=f"sha256:{step}", files=(), inputs=(), outputs=()), f"step {step}"

    calibration = Calibration(feeds=(), accepts=lambda a: int(a.digest.removeprefix("sha256:")) < passing)
    made, report = aim.strongest(range(9), build, Bench(), calibration)
    assert report.summary == f"step {max(passing - 1, 0)}" and report.calibrated
    assert alive == {made.digest} and len(builds) <= 5


def test_a_recipe_is_its_steps_in_order():
    assert methods.recipe("fp32") == []
    assert [name for name, _ in methods.recipe("prune+int8-dynamic")] == ["prune", "int8-dynamic"]


@pytest.mark.parametrize("name", ["int8-dynamic+prune", "fp32+prune", "prune+prune", "fp16+int8-dynamic", "prune+distill"])
def test_what_cannot_follow_is_refused(name):
    with pytest.raises(ProjectError) as found:
        methods.recipe(name)
    assert found.value.code == "recipe-order" and found.value.why


def test_an_unknown_step_of_a_recipe_is_refused():
    with pytest.raises(ProjectError, match="prun"):
        methods.recipe("prun+int8-dynamic")
