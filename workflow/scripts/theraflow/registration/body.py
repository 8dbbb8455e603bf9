"""The patient in a CT: made small, without table, clothes and air, so that two of them can be compared."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import from_array, to_array, voxel_volume_ml

AIR_HU = -1000.0
BODY_HU = -300.0  # between fat (-100) and air or cushions
TABLE_MM = 6.0  # links thinner than twice this between body and table are cut
SMALLEST_BODY_ML = 500.0


@dataclass(frozen=True)
class Body:
    """A shrunken CT.

    Attributes:
        image: HU (float32), everything outside the body is air.
        mask: uint8, 1 in the body (with lungs and bowel gas), on the grid of `image`.
    """

    image: sitk.Image
    mask: sitk.Image


def shrink(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average neighbouring voxels until they measure about `spacing_mm`; never work at full resolution."""
    factors = [max(1, int(spacing_mm / spacing + 0.25)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, [min(factor, size) for factor, size in zip(factors, image.GetSize(), strict=True)])


def find_body(ct: sitk.Image, spacing_mm: float) -> Body:
    """Shrink a CT to about `spacing_mm` and remove what is not the patient.

    The body is the largest connected part above -300 HU after thin links have been cut, with its cavities
    filled slice by slice.

    Raises:
        TheraflowError: less than 0.5 L of body.
    """
    # Padding values as -3024 would spoil the averages.
    small = sitk.Cast(shrink(sitk.Clamp(ct, lowerBound=AIR_HU), spacing_mm), sitk.sitkFloat32)
    spacing = np.array(small.GetSpacing())
    radius = [max(1, round(TABLE_MM / length)) for length in spacing]
    opened = sitk.BinaryMorphologicalOpening(small > BODY_HU, radius)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True)
    largest = sitk.BinaryDilate(parts == 1, [1, 1, 1])
    mask = to_array(largest).astype(bool)
    for index, plane in enumerate(mask):
        mask[index] = scipy.ndimage.binary_fill_holes(plane)
    if mask.sum() * voxel_volume_ml(small) < SMALLEST_BODY_ML:
        raise TheraflowError("The CT shows no body: less than 0.5 L above -300 HU in one piece.")
    body = from_array(mask, small)
    return Body(sitk.Mask(small, body, AIR_HU), body)
