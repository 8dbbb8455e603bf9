"""Paired tests, effects with intervals, normality and description: `statistics.tsv`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

COLUMNS = (
    "comparison", "group", "n", "median_a", "range_a", "median_b", "range_b", "test", "statistic", "p_value",
    "effect", "ci_low", "ci_high", "n_patients", "mean_a", "sd_a", "mean_b", "sd_b", "effect_name",
    "smallest_p_value", "note",
)  # fmt: skip

CONFIDENCE = 0.95
# Up to here the distribution without ties is enumerated, as scipy and R do; and with ties all 2^n sign
# patterns are.
EXACT_RANKS, EXACT_TIED_RANKS, EXACT_SIGN_FLIPS = 50, 13, 16
SIGN_FLIP_DRAWS = 99_999
# Differences of SUVs that are equal on paper differ in the 16th digit; a rank test must see them as ties.
TIE_DECIMALS = 10


@dataclass(frozen=True)
class Test:
    """Result of a test. Where it is not defined, `statistic` and `p_value` are NaN and `note` says why."""

    name: str
    statistic: float
    p_value: float
    smallest_p_value: float = np.nan
    note: str = ""


def wilcoxon(difference: np.ndarray) -> Test:
    """Wilcoxon signed-rank test, two-sided, zero differences discarded.

    Exact without ties up to n = 50 and with ties up to n = 13; otherwise the normal approximation with tie
    correction and without continuity correction. The statistic is the smaller of the two rank sums.

    Args:
        difference: paired differences, shape (n,).
    """
    difference = np.round(difference, TIE_DECIMALS)
    nonzero = difference[difference != 0]
    n, name = len(nonzero), "Wilcoxon signed-rank"
    if n == 0:
        reason = "all pairs are equal" if len(difference) else "no pairs"
        return Test(name, np.nan, np.nan, note=f"not computable: {reason}")
    zeros = len(difference) - n
    note = f"{zeros} pairs without difference left out of the ranks" if zeros else ""
    tied = len(np.unique(np.abs(nonzero))) < n
    smallest = 2.0 ** (1 - n)
    if not tied and n <= EXACT_RANKS:
        name, method = f"{name}, exact", "exact"
    elif n <= EXACT_TIED_RANKS:
        name, method = f"{name}, exact with ties", stats.PermutationMethod(n_resamples=2**n)
    else:
        name, method, smallest = f"{name}, normal approximation", "asymptotic", np.nan
    result = stats.wilcoxon(nonzero, method=method)
    return Test(name, float(result.statistic), float(result.pvalue), smallest, note)


def sign_flip(difference: np.ndarray) -> Test:
    """Sign-flip (Fisher-Pitman) test of the mean of independent paired differences, two-sided.

    All 2^n sign patterns up to n = 16, random ones (fixed seed) above. Its smallest attainable p is 2 / 2^n.

    Args:
        difference: one difference per independent unit (patient), shape (n,).
    """
    n, name = len(difference), "sign-flip of patient means"
    if n == 0:
        return Test(f"{name}, exact", np.nan, np.nan, note="not computable: no patients")
    if n == 1:  # scipy refuses a single observation; both sign patterns are as extreme
        return Test(f"{name}, exact", float(difference[0]), 1.0, 1.0)
    exact = n <= EXACT_SIGN_FLIPS
    result = stats.permutation_test(
        (difference,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**n if exact else SIGN_FLIP_DRAWS,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    name = f"{name}, exact" if exact else f"{name}, {SIGN_FLIP_DRAWS} random draws"
    smallest = 2.0 ** (1 - n) if exact else 2 / (SIGN_FLIP_DRAWS + 1)
    return Test(name, float(result.statistic), float(result.pvalue), smallest)


def shapiro_wilk(values: np.ndarray) -> Test:
    """Shapiro-Wilk test of normality; needs three values that are not all equal."""
    name = "Shapiro-Wilk"
    if len(values) < 3:
        return Test(name, np.nan, np.nan, note="not computable: fewer than 3 values")
    if np.ptp(values) == 0:
        return Test(name, np.nan, np.nan, note="not computable: all values are equal")
    result = stats.shapiro(values)
    note = "p is approximate for more than 5000 values" if len(values) > 5000 else ""
    return Test(name, float(result.statistic), float(result.pvalue), note=note)


def hodges_lehmann(difference: np.ndarray) -> tuple[float, float, float]:
    """Hodges-Lehmann estimate of the paired difference, and its interval from the signed-rank distribution.

    The median of the Walsh averages (d_i + d_j) / 2, i <= j, of all differences, zeros too; the 95 %
    interval by inverting the signed-rank test (Hollander & Wolfe, Nonparametric Statistical Methods,
    sections 3.2 and 3.3): exact up to n = 50, normal approximation above. With n < 6 no two-sided 95 %
    interval exists: NaN.

    Returns:
        Estimate, lower and upper limit; NaN where not defined.
    """
    n = len(difference)
    if n == 0:
        return np.nan, np.nan, np.nan
    walsh = np.sort(np.concatenate([(difference[i:] + difference[i]) / 2 for i in range(n)]))
    rank = _signed_rank_quantile(n, (1 - CONFIDENCE) / 2)
    low, high = (walsh[rank - 1], walsh[len(walsh) - rank]) if rank >= 1 else (np.nan, np.nan)
    return float(np.median(walsh)), float(low), float(high)


def _signed_rank_quantile(n: int, alpha: float) -> int:
    """Largest k with P(W+ <= k - 1) <= alpha under the null hypothesis; 0 where there is none."""
    if n > EXACT_RANKS:
        mean, sd = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(np.floor(mean + stats.norm.ppf(alpha) * sd))
    probability = np.ones(1)
    for rank in range(1, n + 1):
        step = np.zeros(rank + 1)
        step[[0, rank]] = 0.5
        probability = np.convolve(probability, step)
    # Sums of powers of 1/2 are exact up to n = 50, so no tolerance is needed.
    return int(np.searchsorted(np.cumsum(probability), alpha, side="right"))


def describe(values: np.ndarray, side: str) -> dict[str, object]:
    """Median, range, mean and standard deviation (n - 1) of `values`, for the columns of side `a` or `b`."""
    if len(values) == 0:
        return {}
    low, high = float(np.min(values)), float(np.max(values))
    return {
        f"median_{side}": float(np.median(values)),
        f"range_{side}": f"{low!r} to {high!r}",
        f"mean_{side}": float(np.mean(values)),
        f"sd_{side}": float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
    }


def describe_values(comparison: str, group: str, values: pd.DataFrame, column: str) -> dict[str, object]:
    """One row: description of `values[column]` and its Shapiro-Wilk test.

    Args:
        comparison, group: as in the table.
        values: one observation a row, with `patient`.
        column: what is described; missing values are left out and counted in the note.
    """
    present = values.dropna(subset=[column])
    sample = present[column].to_numpy(float)
    left_out = len(values) - len(present)
    return _row(
        comparison, group, present, shapiro_wilk(sample), describe(sample, "a"),
        note=f"{left_out} without value left out" if left_out else "",
    )  # fmt: skip


def compare_pairs(comparison: str, pairs: pd.DataFrame, note: str) -> list[dict[str, object]]:
    """Rows of one paired comparison: pooled over lesions, by patient, and normality of the differences.

    Args:
        comparison: as in the table.
        pairs: columns `patient`, `a`, `b`, one lesion a row. The effect is a - b.
        note: which pairs these are.
    """
    pairs = pairs.dropna(subset=["a", "b"])
    means = pairs.groupby("patient", as_index=False)[["a", "b"]].mean()
    rows = []
    for sample, group, test, remark in (
        (pairs, "lesions, pooled", wilcoxon, "naive: treats lesions of one patient as independent"),
        (means, "patients", sign_flip, "one mean a patient"),
    ):
        a, b = sample["a"].to_numpy(float), sample["b"].to_numpy(float)
        estimate, low, high = hodges_lehmann(a - b)
        row = _row(comparison, group, sample, test(a - b), describe(a, "a") | describe(b, "b"), note, remark)
        few = 0 < len(sample) < 6
        row |= {
            "effect": estimate, "ci_low": low, "ci_high": high,
            "effect_name": f"Hodges-Lehmann difference a - b, {CONFIDENCE:.0%} signed-rank interval",
            "note": _join(row["note"], "fewer than 6 pairs: no 95 % interval exists" if few else ""),
        }  # fmt: skip
        rows.append(row)
    difference = (pairs["a"] - pairs["b"]).to_numpy(float)
    return [*rows, _row(f"{comparison}, difference", "lesions, pooled", pairs, shapiro_wilk(difference),
                        describe(difference, "a"), note)]  # fmt: skip


def _row(comparison: str, group: str, sample: pd.DataFrame, test: Test, description: dict[str, object],
         *notes: str, note: str = "") -> dict[str, object]:  # fmt: skip
    return {
        "comparison": comparison,
        "group": group,
        "n": len(sample),
        "n_patients": sample["patient"].nunique(),
        **description,
        "test": test.name,
        "statistic": test.statistic,
        "p_value": test.p_value,
        "smallest_p_value": test.smallest_p_value,
        "note": _join(*notes, note, test.note),
    }


def _join(*notes: object) -> str:
    return "; ".join(str(note) for note in notes if note)


MEASURES: Sequence[tuple[str, str]] = (("SUVpeak", "suv_peak"), ("TBR", "tbr"))
BASELINE = "baseline"


def compute_statistics(lesions: pd.DataFrame, doses: pd.DataFrame, tracers: Sequence[str]) -> pd.DataFrame:
    """The whole of `statistics.tsv`.

    Args:
        lesions: as `read_lesions` returns it.
        doses: `doses.tsv` of the cohort.
        tracers: SUV tracers in the order of the configuration; the first two are compared.

    Returns:
        One row per description or test, columns `COLUMNS`.
    """
    rows: list[dict[str, object]] = []
    baseline = lesions[lesions["timepoint"] == BASELINE]
    for tracer in tracers:
        seen = baseline[(baseline["tracer"] == tracer) & (baseline["positive"] == 1)]
        for measure, column in MEASURES:
            rows.append(describe_values(f"{measure} of {tracer}, {BASELINE}", "positive lesions", seen, column))
    for measure, column in MEASURES:
        if len(tracers) > 1:
            pairs = pair_tracers(lesions, tracers[0], tracers[1], column)
            comparison = f"{measure}, {tracers[0]} (a) and {tracers[1]} (b), {BASELINE}"
            rows += compare_pairs(comparison, pairs, "lesions positive on both")
        for tracer, later in follow_ups(lesions, tracers):
            pairs = pair_timepoints(lesions, tracer, later, column)
            comparison = f"{measure} of {tracer}, {later} (a) and {BASELINE} (b)"
            rows += compare_pairs(comparison, pairs, f"lesions positive at {BASELINE} and measured at both")
    return pd.DataFrame(rows + _describe_doses(doses), columns=list(COLUMNS))


def follow_ups(lesions: pd.DataFrame, tracers: Sequence[str]) -> list[tuple[str, str]]:
    """(tracer, time point) of all that was measured after baseline, in the order of tracers and table."""
    later = lesions[(lesions["timepoint"] != BASELINE) & lesions["tracer"].isin(tracers)]
    found = later[["tracer", "timepoint"]].drop_duplicates().itertuples(index=False)
    return sorted(((row.tracer, row.timepoint) for row in found), key=lambda pair: list(tracers).index(pair[0]))


def pair_tracers(lesions: pd.DataFrame, first: str, second: str, column: str) -> pd.DataFrame:
    """Lesions positive on both tracers at baseline: `patient`, `lesion`, `a` (first), `b` (second)."""
    seen = lesions[(lesions["timepoint"] == BASELINE) & (lesions["positive"] == 1)]
    return _pairs(seen[seen["tracer"] == first], seen[seen["tracer"] == second], column)


def pair_timepoints(lesions: pd.DataFrame, tracer: str, later: str, column: str) -> pd.DataFrame:
    """Lesions positive at baseline and measured again: `patient`, `lesion`, `a` (later), `b` (baseline)."""
    own = lesions[lesions["tracer"] == tracer]
    before = own[(own["timepoint"] == BASELINE) & (own["positive"] == 1)]
    return _pairs(own[own["timepoint"] == later], before, column)


def _pairs(a: pd.DataFrame, b: pd.DataFrame, column: str) -> pd.DataFrame:
    keys = ["patient", "lesion"]
    a, b = (side[[*keys, column]].rename(columns={column: name}) for side, name in ((a, "a"), (b, "b")))
    return a.merge(b, on=keys, validate="one_to_one")


def _describe_doses(doses: pd.DataFrame) -> list[dict[str, object]]:
    """Dose coefficients by kind of region, and by region where a kind has several (a kidney is no liver)."""
    rows = []
    for nuclide in doses["nuclide"].unique():
        own = doses[doses["nuclide"] == nuclide]
        comparison = f"dose coefficient of {nuclide}, Gy/GBq"
        for kind in own["kind"].unique():
            of_kind = own[own["kind"] == kind]
            if kind != "lesion" and of_kind["dose_gy_per_gbq"].isna().all():
                continue  # as the whole body; that lesions have none is worth a row
            rows.append(describe_values(comparison, kind, of_kind, "dose_gy_per_gbq"))
            regions = of_kind["region"].unique() if kind != "lesion" else ()
            if len(regions) > 1:
                for region in regions:
                    of_region = of_kind[of_kind["region"] == region]
                    rows.append(describe_values(comparison, f"{kind}: {region}", of_region, "dose_gy_per_gbq"))
    return rows
