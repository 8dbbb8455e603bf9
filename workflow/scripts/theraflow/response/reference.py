"""PERCIST's reference regions: a sphere in the right lobe of the liver, a cylinder in the descending aorta.

Wahl et al., J Nucl Med 2009;50 Suppl 1:122S: a sphere of 3 cm in the normal right lobe; a region of 1 cm across and
2 cm along the descending thoracic aorta. Functions take the emission image as an array (z, y, x) and organ labels and
lesions on its grid; each place is the one deepest within what may be measured, so that nobody chooses it.
"""

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.images import voxel_volume_ml
from theraflow.lesions.background import AWAY_FROM_LESIONS_MM
from theraflow.lesions.region import Region, distance_outside, physical_points, spacing_zyx, surroundings
from theraflow.organs import organ_mask
from theraflow.response.percist import BLOOD_POOL, LIVER, Reference

SPHERE_RADIUS_MM = 15.0
CYLINDER_RADIUS_MM, CYLINDER_HALF_LENGTH_MM = 5.0, 10.0


def liver_sphere(values: np.ndarray, organs: np.ndarray, lesions: np.ndarray, grid: sitk.Image) -> Reference | str:
    """A sphere of 3 cm in the liver, on the patient's right of the liver's median, more than 10 mm from lesions.

    No label tells the lobes apart; the right one holds more than half of a liver, and the deepest place on that side of
    the median lies in it.

    Args:
        values: the emission image, shape (z, y, x).
        organs: organ labels on the same grid.
        lesions: bool on the same grid, True in any lesion.
        grid: the image's geometry.

    Returns:
        What was measured, in the unit of `values`; or in words why not.
    """
    liver = organ_mask(organs, "liver")
    if not liver.any():
        return "there is no liver"
    spacing = spacing_zyx(grid)
    box = surroundings(Region.of(liver), values.shape, spacing, AWAY_FROM_LESIONS_MM)
    x_mm = _coordinate(liver[box], box, grid, 0)
    healthy = liver[box] & (distance_outside(lesions[box], spacing) > AWAY_FROM_LESIONS_MM)
    depth = np.where(x_mm < np.nanmedian(x_mm), _depth(healthy, spacing), 0.0)
    centre = np.unravel_index(np.argmax(depth), depth.shape)
    if depth[centre] < SPHERE_RADIUS_MM:
        return "no sphere of 3 cm fits into the right lobe away from lesions"
    offsets = _offsets(depth.shape, centre, spacing)
    chosen = sum(offset**2 for offset in offsets) <= SPHERE_RADIUS_MM**2
    return _measured(LIVER, values[box][chosen], _place(centre, box), grid)


def blood_pool_cylinder(
    values: np.ndarray, organs: np.ndarray, lesions: np.ndarray, grid: sitk.Image
) -> Reference | str:
    """A cylinder of 1 cm across and 2 cm along the body in the descending aorta, more than 10 mm from lesions.

    The descending aorta is what of the aorta, at the heart's height, goes on below it: the ascending one ends in the
    heart, and the arch, which joins both, lies above.

    Args and returns: as of `liver_sphere`.
    """
    aorta, heart = organ_mask(organs, "aorta"), organ_mask(organs, "heart")
    if not aorta.any():
        return "there is no aorta"
    if not heart.any():
        return "there is no heart, so the descending aorta cannot be told"
    spacing = spacing_zyx(grid)
    box = surroundings(Region.of(aorta), values.shape, spacing, AWAY_FROM_LESIONS_MM)
    descending = _passing(aorta[box], _coordinate(aorta[box], box, grid, 2), *_ends(heart, grid))
    healthy = descending & (distance_outside(lesions[box], spacing) > AWAY_FROM_LESIONS_MM)
    # The array's axis closest to the body's.
    along = 2 - int(np.argmax(np.abs(np.array(grid.GetDirection()).reshape(3, 3)[2])))
    halves = np.ceil(max(CYLINDER_RADIUS_MM, CYLINDER_HALF_LENGTH_MM) / spacing).astype(int)
    cylinder = _in_cylinder(_offsets(tuple(2 * halves + 1), tuple(halves), spacing), along)
    fits = scipy.ndimage.binary_erosion(healthy, cylinder)
    if not fits.any():
        return "no cylinder of 1 cm by 2 cm fits into the descending aorta away from lesions"
    depth = np.where(fits, _depth(aorta[box], spacing), 0.0)
    centre = np.unravel_index(np.argmax(depth), depth.shape)
    chosen = _in_cylinder(_offsets(depth.shape, centre, spacing), along)
    return _measured(BLOOD_POOL, values[box][chosen], _place(centre, box), grid)


def _ends(organ: np.ndarray, grid: sitk.Image) -> tuple[float, float]:
    """Lower and upper end of an organ, z in LPS mm, without the outermost twentieths, where strays may lie."""
    low, high = np.percentile(physical_points(np.argwhere(organ), grid)[:, 2], (5.0, 95.0))
    return float(low), float(high)


def _coordinate(mask: np.ndarray, box: tuple[slice, ...], grid: sitk.Image, axis: int) -> np.ndarray:
    """x, y or z in LPS mm of the voxels of a mask on a box of the grid; elsewhere NaN."""
    indices = np.argwhere(mask) + [part.start for part in box]
    result = np.full(mask.shape, np.nan)
    result[mask] = physical_points(indices, grid)[:, axis]
    return result


def _passing(mask: np.ndarray, heights_mm: np.ndarray, low: float, high: float) -> np.ndarray:
    """The largest connected part of a mask between two heights that goes through the lower one; empty without any."""
    between = mask & (heights_mm >= low) & (heights_mm <= high)
    parts, count = scipy.ndimage.label(between)
    lowest = scipy.ndimage.minimum(heights_mm, parts, range(1, count + 1))
    volumes = np.bincount(parts.ravel(), minlength=count + 1)
    through = [part for part, z in enumerate(lowest, start=1) if z <= low + CYLINDER_RADIUS_MM]
    return parts == max(through, key=volumes.__getitem__) if through else np.zeros_like(mask)


def _depth(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """How far inside the mask's surface a voxel centre lies, mm; beyond the array there is nothing.

    Distances are between voxel centres; the surface lies half a voxel before the first centre outside.
    """
    distance = scipy.ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)
    return distance[1:-1, 1:-1, 1:-1] - spacing.min() / 2.0


def _offsets(shape: tuple[int, ...], centre: tuple[int, ...], spacing: np.ndarray) -> list[np.ndarray]:
    """Distances in mm from a voxel along each axis, to be broadcast."""
    axes = [(np.arange(n) - c) * s for n, c, s in zip(shape, centre, spacing, strict=True)]
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def _in_cylinder(offsets: list[np.ndarray], along: int) -> np.ndarray:
    across = sum(offset**2 for axis, offset in enumerate(offsets) if axis != along)
    return (across <= CYLINDER_RADIUS_MM**2) & (np.abs(offsets[along]) <= CYLINDER_HALF_LENGTH_MM)


def _place(centre: tuple[int, ...], box: tuple[slice, ...]) -> np.ndarray:
    return np.array([[c + part.start for c, part in zip(centre, box, strict=True)]])


def _measured(region: str, inside: np.ndarray, index: np.ndarray, grid: sitk.Image) -> Reference:
    point = physical_points(index, grid)[0]
    volume = inside.size * voxel_volume_ml(grid)
    # The sample's sd, as readers' workstations give it of a region's voxels.
    return Reference(region, float(inside.mean(dtype=float)), float(inside.std(ddof=1, dtype=float)), volume,
                     tuple(point.tolist()))  # fmt: skip
