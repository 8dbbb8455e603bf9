"""Reference tissues that a lesion's uptake is compared with: an organ, or the tissue around the lesion.

Functions take the emission image as an array (z, y, x) and organ labels that have been brought to its grid.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.images import voxel_volume_ml
from theraflow.lesions.contract import BLOOD_POOL, LIVER, MUSCLE, SHELL
from theraflow.lesions.region import Region, distance_outside, spacing_zyx, surroundings
from theraflow.organs import GROUPS, organ_mask

log = logging.getLogger(__name__)

# Of each background organ its name in the segmentation and how far inside its edge a voxel must lie: beyond
# the blur of a PET (FWHM about 6 mm), farther in the liver, which moves with breathing and is large enough to
# give it.
BACKGROUND_ORGANS = {
    BLOOD_POOL: ("aorta", 4.0),
    LIVER: ("liver", 10.0),
    MUSCLE: ("gluteus_maximus", 5.0),
}
AWAY_FROM_LESIONS_MM = 10.0  # a background organ's voxel must be farther than this from every lesion
SHELL_GAP_MM, SHELL_THICKNESS_MM = 5.0, 10.0  # between the lesions' blur and tissue that is no longer local
MINIMUM_BACKGROUND_ML = 1.0


@dataclass(frozen=True)
class Background:
    """Mean uptake of a reference tissue: its name, mean in the unit of the image, and volume in mL."""

    region: str
    mean: float
    volume_ml: float


def organs_of_background(name: str) -> tuple[str, ...]:
    """The organs that the background `name` of `BACKGROUND_ORGANS` is made of."""
    organ, _ = BACKGROUND_ORGANS[name]
    return GROUPS.get(organ, (organ,))


def organ_background(
    name: str,
    values: np.ndarray,
    organs: np.ndarray,
    lesions: np.ndarray,
    grid: sitk.Image,
    without: Collection[str] = (),
) -> Background | None:
    """Mean of a background organ, away from its edge and from lesions; None, with a warning, if too small.

    Args:
        name: `blood_pool` (lumen of the aorta), `liver` or `gluteal_muscle`.
        values: the emission image, shape (z, y, x).
        organs: organ labels on the same grid.
        lesions: bool on the same grid, True in any lesion.
        grid: the image's geometry.
        without: organs that must not be used, for they are not plausible.
    """
    _, inside_mm = BACKGROUND_ORGANS[name]
    usable = [organ for organ in organs_of_background(name) if organ not in without]
    region = Region.of(organ_mask(organs, *usable))
    spacing = spacing_zyx(grid)
    box = surroundings(region, values.shape, spacing, AWAY_FROM_LESIONS_MM)
    mask = region.on_box(box)
    # Distances are between voxel centres; the organ's edge lies half a voxel before the first centre outside.
    deep = scipy.ndimage.distance_transform_edt(mask, sampling=spacing) - spacing.min() / 2.0 > inside_mm
    chosen = deep & (distance_outside(lesions[box], spacing) > AWAY_FROM_LESIONS_MM)
    return _mean(name, values[box], chosen, grid)


def shell_background(
    values: np.ndarray, region: Region, lesions: np.ndarray, without: Sequence[Region], grid: sitk.Image
) -> Background | None:
    """Mean of a shell around the lesion, 5 to 15 mm from it; None, with a warning, if nothing is left.

    Organs whose uptake is not that of a lesion's surroundings are left out, so that a bladder nearby is no background;
    a lesion of which half lies inside such an organ is compared with that organ.

    Args:
        values: the emission image, shape (z, y, x).
        region: the lesion, not empty.
        lesions: bool on the same grid, True in any lesion; their surroundings of 5 mm are left out.
        without: those organs, within the image.
        grid: the image's geometry.
    """
    spacing = spacing_zyx(grid)
    box = surroundings(region, values.shape, spacing, SHELL_GAP_MM + SHELL_THICKNESS_MM)
    itself = region.on_box(box)
    near = distance_outside(itself, spacing) <= SHELL_GAP_MM + SHELL_THICKNESS_MM
    chosen = near & (distance_outside(lesions[box] | itself, spacing) > SHELL_GAP_MM)
    for organ in (organ.on_box(box) for organ in without):
        if 2 * np.count_nonzero(organ & itself) < np.count_nonzero(itself):
            chosen &= ~organ
    return _mean(SHELL, values[box], chosen, grid)


def _mean(name: str, values: np.ndarray, chosen: np.ndarray, grid: sitk.Image) -> Background | None:
    volume = int(np.count_nonzero(chosen)) * voxel_volume_ml(grid)
    if volume < MINIMUM_BACKGROUND_ML:
        log.warning("Background %s: only %.2f mL are left after erosion and without lesions; it is NA.", name, volume)
        return None
    return Background(name, float(values[chosen].mean(dtype=float)), volume)
