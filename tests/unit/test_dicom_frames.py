"""Multi-frame objects against pydicom, GDCM and an independent writer (highdicom)."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless, generate_uid

from dicom_series import ct, enhanced, image, spect, stacked, write, write_slices
from theraflow.dicom.export.index import read_index
from theraflow.dicom.export.series import Kind
from theraflow.dicom.voxels.volume import ct_slices, rescale, scaled_slices, stack_slices
from theraflow.errors import TheraflowError
from theraflow.nifti import write_nifti

ORDER = [3, 0, 5, 1, 4, 2]
STORED = np.random.default_rng(1).integers(0, 3000, (6, 4, 5))


def only_series(folder):
    (series,) = read_index(folder).whole().series
    return series


def stack(folder, photopeak_kev=None):
    return stack_slices(only_series(folder), photopeak_kev)


def values(stack):
    slopes, intercepts = zip(*(rescale(one) for one in stack.slices), strict=True)
    return stacked(scaled_slices(stack, slopes, intercepts))


def expected_by_place(path):
    """Frames by pydicom's decoder, rescaled by hand, in the order of their place."""
    dataset = pydicom.dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    rescaled = [
        pixels * float(groups.PixelValueTransformationSequence[0].RescaleSlope)
        + float(groups.PixelValueTransformationSequence[0].RescaleIntercept)
        for pixels, groups in zip(dataset.pixel_array, frames, strict=True)
    ]
    places = [groups.PlanePositionSequence[0].ImagePositionPatient[2] for groups in frames]
    return np.array(rescaled)[np.argsort(places)]


@pytest.mark.parametrize("undefined_lengths", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_shuffled_frames_of_an_enhanced_pet_with_slopes_of_their_own(tmp_path, implicit, undefined_lengths):
    slopes = [0.5, 1.25, 2.0, 0.125, 3.0, 1.0]
    dataset = enhanced("PT", STORED, ORDER, slopes)
    if undefined_lengths:
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    if implicit:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    path = write(dataset, tmp_path / "pet")
    content = path.read_bytes()
    assert (b"\xfe\xff\x0d\xe0" in content) == undefined_lengths
    found = stack(tmp_path)
    assert [one.frame for one in found.slices] == list(np.argsort(ORDER))
    assert np.array_equal(values(found), expected_by_place(path))
    assert found.grid.spacing == (3.0, 2.0, 4.0)
    assert found.grid.origin == (10.0, 20.0, 30.0)
    assert (only_series(tmp_path).kind, only_series(tmp_path).slices) == (Kind.PET, 6)
    assert (only_series(tmp_path).extent_mm, only_series(tmp_path).places) == (20.0, 6)


def test_an_enhanced_ct_lies_where_gdcm_puts_it(tmp_path):
    path = write(enhanced("CT", STORED), tmp_path / "ct")
    found = stack(tmp_path)
    write_nifti(ct_slices(found), found.grid, np.int16, tmp_path / "ct.nii")
    ours, theirs = sitk.ReadImage(tmp_path / "ct.nii"), sitk.ReadImage(path)
    assert ours.GetSize() == theirs.GetSize() == (5, 4, 6)
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(ours, get)(), getattr(theirs, get)())
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    assert sitk.GetArrayFromImage(ours).min() < 0 < sitk.GetArrayFromImage(ours).max()


@pytest.mark.parametrize("downwards", [False, True])
def test_a_legacy_converted_object_equals_the_single_slices(tmp_path, downwards):
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    template = ct()
    template.PatientID, template.PatientName, template.PatientBirthDate, template.PatientSex = "1", "A^B", "", ""
    template.StudyID, template.AccessionNumber, template.StudyDate, template.StudyTime = "", "", "20230501", "1000"
    template.SeriesNumber, template.InstanceNumber, template.AcquisitionNumber = 1, 1, 1
    template.Manufacturer, template.BurnedInAnnotation = "maker", "NO"
    template.ReferringPhysicianName, template.PositionReferenceIndicator = "", ""
    template.ContentDate, template.ContentTime, template.InstanceCreationDate = "20230501", "1000", "20230501"
    template.AcquisitionDate, template.AcquisitionTime = "20230501", "100000"
    template.LossyImageCompression = "00"
    paths = write_slices(template, STORED, tmp_path / "single", spacing=-4.0 if downwards else 4.0)
    single = [pydicom.dcmread(path) for path in paths]
    converted = LegacyConvertedEnhancedCTImage(single, generate_uid(), 1, generate_uid(), 1)
    write(converted, tmp_path / "converted" / "object")
    one, other = stack(tmp_path / "single"), stack(tmp_path / "converted")
    assert only_series(tmp_path / "converted").kind == Kind.CT
    assert one.grid == other.grid
    assert np.array_equal(values(one), values(other))


def test_an_enhanced_series_may_be_spread_over_files(tmp_path):
    """Frames of two files that lie between each other."""
    places = [0, 2, 4, 1, 3, 5]
    for part in (0, 1):
        dataset = enhanced("CT", STORED[3 * part : 3 * part + 3], places[3 * part : 3 * part + 3])
        write(dataset, tmp_path / f"part{part}")
    assert np.array_equal(values(stack(tmp_path)), STORED[np.argsort(places)] - 1024)


def test_frames_of_a_compressed_object_keep_their_order(tmp_path):
    dataset = enhanced("PT", STORED, ORDER, [0.5, 1.25, 2.0, 0.125, 3.0, 1.0])
    dataset.compress(RLELossless)
    path = write(dataset, tmp_path / "pet")
    assert np.array_equal(values(stack(tmp_path)), expected_by_place(path))


@pytest.mark.parametrize(
    ("keyword", "other"), [("TemporalPositionIndex", 2), ("StackID", "2")], ids=["two times", "two stacks"]
)
def test_several_volumes_in_one_object_are_refused(tmp_path, keyword, other):
    changes = [{}, {}, {}, *[{keyword: other}] * 3]
    write(enhanced("PT", STORED, [0, 1, 2] * 2, changes=changes), tmp_path / "pet")
    with pytest.raises(TheraflowError, match=rf"{tmp_path / 'pet'}: {keyword} .* several volumes in one object"):
        stack(tmp_path)


def test_frames_at_one_place_without_a_word_on_it_are_refused(tmp_path):
    write(enhanced("PT", STORED, [0, 1, 2] * 2), tmp_path / "pet")
    assert only_series(tmp_path).places == 3
    with pytest.raises(TheraflowError, match="lie at the same place"):
        stack(tmp_path)


@pytest.mark.parametrize("stated", [0, 1, 5, 7, 60000])
def test_a_wrong_number_of_frames_is_refused(tmp_path, stated):
    dataset = enhanced("CT", STORED)
    dataset.NumberOfFrames = stated
    write(dataset, tmp_path / "ct")
    with pytest.raises(TheraflowError, match=r"NumberOfFrames \(0028,0008\) is .*, but PerFrame.* has 6 items"):
        stack(tmp_path)


def test_fewer_pixels_than_frames_are_refused(tmp_path):
    dataset = enhanced("CT", STORED)
    dataset.PixelData = dataset.PixelData[:-40]
    write(dataset, tmp_path / "ct")
    with pytest.raises(TheraflowError, match=r"does not hold 6 grey image\(s\) of 4 x 5 pixels"):
        values(stack(tmp_path))


def test_a_frame_without_place_is_refused(tmp_path):
    dataset = enhanced("CT", STORED)
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    write(dataset, tmp_path / "ct")
    with pytest.raises(TheraflowError, match=r"lacks ImagePositionPatient \(0020,0032\)"):
        stack(tmp_path)


def test_frames_without_functional_groups_are_refused(tmp_path):
    dataset = image("CT")
    dataset.NumberOfFrames, dataset.ImagePositionPatient = 6, [0, 0, 0]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PixelData = STORED.astype(np.uint16).tobytes()
    write(dataset, tmp_path / "ct")
    with pytest.raises(TheraflowError, match="several frames without functional groups"):
        stack(tmp_path)


def with_windows(stored, limits):
    """An NM reconstruction that holds one volume after the other, one for each energy window."""
    dataset = spect(np.concatenate(stored))
    count = len(stored[0])
    dataset.NumberOfEnergyWindows = len(stored)
    dataset.EnergyWindowVector = [window + 1 for window in range(len(stored)) for _ in range(count)]
    dataset.SliceVector = [*range(1, count + 1)] * len(stored)
    windows = []
    for low, high in limits:
        window, limit = Dataset(), Dataset()
        limit.EnergyWindowLowerLimit, limit.EnergyWindowUpperLimit = low, high
        window.EnergyWindowRangeSequence = Sequence([limit])
        windows.append(window)
    dataset.EnergyWindowInformationSequence = Sequence(windows)
    return dataset


LUTETIUM = [(101.7, 124.3), (187.2, 228.8)]


@pytest.mark.parametrize(("photopeak_kev", "window"), [(113.0, 0), (208.4, 1)])
def test_the_energy_window_of_the_photopeak_is_taken(tmp_path, photopeak_kev, window):
    write(with_windows((STORED[:3], STORED[3:]), LUTETIUM), tmp_path / "nm")
    found = stack(tmp_path, photopeak_kev)
    assert np.array_equal(stacked(scaled_slices(found, [1.0] * 3, [0.0] * 3)), (STORED[:3], STORED[3:])[window])
    assert found.grid.size == (5, 4, 3)


@pytest.mark.parametrize(
    ("limits", "photopeak_kev", "message"),
    [
        (LUTETIUM, None, r"several energy windows \(101\.7 to 124\.3 keV.*187\.2 to 228\.8 keV\); set photopeak_kev"),
        (LUTETIUM, 364.0, "364 keV lies in 0 of its"),
        ([(100, 250), (187.2, 228.8)], 208.4, "208.4 keV lies in 2 of its"),
    ],
)
def test_energy_windows_that_leave_a_doubt_are_refused(tmp_path, limits, photopeak_kev, message):
    write(with_windows((STORED[:3], STORED[3:]), limits), tmp_path / "nm")
    with pytest.raises(TheraflowError, match=message):
        stack(tmp_path, photopeak_kev)


@pytest.mark.parametrize("keyword", ["TimeSlotVector", "RRIntervalVector", "TimeSliceVector"])
def test_a_gated_or_dynamic_nm_object_is_refused(tmp_path, keyword):
    dataset = spect(STORED)
    setattr(dataset, keyword, [1, 1, 1, 2, 2, 2])
    dataset.SliceVector = [1, 2, 3] * 2
    write(dataset, tmp_path / "nm")
    with pytest.raises(TheraflowError, match=keyword):
        stack(tmp_path)
