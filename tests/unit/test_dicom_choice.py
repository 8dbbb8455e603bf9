"""Which of many series is taken, and how the table tells it."""

import re

import numpy as np
import pytest

from dicom_series import ct, pet, spect, write, write_slices
from theraflow.dicom.export.choice import choose_ct, choose_emission, series_table
from theraflow.dicom.export.index import read_index
from theraflow.errors import TheraflowError

PIXELS = (4, 5)


def put(template, folder, places=tuple(range(0, 100, 10)), **changes):
    """Write one series; each has a folder and a UID of its own. A number places the slice at z in mm."""
    dataset = template
    dataset.SeriesDescription = folder.name
    dataset.SeriesInstanceUID = f"1.2.{sum(folder.name.encode())}.{len(folder.name)}"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    write_slices(
        dataset,
        np.ones((len(places), *PIXELS)),
        folder,
        [{"ImagePositionPatient": place if isinstance(place, list) else [0, 0, place]} for place in places],
    )


def taken(folder, quantity="suv"):
    """Descriptions of the emission image and of the CT that are chosen, and the reasons of all by description."""
    index = read_index(folder).whole()
    emission = choose_emission(index, quantity, None)
    tomogram = choose_ct(index, emission.series, None)
    reasons = {row["description"]: row["reason"] for row in series_table(index, emission, tomogram)}
    rows = {row["used_as"]: row["description"] for row in series_table(index, emission, tomogram)}
    return rows["emission"], rows["CT"], reasons


def at(clock, day="20230501"):
    return {"AcquisitionDate": day, "AcquisitionTime": clock}


def test_a_whole_examination(tmp_path):
    """Ten series as a PET/CT with contrast medium leaves them in the archive."""
    put(pet(), tmp_path / "PET WB AC")
    put(pet(), tmp_path / "PET WB NAC", CorrectedImage=["NORM", "DTIM", "DECY"])
    put(pet(), tmp_path / "PET MIP", ImageType=["DERIVED", "SECONDARY", "MIP"])
    put(pet(), tmp_path / "PET pelvis late", range(0, 40, 4), **at("123000"))
    put(ct(), tmp_path / "Topogram", [0, 1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"])
    put(ct(), tmp_path / "WB 5.0 B30f", **at("105500"), ConvolutionKernel="B30f")
    put(ct(), tmp_path / "Thorax 1.0 B70f", range(50, 100, 4), **at("105500"), ConvolutionKernel="B70f")
    put(ct(), tmp_path / "Monitoring", [30] * 9, **at("113000"))
    put(ct(), tmp_path / "Abdomen venous", range(0, 60, 5), **at("113200"), ConvolutionKernel="B30f")
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}
    put(ct(), tmp_path / "WB coronal", [[0, y, 0] for y in range(0, 200, 20)], **at("105500"), **coronal)
    emission, tomogram, reasons = taken(tmp_path)
    assert (emission, tomogram) == ("PET WB AC", "WB 5.0 B30f")
    assert reasons == {
        "PET WB AC": "attenuation-corrected PET; longest",
        "PET WB NAC": "no attenuation-corrected PET",
        "PET MIP": "no attenuation-corrected PET",
        "PET pelvis late": "shorter",
        "Topogram": "no axial CT",
        "WB 5.0 B30f": "axial; a volume of slices; longest",
        "Thorax 1.0 B70f": "shorter",
        "Monitoring": "slices at too few places",
        "Abdomen venous": "shorter",
        "WB coronal": "no axial CT",
    }


@pytest.mark.parametrize(
    "places", [[30], [30] * 20, [30, 30, 33, 33], [30, 33]], ids=["one slice", "monitoring", "two places", "two slices"]
)
def test_bolus_tracking_is_never_the_ct(tmp_path, places):
    put(pet(), tmp_path / "pet")
    put(ct(), tmp_path / "Monitoring", places)
    with pytest.raises(TheraflowError, match=r"no axial CT .* that covers it; .* CT series .* 'Monitoring'"):
        taken(tmp_path)
    put(ct(), tmp_path / "low dose")
    assert taken(tmp_path)[1] == "low dose"


def test_a_ct_of_a_small_part_of_the_pet_is_not_taken(tmp_path):
    put(pet(), tmp_path / "pet")
    put(ct(), tmp_path / "Calcium score", range(40, 60, 3))
    with pytest.raises(TheraflowError, match=r"no axial CT .* that covers it"):
        taken(tmp_path)
    put(ct(), tmp_path / "thorax", range(30, 90, 5))
    assert taken(tmp_path)[1] == "thorax"


def test_the_ct_before_the_pet_goes_before_the_diagnostic_one_after_it(tmp_path):
    put(pet(), tmp_path / "pet", **at("110000"))
    put(ct(), tmp_path / "low dose", **at("105800"))
    put(ct(), tmp_path / "diagnostic", range(0, 91, 5), **at("113000"))
    _, tomogram, reasons = taken(tmp_path)
    assert tomogram == "low dose"
    assert reasons["low dose"].endswith("nearest in time") and reasons["diagnostic"] == "farther in time"


def test_of_one_acquisition_the_original_the_soft_and_the_fine_reconstruction(tmp_path):
    put(pet(), tmp_path / "pet", **at("110000"))
    derived = ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR"]
    put(ct(), tmp_path / "mpr", range(0, 91, 3), ImageType=derived, ConvolutionKernel="Br38f", **at("105800"))
    put(ct(), tmp_path / "lung", range(0, 91, 3), ConvolutionKernel=["Bl57d", "3"], **at("105800"))
    put(ct(), tmp_path / "thick", range(0, 100, 10), ConvolutionKernel=["Br38f", "3"], **at("105800"))
    put(ct(), tmp_path / "thin", range(0, 91, 5), ConvolutionKernel=["Br38f", "3"], **at("105800"))
    _, tomogram, reasons = taken(tmp_path)
    assert tomogram == "thin"
    assert [reasons[name] for name in ("mpr", "lung", "thick")] == ["derived", "sharp kernel", "fewer slices"]


@pytest.mark.parametrize(
    ("soft", "sharp"),
    [("B30f", "B70f"), ("Br40d", "Bl64d"), ("I31f", "I70f"), ("STANDARD", "LUNG"), ("SOFT", "BONEPLUS"), ("B", "YC"),
     ("C", "L"), ("FC18", "FC51"), ("FC08", "FC86")],
)  # fmt: skip
def test_soft_kernels_of_four_vendors_go_before_sharp_ones(tmp_path, soft, sharp):
    put(pet(), tmp_path / "pet")
    put(ct(), tmp_path / "soft", ConvolutionKernel=soft)
    put(ct(), tmp_path / "sharp", ConvolutionKernel=sharp)
    assert taken(tmp_path)[1] == "soft"


@pytest.mark.parametrize("kernels", [("B30f", "B41s"), ("LUNG", "BONE"), ("", "")])
def test_kernels_that_do_not_differ_in_kind_are_left_to_the_user(tmp_path, kernels):
    put(pet(), tmp_path / "pet")
    for name, kernel in zip(("one", "other"), kernels, strict=True):
        put(ct(), tmp_path / name, ConvolutionKernel=kernel)
    with pytest.raises(TheraflowError, match=r"2 series that may be the CT: .*'one'.*'other'.*`series` in scans.tsv"):
        taken(tmp_path)


def test_two_phases_in_one_series_are_not_taken_for_finer_slices(tmp_path):
    put(pet(), tmp_path / "pet")
    put(ct(), tmp_path / "two phases", [*range(0, 100, 10)] * 2)
    put(ct(), tmp_path / "one phase")
    _, tomogram, reasons = taken(tmp_path)
    assert tomogram == "one phase"
    assert reasons["two phases"] == "several slices at one place"


def test_each_pet_has_the_ct_of_its_own_frame_of_reference(tmp_path):
    """Two beds in one folder: the patient stood up between head and body, so that there are two frames of reference."""
    for name, frame, length in (("body", "1.1", 100), ("head", "1.2", 40)):
        put(pet(), tmp_path / f"pet {name}", range(0, length, 10), FrameOfReferenceUID=frame)
        put(ct(), tmp_path / f"ct {name}", range(0, length, 10), FrameOfReferenceUID=frame)
    assert taken(tmp_path)[:2] == ("pet body", "ct body")
    index = read_index(tmp_path)
    (head,) = [one for one in index.series if one.frame_of_reference == "1.2" and one.modality == "PT"]
    emission = choose_emission(index, "suv", head.uid)
    assert emission.reason == "named in scans.tsv"
    tomogram = choose_ct(index, emission.series, head.uid)
    assert tomogram.series.frame_of_reference == "1.2"
    assert tomogram.others and set(tomogram.others.values()) == {"in another frame of reference"}


@pytest.mark.parametrize(
    "second",
    [{"StudyInstanceUID": "1.9"}, {"AcquisitionDate": "20230801"}],
    ids=["two studies", "two days in one study"],
)
def test_baseline_and_follow_up_in_one_folder_need_a_word(tmp_path, second):
    put(pet(), tmp_path / "baseline")
    # Longer, which must not decide between two scans.
    put(pet(), tmp_path / "follow-up", range(0, 140, 10), **second)
    with pytest.raises(TheraflowError) as error:
        choose_emission(read_index(tmp_path), "suv", None)
    assert "2 series of several studies or days that may be the emission image" in str(error.value)
    for word in ("'baseline'", "'follow-up'", "acquired 2023-05-01 11:00", "`series` in scans.tsv"):
        assert word in str(error.value)


def test_the_ct_of_the_same_study_goes_before_a_longer_one_that_was_registered_to_it(tmp_path):
    put(pet(), tmp_path / "pet")
    put(ct(), tmp_path / "low dose")
    put(ct(), tmp_path / "follow-up", range(0, 140, 5), StudyInstanceUID="1.9")
    assert taken(tmp_path)[1] == "low dose"


def test_without_frame_of_reference_the_only_ct_volume_of_the_study(tmp_path):
    put(pet(), tmp_path / "pet", FrameOfReferenceUID=None)
    put(ct(), tmp_path / "low dose")
    put(ct(), tmp_path / "Monitoring", [30] * 9)
    put(ct(), tmp_path / "other study", StudyInstanceUID="1.9")
    assert taken(tmp_path)[1] == "low dose"
    put(ct(), tmp_path / "diagnostic", **at("150000"))
    with pytest.raises(TheraflowError, match=r"2 series that may be the CT"):
        taken(tmp_path)


def test_an_original_goes_before_a_derived_one_and_axial_before_reformatted(tmp_path):
    put(ct(), tmp_path / "ct")
    put(pet(), tmp_path / "original")
    put(pet(), tmp_path / "resampled", ImageType=["DERIVED", "SECONDARY"])
    # Of a head the coronal reformat is longer from front to back than the axial one from top to bottom.
    put(
        pet(),
        tmp_path / "coronal",
        [[0, y, 0] for y in range(0, 200, 20)],
        ImageType=["DERIVED", "SECONDARY"],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )
    emission, _, reasons = taken(tmp_path)
    assert emission == "original"
    assert (reasons["resampled"], reasons["coronal"]) == ("derived", "not axial")


def test_stated_attenuation_correction_goes_before_none_stated(tmp_path):
    put(ct(), tmp_path / "ct")
    put(pet(), tmp_path / "AC")
    put(pet(), tmp_path / "NAC", CorrectedImage=None)
    emission, _, reasons = taken(tmp_path)
    assert emission == "AC"
    assert reasons["NAC"] == "attenuation correction not stated"


def test_the_attenuation_map_of_a_spect_is_not_taken(tmp_path):
    stored = np.ones((25, *PIXELS))
    write(spect(stored), tmp_path / "emission")
    transmission = spect(stored)
    transmission.SeriesInstanceUID = "1.9"
    transmission.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "TRANSMISSION"]
    write(transmission, tmp_path / "map")
    assert choose_emission(read_index(tmp_path), "activity", None).series.uid == "1.2.3.2"


def test_a_forced_series_is_its_axial_part(tmp_path):
    put(pet(), tmp_path / "pet")
    for name, what, orientation in (
        ("axial", ["ORIGINAL", "PRIMARY", "AXIAL"], [1, 0, 0, 0, 1, 0]),
        ("coronal", ["DERIVED", "SECONDARY", "REFORMATTED"], [1, 0, 0, 0, 0, -1]),
        ("survey", ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]),
    ):
        template = ct()
        template.ImageType, template.ImageOrientationPatient = what, orientation
        places = [{"ImagePositionPatient": [0, 4 * k, 4 * k]} for k in range(3)]
        write_slices(template, np.ones((3, *PIXELS)), tmp_path / name, places)
    index = read_index(tmp_path)
    choice = choose_ct(index, None, "1.2.3.0")
    assert choice.series.axial and choice.series.kind == "CT axial"
    assert choice.reason == "named in scans.tsv"
    assert sorted(choice.others.values()) == ["not axial", "scout"]


def test_a_forced_pet_may_be_of_a_kind_that_is_never_chosen(tmp_path):
    put(pet(), tmp_path / "frame", SeriesType=["DYNAMIC", "IMAGE"])
    index = read_index(tmp_path)
    with pytest.raises(TheraflowError, match=re.escape("'frame' (PET dynamic) with 10 slices")):
        choose_emission(index, "suv", None)
    assert choose_emission(index, "suv", index.series[0].uid).series is index.series[0]


def test_the_table_has_no_words_that_identify(tmp_path):
    put(pet(), tmp_path / "PET Doe", PatientName="Doe^Jane")
    index = read_index(tmp_path)
    (row,) = series_table(index, choose_emission(index, "suv", None))
    assert row["description"] == "PET …"
    assert row["used_as"] == "emission" and row["extent_mm"] == 90.0
