"""A profile from an earlier one: exact where the law is the same up to a factor, refused where it is not, never from elsewhere."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core.profile import ColdStart, ServicePoint, ServiceProfile, StageProfile, StageSplit
from deployctl.core.warmstart import TRUSTED_RATIO, Place, earlier, nearest, probed

BATCHES, SIZES = (1, 2, 4, 8, 16), (16, 64)
PLACE = Place(bundle="new", device="cpu-2c", triton_version="2.51.0", cores=1.0)


def stage(model, law):
    points = tuple(ServicePoint(batch=b, size=s, mean_s=law(b, s), std_s=0.1 * law(b, s), count=9) for s in SIZES for b in BATCHES)
    return StageProfile(model=model, points=points)


def profile(*laws, **more):
    stages = tuple(stage(f"m{i}", law) for i, law in enumerate(laws))
    split = StageSplit(model="m0", size=16, requests=6, queue_s=0.0, compute_s=0.01)
    known = ServiceProfile(
        stages=stages, overhead_s=0.001, request_cpu_s=0.0004, device="cpu-2c", bundle="old", triton_version="2.51.0", cores=1.0,
        cold_start=ColdStart(process_s=2.0), splits=(split,),
    )  # fmt: skip
    return dataclasses.replace(known, **more)


def seen(law, largest=16):
    return [ServicePoint(batch=b, size=s, mean_s=law(b, s), std_s=0.0, count=5) for b, s in probed(SIZES, 16, largest)]


def before(batch, size):
    return (0.004 + 0.002 * batch) * size / 16


@given(ratio=st.floats(0.1, 10.0), exponent=st.floats(-0.3, 0.3))
def test_a_power_of_the_batch_times_a_factor_is_found_exactly(ratio, exponent):
    def now(batch, size):
        return ratio * batch**exponent * before(batch, size)

    found = nearest([profile(before)], {"m0": seen(now)}, PLACE)
    assert found.misfit_ratio < 1e-9 and found.factors["m0"] == pytest.approx(ratio)
    for p in found.profile.stages[0].points:
        assert p.mean_s == pytest.approx(now(p.batch, p.size)) and p.std_s == pytest.approx(0.1 * p.mean_s)


def test_what_leaves_says_where_it_is_from_and_claims_no_measurement():
    found = nearest([profile(before)], {"m0": seen(before)}, PLACE).profile
    assert found.bundle == "new" and found.scaled_from == "old"
    assert found.cold_start is None and found.splits == ()
    assert all(p.count == 0 for p in found.stages[0].points)
    assert found.overhead_s == 0.001 and found.request_cpu_s == 0.0004


@pytest.mark.parametrize(("power", "fits"), [(1.0, True), (1.05, True), (1.6, False), (0.3, False)])
def test_another_growth_with_the_size_is_refused(power, fits):
    def now(batch, size):
        return before(batch, 16) * (size / 16) ** power

    found = nearest([profile(before)], {"m0": seen(now)}, PLACE)
    assert (found is not None) == fits
    assert found is None or found.misfit_ratio <= TRUSTED_RATIO


def test_of_several_the_one_that_fits_best_is_taken():
    def other(batch, size):
        return 0.01 + 0.001 * batch * (size / 16) ** 1.3

    found = nearest([profile(before, bundle="a"), profile(other, bundle="b")], {"m0": seen(other)}, PLACE)
    assert found.profile.scaled_from == "b" and found.misfit_ratio < 1e-9


def test_each_stage_has_its_own_factor_and_all_of_them_are_needed():
    known = profile(before, lambda b, s: 0.001 * b)
    found = nearest([known], {"m0": seen(lambda b, s: 2 * before(b, s)), "m1": seen(lambda b, s: 0.0005 * b)}, PLACE)
    assert found.factors == {"m0": pytest.approx(2.0), "m1": pytest.approx(0.5)}
    assert nearest([known], {"m0": seen(before)}, PLACE) is None
    assert nearest([known], {"m0": seen(before), "m1": []}, PLACE) is None


@pytest.mark.parametrize(
    "change",
    [{"device": "L4"}, {"triton_version": "2.57.0"}, {"cores": 2.0}, {"bundle": "new"}, {"scaled_from": "older"}],
)
def test_a_profile_from_elsewhere_or_of_a_guess_says_nothing(change):
    assert earlier([profile(before)], PLACE, ["m0"])
    assert earlier([profile(before, **change)], PLACE, ["m0"]) == []


def test_other_stages_are_another_service():
    assert earlier([profile(before)], PLACE, ["m0", "m1"]) == [] == earlier([profile(before)], PLACE, ["encoder"])


def test_three_points_a_stage_are_probed_and_fewer_where_there_are_no_more():
    assert probed((16, 64), 16, 16) == ((1, 16), (8, 16), (1, 64))
    assert probed((16, 32, 128), 32, 4) == ((1, 32), (4, 32), (1, 128))
    assert probed((1,), 1, 16) == ((1, 1), (8, 1), (2, 1))
    assert probed((1,), 1, 1) == ((1, 1),)
    assert probed((16, 64), 16, 1) == ((1, 16), (1, 64))
