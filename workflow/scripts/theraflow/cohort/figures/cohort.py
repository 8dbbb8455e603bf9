"""All figures of a cohort from its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from theraflow.cohort.comparisons import follow_ups
from theraflow.cohort.figures.course import collect_events, draw_survival, draw_swimmers, events_of
from theraflow.cohort.figures.doses import draw_coefficients, draw_dose_response
from theraflow.cohort.figures.drawing import Drawing, Looks
from theraflow.cohort.figures.lesions import draw_detection
from theraflow.cohort.figures.uptake import draw_changes, draw_patient_changes, draw_tracers
from theraflow.cohort.joined import read_lesions
from theraflow.cohort.survival import times_by_endpoint
from theraflow.images import read_sidecar
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import read_table


def draw_cohort(
    results: Path | str,
    scans: Mapping[str, Sequence[Scan]],
    settings: Mapping[str, Any],
    sheets: Mapping[str, Any],
) -> list[Drawing]:
    """Every figure, drawn or with the reason why not, in the order of a paper.

    Args:
        results: the results folder with the tables of `summarise_cohort`.
        scans: the scans of each patient that the tables hold.
        settings: `tracers` of the configuration.
        sheets: `cycles` and `events`, the rows of those sheets.

    Raises:
        TheraflowError: a table or sheet is missing or not what it should be.
    """
    cohort = Path(results) / "cohort"
    tracers = {
        name: tracer["radiopharmaceutical"]
        for name, tracer in settings["tracers"].items()
        if tracer["quantity"] == "suv"
    }
    lesions = read_lesions(cohort / "lesions.tsv", list(tracers))
    tables = {name: read_table(cohort / f"{name}.tsv") for name in ("statistics", "detection", "doses", "response")}
    survival = times_by_endpoint(read_table(cohort / "survival_times.tsv"))
    cycles = [row for row in sheets["cycles"] if row["patient"] in scans]
    events = [event for event in events_of(sheets["events"]) if event.patient in scans]
    course = _courses([PatientFolder(results, patient) for patient in scans])
    later = follow_ups(lesions, list(tracers))
    looks = Looks(sorted(scans))
    return [
        draw_swimmers(*collect_events(events, cycles, survival)),
        draw_detection(lesions, tables["detection"], tracers),
        *draw_tracers(lesions, tables["statistics"], tracers, looks),
        *draw_changes(lesions, tables["statistics"], tracers, later, looks),
        *draw_patient_changes(tables["response"]),
        draw_coefficients(tables["doses"], tables["statistics"]),
        *draw_dose_response(lesions, course, _acquired(results, scans), tables["statistics"], later, looks),
        draw_survival(survival),
    ]


def _courses(folders: Sequence[PatientFolder]) -> pd.DataFrame:
    """`course.tsv` of all patients that have one, lesions only."""
    tables = [read_table(folder.table("course")) for folder in folders if folder.table("course").is_file()]
    tables = [table[table["kind"] == "lesion"] for table in tables]
    columns = ["patient", "cycle", "date", "region", "total_dose_gy", "total_sd_gy"]
    parts = [table[columns] for table in tables if len(table)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _acquired(results: Path | str, scans: Mapping[str, Sequence[Scan]]) -> dict[tuple[str, str], str]:
    """When each PET was acquired, by its sidecar."""
    return {
        (scan.patient, scan.scan): read_sidecar(PatientFolder(results, scan.patient).emission(scan))["acquired_at"]
        for own in scans.values()
        for scan in own
        if scan.quantity == "suv"
    }
