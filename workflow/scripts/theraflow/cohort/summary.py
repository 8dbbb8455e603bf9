"""From the tables of the patients to the tables of the cohort."""

import datetime
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from theraflow.cohort import detection, statistics, survival
from theraflow.cohort.comparisons import BASELINE, MEASURES, doses_until, find_comparisons, list_pairs
from theraflow.cohort.exports import export_tables
from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.layout import PatientFolder
from theraflow.tables import read_table, write_table

log = logging.getLogger(__name__)

# Headers of the contract, for a cohort in which no patient has the table.
HEADERS = {
    "lesions": [
        "patient", "scan", "tracer", "timepoint", "lesion", "label", "site", "volume_ml", "suv_max",
        "suv_mean", "suv_peak", "tbr", "background_region", "background_suv", "tlg_ml", "positive",
        "concordance", "x_mm", "y_mm", "z_mm", "longest_diameter_mm", "short_axis_mm", "source",
    ],
    "doses": [
        "patient", "region", "kind", "nuclide", "mass_g", "n_timepoints", "model", "t_eff_h", "tia_h",
        "dose_gy_per_gbq", "sd_gy_per_gbq", "method",
    ],
    "response": [
        "patient", "baseline", "followup", "criterion", "category", "measure_baseline", "measure_followup",
        "change_percent", "new_lesions",
    ],
}  # fmt: skip


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


def concatenate(paths: Sequence[Path], header: Sequence[str]) -> pd.DataFrame:
    """The tables at `paths` one below the other as text, so that no digit and no `NA` changes.

    Args:
        paths: TSV files; those that do not exist are passed over.
        header: columns that come first, in this order; further ones of the files follow.

    Raises:
        TheraflowError: a file cannot be read or lacks a column of `header`.
    """
    tables = []
    for path in paths:
        if not path.is_file():
            log.info("%s does not exist: no rows of this patient.", path)
            continue
        try:
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise TheraflowError(f"{path} cannot be read as a table ({error}).") from error
        missing = [column for column in header if column not in table.columns]
        if missing:
            raise TheraflowError(f"{path} lacks the columns {', '.join(missing)}; delete it and make it again by its name with snakemake.")
        tables.append(table)
    return pd.concat([pd.DataFrame(columns=list(header), dtype=str), *tables], ignore_index=True)


def read_lesions(path: Path | str, tracers: Sequence[str]) -> pd.DataFrame:
    """`lesions.tsv` of the cohort, made ready for statistics.

    Args:
        path: the table.
        tracers: SUV tracers; rows of other tracers are left out.

    Returns:
        The table with `positive` as 1.0, 0.0 or NaN (not assessed), `registration` as good, check, failed or
        NaN (a table that lacks the column), and one row per patient, lesion, tracer and time point: where a
        tracer was imaged twice at a time point, the first scan in the table stands, and the log says so. Of a
        patient without a time point called `baseline` the first one is the baseline.

    Raises:
        TheraflowError: a cell of `positive` is none of true, false, 1, 0 and NA.
    """
    table = read_table(path)
    table = table[table["tracer"].isin(tracers)]
    table = table.reindex(columns=list(dict.fromkeys((*table.columns, "registration"))))
    meaning = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0, "nan": float("nan")}
    words = table["positive"].astype(str).str.lower()
    unknown = sorted(set(words) - set(meaning))
    if unknown:
        raise TheraflowError(f"{path}: column positive holds {', '.join(unknown)}; it must be True, False or NA.")
    table = table.assign(positive=words.map(meaning).astype(float))
    table = table.astype({"lesion": str, "timepoint": str, **{column: float for _, column in MEASURES}})
    for patient, own in table.groupby("patient"):
        first = own["timepoint"].iloc[0]
        if (own["timepoint"] != BASELINE).all():
            log.warning("%s has no scan at %s: %s is taken for it.", patient, BASELINE, first)
            table.loc[own.index[own["timepoint"] == first], "timepoint"] = BASELINE
    repeated = table.duplicated(["patient", "lesion", "tracer", "timepoint"])
    for row in table[repeated][["patient", "scan"]].drop_duplicates().itertuples():
        log.warning("%s: %s repeats a tracer and time point; statistics use the earlier scan.", *row[1:])
    return table[~repeated].reset_index(drop=True)
