"""The activity of every region at every scan."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.dosimetry.partial_volume import (
    Region,
    activity_sensitivity,
    mean_concentration,
    occupancy,
    recovered_concentration,
    volume_cv,
)
from theraflow.dosimetry.s_values import density_g_per_ml
from theraflow.errors import TheraflowError
from theraflow.images import (
    from_array,
    read_image,
    read_sidecar,
    sidecar_path,
    to_array,
    voxel_volume_ml,
)
from theraflow.images.body import find_body
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import organ_mask
from theraflow.registration import read_beside_emission
from theraflow.tables import write_table

CURVE_COLUMNS = (
    "patient", "region", "kind", "scan", "time_h", "activity_mbq", "sd_mbq", "volume_ml", "mass_g",
)  # fmt: skip
BODY_SPACING_MM = 4.0
BQ_PER_MBQ = 1e6

log = logging.getLogger(__name__)


def measure_activity(folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any]) -> None:
    """Measure the activity of all regions in all activity scans and write curves.tsv.

    The whole body is the sum of all voxels; organs and lesions are volume times mean concentration, corrected
    for the partial-volume effect where `spect_fwhm_mm` is given; the remainder is what is left of the whole
    body. Activities are those at acquisition. `sd_mbq` holds calibration, repeatability and the uncertainty
    of the region's surface.

    Args:
        folder: the patient's results.
        scans: the patient's activity scans; organs, lesions and CT of a scan are used where they exist.
        settings: section `dosimetry` of the configuration, see `theraflow.dosimetry.settings`.

    Raises:
        TheraflowError: an image in another unit, or without the time after injection.
    """
    rows = [row for scan in scans for row in _measure_scan(folder, scan, settings)]
    write_table(pd.DataFrame(rows), folder.table("curves"), CURVE_COLUMNS)


def read_fact(folder: PatientFolder, scan: Scan, key: str, what: str) -> Any:
    """One entry of the sidecar of an emission image.

    Raises:
        TheraflowError: it is missing there.
    """
    value = read_sidecar(folder.emission(scan)).get(key)
    if value is None:
        file = sidecar_path(folder.emission(scan))
        raise TheraflowError(
            f"Scan {scan.scan} of {folder.patient}: {what} is not known ({key} in {file}); "
            "add it to the DICOM header or to scans.tsv."
        )
    return value


def find_regions(folder: PatientFolder, scan: Scan, settings: Mapping[str, Any], emission: sitk.Image) -> list[Region]:
    """Organs and lesions of a scan on its emission grid; a lesion's voxels are taken away from the organs.

    Args:
        folder: the patient's results.
        scan: an activity scan.
        settings: complete settings.
        emission: the emission image; only its geometry is used.
    """
    lesions = _find_lesions(folder, scan, emission)
    organs = []
    path = folder.organs(scan.scan)
    if not path.exists():
        log.info("%s: no organs, scan %s has no organ labels", folder.patient, scan.scan)
        return lesions
    image = read_beside_emission(folder, scan.scan, path)
    labels = to_array(image)
    for name in settings["organs"]:
        mask = organ_mask(labels, name)
        place = occupancy(from_array(mask, image), emission)
        if place is None:
            log.info("%s: %s is not in scan %s", folder.patient, name, scan.scan)
            continue
        organ = Region(name, "organ", *place)
        seen = organ.volume_ml(voxel_volume_ml(emission)) / (mask.sum() * voxel_volume_ml(image))
        if seen < 0.95:
            log.warning("%s: %.0f %% of %s lie in the SPECT of scan %s", folder.patient, 100 * seen, name, scan.scan)
        free = organ.fraction.copy()
        for lesion in lesions:
            free = np.minimum(free, 1.0 - lesion.within(organ.box))
        if free.sum() > 0:
            organs.append(Region(name, "organ", organ.box, free))
        else:
            log.warning("%s: lesions take all of %s in scan %s", folder.patient, name, scan.scan)
    return organs + lesions


def find_body_fraction(folder: PatientFolder, scan: Scan, emission: sitk.Image) -> np.ndarray:
    """Part of every voxel of the emission image (z, y, x) that is body by the CT; 1 if there is no CT.

    Beyond the ends of the CT the body goes on as in its last slice.
    """
    path = folder.ct(scan.scan)
    if not path.exists():
        return np.ones(emission.GetSize()[::-1], dtype=np.float32)
    ct = read_beside_emission(folder, scan.scan, path)
    body = sitk.Cast(find_body(ct, BODY_SPACING_MM).mask, sitk.sitkFloat32)
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(emission)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return to_array(resampler.Execute(body))


def _common_cv(kind: str, volume_ml: float, settings: Mapping[str, Any]) -> float:
    """Relative sd of an activity by what the scans of a patient share: calibration and region's surface."""
    return math.hypot(settings["calibration_cv"], _surface_cv(kind, volume_ml, settings))


def _find_lesions(folder: PatientFolder, scan: Scan, emission: sitk.Image) -> list[Region]:
    path = folder.lesion_map(scan.scan)
    if not path.exists():
        log.info("%s: scan %s has no lesion map", folder.patient, scan.scan)
        return []
    image = read_image(path)
    lesions = []
    for label, name in sorted(read_sidecar(path)["labels"].items(), key=lambda item: int(item[0])):
        place = occupancy(image == int(label), emission)
        if place is None:
            log.info("%s: lesion %s is not in scan %s", folder.patient, name, scan.scan)
        else:
            lesions.append(Region(name, "lesion", *place))
    return lesions


def _measure_scan(folder: PatientFolder, scan: Scan, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    emission = read_image(folder.emission(scan))
    unit = read_sidecar(folder.emission(scan))["unit"]
    if unit != "Bq/mL":
        raise TheraflowError(f"{folder.emission(scan)} is in {unit}; dosimetry needs Bq/mL (quantity: activity).")
    values, voxel_ml = to_array(emission).astype(np.float64), voxel_volume_ml(emission)
    time_h = float(read_fact(folder, scan, "time_after_injection_h", "the time between injection and scan"))
    regions = find_regions(folder, scan, settings, emission)
    body = find_body_fraction(folder, scan, emission) if regions and settings["spect_fwhm_mm"] else None

    rows = []
    for region in regions:
        volume = region.volume_ml(voxel_ml)
        concentration = _concentration(values, region, regions, body, settings["spect_fwhm_mm"], emission)
        rows.append(_row(scan, region.name, region.kind, time_h, concentration * volume / BQ_PER_MBQ, volume, settings))
    whole = float(values.sum()) * voxel_ml / BQ_PER_MBQ
    if rows:
        rest = whole - sum(row["activity_mbq"] for row in rows)
        rows.append(_row(scan, "remainder", "remainder", time_h, rest, math.nan, settings))
    return [*rows, _row(scan, "whole_body", "whole_body", time_h, whole, math.nan, settings)]


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


def _row(
    scan: Scan,
    region: str,
    kind: str,
    time_h: float,
    activity: float,
    volume: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    relative = math.hypot(_common_cv(kind, volume, settings), settings["repeatability_cv"])
    return {
        "patient": scan.patient, "region": region, "kind": kind, "scan": scan.scan, "time_h": time_h,
        "activity_mbq": activity, "sd_mbq": abs(activity) * relative,
        "volume_ml": volume, "mass_g": volume * density_g_per_ml(region),
    }  # fmt: skip


def _surface_cv(kind: str, volume_ml: float, settings: Mapping[str, Any]) -> float:
    if kind not in settings["boundary_sd_mm"]:
        return 0.0
    surface = volume_cv(volume_ml, settings["boundary_sd_mm"][kind])
    return activity_sensitivity(volume_ml, settings["spect_fwhm_mm"]) * surface
