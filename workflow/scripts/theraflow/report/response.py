"""The part of a patient's report that tells of the response to therapy."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from theraflow.layout import PatientFolder, Scan
from theraflow.report.display import Cell, Columns, Table, count, fixed, is_missing, signed, text, whole, words
from theraflow.report.tables import optional_table
from theraflow.response.contract import BEST_COLUMNS, PERCIST, REFERENCE_COLUMNS, RESPONSE_COLUMNS, TARGET_COLUMNS

HOTTEST_NOTE = (
    "Bold: the hottest lesion of each scan, which PERCIST compares. The others are the next hottest, up to five and at "
    "most two of one site, for exploration."
)


def response_section(folder: PatientFolder, scans: Sequence[Scan]) -> dict[str, Any]:
    """What the page tells of response.

    Args:
        folder: the patient's results, with the tables of `theraflow.response`.
        scans: those in SUV.
    """
    response = optional_table(folder, "response", RESPONSE_COLUMNS)
    absent = ""
    if response.empty:
        reason = "no PET" if not scans else "no tracer was scanned at baseline and again later"
        absent = f"No assessment of response: {reason}."
    references = optional_table(folder, "percist_reference", REFERENCE_COLUMNS)
    return {
        "response_table": None if response.empty else response_table(response),
        "response_remarks": response_remarks(response),
        "response_absent": absent,
        "best_responses": best_responses(optional_table(folder, "best_response", BEST_COLUMNS)),
        "targets": target_tables(optional_table(folder, "targets", TARGET_COLUMNS)),
        "references": None if references.empty else reference_table(references),
    }


def response_table(response: pd.DataFrame) -> Table:
    """Categories, and the numbers that they are made of.

    Args:
        response: `response.tsv`, not empty.
    """
    columns = Columns()
    columns.add("Criterion", [text(value, "strong") for value in response["criterion"]])
    columns.add("Baseline", [text(value) for value in response["baseline"]])
    columns.add("Follow-up", [text(value) for value in response["followup"]])
    columns.add("Days", [whole(value) for value in response["days_since_baseline"]], numeric=True)
    columns.add("Category", [text(value, "strong") for value in response["category"]])
    columns.add("Measure", [text(value) for value in response["measure"]])
    for title, column in (("At baseline", "measure_baseline"), ("At follow-up", "measure_followup")):
        columns.add(title, [fixed(value) for value in response[column]], numeric=True)
    columns.add("Change, %", [signed(value) for value in response["change_percent"]], numeric=True)
    columns.add("New lesions", [whole(value) for value in response["new_lesions"]], numeric=True)
    columns.add("Scans comparable", [text(value) for value in response["comparable"]])
    return columns.table()


def response_remarks(response: pd.DataFrame) -> list[tuple[str, str]]:
    """What each category is made of beside the numbers of the table, and what is to be said of it.

    Args:
        response: `response.tsv`.

    Returns:
        Criterion with follow-up, and a sentence or more.
    """
    told = ((f"{row.criterion}, {row.followup}", _parts(row)) for row in response.itertuples())
    return [(about, f"{'; '.join(parts)}.") for about, parts in told if parts]


def _parts(row: Any) -> list[str]:
    parts = [] if is_missing(row.remark) else [str(row.remark)]
    if not is_missing(row.target_response):
        parts.append(f"target lesions {row.target_response}")
    if not is_missing(row.non_target_response):
        parts.append(f"other lesions {row.non_target_response}")
    if not is_missing(row.change_from_nadir_percent):
        parts.append(f"{signed(row.change_from_nadir_percent).text} % from the smallest sum, "
                     f"{fixed(row.measure_nadir).text}")  # fmt: skip
    if not is_missing(row.measurable_from):
        parts.append(f"measurable from {row.measurable_from:.2f} at baseline")
    if not is_missing(row.exploratory_baseline):
        change = f" ({signed(row.exploratory_change_percent).text} %)"
        parts.append(
            f"for exploration, the hottest lesions together {fixed(row.exploratory_baseline).text} to "
            f"{fixed(row.exploratory_followup).text}{'' if is_missing(row.exploratory_change_percent) else change}"
        )
    return parts


def best_responses(best: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Criterion, best response, and how it was judged.

    Args:
        best: `best_response.tsv`.
    """
    return [
        (
            str(row.criterion),
            str(row.best_response),
            f"of {count(int(row.followups), 'follow-up')}; {row.best_response_confirmed} if CR and PR must be "
            f"confirmed by a later scan; SD counts from {row.minimum_stable_weeks:g} weeks after baseline on"
            + ("" if is_missing(row.remark) else f"; {row.remark}"),
        )
        for row in best.itertuples()
    ]


def target_tables(targets: pd.DataFrame) -> list[tuple[str, Table, str]]:
    """For every criterion the lesions that count, with their values on every scan, and a note.

    Args:
        targets: `targets.tsv`.
    """
    return [
        (str(criterion), _target_table(criterion, own), HOTTEST_NOTE if criterion == PERCIST else "")
        for criterion, own in targets.groupby("criterion", sort=False)
    ]


def _target_table(criterion: str, targets: pd.DataFrame) -> Table:
    """Lesions of one criterion, a column of values for every scan."""
    lesions = targets.drop_duplicates("lesion").set_index("lesion")
    columns = Columns()
    columns.add("Lesion", [text(name, "strong") for name in lesions.index])
    columns.add("Site", [words(site) for site in lesions["site"]])
    if criterion != PERCIST:
        columns.add("Role", [text(role) for role in lesions["role"]])
    for scan, own in targets.groupby("scan", sort=False):
        rows = own.set_index("lesion").reindex(lesions.index)
        cells = [fixed(row.value, look="strong" if row.role == "hottest" else "") for row in rows.itertuples()]
        columns.add(f"{scan} ({own['timepoint'].iloc[0]})", cells, numeric=True)
    columns.add("Measured", [text(unit) for unit in lesions["unit"]])
    return columns.table()


def reference_table(references: pd.DataFrame) -> Table:
    """The reference regions of PERCIST on every scan, or why there is none.

    Args:
        references: `percist_reference.tsv`, not empty.
    """
    rows = list(references.itertuples())
    columns = Columns()
    columns.add("Scan", [text(row.scan, "strong") for row in rows])
    columns.add("Region", [words(row.region) for row in rows])
    columns.add("Mean", [fixed(row.mean, 2) for row in rows], numeric=True)
    columns.add("sd", [fixed(row.sd, 2) for row in rows], numeric=True)
    columns.add("Measured", [text(row.measure) for row in rows])
    columns.add("mL", [fixed(row.volume_ml) for row in rows], numeric=True)
    columns.add("Centre x, y, z, mm (LPS)", [_centre(row.x_mm, row.y_mm, row.z_mm) for row in rows], numeric=True)
    if references["remark"].notna().any():
        columns.add("Remark", [text(row.remark) for row in rows])
    return columns.table()


def _centre(*axes: Any) -> Cell:
    return Cell(text(None).text if any(map(is_missing, axes)) else ", ".join(fixed(axis, 0).text for axis in axes))
