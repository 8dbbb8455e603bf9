"""What lies in a folder, and which series is taken."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from pydicom import Dataset

from dicom_series import ct, pet, spect, stacked, write, write_slices
from theraflow.dicom import holds_ct
from theraflow.dicom.export import sniff
from theraflow.dicom.export.choice import choose_ct, choose_emission
from theraflow.dicom.export.index import Index, read_index
from theraflow.dicom.export.parse import read_file
from theraflow.dicom.export.series import Kind
from theraflow.dicom.voxels.volume import ct_slices, stack_slices
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
    assert holds_ct(tmp_path)
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
    assert holds_ct(tmp_path / "nowhere") is None
    (tmp_path / "README").write_text("The archive is mounted here.")
    assert holds_ct(tmp_path) is None


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


def test_a_ct_is_found_wherever_it_lies(tmp_path):
    write_slices(pet(), STORED, tmp_path / "a")
    write(spect(STORED), tmp_path / "b" / "spect")
    survey = ct()
    survey.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_slices(survey, STORED[:1], tmp_path / "c" / "survey")
    assert holds_ct(tmp_path) is False
    link = tmp_path / "c" / "archive"
    link.symlink_to(tmp_path / "away")
    assert holds_ct(tmp_path) is None
    link.unlink()
    slices = write_slices(ct(), STORED, tmp_path / "c" / "ct")
    assert holds_ct(tmp_path)
    for path in slices:
        path.write_bytes(path.read_bytes()[:300])  # as while it is being copied
    assert holds_ct(tmp_path) is None


def image_of(template, size):
    template.Rows = template.Columns = size
    return template


@pytest.mark.parametrize("place", [0, 1, 150, 299])
@pytest.mark.parametrize("emission", ["one file", "slices"])
def test_one_folder_of_all_series_is_known_by_a_few_files(tmp_path, monkeypatch, place, emission):
    """Else a plan of a thousand patients would read millions of headers."""
    folder = tmp_path / "all"
    slices = write_slices(image_of(ct(), 64), np.zeros((1, 64, 64)), folder)
    for number in range(299):
        shutil.copy(slices[0], folder / f"{number:03d}c")
    name = folder / f"{place:03d}x"
    if emission == "one file":
        shutil.move(write(spect(np.zeros((64, 64, 64))), tmp_path / "nm"), name)
    else:
        shutil.move(write_slices(image_of(pet(), 16), np.zeros((1, 16, 16)), tmp_path / "pt")[0], name)
    read = []
    monkeypatch.setattr(sniff, "read_file", lambda path: read.append(path) or read_file(path))
    assert holds_ct(folder)
    assert not sniff.is_planar(folder)
    assert len(read) <= 6


def test_planning_loads_no_heavy_library():
    heavy = "('numpy', 'SimpleITK', 'pydicom')"
    code = f"import sys, theraflow.dicom; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def told(dataset, places, folder):
    """The kinds that the index tells of a series with a slice at each place."""
    for k, place in enumerate(places):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{k + 1}"
        if place is not None:
            dataset.ImagePositionPatient = place
        dataset.PixelData = np.zeros((dataset.Rows, dataset.Columns, dataset.SamplesPerPixel), np.uint16).tobytes()
        write(dataset, folder / str(k))
    return [series.kind for series in read_index(folder).whole().series]


UPWARDS = [[0, 0, 3 * k] for k in range(4)]
CORONAL, SAGITTAL, OBLIQUE = [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1], [0.8, 0.6, 0, -0.36, 0.48, 0.8]
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


# ImageType as scanners write it: GE LightSpeed and Discovery, Siemens SOMATOM and Biograph (`CT_SOM5 ...`), Philips
# Brilliance, Canon Aquilion.
@pytest.mark.parametrize(
    ("what", "changes", "kind"),
    [
        ("ORIGINAL PRIMARY AXIAL", {}, Kind.CT),
        ("ORIGINAL PRIMARY AXIAL|CT_SOM5 SPI", {}, Kind.CT),
        ("ORIGINAL PRIMARY AXIAL HELIX", {}, Kind.CT),
        ("DERIVED PRIMARY AXIAL|CT_SOM5 MPR", {}, Kind.CT),
        ("DERIVED SECONDARY REFORMATTED AVERAGE", {}, Kind.CT),
        ("DERIVED SECONDARY REFORMATTED AVERAGE", {"ImageOrientationPatient": CORONAL}, Kind.CT_REFORMATTED),
        ("DERIVED PRIMARY AXIAL|CT_SOM5 MPR", {"ImageOrientationPatient": SAGITTAL}, Kind.CT_REFORMATTED),
        ("ORIGINAL PRIMARY LOCALIZER", {"ImageOrientationPatient": CORONAL}, Kind.CT_SCOUT),
        ("ORIGINAL PRIMARY LOCALIZER|CT_SOM5 TOP", {"ImageOrientationPatient": CORONAL}, Kind.CT_SCOUT),
        ("DERIVED PRIMARY AXIAL|CT_SOM5 MIP", {}, Kind.CT_PROJECTION),
        ("DERIVED SECONDARY REFORMATTED|MIN IP", {}, Kind.CT_PROJECTION),
        ("DERIVED SECONDARY|PROJECTION IMAGE", {}, Kind.CT_PROJECTION),
        ("DERIVED SECONDARY|SCREEN SAVE", {}, Kind.SCREENSHOT),
        ("DERIVED SECONDARY OTHER|CT_SOM5 PROT", {}, Kind.SCREENSHOT),
        ("DERIVED SECONDARY OTHER", {"ImageOrientationPatient": None}, Kind.SCREENSHOT),
        ("DERIVED SECONDARY AXIAL", {"SamplesPerPixel": 3}, Kind.SCREENSHOT),
        ("DERIVED SECONDARY", {"SOPClassUID": CAPTURE}, Kind.SCREENSHOT),
    ],
)
def test_kinds_of_ct(tmp_path, what, changes, kind):
    dataset = ct()
    words, *phrases = what.split("|")
    dataset.ImageType = [*words.split(), *phrases]
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    assert told(dataset, UPWARDS, tmp_path) == [kind]


SIEMENS = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
PHILIPS_UNCORRECTED = ["DECY", "RADL", "DTIM", "RAN", "NORM"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"CorrectedImage": SIEMENS}, Kind.PET),
        ({"CorrectedImage": SIEMENS, "ImageType": ["DERIVED", "SECONDARY"]}, Kind.PET),
        ({"CorrectedImage": SIEMENS, "SeriesType": ["STATIC", "IMAGE"], "Units": "GML"}, Kind.PET),
        ({"CorrectedImage": ["NORM", "DTIM", "DECY"]}, Kind.PET_UNCORRECTED),
        ({"CorrectedImage": PHILIPS_UNCORRECTED, "Units": "CNTS"}, Kind.PET_UNCORRECTED),
        ({"SeriesType": ["DYNAMIC", "IMAGE"]}, Kind.PET_DYNAMIC),
        ({"SeriesType": ["GATED", "IMAGE"]}, Kind.PET_GATED),
        ({"SeriesType": ["WHOLE BODY", "REPROJECTION"]}, Kind.PET_PROJECTION),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, Kind.PET_PROJECTION),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, Kind.PET_PROJECTION),
        ({"Units": "MLMINML"}, Kind.PET_PARAMETRIC),  # Patlak
        ({"Units": "1CM", "ImageType": ["ORIGINAL", "PRIMARY", "TRANSMISSION"]}, Kind.PET_PARAMETRIC),  # attenuation
        ({"ImageType": ["DERIVED", "PRIMARY"], "SamplesPerPixel": 3}, Kind.SCREENSHOT),  # fused with CT, in colour
        ({"ImageType": ["DERIVED", "PRIMARY"], "SOPClassUID": CAPTURE}, Kind.SCREENSHOT),
    ],
)
def test_kinds_of_pet(tmp_path, changes, kind):
    dataset = pet()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    assert told(dataset, UPWARDS, tmp_path) == [kind]


@pytest.mark.parametrize(
    ("meaning", "kind"),
    [
        ("177 Lutetium", Kind.SPECT_AS_PET),
        ("^131^Iodine", Kind.SPECT_AS_PET),
        ("^18^Fluorine", Kind.PET),
        ("?", Kind.PET),
    ],
)
def test_a_single_photon_emitter_stored_as_pt_is_a_spect(tmp_path, meaning, kind):
    dataset, code = pet(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-101ED", "99SDM", meaning
    dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence = [code]
    assert told(dataset, UPWARDS, tmp_path) == [kind]


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"], Kind.SPECT),
        (["DERIVED", "PRIMARY", "RECON TOMO"], Kind.SPECT),
        (["ORIGINAL", "PRIMARY", "RECON TOMO", "TRANSMISSION"], Kind.SPECT_TRANSMISSION),
        (["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"], Kind.SPECT_GATED),
        (["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"], Kind.SPECT_PROJECTIONS),
        (["ORIGINAL", "PRIMARY", "GATED TOMO", "EMISSION"], Kind.SPECT_PROJECTIONS),
        (["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"], Kind.PLANAR_WHOLE_BODY),
        (["ORIGINAL", "PRIMARY", "STATIC", "EMISSION"], Kind.PLANAR),
        (["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"], Kind.PLANAR),
        (["ORIGINAL", "PRIMARY"], Kind.OTHER),
    ],
)
def test_kinds_of_nm(tmp_path, what, kind):
    dataset = spect(STORED)
    dataset.ImageType = what
    write(dataset, tmp_path / "nm")
    assert [series.kind for series in read_index(tmp_path).series] == [kind]


@pytest.mark.parametrize(
    ("modality", "sop_class", "kind"),
    [
        ("SR", "1.2.840.10008.5.1.4.1.1.88.67", Kind.DOSE_REPORT),
        ("SR", "1.2.840.10008.5.1.4.1.1.88.68", Kind.DOSE_REPORT),
        ("SR", "1.2.840.10008.5.1.4.1.1.88.33", Kind.REPORT),
        ("SEG", "1.2.840.10008.5.1.4.1.1.66.4", Kind.SEGMENTATION),
        ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3", Kind.STRUCTURES),
        ("OT", CAPTURE, Kind.SCREENSHOT),
        ("OT", CAPTURE + ".4", Kind.SCREENSHOT),
        ("PR", "1.2.840.10008.5.1.4.1.1.11.1", Kind.OTHER),
        ("MR", "1.2.840.10008.5.1.4.1.1.4", Kind.OTHER),
    ],
)
def test_kinds_of_what_is_no_measured_image(tmp_path, modality, sop_class, kind):
    dataset = Dataset()
    dataset.file_meta = ct().file_meta
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Modality, dataset.SeriesInstanceUID = modality, "1.2.3"
    write(dataset, tmp_path / "object")
    assert [series.kind for series in read_index(tmp_path).whole().series] == [kind]


def test_scouts_and_reformats_in_the_axial_series_are_told_apart(tmp_path):
    """As GE's workstations and some archives put them together under one SeriesInstanceUID."""
    write_slices(ct(), np.ones((5, 4, 5)), tmp_path / "axial")
    coronal = ct()
    coronal.ImageOrientationPatient = CORONAL
    write_slices(coronal, STORED, tmp_path / "coronal", [{"ImagePositionPatient": [0, 3 * k, 0]} for k in range(3)])
    for k, orientation in enumerate((CORONAL, SAGITTAL)):
        survey = ct()
        survey.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        survey.ImageOrientationPatient = orientation
        write_slices(survey, STORED[:1], tmp_path / f"survey{k}")
    found = read_index(tmp_path).whole().series
    assert {(one.kind, one.slices) for one in found} == {(Kind.CT, 5), (Kind.CT_REFORMATTED, 3), (Kind.CT_SCOUT, 2)}
    assert len({one.uid for one in found}) == 1


def test_one_oblique_slice_among_axial_ones_is_refused(tmp_path):
    write_slices(ct(), np.ones((4, 4, 5)), tmp_path, [{}, {}, {}, {"ImageOrientationPatient": OBLIQUE}])
    (series,) = read_index(tmp_path).whole().series
    with pytest.raises(TheraflowError, match=r"ImageOrientationPatient \(0020,0037\) differs between"):
        stack_slices(series)


def test_anonymised_files_without_series_uid_are_grouped_by_folder_and_modality(tmp_path):
    for name, template in (("a", pet()), ("a", ct()), ("b", ct())):
        template.SeriesInstanceUID = ""
        write_slices(template, STORED, tmp_path / name / template.Modality.lower())
    found = read_index(tmp_path).whole().series
    assert sorted((one.modality, one.slices) for one in found) == [("CT", 3), ("CT", 3), ("PT", 3)]


def test_names_extensions_nesting_and_order_do_not_matter(tmp_path):
    paths = write_slices(ct(), np.arange(60).reshape(3, 4, 5), tmp_path / "flat")
    scattered = tmp_path / "scattered"
    for place, path in zip(("z/y/x/1", "a.txt", "b/IM000.JPG"), paths, strict=True):
        (scattered / place).parent.mkdir(parents=True, exist_ok=True)
        (scattered / place).write_bytes(path.read_bytes())
    (scattered / "DICOMDIR").symlink_to(paths[0])  # a slice may be called so, too
    (scattered / "loop").symlink_to(scattered)
    (one,), (other,) = read_index(tmp_path / "flat").series, read_index(scattered).whole().series
    assert "second copies" in other.flags[0]
    assert np.array_equal(stacked(ct_slices(stack_slices(one))), stacked(ct_slices(stack_slices(other))))
