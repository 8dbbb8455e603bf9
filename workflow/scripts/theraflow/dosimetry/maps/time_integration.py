"""Time-integrated activity of every voxel: that of the region, shared among its voxels, or a curve for each voxel.

Arrays are indexed z, y, x. The activity scans of one administration are brought onto one grid here; what a region holds
was measured on each scan's own.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
import SimpleITK as sitk

from theraflow.dosimetry.activity.regions import Box, Region
from theraflow.dosimetry.maps.grids import Grids
from theraflow.images import FWHM_PER_SD, read_image, resample, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import HOUR, Nuclide
from theraflow.registration import passage, verdict_of

FAILED = "failed"
REST, WHOLE_BODY = "remainder", "whole_body"
BQ_PER_MBQ = 1e6
RATES = 64  # between the slowest and the fastest that are tried
CHUNK = 200_000  # voxels fitted together
_EVERYTHING: Box = (slice(None), slice(None), slice(None))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scans:
    """The activity scans on the grid of the first.

    Attributes:
        names: as in the sheet, in the order of time.
        time_h: after the injection.
        images: Bq/mL, shape (scans, z, y, x); NaN where a scan has not seen the voxel.
    """

    names: Sequence[str]
    time_h: np.ndarray
    images: np.ndarray

    def summed(self, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum over the scans of their images, and of `others` (scans, z, y, x), where a scan has seen the voxel."""
        seen = np.isfinite(self.images)
        return np.where(seen, self.images, 0.0).sum(axis=0), np.where(seen, others, 0.0).sum(axis=0)


def read_scans(folder: PatientFolder, scans: Sequence[Scan], time_h: Sequence[float], grid: sitk.Image) -> Scans:
    """Resample the scans onto `grid`, of the first of them, by the transforms of the registration stage.

    Linear; a concentration stays what it is where tissue is squeezed. Only where in a region its activity lies is read
    from these images, never how much it is. A scan whose registration has failed, or any but the first where that has,
    is left out: no share could be read from it.

    Raises:
        TheraflowError: an image, a transform or a verdict is missing.
    """
    kept, values = [scans[0]], []
    if len(scans) > 1 and verdict_of(folder, scans[0].scan) != FAILED:
        kept += [scan for scan in scans[1:] if verdict_of(folder, scan.scan) != FAILED]
    for scan in kept:
        way = passage(folder, scan.scan, scans[0].scan)
        image = sitk.Cast(read_image(folder.emission(scan)), sitk.sitkFloat32)
        values.append(to_array(resample(image, grid, way.target_to_source, outside=math.nan)))
    times = [time for scan, time in zip(scans, time_h, strict=True) if scan in kept]
    return Scans([scan.scan for scan in kept], np.array(times, dtype=float), np.array(values))


@dataclass(frozen=True)
class Model:
    """What the scans would show if each region held its measured activity evenly; Bq/mL, shape (scans, z, y, x).

    Attributes:
        sharp: in the voxels of the SPECT.
        blurred: the same as the scanner shows it.
    """

    sharp: np.ndarray
    blurred: np.ndarray


def model_scans(
    scans: Scans, regions: Sequence[Region], body: np.ndarray, curves: pd.DataFrame, fwhm_mm: float | None, grids: Grids
) -> Model:
    """Regions and the rest of the body with the concentrations of curves.tsv, and as the scanner shows them.

    Args:
        scans: on the voxels of the SPECT.
        regions: on the divided voxels.
        body: part of every divided voxel that lies in the body.
        curves: curves.tsv; where a region has no activity above 0 in a scan (planar scans may follow it, and the SPECT
            only scale them), it is taken to hold what the image shows in it, or if that is nothing, what the body does
            on the average.
        fwhm_mm: resolution of the SPECT; None: the scanner blurs nothing.
        grids: both grids.
    """
    activity = curves.pivot_table(index="region", columns="scan", values="activity_mbq").reindex(columns=scans.names)
    parts = {region.name: _on_spect(region, grids) for region in regions}
    parts[REST if regions else WHOLE_BODY] = _EVERYTHING, grids.mean(rest_of(regions, body))
    inside = grids.mean(body) > 0
    sd = [(fwhm_mm or 0.0) / FWHM_PER_SD / length for length in grids.spect.GetSpacing()[::-1]]
    sharp = np.zeros(scans.images.shape)
    for image, scan, values in zip(sharp, scans.names, scans.images, strict=True):
        mean = float(np.nanmean(values[inside]))
        for name, (box, part) in parts.items():
            volume_ml = max(float(part.sum()) * grids.spect_ml, 1e-9)
            level = activity[scan].get(name, math.nan) * BQ_PER_MBQ / volume_ml
            if not level > 0:
                level = float(np.nansum(values[box] * part)) * grids.spect_ml / volume_ml
            image[box] += part * (level if level > 0 else mean)
    blurred = np.array([scipy.ndimage.gaussian_filter(image, sd, mode="nearest") for image in sharp])
    return Model(sharp, blurred)


def _on_spect(region: Region, grids: Grids) -> tuple[Box, np.ndarray]:
    """A box of the voxels of the SPECT, and the part of each that belongs to a region of the divided ones."""
    around, fine = grids.around_fine(region.box)
    box = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(around.box, grids.box, strict=True))
    return box, around.mean(region.within(fine))


def rest_of(regions: Sequence[Region], body: np.ndarray) -> np.ndarray:
    """Part of every voxel that is body and no region."""
    free = body.astype(np.float32)
    for region in regions:
        free[region.box] -= region.fraction
    return np.clip(free, 0.0, 1.0, out=free)


def texture(scans: Scans, model: Model, grids: Grids) -> np.ndarray:
    """How much more or less than evenly the activity lies within the regions, in every divided voxel; 1 on the average.

    Measured over modelled (region-based voxel-wise correction, Thomas et al., Eur J Nucl Med Mol Imaging
    2011;38:1104): a uniform region comes out uniform up to its edge, though it fades there in the image, and what
    shines over into its surroundings is not taken for theirs. All scans together, so that noise averages out.
    """
    measured, expected = scans.summed(model.blurred)
    # Far outside the body nothing is expected and a number would be all noise.
    floor = 1e-3 * expected.max()
    ratio = np.divide(measured, expected, out=np.zeros_like(expected), where=expected > floor)
    return np.clip(grids.interpolated(ratio), 0.0, None)


def share_among_voxels(
    values: np.ndarray, regions: Sequence[Region], body: np.ndarray, integrals_h: Mapping[str, float]
) -> np.ndarray:
    """Time-integrated activity of every voxel per administered activity (h), z, y, x.

    Args:
        values: what the shares are taken from, any unit.
        regions: regions of this grid.
        body: part of every voxel that lies in the body.
        integrals_h: time-integrated activity per administered activity of each region, and of `remainder`
            (where there are no regions, `whole_body`); a region that is missing or NaN gets none.
    """
    rest = Region(REST if regions else WHOLE_BODY, "", _EVERYTHING, rest_of(regions, body))
    result = share_of_region(values, rest, integrals_h.get(rest.name))
    for region in regions:
        result[region.box] += share_of_region(values, region, integrals_h.get(region.name))
    return result


def share_of_region(values: np.ndarray, region: Region, integral_h: float | None) -> np.ndarray:
    """The part of one region in the voxels of its box (h); nothing where it has no integral or `values` are all 0."""
    share = np.clip(values[region.box], 0.0, None) * region.fraction
    total = share.sum(dtype=np.float64)
    if integral_h is None or not math.isfinite(integral_h) or not total > 0:
        log.warning("the dose map has no activity for %s", region.name)
        return np.zeros_like(share)
    share *= integral_h / total
    return share


def voxel_wise_factor(
    scans: Scans, model: Model, shared_h: np.ndarray, injected_mbq: float, measured: Nuclide, wanted: Nuclide,
    grids: Grids,
) -> np.ndarray:  # fmt: skip
    """Time-integrated activity by a curve of its own over that by the region's share, in every voxel of the SPECT.

    Args:
        scans: the scans; their images are corrected for partial volume as the model says.
        model: what they would show.
        shared_h: by the region's share, per administered activity, every voxel.
        injected_mbq: administered activity.
        measured: nuclide of the scans.
        wanted: nuclide of the map, same kinetics.
        grids: both grids.

    Returns:
        1 where the voxel has no curve of its own, see `fit_voxels`.
    """
    corrected = scans.images * np.divide(
        model.sharp, model.blurred, out=np.zeros_like(model.sharp), where=model.blurred > 0
    )  # fmt: skip
    flat = corrected.reshape(len(scans.names), -1)
    factor = np.ones(flat.shape[1])
    shared = shared_h.ravel()
    chosen = np.flatnonzero((shared > 0) & np.isfinite(flat).all(axis=0))
    amplitude, rate = fit_voxels(scans.time_h, flat[:, chosen], measured)
    per_h = HOUR * (wanted.decay_constant_per_s - measured.decay_constant_per_s)
    own = amplitude * grids.spect_ml / BQ_PER_MBQ / injected_mbq / (rate + per_h)
    factor[chosen] = np.where(np.isfinite(own), own / shared[chosen], 1.0)
    return factor.reshape(shared_h.shape)


def fit_voxels(time_h: np.ndarray, values: np.ndarray, measured: Nuclide) -> tuple[np.ndarray, np.ndarray]:
    """One exponential through the points of every voxel, by least squares weighted as counts are.

    For each rate the best amplitude is known in closed form, so that only the rate is searched: on 64 between physical
    decay and a half-life of half the time of the first scan, then by a parabola. No logarithm is taken of a voxel's
    noise. A voxel whose points rise, fall more slowly than the nuclide decays or faster than the scans can see, or
    whose amplitude is not above 0, has no curve of its own.

    Args:
        time_h: of the scans, after the injection.
        values: activity concentrations, shape (scans, voxels).
        measured: nuclide, for its decay.

    Returns:
        Amplitude at the injection, in the unit of `values`, and effective rate per h; NaN without a curve.
    """
    amplitude, rate = np.full((2, values.shape[1]), math.nan)
    if np.unique(time_h).size < 2:
        return amplitude, rate
    slowest, fastest = measured.decay_constant_per_s * HOUR, 2.0 * math.log(2.0) / time_h.min()
    if fastest <= slowest:
        return amplitude, rate
    rates = np.geomspace(slowest, fastest, RATES)
    # The variance of counts is as their mean; one weight a scan keeps the search a product of matrices.
    weight = 1.0 / np.maximum(values.mean(axis=1), 1e-6 * np.abs(values).max() + 1e-30)
    curves = np.exp(-np.outer(time_h, rates))
    norms = weight @ curves**2
    for first in range(0, values.shape[1], CHUNK):
        part = slice(first, first + CHUNK)
        points = values[:, part].astype(np.float64)
        explained = np.clip((weight[:, None] * curves).T @ points, 0.0, None) ** 2 / norms[:, None]
        best = explained.argmax(axis=0)
        inner = np.flatnonzero((best > 0) & (best < RATES - 1))
        low, middle, high = (explained[best[inner] + step, inner] for step in (-1, 0, 1))
        bend = low - 2.0 * middle + high
        offset = np.divide(0.5 * (low - high), bend, out=np.zeros_like(bend), where=bend < 0)
        found = rates[0] * (rates[1] / rates[0]) ** (best[inner] + offset)
        curve = np.exp(-np.outer(time_h, found))
        height = (weight @ (curve * points[:, inner])) / (weight @ curve**2)
        kept = height > 0
        amplitude[first + inner[kept]], rate[first + inner[kept]] = height[kept], found[kept]
    return amplitude, rate
