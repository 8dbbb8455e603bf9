"""The turning projections: where a point of the patient is seen from each side, by trigonometry."""

import base64
import io

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from theraflow.report.rotation import VIEWS, draw_rotation, seen_from

SPACING, SIZE = 5.0, (60, 50, 40)
CENTRE = np.array([12.0, -30.0, 200.0])
SPOT = np.array([45.0, -60.0, 35.0])  # from the centre: on the patient's left, in front, towards the head


def drawn(with_lesion):
    """Views (view, row, column, colour) of a body, even in itself, with one hot spot; mm of a pixel."""
    image = sitk.Image(SIZE, sitk.sitkFloat32)
    image.SetSpacing([SPACING] * 3)
    image.SetOrigin((CENTRE - SPACING * (np.array(SIZE) - 1) / 2).tolist())
    z, y, x = np.indices(SIZE[::-1])
    points = np.stack([x, y, z], axis=-1) * SPACING - SPACING * (np.array(SIZE) - 1) / 2
    body = (points[..., 0] / 120) ** 2 + (points[..., 1] / 90) ** 2 <= 1
    spot = ((points - SPOT) ** 2).sum(axis=-1) <= 12.0**2
    pet = sitk.GetImageFromArray(np.where(spot, 20.0, np.where(body, 1.0, 0.0)).astype(np.float32))
    lesions = sitk.GetImageFromArray((spot & with_lesion).astype(np.uint8))
    for made in (pet, lesions):
        made.CopyInformation(image)
    uri, width, height = draw_rotation(pet, lesions)
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), int)
    rows, columns, _ = strip.shape
    assert (width, height) == pytest.approx((SPACING * columns / VIEWS, SPACING * rows))
    return strip.reshape(rows, VIEWS, columns // VIEWS, 3).transpose(1, 0, 2, 3)


def test_a_point_is_seen_where_trigonometry_puts_it():
    views = drawn(with_lesion=False)
    for number, view in enumerate(views):
        dark = np.argwhere(view.sum(axis=-1) < 150)
        row, column = dark.mean(axis=0)
        angle = 2 * np.pi * number / VIEWS
        across = SPOT[0] * np.cos(angle) + SPOT[1] * np.sin(angle)
        assert (column - (view.shape[1] - 1) / 2) * SPACING == pytest.approx(across, abs=SPACING)
        assert ((view.shape[0] - 1) / 2 - row) * SPACING == pytest.approx(SPOT[2], abs=SPACING)


def test_lesions_are_outlined_in_every_view():
    plain, outlined = drawn(with_lesion=False), drawn(with_lesion=True)
    for before, after in zip(plain, outlined, strict=True):
        red = after[..., 0] - after[..., 2] > 80
        assert (before[..., 0] - before[..., 2] < 40).all()
        assert 8 < red.sum() < 40  # around a disc of five pixels


def test_sides_have_names():
    assert [seen_from(view) for view in (0, 6, 12, 18)] == ["the front", "the left", "the back", "the right"]
    assert seen_from(1) == "15° past the front"
