"""Tuning by a measured grid alone, with and without knowing what its axes mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core import grid
from deployctl.core.servers import imagined, load_of


def surface(points, noise, rng):
    """A closed loop: throughput rises to a ceiling with concurrency, latency follows; more instances lift the ceiling."""
    n, c = points[:, 0], points[:, 1]
    value = np.minimum(c * 180.0, 220.0 + 25.0 * n) * (1 + noise * rng.normal(size=len(points)))
    return value, c / value * 1.15 * (1 + noise * rng.normal(size=len(points)))


@pytest.mark.parametrize("roles", [(), ("instances", "clients")], ids=["nothing known", "axes known"])
@pytest.mark.parametrize("limit", [0.02, 0.05, None])
def test_a_grid_without_a_model_is_solved_in_ten_measurements(limit, roles):
    points = np.array([(n, c) for n in (1, 2, 3, 4, 5) for c in (1, 2, 4, 8, 16, 32, 64)], dtype=float)
    known = grid.Grid(points=tuple(map(tuple, points)), roles=roles)
    truth, latency = surface(points, 0.0, np.random.default_rng(0))
    best = truth[latency <= (limit or np.inf)].max()
    scores = []
    for seed in range(9):
        rng, history = np.random.default_rng(seed), []
        while isinstance(step := grid.propose_on_grid(history, known, limit=limit, budget=10, seed=seed), grid.Ask):
            value, limited = surface(points, 0.02, rng)
            history.append(grid.Measured(index=step.index, value=value[step.index], limited=limited[step.index]))
        assert len(history) <= 10
        ok = step.index is not None and latency[step.index] <= (limit or np.inf) * 1.05
        scores.append(truth[step.index] / best if ok else 0.0)
    assert np.median(scores) >= 0.95


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), failures=st.integers(1, 30))
def test_failing_probes_never_repeat_nor_hang(seed, failures):
    known = grid.Grid(points=tuple((float(a), float(b)) for a in (1, 2, 4) for b in (1, 2, 4, 8)))
    history = []
    while isinstance(step := grid.propose_on_grid(history, known, limit=1.0, budget=failures, seed=seed), grid.Ask):
        assert step.index not in {m.index for m in history}
        history.append(grid.Measured(index=step.index, value=None, limited=None))
    assert step.index is None and len(history) == min(failures, 12)


def test_known_axes_need_fewer_measurements_where_one_axis_is_the_load():
    """An open loop whose best rate only one batch limit carries: the rate axis says where the gain lies."""
    points = tuple((b, r) for b in (1.0, 4.0, 16.0) for r in (50.0, 100.0, 200.0, 400.0, 800.0))
    capacity = {1.0: 120.0, 4.0: 300.0, 16.0: 900.0}
    truth = np.array([min(r, capacity[b]) for b, r in points])
    late = np.array([0.01 / (1 - r / capacity[b]) if r < capacity[b] else 10.0 for b, r in points])
    counts = {}
    for roles in ((), ("max_batch", "rate_rps")):
        known, history = grid.Grid(points=points, roles=roles), []
        while isinstance(step := grid.propose_on_grid(history, known, limit=0.2, budget=15, seed=1), grid.Ask):
            history.append(grid.Measured(index=step.index, value=truth[step.index], limited=late[step.index]))
        assert points[step.index] == (16.0, 800.0)
        counts[roles] = next(i for i, m in enumerate(history) if m.index == step.index)
    assert counts["max_batch", "rate_rps"] <= counts[()]


def test_imagined_servers_obey_what_every_server_obeys():
    points = [(n, c) for n in (1.0, 2.0) for c in (1.0, 2.0, 8.0, 64.0)]
    rate, late = imagined(load_of(points, ("instances", "clients")))
    assert (np.diff(rate.reshape(-1, 2, 4), axis=2) >= -1e-9).all()  # more clients, no less throughput
    np.testing.assert_allclose(np.diff(rate + late - np.log([c for _, c in points]), axis=1), 0.0, atol=1e-9)  # Little
    points = [(b, r) for b in (1.0, 8.0) for r in (10.0, 20.0, 40.0)]
    rate, late = imagined(load_of(points, ("max_batch", "rate_rps")))
    assert (rate <= np.log([r for _, r in points]) + 1e-9).all() and (np.diff(late.reshape(-1, 2, 3), axis=2) >= -1e-9).all()
    assert load_of(points, ("max_batch", None)) is None
