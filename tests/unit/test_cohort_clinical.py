"""The clinical sheets from disk to disk."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from theraflow.cohort.clinical import (
    grade_toxicity_sheet,
    judge_eligibility,
    read_clinical_sheet,
    score_expression_sheet,
)
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder
from theraflow.tables import read_table

SCHEMAS = Path(__file__).resolve().parents[2] / "workflow" / "schemas"


def schema(name: str) -> dict:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


def write(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row.replace("|", "\t") for row in rows) + "\n", encoding="utf-8")
    return path


def test_toxicity_and_eligibility_of_a_cohort(tmp_path):
    sheet = write(
        tmp_path / "toxicity.tsv",
        "patient|cycle|day|parameter|value|unit|lln",
        "P1|1|-1|neutrophils|2,1|10^9/L|1,8",
        "P2|1|-1|neutrophils|1.4|10^9/L|1.8",
        "P2|1|12|neutrophils|0.4|10^9/L|NA",
    )
    grades, worst = tmp_path / "out" / "toxicity.tsv", tmp_path / "out" / "worst.tsv"
    grade_toxicity_sheet(sheet, schema("toxicity"), grades, worst)
    assert read_table(grades)["grade"].tolist() == [0, 2, 4]
    assert read_table(worst)["grade"].tolist() == [0, 4]
    folders = [PatientFolder(tmp_path / "results", patient) for patient in ("P1", "P2", "P3")]
    ratios = "patient|scan|tracer|timepoint|lesion|background_region|background_suv|background_volume_ml|tbr|remark"
    for folder in folders[:2]:
        write(folder.table("tbr"), ratios, f"{folder.patient}|pet|pentixafor|baseline|L1|liver|1|10|2.5|NA")
    patients = write(tmp_path / "patients.tsv", "patient|stem_cells", "P1|yes", "P2|yes", "P3|NA")
    judge_eligibility(
        folders,
        {
            "uptake": {"tracer": "pentixafor", "background": "liver", "at_least": 1.5},
            "laboratory": {"neutrophils": {"at_least": 1.5, "unit": "10^9/L"}},
            "facts": {"stem_cells": "yes"},
        },
        tmp_path / "out" / "eligibility.tsv",
        patients,
        grades,
    )
    table = read_table(tmp_path / "out" / "eligibility.tsv")
    totals = table[table["criterion"] == "all criteria"].set_index("patient")["verdict"]
    assert totals.to_dict() == {"P1": "eligible", "P2": "not eligible", "P3": "undecided"}
    # P3 has neither lesions nor laboratory values nor stem cells stated: each is open, none is assumed.
    assert table.loc[table["patient"] == "P3", "verdict"].tolist() == ["not assessable"] * 3 + ["undecided"]


def test_eligibility_without_any_table(tmp_path):
    folders = [PatientFolder(tmp_path, "P1")]
    rule = {"dose": {"nuclide": "90Y", "activity_gbq": 6.0, "at_most_gy": {"liver": 30.0}},
            "laboratory": {"platelets": {"at_least": 100, "unit": "10^9/L"}}}  # fmt: skip
    judge_eligibility(folders, rule, tmp_path / "eligibility.tsv")
    assert read_table(tmp_path / "eligibility.tsv")["verdict"].tolist() == ["not assessable"] * 2 + ["undecided"]


def test_facts_need_the_sheet_of_patients(tmp_path):
    with pytest.raises(TheraflowError, match="the configuration names no patients"):
        judge_eligibility([], {"facts": {"stem_cells": "yes"}}, tmp_path / "eligibility.tsv")


def test_expression(tmp_path):
    sheet = write(tmp_path / "expression.tsv", "patient|marker|positive_percent|intensity", "P1|CXCR4|55|NA")
    score_expression_sheet(sheet, schema("expression"), tmp_path / "out.tsv")
    row = read_table(tmp_path / "out.tsv").iloc[0]
    assert pd.isna(row["score"])
    assert row["remark"] == "no score without intensity"


@pytest.mark.parametrize(
    ("name", "header", "row", "words"),
    [
        ("expression", "patient|marker|intensity", "P1|CXCR4|4", "column 'intensity': 4.0 is not one of"),
        ("expression", "patient|marker|positive_percent", "P1|CXCR4|101", "101.0 is greater than the maximum"),
        ("toxicity", "patient|cycle|parameter|value", "P1|1|alt|-3", "less than the minimum"),
        ("toxicity", "patient|cycle|value", "P1|1|3", "lacks the column 'parameter'"),
        ("events", "patient|event|day", "P1|death|30", "'since' is a dependency of 'day'"),
        ("events", "patient|event|date", "P1|death|3.4.2020", "does not match"),
    ],
)
def test_sheets_are_checked(tmp_path, name, header, row, words):
    with pytest.raises(TheraflowError, match=words):
        read_clinical_sheet(write(tmp_path / f"{name}.tsv", header, row), schema(name))


def test_worst_grades_laid_out_as_in_a_paper():
    pytest.importorskip("xlsxwriter")
    from theraflow.cohort.documents import lay_out_toxicity

    worst = pd.DataFrame(
        {
            "patient": ["P1", "P1", "P2"],
            "cycle": [1.0, 2.0, 1.0],
            "parameter": ["platelets", "platelets", "febrile_neutropenia"],
            "grade": pd.array([4, 0, None], dtype="Int64"),
        }
    )
    table = lay_out_toxicity(worst).set_index("Parameter")
    assert list(table.columns) == ["P1, cycle 1", "P1, cycle 2", "P2, cycle 1"]
    assert table.loc["platelets"].tolist()[:2] == ["IV", "0"]
    assert table.loc["platelets"].isna().tolist() == [False, False, True]  # not looked at is not grade 0
    assert table.loc["febrile neutropenia"].isna().all()


def test_facts_are_words_also_where_they_look_like_numbers(tmp_path):
    """With a missing cell in its column 1 is read as 1.0, and who meets the criterion would not be treated."""
    patients = write(tmp_path / "patients.tsv", "patient|ecog", "P1|1", "P2|NA", "P3|2")
    folders = [PatientFolder(tmp_path, name) for name in ("P1", "P2", "P3")]
    judge_eligibility(folders, {"facts": {"ecog": "1"}}, tmp_path / "out.tsv", patients)
    table = read_table(tmp_path / "out.tsv").query("criterion == 'ecog'")
    assert table["verdict"].tolist() == ["met", "not assessable", "not met"]
