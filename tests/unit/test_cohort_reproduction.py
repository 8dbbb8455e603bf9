"""The first study recomputed: against values worked out by hand from its tables, typed here a second time."""

import re
import statistics
import zipfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.cohort.expression import immunoreactive_score
from theraflow.cohort.reproduction import (
    AGREES,
    DISAGREES,
    NOT_DETERMINED,
    STUDY,
    compare_statements,
    judge,
    read_study,
    reproduce_paper,
    round_half_up,
)
from theraflow.errors import TheraflowError
from theraflow.sheets import read_sheet
from theraflow.tables import read_table

SCHEMAS = Path(__file__).resolve().parents[2] / "workflow" / "schemas"

# Tables 1 to 3 of the paper, transcribed a second time, independently of the sheets.
AGES = [8, 20, 26, 31, 43, 37, 35, 23]
LINES = [3, 4, 4 + 1, 1, 1, 1 + 1, 5, 1 + 1]
PERCENT = [80, 95, 95, 70, 80, 70, 55]
ACTIVITIES = [1.7, 7.2, 9.1, 6.6, 8.2]
TUMOUR_DOSES = [6.1, 25.2, 21.8, 9.2, 21.3]
COEFFICIENTS = [dose / activity for dose, activity in zip(TUMOUR_DOSES, ACTIVITIES, strict=True)]
PFS = [65, 28, 143, 176]
MONTHS = [12.1 - 143 / 30, 18.0 - 61 / 30, 42.8 - 282 / 30, 21.7 - 225 / 30]


@pytest.fixture(scope="module")
def study():
    return read_study()


@pytest.fixture(scope="module")
def rows(study) -> pd.DataFrame:
    return compare_statements(study).set_index("item")


@pytest.mark.parametrize(
    ("item", "printed", "expected"),
    [
        ("age at diagnosis, median", "29", statistics.median(AGES)),
        ("age at diagnosis, lowest", "8", min(AGES)),
        ("age at diagnosis, highest", "43", max(AGES)),
        ("previous lines of therapy, median", "2.5", statistics.median(LINES)),
        ("previous lines of therapy, fewest", "1", min(LINES)),
        ("previous lines of therapy, most", "5", max(LINES)),
        ("first therapy to endoradiotherapy, median", "15.1", statistics.median(MONTHS)),
        ("first therapy to endoradiotherapy, shortest", "7.3", min(MONTHS)),
        ("first therapy to endoradiotherapy, longest", "33.4", max(MONTHS)),
        ("CXCR4-positive cells, lowest", "55", min(PERCENT)),
        ("CXCR4-positive cells, highest", "95", max(PERCENT)),
        ("CXCR4-positive cells, median", "80", statistics.median(PERCENT)),
        ("lesions with FDG uptake, of all", "98.4", 6000 / 61),
        ("lesions with CXCR4 uptake, of all", "93.4", 5700 / 61),
        ("therapy activity, mean", "6.6", statistics.mean(ACTIVITIES)),
        ("therapy activity, sd", "2.9", statistics.stdev(ACTIVITIES)),
        ("therapy activity, lowest", "1.7", min(ACTIVITIES)),
        ("therapy activity, highest", "9.1", max(ACTIVITIES)),
        ("dose coefficient of tumours, mean", "2.7", statistics.mean(COEFFICIENTS)),
        ("dose coefficient of tumours, sd", "0.9", statistics.stdev(COEFFICIENTS)),
        ("dose coefficient of tumours, lowest", "1.4", min(COEFFICIENTS)),
        ("dose coefficient of tumours, highest", "3.6", max(COEFFICIENTS)),
        ("progression-free survival, median", "104", statistics.median(PFS)),
        ("progression-free survival, shortest", "28", min(PFS)),
        ("progression-free survival, longest", "176", max(PFS)),
        ("half-lives of 90Y until stem cell rescue", "5", 14 * 24 / 64.1),
    ],
)
def test_numbers_that_follow_from_the_tables(rows, item, printed, expected):
    row = rows.loc[item]
    assert row["printed"] == printed
    assert float(row["computed"]) == pytest.approx(expected, rel=1e-12)
    assert row["verdict"] == AGREES
    assert row["formula"]


@pytest.mark.parametrize(
    ("item", "printed", "computed"),
    [
        ("FDG-positive, CXCR4-negative lesions, sum of those named", "5", 60 - 56),
        ("FDG-negative, CXCR4-positive lesions, sum of those named", "5", 57 - 56),
        ("patients with FDG-negative, CXCR4-positive lesions", "3", 1),
        ("lesions, from the concordant and the discordant ones named", "61", 56 + 2 + 3 + 2 + 3),
        ("patients with debulking surgery before imaging", "7", 4),  # 1, 3, 7, 8
        ("patients with HIPEC at a surgery before imaging", "6", 3),  # 3, 7, 8
        ("patients with severe nonhaematologic adverse effects (grade 3 or more)", "0", 2),  # 2, 3
        ("patients with severe nonhaematologic adverse events, again", "0", 2),
        ("thrombocytopenia, lowest worst grade after myeloablative activity", "4", 3),  # patient 3
        ("platelet concentrates a patient", "3", (5 + 3 + 3) / 3),
        ("red cell concentrates a patient", "3", (4 + 4 + 4) / 3),
        ("day on which patient 2 died, counted from the second cycle", "14", 15),
        ("patients with metabolic response after myeloablative activity", "3", 1),  # PR: 7
        ("patients with metabolic response", "3", 1),
        ("patients without metabolic response", "1", 3),  # PD: 1, 2; SD: 3
        ("overall survival of patient 2 from the cycle in whose row it stands", "61", 15),
    ],
)
def test_contradictions_are_told(rows, item, printed, computed):
    row = rows.loc[item]
    assert (row["printed"], row["verdict"]) == (printed, DISAGREES)
    assert float(row["computed"]) == pytest.approx(computed, rel=1e-12)
    assert row["note"]


def test_nothing_else_disagrees(rows):
    assert (rows["verdict"] == DISAGREES).sum() == 16
    assert set(rows["verdict"]) == {AGREES, DISAGREES, NOT_DETERMINED}


def test_the_document_counts_the_same(rows):
    text = (SCHEMAS.parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
    for verdict, count in rows["verdict"].value_counts().items():
        assert f"| {verdict} | {count} |" in text


def test_what_is_not_determined_says_why(rows):
    left = rows[rows["verdict"] == NOT_DETERMINED]
    assert left["computed"].isna().all()
    assert left["note"].str.len().gt(5).all()


def test_the_convention_that_decides_is_told(rows):
    assert "population standard deviation (n): 2.576, disagrees" in rows.loc["therapy activity, sd", "note"]
    assert "population standard deviation (n): 0.8047, disagrees" in rows.loc["dose coefficient of tumours, sd", "note"]
    assert "without high-dose chemotherapy: 2, disagrees" in rows.loc["previous lines of therapy, median", "note"]
    assert "28.5 lies half-way" in rows.loc["age at diagnosis, median", "note"]
    pfs = rows.loc["progression-free survival, median", "note"]
    assert "lower end of that step: 65, disagrees" in pfs
    assert "upper end of that step: 143, disagrees" in pfs
    assert "all eight first biopsies: 75, disagrees" in rows.loc["CXCR4-positive cells, median", "note"]


def test_note_on_the_immunoreactive_score(rows):
    row = rows.loc["immunoreactive score, predominant range"]
    assert row["verdict"] == NOT_DETERMINED
    assert [immunoreactive_score(percent, 2) for percent in sorted(PERCENT)] == [6, 6, 6, 6, 6, 8, 8]
    assert {immunoreactive_score(percent, 3) for percent in PERCENT} == {9, 12}


def test_smallest_p_of_the_notes(rows):
    # Two of 2^n equally likely patterns of signs are the most extreme ones.
    assert round(2 / 2**7, 3) == 0.016
    assert "0.016" in rows.loc["p of SUVpeak, FDG and CXCR4", "note"]
    assert 2 / 2**4 == 0.125
    assert "0.125" in rows.loc["p of TBR of FDG, before and after therapy", "note"]


def test_another_value_in_a_sheet_changes_the_verdict(study):
    cycles = study.cycles.assign(activity_gbq=study.cycles["activity_gbq"] + 0.5)
    changed = compare_statements(replace(study, cycles=cycles)).set_index("item")
    assert changed.loc["therapy activity, mean", "verdict"] == DISAGREES
    assert changed.loc["therapy activity, sd", "verdict"] == AGREES  # a shift leaves it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table[table["item"] != "patients"], "lacks items that have a formula: patients"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "stand twice: translocation"),
        (
            lambda table: table.assign(note=table["note"].mask(table["item"] == "Ki-67, lowest")),
            "neither a formula nor a note why there is none: Ki-67, lowest",
        ),
    ],
)
def test_statements_and_formulas_must_fit(study, change, words):
    with pytest.raises(TheraflowError, match=words):
        compare_statements(replace(study, statements=change(study.statements)))


def test_table_on_disk(tmp_path, rows):
    reproduce_paper(tmp_path / "paper" / "reproduction.tsv")
    table = read_table(tmp_path / "paper" / "reproduction.tsv")
    assert list(table.columns[:7]) == ["item", "section", "printed", "computed", "unit", "verdict", "formula"]
    assert len(table) == len(rows) > 150
    assert (table["verdict"] == AGREES).sum() == (rows["verdict"] == AGREES).sum()


def test_missing_sheet(tmp_path):
    with pytest.raises(TheraflowError, match=r"patients\.tsv cannot be read"):
        read_study(tmp_path)


def test_every_sheet_begins_with_its_citation():
    sheets = sorted(STUDY.glob("*.tsv"))
    assert len(sheets) == 10
    for sheet in sheets:
        first = sheet.read_text(encoding="utf-8").splitlines()[0]
        assert "J Nucl Med 2023;64:1424" in first, sheet.name


@pytest.mark.parametrize("name", ["patients", "cycles", "expression", "toxicity", "events"])
def test_sheets_keep_the_schemas_of_users(tmp_path, name):
    lines = (STUDY / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / f"{name}.tsv").write_text("\n".join(line for line in lines if not line.startswith("#")))
    schema = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())
    assert len(read_sheet(tmp_path / f"{name}.tsv", schema)) == len(read_study().__getattribute__(name))


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [(28.5, 0, "29"), (27.5, 0, "28"), (-0.5, 0, "-1"), (2.65, 1, "2.7"), (2.649999, 1, "2.6"), (0.1 + 0.2, 1, "0.3"),
     (98.3606557, 1, "98.4"), (104.0, 0, "104")],
)  # fmt: skip
def test_rounding_as_on_paper(value, decimals, expected):
    assert round_half_up(value, decimals) == Decimal(expected)


def test_verdicts():
    assert judge("2.7", 2.6500000000001) == AGREES
    assert judge("2.70", 2.695) == AGREES
    assert judge("2.70", 2.69) == DISAGREES
    assert judge("PD", "PD") == AGREES
    assert judge("PD", "SD") == DISAGREES
    with pytest.raises(ValueError, match="no number"):
        judge("<= 0.001", 0.0005)


@settings(deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(0, 3))
def test_a_printed_number_agrees_with_itself(number, decimals):
    printed = str(Decimal(number).scaleb(-decimals))
    assert judge(printed, float(printed)) == AGREES
    step = float(Decimal(1).scaleb(-decimals))
    assert judge(printed, float(printed) + 0.49 * step) == AGREES
    assert judge(printed, float(printed) + 0.51 * step) == DISAGREES


def words_of(workbook: Path) -> str:
    with zipfile.ZipFile(workbook) as parts:
        names = [name for name in parts.namelist() if re.search(r"sharedStrings|workbook\.xml$", name)]
        return " ".join(parts.read(name).decode() for name in names)


def test_tables_as_documents(tmp_path):
    pytest.importorskip("xlsxwriter")
    from theraflow.cohort.reproduction.tables import write_paper_tables

    write_paper_tables(tmp_path / "tables.xlsx")
    write_paper_tables(tmp_path / "again" / "tables.xlsx")
    assert (tmp_path / "tables.xlsx").read_bytes() == (tmp_path / "again" / "tables.xlsx").read_bytes()
    words = words_of(tmp_path / "tables.xlsx")
    for name in ("table_1", "table_2", "table_3", "Table 2. Worst CTCAE grades", "4 + HD"):
        assert name in words
    first, second, third = (read_table(tmp_path / f"table_{number}.tsv") for number in (1, 2, 3))
    assert first["Age (y)"].tolist() == AGES
    assert second.set_index("Parameter").loc["neutrophils"].tolist() == ["0", "II", "III", "III", "IV"]
    assert second.set_index("Parameter").loc["Activity (GBq)"].astype(float).tolist() == ACTIVITIES
    assert third["Dose coefficient (Gy/GBq)"].tolist() == [round(value, 2) for value in COEFFICIENTS]
    assert third["OS (d)"].tolist()[1] == 61
    assert pd.isna(third["OS (d)"].tolist()[2])  # counts from the first cycle
