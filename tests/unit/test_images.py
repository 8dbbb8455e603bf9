"""Geometry: a divided grid covers the same space."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from theraflow.images import divided, read_image, same_grid, write_image

spacings = st.tuples(*[st.floats(0.5, 9.0)] * 3)
sizes = st.tuples(*[st.integers(1, 6)] * 3)
angles = st.floats(-3.0, 3.0)


def corners(image: sitk.Image) -> np.ndarray:
    low, high = [-0.5] * 3, [n - 0.5 for n in image.GetSize()]
    return np.array([image.TransformContinuousIndexToPhysicalPoint(corner) for corner in (low, high)])


@given(sizes, spacings, angles, st.floats(0.5, 5.0))
def test_a_divided_grid_covers_the_same_space_in_voxels_short_enough(size, spacing, angle, longest):
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin((3.0, -7.0, 11.0))
    c, s = np.cos(angle), np.sin(angle)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    grid = divided(image, longest)
    assert max(grid.GetSpacing()) <= longest * (1 + 1e-5)
    np.testing.assert_allclose(corners(grid), corners(image), atol=1e-9)
    for fine, coarse in zip(grid.GetSize(), image.GetSize(), strict=True):
        assert fine % coarse == 0


def test_a_file_keeps_geometry_and_says_what_it_is(tmp_path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    image.SetSpacing((1.7, 1.7, 3.0))
    image.SetOrigin((-10.0, 5.0, 700.0))
    write_image(image, tmp_path / "pet.nii.gz", {"quantity": "SUVbw", "unit": "g/mL"})
    back = read_image(tmp_path / "pet.nii.gz")
    assert same_grid(back, image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    with pytest.raises(ValueError, match="unit"):
        write_image(image, tmp_path / "pet.nii.gz", {"quantity": "SUVbw"})
