"""The regions of a DICOM Segmentation: binary, fractional, label map; on evenly spaced slices or not."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from theraflow.dicom.regions.contours import GAP, SAME_PLANE_MM
from theraflow.dicom.regions.crops import Crop, grid_of_axes, inside_on_grid, nonzero_box
from theraflow.errors import TheraflowError
from theraflow.nifti import Grid

if TYPE_CHECKING:
    from highdicom import VolumeGeometry
    from highdicom.seg import Segmentation
    from pydicom import Dataset

logger = logging.getLogger(__name__)

# No scan has more slices; positions that ask for more are damaged.
_MOST_SLICES = 20_000


def segment_regions(dataset: "Dataset", path: Path, grid: Grid) -> Iterator[tuple[str, Crop]]:
    """The segments that have voxels, in the order of the file; a warning tells the others.

    Args:
        dataset: the segmentation; it is taken over and changed.
        path: its file, for messages.
        grid: the geometry of the result.

    Yields:
        Name of the segment, and the voxels of `grid` at whose centres it is at least 0.5: fractions are interpolated
        linearly, other segments have the value of the nearest voxel.

    Raises:
        TheraflowError: frames that are no stack of slices, or that lie at damaged positions.
    """
    from highdicom.seg import Segmentation  # only here: it takes a second to load

    segmentation = Segmentation.from_dataset(dataset, copy=False)
    fractional = str(segmentation.SegmentationType) == "FRACTIONAL"
    geometry = segmentation.get_volume_geometry(allow_missing_positions=True)
    if geometry is not None and geometry.spatial_shape[0] > _MOST_SLICES:
        raise TheraflowError(f"The frames of {path} lie at positions that are damaged; export it again.")
    uneven = _UnevenFrames(segmentation, path) if geometry is None else None
    slices = {} if geometry is None else _slices_of_segments(segmentation, geometry)
    for number in segmentation.segment_numbers:
        name = str(segmentation.get_segment_description(number).get("SegmentLabel", "")).strip() or f"segment {number}"
        if uneven:
            source, start, values = uneven.on_even_slices(number)
        elif number in slices:
            source, start, values = _on_own_slices(segmentation, number, slices[number], fractional)
        else:
            values = np.zeros((0, 0, 0))
        if values.size:
            yield name, inside_on_grid(start, values, source, grid, "linear" if fractional else "nearest")
        else:
            logger.warning("Segment '%s' of %s is empty and is left out.", name, path)


def _slices_of_segments(segmentation: "Segmentation", geometry: "VolumeGeometry") -> dict[int, tuple[int, int]]:
    """The first slice and the one behind the last that have a frame of a segment, or pixels of it in a label map."""
    shared, *_ = segmentation.SharedFunctionalGroupsSequence
    frames = segmentation.PerFrameFunctionalGroupsSequence
    positions = [_group(shared, frame, "PlanePositionSequence").ImagePositionPatient for frame in frames]
    slices = geometry.map_reference_to_indices(np.array(positions, float), round_output=True)[:, 0].tolist()
    found: dict[int, tuple[int, int]] = {}
    for number, (frame, k) in enumerate(zip(frames, slices, strict=True), start=1):
        if segmentation.SegmentationType == "LABELMAP":
            segments = np.flatnonzero(np.bincount(segmentation.get_stored_frame(number).ravel())).tolist()
        else:
            segments = [int(_group(shared, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)]
        for segment in segments:
            first, behind = found.get(segment, (k, k + 1))
            found[segment] = min(first, k), max(behind, k + 1)
    return found


def _on_own_slices(
    segmentation: "Segmentation", number: int, slices: tuple[int, int], fractional: bool
) -> tuple[Grid, tuple[int, int, int], np.ndarray]:
    """A segment of evenly spaced slices: the grid of its own slices, and a box of it with the voxels."""
    label_map = segmentation.SegmentationType == "LABELMAP"
    volume = segmentation.get_volume(
        segment_numbers=[number],
        combine_segments=label_map,  # of a single segment this is a mask, too, and much faster
        relabel=label_map,
        slice_start=slices[0],
        slice_end=slices[1],
        as_indices=True,
        dtype=np.float32 if fractional else np.uint8,
        allow_missing_positions=True,
    )
    # The affine maps (slice, row, column); axes may be left-handed here as well as there.
    affine = np.asarray(volume.affine)[:3, [2, 1, 0, 3]]
    spacing = np.linalg.norm(affine[:, :3], axis=0)
    source = grid_of_axes(np.array(volume.spatial_shape[::-1]), spacing, affine[:, 3], affine[:, :3] / spacing)
    return source, *nonzero_box(volume.array if label_map else volume.array[..., 0])


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
        if len(cosines) > 1 or np.ptp(placed[:, :2], axis=0).max() > SAME_PLANE_MM:
            raise TheraflowError(f"The frames of {path} are no stack of slices; export it on such or as a label map.")
        self.corner = placed[0, :2]
        order = np.sort(placed[:, 2])
        self.heights = order[np.concatenate([[True], np.diff(order) > SAME_PLANE_MM])]
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
        half = np.where(steps <= GAP * self.step, steps, self.step) / 2
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
        source = grid_of_axes(np.array([columns, rows, len(even)]), spacing, self.axes @ low, self.axes)
        stack = np.zeros((len(self.heights), rows, columns), np.float32)
        for frame in of_segment:
            pixels = self.segmentation.get_stored_frame(frame + 1)
            stack[self.slices[frame]] = pixels == number if self.segments[frame] is None else pixels
        stack /= float(self.segmentation.get("MaximumFractionalValue", 1))
        (_, y, x), box = nonzero_box(stack)
        columns_rows = slice(y, y + box.shape[1]), slice(x, x + box.shape[2])
        nearest = np.abs(even[:, None] - self.heights).argmin(axis=1)
        offset = even - self.heights[nearest]
        covered = (offset >= -self.below[nearest]) & (offset < self.above[nearest])
        values = stack[(nearest, *columns_rows)] * covered[:, None, None]
        return source, (0, y, x), values


def _group(shared: "Dataset", frame: "Dataset", name: str) -> "Dataset":
    """A functional group of a frame, which may hold for all frames."""
    return (frame.get(name) or shared[name].value)[0]
