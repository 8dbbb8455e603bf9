"""A reader's annotation on the grid of an image: RTSTRUCT, DICOM SEG, NIfTI or NRRD label map."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.dicom.regions.crops import Crop
from theraflow.dicom.regions.labelmaps import label_map_regions
from theraflow.dicom.regions.segmentation import segment_regions
from theraflow.dicom.regions.structures import structure_regions
from theraflow.errors import TheraflowError
from theraflow.images import grid_of
from theraflow.nifti import Grid


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
        regions = label_map_regions(path, target) if label_map else _dicom_regions(path, target)
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


def _annotation(name: str, crop: Crop, grid: Grid, path: Path) -> Annotation:
    start, inside = crop
    if not inside.any():
        raise TheraflowError(
            f"Region '{name}' of {path} holds no voxel of the image: it is drawn on another scan or "
            "is smaller than a voxel; correct the annotation."
        )
    (box,) = scipy.ndimage.find_objects(inside.view(np.uint8), max_label=1)
    start = tuple(int(a + part.start) for a, part in zip(start, box, strict=True))
    return Annotation(name, start, inside[box].copy(), grid)


def _dicom_regions(path: Path, grid: Grid) -> Iterator[tuple[str, Crop]]:
    import pydicom  # only here: most annotations are label maps, and loading it takes time

    dataset = pydicom.dcmread(path)
    modality = str(dataset.get("Modality", ""))
    if modality == "RTSTRUCT":
        return structure_regions(dataset, path, grid)
    if modality == "SEG":
        return segment_regions(dataset, path, grid)
    raise TheraflowError(
        f"The annotation {path} is DICOM, but of another Modality than RTSTRUCT or SEG; give one of these or a "
        "label map in NIfTI or NRRD."
    )
