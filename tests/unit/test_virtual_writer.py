"""The DICOM of virtual patients, read back by readers of other houses."""

import datetime
import math
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon
from pydicom import dcmread

from theraflow.virtual.anatomy import Grid
from theraflow.virtual.writer import (
    Header,
    Injection,
    write_ct,
    write_pet,
    write_rtstruct,
    write_seg,
    write_spect,
)

START = datetime.datetime(2018, 3, 1, 9, 30)
HEADER = Header("P001", "fdg", "M", 8, 25.5, 128.0, START, "[18F]FDG PET/CT")
FDG = Injection("[18F]FDG", "18F", 100.0, datetime.datetime(2018, 3, 1, 8, 28))
LUTETIUM = Injection("[177Lu]pentixather", "177Lu", 180.0, datetime.datetime(2018, 2, 26, 8, 30))
GRID = Grid((36, 40, 60), (3.4, 3.4, 3.0), (-61.2, -40.1, -200.7))
HALF_LIFE_18F_S = 109.77 * 60


def read_gdcm(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def same_geometry(image: sitk.Image, grid: Grid) -> bool:
    return (
        image.GetSize() == grid.size
        and np.allclose(image.GetSpacing(), grid.spacing)
        and np.allclose(image.GetOrigin(), grid.origin)
        and image.GetDirection() == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    )


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Coverage of a ball on GRID by 8 x 8 x 8 samples a voxel."""
    fine = Grid(
        tuple(8 * n for n in GRID.size),
        tuple(s / 8 for s in GRID.spacing),
        tuple(o - s / 2 + s / 16 for o, s in zip(GRID.origin, GRID.spacing, strict=True)),
    )
    x, y, z = fine.axes()
    squared = (x[None, None] - centre[0]) ** 2 + (y[None, :, None] - centre[1]) ** 2
    inside = squared + (z[:, None, None] - centre[2]) ** 2 < radius**2
    return inside.reshape(60, 8, 40, 8, 36, 8).mean(axis=(1, 3, 5))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A CT and a PET: folder, HU, and Bq/mL of a cylinder of SUV 1 by body weight."""
    folder = tmp_path_factory.mktemp("dicom")
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 300, GRID.size[::-1]).astype(np.float32)
    write_ct(GRID.image(hu), folder / "CT", HEADER)
    x, y, z = GRID.axes()
    inside = (x[None, None] ** 2 + (y[None, :, None] - 20) ** 2 < 40**2) & (np.abs(z[:, None, None] + 110) < 60)
    left_bq = 100e6 * 2 ** (-62 * 60 / HALF_LIFE_18F_S)
    ramp = 1.0 + np.arange(60)[:, None, None] / 100.0  # slices differ, and so do their slopes
    activity = (inside * ramp * left_bq / 25.5e3).astype(np.float32)
    write_pet(GRID.image(activity), folder / "PET", HEADER, FDG)
    return folder, hu, activity


def test_ct_comes_back_in_hu_and_in_place(written):
    folder, hu, _ = written
    image = read_gdcm(folder / "CT")
    assert same_geometry(image, GRID)
    assert np.abs(sitk.GetArrayFromImage(image) - np.clip(hu, -1024, 3071)).max() <= 0.5


def test_pet_comes_back_with_a_slope_per_slice(written):
    folder, _, activity = written
    image = read_gdcm(folder / "PET")
    assert same_geometry(image, GRID)
    assert np.abs(sitk.GetArrayFromImage(image) - activity).max() <= activity.max() / 32767
    slopes = {float(dcmread(file).RescaleSlope) for file in (folder / "PET").iterdir()}
    assert len(slopes) > 30


def test_suv_of_a_uniform_cylinder_is_one(written):
    """SUVbw = C W / (A0 2^(-t/T)), computed from the header alone."""
    folder, _, activity = written
    checked = 0
    for file in (folder / "PET").iterdir():
        slice_ = dcmread(file)
        injected = slice_.RadiopharmaceuticalInformationSequence[0]
        moments = [
            datetime.datetime.strptime(text[:14], "%Y%m%d%H%M%S")
            for text in (slice_.SeriesDate + slice_.SeriesTime, injected.RadiopharmaceuticalStartDateTime)
        ]
        seconds = (moments[0] - moments[1]).total_seconds()
        left = float(injected.RadionuclideTotalDose) * 2 ** (-seconds / float(injected.RadionuclideHalfLife))
        k = round((float(slice_.ImagePositionPatient[2]) - GRID.origin[2]) / 3.0)
        suv = slice_.pixel_array * float(slice_.RescaleSlope) * float(slice_.PatientWeight) * 1e3 / left
        inside = activity[k] > 0
        if inside.any():
            assert np.allclose(suv[inside], 1.0 + k / 100.0, rtol=1e-3)
            checked += 1
    assert checked == 40


def test_pet_times_of_every_slice_lead_back_to_the_series_time(written):
    """IBSI's back-computation: the frame's mean activity is reached at the frame reference time."""
    folder, _, _ = written
    decay = math.log(2) / HALF_LIFE_18F_S
    acquired = set()
    for file in (folder / "PET").iterdir():
        slice_ = dcmread(file)
        moment = datetime.datetime.strptime(slice_.AcquisitionDate + slice_.AcquisitionTime[:6], "%Y%m%d%H%M%S")
        acquired.add(moment)
        frame_s = float(slice_.ActualFrameDuration) / 1000
        mean_at = math.log(decay * frame_s / -math.expm1(-decay * frame_s)) / decay
        reference = moment + datetime.timedelta(seconds=mean_at - float(slice_.FrameReferenceTime) / 1000)
        assert abs((reference - START).total_seconds()) < 0.05
        assert float(slice_.DecayFactor) == pytest.approx(
            2 ** (float(slice_.FrameReferenceTime) / 1000 / HALF_LIFE_18F_S), rel=1e-4
        )
    assert len(acquired) == 2  # 180 mm take two bed positions


def test_identity_and_frames_of_reference(written, tmp_path):
    folder, hu, _ = written
    ct, pet = (dcmread(next((folder / name).iterdir())) for name in ("CT", "PET"))
    assert (ct.Manufacturer, ct.ManufacturerModelName) == ("theraflow", "virtual patient")
    assert str(ct.PatientName) == "Virtual^P001"
    assert ct.PatientIdentityRemoved == "YES"
    assert ct.FrameOfReferenceUID == pet.FrameOfReferenceUID
    assert ct.StudyInstanceUID == pet.StudyInstanceUID
    assert ct.SeriesInstanceUID != pet.SeriesInstanceUID
    other = Header("P001", "pentixafor", "M", 8, 25.5, 128.0, START, "CT")
    write_ct(GRID.image(hu), tmp_path / "CT", other)
    assert dcmread(tmp_path / "CT" / "0001.dcm").FrameOfReferenceUID != ct.FrameOfReferenceUID


def test_the_same_input_gives_the_same_bytes(written, tmp_path):
    folder, hu, activity = written
    write_ct(GRID.image(hu), tmp_path / "CT", HEADER)
    write_pet(GRID.image(activity), tmp_path / "PET", HEADER, FDG)
    masks = {"L01": ball((0, 20, -110), 15.0)}
    for number in (1, 2):
        write_seg(masks, folder / "PET", tmp_path / f"seg{number}.dcm", HEADER)
    for name in ("CT/0007.dcm", "PET/0031.dcm"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "seg1.dcm").read_bytes() == (tmp_path / "seg2.dcm").read_bytes()


def test_spect_states_bq_per_ml_at_acquisition(tmp_path):
    grid = Grid((32, 32, 24), (4.8, 4.8, 4.8), (-75.0, -70.0, 31.4))
    values = np.random.default_rng(1).uniform(0, 5e4, (24, 32, 32)).astype(np.float32)
    write_spect(grid.image(values), tmp_path, HEADER, LUTETIUM)
    dataset = dcmread(tmp_path / "spect.dcm")
    (mapping,) = dataset.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "Bq/ml"
    assert np.abs(dataset.pixel_array * mapping.RealWorldValueSlope - values).max() < values.max() / 65535
    assert "DECY" not in dataset.CorrectedImage
    assert dataset.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime[:12] == "201802260830"
    assert same_geometry(sitk.ReadImage(str(tmp_path / "spect.dcm")), grid)


def test_rtstruct_outlines_have_the_volume_of_the_lesions(written, tmp_path):
    folder, _, _ = written
    lesions = {"L01": ((1.0, 18.3, -110.7), 9.0), "L02": ((-20.0, 30.0, -60.2), 17.0)}
    masks = {name: ball(*lesion) for name, lesion in lesions.items()}
    write_rtstruct(masks, folder / "PET", tmp_path / "rtstruct.dcm", HEADER)
    dataset = dcmread(tmp_path / "rtstruct.dcm")
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == list(lesions)
    pet = dcmread(folder / "PET" / "0001.dcm")
    assert dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == pet.FrameOfReferenceUID
    for roi, (centre, radius) in zip(dataset.ROIContourSequence, lesions.values(), strict=True):
        volume, moment = 0.0, np.zeros(3)
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            x, y, z = points.T
            assert np.ptp(z) == 0
            part = 0.5 * abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) * GRID.spacing[2]
            volume, moment = volume + part, moment + part * points.mean(axis=0)
        assert np.allclose(moment / volume, centre, atol=0.3)
        assert volume == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)


def test_rtstruct_of_a_mask_filled_by_voxel_centres_is_the_mask(written, tmp_path):
    folder, _, _ = written
    mask = ball((1.0, 18.3, -110.7), 14.0) >= 0.5
    write_rtstruct({"L01": mask}, folder / "PET", tmp_path / "rtstruct.dcm", HEADER)
    x, y, z = GRID.axes()
    centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    filled = np.zeros(mask.shape, bool)
    for contour in dcmread(tmp_path / "rtstruct.dcm").ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        k = int(np.argmin(np.abs(z - points[0, 2])))
        filled[k] |= Polygon(points[:, :2]).contains_points(centres).reshape(mask.shape[1:])
    assert (filled == mask).all()


def test_seg_comes_back_as_the_masks(written, tmp_path):
    folder, _, _ = written
    masks = {"L01": ball((1.0, 18.3, -110.7), 9.0), "L02": ball((-20.0, 30.0, -60.2), 17.0)}
    write_seg(masks, folder / "PET", tmp_path / "seg.dcm", HEADER)
    volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(rescale_fractional=False)
    labels = [segment.SegmentLabel for segment in dcmread(tmp_path / "seg.dcm").SegmentSequence]
    assert labels == ["L01", "L02"]
    for number, mask in enumerate(masks.values()):
        found = np.asarray(volume.array[..., number], bool)
        assert found.sum() == round(mask.sum())  # the lesion's volume
        wanted = mask >= np.sort(mask, axis=None)[-found.sum()]
        index = np.argwhere(found).mean(axis=0)
        point = (volume.affine @ [*index, 1.0])[:3]
        centre = np.argwhere(wanted).mean(axis=0)[::-1] * GRID.spacing + GRID.origin
        assert np.allclose(point, centre, atol=1e-3)


@pytest.mark.dicom3tools
def test_dciodvfy_finds_no_error(written, tmp_path, debian_program):
    folder, _, activity = written
    write_spect(GRID.image(activity), tmp_path, HEADER, LUTETIUM)
    masks = {"L01": ball((1.0, 18.3, -110.7), 9.0)}
    write_rtstruct(masks, folder / "PET", tmp_path / "rtstruct.dcm", HEADER)
    write_seg(masks, folder / "PET", tmp_path / "seg.dcm", HEADER)
    files = [folder / "CT" / "0001.dcm", folder / "PET" / "0031.dcm", *sorted(tmp_path.glob("*.dcm"))]
    assert len(files) == 5
    for file in files:
        run = subprocess.run([debian_program("dciodvfy"), "-new", str(file)], capture_output=True, text=True)
        said = run.stdout + run.stderr
        assert "Error" not in said, f"{file.name}: {said}"
