"""Lesions clustered in patients: tests against R and by enumeration, their level on simulated patients, intervals."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from theraflow.cohort.clusters import resample_patients, variance_components
from theraflow.cohort.detection import clustered_wilson_interval, wilson_interval
from theraflow.cohort.paired import (
    clustered_shift,
    hodges_lehmann,
    mean_shift,
    rank_biserial,
    rosner_glynn_lee,
    rosner_glynn_lee_z,
    sign_flip,
    wilcoxon,
)

pytestmark = pytest.mark.filterwarnings("error")

# Peak flow by two meters (Bland & Altman, Lancet 1986;i:307, table 1, first readings), in made-up clusters.
WRIGHT = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427.0])
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451.0])
CLUSTERS = np.array([1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 6, 6, 6, 7, 7])
DIFFERENCES = st.lists(st.floats(-20, 20).map(lambda x: round(x, 3)), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("difference", "patients", "expected"),
    [
        (WRIGHT - MINI, CLUSTERS, -0.840128515887),
        (WRIGHT - MINI + 20, CLUSTERS, 2.18163269565),
        ((WRIGHT - MINI)[:16], np.repeat(range(8), 2), -0.389433906809),  # equal sizes
    ],
)
def test_rosner_glynn_lee_as_clusrank_in_r(difference, patients, expected):
    """Z of the procedure of R's clusrank 1.0 (Jiang et al., J Stat Softw 2020;96(6)), run in R 4.2 on these numbers."""
    assert rosner_glynn_lee_z(difference, patients) == pytest.approx(expected, abs=1e-11)


def test_alike_lesions_of_unequal_numbers_weigh_as_their_patients():
    """Intraclass correlation 1: every patient counts once, whatever its number of lesions; by hand.

    Differences 1, 1, 1 | -2, -2 | 4: ranks 2 2 2 | 4.5 4.5 | 6. With rho = 1 a patient's sum over its number of lesions
    is its mean signed rank: 2, -4.5, 6, and so Z = 3.5 / sqrt(4 + 20.25 + 36).
    """
    difference, patients = np.array([1, 1, 1, -2, -2, 4.0]), np.array(list("aaabbc"))
    assert rosner_glynn_lee_z(difference, patients) == pytest.approx(3.5 / np.sqrt(60.25))


def test_exact_distribution_is_that_of_all_signs_of_patients():
    difference = WRIGHT - MINI
    ranks = np.sign(difference) * stats.rankdata(np.abs(difference))
    sums = [ranks[patient == CLUSTERS].sum() for patient in range(1, 8)]
    patterns = [abs(sum(s * t for s, t in zip(signs, sums, strict=True)))
                for signs in itertools.product((-1, 1), repeat=7)]  # fmt: skip
    test = rosner_glynn_lee(difference, CLUSTERS)
    assert test.statistic == sum(sums) == -25
    assert test.p_value == np.mean([pattern >= 25 for pattern in patterns])
    assert test.smallest_p_value == 2 / 128


def test_one_lesion_a_patient_is_the_ordinary_test():
    difference = np.array([0.4, -1.2, 2.5, 3.1, 0.9, 1.7, -0.3, 2.2])
    clustered = rosner_glynn_lee(difference, np.arange(8))
    assert clustered.p_value == pytest.approx(wilcoxon(difference).p_value)
    # Large sample, by the ordinary formula: T over the root of the sum of squared ranks.
    ranks = np.sign(difference) * stats.rankdata(np.abs(difference))
    assert rosner_glynn_lee_z(difference, np.arange(8)) == pytest.approx(ranks.sum() / np.sqrt(204))


@pytest.mark.parametrize("patients", [1, 2, 3, 4, 7])
def test_smallest_p_depends_on_patients_not_on_lesions(patients):
    difference, who = np.arange(1.0, 8 * patients + 1), np.repeat(np.arange(patients), 8)
    test = rosner_glynn_lee(difference, who)
    assert test.p_value == test.smallest_p_value == 2 / 2**patients
    assert wilcoxon(difference).p_value < 0.01  # what the pooled test makes of the same numbers


def test_many_patients_take_the_normal_approximation():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    difference = rng.normal(0.4, 1, len(patients))
    test = rosner_glynn_lee(difference, patients)
    assert test.name.endswith("normal approximation")
    assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(rosner_glynn_lee_z(difference, patients))))


@pytest.mark.parametrize("difference", [np.zeros(0), np.zeros(5)])
def test_without_difference_nothing_is_computed(difference):
    patients = np.arange(len(difference))
    for test in (rosner_glynn_lee(difference, patients), sign_flip(difference)):
        assert np.isnan(test.p_value)
        assert test.note.startswith("not computable")


@given(DIFFERENCES, st.randoms())
@settings(deadline=None, max_examples=25)
def test_order_of_lesions_and_names_of_patients_change_nothing(values, random):
    difference = np.array(values)
    patients = np.array([f"P{i % 7}" for i in range(len(values))])
    order = np.array(random.sample(range(len(values)), len(values)))
    renamed = np.array([f"X{name}" for name in patients])
    for one in (rosner_glynn_lee, clustered_shift):
        first, second = one(difference, patients), one(difference[order], renamed[order])
        if one is rosner_glynn_lee:
            assert first.p_value == pytest.approx(second.p_value, nan_ok=True)
        else:
            assert first == pytest.approx(second, nan_ok=True, abs=1e-8)
    assert rank_biserial(difference) == pytest.approx(rank_biserial(difference[order]), nan_ok=True)


@given(DIFFERENCES, st.integers(-50, 50))
@settings(deadline=None, max_examples=25)
def test_a_constant_shifts_estimates_and_limits_by_itself(values, constant):
    difference, patients = np.array(values), np.arange(len(values)) % 8
    for shift in (hodges_lehmann, mean_shift, lambda d: clustered_shift(d, patients)):
        moved = np.array(shift(difference + constant))
        assert moved == pytest.approx(np.array(shift(difference)) + constant, nan_ok=True, abs=1e-7)


@given(DIFFERENCES)
@settings(deadline=None, max_examples=25)
def test_exchanging_the_sides_turns_the_signs(values):
    difference, patients = np.array(values), np.arange(len(values)) % 8
    for shift in (hodges_lehmann, mean_shift, lambda d: clustered_shift(d, patients)):
        estimate, low, high = shift(difference)
        assert shift(-difference) == pytest.approx((-estimate, -high, -low), nan_ok=True, abs=1e-7)
    here, there = (rosner_glynn_lee(side * difference, patients).p_value for side in (1, -1))
    assert here == pytest.approx(there, nan_ok=True)


@given(st.lists(st.floats(-20, 20).map(lambda x: round(x, 3)), min_size=6, max_size=12, unique=True))
@settings(deadline=None)
def test_interval_of_the_mean_holds_what_the_sign_flip_does_not_refuse(values):
    difference, step = np.array(values), 1e-6
    _, low, high = mean_shift(difference)
    for limit, outwards in ((low, -step), (high, step)):
        assert sign_flip(difference - limit - outwards).p_value <= 0.05
        assert sign_flip(difference - limit + outwards).p_value > 0.05


def test_fewer_than_six_patients_have_no_interval():
    difference = np.linspace(1, 4, 40)
    assert np.isnan(clustered_shift(difference, np.repeat(range(5), 8))[1:]).all()
    assert not np.isnan(clustered_shift(difference[:36], np.repeat(range(6), 6))[1:]).any()
    assert np.isnan(mean_shift(difference[:5])[1:]).all()
    # Six patients: the least and the greatest of all subset means are the least and the greatest value.
    assert mean_shift(np.array([3.0, 1, 4, 1.5, 9, 2.6])) == (pytest.approx(21.1 / 6), 1.0, 9.0)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30))
@settings(deadline=None)
def test_rank_biserial_is_bounded_and_signed(values):
    size = rank_biserial(np.array(values))
    assert np.isnan(size) or -1 <= size <= 1
    positive = np.abs(values) + 1
    assert rank_biserial(positive) == 1


def test_components_of_variance_of_a_textbook_table():
    # Snedecor & Cochran, Statistical Methods, calcium in four turnip leaves, four determinations each: mean squares
    # 0.2961 between and 0.0066 within, so 0.0724 between leaves.
    calcium = np.array([3.28, 3.09, 3.03, 3.03, 3.52, 3.48, 3.38, 3.38, 2.88, 2.80, 2.81, 2.76, 3.34, 3.38, 3.23, 3.26])
    between, within = variance_components(calcium, np.repeat(range(4), 4))
    assert (between, within) == (pytest.approx(0.0724, abs=1e-4), pytest.approx(0.0066, abs=1e-4))


def test_bootstrap_and_jackknife_of_a_mean():
    """One lesion a patient and the mean: the jackknife is the t interval, the bootstrap close to the normal one."""
    values = np.random.default_rng(8).gamma(2, 1, 40)
    found = resample_patients(lambda sample, _: sample.mean(axis=0), values[:, None], np.arange(40), np.array([False]))
    assert (found.low[0], found.high[0]) == pytest.approx(
        stats.t.interval(0.95, 39, values.mean(), values.std(ddof=1) / np.sqrt(40))
    )
    half = 1.96 * values.std() / np.sqrt(40)
    assert found.bootstrap_low[0] == pytest.approx(values.mean() - half, abs=0.1)
    assert found.bootstrap_high[0] == pytest.approx(values.mean() + half, abs=0.1)


def test_lesions_written_twice_widen_no_interval_over_patients():
    values, patients = np.random.default_rng(2).normal(size=(24, 1)), np.repeat(range(6), 4)
    once, twice = (
        resample_patients(lambda sample, _: sample.mean(axis=0), np.repeat(values, times, axis=0),
                          np.repeat(patients, times), np.array([False]))
        for times in (1, 2)
    )  # fmt: skip
    assert (twice.low, twice.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert (twice.bootstrap_low, twice.bootstrap_high) == (
        pytest.approx(once.bootstrap_low),
        pytest.approx(once.bootstrap_high),
    )


def test_three_patients_have_no_interval():
    found = resample_patients(
        lambda sample, _: sample.mean(axis=0), np.ones((6, 1)), np.repeat(range(3), 2), np.array([False])
    )
    assert np.isnan([found.low, found.high, found.bootstrap_low, found.bootstrap_high]).all()


def test_design_effect_of_all_or_nothing():
    """Patients with all of 5 lesions positive or none: a lesion more tells nothing; effect 5 m / (m - 1), by hand."""
    positive, totals = np.array([5, 5, 0, 5, 0, 5, 5, 0.0]), np.full(8, 5.0)
    effect, low, high = clustered_wilson_interval(positive, totals)
    assert effect == pytest.approx(5 * 8 / 7)
    # The interval is that of 7 lesions at the same rate 5/8; by the quadratic |p - x| = z sqrt(x (1 - x) / n).
    roots = np.roots([1 + 1.959964**2 / 7, -2 * 0.625 - 1.959964**2 / 7, 0.625**2])
    assert sorted([low, high]) == pytest.approx(sorted(roots), abs=1e-6)


def test_lesions_not_alike_have_the_ordinary_interval():
    # Rates 4/5, 2/5, 3/5, 3/5 differ by less than chance would make them: the effect is not below 1.
    effect, low, high = clustered_wilson_interval(np.array([4, 2, 3, 3.0]), np.full(4, 5.0))
    assert (effect, low, high) == (1.0, *map(pytest.approx, wilson_interval(12, 20)[1:]))


@pytest.mark.parametrize(("positive", "totals"), [([], []), ([3], [4]), ([3, 4], [3, 4]), ([0, 0], [3, 4])])
def test_design_effect_is_missing_where_nothing_tells_it(positive, totals):
    assert np.isnan(clustered_wilson_interval(np.array(positive, float), np.array(totals, float))).all()


@pytest.mark.parametrize(("correlation", "pooled_level"), [(0.0, 0.05), (0.5, 0.347)])
def test_level_of_the_tests_without_difference(correlation, pooled_level):
    """7 patients x 8 lesions, no difference: how often p <= 0.05 (more replicates: benchmarks/clustered_tests.py).

    The pooled test refuses far too often, both that respect patients hold their level.
    """
    rng = np.random.default_rng(7)
    patients, replicates = np.repeat(np.arange(7), 8), 2000
    rejected = np.zeros(3)
    for _ in range(replicates):
        shared, own = rng.normal(size=7)[patients], rng.normal(size=56)
        difference = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
        means = difference.reshape(7, 8).mean(axis=1)
        tests = (wilcoxon(difference), rosner_glynn_lee(difference, patients), sign_flip(means))
        rejected += [test.p_value <= 0.05 for test in tests]
    pooled, clustered, by_patient = rejected / replicates
    assert pooled == pytest.approx(pooled_level, abs=0.03)
    # Of 128 patterns 6 lie at or below 0.05: the level of both is 0.0469 exactly; standard error 0.0047.
    assert clustered == pytest.approx(6 / 128, abs=0.014)
    assert by_patient == pytest.approx(6 / 128, abs=0.014)
