"""Planar contours to voxels: the body that a reader's outlines describe."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import scipy

from theraflow.dicom.regions.crops import (
    CORNERS,
    Crop,
    grid_of_axes,
    index_of_points,
    inside_on_grid,
)
from theraflow.errors import TheraflowError
from theraflow.images import axes_of, points_of_index
from theraflow.nifti import Grid

logger = logging.getLogger(__name__)

# Planes this close (mm) are one plane.
SAME_PLANE_MM = 0.1
# A step between planes that is so many times as long as both its neighbours is a gap in the region.
GAP = 1.5
# A contour may leave its plane by this fraction of a slice before it counts as drawn in another plane.
_OUT_OF_PLANE = 0.1
# A contour plane that is this close (in slices) to a slice is taken as the slice's own.
_ON_SLICE = 0.02
# The polygons of a plane in index coordinates (x, y), and its pixels (rows, columns) that they fill.
_Plane = tuple[Sequence[np.ndarray], np.ndarray]


def fill_contours(
    contours: Sequence[np.ndarray], grid: Grid, where: str = "a region", step_mm: float | None = None
) -> Crop:
    """Voxels whose centres lie in the body that planar, parallel, closed contours describe.

    In a contour plane the even-odd rule holds over all contours together, so that inner contours and keyholes are
    holes, as with DICOM's CLOSEDPLANAR_XOR. A centre on an edge lies inside where the inside is to its right or
    below: of two regions that share the edge exactly one has it.

    Between two neighbouring planes the outline goes over from one to the other by shape-based interpolation
    (Raya and Udupa, IEEE Trans Med Imaging 1990;9:32-42: points are ordered by the ratio of their distances to the
    two outlines), at a pace that lets the area change linearly. A part without overlap on the next plane ends
    halfway. A step more than 1.5 times as long as both its neighbours is a true gap: nothing is filled there.
    Beyond the first and the last plane, and towards a gap, the region goes on for half the step on its other side;
    a single plane for half of `step_mm` on both. The volume is thus area times distance between planes, summed, as
    treatment planning systems state it; its deviation from a smooth body with a closed end is that of the planes
    that were drawn: for a sphere of radius R and step d up to (d / R)^2 / 4, in either direction.

    Where the contours are not parallel to the slices of the grid, they are filled so on slices of their own, at
    least two to a voxel of the grid in each direction, and a voxel is inside where these, interpolated linearly,
    reach 0.5.

    Args:
        contours: points of each contour, shape (points, 3), LPS mm.
        grid: the geometry to fill.
        where: the region, for messages.
        step_mm: distance of contour planes where the region itself has one plane only; default the grid's slices.

    Returns:
        The index (z, y, x) of a box of the grid, and a bool array (z, y, x) of the box, True inside.

    Raises:
        TheraflowError: contours that are not planar or not parallel to each other.
    """
    index = index_of_points(np.concatenate(contours), grid)
    if (index < -1).any() or (index > grid.size).any():
        logger.warning("The contours of %s reach beyond the image; what lies outside is cut off.", where)
    if _parallel(contours, grid):
        return _fill_slices(contours, grid, where, step_mm)
    step_mm = step_mm or grid.spacing[2]
    own = _grid_along(contours, grid, where, step_mm)
    return inside_on_grid(*_fill_slices(contours, own, where, step_mm), own, grid, "linear")


def plane_steps_mm(contours: Sequence[np.ndarray], grid: Grid) -> np.ndarray:
    """The distances (mm) between neighbouring planes of planar, parallel contours (points in LPS mm), in order."""
    if _parallel(contours, grid):
        heights = [index_of_points(points, grid)[:, 2].mean() * grid.spacing[2] for points in contours]
    else:
        normal = _normal(contours)
        heights = [points.mean(axis=0) @ normal for points in contours]
    steps = np.diff(np.sort(heights))
    return steps[steps > SAME_PLANE_MM]


def _parallel(contours: Sequence[np.ndarray], grid: Grid) -> bool:
    """Whether contours are parallel to the slices of a grid."""
    return max(np.ptp(index_of_points(points, grid)[:, 2]) for points in contours) <= _OUT_OF_PLANE


def _normal(contours: Sequence[np.ndarray]) -> np.ndarray:
    """The unit vector to which planar, parallel contours are perpendicular."""
    points = np.concatenate([points - points.mean(axis=0) for points in contours])
    return np.linalg.eigh(points.T @ points)[1][:, 0]


def _grid_along(contours: Sequence[np.ndarray], grid: Grid, where: str, step_mm: float) -> Grid:
    """A grid whose slices are parallel to the contours, at least twice as fine as `grid`, over all that it covers."""
    normal = _normal(contours)
    in_plane = axes_of(grid)[:, np.abs(normal @ axes_of(grid)).argmin()]
    first = in_plane - (in_plane @ normal) * normal
    first /= np.linalg.norm(first)
    axes = np.column_stack([first, np.cross(normal, first), normal])
    # Half of 1 mm over the voxels of `grid` that a step of 1 mm along each axis crosses.
    spacing = 0.5 / np.linalg.norm(np.linalg.inv(axes_of(grid)) @ axes / np.array(grid.spacing)[:, None], axis=0)
    if max(np.ptp(points @ normal) for points in contours) > _OUT_OF_PLANE * 2 * spacing[2]:
        raise TheraflowError(f"The contours of {where} are not planar and parallel to each other; export them again.")
    # A whole number of slices to a step, and none of them on the rim half a step beyond the last plane: otherwise a
    # flat end would take or leave one.
    steps = plane_steps_mm(contours, grid)
    step = np.median(steps) if len(steps) else step_mm
    parts = int(np.ceil(step / spacing[2]))
    spacing[2] = step / parts
    corners = points_of_index(np.where(CORNERS, grid.size, -1.0), grid)
    low, high = (corners @ axes).min(axis=0), (corners @ axes).max(axis=0)
    size = np.ceil((high - low) / spacing).astype(int) + 1
    plane = contours[0].mean(axis=0) @ normal + (0 if parts % 2 else spacing[2] / 2)
    low[2] += (plane - low[2]) % spacing[2]
    return grid_of_axes(size, spacing, axes @ low, axes)


def _fill_slices(contours: Sequence[np.ndarray], grid: Grid, where: str, step_mm: float | None) -> Crop:
    """`fill_contours` where the contours are parallel to the slices of the grid."""
    planes: dict[float, list[np.ndarray]] = {}
    for points in contours:
        # Index coordinates x, y, z; the last digits are noise of the text in the file.
        index = np.round(index_of_points(points, grid), 6)
        height = round(float(index[:, 2].mean()), 4)
        tolerance = SAME_PLANE_MM / grid.spacing[2]
        plane = next((known for known in planes if abs(known - height) <= tolerance), height)
        planes.setdefault(plane, []).append(index[:, :2])
    heights = np.array(sorted(planes))
    connected, below, above = _extents(heights, step_mm / grid.spacing[2] if step_mm else 1.0)
    if not connected.all():
        parts = np.count_nonzero(~connected) + 1
        logger.warning("Region %s is drawn in %d parts; the gaps between their planes stay open.", where, parts)
    flat = np.concatenate([points for polygons in planes.values() for points in polygons])
    first = np.clip(np.floor(flat.min(axis=0)), 0, grid.size[:2]).astype(int)
    stop = np.clip(np.ceil(flat.max(axis=0)) + 1, first, grid.size[:2]).astype(int)
    ends = np.array([np.ceil(heights[0] - below[0] - 1e-3), np.floor(heights[-1] + above[-1] + 1e-3) + 1])
    bottom, top = np.clip(ends, 0, grid.size[2]).astype(int)
    columns, rows = stop - first
    inside = np.zeros((top - bottom, rows, columns), bool)
    shifted = [[points - first for points in planes[height]] for height in heights]

    @lru_cache(maxsize=2)
    def filled(plane: int) -> np.ndarray:
        return _fill_plane(shifted[plane], rows, columns)

    @lru_cache(maxsize=1)
    def passage(lower: int) -> Callable[[float], np.ndarray]:
        pair = (shifted[lower], filled(lower)), (shifted[lower + 1], filled(lower + 1))
        return _passage(*pair, grid.spacing[:2])

    for number, slice_ in enumerate(range(bottom, top)):
        nearest = int(np.abs(heights - slice_).argmin())
        if abs(heights[nearest] - slice_) <= _ON_SLICE:
            inside[number] = filled(nearest)
            continue
        upper = int(np.searchsorted(heights, slice_))
        lower = upper - 1
        if 0 < upper < len(heights) and connected[lower]:
            inside[number] = passage(lower)((slice_ - heights[lower]) / (heights[upper] - heights[lower]))
        # A slice at the very end of the reach belongs to the plane above it only, so that it counts once.
        elif upper < len(heights) and heights[upper] - slice_ <= below[upper] + 1e-3:
            inside[number] = filled(upper)
        elif lower >= 0 and slice_ - heights[lower] < above[lower] - 1e-3:
            inside[number] = filled(lower)
    return (int(bottom), int(first[1]), int(first[0])), inside


def _extents(heights: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which steps between planes are filled, and how far each plane reaches below and above itself where not."""
    steps = np.diff(heights)
    if len(steps) > 1:
        padded = np.concatenate([[0.0], steps, [0.0]])
        connected = steps <= GAP * np.maximum(padded[:-2], padded[2:])
    else:
        connected = steps <= GAP * step
    own = np.where(connected, steps, np.nan)
    to_lower, to_upper = np.concatenate([[np.nan], own]), np.concatenate([own, [np.nan]])
    alone = np.median(steps[connected]) if connected.any() else step
    if len(steps):
        alone = min(alone, steps.min())
    below = np.where(np.isfinite(to_upper), to_upper, np.where(np.isfinite(to_lower), to_lower, alone)) / 2
    above = np.where(np.isfinite(to_lower), to_lower, np.where(np.isfinite(to_upper), to_upper, alone)) / 2
    return connected, below, above


def _passage(lower: _Plane, upper: _Plane, spacing: np.ndarray) -> Callable[[float], np.ndarray]:
    """The filled outline at a fraction of the way from one plane (polygons, filled) to the next."""
    leave = _fading(lower, upper, spacing)
    enter = _fading(upper, lower, spacing)
    return lambda fraction: (leave > fraction) | (enter >= 1 - fraction)


def _fading(plane: _Plane, other: _Plane, spacing: np.ndarray) -> np.ndarray:
    """At which fraction of the way to the other plane each pixel is left; 0 outside `plane`, 2 inside both."""
    (polygons, filled), (other_polygons, other_filled) = plane, other
    fading = np.where(filled, np.where(other_filled, 2.0, 0.5), 0.0)
    parts, _ = scipy.ndimage.label(filled, np.ones((3, 3)))
    kept = np.unique(parts[other_filled])
    rows, columns = np.nonzero(filled & ~other_filled & np.isin(parts, kept[kept > 0]))
    if len(rows):
        points = np.column_stack([columns, rows]) * spacing
        distance, other_distance = (
            scipy.spatial.KDTree(_outline_points(each, spacing)).query(points)[0] for each in (polygons, other_polygons)
        )
        ratio = distance / np.maximum(distance + other_distance, 1e-9)
        # Pixels as far as each other (symmetric outlines) go in no order that would favour one side.
        scattered = np.random.default_rng(0).permutation(len(rows))
        order = np.lexsort((scattered, np.round(ratio, 3)))
        fading[rows[order], columns[order]] = (np.arange(len(rows)) + 0.5) / len(rows)
    return fading


def _outline_points(polygons: Sequence[np.ndarray], spacing: np.ndarray) -> np.ndarray:
    """Points along closed polygons (index coordinates), at most a quarter of a pixel apart, in mm."""
    points = []
    for polygon in polygons:
        edges = np.roll(polygon, -1, axis=0) - polygon
        parts = np.ceil(4 * np.abs(edges).max(axis=1)).astype(int) + 1
        edge = np.repeat(np.arange(len(polygon)), parts)
        along = (np.arange(len(edge)) - np.repeat(np.cumsum(parts) - parts, parts)) / parts[edge]
        points.append(polygon[edge] + along[:, None] * edges[edge])
    return np.concatenate(points) * spacing


def _fill_plane(polygons: Sequence[np.ndarray], rows: int, columns: int) -> np.ndarray:
    """Even-odd filling at pixel centres; polygons in index coordinates (x, y)."""
    toggles = np.zeros((rows, columns + 1), np.int32)
    for polygon in polygons:
        (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
        # Rows whose centres each edge crosses, its upper end included and its lower end not.
        first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(int)
        counts = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(int) - first
        edge = np.repeat(np.arange(len(polygon)), counts)
        row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        x = x0[edge] + (row - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        # From its crossing on, the centres to the right change between outside and inside.
        np.add.at(toggles, (row, np.clip(np.ceil(np.round(x, 6)), 0, columns).astype(int)), 1)
    return (np.cumsum(toggles[:, :columns], axis=1) % 2).astype(bool)
