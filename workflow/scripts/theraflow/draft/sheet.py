"""`theraflow index`: from a tree of DICOM to scans.tsv, series.tsv and config.yaml."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from theraflow.dicom.export.choice import SERIES_COLUMNS, choose_ct, choose_emission, series_table
from theraflow.dicom.export.header import words
from theraflow.dicom.export.identity import without_identity
from theraflow.dicom.export.index import Index, read_index
from theraflow.dicom.export.series import Kind, Series
from theraflow.draft.patients import Patient, group_patients
from theraflow.draft.scans import MEASURED, PLANAR, DraftScan, find_scans
from theraflow.draft.timepoints import assign_timepoints
from theraflow.draft.tracers import Radiopharmaceutical
from theraflow.errors import TheraflowError
from theraflow.files import write_text, write_tsv
from theraflow.sheets import UNDECIDED

logger = logging.getLogger(__name__)

_REQUIRED = ("patient", "scan", "tracer", "timepoint", "dicom")
_OPTIONAL = ("lesions", "organs", "series")
_TABLE_COLUMNS = ("patient", "scan", *SERIES_COLUMNS, "folder")
# Why a series of this kind is no scan.
_NO_SCAN = {
    Kind.PET_UNCORRECTED: "not attenuation-corrected",
    Kind.PET_DYNAMIC: "dynamic: no single volume",
    Kind.PET_GATED: "gated: no single volume",
    Kind.SPECT_GATED: "gated: no single volume",
    Kind.SPECT_PROJECTIONS: "projections: has to be reconstructed first",
    Kind.PET_PROJECTION: "projection: no volume",
    Kind.CT: "not the CT of a scan: no scan lies in its frame of reference, or it covers too little of it",
    **dict.fromkeys(PLANAR, "planar: for dosimetry, give its folder a row of its own in scans.tsv"),
}


@dataclass(frozen=True)
class Draft:
    """What was found.

    Attributes:
        scans, series: rows of scans.tsv and of series.tsv.
        columns: of scans.tsv; optional columns that nothing would fill are left out.
        tracers: those that were found, in the order of their first scan.
    """

    scans: tuple[dict[str, Any], ...]
    series: tuple[dict[str, Any], ...]
    columns: tuple[str, ...]
    tracers: tuple[Radiopharmaceutical, ...]

    @property
    def undecided(self) -> int:
        """Cells that are left to the user."""
        return sum(value == UNDECIDED for row in self.scans for value in row.values())


def draft_sheets(tree: Path | str, output: Path | str) -> Draft:
    """Index a tree of DICOM and write `scans.tsv`, `series.tsv` and, if there is none, `config.yaml` into a folder.

    Patients get pseudonyms in the order of their first scan. Nothing that identifies them is written, except that the
    paths are the user's own.

    Raises:
        TheraflowError: no such tree, nothing to measure in it, a scans.tsv that exists already, or a folder that
            cannot be written.
    """
    tree, output = Path(tree), Path(output)
    sheet = output / "scans.tsv"
    if sheet.exists():
        raise TheraflowError(f"{sheet} exists already and is not overwritten; give another folder with --output.")
    if not tree.is_dir():
        raise TheraflowError(f"The folder {tree} does not exist; give the folder of the DICOM export.")
    try:
        index = read_index(tree)
    except TheraflowError as error:
        # What read_index advises concerns a sheet that does not exist yet.
        raise TheraflowError(f"{str(error).partition(';')[0]}; give the folder of the DICOM export.") from None
    draft = draft_index(index, output)
    if not draft.scans:
        raise TheraflowError(
            f"{tree} holds {len(index.series)} DICOM series but no PET or SPECT volume that can be measured, nor files "
            f"that could be one; nothing was written. {'; '.join(index.broken[:1])}".strip()
        )
    try:
        write_tsv(draft.series, output / "series.tsv", _TABLE_COLUMNS)
        if not (output / "config.yaml").exists():
            write_text(draft_config(draft), output / "config.yaml")
        write_tsv(draft.scans, sheet, draft.columns)
    except OSError as error:
        raise TheraflowError(
            f"{output} cannot be written ({error.strerror}); give another folder with --output."
        ) from error
    paths = {str(row[column]) for row in draft.scans for column in ("dicom", "lesions", "organs")}
    if any(without_identity(path, index.identity) != path for path in paths):
        logger.warning("paths in %s hold words of the patients' headers: rename folders before you share it", sheet)
    return draft


def draft_index(index: Index, output: Path) -> Draft:
    """The rows of both tables; paths relative to `output`."""
    patients, mixed = group_patients(index.series)
    found = []
    for patient in patients:
        scans = find_scans(patient.series, index.identity)
        assign_timepoints(scans)
        found.append((patient, scans))
    found.sort(key=lambda one: _order(*one))
    rows, table, tracers = [], [], {}
    for number, (patient, scans) in enumerate(found, start=1):
        pseudonym = f"P{number:03d}" if not patient.doubt else UNDECIDED
        names = _scan_names(scans)
        for scan in scans:
            rows.append(_row(index, scan, patient, pseudonym, names[scan], output))
            tracers.setdefault(scan.tracer)
        table += _series_rows(index, patient, scans, pseudonym, names, output)
    table += [_unplaced(row, "files of several patients in one series", one, output)
              for one, row in zip(mixed, _table(index, mixed), strict=True)]  # fmt: skip
    table += [_damaged(sentence) for sentence in sorted(index.broken)]
    used = tuple(column for column in _OPTIONAL if any(row[column] is not None for row in rows))
    tracers.pop(None, None)
    return Draft(tuple(rows), tuple(table), (*_REQUIRED, *used, "date", "note"), tuple(tracers))


def _order(patient: Patient, scans: Sequence[DraftScan]) -> tuple:
    if scans:
        return (0, *scans[0].order)
    return (1, min(str(one.acquired_at) for one in patient.series), min(one.uid for one in patient.series))


def _scan_names(scans: Sequence[DraftScan]) -> dict[DraftScan, str]:
    """Tracer and time point, numbered where there are several; valid by the schema."""
    stems = {}
    for scan in scans:
        what = scan.tracer.tracer if scan.tracer else scan.told.nuclide or scan.image.modality
        stems[scan] = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{what}_{scan.timepoint}" if scan.timepoint else what)
    several, seen, names = Counter(stems.values()), Counter(), {}
    for scan, stem in stems.items():
        seen[stem] += 1
        names[scan] = f"{stem}_{seen[stem]}" if several[stem] > 1 else stem
    return names


def _row(index: Index, scan: DraftScan, patient: Patient, pseudonym: str, name: str, output: Path) -> dict[str, Any]:
    notes = [f"patient: {patient.doubt}"] if patient.doubt else []
    folder = _common_folder(scan.taken)
    series: str | None = UNDECIDED
    dicom = _shown(folder, output)
    if not scan.undecided:
        series, problem = _series_cell(scan, _within(index, folder))
        if problem:
            dicom = UNDECIDED
            notes.append(f"dicom: {problem}; {_shown(folder, output)}")
    damaged = sum(sentence.startswith(f"{folder}{os.sep}") for sentence in index.broken)
    if damaged:
        notes.append(f"dicom: {damaged} damaged files in this folder stop the import; see series.tsv")
    if scan.other_annotations:
        paths = ", ".join(_shown(one.path, output) for one in scan.other_annotations)
        notes.append(f"lesions: {'not' if scan.lesions or scan.organs else 'nothing tells which of'} {paths}")
    notes += scan.notes + [without_identity(note, index.identity) for note in scan.header_notes]
    return {
        "patient": pseudonym,
        "scan": name,
        "tracer": scan.tracer.tracer if scan.tracer else UNDECIDED,
        "timepoint": scan.timepoint or UNDECIDED,
        "dicom": dicom,
        "lesions": _shown(scan.lesions.path, output) if scan.lesions else None,
        "organs": _shown(scan.organs.path, output) if scan.organs else None,
        "series": series,
        "date": scan.started.date().isoformat() if scan.started else None,
        "note": re.sub(r"\s+", " ", "; ".join(notes)) or None,
    }


def _common_folder(series: Iterable[Series]) -> Path:
    """The deepest folder that holds all files of these series."""
    return Path(os.path.commonpath([folder for one in series for folder in _folders(one)]))


@cache  # asked for once a scan, and a series may have thousands of files
def _folders(series: Series) -> frozenset[Path]:
    return frozenset(instance.path.parent for instance in series.instances)


def _shown(path: Path, output: Path) -> str:
    """A path as the sheet has it: relative to the output folder, unless they have only the root in common."""
    path, output = path.absolute(), output.absolute()
    return str(path) if os.path.commonpath([path, output]) == path.anchor else os.path.relpath(path, output)


def _within(index: Index, folder: Path) -> Index:
    """What the import will find in a folder."""
    found = []
    for one in index.series:
        inside = {part for part in _folders(one) if part.is_relative_to(folder)}
        if inside == _folders(one):
            found.append(one)
        elif inside:
            found.append(Series(tuple(instance for instance in one.instances if instance.path.parent in inside)))
    return Index(str(folder), tuple(found), (), index.identity)


def _series_cell(scan: DraftScan, inside: Index) -> tuple[str | None, str]:
    """The cell `series`: nothing, if the import finds the same without; and why it cannot find it, or nothing."""
    wanted = [scan.emission.series, *([scan.ct.series] if scan.ct else [])]
    forced = ", ".join(one.uid for one in wanted if one.uid)
    for cell in (None, forced or None):
        if _import_takes(inside, scan, cell) == wanted:
            return cell, ""
    if scan.ct is None and any(map(_counts_as_ct, inside.series)):
        return (
            None,
            "the scan has no CT, but a CT of another scan lies in the folder; put its files into one of their own",
        )
    return None, "its series cannot be told from others in the folder; put its files into one of their own"


def _import_takes(inside: Index, scan: DraftScan, forced: str | None) -> list[Series]:
    """Emission image and CT that the workflow will take out of a folder; nothing where it refuses."""
    try:
        taken = [choose_emission(inside, scan.quantity, forced).series]
        if any(map(_counts_as_ct, inside.series)):
            taken.append(choose_ct(inside, taken[0], forced).series)
    except TheraflowError:
        return []
    return taken


def _counts_as_ct(series: Series) -> bool:
    """Whether the workflow expects a CT because of it, as `theraflow.dicom.export.sniff.modalities` does."""
    return series.modality == "CT" and "LOCALIZER" not in (words(series.header, "ImageType") or ())


def _table(index: Index, series: Sequence[Series]) -> list[dict[str, Any]]:
    return series_table(Index(index.folder, tuple(series), (), index.identity))


def _series_rows(
    index: Index,
    patient: Patient,
    scans: Sequence[DraftScan],
    pseudonym: str,
    names: Mapping[DraftScan, str],
    output: Path,
) -> list[dict[str, Any]]:
    """What became of each series of a patient."""
    uses: dict[Series, list[tuple[DraftScan, str | None, str]]] = defaultdict(list)
    for scan in scans:
        for role, choice in (("emission", scan.emission), ("CT", scan.ct)):
            if choice:
                uses[choice.series].append((scan, role, choice.reason))
        for role, annotation in (("lesions", scan.lesions), ("organs", scan.organs)):
            if annotation:
                uses[annotation.series].append((scan, role, "drawn on it, on its CT, or in its study and frame"))
        for annotation in scan.other_annotations:
            uses[annotation.series].append((scan, None, "an annotation of this scan, too: the user may choose it"))
        for one in scan.undecided:
            uses[one].append((scan, UNDECIDED, "may be it: the user has to choose"))
    for scan in scans:
        # Reasons against a series count only where it is not used.
        for choice in (scan.emission, scan.ct):
            for one, why in choice.others.items() if choice else ():
                if all(role is None for _, role, _ in uses[one]) and (one.kind in MEASURED or one.kind == Kind.CT):
                    uses[one].append((scan, None, f"not taken: {why}"))
    rows = []
    for one, row in zip(patient.series, _table(index, patient.series), strict=True):
        mine = uses[one]
        roles = list(dict.fromkeys(role for _, role, _ in mine if role))
        otherwise = _NO_SCAN.get(one.kind, "no scan of this patient needs it")
        rows.append(
            {
                **row,
                "patient": pseudonym,
                "scan": ", ".join(dict.fromkeys(names[scan] for scan, _, _ in mine)) or None,
                "used_as": ", ".join(roles) or None,
                "reason": "; ".join(dict.fromkeys(why for _, _, why in mine)) or otherwise,
                "folder": _shown(_common_folder([one]), output),
            }
        )
    return rows


def _unplaced(row: Mapping[str, Any], reason: str, series: Series, output: Path) -> dict[str, Any]:
    folder = _shown(_common_folder([series]), output)
    return {**row, "patient": None, "scan": None, "used_as": None, "reason": reason, "folder": folder}


def _damaged(sentence: str) -> dict[str, Any]:
    return {**dict.fromkeys(_TABLE_COLUMNS), "kind": "damaged file", "reason": sentence}


def draft_config(draft: Draft) -> str:
    """The text of a configuration with the tracers that were found."""
    tracers = {row.tracer: _tracer_config(row) for row in draft.tracers}
    suv = [row.tracer for row in draft.tracers if row.quantity == "suv"]
    reference = "FDG" if "FDG" in suv else suv[0] if len(suv) == 1 else None
    content = {"scans": "scans.tsv", "results": "results", "tracers": tracers}
    lines = [
        "# Drafted by `theraflow index`. Every key is explained in config/README.md of theraflow.",
        yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True).rstrip(),
    ]
    if any(row["tracer"] == UNDECIDED for row in draft.scans):
        lines.append("# Some tracers could not be told: add those that you write into scans.tsv in place of `?`.")
    if reference:
        lines.append(f"reference_tracer: {reference}")
    elif suv:
        lines.append(f"# reference_tracer: one of {', '.join(suv)}")
    lines.append("# lesions: {candidates: {TRACER: {threshold_suv: NUMBER}}} # where no reader has marked lesions")
    return "\n".join(lines) + "\n"


def _tracer_config(row: Radiopharmaceutical) -> dict[str, str]:
    known = {"radiopharmaceutical": row.name, "nuclide": row.nuclide, "quantity": row.quantity}
    return known | ({"therapy_nuclide": row.therapy_nuclide} if row.therapy_nuclide else {})
