"""Tests and intervals against textbook examples, and the cases in which nothing can be computed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from theraflow.cohort import hodges_lehmann, shapiro_wilk, sign_flip, wilcoxon, wilson_interval
from theraflow.cohort.agreement import clustered_agreement, concordance, limits_of_agreement, spearman
from theraflow.cohort.comparisons import find_comparisons
from theraflow.cohort.paired import holm
from theraflow.cohort.statistics import (
    COLUMNS,
    associate_pairs,
    compare_pairs,
    compute_statistics,
    describe_values,
    measure_agreement,
)

pytestmark = pytest.mark.filterwarnings("error")

# Hollander & Wolfe 1973, p. 29: Hamilton depression scale factor IV, first and second visit (R:
# ?wilcox.test).
FIRST = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
SECOND = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
# Darwin's maize after Fisher 1935, The Design of Experiments, section 21: crossed minus self-fertilised,
# eighths of an inch.
# Bland & Altman, Lancet 1986;i:307, table 1: peak flow by two meters, first readings.
WRIGHT = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427.0])
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451.0])
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
@settings(deadline=None)
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


def test_holm_as_in_r():
    # R 4.2: p.adjust(c(0.01, 0.04, 0.03, 0.005, 0.2), "holm")
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005, 0.2]))
    assert adjusted == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])
    assert holm(np.array([0.7, 0.6])) == pytest.approx([1, 1])


def test_limits_of_agreement_of_bland_and_altman():
    bias, lower, upper = limits_of_agreement(WRIGHT - MINI)
    # Printed: mean -2.1, sd 38.8 L/min; limits by 2 sd -79.7 and 75.5, here by 1.96 sd.
    assert bias.value == pytest.approx(-2.1, abs=0.05)
    assert (upper.value - lower.value) / 2 / 1.959964 == pytest.approx(38.8, abs=0.05)
    # R 4.2: t.test; limits by the paper's standard error sqrt(3 s^2 / n) = 11.6 (1999: 2.92 in place of 3, n - 1).
    assert (bias.low, bias.high) == pytest.approx((-22.0488376966, 17.8135435790))
    paper = stats.t.ppf(0.975, 16) * 38.765 * np.sqrt(1 / 17 + 1.96**2 / 2 / 16)
    assert lower.value - lower.low == upper.high - upper.value == pytest.approx(paper, rel=1e-4)


def test_spearman_as_in_r():
    # R 4.2: cor.test(method = "spearman"): exact for six and seven pairs, rho of all 17.
    for n, rho, p_value in ((6, 0.942857142857, 0.0166666667), (7, 0.892857142857, 0.0123015873)):
        estimate, test = spearman(WRIGHT[:n], MINI[:n])
        assert (estimate.value, test.p_value) == (pytest.approx(rho), pytest.approx(p_value))
    estimate, test = spearman(WRIGHT, MINI)
    assert estimate.value == pytest.approx(0.899509803922)
    assert test.name == "Spearman, Student's t"


def test_smallest_p_of_four_patients():
    _, test = spearman(np.array([1.0, 2, 3, 4]), np.array([2.0, 5, 7, 9]))
    assert test.p_value == test.smallest_p_value == pytest.approx(2 / 24)
    # Two equal values: 12 different orders, and the two best ones are met twice each.
    _, tied = spearman(np.array([1.0, 2, 2, 4]), np.array([2.0, 5, 7, 9]))
    assert tied.smallest_p_value == pytest.approx(4 / 24)


def test_interval_of_spearman_covers():
    """Bonett & Wright: bivariate normal with correlation 0.6, whose rho is 6 / pi asin(0.3)."""
    rng, rho, hits = np.random.default_rng(4), 6 / np.pi * np.arcsin(0.3), 0
    for _ in range(1000):
        a, own = rng.normal(size=(2, 40))
        estimate, _ = spearman(a, 0.6 * a + 0.8 * own)
        hits += estimate.low <= rho <= estimate.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


def test_concordance_is_precision_times_accuracy():
    # Lin 1989: the correlation times 2 / (v + 1 / v + u^2), v the ratio of the sds, u^2 the shift^2 over their product.
    ratio, shift = np.std(WRIGHT) / np.std(MINI), np.mean(WRIGHT - MINI)
    accuracy = 2 / (ratio + 1 / ratio + shift**2 / np.std(WRIGHT) / np.std(MINI))
    assert concordance(WRIGHT, MINI).value == pytest.approx(np.corrcoef(WRIGHT, MINI)[0, 1] * accuracy)
    assert concordance(WRIGHT, WRIGHT).value == pytest.approx(1)
    assert concordance(WRIGHT, -WRIGHT).value < 0


def test_interval_of_lin_covers():
    """Truth by the definition: correlation 0.8, equal spread, means half a standard deviation apart: 1.6 / 2.25."""
    rng, hits = np.random.default_rng(6), 0
    for _ in range(1000):
        a, own = rng.normal(size=(2, 50))
        estimate = concordance(a, 0.8 * a + 0.6 * own + 0.5)
        hits += estimate.low <= 1.6 / 2.25 <= estimate.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=30))
@settings(deadline=None)
def test_concordance_is_not_above_the_correlation(pairs):
    a, b = np.round(np.array(pairs), 3).T
    estimate = concordance(a, b)
    if not np.isnan(estimate.value):
        assert abs(estimate.value) <= abs(np.corrcoef(a, b)[0, 1]) + 1e-9
        # The same shift, and a change of unit, of both sides change nothing.
        assert concordance(3 * a + 2, 3 * b + 2).value == pytest.approx(estimate.value, abs=1e-6)


def test_agreement_clustered_is_the_ordinary_one_where_each_patient_has_one_lesion():
    values = np.column_stack([WRIGHT, MINI])
    found = clustered_agreement(values, np.arange(17))
    pooled = (spearman(WRIGHT, MINI)[0], concordance(WRIGHT, MINI), *limits_of_agreement(WRIGHT - MINI))
    assert found == pytest.approx([estimate.value for estimate in pooled])


def test_limits_of_agreement_hold_both_components_of_variance():
    # Differences 1, 3 | 5, 7: mean squares 16 between, 2 within; so (16 - 2) / 2 + 2 = 9 and limits 4 -+ 1.96 x 3.
    difference = np.array([1, 3, 5, 7.0])
    values = np.column_stack([difference + np.array([3, 1, 4, 2]), np.array([3, 1, 4, 2.0])])
    assert clustered_agreement(values, np.array([0, 0, 1, 1]))[2:] == pytest.approx(
        [4, 4 - 3 * 1.959964, 4 + 3 * 1.959964]
    )


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [2.0, 3.0]), ([1.0, 1, 1], [1.0, 2, 3])])
def test_agreement_that_is_not_computable_says_why(a, b):
    a, b = np.array(a), np.array(b)
    estimate, test = spearman(a, b)
    for result in (estimate, test, concordance(a, b)):
        assert result.note.startswith("not computable")
    pairs = pd.DataFrame({"patient": "P1", "a": a, "b": b})
    rows = measure_agreement("SUVpeak", pairs, "")
    assert np.isnan([rows[0]["effect"], rows[1]["effect"]]).all()


def test_pooled_clustered_and_patient_rows():
    pairs = pd.DataFrame(
        {
            "patient": ["P1"] * 5 + ["P2"] * 3,
            "a": [6.0, 7, 8, 9, 10, 5, 4, 3],
            "b": [5.0, 5, 5, 5, 5, 4.5, 3.6, 2.7],
        }
    )
    pooled, clustered, by_patient, size, difference = compare_pairs("SUVpeak", pairs, "")
    assert (pooled["n"], pooled["n_patients"], pooled["group"]) == (8, 2, "lesions, pooled")
    assert "naive" in pooled["note"]
    assert pooled["p_value"] == pytest.approx(2 / 256)  # all eight positive, no ties
    assert (pooled["median_a"], pooled["median_b"]) == (6.5, 5.0)
    assert pooled["range_a"] == "3.0 to 10.0"
    assert (clustered["n"], clustered["n_patients"], clustered["group"]) == (8, 2, "lesions, clustered by patient")
    assert (by_patient["n"], by_patient["p_value"], by_patient["smallest_p_value"]) == (2, 0.5, 0.5)
    assert by_patient["effect"] == pytest.approx(np.mean([3.0, 0.4]))
    for row in (clustered, by_patient):
        assert (row["p_value"], row["smallest_p_value"]) == (0.5, 0.5)
        assert "with 2 patients no p below 0.5 can be reached" in row["note"]
        assert "no 95 % interval" in row["note"]
    assert (size["effect"], size["effect_name"]) == (1.0, "matched-pairs rank-biserial correlation")
    assert difference["test"] == "Shapiro-Wilk"


def test_four_treated_patients_cannot_reach_significance():
    pairs = pd.DataFrame({"patient": np.repeat(["P1", "P2", "P3", "P7"], 6), "a": np.arange(24.0), "b": 50.0})
    pooled, clustered, by_patient, *_ = compare_pairs("SUVpeak", pairs, "")
    assert pooled["p_value"] < 0.001
    for row in (clustered, by_patient):
        assert row["p_value"] == row["smallest_p_value"] == 0.125
        assert "with 4 patients no p below 0.125 can be reached" in row["note"]


def test_association_of_one_value_a_patient_has_one_row():
    pairs = pd.DataFrame({"patient": list("ABCDE"), "a": [55.0, 70, 80, 95, np.nan], "b": [2.1, 4, 3.5, 7, 9]})
    (row,) = associate_pairs("expression", pairs, "")
    assert (row["group"], row["n"], row["family"]) == ("patients", 4, "associations, patients")
    assert row["effect"] == pytest.approx(0.8)
    assert row["p_value"] == pytest.approx(8 / 24)  # of 24 orders 4 with sum d^2 <= 2 and as many reversed
    assert row["note"].startswith("1 without value left out")


def test_association_of_lesions_is_pooled_clustered_and_by_patient():
    rng = np.random.default_rng(1)
    pairs = pd.DataFrame({"patient": np.repeat(list("ABCDEF"), 5), "a": rng.normal(size=30), "b": rng.normal(size=30)})
    rows = associate_pairs("dose", pairs, "")
    assert [row["group"] for row in rows] == ["lesions, pooled", "lesions, clustered by patient", "patients"]
    for row in rows[:2]:
        assert row["effect"] == pytest.approx(stats.spearmanr(pairs["a"], pairs["b"]).statistic)
    assert rows[1]["ci_low"] < rows[1]["effect"] < rows[1]["ci_high"]
    means = pairs.groupby("patient")[["a", "b"]].mean()
    assert rows[2]["effect"] == pytest.approx(stats.spearmanr(means["a"], means["b"]).statistic)


def test_description_counts_what_it_leaves_out():
    doses = pd.DataFrame({"patient": ["P1", "P2", "P3", "P4"], "dose": [1.4, 3.6, np.nan, 3.1]})
    row = describe_values("dose", "lesion", doses, "dose")
    assert (row["n"], row["n_patients"]) == (3, 3)
    assert row["mean_a"] == pytest.approx(2.7)
    assert row["sd_a"] == pytest.approx(np.sqrt(((1.4 - 2.7) ** 2 + 0.9**2 + 0.4**2) / 2))
    assert "1 without value" in row["note"]


def test_empty_tables_give_rows_without_numbers():
    columns = ["patient", "scan", "lesion", "tracer", "timepoint", "positive", "suv_peak", "tbr"]
    lesions = pd.DataFrame(columns=columns)
    doses = pd.DataFrame(columns=["patient", "region", "kind", "nuclide", "dose_gy_per_gbq"])
    comparisons = find_comparisons(lesions, ["FDG", "pentixafor"], {}, pd.DataFrame(columns=["patient", "marker"]))
    table = compute_statistics(lesions, doses, ["FDG", "pentixafor"], comparisons)
    assert list(table.columns) == list(COLUMNS)
    assert (table["n"] == 0).all()
    assert table[["p_value", "p_holm", "effect"]].isna().all().all()
    assert table.loc[table["test"].notna(), "note"].str.contains("not computable").all()
