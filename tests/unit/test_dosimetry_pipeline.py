"""The whole stage on a synthetic patient, NIfTI in, tables and dose map out, against analytic truth."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.ndimage
import SimpleITK as sitk
from alignment_on_disk import write_alignment

from settings import default_settings
from theraflow.dosimetry.activity import CURVE_COLUMNS, measure_activity
from theraflow.dosimetry.activity.regions import Region
from theraflow.dosimetry.contract import CYCLE_COLUMNS, DOSE_COLUMNS
from theraflow.dosimetry.doses import compute_doses
from theraflow.dosimetry.maps import DVH_COLUMNS, compute_dose_map
from theraflow.dosimetry.maps.histograms import dose_at_volume
from theraflow.dosimetry.maps.time_integration import share_among_voxels
from theraflow.errors import TheraflowError
from theraflow.files import write_json
from theraflow.images import from_array, read_image, read_sidecar, to_array, voxel_volume_ml, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import ORGAN_IDS
from theraflow.registration import write_transform
from theraflow.tables import read_table

REPOSITORY = Path(__file__).resolve().parents[2]
LN2 = math.log(2.0)
MEV = 1.602176634e-13
HALF_LIFE_H = {"177Lu": 6.647 * 24.0, "90Y": 64.10}
ELECTRON_MEV = {"177Lu": 0.14792, "90Y": 0.93311}  # ICRP 107
INJECTED_MBQ = 200.0
TIMES_H = (24.0, 48.0, 96.0, 168.0)
FWHM_MM = 12.0
SPACING_MM, FINER = 4.8, 3
SIZE = (64, 48, 52)  # x, y, z of the SPECT
SETTINGS = {
    **default_settings("dosimetry"),
    "organs": ["kidney_left", "spleen"],
    "spect_fwhm_mm": FWHM_MM,
}

# Centre (x, y, z), half axes in mm, kBq/mL at the injection, effective half-life of 177Lu in h.
BODY = ((0.0, 0.0, 0.0), (140.0, 100.0, 1e6), 0.4, 90.0)
OBJECTS = {
    "kidney_left": ((75.0, 35.0, 0.0), (27.0, 24.0, 55.0), 12.0, 41.0),
    "L01": ((-93.2, 13.1, 41.3), (10.0, 10.0, 10.0), 15.0, 60.0),
    "L02": ((11.0, -46.0, -57.0), (15.0, 15.0, 15.0), 10.0, 80.0),
    "L03": ((-50.0, 0.0, -40.0), (30.0, 30.0, 30.0), 8.0, 100.0),
}
DENSITY = 1.03
KIDNEY_DENSITY = 1.05  # ICRP 110


def density(name: str) -> float:
    return KIDNEY_DENSITY if name == "kidney_left" else DENSITY


def empty_grid(size, spacing: float) -> sitk.Image:
    image = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    image.SetSpacing([spacing] * 3)
    image.SetOrigin([-(n - 1) / 2.0 * spacing for n in size])
    return image


def inside(grid: sitk.Image, centre, half_axes) -> np.ndarray:
    axes = [
        (grid.GetOrigin()[i] + grid.GetSpacing()[i] * np.arange(grid.GetSize()[i]) - centre[i]) / half_axes[i]
        for i in range(3)
    ]
    x, y, z = axes
    return z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2 <= 1.0


def volume_ml(half_axes) -> float:
    return 4.0 / 3.0 * math.pi * float(np.prod(half_axes)) / 1000.0


def write_patient(results: Path) -> tuple[PatientFolder, list[Scan]]:
    """One patient with four SPECT/CT, organ labels and lesion maps."""
    random = np.random.default_rng(11)
    folder = PatientFolder(results, "P1")
    spect, fine = empty_grid(SIZE, SPACING_MM), empty_grid(np.array(SIZE) * FINER, SPACING_MM / FINER)
    ct_grid = empty_grid((150, 110, 125), 2.0)
    masks = {name: inside(fine, *shape[:2]) for name, shape in OBJECTS.items()}
    masks["body"] = inside(fine, *BODY[:2]) & ~np.any(list(masks.values()), axis=0)
    sd = FWHM_MM / 2.3548200450309493 / (SPACING_MM / FINER)
    seen = {}
    for name, mask in masks.items():
        blurred = scipy.ndimage.gaussian_filter(mask.astype(np.float32), sd, mode="nearest")
        z, y, x = SIZE[::-1]
        seen[name] = blurred.reshape(z, FINER, y, FINER, x, FINER).mean(axis=(1, 3, 5))

    hu = np.where(inside(ct_grid, *BODY[:2]), 40.0, -1000.0).astype(np.float32)
    organs = np.where(inside(ct_grid, *OBJECTS["kidney_left"][:2]), ORGAN_IDS["kidney_left"], 0).astype(np.uint8)
    lesions = np.zeros(SIZE[::-1], dtype=np.uint8)
    for label, name in enumerate(("L01", "L02", "L03"), start=1):
        lesions[inside(spect, *OBJECTS[name][:2])] = label

    scans = []
    for number, time in enumerate(TIMES_H, start=1):
        scan = Scan("P1", f"spect{number}", "pentixather", "dosimetry", "", "activity")
        values = sum(
            shape[2] * 1000.0 * 2.0 ** (-time / shape[3]) * seen[name]
            for name, shape in (*OBJECTS.items(), ("body", BODY))
        )
        counts_per_bq_ml = 0.02  # 100 counts in a voxel of 5 kBq/mL
        noisy = random.poisson(values * counts_per_bq_ml) / counts_per_bq_ml
        sidecar = {
            "quantity": "activity concentration", "unit": "Bq/mL", "nuclide": "177Lu",
            "injected_mbq": INJECTED_MBQ, "time_after_injection_h": time,
        }  # fmt: skip
        write_image(from_array(noisy.astype(np.float32), spect), folder.emission(scan), sidecar)
        write_image(from_array(hu, ct_grid), folder.ct(scan.scan), {"quantity": "HU", "unit": "HU"})
        write_image(from_array(organs, ct_grid), folder.organs(scan.scan), {"quantity": "label", "unit": "1"})
        write_alignment(folder, scan.scan)
        for path in (folder.to_scan(scan.scan), folder.to_reference(scan.scan)):
            write_transform(sitk.Euler3DTransform(), path)
        write_json({"verdict": "good"}, folder.registration_quality(scan.scan))
        names = {"quantity": "label", "unit": "1", "labels": {"1": "L01", "2": "L02", "3": "L03"}}
        write_image(from_array(lesions, spect), folder.lesion_map(scan.scan), names)
        scans.append(scan)
    return folder, scans


def absorbed_fraction_90y(half_axes, count: int = 200_000) -> float:
    """Self-absorbed fraction of 90Y betas in an ellipsoid, by sampling the published kernel."""
    random = np.random.default_rng(2)
    table = pd.read_csv(REPOSITORY / "tests" / "data" / "point_kernel_90Y.csv", comment="#")
    cumulative = np.concatenate([[0.0], table["E_MeV"].cumsum()])
    edges = np.concatenate([[0.0], table["r_outer_cm"]])
    distance = 10.0 * np.interp(random.random(count) * cumulative[-1], cumulative, edges) / DENSITY
    first, second = random.standard_normal((2, count, 3))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    start = first * random.random((count, 1)) ** (1.0 / 3.0) * half_axes
    end = start + second * distance[:, None]
    return float((((end / half_axes) ** 2).sum(axis=1) <= 1.0).mean() * cumulative[-1] / ELECTRON_MEV["90Y"])


def true_integral_h(name: str, nuclide: str) -> float:
    """Time-integrated activity per administered activity."""
    _, half_axes, concentration, half_life = OBJECTS[name]
    rate = LN2 / half_life - LN2 / HALF_LIFE_H["177Lu"] + LN2 / HALF_LIFE_H[nuclide]
    return concentration * volume_ml(half_axes) / 1000.0 / INJECTED_MBQ / rate


def true_coefficient(name: str, nuclide: str) -> float:
    """Gy/GBq. 177Lu: its electrons stay (2 % leave or are replaced by photons in these sizes)."""
    half_axes = OBJECTS[name][1]
    fraction = absorbed_fraction_90y(np.array(half_axes)) if nuclide == "90Y" else 1.0
    energy = ELECTRON_MEV[nuclide] * MEV * fraction
    return true_integral_h(name, nuclide) * 3600.0 * 1e9 * energy / (volume_ml(half_axes) * density(name) / 1000.0)


CYCLES = [
    {"patient": "P1", "cycle": 1, "date": "2020-01-01", "nuclide": "Y-90", "activity_gbq": "6.0"},
    {"patient": "P1", "cycle": 2, "date": "2020-03-01", "nuclide": "177Lu", "activity_gbq": 7.4},
    {"patient": "P2", "cycle": 1, "date": "2020-01-01", "nuclide": "90Y", "activity_gbq": 5.0},
]


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> tuple[PatientFolder, list[Scan]]:
    folder, scans = write_patient(tmp_path_factory.mktemp("results"))
    measure_activity(folder, scans, SETTINGS)
    compute_doses(folder, scans, SETTINGS, "90Y", CYCLES)
    compute_dose_map(folder, scans, SETTINGS, "90Y")
    return folder, scans


def test_curves_follow_the_truth(patient):
    folder, scans = patient
    curves = read_table(folder.table("curves"))
    assert tuple(curves.columns) == CURVE_COLUMNS
    assert set(curves["region"]) == {"kidney_left", "L01", "L02", "L03", "remainder", "whole_body"}
    for _, row in curves[curves["kind"].isin(["organ", "lesion"])].iterrows():
        _, half_axes, concentration, half_life = OBJECTS[row["region"]]
        truth = concentration * volume_ml(half_axes) / 1000.0 * 2.0 ** (-row["time_h"] / half_life)
        assert row["activity_mbq"] == pytest.approx(truth, rel=0.08)
        assert row["volume_ml"] == pytest.approx(volume_ml(half_axes), rel=0.08)
        assert row["mass_g"] == pytest.approx(density(row["region"]) * row["volume_ml"])
        assert 0.07 < row["sd_mbq"] / row["activity_mbq"] < 0.35
    for scan in scans:
        points = curves[curves["scan"] == scan.scan].set_index("region")["activity_mbq"]
        image = read_image(folder.emission(scan))
        assert points["whole_body"] == pytest.approx(to_array(image).sum() * voxel_volume_ml(image) / 1e6, rel=1e-6)
        assert points.drop("whole_body").sum() == pytest.approx(points["whole_body"])
    assert curves.set_index("region").loc["whole_body", "mass_g"].isna().all()


@pytest.mark.parametrize("nuclide", ["177Lu", "90Y"])
@pytest.mark.parametrize("region", OBJECTS)
def test_coefficients_within_8_percent(patient, region, nuclide):
    folder, _ = patient
    doses = read_table(folder.table("doses"))
    assert tuple(doses.columns) == DOSE_COLUMNS
    row = doses[(doses["region"] == region) & (doses["nuclide"] == nuclide)].iloc[0]
    truth = true_coefficient(region, nuclide)
    assert row["dose_gy_per_gbq"] == pytest.approx(truth, rel=0.08)
    assert abs(row["dose_gy_per_gbq"] - truth) < 2.0 * row["sd_gy_per_gbq"]
    assert row["tia_h"] == pytest.approx(true_integral_h(region, nuclide), rel=0.08)
    assert row["n_timepoints"] == 4
    assert row["model"] == "mono-exponential"
    assert "geometric transfer matrix (12 mm FWHM)" in row["method"]
    rate = LN2 / OBJECTS[region][3] - LN2 / HALF_LIFE_H["177Lu"] + LN2 / HALF_LIFE_H[nuclide]
    assert row["t_eff_h"] == pytest.approx(LN2 / rate, rel=0.08)


def test_whole_body_has_a_time_integrated_activity_and_no_dose(patient):
    doses = read_table(patient[0].table("doses")).set_index("region")
    for region in ("whole_body", "remainder"):
        rows = doses.loc[region]
        assert len(rows) == 2
        assert (rows["tia_h"] > 0).all()
        assert rows["dose_gy_per_gbq"].isna().all()
        assert rows["method"].str.contains("no dose").all()


def test_cycles_of_this_patient_and_nuclide(patient):
    folder, _ = patient
    cycles = read_table(folder.table("cycles"))
    assert tuple(cycles.columns) == CYCLE_COLUMNS
    assert set(cycles["cycle"]) == {1}
    assert set(cycles["nuclide"]) == {"90Y"}
    doses = read_table(folder.table("doses"))
    doses = doses[doses["nuclide"] == "90Y"].set_index("region")
    for _, row in cycles.iterrows():
        assert row["dose_gy"] == pytest.approx(6.0 * doses.loc[row["region"], "dose_gy_per_gbq"])
        assert row["sd_gy"] == pytest.approx(6.0 * doses.loc[row["region"], "sd_gy_per_gbq"])
        assert math.isnan(row["bed_gy"]) == (row["region"] != "kidney_left")
    kidney = cycles[cycles["region"] == "kidney_left"].iloc[0]
    # MIRD 20: BED = D + beta/alpha T_rep / (T_rep + T_eff) D^2
    effective = doses.loc["kidney_left", "t_eff_h"]
    bed = kidney["dose_gy"] + 2.8 / (2.8 + effective) * kidney["dose_gy"] ** 2 / 2.6
    assert kidney["bed_gy"] == pytest.approx(bed, rel=1e-9)


def test_dose_map_agrees_with_the_coefficients(patient):
    """From the noisy scans: each region's mean on the map is that of its mass as a sphere, and little from others."""
    folder, scans = patient
    image = read_image(folder.dose_map)
    dose = to_array(image)
    assert image.GetSize() == read_image(folder.emission(scans[0])).GetSize()
    assert not dose[~inside(image, (0.0, 0.0, 0.0), (150.0, 110.0, 1e6))].any()
    doses = read_table(folder.table("doses")).set_index(["region", "nuclide"])
    table = read_table(folder.table("map_doses"))
    assert set(table["region"]) == set(OBJECTS)
    for _, row in table.iterrows():
        coefficient = doses.loc[(row["region"], row["nuclide"]), "dose_gy_per_gbq"]
        assert row["mean_gy_per_gbq"] == pytest.approx(coefficient, rel=0.05)
        assert row["mean_gy_per_gbq"] == pytest.approx(true_coefficient(row["region"], row["nuclide"]), rel=0.12)


def test_dvh(patient):
    folder, _ = patient
    dvh = read_table(folder.table("dvh"))
    assert tuple(dvh.columns) == DVH_COLUMNS
    assert set(dvh["region"]) == set(OBJECTS)
    table = read_table(folder.table("map_doses")).set_index(["region", "nuclide"])
    for name, part in dvh.groupby(["region", "nuclide"]):
        assert list(part["volume_percent"]) == list(np.arange(0.0, 101.0, 2.0))
        curve = part.set_index("volume_percent")["dose_gy_per_gbq"]
        assert (np.diff(curve) <= 1e-12).all()
        mean = scipy.integrate.trapezoid(curve, curve.index) / 100.0
        assert mean == pytest.approx(table.loc[name, "mean_gy_per_gbq"], rel=0.02)


def test_uniform_activity_gives_the_equilibrium_dose():
    region = Region("L01", "lesion", (slice(2, 6),) * 3, np.ones((4, 4, 4), dtype=np.float32))
    integral = share_among_voxels(
        np.full((8, 8, 8), 5.0), [region], np.ones((8, 8, 8)), {"L01": 64.0, "remainder": 448.0}
    )
    assert np.allclose(integral, 1.0)
    assert np.allclose(dose_at_volume(integral, region, np.array([0.0, 50.0, 100.0])), 1.0)


def copy_scan(
    folder: PatientFolder, scans: list[Scan], results: Path, number: int, **changes
) -> tuple[PatientFolder, Scan]:
    """The SPECT of one scan alone, in a new results folder, with changes in its sidecar."""
    other, scan = PatientFolder(results, "P1"), scans[number]
    image, sidecar = read_image(folder.emission(scan)), read_sidecar(folder.emission(scan))
    write_image(image, other.emission(scan), {**sidecar, **changes})
    return other, scan


def test_spect_alone_at_one_time(patient, tmp_path):
    folder, scan = copy_scan(*patient, tmp_path, 1)
    measure_activity(folder, [scan], SETTINGS)
    compute_doses(folder, [scan], SETTINGS, "90Y", [])
    compute_dose_map(folder, [scan], SETTINGS, "90Y")
    curves = read_table(folder.table("curves"))
    assert list(curves["region"]) == ["whole_body"]
    doses = read_table(folder.table("doses"))
    assert list(doses["nuclide"]) == ["177Lu", "90Y"]
    assert set(doses["model"]) == {"physical decay"}
    assert doses["method"].str.contains("one time point: physical decay, upper bound").all()
    lutetium = doses.iloc[0]
    at_injection = curves.loc[0, "activity_mbq"] * 2.0 ** (48.0 / HALF_LIFE_H["177Lu"])
    assert lutetium["tia_h"] == pytest.approx(at_injection * HALF_LIFE_H["177Lu"] / LN2 / INJECTED_MBQ, rel=1e-6)
    assert read_table(folder.table("cycles")).empty
    assert read_table(folder.table("dvh")).empty
    dose = to_array(read_image(folder.dose_map))
    assert np.isfinite(dose).all() and dose.max() > 0


def test_one_time_point_with_a_configured_half_life(patient, tmp_path):
    folder, scan = copy_scan(*patient, tmp_path, 2)
    path = patient[0].lesion_map(scan.scan)
    write_image(read_image(path), folder.lesion_map(scan.scan), read_sidecar(path))
    settings = {**SETTINGS, "t_eff_h": {"L02": 80.0, "L03": 100.0}, "minimum_lesion_ml": 8.0}
    measure_activity(folder, [scan], settings)
    compute_doses(folder, [scan], settings, "90Y", [])
    doses = read_table(folder.table("doses")).set_index(["region", "nuclide"])
    large = doses.loc[("L03", "90Y")]
    assert large["dose_gy_per_gbq"] == pytest.approx(true_coefficient("L03", "90Y"), rel=0.08)
    assert large["sd_gy_per_gbq"] > 0
    assert "effective half-life of 100 h from the configuration" in large["method"]
    small = doses.loc[("L01", "90Y")]
    assert math.isnan(small["dose_gy_per_gbq"])
    assert "below the limit of 8 mL" in small["method"]


def test_without_the_resolution_nothing_is_corrected_and_the_table_says_so(patient, tmp_path):
    settings = {**default_settings("dosimetry"), "organs": [], "spect_fwhm_mm": None}
    folder, scan = copy_scan(*patient, tmp_path, 0)
    path = patient[0].lesion_map(scan.scan)
    write_image(read_image(path), folder.lesion_map(scan.scan), read_sidecar(path))
    measure_activity(folder, [scan], settings)
    compute_doses(folder, [scan], settings, "177Lu", [])
    doses = read_table(folder.table("doses"))
    assert list(doses["nuclide"].unique()) == ["177Lu"]
    assert doses.loc[doses["kind"] == "lesion", "method"].str.contains("without partial-volume correction").all()
    corrected = read_table(patient[0].table("curves"))
    corrected = corrected[corrected["scan"] == scan.scan].set_index("region")["activity_mbq"]
    plain = read_table(folder.table("curves")).set_index("region")["activity_mbq"]
    assert plain["L01"] < 0.75 * corrected["L01"]


def test_organs_and_body_lie_where_the_correction_puts_them(patient, tmp_path):
    """CT and organs 40 mm beside the SPECT, and the correction that says so: the activities stay."""
    source = patient[0]
    activities = []
    for name, moved_mm in (("still", 0.0), ("moved", 40.0)):
        folder, scan = copy_scan(*patient, tmp_path / name, 0)
        for path in (folder.ct(scan.scan), folder.organs(scan.scan)):
            image = read_image(source.root / path.relative_to(folder.root))
            image.SetOrigin([part - moved_mm for part in image.GetOrigin()])
            write_image(image, path, {"quantity": "as of the patient", "unit": "1"})
        write_alignment(folder, scan.scan, sitk.TranslationTransform(3, [moved_mm] * 3), "corrected")
        measure_activity(folder, [scan], SETTINGS)
        activities.append(read_table(folder.table("curves")).set_index("region")["activity_mbq"])
    assert {"kidney_left", "remainder"} <= set(activities[0].index)
    np.testing.assert_allclose(activities[1], activities[0], rtol=1e-4)


def test_a_lesion_takes_its_voxels_from_the_organ(patient, tmp_path):
    folder, scan = copy_scan(*patient, tmp_path, 0)
    source = patient[0]
    write_image(read_image(source.organs(scan.scan)), folder.organs(scan.scan), {"quantity": "label", "unit": "1"})
    write_alignment(folder, scan.scan)
    spect = read_image(folder.emission(scan))
    lesion = inside(spect, OBJECTS["kidney_left"][0], (12.0, 12.0, 12.0))
    names = {"quantity": "label", "unit": "1", "labels": {"1": "L09"}}
    write_image(from_array(lesion, spect), folder.lesion_map(scan.scan), names)
    measure_activity(folder, [scan], SETTINGS)
    rows = read_table(folder.table("curves")).set_index("region")
    whole = read_table(source.table("curves")).set_index("region").loc["kidney_left"].iloc[0]
    assert rows.loc["kidney_left", "volume_ml"] + rows.loc["L09", "volume_ml"] == pytest.approx(whole["volume_ml"])
    together = rows.loc["kidney_left", "activity_mbq"] + rows.loc["L09", "activity_mbq"]
    assert together == pytest.approx(whole["activity_mbq"], rel=0.03)


def test_a_region_without_activity_has_no_dose(patient, tmp_path):
    folder, scan = copy_scan(*patient, tmp_path, 0)
    spect = read_image(folder.emission(scan))
    write_image(
        from_array(np.zeros(SIZE[::-1], np.float32), spect),
        folder.emission(scan),
        read_sidecar(folder.emission(scan)),
    )
    measure_activity(folder, [scan], SETTINGS)
    compute_doses(folder, [scan], SETTINGS, "90Y", [])
    doses = read_table(folder.table("doses"))
    assert doses["tia_h"].isna().all()
    assert (doses["method"] == "no activity above zero was measured").all()
    compute_dose_map(folder, [scan], SETTINGS, "90Y")
    assert not to_array(read_image(folder.dose_map)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_after_injection_h": None}, "time_after_injection_h"),
        ({"unit": "g/mL"}, "needs Bq/mL"),
    ],
)
def test_activity_refuses(patient, tmp_path, changes, message):
    folder, scan = copy_scan(*patient, tmp_path, 0, **changes)
    with pytest.raises(TheraflowError, match=message):
        measure_activity(folder, [scan], SETTINGS)


def test_doses_refuse_a_missing_or_contradictory_administration(patient, tmp_path):
    folder, scan = copy_scan(*patient, tmp_path, 0)
    measure_activity(folder, [scan], SETTINGS)
    folder, scan = copy_scan(*patient, tmp_path, 0, injected_mbq=None)
    with pytest.raises(TheraflowError, match="injected activity is not known"):
        compute_doses(folder, [scan], SETTINGS, "90Y", [])
    folder, scan = copy_scan(*patient, tmp_path, 0)
    _, second = copy_scan(*patient, tmp_path, 1, injected_mbq=150.0)
    with pytest.raises(TheraflowError, match="several administrations"):
        compute_doses(folder, [scan, second], SETTINGS, "90Y", [])
    with pytest.raises(TheraflowError, match="activity_gbq of cycle 1"):
        compute_doses(
            folder,
            [scan],
            SETTINGS,
            "90Y",
            [{"patient": "P1", "cycle": 1, "nuclide": "90Y", "activity_gbq": math.nan}],
        )


@pytest.mark.shared_data
def test_real_lutetium_spect_as_a_scan_at_one_time(shared_data, tmp_path):
    from theraflow.dicom import import_emission

    scan = Scan("SNMMI4", "spect1", "dotatate", "cycle1", str(shared_data / "lu177_spect" / "SCAN_001"), "activity")
    folder = PatientFolder(tmp_path, "SNMMI4")
    tracer = {"radiopharmaceutical": "[177Lu]DOTATATE", "nuclide": "177Lu", "quantity": "activity"}
    import_emission(scan, tracer, folder.emission(scan))
    measure_activity(folder, [scan], SETTINGS)
    curves = read_table(folder.table("curves"))
    reference = json.loads((shared_data / "dosimetry_reference" / "snmmi_patient4_left_kidney.json").read_text())
    assert curves.loc[0, "region"] == "whole_body"
    assert curves.loc[0, "activity_mbq"] == pytest.approx(reference["whole_body_MBq_at_first_scan"], rel=1e-4)
    assert curves.loc[0, "time_h"] == pytest.approx(reference["time_h"][0], abs=0.05)
    compute_doses(folder, [scan], SETTINGS, "90Y", [])
    doses = read_table(folder.table("doses"))
    assert (doses["tia_h"] > 0).all()
    assert doses["method"].str.contains("upper bound").all()
