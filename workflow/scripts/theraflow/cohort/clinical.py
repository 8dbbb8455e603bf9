"""The clinical sheets of the cohort: `expression.tsv` and `toxicity.tsv` scored, and who is eligible for therapy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from theraflow.cohort import eligibility, expression, toxicity
from theraflow.cohort.joined import HEADERS, concatenate
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder
from theraflow.sheets import read_sheet
from theraflow.tables import read_table, write_table

Schema = Mapping[str, Any]
# What is read of `tbr.tsv`: the cohort knows the other stages by their tables alone.
TBR_HEADER = ["patient", "tracer", "timepoint", "background_region", "tbr"]


def read_clinical_sheet(path: Path | str, schema: Schema) -> pd.DataFrame:
    """A sheet with all columns of its schema, missing cells as NaN.

    Raises:
        TheraflowError: as `theraflow.sheets.read_sheet`.
    """
    return pd.DataFrame(read_sheet(path, schema), columns=list(schema["properties"]))


def score_expression_sheet(path: Path | str, schema: Schema, output: Path | str) -> None:
    """Write `results/cohort/expression.tsv`: every specimen with its immunoreactive score.

    Raises:
        TheraflowError: the sheet cannot be read, or a row contradicts itself.
    """
    write_table(expression.score_expression(read_clinical_sheet(path, schema)), output, expression.COLUMNS)


def grade_toxicity_sheet(path: Path | str, schema: Schema, grades: Path | str, worst: Path | str) -> None:
    """Write `results/cohort/toxicity.tsv` (every value with its CTCAE grade) and `toxicity_worst.tsv`.

    Raises:
        TheraflowError: the sheet cannot be read, or a value cannot be graded for its parameter or unit.
    """
    graded = toxicity.grade_toxicity(read_clinical_sheet(path, schema))
    write_table(graded, grades, toxicity.GRADE_COLUMNS)
    write_table(toxicity.worst_grades(graded), worst, toxicity.WORST_COLUMNS)


def _read_facts(path: Path | str | None) -> pd.DataFrame:
    """`patients.tsv` as text: a column of 1 and a missing cell would otherwise hold 1.0, which is not the word 1."""
    table = concatenate([Path(path)] if path is not None else [], ["patient"])
    return table.mask(table.isin(["", "NA"]))


def judge_eligibility(
    folders: Sequence[PatientFolder],
    criteria: Mapping[str, Any],
    output: Path | str,
    patients_table: Path | str | None = None,
    toxicity_table: Path | str | None = None,
) -> None:
    """Write `results/cohort/eligibility.tsv`: every criterion of every patient.

    Args:
        folders: the patients, in the order of the sheet.
        criteria: `eligibility` of the configuration.
        output: the table.
        patients_table: `patients.tsv`, or None.
        toxicity_table: `toxicity.tsv` of `grade_toxicity_sheet`, or None.

    Raises:
        TheraflowError: a table cannot be read, or a criterion of facts is configured without `patients.tsv`.
    """
    if "facts" in criteria and patients_table is None:
        raise TheraflowError(
            "eligibility: facts asks for columns of patients.tsv, and the configuration names no patients."
        )
    tables = {}
    for name, header in (("tbr", TBR_HEADER), ("doses", HEADERS["doses"])):
        tables[name] = concatenate([folder.table(name) for folder in folders], header)
    numbers = {"tbr": ("tbr",), "doses": ("dose_gy_per_gbq", "sd_gy_per_gbq")}
    for name, columns in numbers.items():
        for column in columns:
            tables[name][column] = pd.to_numeric(tables[name][column], errors="coerce")
    empty = pd.DataFrame(columns=list(toxicity.GRADE_COLUMNS))
    write_table(
        eligibility.judge_eligibility(
            [folder.patient for folder in folders],
            criteria,
            tables["tbr"],
            tables["doses"],
            read_table(toxicity_table) if toxicity_table is not None else empty,
            _read_facts(patients_table),
        ),
        output,
        eligibility.COLUMNS,
    )
