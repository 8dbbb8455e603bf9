"""The absorbed dose in every voxel, and the dose-volume histograms of the regions."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from theraflow.dosimetry.activity import find_body_fraction, find_regions, read_fact
from theraflow.dosimetry.partial_volume import Box, Region
from theraflow.dosimetry.s_values import density_g_per_ml
from theraflow.errors import TheraflowError
from theraflow.images import from_array, read_image, to_array, voxel_volume_ml, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import HOUR, MEV_IN_J, nuclide
from theraflow.tables import read_table, write_table

DVH_COLUMNS = ("patient", "region", "nuclide", "dose_gy_per_gbq", "volume_percent")
VOLUME_PERCENT = np.arange(0.0, 101.0, 2.0)
BQ_PER_GBQ = 1e9
METHOD = (
    "Time-integrated activity of each region, shared among its voxels as the activity of this scan is; the "
    "energy of all electrons is absorbed in the voxel of the decay (local deposition)."
)
LIMITS = (
    "Blurred by the SPECT: no correction for partial volume or noise within a region. No electron leaves its "
    "voxel, no photon is absorbed. Soft tissue everywhere."
)

log = logging.getLogger(__name__)


def compute_dose_map(
    folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any], therapy_nuclide: str
) -> None:
    """Write dose_gy_per_gbq.nii.gz on the grid of the earliest activity scan, and dvh.tsv.

    The time-integrated activity of each region (doses.tsv) is shared among its voxels as the activity of the
    scan is, and its electron energy is absorbed where it is emitted. What lies outside all regions shares
    the activity of the remainder.

    Args:
        folder: the patient's results; doses.tsv must be there.
        scans: the activity scans of one administration.
        settings: section `dosimetry` of the configuration.
        therapy_nuclide: nuclide of the map.

    Raises:
        TheraflowError: a missing time, or no electron energy known for the nuclide.
    """
    therapy = nuclide(therapy_nuclide)
    if therapy.electron_mev is None:
        raise TheraflowError(f"No electron energy is known for {therapy.name}; take another therapy_nuclide.")
    first = min(
        scans,
        key=lambda scan: float(read_fact(folder, scan, "time_after_injection_h", "the time of the scan")),
    )
    emission = read_image(folder.emission(first))
    values = to_array(emission).astype(np.float64)
    regions = find_regions(folder, first, settings, emission)
    doses = read_table(folder.table("doses"))
    doses = doses[doses["nuclide"] == therapy.name].set_index("region")
    body = find_body_fraction(folder, first, emission)

    density = density_g_per_ml("soft tissue")
    integral = share_among_voxels(values, regions, body, doses["tia_h"].to_dict())
    voxel_kg = density * voxel_volume_ml(emission) / 1000.0
    dose = integral * HOUR * BQ_PER_GBQ * therapy.electron_mev * MEV_IN_J / voxel_kg

    sidecar = {
        "quantity": "absorbed dose per administered activity", "unit": "Gy/GBq", "nuclide": therapy.name,
        "patient": folder.patient, "scan": first.scan, "density_g_per_ml": density,
        "method": METHOD, "limits": LIMITS,
        "regions": doses["method"][[r.name for r in regions if r.name in doses.index]].to_dict(),
    }  # fmt: skip
    write_image(from_array(dose.astype(np.float32), emission), folder.dose_map, sidecar)
    rows = [
        {"patient": folder.patient, "region": region.name, "nuclide": therapy.name, "dose_gy_per_gbq": value,
         "volume_percent": percent}
        for region in regions
        for percent, value in zip(VOLUME_PERCENT, dose_at_volume(dose, region, VOLUME_PERCENT), strict=True)
    ]  # fmt: skip
    write_table(pd.DataFrame(rows, columns=list(DVH_COLUMNS)), folder.table("dvh"), DVH_COLUMNS)


def share_among_voxels(
    values: np.ndarray, regions: Sequence[Region], body: np.ndarray, integrals_h: Mapping[str, float]
) -> np.ndarray:
    """Time-integrated activity of every voxel per administered activity (h), z, y, x.

    Args:
        values: emission image, any unit; shares are taken from it.
        regions: regions of this grid.
        body: part of every voxel that lies in the body.
        integrals_h: time-integrated activity per administered activity of each region, and of `remainder`
            (where there are no regions, `whole_body`); a region that is missing or NaN gets none.
    """
    result = np.zeros(values.shape)
    free = body.astype(np.float64)
    for region in regions:
        free[region.box] -= region.fraction
        _add_share(result, values, region.box, region.fraction, integrals_h.get(region.name), region.name)
    everything: Box = tuple(slice(0, length) for length in values.shape)
    rest = integrals_h.get("remainder" if regions else "whole_body")
    _add_share(result, values, everything, np.clip(free, 0.0, 1.0), rest, "remainder")
    return result


def dose_at_volume(dose: np.ndarray, region: Region, volume_percent: np.ndarray) -> np.ndarray:
    """D_v: the dose that v % of the region's volume receive at least; D_0 is the greatest, D_100 the least.

    Voxels count by their fraction; between voxels the histogram is interpolated.
    """
    inside = region.fraction > 0
    values, weights = dose[region.box][inside], region.fraction[inside].astype(np.float64)
    order = np.argsort(values)[::-1]
    values, weights = values[order], weights[order]
    centre = (np.cumsum(weights) - 0.5 * weights) / weights.sum() * 100.0
    result = np.interp(volume_percent, centre, values)
    return np.where(volume_percent <= 0, values[0], np.where(volume_percent >= 100, values[-1], result))


def _add_share(
    result: np.ndarray,
    values: np.ndarray,
    box: Box,
    fraction: np.ndarray,
    integral_h: float | None,
    name: str,
) -> None:
    share = np.clip(values[box], 0.0, None) * fraction
    if integral_h is None or not math.isfinite(integral_h) or not share.sum() > 0:
        log.warning("the dose map has no activity for %s", name)
        return
    result[box] += integral_h * share / share.sum()
