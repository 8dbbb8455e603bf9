"""What a dose map says about each region: histograms, and the table of doses. Arrays are indexed z, y, x."""

import math

import numpy as np

from theraflow.dosimetry.activity.regions import Region

VOLUME_PERCENT = np.arange(0.0, 101.0, 2.0)
POINTS = {"max": 0.0, "d2": 2.0, "d50": 50.0, "d98": 98.0, "min": 100.0}  # % of the volume that get at least the dose


def dose_at_volume(dose: np.ndarray, region: Region, volume_percent: np.ndarray) -> np.ndarray:
    """D_v: the dose that v % of the region's volume receive at least; D_0 is the greatest, D_100 the least.

    Voxels count by their fraction, those without a dose do not; between voxels the histogram is interpolated.
    """
    inside = (region.fraction > 0) & np.isfinite(dose[region.box])
    values, weights = dose[region.box][inside], region.fraction[inside].astype(np.float64)
    order = np.argsort(values)[::-1]
    values, weights = values[order], weights[order]
    centre = (np.cumsum(weights) - 0.5 * weights) / weights.sum() * 100.0
    result = np.interp(volume_percent, centre, values)
    return np.where(volume_percent <= 0, values[0], np.where(volume_percent >= 100, values[-1], result))


def mean_dose(dose: np.ndarray, region: Region, tissue: np.ndarray) -> float:
    """Mean over the region's mass: voxels count by their fraction and density, those without a dose do not.

    Args:
        dose: any array of the map's voxels.
        region: on the same voxels.
        tissue: density, see `theraflow.dosimetry.maps.deposition.tissue_of`.
    """
    weight = region.fraction * np.nan_to_num(tissue[region.box])
    told = weight > 0
    return float((dose[region.box][told] * weight[told]).sum() / weight.sum()) if told.any() else math.nan


def hottest(dose: np.ndarray, region: Region) -> tuple[int, ...]:
    """Index (z, y, x) of the voxel of greatest dose among those that lie mostly in the region."""
    inside = np.where(region.fraction >= 0.5 * region.fraction.max(), dose[region.box], -np.inf)
    place = np.unravel_index(np.argmax(np.nan_to_num(inside, nan=-np.inf)), inside.shape)
    return tuple(int(part.start + index) for part, index in zip(region.box, place, strict=True))
