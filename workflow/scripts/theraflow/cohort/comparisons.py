"""Which pairs of the cohort's values are compared: tracers, times, dose and response, expression and uptake."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd

BASELINE = "baseline"
MEASURES: Sequence[tuple[str, str]] = (("SUVpeak", "suv_peak"), ("TBR", "tbr"))
PAIR_COLUMNS = ("comparison", "kind", "measure", "side_a", "side_b", "patient", "lesion", "a", "b")


class Kind(Enum):
    """What is asked of a comparison: of tracers whether they agree, of dose and expression whether they go along."""

    TRACERS = "tracers"
    TIMES = "times"
    ASSOCIATION = "association"


@dataclass(frozen=True)
class Comparison:
    """Pairs of values and what they are.

    Attributes:
        kind: which tests the pairs get.
        name: as in `statistics.tsv`.
        measure: what is compared, as `SUVpeak`.
        side_a, side_b: what a and b are.
        pairs: columns `patient`, `lesion` (NA where a pair is a patient), `a`, `b`.
        note: which pairs these are, and which are not among them.
    """

    kind: Kind
    name: str
    measure: str
    side_a: str
    side_b: str
    pairs: pd.DataFrame
    note: str


def find_comparisons(
    lesions: pd.DataFrame,
    tracers: Sequence[str],
    doses_until: Mapping[tuple[str, str], pd.DataFrame],
    expression: pd.DataFrame,
) -> list[Comparison]:
    """All comparisons that the cohort's tables offer, in the order of `statistics.tsv`.

    Args:
        lesions: as `read_lesions` returns it.
        tracers: SUV tracers in the order of the configuration; the first two are compared.
        doses_until: by tracer and later time point the doses of the lesions until that scan, as `doses_until` returns
            them.
        expression: columns `patient`, `marker` and `positive_percent`; no row without a sheet of expression.
    """
    found = []
    for measure, column in MEASURES:
        if len(tracers) > 1:
            first, second = tracers[:2]
            name = f"{measure}, {first} (a) and {second} (b), {BASELINE}"
            pairs = pair_tracers(lesions, first, second, column)
            found.append(Comparison(Kind.TRACERS, name, measure, first, second, pairs, "lesions positive on both"))
        for tracer, later in follow_ups(lesions, tracers):
            name = f"{measure} of {tracer}, {later} (a) and {BASELINE} (b)"
            pairs = pair_timepoints(lesions, tracer, later, column)
            note = f"lesions positive at {BASELINE} and measured at both"
            found.append(Comparison(Kind.TIMES, name, measure, later, BASELINE, pairs, note))
    for tracer, later in follow_ups(lesions, tracers):
        if (tracer, later) in doses_until:
            found.append(_dose_and_change(lesions, tracer, later, doses_until[tracer, later]))
    for marker in expression["marker"].dropna().unique():
        found += [_expression_and_uptake(lesions, tracer, marker, expression) for tracer in tracers]
    return found


def list_pairs(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """All pairs, one a row, columns `PAIR_COLUMNS`: what the tests were made of."""
    tables = [
        comparison.pairs.assign(
            comparison=comparison.name, kind=comparison.kind.value, measure=comparison.measure,
            side_a=comparison.side_a, side_b=comparison.side_b,
        )
        for comparison in comparisons
        if len(comparison.pairs)
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[list(PAIR_COLUMNS)] if tables else pd.DataFrame(columns=PAIR_COLUMNS)


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


def doses_until(course: pd.DataFrame, days: Mapping[str, datetime.date | None]) -> pd.DataFrame:
    """Absorbed dose that each lesion has got before a scan of its patient.

    Args:
        course: `course.tsv` of the cohort, one row per cycle and region, with `date` as YYYY-MM-DD.
        days: by patient the day of the scan, None where it is not known.

    Returns:
        Columns `patient`, `lesion`, `dose_gy`: of the patients with a cycle before that day. NaN where a cycle or the
        scan has no date, or a cycle's dose is not known.
    """
    own = course[(course["kind"] == "lesion") & course["patient"].isin(list(days))]
    scan = pd.to_datetime(own["patient"].map(days), errors="coerce")
    given = pd.to_datetime(own["date"], format="%Y-%m-%d", errors="coerce")
    dated = scan.notna() & given.notna()
    # Of a cycle without a place in time nobody knows whether it counts, and so not the sum either.
    dose = own["dose_gy"].astype(float).where(dated)
    counted = own.assign(dose_gy=dose)[~dated | (given < scan)].rename(columns={"region": "lesion"})
    return counted.groupby(["patient", "lesion"], as_index=False)["dose_gy"].agg(lambda doses: doses.sum(skipna=False))


def _dose_and_change(lesions: pd.DataFrame, tracer: str, later: str, doses: pd.DataFrame) -> Comparison:
    pairs = pair_timepoints(lesions, tracer, later, "suv_peak")
    pairs = pairs.assign(b=100.0 * (pairs["a"] / pairs["b"] - 1.0)).drop(columns="a")
    pairs = pairs.merge(doses.rename(columns={"dose_gy": "a"}), on=["patient", "lesion"], validate="one_to_one")
    return Comparison(
        Kind.ASSOCIATION,
        f"absorbed dose until {later} (a, Gy) and change of SUVpeak of {tracer} (b, %)",
        "dose and response", f"absorbed dose until {later}, Gy", f"change of SUVpeak of {tracer}, %",
        pairs[["patient", "lesion", "a", "b"]],
        f"lesions positive at {BASELINE}, measured at both, of patients treated in between",
    )  # fmt: skip


def _expression_and_uptake(lesions: pd.DataFrame, tracer: str, marker: str, expression: pd.DataFrame) -> Comparison:
    own = lesions[(lesions["tracer"] == tracer) & (lesions["timepoint"] == BASELINE)]
    uptake = own.groupby("patient", as_index=False)["suv_peak"].mean().rename(columns={"suv_peak": "b"})
    first = expression[expression["marker"] == marker].drop_duplicates("patient")
    pairs = first[["patient", "positive_percent"]].rename(columns={"positive_percent": "a"})
    pairs = pairs.merge(uptake, on="patient", validate="one_to_one").assign(lesion=np.nan)
    return Comparison(
        Kind.ASSOCIATION,
        f"cells positive for {marker} (a, %) and SUVpeak of {tracer} (b), {BASELINE}",
        "expression and uptake", f"cells positive for {marker}, %", f"SUVpeak of {tracer}",
        pairs[["patient", "lesion", "a", "b"]].astype({"a": float, "b": float}),
        "one pair a patient: the first specimen in the sheet, the mean of all lesions measured, positive or not",
    )  # fmt: skip
