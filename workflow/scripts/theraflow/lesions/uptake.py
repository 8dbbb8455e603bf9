"""What is measured of a lesion on one scan, on that scan's own voxels: uptake and size.

Functions take the emission image as an array (z, y, x), a `Region` on the same grid and the grid itself; they
read the lesion's surroundings only, never the whole image.
"""

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.images import voxel_volume_ml
from theraflow.lesions.peak import ibsi_peaks, percist_peak
from theraflow.lesions.region import Region, centroid_mm, pieces, spacing_zyx

DIRECTIONS = 16  # in which the width of a slice is taken before its diameter


def uptake(values: np.ndarray, region: Region, grid: sitk.Image) -> dict[str, float]:
    """SUVmax, mean, median, the three peaks, and TLG of a lesion.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        region: the lesion, not empty, within the image.
        grid: the image's geometry.

    Returns:
        `suv_max`, `suv_mean`, `suv_median`, `suv_peak` (PERCIST), `suv_peak_ibsi_local`, `suv_peak_ibsi_global` in
        g/mL and `tlg_ml` = mean x volume in g/mL x mL.
    """
    inside = values[region.box][region.mask].astype(float)
    spacing = spacing_zyx(grid)
    local, highest = ibsi_peaks(values, region, spacing)
    return {
        "suv_max": float(inside.max()),
        "suv_mean": float(inside.mean()),
        "suv_median": float(np.median(inside)),
        "suv_peak": percist_peak(values, region, spacing),
        "suv_peak_ibsi_local": local,
        "suv_peak_ibsi_global": highest,
        "tlg_ml": float(inside.sum()) * voxel_volume_ml(grid),
    }


def geometry(region: Region, grid: sitk.Image) -> dict[str, float]:
    """Volume in mL, centroid in LPS mm, longest axial diameter and short axis in mm of a lesion."""
    x, y, z = centroid_mm(region, grid).tolist()
    longest, short = axial_diameters(region, grid)
    volume = region.voxels * voxel_volume_ml(grid)
    return {"volume_ml": volume, "x_mm": x, "y_mm": y, "z_mm": z,
            "longest_diameter_mm": longest, "short_axis_mm": short}  # fmt: skip


def sum_of_parts(region: Region, grid: sitk.Image) -> dict[str, float]:
    """Diameters in mm of a lesion that has split: those of its parts added (RECIST 1.1, appendix II)."""
    longest, short = np.sum([axial_diameters(part, grid) for part in pieces(region)], axis=0).tolist()
    return {"longest_diameter_mm": longest, "short_axis_mm": short}


def axial_diameters(region: Region, grid: sitk.Image) -> tuple[float, float]:
    """Longest diameter in any axial slice, and the extent perpendicular to it in that slice, both in mm.

    Measured between the points where the outline crosses the lines that join voxel centres (those of marching
    squares). The longest of all directions is taken, so that a disc comes out too long: by 0.4 pixels where it is 4
    wide, 0.6 where 8, 0.8 where 20 or more. Axial slices are those of the array's axis that is closest to the
    patient's long axis.
    """
    along = int(np.argmax(np.abs(np.array(grid.GetDirection()).reshape(3, 3)[2])))
    slices = np.moveaxis(region.mask, 2 - along, 0)
    points, counts = _crossings(slices[slices.any(axis=(1, 2))], np.delete(spacing_zyx(grid), 2 - along))
    ends = np.cumsum(counts)
    # A slice is no longer than its greatest width over so many directions allows: few are measured in full.
    angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    along_each = points @ np.stack([np.cos(angles), np.sin(angles)])
    widths = np.maximum.reduceat(along_each, ends - counts) - np.minimum.reduceat(along_each, ends - counts)
    limits = widths.max(axis=1) / np.cos(np.pi / (2 * DIRECTIONS))
    best = (0.0, 0.0)
    for number in np.argsort(-limits).tolist():
        if limits[number] < best[0]:
            break
        best = max(best, _diameters(points[ends[number] - counts[number] : ends[number]]))
    return best


def _crossings(slices: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outermost points in mm, (N, 2), where the outline crosses rows and columns, and their number in each slice.

    `slices` (slice, row, column) is bool, each slice with voxels inside; `spacing` is that of rows and columns.
    """
    slice_of, points = [], []
    for axis in (1, 2):
        number, line = np.nonzero(slices.any(axis=axis))
        first = slices.argmax(axis=axis)[number, line]
        last = slices.shape[axis] - 1 - np.flip(slices, axis).argmax(axis=axis)[number, line]
        for end in (first - 0.5, last + 0.5):
            slice_of.append(number)
            points.append(np.column_stack((end, line) if axis == 1 else (line, end)) * spacing)
    order = np.argsort(np.concatenate(slice_of), kind="stable")
    return np.concatenate(points)[order], np.bincount(np.concatenate(slice_of))


def _diameters(points: np.ndarray) -> tuple[float, float]:
    """The longest distance between points (N, 2), and their extent perpendicular to it."""
    distances = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(points))
    a, b = np.unravel_index(np.argmax(distances), distances.shape)
    along = (points[b] - points[a]) / distances[a, b]
    across = points @ np.array([-along[1], along[0]])
    return float(distances[a, b]), float(np.ptp(across))
