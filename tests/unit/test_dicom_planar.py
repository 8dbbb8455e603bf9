"""Planar images: which view is which, their conjugate view against analytic truth, and refusals by name."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from dicom_series import detector, pet, planar, spect, view_code, write
from theraflow.dicom.export.index import read_index
from theraflow.dicom.planar import choose_planar, conjugate_view, import_planar, read_planar
from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar
from theraflow.layout import Scan

LUTETIUM = {"radiopharmaceutical": "[177Lu]pentixather", "nuclide": "177Lu", "quantity": "activity"}
SHAPE = (6, 5)
# Not symmetric, so that neither a mirrored nor a turned image is like it; as seen from the front.
FRONT = np.arange(30).reshape(SHAPE) + 100
BACK = 3 * np.arange(30).reshape(SHAPE) + 500
ANTERIOR, POSTERIOR = ("399321004", "SCT"), ("399001007", "SCT")


def energy_window(low, high):
    limits = Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = low, high
    item = Dataset()
    item.EnergyWindowRangeSequence = Sequence([limits])
    return item


def both(front=FRONT, back=BACK, codes=(ANTERIOR, POSTERIOR), order=(0, 1)):
    """One file with two frames; the camera behind the patient sees right and left exchanged."""
    frames, views = (front, back[:, ::-1]), [detector(view_code(*code)) for code in codes]
    return planar([frames[k] for k in order], [views[k] for k in order])


def files(described, **options):
    """Two files, each with one view; `described` changes them."""
    for pixels, change in zip((FRONT, BACK[:, ::-1]), described, strict=True):
        dataset = planar([pixels], **options)
        for keyword, value in change.items():
            setattr(dataset, keyword, value)
        yield dataset


def read(datasets, folder, photopeak_kev=None):
    for k, dataset in enumerate(datasets):
        write(dataset, folder / "in" / f"{k}")
    (series,) = read_index(folder / "in").series
    return read_planar(series, photopeak_kev)


def assert_views(found):
    assert np.array_equal(found.anterior, FRONT)
    assert np.array_equal(found.posterior, BACK)


# ------------------------------------------------------------------------------------------------ which view is which


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    "codes",
    [
        (ANTERIOR, POSTERIOR),
        (("G-5215", "SNM3"), ("G-5216", "SNM3")),
        (("A", "99SDM", "Anterior"), ("P", "99SDM", "POSTERIOR")),
    ],
)
def test_one_file_with_two_frames(tmp_path, codes, order):
    found = read([both(codes=codes, order=order)], tmp_path)
    assert_views(found)
    assert found.views_by == "ViewCodeSequence (0054,0220) of the detector"
    assert found.counting.duration_s == 1200.0


def test_the_detector_vector_says_which_detector_a_frame_is_of(tmp_path):
    dataset = planar(
        [FRONT, BACK[:, ::-1]], [detector(view_code(*POSTERIOR)), detector(view_code(*ANTERIOR))], vector=[2, 1]
    )
    assert_views(read([dataset], tmp_path))


@pytest.mark.parametrize(
    "described",
    [
        ({"SeriesDescription": "WB ANT"}, {"SeriesDescription": "WB POST"}),
        ({"ImageID": "ANTERIOR"}, {"ImageID": "POSTERIOR"}),
        ({"ViewPosition": "ANT"}, {"ViewPosition": "POST"}),
        # "POST therapy" stands in both: what differs tells.
        ({"ImageID": "ANT", "SeriesDescription": "POST THERAPY"}, {"SeriesDescription": "POST THERAPY"}),
        (
            {"DetectorInformationSequence": Sequence([detector(view_code(*ANTERIOR))])},
            {"DetectorInformationSequence": Sequence([detector(view_code(*POSTERIOR))])},
        ),
    ],
)
def test_a_file_a_view(tmp_path, described):
    datasets = list(files(described))
    datasets[0].CountsAccumulated, datasets[1].CountsAccumulated = 1_000, 500
    found = read(datasets, tmp_path)
    assert_views(found)
    assert found.counting.counts == 1_500


def test_two_windows_and_two_views(tmp_path):
    frames = [FRONT + 1000, BACK[:, ::-1] + 1000, FRONT, BACK[:, ::-1]]
    dataset = planar(frames, [detector(view_code(*ANTERIOR)), detector(view_code(*POSTERIOR))], [1, 2, 1, 2])
    dataset.EnergyWindowInformationSequence = Sequence([energy_window(101.7, 124.3), energy_window(187.2, 228.8)])
    dataset.EnergyWindowVector = [1, 1, 2, 2]
    found = read([dataset], tmp_path, 208.0)
    assert_views(found)
    assert found.counting.window_kev == ((187.2, 228.8),)
    assert np.array_equal(read([dataset], tmp_path, 113.0).anterior, FRONT + 1000)
    with pytest.raises(TheraflowError, match=r"several energy windows .*set photopeak_kev"):
        read([dataset], tmp_path)
    del dataset.EnergyWindowVector
    with pytest.raises(TheraflowError, match=r"DetectorVector|2 anterior and 2 posterior images"):
        read([dataset], tmp_path)


@pytest.mark.parametrize(
    "dataset",
    [
        planar([FRONT, BACK]),
        planar([FRONT, BACK], [detector(), detector()]),
        planar([FRONT, BACK], [detector(view_code(*ANTERIOR)), detector(view_code(*ANTERIOR))]),
        planar([FRONT, BACK], [detector(view_code(*ANTERIOR)), detector()]),
        both(codes=(("399074003", "SCT", "Left anterior oblique"), POSTERIOR)),
        both(codes=(("X", "99SDM", "anterior or posterior"), POSTERIOR)),
    ],
)
def test_views_are_not_guessed(tmp_path, dataset):
    with pytest.raises(TheraflowError, match=r"cannot be told: neither ViewCodeSequence \(0054,0220\)"):
        read([dataset], tmp_path)


def test_views_in_the_description_of_one_file_tell_nothing(tmp_path):
    for said in ("WB POST THERAPY", "WB ANT", "WB ANT POST"):
        dataset = planar([FRONT, BACK])
        dataset.SeriesDescription = said
        with pytest.raises(TheraflowError, match="cannot be told"):
            read([dataset], tmp_path)


def test_several_images_of_a_view_are_refused(tmp_path):
    views = [detector(view_code(*ANTERIOR)), detector(view_code(*POSTERIOR))]
    with pytest.raises(TheraflowError, match="2 anterior and 2 posterior images"):
        read([planar([FRONT, BACK, FRONT, BACK], views, [1, 2, 1, 2])], tmp_path)
    with pytest.raises(TheraflowError, match=r"DetectorVector \(0054,0020\) does not fit"):
        read([planar([FRONT, BACK], views, [1, 3])], tmp_path)


def test_orientation_decides_whether_the_posterior_view_is_mirrored(tmp_path):
    dataset = both()
    front, back = dataset.DetectorInformationSequence
    front.ImageOrientationPatient, back.ImageOrientationPatient = [1, 0, 0, 0, 0, -1], [-1, 0, 0, 0, 0, -1]
    found = read([dataset], tmp_path)
    assert_views(found)
    assert found.flags == ()
    # The camera has mirrored it already.
    dataset = both(back=BACK[:, ::-1])
    for item in dataset.DetectorInformationSequence:
        item.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    found = read([dataset], tmp_path)
    assert_views(found)
    assert "mirrored already" in found.flags[0]
    # What is no coronal plane is no statement about it.
    dataset = both()
    for item in dataset.DetectorInformationSequence:
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    assert_views(read([dataset], tmp_path))
    dataset.DetectorInformationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.DetectorInformationSequence[1].ImageOrientationPatient = [1, 0, 0, 0, 0, 1]
    with pytest.raises(TheraflowError, match="upside down"):
        read([dataset], tmp_path)


def test_views_that_do_not_fit_are_refused(tmp_path):
    ant, post = ({"ImageID": "ANT"}, {"ImageID": "POST"})
    with pytest.raises(TheraflowError, match=r"different times \(1200 and 600 s\)"):
        read(files((ant, {**post, "ActualFrameDuration": 600_000})), tmp_path)
    with pytest.raises(TheraflowError, match="different pixels"):
        read(files((ant, {**post, "PixelSpacing": [2.0, 2.0]})), tmp_path)
    with pytest.raises(TheraflowError, match=r"lacks PixelSpacing \(0028,0030\)"):
        read(files((ant, {**post, "PixelSpacing": None})), tmp_path)
    with pytest.raises(TheraflowError, match="negative"):
        read(files((ant, {**post, "RescaleSlope": 1, "RescaleIntercept": -1000})), tmp_path)


# ------------------------------------------------------------------------------------------------ conjugate view


@given(
    depth=st.floats(0.0, 1.0),
    thickness_cm=st.floats(10.0, 40.0),
    attenuation_per_cm=st.floats(0.05, 0.13),
    column=st.integers(0, 4),
    two_files=st.booleans(),
)
def test_geometric_mean_of_a_point_source_does_not_depend_on_its_depth(
    depth, thickness_cm, attenuation_per_cm, column, two_files
):
    """I_A = I exp(-mu d), I_P = I exp(-mu (T - d)): sqrt(I_A I_P) = I exp(-mu T / 2) (Cherry, Sorenson, Phelps)."""
    emitted, duration_s, slope = 60_000.0, 900.0, 1e-3
    front, behind = np.zeros(SHAPE), np.zeros(SHAPE)
    in_front_cm = depth * thickness_cm
    front[2, column] = emitted * math.exp(-attenuation_per_cm * in_front_cm)
    # Seen from behind the source lies in the mirrored column.
    behind[2, SHAPE[1] - 1 - column] = emitted * math.exp(-attenuation_per_cm * (thickness_cm - in_front_cm))
    codes = [view_code(*ANTERIOR), view_code(*POSTERIOR)]
    frames = np.rint(np.array([front, behind]) / slope).astype(np.uint32)
    if two_files:
        datasets = [planar([frame], [detector(code)]) for frame, code in zip(frames, codes, strict=True)]
    else:
        datasets = [planar(frames, [detector(code) for code in codes])]
    parts = [[frame] for frame in frames] if two_files else [frames]
    for dataset, part in zip(datasets, parts, strict=True):
        dataset.BitsAllocated = dataset.BitsStored = 32
        dataset.HighBit = 31
        dataset.PixelData = np.asarray(part).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, 0
        dataset.ActualFrameDuration = round(duration_s * 1000)
    with TemporaryDirectory() as folder:
        for k, dataset in enumerate(datasets):
            write(dataset, Path(folder) / f"{k}")
        (series,) = read_index(folder).series
        view = conjugate_view(read_planar(series), dead_time=1.25)
    expected = 1.25 * emitted / duration_s * math.exp(-attenuation_per_cm * thickness_cm / 2)
    assert view.geometric_mean[2, column] == pytest.approx(expected, rel=1e-5)
    assert np.count_nonzero(view.geometric_mean) == 1
    assert view.anterior[2, column] * view.posterior[2, column] == pytest.approx(expected**2, rel=1e-5)


# ------------------------------------------------------------------------------------------------ choice


def choose(folder, *datasets, forced=None):
    for k, dataset in enumerate(datasets):
        write(dataset, folder / "in" / f"{k}")
    return choose_planar(read_index(folder / "in"), forced)


def test_whole_body_goes_before_static(tmp_path):
    static, sweep = planar([FRONT], kind="STATIC", uid="1.1"), both()
    choice = choose(tmp_path, static, sweep, spect(np.ones((3, 4, 5))))
    assert choice.series.uid == sweep.SeriesInstanceUID
    assert choice.reason == "whole body"
    assert list(choice.others.values()) == ["not the planar image: planar"]
    forced = choose_planar(read_index(tmp_path / "in"), static.SeriesInstanceUID)
    assert (forced.series.uid, forced.reason) == (static.SeriesInstanceUID, "named in scans.tsv")


def test_a_dynamic_study_is_no_static_image(tmp_path):
    with pytest.raises(TheraflowError, match="holds no planar image"):
        choose(tmp_path, planar([FRONT, BACK], kind="DYNAMIC"), spect(np.ones((3, 4, 5))))


def test_a_series_a_view(tmp_path):
    ant, post = files(({"ImageID": "ANT"}, {"ImageID": "POST", "SeriesInstanceUID": "1.2.3.9"}))
    with pytest.raises(TheraflowError, match=r"2 series that may be the planar image: .* or of both"):
        choose(tmp_path, ant, post)
    uids = f"{ant.SeriesInstanceUID}, {post.SeriesInstanceUID}"
    assert_views(read_planar(choose_planar(read_index(tmp_path / "in"), uids).series))


# ------------------------------------------------------------------------------------------------ whole import


def imported(folder, *datasets, tracer=(), **overrides):
    for k, dataset in enumerate(datasets):
        write(dataset, folder / "in" / f"{k}")
    row = Scan("P001", "planar_24h", "lutetium", "baseline", str(folder / "in"), "activity", **overrides)
    import_planar(row, {**LUTETIUM, **dict(tracer)}, folder / "planar.nii.gz")
    return sitk.ReadImage(folder / "planar.nii.gz"), read_sidecar(folder / "planar.nii.gz")


def test_import_tells_everything(tmp_path):
    dataset = both()
    dataset.PatientName, dataset.PatientBirthDate = "Doe^Jane", "19700101"
    dataset.EnergyWindowInformationSequence = Sequence([energy_window(187.2, 228.8)])
    # 20 % lost: true rate r with r tau = -ln 0.8.
    dead_time_us = 5.0
    observed = 0.8 * -math.log(0.8) / (dead_time_us * 1e-6)
    dataset.CountsAccumulated = round(observed * 1200)
    calibration = {"sensitivity_cps_per_mbq": 9.0, "dead_time_us": dead_time_us}
    image_, sidecar = imported(tmp_path, dataset, tracer={"photopeak_kev": 208, "calibration": calibration})
    array = sitk.GetArrayFromImage(image_)
    assert array == pytest.approx(np.array([FRONT, BACK]) / 1200.0 / 0.8, rel=1e-5)
    assert image_.GetSpacing() == pytest.approx((3.0, 2.0, 1.0))
    # Columns to the left, rows to the feet, slices to the back (LPS).
    axes = np.array(image_.GetDirection()).reshape(3, 3).T
    assert axes == pytest.approx(np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]))
    assert (sidecar["quantity"], sidecar["unit"], sidecar["slices"]) == (
        "planar count rate", "1/s", ["anterior", "posterior"],
    )  # fmt: skip
    assert sidecar["time_after_injection_h"] == 24.0 and sidecar["injected_mbq"] == 200.0
    assert sidecar["series_chosen_because"] == "whole body"
    assert sidecar["whole_body"] == {"technique": "1PS", "velocity_mm_per_s": 1.6, "length_mm": 1920.0}
    told = sidecar["counting"]
    assert told["duration_s"] == 1200.0 and told["energy_window_kev"] == [[187.2, 228.8]]
    assert told["dead_time_factor"] == pytest.approx(1.25, rel=1e-6)
    assert told["sensitivity_cps_per_mbq"] == 9.0
    assert sidecar["flags"] == []
    written = json.dumps(sidecar)
    assert "Doe" not in written and "1970" not in written


def test_without_calibration_rates_are_as_observed(tmp_path):
    dataset = both()
    del dataset.ActualFrameDuration
    image_, sidecar = imported(tmp_path, dataset)
    # 1920 mm at 1.6 mm/s.
    assert sitk.GetArrayFromImage(image_) == pytest.approx(np.array([FRONT, BACK]) / 1200.0, rel=1e-6)
    assert sidecar["counting"]["duration_s"] == 1200.0
    assert sidecar["counting"]["dead_time_factor"] is None


def test_views_one_after_the_other_are_flagged(tmp_path):
    datasets = files(({"ImageID": "ANT"}, {"ImageID": "POST", "AcquisitionTime": "102500"}))
    _, sidecar = imported(tmp_path, *datasets)
    assert sidecar["flags"] == ["the two views were begun 1500 s one after the other"]
    assert sidecar["acquired_at"] == "2023-05-02T10:00:00"


def test_all_missing_facts_are_named_at_once(tmp_path):
    dataset = both()
    del dataset.ActualFrameDuration, dataset.ScanVelocity, dataset.AcquisitionDate
    del dataset.RadiopharmaceuticalInformationSequence
    calibration = {"sensitivity_cps_per_mbq": 9.0, "dead_time_us": 5.0}
    with pytest.raises(TheraflowError) as error:
        imported(tmp_path, dataset, tracer={"calibration": calibration})
    for name in (
        "ActualFrameDuration (0018,1242)",
        "AcquisitionDate (0008,0022)",
        "CountsAccumulated (0018,0070)",
        "[injected_mbq]",
        "[injected_at]",
    ):
        assert name in str(error.value)
    assert not (tmp_path / "planar.nii.gz").exists()


def test_a_rate_beyond_the_maximum_names_the_series(tmp_path):
    dataset = both()
    dataset.CountsAccumulated = 1200 * 100_000
    calibration = {"sensitivity_cps_per_mbq": 9.0, "dead_time_us": 5.0}
    with pytest.raises(TheraflowError, match=r"NM series 1\.2\.3\.2 .*observed rate of 100000 counts/s .*dead_time_us"):
        imported(tmp_path, dataset, tracer={"calibration": calibration})


def test_a_folder_without_planar_images_is_refused(tmp_path):
    with pytest.raises(TheraflowError, match=r"holds no planar image \(Modality NM, WHOLE BODY or STATIC\); it holds"):
        dataset = pet()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.PixelData = np.zeros((4, 5), np.uint16).tobytes()
        imported(tmp_path, dataset)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(both(), tmp_path / "in" / "0")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(TheraflowError, match="is truncated"):
        imported(tmp_path)
