"""Choice and domination among measured variants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core.artifact import Artifact, Fidelity, FidelityCase, FileRef, LatencyPoint, Variant
from deployctl.core.pareto import choose, cost_s, mark_dominated

DIGEST = "sha256:" + "a" * 64


def variant(name, *, times=(0.01, 0.05), size=100, fidelity=0.99, gate=0.98, device="cpu-2c"):
    case = FidelityCase(name="alone", mean=fidelity, minimum=fidelity, lower95=fidelity, samples=10)
    return Variant(
        name=name,
        steps=(name,),
        artifact=Artifact(stage="onnx", digest=DIGEST, files=(FileRef(path="m", digest=DIGEST, size_bytes=size),), inputs=(), outputs=()),
        fidelity=Fidelity(metric="cosine", cases=(case,), gate=gate),
        latency=tuple(LatencyPoint(batch=b, size=1, seconds=9.0, cpu_s=t) for b, t in zip((1, 8), times, strict=True)),
        device=device,
    )


def test_the_fastest_that_passes_is_chosen():
    assert choose([variant("fp32"), variant("fast", times=(0.005, 0.02))]).name == "fast"
    assert choose([variant("fp32"), variant("fast", times=(0.005, 0.02), fidelity=0.9)]).name == "fp32"


def test_among_equally_fast_the_smaller_is_chosen():
    assert choose([variant("big", times=(0.01, 0.05)), variant("small", times=(0.0101, 0.0505), size=20)]).name == "small"


def test_nothing_passes_nothing_is_chosen():
    assert choose([]) is None
    assert choose([variant("a", fidelity=0.5)]) is None


def test_slower_bigger_and_no_better_is_dominated_and_stays_in_the_list():
    marked = mark_dominated([variant("good"), variant("bad", times=(0.02, 0.1), size=200, fidelity=0.985)])
    assert [(v.name, v.dominated_by) for v in marked] == [("good", None), ("bad", "good")]


@pytest.mark.parametrize(
    "redeeming", [{"times": (0.005, 0.1)}, {"size": 50}, {"fidelity": 0.999}, {"device": "cpu-8c"}], ids=["one time", "size", "fidelity", "device"]
)
def test_one_redeeming_quality_is_enough(redeeming):
    worse = {"times": (0.02, 0.1), "size": 200, "fidelity": 0.985, **redeeming}
    assert [v.dominated_by for v in mark_dominated([variant("good"), variant("other", **worse)])] == [None, None]


def test_a_variant_that_fails_the_gate_dominates_nobody():
    marked = mark_dominated([variant("broken", times=(0.001, 0.001), size=1, fidelity=0.97), variant("worse", fidelity=0.96)])
    assert [v.dominated_by for v in marked] == [None, None]


def test_measuring_noise_alone_dominates_nobody():
    marked = mark_dominated([variant("a", times=(0.0100, 0.0500)), variant("b", times=(0.0102, 0.0492))])
    assert [v.dominated_by for v in marked] == [None, None]


TIMES = st.floats(1e-4, 1.0)


@given(st.lists(st.tuples(TIMES, TIMES, st.integers(1, 1000), st.floats(0.9, 1.0)), min_size=1, max_size=5))
def test_the_chosen_one_is_never_slower_than_a_rival_beyond_noise(rows):
    variants = [variant(str(i), times=(a, b), size=s, fidelity=f) for i, (a, b, s, f) in enumerate(rows)]
    chosen = choose(mark_dominated(variants))
    passing = [v for v in variants if v.fidelity.passed]
    assert (chosen is None) == (not passing)
    if chosen:
        assert cost_s(chosen) <= min(map(cost_s, passing)) * 1.0301
