"""What lies in a folder, and which series is taken."""

import subprocess
import sys

import numpy as np
import pytest
from dicom_series import ct, pet, spect, write, write_slices

from theraflow.dicom import modalities
from theraflow.dicom.choice import choose_ct, choose_emission
from theraflow.dicom.index import Index, read_index
from theraflow.dicom.volume import ct_slices, stack_slices
from theraflow.errors import TheraflowError

STORED = np.ones((3, 4, 5))


def scan(folder):
    """A PET/CT with everything that lies around beside it."""
    write_slices(pet(), STORED, folder / "pet")
    write_slices(ct(), STORED, folder / "ct")
    (folder / "readme.txt").write_text("not DICOM")
    (folder / "empty").write_bytes(b"")
    (folder / ".hidden.dcm").write_bytes(b"not DICOM")


def test_files_are_told_by_content_and_grouped_by_series(tmp_path):
    scan(tmp_path)
    found = read_index(tmp_path)
    assert sorted((series.modality, series.slices) for series in found.series) == [("CT", 3), ("PT", 3)]
    assert choose_emission(found, "suv", None).series.modality == "PT"
    assert choose_ct(found, choose_emission(found, "suv", None).series, None).series.modality == "CT"


def test_a_file_without_preamble_is_dicom(tmp_path):
    for k in range(3):
        dataset = ct()
        del dataset.file_meta  # nor a meta group: the default transfer syntax holds
        dataset.SOPInstanceUID = f"1.{k + 1}"
        dataset.ImagePositionPatient = [0, 0, k]
        dataset.PixelData = np.full((4, 5), 1024 + k, np.uint16).tobytes()
        dataset.save_as(tmp_path / str(k), implicit_vr=True, little_endian=True)
    (series,) = read_index(tmp_path).series
    assert modalities(tmp_path) == {"CT"}
    assert np.array_equal([slice_[0, 0] for slice_ in ct_slices(stack_slices(series))], [0, 1, 2])


@pytest.mark.parametrize("kept", [140, 300, 600, 0.8])
def test_a_broken_file_is_named(tmp_path, kept):
    path = write_slices(pet(), STORED, tmp_path)[0]
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else content.index(b"\xe0\x7f\x10\x00") - 10])
    with pytest.raises(TheraflowError, match=f"{path.name}.*(broken|truncated)"):
        read_index(tmp_path).whole()


def test_a_dcm_without_dicom_is_named(tmp_path):
    (tmp_path / "image.dcm").write_bytes(b"")
    with pytest.raises(TheraflowError, match=r"image\.dcm is called \.dcm but holds no DICOM"):
        read_index(tmp_path).whole()


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(TheraflowError, match="does not exist"):
        read_index(tmp_path / "nowhere")
    with pytest.raises(TheraflowError, match="No DICOM file"):
        read_index(tmp_path)
    assert modalities(tmp_path / "nowhere") == frozenset()
    assert modalities(tmp_path) == frozenset()


def test_the_uncorrected_pet_is_left_out(tmp_path):
    scan(tmp_path)
    uncorrected = pet()
    uncorrected.SeriesInstanceUID = "1.9"
    uncorrected.CorrectedImage = ["DECY"]
    write_slices(uncorrected, STORED, tmp_path / "nac")
    found = read_index(tmp_path)
    assert choose_emission(found, "suv", None).series.uid != "1.9"
    only = Index(found.folder, tuple(one for one in found.series if one.uid == "1.9"), (), frozenset())
    with pytest.raises(TheraflowError, match="no attenuation-corrected PET"):
        choose_emission(only, "suv", None)


def test_two_pets_need_a_word(tmp_path):
    scan(tmp_path)
    second = pet()
    second.SeriesInstanceUID = "1.9"
    write_slices(second, STORED, tmp_path / "legs")
    found = read_index(tmp_path)
    with pytest.raises(TheraflowError, match=r"2 series .* PT series 1\.2\.3\.1 .* 1\.9 .* set `series` in scans.tsv"):
        choose_emission(found, "suv", None)
    assert choose_emission(found, "suv", "1.9").series.uid == "1.9"
    with pytest.raises(TheraflowError, match=r"has no series 1\.8"):
        choose_emission(found, "suv", "1.8")


def test_the_ct_shares_the_frame_of_reference_and_is_the_longest(tmp_path):
    scan(tmp_path)
    elsewhere = ct("1.7")
    elsewhere.FrameOfReferenceUID = "9.9"
    write_slices(elsewhere, np.ones((9, 4, 5)), tmp_path / "elsewhere")
    short = ct("1.8")
    write_slices(short, np.ones((5, 4, 5)), tmp_path / "short", spacing=1.0)
    survey = ct("1.9")
    survey.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slices(survey, np.ones((1, 4, 5)), tmp_path / "survey")
    found = read_index(tmp_path)
    emission = choose_emission(found, "suv", None).series
    assert choose_ct(found, emission, None).series.uid == "1.2.3.0"
    assert choose_ct(found, emission, "1.7.0").series.uid == "1.7.0"
    sharp = ct("1.6")
    write_slices(sharp, STORED, tmp_path / "sharp")
    found = read_index(tmp_path)
    with pytest.raises(TheraflowError, match="2 series that may be the CT"):
        choose_ct(found, emission, None)
    assert choose_ct(found, emission, "1.6.0").series.uid == "1.6.0"


def test_no_ct_in_this_frame_of_reference(tmp_path):
    write_slices(pet(), STORED, tmp_path / "pet")
    elsewhere = ct()
    elsewhere.FrameOfReferenceUID = "9.9"
    write_slices(elsewhere, STORED, tmp_path / "ct")
    found = read_index(tmp_path)
    emission = choose_emission(found, "suv", None).series
    with pytest.raises(TheraflowError, match="no axial CT in the frame of reference"):
        choose_ct(found, emission, None)


def test_activity_takes_the_calibrated_reconstruction(tmp_path):
    write(spect(STORED), tmp_path / "calibrated")
    counts = spect(STORED)
    counts.SeriesInstanceUID = "1.9"
    del counts.RealWorldValueMappingSequence
    write(counts, tmp_path / "counts")
    planar = spect(STORED)
    planar.SeriesInstanceUID = "1.8"
    planar.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    write(planar, tmp_path / "planar")
    found = read_index(tmp_path)
    assert choose_emission(found, "activity", None).series.uid == "1.2.3.2"
    with pytest.raises(TheraflowError, match="no attenuation-corrected PET"):
        choose_emission(found, "suv", None)


def test_modalities(tmp_path):
    scan(tmp_path)
    assert modalities(tmp_path) == {"CT", "PT"}
    write(spect(STORED), tmp_path / "nm" / "spect")
    structures = spect(STORED)
    structures.Modality = "RTSTRUCT"
    write(structures, tmp_path / "a" / "structures")
    # The first file of every folder is looked at first, so that the small folders are seen too.
    assert {"CT", "RTSTRUCT"} <= modalities(tmp_path)
    survey = ct()
    survey.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slices(survey, STORED[:1], tmp_path / "b" / "survey")
    assert modalities(tmp_path / "b") == frozenset()


def test_planning_loads_no_heavy_library():
    heavy = "('numpy', 'SimpleITK', 'pydicom')"
    code = f"import sys, theraflow.dicom; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
