"""The dose maps of a patient with a known activity: two moved SPECT/CT, tables in, maps and tables out."""

import dataclasses
import math
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import SimpleITK as sitk
from alignment_on_disk import write_alignment

from settings import default_settings
from theraflow.dosimetry.maps import DVH_COLUMNS, MAP_DOSE_COLUMNS, compute_dose_map
from theraflow.dosimetry.s_values.spheres import sphere_self_dose
from theraflow.errors import TheraflowError
from theraflow.files import write_json
from theraflow.images import divided, from_array, read_image, read_sidecar, to_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import ORGAN_IDS
from theraflow.registration import write_transform
from theraflow.tables import read_table, write_table

LN2 = math.log(2.0)
HALF_LIFE_H = {"177Lu": 6.647 * 24.0, "90Y": 64.10}
INJECTED_MBQ = 100.0
FWHM_MM = 9.0
SIZE, SPACING_MM = (40, 36, 30), 4.8  # x, y, z
TIMES_H = (24.0, 96.0)
SHIFT_MM = np.array([9.6, -4.8, 14.4])  # of the patient in the second scan
# Centre and radius in mm, Bq/mL at the injection, effective half-life of 177Lu in h.
BALLS = {
    "liver": ((-30.0, 0.0, 10.0), 27.0, 3000.0, 70.0),
    "L01": ((40.0, 10.0, -10.0), 12.5, 8000.0, 50.0),
    "L02": ((45.0, -30.0, 30.0), 12.5, 5000.0, 90.0),  # refused in doses.tsv
}
BODY_HALF_MM, GAS = (85.0, 75.0), ((0.0, 45.0, -30.0), 12.0)
DENSITY = 1.03
SETTINGS = {**default_settings("dosimetry"), "organs": ["liver"], "spect_fwhm_mm": FWHM_MM}


def grid(spacing: float) -> sitk.Image:
    parts = round(SPACING_MM / spacing)
    image = sitk.Image([n * parts for n in SIZE], sitk.sitkUInt8)
    image.SetSpacing([SPACING_MM / parts] * 3)
    image.SetOrigin([-(n * parts - 1) / 2.0 * SPACING_MM / parts for n in SIZE])
    return image


def axes_of(image: sitk.Image, shift) -> list[np.ndarray]:
    x, y, z = (
        image.GetOrigin()[i] + image.GetSpacing()[i] * np.arange(image.GetSize()[i]) - shift[i] for i in range(3)
    )
    return [x[None, None, :], y[None, :, None], z[:, None, None]]


def ball(image: sitk.Image, centre, radius: float, shift=(0, 0, 0)) -> np.ndarray:
    return sum((a - c) ** 2 for a, c in zip(axes_of(image, shift), centre, strict=True)) <= radius**2


def body_of(image: sitk.Image, shift=(0, 0, 0)) -> np.ndarray:
    x, y, _ = axes_of(image, shift)
    return np.broadcast_to((x / BODY_HALF_MM[0]) ** 2 + (y / BODY_HALF_MM[1]) ** 2 <= 1.0, image.GetSize()[::-1])


def volume_ml(radius: float) -> float:
    return 4.0 / 3.0 * math.pi * radius**3 / 1000.0


def tia_h(name: str, nuclide: str) -> float:
    _, radius, level, half_life = BALLS[name]
    rate = LN2 / half_life - LN2 / HALF_LIFE_H["177Lu"] + LN2 / HALF_LIFE_H[nuclide]
    return level * volume_ml(radius) / 1e6 / INJECTED_MBQ / rate


def write_patient(results: Path) -> tuple[PatientFolder, list[Scan]]:
    folder = PatientFolder(results, "P1")
    fine, spect = grid(1.6), grid(SPACING_MM)
    scans, curves = [], []
    for number, (time, shift) in enumerate(zip(TIMES_H, (np.zeros(3), SHIFT_MM), strict=True), start=1):
        scan = Scan("P1", f"lu{number}", "pentixather", "dosimetry", "", "activity")
        image = np.zeros(fine.GetSize()[::-1])
        organs = np.zeros(image.shape, np.uint8)
        lesions = np.zeros(image.shape, np.uint8)
        for name, (centre, radius, level, half_life) in BALLS.items():
            inside = ball(fine, centre, radius, shift)
            now = level * 2.0 ** (-time / half_life)
            image[inside] = now
            curves.append({"region": name, "scan": scan.scan, "activity_mbq": now * volume_ml(radius) / 1e6})
            if name == "liver":
                organs[inside] = ORGAN_IDS["liver"]
            else:
                lesions[inside] = int(name[-1])
        seen = scipy.ndimage.gaussian_filter(image, FWHM_MM / 2.3548200450309493 / 1.6, mode="nearest")
        seen = seen.reshape(SIZE[2], 3, SIZE[1], 3, SIZE[0], 3).mean(axis=(1, 3, 5))
        hu = np.where(body_of(fine, shift), 40.0, -1000.0)
        hu[ball(fine, *GAS, shift)] = -1000.0
        sidecar = {"quantity": "activity concentration", "unit": "Bq/mL", "nuclide": "177Lu",
                   "injected_mbq": INJECTED_MBQ, "time_after_injection_h": time}  # fmt: skip
        write_image(from_array(seen.astype(np.float32), spect), folder.emission(scan), sidecar)
        write_image(from_array(hu.astype(np.float32), fine), folder.ct(scan.scan), {"quantity": "HU", "unit": "HU"})
        label = {"quantity": "label", "unit": "1"}
        write_image(from_array(organs, fine), folder.organs(scan.scan), label)
        names = {"1": "L01", "2": "L02"}
        write_image(from_array(lesions, divided(spect, 2.0)), folder.lesion_map(scan.scan), {**label, "labels": names})
        write_alignment(folder, scan.scan)
        move = sitk.TranslationTransform(3, shift.tolist())
        write_transform(move, folder.to_scan(scan.scan))
        write_transform(move.GetInverse(), folder.to_reference(scan.scan))
        write_json({"verdict": "good"}, folder.registration_quality(scan.scan))
        scans.append(scan)
    folder.table("curves").parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(curves).to_csv(folder.table("curves"), sep="\t", index=False)
    write_doses(folder, refused=["L02"])
    return folder, scans


def write_doses(folder: PatientFolder, refused: list[str]) -> None:
    rows = []
    for nuclide in ("177Lu", "90Y"):
        for name, (_, radius, _, _) in BALLS.items():
            mass = volume_ml(radius) * DENSITY
            dose = tia_h(name, nuclide) * 3600e9 * sphere_self_dose(nuclide, mass, DENSITY).gy_per_bq_s
            known = name not in refused
            rows.append({
                "patient": "P1", "region": name, "kind": "lesion" if name[0] == "L" else "organ", "nuclide": nuclide,
                "mass_g": mass, "tia_h": tia_h(name, nuclide) if known else math.nan,
                "dose_gy_per_gbq": dose if known else math.nan, "method": "sphere" if known else "refused for a reason",
            })  # fmt: skip
        rows.append({"patient": "P1", "region": "remainder", "kind": "remainder", "nuclide": nuclide, "tia_h": 1e-6,
                     "method": "rest"})  # fmt: skip
    pd.DataFrame(rows).assign(timepoint="dosimetry").to_csv(folder.table("doses"), sep="\t", index=False, na_rep="NA")


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> tuple[PatientFolder, list[Scan]]:
    folder, scans = write_patient(tmp_path_factory.mktemp("maps"))
    compute_dose_map(folder, scans[::-1], SETTINGS, "90Y")
    return folder, scans


def read_dose(folder: PatientFolder, nuclide: str = "90Y") -> np.ndarray:
    """By nibabel, z y x: ITK reads every NaN of a NIfTI file as 0."""
    path = folder.dose_map if nuclide == "90Y" else folder.dose_map_of(nuclide)
    return np.asarray(nibabel.load(path).dataobj).T


def test_regions_get_the_dose_of_a_sphere_and_what_comes_across(patient):
    folder, _ = patient
    table = read_table(folder.table("map_doses"))
    assert tuple(table.columns) == MAP_DOSE_COLUMNS
    assert set(zip(table["region"], table["nuclide"], strict=True)) == {
        (region, nuclide) for region in ("liver", "L01") for nuclide in ("177Lu", "90Y")
    }
    for _, row in table.iterrows():
        radius = BALLS[row["region"]][1]
        assert row["volume_ml"] == pytest.approx(volume_ml(radius), rel=0.02)
        assert row["told_percent"] == 100.0
        assert row["tia_h"] == pytest.approx(tia_h(row["region"], row["nuclide"]), rel=1e-5)
        assert row["self_gy_per_gbq"] == pytest.approx(row["region_gy_per_gbq"], rel=0.03)
        assert row["mean_gy_per_gbq"] == pytest.approx(row["self_gy_per_gbq"] + row["cross_gy_per_gbq"])
        assert row["map_over_region"] == pytest.approx(row["mean_gy_per_gbq"] / row["region_gy_per_gbq"])
        assert 0.0 <= row["cross_gy_per_gbq"] < 0.03 * row["mean_gy_per_gbq"]
        low, d98, d50, d2, high = (row[f"{name}_gy_per_gbq"] for name in ("min", "d98", "d50", "d2", "max"))
        assert 0.0 < low <= d98 <= d50 <= d2 <= high
        place = np.array([row["x_mm"], row["y_mm"], row["z_mm"]])
        assert np.linalg.norm(place - BALLS[row["region"]][0]) <= radius + SPACING_MM
    # Photons of the large liver reach the lesion, its electrons do not.
    lutetium = table.set_index(["region", "nuclide"])["cross_gy_per_gbq"]
    assert lutetium["L01", "177Lu"] > 10.0 * lutetium["L01", "90Y"]


@pytest.mark.parametrize("nuclide", ["90Y", "177Lu"])
def test_the_map_is_even_where_the_activity_is_although_the_patient_moved(patient, nuclide):
    """The second scan lies 18 mm away. Deep in each ball all electrons stay; photons add a little."""
    folder, scans = patient
    dose = read_dose(folder, nuclide)
    image = read_image(folder.emission(scans[0]))
    assert dose.shape == to_array(image).shape
    for name in ("liver", "L01"):
        centre, radius, _, _ = BALLS[name]
        core = dose[ball(image, centre, radius - 6.0)]
        known = {"177Lu": (0.14792, 0.16), "90Y": (0.93311, 0.95)}[nuclide]
        low, high = (tia_h(name, nuclide) * 3600e9 * mev * 1.602176634e-13 / (volume_ml(radius) * DENSITY / 1000.0)
                     for mev in known)  # fmt: skip
        slack = 0.05 if name == "liver" else 0.12  # 90Y leaves a ball of 12.5 mm from everywhere
        assert (1.0 - slack) * low < core.mean() < (1.0 + slack) * high
        assert core.std() < 0.06 * core.mean()
    sidecar = read_sidecar(folder.dose_map if nuclide == "90Y" else folder.dose_map_of(nuclide))
    assert sidecar["nuclide"] == nuclide and sidecar["unit"] == "Gy/GBq" and sidecar["scans"] == ["lu1", "lu2"]
    assert "photons on those of the SPECT" in sidecar["method"] and "Schneider" in sidecar["density"]
    assert sidecar["regions"]["L02"] == "refused for a reason"


def test_no_dose_where_none_can_be_told(patient):
    """Refused lesion and gas: NaN; outside the body: 0; nowhere more than in the hottest region."""
    folder, scans = patient
    image = read_image(folder.emission(scans[0]))
    dose = read_dose(folder)
    assert np.isnan(dose[ball(image, *BALLS["L02"][:2])]).mean() > 0.8
    assert np.isnan(dose[ball(image, GAS[0], GAS[1] - 5.0)]).all()
    x, y, _ = axes_of(image, (0, 0, 0))
    outside = (x / (BODY_HALF_MM[0] + 8.0)) ** 2 + (y / (BODY_HALF_MM[1] + 8.0)) ** 2 > 1.0
    assert not dose[np.broadcast_to(outside, dose.shape)].any()
    hottest = ball(image, *BALLS["L01"][:2])
    assert np.nanmax(dose) == np.nanmax(dose[hottest])
    assert "No estimate, and no dose in the map: L02." in read_sidecar(folder.dose_map)["limits"]


def test_histograms_of_both_nuclides(patient):
    folder, _ = patient
    dvh = read_table(folder.table("dvh"))
    assert tuple(dvh.columns) == DVH_COLUMNS
    table = read_table(folder.table("map_doses")).set_index(["region", "nuclide"])
    assert list(dvh["nuclide"].unique()) == ["90Y", "177Lu"]
    for (region, nuclide), part in dvh.groupby(["region", "nuclide"]):
        assert list(part["volume_percent"]) == list(np.arange(0.0, 101.0, 2.0))
        curve = part.set_index("volume_percent")["dose_gy_per_gbq"]
        assert (np.diff(curve) <= 1e-9).all()
        row = table.loc[region, nuclide]
        assert curve[98.0] == pytest.approx(row["d98_gy_per_gbq"]) and curve[0.0] == pytest.approx(
            row["max_gy_per_gbq"]
        )
        mean = float(np.trapezoid(curve.to_numpy(), curve.index.to_numpy())) / 100.0
        assert mean == pytest.approx(row["mean_gy_per_gbq"], rel=0.02)


def copied(patient, tmp_path: Path) -> tuple[PatientFolder, list[Scan]]:
    """The same patient in a folder of its own, by links."""
    source, scans = patient
    folder = PatientFolder(tmp_path, "P1")
    for path in source.root.rglob("*"):
        if path.is_file() and not path.name.startswith(("dose_gy", "dvh", "map_doses")):
            target = folder.root / path.relative_to(source.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder, scans


def with_map(**choice: str) -> dict:
    return {**SETTINGS, "dose_map": {**SETTINGS["dose_map"], **choice}}


def test_voxel_wise_and_local(patient, tmp_path):
    """The two other ways agree with what is known of them: the region's total, and all energy where it is emitted."""
    folder, scans = copied(patient, tmp_path)
    compute_dose_map(folder, scans, with_map(time_integration="voxel-wise", deposition="local"), "90Y")
    for _, row in read_table(folder.table("map_doses")).iterrows():
        assert row["tia_h"] == pytest.approx(row["region_tia_h"], rel=0.08)
        mev = {"177Lu": 0.14792, "90Y": 0.93311}[row["nuclide"]]
        local = row["tia_h"] * 3600e9 * mev * 1.602176634e-13 / (row["volume_ml"] * DENSITY / 1000.0)
        assert row["mean_gy_per_gbq"] == pytest.approx(local, rel=1e-3)
        assert row["cross_gy_per_gbq"] == pytest.approx(0.0, abs=1e-3 * local)
    sidecar = read_sidecar(folder.dose_map)
    assert sidecar["time_integration"] == "voxel-wise" and sidecar["deposition"] == "local"
    assert "exponential of its own" in sidecar["method"] and "No electron leaves its voxel" in sidecar["limits"]


def test_a_scan_whose_registration_failed_is_left_out(patient, tmp_path):
    folder, scans = copied(patient, tmp_path)
    write_json({"verdict": "failed"}, folder.registration_quality("lu2"))
    compute_dose_map(folder, scans, with_map(deposition="local"), "177Lu")
    sidecar = read_sidecar(folder.dose_map)
    assert sidecar["scans"] == ["lu1"]
    assert "Not used, because a registration has failed: lu2." in sidecar["limits"]
    assert not folder.dose_map_of("177Lu").exists()  # measured and treated with: one map


def test_a_map_of_an_earlier_run_for_another_nuclide_does_not_stay(patient, tmp_path):
    folder, scans = copied(patient, tmp_path)
    compute_dose_map(folder, scans[:1], with_map(deposition="local"), "90Y")
    assert folder.dose_map_of("177Lu").exists()
    compute_dose_map(folder, scans[:1], with_map(deposition="local"), "177Lu")
    assert [path.name for path in sorted(folder.dose_map.parent.glob("dose_gy*"))] == [
        "dose_gy_per_gbq.json", "dose_gy_per_gbq.nii.gz",
    ]  # fmt: skip


def test_what_of_a_region_lies_outside_the_body_is_no_part_of_its_histogram(patient, tmp_path):
    """An outline that runs over the skin must not give the lesion a least dose of 0."""
    folder, scans = copied(patient, tmp_path)
    ct = read_image(folder.ct("lu1"))
    hu = to_array(ct)
    x, _, _ = axes_of(ct, (0, 0, 0))
    hu[np.broadcast_to(x > 43.0, hu.shape)] = -1000.0
    write_image(from_array(hu, ct), folder.ct("lu1"), {"quantity": "HU", "unit": "HU"})
    compute_dose_map(folder, scans[:1], with_map(deposition="local"), "177Lu")
    lesion = read_table(folder.table("map_doses")).set_index("region").loc["L01"]
    assert 40.0 < lesion["told_percent"] < 80.0
    assert lesion["min_gy_per_gbq"] > 0.3 * lesion["mean_gy_per_gbq"]


@pytest.mark.parametrize("deposition", ["kernel", "local"])
def test_a_measured_nuclide_of_unknown_emissions_has_no_map_and_stops_nothing(patient, tmp_path, deposition):
    """111In shows where 90Y goes."""
    folder, scans = copied(patient, tmp_path)
    sidecar = read_sidecar(folder.emission(scans[0])) | {"nuclide": "111In"}
    write_image(read_image(folder.emission(scans[0])), folder.emission(scans[0]), sidecar)
    doses = read_table(folder.table("doses")).replace({"nuclide": {"177Lu": "111In"}})
    write_table(doses, folder.table("doses"), list(doses.columns))
    compute_dose_map(folder, scans[:1], with_map(deposition=deposition), "90Y")
    assert set(read_table(folder.table("map_doses"))["nuclide"]) == {"90Y"}
    assert not folder.dose_map_of("111In").exists()


def test_where_planning_goes_by_planar_scans_alone_the_map_is_of_the_administration_with_spect(patient, tmp_path):
    folder, scans = copied(patient, tmp_path)
    doses = read_table(folder.table("doses"))
    work_up = doses.assign(timepoint="work-up", tia_h=9.0)
    write_table(work_up, folder.table("doses"), list(doses.columns))
    write_table(pd.concat([work_up, doses]), folder.table("administrations"), list(doses.columns))
    compute_dose_map(folder, scans, with_map(deposition="local"), "90Y")
    found = read_table(folder.table("map_doses"))
    liver = found[(found["region"] == "liver") & (found["nuclide"] == "90Y")].iloc[0]
    assert liver["region_tia_h"] == pytest.approx(tia_h("liver", "90Y"))
    limits = read_sidecar(folder.dose_map)["limits"]
    assert "Of dosimetry: work-up, by which doses.tsv and planning go, has planar scans alone." in limits


def test_without_a_ct_all_is_soft_tissue_and_the_sidecar_says_so(patient, tmp_path):
    folder, scans = copied(patient, tmp_path)
    for scan in scans:
        folder.ct(scan.scan).unlink()
        folder.organs(scan.scan).unlink()
    compute_dose_map(folder, scans[:1], with_map(deposition="local"), "90Y")
    sidecar = read_sidecar(folder.dose_map)
    assert sidecar["density"] == "no CT: soft tissue in the whole image"
    assert "Without a CT the body's outline and its densities are not known" in sidecar["limits"]
    table = read_table(folder.table("map_doses"))
    assert set(table["region"]) == {"L01"}


def test_missing_facts_are_named(patient, tmp_path):
    folder, scans = copied(patient, tmp_path)
    with pytest.raises(TheraflowError, match=r"S values exist for .*, not for 68Ga"):
        compute_dose_map(folder, scans, SETTINGS, "68Ga")
    folder.to_scan("lu2").unlink()
    with pytest.raises(TheraflowError, match=r"lu2.to_scan.h5 cannot be read as a transform"):
        compute_dose_map(folder, scans, SETTINGS, "90Y")
    other = dataclasses.replace(scans[0], scan="lu9")
    write_image(
        read_image(folder.emission(scans[0])), folder.emission(other), {"quantity": "activity", "unit": "Bq/mL"}
    )
    with pytest.raises(TheraflowError, match="the time of the scan is not known"):
        compute_dose_map(folder, [other], SETTINGS, "90Y")
