"""Truth of the virtual patients: doses against published values, tables against one another."""

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from scipy.ndimage import binary_erosion

from theraflow.virtual import truth
from theraflow.virtual.__main__ import write_patient, write_sheets
from theraflow.virtual.anatomy import Grid, Pose
from theraflow.virtual.cohort import VirtualPatient, cohort, place_lesions
from theraflow.virtual.kinetics import (
    concentration_for_dose,
    dose_y90,
    effective_half_life_y90_h,
    residence_h,
    self_dose_lu177,
    sphere_absorbed_fraction_y90,
)
from theraflow.virtual.render import Scene, activity, lesion_uptake, locate, uptake_table


def rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.mark.shared_data
def test_absorbed_fraction_against_the_full_kernel(shared_data):
    """Graves 2019 in shells of 0.1 mm."""
    shells = rows(shared_data / "dosimetry_reference" / "graves2019_90Y_beta_shells.csv")
    r = np.array([float(row["r_outer_cm"]) for row in shells]) * 10 - 0.05
    energy = np.array([float(row["E_MeV"]) for row in shells])
    for radius in (6.0, 10.0, 20.0, 30.0):
        factor = np.where(r < 2 * radius, 1 - 3 * r / (4 * radius) + r**3 / (16 * radius**3), 0)
        wanted = (factor * energy).sum() / energy.sum()
        assert sphere_absorbed_fraction_y90(radius) == pytest.approx(wanted, rel=2e-3)


@pytest.mark.shared_data
def test_effective_half_lives_against_exact_values(shared_data):
    vectors = rows(shared_data / "dosimetry_reference" / "analytic_vectors.csv")
    checked = 0
    for row in vectors:
        if row["quantity"] == "Teff 177Lu -> 90Y":
            hours = float(row["inputs"].split()[0])
            assert effective_half_life_y90_h(hours) == pytest.approx(float(row["value"]), rel=1e-4)
            checked += 1
    assert checked == 4


@pytest.mark.shared_data
def test_lutetium_self_dose_against_organ_s_values(shared_data):
    """Organs are no spheres and have photons from elsewhere: 3 %."""
    for row in rows(shared_data / "dosimetry_reference" / "organ_self_s_177Lu.csv"):
        if row["organ"] == "red_marrow":
            continue
        mass, s_value = float(row["reference_mass_g"]), float(row["S_mGy_per_MBq_s"])
        assert self_dose_lu177(1.0, mass) == pytest.approx(s_value * 3600, rel=0.03)


def test_monte_carlo_dose_of_a_sphere_is_the_planned_one():
    radius, planned, half_life = 12.0, 2.6, 55.0
    fraction = sphere_absorbed_fraction_y90(radius)
    concentration = concentration_for_dose(planned, half_life, fraction)
    per_ml = residence_h(concentration, 1.0, effective_half_life_y90_h(half_life))
    rng = np.random.default_rng(0)
    points = truth._in_ball(60000, rng) * radius

    def inside(p: np.ndarray) -> np.ndarray:
        return np.where((p**2).sum(axis=1) < radius**2, per_ml, 0.0)

    dose, error = dose_y90(points, inside, rng)
    assert error < 0.005 * planned
    assert dose == pytest.approx(planned, abs=4 * error)


def test_kidney_ratio_of_yttrium_to_lutetium_is_near_the_published():
    """Published medians: 3.75 / 0.91 = 4.12; DESIGN asks for near 4.2."""
    patient = cohort()[6]
    anatomy = patient.anatomy()
    table = pd.DataFrame(truth.dose_rows(patient, anatomy, place_lesions(anatomy, patient.lesions, patient.random(8))))
    doses = table.pivot_table(index="region", columns="nuclide", values="dose_gy_per_gbq")
    assert doses.loc["kidney_left", "90Y"] / doses.loc["kidney_left", "177Lu"] == pytest.approx(4.15, abs=0.25)
    assert doses.loc["kidney_left", "90Y"] == pytest.approx(3.75, rel=0.3)
    planned = {lesion.name: lesion.dose_gy_per_gbq for lesion in patient.lesions}
    lesions = table[(table.kind == "lesion") & (table.nuclide == "90Y")].set_index("region")
    assert lesions.dose_gy_per_gbq.to_dict() == pytest.approx(planned, rel=0.04)
    assert (lesions.dose_total_gy_per_gbq > 0.98 * lesions.dose_gy_per_gbq).all()


def test_landmarks_and_activities_of_one_scan():
    patient = cohort()[6]
    anatomy = patient.anatomy()
    centres = place_lesions(anatomy, patient.lesions, patient.random(8))
    plan = patient.scans[3]
    pose = Pose.draw(np.random.default_rng(1))
    grid = Grid((105, 80, 180), (4.0, 4.0, 4.0), (-208.0, -158.0, -200.0))
    where = {x.name: locate(x, centres[x.name], pose, plan.timepoint) for x in patient.lesions}
    scan = Scene(patient, plan, anatomy, pose, grid, anatomy.labels(grid, pose), where)
    table = uptake_table(plan, patient, anatomy.weight_kg)
    uptakes = {x.name: lesion_uptake(scan, x, table) for x in patient.lesions}
    image = activity(scan, table, uptakes)

    found = pd.DataFrame(truth.activity_rows(scan, image, uptakes)).set_index("region")
    assert found.loc["whole_body", "activity_mbq"] == pytest.approx(image.sum() * 0.064 / 1e6, rel=1e-5)
    parts = found.activity_mbq.drop("whole_body").sum()
    assert parts < found.loc["whole_body", "activity_mbq"] < patient.scans[3].injected_mbq * 2 ** (-47 / 159.5)
    # the same kinetics by another way: residence per volume of the dose table
    doses = pd.DataFrame(truth.dose_rows(patient, anatomy, centres, walks=2000))
    lutetium = doses[doses.nuclide == "177Lu"].set_index("region")
    for region in ("kidney_left", "L01", "L06"):
        row = lutetium.loc[region]
        start = row.tia_h * math.log(2) / row.t_eff_h * plan.injected_mbq
        volume = row.mass_g / 1.05
        level = found.loc[region, "activity_mbq"] / found.loc[region, "volume_ml"]
        assert level == pytest.approx(start / volume * 2 ** (-plan.hours / row.t_eff_h), rel=1e-5)

    points, labels = truth.landmarks(patient, anatomy)
    there = pd.DataFrame(truth.landmark_rows(scan, points, labels))
    back = pose.to_neutral(there[["x_mm", "y_mm", "z_mm"]].to_numpy())
    assert np.abs(back - points).max() < 0.01
    index = np.rint((there[["z_mm", "y_mm", "x_mm"]].to_numpy() - grid.origin[::-1]) / 4.0).astype(int)
    inside = ((index >= 0) & (index < scan.labels.shape)).all(axis=1)
    same = scan.labels[tuple(index[inside].T)] == labels[inside]
    assert inside.mean() > 0.9 and same.mean() > 0.75  # the rest lie at a border


@pytest.fixture(scope="module")
def patient_on_disk(tmp_path_factory) -> tuple[Path, VirtualPatient]:
    """P005 with the FDG scan alone, as the command line writes patients."""
    folder = tmp_path_factory.mktemp("virtual")
    patient = dataclasses.replace(cohort()[4], scans=cohort()[4].scans[:1])
    write_patient(patient, folder)
    return folder, patient


def test_scan_and_truth_on_disk(patient_on_disk):
    folder, _ = patient_on_disk
    scan = folder / "P005" / "fdg"
    assert len(list((scan / "CT").iterdir())) == len(list((scan / "PET").iterdir())) > 200
    assert (scan / "annotation" / "rtstruct.dcm").is_file()
    lesions = pd.read_csv(folder / "truth" / "P005" / "truth_lesions.tsv", sep="\t")
    assert list(lesions.positive) == [True, True]
    assert np.allclose(lesions.suv_peak_blurred, [x.peak["FDG"] for x in cohort()[4].lesions], rtol=0.05)
    assert (folder / "truth" / "P005" / "truth_organs" / "fdg.nii.gz").is_file()
    assert not list(folder.glob(".*"))


def test_the_image_holds_what_the_truth_says(patient_on_disk):
    """PET read by GDCM, in SUV: organs and lesions."""
    folder, patient = patient_on_disk
    plan = patient.scans[0]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "P005" / "fdg" / "PET")))
    pet = reader.Execute()
    header = dcmread(folder / "P005" / "fdg" / "PET" / "0001.dcm")
    injected = header.RadiopharmaceuticalInformationSequence[0]
    half_lives = plan.hours * 3600 / float(injected.RadionuclideHalfLife)
    left = float(injected.RadionuclideTotalDose) * 2**-half_lives
    suv = sitk.GetArrayFromImage(pet) * float(header.PatientWeight) * 1000 / left
    organs = sitk.ReadImage(str(folder / "truth" / "P005" / "truth_organs" / "fdg.nii.gz"))
    organs = sitk.Resample(organs, pet, sitk.Transform(), sitk.sitkNearestNeighbor)
    organs = sitk.GetArrayFromImage(organs)
    table = uptake_table(plan, patient, float(header.PatientWeight))
    for label in (1, 5):
        inside = binary_erosion(organs == label, iterations=2)
        assert suv[inside].mean() == pytest.approx(table[label], rel=0.02)
    lesions = pd.read_csv(folder / "truth" / "P005" / "truth_lesions.tsv", sep="\t")
    for row in lesions.itertuples():
        index = pet.TransformPhysicalPointToIndex((row.x_mm, row.y_mm, row.z_mm))[::-1]
        around = tuple(slice(i - 1, i + 2) for i in index)
        assert suv[around].mean() == pytest.approx(row.suv_peak_blurred, rel=0.07)


def test_a_patient_who_is_there_is_left_alone(patient_on_disk):
    folder, patient = patient_on_disk
    file = folder / "P005" / "fdg" / "CT" / "0001.dcm"
    before = file.stat().st_mtime_ns
    write_patient(patient, folder)
    assert file.stat().st_mtime_ns == before


def test_sheets(tmp_path):
    write_sheets([cohort()[1], cohort()[4]], "data/virtual", tmp_path)
    scans = pd.read_csv(tmp_path / "scans.tsv", sep="\t").set_index(["patient", "scan"])
    assert list(scans.columns) == ["tracer", "timepoint", "dicom", "lesions"]
    assert len(scans) == 7 + 2
    assert scans.loc[("P002", "lu_96h"), "dicom"] == "data/virtual/P002/lu_96h"
    assert scans.loc[("P002", "lu_96h"), "timepoint"] == "dosimetry"
    assert scans.loc[("P002", "fdg_followup"), "lesions"].endswith("fdg_followup/annotation/rtstruct.dcm")
    # the reader of the CXCR4-negative patient saw nothing, and says so
    assert scans.loc[("P005", "pentixafor"), "lesions"].endswith("pentixafor/annotation/nothing.nii.gz")
    assert pd.isna(scans.loc[("P002", "lu_96h"), "lesions"])
    assert (tmp_path / "patients.tsv").read_text().splitlines() == [
        "patient\tsex\tage_y\tstage\tpfs_days\tpfs_event\tos_days\tos_event",
        "P002\tM\t20\tIV\t28\t1\t61\t1",
        "P005\tM\t43\tII\tNA\tNA\tNA\tNA",
    ]
    cycles = pd.read_csv(tmp_path / "cycles.tsv", sep="\t")
    assert cycles[["cycle", "nuclide", "activity_gbq"]].to_numpy().tolist() == [
        [1, "90Y", 7.2],
        [2, "90Y", 9.1],
    ]
