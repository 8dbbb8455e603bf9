"""What is a candidate and where it ends, on images of known lesions and organs."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from theraflow.lesions import (
    Level,
    Outline,
    OwnUptake,
    Region,
    find_candidates,
    grown_from,
    outlined,
    own_uptake,
    physiologic_organs,
    rule_level,
    split,
)
from theraflow.lesions.outline import METHODS
from theraflow.organs import ORGAN_IDS

SPACING = (3.0, 3.0, 3.0)  # x, y, z in mm
SIZE = (60, 50, 50)
BLUR = 6.0 / 2.3548 / 3.0  # voxels
LEVEL = Level(3.0, "3 (fixed)")
WHOLE = Outline()


def grid():
    """60 x 50 x 50 voxels of 3 mm around the origin."""
    image = sitk.Image(list(SIZE), sitk.sitkUInt8)
    image.SetSpacing(SPACING)
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(SIZE, SPACING, strict=True)])
    return image


def ball(centre, radius):
    """Voxels within a ball; centre x, y, z and radius in mm."""
    x, y, z = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s - c for n, s, c in zip(SIZE, SPACING, centre, strict=True)],
        indexing="ij", sparse=True,
    )  # fmt: skip
    return np.transpose(x**2 + y**2 + z**2 <= radius**2, (2, 1, 0))


def scene(*balls, floor=0.5, blurred=True):
    """An image with balls (centre, radius, SUV) on a floor."""
    values = np.full(SIZE[::-1], floor)
    for centre, radius, suv in balls:
        values[ball(centre, radius)] = suv
    return gaussian_filter(values, BLUR) if blurred else values


def labels(**organs):
    """Organ labels of balls by the organ's name."""
    result = np.zeros(SIZE[::-1], dtype=np.uint8)
    for name, (centre, radius) in organs.items():
        result[ball(centre, radius)] = ORGAN_IDS[name]
    return result


def dice(a, b):
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def on_grid(region):
    return region.on_box(tuple(slice(0, n) for n in SIZE[::-1]))


# Rules ---------------------------------------------------------------------------------------------------------------

LIVER, BLOOD = OwnUptake("liver", 2.0, 0.3), OwnUptake("blood_pool", 1.5, 0.2)
PERCIST_LIVER, PERCIST_BLOOD = {"times": 1.5, "plus_sd": 2.0}, {"times": 2.0, "plus_sd": 2.0}


@pytest.mark.parametrize(
    ("rule", "suv"),
    [
        ({"threshold_suv": 4.0}, 4.0),
        ({"liver": PERCIST_LIVER}, 1.5 * 2.0 + 2 * 0.3),
        ({"blood_pool": PERCIST_BLOOD}, 2.0 * 1.5 + 2 * 0.2),
        ({"threshold_suv": 3.5, "liver": PERCIST_LIVER, "blood_pool": PERCIST_BLOOD}, 3.6),
        ({"threshold_suv": 3.5, "liver": PERCIST_LIVER, "combine": "lowest"}, 3.5),
        ({"threshold_suv": 4.0, "blood_pool": PERCIST_BLOOD, "combine": "lowest"}, 3.4),
    ],
)
def test_a_rule_is_fixed_or_made_of_the_liver_or_the_blood_pool(rule, suv):
    found = rule_level({"combine": "highest", **rule}, {"liver": LIVER, "blood_pool": BLOOD})
    assert found.suv == pytest.approx(suv)
    assert f"{suv:g}" in found.reason


def test_a_rule_of_organs_that_a_scan_does_not_show_is_no_rule_or_its_other_part():
    nothing = {"liver": None, "blood_pool": None}
    assert rule_level({"liver": PERCIST_LIVER, "combine": "highest"}, nothing) is None
    found = rule_level({"liver": PERCIST_LIVER, "threshold_suv": 4.0, "combine": "highest"}, nothing)
    assert (found.suv, found.reason) == (4.0, "4 (fixed); liver not measurable")


@settings(max_examples=10, deadline=None)
@given(mean=st.floats(0.5, 10.0), sd=st.floats(0.05, 0.4), seed=st.integers(0, 99))
def test_an_organs_own_uptake_is_not_that_of_the_lesions_in_it(mean, sd, seed):
    """A fifth of the organ in lesions moves the median by 0.32 sd at most (the quantile 0.5 / 0.8 of a normal)."""
    values = mean + sd * np.random.default_rng(seed).normal(size=SIZE[::-1])
    organs = labels(liver=((0, 0, 0), 45.0))
    values[ball((0, 0, 0), 23.0)] = 30.0  # 23^3 / 40^3 of what lies 5 mm deep
    found = own_uptake(values, organs, "liver", grid())
    assert mean - 0.05 * sd <= found.median <= mean + 0.42 * sd
    assert found.sd == pytest.approx(sd, rel=0.35)
    assert own_uptake(values, organs, "spleen", grid()) is None


# Candidates ----------------------------------------------------------------------------------------------------------


def test_candidates_are_what_reaches_the_rule_and_is_large_enough():
    values = scene(((-40, 0, 0), 12, 8.0), ((40, 0, 0), 4, 9.0), ((0, 40, 0), 12, 2.5), blurred=False)
    (found,) = find_candidates(values, grid(), LEVEL, 1.0, WHOLE)
    np.testing.assert_array_equal(on_grid(found.region), ball((-40, 0, 0), 12))
    assert (found.kept, found.reason) == (True, "SUVmax 8.00 reaches 3 (fixed)")
    assert len(find_candidates(values, grid(), LEVEL, 0.1, WHOLE)) == 2
    assert find_candidates(values, grid(), Level(40.0, "40 (fixed)"), 0.0, WHOLE) == []


def test_a_hot_organ_hides_what_is_hottest_in_it_and_nothing_else():
    """A bladder whose label ends too early, and a lesion so near that the two are connected."""
    values = scene(((0, 0, -30), 24, 20.0), ((0, 0, 16), 12, 9.0))
    organs = labels(urinary_bladder=((0, 0, -34), 18))
    physiologic = physiologic_organs(values, organs, ["urinary_bladder", "brain"], grid())
    assert [organ.organ for organ in physiologic] == ["urinary_bladder"]
    lesion, bladder = find_candidates(values, grid(), LEVEL, 1.0, WHOLE, physiologic)
    assert (lesion.kept, bladder.kept) == (True, False)
    assert bladder.reason == "physiologic uptake of urinary bladder"
    assert dice(on_grid(lesion.region), ball((0, 0, 16), 12)) > 0.8
    assert dice(on_grid(bladder.region), ball((0, 0, -30), 24)) > 0.8


@pytest.mark.parametrize(("suv", "kept"), [(4.0, False), (4.3, True)])
def test_in_an_organ_with_a_level_of_its_own_counts_what_stands_out_of_it(suv, kept):
    """A liver of SUV 2.8 without noise: 1.5 x 2.8 = 4.2; a metastasis without blur on both sides of that."""
    organs = labels(liver=((0, 0, 0), 50))
    values = scene(((0, 0, 0), 50, 2.8), ((-10, 0, 0), 12, suv), blurred=False)
    entry = {"organ": "liver", "inside": {"times": 1.5, "plus_sd": 2.0}}
    found = find_candidates(
        values, grid(), Level(2.5, "2.5 (fixed)"), 1.0, WHOLE, physiologic_organs(values, organs, [entry], grid())
    )
    assert [one.kept for one in found] == [True] * kept
    if kept:
        np.testing.assert_array_equal(on_grid(found[0].region), ball((-10, 0, 0), 12))
        assert "1.5 x 2.80 + 2 x 0.00 of liver" in found[0].reason


def test_an_organs_margin_belongs_to_the_organ():
    """A spleen of SUV 5 of which the label leaves out the outermost 6 mm."""
    organs = labels(spleen=((0, 0, 0), 30))
    values = scene(((0, 0, 0), 36, 5.0))
    for margin, found in ((8.0, False), (0.0, True)):
        entry = {"organ": "spleen", "margin_mm": margin, "inside": {"times": 1.5, "plus_sd": 2.0}}
        physiologic = physiologic_organs(values, organs, [entry], grid())
        assert bool(find_candidates(values, grid(), LEVEL, 1.0, WHOLE, physiologic)) == found


def test_bone_without_a_label_is_part_of_the_skeleton():
    organs = labels(vertebrae_L3=((0, 30, -30), 20))
    marrow = ((0, 30, -30), 20, 2.4), ((0, 30, 50), 15, 2.6)
    values = scene(*marrow, blurred=False)
    entry = {"organ": "skeleton", "inside": {"times": 1.5, "plus_sd": 2.0}}
    level = Level(2.0, "2 (fixed)")
    unaware = find_candidates(values, grid(), level, 1.0, WHOLE, physiologic_organs(values, organs, [entry], grid()))
    assert [one.kept for one in unaware] == [True]
    bone = ball((0, 30, 50), 15)
    aware = physiologic_organs(values, organs, [entry], grid(), bone)
    assert not any(one.kept for one in find_candidates(values, grid(), level, 1.0, WHOLE, aware))


# Touching lesions ----------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(
    first=st.floats(5.0, 15.0), ratio=st.floats(0.6, 1.0), radius=st.floats(10.0, 14.0),
    offset=st.tuples(*[st.floats(-1.5, 1.5)] * 3),
)  # fmt: skip
def test_two_balls_with_a_valley_between_them_are_two(first, ratio, radius, offset):
    a = np.array((-radius - 3.0, 0.0, 0.0)) + offset
    b = np.array((radius + 3.0, 0.0, 0.0)) + offset
    values = scene((a, radius, first), (b, radius, ratio * first))
    whole = Region.of(values >= 0.45 * ratio * first)
    parts = split(values, whole, grid())
    assert len(parts) == 2
    for centre in (a, b):
        assert max(dice(on_grid(part), ball(centre, radius)) for part in parts) > 0.75
    np.testing.assert_array_equal(sum(on_grid(part).astype(int) for part in parts), on_grid(whole).astype(int))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), cv=st.floats(0.0, 0.15))
def test_noise_does_not_divide_a_lesion(seed, cv):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SIZE[::-1]), BLUR)
    values = scene(((0, 0, 0), 22, 8.0)) * (1.0 + cv * noise / noise.std())
    assert len(split(values, Region.of(values >= 3.0), grid())) == 1


# Outlines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suv", [4.0, 16.0])
@pytest.mark.parametrize("method", [method for method in METHODS if method != "threshold"])
def test_an_outline_has_the_lesions_volume_whatever_its_uptake(method, suv):
    """Blur moves half of a plane's height to either side of its place: half of the contrast outlines a large ball."""
    centre, radius = (1.0, -0.7, 0.4), 18.0
    values = scene((centre, radius, suv))
    percent = {"percent_of_maximum": 100.0 * (0.5 + suv) / 2 / suv, "percent_of_contrast": 50.0}.get(method)
    (found,) = outlined(values, [Region.of(values >= 2.0)], grid(), Outline(method, percent))
    # A watershed gives whole voxels of the ridge to either side: a quarter of a voxel's length.
    tolerance = 0.15 if method == "gradient" else 0.1
    assert found.voxels * 0.027 == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=tolerance)
    assert dice(on_grid(found), ball(centre, radius)) > 0.93


@pytest.mark.parametrize("percent", [41.0, 50.0])
def test_a_part_of_the_maximum_is_that_part(percent):
    values = scene(((0, 0, 0), 15, 10.0))
    (found,) = outlined(values, [Region.of(values >= 3.0)], grid(), Outline("percent_of_maximum", percent))
    np.testing.assert_array_equal(on_grid(found), values >= percent / 100.0 * values.max())


@pytest.mark.parametrize("method", [method for method in METHODS if method != "threshold"])
def test_outlines_of_neighbours_do_not_overlap(method):
    values = scene(((-16, 0, 0), 12, 10.0), ((16, 0, 0), 12, 5.0))
    whole = Region.of(values >= 2.0)
    percent = None if method == "gradient" else 41.0
    a, b = outlined(values, split(values, whole, grid()), grid(), Outline(method, percent))
    assert not (on_grid(a) & on_grid(b)).any()
    for region, centre in ((a, (-16, 0, 0)), (b, (16, 0, 0))):
        assert dice(on_grid(region), ball(centre, 12)) > 0.75


def test_without_an_end_within_reach_the_outline_is_what_the_rule_found():
    values = scene(((0, 0, 0), 10, 2.4), floor=1.6)
    region = Region.of(values >= 2.0)
    (found,) = outlined(values, [region], grid(), Outline("percent_of_maximum", 41.0))
    np.testing.assert_array_equal(on_grid(found), on_grid(region))


@pytest.mark.parametrize(("apart_mm", "parts"), [(15.0, 1), (18.0, 1), (24.0, 2)])
@pytest.mark.parametrize("other", [8.0, 8.001])
def test_equal_hot_spots_are_divided_by_the_valley_between_them_as_unequal_ones_are(apart_mm, parts, other):
    """Two balls of 20 mm: overlapping by 5 and 2 mm there is hardly a valley, 4 mm apart one of less than 70 %."""
    values = scene(((-apart_mm / 2, 0, 0), 10, 8.0), ((apart_mm / 2, 0, 0), 10, other))
    assert len(split(values, Region.of(values >= 2.0), grid())) == parts


# Clicks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [3.0, np.inf])
@settings(max_examples=6, deadline=None)
@given(away=st.tuples(*[st.floats(-5.0, 5.0)] * 3))
def test_a_click_grows_to_the_lesion_by_the_rule_or_without_one(level, away):
    values = scene(((-25, 0, 0), 12, 8.0), ((25, 0, 0), 12, 12.0))
    found = grown_from(values, grid(), np.add((-25, 0, 0), away), level, Outline("percent_of_contrast", 50.0))
    assert dice(on_grid(found), ball((-25, 0, 0), 12)) > 0.85


def test_where_nothing_stands_out_nothing_grows():
    assert grown_from(scene(), grid(), np.zeros(3), 3.0, WHOLE) is None
    organ = scene(((0, 0, 0), 70, 2.0))
    assert grown_from(organ, grid(), np.zeros(3), 3.0, WHOLE) is None


@pytest.mark.parametrize("outline", [WHOLE, Outline("percent_of_maximum", 20.0), Outline("percent_of_contrast", 50.0)])
def test_a_click_gives_what_the_rule_finds_there_and_leaves_its_neighbour_alone(outline):
    """Two lesions that touch above the rule, one of them 130 mm long: far beyond the box in which a click begins."""
    long = [((-60 + 10 * step, 0, 0), 12, 10.0) for step in range(12)]
    values = scene(*long, ((74, 0, 0), 10, 8.0))
    found = find_candidates(values, grid(), Level(1.0, ""), 1.0, outline)
    assert len(found) == 2
    clicked = [grown_from(values, grid(), np.array((x, 0.0, 0.0)), 1.0, outline) for x in (0.0, 74.0)]
    for region, point in zip(clicked, ((0, 0, 0), (74, 0, 0)), strict=True):
        (one,) = [c.region for c in found if (on_grid(c.region) & ball(point, 3)).any()]
        np.testing.assert_array_equal(on_grid(region), on_grid(one))
    assert not (on_grid(clicked[0]) & on_grid(clicked[1])).any()


def test_a_click_in_an_organ_is_what_stands_out_of_it():
    """Of what the rule alone would take for one: an organ of 4 with a lesion of 10 in it."""
    values = scene(((0, 0, 0), 45, 4.0), ((15, 0, 0), 12, 10.0))
    organ = Region.of(ball((0, 0, 0), 53))
    assert dice(on_grid(grown_from(values, grid(), np.array((15.0, 0, 0)), 2.0, WHOLE)), ball((15, 0, 0), 12)) < 0.2
    found = grown_from(values, grid(), np.array((15.0, 0, 0)), 2.0, WHOLE, [(organ, 6.5)])
    assert dice(on_grid(found), ball((15, 0, 0), 12)) > 0.85
