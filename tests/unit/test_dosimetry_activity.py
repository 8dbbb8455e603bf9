"""What scans of boxes of known activity give, where something is missing, cut, in air or claimed twice."""

import logging
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from activity_on_disk import KIDNEY_LEFT, ORGAN_ML, ORGANS, SIZE, VOXEL_ML, write_scan

from settings import default_settings
from theraflow.dosimetry.activity import measure_activity
from theraflow.dosimetry.activity.regions import Region, free_of, refuse_overlap
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import read_table

SETTINGS = {**default_settings("dosimetry"), "organs": ["kidney_left", "kidney_right", "liver", "spleen"]}
UPTAKE = {"kidney_left": 20.0, "kidney_right": 30.0, "spleen": 10.0, "L01": 50.0, "L02": 40.0}
WHOLE_ML = float(np.prod(SIZE)) * VOXEL_ML
L01 = (slice(24, 28), slice(5, 9), slice(20, 24))
L02 = (slice(24, 28), slice(5, 9), slice(30, 34))
LESION_ML = 64 * VOXEL_ML


def measured(results, scans: list[Scan], **settings) -> pd.DataFrame:
    folder = PatientFolder(results, "P1")
    measure_activity(folder, scans, SETTINGS | settings)
    return read_table(folder.table("curves")).set_index(["scan", "region"])


def test_activity_and_its_two_kinds_of_error(tmp_path):
    rows = measured(tmp_path, [write_scan(tmp_path, "a", 24.0, UPTAKE)], calibration_cv=0.03, repeatability_cv=0.04)
    kidney = rows.loc[("a", "kidney_left")]
    assert kidney["activity_mbq"] == pytest.approx(20.0 * ORGAN_ML / 1000.0)
    assert kidney["volume_ml"] == pytest.approx(ORGAN_ML)
    assert kidney["sd_independent_mbq"] == pytest.approx(0.04 * kidney["activity_mbq"])
    # Surface of 1.5 mm on a sphere of 64 mL, half of it in the activity; calibration and repeatability on top.
    radius = (3000.0 * ORGAN_ML / 4.0 / math.pi) ** (1 / 3)
    surface = 0.5 * 3.0 * math.sqrt(2.0) * 1.5 / (2.0 * radius)
    assert kidney["sd_mbq"] == pytest.approx(kidney["activity_mbq"] * math.hypot(0.03, 0.04, surface))
    assert rows["remark"].isna().all()
    # No liver in the labels: an ordinary patient.
    assert ("a", "liver") not in rows.index
    # Densities of ICRP 110.
    assert kidney["mass_g"] == pytest.approx(1.05 * ORGAN_ML)
    assert rows.loc[("a", "spleen"), "mass_g"] == pytest.approx(1.04 * ORGAN_ML)
    rest = (WHOLE_ML - 3 * ORGAN_ML) / 1000.0
    assert rows.loc[("a", "remainder"), "activity_mbq"] == pytest.approx(rest)


def test_one_kidney_no_spleen(tmp_path):
    rows = measured(tmp_path, [write_scan(tmp_path, "a", 24.0, UPTAKE, organs={"kidney_left": KIDNEY_LEFT})])
    assert list(rows.loc["a"].index) == ["kidney_left", "remainder", "whole_body"]


def test_region_missing_in_one_scan_leaves_the_remainder_of_one_body(tmp_path):
    """The lesion is seen on the first day only: no row later, and the remainder holds it on both days."""
    scans = [
        write_scan(tmp_path, "a", 24.0, UPTAKE, lesions={"L01": L01, "L02": L02}),
        write_scan(tmp_path, "b", 48.0, UPTAKE, lesions={"L02": L02}),
    ]
    rows = measured(tmp_path, scans)
    assert ("b", "L01") not in rows.index and ("a", "L01") in rows.index
    rest = WHOLE_ML - 3 * ORGAN_ML - 2 * LESION_ML
    assert rows.loc[("a", "remainder"), "activity_mbq"] == pytest.approx((rest + 50.0 * LESION_ML) / 1000.0)
    # What was the lesion is background on the second day.
    assert rows.loc[("b", "remainder"), "activity_mbq"] == pytest.approx((rest + LESION_ML) / 1000.0)
    assert rows.loc[("a", "remainder"), "remark"] == "holds L01, which not all scans show"
    assert rows.loc[[("b", "remainder")], "remark"].isna().all()


def test_spect_without_ct_has_a_whole_body_and_does_not_change_the_others(tmp_path):
    scans = [
        write_scan(tmp_path, "a", 24.0, UPTAKE),
        write_scan(tmp_path, "b", 48.0, UPTAKE, ct=False),
        write_scan(tmp_path, "c", 96.0, UPTAKE),
    ]
    rows = measured(tmp_path, scans)
    assert list(rows.loc["b"].index) == ["whole_body"]
    assert rows.loc[("a", "remainder"), "activity_mbq"] == pytest.approx((WHOLE_ML - 3 * ORGAN_ML) / 1000.0)
    assert rows.loc[("c", "kidney_right"), "activity_mbq"] == pytest.approx(30.0 * ORGAN_ML / 1000.0)


def test_lesions_without_ct(tmp_path):
    rows = measured(tmp_path, [write_scan(tmp_path, "a", 24.0, UPTAKE, lesions={"L01": L01}, ct=False)])
    assert list(rows.loc["a"].index) == ["L01", "remainder", "whole_body"]
    assert rows.loc[("a", "L01"), "activity_mbq"] == pytest.approx(50.0 * LESION_ML / 1000.0)


@pytest.mark.parametrize(("first", "seen"), [(12, 0.8), (14, 0.6)])
def test_cut_organ_is_taken_as_a_whole_of_the_seen_concentration(tmp_path, first, seen):
    """Kidneys lie in slices 10 to 20 of the CT; the SPECT begins within them."""
    rows = measured(tmp_path, [write_scan(tmp_path, "a", 24.0, UPTAKE, slices=slice(first, SIZE[2]))])
    kidney = rows.loc[("a", "kidney_left")]
    assert kidney["activity_mbq"] == pytest.approx(20.0 * ORGAN_ML / 1000.0)
    assert kidney["volume_ml"] == pytest.approx(ORGAN_ML)
    assert f"{100 * seen:.0f} % of it are seen" in kidney["remark"]
    spleen = rows.loc[("a", "spleen")]
    assert kidney["sd_mbq"] / kidney["activity_mbq"] > spleen["sd_mbq"] / spleen["activity_mbq"]
    # Nothing that the SPECT does not show is taken from what it shows.
    shown = WHOLE_ML * (SIZE[2] - first) / SIZE[2] - (1 + 2 * seen) * ORGAN_ML
    assert rows.loc[("a", "remainder"), "activity_mbq"] == pytest.approx(shown / 1000.0)


def test_organ_of_which_little_is_seen_has_no_activity_and_says_why(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rows = measured(tmp_path, [write_scan(tmp_path, "a", 24.0, UPTAKE, slices=slice(16, SIZE[2]))])
    kidney = rows.loc[("a", "kidney_left")]
    assert math.isnan(kidney["activity_mbq"]) and math.isnan(kidney["sd_mbq"])
    assert kidney["remark"] == "cut by the field of view: only 40 % of it are seen"
    assert "kidney_left in scan a: cut by the field of view" in caplog.text
    assert rows.loc[("a", "spleen"), "activity_mbq"] == pytest.approx(10.0 * ORGAN_ML / 1000.0)


def test_organ_outside_the_field_of_view_has_no_row(tmp_path):
    rows = measured(tmp_path, [write_scan(tmp_path, "a", 24.0, UPTAKE, slices=slice(25, SIZE[2]))])
    assert list(rows.loc["a"].index) == ["spleen", "remainder", "whole_body"]


def test_organ_cut_by_one_ct_takes_its_volume_from_the_other_scan(tmp_path):
    """On the second day the patient lies so that the left kidney begins above the CT and the SPECT."""
    moved = {"kidney_left": (slice(0, 7), *KIDNEY_LEFT[1:]), "spleen": ORGANS["spleen"]}
    scans = [write_scan(tmp_path, "a", 24.0, UPTAKE), write_scan(tmp_path, "b", 48.0, UPTAKE, organs=moved)]
    rows = measured(tmp_path, scans)
    assert rows.loc[("b", "kidney_left"), "activity_mbq"] == pytest.approx(20.0 * ORGAN_ML / 1000.0)
    assert "70 % of it are seen" in rows.loc[("b", "kidney_left"), "remark"]
    # In no scan as a whole: it is the seen part, and the table says so.
    alone = measured(tmp_path, scans[1:]).loc[("b", "kidney_left")]
    assert alone["volume_ml"] == pytest.approx(0.7 * ORGAN_ML)
    assert "may be cut" in alone["remark"]


def test_region_in_air_is_refused_and_lungs_are_not(tmp_path):
    organs = {**ORGANS, "lung_lower_lobe_left": (slice(42, 48), slice(15, 25), slice(30, 40))}
    scan = write_scan(
        tmp_path, "a", 24.0, UPTAKE, organs=organs, lesions={"L01": L01, "L02": L02},
        hu={"L01": -950.0, "lung_lower_lobe_left": -820.0},
    )  # fmt: skip
    rows = measured(tmp_path, [scan], organs=["kidney_left", "lung_lower_lobe_left"])
    assert math.isnan(rows.loc[("a", "L01"), "activity_mbq"])
    assert rows.loc[("a", "L01"), "remark"] == "lies in air: its mean is -950 HU by the CT"
    assert rows.loc[("a", "L02"), "activity_mbq"] == pytest.approx(40.0 * LESION_ML / 1000.0)
    lung = rows.loc[("a", "lung_lower_lobe_left")]
    assert lung["activity_mbq"] == pytest.approx(600 * VOXEL_ML / 1000.0)
    assert lung["mass_g"] == pytest.approx(0.38 * lung["volume_ml"])


def test_organs_that_hold_one_another_are_refused_by_name(tmp_path):
    scan = write_scan(tmp_path, "a", 24.0, UPTAKE)
    both = measured(tmp_path, [scan], organs=["kidneys"]).loc[("a", "kidneys")]
    assert both["activity_mbq"] == pytest.approx(50.0 * ORGAN_ML / 1000.0)
    assert both["mass_g"] == pytest.approx(2.0 * 1.05 * ORGAN_ML)
    with pytest.raises(TheraflowError, match=r"kidneys and kidney_left overlap \(100 % of the smaller one\)"):
        measured(tmp_path, [scan], organs=["kidneys", "kidney_left"])


def test_shares_of_a_voxel_never_exceed_it():
    """Two lesions and an organ that each hold half of the same voxels: the organ gets what is left, nothing."""
    box = (slice(0, 4), slice(0, 4), slice(0, 4))
    half = np.full((4, 4, 4), 0.5, np.float32)
    lesions = [Region("L01", "lesion", box, half), Region("L02", "lesion", box, half)]
    assert not free_of(lesions, box).any()
    scan = Scan("P1", "a", "t", "dosimetry", "", "activity")
    refuse_overlap(lesions, scan)
    with pytest.raises(TheraflowError, match="L01 and L03 overlap"):
        refuse_overlap([*lesions, Region("L03", "lesion", box, np.full((4, 4, 4), 0.6, np.float32))], scan)


def test_unequal_fields_of_view_are_told(tmp_path):
    scans = [
        write_scan(tmp_path, "a", 24.0, UPTAKE),
        write_scan(tmp_path, "b", 48.0, UPTAKE, slices=slice(0, SIZE[2] - 5)),
    ]
    rows = measured(tmp_path, scans)
    for scan in ("a", "b"):
        for region in ("whole_body", "remainder"):
            assert "the scans show 180 to 200 mm of the body" in rows.loc[(scan, region), "remark"]
        assert rows.loc[[(scan, "kidney_left")], "remark"].isna().all()
    scans[1] = write_scan(tmp_path, "b", 48.0, UPTAKE, slices=slice(0, SIZE[2] - 1))
    assert measured(tmp_path, scans)["remark"].isna().all()


def test_recovery_curve_in_place_of_the_resolution(tmp_path):
    volumes = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    spheres = pd.DataFrame({"volume_ml": volumes, "recovery": volumes / (volumes + 2.0), "sd": 0.02})
    spheres.to_csv(tmp_path / "spheres.tsv", sep="\t", index=False)
    small = (slice(24, 26), slice(5, 6), slice(30, 32))
    scan = write_scan(tmp_path, "a", 24.0, UPTAKE, lesions={"L01": L01, "L03": small})
    rows = measured(tmp_path, [scan], recovery=str(tmp_path / "spheres.tsv"))
    seen = 50.0 * LESION_ML / 1000.0
    assert rows.loc[("a", "L01"), "activity_mbq"] == pytest.approx(seen * (LESION_ML + 2.0) / LESION_ML, rel=1e-3)
    plain = measured(tmp_path, [scan]).loc[("a", "L01")]
    assert plain["activity_mbq"] == pytest.approx(seen)
    assert rows.loc[("a", "L03"), "remark"] == "smaller than the smallest sphere of spheres.tsv (0.5 mL)"
    with pytest.raises(TheraflowError, match="spect_fwhm_mm and recovery"):
        measured(tmp_path, [scan], recovery=str(tmp_path / "spheres.tsv"), spect_fwhm_mm=9.0)


def test_where_the_field_of_view_ends_nothing_has_spilled_out(tmp_path):
    """By symmetry the half of a blurred ball that is seen has the mean of the whole one: the recovery is its own.

    Six tenths of the spleen are seen, sharp and of 10 kBq/mL: what is measured over the recovery of all its volume.
    """
    volumes = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    spheres = pd.DataFrame({"volume_ml": volumes, "recovery": volumes / (volumes + 20.0), "sd": 0.02})
    spheres.to_csv(tmp_path / "spheres.tsv", sep="\t", index=False)
    scan = write_scan(tmp_path, "a", 24.0, UPTAKE, slices=slice(0, 36))
    spleen = measured(tmp_path, [scan], recovery=str(tmp_path / "spheres.tsv")).loc[("a", "spleen")]
    assert "60 % of it are seen" in spleen["remark"]
    assert spleen["activity_mbq"] == pytest.approx(10.0 * ORGAN_ML / 1000.0 * (ORGAN_ML + 20.0) / ORGAN_ML, rel=1e-3)


def test_each_administration_has_a_remainder_of_its_own(tmp_path):
    """A lesion that has gone by the second administration is part of the first one's remainder in neither."""
    first = write_scan(tmp_path, "a", 24.0, UPTAKE, lesions={"L01": L01})
    second = write_scan(tmp_path, "b", 24.0, UPTAKE, slices=slice(0, SIZE[2] - 5))
    rows = measured(tmp_path, [first, replace(second, timepoint="second")])
    assert rows.loc[[("a", "remainder")], "remark"].isna().all()
    assert rows.loc[[("b", "whole_body")], "remark"].isna().all()
    rest = WHOLE_ML - 3 * ORGAN_ML - LESION_ML
    assert rows.loc[("a", "remainder"), "activity_mbq"] == pytest.approx(rest / 1000.0)


def test_organ_has_one_volume_in_all_scans(tmp_path):
    """The same kidney, outlined too small on one day (its concentration is that of the middle): one activity."""
    small = tuple(slice(part.start + 1, part.stop - 1) for part in KIDNEY_LEFT)
    scans = [
        write_scan(tmp_path, "a", 24.0, UPTAKE, organs={"kidney_left": KIDNEY_LEFT}),
        write_scan(tmp_path, "b", 48.0, UPTAKE, organs={"kidney_left": small}),
    ]
    rows = measured(tmp_path, scans).xs("kidney_left", level="region")
    mean = (1000 + 512) / 2 * VOXEL_ML
    assert rows["volume_ml"].to_numpy() == pytest.approx(mean)
    assert rows["activity_mbq"].to_numpy() == pytest.approx(20.0 * mean / 1000.0)
    # Where the segmentation fails once in three scans, the others stay what they are.
    third = write_scan(tmp_path, "c", 96.0, UPTAKE, organs={"kidney_left": KIDNEY_LEFT})
    robust = measured(tmp_path, [*scans, third]).xs("kidney_left", level="region")
    assert robust["activity_mbq"].to_numpy() == pytest.approx(20.0 * ORGAN_ML / 1000.0)
    # What is taken off the whole body is what each scan shows.
    rest = measured(tmp_path, scans).xs("remainder", level="region")["activity_mbq"]
    assert rest["a"] == pytest.approx((WHOLE_ML - ORGAN_ML) / 1000.0)
    assert rest["b"] == pytest.approx((WHOLE_ML - 512 * VOXEL_ML) / 1000.0)
