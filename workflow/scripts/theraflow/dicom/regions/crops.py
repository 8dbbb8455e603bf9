"""Boxes of voxels on a grid, with their places in space, carried to another grid.

Points are x, y, z in LPS mm; continuous indices are x, y, z; arrays and the indices of their first voxels are z, y, x.
"""

import numpy as np
import SimpleITK as sitk

from theraflow.images import INTERPOLATION, axes_of, grid_of, image_of_crop, points_of_index
from theraflow.nifti import Grid

# The first voxel (z, y, x) of a box of a grid, and the values of its voxels (z, y, x): for a region, whether they lie
# inside.
Crop = tuple[tuple[int, int, int], np.ndarray]
# The corners of a box in units of its sides.
CORNERS = np.array(list(np.ndindex(2, 2, 2)))


def grid_of_axes(size: np.ndarray, spacing: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> Grid:
    """The grid of a size (x, y, z), a spacing and an origin in mm, and unit vectors as in `axes_of`."""
    return Grid(*(tuple(part.tolist()) for part in (size, spacing, origin, axes.ravel())))


def index_of_points(points: np.ndarray, grid: Grid) -> np.ndarray:
    """Continuous index (x, y, z) of points in LPS mm, shape (N, 3)."""
    return (points - grid.origin) @ np.linalg.inv(axes_of(grid)).T / grid.spacing


def inside_on_grid(
    start: tuple[int, int, int], values: np.ndarray, source: Grid, grid: Grid, interpolation: str
) -> Crop:
    """Voxels of `grid` at whose centres the values of a box of `source`, 0 around it, are at least 0.5.

    See `sample_on_grid` for the arguments.

    Returns:
        The index (z, y, x) of a box of `grid`, and a bool array (z, y, x) of the box, True inside.
    """
    values = values.astype(np.float32 if interpolation == "linear" else np.uint8)
    first, sampled = sample_on_grid(start, values, source, grid, interpolation)
    return first, sampled >= 0.5


def sample_on_grid(
    start: tuple[int, int, int], values: np.ndarray, source: Grid, grid: Grid, interpolation: str
) -> tuple[tuple[int, int, int], np.ndarray]:
    """The values of a box of `source`, 0 around it, at the voxel centres of the box of `grid` that covers it.

    Args:
        start: index (z, y, x) of the first voxel of the box in `source`; it may lie outside.
        values: array (z, y, x) of the box.
        source: the grid of the box.
        grid: the grid to sample on.
        interpolation: `linear` or `nearest`.

    Returns:
        The index (z, y, x) of a box of `grid`, and its values; without voxels where the two do not meet.
    """
    # One voxel of zeros around: interpolation ends halfway to the neighbour, not at the rim of the box.
    image = image_of_crop(np.pad(values, 1), source, tuple(a - 1 for a in start))
    index = index_of_points(points_of_index(CORNERS * (np.array(image.GetSize()) - 1.0), grid_of(image)), grid)
    low = np.clip(np.floor(index.min(axis=0)), 0, grid.size).astype(int)
    high = np.clip(np.ceil(index.max(axis=0)) + 1, low, grid.size).astype(int)
    first = tuple(low[::-1].tolist())
    if (high == low).any():
        return first, np.zeros((0, 0, 0), values.dtype)
    sampled = sitk.Resample(
        image,
        (high - low).tolist(),
        sitk.Transform(3, sitk.sitkIdentity),
        INTERPOLATION[interpolation],
        points_of_index(low[None].astype(float), grid)[0].tolist(),
        grid.spacing,
        grid.direction,
    )
    return first, sitk.GetArrayFromImage(sampled)


def nonzero_box(values: np.ndarray) -> Crop:
    """The box of an array (z, y, x) that holds all that is greater than 0; without voxels where nothing is."""
    inside = values > 0
    planes = inside.any(axis=0)
    if not planes.any():
        return (0, 0, 0), values[:0, :0, :0]
    occupied = inside.any(axis=(1, 2)), planes.any(axis=1), planes.any(axis=0)
    ends = [np.flatnonzero(axis)[[0, -1]].tolist() for axis in occupied]
    return tuple(low for low, _ in ends), values[tuple(slice(low, high + 1) for low, high in ends)]
