"""A plan in words: which organ limits, which lesion gets too little, and what could not be checked."""

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from theraflow.dosimetry.radiobiology import QUANTITIES

if TYPE_CHECKING:
    from theraflow.dosimetry.planning.stage import Activity

ASSUMPTIONS = (
    "A cycle that was itself scanned has its own measured dose; all others, given and to come, have the coefficients "
    "of one administration.",
    "Effects of cycles add up: damage is repaired between them. Repopulation is not modelled.",
    "BED and EQD2 are those of a region's mean dose.",
    "95 % is the probability of each limit by itself, for the errors in doses.tsv; limits, alpha/beta and repair "
    "half-times are taken as exact.",
    "The limits are those of the configuration; what is given is a physician's decision.",
)


def summarise(
    plan: pd.DataFrame,
    patient: str,
    name: str,
    cycles_given: int,
    cycles_to_come: int,
    activities: tuple["Activity | None", "Activity | None"],
    wanted_gy: float | None,
) -> dict[str, Any]:
    """The content of plan.json; nothing is claimed of what could not be checked.

    Args:
        plan: plan.tsv.
        patient: whose.
        name: nuclide of the cycles to come.
        cycles_given: number of cycles given.
        cycles_to_come: number of cycles that the course has left.
        activities: the largest of a next cycle, and of the cycles to come together; None where no limit was checked.
        wanted_gy: dose that each lesion should get in the whole course, or None.
    """
    largest, course = activities
    limits, lesions = plan[plan["limit_quantity"].notna()], plan[plan["kind"] == "lesion"]
    unchecked = limits[limits["max_activity_gbq"].isna()]
    limiting = limits[limits["limiting"] == "yes"]
    limiting_95 = limits[limits["max_activity_95_gbq"] == (largest.gbq_95 if largest else math.nan)]
    words = []
    if limits.empty:
        words.append("No limit is configured (dosimetry: limits), so no largest activity is stated.")
    elif largest is None:
        words.append("None of the configured limits could be checked, so no largest activity is stated.")
    else:
        words += _activity_words(largest, name, limiting, limiting_95)
        words += _course_words(course, cycles_to_come) if largest.gbq > 0.0 else []
    if len(unchecked):
        lower = ", and could lower it" if largest else ""
        words.append(f"Not checked{lower}: {_unchecked_words(unchecked)}.")
    if largest is not None:
        words += _lesion_words(lesions, wanted_gy)
    return {
        "patient": patient, "nuclide": name, "cycles_given": cycles_given, "cycles_to_come": cycles_to_come,
        **_activity_entries("largest", largest), **_activity_entries("course", course),
        "limiting": _listed(limiting), "limiting_95": _listed(limiting_95), "not_checked": _listed(unchecked),
        "lesions_insufficient": list(lesions.loc[lesions["reached"] == "no", "region"]),
        "lesions_uncertain": list(lesions.loc[lesions["reached"] == "uncertain", "region"]),
        "statement": " ".join(words), "assumptions": list(ASSUMPTIONS),
    }  # fmt: skip


def _activity_entries(which: str, found: "Activity | None") -> dict[str, float | None]:
    values = (found.gbq, found.sd_gbq, found.gbq_95) if found else (math.nan,) * 3
    names = (f"{which}_activity_gbq", f"{which}_activity_sd_gbq", f"{which}_activity_95_gbq")
    return {key: _number(value) for key, value in zip(names, values, strict=True)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "region": row["region"], "limit_quantity": row["limit_quantity"], "limit_gy": row["limit_gy"],
            "spent_gy": _number(row["spent_gy"]), "remark": row["remark"],
        }
        for _, row in rows.iterrows()
    ]  # fmt: skip


def _activity_words(largest: "Activity", name: str, limiting: pd.DataFrame, limiting_95: pd.DataFrame) -> list[str]:
    if largest.gbq == 0.0:
        return [f"No activity is left: the cycles given have reached the limit of {_limit_words(limiting)}."]
    first = (
        f"At most {_down(largest.gbq)} ± {largest.sd_gbq:.2g} GBq of {name} in a next cycle, limited by "
        f"{_limit_words(limiting)}."
    )
    if largest.gbq_95 == 0.0:
        return [first, f"With a probability above 5 % nothing is left of the limit of {_limit_words(limiting_95)}."]
    other = "" if list(limiting.index) == list(limiting_95.index) else f", limited by {_limit_words(limiting_95)}"
    return [first, f"With a probability of 95 % each limit is kept up to {_down(largest.gbq_95)} GBq{other}."]


def _course_words(course: "Activity", cycles_to_come: int) -> list[str]:
    if cycles_to_come == 0:
        return ["All planned cycles have been given."]
    if cycles_to_come == 1:
        return []
    return [
        f"In {cycles_to_come} equal cycles to come: at most {_down(course.gbq)} ± {course.sd_gbq:.2g} GBq together, "
        f"{_down(course.gbq_95)} GBq with a probability of 95 %."
    ]


def _down(activity_gbq: float) -> str:
    """Three digits, rounded down: what is written keeps the limit too."""
    if activity_gbq == 0.0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(activity_gbq)) - 2)
    return f"{math.floor(activity_gbq / unit * (1.0 + 1e-12)) * unit:.3g}"


def _limit_words(rows: pd.DataFrame) -> str:
    return " and ".join(
        f"{row['region']} ({QUANTITIES[row['limit_quantity']]} {row['limit_gy']:g} Gy"
        + (f", {row['spent_gy']:.3g} Gy of it spent)" if row["spent_gy"] > 0 else ")")
        for _, row in rows.iterrows()
    )


def _unchecked_words(rows: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(f"{row['region']} ({row['remark']})" for _, row in rows.iterrows()))


def _lesion_words(lesions: pd.DataFrame, wanted_gy: float | None) -> list[str]:
    without = lesions[lesions["course_dose_gy"].isna()]
    known = lesions.drop(without.index)
    if known.empty:
        return ["No lesion has a dose."]
    if wanted_gy is None and not known["dose_at_max_gy"].any():
        said = []
    elif wanted_gy is None:
        low, high = known["dose_at_max_gy"].min(), known["dose_at_max_gy"].max()
        span = f"{low:.3g} Gy" if len(known) == 1 else f"{low:.3g} to {high:.3g} Gy"
        said = [f"Lesions in a next cycle at the largest activity: {span}."]
    else:
        said = [
            f"{words}: {_dose_words(known[known['reached'] == verdict])}."
            for verdict, words in (
                ("no", f"Insufficient, below {wanted_gy:g} Gy at the end of the course"),
                ("uncertain", f"Not to be told from {wanted_gy:g} Gy at the end of the course"),
            )
            if (known["reached"] == verdict).any()
        ]
        enough, unjudged = known[known["reached"] == "yes"], known[known["reached"].isna()]
        if len(enough):
            said.append(f"{wanted_gy:g} Gy are reached with a probability of 95 % in: {', '.join(enough['region'])}.")
        if len(unjudged):
            said.append(f"Not judged, without an sd: {', '.join(unjudged['region'])}.")
    if len(without):
        said.append(f"Nothing is known of the dose of {', '.join(without['region'])}.")
    return said


def _dose_words(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{row['region']} ({row['course_dose_gy']:.3g} ± {row['course_dose_sd_gy']:.2g} Gy)"
        for _, row in rows.iterrows()
    )
