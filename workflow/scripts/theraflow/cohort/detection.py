"""How many lesions each tracer shows: `detection.tsv`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy

from theraflow.cohort.clusters import CONFIDENCE, normal_quantile
from theraflow.cohort.comparisons import BASELINE

COLUMNS = (
    "tracer", "n_positive", "n_lesions", "n_patients", "rate", "ci_low", "ci_high", "design_effect", "ci_low_clustered",
    "ci_high_clustered",
)  # fmt: skip


def wilson_interval(positive: int, total: int) -> tuple[float, float, float]:
    """Rate and its 95 % Wilson score interval (Wilson 1927; Newcombe 1998, method 3); NaN without lesions."""
    if total == 0:
        return np.nan, np.nan, np.nan
    interval = scipy.stats.binomtest(positive, total).proportion_ci(CONFIDENCE, method="wilson")
    return positive / total, float(interval.low), float(interval.high)


def clustered_wilson_interval(positive: np.ndarray, totals: np.ndarray) -> tuple[float, float, float]:
    """Design effect of lesions clustered in patients, and the Wilson interval with as many fewer lesions.

    Rao & Scott, Biometrics 1992;48:577: the variance of the ratio sum x_i / sum n_i over patients, over that of as many
    independent lesions; here never below 1. NaN for one patient, and where all lesions are positive or none is: these
    show no variance between patients, and so do not tell how much they are alike.

    Args:
        positive, totals: x_i and n_i, the lesions positive and all lesions of each patient, shape (patients,).

    Returns:
        Design effect, lower and upper limit of the 95 % interval.
    """
    count, total = len(totals), totals.sum()
    rate = positive.sum() / total if total else np.nan
    if count < 2 or not 0 < rate < 1:
        return np.nan, np.nan, np.nan
    between = count / (count - 1) * ((positive - rate * totals) ** 2).sum() / total**2
    effect = max(1.0, float(between / (rate * (1 - rate) / total)))
    # binomtest takes whole lesions only; the formula is Wilson's with n / effect in place of n.
    n, z = total / effect, normal_quantile()
    centre, half = rate + z**2 / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    low, high = ((centre + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return effect, float(low), float(high)


def count_detection(lesions: pd.DataFrame, tracers: Sequence[str]) -> pd.DataFrame:
    """Detection rates at baseline.

    The lesions counted are those positive with at least one of `tracers` at baseline. A tracer's denominator
    leaves out lesions that were not assessed with it. A scan whose registration has failed assesses none: it
    could only ever add lesions that it shows, never tell that one known from another scan is not there. With
    two tracers follow the concordant lesions and those that only one of the two shows, of all lesions assessed
    with both.

    Args:
        lesions: as `read_lesions` returns it.
        tracers: SUV tracers in the order of the configuration.

    Returns:
        Columns `COLUMNS`; `n_patients` have at least one of the lesions counted in `n_lesions`.
    """
    baseline = lesions[(lesions["timepoint"] == BASELINE) & (lesions["registration"] != "failed")]
    seen = baseline.set_index(["patient", "lesion", "tracer"])["positive"].unstack("tracer")  # noqa: PD010
    seen = seen.reindex(columns=list(tracers))
    seen = seen[(seen == 1).any(axis=1)]
    rows = [_count(tracer, seen[tracer].dropna() == 1) for tracer in tracers]
    if len(tracers) > 1:
        first, second = tracers[:2]
        both = seen[[first, second]].dropna() == 1
        both = both[both.any(axis=1)]
        rows += [
            _count(f"{first} and {second} (concordant)", both[first] & both[second]),
            _count(f"{first} only", both[first] & ~both[second]),
            _count(f"{second} only", ~both[first] & both[second]),
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _count(name: str, positive: pd.Series) -> tuple[object, ...]:
    by_patient = positive.groupby(level="patient").agg(["sum", "size"]).to_numpy(float)
    return (
        name,
        int(positive.sum()),
        len(positive),
        len(by_patient),
        *wilson_interval(int(positive.sum()), len(positive)),
        *clustered_wilson_interval(*by_patient.T),
    )
