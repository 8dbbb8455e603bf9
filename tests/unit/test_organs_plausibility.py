"""Limits of what is plausible: side, volume, HU, pieces; one organ less is ordinary."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.organs import ORGAN_IDS, implausible_organs, judge_organs
from theraflow.organs.plausibility import hu_limits, spine_x_mm, volume_limits
from theraflow.tables import write_table

# Reference masses (female, male) in g and densities, typed from ICRP Publications 89 and 110 a second time.
ICRP = {
    "liver": (1400, 1800, 1.05), "spleen": (130, 150, 1.04), "kidney_left": (275 / 2, 310 / 2, 1.05),
    "kidney_right": (275 / 2, 310 / 2, 1.05), "pancreas": (120, 140, 1.05),
    "adrenal_gland_left": (13 / 2, 14 / 2, 1.03), "adrenal_gland_right": (13 / 2, 14 / 2, 1.03),
    "thyroid_gland": (17, 20, 1.04), "heart": (620, 840, 1.06),
    "brain": (1300, 1450, 1.05), "aorta": (0.06 * 4100, 0.06 * 5600, 1.06),
}  # fmt: skip
BODY = {  # organ: mL, HU, x
    "liver": (1500.0, 60.0, -60.0), "spleen": (180.0, 50.0, 100.0), "kidney_left": (160.0, 35.0, 65.0),
    "kidney_right": (150.0, 35.0, -60.0), "aorta": (200.0, 45.0, 12.0), "gluteus_maximus_left": (700.0, 20.0, 90.0),
    "gluteus_maximus_right": (700.0, 20.0, -90.0), "lung_middle_lobe_right": (400.0, -800.0, -80.0),
    "vertebrae_L3": (60.0, 200.0, 0.0), "colon": (900.0, -300.0, 0.0),
}  # fmt: skip


def body(**changes):
    """Organs of an ordinary person; a change is None for an organ that is not there, or the columns to change."""
    rows = [
        {
            "organ": organ,
            "volume_ml": ml,
            "mean_hu": hu,
            "touches_edge": False,
            "x_mm": x,
            "pieces": 1,
            "gap_mm": np.nan,
        }
        | (changes.get(organ) or {})
        for organ, (ml, hu, x) in BODY.items()
        if organ not in changes or changes[organ] is not None
    ]
    return pd.DataFrame(rows)


def judged(midplane=0.0, **changes):
    """The remarks on the organs that are not plausible."""
    table = judge_organs(body(**changes), midplane).set_index("organ")
    return table.loc[table["plausible"] == "no", "remark"].to_dict()


def test_an_ordinary_person_is_plausible():
    table = judge_organs(body(), 0.0)
    assert set(table.plausible) == {"yes"}
    assert table.remark.isna().all()


@pytest.mark.parametrize("organ", list(BODY))
def test_an_organ_that_is_not_there_is_no_matter(organ):
    assert judged(**{organ: None}) == {}


@pytest.mark.shared_data
def test_the_reference_masses_are_those_of_icrp_89(shared_data):
    limits = volume_limits()
    assert set(limits) == set(ICRP)
    assert set(limits) <= set(ORGAN_IDS)
    for organ, (female, male, density) in ICRP.items():
        low, high = limits[organ]
        assert low < female / density / 1.9
        assert high > male / density * 1.4
    masses = pd.read_csv(shared_data / "dosimetry_reference" / "icrp89_organ_masses_g.csv", comment="#", index_col=0)
    for organ, parts in (("liver", 1), ("spleen", 1), ("pancreas", 1), ("kidney_left", 2), ("adrenal_gland_left", 2)):
        name = {"kidney_left": "kidneys", "adrenal_gland_left": "adrenals"}.get(organ, organ)
        assert ICRP[organ][:2] == (masses.female[name] / parts, masses.male[name] / parts)


@pytest.mark.parametrize(
    ("organ", "low", "high"),
    [("liver", 1400 / 1.05 / 3, 1800 / 1.05 * 3), ("spleen", 130 / 1.04 / 10, 150 / 1.04 * 10),
     ("kidney_left", 137.5 / 1.05 / 5, 155 / 1.05 * 4), ("aorta", 246 / 1.06 / 10, 336 / 1.06 * 4)],
)  # fmt: skip
@given(scale=st.floats(0.01, 100.0), hu=st.floats(-40.0, 300.0))
def test_a_scaled_organ_is_flagged_beyond_the_limits_only(organ, low, high, scale, hu):
    volume = BODY[organ][0] * scale
    found = judged(**{organ: {"volume_ml": volume, "mean_hu": hu}})
    assert (organ in found) == (not low <= volume <= high)
    assert set(found) <= {organ}
    if found:
        assert "mL, expected" in found[organ]
    assert judged(**{organ: {"volume_ml": volume, "touches_edge": True}}) == {}


@pytest.mark.parametrize(
    ("organ", "masses"),
    [  # ICRP 89: 5 years, 10 years, 15 years
        ("liver", (570, 830, 1300)), ("spleen", (50, 80, 130)), ("kidney_left", (55, 90, 125)),
        ("thyroid_gland", (3.4, 7.9, 12)),
    ],
)  # fmt: skip
def test_organs_of_children_from_five_years_on_are_plausible(organ, masses):
    low, high = volume_limits()[organ]
    for mass in masses:
        assert low < mass / 1.05 < high


@pytest.mark.parametrize(
    ("organ", "possible", "impossible"),
    [
        ("liver", (-30, 55, 130), (-400, 700)),  # steatosis, native, portal venous; lung, bone
        ("kidney_left", (30, 250), (-300, 1000)),
        ("aorta", (20, 45, 600), (-800,)),
        ("lung_upper_lobe_left", (-900, 40), (500,)),
        ("vertebrae_L1", (50, 200, 900), (-500,)),
        ("gluteus_maximus_left", (-60, 60), (-700, 600)),
        ("colon", (-900, 900), ()),
    ],
)
def test_hu_limits(organ, possible, impossible):
    low, high = hu_limits(organ) or (-np.inf, np.inf)
    assert all(low <= hu <= high for hu in possible)
    assert not any(low <= hu <= high for hu in impossible)


def test_hu_out_of_range_is_told():
    assert judged(liver={"mean_hu": -420.0}) == {"liver": "mean -420 HU, expected -50 to 350"}


def test_a_pair_that_has_changed_places():
    found = judged(kidney_left={"x_mm": -60.0}, kidney_right={"x_mm": 65.0})
    assert found == {
        "kidney_left": "lies 60 mm right of the mid-plane", "kidney_right": "lies 65 mm left of the mid-plane"
    }  # fmt: skip


def test_a_single_organ_on_the_wrong_side_is_alone_in_the_wrong():
    assert set(judged(kidney_left={"x_mm": -45.0})) == {"kidney_left"}
    assert set(judged(kidney_left={"x_mm": -45.0}, kidney_right=None)) == {"kidney_left"}


def test_a_pair_near_the_mid_plane_is_judged_by_its_order():
    found = judged(kidney_left={"x_mm": -5.0}, kidney_right={"x_mm": 10.0})
    assert found == {"kidney_left": "lies right of kidney_right", "kidney_right": "lies left of kidney_left"}
    assert judged(kidney_left={"x_mm": -5.0}, kidney_right={"x_mm": -50.0}) == {}
    assert judged(kidney_left={"x_mm": -5.0}, kidney_right=None) == {}


@given(st.floats(-500.0, 500.0))
def test_only_the_place_within_the_body_counts(shift):
    moved = body()
    moved["x_mm"] += shift
    assert spine_x_mm(moved) == pytest.approx(shift)
    assert set(judge_organs(moved, spine_x_mm(moved)).plausible) == {"yes"}


def test_without_a_spine_there_is_none_to_tell():
    assert spine_x_mm(body(vertebrae_L3=None)) is None


def test_a_mirrored_map_is_doubted_as_a_whole():
    mirrored = body()
    mirrored["x_mm"] *= -1
    table = judge_organs(mirrored, 0.0).set_index("organ")
    assert set(table.plausible) == {"no"}
    assert table.remark["aorta"] == "the label map does not fit the CT (7 of 9 organs by side or HU)"


def test_a_map_of_another_place_is_doubted_as_a_whole():
    lung, air = {"mean_hu": -820.0}, {"mean_hu": -990.0}
    assert set(judged(liver=lung, spleen=air)) == {"liver", "spleen"}  # 2 of 9
    assert set(judged(liver=lung, spleen=air, kidney_left=lung)) == set(BODY)
    assert set(judged(kidney_left=lung, spleen=air, colon=None, vertebrae_L3=None, gluteus_maximus_left=None,
                      gluteus_maximus_right=None, lung_middle_lobe_right=None, kidney_right=None)
               ) == {"kidney_left", "spleen", "liver", "aorta"}  # fmt: skip


def test_pieces_far_apart_are_not_one_kidney():
    found = judged(kidney_left={"pieces": 2, "gap_mm": 60.0})
    assert found == {"kidney_left": "in 2 pieces, 60 mm apart"}
    near = {"pieces": 2, "gap_mm": 8.0}
    table = judge_organs(body(kidney_left=near, colon={"pieces": 3}), 0.0).set_index("organ")
    assert set(table.plausible) == {"yes"}
    assert (table.remark["kidney_left"], table.remark["colon"]) == ("in 2 pieces", "in 3 pieces")
    assert judged(kidney_left={"pieces": 2, "gap_mm": 60.0, "touches_edge": True}) == {}


def test_several_reasons_are_all_told():
    found = judged(kidney_left={"volume_ml": 9.0, "mean_hu": -300.0})
    assert found == {"kidney_left": "mean -300 HU, expected -50 to 350; 9 mL, expected 26.2 to 590 mL in an adult"}


def test_the_table_tells_which_organs_to_leave_out(tmp_path):
    table = judge_organs(body(liver={"mean_hu": -420.0}), 0.0)
    write_table(table, tmp_path / "organs.tsv", list(table.columns))
    assert implausible_organs(tmp_path / "organs.tsv") == {"liver": "mean -420 HU, expected -50 to 350"}
    write_table(table.iloc[:0], tmp_path / "organs.tsv", list(table.columns))
    assert implausible_organs(tmp_path / "organs.tsv") == {}
