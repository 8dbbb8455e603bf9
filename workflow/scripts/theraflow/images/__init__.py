"""Images on disk and in memory: geometry, resampling, NIfTI with a JSON sidecar.

In memory an image is a `SimpleITK.Image`: physical coordinates in mm, LPS. Arrays are always indexed z, y, x.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.nifti import Grid, refuse_damaged_nifti, sidecar_path, write_nifti, write_sidecar

FWHM_PER_SD = 2.0 * math.sqrt(2.0 * math.log(2.0))  # of a Gaussian: full width at half maximum
INTERPOLATION = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "cubic": sitk.sitkBSpline}


def read_image(path: Path | str) -> sitk.Image:
    """Read a NIfTI image.

    Raises:
        TheraflowError: missing, cut off or not an image.
    """
    try:
        if str(path).lower().endswith((".nii", ".nii.gz")):
            refuse_damaged_nifti(path)
        return sitk.ReadImage(str(path))
    except (OSError, RuntimeError) as error:
        raise TheraflowError(f"{path} cannot be read as an image; delete it, then name it to snakemake.") from error


def read_sidecar(image: Path | str) -> dict[str, Any]:
    """The JSON sidecar of the image file `image`."""
    return read_json(sidecar_path(image))


def write_image(image: sitk.Image, path: Path | str, sidecar: Mapping[str, Any]) -> None:
    """Write NIfTI and its sidecar, which must say `quantity` and `unit`; versions are added."""
    array = sitk.GetArrayViewFromImage(image)
    write_nifti([array], grid_of(image), array.dtype, path)
    write_sidecar({**sidecar, "SimpleITK": sitk.Version_VersionString()}, path)


def grid_of(image: sitk.Image) -> Grid:
    """Where the voxels of an image lie."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def axes_of(grid: Grid) -> np.ndarray:
    """Unit vectors along columns, rows and slices as the columns of a matrix, shape (3, 3)."""
    return np.array(grid.direction).reshape(3, 3)


def points_of_index(index: np.ndarray, grid: Grid) -> np.ndarray:
    """Points in LPS mm of continuous indices (x, y, z), shape (N, 3)."""
    return grid.origin + (index * grid.spacing) @ axes_of(grid).T


def image_of_crop(array: np.ndarray, grid: Grid, start: tuple[int, ...] = (0, 0, 0)) -> sitk.Image:
    """An image of an array (z, y, x) whose first voxel lies at index `start` (z, y, x) of a grid."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing)
    image.SetDirection(grid.direction)
    image.SetOrigin(points_of_index(np.array([start[::-1]], float), grid)[0].tolist())
    return image


def to_array(image: sitk.Image) -> np.ndarray:
    """The voxels as a new array, indexed z, y, x."""
    return sitk.GetArrayFromImage(image)


def from_array(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    """An image of `array` (z, y, x) with the geometry of `like`; bool becomes uint8."""
    image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
    image.CopyInformation(like)
    return image


def label_boxes(labels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """Of every label of a label map (z, y, x; integers) but 0 the smallest box with all of it, as slices into it."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(sitk.GetImageFromArray(labels))
    boxes = {label: np.array(shapes.GetBoundingBox(label)).reshape(2, -1)[:, ::-1] for label in shapes.GetLabels()}
    return {label: tuple(map(slice, start.tolist(), (start + size).tolist())) for label, (start, size) in boxes.items()}


def same_grid(a: sitk.Image, b: sitk.Image, tolerance_mm: float = 1e-2) -> bool:
    """Whether two images share size, spacing, origin and direction."""
    return (
        a.GetSize() == b.GetSize()
        and np.allclose(a.GetSpacing(), b.GetSpacing(), atol=tolerance_mm)
        and np.allclose(a.GetOrigin(), b.GetOrigin(), atol=tolerance_mm)
        and np.allclose(a.GetDirection(), b.GetDirection(), atol=1e-4)
    )


def voxel_volume_ml(image: sitk.Image) -> float:
    """Volume of one voxel in mL."""
    return float(np.prod(image.GetSpacing())) / 1000.0


def resample(
    image: sitk.Image,
    grid: sitk.Image,
    transform: sitk.Transform | None = None,
    interpolation: str = "linear",
    outside: float = 0.0,
) -> sitk.Image:
    """`image` on the voxels of `grid`.

    Args:
        image: any scalar image.
        grid: the image whose geometry the result takes; its voxels are not read.
        transform: maps a point of `grid` (LPS, mm) to the point of `image` that belongs there; default identity.
        interpolation: `linear`, `nearest` (label maps) or `cubic`.
        outside: value where `image` has no voxel.
    """
    transform = transform or sitk.Transform(3, sitk.sitkIdentity)
    method = INTERPOLATION[interpolation]
    size, spacing = grid.GetSize(), grid.GetSpacing()
    return sitk.Resample(image, size, transform, method, grid.GetOrigin(), spacing, grid.GetDirection(), outside)


def divided(image: sitk.Image, longest_mm: float) -> sitk.Image:
    """An empty image that covers exactly `image`, its voxels cut along each axis until none is longer than that."""
    parts = [int(np.ceil(spacing / longest_mm - 1e-6)) for spacing in image.GetSpacing()]
    grid = sitk.Image([n * k for n, k in zip(image.GetSize(), parts, strict=True)], sitk.sitkUInt8)
    grid.SetSpacing([spacing / k for spacing, k in zip(image.GetSpacing(), parts, strict=True)])
    grid.SetDirection(image.GetDirection())
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([0.5 / k - 0.5 for k in parts]))
    return grid
