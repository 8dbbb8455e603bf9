"""The whole import, on published scans and on small ones made here."""

import numpy as np
import pytest
import SimpleITK as sitk

from dicom_series import ct, pet, spect, whole_mask, write, write_slices
from theraflow.dicom import import_ct, import_emission, read_annotation
from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar, voxel_volume_ml
from theraflow.layout import Scan

FDG = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
LUTETIUM = {"radiopharmaceutical": "[177Lu]DOTATATE", "nuclide": "177Lu", "quantity": "activity"}


def scan(folder, quantity="suv", **overrides):
    return Scan("P001", "scan1", "tracer", "baseline", str(folder), quantity, **overrides)


def emission(folder, output, tracer=FDG, **overrides):
    import_emission(scan(folder, tracer["quantity"], **overrides), tracer, output)
    image = sitk.ReadImage(output)
    return image, sitk.GetArrayFromImage(image), read_sidecar(output)


def region(path, image, name=None):
    found = {one.name: whole_mask(one) for one in read_annotation(path, image)}
    return found[name] if name else next(iter(found.values()))


OBJECTS = ("0_0", "1_0", "2_0", "2_2", "2_4", "3_1", "3_2", "4_0", "4_1")


@pytest.mark.shared_data
@pytest.mark.parametrize("number", OBJECTS)
def test_digital_reference_objects(shared_data, tmp_path, number):
    folder = shared_data / "suv_dro" / f"DRO_{number}"
    image, array, sidecar = emission(folder / "PT", tmp_path / "pet.nii.gz")
    outlined = region(next((folder / "RS").iterdir()), image)
    masked = region(folder / "mask" / "DRO_mask.nii.gz", image)
    assert (outlined <= masked).all()  # the published outlines run inside the published masks
    for inside in (outlined, masked):
        values = array[inside]
        found = [round(float(value), 2) for value in (values.min(), np.median(values), values.max())]
        assert found == [0.20, 1.00, 4.00]
    assert sidecar["quantity"] == "SUVbw" and sidecar["unit"] == "g/mL"


@pytest.mark.shared_data
def test_whole_body_fdg(shared_data, tmp_path):
    folder = shared_data / "sts_001_wholebody"
    image, array, sidecar = emission(folder, tmp_path / "pet.nii.gz")
    assert sidecar["suv"]["factor"] == pytest.approx(2.429030e-4, rel=1e-6)
    tumour = region(folder / "FDG_PET" / "mask" / "1-1.dcm", image, "GTV_Mass")
    assert 7.9 < array[tumour].max() < 8.0
    assert any("unevenly spaced" in flag for flag in sidecar["flags"])
    assert sidecar["injected_at"] == "2000-09-07T10:35:00"
    assert sidecar["injected_mbq"] == pytest.approx(388.777472)
    assert sidecar["time_after_injection_h"] == pytest.approx(2711 / 3600)
    assert (sidecar["weight_kg"], sidecar["height_cm"], sidecar["sex"]) == (71, 163, "M")


@pytest.mark.shared_data
def test_quantitative_spect_at_acquisition(shared_data, tmp_path):
    folder = shared_data / "lu177_spect" / "SCAN_001"
    image, array, sidecar = emission(folder, tmp_path / "spect.nii.gz", LUTETIUM)
    assert array.sum(dtype=float) * voxel_volume_ml(image) / 1e6 == pytest.approx(1328.7776, rel=1e-4)
    assert sidecar["unit"] == "Bq/mL" and sidecar["suv"] is None
    assert sidecar["acquired_at"].startswith("2018-11-15T13:06:28")
    outlines = next((folder / "mask").iterdir())
    for name, volume_ml in (("lesion1 liver R lobe", 107.0), ("lesion2 liver L lateral", 2.86)):
        inside = region(outlines, image, name)
        assert inside.sum() * voxel_volume_ml(image) == pytest.approx(volume_ml, abs=0.05)


@pytest.mark.shared_data
def test_a_phantom_without_facts_is_refused_by_every_name(shared_data, tmp_path):
    known = {"weight_kg": 10.0, "injected_mbq": 50.0, "injected_at": "2020-01-01T10:00:00"}
    only_scanner = (
        "Units (0054,1001)", "DecayCorrection (0054,1102)", "AcquisitionDate (0008,0022)",
        "AcquisitionTime (0008,0032)", "RadionuclideHalfLife (0018,1075)", "SeriesDate (0008,0021)",
        "SeriesTime (0008,0031)", "FrameReferenceTime (0054,1300)", "ActualFrameDuration (0018,1242)",
    )  # fmt: skip
    in_sheet = (
        "PatientWeight (0010,1030)", "RadionuclideTotalDose (0018,1074)",
        "RadiopharmaceuticalStartDateTime (0018,1078)", "RadiopharmaceuticalInformationSequence (0054,0016)",
    )  # fmt: skip
    with pytest.raises(TheraflowError) as error:
        emission(shared_data / "nema_iq", tmp_path / "pet.nii.gz")
    for name in (*only_scanner, *in_sheet, "scans.tsv", "[weight_kg]", "[injected_mbq]", "[injected_at]"):
        assert name in str(error.value)
    # The sheet can state dose, time and weight, but no units: these stay refused.
    with pytest.raises(TheraflowError) as error:
        emission(shared_data / "nema_iq", tmp_path / "pet.nii.gz", **known)
    assert all(name in str(error.value) for name in only_scanner)
    assert not any(name in str(error.value) for name in in_sheet)
    assert not list(tmp_path.iterdir())


@pytest.mark.shared_data
@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
def test_published_volumes_and_maxima_of_the_sarcoma_cohort(shared_data, tmp_path, patient):
    """Against the majority of nine teams; they resampled to 3 mm, here it is the native grid."""
    import pandas as pd

    table = pd.read_csv(shared_data / "sts_cohort" / "expected_ibsi_consensus.csv")
    table = table[table["patient"] == patient].set_index(["modality", "ibsi_feature_tag"])["majority_value"]
    folder = shared_data / "sts_cohort" / patient
    image, array, sidecar = emission(folder, tmp_path / "pet.nii.gz")
    inside = region(folder / "PET" / "mask" / "RS.dcm", image)
    assert inside.sum() * voxel_volume_ml(image) * 1000 == pytest.approx(table["PET", "morph_vol_approx"], rel=0.05)
    assert array[inside].mean() == pytest.approx(table["PET", "stat_mean"], rel=0.02)
    import_ct(scan(folder), tmp_path / "ct.nii.gz")
    tomogram = sitk.ReadImage(tmp_path / "ct.nii.gz")
    inside = region(folder / "CT" / "mask" / "RS.dcm", tomogram)
    volume = inside.sum() * voxel_volume_ml(tomogram) * 1000
    assert volume == pytest.approx(table["CT", "morph_vol_approx"], rel=0.03)
    assert read_sidecar(tmp_path / "ct.nii.gz")["frame_of_reference_uid"] == sidecar["frame_of_reference_uid"]


def test_ct_and_pet_of_one_folder(tmp_path):
    stored = np.arange(60).reshape(3, 4, 5) + 1000
    write_slices(ct(), stored, tmp_path / "in" / "ct")
    template = pet()
    template.PatientName, template.PatientBirthDate = "Doe^Jane", "19700101"
    write_slices(template, stored, tmp_path / "in" / "pet", [{"RescaleSlope": slope} for slope in (1, 2, 4)])
    row = scan(tmp_path / "in", weight_kg=80.0)
    import_ct(row, tmp_path / "ct.nii.gz")
    import_emission(row, FDG, tmp_path / "pet.nii.gz")
    factor = 80e3 / (350e6 * 2 ** (-3600 / 6586.236))
    expected = stored * np.array([1, 2, 4])[:, None, None] * factor
    assert sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "pet.nii.gz")) == pytest.approx(expected, rel=1e-6)
    sidecar = read_sidecar(tmp_path / "pet.nii.gz")
    assert sidecar["overrides"] == ["weight_kg"]
    assert sidecar["acquired_at"] == "2023-05-01T11:00:00"
    assert sidecar["virtual_patient"] is False
    assert (sidecar["patient"], sidecar["scan"], sidecar["timepoint"]) == ("P001", "scan1", "baseline")
    assert "Doe" not in (tmp_path / "pet.json").read_text()
    of_ct = read_sidecar(tmp_path / "ct.nii.gz")
    assert (of_ct["quantity"], of_ct["unit"], of_ct["acquired_at"]) == ("HU", "HU", None)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "ct.nii.gz")), stored - 1024)


def test_nm_in_bq_per_ml(tmp_path):
    stored = np.arange(60).reshape(3, 4, 5)
    dataset = spect(stored, slope=0.25)
    dataset.Manufacturer, dataset.ManufacturerModelName = "theraflow", "virtual patient"
    write(dataset, tmp_path / "in" / "spect")
    _, array, sidecar = emission(tmp_path / "in", tmp_path / "spect.nii.gz", LUTETIUM)
    assert np.array_equal(array, stored * np.float32(0.25))
    assert sidecar["virtual_patient"] is True
    assert sidecar["time_after_injection_h"] == 72.0
    assert sidecar["injected_mbq"] == 200.0
    assert sidecar["activity"]["decay_correction"] is None


def test_a_pet_with_an_intercept_is_refused(tmp_path):
    template = pet()
    template.RescaleIntercept = 5
    write_slices(template, np.ones((3, 4, 5)), tmp_path / "in")
    with pytest.raises(TheraflowError, match=r"RescaleIntercept \(0028,1052\) is not 0"):
        emission(tmp_path / "in", tmp_path / "pet.nii.gz")


def test_nothing_is_written_when_a_file_is_truncated(tmp_path):
    path = write_slices(pet(), np.ones((3, 4, 5)), tmp_path / "in")[1]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(TheraflowError, match=f"{path.name} is truncated"):
        emission(tmp_path / "in", tmp_path / "out" / "pet.nii.gz")
    assert not (tmp_path / "out").exists()
