"""The activity of every region at every scan."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.dosimetry.activity.blood import blood_points, of_administration
from theraflow.dosimetry.activity.hybrid import SPECT, with_planar
from theraflow.dosimetry.activity.marrow import (
    IMAGE,
    KIND,
    MarrowUnknown,
    find_spongiosa,
    marrow_mass,
)
from theraflow.dosimetry.activity.partial_volume import mean_concentration, recovered_concentration
from theraflow.dosimetry.activity.recovery import RecoveryCurve, outline_cvs, read_recovery
from theraflow.dosimetry.activity.regions import Region, find_body_fraction, find_regions, in_air, mean_hu
from theraflow.dosimetry.administration import read_fact
from theraflow.dosimetry.s_values.spheres import density_g_per_ml
from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, to_array, voxel_volume_ml
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import write_table

CURVE_COLUMNS = (
    "patient", "region", "kind", "scan", "time_h", "activity_mbq", "sd_mbq", "volume_ml", "mass_g",
    "sd_independent_mbq", "remark", "timepoint", "method",
)  # fmt: skip
BQ_PER_MBQ = 1e6
# An organ of which this part is seen is whole; of one of which less than half is seen nothing is said.
WHOLE, LEAST_SEEN = 0.95, 0.5
# Relative sd of the concentration in what is not seen, about that in what is (an assumption).
UNSEEN_CV = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What one scan shows of a region.

    Attributes:
        name, kind: as in curves.tsv.
        bq_per_ml: mean concentration, corrected for partial volume where that is asked for.
        seen_ml: volume in the emission image.
        whole_ml: volume in the label map, in the emission image or not.
        cut: whether the label map itself may hold a part only.
        refusal: why the region has no activity; None where it has.
    """

    name: str
    kind: str
    bq_per_ml: float
    seen_ml: float
    whole_ml: float
    cut: bool
    refusal: str | None = None

    @property
    def seen_mbq(self) -> float:
        """Activity in what is seen."""
        return self.bq_per_ml * self.seen_ml / BQ_PER_MBQ


@dataclass(frozen=True)
class View:
    """What one scan shows.

    Attributes:
        scan: the scan.
        time_h: since the injection.
        parts: of organs and lesions.
        total_mbq: sum of all voxels.
        marrow: concentration in Bq per mL of red marrow, or why there is none; None where nobody asks.
        length_mm: of the field of view along the slices' axis, and `slice_mm` of one slice.
    """

    scan: Scan
    time_h: float
    parts: Sequence[Part]
    total_mbq: float
    marrow: float | MarrowUnknown | None
    length_mm: float
    slice_mm: float


def measure_activity(
    folder: PatientFolder,
    scans: Sequence[Scan],
    settings: Mapping[str, Any],
    blood: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Measure the activity of all regions in all activity scans and write curves.tsv.

    The whole body is the sum of all voxels; organs and lesions are volume times mean concentration, corrected for the
    partial-volume effect where `spect_fwhm_mm` or `recovery` is given; an organ has one volume in all scans of an
    administration; the remainder is the whole body less the regions that all scans of the administration show. Planar
    scans: see `with_planar`. Activities are those at acquisition. `sd_mbq` holds calibration,
    repeatability, the uncertainty of the region's surface and of the recovery curve; `sd_independent_mbq` of these what
    is new in each scan. A region that a scan does not show has no row; one that it shows and that cannot be measured
    has a row without activity, and `remark` says why.

    Args:
        folder: the patient's results.
        scans: the patient's activity scans, those of one timepoint being of one administration; organs, lesions and CT
            of a scan are used where they exist; planar ones have been measured by `measure_planar`.
        settings: section `dosimetry` of the configuration.
        blood: rows of the sheet of blood samples.

    Raises:
        TheraflowError: an image in another unit, or without the time after injection; overlapping regions; two
            corrections of partial volume at once; a table of recoveries or blood samples that cannot be used; as
            `with_planar`.
    """
    curve = read_recovery(settings)
    rows = []
    for timepoint in dict.fromkeys(scan.timepoint for scan in scans):
        own = [scan for scan in scans if scan.timepoint == timepoint]
        spect, planar = ([scan for scan in own if scan.planar == wanted] for wanted in (False, True))
        measured = _spect_rows(folder, spect, settings, curve) if spect else []
        if planar:
            measured = with_planar(folder, planar, measured, settings)
        measured += _blood_rows(folder, own, blood, settings)
        rows += [{"remark": None, **row, "timepoint": timepoint} for row in measured]
    for row in rows:
        if row["remark"] and math.isnan(row["activity_mbq"]):
            log.warning("%s: %s in scan %s: %s", folder.patient, row["region"], row["scan"], row["remark"])
    write_table(pd.DataFrame(rows, columns=list(CURVE_COLUMNS)), folder.table("curves"), CURVE_COLUMNS)


def _spect_rows(
    folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any], curve: RecoveryCurve | None
) -> list[dict[str, Any]]:
    """Rows of curves.tsv of the SPECT scans of one administration."""
    views = [_view(folder, scan, settings, curve) for scan in scans]
    volumes = whole_volumes([part for view in views for part in view.parts])
    field = _unequal_fields(views)
    common = _common_regions(views)
    rows = []
    for view in views:
        rows += [_region_row(view, part, volumes[part.name], settings, curve) for part in view.parts]
        rows += _marrow_row(folder, view, settings)
        if view.parts:
            rows.append(_remainder_row(view, common, field, settings))
        rows.append(_row(view, "whole_body", "whole_body", view.total_mbq, math.nan, settings, remark=field))
    return rows


def whole_volumes(parts: Sequence[Part]) -> dict[str, float]:
    """Volume in mL of every region as a whole.

    The median of the scans whose label map holds all of it, so that one failed segmentation spoils no other scan; where
    none does, the largest part that one holds.
    """
    volumes = {}
    for name in dict.fromkeys(part.name for part in parts):
        own = [part for part in parts if part.name == name]
        whole = [part.whole_ml for part in own if not part.cut]
        volumes[name] = float(np.median(whole)) if whole else max(part.whole_ml for part in own)
    return volumes


def _view(folder: PatientFolder, scan: Scan, settings: Mapping[str, Any], curve: RecoveryCurve | None) -> View:
    emission = read_image(folder.emission(scan))
    unit = read_sidecar(folder.emission(scan))["unit"]
    if unit != "Bq/mL":
        raise TheraflowError(f"{folder.emission(scan)} is in {unit}; dosimetry needs Bq/mL (quantity: activity).")
    values, voxel_ml = to_array(emission).astype(np.float64), voxel_volume_ml(emission)
    time_h = float(read_fact(folder, scan, "time_after_injection_h", "the time between injection and scan"))
    found = find_regions(folder, scan, settings, emission)
    hu = mean_hu(folder, scan, emission, found) if found else {}
    air = {region.name for region in found if in_air(region, hu.get(region.name, math.nan))}
    regions = [region for region in found if region.name not in air]
    fwhm = settings["spect_fwhm_mm"]
    body = find_body_fraction(folder, scan, emission) if fwhm and (regions or "marrow" in settings) else None

    parts = []
    for region in found:
        volume = region.volume_ml(voxel_ml)
        whole, refusal, concentration = volume / region.in_view, None, math.nan
        if region.name in air:
            refusal = f"lies in air: its mean is {hu[region.name]:.0f} HU by the CT"
        else:
            concentration = _concentration(values, region, regions, body, fwhm, emission)
            # Where the field of view ends no activity has been lost: the recovery is that of the whole region.
            concentration /= curve.recovery(whole) if curve else 1.0
        parts.append(Part(region.name, region.kind, concentration, volume, whole, region.map_cuts, refusal))
    length, thickness = emission.GetSize()[2] * emission.GetSpacing()[2], emission.GetSpacing()[2]
    total = float(values.sum()) * voxel_ml / BQ_PER_MBQ
    marrow = _marrow(folder, scan, settings, emission, values, regions, body)
    return View(scan, time_h, parts, total, marrow, length, thickness)


def _concentration(
    values: np.ndarray,
    region: Region,
    regions: Sequence[Region],
    body: np.ndarray | None,
    fwhm_mm: float | None,
    emission: sitk.Image,
) -> float:
    if not fwhm_mm:
        return mean_concentration(values, region)
    others = [other for other in regions if other is not region]
    return recovered_concentration(values, region, others, body, fwhm_mm, emission.GetSpacing()[::-1])


def _marrow(
    folder: PatientFolder,
    scan: Scan,
    settings: Mapping[str, Any],
    emission: sitk.Image,
    values: np.ndarray,
    regions: Sequence[Region],
    body: np.ndarray | None,
) -> float | MarrowUnknown | None:
    """Concentration per mL of red marrow: that of the spongiosa over its part of red marrow.

    A recovery curve is none for a part of a bone: then nothing is corrected.
    """
    if "red_marrow_fraction" not in settings.get("marrow", {}):
        return None
    try:
        spongiosa, rest = find_spongiosa(folder, scan, emission, [one for one in regions if one.kind == "lesion"])
    except MarrowUnknown as reason:
        return reason
    seen = _concentration(values, spongiosa, [*regions, spongiosa, rest], body, settings["spect_fwhm_mm"], emission)
    return seen / settings["marrow"]["red_marrow_fraction"]


def _region_row(
    view: View, part: Part, whole_ml: float, settings: Mapping[str, Any], curve: RecoveryCurve | None
) -> dict[str, Any]:
    """Of an organ, and of a lesion that is seen in part: the concentration of what is seen in the whole volume.

    The volume of an organ does not change between the scans of one administration; what its labels differ by is
    breathing and segmentation. So it has one volume in all of them. A lesion keeps the volume in which it was measured:
    the activity of something small hardly depends on where its outline is drawn, its concentration does.
    """
    remarks = [part.refusal] if part.refusal else []
    seen = part.seen_ml / whole_ml
    cut = seen < WHOLE and (part.cut or part.seen_ml < WHOLE * part.whole_ml)
    volume = whole_ml if cut or part.kind == "organ" else part.seen_ml
    activity = part.bq_per_ml * volume / BQ_PER_MBQ
    if cut and seen < LEAST_SEEN:
        activity = math.nan
        remarks.append(f"cut by the field of view: only {100 * seen:.0f} % of it are seen")
    elif cut:
        remarks.append(
            f"cut by the field of view: {100 * seen:.0f} % of it are seen, the rest is taken to have the same "
            "concentration"
        )
    elif part.cut:
        remarks.append("may be cut by the field of view of the CT: activity and mass are of what is seen")
    if curve and volume < curve.smallest_ml:
        remarks.append(f"smaller than the smallest sphere of {curve.source} ({curve.smallest_ml:g} mL)")
    return _row(
        view, part.name, part.kind, activity, volume, settings, curve=curve,
        extra_cv=UNSEEN_CV * (1.0 - seen) if cut else 0.0, remark="; ".join(remarks),
    )  # fmt: skip


def _remainder_row(view: View, common: set[str], field: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    rest = view.total_mbq - sum(part.seen_mbq for part in view.parts if part.name in common)
    held = [part.name for part in view.parts if part.name not in common and not part.refusal]
    remarks = [f"holds {', '.join(held)}, which not all scans show"] if held else []
    remark = "; ".join([*remarks, *filter(None, [field])])
    return _row(view, "remainder", "remainder", rest, math.nan, settings, remark=remark)


def _common_regions(views: Sequence[View]) -> set[str]:
    """Regions that every scan with regions shows and measures: the remainder of all scans is without the same ones."""
    shown = [{part.name for part in view.parts if not part.refusal} for view in views if view.parts]
    return set.intersection(*shown) if shown else set()


def _unequal_fields(views: Sequence[View]) -> str:
    """What is to be said of the whole body where the scans show unequal lengths of it; else nothing."""
    lengths = [view.length_mm for view in views]
    if max(lengths) - min(lengths) <= max(view.slice_mm for view in views):
        return ""
    return (
        f"the scans show {min(lengths):.0f} to {max(lengths):.0f} mm of the body, so that their activities are not of "
        "one part of it"
    )


def _marrow_row(folder: PatientFolder, view: View, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    if view.marrow is None:
        return []
    try:
        if isinstance(view.marrow, MarrowUnknown):
            raise view.marrow
        mass = marrow_mass(folder, view.scan)
    except MarrowUnknown as reason:
        return [_row(view, IMAGE, KIND, math.nan, math.nan, settings, remark=str(reason))]
    part = settings["marrow"]
    activity = view.marrow * mass.volume_ml / BQ_PER_MBQ
    cv = part["red_marrow_fraction_sd"] / part["red_marrow_fraction"]
    row = _row(view, IMAGE, KIND, activity, mass.volume_ml, settings, extra_cv=cv, remark=mass.source)
    return [row | {"mass_g": mass.mass_g}]


def _blood_rows(
    folder: PatientFolder, scans: Sequence[Scan], blood: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    samples = of_administration(folder, scans, blood)
    if not samples:
        return []
    if "marrow" not in settings:
        log.warning("%s: blood samples are not used, for the configuration has no dosimetry: marrow", folder.patient)
        return []
    for scan in scans:  # the headers of one may tell what those of another leave out
        try:
            mass = marrow_mass(folder, scan)
            break
        except MarrowUnknown as reason:
            mass = reason
    return blood_points(folder, scans, samples, settings["marrow"], mass)


def _row(
    view: View,
    region: str,
    kind: str,
    activity: float,
    volume: float,
    settings: Mapping[str, Any],
    *,
    curve: RecoveryCurve | None = None,
    extra_cv: float = 0.0,
    remark: str = "",
) -> dict[str, Any]:
    """A row of curves.tsv.

    Args:
        view: the scan.
        region, kind: as in the table.
        activity: MBq, NaN where there is none.
        volume: mL, NaN for what has no surface.
        settings: section `dosimetry` of the configuration.
        curve: the recovery curve by which the activity was corrected.
        extra_cv: relative sd that comes on top of what all regions of the kind have.
        remark: what is to be known; empty becomes NA.
    """
    independent = settings["repeatability_cv"]
    shared = math.hypot(settings["calibration_cv"], *outline_cvs(kind, volume, settings, curve), extra_cv)
    return {
        "patient": view.scan.patient, "region": region, "kind": kind, "scan": view.scan.scan, "time_h": view.time_h,
        "activity_mbq": activity, "sd_mbq": abs(activity) * math.hypot(shared, independent),
        "volume_ml": volume, "mass_g": volume * density_g_per_ml(region),
        "sd_independent_mbq": abs(activity) * independent, "remark": remark or None, "method": SPECT,
    }  # fmt: skip
