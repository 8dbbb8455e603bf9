"""How many lesions each tracer shows: `detection.tsv`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from theraflow.cohort.statistics import BASELINE, CONFIDENCE

COLUMNS = ("tracer", "n_positive", "n_lesions", "n_patients", "rate", "ci_low", "ci_high")


def wilson_interval(positive: int, total: int) -> tuple[float, float, float]:
    """Rate and its 95 % Wilson score interval (Wilson 1927; Newcombe 1998, method 3); NaN without lesions."""
    if total == 0:
        return np.nan, np.nan, np.nan
    interval = stats.binomtest(positive, total).proportion_ci(CONFIDENCE, method="wilson")
    return positive / total, float(interval.low), float(interval.high)


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
    patients = positive.index.get_level_values("patient").nunique()
    return (
        name,
        int(positive.sum()),
        len(positive),
        patients,
        *wilson_interval(int(positive.sum()), len(positive)),
    )
