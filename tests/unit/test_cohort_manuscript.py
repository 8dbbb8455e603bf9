"""Tables of a manuscript: against what is written by hand from small tables."""

import math

import pandas as pd
import pytest

from theraflow.cohort.manuscript import outcome, patient_characteristics, toxicities, write_manuscript_tables
from theraflow.layout import PatientFolder
from theraflow.tables import read_table

LESIONS = pd.DataFrame(
    [
        ("P1", "FDG", "baseline", "L01", 4.0, True),
        ("P1", "FDG", "baseline", "L02", 9.0, True),
        ("P1", "FDG", "followup", "L03", 99.0, True),
        ("P1", "pentixafor", "baseline", "L01", 5.0, False),
        ("P1", "pentixafor", "baseline", "L02", 6.0, None),
    ],
    columns=["patient", "tracer", "timepoint", "lesion", "suv_peak", "positive"],
).assign(tbr=1.0, scan="pet")
CYCLES = pd.DataFrame(
    [
        ("P1", 1, "kidney_left", "90Y", 6.6, 20.0, 2.0),
        ("P1", 1, "L01", "90Y", 6.6, 16.5, 3.0),
        ("P1", 1, "L02", "90Y", 6.6, 19.8, math.nan),
        ("P1", 2, "kidney_left", "90Y", 3.0, 9.04, 1.0),
    ],
    columns=["patient", "cycle", "region", "nuclide", "activity_gbq", "dose_gy", "sd_gy"],
)
RESPONSE = pd.DataFrame(
    [("P1", "PERCIST 1.0", "SMD"), ("P1", "PERCIST 1.0", "PMD"), ("P1", "RECIST 1.1", "SD")],
    columns=["patient", "criterion", "category"],
)
SURVIVAL = pd.DataFrame(
    [
        ("PFS from therapy", "P1", 104.0, 1.0),
        ("OS from therapy", "P1", 282.0, 0.0),
        ("OS from diagnosis", "P1", 900.0, 1.0),
        ("PFS from therapy", "P2", math.nan, math.nan),
    ],
    columns=["endpoint", "patient", "days", "event"],
)


def test_table_1_has_what_the_sheet_says_and_what_each_tracer_shows_at_baseline():
    sheet = pd.DataFrame({"patient": ["P2", "P1"], "age_y": [None, 26], "stage": ["IV", "II"], "pfs_days": [1, 2]})
    tracers = {"FDG": ["P1", "P2"], "pentixafor": ["P1"]}
    table = patient_characteristics(["P1", "P2", "P3"], sheet, LESIONS, tracers).table.set_index("Patient")
    assert str(table.loc["P1", "Age (y)"]) == "26"
    assert table.loc["P1"].to_dict() == {
        "Age (y)": 26,
        "Stage": "II",
        "Lesions": 2,
        "FDG: positive": "2 of 2",
        "FDG: SUVpeak, median (range)": "6.5 (4.0-9.0)",
        "pentixafor: positive": "0 of 1",
        "pentixafor: SUVpeak, median (range)": "5.5 (5.0-6.0)",
    }
    assert table.loc["P2", "Lesions"] == 0 and table.loc["P2", "FDG: positive"] is None
    assert pd.isna(table.loc["P3", "Lesions"])  # no PET: nobody knows whether there are any


def test_table_2_has_the_worst_grades():
    worst = pd.DataFrame(
        [("P1", 1, "platelets", 4.0), ("P1", 2, "platelets", math.nan)],
        columns=["patient", "cycle", "parameter", "grade"],
    )
    table = toxicities(worst).table
    assert table.to_numpy(dtype=object).tolist() == [["platelets", "IV", None]]


def test_table_3_has_a_row_a_cycle_and_the_outcome_in_the_first():
    table = outcome(["P1", "P2"], {"P1": CYCLES}, {"P1": {"L01", "L02"}, "P2": set()}, RESPONSE, SURVIVAL).table
    first, second = table.to_dict("records")
    assert first == {
        "Patient": "P1",
        "Cycle": "1",
        "Nuclide": "90Y",
        "Activity (GBq)": 6.6,
        "Greatest lesion dose (Gy)": "19.8 (L02)",
        "Coefficient (Gy/GBq)": 3.0,
        "Kidney left (Gy)": "20.0 ± 2.0",
        "PERCIST 1.0": "SMD, PMD",
        "RECIST 1.1": "SD",
        "PFS (d)": "104",
        "OS (d)": "282+",
    }
    assert (second["Cycle"], second["Kidney left (Gy)"]) == ("2", "9.0 ± 1.0")
    assert pd.isna(second["PFS (d)"]) and pd.isna(second["Greatest lesion dose (Gy)"])


@pytest.mark.parametrize("sheet", [True, False])
def test_a_cohort_with_neither_therapy_nor_sheets_has_its_tables(tmp_path, sheet):
    for name, table in (("lesions", LESIONS), ("response", RESPONSE[:0]), ("survival_times", SURVIVAL[:0])):
        table.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False, na_rep="NA")
    patients = tmp_path / "patients.tsv"
    patients.write_text("patient\tsex\nP1\tF\n")
    folders = [PatientFolder(tmp_path, "P1")]
    tracers = {"FDG": ["P1"]}
    write_manuscript_tables(folders, tmp_path, tmp_path / "tables", tracers, [], patients if sheet else None)
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"tables.xlsx", "table_1.tsv", "table_3.tsv"}
    assert ("Sex" in read_table(tmp_path / "tables" / "table_1.tsv")) == sheet
    assert read_table(tmp_path / "tables" / "table_3.tsv").empty


def test_tables_count_as_the_statistics_do_and_hold_every_cycle_of_the_cohort_alone(tmp_path):
    """A scan repeated, a baseline by another name, a cycle without dosimetry, toxicity of a patient left out."""
    again = LESIONS[:1].assign(scan="again", suv_peak=6.0)
    other = LESIONS[:1].assign(patient="P2", timepoint="before")
    lesions = pd.concat([LESIONS[:2], again, other])
    worst = [("P1", 1, "platelets", 2.0), ("P9", 1, "platelets", 4.0)]
    toxicity = pd.DataFrame(worst, columns=["patient", "cycle", "parameter", "grade"])
    tables = {"lesions": lesions, "response": RESPONSE[:0], "survival_times": SURVIVAL[:0], "toxicity_worst": toxicity}
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False, na_rep="NA")
    folders = [PatientFolder(tmp_path, "P1"), PatientFolder(tmp_path, "P2")]
    (tmp_path / "P1" / "dosimetry").mkdir(parents=True)
    CYCLES[:3].to_csv(folders[0].table("cycles"), sep="\t", index=False, na_rep="NA")
    cycles = [
        {"patient": "P1", "cycle": 1.0, "nuclide": "90Y", "activity_gbq": 6.6},
        {"patient": "P1", "cycle": 2.0, "nuclide": "177Lu", "activity_gbq": 7.4},
        {"patient": "P2", "cycle": 1.0, "nuclide": "90Y", "activity_gbq": 3.0},
    ]
    toxicity_table = tmp_path / "toxicity_worst.tsv"
    tracers = {"FDG": ["P1", "P2"]}
    write_manuscript_tables(folders, tmp_path, tmp_path / "tables", tracers, cycles, toxicity_table=toxicity_table)
    one, two, three = (read_table(tmp_path / "tables" / f"table_{number}.tsv") for number in (1, 2, 3))
    assert one["FDG: positive"].tolist() == ["2 of 2", "1 of 1"]
    assert one["FDG: SUVpeak, median (range)"].tolist() == ["6.5 (4.0-9.0)", "4.0 (4.0-4.0)"]
    assert list(two.columns) == ["Parameter", "P1, cycle 1"]
    assert three[["Patient", "Cycle", "Nuclide", "Activity (GBq)"]].to_numpy().tolist() == [
        ["P1", 1, "90Y", 6.6], ["P1", 2, "177Lu", 7.4], ["P2", 1, "90Y", 3.0],
    ]  # fmt: skip
    assert three["Kidney left (Gy)"].isna().tolist() == [False, True, True]
