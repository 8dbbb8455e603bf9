"""The results of a run as a BIDS derivatives dataset (Brain Imaging Data Structure, https://bids-specification.readthedocs.io).

A scan is a session: each has a frame of reference of its own. PET and label maps are as BIDS has them; CT, SPECT,
planar views, dose maps and tables, for which BIDS has no place yet, stand beside them in its manner and are named in
`.bidsignore`. Times are relative to the injection; there is no date, no time of day and no UID.
"""

import csv
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import theraflow
from theraflow.errors import TheraflowError
from theraflow.files import read_json, whole_folder, write_json, write_text, write_tsv
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import read_table

BIDS_VERSION = "1.10.0"
NOT_AVAILABLE = "n/a"
OLDEST_Y = 89  # BIDS: such and higher ages are told as 89+
TABLES = ("lesions", "curves", "doses", "cycles", "dvh", "response")
IGNORED = ("ct", "spect", "planar", "dose", "tables")  # folders
README = """# Results of theraflow

Made by theraflow {version} for research; not a medical device.

A session is one scan; `sub-*_sessions.tsv` says which tracer and time point. Images are those of the results folder,
voxel by voxel (hard links where the file system has them: do not change them in place).

- `pet/*_desc-SUVbw_pet.nii.gz`: SUV by body weight, g/mL
- `ct/*_ct.nii.gz`: Hounsfield units; `spect/*_spect.nii.gz`: Bq/mL at the acquisition; `planar/*_planar.nii.gz`:
  counts per second
- `anat/*_seg-organs_dseg`: organs on the grid of the CT; `anat/*_seg-lesions_dseg`: lesions on the grid of PET or SPECT
- `dose/*_dose.nii.gz`: absorbed dose per administered activity, Gy/GBq, of the nuclide that `desc` names
- `tables/*.tsv`: lesions, activities, doses, response

BIDS has no place yet for CT, SPECT, doses and tables; they are listed in `.bidsignore`.
"""


def write_bids(
    output: Path | str, scans: Mapping[str, Sequence[Scan]], results: Path | str, patients: Path | str | None = None
) -> None:
    """Write the dataset, whole or not at all.

    Args:
        output: folder of the dataset, on the file system of the results.
        scans: by patient, the scans.
        results: folder of the results.
        patients: the sheet of patients, or None; sex and age are taken from it, nothing else.

    Raises:
        TheraflowError: two patients, or two scans of one, have the same label in BIDS.
    """
    subjects = labels(scans, "patients")
    people = _people(patients)
    version = theraflow.__version__
    description = {
        "Name": "Results of theraflow",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "theraflow", "Version": version}],
    }
    rows = [
        {"participant_id": f"sub-{subjects[patient]}", "patient": patient, **people.get(patient, _person({}))}
        for patient in scans
    ]
    with whole_folder(output) as place:
        write_json(description, place / "dataset_description.json")
        write_text(README.format(version=version), place / "README.md")
        write_text("".join(f"{folder}\n" for folder in IGNORED), place / ".bidsignore")
        _write_rows(rows, place / "participants.tsv", PARTICIPANT_COLUMNS)
        for patient, own in scans.items():
            _write_subject(place / f"sub-{subjects[patient]}", PatientFolder(results, patient), own)


SESSION_COLUMNS = {
    "session_id": "one scan",
    "scan": "its name in the results",
    "tracer": "as the configuration names it",
    "timepoint": "as the sheet of scans names it",
}
PARTICIPANT_COLUMNS = {
    "participant_id": "label of the patient",
    "patient": "name in the results: a pseudonym",
    "sex": "from the sheet of patients: F, M or O",
    "age": "from the sheet of patients, years; 89+ from 89 on",
}


def label(name: str) -> str:
    """A name as a label of BIDS, which has letters and digits only."""
    return re.sub(r"[^0-9A-Za-z]", "", name)


def labels(names: Iterable[str], what: str) -> dict[str, str]:
    """Label by name.

    Raises:
        TheraflowError: two names have the same label, also where they differ in case only.
    """
    found = {name: label(name) for name in names}
    first: dict[str, str] = {}
    for name, own in found.items():
        other = first.setdefault(own.lower(), name)
        if other != name:
            raise TheraflowError(
                f"BIDS allows only letters and digits: the {what} {other} and {name} would both be {own}. Rename one "
                "of them in the sheet of scans, or set `bids: false`."
            )
    return found


def _people(path: Path | str | None) -> dict[str, dict[str, Any]]:
    """Sex and age by patient."""
    if path is None:
        return {}
    rows = read_table(path).astype(object).to_dict("records")
    return {row["patient"]: _person(row) for row in rows}


def _person(row: Mapping[str, Any]) -> dict[str, Any]:
    sex, age = (row.get(key) if row.get(key) == row.get(key) else None for key in ("sex", "age_y"))  # NaN: not known
    told = None if age is None else f"{OLDEST_Y}+" if age >= OLDEST_Y else f"{age:g}"
    return {"sex": sex, "age": told}


def _write_rows(rows: Sequence[Mapping[str, Any]], path: Path, columns: Mapping[str, str]) -> None:
    """A table of BIDS: `n/a` for what is missing, and what its columns mean beside it."""
    filled = [{key: NOT_AVAILABLE if value is None else value for key, value in row.items()} for row in rows]
    write_tsv(filled, path, list(columns))
    write_json({column: {"Description": meaning} for column, meaning in columns.items()}, path.with_suffix(".json"))


def _write_subject(output: Path, folder: PatientFolder, scans: Sequence[Scan]) -> None:
    sessions = labels((scan.scan for scan in scans), f"scans of {folder.patient}")
    rows = [
        {"session_id": f"ses-{sessions[scan.scan]}", "scan": scan.scan, "tracer": scan.tracer,
         "timepoint": scan.timepoint}
        for scan in scans
    ]  # fmt: skip
    _write_rows(rows, output / f"{output.name}_sessions.tsv", SESSION_COLUMNS)
    for scan in scans:
        _write_session(output, sessions[scan.scan], folder, scan)
    _write_dose_maps(output, sessions, folder, scans)
    for name in TABLES:
        if folder.table(name).is_file():
            _copy_table(folder.table(name), output / "tables" / f"{output.name}_{name}.tsv")


def _write_session(subject: Path, session: str, folder: PatientFolder, scan: Scan) -> None:
    place, stem = subject / f"ses-{session}", f"{subject.name}_ses-{session}"
    told = read_json(_sidecar(folder.emission(scan)))
    kind = {"pet": "SUVbw", "spect": "activity", "planar": "counts"}[scan.emission]
    emission = place / scan.emission / f"{stem}_trc-{label(scan.tracer)}_desc-{kind}_{scan.emission}.nii.gz"
    _link(folder.emission(scan), emission)
    write_json(describe_emission(told), _sidecar(emission))
    ct = place / "ct" / f"{stem}_desc-HU_ct.nii.gz"
    if folder.ct(scan.scan).is_file():
        _link(folder.ct(scan.scan), ct)
        write_json({"Description": "CT in Hounsfield units", "Units": "HU", **_scanner(told)}, _sidecar(ct))
    for name, source, grid in (
        ("organs", folder.organs(scan.scan), ct),
        ("lesions", folder.lesion_map(scan.scan), emission),
    ):
        if source.is_file():
            target = place / "anat" / f"{stem}_seg-{name}_dseg.nii.gz"
            _write_labels(source, target, f"bids::{grid.relative_to(subject.parent).as_posix()}")


def describe_emission(told: Mapping[str, Any]) -> dict[str, Any]:
    """Sidecar of a PET, SPECT or planar image by the names of PET-BIDS; what is not known is left out.

    Args:
        told: theraflow's own sidecar.
    """
    hours = told["time_after_injection_h"]
    facts = {
        "Description": told["quantity"],
        "Units": told["unit"],
        **_scanner(told),
        "TracerName": told["radiopharmaceutical"],
        "TracerRadionuclide": _radionuclide(told["nuclide"]),
        "InjectedRadioactivity": told["injected_mbq"],
        "InjectedRadioactivityUnits": None if told["injected_mbq"] is None else "MBq",
        "InjectionStart": None if hours is None else 0,
        "ScanStart": None if hours is None else round(hours * 3600.0, 3),
        "BodyWeight": told["weight_kg"],
        "BodyWeightUnits": None if told["weight_kg"] is None else "kg",
        # Whatever the series was, SUV relates activity and injection at the same time.
        "ImageDecayCorrected": True if told.get("suv") else None,
        "SkullStripped": False,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _scanner(told: Mapping[str, Any]) -> dict[str, str]:
    return {"ManufacturersModelName": told["scanner"]} if told.get("scanner") else {}


def _radionuclide(nuclide: str) -> str:
    """`18F` as `F18`."""
    return re.sub(r"^(\d+m?)([A-Z][a-z]?)$", r"\2\1", nuclide)


def _write_labels(source: Path, target: Path, grid: str) -> None:
    """A label map, its names, and the image on whose voxels it lies as BIDS names it."""
    _link(source, target)
    told = read_json(_sidecar(source))
    write_json({"Description": f"{told['quantity']}s", "SpatialReference": grid}, _sidecar(target))
    rows = [{"index": int(index), "name": name} for index, name in told["labels"].items()]
    write_tsv(rows, target.with_name(target.name.removesuffix(".nii.gz") + ".tsv"), ("index", "name"))


def _write_dose_maps(subject: Path, sessions: Mapping[str, str], folder: PatientFolder, scans: Sequence[Scan]) -> None:
    tracers = {scan.scan: scan.tracer for scan in scans}
    for source in folder.dose_map_files:
        if not source.name.endswith(".nii.gz"):
            continue
        told = read_json(_sidecar(source))
        session = sessions[told["scan"]]
        name = (
            f"{subject.name}_ses-{session}_trc-{label(tracers[told['scan']])}_desc-{label(told['nuclide'])}_dose.nii.gz"
        )
        target = subject / f"ses-{session}" / "dose" / name
        _link(source, target)
        facts = {
            "Description": told["quantity"],
            "Units": told["unit"],
            "TracerRadionuclide": _radionuclide(told["nuclide"]),
            "Method": told["method"],
            "Limits": told["limits"],
        }
        write_json(facts, _sidecar(target))


def _sidecar(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(".nii.gz") + ".json")


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy_table(source: Path, target: Path) -> None:
    """A table as BIDS writes it: `n/a` for what is missing."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    header, *cells = [[NOT_AVAILABLE if cell in ("NA", "") else cell for cell in row] for row in rows]
    write_tsv([dict(zip(header, row, strict=True)) for row in cells], target, header)
