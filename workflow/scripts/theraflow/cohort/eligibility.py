"""Whether a patient meets the criteria of a radioligand therapy, criterion by criterion.

The criteria and their limits are the configuration's; theraflow has none of its own. A criterion that cannot be judged
is said to be so, and nobody is eligible while one is open.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from theraflow.cohort.comparisons import BASELINE
from theraflow.cohort.toxicity import convert
from theraflow.organs.labels import GROUPS

COLUMNS = ("patient", "criterion", "value", "limit", "unit", "verdict", "remark")
MET, NOT_MET, NOT_ASSESSABLE = "met", "not met", "not assessable"
ALL_CRITERIA = "all criteria"
ELIGIBLE, NOT_ELIGIBLE, UNDECIDED = "eligible", "not eligible", "undecided"

Row = dict[str, Any]


def judge_eligibility(
    patients: Sequence[str],
    criteria: Mapping[str, Any],
    tbr: pd.DataFrame,
    doses: pd.DataFrame,
    laboratory: pd.DataFrame,
    facts: pd.DataFrame,
) -> pd.DataFrame:
    """Every configured criterion of every patient with its value and verdict, and what they come to.

    Args:
        patients: who is judged, in their order.
        criteria: `eligibility` of the configuration: `uptake`, `dose`, `laboratory`, `facts`; each optional.
        tbr: lesions against backgrounds, columns of `tbr.tsv`.
        doses: columns of `doses.tsv`.
        laboratory: columns of `toxicity.tsv`; judged is the last value on day 0 or before, of the highest cycle that
            has one.
        facts: `patients.tsv`.

    Returns:
        Columns `COLUMNS`. The last row of a patient is `all criteria`: eligible where each is met, not eligible where
        one is not, else undecided.

    Raises:
        TheraflowError: a laboratory value is in a unit that cannot be compared with the limit.
    """
    judges = {
        "uptake": (_judge_uptake, tbr),
        "dose": (_judge_doses, doses),
        "laboratory": (_judge_laboratory, laboratory),
        "facts": (_judge_facts, facts),
    }
    rows: list[Row] = []
    for patient in patients:
        own = [
            {"patient": patient, **row}
            for name, rule in criteria.items()
            for judge, table in [judges[name]]
            for row in judge(table[table["patient"] == patient], rule)
        ]
        verdicts = {row["verdict"] for row in own}
        total = NOT_ELIGIBLE if NOT_MET in verdicts else ELIGIBLE if verdicts == {MET} else UNDECIDED
        rows += [*own, {"patient": patient, "criterion": ALL_CRITERIA, "verdict": total}]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(criterion: str, value: Any, limit: str, unit: str | None, met: bool, remark: str | None = None) -> Row:
    return {"criterion": criterion, "value": value, "limit": limit, "unit": unit, "verdict": MET if met else NOT_MET,
            "remark": remark}  # fmt: skip


def _open(criterion: str, limit: str, unit: str | None, why: str) -> Row:
    return {
        "criterion": criterion,
        "value": None,
        "limit": limit,
        "unit": unit,
        "verdict": NOT_ASSESSABLE,
        "remark": why,
    }


def _judge_uptake(tbr: pd.DataFrame, rule: Mapping[str, Any]) -> Iterator[Row]:
    """Uptake of all lesions over a background at baseline: the faintest lesion decides."""
    tracer, region, least = rule["tracer"], rule["background"], rule["at_least"]
    named = (f"uptake of {tracer} in all lesions over {region}", f">= {least:g}", "SUVpeak over mean SUV")
    wanted = (tbr["tracer"] == tracer) & (tbr["timepoint"] == BASELINE) & (tbr["background_region"] == region)
    ratios = tbr.loc[wanted, "tbr"]
    above, unknown = int((ratios >= least).sum()), int(ratios.isna().sum())
    counted = f"{above} of {len(ratios)} lesions are above"
    if ratios.empty:
        yield _open(*named, f"no lesion was measured with {tracer} against {region} at baseline")
    elif unknown and above + unknown == len(ratios):
        yield _open(*named, f"{counted}; {unknown} without a ratio")
    else:
        yield _row(named[0], float(ratios.min()), *named[1:], above == len(ratios), counted)


def _judge_doses(doses: pd.DataFrame, rule: Mapping[str, Any]) -> Iterator[Row]:
    """Doses of an activity: organs at most, each lesion at least. Of a group each organ is judged by itself."""
    activity, nuclide = rule["activity_gbq"], rule["nuclide"]
    own = doses[doses["nuclide"] == nuclide]
    given = f"at {activity:g} GBq of {nuclide}"
    for region, most in rule.get("at_most_gy", {}).items():
        organs = (region,) if region in set(own["region"]) else GROUPS.get(region, (region,))
        for organ in organs:
            yield _judge_dose(f"dose to {organ} {given}", own[own["region"] == organ], activity, at_most=most)
    if "lesions_at_least_gy" in rule:
        lesions = own[own["kind"] == "lesion"]
        yield _judge_dose(f"dose to every lesion {given}", lesions, activity, at_least=rule["lesions_at_least_gy"])


def _judge_dose(
    criterion: str, doses: pd.DataFrame, activity: float, at_most: float = math.inf, at_least: float = 0.0
) -> Row:
    """One row for regions that must all keep a limit; its value is the dose that comes nearest to breaking it."""
    bounded = math.isfinite(at_most)
    named = (criterion, f"<= {at_most:g}" if bounded else f">= {at_least:g}", "Gy")
    known = doses.dropna(subset=["dose_gy_per_gbq"])
    gy = known["dose_gy_per_gbq"] * activity
    kept = gy.between(at_least, at_most).all()
    if known.empty:
        return _open(*named, "no dose")
    if kept and len(known) < len(doses):
        return _open(*named, f"{len(doses) - len(known)} of {len(doses)} regions have no dose")
    worst = gy.idxmax() if bounded else gy.idxmin()
    sd = known.loc[worst, "sd_gy_per_gbq"] * activity
    remark = f"{known.loc[worst, 'region']}, sd {'not known' if math.isnan(sd) else f'{sd:.3g} Gy'}"
    return _row(criterion, float(gy[worst]), *named[1:], bool(kept), remark)


def _judge_laboratory(laboratory: pd.DataFrame, rule: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Laboratory values before therapy: `at_least` and `at_most` in a unit, `at_most_uln` in upper limits of normal."""
    before = laboratory[(laboratory["day"] <= 0) & laboratory["value"].notna()]
    for parameter, limits in rule.items():
        own = before[before["parameter"] == parameter].sort_values(["cycle", "day"], kind="stable")
        for name, limit in limits.items():
            if name == "unit":
                continue
            sign = ">=" if name == "at_least" else "<="
            unit = "times ULN" if name == "at_most_uln" else limits.get("unit")
            criterion, text = f"{parameter} before therapy", f"{sign} {limit:g}"
            if own.empty:
                yield _open(criterion, text, unit, "no value on day 0 or before")
                continue
            last = own.iloc[-1]
            if name == "at_most_uln" and pd.isna(last["uln"]):
                yield _open(criterion, text, unit, "the upper limit of normal is missing")
                continue
            value = last["value"] / last["uln"] if name == "at_most_uln" else convert(
                parameter, last["value"], last["unit"], limits["unit"]
            )  # fmt: skip
            met = value >= limit if sign == ">=" else value <= limit
            yield _row(
                criterion, float(value), text, unit, bool(met), f"day {last['day']:g} of cycle {last['cycle']:g}"
            )


def _judge_facts(facts: pd.DataFrame, rule: Mapping[str, str]) -> Iterator[Row]:
    """Columns of `patients.tsv` that must hold a word, as `stem_cells: yes`."""
    for column, wanted in rule.items():
        known = facts[column].dropna() if column in facts else pd.Series(dtype=object)
        if known.empty:
            yield _open(column, wanted, None, f"patients.tsv says nothing in the column {column}")
        else:
            yield _row(column, known.iloc[0], wanted, None, str(known.iloc[0]) == str(wanted))
