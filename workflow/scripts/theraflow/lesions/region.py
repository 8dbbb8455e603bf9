"""A region of one scan: a mask in its bounding box, so that no lesion costs a pass over the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.images import grid_of, image_of_crop, points_of_index, to_array
from theraflow.registration import Passage, carry_mask, carry_points

Box = tuple[slice, slice, slice]
CONNECTED = np.ones((3, 3, 3), dtype=bool)  # voxels that touch by a face, an edge or a corner: 26 neighbours


@dataclass(frozen=True)
class Region:
    """A set of voxels of one grid.

    Attributes:
        start: index (z, y, x) of the first voxel of the box in the grid; negative where the box begins
            outside it.
        mask: bool array (z, y, x) of the box, True inside.
    """

    start: tuple[int, int, int]
    mask: np.ndarray

    @staticmethod
    def of(mask: np.ndarray) -> Region:
        """The region of a mask (z, y, x) on the whole grid; a box without voxels where the mask is empty."""
        inside = mask != 0
        found = scipy.ndimage.find_objects(inside.view(np.uint8), max_label=1)[0]
        box = found or (slice(0, 0),) * 3
        return Region(tuple(part.start for part in box), inside[box].copy())

    @property
    def stop(self) -> tuple[int, int, int]:
        """Index (z, y, x) behind the last voxel of the box."""
        return tuple(a + n for a, n in zip(self.start, self.mask.shape, strict=True))

    @property
    def box(self) -> Box:
        """The box as slices into an array of the grid; only for a region that lies within the grid."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels inside."""
        return int(np.count_nonzero(self.mask))

    def indices(self) -> np.ndarray:
        """Index (z, y, x) of every voxel inside, shape (N, 3)."""
        return np.argwhere(self.mask) + self.start

    def on_box(self, box: Box) -> np.ndarray:
        """The mask on another box of the same grid; what lies outside that box is cut off."""
        result = np.zeros([part.stop - part.start for part in box], dtype=bool)
        low = [max(part.start, a) for part, a in zip(box, self.start, strict=True)]
        high = [min(part.stop, b) for part, b in zip(box, self.stop, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            there = tuple(slice(a - part.start, b - part.start) for a, b, part in zip(low, high, box, strict=True))
            here = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, self.start, strict=True))
            result[there] = self.mask[here]
        return result

    def clipped(self, shape: tuple[int, int, int]) -> Region:
        """The part that lies within a grid of `shape` (z, y, x)."""
        box = tuple(slice(0, n) for n in shape)
        low = [min(max(a, 0), n) for a, n in zip(self.start, shape, strict=True)]
        high = [min(max(b, 0), n) for b, n in zip(self.stop, shape, strict=True)]
        box = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
        return Region(tuple(low), self.on_box(box))


def union(regions: Sequence[Region]) -> Region:
    """All voxels of several regions of one grid; a box without voxels where there is no region."""
    if not regions:
        return Region((0, 0, 0), np.zeros((0, 0, 0), dtype=bool))
    start = np.min([region.start for region in regions], axis=0).tolist()
    stop = np.max([region.stop for region in regions], axis=0).tolist()
    mask = np.zeros(np.subtract(stop, start), dtype=bool)
    for region in regions:
        box = tuple(slice(a - s, b - s) for a, b, s in zip(region.start, region.stop, start, strict=True))
        mask[box] |= region.mask
    return Region(tuple(start), mask)


def pieces(region: Region) -> list[Region]:
    """The connected parts (26 neighbours) of a region."""
    labels, count = scipy.ndimage.label(region.mask, structure=CONNECTED)
    return [moved(piece, region.start) for piece in regions_of(labels, count)]


def moved(region: Region, by: Sequence[int]) -> Region:
    """The region some voxels (z, y, x) further."""
    return Region(tuple(a + b for a, b in zip(region.start, by, strict=True)), region.mask)


def spacing_zyx(grid: sitk.Image) -> np.ndarray:
    """Voxel size in mm in the order of array axes, shape (3,)."""
    return np.array(grid.GetSpacing()[::-1])


def surroundings(region: Region, shape: tuple[int, int, int], spacing_mm: np.ndarray, margin_mm: float) -> Box:
    """The region's box, `margin_mm` wider on all sides, within a grid of `shape` (z, y, x)."""
    widths = np.ceil(margin_mm / np.asarray(spacing_mm)).astype(int)
    return tuple(
        slice(max(a - w, 0), min(b + w, n))
        for a, b, w, n in zip(region.start, region.stop, widths.tolist(), shape, strict=True)
    )


def distance_outside(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Distance in mm of every voxel centre to the nearest one inside `mask`; infinite if that is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return scipy.ndimage.distance_transform_edt(~mask, sampling=spacing_mm)


def physical_points(indices: np.ndarray, grid: sitk.Image) -> np.ndarray:
    """Points (N, 3), x y z in LPS mm, of continuous indices (N, 3) in the order z, y, x."""
    return points_of_index(np.asarray(indices, float)[:, ::-1], grid_of(grid))


def centroid_mm(region: Region, grid: sitk.Image) -> np.ndarray:
    """Mean position of the voxels, x y z in LPS mm."""
    planes = region.mask.sum(axis=2)
    counts = planes.sum(axis=1), planes.sum(axis=0), region.mask.sum(axis=(0, 1))
    index = [start + n @ np.arange(len(n)) / n.sum() for start, n in zip(region.start, counts, strict=True)]
    return physical_points(np.array([index]), grid)[0]


def hottest_mm(values: np.ndarray, region: Region, grid: sitk.Image) -> np.ndarray:
    """Centre of the voxel of a region with the highest value, x y z in LPS mm."""
    inside = np.where(region.mask, values[region.box], -np.inf)
    return physical_points(np.add([np.unravel_index(np.argmax(inside), inside.shape)], region.start), grid)[0]


def regions_of(labels: np.ndarray, count: int) -> list[Region]:
    """The regions of the labels 1 to `count` of a label map (z, y, x), in one pass; without voxels where one is not."""
    found = scipy.ndimage.find_objects(labels, max_label=count)
    boxes = [box or (slice(0, 0),) * 3 for box in found]
    return [Region(tuple(part.start for part in box), labels[box] == label) for label, box in enumerate(boxes, start=1)]


def crop_of_grid(grid: sitk.Image, start: tuple[int, int, int], shape: tuple[int, int, int]) -> sitk.Image:
    """An empty image with the voxels of `grid` from `start` on (z, y, x), which may lie outside of it."""
    return image_of_crop(np.zeros(shape, np.uint8), grid_of(grid), start)


def region_image(region: Region, grid: sitk.Image) -> sitk.Image:
    """The region as a uint8 image of its box, in its place."""
    return image_of_crop(region.mask.astype(np.uint8), grid_of(grid), region.start)


CARRY_SLACK_MM = 20.0  # a deformation may bulge this far beyond the mapped corners of a box


def carry(region: Region, grid: sitk.Image, target: sitk.Image, way: Passage) -> Region:
    """A region of one scan on the grid of another.

    Args:
        region: on `grid`, the source scan's.
        grid: image of the source scan; only its geometry is read.
        target: image of the target scan; only its geometry is read.
        way: from source to target, see `theraflow.registration.passage`.

    Returns:
        The region on the target's grid, continued beyond it where the target scan does not reach so far:
        `clipped` cuts it, and the two counts of voxels tell how much is lost.
    """
    low, high = np.array(region.start) - 0.5, np.array(region.stop) - 0.5
    counts = np.ceil((high - low) * spacing_zyx(grid) / CARRY_SLACK_MM).astype(int) + 1
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = carry_points(physical_points(lattice, grid), way)
    reached = np.array([target.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])[:, ::-1]
    slack = CARRY_SLACK_MM / spacing_zyx(target)
    start = np.floor(reached.min(axis=0) - slack).astype(int)
    stop = np.ceil(reached.max(axis=0) + slack).astype(int) + 1
    crop = crop_of_grid(target, tuple(start.tolist()), tuple((stop - start).tolist()))
    carried = Region.of(to_array(carry_mask(region_image(region, grid), crop, way)))
    return Region(tuple(a + int(b) for a, b in zip(carried.start, start, strict=True)), carried.mask)
