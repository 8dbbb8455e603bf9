"""How dose counts against a limit, and back: closed formulae, published vectors, inverses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.dosimetry.radiobiology import (
    QUANTITIES,
    Effect,
    biologically_effective_dose_gy,
    effect,
    equivalent_dose_2gy_gy,
    lea_catcheside,
)

LN2 = math.log(2.0)
KIDNEY = {"factor": lea_catcheside([1.0], [LN2 / 50.0], 2.8), "alpha_beta_gy": 2.6}


def test_effects_meet_the_published_vectors():
    # analytic_vectors.csv: 23 Gy, 50 h, 2.8 h, 2.6 Gy.
    assert effect("dose").of_dose(23.0) == 23.0
    assert effect("bed", **KIDNEY).of_dose(23.0) == pytest.approx(33.789627, rel=1e-7)
    assert effect("eqd2", **KIDNEY).of_dose(23.0) == pytest.approx(19.098485, rel=1e-7)
    assert effect("bed", **KIDNEY).dose_gy(33.789627) == pytest.approx(23.0, rel=1e-7)


def test_the_root_is_that_of_the_quadratic():
    bed = effect("bed", **KIDNEY)
    roots = np.roots([bed.curvature_per_gy, 1.0, -40.0])
    assert bed.dose_gy(40.0) == pytest.approx(roots.max(), rel=1e-12)


@given(
    quantity=st.sampled_from(list(QUANTITIES)),
    factor=st.floats(0.0, 1.0),
    alpha_beta=st.floats(0.5, 30.0),
    dose=st.floats(0.0, 500.0),
)
@settings(max_examples=100, deadline=None)
def test_dose_and_effect_are_inverse_and_agree_with_the_formulae(quantity, factor, alpha_beta, dose):
    counts = effect(quantity, factor, alpha_beta)
    value = counts.of_dose(dose)
    bed = biologically_effective_dose_gy(dose, factor, alpha_beta)
    expected = {"dose": dose, "bed": bed, "eqd2": equivalent_dose_2gy_gy(bed, alpha_beta)}[quantity]
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert counts.dose_gy(value) == pytest.approx(dose, rel=1e-9, abs=1e-12)
    step = 1e-4 * (1.0 + dose)
    slope = (counts.of_dose(dose + step) - counts.of_dose(dose - step)) / (2.0 * step)
    assert counts.slope(dose) == pytest.approx(slope, rel=1e-6)


def test_without_curvature_dose_counts_as_it_is():
    assert Effect().dose_gy(0.0) == 0.0
    assert Effect(1.0, 1e-14).dose_gy(23.0) == pytest.approx(23.0, rel=1e-12)


def test_fractions_of_2_gy_are_their_own_eqd2():
    # A fraction of 2 Gy at once (G = 1), 10 times.
    counts = effect("eqd2", 1.0, 2.6)
    assert 10 * counts.of_dose(2.0) == pytest.approx(20.0, rel=1e-12)
