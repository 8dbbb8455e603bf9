"""Slices to volumes: geometry, and nothing but whole, complete, regular series."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from dicom_series import ct, pet, spect, stacked, write, write_slices
from theraflow.dicom.export.header import numbers
from theraflow.dicom.export.index import read_index
from theraflow.dicom.voxels.volume import ct_slices, rounded_hu, scaled_slices, stack_slices
from theraflow.errors import TheraflowError
from theraflow.nifti import write_nifti

STORED = np.arange(60).reshape(3, 4, 5) + 1000


def stack(folder):
    (series,) = read_index(folder).whole().series
    return stack_slices(series)


def ct_array(stack):
    return stacked(ct_slices(stack))


def image(slices, stack, kind, folder):
    """What SimpleITK reads of the file that is written."""
    write_nifti(slices, stack.grid, kind, folder / "image.nii")
    return sitk.ReadImage(folder / "image.nii")


def test_slices_are_sorted_along_the_normal_and_rescaled_one_by_one(tmp_path):
    slopes = [1.0, 0.5, 0.25]
    write_slices(pet(), STORED, tmp_path, [{"RescaleSlope": slope} for slope in slopes])
    series = stack(tmp_path)
    volume = image(scaled_slices(series, slopes, [0.0, 1.0, 2.0]), series, np.float32, tmp_path)
    assert volume.GetSize() == (5, 4, 3)
    assert volume.GetSpacing() == (3.0, 2.0, 4.0)
    assert volume.GetOrigin() == (10.0, 20.0, 30.0)
    expected = STORED * np.array(slopes)[:, None, None] + np.arange(3)[:, None, None]
    assert np.array_equal(sitk.GetArrayFromImage(volume), expected)


def test_a_sagittal_series_keeps_its_place_in_the_body(tmp_path):
    template = ct()
    template.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]  # normal is -x
    places = [{"ImagePositionPatient": [50.0 + 4 * k, 20.0, 90.0]} for k in range(3)]
    write_slices(template, STORED, tmp_path, places)
    series = stack(tmp_path)
    volume = image(ct_slices(series), series, np.int16, tmp_path)
    for k in range(3):
        # The voxel at row 2, column 1 of the slice at x = 50 + 4 k, by the formula of PS3.3 C.7.6.2.1.1.
        index = volume.TransformPhysicalPointToIndex((50.0 + 4 * k, 20.0 + 1 * 3.0, 90.0 - 2 * 2.0))
        assert volume[index] == STORED[k, 2, 1] - 1024


@given(
    kind=st.sampled_from(["<i2", "<u2", ">i2"]),
    slope=st.sampled_from([1.0, 0.5, 2.0]),
    intercept=st.sampled_from([-8192.0, -1024.0, -1000.5, 0.0, 24.0, 29999.0, 50000.0]),
    data=st.data(),
)
def test_hu_are_the_rounded_and_limited_line(kind, slope, intercept, data):
    limits = np.iinfo(kind)
    values = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=20))
    found = rounded_hu(np.array([values], kind), slope, intercept, np.empty((1, len(values)), np.int16))
    expected = [min(max(round(value * slope + intercept), -1024), 32767) for value in values]  # both round half to even
    assert found.dtype == np.int16
    assert found.tolist() == [expected]


def test_padding_becomes_air(tmp_path):
    template = ct()
    template.PixelRepresentation = 1
    template.PixelPaddingValue = -2000
    template["PixelPaddingValue"].VR = "SS"
    stored = STORED.copy()
    stored[0, 0, 0] = -2000
    stored[0, 0, 1] = -900  # -1924 HU: below what a CT can measure
    write_slices(template, stored, tmp_path)
    array = ct_array(stack(tmp_path))
    assert array.dtype == np.int16
    assert array[0, 0, 0] == array[0, 0, 1] == -1024
    assert array[0, 0, 2] == 1002 - 1024


def test_padding_with_a_value_inside_the_range(tmp_path):
    template = ct()
    template.PixelPaddingValue = 1059
    template["PixelPaddingValue"].VR = "US"
    write_slices(template, STORED, tmp_path)
    array = ct_array(stack(tmp_path))
    assert array[2, 3, 4] == -1024
    assert array[2, 3, 3] == 1058 - 1024


@pytest.mark.parametrize(
    ("missing", "message"), [(1, "a slice is missing"), (4, "a slice is missing")], ids=["second", "fifth"]
)
def test_a_missing_slice_is_refused(tmp_path, missing, message):
    paths = write_slices(ct(), np.repeat(STORED, 2, axis=0), tmp_path)
    paths[missing].unlink()
    with pytest.raises(TheraflowError, match=message) as error:
        stack(tmp_path)
    assert paths[missing - 1].name in str(error.value)
    assert paths[missing + 1].name in str(error.value)


def test_a_pet_that_lacks_its_last_slice_is_refused(tmp_path):
    template = pet()
    template.NumberOfSlices = 3
    write_slices(template, STORED, tmp_path)[2].unlink()
    with pytest.raises(TheraflowError, match=r"2 of 3 slices \(NumberOfSlices \(0054,0081\)\)"):
        stack(tmp_path)


def test_a_second_copy_is_left_out_and_a_changed_one_refused(tmp_path):
    paths = write_slices(ct(), STORED, tmp_path)
    shutil.copy(paths[1], tmp_path / "copy")
    found = stack(tmp_path)
    assert np.array_equal(ct_array(found), STORED - 1024)
    assert "1 files are second copies" in found.flags[0]
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy").write_bytes(content)
    with pytest.raises(TheraflowError, match=r"are the same image .* with different content"):
        stack(tmp_path)


def test_two_phases_in_one_series_are_refused(tmp_path):
    write_slices(ct(), STORED, tmp_path / "a")
    write_slices(ct(), STORED, tmp_path / "b")
    with pytest.raises(TheraflowError, match="lie at the same place"):
        stack(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path):
    places = [{"ImagePositionPatient": [0.0, 0.4 * k, 4.0 * k]} for k in range(3)]
    write_slices(ct(), STORED, tmp_path, places)
    with pytest.raises(TheraflowError, match="tilted gantry"):
        stack(tmp_path)


def test_slightly_uneven_gaps_are_flagged_and_grossly_uneven_ones_refused(tmp_path):
    stored = np.repeat(STORED, 2, axis=0)
    for name, gap in (("slight", 3.9), ("gross", 2.5)):
        z = np.cumsum([0.0, 4.0, gap, 4.0, 4.0, gap])
        write_slices(ct(), stored, tmp_path / name, [{"ImagePositionPatient": [0, 0, place]} for place in z])
    slight = stack(tmp_path / "slight")
    assert slight.grid.spacing[2] == pytest.approx(3.96)
    assert "unevenly spaced" in slight.flags[0]
    with pytest.raises(TheraflowError, match="unevenly spaced"):
        stack(tmp_path / "gross")


def test_slices_of_another_matrix_are_refused(tmp_path):
    write_slices(ct(), STORED, tmp_path, [{}, {}, {"PixelSpacing": [2.0, 2.0]}])
    with pytest.raises(TheraflowError, match=r"PixelSpacing \(0028,0030\) differs"):
        stack(tmp_path)


def test_a_missing_position_is_named(tmp_path):
    write_slices(ct(), STORED, tmp_path, [{}, {"ImagePositionPatient": None}, {}])
    with pytest.raises(TheraflowError, match=r"ImagePositionPatient \(0020,0032\)"):
        stack(tmp_path)


@pytest.mark.parametrize("backwards", [False, True])
def test_frames_of_one_nm_file_are_stacked(tmp_path, backwards):
    dataset = spect(STORED)
    if backwards:
        dataset.SpacingBetweenSlices = -4.0
    write(dataset, tmp_path / "nm")
    series = stack(tmp_path)
    volume = image(scaled_slices(series, [1.0] * 3, [0.0] * 3), series, np.float32, tmp_path)
    for k in range(3):
        place = (10.0, 20.0, 30.0 + (-4.0 if backwards else 4.0) * k)
        assert volume[volume.TransformPhysicalPointToIndex(place)] == STORED[k, 0, 0]


def test_slice_vector_orders_the_frames(tmp_path):
    dataset = spect(STORED)
    dataset.SliceVector = [3, 1, 2]
    write(dataset, tmp_path / "nm")
    volume = stacked(scaled_slices(stack(tmp_path), [1.0] * 3, [0.0] * 3))
    assert np.array_equal(volume, STORED[[1, 2, 0]])


def test_a_dynamic_nm_file_is_refused(tmp_path):
    dataset = spect(STORED)
    dataset.SliceVector = [1, 1, 2]
    write(dataset, tmp_path / "nm")
    with pytest.raises(TheraflowError, match="SliceVector"):
        stack(tmp_path)


@pytest.mark.shared_data
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file_never_yields_an_image(shared_data, tmp_path, compressed, kept):
    folder = "ct_totalsegmentator/example_ct_dicom" if compressed else "ct_abdomen/CRLM-CT-1004/image"
    for path in sorted((shared_data / folder).iterdir())[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = path.read_bytes()
    damaged = tmp_path / path.name
    damaged.write_bytes(content[: int(len(content) * kept)])
    # `match`: whichever step finds it, the file is named.
    with pytest.raises(TheraflowError, match=f"{path.name}.*(truncated|broken|incomplete)"):
        for series in read_index(tmp_path).whole().series:
            ct_array(stack_slices(series))


@pytest.mark.shared_data
@pytest.mark.parametrize("lost", [1, 7, 8, 100])
def test_the_end_of_compressed_pixels_must_be_there(shared_data, tmp_path, lost):
    path = sorted((shared_data / "ct_totalsegmentator" / "example_ct_dicom").iterdir())[0]
    (tmp_path / "image").write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(TheraflowError, match="truncated"):
        ct_array(stack(tmp_path))


@pytest.mark.shared_data
def test_jpeg_2000_series_has_the_values_of_the_library_decoder(shared_data):
    folder = shared_data / "ct_totalsegmentator" / "example_ct_dicom"
    series = stack(folder)
    array = ct_array(series)
    assert array.shape == (20, 512, 512)
    reference = sitk.ReadImage(str(series.slices[7].instance.path))  # GDCM, another decoder than pylibjpeg
    assert np.allclose(reference.GetOrigin()[2], series.grid.origin[2] + 7 * series.grid.spacing[2])
    expected = sitk.GetArrayFromImage(reference)[0]
    assert np.array_equal(array[7], np.maximum(expected, -1024))


@pytest.mark.shared_data
def test_abdominal_ct_agrees_with_itk_beside_the_padding(shared_data, tmp_path):
    folder = shared_data / "ct_abdomen" / "CRLM-CT-1004" / "image"
    series = stack(folder)
    ours = image(ct_slices(series), series, np.int16, tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    assert ours.GetSize() == theirs.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(ours, get)(), getattr(theirs, get)())
    expected = sitk.GetArrayFromImage(theirs)
    assert expected.min() == -3024
    assert np.array_equal(sitk.GetArrayFromImage(ours), np.maximum(expected, -1024))


@pytest.mark.shared_data
def test_whole_body_with_mixed_gaps_is_accepted_and_flagged(shared_data):
    (series,) = [one for one in read_index(shared_data / "sts_001_wholebody").series if one.modality == "PT"]
    whole_body = stack_slices(series)
    assert whole_body.grid.size == (128, 128, 267)
    assert "3.19 to 3.29 mm" in whole_body.flags[0]
    z = [numbers(header, "ImagePositionPatient", 3)[2] for header in whole_body.headers]
    placed = whole_body.grid.origin[2] + whole_body.grid.spacing[2] * np.arange(267)
    assert np.abs(placed - z).max() < 0.1


def test_an_uncompressed_file_with_the_wrong_number_of_pixels_is_refused(tmp_path):
    paths = write_slices(ct(), STORED, tmp_path)
    dataset = pydicom.dcmread(paths[0])
    dataset.PixelData = dataset.PixelData[:-2]
    dataset.save_as(paths[0])
    with pytest.raises(TheraflowError, match=paths[0].name):
        ct_array(stack(tmp_path))
