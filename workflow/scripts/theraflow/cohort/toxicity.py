"""CTCAE 5.0 grades from laboratory values, and the worst grade of every patient and cycle.

The limits are data: `resources/ctcae_v5_laboratory.tsv`.
"""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from theraflow.errors import TheraflowError

LIMITS = Path(__file__).resolve().parents[4] / "resources" / "ctcae_v5_laboratory.tsv"
GRADE_COLUMNS = (
    "patient", "cycle", "day", "parameter", "term", "value", "unit", "lln", "uln", "baseline", "grade_stated",
    "grade_laboratory", "grade", "remark",
)  # fmt: skip
WORST_COLUMNS = ("patient", "cycle", "parameter", "term", "grade", "n_values", "n_ungraded", "remark")
# Factors to the unit of the table of limits. Haemoglobin: 64,458 g/mol for four haems, as in mmol/L of one haem.
UNITS = {
    "g/dL": {"g/dL": 1.0, "g/L": 0.1, "mmol/L": 1.61145},
    "10^9/L": {"10^9/L": 1.0, "G/L": 1.0, "/nL": 1.0, "/uL": 1e-3, "/µL": 1e-3, "/mm3": 1e-3},
}
# 3 x 1.2 is a little more than 3.6 in binary, and a value at a limit must not pass it.
_DECIMALS = 9


@cache
def read_limits() -> pd.DataFrame:
    """The limits of CTCAE 5.0: columns parameter, term, unit, baseline, grade, comparison, limit, reference."""
    return pd.read_csv(LIMITS, sep="\t", comment="#", keep_default_na=False, na_values=["NA"], dtype={"reference": str})


def grade_value(
    parameter: str,
    value: float,
    unit: str | None = None,
    lln: float | None = None,
    uln: float | None = None,
    baseline: float | None = None,
) -> tuple[int | None, str]:
    """CTCAE 5.0 grade of a laboratory value.

    A limit whose reference (LLN, ULN, baseline) is not known is left out. Where it could still raise the grade, there
    is no grade.

    Args:
        parameter: of the table of limits, as `platelets`.
        value: what was measured.
        unit: needed for blood counts and haemoglobin; creatinine, bilirubin, ALT and AST are compared with ULN and
            baseline, which are in the same unit.
        lln, uln: limits of normal of the laboratory, in the same unit.
        baseline: the value before therapy, in the same unit.

    Returns:
        Grade 0 to 4 and an empty remark; or None, and what is missing.

    Raises:
        TheraflowError: no limits are published for the parameter, or its unit is not known.
    """
    limits = read_limits()
    rows = limits[limits["parameter"] == parameter]
    if rows.empty:
        known = ", ".join(limits["parameter"].unique())
        raise TheraflowError(
            f"There are no CTCAE limits of {parameter!r}; graded are {known}. State its grade instead."
        )
    wanted = rows["unit"].iloc[0]
    if isinstance(wanted, str):
        value, lln = (None if number is None else convert(parameter, number, unit, wanted) for number in (value, lln))
    references = {"1": 1.0, "LLN": lln, "ULN": uln, "baseline": baseline}
    if (rows["baseline"] != "any").any() and (baseline is None or uln is None):
        # A value within the ULN has grade 0 by either set of limits: an abnormal baseline was higher still.
        if uln is not None and not _passes(value, ">", uln):
            return 0, ""
        return None, f"no grade without {_list_missing(rows, references)}"
    if (rows["baseline"] != "any").any():
        state = "normal" if baseline <= uln else "abnormal"
        rows = rows[rows["baseline"] == state]
    least, most = _grade(rows, value, references)
    return (least, "") if least == most else (None, f"no grade without {_list_missing(rows, references)}")


def convert(parameter: str, value: float, unit: str | None, wanted: str) -> float:
    """A laboratory value in another unit of the same quantity.

    Raises:
        TheraflowError: one of the units is not known for the other.
    """
    if unit == wanted:
        return value
    for units in UNITS.values():
        if unit in units and wanted in units:
            return value * units[unit] / units[wanted]
    known = next((units for units in UNITS.values() if wanted in units), {wanted: 1.0})
    raise TheraflowError(f"The unit {unit or 'NA'} of {parameter} is not known; write one of {', '.join(known)}.")


def _grade(rows: pd.DataFrame, value: float, references: Mapping[str, float | None]) -> tuple[int, int]:
    """The grade by the limits that are known, and the highest that the others could give."""
    least = most = 0
    for row in rows.itertuples():
        reference = references[row.reference]
        if reference is None:
            most = max(most, row.grade)
        elif _passes(value, row.comparison, row.limit * reference):
            least = max(least, row.grade)
    return least, max(least, most)


def _passes(value: float, comparison: str, limit: float) -> bool:
    difference = round(value - limit, _DECIMALS)
    return {"<": difference < 0, ">": difference > 0, ">=": difference >= 0}[comparison]


def _list_missing(rows: pd.DataFrame, references: Mapping[str, float | None]) -> str:
    names = {
        "LLN": "the lower limit of normal",
        "ULN": "the upper limit of normal",
        "baseline": "the value before therapy",
    }
    used = {"ULN", *rows["reference"]} if (rows["baseline"] != "any").any() else set(rows["reference"])
    return " and ".join(words for name, words in names.items() if name in used and references[name] is None)


def grade_toxicity(toxicity: pd.DataFrame) -> pd.DataFrame:
    """`toxicity.tsv` with grades.

    A grade that is stated stands, and a laboratory value that gives another one is remarked on.

    Args:
        toxicity: one value or one stated grade a row, columns as `workflow/schemas/toxicity.schema.yaml`.

    Returns:
        Columns `GRADE_COLUMNS`; rows with neither value nor grade keep their place, without a grade.

    Raises:
        TheraflowError: a parameter or unit without published limits and without a stated grade; names the row.
    """
    wanted = ("patient", "cycle", "day", "parameter", "value", "unit", "lln", "uln", "baseline", "grade", "remark")
    table = toxicity.reindex(columns=list(wanted)).rename(columns={"grade": "grade_stated"})
    rows = [_graded({str(name): _none(cell) for name, cell in row.items()}) for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=list(GRADE_COLUMNS))


def _none(cell: Any) -> Any:
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _graded(row: dict[str, Any]) -> dict[str, Any]:
    limits = read_limits()
    terms = limits.loc[limits["parameter"] == row["parameter"], "term"]
    stated, grade, why = row["grade_stated"], None, ""
    if row["value"] is not None and not (terms.empty and stated is not None):
        try:
            grade, why = grade_value(
                row["parameter"], row["value"], row["unit"], row["lln"], row["uln"], row["baseline"]
            )
        except TheraflowError as error:
            raise TheraflowError(
                f"The sheet of toxicity, patient {row['patient']}, cycle {row['cycle']}: {error}"
            ) from None
    elif stated is None:
        why = "neither a value nor a grade"
    if stated is not None and grade is not None and grade != stated:
        why = f"the laboratory value gives grade {grade}"
    return {
        **row,
        "term": terms.iloc[0] if len(terms) else row["parameter"].replace("_", " "),
        "grade_laboratory": grade,
        "grade": grade if stated is None else int(stated),
        "remark": "; ".join(word for word in (row["remark"], why) if word) or None,
    }


def worst_grades(graded: pd.DataFrame) -> pd.DataFrame:
    """Worst grade of every patient, cycle and parameter, columns `WORST_COLUMNS`.

    Args:
        graded: as `grade_toxicity` returns it. Values without a grade are counted, not taken for 0.
    """
    rows = []
    for (patient, cycle, parameter, term), own in graded.groupby(
        ["patient", "cycle", "parameter", "term"], sort=False, dropna=False
    ):
        known = own["grade"].dropna()
        ungraded = len(own) - len(known)
        remark = f"at least this: {ungraded} of {len(own)} values have no grade" if ungraded and len(known) else None
        grade = int(known.max()) if len(known) else None
        rows.append((patient, cycle, parameter, term, grade, len(own), ungraded, remark))
    return pd.DataFrame(rows, columns=list(WORST_COLUMNS)).astype({"grade": "Int64"})
