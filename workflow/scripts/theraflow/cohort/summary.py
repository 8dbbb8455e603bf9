"""From the tables of the patients to the tables of the cohort."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from theraflow.cohort import detection, statistics, survival
from theraflow.cohort.comparisons import BASELINE, doses_until, find_comparisons, list_pairs
from theraflow.cohort.exports import export_tables
from theraflow.cohort.joined import HEADERS, concatenate, read_lesions
from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.layout import PatientFolder
from theraflow.tables import read_table, write_table


def summarise_cohort(
    folders: Sequence[PatientFolder],
    output: Path | str,
    settings: Mapping[str, Any],
    patients_table: Path | str | None = None,
    cycles: Sequence[Mapping[str, Any]] = (),
    expression_table: Path | str | None = None,
) -> None:
    """Write the cohort's tables.

    Writes `lesions.tsv`, `doses.tsv`, `response.tsv` (the patients' tables one below the other, cell by cell
    as they are), `statistics.tsv`, `detection.tsv`, `survival.tsv`, and what they are made of for other programs
    (`export_tables`).

    Args:
        folders: the patients, in the order of the sheet; one without a table has no rows in it.
        output: `results/cohort`.
        settings: `tracers`: the configuration's tracers, name -> {`quantity`, ...}, in their order. The
            first two with quantity `suv` are compared.
        patients_table: `patients.tsv`, or None. Its survival columns are read for the patients of `folders`.
        cycles: rows of the sheet of cycles; the first with a date is where survival from therapy begins.
        expression_table: `expression.tsv` of `score_expression_sheet`, or None.

    Raises:
        TheraflowError: a table cannot be read, lacks a column, or holds a value that is not allowed.
    """
    output = Path(output)
    tracers = [name for name, tracer in settings["tracers"].items() if tracer["quantity"] == "suv"]
    for name, header in HEADERS.items():
        table = concatenate([folder.table(name) for folder in folders], header)
        write_table(table, output / f"{name}.tsv", list(table.columns))
    lesions = read_lesions(output / "lesions.tsv", tracers)
    doses = read_table(output / "doses.tsv")
    names = [folder.patient for folder in folders]
    patients = _own_rows(patients_table, names)
    times = survival.list_survival(patients, first_cycles(cycles))
    doses_by_time = read_doses_until(folders, lesions)
    expression = _own_rows(expression_table, names).reindex(columns=["patient", "marker", "positive_percent"])
    comparisons = find_comparisons(lesions, tracers, doses_by_time, expression)

    tables = {
        "statistics": (statistics.compute_statistics(lesions, doses, tracers, comparisons), statistics.COLUMNS),
        "detection": (detection.count_detection(lesions, tracers), detection.COLUMNS),
        "survival": (survival.compute_survival(times), survival.COLUMNS),
    }
    for name, (table, columns) in tables.items():
        write_table(table, output / f"{name}.tsv", columns)
    curves = survival.list_curves(times)
    export_tables({"pairs": list_pairs(comparisons), "survival_times": times, "survival_curves": curves}, output)


def _own_rows(path: Path | str | None, patients: Sequence[str]) -> pd.DataFrame:
    """The rows of a sheet that belong to the cohort; none without a sheet."""
    if path is None:
        return pd.DataFrame(columns=["patient"])
    table = read_table(path)
    return table[table["patient"].isin(patients)]


def first_cycles(cycles: Sequence[Mapping[str, Any]]) -> dict[str, datetime.date]:
    """Date of the first therapy cycle by patient; a patient with a cycle before it without a date is left out.

    Args:
        cycles: rows of the sheet of cycles, with `patient`, `cycle` and, where known, `date`.

    Raises:
        TheraflowError: a date is none.
    """
    found = {}
    for patient in dict.fromkeys(row["patient"] for row in cycles):
        first = min((row for row in cycles if row["patient"] == patient), key=lambda row: row["cycle"])
        if first.get("date") is None:
            continue
        try:
            found[patient] = datetime.date.fromisoformat(str(first["date"]))
        except ValueError:
            raise TheraflowError(
                f"The sheet of cycles: the date of the first cycle of {patient} is {first['date']!r}; it must be a "
                "date as 2019-04-01."
            ) from None
    return found


def read_doses_until(folders: Sequence[PatientFolder], lesions: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """By tracer and later time point, the doses that lesions have got until that scan; without any there is no entry.

    The tracers of one time point may have been imaged on days between which a cycle was given.

    Args:
        folders: the patients.
        lesions: as `read_lesions` returns it.
    """
    paths = [folder.table("course") for folder in folders]
    courses = [read_table(path) for path in paths if path.is_file()]
    course = pd.concat([table for table in courses if len(table)] or [pd.DataFrame()], ignore_index=True)
    if course.empty:
        return {}
    found, by_patient = {}, {folder.patient: folder for folder in folders}
    later = lesions.loc[lesions["timepoint"] != BASELINE, ["patient", "tracer", "timepoint", "scan"]]
    scans = later.drop_duplicates(["patient", "tracer", "timepoint"])
    for (tracer, timepoint), own in scans.groupby(["tracer", "timepoint"], sort=False):
        days = {row.patient: _scan_day(by_patient[row.patient], row.scan) for row in own.itertuples()}
        doses = doses_until(course, days)
        if len(doses):
            found[tracer, timepoint] = doses
    return found


def _scan_day(folder: PatientFolder, scan: str) -> datetime.date | None:
    """The day of a PET, or None where its time is not known."""
    sidecar = folder.root / "scans" / scan / "pet.json"
    told = read_json(sidecar).get("acquired_at") if sidecar.is_file() else None
    return datetime.datetime.fromisoformat(told).date() if told else None
