"""A reader's annotation on the grid of an image: RTSTRUCT, DICOM SEG, NIfTI or NRRD label map."""

import gzip
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from scipy import ndimage
from scipy.spatial import KDTree

from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.images import INTERPOLATION, grid_of
from theraflow.nifti import Grid

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

logger = logging.getLogger(__name__)

# A contour may leave its plane by this fraction of a slice before it counts as drawn in another plane.
_OUT_OF_PLANE = 0.1
# Contours whose planes are this close (mm) lie in one plane.
_SAME_PLANE_MM = 0.1
# A contour plane that is this close (in slices) to a slice is taken as the slice's own.
_ON_SLICE = 0.02
# A step between contour planes that is so many times as long as both its neighbours is a gap in the region.
_GAP = 1.5
# No scan has thicker slices (mm): a longer step says nothing about the slices that a reader drew on.
_THICKEST_SLICE_MM = 10.0
# Deflate makes nothing smaller than 1/1032; a header that promises more voxels than that is damaged.
_LARGEST_COMPRESSION = 1100
# No point of a scan lies further from the origin (mm); one that does is damaged.
_FARTHEST_MM = 1e5
# No scan has more slices; positions that ask for more are damaged.
_MOST_SLICES = 20_000
# The corners of a box in units of its sides.
_CORNERS = np.array(list(np.ndindex(2, 2, 2)))
# The first voxel (z, y, x) of a box of the grid, and which voxels of the box lie inside.
_Crop = tuple[tuple[int, int, int], np.ndarray]


@dataclass(frozen=True)
class Annotation:
    """One region that a reader has drawn, as the box of the grid that holds it.

    Attributes:
        name: the reader's name for it.
        start: index (z, y, x) of the first voxel of the box.
        inside: bool array (z, y, x) of the box.
        grid: the grid that was asked for.
    """

    name: str
    start: tuple[int, int, int]
    inside: np.ndarray
    grid: Grid

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The box as slices (z, y, x) into an array of the grid."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.inside.shape, strict=True))

    @cached_property
    def mask(self) -> sitk.Image:
        """uint8 image, 1 inside, on the whole grid; it takes memory from the first use on.

        It is kept because a view of its voxels (`GetArrayViewFromImage`) does not keep it alive.
        """
        whole = np.zeros(self.grid.size[::-1], np.uint8)
        whole[self.box] = self.inside
        return _image(whole, self.grid)


def _axes(grid: Grid) -> np.ndarray:
    """Unit vectors along columns, rows and slices as the columns of a matrix."""
    return np.array(grid.direction).reshape(3, 3)


def _index(points: np.ndarray, grid: Grid) -> np.ndarray:
    """Continuous index (x, y, z) of points in LPS mm, shape (N, 3)."""
    return (points - grid.origin) @ np.linalg.inv(_axes(grid)).T / grid.spacing


def _points(index: np.ndarray, grid: Grid) -> np.ndarray:
    """LPS mm of continuous indices (x, y, z), shape (N, 3)."""
    return grid.origin + (index * grid.spacing) @ _axes(grid).T


def _image(array: np.ndarray, grid: Grid, start: tuple[int, ...] = (0, 0, 0)) -> sitk.Image:
    """An image of an array (z, y, x) whose first voxel lies at index `start` (z, y, x) of a grid."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing)
    image.SetDirection(grid.direction)
    image.SetOrigin(_points(np.array([start[::-1]], float), grid)[0].tolist())
    return image


def _grid(size: np.ndarray, spacing: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> Grid:
    return Grid(*(tuple(part.tolist()) for part in (size, spacing, origin, axes.ravel())))


def read_annotation(path: Path | str, grid: sitk.Image) -> list[Annotation]:
    """Read a reader's regions onto the voxels of an image.

    A voxel belongs to a region when its centre does:

    - RTSTRUCT: by the even-odd rule over all contours of a plane and by the shape between the planes, see
      `fill_contours`.
    - DICOM SEG (binary and label map): the segment's voxel at the centre. Fractional segments, probability or
      occupancy, count from 0.5, interpolated linearly. Slices without a frame are empty.
    - Label map in NIfTI or NRRD: the label at the centre. It is called by the segments in the NRRD header
      (3D Slicer, overlapping segments in layers), else by the sidecar's `labels` ({"1": "name"}), else by the
      label table in the NIfTI header, else `label 1`.

    Regions may overlap. A region that is empty in the file is left out with a warning.

    Args:
        path: the file.
        grid: the image whose geometry the masks take (LPS, mm).

    Returns:
        The regions in the order of the file, none of them empty. No region at all only from a label map without
        any label: the reader has looked and seen nothing.

    Raises:
        TheraflowError: not such a file; damaged; nothing drawn; a region that has no voxel on the grid.
    """
    path = Path(path)
    if not path.is_file():
        raise TheraflowError(f"The annotation {path} is no file; correct the column lesions of scans.tsv.")
    target = grid_of(grid)
    label_map = path.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".nhdr"))
    try:
        regions = _label_map_regions(path, target) if label_map else _dicom_regions(path, target)
        found = [_annotation(name, crop, target, path) for name, crop in regions]
    except TheraflowError:
        raise
    except Exception as error:
        # pydicom, highdicom and SimpleITK raise whatever a damaged file makes them stumble over; their words may
        # quote the file, so that only the kind of error is told.
        raise TheraflowError(
            f"The annotation {path} cannot be read ({type(error).__name__}); it is damaged or no RTSTRUCT, DICOM SEG, "
            "NIfTI or NRRD file: export it again."
        ) from error
    if not found and not label_map:
        raise TheraflowError(
            f"The annotation {path} has no region; draw one, or give an empty NIfTI label map where there is none."
        )
    return found


def _annotation(name: str, crop: _Crop, grid: Grid, path: Path) -> Annotation:
    start, inside = crop
    if not inside.any():
        raise TheraflowError(
            f"Region '{name}' of {path} holds no voxel of the image: it is drawn on another scan or "
            "is smaller than a voxel; correct the annotation."
        )
    (box,) = ndimage.find_objects(inside.view(np.uint8), max_label=1)
    start = tuple(int(a + part.start) for a, part in zip(start, box, strict=True))
    return Annotation(name, start, inside[box].copy(), grid)


def _dicom_regions(path: Path, grid: Grid) -> Iterator[tuple[str, _Crop]]:
    dataset = pydicom.dcmread(path)
    modality = str(dataset.get("Modality", ""))
    if modality == "RTSTRUCT":
        return _structures(dataset, path, grid)
    if modality == "SEG":
        from highdicom.seg import Segmentation  # only here: it takes a second to load

        return _segments(Segmentation.from_dataset(dataset, copy=False), path, grid)
    raise TheraflowError(
        f"The annotation {path} is DICOM, but of another Modality than RTSTRUCT or SEG; give one of these or a "
        "label map in NIfTI or NRRD."
    )


# --- RTSTRUCT ---------------------------------------------------------------------------------------------------


def _structures(dataset: Dataset, path: Path, grid: Grid) -> Iterator[tuple[str, _Crop]]:
    names = {int(item.ROINumber): str(item.get("ROIName", "")).strip() for item in dataset.StructureSetROISequence}
    drawn = []
    for item in dataset.get("ROIContourSequence") or ():
        name = names.get(int(item.ReferencedROINumber)) or f"ROI {item.ReferencedROINumber}"
        contours = _closed_contours(item.get("ContourSequence") or (), name, path)
        if contours:
            drawn.append((name, contours))
        else:
            logger.warning("Region '%s' of %s has no closed contour and is left out.", name, path)
    step_mm = _usual_step_mm([contours for _, contours in drawn], grid)
    for name, contours in drawn:
        yield name, fill_contours(contours, grid, f"'{name}' of {path}", step_mm)


def _closed_contours(items: Sequence[Dataset], name: str, path: Path) -> list[np.ndarray]:
    """The points of a region's closed contours, LPS mm; contours that were written twice count once."""
    contours, seen = [], set()
    for item in items:
        kind = str(item.get("ContourGeometricType", "without a type")).strip()
        if kind == "POINT":
            continue
        if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            raise TheraflowError(
                f"Region '{name}' of {path} has a contour of Contour Geometric Type {kind}; only closed planar "
                "contours can be filled."
            )
        points = np.array(item.ContourData, float).reshape(-1, 3)
        if not (np.abs(points) < _FARTHEST_MM).all():  # also where there is NaN
            raise TheraflowError(f"Region '{name}' of {path} has contour points that are no places; export it again.")
        if len(points) < 3:
            continue
        # By the even-odd rule a contour that an export wrote twice would undo itself.
        key = points.tobytes()
        if kind == "CLOSED_PLANAR" and key in seen:
            logger.warning("Region '%s' of %s has the same contour twice; it counts once.", name, path)
            continue
        seen.add(key)
        contours.append(points)
    return contours


def _usual_step_mm(regions: Sequence[Sequence[np.ndarray]], grid: Grid) -> float | None:
    """The median distance between neighbouring contour planes of all regions of a file; None without any."""
    steps = [_steps_mm(contours, grid) for contours in regions]
    many = [step for between in steps if len(between) > 1 for step in between]
    found = many or [step for between in steps for step in between if step <= _THICKEST_SLICE_MM]
    return float(np.median(found)) if found else None


def _steps_mm(contours: Sequence[np.ndarray], grid: Grid) -> np.ndarray:
    """The distances between neighbouring planes of contours."""
    if _parallel(contours, grid):
        heights = [_index(points, grid)[:, 2].mean() * grid.spacing[2] for points in contours]
    else:
        normal = _normal(contours)
        heights = [points.mean(axis=0) @ normal for points in contours]
    steps = np.diff(np.sort(heights))
    return steps[steps > _SAME_PLANE_MM]


def _parallel(contours: Sequence[np.ndarray], grid: Grid) -> bool:
    """Whether contours are parallel to the slices of a grid."""
    return max(np.ptp(_index(points, grid)[:, 2]) for points in contours) <= _OUT_OF_PLANE


def _normal(contours: Sequence[np.ndarray]) -> np.ndarray:
    """The unit vector to which planar, parallel contours are perpendicular."""
    points = np.concatenate([points - points.mean(axis=0) for points in contours])
    return np.linalg.eigh(points.T @ points)[1][:, 0]


def fill_contours(
    contours: Sequence[np.ndarray], grid: Grid, where: str = "a region", step_mm: float | None = None
) -> _Crop:
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
    index = _index(np.concatenate(contours), grid)
    if (index < -1).any() or (index > grid.size).any():
        logger.warning("The contours of %s reach beyond the image; what lies outside is cut off.", where)
    if _parallel(contours, grid):
        return _fill_slices(contours, grid, where, step_mm)
    step_mm = step_mm or grid.spacing[2]
    own = _grid_along(contours, grid, where, step_mm)
    return _onto(*_fill_slices(contours, own, where, step_mm), own, grid, "linear")


def _grid_along(contours: Sequence[np.ndarray], grid: Grid, where: str, step_mm: float) -> Grid:
    """A grid whose slices are parallel to the contours, at least twice as fine as `grid`, over all that it covers."""
    normal = _normal(contours)
    in_plane = _axes(grid)[:, np.abs(normal @ _axes(grid)).argmin()]
    first = in_plane - (in_plane @ normal) * normal
    first /= np.linalg.norm(first)
    axes = np.column_stack([first, np.cross(normal, first), normal])
    # Half of 1 mm over the voxels of `grid` that a step of 1 mm along each axis crosses.
    spacing = 0.5 / np.linalg.norm(np.linalg.inv(_axes(grid)) @ axes / np.array(grid.spacing)[:, None], axis=0)
    if max(np.ptp(points @ normal) for points in contours) > _OUT_OF_PLANE * 2 * spacing[2]:
        raise TheraflowError(f"The contours of {where} are not planar and parallel to each other; export them again.")
    # A whole number of slices to a step, and none of them on the rim half a step beyond the last plane: otherwise a
    # flat end would take or leave one.
    steps = _steps_mm(contours, grid)
    step = np.median(steps) if len(steps) else step_mm
    parts = int(np.ceil(step / spacing[2]))
    spacing[2] = step / parts
    corners = _points(np.where(_CORNERS, grid.size, -1.0), grid)
    low, high = (corners @ axes).min(axis=0), (corners @ axes).max(axis=0)
    size = np.ceil((high - low) / spacing).astype(int) + 1
    plane = contours[0].mean(axis=0) @ normal + (0 if parts % 2 else spacing[2] / 2)
    low[2] += (plane - low[2]) % spacing[2]
    return _grid(size, spacing, axes @ low, axes)


def _fill_slices(contours: Sequence[np.ndarray], grid: Grid, where: str, step_mm: float | None) -> _Crop:
    """`fill_contours` where the contours are parallel to the slices of the grid."""
    planes: dict[float, list[np.ndarray]] = {}
    for points in contours:
        # Index coordinates x, y, z; the last digits are noise of the text in the file.
        index = np.round(_index(points, grid), 6)
        height = round(float(index[:, 2].mean()), 4)
        tolerance = _SAME_PLANE_MM / grid.spacing[2]
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
        connected = steps <= _GAP * np.maximum(padded[:-2], padded[2:])
    else:
        connected = steps <= _GAP * step
    own = np.where(connected, steps, np.nan)
    to_lower, to_upper = np.concatenate([[np.nan], own]), np.concatenate([own, [np.nan]])
    alone = np.median(steps[connected]) if connected.any() else step
    if len(steps):
        alone = min(alone, steps.min())
    below = np.where(np.isfinite(to_upper), to_upper, np.where(np.isfinite(to_lower), to_lower, alone)) / 2
    above = np.where(np.isfinite(to_lower), to_lower, np.where(np.isfinite(to_upper), to_upper, alone)) / 2
    return connected, below, above


_Plane = tuple[Sequence[np.ndarray], np.ndarray]


def _passage(lower: _Plane, upper: _Plane, spacing: np.ndarray) -> Callable[[float], np.ndarray]:
    """The filled outline at a fraction of the way from one plane (polygons, filled) to the next."""
    leave = _fading(lower, upper, spacing)
    enter = _fading(upper, lower, spacing)
    return lambda fraction: (leave > fraction) | (enter >= 1 - fraction)


def _fading(plane: _Plane, other: _Plane, spacing: np.ndarray) -> np.ndarray:
    """At which fraction of the way to the other plane each pixel is left; 0 outside `plane`, 2 inside both."""
    (polygons, filled), (other_polygons, other_filled) = plane, other
    fading = np.where(filled, np.where(other_filled, 2.0, 0.5), 0.0)
    parts, _ = ndimage.label(filled, np.ones((3, 3)))
    kept = np.unique(parts[other_filled])
    rows, columns = np.nonzero(filled & ~other_filled & np.isin(parts, kept[kept > 0]))
    if len(rows):
        points = np.column_stack([columns, rows]) * spacing
        distance, other_distance = (
            KDTree(_outline_points(each, spacing)).query(points)[0] for each in (polygons, other_polygons)
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


# --- voxels of another grid -------------------------------------------------------------------------------------


def _onto(
    start: tuple[int, int, int], values: np.ndarray, source: Grid, grid: Grid, interpolation: str = "nearest"
) -> _Crop:
    """Voxels of `grid` at whose centres the values of a box of `source`, 0 around it, are at least 0.5."""
    values = values.astype(np.float32 if interpolation == "linear" else np.uint8)
    first, sampled = _sampled(start, values, source, grid, interpolation)
    return first, sampled >= 0.5


def _sampled(
    start: tuple[int, int, int], values: np.ndarray, source: Grid, grid: Grid, interpolation: str
) -> tuple[tuple[int, int, int], np.ndarray]:
    """The values of a box of `source`, 0 around it, at the voxel centres of the box of `grid` that covers it."""
    # One voxel of zeros around: interpolation ends halfway to the neighbour, not at the rim of the box.
    image = _image(np.pad(values, 1), source, tuple(a - 1 for a in start))
    index = _index(_points(_CORNERS * (np.array(image.GetSize()) - 1.0), grid_of(image)), grid)
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
        _points(low[None].astype(float), grid)[0].tolist(),
        grid.spacing,
        grid.direction,
    )
    return first, sitk.GetArrayFromImage(sampled)


def _boxed(values: np.ndarray) -> _Crop:
    """The box of an array (z, y, x) that holds all that is not 0."""
    (box,) = ndimage.find_objects((values > 0).view(np.uint8), max_label=1)
    if box is None:
        return (0, 0, 0), values[:0, :0, :0]
    return tuple(part.start for part in box), values[box]


# --- DICOM SEG --------------------------------------------------------------------------------------------------


def _segments(segmentation: "Segmentation", path: Path, grid: Grid) -> Iterator[tuple[str, _Crop]]:
    fractional = str(segmentation.SegmentationType) == "FRACTIONAL"
    geometry = segmentation.get_volume_geometry(allow_missing_positions=True)
    if geometry is not None and geometry.spatial_shape[0] > _MOST_SLICES:
        raise TheraflowError(f"The frames of {path} lie at positions that are damaged; export it again.")
    uneven = _UnevenFrames(segmentation, path) if geometry is None else None
    for number in segmentation.segment_numbers:
        name = str(segmentation.get_segment_description(number).get("SegmentLabel", "")).strip() or f"segment {number}"
        if uneven:
            source, start, values = uneven.on_even_slices(number)
        else:
            kind = np.float32 if fractional else np.uint8
            volume = segmentation.get_volume(segment_numbers=[number], dtype=kind, allow_missing_positions=True)
            start, values = _boxed(volume.array[..., 0])
            # The affine maps (slice, row, column); axes may be left-handed here as well as there.
            affine = np.asarray(volume.affine)[:3, [2, 1, 0, 3]]
            spacing = np.linalg.norm(affine[:, :3], axis=0)
            source = _grid(np.array(volume.spatial_shape[::-1]), spacing, affine[:, 3], affine[:, :3] / spacing)
        if values.size:
            yield name, _onto(start, values, source, grid, "linear" if fractional else "nearest")
        else:
            logger.warning("Segment '%s' of %s is empty and is left out.", name, path)


class _UnevenFrames:
    """A segmentation whose slices are not evenly spaced, as those of some whole-body PET scans.

    Each slice lasts until halfway to its neighbours, where these are no further than 1.5 usual steps; else for half
    a usual step.
    """

    def __init__(self, segmentation: "Segmentation", path: Path) -> None:
        """Place the frames.

        Raises:
            TheraflowError: frames that are not parallel and one above the other.
        """
        self.segmentation = segmentation
        shared, *_ = segmentation.SharedFunctionalGroupsSequence
        frames = segmentation.PerFrameFunctionalGroupsSequence
        cosines = {tuple(_group(shared, frame, "PlaneOrientationSequence").ImageOrientationPatient) for frame in frames}
        positions = np.array([_group(shared, f, "PlanePositionSequence").ImagePositionPatient for f in frames], float)
        row, column = np.array(next(iter(cosines)), float).reshape(2, 3)
        self.axes = np.column_stack([row, column, np.cross(row, column)])
        placed = positions @ self.axes
        if len(cosines) > 1 or np.ptp(placed[:, :2], axis=0).max() > _SAME_PLANE_MM:
            raise TheraflowError(f"The frames of {path} are no stack of slices; export it on such or as a label map.")
        self.corner = placed[0, :2]
        order = np.sort(placed[:, 2])
        self.heights = order[np.concatenate([[True], np.diff(order) > _SAME_PLANE_MM])]
        self.slices = np.abs(placed[:, 2, None] - self.heights).argmin(axis=1)
        self.segments = [
            None if segmentation.SegmentationType == "LABELMAP"
            else int(_group(shared, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            for frame in frames
        ]  # fmt: skip
        measures = _group(shared, frames[0], "PixelMeasuresSequence")
        self.pixel = [float(measures.PixelSpacing[1]), float(measures.PixelSpacing[0])]
        steps = np.diff(self.heights)
        self.step = float(np.median(steps))
        half = np.where(steps <= _GAP * self.step, steps, self.step) / 2
        self.below = np.concatenate([[self.step / 2], half])
        self.above = np.concatenate([half, [self.step / 2]])
        if np.ptp(self.heights) > _MOST_SLICES * self.step:
            raise TheraflowError(f"The frames of {path} lie at positions that are damaged; export it again.")

    def on_even_slices(self, number: int) -> tuple[Grid, tuple[int, int, int], np.ndarray]:
        """A segment on slices of an eighth of the usual step: their grid, and a box with the voxels."""
        of_segment = [k for k, segment in enumerate(self.segments) if segment in (None, number)]
        spacing = np.array([*self.pixel, self.step / 8])
        low = np.array([*self.corner, self.heights[0] - self.below[0] + spacing[2] / 2])
        even = np.arange(low[2], self.heights[-1] + self.above[-1], spacing[2])
        columns, rows = int(self.segmentation.Columns), int(self.segmentation.Rows)
        source = _grid(np.array([columns, rows, len(even)]), spacing, self.axes @ low, self.axes)
        stack = np.zeros((len(self.heights), rows, columns), np.float32)
        for frame in of_segment:
            pixels = self.segmentation.get_stored_frame(frame + 1)
            stack[self.slices[frame]] = pixels == number if self.segments[frame] is None else pixels
        stack /= float(self.segmentation.get("MaximumFractionalValue", 1))
        (_, y, x), box = _boxed(stack)
        columns_rows = slice(y, y + box.shape[1]), slice(x, x + box.shape[2])
        nearest = np.abs(even[:, None] - self.heights).argmin(axis=1)
        offset = even - self.heights[nearest]
        covered = (offset >= -self.below[nearest]) & (offset < self.above[nearest])
        values = stack[(nearest, *columns_rows)] * covered[:, None, None]
        return source, (0, y, x), values


def _group(shared: Dataset, frame: Dataset, name: str) -> Dataset:
    """A functional group of a frame, which may hold for all frames."""
    return (frame.get(name) or shared[name].value)[0]


# --- label maps -------------------------------------------------------------------------------------------------


def names_of_labels(path: Path | str) -> dict[int, str]:
    """The names of its labels that a NIfTI or NRRD label map brings: in its sidecar, else in a NIfTI header.

    Args:
        path: the label map.

    Returns:
        Name by label; may be empty.

    Raises:
        TheraflowError: a sidecar that cannot be read or whose `labels` are no names of whole numbers.
    """
    path = Path(path)
    stem = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".seg"):
        stem = stem.removesuffix(suffix)
    sidecar = path.with_name(stem + ".json")
    if sidecar.is_file():
        content = read_json(sidecar)
        labels = content.get("labels") if isinstance(content, dict) else None
        if labels:
            try:
                return {int(label): str(name) for label, name in labels.items()}
            except (AttributeError, ValueError) as error:
                raise TheraflowError(f'`labels` of {sidecar} must be names by label: {{"1": "name"}}.') from error
    return _header_names(path) if path.name.endswith((".nii", ".nii.gz")) else {}


def _header_names(path: Path) -> dict[int, str]:
    """The label table (Connectome Workbench's) in a NIfTI header extension, as TotalSegmentator writes it."""
    import nibabel  # only here: SimpleITK does not read header extensions

    for extension in nibabel.load(path).header.extensions:
        content = extension.get_content()
        text = content.decode("utf-8", errors="replace") if isinstance(content, bytes) else str(content)
        start = text.find("<LabelTable>")
        end = text.find("</LabelTable>")
        if start >= 0 and end >= 0:
            table = ElementTree.fromstring(text[start:end] + "</LabelTable>")
            return {int(label.attrib["Key"]): (label.text or "").strip() for label in table.iter("Label")}
    return {}


def _label_map_regions(path: Path, grid: Grid) -> Iterator[tuple[str, _Crop]]:
    image, metadata = _read_label_map(path)
    source = grid_of(image)
    named = {int(m[1]): name for key, name in metadata.items() if (m := re.fullmatch(r"Segment(\d+)_Name", key))}
    layers = image.GetNumberOfComponentsPerPixel()
    segments: dict[tuple[int, int], str] = {}
    for number, name in sorted(named.items()):
        # Slicer before 4.11 gave every segment a layer of its own and no label value.
        layer = int(metadata.get(f"Segment{number}_Layer", number if layers > 1 else 0))
        value = int(metadata.get(f"Segment{number}_LabelValue", 1))
        if (layer, value) in segments or not 0 <= layer < layers:
            raise TheraflowError(f"The segments in the header of {path} do not fit its layers; export it again.")
        segments[layer, value] = name.strip() or f"segment {number}"
    if layers > 1 and not segments:
        raise TheraflowError(f"The label map {path} must be a 3-D image with one value a voxel.")
    arrays = sitk.GetArrayViewFromImage(image).reshape(*source.size[::-1], layers)
    names = {} if segments else names_of_labels(path)
    crops = {}
    for layer in range(layers):
        for value, crop in _labels(arrays[..., layer], source, grid, path):
            crops[layer, value] = crop
            segments.setdefault((layer, value), names.get(value, f"label {value}"))
    for key, name in segments.items():
        if key in crops:
            yield name, crops[key]
        else:
            logger.warning("Region '%s' of %s is empty and is left out.", name, path)


def _check_nifti(path: Path, voxels: int, reader: sitk.ImageFileReader) -> None:
    """Refuse a NIfTI file that SimpleITK would read nevertheless: cut off, or with a damaged signature."""
    if reader.GetMetaData("nifti_type") == "0":  # then it is taken as Analyze, without orientation
        raise TheraflowError(f"The label map {path} is no NIfTI file by its signature; export it again.")
    promised = float(reader.GetMetaData("vox_offset")) + voxels * int(reader.GetMetaData("bitpix")) / 8
    present = 0
    # Read to its end, a compressed file is also held to its checksum.
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        while block := file.read(1 << 22):
            present += len(block)
    if present < promised:
        raise TheraflowError(f"The label map {path} is shorter than its header says; export it again.")


def _labels(array: np.ndarray, source: Grid, grid: Grid, path: Path) -> Iterator[tuple[int, _Crop]]:
    """Every label of an array with its voxels on the grid."""
    if array.min() < 0 or (array.dtype.kind == "f" and not np.array_equal(array, np.rint(array))):  # also NaN
        raise TheraflowError(f"The label map {path} holds values that are no labels (whole numbers from 0).")
    start, box = _boxed(array)
    values = np.unique(box[box > 0])
    # Numbered one after the other, for labels may be as large as 2^31.
    numbered = np.searchsorted(values, box, side="right").astype(np.uint16 if len(values) < 65536 else np.int32)
    first, sampled = _sampled(start, numbered, source, grid, "nearest")
    found = ndimage.find_objects(sampled, max_label=len(values))
    for number, (value, place) in enumerate(zip(values, found, strict=True), start=1):
        if place is None:
            yield int(value), (first, np.zeros((0, 0, 0), bool))
        else:
            yield int(value), (tuple(a + b.start for a, b in zip(first, place, strict=True)), sampled[place] == number)


def _read_label_map(path: Path) -> tuple[sitk.Image, Mapping[str, Any]]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    voxels = int(np.prod(reader.GetSize(), dtype=object)) * reader.GetNumberOfComponents()
    detached = path.name.lower().endswith(".nhdr")
    if reader.GetDimension() != 3:
        raise TheraflowError(f"The label map {path} must be a 3-D image with one value a voxel.")
    # Before it is read, for a damaged size takes all memory there is.
    if not detached and voxels > _LARGEST_COMPRESSION * path.stat().st_size:
        raise TheraflowError(f"The label map {path} is shorter than its header says; export it again.")
    if reader.HasMetaDataKey("nifti_type"):
        _check_nifti(path, voxels, reader)
    image = reader.Execute()
    return image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
