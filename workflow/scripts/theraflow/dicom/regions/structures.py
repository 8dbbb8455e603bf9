"""The regions of a DICOM RT Structure Set."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from theraflow.dicom.regions.contours import fill_contours, plane_steps_mm
from theraflow.dicom.regions.crops import Crop
from theraflow.errors import TheraflowError
from theraflow.nifti import Grid

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

# No scan has thicker slices (mm): a longer step says nothing about the slices that a reader drew on.
_THICKEST_SLICE_MM = 10.0
# No point of a scan lies further from the origin (mm); one that does is damaged.
_FARTHEST_MM = 1e5


def structure_regions(dataset: "Dataset", path: Path, grid: Grid) -> Iterator[tuple[str, Crop]]:
    """The regions of a structure set that have closed contours, in the order of the file; a warning tells the others.

    Args:
        dataset: the structure set.
        path: its file, for messages.
        grid: the geometry to fill.

    Yields:
        Name of the region, and its voxels as `fill_contours` gives them.

    Raises:
        TheraflowError: contours that are no closed, planar, parallel outlines, or points that are no places.
    """
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


def _closed_contours(items: Sequence["Dataset"], name: str, path: Path) -> list[np.ndarray]:
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
    steps = [plane_steps_mm(contours, grid) for contours in regions]
    many = [step for between in steps if len(between) > 1 for step in between]
    found = many or [step for between in steps for step in between if step <= _THICKEST_SLICE_MM]
    return float(np.median(found)) if found else None
