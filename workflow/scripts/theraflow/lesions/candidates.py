"""Candidates: connected uptake above a fixed SUV that no organ explains."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from theraflow.images import voxel_volume_ml
from theraflow.lesions.region import Region, distance_outside, spacing_zyx, surroundings
from theraflow.organs import organ_mask

SPILL_OUT_MM = 8.0  # a hot bladder stands above the threshold this far beyond its wall


def physiologic_mask(organs: np.ndarray, names: Sequence[str], grid: sitk.Image) -> np.ndarray:
    """Organs whose uptake of a tracer is physiologic, with the margin that their uptake spills into.

    Args:
        organs: organ labels (z, y, x) on the emission grid.
        names: organs or groups of organs, as `theraflow.organs.organ_mask` knows them.
        grid: the emission image's geometry.

    Returns:
        bool array (z, y, x).
    """
    spacing = spacing_zyx(grid)
    result = np.zeros(organs.shape, dtype=bool)
    for name in names:
        organ = Region.of(organ_mask(organs, name))
        box = surroundings(organ, organs.shape, spacing, SPILL_OUT_MM)
        result[box] |= distance_outside(organ.on_box(box), spacing) <= SPILL_OUT_MM
    return result


def find_candidates(
    values: np.ndarray,
    grid: sitk.Image,
    threshold_suv: float,
    minimum_ml: float,
    physiologic: np.ndarray | None,
) -> list[Region]:
    """Components (26 neighbours) of at least `threshold_suv` and `minimum_ml`, outside of physiologic uptake.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        grid: the image's geometry.
        threshold_suv: lowest SUV that counts.
        minimum_ml: smallest volume of a candidate.
        physiologic: bool on the same grid, see `physiologic_mask`; None where no organ is known.

    Returns:
        The candidates, in the order of their first voxel in the array.
    """
    above = values >= threshold_suv
    if physiologic is not None:
        above &= ~physiologic
    labels, _ = ndimage.label(above, structure=np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel()) * voxel_volume_ml(grid)
    return [
        Region(tuple(part.start for part in box), labels[box] == label)
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
        if volumes[label] >= minimum_ml
    ]
