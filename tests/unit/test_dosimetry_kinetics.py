"""Curves, time-integrated activity, BED: against exact values and numerical integration."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theraflow.dosimetry.kinetics import (
    decay_per_h,
    fit_mono_exponential,
    fit_one_point,
    fit_time_integrated_activity,
    haenscheid_time_integrated_activity,
    physical_decay_only,
    relabelled,
    smallest_bounded_half_life_h,
    time_integrated_activity,
)
from theraflow.dosimetry.radiobiology import (
    biologically_effective_dose_gy,
    equivalent_dose_2gy_gy,
    lea_catcheside,
)
from theraflow.errors import TheraflowError
from theraflow.nuclides import nuclide

LU, Y = nuclide("177Lu"), nuclide("90Y")
LN2 = math.log(2.0)


def half_life_90y(half_life_177lu_h: float) -> float:
    return LN2 / relabelled([LN2 / half_life_177lu_h], LU, Y)[0]


def haenscheid_ratio(x: float) -> float:
    return haenscheid_time_integrated_activity(2.0**-x, x) / time_integrated_activity([1.0], [LN2])


@pytest.mark.shared_data
def test_analytic_vectors(shared_data):
    table = pd.read_csv(shared_data / "dosimetry_reference" / "analytic_vectors.csv", comment="#")
    clearance, uptake = LN2 / 50.0, LN2 / 5.0
    bed = biologically_effective_dose_gy(23.0, lea_catcheside([1.0], [clearance], 2.8), 2.6)
    mine = [
        time_integrated_activity([100.0], [clearance]),
        time_integrated_activity([100.0, -100.0], [clearance, uptake]),
        time_integrated_activity([100.0, -100.0], relabelled([clearance, uptake], LU, Y)),
        *(half_life_90y(t) for t in (24.0, 41.0, 86.0, 109.0)),
        haenscheid_ratio(0.75),
        haenscheid_ratio(2.5),
        bed,
        equivalent_dose_2gy_gy(bed, 2.6),
        lea_catcheside([1.0, -1.0], [clearance, uptake], 2.8),
    ]
    assert len(mine) == len(table)
    printed = table["value"].to_numpy(dtype=str)
    for value, text, name in zip(mine, printed, table["quantity"], strict=True):
        # Exact to the last digit that the table prints.
        digits = len(text.split(".")[1])
        assert value == pytest.approx(float(text), rel=1e-6, abs=0.51 * 10.0**-digits), name


@given(
    clearance=st.floats(20.0, 150.0),
    uptake=st.floats(0.5, 10.0),
    repair=st.floats(0.5, 5.0),
    part=st.floats(0.0, 1.0),
)
@settings(max_examples=15, deadline=None)
def test_lea_catcheside_is_the_double_integral(clearance, uptake, repair, part):
    amplitudes, rates = [1.0, -part], [LN2 / clearance, LN2 / uptake]
    assume(abs(uptake - repair) > 0.01)
    m = LN2 / repair
    grid = np.linspace(0.0, 40.0 * clearance, 400_001)
    rate = sum(a * np.exp(-k * grid) for a, k in zip(amplitudes, rates, strict=True))
    # inner(t) = integral of rate(s) exp(-m (t - s)) over s < t, closed for each term.
    inner = sum(a * (np.exp(-k * grid) - np.exp(-m * grid)) / (m - k) for a, k in zip(amplitudes, rates, strict=True))
    dose = scipy.integrate.simpson(rate, x=grid)
    expected = 2.0 * scipy.integrate.simpson(rate * inner, x=grid) / dose**2
    assert lea_catcheside(amplitudes, rates, repair) == pytest.approx(expected, rel=1e-5)


def test_relabelling_refuses_a_curve_slower_than_physical_decay():
    with pytest.raises(ValueError, match="slower"):
        relabelled([LN2 / 170.0], LU, Y)


@given(half_life=st.floats(10.0, 158.0), amplitude=st.floats(0.01, 1e4))
@settings(max_examples=40, deadline=None)
def test_fit_finds_an_exact_curve(half_life, amplitude):
    time = np.array([24.0, 48.0, 96.0, 168.0])
    activity = amplitude * 2.0 ** (-time / half_life)
    fit = fit_mono_exponential(time, activity, 0.05 * activity, LU)
    assert fit_time_integrated_activity(fit, LU)[0] == pytest.approx(amplitude * half_life / LN2, rel=1e-5)
    yttrium = amplitude / (LN2 / half_life - decay_per_h(LU) + decay_per_h(Y))
    assert fit_time_integrated_activity(fit, Y)[0] == pytest.approx(yttrium, rel=1e-5)


def test_effective_half_life_never_exceeds_the_physical_one():
    time = np.array([24.0, 48.0, 96.0, 168.0])
    fit = fit_mono_exponential(time, np.array([10.0, 10.5, 11.0, 12.0]), np.full(4, 0.5), LU)
    assert fit.biological_per_h == 0.0
    assert "no biological clearance" in fit.method


def test_sd_of_the_fit_is_the_scatter_over_simulated_patients():
    """4 time points, 5 % noise: the sd of the fit is the sd of the results, for both nuclides."""
    random = np.random.default_rng(1)
    time = np.array([24.0, 48.0, 96.0, 168.0])
    truth = 30.0 * 2.0 ** (-time / 41.0)
    for wanted in (LU, Y):
        results = []
        for _ in range(200):
            noisy = truth * (1.0 + 0.05 * random.standard_normal(4))
            results.append(fit_time_integrated_activity(fit_mono_exponential(time, noisy, 0.05 * truth, LU), wanted))
        values, sds = np.array(results).T
        exact = 30.0 / (LN2 / 41.0 - decay_per_h(LU) + decay_per_h(wanted))
        assert values.mean() == pytest.approx(exact, rel=0.015)
        # Enlarged where the points scatter by chance more than 5 %, so a little above on average.
        assert 0.95 < np.median(sds) / values.std() < 1.3


def test_one_point_with_a_given_half_life():
    activity = 30.0 * 2.0 ** (-96.0 / 50.0)
    fit = fit_one_point(96.0, activity, 0.05 * activity, LU, 50.0, 0.2)
    value, sd = fit_time_integrated_activity(fit, LU)
    assert value == pytest.approx(30.0 * 50.0 / LN2, rel=1e-9)
    # d ln TIA / d ln rate = rate t - 1
    expected = math.hypot(0.05, 0.2 * (LN2 / 50.0 * 96.0 - 1.0))
    assert sd / value == pytest.approx(expected, rel=1e-9)
    with pytest.raises(TheraflowError, match="longer than the half-life"):
        fit_one_point(96.0, 1.0, 0.1, LU, 200.0, 0.2)


@pytest.mark.parametrize("wanted", [LU, Y])
@pytest.mark.parametrize("time", [4.0, 24.0, 72.0])
def test_physical_decay_is_an_upper_bound_exactly_above_the_limit(time, wanted):
    bound, _ = fit_time_integrated_activity(physical_decay_only(time, 10.0, LU), wanted)
    limit = smallest_bounded_half_life_h(time, LU, wanted)

    def true_value(half_life: float) -> float:
        biological = LN2 / half_life - decay_per_h(LU)
        return 10.0 * math.exp((biological + decay_per_h(LU)) * time) / (biological + decay_per_h(wanted))

    assert true_value(limit) == pytest.approx(bound, rel=1e-6)
    assert true_value(0.99 * limit) > bound
    for half_life in np.linspace(1.01 * limit, 159.0, 20):
        assert true_value(half_life) < bound


def test_physical_decay_bounds_nothing_after_a_very_late_scan():
    assert smallest_bounded_half_life_h(240.0, LU, LU) is None


@pytest.mark.shared_data
def test_kidney_of_the_snmmi_patient(shared_data):
    import json

    case = json.loads((shared_data / "dosimetry_reference" / "snmmi_patient4_left_kidney.json").read_text())
    amplitude = case["A_MBq"]
    value = time_integrated_activity([amplitude, -amplitude], [case["l1_per_h"], case["l2_per_h"]])
    assert value == pytest.approx(case["TIA_MBq_h"], rel=1e-3)
