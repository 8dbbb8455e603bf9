"""Tables 1 to 3 of a cohort as documents for a manuscript: its patients, toxicity, therapy and outcome.

Cells are rounded for reading; the tables they are made of have all digits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from theraflow.cohort.comparisons import BASELINE
from theraflow.cohort.documents import Document, lay_out_toxicity, write_documents
from theraflow.cohort.joined import read_lesions
from theraflow.files import whole_folder
from theraflow.layout import PatientFolder
from theraflow.tables import read_table

# Columns of patients.tsv from which survival is made: Table 3 has that.
_OF_SURVIVAL = ("_days", "_event", "_date")
SURVIVAL = {"PFS from therapy": "PFS (d)", "OS from therapy": "OS (d)"}


def write_manuscript_tables(
    folders: Sequence[PatientFolder],
    cohort: Path | str,
    output: Path | str,
    tracers: Mapping[str, Sequence[str]],
    cycles: Sequence[Mapping[str, Any]],
    patients_table: Path | str | None = None,
    toxicity_table: Path | str | None = None,
) -> None:
    """Write `tables.xlsx` and a TSV of each table into a folder.

    Args:
        folders: the patients, in the order of the sheet.
        cohort: `results/cohort`, with `lesions`, `response` and `survival_times`.
        output: folder of the documents.
        tracers: by those measured in SUV, in the order of the configuration, the patients imaged with them.
        cycles: rows of the sheet of cycles.
        patients_table: `patients.tsv`, or None.
        toxicity_table: `toxicity_worst.tsv`, or None: then there is no Table 2.

    Raises:
        TheraflowError: a table is missing or cannot be read.
    """
    cohort, names = Path(cohort), [folder.patient for folder in folders]
    sheet = read_table(patients_table) if patients_table else pd.DataFrame({"patient": names})
    documents = [patient_characteristics(names, sheet, read_lesions(cohort / "lesions.tsv", list(tracers)), tracers)]
    if toxicity_table:
        worst = read_table(toxicity_table)
        documents.append(toxicities(worst[worst["patient"].isin(names)]))
    given = {folder.patient: _given(folder, cycles) for folder in folders}
    lesions = {folder.patient: _lesion_regions(folder) for folder in folders}
    response, survival = read_table(cohort / "response.tsv"), read_table(cohort / "survival_times.tsv")
    documents.append(outcome(names, given, lesions, response, survival))
    with whole_folder(output) as place:
        write_documents(documents, place / "tables.xlsx")


def patient_characteristics(
    names: Sequence[str], sheet: pd.DataFrame, lesions: pd.DataFrame, tracers: Mapping[str, Sequence[str]]
) -> Document:
    """Table 1: one row a patient, with what the sheet says and what each tracer shows at baseline.

    Args:
        names: the patients.
        sheet: `patients.tsv`.
        lesions: as `read_lesions` returns it.
        tracers: as `write_manuscript_tables`; of a patient without any PET the number of lesions is not known.
    """
    told = sheet.set_index("patient").reindex(names)
    told = told[[column for column in told if not column.endswith(_OF_SURVIVAL)]].dropna(axis="columns", how="all")
    table = pd.DataFrame({"Patient": list(names)})
    for column in told:
        # A number missing elsewhere in the column makes no 26.0 of an age of 26.
        table[_heading(column)] = told[column].convert_dtypes().array
    baseline = lesions[lesions["timepoint"] == BASELINE]
    imaged = set().union(*tracers.values())
    counts = baseline.groupby("patient")["lesion"].nunique()
    table["Lesions"] = pd.array([counts.get(name, 0) if name in imaged else pd.NA for name in names], "Int64")
    for tracer in tracers:
        own = {name: baseline[(baseline["patient"] == name) & (baseline["tracer"] == tracer)] for name in names}
        table[f"{tracer}: positive"] = [_positive(own[name]) for name in names]
        table[f"{tracer}: SUVpeak, median (range)"] = [_median_and_range(own[name]["suv_peak"]) for name in names]
    notes = ("Lesions at baseline; positive: of those whose state is known. SUVpeak of all of them.",)
    return Document("table_1", "Table 1. Patients", table, notes)


def toxicities(worst: pd.DataFrame) -> Document:
    """Table 2: a parameter a row, a patient and cycle a column."""
    notes = (
        "Worst grade (CTCAE 5.0) of each cycle; empty where none is known. Values that cannot be graded are not in it.",
    )
    return Document("table_2", "Table 2. Toxicity", lay_out_toxicity(worst), notes)


def outcome(
    names: Sequence[str],
    cycles: dict[str, pd.DataFrame],
    lesions: dict[str, set[str]],
    response: pd.DataFrame,
    survival: pd.DataFrame,
) -> Document:
    """Table 3: one row a cycle; response and survival stand in the row of a patient's first one."""
    rows = []
    for name in names:
        outcome_of = {
            **_responses(response[response["patient"] == name]),
            **_times(survival[survival["patient"] == name]),
        }
        given = cycles.get(name, pd.DataFrame(columns=["cycle"]))
        own = [_cycle(name, number, part, lesions[name]) for number, part in given.groupby("cycle", sort=False)]
        if not own and outcome_of:
            own = [{"Patient": name, "Cycle": None}]
        rows += [{**own[0], **outcome_of}, *own[1:]] if own else []
    first = ["Patient", "Cycle", "Nuclide", "Activity (GBq)", "Greatest lesion dose (Gy)", "Coefficient (Gy/GBq)"]
    last = ["PERCIST 1.0", "RECIST 1.1", *SURVIVAL.values()]
    organs = [column for row in rows for column in row if column not in first + last]
    table = pd.DataFrame(rows, columns=[*first, *dict.fromkeys(organs), *last])
    notes = (
        "Mean absorbed doses with one standard deviation; coefficient of the lesion with the greatest dose.",
        "Categories by follow-up, in the order of the scans. +: censored. PFS and OS count from the therapy.",
    )
    told = table.dropna(axis="columns", how="all") if rows else table
    return Document("table_3", "Table 3. Therapy and outcome", told, notes)


def _heading(column: str) -> str:
    words = {"age_y": "Age (y)"}.get(column, column.replace("_", " "))
    return words[:1].upper() + words[1:]


def _positive(rows: pd.DataFrame) -> str | None:
    known = rows["positive"].dropna()
    return f"{int((known == 1).sum())} of {len(known)}" if len(known) else None


def _median_and_range(values: pd.Series) -> str | None:
    values = pd.to_numeric(values).dropna()
    return f"{values.median():.1f} ({values.min():.1f}-{values.max():.1f})" if len(values) else None


def _given(folder: PatientFolder, cycles: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The cycles of a patient, a row a region, as `cycles.tsv`; those of which dosimetry has nothing have one row."""
    columns = ["cycle", "region", "nuclide", "activity_gbq", "dose_gy", "sd_gy"]
    path = folder.table("cycles")
    dosed = read_table(path)[columns] if path.exists() else pd.DataFrame(columns=columns)
    others = [row for row in cycles if row["patient"] == folder.patient and row["cycle"] not in set(dosed["cycle"])]
    if not others:
        return dosed
    rows = pd.DataFrame(others).reindex(columns=columns)
    return (pd.concat([dosed, rows]) if len(dosed) else rows).sort_values("cycle", kind="stable", ignore_index=True)


def _lesion_regions(folder: PatientFolder) -> set[str]:
    """Regions of the dosimetry that are lesions."""
    path = folder.table("doses")
    if not path.exists():
        return set()
    doses = read_table(path)
    return set(doses.loc[doses["kind"] == "lesion", "region"])


def _cycle(name: str, number: float, rows: pd.DataFrame, lesions: set[str]) -> dict[str, object]:
    """What one cycle gave: its greatest lesion dose, and the dose of every organ."""
    first, known = rows.iloc[0], rows.dropna(subset="dose_gy")
    told: dict[str, object] = {
        "Patient": name, "Cycle": f"{number:g}", "Nuclide": first["nuclide"],
        "Activity (GBq)": round(float(first["activity_gbq"]), 2),
    }  # fmt: skip
    tumours = known[known["region"].isin(lesions)]
    if len(tumours):
        hottest = tumours.loc[tumours["dose_gy"].idxmax()]
        told["Greatest lesion dose (Gy)"] = f"{_dose(hottest)} ({hottest['region']})"
        told["Coefficient (Gy/GBq)"] = round(float(hottest["dose_gy"] / hottest["activity_gbq"]), 2)
    for row in known[~known["region"].isin(lesions)].to_dict("records"):
        told[f"{_heading(row['region'])} (Gy)"] = _dose(row)
    return told


def _dose(row: pd.Series | dict) -> str:
    sd = row["sd_gy"]
    return f"{row['dose_gy']:.1f}" if pd.isna(sd) else f"{row['dose_gy']:.1f} ± {sd:.1f}"


def _responses(rows: pd.DataFrame) -> dict[str, str]:
    return {str(criterion): ", ".join(part["category"].fillna("NA")) for criterion, part in rows.groupby("criterion")}


def _times(rows: pd.DataFrame) -> dict[str, str]:
    known = rows[rows["endpoint"].isin(SURVIVAL)].dropna(subset="days")
    return {
        SURVIVAL[row["endpoint"]]: f"{row['days']:g}" + ("" if row["event"] else "+")
        for row in known.to_dict("records")
    }
