"""The patient turned about the long axis: maximum-intensity projections from all sides, side by side in one picture."""

import io

import numpy as np
import SimpleITK as sitk
from PIL import Image

from theraflow.images import resample, to_array
from theraflow.report.display import data_uri
from theraflow.report.pictures import MARGIN_MM, OUTLINE, SUV_WINDOW, along_patient, body_range

VIEWS = 24  # an even number: what is seen from behind is what is seen from in front, mirrored
FINEST_MM = 3.0  # pixels are never finer than the scan
SEEN_FROM = ("the front", "the left", "the back", "the right")


def draw_rotation(pet: sitk.Image, lesions: sitk.Image) -> tuple[str, float, float]:
    """Projections of a PET in `VIEWS` directions, inverted grey up to `SUV_WINDOW`, lesions outlined.

    The first is seen from the front (the patient's right on the left), the next ones from ever farther on the
    patient's left.

    Args:
        pet: SUVbw.
        lesions: labels on the grid of `pet`.

    Returns:
        Data URI (WebP) of all views in one row, from left to right; width and height of one view in mm.
    """
    grid, centre = _turntable(pet)
    half = []
    for turn in np.arange(VIEWS // 2) * 2.0 * np.pi / VIEWS:
        about = sitk.Euler3DTransform(centre, 0.0, 0.0, float(turn))
        uptake = to_array(resample(pet, grid, about)).max(axis=1)
        inside = to_array(resample(lesions, grid, about, interpolation="nearest")).max(axis=1) > 0
        half.append(_draw(uptake, inside))
    views = np.concatenate([*half, *(view[:, ::-1] for view in half)], axis=1)
    file = io.BytesIO()
    Image.fromarray(views).save(file, "WEBP", lossless=True)  # else outlines one pixel wide lose their colour
    width, _, height = np.multiply(grid.GetSize(), grid.GetSpacing()).tolist()
    return data_uri(file.getvalue(), "image/webp"), width, height


def seen_from(view: int) -> str:
    """In words, from where the patient is seen in a view."""
    degrees = 360.0 * view / VIEWS
    side, rest = divmod(degrees, 90.0)
    words = SEEN_FROM[int(side)]
    return words if not rest else f"{rest:g}° past {words}"


def _turntable(pet: sitk.Image) -> tuple[sitk.Image, tuple[float, float, float]]:
    """An empty image along LPS in which the body fits in whatever way it is turned, and the point it turns about."""
    volume = along_patient(pet)
    x = body_range(volume.array.sum(axis=(0, 1)), volume.x)
    y = body_range(volume.array.sum(axis=(0, 2)), volume.y)
    centre = (sum(x) / 2.0, sum(y) / 2.0, float(volume.z[0] + volume.z[-1]) / 2.0)
    # The body is round: its greater width, not the diagonal of its box.
    pixel_mm = max(FINEST_MM, *pet.GetSpacing()[:2])
    across = int(np.ceil((max(np.ptp(x), np.ptp(y)) + MARGIN_MM) / pixel_mm))
    height = max(int(np.ceil(np.ptp(volume.z) / pixel_mm)), 1)
    grid = sitk.Image([across, across, height], sitk.sitkUInt8)
    grid.SetSpacing([pixel_mm] * 3)
    half = np.array([across - 1, across - 1, height - 1]) * pixel_mm / 2.0
    grid.SetOrigin((np.array(centre) - half).tolist())
    return grid, centre


def _draw(uptake: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A projection (z, across), feet first, as an RGB picture, head first."""
    grey = 255.0 * (1.0 - np.clip(uptake / SUV_WINDOW, 0.0, 1.0))
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    wider = to_array(sitk.BinaryDilate(sitk.GetImageFromArray(inside.astype(np.uint8)), [1, 1], sitk.sitkCross)) > 0
    picture[wider & ~inside] = [int(OUTLINE[i : i + 2], 16) for i in (1, 3, 5)]
    return picture[::-1]
