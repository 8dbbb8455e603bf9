"""From curves.tsv to doses.tsv: which curve a region gets, and what the tables say of it. No voxels."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from activity_on_disk import write_scan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settings import default_settings
from theraflow.dosimetry.activity import CURVE_COLUMNS, measure_activity
from theraflow.dosimetry.activity.recovery import read_recovery
from theraflow.dosimetry.contract import ADMINISTRATION_COLUMNS, BUDGET_COLUMNS, DOSE_COLUMNS
from theraflow.dosimetry.curves.kinetics import Curve, decay_per_h, with_uptake
from theraflow.dosimetry.doses import compute_doses
from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import nuclide
from theraflow.tables import read_table, write_table

LU, Y = nuclide("177Lu"), nuclide("90Y")
LN2 = math.log(2.0)
TIMES = (24.0, 48.0, 96.0, 168.0)
SETTINGS = {**default_settings("dosimetry"), "spect_fwhm_mm": 12.0}
KIDNEY, LIVER, LESION = ("kidney_left", "organ", 150.0), ("liver", "organ", 1500.0), ("L01", "lesion", 20.0)


def mono(half_life: float) -> Curve:
    return Curve((30.0,), (LN2 / half_life - decay_per_h(LU),))


def write_patient(
    results: Path, curves: dict, times=TIMES, timepoint="dosimetry", injected=200.0, injected_at=None, **columns
) -> tuple[PatientFolder, list[Scan]]:
    """A patient whose regions have these curves, or activities where they are given as a list (None: not there).

    Written again with another timepoint, the patient has that administration too.
    """
    folder, scans, rows = PatientFolder(results, "P1"), [], []
    for number, time in enumerate(times, start=1):
        scan = Scan("P1", f"{timepoint}{number}", "pentixather", timepoint, "", "activity")
        sidecar = {"quantity": "activity concentration", "unit": "Bq/mL", "nuclide": "177Lu", "injected_mbq": injected,
                   "time_after_injection_h": time, "injected_at": injected_at}  # fmt: skip
        write_image(sitk.Image([2, 2, 2], sitk.sitkFloat32), folder.emission(scan), sidecar)
        scans.append(scan)
        for (region, kind, volume), curve in curves.items():
            activity = float(curve.activity_mbq(time, LU)) if isinstance(curve, Curve) else curve[number - 1]
            if activity is not None:
                rows.append({"patient": "P1", "region": region, "kind": kind, "scan": scan.scan, "time_h": time,
                             "activity_mbq": activity, "sd_mbq": 0.1 * activity, "volume_ml": volume,
                             "mass_g": 1.03 * volume, "sd_independent_mbq": math.nan, "remark": None, "method": "SPECT",
                             "timepoint": timepoint, **columns})  # fmt: skip
    before = read_table(folder.table("curves")) if folder.table("curves").exists() else None
    table = pd.concat([before, pd.DataFrame(rows)], ignore_index=True)
    write_table(table, folder.table("curves"), CURVE_COLUMNS)
    return folder, scans


def doses_of(folder: PatientFolder, scans: list[Scan], **settings) -> pd.DataFrame:
    compute_doses(folder, scans, {**SETTINGS, **settings}, "90Y", [])
    return read_table(folder.table("doses")).set_index(["region", "nuclide"])


def test_interval_and_budget(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: mono(60.0)})
    doses = doses_of(folder, scans, spect_fwhm_sd_mm=0.5)
    assert ["region", "nuclide", *doses.columns] == sorted(["region", "nuclide", *doses.columns], key=lambda c: (
        c not in ("region", "nuclide"), DOSE_COLUMNS.index(c)))  # fmt: skip
    budget = read_table(folder.table("uncertainty"))
    assert tuple(budget.columns) == BUDGET_COLUMNS
    assert len(budget) == 2 * 2 * 6
    for (region, name), row in doses.iterrows():
        own = budget[(budget["region"] == region) & (budget["nuclide"] == name)].set_index("term")
        assert list(own.index) == ["fit", "uptake", "calibration", "surface", "recovery", "s_value"]
        assert own["share"].sum() == pytest.approx(1.0)
        relative = row["sd_gy_per_gbq"] / row["dose_gy_per_gbq"]
        assert math.hypot(*own["relative_sd"]) == pytest.approx(relative)
        assert own.loc["calibration", "relative_sd"] == SETTINGS["calibration_cv"]
        assert row["ci_low_gy_per_gbq"] < row["dose_gy_per_gbq"] < row["ci_high_gy_per_gbq"]
        assert math.log(row["ci_high_gy_per_gbq"] / row["dose_gy_per_gbq"]) == pytest.approx(1.96 * relative, rel=1e-4)


def test_a_curve_that_rises_has_no_dose_and_the_others_have(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: [3.0, 4.0, 5.0, 6.0]})
    doses = doses_of(folder, scans)
    assert doses.loc["kidney_left", "dose_gy_per_gbq"].notna().all()
    assert doses.loc["L01", ["dose_gy_per_gbq", "tia_h", "t_eff_h", "sd_gy_per_gbq"]].isna().all(axis=None)
    assert doses.loc["L01", "method"].str.contains("the curve rises: its biological rate is below zero").all()
    assert set(read_table(folder.table("uncertainty"))["region"]) == {"kidney_left"}


@pytest.mark.parametrize("column", ["time_h", "activity_mbq"])
def test_a_missing_value_is_refused_by_name(tmp_path, column):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: mono(60.0)})
    curves = read_table(folder.table("curves"))
    curves.loc[3, column] = np.nan
    write_table(curves, folder.table("curves"), CURVE_COLUMNS)
    with pytest.raises(TheraflowError, match=f"{column} of L01 in scan dosimetry2 of P1 is missing"):
        doses_of(folder, scans)


def test_one_time_point_and_the_population(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(45.0), LESION: mono(60.0)}, times=(72.0,))
    doses = doses_of(folder, scans, population="pentixather")
    kidney = doses.loc[("kidney_left", "90Y")]
    assert "effective half-life of 41 h from the population of Haenscheid 2022" in kidney["method"]
    assert kidney["quality"] == "one time point"
    true = mono(45.0).time_integrated_activity(Y) / 200.0
    assert kidney["tia_h"] == pytest.approx(true, rel=0.06)
    assert kidney["ci_low_gy_per_gbq"] < true / kidney["tia_h"] * kidney["dose_gy_per_gbq"]
    # The population has no lesions.
    assert doses.loc[("L01", "90Y"), "model"] == "physical decay"
    with pytest.raises(TheraflowError, match="no kinetics of the population DOTATATE are known, only of pentixather"):
        doses_of(folder, scans, population="DOTATATE")


def test_what_is_known_of_this_patient_comes_before_the_population(tmp_path):
    curves = {KIDNEY: mono(45.0), LIVER: mono(100.0), LESION: mono(60.0)}
    _, first = write_patient(tmp_path, curves, timepoint="work-up", injected_at="2024-01-08T10:00:00")
    later = {"times": (72.0,), "timepoint": "cycle1", "injected_at": "2024-03-05T09:00:00"}
    folder, second = write_patient(tmp_path, curves, **later)
    doses_of(folder, [*second, *first], population="pentixather", t_eff_h={"liver": 80.0})
    told = read_table(folder.table("administrations"))
    doses = told[told["timepoint"] == "cycle1"].set_index(["region", "nuclide"])
    assert "of 45 h from the earlier administration work-up" in doses.loc[("kidney_left", "90Y"), "method"]
    assert "of 60 h from the earlier administration work-up" in doses.loc[("L01", "177Lu"), "method"]
    assert "of 80 h from the configuration" in doses.loc[("liver", "90Y"), "method"]
    assert doses.loc[("L01", "90Y"), "tia_h"] == pytest.approx(mono(60.0).time_integrated_activity(Y) / 200.0, rel=1e-4)
    alone = doses_of(folder, second, t_eff_h={"organ": 70.0}, population="pentixather")
    assert "of 70 h from the configuration" in alone.loc[("kidney_left", "90Y"), "method"]


def test_each_administration_has_its_own_doses_and_planning_takes_the_first_complete_one(tmp_path):
    """A work-up with two scans, a first cycle with four, a second with four: truth from their curves."""
    plan = {
        "work-up": (mono(45.0), (24.0, 96.0), 200.0, "2024-01-08T10:00:00"),
        "cycle1": (mono(50.0), TIMES, 7400.0, "2024-02-05T09:30:00"),
        "cycle2": (mono(55.0), TIMES, 6000.0, "2024-04-01T09:00:00"),
    }
    scans = []
    for name, (curve, times, injected, when) in plan.items():
        folder, own = write_patient(tmp_path, {KIDNEY: curve}, times, name, injected, when)
        scans = [*own, *scans]  # the sheet need not be in the order of the dates
    cycles = [
        {"patient": "P1", "cycle": 1, "date": "2024-02-05", "nuclide": "Lu-177", "activity_gbq": 7.4},
        {"patient": "P1", "cycle": 2, "date": "2024-04-01", "nuclide": "177Lu", "activity_gbq": 6.0},
        {"patient": "P1", "cycle": 3, "date": "2024-06-01", "nuclide": "177Lu", "activity_gbq": 7.0},
        {"patient": "P2", "cycle": 1, "date": "2024-02-05", "nuclide": "177Lu", "activity_gbq": 1.0},
        {"patient": "P1", "cycle": 4, "date": "2024-08-01", "nuclide": "131I", "activity_gbq": 1.0},
    ]
    compute_doses(folder, scans, SETTINGS, "177Lu", cycles)
    told = read_table(folder.table("administrations"))
    assert tuple(told.columns) == ADMINISTRATION_COLUMNS
    assert list(told["timepoint"]) == list(plan)
    assert list(told["date"]) == ["2024-01-08", "2024-02-05", "2024-04-01"]
    coefficients = {}
    for row in told.itertuples():
        curve, times, injected, _ = plan[row.timepoint]
        assert row.injected_mbq == injected and row.n_timepoints == len(times)
        assert row.tia_h == pytest.approx(curve.time_integrated_activity(LU) / injected, rel=1e-4)
        coefficients[row.timepoint] = row.dose_gy_per_gbq
    doses = read_table(folder.table("doses"))
    assert list(doses["timepoint"]) == ["cycle1"]
    given = read_table(folder.table("cycles"))
    assert list(given["cycle"]) == [1, 2, 3]
    assert list(given["source"]) == [
        "measured in this cycle (cycle1)", "measured in this cycle (cycle2)", "coefficient of cycle1",
    ]  # fmt: skip
    assert list(given["timepoint"]) == ["cycle1", "cycle2", "cycle1"]
    expected = [7.4 * coefficients["cycle1"], 6.0 * coefficients["cycle2"], 7.0 * coefficients["cycle1"]]
    assert list(given["dose_gy"]) == pytest.approx(expected)


def test_a_lesion_that_only_its_cycle_has_seen_has_its_dose_there(tmp_path):
    _, first = write_patient(tmp_path, {KIDNEY: mono(45.0)}, injected_at="2024-01-08T10:00:00")
    folder, second = write_patient(
        tmp_path, {LESION: mono(60.0), KIDNEY: [9.0], ("L02", "lesion", 1.0): [0.1]}, (48.0,), "cycle1", 5000.0,
        "2024-02-05T10:00:00",
    )  # fmt: skip
    cycle = {"patient": "P1", "cycle": 1, "date": "2024-02-05", "nuclide": "177Lu", "activity_gbq": 5.1}
    compute_doses(folder, [*first, *second], SETTINGS, "90Y", [cycle])
    given = read_table(folder.table("cycles")).set_index("region")
    assert list(given.index) == ["kidney_left", "L01", "L02"]
    assert list(given["dose_gy"].notna()) == [True, True, False]
    assert list(given["source"]) == ["measured in this cycle (cycle1)"] * 2 + ["no dose"]
    assert list(read_table(folder.table("doses"))["region"].unique()) == ["kidney_left"]
    with pytest.raises(TheraflowError, match=r"cycle 1 of P1 has 6 GBq of 177Lu, but the scans of that day \(timepoint "
                       "cycle1\\) say 5 GBq"):  # fmt: skip
        compute_doses(folder, [*first, *second], SETTINGS, "90Y", [cycle | {"activity_gbq": 6.0}])


def test_without_dates_nothing_is_taken_for_the_cycle(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(45.0)}, injected=7400.0)
    cycle = {"patient": "P1", "cycle": 1, "date": "2024-02-05", "nuclide": "177Lu", "activity_gbq": 7.4}
    compute_doses(folder, scans, SETTINGS, "177Lu", [cycle, cycle | {"cycle": 2, "date": math.nan}])
    assert (read_table(folder.table("cycles"))["source"] == "coefficient of dosimetry").all()


def test_with_few_scans_everywhere_the_most_count(tmp_path):
    scans = []
    for name, times in (("a", (24.0,)), ("b", (24.0, 72.0)), ("c", (30.0, 90.0))):
        folder, own = write_patient(tmp_path, {KIDNEY: mono(45.0)}, times, name)
        scans += own
    assert (doses_of(folder, scans)["timepoint"] == "b").all()


def test_of_several_the_one_with_the_most_points_lends(tmp_path):
    scans = []
    for name, half_life, times in (("a", 45.0, TIMES), ("b", 70.0, (24.0, 96.0)), ("c", 60.0, (72.0,))):
        folder, own = write_patient(tmp_path, {KIDNEY: mono(half_life)}, times, name)
        scans += own
    doses_of(folder, scans)
    told = read_table(folder.table("administrations"))
    methods = told[told["nuclide"] == "177Lu"].set_index("timepoint")["method"]
    assert "prior of an effective half-life of 45 h from the earlier administration a" in methods["b"]
    assert "of 45 h from the earlier administration a" in methods["c"]
    assert "earlier" not in methods["a"]


def test_another_tracer_lends_nothing(tmp_path):
    _, first = write_patient(tmp_path, {KIDNEY: mono(45.0)}, TIMES, "a")
    folder, second = write_patient(tmp_path, {KIDNEY: mono(60.0)}, (72.0,), "b")
    doses_of(folder, [*(replace(scan, tracer="DOTATATE") for scan in first), *second])
    told = read_table(folder.table("administrations")).set_index("timepoint")
    assert (told.loc["b", "model"] == "physical decay").all()
    mixed = [replace(second[0], timepoint="a"), *(replace(scan, tracer="DOTATATE") for scan in first)]
    with pytest.raises(TheraflowError, match=r"belong to several administrations \(DOTATATE, pentixather; 177Lu;"):
        doses_of(folder, mixed)


def test_the_uptake_that_nobody_saw_is_in_the_budget_and_said(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: mono(60.0)})
    doses = doses_of(folder, scans, uptake_half_life_h={"lesion": 3.0})
    budget = read_table(folder.table("uncertainty"))
    assert set(budget.loc[budget["term"] == "uptake", "region"]) == {"kidney_left"}
    assert doses.loc["kidney_left", "method"].str.contains("uptake before the first scan not seen").all()
    assert not doses.loc["L01", "method"].str.contains("not seen").any()
    none = doses_of(folder, scans, longest_uptake_h={"organ": 0.0, "lesion": 0.0})
    assert not none["method"].str.contains("not seen").any()
    assert "uptake" not in set(read_table(folder.table("uncertainty"))["term"])


def of_term(folder: PatientFolder, term: str) -> dict[str, float]:
    """Relative sd of a term of the budget by region, for 90Y."""
    budget = read_table(folder.table("uncertainty"))
    own = budget[(budget["term"] == term) & (budget["nuclide"] == "90Y")]
    return dict(zip(own["region"], own["relative_sd"], strict=True))


@pytest.mark.parametrize("fwhm", [None, 12.0])
def test_what_planar_activities_share_by_the_camera_is_in_their_dose_in_full(tmp_path, fwhm):
    """Conjugate views: `systematic_cv` is common to all points; no surface of a region is in it to be taken off."""
    told = SETTINGS | {"spect_fwhm_mm": fwhm}
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: mono(60.0)}, method="planar, conjugate view")
    points = read_table(folder.table("curves"))
    shared = math.hypot(told["calibration_cv"], told["planar"]["systematic_cv"])
    points["sd_independent_mbq"] = 0.1 * points["activity_mbq"]
    points["sd_mbq"] = points["activity_mbq"] * math.hypot(0.1, shared)
    write_table(points, folder.table("curves"), CURVE_COLUMNS)
    doses_of(folder, scans, spect_fwhm_mm=fwhm)
    assert of_term(folder, "planar") == pytest.approx({"kidney_left": 0.15, "L01": 0.15})


def test_a_recovery_curve_is_no_error_of_the_scale_of_planar_views(tmp_path):
    """Hybrid: of what the SPECT's points share, calibration, surface and recovery have terms of their own.

    The SPECT's sd after Gear et al. 2018: surface times the sensitivity of a recovered activity, and the curve's own.
    """
    volumes = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    spheres = pd.DataFrame({"volume_ml": volumes, "recovery": volumes / (volumes + 2.0), "sd": 0.05})
    spheres.to_csv(tmp_path / "spheres.tsv", sep="\t", index=False)
    told = {"recovery": str(tmp_path / "spheres.tsv"), "spect_fwhm_mm": None}
    folder, scans = write_patient(tmp_path, {LESION: mono(60.0)}, method="planar scaled by SPECT s")
    curve, volume = read_recovery(SETTINGS | told), LESION[2]
    radius = (3000.0 * volume / (4.0 * math.pi)) ** (1.0 / 3.0)
    surface = 3.0 * math.sqrt(2.0) * SETTINGS["boundary_sd_mm"]["lesion"] / (2.0 * radius)
    spect = math.hypot(0.05, 0.05, curve.activity_sensitivity(volume) * surface, curve.relative_sd(volume))
    points = read_table(folder.table("curves"))
    points["sd_independent_mbq"] = 0.1 * points["activity_mbq"]
    points["sd_mbq"] = points["activity_mbq"] * math.hypot(0.1, spect, 0.12)
    write_table(points, folder.table("curves"), CURVE_COLUMNS)
    doses_of(folder, scans, **told)
    # The SPECT's repeatability and the planar scan beside it.
    assert of_term(folder, "planar") == pytest.approx({"L01": math.hypot(0.05, 0.12)})


def test_what_the_field_of_view_cuts_off_is_in_the_budget(tmp_path):
    """Six tenths of the spleen are seen in all scans: 20 % on the rest are 8 % of its dose, and stay so over time."""
    uptake, scans = {"kidney_left": 20.0, "kidney_right": 30.0, "spleen": 10.0}, []
    for time in TIMES:
        part = 2.0 ** (-time / 50.0)
        seen = {region: value * part for region, value in uptake.items()}
        scans.append(write_scan(tmp_path, f"t{time:g}", time, seen, background=part, slices=slice(0, 36)))
    folder = PatientFolder(tmp_path, "P1")
    measure_activity(folder, scans, SETTINGS | {"spect_fwhm_mm": None})
    doses = doses_of(folder, scans, spect_fwhm_mm=None, uncertainty="monte carlo")
    assert of_term(folder, "cut") == pytest.approx({"spleen": 0.2 * 0.4})
    assert "to first order" in doses.loc[("spleen", "90Y"), "method"]
    assert "draws" in doses.loc[("kidney_left", "90Y"), "method"]


def test_a_region_that_no_scan_could_measure_has_no_points(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: [math.nan] * 4})
    points = read_table(folder.table("curves"))
    points["remark"] = points["region"].map({"L01": "lies in air: its mean is -900 HU by the CT"})
    write_table(points, folder.table("curves"), CURVE_COLUMNS)
    doses = doses_of(folder, scans)
    assert doses.loc[("L01", "90Y"), "n_timepoints"] == 0 and doses.loc[("kidney_left", "90Y"), "n_timepoints"] == 4


def test_monte_carlo_mode_agrees_and_says_so(tmp_path, monkeypatch):
    """sd within 12 % of the first order where no uptake is open; one time point stays with the first order."""
    monkeypatch.setattr("theraflow.dosimetry.doses.DRAWS", 400)
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: [12.0, None, None, None]})
    settings = {"longest_uptake_h": {}, "t_eff_h": {"lesion": 60.0}}
    plain = doses_of(folder, scans, **settings)
    drawn = doses_of(folder, scans, uncertainty="monte carlo", **settings)
    kidney = ("kidney_left", "90Y")
    assert "sd and interval by 400 draws" in drawn.loc[kidney, "method"]
    assert "draws" not in plain.loc[kidney, "method"]
    assert drawn.loc[kidney, "sd_gy_per_gbq"] == pytest.approx(plain.loc[kidney, "sd_gy_per_gbq"], rel=0.12)
    assert drawn.loc[kidney, "dose_gy_per_gbq"] == plain.loc[kidney, "dose_gy_per_gbq"]
    assert "to first order: nothing is drawn for one time point" in drawn.loc[("L01", "90Y"), "method"]
    assert drawn.loc[("L01", "90Y"), "sd_gy_per_gbq"] == plain.loc[("L01", "90Y"), "sd_gy_per_gbq"]


def test_two_points_take_the_population_as_prior(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(60.0), LESION: mono(60.0)}, times=(24.0, 72.0))
    doses = doses_of(folder, scans, population="pentixather")
    kidney, lesion = doses.loc[("kidney_left", "177Lu")], doses.loc[("L01", "177Lu")]
    assert 41.0 < kidney["t_eff_h"] < 60.0
    assert (
        "weighted fit of 2 points; with the prior of an effective half-life of 41 h from the population"
        in (kidney["method"])
    )
    assert lesion["t_eff_h"] == pytest.approx(60.0, rel=1e-4)
    assert "prior" not in lesion["method"]


def test_haenscheid_where_it_is_asked_for(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(60.0)}, times=(96.0,))
    doses = doses_of(folder, scans, single_time_point="haenscheid", radiobiology=SETTINGS["radiobiology"])
    row = doses.loc[("kidney_left", "177Lu")]
    assert row["tia_h"] == pytest.approx(mono(60.0).activity_mbq(96.0, LU) * 2 * 96.0 / LN2 / 200.0)
    assert row["tia_h"] * 200.0 == pytest.approx(mono(60.0).time_integrated_activity(LU), rel=0.12)
    assert math.isnan(row["t_eff_h"]) and row["sd_gy_per_gbq"] > 0
    assert "Haenscheid 2018; error -12 to +6 %" in row["method"]
    cycle = [{"patient": "P1", "cycle": 1, "nuclide": "90Y", "activity_gbq": 5.0}]
    compute_doses(folder, scans, {**SETTINGS, "single_time_point": "haenscheid"}, "90Y", cycle)
    cycles = read_table(folder.table("cycles"))
    assert cycles["dose_gy"].notna().all() and cycles["bed_gy"].isna().all()


def test_the_configuration_may_say_the_model_and_the_uptake(tmp_path):
    curve = Curve((30.0, -30.0), (LN2 / 50.0 - decay_per_h(LU), LN2 / 4.0))
    folder, scans = write_patient(tmp_path, {KIDNEY: curve, LESION: curve}, times=(4.0, 24.0, 72.0, 144.0))
    doses = doses_of(folder, scans, models={"kidney_left": "uptake and clearance"}, uptake_half_life_h={"lesion": 4.0})
    true = curve.time_integrated_activity(Y) / 200.0
    assert doses.loc[("kidney_left", "90Y"), "tia_h"] == pytest.approx(true, rel=1e-4)
    assert "model given by the configuration" in doses.loc[("kidney_left", "90Y"), "method"]
    assert doses.loc[("L01", "90Y"), "tia_h"] == pytest.approx(true, rel=1e-3)
    assert "uptake half-life of 4 h from the configuration" in doses.loc[("L01", "90Y"), "method"]
    folder, scans = write_patient(tmp_path / "few", {KIDNEY: curve, LESION: mono(60.0)}, times=(24.0, 72.0))
    doses = doses_of(folder, scans, models={"kidney_left": "uptake and clearance"})
    assert "more parameters (3) than there are points (2)" in doses.loc[("kidney_left", "90Y"), "method"]
    assert math.isnan(doses.loc[("kidney_left", "90Y"), "tia_h"])
    assert doses.loc[("L01", "90Y"), "tia_h"] > 0


def test_the_sd_of_each_point_counts_where_the_table_has_it(tmp_path):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0)}, sd_independent_mbq=0.0)
    curves = read_table(folder.table("curves"))
    curves.loc[3, "activity_mbq"] *= 1.3
    for column, values in (("exact last", [0.2, 0.2, 0.2, 0.005]), ("vague last", [0.01, 0.01, 0.01, 0.5])):
        table = curves.assign(sd_independent_mbq=np.array(values) * curves["activity_mbq"])
        write_table(table, folder.table("curves"), CURVE_COLUMNS)
        half_life = doses_of(folder, scans).loc[("kidney_left", "177Lu"), "t_eff_h"]
        if column == "vague last":
            assert half_life == pytest.approx(41.0, rel=0.01)
        else:
            assert half_life > 43.0


def change(folder: PatientFolder, scans: list[Scan], **facts) -> None:
    """Other facts in the sidecar of the first scan."""
    path = folder.emission(scans[0])
    write_image(read_image(path), path, read_sidecar(path) | facts)


REFUSED = {
    "injected activity missing": ({"injected_mbq": None}, {}, "90Y",
        "Scan dosimetry1 of P1: the injected activity is not known"),
    "injected activity 0": ({"injected_mbq": 0.0}, {}, "90Y",
        "Scan dosimetry1 of P1: the injected activity is 0 MBq; correct injected_mbq in scans.tsv"),
    "injected activity below 0": ({"injected_mbq": -5.0}, {}, "90Y", "the injected activity is -5 MBq"),
    "two activities at one timepoint": ({"injected_mbq": 150.0}, {}, "90Y",
        "of P1 at timepoint dosimetry belong to several administrations (pentixather; 177Lu; injected 150 to 200 MBq)"),
    "two nuclides at one timepoint": ({"nuclide": "90Y"}, {}, "90Y",
        "belong to several administrations (pentixather; 177Lu, 90Y; injected 200 to 200 MBq)"),
    "two days at one timepoint": ({"injected_at": "2024-03-05T09:00:00"}, {}, "90Y",
        "belong to several administrations (pentixather; 177Lu; injected 200 to 200 MBq on 2 days); give each"),
    "nuclide missing": ({"nuclide": None}, {}, "90Y", "Scan dosimetry1 of P1: the nuclide is not known"),
    "unknown nuclide of a scan": ({"nuclide": "Xx-12"}, {}, "90Y",
        "Scan dosimetry1 of P1: The nuclide 'Xx-12' is not known"),
    "unknown therapy nuclide": ({}, {}, "Zz-99", "The nuclide 'Zz-99' is not known; write it as one"),
    "unknown population": ({}, {"population": "DOTATATE"}, "90Y",
        "no kinetics of the population DOTATATE are known, only of pentixather"),
    "half-life beyond physical decay": ({}, {"t_eff_h": {"organ": 200.0}}, "90Y",
        "an effective half-life of 200 h (the configuration) is longer than the half-life of 177Lu"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "settings", "therapy", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_by_name(tmp_path, facts, settings, therapy, sentence):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0)}, times=(24.0, 96.0), injected_at="2024-01-08T10:00:00")
    if facts:
        change(folder, scans, **facts)
    with pytest.raises(TheraflowError, match=re.escape(sentence)):
        compute_doses(folder, scans, {**SETTINGS, **settings}, therapy, [])
    assert not folder.table("doses").exists() and not folder.table("administrations").exists()


TINY, HUGE = ("L09", "lesion", 5e-4), ("liver", "organ", 3e4)
WITHOUT_DOSE = {
    "rises": ({KIDNEY: [3.0, 4.0, 5.0, 6.0]}, {}, "the curve rises: its biological rate is below zero"),
    "more parameters than points": ({KIDNEY: [9.0, 7.0, None, None]}, {"models": {"organ": "uptake and clearance"}},
        "uptake and clearance has more parameters (3) than there are points (2)"),
    "no activity": ({KIDNEY: [0.0, -0.1, 0.0, 0.0]}, {}, "no activity above zero was measured"),
    "mass below the computed range": ({TINY: mono(60.0)}, {"minimum_lesion_ml": 0.0},
        "no dose: S values of 177Lu are computed for spheres of 0.001 to 20000 g, not for 0.000515 g"),
    "mass above the computed range": ({HUGE: mono(60.0)}, {},
        "no dose: S values of 177Lu are computed for spheres of 0.001 to 20000 g, not for 3.09e+04 g"),
    "small lesion": ({("L01", "lesion", 1.5): mono(60.0)}, {}, "no dose: 1.5 mL is below the limit of 2 mL"),
    "whole body": ({("whole_body", "whole_body", math.nan): mono(60.0)}, {},
        "no dose: the mass in the SPECT is not known"),
}  # fmt: skip


@pytest.mark.parametrize(("curves", "settings", "sentence"), WITHOUT_DOSE.values(), ids=WITHOUT_DOSE)
def test_regions_without_a_dose_say_why_and_the_others_have_theirs(tmp_path, curves, settings, sentence):
    folder, scans = write_patient(tmp_path, {**curves, ("L02", "lesion", 20.0): mono(60.0)})
    doses = doses_of(folder, scans, **settings)
    (region, _, _) = next(iter(curves))
    row = doses.loc[(region, "177Lu")]
    assert sentence in row["method"]
    assert math.isnan(row["dose_gy_per_gbq"]) and math.isnan(row["sd_gy_per_gbq"])
    assert doses.loc[("L02", "90Y"), "sd_gy_per_gbq"] > 0


def test_monte_carlo_mode_leaves_what_has_no_dose(tmp_path, monkeypatch):
    monkeypatch.setattr("theraflow.dosimetry.doses.DRAWS", 20)
    folder, scans = write_patient(tmp_path, {HUGE: mono(60.0), KIDNEY: [3.0, 4.0, 5.0, 6.0], LESION: mono(60.0)})
    doses = doses_of(folder, scans, uncertainty="monte carlo")
    assert doses.loc["liver", "method"].str.contains("no dose: S values of .* are computed for spheres").all()
    assert doses.loc["kidney_left", "method"].str.contains("the curve rises").all()
    assert doses.loc["L01", "method"].str.contains("by 20 draws").all()
    assert list(doses["sd_gy_per_gbq"].notna()) == [False] * 4 + [True] * 2


def test_odd_points_are_ordinary(tmp_path):
    """Two scans at one time, a lesion in two of four scans, an activity below 0 late, rows in any order."""
    late = [20.0, 10.0, 2.5, -0.05]  # half-life 24 h, then nothing above the background
    folder, scans = write_patient(
        tmp_path, {KIDNEY: mono(41.0), LESION: [12.0, None, 5.0, None], ("spleen", "organ", 200.0): late},
        times=(24.0, 48.0, 96.0, 168.0),
    )  # fmt: skip
    plain = doses_of(folder, scans)
    assert plain.loc[("L01", "177Lu"), "n_timepoints"] == 2
    half_life = 72.0 * LN2 / math.log(12.0 / 5.0)
    assert plain.loc[("L01", "177Lu"), "t_eff_h"] == pytest.approx(half_life, rel=1e-3)
    assert plain.loc[("spleen", "177Lu"), "t_eff_h"] == pytest.approx(24.0, rel=0.05)
    curves = read_table(folder.table("curves"))
    write_table(curves.sample(frac=1.0, random_state=4), folder.table("curves"), CURVE_COLUMNS)
    mixed = doses_of(folder, scans).loc[plain.index]
    for column in ("dose_gy_per_gbq", "sd_gy_per_gbq", "t_eff_h"):
        np.testing.assert_allclose(mixed[column], plain[column], rtol=1e-6)
    twice, pair = write_patient(tmp_path / "twice", {KIDNEY: mono(41.0)}, times=(24.0, 24.0, 96.0, 168.0))
    row = doses_of(twice, pair).loc[("kidney_left", "177Lu")]
    assert row["t_eff_h"] == pytest.approx(41.0, rel=1e-4) and row["n_timepoints"] == 4


@given(factor=st.floats(1e-3, 1e3), half_life=st.floats(15.0, 140.0), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scaling_all_activities_scales_the_dose_alone(tmp_path, factor, half_life, seed):
    activity = mono(half_life).activity_mbq(np.array(TIMES), LU)
    activity *= 1.0 + 0.05 * np.random.default_rng(seed).standard_normal(4)
    rows = []
    for number, scale in enumerate((1.0, factor)):
        folder, scans = write_patient(
            tmp_path / f"{seed} {half_life} {factor} {number}", {KIDNEY: list(scale * activity)}
        )
        rows.append(doses_of(folder, scans).loc["kidney_left"])
    one, other = rows
    np.testing.assert_allclose(other["dose_gy_per_gbq"], factor * one["dose_gy_per_gbq"], rtol=1e-5)
    relative = [row["sd_gy_per_gbq"] / row["dose_gy_per_gbq"] for row in rows]
    np.testing.assert_allclose(relative[1], relative[0], rtol=1e-4)


@given(half_life=st.floats(10.0, 158.0), uptake=st.floats(0.0, 0.4), amplitude=st.floats(0.1, 100.0))
@settings(max_examples=40, deadline=None)
def test_90y_over_177lu_lies_within_what_decay_allows(half_life, uptake, amplitude):
    """The activity of 90Y never exceeds that of 177Lu, and without clearance the ratio is that of the half-lives."""
    curve = Curve((amplitude,), (LN2 / half_life - decay_per_h(LU),))
    if uptake > 0.01:
        curve = with_uptake(curve, uptake * half_life, LU)
    ratio = curve.time_integrated_activity(Y) / curve.time_integrated_activity(LU)
    lowest = decay_per_h(LU) / decay_per_h(Y)
    if uptake > 0.01:
        lowest **= 2  # (b + p)(b + p + u) grows by at most the square
    assert lowest * (1 - 1e-9) <= ratio < 1.0


@pytest.mark.parametrize(
    "points",
    [
        [-0.001079, 0.000089, -0.000029, 0.000021],  # a lesion of the virtual cohort that takes up nothing
        [0.001, -0.002, 0.0015, -0.001],
        [0.01, 0.0, 0.0, 0.0],
    ],
)
def test_a_region_whose_activity_is_noise_has_no_dose_and_stops_nobody(tmp_path, points):
    folder, scans = write_patient(tmp_path, {KIDNEY: mono(41.0), LESION: points}, sd_independent_mbq=0.001)
    doses = doses_of(folder, scans)
    assert math.isnan(doses.loc[("L01", "90Y"), "dose_gy_per_gbq"])
    assert doses.loc[("L01", "90Y"), "method"]
    assert doses.loc[("kidney_left", "90Y"), "dose_gy_per_gbq"] > 0
