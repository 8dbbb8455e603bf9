"""Curves, time-integrated activity, BED: against exact values and numerical integration."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theraflow.dosimetry.curves.kinetics import Curve, decay_per_h, relabelled, time_integrated_activity
from theraflow.dosimetry.curves.single_time_point import haenscheid_time_integrated_activity
from theraflow.dosimetry.radiobiology import (
    biologically_effective_dose_gy,
    equivalent_dose_2gy_gy,
    lea_catcheside,
)
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


@given(half_life=st.floats(10.0, 158.0), uptake=st.floats(0.5, 8.0), amplitude=st.floats(0.01, 1e4))
@settings(max_examples=20, deadline=None)
def test_curve_integrates_what_it_says(half_life, uptake, amplitude):
    rates = np.array([LN2 / half_life - decay_per_h(LU), LN2 / uptake])
    curve = Curve((amplitude, -amplitude), tuple(rates))
    for wanted in (LU, Y):
        time = np.linspace(0.0, 40.0 * half_life, 200_001)
        expected = scipy.integrate.simpson(curve.activity_mbq(time, wanted), x=time)
        assert curve.time_integrated_activity(wanted) == pytest.approx(expected, rel=1e-5)
    assert curve.half_life_h(LU) == pytest.approx(half_life)
    assert curve.half_life_h(Y) == pytest.approx(half_life_90y(half_life))


@pytest.mark.shared_data
def test_kidney_of_the_snmmi_patient(shared_data):
    import json

    case = json.loads((shared_data / "dosimetry_reference" / "snmmi_patient4_left_kidney.json").read_text())
    amplitude = case["A_MBq"]
    value = time_integrated_activity([amplitude, -amplitude], [case["l1_per_h"], case["l2_per_h"]])
    assert value == pytest.approx(case["TIA_MBq_h"], rel=1e-3)
