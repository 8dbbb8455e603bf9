"""The stage `lesions`: from the scans of one patient to its tables of lesions and the label maps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.files import whole_folder
from theraflow.images import from_array, read_sidecar, voxel_volume_ml, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.background import (
    BACKGROUND_ORGANS,
    MINIMUM_BACKGROUND_ML,
    Background,
    organ_background,
    organs_of_background,
    shell_background,
)
from theraflow.lesions.burden import TracerView, mismatch, tumour_burden
from theraflow.lesions.contract import (
    BACKGROUNDS,
    BLOOD_POOL,
    BURDEN_COLUMNS,
    CANDIDATE_COLUMNS,
    CARRIED,
    LESION_COLUMNS,
    MISMATCH_COLUMNS,
    READER,
    SHELL,
    SURROUNDINGS,
    TBR_COLUMNS,
)
from theraflow.lesions.decisions import DECISION_COLUMNS, Decision, Proposal, draft, verdicts
from theraflow.lesions.emission import Emission
from theraflow.lesions.identity import Lesion, follow, looks, name_lesions
from theraflow.lesions.patient import Patient, Shown
from theraflow.lesions.positivity import concordance, is_positive
from theraflow.lesions.region import Region
from theraflow.lesions.site import ORGAN, Site
from theraflow.lesions.uptake import geometry, sum_of_parts, uptake
from theraflow.organs import implausible_organs
from theraflow.tables import write_table

log = logging.getLogger(__name__)

REPEATED = ("suv_max", "suv_mean", "suv_peak")  # with the sd of repeated measurement, where the configuration knows it
SITE_ORDER = (READER, ORGAN, SURROUNDINGS)  # whose word on the site of a lesion counts first
LEAN = "LBMJANMA"  # lean body mass of SUL: Janmahasatian, as the EANM's guideline asks


def measure_lesions(
    folder: PatientFolder,
    scans: Sequence[Scan],
    reference: Scan,
    settings: Mapping[str, Any],
    decisions: Sequence[Decision] = (),
) -> None:
    """Find the patient's lesions, follow them through all scans, measure each on every scan.

    Reads the emission images, organ labels where there are any, the candidates, the readers' annotations and the
    transforms of `theraflow.registration`. Writes the tables `lesions`, `candidates`, `tbr`, `burden`, `mismatch` and
    `decisions_draft`, the label map of every scan on its own emission grid, and that of the reference scan once more
    as `lesions.nii.gz`.

    Where a scan has a reader's annotation, its lesions are the reader's and candidates are only listed; where
    it has none, the candidates that are kept are its lesions. In both cases the reader's decisions have the last word.
    A lesion is measured on every scan: through its own region, or through the mask carried from the scan that is
    closest: one of the same time point, else of the same tracer, else the first. Where the field of view leaves out a
    carried lesion, the row is NA.

    A lesion has the number that it would have without any decision, see `theraflow.lesions.identity.name_lesions`.

    The column `registration` has the verdict on the scan's registration. Where it is `failed`, the scan's own
    regions are matched by organ and distance only (see `theraflow.lesions.identity`), and no mask is carried to
    the scan or from it: a lesion that it does not show itself is NA there, `source` too. `matched_by` says how a
    scan's own region was found to be a lesion that an earlier scan of the sheet shows. `carried_from` is the scan
    whose outline is measured where the scan has none of its own, and `volume_change` the volume that outline has
    here over its volume there.

    An organ that is not plausible (see `theraflow.organs.judge_organs`) is no background. Where a scan has no
    background, TBR is NA, and `background_remark` says why.

    Lesions may overlap (a tumour inside its oedema): each is measured with all of its voxels; in a label map,
    which has one label a voxel, the smaller one wins.

    Args:
        folder: the patient's results.
        scans: all scans of the patient, in the order of the sheet, which is also the order that names
            lesions.
        reference: the scan to whose space all others are registered; its time point is the baseline of
            concordance.
        settings: `candidates` (by tracer: the rule; a tracer not listed has none), `physiologic` (by tracer: organs),
            `match_distance_mm`, `positivity_ratio`, `repeatability_cv` (by tracer and measure) and `background`
            (`blood_pool`, `liver`, `gluteal_muscle` or `shell`).
        decisions: of the readers about this patient.

    Raises:
        TheraflowError: an unknown background, a decision that cannot be followed, or an input that cannot be read.
    """
    if settings["background"] not in BACKGROUNDS:
        raise TheraflowError(
            f"The background {settings['background']!r} in the configuration is not known; "
            f"choose one of {', '.join(BACKGROUNDS)}."
        )
    patient = Patient(folder, scans, reference, settings, decisions)
    shown = {scan.scan: patient.look_at(scan) for scan in scans}
    lesions = follow([one.observations for one in shown.values()], settings["match_distance_mm"])
    automatic = follow([one.automatic for one in shown.values()], settings["match_distance_mm"])
    numbers = name_lesions(lesions, automatic)
    with whole_folder(folder.lesion_map(reference.scan).parent) as maps:
        measured = [measure_scan(patient, scan, shown[scan.scan], lesions, numbers, maps) for scan in scans]
    rows = [row for one in measured for row in one.rows]
    table = _with_concordance(pd.DataFrame(rows, columns=list(LESION_COLUMNS)), scans, reference)
    _write(folder, "lesions", _by_lesion(table, scans), LESION_COLUMNS)
    candidates = [
        {**row, "lesion": one.names.get(f"{one.scan.scan}:{row['candidate']}")}
        for one in measured
        for row in shown[one.scan.scan].candidates
    ]
    _write(folder, "candidates", candidates, CANDIDATE_COLUMNS)
    _write(folder, "tbr", _by_lesion(pd.DataFrame([row for one in measured for row in one.ratios],
                                                  columns=list(TBR_COLUMNS)), scans), TBR_COLUMNS)  # fmt: skip
    _write(folder, "burden", _joined([one.burden for one in measured]), BURDEN_COLUMNS)
    _write(folder, "mismatch", _joined(_mismatches(patient, table, measured, lesions, numbers)), MISMATCH_COLUMNS)
    _write(folder, "decisions_draft", _joined([one.draft for one in measured]), DECISION_COLUMNS)


@dataclass(frozen=True)
class Measured:
    """What was measured on one scan.

    Attributes:
        scan: which scan.
        regions: of every lesion on the scan's grid, None where it is not measured.
        voxel_ml: volume of a voxel of that grid.
        rows: of the table of lesions.
        ratios: rows of the table of TBR.
        names: by the key of a proposal, before any decision, the lesion or lesions that it has become.
        burden, draft: parts of the tables; None where there is nothing to tell.
    """

    scan: Scan
    regions: list[Region | None]
    voxel_ml: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    burden: pd.DataFrame | None = None
    draft: pd.DataFrame | None = None


def measure_scan(
    patient: Patient, scan: Scan, shown: Shown, lesions: Sequence[Lesion], numbers: Sequence[int], maps: Path
) -> Measured:
    """All that is to be told of one scan; writes its label map into `maps`."""
    emission = patient.read(scan)
    grid = patient.map_grid(scan, emission, lesions)
    sources = [patient.source_of(scan, lesion) for lesion in lesions]
    regions = [patient.region_on(scan, grid, lesion, source) for lesion, source in zip(lesions, sources, strict=True)]
    write_map(patient, scan, grid, lesions, numbers, regions, maps)
    names = [lesion_name(number) for number in numbers]
    measured = Measured(scan, regions, voxel_volume_ml(grid))
    attention = looks(lesions, scan.scan, names)
    for place, (lesion, region, source) in enumerate(zip(lesions, regions, sources, strict=True)):
        row = {
            **_head(patient, scan, numbers[place]), "label": numbers[place],
            "source": _source(lesion, scan) if source else None,
            "registration": patient.verdict(scan), "look": attention[place], **_place(lesion),
        }  # fmt: skip
        own = lesion.get(scan.scan)
        if own is not None:
            row |= {"annotation": own.annotation, "matched_by": own.matched_by, "confidence": own.confidence,
                    "parts": own.parts}  # fmt: skip
        if region is not None:
            row |= geometry(region, grid)
            if own is not None and own.parts > 1:
                row |= sum_of_parts(region, grid)
            if own is None:
                there_ml = lesion[source.scan].region.voxels * voxel_volume_ml(patient.geometry(source))
                row |= {"carried_from": source.scan, "volume_change": row["volume_ml"] / there_ml}
        measured.rows.append(row)
    known = {name: region for name, region in zip(names, regions, strict=True) if region is not None}
    said = verdicts(patient.decisions[scan.scan], known, grid)
    if scan.quantity == "suv":
        marked = [any(one.marked for one in _proposals_of(lesion, scan, shown)) for lesion in lesions]
        _measure_uptake(patient, scan, emission, measured, marked, said)
    return _told(patient, scan, emission, shown, lesions, names, measured)


def _told(
    patient: Patient,
    scan: Scan,
    emission: Emission,
    shown: Shown,
    lesions: Sequence[Lesion],
    names: Sequence[str],
    measured: Measured,
) -> Measured:
    """With what is told of the scan as a whole: the tumour burden, and what a reader can decide."""
    burden = None
    if scan.quantity == "suv" and measured.rows:
        rows = pd.DataFrame(measured.rows, columns=list(LESION_COLUMNS))
        burden = tumour_burden(rows, measured.regions, emission.voxels, emission.grid)
    keys: dict[str, str] = {}
    for lesion, name in zip(lesions, names, strict=True):
        for root in dict.fromkeys(root for one in _proposals_of(lesion, scan, shown) for root in one.roots):
            keys[root] = f"{keys[root]}, {name}" if root in keys else name
    sheet = draft(scan.patient, scan.scan, shown.proposals, emission.voxels, emission.grid, keys)
    return replace(measured, names=keys, burden=burden, draft=sheet)


def _proposals_of(lesion: Lesion, scan: Scan, shown: Shown) -> list[Proposal]:
    """What a scan itself shows of a lesion, after the reader's decisions; nothing where it shows none."""
    own = lesion.get(scan.scan)
    return [] if own is None else [shown.decided[key] for key in (own.key, *own.part_keys)]


def _measure_uptake(
    patient: Patient,
    scan: Scan,
    emission: Emission,
    measured: Measured,
    marked: Sequence[bool],
    said: Mapping[str, bool],
) -> None:
    """Fill what only a scan in SUV has: uptake, backgrounds and whether each lesion is positive.

    `marked` are the lesions that a reader has outlined, accepted or added on the scan; `said`, by name, those that a
    reader has called positive or negative.
    """
    settings = patient.settings
    anywhere = np.zeros(emission.voxels.shape, dtype=bool)
    for region in measured.regions:
        if region is not None:
            anywhere[region.box] |= region.mask
    backgrounds = {name: background_of(patient, scan, emission, anywhere, name) for name in BACKGROUND_ORGANS}
    lean = _lean_fraction(patient.folder, scan)
    spread = settings["repeatability_cv"].get(scan.tracer, {})
    hidden = [organ.near for organ in emission.physiologic or () if organ.level is None]
    for row, region, is_marked in zip(measured.rows, measured.regions, marked, strict=True):
        if region is None:
            continue
        row |= uptake(emission.voxels, region, emission.grid)
        shell = shell_background(emission.voxels, region, anywhere, hidden, emission.grid)
        of_lesion = {**backgrounds, SHELL: (shell, None if shell else "too little tissue is left around it")}
        for name, (background, remark) in of_lesion.items():
            ratio = {
                **_head(patient, scan, row["label"]), "background_region": name, "remark": remark,
                "background_suv": background.mean if background else None,
                "background_volume_ml": background.volume_ml if background else None,
                "tbr": row["suv_peak"] / background.mean if background and background.mean > 0 else None,
            }  # fmt: skip
            measured.ratios.append(ratio)
            if name == settings["background"]:
                row |= {"background_region": name if background else None, "background_remark": remark,
                        "background_suv": ratio["background_suv"], "tbr": ratio["tbr"]}  # fmt: skip
        if lean is not None:
            row |= {f"sul_{which}": row[f"suv_{which}"] * lean for which in ("max", "mean", "peak")}
        row |= {f"{measure}_sd": row[measure] * spread[measure] for measure in REPEATED if measure in spread}
        # In an annotated scan the reader has seen what is there, and what is not.
        by_reader = said.get(row["lesion"], is_marked if scan.lesions or is_marked else None)
        row["shell_suv"] = shell.mean if shell else None
        blood, _ = backgrounds[BLOOD_POOL]
        row["positive"] = is_positive(
            by_reader,
            row["suv_peak"],
            row["shell_suv"],
            blood.mean if blood else None,
            settings["positivity_ratio"],
        )
        if row["positive"] is not None:
            row["positive_by"] = "program" if by_reader is None else READER


def background_of(
    patient: Patient, scan: Scan, emission: Emission, anywhere: np.ndarray, name: str
) -> tuple[Background | None, str | None]:
    """A background of all lesions of a scan, from organs, and what is to be said of it."""
    if emission.organs is None:
        background, remark = None, "the scan has no organ labels"
    else:
        doubtful = implausible_organs(patient.folder.organ_table(scan.scan))
        own = organs_of_background(name)
        without = {organ: doubtful[organ] for organ in own if organ in doubtful}
        background = organ_background(name, emission.voxels, emission.organs, anywhere, emission.grid, without=without)
        remarks = [f"{organ} is not plausible ({reason})" for organ, reason in without.items()]
        if background is None and len(without) < len(own):
            remarks.append(f"less than {MINIMUM_BACKGROUND_ML:g} mL inside its edge and away from lesions")
        remark = "; ".join(remarks) or None
    if name == patient.settings["background"] and background is None:
        log.warning("Scan %s: background %s and TBR are NA: %s.", scan.scan, name, remark)
    elif name == patient.settings["background"] and remark:
        log.warning("Scan %s: background %s is measured without what is not plausible: %s.", scan.scan, name, remark)
    return background, remark


def write_map(
    patient: Patient,
    scan: Scan,
    grid: sitk.Image,
    lesions: Sequence[Lesion],
    numbers: Sequence[int],
    regions: Sequence[Region | None],
    maps: Path,
) -> None:
    """Write the label map of a scan on `grid` into `maps`; that of the reference scan also as the patient's."""
    labels = np.zeros(grid.GetSize()[::-1], dtype=np.uint8 if max(numbers, default=0) < 256 else np.uint16)
    present = [
        (number, region, lesion)
        for number, region, lesion in zip(numbers, regions, lesions, strict=True)
        if region is not None
    ]
    for number, region, _ in sorted(present, key=lambda one: -one[1].voxels):
        labels[region.box][region.mask] = number
    present.sort(key=lambda one: one[0])
    unsearched = patient.unsearched(scan)
    if unsearched:
        log.warning("Scan %s: nobody has looked for new lesions: %s.", scan.scan, unsearched)
    sidecar = {
        "quantity": "lesion label", "unit": "1", "patient": scan.patient, "scan": scan.scan,
        "labels": {str(number): lesion_name(number) for number, _, _ in present},
        "sources": {lesion_name(number): _source(lesion, scan) for number, _, lesion in present},
        "voxel_volume_ml": voxel_volume_ml(grid),
        "unsearched": unsearched,
        "overlap": "where lesions overlap the smaller one has the label; the table has all voxels",
    }  # fmt: skip
    image = from_array(labels, grid)
    write_image(image, maps / patient.folder.lesion_map(scan.scan).name, sidecar)
    if scan.scan == patient.reference.scan:
        write_image(image, patient.folder.lesion_map(), sidecar)


def lesion_name(number: int) -> str:
    """`L01` for number 1."""
    return f"L{number:02d}"


def lesion_number(name: str) -> int:
    """1 for `L01`."""
    return int(name.removeprefix("L"))


def _head(patient: Patient, scan: Scan, number: int) -> dict[str, Any]:
    return {"patient": scan.patient, "scan": scan.scan, "tracer": scan.tracer, "timepoint": scan.timepoint,
            "lesion": lesion_name(number)}  # fmt: skip


def _source(lesion: Lesion, scan: Scan) -> str:
    return lesion[scan.scan].source if scan.scan in lesion else CARRIED


def _place(lesion: Lesion) -> dict[str, str | None]:
    """Site and station as the best of its scans tells: a reader, else an organ, else what is around it."""
    told = [seen.where for seen in lesion.values() if seen.where and seen.where.site]
    best = min(told, key=lambda where: SITE_ORDER.index(where.by), default=Site(None))
    return {"site": best.site, "station": best.station, "site_by": best.by}


def _lean_fraction(folder: PatientFolder, scan: Scan) -> float | None:
    """SUL over SUVbw; None where weight, height or sex is unknown."""
    suv = read_sidecar(folder.emission(scan)).get("suv") or {}
    return suv.get("normalisations", {}).get(LEAN, {}).get("factor")


def _by_lesion(table: pd.DataFrame, scans: Sequence[Scan]) -> pd.DataFrame:
    """Sorted by the number of the lesion (L100 behind L99), then scan in the order of the sheet."""
    order = {scan.scan: place for place, scan in enumerate(scans)}
    number = {name: lesion_number(name) for name in table["lesion"]}
    return table.sort_values(["lesion", "scan"], key=lambda c: c.map(order if c.name == "scan" else number),
                             kind="stable")  # fmt: skip


def _joined(tables: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
    present = [table.astype(object) for table in tables if table is not None and len(table)]
    return pd.concat(present, ignore_index=True) if present else pd.DataFrame()


def _write(folder: PatientFolder, name: str, table: Any, columns: Sequence[str]) -> None:
    write_table(pd.DataFrame(table, columns=list(columns)), folder.table(name), columns)


def _mismatches(
    patient: Patient,
    table: pd.DataFrame,
    measured: Sequence[Measured],
    lesions: Sequence[Lesion],
    numbers: Sequence[int],
) -> list[pd.DataFrame]:
    """What each pair of tracers shows of the lesions at the time point of the reference scan."""
    names = [lesion_name(number) for number in numbers]
    first = {}
    for one in measured:
        if lesions and one.scan.quantity == "suv" and one.scan.timepoint == patient.reference.timepoint:
            first.setdefault(one.scan.tracer, one)
    views = []
    for one in first.values():
        rows = table[table["scan"] == one.scan.scan].set_index("lesion", drop=False).loc[names]
        sources = [patient.source_of(one.scan, lesion) for lesion in lesions]
        carried = [
            None if source is None else lesion[source.scan].in_reference
            for lesion, source in zip(lesions, sources, strict=True)
        ]
        views.append(TracerView(rows, one.regions, one.voxel_ml, carried))
    grid = patient.geometry(patient.reference)
    return [mismatch(a, b, grid) for place, a in enumerate(views) for b in views[place + 1 :]]


def _with_concordance(table: pd.DataFrame, scans: Sequence[Scan], reference: Scan) -> pd.DataFrame:
    """Fill `concordance` from the SUV scans of the reference scan's time point."""
    tracers = list(dict.fromkeys(s.tracer for s in scans if s.quantity == "suv" and s.timepoint == reference.timepoint))
    at_baseline = table[table["timepoint"] == reference.timepoint]
    agreement = {}
    for lesion, rows in at_baseline.groupby("lesion"):
        positive = {
            tracer: [None if pd.isna(p) else bool(p) for p in rows.loc[rows["tracer"] == tracer, "positive"]]
            for tracer in tracers
        }
        agreement[lesion] = concordance(positive)
    return table.assign(concordance=table["lesion"].map(agreement))
