"""All DICOM objects of a patient: `results/{patient}/dicom`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from theraflow import objects
from theraflow.files import whole_folder
from theraflow.images import grid_of, read_image, read_sidecar, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.nifti import Grid
from theraflow.objects.codes import OWN_SCHEME, organ_code, site_code
from theraflow.objects.instance import derived_uid, write_object
from theraflow.objects.origin import Origin, ct_origin, emission_origin
from theraflow.objects.segments import Made, Segment
from theraflow.png import small_png
from theraflow.report.pictures import SUV_WINDOW, draw_projections
from theraflow.tables import read_table, write_table

log = logging.getLogger(__name__)

OBJECT_COLUMNS = ("patient", "scan", "object", "file", "sop_instance_uid", "remark")
# The objects stand behind the scanner's own series of the study.
_ORGANS, _LESIONS, _MEASUREMENTS, _DOSE, _CAPTURE = range(9001, 9006)
# How a segment was made, where CID 7162 has no word for it.
_IMPORTED = Code("imported", OWN_SCHEME, "Imported label map")
# By `source` of lesions.tsv; what a reader has drawn himself is MANUAL, without an algorithm.
_LESION_MADE = {
    "reader": Made("MANUAL"),
    "click": Made("SEMIAUTOMATIC", "theraflow", Code("grown", OWN_SCHEME, "Grown from a reader's point")),
    "candidate": Made("AUTOMATIC", "theraflow", Code("uptake_rule", OWN_SCHEME, "Uptake above a threshold")),
    "carried": Made("AUTOMATIC", "theraflow", Code("carried", OWN_SCHEME, "Carried from another scan")),
}
# The lesions' SEG and table may differ by this much: by voxels that a smaller lesion on the same place has.
_SAME_VOLUME = 1e-3


@dataclass
class _Patient:
    """What is being written of whom.

    Attributes:
        folder: the results.
        place: where the objects go.
        pseudonym: who the patient is called; None: as in the series.
        tracers: configuration, by tracer.
        rows: of objects.tsv.
    """

    folder: PatientFolder
    place: Path
    pseudonym: str | None
    tracers: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, scan: str, kind: str, dataset: Dataset | None, name: str = "", remark: str = "") -> None:
        """Write an object, or say why there is none."""
        if dataset is None:
            log.info("%s: no %s: %s", scan, kind, remark)
        else:
            write_object(dataset, self.place / name)
        self.rows.append({
            "patient": self.folder.patient, "scan": scan, "object": kind, "file": name or None,
            "sop_instance_uid": None if dataset is None else str(dataset.SOPInstanceUID), "remark": remark or None,
        })  # fmt: skip

    def emission_origin(self, scan: Scan) -> Origin:
        """The series of the emission image of a scan."""
        sidecar = read_sidecar(self.folder.emission(scan))
        return emission_origin(scan, self.tracers[scan.tracer], sidecar, self.pseudonym)


def write_dicom_objects(
    folder: PatientFolder,
    scans: Sequence[Scan],
    organs: Sequence[str],
    dose_map: bool,
    tracers: Mapping[str, Any],
    identity: str,
    output: Path | str,
) -> None:
    """Write organs, lesions, measurements, doses and projections of a patient as DICOM objects.

    Each belongs to the study, patient and frame of reference of the series that it was made of. Beside them
    `objects.tsv` names every object, and those that there cannot be with the reason.

    Args:
        folder: results of the patient.
        scans: all but planar ones.
        organs: names of the scans that have organ labels.
        dose_map: whether there is a dose map.
        tracers: section of the configuration.
        identity: `original`: patient and study as in the series; `pseudonym`: the patient's name in the sheet, without
            date of birth, names and numbers of the study, but with its UIDs and dates, by which viewers find images.
        output: the folder, replaced as a whole.

    Raises:
        TheraflowError: the DICOM folder of a scan holds another series than the one that was imported.
    """
    lesions = read_table(folder.table("lesions"))
    with whole_folder(output) as place:
        patient = _Patient(folder, place, folder.patient if identity == "pseudonym" else None, tracers)
        origins = {scan.scan: patient.emission_origin(scan) for scan in scans}
        tracking = _tracking_uids(folder.patient, lesions, origins.values())
        for scan in scans:
            origin = origins[scan.scan]
            if scan.scan in organs:
                _write_organs(patient, scan)
            _write_lesions(patient, scan, origin, lesions[lesions["scan"] == scan.scan], tracking)
        if dose_map:
            _write_doses(patient, scans, origins)
        write_table(pd.DataFrame(patient.rows, columns=list(OBJECT_COLUMNS)), place / "objects.tsv", OBJECT_COLUMNS)


def _tracking_uids(patient: str, lesions: pd.DataFrame, origins: Sequence[Origin]) -> dict[str, str]:
    """A UID for each lesion, the same in all scans and in every run, as long as the lesion keeps its name.

    The study of the patient's first scan makes it unique in the world: names as P001 and L01 are not.
    """
    first = min(origins, key=lambda origin: origin.acquired_at or datetime.max)
    study = str(first.header.get("StudyInstanceUID", ""))
    return {name: derived_uid("lesion", study, patient, name) for name in lesions["lesion"].unique()}


def _write_organs(patient: _Patient, scan: Scan) -> None:
    kind, path = "SEG of the organs", patient.folder.organs(scan.scan)
    origin = ct_origin(scan, read_sidecar(patient.folder.ct(scan.scan)), patient.pseudonym)
    if origin.obstacle:
        patient.add(scan.scan, kind, None, remark=origin.obstacle)
        return
    image, sidecar = read_image(path), read_sidecar(path)
    labels = to_array(image)
    segmented = "versions" in sidecar
    source = f"{sidecar['source']}, miniature model" if sidecar.get("miniature_model") else sidecar["source"]
    made = Made(
        "AUTOMATIC" if segmented else "SEMIAUTOMATIC",  # how an imported map was made is not known
        source if segmented else _IMPORTED.meaning,  # not the name of its file, which may be the patient's
        codes.cid7162.ArtificialIntelligence if segmented else _IMPORTED,
        version=sidecar["versions"]["TotalSegmentator"] if segmented else "not known",
    )
    segments = [
        _organ(label, sidecar["labels"][str(label)], made)
        for label in np.flatnonzero(_voxels(labels)).tolist()
        if label
    ]
    if not segments:
        patient.add(scan.scan, kind, None, remark="no organ was found")
        return
    dataset = objects.build_segmentation(labels, _grid(image, origin), origin, segments, "Organs", _ORGANS)
    patient.add(scan.scan, kind, dataset, f"{scan.scan}_organs_seg.dcm")


def _organ(label: int, name: str, made: Made) -> Segment:
    kind, side = organ_code(name)
    if name.startswith("kidney_cyst"):
        return Segment(
            label, name, codes.SCT.MorphologicallyAbnormalStructure, kind, made, region=(organ_code("kidney")[0], side)
        )
    return Segment(label, name, codes.SCT.AnatomicalStructure, kind, made, side)


def _write_lesions(
    patient: _Patient, scan: Scan, origin: Origin, rows: pd.DataFrame, tracking: Mapping[str, str]
) -> None:
    """Segments, measurements and projections of the lesions of one scan."""
    told = ["SEG of the lesions", "SR of the lesions"]
    path = patient.folder.lesion_map(scan.scan)
    image, names = read_image(path), read_sidecar(path)["labels"]
    labels = to_array(image)
    voxels = _voxels(labels)
    present = {int(label): name for label, name in names.items() if int(label) < len(voxels) and voxels[int(label)]}
    rows = rows[rows["lesion"].isin(present.values())]
    missing = origin.obstacle or ("" if len(rows) else "no lesion has a voxel here")
    if missing:
        for kind in told:
            patient.add(scan.scan, kind, None, remark=missing)
    else:
        volume_ml = float(np.prod(image.GetSpacing())) / 1000.0
        by_name = rows.set_index("lesion")
        segments = [
            _lesion(label, name, by_name.loc[name], voxels[label] * volume_ml, tracking[name])
            for label, name in present.items()
            if name in by_name.index
        ]
        segmentation = objects.build_segmentation(
            labels, _grid(image, origin), origin, segments, f"Lesions in {scan.tracer}", _LESIONS
        )
        drug = patient.tracers[scan.tracer]["radiopharmaceutical"]
        report = objects.build_report(rows, scan.emission, drug, origin, segmentation, tracking, _MEASUREMENTS)
        covered = ", ".join(sorted(set(names.values()) - set(present.values())))
        remark = f"without {covered}: where lesions overlap the smaller one is shown" if covered else ""
        patient.add(scan.scan, told[0], segmentation, f"{scan.scan}_lesions_seg.dcm", remark)
        patient.add(scan.scan, told[1], report, f"{scan.scan}_lesions_sr.dcm")
    if scan.quantity == "suv" and origin.obstacle:
        patient.add(scan.scan, "picture of the projections", None, remark=origin.obstacle)
    elif scan.quantity == "suv":
        pet = read_image(patient.folder.emission(scan))
        png = small_png(draw_projections(pet, image, present), dpi=150)
        caption = f"{scan.scan}: {scan.tracer}, {origin.acquired_at:%Y-%m-%d}, SUVbw 0 to {SUV_WINDOW:g} g/mL"
        capture = objects.build_capture(png, caption, origin, _CAPTURE)
        patient.add(scan.scan, "picture of the projections", capture, f"{scan.scan}_projections_sc.dcm")


def _lesion(label: int, name: str, row: pd.Series, shown_ml: float, tracking_uid: str) -> Segment:
    site, station = (None if pd.isna(row[column]) else row[column] for column in ("site", "station"))
    remark = ""
    if abs(shown_ml - row["volume_ml"]) > _SAME_VOLUME * row["volume_ml"]:
        remark = (
            f"The lesion has {row['volume_ml']:.3g} mL, of which the segment shows {shown_ml:.3g} mL; the others are "
            "shown as a smaller lesion that it overlaps."
        )
    return Segment(
        label, name, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, _LESION_MADE[row["source"]],
        region=site_code(site, station), tracking_uid=tracking_uid, remark=remark,
    )  # fmt: skip


def _write_doses(patient: _Patient, scans: Sequence[Scan], origins: Mapping[str, Origin]) -> None:
    """The dose of every cycle that the map stands for; without one, that of 1 GBq."""
    import nibabel  # only here, for the few patients with a map: SimpleITK reads NaN as 0

    path = patient.folder.dose_map
    image, sidecar = read_image(path), read_sidecar(path)
    origin = origins[sidecar["scan"]]
    if origin.obstacle:
        patient.add(sidecar["scan"], "RTDOSE", None, remark=origin.obstacle)
        return
    nuclide = sidecar["nuclide"]
    (timepoint,) = (scan.timepoint for scan in scans if scan.scan == sidecar["scan"])
    cycles = read_table(patient.folder.table("cycles"))
    cycles = cycles[cycles["nuclide"] == nuclide]
    array = np.asarray(nibabel.load(path).dataobj).T  # it counts x, y, z
    comment = f"Absorbed dose by {nuclide}: map in Gy/GBq times activity."
    if not len(cycles):
        text = f"{comment} No cycle of {nuclide} is in the sheet: dose of 1 GBq, not of a therapy."
        summary = f"normalised to 1 GBq of {nuclide}"
        dataset = objects.build_dose(array, _grid(image, origin), origin, 1.0, "1 GBq", summary, text, _DOSE)
        patient.add(sidecar["scan"], "RTDOSE", dataset, "dose_1_gbq_rtdose.dcm", summary)
    for (cycle, activity), regions in cycles.groupby(["cycle", "activity_gbq"]):
        # A region that a cycle's own scans do not show has the coefficient of others.
        own = regions[regions["source"].astype(str).str.startswith("measured")]
        shown_by = sorted(set((own if len(own) else regions)["timepoint"]))
        if timepoint not in shown_by:
            remark = f"the doses of cycle {cycle:g} are of {', '.join(shown_by)}, and the dose map is of {timepoint}"
            patient.add(sidecar["scan"], "RTDOSE", None, remark=remark)
            continue
        text = f"{comment} Cycle {cycle:g}, {activity:g} GBq, by the scans of {timepoint}."
        label, summary = f"Cycle {cycle:g}", f"cycle {cycle:g}, {activity:g} GBq of {nuclide}"
        dataset = objects.build_dose(array, _grid(image, origin), origin, float(activity), label, summary, text, _DOSE)
        patient.add(sidecar["scan"], "RTDOSE", dataset, f"dose_cycle_{cycle:g}_rtdose.dcm", summary)


def _voxels(labels: np.ndarray) -> np.ndarray:
    """How many voxels each label from 0 on has; slice by slice, for counting takes eight bytes a voxel."""
    highest = int(labels.max()) + 1
    return sum(np.bincount(one.ravel(), minlength=highest) for one in labels)


def _grid(image: Any, origin: Origin) -> Grid:
    """The grid of an image; where it is that of the series, exactly so, and not as NIfTI rounds it to 32 bits."""
    grid = grid_of(image)
    same = grid.size == origin.grid.size and all(
        np.allclose(getattr(grid, part), getattr(origin.grid, part), atol=1e-3)
        for part in ("spacing", "origin", "direction")
    )
    return origin.grid if same else grid
