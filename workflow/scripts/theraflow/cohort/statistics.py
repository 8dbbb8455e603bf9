"""Description, paired tests, agreement and association, over lesions and over patients: `statistics.tsv`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from theraflow.cohort.agreement import Estimate, clustered_agreement, concordance, limits_of_agreement, spearman
from theraflow.cohort.clusters import CONFIDENCE, FEWEST_PATIENTS, Resampled, resample_patients
from theraflow.cohort.comparisons import (
    BASELINE,
    MEASURES,
    Comparison,
    Kind,
    follow_ups,
    pair_timepoints,
    pair_tracers,
)
from theraflow.cohort.paired import (
    Test,
    clustered_shift,
    hodges_lehmann,
    holm,
    mean_shift,
    rank_biserial,
    rosner_glynn_lee,
    shapiro_wilk,
    sign_flip,
    wilcoxon,
)

__all__ = [
    "BASELINE", "COLUMNS", "CONFIDENCE", "MEASURES", "compare_pairs", "compute_statistics", "describe_values",
    "follow_ups", "pair_timepoints", "pair_tracers",
]  # fmt: skip

COLUMNS = (
    "comparison", "group", "n", "median_a", "range_a", "median_b", "range_b", "test", "statistic", "p_value",
    "effect", "ci_low", "ci_high", "n_patients", "mean_a", "sd_a", "mean_b", "sd_b", "effect_name",
    "smallest_p_value", "family", "p_holm", "bootstrap_low", "bootstrap_high", "note",
)  # fmt: skip

POOLED, CLUSTERED, PATIENTS = "lesions, pooled", "lesions, clustered by patient", "patients"
NAIVE = "naive: treats lesions of one patient as independent"
SIGNIFICANT = 0.05
_NO_TEST = Test("", np.nan, np.nan)

Row = dict[str, object]


def compute_statistics(
    lesions: pd.DataFrame, doses: pd.DataFrame, tracers: Sequence[str], comparisons: Sequence[Comparison]
) -> pd.DataFrame:
    """The whole of `statistics.tsv`.

    Args:
        lesions: as `read_lesions` returns it.
        doses: `doses.tsv` of the cohort.
        tracers: SUV tracers in the order of the configuration.
        comparisons: as `find_comparisons` returns them.

    Returns:
        One row per description, test or effect, columns `COLUMNS`. Tests of one kind over one group of values are a
        family, within which `p_holm` is adjusted for their number.
    """
    rows: list[Row] = []
    baseline = lesions[lesions["timepoint"] == BASELINE]
    for tracer in tracers:
        seen = baseline[(baseline["tracer"] == tracer) & (baseline["positive"] == 1)]
        for measure, column in MEASURES:
            rows.append(describe_values(f"{measure} of {tracer}, {BASELINE}", "positive lesions", seen, column))
    for comparison in comparisons:
        if comparison.kind is Kind.ASSOCIATION:
            rows += associate_pairs(comparison.name, comparison.pairs, comparison.note)
            continue
        rows += compare_pairs(comparison.name, comparison.pairs, comparison.note)
        if comparison.kind is Kind.TRACERS:
            rows += measure_agreement(comparison.name, comparison.pairs, comparison.note)
    table = pd.DataFrame(rows + _describe_doses(doses), columns=list(COLUMNS))
    for _, own in table[table["family"].notna() & table["p_value"].notna()].groupby("family"):
        table.loc[own.index, "p_holm"] = holm(own["p_value"].to_numpy(float))
    return table


def describe(values: np.ndarray, side: str) -> Row:
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


def describe_values(comparison: str, group: str, values: pd.DataFrame, column: str) -> Row:
    """One row: description of `values[column]` and its Shapiro-Wilk test.

    Args:
        comparison, group: as in the table.
        values: one observation a row, with `patient`.
        column: what is described; missing values are left out and counted in the note.
    """
    present = values.dropna(subset=[column])
    sample = present[column].to_numpy(float)
    return _row(comparison, group, present, shapiro_wilk(sample), describe(sample, "a"), _left_out(values, present))


def compare_pairs(comparison: str, pairs: pd.DataFrame, note: str) -> list[Row]:
    """Rows of one paired comparison: three tests, an effect size, and normality of the differences.

    The tests are Wilcoxon's over all lesions, that of Rosner, Glynn and Lee over lesions clustered by patient, and the
    sign-flip test over patients' means, each with the shift that belongs to it.

    Args:
        comparison: as in the table.
        pairs: columns `patient`, `a`, `b`, one lesion a row. The effect is a - b.
        note: which pairs these are.
    """
    present = pairs.dropna(subset=["a", "b"])
    note = _join(note, _left_out(pairs, present))
    means = present.groupby("patient", as_index=False)[["a", "b"]].mean()
    difference, patients = (present["a"] - present["b"]).to_numpy(float), present["patient"].to_numpy()
    of_means = (means["a"] - means["b"]).to_numpy(float)
    interval = f"{CONFIDENCE:.0%} interval by inverting the test"
    shift = f"Hodges-Lehmann difference a - b, {interval}"
    rows = []
    for sample, group, test, effect, name, remark in (
        (present, POOLED, wilcoxon(difference), hodges_lehmann(difference), shift, NAIVE),
        (present, CLUSTERED, rosner_glynn_lee(difference, patients), clustered_shift(difference, patients), shift, ""),
        (means, PATIENTS, sign_flip(of_means), mean_shift(of_means),
         f"mean of patients' differences a - b, {interval}", "one mean a patient"),
    ):  # fmt: skip
        row = _row(comparison, group, sample, test, _both_sides(sample), note, remark, _reach(test, sample, group))
        row |= dict(zip(("effect", "ci_low", "ci_high"), effect, strict=True), effect_name=name)
        row["family"] = f"paired comparisons, {group}"
        few = 0 < (len(sample) if group != CLUSTERED else len(means)) < 6
        units = "patients" if group == CLUSTERED else "pairs"
        row["note"] = _join(row["note"], f"fewer than 6 {units}: no 95 % interval exists" if few else "")
        rows.append(row)
    size = resample_patients(
        lambda values, _: np.array([rank_biserial(values[:, 0])]), difference[:, None], patients, np.array([True])
    )
    rows.append(_effect_row(comparison, present, size, 0, "matched-pairs rank-biserial correlation", note))
    return [*rows, _row(f"{comparison}, difference", POOLED, present, shapiro_wilk(difference),
                        describe(difference, "a"), note)]  # fmt: skip


def measure_agreement(comparison: str, pairs: pd.DataFrame, note: str) -> list[Row]:
    """Rows of agreement: Spearman, Lin, bias and limits of agreement, each pooled (naive) and clustered by patient.

    Args:
        comparison, pairs, note: as `compare_pairs`.
    """
    pairs = pairs.dropna(subset=["a", "b"])
    a, b = (pairs[side].to_numpy(float) for side in "ab")
    names = ("Spearman's rho", "Lin's concordance correlation", "Bland-Altman bias a - b",
             "Bland-Altman lower limit of agreement", "Bland-Altman upper limit of agreement")  # fmt: skip
    pooled = (spearman(a, b)[0], concordance(a, b), *limits_of_agreement(a - b))
    rows = [
        _estimate_row(comparison, POOLED, pairs, estimate, name, note, NAIVE)
        for name, estimate in zip(names, pooled, strict=True)
    ]
    if len(pairs) < 3:
        return rows
    clustered = resample_patients(
        clustered_agreement,
        np.column_stack([a, b]),
        pairs["patient"].to_numpy(),
        np.array([True, True, False, False, False]),
    )
    return rows + [_effect_row(comparison, pairs, clustered, k, name, note) for k, name in enumerate(names)]


def associate_pairs(comparison: str, pairs: pd.DataFrame, note: str) -> list[Row]:
    """Rows of association of a with b: Spearman over all pairs, with patients resampled, and over patients' means.

    Args:
        comparison, note: as `compare_pairs`.
        pairs: columns `patient`, `a`, `b`; where each patient has one, only the row over patients is made.
    """
    present = pairs.dropna(subset=["a", "b"])
    note = _join(note, _left_out(pairs, present))
    means = present.groupby("patient", as_index=False)[["a", "b"]].mean()
    name, rows = "Spearman's rho", []
    if len(means) < len(present):
        estimate, test = spearman(*present[["a", "b"]].to_numpy(float).T)
        row = _estimate_row(comparison, POOLED, present, estimate, name, note, NAIVE, test=test)
        rows.append(row | {"family": f"associations, {POOLED}"})
        if len(present) >= 3:
            clustered = resample_patients(
                lambda values, index: clustered_agreement(values, index)[:1],
                present[["a", "b"]].to_numpy(float), present["patient"].to_numpy(), np.array([True]),
            )  # fmt: skip
            rows.append(_effect_row(comparison, present, clustered, 0, name, note))
    estimate, test = spearman(*means[["a", "b"]].to_numpy(float).T)
    remark = "one mean a patient" if rows else ""
    row = _estimate_row(
        comparison, PATIENTS, means, estimate, name, note, remark, _reach(test, means, PATIENTS), test=test
    )
    return [*rows, row | {"family": f"associations, {PATIENTS}"}]


def _estimate_row(
    comparison: str, group: str, sample: pd.DataFrame, estimate: Estimate, name: str, *notes: str, test: Test = _NO_TEST
) -> Row:
    row = _row(comparison, group, sample, test, _both_sides(sample), *notes)
    if estimate.note != test.note:
        row["note"] = _join(row["note"], estimate.note)
    limits = {"effect": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
    return row | limits | {"effect_name": name}


def _effect_row(comparison: str, sample: pd.DataFrame, found: Resampled, k: int, name: str, note: str) -> Row:
    """The k-th of the clustered effects, with its interval over patients."""
    remark = "interval: jackknife of patients"
    if sample["patient"].nunique() < FEWEST_PATIENTS:
        remark = f"fewer than {FEWEST_PATIENTS} patients: no interval"
    elif np.isnan(found.low[k]):
        remark = "no interval: not defined without one of the patients"
    row = _row(comparison, CLUSTERED, sample, _NO_TEST, _both_sides(sample), note, remark)
    return row | {
        "effect": found.estimate[k], "ci_low": found.low[k], "ci_high": found.high[k], "effect_name": name,
        "bootstrap_low": found.bootstrap_low[k], "bootstrap_high": found.bootstrap_high[k],
    }  # fmt: skip


def _reach(test: Test, sample: pd.DataFrame, group: str) -> str:
    """A warning where no result of so few patients (or, pooled, lesions) could be significant."""
    if np.isnan(test.p_value) or not test.smallest_p_value > SIGNIFICANT:
        return ""
    number, unit = (len(sample), "pair") if group == POOLED else (sample["patient"].nunique(), "patient")
    few = f"{number} {unit}" + ("" if number == 1 else "s")
    return f"with {few} no p below {test.smallest_p_value:.3g} can be reached"


def _both_sides(sample: pd.DataFrame) -> Row:
    return describe(sample["a"].to_numpy(float), "a") | describe(sample["b"].to_numpy(float), "b")


def _left_out(values: pd.DataFrame, present: pd.DataFrame) -> str:
    missing = len(values) - len(present)
    return f"{missing} without value left out" if missing else ""


def _row(comparison: str, group: str, sample: pd.DataFrame, test: Test, description: Row, *notes: str) -> Row:
    return {
        "comparison": comparison,
        "group": group,
        "n": len(sample),
        "n_patients": sample["patient"].nunique(),
        **description,
        "test": test.name or None,
        "statistic": test.statistic,
        "p_value": test.p_value,
        "smallest_p_value": test.smallest_p_value,
        "note": _join(*notes, test.note),
    }


def _join(*notes: object) -> str:
    return "; ".join(str(note) for note in notes if note)


def _describe_doses(doses: pd.DataFrame) -> list[Row]:
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
