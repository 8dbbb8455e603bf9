"""From scans with something missing to doses: the other regions and scans go on, and the table says why."""

import math

import numpy as np
import pandas as pd
import pytest
from activity_on_disk import KIDNEY_LEFT, ORGANS, SIZE, write_scan

from settings import default_settings
from theraflow.dosimetry.activity import measure_activity
from theraflow.dosimetry.doses import compute_doses
from theraflow.dosimetry.planning import plan_therapy
from theraflow.dosimetry.s_values.spheres import sphere_self_dose
from theraflow.layout import PatientFolder
from theraflow.tables import read_table

TIMES_H = (24.0, 48.0, 96.0, 168.0)
T_EFF_H = {"kidney_left": 41.0, "kidney_right": 41.0, "spleen": 86.0, "L01": 60.0, "vertebrae_L3": 92.0}
AT_INJECTION = {"kidney_left": 20.0, "kidney_right": 30.0, "spleen": 10.0, "L01": 50.0, "vertebrae_L3": 5.0}
L01 = (slice(24, 28), slice(5, 9), slice(20, 24))
L3 = (slice(25, 33), slice(25, 35), slice(10, 20))
SETTINGS = {
    **default_settings("dosimetry"),
    "organs": ["kidney_left", "kidney_right", "spleen"],
    "marrow": {"red_marrow_fraction": 0.6, "red_marrow_fraction_sd": 0.06, "blood_ratio": 1.0},
}


def doses(results, changes=(), settings=SETTINGS, blood=()) -> pd.DataFrame:
    """Doses of four scans; `changes` of the single ones."""
    scans = []
    for number, time in enumerate(TIMES_H):
        seen = {name: value * 2.0 ** (-time / T_EFF_H[name]) for name, value in AT_INJECTION.items()}
        changed = dict(enumerate(changes)).get(number) or {}
        scans.append(write_scan(
            results, f"s{number}", time, seen, background=0.05,
            **{"organs": {**ORGANS, "vertebrae_L3": L3}, "lesions": {"L01": L01}, **changed},
        ))  # fmt: skip
    folder = PatientFolder(results, "P1")
    measure_activity(folder, scans, settings, blood)
    compute_doses(folder, scans, settings, "90Y", [])
    return read_table(folder.table("doses")).set_index(["region", "nuclide"])


def true_kidney_90y() -> float:
    """Gy/GBq of the left kidney by the closed formula and the sphere's S value."""
    rate = math.log(2.0) * (1.0 / 41.0 - 1.0 / (6.647 * 24.0) + 1.0 / 64.1)
    decays = 20.0e3 * 64.0 / 200e6 / rate * 3600.0 * 1e9
    return decays * sphere_self_dose("90Y", 64.0 * 1.05, 1.05).gy_per_bq_s


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ((), 4),
        ((None, {"organs": {"spleen": ORGANS["spleen"]}}), 3),
        (({"ct": False},), 3),
        ((None, None, {"slices": slice(16, SIZE[2])}), 3),
        (({"slices": slice(13, SIZE[2])},), 4),
        ((None, None, None, {"hu": {"kidney_left": -900.0}}), 3),
    ],
    ids=[
        "all there",
        "not segmented once",
        "one SPECT without CT",
        "mostly cut once",
        "partly cut once",
        "in air once",
    ],
)
def test_coefficient_of_a_kidney_that_not_all_scans_show(tmp_path, changes, points):
    row = doses(tmp_path, changes).loc[("kidney_left", "90Y")]
    assert row["n_timepoints"] == points
    assert row["dose_gy_per_gbq"] == pytest.approx(true_kidney_90y(), rel=0.01)


def test_region_that_no_scan_can_measure_says_why_and_the_others_go_on(tmp_path):
    table = doses(tmp_path, [{"hu": {"L01": -950.0}}] * 4)
    assert math.isnan(table.loc[("L01", "90Y"), "dose_gy_per_gbq"])
    assert table.loc[("L01", "90Y"), "method"] == "lies in air: its mean is -950 HU by the CT"
    assert table.loc[("kidney_left", "90Y"), "dose_gy_per_gbq"] > 0


def test_missing_time_point_and_one_kidney(tmp_path):
    table = doses(tmp_path, [{"organs": {"kidney_left": KIDNEY_LEFT}}] * 4)
    assert ("kidney_right", "90Y") not in table.index and ("spleen", "90Y") not in table.index
    assert table.loc[("kidney_left", "90Y"), "dose_gy_per_gbq"] == pytest.approx(true_kidney_90y(), rel=0.01)
    assert "none of the vertebrae" in table.loc[("red_marrow", "90Y"), "method"]


@pytest.mark.parametrize("nuclide", ["177Lu", "90Y"])
def test_red_marrow_in_closed_form(tmp_path, nuclide):
    row = doses(tmp_path).loc[("red_marrow", nuclide)]
    half_life, energy = {"177Lu": (6.647 * 24.0, 0.14792), "90Y": (64.1, 0.93311)}[nuclide]
    rate = math.log(2.0) * (1.0 / 92.0 - 1.0 / (6.647 * 24.0) + 1.0 / half_life)
    # Per mL of red marrow, whatever its mass: 5 kBq/mL in the spongiosa, of which six tenths hold all; 1.03 g/mL.
    decays = 5.0e3 / 0.6 / 200e6 / rate * 3600.0 * 1e9
    assert row["dose_gy_per_gbq"] == pytest.approx(decays * energy * 1.602176634e-13 / 1.03e-3, rel=0.01)
    assert "upper bound" in row["method"]
    assert row["sd_gy_per_gbq"] / row["dose_gy_per_gbq"] > 0.1
    assert row["mass_g"] == pytest.approx(1170.0)


def test_blood_as_a_second_estimate(tmp_path):
    samples = [
        {"patient": "P1", "timepoint": "dosimetry", "time_h": time, "kbq_per_ml": 3.0 * 2.0 ** (-time / 20.0)}
        for time in (1.0, 4.0, 24.0, 48.0)
    ]
    row = doses(tmp_path, blood=samples).loc[("red_marrow_blood", "177Lu")]
    assert row["n_timepoints"] == 4
    decays = 3.0e3 / 200e6 / math.log(2.0) * 20.0 * 3600.0 * 1e9
    assert row["dose_gy_per_gbq"] == pytest.approx(decays * 0.14792 * 1.602176634e-13 / 1.03e-3, rel=0.01)
    assert "blood samples, red marrow to blood 1.0" in row["method"]
    assert "sd without that of the ratio" in row["method"]


def test_lesions_whose_names_are_numbers(tmp_path):
    """A reader may call them 1 and 2; with no organ beside them all regions of cycles.tsv look like numbers."""
    boxes = {"1": L01, "2": (slice(24, 28), slice(5, 9), slice(30, 34))}
    folder, scans = PatientFolder(tmp_path, "P1"), []
    for time in (24.0, 96.0):
        seen = dict.fromkeys(boxes, 50.0 * 2.0 ** (-time / 60.0))
        sidecar = {"injected_at": "2024-02-05T10:00:00"}
        scans.append(write_scan(tmp_path, f"s{time:g}", time, seen, organs=None, lesions=boxes, sidecar=sidecar))
    settings = {key: value for key, value in SETTINGS.items() if key != "marrow"}
    cycle = {"patient": "P1", "cycle": 1.0, "date": "2024-02-05", "nuclide": "177Lu", "activity_gbq": 0.2}
    measure_activity(folder, scans, settings)
    compute_doses(folder, scans, settings, "90Y", [cycle])
    plan_therapy(folder, settings, "90Y", [cycle])
    course = read_table(folder.table("course"))
    assert list(course["region"]) == ["1", "2"] and (course["dose_gy"] > 0).all()


def test_recovery_curve_in_the_doses_and_their_budget(tmp_path):
    volumes = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    spheres = pd.DataFrame({"volume_ml": volumes, "recovery": volumes / (volumes + 2.0), "sd": 0.03})
    spheres.to_csv(tmp_path / "spheres.tsv", sep="\t", index=False)
    plain = doses(tmp_path)
    table = doses(tmp_path, settings={**SETTINGS, "recovery": str(tmp_path / "spheres.tsv")})
    ratio = table.loc[("L01", "90Y"), "dose_gy_per_gbq"] / plain.loc[("L01", "90Y"), "dose_gy_per_gbq"]
    assert ratio == pytest.approx((4.096 + 2.0) / 4.096, rel=1e-3)
    assert "R(v) = 1/(1 + (2 mL/v)^1) of spheres.tsv" in table.loc[("L01", "90Y"), "method"]
    budget = read_table(PatientFolder(tmp_path, "P1").table("uncertainty"))
    own = budget[(budget["region"] == "L01") & (budget["nuclide"] == "90Y")].set_index("term")
    assert 0.0 < own.loc["recovery", "relative_sd"] < 0.1
