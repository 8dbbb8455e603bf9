"""From the sheets to `reproduction.tsv`."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from theraflow.cohort.reproduction.formulas import FORMULAS, Formula
from theraflow.cohort.reproduction.study import STUDY, Study, read_study
from theraflow.cohort.reproduction.verdict import NOT_DETERMINED, is_half, judge
from theraflow.errors import TheraflowError
from theraflow.tables import write_table

COLUMNS = ("item", "section", "printed", "computed", "unit", "verdict", "formula", "note")


def reproduce_paper(output: Path | str, folder: Path | str = STUDY) -> None:
    """Write `reproduction.tsv`: one row for every printed number.

    Args:
        output: the table.
        folder: the sheets of the study, see `read_study`.

    Raises:
        TheraflowError: a sheet cannot be read, or the statements and the formulas do not fit together.
    """
    write_table(compare_statements(read_study(folder)), output, COLUMNS)


def compare_statements(study: Study, formulas: Mapping[str, Formula] = FORMULAS) -> pd.DataFrame:
    """Every printed number beside what the sheets give.

    A number without a formula is not determined by the sheets; its note says why.

    Args:
        study: the sheets.
        formulas: by item of `study.statements`.

    Returns:
        Columns `COLUMNS`, in the order of the paper.

    Raises:
        TheraflowError: an item stands twice; a formula has no statement; a statement has neither formula nor note.
    """
    statements = study.statements
    items = set(statements["item"])
    lonely = sorted(set(formulas) - items)
    silent = statements.loc[statements["note"].isna() & ~statements["item"].isin(list(formulas)), "item"]
    for problem, names in (
        ("has items that stand twice", statements.loc[statements["item"].duplicated(), "item"]),
        ("lacks items that have a formula", lonely),
        ("has items with neither a formula nor a note why there is none", silent),
    ):
        if len(names):
            raise TheraflowError(f"The sheet of statements {problem}: {', '.join(names)}; correct it.")
    rows = [_row(statement, study, formulas.get(str(statement.item))) for statement in statements.itertuples()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(statement, study: Study, formula: Formula | None) -> dict[str, object]:
    told = {name: getattr(statement, name) for name in ("item", "section", "printed", "unit")}
    note = statement.note if isinstance(statement.note, str) else None
    if formula is None:
        return {**told, "computed": None, "verdict": NOT_DETERMINED, "formula": None, "note": note}
    computed = formula.compute(study)
    half = is_half(statement.printed, computed)
    words = [
        f"{computed:g} lies half-way and is rounded away from zero" if half else None,
        *(_other(statement.printed, text, compute(study)) for text, compute in formula.others),
        note,
    ]
    return {
        **told,
        "computed": computed,
        "verdict": judge(statement.printed, computed),
        "formula": formula.text,
        "note": "; ".join(word for word in words if word) or None,
    }


def _other(printed: str, text: str, value: float) -> str:
    return f"{text}: {value:.4g}, {judge(printed, value)}"
