"""What a gamma camera in front of a patient and one behind would count of each region, by CT and masks.

Volumes are indexed z, y, x; views are indexed view (anterior, posterior), row (to the feet), column (to the left).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.dosimetry.activity.regions import Region
from theraflow.errors import TheraflowError
from theraflow.images import FWHM_PER_SD, resample, to_array
from theraflow.images.body import find_body

DEPTH_MM = 4.0  # voxels along the rays


@dataclass(frozen=True)
class Projections:
    """The regions of a patient and the rest of the body as the two heads of a camera see them.

    Attributes:
        names, kinds, volumes_ml: of the regions; the last one is the remainder of the body, of kind `remainder`.
        views: shape (regions, 2, rows, columns): counts of a region with uniform activity, as a part of what it would
            count in one view without the body around and in front of it.
        outlines: same shape without views: pixels in which a region lies, bool.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    volumes_ml: tuple[float, ...]
    views: np.ndarray
    outlines: np.ndarray


def coronal_grid(ct: sitk.Image, emission: sitk.Image, pixel_mm: tuple[float, float]) -> sitk.Image:
    """An empty image along the patient's axes that covers what CT and emission image both show of the body.

    Args:
        ct: HU, where it lies on the emission image.
        emission: only its geometry is used: regions end where it ends, so that planar views and SPECT are asked for the
            same part of an organ.
        pixel_mm: height and width of a pixel of the planar view: the voxels along the body and to its left.

    Raises:
        TheraflowError: they do not overlap, or the CT shows no body.
    """
    body = find_body(ct, DEPTH_MM).mask
    inside = np.nonzero(to_array(body))
    corners = [[axis.min() - 0.5 for axis in inside[::-1]], [axis.max() + 0.5 for axis in inside[::-1]]]
    low, high = np.sort(_corners(body, np.array(corners)), axis=1)[:, [0, -1]].T
    ends = np.array([[-0.5] * 3, np.array(emission.GetSize()) - 0.5])
    others_low, others_high = np.sort(_corners(emission, ends), axis=1)[:, [0, -1]].T
    low, high = np.maximum(low, others_low), np.minimum(high, others_high)
    spacing = np.array([pixel_mm[1], DEPTH_MM, pixel_mm[0]])
    size = np.floor((high - low) / spacing + 1e-6).astype(int)
    if (size < 1).any():
        raise TheraflowError("CT and emission image do not show the same part of the body.")
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin((0.5 * (low + high) - 0.5 * (size - 1) * spacing).tolist())
    return grid


def _corners(image: sitk.Image, ends: np.ndarray) -> np.ndarray:
    """Coordinates (3, 8) in LPS mm of the corners of a box from index ends[0] to ends[1] (x, y, z)."""
    choices = [[ends[(k >> axis) & 1, axis] for axis in range(3)] for k in range(8)]
    return np.array([image.TransformContinuousIndexToPhysicalPoint(corner) for corner in choices]).T


def body_on(ct: sitk.Image, grid: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """HU and part of each voxel that is body, on a grid (z, y, x); what is no body, as the couch, is air."""
    body = find_body(ct, DEPTH_MM)
    hu = to_array(resample(body.image, grid, outside=-1000.0))
    return hu, to_array(resample(sitk.Cast(body.mask, sitk.sitkFloat32), grid))


def transmissions(attenuation_per_cm: np.ndarray, depth_cm: float) -> np.ndarray:
    """Part of the photons of each voxel that leave the body to the front and to the back, shape (2, z, y, x).

    exp(- integral of mu from the middle of the voxel), along y, which runs to the back.
    """
    lengths = attenuation_per_cm * depth_cm
    to_front = np.cumsum(lengths, axis=1) - 0.5 * lengths
    return np.exp(-np.stack([to_front, lengths.sum(axis=1, keepdims=True) - to_front]))


def project(
    regions: Sequence[Region], body: np.ndarray, transmission: np.ndarray, grid: sitk.Image, fwhm_mm: float | None
) -> Projections:
    """The views of each region and of the remainder.

    Args:
        regions: on `grid`.
        body: part of each voxel that is body.
        transmission: see `transmissions`.
        grid: see `coronal_grid`.
        fwhm_mm: resolution of the planar views at the depth of the organs (Gaussian), or None.
    """
    rest = body.astype(np.float64)
    for region in regions:
        rest[region.box] -= region.fraction
    everything = tuple(slice(0, n) for n in body.shape)
    sources = [*regions, Region("remainder", "remainder", everything, np.clip(rest, 0.0, 1.0))]
    column_mm, depth_mm, row_mm = grid.GetSpacing()
    sd = 0.0 if fwhm_mm is None else fwhm_mm / FWHM_PER_SD / np.array([row_mm, column_mm])
    views, outlines = [], []
    for source in sources:
        view = np.zeros((2, body.shape[0], body.shape[2]))
        outline = np.zeros(view.shape[1:], dtype=bool)
        rows, _, columns = source.box
        view[:, rows, columns] = (source.fraction * transmission[:, *source.box]).sum(axis=2) / source.fraction.sum()
        outline[rows, columns] = source.fraction.sum(axis=1) > 0.0
        if fwhm_mm is not None:
            view = np.stack([scipy.ndimage.gaussian_filter(one, sd, mode="constant") for one in view])
        views.append(view[:, ::-1])  # z runs to the head, rows run to the feet
        outlines.append(outline[::-1])
    voxel_ml = column_mm * depth_mm * row_mm / 1000.0
    return Projections(
        tuple(source.name for source in sources),
        tuple(source.kind for source in sources),
        tuple(source.volume_ml(voxel_ml) for source in sources),
        np.array(views),
        np.array(outlines),
    )
