"""Real scans through the workflow, DICOM to cohort tables, against values that others published for them."""

import numpy as np
import pandas as pd
import pytest

from theraflow.images import read_image, read_sidecar, to_array

pytestmark = [pytest.mark.workflow, pytest.mark.shared_data]

SARCOMAS = [f"STS_{number:03d}" for number in range(1, 11)]
REFERENCE_OBJECTS = ["0_0", "1_0", "2_0", "2_2", "2_4", "3_1", "3_2", "4_0", "4_1"]


@pytest.fixture(scope="module")
def real(make_run, shared_data, sarcoma_row):
    """One run over ten sarcoma patients, a whole-body PET, a 177Lu SPECT and the nine SUV reference objects."""
    scans = [sarcoma_row(shared_data / "sts_cohort" / name) for name in SARCOMAS]
    whole_body = shared_data / "sts_001_wholebody" / "FDG_PET"
    scans.append(row("WHOLEBODY", "FDG", whole_body, next((whole_body / "mask").iterdir())))
    spect = shared_data / "lu177_spect" / "SCAN_001"
    scans.append(row("SNMMI4", "DOTATATE", spect, next((spect / "mask").iterdir())))
    for name in REFERENCE_OBJECTS:
        folder = shared_data / "suv_dro" / f"DRO_{name}"
        scans.append(row(f"DRO_{name}", "FDG", folder, next((folder / "mask").iterdir())))
    run = make_run("real")
    run.write(scans)
    result = run.snakemake()
    assert result.returncode == 0, result.stdout
    return run


def row(patient, tracer, dicom, lesions):
    return {
        "patient": patient,
        "scan": "scan",
        "tracer": tracer,
        "timepoint": "baseline",
        "dicom": dicom,
        "lesions": lesions,
    }


@pytest.fixture(scope="module")
def lesions(real):
    """The cohort's lesion table."""
    return pd.read_csv(real.results("cohort", "lesions.tsv"), sep="\t").set_index("patient")


def test_all_patients_are_in_the_cohort(real, lesions):
    everyone = {*SARCOMAS, "WHOLEBODY", "SNMMI4", *(f"DRO_{name}" for name in REFERENCE_OBJECTS)}
    assert set(lesions.index) == everyone
    for patient in everyone:
        assert real.results(patient, "report.html").exists()


@pytest.mark.parametrize("patient", SARCOMAS)
def test_sarcomas_agree_with_the_majority(lesions, shared_data, patient):
    """Native voxels against the IBSI's resampled ones: near, not equal; the recipe itself is a unit test."""
    expected = pd.read_csv(shared_data / "sts_cohort" / "expected_ibsi_consensus.csv")
    expected = expected.query("modality == 'PET' and patient == @patient").set_index("ibsi_feature_tag")[
        "majority_value"
    ]
    found = lesions.loc[patient]
    assert found["suv_mean"] == pytest.approx(expected["stat_mean"], rel=0.05)
    assert found["suv_peak_ibsi_global"] == pytest.approx(expected["loc_peak_glob"], rel=0.08)
    assert found["volume_ml"] == pytest.approx(expected["morph_vol_approx"] / 1000, rel=0.1)


def test_whole_body_pet(real, lesions):
    sidecar = read_sidecar(real.results("WHOLEBODY", "scans", "scan", "pet.nii.gz"))
    assert sidecar["suv"]["factor"] == pytest.approx(2.429030e-4, rel=1e-6)
    mass = lesions.loc["WHOLEBODY"].set_index("annotation").loc["GTV_Mass"]
    assert 7.9 <= mass["suv_max"] <= 8.0


def test_lutetium_spect_is_a_dosimetry_scan_at_one_time(real, lesions):
    curves = pd.read_csv(real.results("SNMMI4", "dosimetry", "curves.tsv"), sep="\t").set_index("region")
    assert curves.loc["whole_body", "activity_mbq"] == pytest.approx(1328.7776, rel=1e-4)
    assert sorted(lesions.loc["SNMMI4", "volume_ml"]) == pytest.approx([2.86, 107.0], rel=5e-3)
    doses = pd.read_csv(real.results("SNMMI4", "dosimetry", "doses.tsv"), sep="\t")
    assert set(doses["nuclide"]) == {"177Lu", "90Y"}
    assert (doses["n_timepoints"] == 1).all()


@pytest.mark.parametrize("name", REFERENCE_OBJECTS)
def test_suv_reference_objects(real, shared_data, name):
    folder = real.results(f"DRO_{name}")
    values = to_array(read_image(folder / "scans" / "scan" / "pet.nii.gz"))
    mask = to_array(read_image(folder / "lesions" / "lesions.nii.gz")) > 0
    inside = values[mask]
    assert (
        round(float(inside.min()), 2),
        round(float(np.median(inside)), 2),
        round(float(inside.max()), 2),
    ) == (0.2, 1.0, 4.0)
