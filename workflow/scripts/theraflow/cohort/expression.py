"""Immunohistochemistry: the immunoreactive score of Remmele and Stegner.

Source: Remmele & Stegner, Pathologe 1987;8:138: staining intensity times percentage points. The classes 0-1, 2-3, 4-8
and 9-12 are those that pathology laboratories print with this citation (Fedchenko & Reifenrath, Diagn Pathol
2014;9:221). Other sources call 0-2 negative, 3-4 weak, 6-8 moderate and 9-12 strong; that differs at 2 and 4 alone.
"""

import pandas as pd

from theraflow.errors import TheraflowError

INTENSITIES = {0: "absent", 1: "weak", 2: "moderate", 3: "intense"}
CLASSES = ((1, "negative"), (3, "weak"), (8, "moderate"), (12, "strong"))
# Ends of the groups of positive cells, published as < 10, 10-50, 51-80 and > 80 %. What lies between 50 and 51 is left
# open there; here it belongs to the group above.
_TEN, _FIFTY, _EIGHTY = 10, 50, 80

COLUMNS = ("patient", "specimen", "tissue", "marker", "positive_percent", "intensity", "percentage_points", "score",
           "score_class", "remark")  # fmt: skip


def percentage_points(positive_percent: float) -> int:
    """Points of the percentage of positive cells: 0 none, 1 below 10, 2 to 50, 3 to 80, 4 above.

    Raises:
        ValueError: no percentage.
    """
    if not 0 <= positive_percent <= 100:
        raise ValueError(f"{positive_percent} is no percentage.")
    if positive_percent == 0:
        return 0
    if positive_percent < _TEN:
        return 1
    return 2 if positive_percent <= _FIFTY else 3 if positive_percent <= _EIGHTY else 4


def immunoreactive_score(positive_percent: float, intensity: int) -> int:
    """Immunoreactive score, 0 to 12: points of the percentage times intensity (0 to 3).

    Raises:
        ValueError: no percentage, no intensity, or one of the two is 0 and the other is not.
    """
    if intensity not in INTENSITIES:
        raise ValueError(f"{intensity} is no staining intensity (0, 1, 2 or 3).")
    points = percentage_points(positive_percent)
    if (points == 0) != (intensity == 0):
        raise ValueError(f"{positive_percent} % positive cells cannot stain with intensity {intensity}.")
    return points * int(intensity)


def score_class(score: int) -> str:
    """Class of an immunoreactive score: negative, weak, moderate or strong."""
    return next(name for highest, name in CLASSES if score <= highest)


def score_expression(expression: pd.DataFrame) -> pd.DataFrame:
    """`expression.tsv` with the immunoreactive score.

    Args:
        expression: one specimen a row, columns as `workflow/schemas/expression.schema.yaml`.

    Returns:
        Columns `COLUMNS`; without percentage or intensity the score is missing, and `remark` says which.

    Raises:
        TheraflowError: percentage and intensity of a specimen contradict each other.
    """
    table = expression.reindex(columns=list(dict.fromkeys((*expression.columns, *COLUMNS))))
    scored = [_score(row) for row in table.to_dict("records")]
    return pd.DataFrame(scored, columns=list(COLUMNS))


def _score(row: dict) -> dict:
    missing = [name for name in ("positive_percent", "intensity") if pd.isna(row[name])]
    if missing:
        row["remark"] = f"no score without {' and '.join(missing)}"
        if "positive_percent" not in missing:
            row["percentage_points"] = percentage_points(row["positive_percent"])
        return row
    try:
        score = immunoreactive_score(row["positive_percent"], int(row["intensity"]))
    except ValueError as error:
        raise TheraflowError(
            f"The sheet of expression, patient {row['patient']}, {row['marker']}: {error} Correct the row."
        ) from error
    points = percentage_points(row["positive_percent"])
    return {**row, "percentage_points": points, "score": score, "score_class": score_class(score)}
