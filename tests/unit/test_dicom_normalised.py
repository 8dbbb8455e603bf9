"""Other kinds of SUV than that by body weight; and a PET whose header says next to nothing."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from pet_statements import FDG, decay, mass_kg, suv

from dicom_series import pet, write_slices
from theraflow.dicom import import_emission
from theraflow.dicom.normalised import normalise_pet
from theraflow.dicom.quantity.normalisation import normal_mass_kg, normalisations
from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar
from theraflow.layout import Scan


def test_masses_against_their_definitions_worked_by_hand():
    # 70 kg, 175 cm: square of W/H is 0.16; BMI 22.857143.
    assert normal_mass_kg("LBMJAMES128", 70, 1.75, "M") == pytest.approx(77 - 128 * 0.16)
    assert normal_mass_kg("LBM", 70, 1.75, "M") == pytest.approx(77 - 120 * 0.16)
    assert normal_mass_kg("LBM", 70, 1.75, "F") == pytest.approx(74.9 - 148 * 0.16)
    assert normal_mass_kg("LBMJANMA", 70, 1.75, "M") == pytest.approx(55.857, abs=1e-3)
    assert normal_mass_kg("LBMJANMA", 70, 1.75, "F") == pytest.approx(45.197, abs=1e-3)
    assert normal_mass_kg("IBW", 70, 1.75, "O") == pytest.approx((72.38 + 66.43) / 2)


def test_factors_from_body_weight():
    _, facts = suv([pet()])
    found = normalisations(facts)
    for kind in ("LBMJANMA", "LBMJAMES128", "LBM", "IBW"):
        assert found[kind]["factor"] == pytest.approx(mass_kg(kind, 70, 1.75, "M") / 70)
        assert found[kind]["unit"] == "g/mL" and found[kind]["reason"] is None
    # Du Bois, 70 kg and 175 cm: 0.007184 x 70^0.425 x 175^0.725 = 1.8481 m2, as in tables.
    assert found["BSA"]["factor"] * 70e3 == pytest.approx(18481, abs=2)
    assert found["BSA"]["unit"] == "cm2/mL"


def test_what_is_missing_is_the_reason_and_no_error():
    header = pet()
    header.PatientSize, header.PatientSex = None, ""
    quantification, facts = suv([header])
    assert quantification.factor == pytest.approx(70e3 / (350e6 * decay(3600)))
    found = normalisations(facts)
    assert found["LBMJANMA"]["factor"] is None
    assert found["LBMJANMA"]["reason"] == "missing: PatientSize (0010,1020) [height_cm], PatientSex (0010,0040)"
    assert found["BSA"]["reason"] == "missing: PatientSize (0010,1020) [height_cm]"
    # The height from the sheet is enough for the body surface.
    found = normalisations(suv([header], height_cm=175.0)[1])
    assert found["BSA"]["factor"] is not None and found["LBM"]["factor"] is None
    # A child of 1 m has no ideal weight by a formula for adults.
    header = pet()
    header.PatientWeight, header.PatientSize = 15, 1.0
    found = normalisations(suv([header])[1])
    assert found["IBW"]["factor"] is None and "ideal body weight" in found["IBW"]["reason"]
    assert found["LBMJANMA"]["factor"] is not None


@pytest.fixture
def imported(tmp_path):
    """A PET in SUV by body weight of 70 kg, 175 cm, male."""
    write_slices(pet(), np.arange(60).reshape(3, 4, 5) * 1000, tmp_path / "in")
    row = Scan("P001", "scan1", "FDG", "baseline", str(tmp_path / "in"), "suv")
    import_emission(row, FDG, tmp_path / "pet.nii.gz")
    return tmp_path / "pet.nii.gz"


def test_the_sidecar_says_how_the_suv_came_about(imported):
    suv_section = read_sidecar(imported)["suv"]
    assert suv_section["rule"] == "Units BQML; DecayCorrection START: reference time is SeriesDate and SeriesTime"
    assert suv_section["reference_time"] == "2023-05-01T11:00:00"
    assert suv_section["reference_time_source"] == "SeriesDate and SeriesTime"
    assert suv_section["suv_type"] == "BW"
    assert set(suv_section["normalisations"]) == {"LBMJANMA", "LBMJAMES128", "LBM", "IBW", "BSA"}


@pytest.mark.parametrize(
    ("kind", "quantity", "unit", "divisor_g"),
    [
        ("LBMJANMA", "SUL (Janmahasatian)", "g/mL", 55857.143),
        ("LBMJAMES128", "SUL (James)", "g/mL", 56520.0),
        ("IBW", "SUVibw", "g/mL", 72380.0),
        ("BSA", "SUVbsa", "cm2/mL", 18481.0),
    ],
)
def test_an_image_of_another_kind_of_suv(imported, tmp_path, kind, quantity, unit, divisor_g):
    output = tmp_path / f"pet_{kind}.nii.gz"
    normalise_pet(imported, kind, output)
    image, original = sitk.ReadImage(output), sitk.ReadImage(imported)
    # Concentration over dose at 11:00, times what it is normalised by; 9270 x 70 / (6680 + 216 x 22.857) = 55.857 kg.
    expected = np.arange(60).reshape(3, 4, 5) * 1000.0 / (350e6 * decay(3600)) * divisor_g
    assert sitk.GetArrayFromImage(image) == pytest.approx(expected, rel=1e-4)
    assert image.GetPixelID() == sitk.sitkFloat32
    assert image.GetOrigin() == original.GetOrigin() and image.GetSpacing() == original.GetSpacing()
    sidecar, of_pet = read_sidecar(output), read_sidecar(imported)
    assert (sidecar["quantity"], sidecar["unit"], sidecar["suv"]["suv_type"]) == (quantity, unit, kind)
    assert sidecar["series_instance_uid"] == of_pet["series_instance_uid"]
    # It is no image by body weight any more.
    with pytest.raises(TheraflowError, match="no PET in SUV by body weight"):
        normalise_pet(output, "IBW", tmp_path / "again.nii.gz")


def test_refusals_of_another_kind(imported, tmp_path):
    with pytest.raises(TheraflowError, match="LBMX is no kind of SUV"):
        normalise_pet(imported, "LBMX", tmp_path / "out.nii.gz")
    template = pet()
    template.PatientSize = None
    write_slices(template, np.ones((3, 4, 5)), tmp_path / "without")
    row = Scan("P001", "scan1", "FDG", "baseline", str(tmp_path / "without"), "suv")
    import_emission(row, FDG, tmp_path / "small.nii.gz")
    with pytest.raises(TheraflowError, match=r"SUL \(James\) cannot be computed; missing: PatientSize"):
        normalise_pet(tmp_path / "small.nii.gz", "LBMJAMES128", tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


# ------------------------------------------------------------------------------------------------ nema_iq

IN_SHEET = {
    "units": "BQML", "decay_correction": "START", "acquired_at": "2020-08-23T14:00:00", "weight_kg": 9.8,
    "injected_mbq": 52.0, "injected_at": "2020-08-23T13:05:00",
}  # fmt: skip


@pytest.mark.shared_data
def test_a_phantom_without_facts_is_refused_by_every_name(shared_data, tmp_path):
    sequence = "RadiopharmaceuticalInformationSequence (0054,0016)"
    row = Scan("P001", "iq", "FDG", "baseline", str(shared_data / "nema_iq"), "suv")
    with pytest.raises(TheraflowError) as error:
        import_emission(row, FDG, tmp_path / "pet.nii.gz")
    for name in (
        "Units (0054,1001) [units]",
        "DecayCorrection (0054,1102) [decay_correction]",
        "PatientWeight (0010,1030) [weight_kg]",
        "AcquisitionDate (0008,0022) [acquired_at]",
        "AcquisitionTime (0008,0032) [acquired_at]",
        "SeriesDate (0008,0021) [acquired_at]",
        "SeriesTime (0008,0031) [acquired_at]",
        "FrameReferenceTime (0054,1300) [acquired_at]",
        "ActualFrameDuration (0018,1242) [acquired_at]",
        f"RadionuclideTotalDose (0018,1074) of {sequence} [injected_mbq]",
        f"RadiopharmaceuticalStartDateTime (0018,1078) of {sequence} [injected_at]",
        "RadionuclideHalfLife (0018,1075) is missing, too, but known: that of 18F",
    ):
        assert name in str(error.value)
    assert "can only come from the scanner" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.shared_data
@pytest.mark.parametrize("lacking", IN_SHEET)
def test_each_column_is_needed_for_the_phantom(shared_data, tmp_path, lacking):
    given = {column: value for column, value in IN_SHEET.items() if column != lacking}
    row = Scan("P001", "iq", "FDG", "baseline", str(shared_data / "nema_iq"), "suv", **given)
    with pytest.raises(TheraflowError, match=rf"\[{lacking}\]"):
        import_emission(row, FDG, tmp_path / "pet.nii.gz")


@pytest.mark.shared_data
def test_the_phantom_is_imported_with_what_the_sheet_says(shared_data, tmp_path):
    import pydicom

    folder = shared_data / "nema_iq"
    row = Scan("P001", "iq", "FDG", "baseline", str(folder), "suv", **IN_SHEET)
    import_emission(row, FDG, tmp_path / "pet.nii.gz")
    image = sitk.ReadImage(tmp_path / "pet.nii.gz")
    sidecar = read_sidecar(tmp_path / "pet.nii.gz")
    datasets = sorted(
        map(pydicom.dcmread, (folder / "pet_recon_1").iterdir()), key=lambda one: one.ImagePositionPatient[2]
    )
    concentration = np.stack([one.pixel_array * float(one.RescaleSlope) for one in datasets])  # Bq/mL at 14:00
    # 55 minutes after 52 MBq of 18F (half-life 109.77 min) in 9.8 kg.
    at_start_bq = 52e6 * math.exp(-math.log(2) * 55 / 109.7706)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), concentration * 9800 / at_start_bq, rtol=1e-5)
    assert set(sidecar["overrides"]) == set(IN_SHEET)
    assert sidecar["suv"]["reference_time"] == "2020-08-23T14:00:00"
    assert "acquired_at in scans.tsv" in sidecar["suv"]["reference_time_source"]
    assert any("RadionuclideHalfLife (0018,1075) missing: that of 18F" in flag for flag in sidecar["flags"])
