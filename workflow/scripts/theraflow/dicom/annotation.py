"""A reader's annotation on the grid of an image: RTSTRUCT, DICOM SEG or a NIfTI label map."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset

from theraflow.dicom.header import tag_name, text
from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.images import from_array, read_image, resample, sidecar_path

logger = logging.getLogger(__name__)

# A contour may leave the slices of the grid by this fraction of a slice before it counts as drawn in another
# plane.
_OUT_OF_PLANE = 0.5
# Contours whose planes are this close (mm) lie in one plane.
_SAME_PLANE_MM = 0.01


@dataclass(frozen=True)
class Annotation:
    """One region that a reader has drawn.

    Attributes:
        name: the reader's name for it.
        mask: uint8 image, 1 inside, on the grid that was asked for.
    """

    name: str
    mask: sitk.Image


def read_annotation(path: Path | str, grid: sitk.Image) -> list[Annotation]:
    """Read a reader's regions onto the voxels of an image.

    A voxel belongs to a region when its centre does. RTSTRUCT: by the even-odd rule over all contours of a
    plane, so that inner contours and keyholes are holes; a slice takes the nearest contour plane. DICOM SEG:
    the segment's voxel at the centre; fractional segments count from 0.5, interpolated. NIfTI label map: the
    label at the centre, called by the sidecar's `labels` ({"1": "name"}) or `label 1`.

    Args:
        path: the file.
        grid: the image whose geometry the masks take (LPS, mm).

    Returns:
        The regions in the order of the file, none of them empty. No region at all only from a label map without
        any label: the reader has looked and seen nothing.

    Raises:
        TheraflowError: not such a file; nothing drawn; a region that has no voxel on the grid.
    """
    path = Path(path)
    if not path.is_file():
        raise TheraflowError(f"The annotation {path} is no file; correct the column lesions of scans.tsv.")
    if path.name.endswith((".nii", ".nii.gz")):
        found = _read_label_map(path, grid)
    else:
        found = _read_dicom(path, grid)
        if not found:
            raise TheraflowError(
                f"The annotation {path} has no region; draw one, or give an empty NIfTI label map where there is none."
            )
    for one in found:
        if not sitk.GetArrayViewFromImage(one.mask).any():
            raise TheraflowError(
                f"Region '{one.name}' of {path} holds no voxel of the image: it is drawn on another scan or "
                "is smaller than a voxel; correct the annotation."
            )
    return found


def _read_dicom(path: Path, grid: sitk.Image) -> list[Annotation]:
    try:
        dataset = pydicom.dcmread(path)
        modality = text(dataset, "Modality")
        if modality == "SEG":
            return _read_segmentation(highdicom.seg.Segmentation.from_dataset(dataset, copy=False), grid)
        if modality == "RTSTRUCT":
            return _read_structures(dataset, path, grid)
    except TheraflowError:
        raise
    except Exception as error:
        # pydicom and highdicom raise whatever a damaged object makes them stumble over.
        raise TheraflowError(f"The annotation {path} cannot be read ({error}); export it again.") from error
    raise TheraflowError(
        f"The annotation {path} has Modality {modality}; it must be RTSTRUCT, SEG or a NIfTI label map."
    )


def _read_structures(dataset: Dataset, path: Path, grid: sitk.Image) -> list[Annotation]:
    names = {int(item.ROINumber): text(item, "ROIName") for item in dataset.StructureSetROISequence}
    found = []
    for item in dataset.ROIContourSequence:
        name = names.get(int(item.ReferencedROINumber)) or f"ROI {item.ReferencedROINumber}"
        contours = [_points(contour, name, path) for contour in item.get("ContourSequence") or ()]
        contours = [contour for contour in contours if contour is not None]
        if not contours:
            logger.warning("Region '%s' of %s has no closed contour and is left out.", name, path)
            continue
        found.append(Annotation(name, from_array(fill_contours(contours, grid, f"'{name}' of {path}"), grid)))
    return found


def _points(contour: Dataset, name: str, path: Path) -> np.ndarray | None:
    kind = text(contour, "ContourGeometricType")
    if kind == "POINT":
        return None
    if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
        raise TheraflowError(
            f"Region '{name}' of {path} has a contour of {tag_name('ContourGeometricType')} {kind}; only "
            "closed planar contours can be filled."
        )
    return np.array(contour.ContourData, float).reshape(-1, 3)


def fill_contours(contours: Sequence[np.ndarray], grid: sitk.Image, where: str = "a region") -> np.ndarray:
    """Voxels whose centres lie inside closed planar contours.

    In a plane the even-odd rule holds over all contours together. A centre on an edge lies inside where the
    inside is to its right or below: of two regions that share the edge exactly one has it. Each slice of the
    grid takes the nearest contour plane, if that is no further than half the distance between contour planes
    (of the grid's slices where there is one plane), so that regions drawn on thicker or thinner slices keep
    their volume.

    Args:
        contours: points of each contour, shape (points, 3), LPS mm.
        grid: the image.
        where: the region, for messages.

    Returns:
        bool array, z y x.

    Raises:
        TheraflowError: contours not parallel to the slices of the grid.
    """
    columns, rows, slices = grid.GetSize()
    axes = np.array(grid.GetDirection()).reshape(3, 3)
    spacing = np.array(grid.GetSpacing())
    planes: dict[float, list[np.ndarray]] = {}
    for points in contours:
        # Index coordinates x, y, z; the last digits are noise of the text in the file.
        index = np.round((points - grid.GetOrigin()) @ axes / spacing, 6)
        if np.ptp(index[:, 2]) > _OUT_OF_PLANE:
            raise TheraflowError(f"The contours of {where} are not parallel to the slices of the image.")
        height = round(float(index[:, 2].mean()), 4)
        tolerance = _SAME_PLANE_MM / spacing[2]
        plane = next((known for known in planes if abs(known - height) <= tolerance), height)
        planes.setdefault(plane, []).append(index[:, :2])
    heights = np.array(sorted(planes))
    reach = np.round(np.median(np.diff(heights)), 4) / 2 if len(heights) > 1 else 0.5
    mask = np.zeros((slices, rows, columns), bool)
    for slice_ in range(slices):
        offset = heights - slice_
        # A plane at the middle between two slices belongs to the lower one.
        near = np.flatnonzero((offset > -reach + 1e-3) & (offset <= reach + 1e-3))
        if len(near):
            mask[slice_] = _fill_plane(planes[heights[near[np.abs(offset[near]).argmin()]]], rows, columns)
    return mask


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


def _read_segmentation(segmentation: highdicom.seg.Segmentation, grid: sitk.Image) -> list[Annotation]:
    fractional = segmentation.segmentation_type == highdicom.seg.SegmentationTypeValues.FRACTIONAL
    found = []
    for number in segmentation.segment_numbers:
        volume = segmentation.get_volume(segment_numbers=[number], combine_segments=False, allow_missing_positions=True)
        image = _to_image(volume.array[..., 0], np.asarray(volume.affine))
        if fractional:
            mask = resample(sitk.Cast(image, sitk.sitkFloat32), grid, interpolation="linear") >= 0.5
        else:
            mask = resample(sitk.Cast(image, sitk.sitkUInt8), grid, interpolation="nearest") > 0
        name = text(segmentation.get_segment_description(number), "SegmentLabel") or f"segment {number}"
        found.append(Annotation(name, mask))
    return found


def _to_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image of an array (slice, row, column) whose indices `affine` maps to LPS mm."""
    if np.linalg.det(affine[:3, :3]) > 0:  # (slice, row, column) is then left-handed as (x, y, z)
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
        affine[:3, 0] *= -1
        array = array[::-1]
    axes = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(axes, axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing([float(value) for value in spacing])
    image.SetOrigin([float(value) for value in affine[:3, 3]])
    image.SetDirection([float(value) for value in (axes / spacing).ravel()])
    return image


def _read_label_map(path: Path, grid: sitk.Image) -> list[Annotation]:
    labels = read_image(path)
    if labels.GetDimension() != 3 or labels.GetNumberOfComponentsPerPixel() != 1:
        raise TheraflowError(f"The label map {path} must be a 3-D image with one value a voxel.")
    values = np.unique(sitk.GetArrayViewFromImage(labels))
    if not np.array_equal(values, np.rint(values)) or values.min() < 0:
        raise TheraflowError(f"The label map {path} holds values that are no labels (whole numbers from 0).")
    sidecar = sidecar_path(path) if path.name.endswith(".nii.gz") else path.with_suffix(".json")
    names = read_json(sidecar).get("labels", {}) if sidecar.is_file() else {}
    on_grid = sitk.GetArrayFromImage(resample(labels, grid, interpolation="nearest"))
    return [
        Annotation(str(names.get(str(label), f"label {label}")), from_array(on_grid == label, grid))
        for label in (int(value) for value in values if value != 0)
    ]
