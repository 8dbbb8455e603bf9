"""NIfTI files against two other readers, and never half a file."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.nifti import Grid, nifti_header, write_nifti

TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")
UNIT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def rotation(quaternion):
    a, b, c, d = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def voxels(size, kind):
    columns, rows, slices = size
    values = np.random.default_rng(7).integers(0, 120, (slices, rows, columns))
    return values.astype(kind)


@st.composite
def grids(draw):
    parts = st.floats(-1, 1).map(lambda value: round(value, 3))
    quaternion = draw(st.tuples(parts, parts, parts, parts).filter(lambda found: np.linalg.norm(found) > 0.1))
    # Slices against the normal make a left-handed grid.
    direction = rotation(quaternion) * [1, 1, draw(st.sampled_from([1, -1]))]
    spacing = draw(st.tuples(*[st.floats(0.25, 8.0)] * 3))
    origin = draw(st.tuples(*[st.floats(-2000, 2000)] * 3))
    size = draw(st.tuples(*[st.integers(1, 5)] * 3))
    return Grid(size, spacing, origin, tuple(float(value) for value in direction.ravel()))


@settings(max_examples=60, deadline=None)
@given(grids(), st.sampled_from(TYPES), st.sampled_from([".nii", ".nii.gz"]))
def test_other_readers_see_the_same_voxels_at_the_same_place(tmp_path_factory, grid, kind, suffix):
    path = tmp_path_factory.mktemp("image") / f"image{suffix}"
    array = voxels(grid.size, kind)
    write_nifti(array, grid, kind, path)
    image = sitk.ReadImage(path)
    assert image.GetSize() == grid.size
    assert np.allclose(image.GetSpacing(), grid.spacing, rtol=1e-6)
    assert np.allclose(image.GetOrigin(), grid.origin, atol=2e-4)  # NIfTI has single precision
    assert np.allclose(image.GetDirection(), grid.direction, atol=2e-6)
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    other = nibabel.load(path)
    assert other.get_data_dtype() == np.dtype(kind)
    assert np.array_equal(np.asarray(other.dataobj).T, array)
    # Both ways in which a reader may take the place of a voxel, by the formula of PS3.3 C.7.6.2.1.1.
    corner = np.array(grid.size) - 1
    place = np.array(grid.origin) + np.array(grid.direction).reshape(3, 3) @ (np.array(grid.spacing) * corner)
    for affine in (other.header.get_sform(), other.header.get_qform()):
        assert np.allclose((affine @ [*corner, 1])[:3] * [-1, -1, 1], place, atol=1e-3)


@pytest.mark.parametrize("handed", [1, -1])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_half_turns(tmp_path, axis, handed):
    """The quaternion has no real part, or little, where formulas that divide by it fail."""
    for turn in (0.0, 1e-9, -1e-9, 1e-4):
        direction = rotation([turn, *axis]) * [1, 1, handed]
        grid = Grid((2, 3, 4), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), tuple(direction.ravel()))
        write_nifti(voxels(grid.size, "int16"), grid, "int16", tmp_path / "image.nii")
        assert np.allclose(sitk.ReadImage(tmp_path / "image.nii").GetDirection(), direction.ravel(), atol=2e-6)
        header = nibabel.load(tmp_path / "image.nii").header
        assert np.allclose(header.get_qform(), header.get_sform(), atol=2e-5)


def test_big_endian_and_foreign_types_are_converted(tmp_path):
    grid = Grid((2, 3, 4), (1.0,) * 3, (0.0,) * 3, UNIT)
    array = voxels(grid.size, "int16") - 60
    write_nifti(array.astype(">i2"), grid, np.int16, tmp_path / "image.nii")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "image.nii")), array)
    write_nifti((np.asfortranarray(one) for one in array), grid, np.float32, tmp_path / "image.nii")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "image.nii")), array)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("given", [0, 3, 5])
def test_the_wrong_number_of_voxels_leaves_no_file(tmp_path, suffix, given):
    grid = Grid((2, 3, 4), (1.0,) * 3, (0.0,) * 3, UNIT)
    with pytest.raises(ValueError, match=f"{6 * given} voxels for a grid"):
        write_nifti(np.ones((given, 3, 2)), grid, np.int16, tmp_path / f"image{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_error_between_slices_leaves_what_was_there_before(tmp_path, suffix):
    def slices():
        yield np.ones((300, 200))
        yield np.ones((300, 200))
        raise OSError("unreadable slice")

    path = tmp_path / f"image{suffix}"
    path.write_bytes(b"earlier result")
    grid = Grid((200, 300, 4), (1.0,) * 3, (0.0,) * 3, UNIT)
    with pytest.raises(OSError, match="unreadable slice"):
        write_nifti(slices(), grid, np.int16, path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"earlier result"


def test_the_same_input_makes_the_same_bytes(tmp_path):
    """Whatever the file is called and whenever it is written."""
    grid = Grid((120, 110, 40), (1.0,) * 3, (0.0,) * 3, UNIT)
    array = voxels(grid.size, "int16")
    contents = set()
    for name, slices in (("one.nii.gz", array), ("other.nii.gz", list(array)), ("third.nii.gz", array)):
        write_nifti(slices, grid, np.int16, tmp_path / name)
        contents.add((tmp_path / name).read_bytes())
    write_nifti(array, grid, np.int16, tmp_path / "plain.nii")
    plain = (tmp_path / "plain.nii").read_bytes()
    assert len(plain) == 352 + array.nbytes
    assert all(gzip.decompress(content) == plain for content in contents)
    assert len(contents) == 1


def test_slope_intercept_and_intent_are_read_by_others(tmp_path):
    array = voxels((2, 3, 4), "int16")
    grid = Grid((2, 3, 4), (1.0,) * 3, (0.0,) * 3, UNIT)
    (tmp_path / "image.nii").write_bytes(nifti_header(grid, array.dtype, 0.25, -3.0, 1002) + array.tobytes())
    other = nibabel.load(tmp_path / "image.nii")
    assert np.array_equal(other.get_fdata().T, 0.25 * array - 3.0)
    assert other.header.get_intent()[0] == "label"
