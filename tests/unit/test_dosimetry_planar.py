"""Planar and hybrid dosimetry: simulated views of known activities in, planar.tsv, curves and doses out."""

import functools
import json
import logging
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from planar_patient import (
    BOWEL,
    FINE_MM,
    INJECTED_MBQ,
    LU_HALF_LIFE_H,
    ORGANS,
    REST_HALF_LIFE_H,
    REST_MBQ,
    SENSITIVITY,
    SHOWN_MM,
    SOURCES,
    SPECT_FWHM_MM,
    Phantom,
    Source,
    inside,
    write_anatomy,
    write_series,
    write_views,
)
from test_dosimetry_pipeline import DENSITY, ELECTRON_MEV, HALF_LIFE_H, LN2, MEV, absorbed_fraction_90y

from settings import default_settings
from theraflow.dosimetry.activity import CURVE_COLUMNS, PLANAR_COLUMNS, measure_activity, measure_planar
from theraflow.dosimetry.activity.alignment import find_place
from theraflow.dosimetry.activity.attenuation import attenuation_per_cm, narrow_beam_per_cm
from theraflow.dosimetry.activity.hybrid import with_planar
from theraflow.dosimetry.activity.planar import GREATEST_OVERLAP, Estimate, View, estimate_rate, find_anatomy
from theraflow.dosimetry.activity.projection import Projections, transmissions
from theraflow.dosimetry.doses import compute_doses
from theraflow.dosimetry.maps import compute_dose_map
from theraflow.errors import TheraflowError
from theraflow.images import read_image, read_sidecar, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.nifti import sidecar_path, write_sidecar
from theraflow.tables import read_table, write_table

TIMES_H, SPECT_H = (4.0, 24.0, 72.0, 120.0), 25.0


def dosimetry(**planar) -> dict:
    """The configuration's defaults for the phantom, with changes in `planar`."""
    default = default_settings("dosimetry")
    return {
        **default, "organs": list(ORGANS), "spect_fwhm_mm": SPECT_FWHM_MM,
        "planar": {**default["planar"], "fwhm_mm": 12.0, **planar},
    }  # fmt: skip


def measure(folder: PatientFolder, scans, configuration=None) -> pd.DataFrame:
    """planar.tsv."""
    planar, others = ([scan for scan in scans if scan.planar == wanted] for wanted in (True, False))
    measure_planar(folder, planar, others, configuration or dosimetry())
    return read_table(folder.table("planar"))


def curves(folder: PatientFolder, scans, configuration=None) -> pd.DataFrame:
    """curves.tsv of the activity scans of the administration."""
    activity = [scan for scan in scans if scan.timepoint == "dosimetry"]
    measure_activity(folder, activity, configuration or dosimetry())
    return read_table(folder.table("curves"))


@functools.cache
def curves_once(folder: PatientFolder, scans: tuple) -> pd.DataFrame:
    return curves(folder, scans)


def truth_mbq(row: pd.Series) -> float:
    if row["region"] == "whole_body":
        return Phantom().total_mbq(row["time_h"], *SHOWN_MM)
    return SOURCES[row["region"]].at(row["time_h"])


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Four sweeps of a patient who lies elsewhere each time, and one SPECT/CT an hour after the second."""
    folder, scans = write_series(tmp_path_factory.mktemp("series"), Phantom(), TIMES_H, SPECT_H)
    measure(folder, scans)
    return folder, scans


@pytest.fixture
def copy(series, tmp_path):
    """The same, to be changed."""
    folder, scans = series
    shutil.copytree(folder.results, tmp_path / "results")
    return PatientFolder(tmp_path / "results", "P1"), list(scans)


def change(folder: PatientFolder, scan, **values) -> None:
    """Entries of a sidecar."""
    path = sidecar_path(folder.emission(scan))
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def of(table: pd.DataFrame, region: str) -> pd.DataFrame:
    return table[table["region"] == region].sort_values("time_h")


# ------------------------------------------------------------------------------------------------ attenuation


@pytest.mark.parametrize(("energy_kev", "per_cm"), [(140.5, 0.154), (208.4, 0.1354), (364.5, 0.110), (511.0, 0.0960)])
def test_water_attenuates_as_published(energy_kev, per_cm):
    """Cherry, Sorenson and Phelps, appendix D (140, 364, 511 keV); xraylib (208 keV)."""
    assert narrow_beam_per_cm(energy_kev)[0] == pytest.approx(per_cm, rel=0.01)


def test_no_attenuation_is_made_up_beyond_the_table():
    with pytest.raises(
        TheraflowError, match="No attenuation coefficients are known at 20 keV, only from 40 to 600 keV"
    ):
        narrow_beam_per_cm(20.0)


@settings(deadline=None)
@given(energy_kev=st.floats(60.0, 500.0), hu=st.lists(st.floats(-1024.0, 2500.0), min_size=2, max_size=20))
def test_attenuation_grows_with_hu_and_is_that_of_water_at_zero(energy_kev, hu):
    values = attenuation_per_cm(np.sort([*hu, -1000.0, 0.0]), energy_kev)
    assert (np.diff(values) >= 0.0).all()
    assert values.min() == 0.0
    water, _ = narrow_beam_per_cm(energy_kev)
    assert attenuation_per_cm(np.array([0.0]), energy_kev)[0] == pytest.approx(water)
    assert attenuation_per_cm(np.array([-500.0]), energy_kev, 0.11)[0] == pytest.approx(0.055)


@settings(deadline=None)
@given(per_cm=st.floats(0.05, 0.16), thickness=st.integers(1, 60), depth=st.floats(0.0, 1.0, exclude_max=True))
def test_conjugate_views_do_not_depend_on_depth(per_cm, thickness, depth):
    """sqrt(T_A T_P) = exp(-mu T / 2) of a body of thickness T (Siegel et al., MIRD pamphlet 16)."""
    front, back = transmissions(np.full((1, thickness, 1), per_cm), 0.4)[:, 0, :, 0]
    place = int(depth * thickness)
    assert math.sqrt(front[place] * back[place]) == pytest.approx(math.exp(-per_cm * 0.4 * thickness / 2.0))
    assert front[place] == pytest.approx(math.exp(-per_cm * 0.4 * (place + 0.5)))


# ------------------------------------------------------------------------------------------------ alignment


@settings(deadline=None, max_examples=30)
@given(
    row=st.integers(-8, 30), column=st.integers(-6, 16), seed=st.integers(0, 1000), mirrored=st.booleans(),
    pixel_mm=st.sampled_from([2.4, 4.0, 4.8]),
)  # fmt: skip
def test_a_known_place_is_found_again(row, column, seed, mirrored, pixel_mm):
    """Blobs and a body, also where the window hangs over the edge of the view; noise of 5 % of the highest pixel."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :30]
    shapes = [((rows - 20) / 40) ** 2 + ((columns - 14.5) / 13) ** 2 <= 1]
    shapes += [np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * w**2)) for r, c, w in
               ((12, 9, 4.0), (18, 21, 3.0), (28, 20, 2.0))]  # fmt: skip
    projections = np.array([[shape * random.uniform(0.5, 1.0) for _ in range(2)] for shape in shapes])
    projections /= projections.sum(axis=(1, 2, 3), keepdims=True)
    if mirrored:
        projections = projections[..., ::-1]
    window = np.tensordot([900.0, 400.0, 300.0, 150.0], projections, 1)
    view = np.zeros((2, 100, 70))
    view[:, 20 + row : 60 + row, 15 + column : 45 + column] = window
    view = view[:, 20:80, 15:55]
    view = view + random.normal(0.0, 0.05 * view.max(), view.shape)
    place = find_place(view, projections, (pixel_mm, pixel_mm))
    assert (place.row + place.rest[0], place.column + place.rest[1]) == pytest.approx((row, column), abs=0.6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 9)] * 2))
def test_the_sd_by_structure_is_that_of_the_weights_centred_on_every_pixel_of_the_body(seed, box):
    rng = np.random.default_rng(seed)
    unexplained, weights = rng.normal(size=(2, 12, 10)), rng.normal(size=(2, *box))
    body = rng.random((12, 10)) < 0.5
    body[5, 5] = True
    found = sum(
        scipy.signal.correlate(rates, one, mode="same", method="direct")
        for rates, one in zip(unexplained, weights, strict=True)
    )
    estimate = Estimate(1.0, 0.0, weights, (slice(0, box[0]), slice(0, box[1])))
    assert estimate.structure_sd(unexplained, body) == pytest.approx(np.sqrt((found[body] ** 2).mean()))


# ------------------------------------------------------------------------------------------------ planar


def test_planar_rates_follow_the_truth(series):
    """With a bowel that no mask has, overlapping organs, a spine, lungs, and a resolution that varies with depth."""
    table = read_table(series[0].table("planar"))
    assert tuple(table.columns) == PLANAR_COLUMNS
    assert set(table["region"]) == {*SOURCES, "whole_body", "whole_view"}
    for _, row in table[table["kind"] != "view"].iterrows():
        within = {"organ": 0.06, "lesion": 0.10, "whole_body": 0.06}[row["kind"]]
        assert row["rate_per_s"] / SENSITIVITY == pytest.approx(truth_mbq(row), rel=within)
        assert 0.0 < row["sd_per_s"] < 0.03 * row["rate_per_s"]
        assert row["overlap"] >= 1.0
        assert row["anatomy"] == "spect1"
        assert 0.9 < row["explained"] < 1.0
    # By how much farther to the right and up the patient was laid each time.
    places = table.drop_duplicates("scan")[["left_mm", "down_mm"]].to_numpy()
    assert np.diff(places, axis=0) == pytest.approx(np.tile([-3.7, -13.3], (3, 1)), abs=0.5)


def test_the_sd_by_counting_is_that_of_repeated_scans(series, tmp_path):
    """Eight scans of the same rates with other counts."""
    folder, scans = series
    rates = Phantom().rates(72.0, SENSITIVITY, 4.0, (280, 128), (-240.0, 520.0))
    other = PatientFolder(tmp_path, "P1")
    shutil.copytree(folder.root, other.root)
    repeated = [replace(scans[0], scan=f"again{k}") for k in range(8)]
    for k, scan in enumerate(repeated):
        write_views(other, scan, rates, 72.0, 4.0, seed=100 + k)
    table = measure(other, [*repeated, scans[-1]])
    ratios = [part["rate_per_s"].var() / (part["sd_per_s"] ** 2).mean() for _, part in table.groupby("region")]
    # The 0.1 and 99.9 % points of chi-squared over its 28 degrees of freedom, of 7 x 7 that are partly correlated.
    assert 0.36 < np.mean(ratios) < 2.03


# ------------------------------------------------------------------------------------------------ hybrid


def test_hybrid_curves_and_doses(series):
    folder, scans = series
    table = curves(folder, scans)
    assert tuple(table.columns) == CURVE_COLUMNS
    assert set(table["region"]) == {*SOURCES, "whole_body", "remainder"}
    for region in {*SOURCES, "whole_body"}:
        points = of(table, region)
        # The second planar scan is in the scale; the SPECT stands in its place.
        assert list(points["scan"]) == ["planar1", "spect1", "planar3", "planar4"]
        assert list(points["method"]) == ["planar scaled by SPECT spect1" if s != "spect1" else "SPECT"
                                          for s in points["scan"]]  # fmt: skip
        for _, row in points.iterrows():
            assert row["activity_mbq"] == pytest.approx(truth_mbq(row), rel=0.06 if region != "L01" else 0.08)
        planar = points[points["scan"] != "spect1"]
        shared = np.sqrt(planar["sd_mbq"] ** 2 - planar["sd_independent_mbq"] ** 2) / planar["activity_mbq"]
        spect = points[points["scan"] == "spect1"].iloc[0]
        # The SPECT's error and that of the planar scan beside it: 10 % and what counting and structure add.
        assert shared.to_numpy() == pytest.approx(shared.iloc[0])
        least = math.hypot(spect["sd_mbq"] / spect["activity_mbq"], 0.1)
        assert least <= shared.iloc[0] < math.hypot(least, 0.15)
        assert (planar["sd_independent_mbq"] >= 0.1 * planar["activity_mbq"]).all()
        if region != "whole_body":
            assert set(points["mass_g"]) == {spect["mass_g"]}
    for scan in ("planar1", "spect1", "planar3", "planar4"):
        points = table[table["scan"] == scan].set_index("region")["activity_mbq"]
        assert points.drop("whole_body").sum() == pytest.approx(points["whole_body"])

    compute_doses(folder, scans, dosimetry(), "90Y", [])
    doses = read_table(folder.table("doses")).set_index(["region", "nuclide"])
    for region, source in SOURCES.items():
        assert doses.loc[(region, "177Lu"), "model"] == "mono-exponential"
        within = 0.03 if region != "L01" else 0.05
        assert doses.loc[(region, "177Lu"), "t_eff_h"] == pytest.approx(source.half_life_h, rel=within)
        rate = LN2 / source.half_life_h - LN2 / HALF_LIFE_H["177Lu"] + LN2 / HALF_LIFE_H["90Y"]
        energy = ELECTRON_MEV["90Y"] * MEV * absorbed_fraction_90y(np.array(source.half_axes))
        mass_kg = source.volume_ml * DENSITY / 1000.0
        truth = source.activity_mbq / INJECTED_MBQ / rate * 3600.0 * 1e9 * energy / mass_kg
        row = doses.loc[(region, "90Y")]
        assert row["dose_gy_per_gbq"] == pytest.approx(truth, rel=0.10)
        assert row["ci_low_gy_per_gbq"] < truth < row["ci_high_gy_per_gbq"]


@settings(deadline=None, max_examples=25)
@given(sensitivity=st.floats(0.1, 100.0), gain=st.floats(0.3, 3.0))
def test_what_is_alike_at_all_times_cancels(series, sensitivity, gain):
    """Hybrid activities do not change with the sensitivity, nor with a factor of one region."""
    folder, scans = series
    rows = curves_once(folder, tuple(scans))
    spect = rows[rows["scan"] == "spect1"].to_dict("records")
    table = read_table(folder.table("planar"))
    changed = table.copy()
    changed[["rate_per_s", "sd_per_s", "structure_per_s"]] *= sensitivity
    changed.loc[changed["region"] == "spleen", ["rate_per_s", "sd_per_s", "structure_per_s"]] *= gain
    write_table(changed, folder.table("planar"), PLANAR_COLUMNS)
    try:
        found = with_planar(folder, scans[:-1], spect, dosimetry())
    finally:
        write_table(table, folder.table("planar"), PLANAR_COLUMNS)
    reference = rows[rows["region"] != "remainder"].set_index(["region", "scan"])["activity_mbq"].to_dict()
    found = {(row["region"], row["scan"]): row["activity_mbq"] for row in found if row["region"] != "remainder"}
    assert found == pytest.approx(reference, rel=1e-9)


def test_a_region_that_only_the_spect_shows_keeps_its_point(copy):
    """Also where the SPECT is otherwise in the scale alone."""
    folder, scans = copy
    write_anatomy(folder, scans[-1], Phantom(), 50.0)
    table = read_table(folder.table("planar"))
    write_table(table[table["region"] != "spleen"], folder.table("planar"), PLANAR_COLUMNS)
    found = curves(folder, scans)
    assert list(of(found, "spleen")["scan"]) == ["spect1"]
    assert "spect1" not in set(of(found, "liver")["scan"])
    write_table(table[table["region"] != "nothing"].replace("spleen", "L02"), folder.table("planar"), PLANAR_COLUMNS)
    assert "L02" not in set(curves(folder, scans)["region"])


def test_a_region_that_planar_views_do_not_tell_has_no_planar_points(tmp_path, caplog):
    """A lesion of 2 mL hardly above its surroundings: the SPECT alone says what it holds."""
    faint = Source((105.0, 10.0, -120.0), (8.0, 8.0, 8.0), 0.03, 60.0)
    phantom = Phantom({**SOURCES, "L02": faint})
    folder, scans = write_series(tmp_path, phantom, (4.0, 24.0, 96.0), 24.0)
    measure(folder, scans)
    with caplog.at_level(logging.WARNING):
        table = curves(folder, scans)
    assert any("L02: no planar points, their rates have a relative sd of" in said for said in caplog.messages)
    assert list(of(table, "L02")["scan"]) == ["spect1"]
    for scan in ("planar1", "spect1", "planar3"):
        points = table[(table["scan"] == scan) & (table["region"] != "L02")].set_index("region")["activity_mbq"]
        assert points.drop("whole_body").sum() == pytest.approx(points["whole_body"])


def test_without_a_planar_scan_near_the_curve_is_interpolated(copy):
    folder, scans = copy
    scan = scans[-1]
    write_anatomy(folder, scan, Phantom(), 50.0)
    for name, source in SOURCES.items():
        points = of(curves(folder, scans), name)
        assert list(points["scan"]) == ["planar1", "planar2", "planar3", "planar4"]
        assert list(points["activity_mbq"]) == pytest.approx([source.at(t) for t in TIMES_H], rel=0.08)


def test_the_scale_errs_as_the_spect_and_the_nearest_planar_scan_do(copy):
    """Relative to the rate of that planar scan, not to what is left of it at the SPECT a day before."""
    folder, scans = copy
    write_anatomy(folder, scans[-1], Phantom(), 50.0)
    spect = of(curves(folder, scans[-1:]), "kidney_left").iloc[0]
    points = of(curves(folder, scans), "kidney_left")
    near = of(read_table(folder.table("planar")), "kidney_left").set_index("scan").loc["planar3"]
    near_cv = math.hypot(near["sd_per_s"], near["structure_per_s"], 0.1 * near["rate_per_s"]) / near["rate_per_s"]
    shared = np.sqrt(points["sd_mbq"] ** 2 - points["sd_independent_mbq"] ** 2) / points["activity_mbq"]
    assert shared.to_numpy() == pytest.approx(math.hypot(near_cv, spect["sd_mbq"] / spect["activity_mbq"]))


@pytest.mark.parametrize(("time_h", "said"), [(140.0, "20 h"), (1.0, "3 h")])
def test_a_spect_outside_of_the_series_is_refused(copy, time_h, said):
    folder, scans = copy
    change(folder, scans[-1], time_after_injection_h=time_h)
    with pytest.raises(TheraflowError, match=f"cannot be scaled by SPECT spect1: it was taken {said} from the nearest"):
        curves(folder, scans)


def test_a_spect_just_after_the_last_planar_scan_scales_by_physical_decay(copy):
    folder, scans = copy
    change(folder, scans[-1], time_after_injection_h=121.5)
    points = of(curves(folder, scans), "liver")
    assert list(points["scan"]) == ["planar1", "planar2", "planar3", "spect1"]
    rates = of(read_table(folder.table("planar")), "liver").set_index("scan")["rate_per_s"]
    factor = points["activity_mbq"].iloc[3] / (rates["planar4"] * 0.5 ** (1.5 / LU_HALF_LIFE_H))
    assert points["activity_mbq"].iloc[0] == pytest.approx(rates["planar1"] * factor)


# ------------------------------------------------------------------------------------------------ without a SPECT


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Three planar scans of a calibrated camera; CT and masks are those of a PET/CT."""
    folder, scans = write_series(
        tmp_path_factory.mktemp("calibrated"), Phantom(), (24.0, 72.0, 120.0), None, calibrated=True
    )
    measure(folder, scans, dosimetry(attenuation_per_cm=0.1354))
    return folder, scans


def test_a_calibrated_camera_needs_no_spect(calibrated):
    folder, scans = calibrated
    table = curves(folder, scans, dosimetry(attenuation_per_cm=0.1354))
    assert set(table["method"]) == {"planar, conjugate view"}
    assert set(table["region"]) == {*SOURCES, "whole_body", "remainder"}
    for _, row in table[table["region"] != "remainder"].iterrows():
        assert row["activity_mbq"] == pytest.approx(truth_mbq(row), rel=0.06 if row["region"] != "L01" else 0.10)
        shared = math.sqrt(row["sd_mbq"] ** 2 - row["sd_independent_mbq"] ** 2) / row["activity_mbq"]
        assert shared == pytest.approx(math.hypot(0.05, 0.15))
    assert set(read_table(folder.table("planar"))["anatomy"]) == {"pet1"}
    compute_doses(folder, scans[:-1], dosimetry(), "90Y", [])
    doses = read_table(folder.table("doses")).set_index(["region", "nuclide"])
    for region in ORGANS:
        assert doses.loc[(region, "177Lu"), "t_eff_h"] == pytest.approx(SOURCES[region].half_life_h, rel=0.06)
        assert doses.loc[(region, "90Y"), "dose_gy_per_gbq"] > 0.0


def test_the_sd_without_a_spect_holds_its_systematic_part_and_the_whole_of_the_mass(calibrated, tmp_path):
    """No surface has gone into the activity: what it errs by is in the mass alone, 1/m for electrons that stay."""
    folder, scans = calibrated
    configuration = {**dosimetry(attenuation_per_cm=0.1354), "spect_fwhm_sd_mm": 1.0}
    curves(folder, scans, configuration)
    compute_doses(folder, scans[:-1], configuration, "177Lu", [])
    budget = read_table(folder.table("uncertainty")).pivot_table(index="region", columns="term", values="relative_sd")
    assert "recovery" not in budget.columns
    for name in ("kidney_left", "L01"):
        assert budget.loc[name, "planar"] == pytest.approx(0.15)
        radius = (3000.0 * SOURCES[name].volume_ml / (4.0 * math.pi)) ** (1.0 / 3.0)
        volume_cv = 3.0 * math.sqrt(2.0) * (2.4 if name == "L01" else 1.5) / (2.0 * radius)
        assert budget.loc[name, "surface"] == pytest.approx(volume_cv, rel=0.05)


def test_the_recovery_of_the_scaling_spect_counts_once(copy):
    folder, scans = copy
    table = folder.results / "recovery.tsv"
    volumes = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    spheres = pd.DataFrame({"volume_ml": volumes, "recovery": 1.0 / (1.0 + (2.0 / volumes) ** 0.8), "sd": 0.04})
    write_table(spheres, table, list(spheres.columns))
    configuration = {**dosimetry(), "spect_fwhm_mm": None, "recovery": str(table)}
    curves(folder, scans, configuration)
    compute_doses(folder, scans[:-1] + scans[-1:], configuration, "177Lu", [])
    budget = read_table(folder.table("uncertainty")).pivot_table(index="region", columns="term", values="relative_sd")
    near = of(read_table(folder.table("planar")), "L01").iloc[1]
    rate_cv = math.hypot(near["sd_per_s"], near["structure_per_s"], 0.1 * near["rate_per_s"]) / near["rate_per_s"]
    expected = math.hypot(rate_cv, configuration["repeatability_cv"])
    assert budget.loc["L01", "planar"] == pytest.approx(expected, rel=0.03)
    assert budget.loc["L01", "recovery"] > 0.01


def test_counts_with_scatter_are_not_corrected_by_a_narrow_beam_unasked(calibrated):
    folder, scans = calibrated
    with pytest.raises(TheraflowError, match="planar: attenuation_per_cm says how water attenuates"):
        curves(folder, scans)


def test_neither_calibration_nor_spect(copy):
    folder, scans = copy
    with pytest.raises(TheraflowError, match="neither a SPECT of the same timepoint to scale it by nor a sensitivity"):
        curves(folder, scans[:-1], dosimetry(attenuation_per_cm=0.1354))


# ------------------------------------------------------------------------------------------------ whole body


def test_the_injected_activity_is_the_first_scan_only_if_the_sheet_says_so(copy):
    folder, scans = copy
    scans[0] = replace(scans[0], before_voiding=True)
    table = curves(folder, scans)
    body = of(table, "whole_body")
    assert list(body["scan"]) == ["planar1", "planar2", "planar3", "planar4"]
    assert set(body["method"]) == {"planar, normalised to the injected activity"}
    there = INJECTED_MBQ * 0.5 ** (4.0 / LU_HALF_LIFE_H)
    assert body["activity_mbq"].iloc[0] == pytest.approx(there)
    phantom = Phantom()
    kept = np.array([phantom.total_mbq(t) for t in TIMES_H]) / phantom.total_mbq(4.0)
    assert body["activity_mbq"].to_numpy() == pytest.approx(there * kept, rel=0.03)
    rest = of(table, "remainder").set_index("scan")["activity_mbq"]
    organs = table[(table["scan"] == "planar3") & table["kind"].isin(["organ", "lesion"])]["activity_mbq"].sum()
    assert rest["planar3"] == pytest.approx(body["activity_mbq"].iloc[2] - organs)
    scans[0], scans[1] = replace(scans[0], before_voiding=False), replace(scans[1], before_voiding=True)
    with pytest.raises(TheraflowError, match="before_voiding of a planar scan of P1 that is not the first"):
        curves(folder, scans)


def test_what_has_no_planar_points_belongs_to_the_remainder_of_whole_sweeps(copy):
    folder, scans = copy
    table = read_table(folder.table("planar"))
    write_table(table[table["region"] != "L01"], folder.table("planar"), PLANAR_COLUMNS)
    scans[0] = replace(scans[0], before_voiding=True)
    found = curves(folder, scans)
    assert list(of(found, "L01")["scan"]) == ["spect1"]
    rest = of(found, "remainder").set_index("scan")["activity_mbq"]
    assert list(rest.index) == ["planar1", "planar3", "planar4"]
    points = found[(found["scan"] == "planar3") & (found["region"] != "remainder")].set_index("region")["activity_mbq"]
    assert rest["planar3"] == pytest.approx(points["whole_body"] - points[list(ORGANS)].sum())


@pytest.mark.parametrize("before_voiding", [True, False])
def test_the_dose_map_holds_what_the_spect_shows_of_the_remainder(copy, before_voiding):
    """Far from all regions the dose is that of the concentration there, whatever part of the body was counted."""
    folder, scans = copy
    phantom = Phantom()
    injected = phantom.total_mbq(4.0) / 0.5 ** (4.0 / LU_HALF_LIFE_H)
    for scan in scans:
        change(folder, scan, injected_mbq=injected)
    scans[0] = replace(scans[0], before_voiding=before_voiding)
    curves(folder, scans)
    settings = {**dosimetry(), "dose_map": {**dosimetry()["dose_map"], "deposition": "local"}}
    compute_doses(folder, scans, settings, "177Lu", [])
    compute_dose_map(folder, scans[-1:], settings, "177Lu")
    dose = read_image(folder.dose_map)
    soft = inside(dose, (0.0, 0.0, -90.0), (140.0, 40.0, 80.0))
    for one in SOURCES.values():
        soft &= ~inside(dose, one.centre, [length + 10.0 for length in one.half_axes])
    soft &= ~inside(dose, BOWEL.centre, [length + 25.0 for length in BOWEL.half_axes])
    assert soft.sum() > 100
    per_ml = REST_MBQ * REST_HALF_LIFE_H / LN2 / (phantom.rest.sum() * FINE_MM**3 / 1000.0) / injected
    expected = per_ml * 3600e9 * ELECTRON_MEV["177Lu"] * MEV / (DENSITY / 1000.0)
    assert to_array(dose)[soft].mean() == pytest.approx(expected, rel=0.05)
    assert ("The remainder is counted in the whole body" in read_sidecar(folder.dose_map)["limits"]) == before_voiding


def test_a_static_view_does_not_hold_the_whole_body(copy):
    folder, scans = copy
    for scan in scans[:-1]:
        change(folder, scan, whole_body=None)
    table = measure(folder, scans)
    assert "whole_view" not in set(table["region"])
    scans[0] = replace(scans[0], before_voiding=True)
    with pytest.raises(TheraflowError, match="planar1 of P1, which is no whole-body sweep"):
        curves(folder, scans)


# ------------------------------------------------------------------------------------------------ refusals by name


def rewrite(folder: PatientFolder, scan, views: np.ndarray, pixel_mm: float = 4.0, **changes) -> None:
    """Other pixels, without more noise."""
    kept = read_sidecar(folder.emission(scan))
    write_views(folder, scan, views, kept["time_after_injection_h"], pixel_mm, duration_s=1e9)
    change(folder, scan, counting=kept["counting"], **changes)


def test_views_of_different_geometry(copy):
    folder, scans = copy
    change(folder, scans[1], whole_body={"technique": "1PS", "velocity_mm_per_s": 1.6, "length_mm": 1500.0})
    with pytest.raises(TheraflowError, match="planar1 and planar2 of P1 have different lengths of the sweep"):
        measure(folder, scans)
    rewrite(folder, scans[1], to_array(read_image(folder.emission(scans[1]))), 4.8)
    with pytest.raises(TheraflowError, match="planar1 and planar2 of P1 have different pixels"):
        measure(folder, scans)


def test_a_view_with_its_sides_exchanged(copy):
    folder, scans = copy
    views = to_array(read_image(folder.emission(scans[1])))
    rewrite(folder, scans[1], views[..., ::-1])
    with pytest.raises(TheraflowError, match="planar2 of P1 fits the CT of scan spect1 better with its left and right"):
        measure(folder, scans)
    rewrite(folder, scans[1], views[::-1])
    with pytest.raises(TheraflowError, match="better with its anterior and posterior view exchanged"):
        measure(folder, scans)


def test_a_view_of_something_else(copy):
    folder, scans = copy
    views = np.zeros((2, 280, 128))
    views[:, 20:260:12] = 3.0
    rewrite(folder, scans[2], views)
    with pytest.raises(TheraflowError, match="planar3 of P1 does not show the body of scan spect1 anywhere"):
        measure(folder, scans)


def test_a_region_outside_of_the_view_is_named_and_left_out(copy, caplog):
    """A static view that begins below the top of liver and spleen."""
    folder, scans = copy
    for scan in scans[:-1]:
        views = to_array(read_image(folder.emission(scan)))
        rewrite(folder, scan, views[:, 106:], whole_body=None)
    with caplog.at_level(logging.WARNING):
        table = measure(folder, scans)
    assert "P1: liver in planar scan planar4: not measured, it is not wholly in the view" in caplog.messages
    kept = table[table["scan"] == "planar4"]
    assert set(kept["region"]) == {"kidney_left", "kidney_right", "L01"}
    for _, row in kept.iterrows():
        assert row["rate_per_s"] / SENSITIVITY == pytest.approx(truth_mbq(row), rel=0.12)


def test_what_lies_upon_each_other_is_not_told_apart():
    """Two regions of one shape, and two whose shapes differ by a thousandth."""
    shape = np.exp(-((np.mgrid[:20, :20] - 10.0) ** 2).sum(axis=0) / 8.0)
    rest = np.ones((20, 20)) / 400.0
    for other in (shape, shape + 1e-3 * np.roll(shape, 3)):
        views = np.array([[one, one] for one in (shape, other, rest)])
        outlines = np.array([shape > 0.1, shape > 0.1, rest > 0])
        projections = Projections(("a", "b", "remainder"), ("lesion", "lesion", "remainder"), (1.0, 1.0, 1.0), views,
                                  outlines)  # fmt: skip
        counts = np.tensordot([5.0, 5.0, 100.0], views, 1)
        assert estimate_rate(counts, projections, 0, (4.0, 4.0), 30.0).overlap > GREATEST_OVERLAP
        apart = replace(projections, views=np.array([views[0], np.roll(views[1], 5, axis=2), views[2]]))
        found = estimate_rate(np.tensordot([5.0, 5.0, 100.0], apart.views, 1), apart, 0, (4.0, 4.0), 30.0)
        assert found.rate == pytest.approx(5.0)
        assert 1.0 <= found.overlap < 2.0


def test_administrations_are_measured_each_by_itself(copy):
    """Views of other pixels may belong to another timepoint; nothing else changes."""
    folder, scans = copy
    before = read_table(folder.table("planar"))
    change(folder, scans[3], whole_body={"technique": "1PS", "velocity_mm_per_s": 1.6, "length_mm": 1500.0})
    scans[3] = replace(scans[3], timepoint="second")
    pd.testing.assert_frame_equal(measure(folder, scans), before)


def test_missing_facts(copy):
    folder, scans = copy
    counting = read_sidecar(folder.emission(scans[0]))["counting"]
    for scan in scans[:-1]:
        change(folder, scan, counting={**counting, "energy_window_kev": None})
    with pytest.raises(TheraflowError, match="energy window of the planar scan planar1 of P1 is not known"):
        measure(folder, scans)
    found = measure(folder, scans, dosimetry(energy_kev=208.0))
    assert (found["rate_per_s"] > 0).all()
    change(folder, scans[2], time_after_injection_h=None)
    with pytest.raises(TheraflowError, match="planar3 of P1: the time between injection and scan is not known"):
        measure(folder, scans, dosimetry(energy_kev=208.0))


def test_no_ct_and_no_labels(copy):
    folder, scans = copy
    folder.ct("spect1").unlink()
    with pytest.raises(TheraflowError, match="no other scan of the patient has a CT with organs or lesions"):
        measure(folder, scans)


def test_masks_come_from_the_nearest_of_the_scans_that_have_most(tmp_path):
    """SPECT/CT of the administration, then a CT with organs, then the nearest in time; a scan without CT never."""
    folder = PatientFolder(tmp_path, "P1")
    scans = {
        "spect1": Scan("P1", "spect1", "pentixather", "dosimetry", "", "activity"),
        "spect0": Scan("P1", "spect0", "pentixather", "earlier", "", "activity"),
        "near": Scan("P1", "near", "FDG", "baseline", "", "suv"),
        "far": Scan("P1", "far", "FDG", "followup", "", "suv"),
        "no_ct": Scan("P1", "no_ct", "FDG", "baseline", "", "suv"),
    }
    days = {"spect1": 2, "spect0": 9, "near": 5, "far": 20, "no_ct": 2}
    for name, scan in scans.items():
        files = [folder.organs(name)] + ([folder.ct(name)] if name != "no_ct" else [])
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        moment = {"quantity": "", "unit": "", "acquired_at": f"2023-05-{days[name]:02d}T10:00:00"}
        write_sidecar(moment, folder.emission(scan))
    scan = Scan("P1", "wb1", "pentixather", "dosimetry", "", "activity", planar=True)
    view = View(scan, np.zeros((2, 1, 1)), 24.0, {"acquired_at": "2023-05-02T10:00:00"})

    def found(*names: str) -> str:
        return find_anatomy(folder, [scans[name] for name in names], view).scan

    assert found("far", "near", "spect0", "spect1", "no_ct") == "spect1"
    assert found("far", "near", "spect0", "no_ct") == "near"
    assert found("far", "spect0", "no_ct") == "spect0"
    folder.organs("near").unlink()
    folder.lesion_map("near").parent.mkdir(parents=True)
    folder.lesion_map("near").touch()
    assert found("far", "near") == "far"
    assert found("near") == "near"


def test_one_kidney_and_no_spleen_are_ordinary(tmp_path):
    phantom = Phantom({name: SOURCES[name] for name in ("liver", "kidney_left")}, bowel=False)
    folder, scans = write_series(tmp_path, phantom, (24.0, 96.0), 24.0)
    table = measure(folder, scans)
    assert set(table["region"]) == {"liver", "kidney_left", "whole_body", "whole_view"}
    for name in ("liver", "kidney_left"):
        rates = of(table, name)["rate_per_s"].to_numpy()
        assert rates / SENSITIVITY == pytest.approx([SOURCES[name].at(24.0), SOURCES[name].at(96.0)], rel=0.06)
