"""Fidelity: known values, the bound's coverage, and the gate on the worst case."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core.fidelity import assess, cosine, lower_bound, top1_agreement


def test_cosine_of_known_rows():
    parent = np.array([[1.0, 0], [1, 0], [1, 0], [0, 0], [0, 0], [1, 1], [1, 1]])
    variant = np.array([[2.0, 0], [0, 3], [-1, 0], [0, 0], [0, 1], [np.nan, 1], [np.inf, 1]])
    assert cosine(parent, variant).tolist() == [1, 0, -1, 1, 0, -1, -1]


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_cosine_does_not_see_length_and_stays_in_bounds(seed, factor):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    assert cosine(a, b) == pytest.approx(cosine(a, factor * b), abs=1e-9)
    assert (np.abs(cosine(a, b)) <= 1).all()


def test_the_bound_of_one_value_or_of_equal_values_is_the_value():
    rng = np.random.default_rng(0)
    assert lower_bound(np.array([0.97]), rng) == 0.97
    assert lower_bound(np.full(9, 0.5), rng) == 0.5


def test_the_bound_of_known_values_is_students():
    """Mean 2, s 1, n 3: 2 - 2.91999 / sqrt(3) = 0.31413; the bootstrap's fifth percentile of three values lies above."""
    assert lower_bound(np.array([1.0, 2, 3]), np.random.default_rng(0)) == pytest.approx(0.31413, abs=1e-4)


def test_the_bound_lies_below_the_true_mean_about_as_often_as_it_says():
    """A left-skewed measure bounded at 1, as cosines are: 95 % of 400 samples of 40, give or take."""
    rng = np.random.default_rng(1)
    draws = 1 - 0.01 * rng.exponential(size=(400, 40))
    covered = sum(lower_bound(row, rng) <= 0.99 for row in draws)
    assert covered >= 0.90 * 400


def test_top1_by_index_and_by_neighbour():
    parent = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    assert top1_agreement(parent, parent[:, ::-1], neighbours=False).tolist() == [0, 0, 0, 0]
    assert top1_agreement(parent, parent, neighbours=True).tolist() == [1, 1, 1, 1]
    assert top1_agreement(parent, parent[[0, 2, 1, 3]], neighbours=True).tolist() == [0, 0, 0, 0]


def fidelity(noise_by_case, *, gate=0.98, sizes=None):
    rng = np.random.default_rng(2)
    parent = rng.normal(size=(30, 16))
    answers = {name: parent + noise * rng.normal(size=parent.shape) for name, noise in noise_by_case.items()}
    return assess(parent, answers, sizes=sizes or [16] * 30, gate=gate, neighbours=True, rng=rng)


def test_the_gate_reads_the_worst_case():
    good = fidelity({"alone": 0.0, "padded": 0.01, "batched": 0.01})
    assert good.passed and good.cases[0].lower95 == pytest.approx(1.0)
    bad = fidelity({"alone": 0.0, "padded": 0.01, "batched": 0.5})
    assert not bad.passed and bad.worst.name == "batched"


def test_a_mean_above_the_gate_is_not_enough():
    result = fidelity({"alone": 0.1}, gate=0.0)
    case = result.cases[0]
    between = (case.mean + case.lower95) / 2
    assert not fidelity({"alone": 0.1}, gate=between).passed
    assert case.minimum <= case.lower95 < case.mean


def test_slices_are_by_size_and_count_every_row():
    result = fidelity({"alone": 0.1}, sizes=[16] * 10 + [48] * 20)
    assert [(s.name, s.samples) for s in result.slices] == [("size 16", 10), ("size 48", 20), ("top1", 30)]


def test_the_same_seed_gives_the_same_figures():
    assert fidelity({"alone": 0.2}) == fidelity({"alone": 0.2})
