"""Which region is which lesion, positive or negative, concordant or not."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from theraflow.lesions import Observation, Region, follow, match
from theraflow.lesions.identity import looks, name_lesions, overlap_voxels, probabilities

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


def candidate(scan, centre, radius, name=None, number=None):
    """A ball anywhere (not only on the grid's points), that the program has found; its key from its number."""
    half = int(radius / 2) + 1
    start = np.round(np.array(centre[::-1]) / 2.0).astype(int) - half
    axes = [(np.arange(2 * half + 1) + first) * 2.0 - c for first, c in zip(start, centre[::-1], strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    region = Region(tuple(start.tolist()), z**2 + y**2 + x**2 <= radius**2)
    key = None if number is None else f"{scan}:C{number:02d}"
    return Observation(scan, region, region, np.array(centre, dtype=float), "candidate", name, key=key)


def patient(seed, residual_mm, clusters=6, spread_mm=15.0, median_ml=1.0):
    """Two scans of one patient: 60 lesions in clusters on the first, and on the second what became of them.

    Centres scatter by `spread_mm` along each axis around the middles of clusters in a body of 300 x 200 x 700 mm;
    volumes are log-normal (sd 1.1, 0.3 to 150 mL); surfaces are 3 mm and more apart. Then 15 % vanish and 6 are new;
    the others change by a log-normal factor (median 0.9, sd 0.5) and are displaced by the residual of registration.
    """
    rng = np.random.default_rng(seed)
    middles = rng.uniform((-150, -100, -350), (150, 100, 350), (clusters, 3))
    centres, radii = [], []
    while len(centres) < 66:
        centre = middles[rng.integers(clusters)] + rng.normal(0, spread_mm, 3)
        volume_ml = np.clip(median_ml * np.exp(rng.normal(0, 1.1)), 0.3, 150)
        radius = (3000 * volume_ml / (4 * np.pi)) ** (1 / 3)
        if all(np.linalg.norm(centre - c) > radius + r + 3 for c, r in zip(centres, radii, strict=True)):
            centres.append(centre)
            radii.append(radius)
    first = [candidate("a", centres[i], radii[i], i) for i in range(60)]
    second = []
    for i in rng.permutation(66):
        if i >= 60 or rng.random() >= 0.15:
            change = np.exp(rng.normal(-0.1, 0.5) / 3) if i < 60 else 1.0
            second.append(candidate("b", centres[i] + rng.normal(0, residual_mm, 3), radii[i] * change, i))
    return first, second


def pairs_of(lesions):
    return [(lesion["a"].annotation, lesion["b"].annotation) for lesion in lesions if len(lesion) == 2]


def f1(pairs, first, second):
    true = len({o.annotation for o in first} & {o.annotation for o in second})
    return 2 * sum(a == b for a, b in pairs) / (len(pairs) + true)


def by_overlap_alone(first, second):
    """The greatest overlap first, until none is left."""
    common = np.array([[overlap_voxels(a.region, b.region) for b in second] for a in first], float)
    pairs = []
    while common.max() > 0:
        i, j = np.unravel_index(common.argmax(), common.shape)
        pairs.append((first[i].annotation, second[j].annotation))
        common[i], common[:, j] = 0, 0
    return pairs


def by_nearest(first, second):
    """Pairs of which each is the nearest of the other, up to 15 mm."""
    away = np.linalg.norm([[a.centroid_mm - b.centroid_mm for b in second] for a in first], axis=2)
    nearest = [(i, j) for i, j in enumerate(away.argmin(axis=1)) if away[:, j].argmin() == i and away[i, j] < 15]
    return [(first[i].annotation, second[j].annotation) for i, j in nearest]


WIDE_GATE_MM = 20.0  # four sd of the residual of 5 mm: three (15 mm) lose 3 of 100 before anything is compared


@pytest.mark.parametrize(("residual_mm", "least"), [(1.0, 0.99), (3.0, 0.99), (5.0, 0.98)])
def test_monte_carlo_of_clustered_lesions(residual_mm, least):
    """A case in which at 5 mm overlap alone has an F1 of 0.85 and mutual nearest ones one of 0.95."""
    found, overlap, nearest = [], [], []
    for seed in range(12):
        first, second = patient(seed, residual_mm)
        found.append(f1(pairs_of(follow([first, second], WIDE_GATE_MM)), first, second))
        overlap.append(f1(by_overlap_alone(first, second), first, second))
        nearest.append(f1(by_nearest(first, second), first, second))
    assert np.mean(found) >= least
    if residual_mm == 5.0:
        assert 0.8 < np.mean(overlap) < 0.9  # neither an easy nor a hopeless case
        assert np.mean(overlap) + 0.05 < np.mean(nearest) + 0.01 < np.mean(found)


@pytest.fixture(scope="module")
def judged():
    """(stated confidence, whether right, whether it was matched, whether a mark is on it) of many observations."""
    rows = []
    for seed, kind in product(range(100, 112), ({}, {"spread_mm": 35.0, "median_ml": 2.5}, {"spread_mm": 20.0})):
        first, second = patient(seed, 5.0, **kind)
        for lesion in follow([first, second], WIDE_GATE_MM):
            if "b" in lesion:
                seen, matched = lesion["b"], "a" in lesion
                right = lesion["a"].annotation == seen.annotation if matched else seen.annotation >= 60
                rows.append((seen.confidence, right, matched, bool(seen.look)))
    return np.array(rows, dtype=float)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.7), (0.7, 0.9), (0.9, 0.95), (0.95, 0.99), (0.99, 1.01)])
def test_confidence_is_how_often_it_is_right(judged, low, high):
    chosen = judged[(judged[:, 0] >= low) & (judged[:, 0] < high)]
    count, right, stated = len(chosen), int(chosen[:, 1].sum()), chosen[:, 0].mean()
    assert count >= 15
    # Neither fewer nor more than chance makes of the stated probability, one time in 500.
    assert binom.ppf(0.001, count, stated) <= right <= binom.ppf(0.999, count, stated)


def test_what_is_confident_is_right_and_most_errors_are_marked(judged):
    confident = judged[:, 0] >= 0.9
    assert judged[confident & (judged[:, 2] == 1), 1].mean() >= 0.98
    assert judged[confident & (judged[:, 2] == 0), 1].mean() >= 0.98
    wrong = judged[:, 1] == 0
    assert wrong.sum() >= 20
    assert judged[wrong, 3].mean() > 0.6
    assert judged[:, 3].mean() < 0.08
    np.testing.assert_array_equal(judged[:, 3] == 1, ~confident)


def enumerated(odds):
    """Probabilities of pairs as the sum over every assignment."""
    rows, columns = odds.shape
    total, paired = 0.0, np.zeros_like(odds)
    for choice in product(range(-1, columns), repeat=rows):
        pairs = [(i, j) for i, j in enumerate(choice) if j >= 0]
        if len({j for _, j in pairs}) == len(pairs):
            weight = np.prod([odds[pair] for pair in pairs])
            total += weight
            for pair in pairs:
                paired[pair] += weight
    return paired / total


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 4)), seed=st.integers(0, 10**6), scale=st.floats(0, 4))
def test_probabilities_are_those_of_all_assignments(shape, seed, scale):
    odds = np.exp(np.random.default_rng(seed).normal(2, scale, shape))
    odds[odds < 0.05] = 0.0
    np.testing.assert_allclose(probabilities(odds), enumerated(odds), atol=1e-12)


def test_two_that_may_have_changed_places_are_no_more_certain_than_that():
    """A swap four times less likely than none, both pairs surely there: 4 in 5."""
    assert probabilities(np.array([[2e6, 1e6], [1e6, 2e6]]))[0, 0] == pytest.approx(0.8, abs=1e-5)


def test_confidence_falls_with_distance_and_with_rivals():
    def second(*places):
        lesions = follow([[ball("a", (0, 0, 0), 5), ball("a", (20, 0, 0), 5)], [ball("b", p, 5) for p in places]], 15.0)
        return {lesion["b"].centroid_mm[0]: lesion["b"] for lesion in lesions if "b" in lesion}

    near, between, alone = second((0, 0, 0))[0], second((9, 0, 0))[9], second((-300, 0, 0))[-300]
    assert near.confidence > 0.99 and near.look == ()
    assert 0.5 < between.confidence < 0.7
    assert alone.confidence > 0.99 and alone.matched_by is None
    only = follow([[ball("a", (0, 0, 0), 5)]], GATE_MM)[0]["a"]
    assert only.confidence is None and only.look == ()


def test_a_rival_is_told_by_its_name_with_distance_and_probability():
    lesions = follow([[ball("a", (0, 0, 0), 5), ball("a", (20, 0, 0), 5)], [ball("b", (9, 0, 0), 5)]], GATE_MM)
    said = looks(lesions, "b", ["L07", "L11"])
    assert said[1] is None
    assert said[0].startswith("may be L11, 11 mm from it (probability 0.3")
    assert looks(lesions, "a", ["L07", "L11"]) == [None, None]
    beyond = follow([[ball("a", (0, 0, 0), 3)], [ball("b", (17, 0, 0), 3)]], GATE_MM)
    assert len(beyond) == 2
    assert beyond[1]["b"].confidence < 0.5
    assert looks(beyond, "b", ["L01", "L02"])[1].startswith("may be L01, 17 mm from it (probability 0.")


def test_identity_by_organ_is_to_be_looked_at_and_newness_without_a_place_has_no_number():
    lesions = follow([[in_organ("a", (10, 0, 0))], [lost("b", (13, 0, 0)), lost("b", (60, 0, 0))]], GATE_MM)
    known, new = lesions[0]["b"], lesions[1]["b"]
    assert known.look == ("matched by organ and distance",) and known.confidence > 0.9
    assert new.confidence is None and "registration has failed" in looks(lesions, "b", ["L01", "L02"])[1]


def halves(observation, gap_mm):
    """A ball as two pieces, to the patient's right and left, with a gap between them."""
    x = (np.arange(observation.region.mask.shape[2]) + observation.region.start[2]) * 2.0 - observation.centroid_mm[0]
    pieces = []
    for number, side in enumerate((x < -gap_mm / 2, x > gap_mm / 2), start=1):
        region = Region(observation.region.start, observation.region.mask & side)
        centroid = region.indices().mean(axis=0)[::-1] * 2.0
        key = f"{observation.scan}:C{number:02d}"
        pieces.append(replace(observation, region=region, in_reference=region, centroid_mm=centroid, key=key))
    return pieces


@settings(max_examples=25, deadline=None)
@given(radius=st.floats(10, 25), shift=st.tuples(*[st.floats(-2, 2)] * 3), shrunk=st.floats(0.85, 1.1))
def test_a_lesion_that_falls_in_two_stays_one_lesion(radius, shift, shrunk):
    whole = candidate("b", shift, radius * shrunk)
    pieces = halves(whole, 4.0)
    (lesion,) = follow([[candidate("a", (0, 0, 0), radius)], pieces], GATE_MM)
    seen = lesion["b"]
    assert seen.parts == 2
    assert seen.region.voxels == sum(piece.region.voxels for piece in pieces)
    assert overlap_voxels(seen.in_reference, whole.region) == seen.in_reference.voxels
    np.testing.assert_allclose(seen.centroid_mm, seen.region.indices().mean(axis=0)[::-1] * 2.0)
    assert {seen.key, *seen.part_keys} == {"b:C01", "b:C02"}
    assert "2 regions here: split" in looks([lesion], "b", ["L01"])[0]


def test_parts_stay_together_though_registration_has_moved_them():
    """7 mm aside, so that less than half of one part lies in the outline: they have been moved alike."""
    first, pieces = candidate("a", (0, 0, 0), 12), halves(candidate("b", (7, 0, 0), 12), 2.0)
    inside = [overlap_voxels(piece.region, first.region) / piece.region.voxels for piece in pieces]
    assert min(inside) < 0.5
    (lesion,) = follow([[first], pieces], GATE_MM)
    assert lesion["b"].parts == 2


@pytest.mark.parametrize("radius", [8, 12, 20])
def test_most_splits_and_merges_are_seen_at_5_mm_residual(radius):
    """A ball cut through by a gap of 4 mm, its volume changed, all displaced by the residual together."""
    rng = np.random.default_rng(radius)
    united = merged = 0
    for _ in range(80):
        before = candidate("a", rng.uniform(-5, 5, 3), radius)
        after = candidate("b", before.centroid_mm + rng.normal(0, 5, 3), radius * rng.lognormal(-0.1, 0.15))
        lesions = follow([[before], halves(after, 4.0)], WIDE_GATE_MM)
        united += len(lesions) == 1 and lesions[0]["b"].parts == 2
        grown = candidate("b", after.centroid_mm, radius * rng.lognormal(0.0, 0.15))
        lesions = follow([halves(before, 4.0), [grown]], WIDE_GATE_MM)
        merged += [said is not None and "merged" in said for said in looks(lesions, "b", ["L1", "L2"])] == [True, True]
    assert united >= 0.8 * 80
    assert merged >= 0.65 * 80


def test_three_parts_are_put_together():
    parts = [candidate("b", place, 5, number=i) for i, place in enumerate([(-12, 0, 0), (0, 10, 0), (11, -3, 2)])]
    (lesion,) = follow([[candidate("a", (0, 0, 0), 20)], parts], GATE_MM)
    assert lesion["b"].parts == 3


@pytest.mark.parametrize(("radius", "now", "other"), [(16, 10, 10), (12, 12, 12), (20, 8, 8), (25, 15, 8)])
def test_a_new_lesion_beside_a_known_one_is_no_part_of_it(radius, now, other):
    beside = [candidate("b", (1, 2, -1), now), candidate("b", (1 + radius + other + 2, 2, -1), other)]
    lesions = follow([[candidate("a", (0, 0, 0), radius)], beside], GATE_MM)
    assert [sorted(lesion) for lesion in lesions] == [["a", "b"], ["b"]]
    assert lesions[0]["b"].parts == lesions[1]["b"].parts == 1


def test_what_a_reader_has_outlined_or_divided_is_only_marked():
    first, pieces = candidate("a", (0, 0, 0), 15), halves(candidate("b", (1, 0, 0), 15), 4.0)
    outlined = [replace(piece, source="reader") for piece in pieces]
    divided = [replace(piece, key=f"b:C03/{i}") for i, piece in enumerate(pieces, start=1)]
    for kept in (outlined, divided):
        lesions = follow([[first], kept], GATE_MM)
        assert [sorted(lesion) for lesion in lesions] == [["a", "b"], ["b"]]
        assert "lies in the outline of L01, as another region here" in looks(lesions, "b", ["L01", "L02"])[1]


def test_a_region_within_another_of_its_scan_is_no_part_of_it():
    nested = [candidate("b", (0, 0, 0), 28), candidate("b", (6, 0, 0), 10)]
    lesions = follow([[candidate("a", (0, 0, 0), 30)], nested], GATE_MM)
    assert [sorted(lesion) for lesion in lesions] == [["a", "b"], ["b"]]
    # Nor has the mass merged with its oedema where a later scan shows the oedema alone.
    lesions = follow([nested, [replace(candidate("c", (0, 0, 0), 28), scan="c")]], GATE_MM)
    assert sum("c" in lesion for lesion in lesions) == 1
    assert not any("merged" in (said or "") for said in looks(lesions, "c", ["L01", "L02"]))


def test_a_region_over_two_lesions_is_the_better_and_marks_the_other():
    big, small = candidate("a", (-11, 0, 0), 12, "big"), candidate("a", (14, 0, 0), 9, "small")
    lesions = follow([[big, small], [candidate("b", (-2, 0, 0), 21)]], GATE_MM)
    winner = next(i for i, lesion in enumerate(lesions) if "b" in lesion)
    other = 1 - winner
    assert lesions[winner]["a"].annotation == "big"
    assert lesions[winner]["b"].covers == (other,)
    said = looks(lesions, "b", ["L01", "L02"])
    assert f"L0{other + 1} has merged with it" in said[winner]
    assert said[other] == f"merged with L0{winner + 1}: its carried outline lies in the region of that"
    # On the next scan they are two again, each itself.
    again = [replace(o, scan="c") for o in (small, big)]
    later = follow([[big, small], [candidate("b", (-2, 0, 0), 21)], again], GATE_MM)
    assert all(lesion["c"].annotation == lesion["a"].annotation for lesion in later)


def numbered(*keys):
    """Lesions on scan `a` that hold these keys, far from each other."""
    return [{"a": replace(candidate("a", (0, 0, -60 * i), 5), key=key)} for i, key in enumerate(keys)]


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        (["a:C01", "a:C02", "a:C03", "a:C04"], [1, 2, 3, 4]),
        (["a:C01", "a:C03", "a:C04"], [1, 3, 4]),  # one rejected
        (["a:C04", "a:C03", "a:C02", "a:C01"], [4, 3, 2, 1]),  # in another order
        (["a:click(1,2,3)", "a:C01", "a:C02", "a:C03", "a:C04"], [5, 1, 2, 3, 4]),  # one added, though it comes first
        (["a:C01", "a:C02/1", "a:C02/2", "a:C03", "a:C04"], [1, 2, 5, 3, 4]),  # one divided
        (["a:click(1,2,3)", "a:click(4,5,6)"], [5, 6]),
        ([None, "a:C02"], [5, 2]),
        ([], []),
    ],
)
def test_names_stay_whatever_the_reader_decides_about_others(decided, expected):
    automatic = numbered("a:C01", "a:C02", "a:C03", "a:C04")
    assert name_lesions(numbered(*decided), automatic) == expected


def test_names_of_lesions_that_come_together_or_part():
    automatic = numbered("a:C01", "a:C02", "a:C03")
    automatic[2]["b"] = replace(candidate("b", (0, 0, 0), 5), key="b:C01", part_keys=("b:C07",))
    joined = [{"a": automatic[2]["a"], "b": automatic[1]["a"]}, automatic[0]]
    assert name_lesions(joined, automatic) == [2, 1]  # of C03 and C02 the smaller
    apart = [*numbered("a:C01", "a:C02"), {"b": replace(candidate("b", (0, 0, 0), 5), key="b:C07")}, automatic[2]]
    assert name_lesions(apart, automatic) == [1, 2, 3, 4]  # one number each, the first in order


@settings(max_examples=25, deadline=None)
@given(gone=st.integers(0, 4), seed=st.integers(0, 1000))
def test_rejecting_one_lesion_leaves_all_other_names(gone, seed):
    rng = np.random.default_rng(seed)
    places = [(40 * i, -15 * i, float(rng.uniform(-80, 80))) for i in range(5)]
    scans = [
        [candidate(scan, np.add(place, rng.uniform(-3, 3, 3)), 6, number=i) for i, place in enumerate(places)]
        for scan in "ab"
    ]
    automatic = follow(scans, GATE_MM)
    names = {lesion["a"].key: i for i, lesion in enumerate(automatic, start=1)}
    left = follow([[o for o in scan if not o.key.endswith(f"C{gone:02d}")] for scan in scans], GATE_MM)
    assert len(left) == 4
    for lesion, number in zip(left, name_lesions(left, automatic), strict=True):
        assert number == names[lesion["a"].key]
