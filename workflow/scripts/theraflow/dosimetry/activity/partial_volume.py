"""Partial-volume effect: what a blurred image hides. Arrays are indexed z, y, x."""

import math
from collections.abc import Sequence

import numpy as np
import scipy

from theraflow.dosimetry.activity.regions import Region, grow
from theraflow.images import FWHM_PER_SD


def mean_concentration(values: np.ndarray, region: Region) -> float:
    """Mean of the image `values` in the region, voxels weighted by their fraction (no correction)."""
    return float((values[region.box] * region.fraction).sum() / region.fraction.sum())


def recovered_concentration(
    values: np.ndarray,
    region: Region,
    others: Sequence[Region],
    body: np.ndarray,
    fwhm_mm: float,
    spacing_zyx: Sequence[float],
) -> float:
    """Mean concentration of a region without spill-out of its own and spill-in of its surroundings.

    Geometric transfer matrix (Rousset, Ma, Evans, J Nucl Med 1998;39:904): every region is a uniform source
    with the shape it has; blurred by the scanner it gives a share to the measured mean of every region; the
    linear system of these shares gives the means before blurring. It is solved in a crop that reaches two
    resolutions beyond the region, so that the remainder of the body is only taken as uniform in the
    neighbourhood.

    Args:
        values: emission image, any unit per volume.
        region: the region asked for.
        others: all other regions of the scan.
        body: part of every voxel that lies in the body, 0 to 1, same shape as `values`.
        fwhm_mm: resolution of the image (Gaussian, isotropic).
        spacing_zyx: voxel spacing in mm, order z, y, x.

    Returns:
        Mean concentration in the unit of `values`.
    """
    box = grow(region.box, 2.0 * fwhm_mm, spacing_zyx, values.shape)
    sources = [region.within(box), *(other.within(box) for other in others)]
    sources.append(np.clip(body[box] - np.sum(sources, axis=0), 0.0, 1.0))
    # A source with less than a thousandth of a voxel here has no measurable mean of its own.
    sources = [sources[0], *(source for source in sources[1:] if source.sum() > 1e-3)]
    sd = [fwhm_mm / FWHM_PER_SD / spacing for spacing in spacing_zyx]
    blurred = [scipy.ndimage.gaussian_filter(source, sd, mode="nearest") for source in sources]
    weights = [source / source.sum() for source in sources]
    matrix = np.array([[float((weight * spread).sum()) for spread in blurred] for weight in weights])
    measured = np.array([float((weight * values[box]).sum()) for weight in weights])
    return float(np.linalg.solve(matrix, measured)[0])


def sphere_recovery(radius_mm: float, fwhm_mm: float) -> float:
    """Part of the activity of a uniform sphere that is seen inside its true surface after Gaussian blurring.

    The displacement by the blur has a Maxwell distribution; a displacement x leaves the part
    1 - 3x/(4R) + x^3/(16 R^3) of a sphere inside itself.
    """
    sd = fwhm_mm / FWHM_PER_SD
    constant = math.sqrt(2.0 / math.pi) / sd**3

    def kept(x: float) -> float:
        inside = 1.0 - 0.75 * x / radius_mm + (x / radius_mm) ** 3 / 16.0
        return constant * x * x * math.exp(-0.5 * (x / sd) ** 2) * inside

    return scipy.integrate.quad(kept, 0.0, min(2.0 * radius_mm, 12.0 * sd))[0]


def sphere_edge(radius_mm: float, fwhm_mm: float) -> float:
    """Concentration at the surface of a blurred uniform sphere, relative to that of the sphere."""
    sd = fwhm_mm / FWHM_PER_SD
    ratio = radius_mm / sd
    spread = (1.0 - math.exp(-2.0 * ratio**2)) / (ratio * math.sqrt(2.0 * math.pi))
    return 0.5 * scipy.special.erf(math.sqrt(2.0) * ratio) - spread


def activity_sensitivity(volume_ml: float, fwhm_mm: float | None) -> float:
    """Relative change of a region's activity per relative change of the volume it is measured in.

    A surface drawn too far out takes in more of the blurred activity, and is corrected by a greater recovery
    (Gear et al., Eur J Nucl Med Mol Imaging 2018;45:2456; here for a sphere of the same volume):
    d ln A / d ln V = edge / recovery - d ln recovery / d ln V. Without a known resolution, the limit of a
    sharp image.
    """
    if fwhm_mm is None:
        return 0.5
    radius = equivalent_radius_mm(volume_ml)
    step = 1e-3
    larger, smaller = (sphere_recovery(radius * math.exp(s), fwhm_mm) for s in (step, -step))
    slope = math.log(larger / smaller) / (2.0 * step) / 3.0
    return sphere_edge(radius, fwhm_mm) / sphere_recovery(radius, fwhm_mm) - slope


def volume_cv(volume_ml: float, boundary_sd_mm: float) -> float:
    """Relative sd of a volume whose surface is known within `boundary_sd_mm`: 3 u(d) / d, u(d)^2 = 2 sd^2.

    Gear et al. 2018: the diameter d has two ends of independent error.
    """
    return 3.0 * math.sqrt(2.0) * boundary_sd_mm / (2.0 * equivalent_radius_mm(volume_ml))


def equivalent_radius_mm(volume_ml: float) -> float:
    """Radius of the sphere of this volume in mm."""
    return (3000.0 * volume_ml / (4.0 * math.pi)) ** (1.0 / 3.0)
