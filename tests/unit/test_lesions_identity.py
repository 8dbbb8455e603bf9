"""Which region is which lesion, positive or negative, concordant or not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.lesions import Observation, Region, concordance, follow, is_positive, match

GATE_MM = 15.0


def ball(scan, centre, radius=10.0, name=None):
    """A ball on a grid of 2 mm, already in the reference space; centre x, y, z in mm."""
    half = int(radius / 2) + 1
    offsets = np.arange(-half, half + 1) * 2.0
    z, y, x = np.meshgrid(offsets, offsets, offsets, indexing="ij", sparse=True)
    start = tuple(round(c / 2.0) - half for c in reversed(centre))
    region = Region(start, z**2 + y**2 + x**2 <= radius**2)
    return Observation(scan, region, region, np.array(centre, dtype=float), "reader", name)


def names(lesions):
    return [{scan: observation.annotation for scan, observation in lesion.items()} for lesion in lesions]


def test_names_follow_the_order_of_scans_then_head_to_feet_then_right_to_left():
    first = [
        ball("fdg", (10, 0, 0), name="low"),
        ball("fdg", (0, 0, 90), name="high"),
        ball("fdg", (-60, 0, 0), name="right"),
    ]
    second = [ball("cxcr4", (0, 0, 300), name="new"), ball("cxcr4", (3, 0, 92), name="high again")]
    assert names(follow([first, second], GATE_MM)) == [
        {"fdg": "high", "cxcr4": "high again"},
        {"fdg": "right"},
        {"fdg": "low"},
        {"cxcr4": "new"},
    ]


def test_the_assignment_is_optimal_where_the_nearest_first_would_fail():
    """Two lesions 12 mm apart, both displaced by 7 mm: the first new one is nearest to the wrong one."""
    known = follow([[ball("a", (0, 0, 0), 3, "left"), ball("a", (12, 0, 0), 3, "right")]], GATE_MM)
    found = [ball("b", (7, 0, 0), 3), ball("b", (19, 0, 0), 3)]
    by_name = {lesion["a"].annotation: i for i, lesion in enumerate(known)}
    assert match(known, found, GATE_MM) == {0: by_name["left"], 1: by_name["right"]}


def test_regions_of_one_scan_are_never_merged():
    first = [ball("a", (0, 0, 0), 20)]
    second = [ball("b", (-6, 0, 0), 5), ball("b", (8, 0, 0), 5)]
    lesions = follow([first, second], GATE_MM)
    assert len(lesions) == 2
    assert sorted(len(lesion) for lesion in lesions) == [1, 2]


def test_far_apart_is_another_lesion_but_overlap_is_not_far_apart():
    known = follow([[ball("a", (0, 0, 0), 5)]], GATE_MM)
    assert match(known, [ball("b", (14, 0, 0), 5)], GATE_MM) == {0: 0}
    assert match(known, [ball("b", (16, 0, 0), 5)], GATE_MM) == {}
    assert match(known, [ball("b", (24, 0, 0), 30)], GATE_MM) == {0: 0}  # grown, one-sidedly


def test_a_mass_in_its_oedema_stays_the_mass():
    """Both of a nested pair match their own likes, though each overlaps with both."""
    first = [ball("a", (0, 0, 0), 12, "mass"), ball("a", (6, 0, 0), 30, "oedema")]
    second = [ball("b", (7, 2, 0), 29, "oedema"), ball("b", (2, 1, 0), 11, "mass")]
    for lesion in names(follow([first, second], GATE_MM)):
        assert lesion["a"] == lesion["b"]


@settings(max_examples=30, deadline=None)
@given(
    shift=st.tuples(*[st.floats(-5, 5)] * 3),
    gone=st.integers(0, 5),
    order=st.permutations(range(6)),
)
def test_separate_lesions_keep_their_names_through_small_errors_of_registration(shift, gone, order):
    places = [(40 * i, 10 * i, -30 * i) for i in range(6)]
    first = [ball("a", place, name=str(i)) for i, place in enumerate(places)]
    moved = [tuple(a + b for a, b in zip(place, shift, strict=True)) for place in places]
    second = [ball("b", moved[i], name=str(i)) for i in order if i != gone]
    lesions = names(follow([first, second], GATE_MM))
    assert len(lesions) == 6
    for lesion in lesions:
        assert lesion.get("b", lesion["a"]) == lesion["a"]
        assert ("b" in lesion) == (lesion["a"] != str(gone))


def test_a_far_region_does_not_take_a_lesion_from_a_near_one():
    """Leaving a far region alone costs nothing, so it must not push the near one to the wrong lesion."""
    known = follow([[ball("a", (0, 0, 0), 3, "here"), ball("a", (14, 0, 0), 3, "beside")]], GATE_MM)
    found = [ball("b", (1, 0, 0), 3), ball("b", (-300, 0, 0), 3)]
    by_name = {lesion["a"].annotation: i for i, lesion in enumerate(known)}
    assert match(known, found, GATE_MM) == {0: by_name["here"]}


def lost(scan, from_organ, organ="liver", name=None, site=None):
    """A region of a scan whose registration has failed, in coordinates of its own that lie 200 mm off."""
    return replace(in_organ(scan, from_organ, organ, name, site), in_reference=None, centroid_mm=np.full(3, 200.0))


def in_organ(scan, from_organ, organ="liver", name=None, site=None):
    """A ball beside the centre (20, 30, 40) of an organ."""
    place = np.add((20, 30, 40), from_organ)
    known = {"site": site or organ, "organ": organ, "from_organ_mm": np.array(from_organ, float)} if organ else {}
    return replace(ball(scan, tuple(place), 4, name), **known)


@pytest.mark.parametrize(
    ("organ", "site", "away", "expected"),
    [
        ("liver", None, 14.0, True),
        ("liver", None, 16.0, False),
        ("spleen", None, 0.0, False),
        (None, None, 0.0, False),
        ("liver", "peritoneum", 0.0, False),
    ],
)
def test_without_a_place_organ_and_distance_decide(organ, site, away, expected):
    known = follow([[in_organ("a", (10, 0, 0))]], GATE_MM)
    assert match(known, [lost("b", (10, 0, away), organ, site=site)], GATE_MM) == ({0: 0} if expected else {})


def test_regions_without_a_place_never_match_by_overlap():
    """The same region at the same coordinates, which mean nothing, but far apart within the organ."""
    known = follow([[in_organ("a", (0, 0, 0))]], GATE_MM)
    same = replace(known[0]["a"], scan="b", in_reference=None, from_organ_mm=np.array([0, 0, 50.0]))
    assert match(known, [same], GATE_MM) == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_how_a_lesion_was_found_again_is_kept(order):
    """Two scans that were registered and one that was not, in every order: what needs no organ is told by position."""
    scans = [[in_organ("a", (10, 0, 0))], [lost("b", (13, 0, 0))], [in_organ("c", (10, 4, 0))]]
    (lesion,) = follow([scans[i] for i in order], GATE_MM)
    assert set(lesion) == {"a", "b", "c"}
    first, second, third = ("abc"[i] for i in order)
    assert lesion[first].matched_by is None
    expected = {"a": "position", "b": "organ and distance", "c": "position"}
    assert lesion[third].matched_by == expected[third]
    assert lesion[second].matched_by == ("organ and distance" if first == "b" else expected[second])


def test_position_overrules_the_organ():
    """Where a registered scan shows a lesion it decides; the unregistered one that shows it too is not asked."""
    known = follow([[in_organ("a", (0, 0, 0))], [lost("b", (12, 0, 0))]], GATE_MM)
    assert set(known[0]) == {"a", "b"}
    assert match(known, [in_organ("c", (20, 0, 0))], GATE_MM) == {}  # 8 mm from that of b by the organ


def test_no_scan_and_no_region_are_no_lesion():
    assert follow([], GATE_MM) == []
    assert follow([[], []], GATE_MM) == []


@pytest.mark.parametrize(
    ("reader_says", "peak", "shell", "expected"),
    [
        (True, 1.0, 5.0, True),
        (False, 9.0, 1.0, False),
        (None, 3.0, 2.0, True),
        (None, 2.99, 2.0, False),
        (None, 3.0, None, None),
        (True, 3.0, None, True),
    ],
)
def test_positive_is_the_readers_word_or_the_ratio_to_the_shell(reader_says, peak, shell, expected):
    assert is_positive(reader_says, peak, shell, 1.5) is expected


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ({"FDG": [True], "pentixafor": [True]}, "concordant"),
        ({"FDG": [True], "pentixafor": [False]}, "FDG-only"),
        ({"FDG": [False], "pentixafor": [True]}, "pentixafor-only"),
        ({"FDG": [False], "pentixafor": [False]}, "none"),
        ({"FDG": [True]}, None),
        ({"FDG": [True], "pentixafor": [None]}, None),
        ({"FDG": [False, True], "pentixafor": [False]}, "FDG-only"),
        ({"FDG": [True], "PSMA": [True], "DOTA": [False]}, "FDG+PSMA-only"),
    ],
)
def test_concordance(positive, expected):
    assert concordance(positive) == expected
