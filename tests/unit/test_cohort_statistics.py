"""Tests and intervals against textbook examples, and the cases in which nothing can be computed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from theraflow.cohort import hodges_lehmann, shapiro_wilk, sign_flip, wilcoxon, wilson_interval
from theraflow.cohort.statistics import COLUMNS, compare_pairs, compute_statistics, describe_values

pytestmark = pytest.mark.filterwarnings("error")

# Hollander & Wolfe 1973, p. 29: Hamilton depression scale factor IV, first and second visit (R:
# ?wilcox.test).
FIRST = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
SECOND = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
# Darwin's maize after Fisher 1935, The Design of Experiments, section 21: crossed minus self-fertilised,
# eighths of an inch.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)


def test_wilcoxon_of_hollander_and_wolfe():
    test = wilcoxon(FIRST - SECOND)
    # V = 40 of 45, so the smaller sum is 5; one-sided p 0.01953 (R), two-sided twice that: 20 of 512
    # patterns.
    assert test.statistic == 5
    assert test.p_value == pytest.approx(20 / 512)
    assert test.name == "Wilcoxon signed-rank, exact"


def test_hodges_lehmann_of_hollander_and_wolfe():
    # Hollander & Wolfe, examples 3.3 and 3.4: estimate 0.46 in size, 96 % interval 0.010 to 0.786.
    estimate, low, high = hodges_lehmann(FIRST - SECOND)
    assert estimate == pytest.approx(0.46, abs=1e-9)
    assert (low, high) == (pytest.approx(0.010, abs=1e-9), pytest.approx(0.786, abs=1e-9))


def test_sign_flip_of_fisher():
    # Fisher: 1,726 of 32,768 sign patterns are as extreme, 5.267 %.
    test = sign_flip(DARWIN)
    assert test.p_value == pytest.approx(1726 / 32768)
    assert test.smallest_p_value == pytest.approx(2 / 32768)
    assert test.statistic == pytest.approx(314 / 15)


def test_sign_flip_by_random_draws_agrees_with_the_exact_one():
    difference = np.tile(DARWIN, 2)
    test = sign_flip(difference)
    assert "random draws" in test.name
    # 30 pairs: the permutation distribution is close to normal with variance sum(d^2).
    z = difference.sum() / np.sqrt((difference**2).sum())
    assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), abs=2e-3)


@pytest.mark.parametrize(("patients", "smallest"), [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.125), (7, 2 / 128)])
def test_smallest_attainable_p_of_the_sign_flip(patients, smallest):
    test = sign_flip(np.arange(1.0, patients + 1))
    assert test.p_value == test.smallest_p_value == pytest.approx(smallest)


def test_shapiro_wilk_of_the_original_paper():
    # Shapiro & Wilk 1965, weights of eleven men: W = 0.79, p about 0.01.
    test = shapiro_wilk(np.array([148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236.0]))
    assert test.statistic == pytest.approx(0.79, abs=0.005)
    assert test.p_value == pytest.approx(0.0067, abs=0.0005)


@pytest.mark.parametrize(
    # Newcombe 1998, Stat Med 17:857, table I, method 3.
    ("positive", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_of_newcombe(positive, total, low, high):
    rate, *interval = wilson_interval(positive, total)
    assert rate == positive / total
    assert interval == pytest.approx([low, high], abs=5e-5)


def test_wilson_interval_without_lesions_is_missing():
    assert np.isnan(wilson_interval(0, 0)).all()


def test_ties_and_zeros_are_counted_exactly():
    # |d| = 1, 2, 2, 3, 1 and a zero: ranks 1.5, 3.5, 3.5, 5, 1.5. Of the 32 patterns, counted by hand with
    # W- <= 1.5: none negative, either 1.5 negative: 3, and as many on the other side.
    test = wilcoxon(np.array([1, 2, 2, 3, -1, 0.0]))
    assert test.statistic == 1.5
    assert test.p_value == pytest.approx(6 / 32)
    assert test.name.endswith("exact with ties")
    assert test.note == "1 pairs without difference left out of the ranks"


def test_ties_are_seen_through_floating_point():
    # 1.1 - 1.0, 2.1 - 2.0 and 4.1 - 4.0 differ in the 16th digit.
    difference = np.array([1.1, 2.1, 4.1]) - np.array([1.0, 2.0, 4.0])
    assert len(set(difference.tolist())) > 1
    assert "ties" in wilcoxon(difference).name


def test_many_tied_pairs_take_the_normal_approximation():
    difference = np.repeat([1.0, 2.0, -1.0], [10, 6, 4])
    test = wilcoxon(difference)
    # By hand: ranks 7.5 (14 values of 1) and 17.5 (6 of 2), W- = 4 x 7.5 = 30, mean 105, tie term (14^3 - 14
    # + 6^3 - 6) / 48.
    variance = 20 * 21 * 41 / 24 - (14**3 - 14 + 6**3 - 6) / 48
    assert test.statistic == 30
    assert test.p_value == pytest.approx(2 * stats.norm.sf((105 - 30) / np.sqrt(variance)))
    assert test.name.endswith("normal approximation")


@pytest.mark.parametrize("difference", [np.zeros(0), np.zeros(1), np.zeros(9)])
def test_equal_pairs_have_no_rank_test(difference):
    test = wilcoxon(difference)
    assert np.isnan(test.p_value)
    assert test.note.startswith("not computable")


def test_fewer_than_six_pairs_have_an_estimate_but_no_interval():
    estimate, low, high = hodges_lehmann(np.array([1.0, 2, 3, 4, 5]))
    assert estimate == 3
    assert np.isnan([low, high]).all()
    # n = 6: the interval is the whole range, because 2 / 64 < 0.05 < 4 / 64.
    assert hodges_lehmann(np.array([1.0, 2, 3, 4, 5, 6])) == (3.5, 1.0, 6.0)


@given(st.lists(st.floats(-20, 20).map(lambda x: round(x, 3)), min_size=6, max_size=60, unique_by=abs))
def test_interval_holds_what_the_test_does_not_refuse(values):
    """Duality: shifted to just inside a limit the test keeps the hypothesis, just outside it refuses it."""
    difference = np.array(values)
    _, low, high = hodges_lehmann(difference)
    assert low <= high
    if len(difference) <= 50:
        step = 1e-7
        for limit, outwards in ((low, -step), (high, step)):
            assert wilcoxon(difference - limit - outwards).p_value <= 0.05
            assert wilcoxon(difference - limit + outwards).p_value > 0.05


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_normality_is_not_computable_without_spread(values):
    test = shapiro_wilk(np.array(values))
    assert np.isnan(test.p_value)
    assert test.note.startswith("not computable")


def test_pooled_and_patient_rows():
    pairs = pd.DataFrame(
        {
            "patient": ["P1"] * 5 + ["P2"] * 3,
            "a": [6.0, 7, 8, 9, 10, 5, 4, 3],
            "b": [5.0, 5, 5, 5, 5, 4.5, 3.6, 2.7],
        }
    )
    pooled, by_patient, difference = compare_pairs("SUVpeak", pairs, "")
    assert (pooled["n"], pooled["n_patients"], pooled["group"]) == (8, 2, "lesions, pooled")
    assert "naive" in pooled["note"]
    assert pooled["p_value"] == pytest.approx(2 / 256)  # all eight positive, no ties
    assert (pooled["median_a"], pooled["median_b"]) == (6.5, 5.0)
    assert pooled["range_a"] == "3.0 to 10.0"
    assert (by_patient["n"], by_patient["p_value"], by_patient["smallest_p_value"]) == (2, 0.5, 0.5)
    assert by_patient["effect"] == pytest.approx(np.mean([3.0, 0.4]))
    assert "no 95 % interval" in by_patient["note"]
    assert difference["test"] == "Shapiro-Wilk"


def test_description_counts_what_it_leaves_out():
    doses = pd.DataFrame({"patient": ["P1", "P2", "P3", "P4"], "dose": [1.4, 3.6, np.nan, 3.1]})
    row = describe_values("dose", "lesion", doses, "dose")
    assert (row["n"], row["n_patients"]) == (3, 3)
    assert row["mean_a"] == pytest.approx(2.7)
    assert row["sd_a"] == pytest.approx(np.sqrt(((1.4 - 2.7) ** 2 + 0.9**2 + 0.4**2) / 2))
    assert "1 without value" in row["note"]


def test_empty_tables_give_rows_without_numbers():
    lesions = pd.DataFrame(columns=["patient", "lesion", "tracer", "timepoint", "positive", "suv_peak", "tbr"])
    doses = pd.DataFrame(columns=["patient", "region", "kind", "nuclide", "dose_gy_per_gbq"])
    table = compute_statistics(lesions, doses, ["FDG", "pentixafor"])
    assert list(table.columns) == list(COLUMNS)
    assert (table["n"] == 0).all()
    assert table["p_value"].isna().all()
    assert table["note"].str.contains("not computable").all()
