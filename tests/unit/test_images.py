"""Geometry: a divided grid covers the same space. Files: what is damaged is not read."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
import scipy.ndimage
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from theraflow.errors import TheraflowError
from theraflow.images import divided, label_boxes, read_image, same_grid, write_image
from theraflow.nifti import refuse_damaged_nifti

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


def written(path):
    """An image of noise, which deflate cannot make much smaller, so that a cut costs voxels."""
    array = np.random.default_rng(0).normal(0, 1, (9, 30, 40)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), path)
    return array, path.read_bytes()


@pytest.mark.parametrize("name", ["pet.nii", "pet.nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.004, 0.3, 0.999, -8, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path, name, kept):
    _, content = written(tmp_path / name)
    (tmp_path / name).write_bytes(content[: kept if kept < 0 else int(kept * len(content))])
    with pytest.raises(TheraflowError, match=name):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["pet.nii", "pet.nii.gz"])
@pytest.mark.parametrize("signature", [b"\0\0\0\0", b"o+1\0", b"n+1\1"])
def test_a_file_that_would_be_read_as_analyze_is_refused(tmp_path, name, signature):
    _, content = written(tmp_path / name)
    opened = gzip.decompress(content) if name.endswith("gz") else content
    opened = opened[:344] + signature + opened[348:]
    (tmp_path / name).write_bytes(gzip.compress(opened) if name.endswith("gz") else opened)
    with pytest.raises(TheraflowError, match="signature"):
        read_image(tmp_path / name)


def test_a_file_that_promises_more_than_it_holds_is_refused_and_more_than_promised_is_read(tmp_path):
    path = tmp_path / "pet.nii.gz"
    array, content = written(path)
    opened = gzip.decompress(content)
    one_slice_more = opened[:46] + struct.pack("<h", 10) + opened[48:]
    path.write_bytes(gzip.compress(one_slice_more))
    with pytest.raises(TheraflowError, match="shorter"):
        read_image(path)
    path.write_bytes(gzip.compress(opened + b"behind the voxels"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path)), array)


def test_several_gzip_members_are_one_file(tmp_path):
    path = tmp_path / "pet.nii.gz"
    array, content = written(path)
    opened = gzip.decompress(content)
    members = [gzip.compress(opened[first : first + 5000]) for first in range(0, len(opened), 5000)]
    path.write_bytes(b"".join(members))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path)), array)
    path.write_bytes(b"".join(members[:-1]))
    with pytest.raises(TheraflowError, match="shorter"):
        read_image(path)


@pytest.mark.parametrize("order", "<>")
def test_orders_of_bytes_colours_and_vectors_are_read(tmp_path, order):
    colours = np.zeros((7, 6, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for values in (np.ones((7, 6, 5), f"{order}i2"), np.ones((7, 6, 5, 1, 3), f"{order}f4"), colours):
        image = nibabel.Nifti1Image(values, np.eye(4), nibabel.Nifti1Header(endianness=order))
        image.set_data_dtype(values.dtype)
        for name in ("whole.nii", "whole.nii.gz"):
            nibabel.save(image, tmp_path / name)
            assert read_image(tmp_path / name).GetSize()[:3] == (7, 6, 5)


@pytest.mark.parametrize("place", [0.5, -6])  # a voxel; the checksum itself
def test_to_the_end_a_file_is_held_to_its_checksum(tmp_path, place):
    path = tmp_path / "labels.nii.gz"
    _, content = written(path)
    refuse_damaged_nifti(path, to_the_end=True)
    damaged = bytearray(content)
    damaged[place if place < 0 else int(place * len(damaged))] ^= 0x10
    path.write_bytes(damaged)
    with pytest.raises(TheraflowError, match="damaged"):
        refuse_damaged_nifti(path, to_the_end=True)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
def test_boxes_of_labels_are_those_that_scipy_finds(shape, filled, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 2, 7, 200], shape).astype(np.uint8) * (rng.random(shape) < filled)
    found = enumerate(scipy.ndimage.find_objects(labels), 1)
    assert label_boxes(labels) == {label: box for label, box in found if box is not None}
