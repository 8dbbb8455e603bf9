"""The resampling behind the IBSI's reference values; what is measured on its result is the library's.

Source: IBSI reference manual (Zwanenburg et al., arXiv 1612.07003), "interpolation": the new grid is centred
on the old one, the image is interpolated, the mask linearly with 0.5 as threshold; CT is rounded to whole HU.
"""

import numpy as np
import SimpleITK as sitk

from theraflow.images import resample, to_array


def centred_grid(image: sitk.Image, spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """An empty image of `spacing_mm` (x, y, z; 0 keeps an axis) whose centre is that of `image`."""
    old = np.array(image.GetSpacing())
    new = np.where(np.array(spacing_mm) == 0, old, spacing_mm)
    size = np.ceil(np.array(image.GetSize()) * old / new - 1e-6).astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(new.tolist())
    grid.SetDirection(image.GetDirection())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint((np.array(image.GetSize()) - 1) / 2))
    grid.SetOrigin((middle - direction @ ((size - 1) / 2 * new)).tolist())
    return grid


def interpolate(
    image: sitk.Image,
    mask: sitk.Image,
    spacing_mm: tuple[float, float, float],
    method: str,
    whole_numbers: bool,
) -> tuple[np.ndarray, np.ndarray, sitk.Image]:
    """Image and mask as arrays (z, y, x) on the new grid, and the grid, around the mask (13 mm on all sides).

    Args:
        image: the scan.
        mask: 0 or 1, on its grid.
        spacing_mm: of the new grid (x, y, z).
        method: `linear` or `cubic`, of the image.
        whole_numbers: round the image (HU).
    """
    fraction = resample(sitk.Cast(mask, sitk.sitkFloat64), centred_grid(image, spacing_mm))
    inside = sitk.BinaryThreshold(fraction, 0.5 - 1e-9)
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(inside)
    start, size = np.array(box.GetBoundingBox(1)).reshape(2, 3)
    margin = np.ceil(13.0 / np.array(inside.GetSpacing())).astype(int)
    low, high = (start - margin).clip(min=0), (start + size + margin).clip(max=inside.GetSize())
    inside = inside[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    values = to_array(resample(sitk.Cast(image, sitk.sitkFloat64), inside, interpolation=method))
    return np.round(values) if whole_numbers else values, to_array(inside) > 0, inside
