"""One scan: what each method says, and that its error band is true."""

import math

import numpy as np
import pytest

from theraflow.dosimetry.curves.fits import HalfLife
from theraflow.dosimetry.curves.kinetics import decay_per_h
from theraflow.dosimetry.curves.single_time_point import (
    HAENSCHEID_BAND,
    Haenscheid,
    KnownHalfLife,
    Measurement,
    PhysicalDecay,
    haenscheid_time_integrated_activity,
    madsen_time_integrated_activity,
    smallest_bounded_half_life_h,
)
from theraflow.errors import TheraflowError
from theraflow.nuclides import nuclide

LU, Y = nuclide("177Lu"), nuclide("90Y")
LN2 = math.log(2.0)


def true_integral(half_life: float, time: float, wanted, activity: float = 10.0) -> float:
    """MBq h with `wanted`, of a mono-exponential curve through a 177Lu activity."""
    rate = LN2 / half_life
    return activity * math.exp(rate * time) / (rate - decay_per_h(LU) + decay_per_h(wanted))


@pytest.mark.parametrize("wanted", [LU, Y])
@pytest.mark.parametrize("half_life", [24.0, 41.0, 86.0, 109.0])
def test_known_half_life_is_the_exact_integral(half_life, wanted):
    estimate = KnownHalfLife(Measurement(96.0, 10.0, 0.05, LU), HalfLife(half_life, 0.2, "x"))
    assert estimate.time_integrated_activity(wanted)[0] == pytest.approx(true_integral(half_life, 96.0, wanted))
    assert madsen_time_integrated_activity(10.0, 96.0, LN2 / half_life) == pytest.approx(
        true_integral(half_life, 96.0, LU)
    )


@pytest.mark.parametrize("wanted", [LU, Y])
@pytest.mark.parametrize("time", [24.0, 60.0, 120.0])
def test_sd_of_a_known_half_life_is_the_scatter_over_patients(time, wanted):
    """Also at t = 1 / rate, where the first order vanishes."""
    random = np.random.default_rng(4)
    estimate = KnownHalfLife(Measurement(time, 10.0, 0.05, LU), HalfLife(41.0, 0.25, "x"))
    half_lives = 41.0 * np.exp(-0.25 * random.standard_normal(20_000))
    true = np.array([true_integral(h, time, wanted) for h in half_lives if h < LN2 / decay_per_h(LU)])
    measured = true * (1.0 + 0.05 * random.standard_normal(true.size))
    value, sd = estimate.time_integrated_activity(wanted)
    assert sd == pytest.approx(math.sqrt(np.mean((measured - value) ** 2)), rel=0.05)
    low, high = estimate.band(wanted)
    assert np.mean((value / true - 1.0 > low) & (value / true - 1.0 < high)) == pytest.approx(0.95, abs=0.01)
    assert f"{100 * low:+.0f} to {100 * high:+.0f} %" in estimate.method(wanted)


def test_a_known_half_life_beyond_physical_decay_is_refused():
    with pytest.raises(TheraflowError, match="longer than the half-life"):
        KnownHalfLife(Measurement(96.0, 10.0, 0.05, LU), HalfLife(200.0, 0.2, "x"))


def test_haenscheid_stays_in_its_band_between_075_and_25_half_lives():
    reach = np.linspace(0.75, 2.5, 500)
    errors = [haenscheid_time_integrated_activity(2.0**-x, x) * LN2 - 1.0 for x in reach]
    assert min(errors) == pytest.approx(HAENSCHEID_BAND[0], abs=1e-3)
    assert max(errors) == pytest.approx(HAENSCHEID_BAND[1], abs=1e-3)


@pytest.mark.parametrize("wanted", [LU, Y])
@pytest.mark.parametrize("time", [48.0, 72.0, 96.0, 120.0])
def test_haenscheid_says_for_which_half_lives_it_holds(time, wanted):
    estimate = Haenscheid(Measurement(time, 10.0, 0.05, LU))
    value, sd = estimate.time_integrated_activity(wanted)
    words = estimate.method(wanted).split("between ")[1].rstrip(" h)").split(" and ")
    shortest, longest = (float(word) for word in words)
    for half_life in np.linspace(1.01 * shortest, 0.99 * longest, 50):
        error = value / true_integral(half_life, time, wanted) - 1.0
        assert -0.12 < error < 0.063
    assert value / true_integral(0.9 * shortest, time, wanted) - 1.0 < -0.12
    assert sd / value == pytest.approx(math.hypot(0.05, 0.178 / math.sqrt(12.0)))
    assert estimate.curve is None and math.isnan(estimate.half_life_h(wanted))


def test_haenscheid_says_where_it_holds_for_nothing():
    assert "not bounded" in Haenscheid(Measurement(200.0, 10.0, 0.05, LU)).method(Y)


@pytest.mark.parametrize("wanted", [LU, Y])
@pytest.mark.parametrize("time", [4.0, 24.0, 72.0])
def test_physical_decay_is_an_upper_bound_exactly_above_the_limit(time, wanted):
    estimate = PhysicalDecay(Measurement(time, 10.0, 0.05, LU))
    bound, sd = estimate.time_integrated_activity(wanted)
    assert math.isnan(sd)
    limit = smallest_bounded_half_life_h(time, LU, wanted)
    assert f"above {limit:.2g} h" in estimate.method(wanted)
    assert true_integral(limit, time, wanted) == pytest.approx(bound, rel=1e-6)
    assert true_integral(0.99 * limit, time, wanted) > bound
    for half_life in np.linspace(1.01 * limit, 159.0, 20):
        assert true_integral(half_life, time, wanted) < bound


def test_physical_decay_bounds_nothing_after_a_very_late_scan():
    assert smallest_bounded_half_life_h(240.0, LU, LU) is None
    assert "no upper bound" in PhysicalDecay(Measurement(240.0, 10.0, 0.05, LU)).method(LU)
