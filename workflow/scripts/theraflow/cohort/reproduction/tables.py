"""Tables 1 to 3 of the study as documents, from its sheets."""

from pathlib import Path

import pandas as pd

from theraflow.cohort.documents import Document, lay_out_toxicity, write_documents
from theraflow.cohort.reproduction.study import STUDY, Study, read_study

SITES = (
    "PM peritoneum, LN lymph nodes, LV liver, I intestine, SP spleen, D diaphragm, P pleura, MT thorax or mediastinum, "
    "A ascites, ST soft tissue, BM bone."
)
COUNTED = ("platelet_concentrates", "red_cell_concentrates")
ANSWERED = ("febrile_neutropenia", "death_within_3_months")


def write_paper_tables(workbook: Path | str, folder: Path | str = STUDY) -> None:
    """Write Tables 1 to 3 as Excel workbook and TSV.

    Args:
        workbook: the `.xlsx`; the TSV lie beside it.
        folder: the sheets of the study.

    Raises:
        TheraflowError: a sheet cannot be read.
    """
    study = read_study(folder)
    write_documents((patient_characteristics(study), toxicities(study), outcome(study)), workbook)


def patient_characteristics(study: Study) -> Document:
    """Table 1: one row a patient."""
    patients = study.patients.merge(_percentages(study), on="patient", how="left", validate="one_to_one")
    high_dose = patients["high_dose"].map({"before": " + HD"}).fillna("")
    surgery = patients["completeness"].where(patients["surgery"] == "yes", "no")
    when = patients["surgery_relative_to_imaging"].map({"after": ", after CXCR4 PET"}).fillna("")
    hipec = patients["hipec"].map({"yes": " + HIPEC"}).fillna("")
    table = pd.DataFrame(
        {
            "Patient": patients["patient"],
            "Sex": patients["sex"],
            "Age (y)": patients["age_y"],
            "Tumour sites": patients["sites"],
            "Stage": patients["stage"],
            "EWSR1-WT1": patients["ewsr1_wt1"],
            "CXCR4-positive cells (%)": patients["positive_percent"],
            "Prior lines": patients["prior_lines"].astype(str) + high_dose,
            "High-dose chemotherapy": patients["high_dose"],
            "Cytoreductive surgery": surgery + hipec + when,
            "Endoradiotherapy": patients["endoradiotherapy"],
        }
    )
    notes = (f"Hayes-Jordan stage. {SITES}", "HD: high-dose chemotherapy. HIPEC: hyperthermic intraperitoneal "
             "chemotherapy. CC: completeness of cytoreduction. R2: residual tumour.")  # fmt: skip
    return Document("table_1", "Table 1. Patient characteristics", table, notes)


def _percentages(study: Study) -> pd.DataFrame:
    first = study.expression[study.expression["specimen"] == "biopsy"]
    return first[["patient", "positive_percent"]]


def toxicities(study: Study) -> Document:
    """Table 2: a parameter a row, a cycle a column."""
    rows = study.toxicity
    grades = lay_out_toxicity(rows[rows["grade"].notna()])
    columns = list(grades.columns[1:])
    given = pd.DataFrame([["Activity (GBq)", *study.cycles["activity_gbq"]]], columns=["Parameter", *columns])
    counted = [[f"{_words(name)} (units)", *study.of_parameter(name)["value"].astype(int)] for name in COUNTED]
    answered = [
        [_words(name), *study.of_parameter(name)["value"].map({0: "no", 1: "yes"})] for name in ANSWERED
    ]  # fmt: skip
    others = pd.DataFrame([*counted, *answered], columns=["Parameter", *columns])
    table = pd.concat([given, grades, others], ignore_index=True)
    notes = tuple(
        f"{row.patient}, cycle {row.cycle}, {row.parameter}: {row.remark}."
        for row in rows[rows["remark"].notna()].itertuples()
    )
    return Document("table_2", "Table 2. Worst CTCAE grades after endoradiotherapy", table, notes)


def _words(name: str) -> str:
    return name.replace("_", " ")


def outcome(study: Study) -> Document:
    """Table 3: one row a cycle; survival stands in the row of the first cycle, from which it counts."""
    keys = ["patient", "cycle"]
    survival = study.patients[["patient", "pfs_days", "os_days", "os_from_chemotherapy_months", "cause_of_death"]]
    rows = study.cycles.merge(study.doses, on=keys).merge(study.response, on=keys)
    rows = rows.merge(survival.assign(cycle=1), on=keys, how="left", validate="one_to_one").convert_dtypes()
    table = pd.DataFrame(
        {
            "Patient": rows["patient"],
            "Cycle": rows["cycle"],
            "Activity (GBq)": rows["activity_gbq"],
            "Greatest tumour dose (Gy)": rows["max_tumour_dose_gy"],
            "Dose coefficient (Gy/GBq)": (rows["max_tumour_dose_gy"] / rows["activity_gbq"]).round(2),
            "Stem cells (day)": rows["stem_cells_day"],
            "RECIST 1.1": rows["recist"],
            "PERCIST 1.0": rows["percist"],
            "PFS (d)": rows["pfs_days"],
            "OS (d)": rows["os_days"],
            "OS from first chemotherapy (months)": rows["os_from_chemotherapy_months"],
            "Cause of death": rows["cause_of_death"],
        }
    )
    notes = (
        "PFS and OS count from the first endoradiotherapy.",
        "PERCIST of P002: PD because of new lesions, otherwise PR.",
        "Dose coefficient: greatest tumour dose over activity, computed; rounded to two decimals here.",
    )
    return Document("table_3", "Table 3. Outcome after endoradiotherapy", table, notes)
