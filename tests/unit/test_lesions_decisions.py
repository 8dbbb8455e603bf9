"""What readers decide: each word, its refusals, and the sheet that comes back from a spreadsheet."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from theraflow.errors import TheraflowError
from theraflow.images import from_array
from theraflow.layout import Scan
from theraflow.lesions.decisions import (
    DECISION_COLUMNS,
    Decision,
    Proposal,
    apply_decisions,
    divide,
    draft,
    verdicts,
)
from theraflow.lesions.region import Region, spacing_zyx
from theraflow.sheets import read_decisions
from theraflow.tables import write_table

SCHEMA = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "decisions.schema.yaml").read_text()
)
SCANS = {
    "P1": [Scan("P1", "fdg", "FDG", "baseline", "in", "suv"), Scan("P1", "lu", "L", "day1", "in", "activity")],
    "P2": [Scan("P2", "fdg", "FDG", "baseline", "in", "suv")],
}


def a_grid(spacing=(4.0, 4.0, 3.0), size=(60, 40, 60), origin=(-120.5, -80.0, 333.0), direction=(1, 1, 1)):
    grid = sitk.Image(list(size), sitk.sitkFloat32)
    grid.SetSpacing(spacing)
    grid.SetOrigin(origin)
    grid.SetDirection(np.diag(np.array(direction, float)).ravel().tolist())
    return grid


GRID = a_grid()


def points_of(grid):
    """Every voxel centre, x y z, shape (z, y, x, 3); axes of the grid may only be turned round."""
    turned = np.array(grid.GetDirection()).reshape(3, 3).diagonal()
    axes = [o + t * s * np.arange(n) for o, t, s, n in
            zip(grid.GetOrigin(), turned, grid.GetSpacing(), grid.GetSize(), strict=True)]  # fmt: skip
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([x, y, z], axis=-1)


def inside(centre, radius, grid=GRID):
    return np.linalg.norm(points_of(grid) - centre, axis=-1) <= radius


def ball(centre, radius, grid=GRID):
    return Region.of(inside(centre, radius, grid))


NODE, BLADDER, MASS = (-60.0, -20.0, 400.0), (0.0, 0.0, 360.0), (60.0, 20.0, 450.0)
PROPOSALS = [
    Proposal(ball(NODE, 12), True, "candidate", "fdg:C01"),
    Proposal(ball(BLADDER, 20), False, "candidate", "fdg:C02", reason="physiologic uptake"),
    Proposal(ball(MASS, 18), True, "reader", "fdg:mass", name="mass"),
]
FREE = (60.0, -40.0, 380.0)  # where nothing is proposed


def say(decision, point, scan="fdg", **more):
    return Decision("P1", scan, decision, *map(float, point), **more)


def grows(point):
    return ball(point, 10)


def decided(*decisions, proposals=PROPOSALS, grow=grows, grid=GRID):
    return {result.key: result for result in apply_decisions(proposals, decisions, grid, grow)}


def mask_of(region, shape=(60, 40, 60)):
    return region.on_box(tuple(slice(0, n) for n in shape))


def dice(a, b):
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def beside(point, x=0.0, y=0.0, z=0.0):
    return (point[0] + x, point[1] + y, point[2] + z)


def test_without_decisions_nothing_changes():
    assert list(decided().values()) == PROPOSALS
    silent = [say("positive", FREE), say("negative", NODE)]  # they are about what is measured, see `verdicts`
    assert list(decided(*silent).values()) == PROPOSALS


def test_accept_and_reject_change_what_is_kept_and_say_who():
    results = decided(say("accept", BLADDER, reader="AB"), say("reject", NODE))
    assert [result.kept for result in results.values()] == [False, True, True]
    assert results["fdg:C02"].reason == "physiologic uptake; accepted by AB"
    assert results["fdg:C01"].reason == "rejected by the reader"
    assert results["fdg:mass"] is PROPOSALS[2]


def test_what_the_program_did_may_be_confirmed():
    results = decided(say("accept", NODE), say("reject", BLADDER))
    assert [result.kept for result in results.values()] == [True, False, True]


def test_rename_and_a_name_beside_another_decision():
    results = decided(say("rename", MASS, name="liver"), say("accept", BLADDER, name="implant"), say("accept", NODE))
    assert [result.name for result in results.values()] == [None, "implant", "liver"]


def test_added_regions_come_last_from_head_to_feet():
    low, high = beside(FREE, z=-30.4), beside(FREE, y=90.0, z=60.0)
    results = decided(say("add", low, name="node"), say("add", high))
    keys = list(results)
    assert keys[3:] == ["fdg:click(60,50,440)", "fdg:click(60,-40,350)"]
    assert [results[key].source for key in keys[3:]] == ["click", "click"]
    assert results[keys[4]].name == "node" and results[keys[4]].kept
    assert np.array_equal(mask_of(results[keys[4]].region), inside(low, 10))


def test_a_click_grows_to_the_volume_of_a_blurred_ball():
    """A blurred edge of curvature 2/R lies sd^2/R further in at half its height (heat flow by mean curvature)."""
    grid, radius = a_grid((2.0, 2.0, 2.0), (60, 60, 60), (0.0, 0.0, 0.0)), 16.0
    centre = (61.0, 58.3, 60.7)
    sd = 6.0 / 2.3548
    values = ndimage.gaussian_filter(10.0 * inside(centre, radius, grid), sd / spacing_zyx(grid))

    def half_of_the_maximum(point):
        near = inside(point, 5.0, grid)
        labels, _ = ndimage.label(values >= 0.5 * values[near].max())
        return Region.of(labels == labels[near][values[near].argmax()])

    (grown,) = decided(say("add", beside(centre, x=4.0)), proposals=[], grow=half_of_the_maximum, grid=grid).values()
    expected_ml = 4.0 / 3.0 * np.pi * (radius - sd**2 / radius) ** 3 / 1000.0
    assert grown.region.voxels * 0.008 == pytest.approx(expected_ml, rel=0.02)
    assert dice(mask_of(grown.region, (60, 60, 60)), inside(centre, radius, grid)) > 0.96


TWO = Region.of(inside((-13.0, 0.0, 420.0), 12) | inside((12.0, 0.0, 420.0), 13))
TOUCHING = [Proposal(TWO, True, "candidate", "fdg:C01", name="conglomerate"), *PROPOSALS[1:]]


def test_split_gives_parts_that_are_decided_on_their_own():
    left, right = (-17.0, 2.0, 418.0), (14.0, -3.0, 421.0)
    results = decided(
        say("split", left, reader="AB"), say("split", right, name="node"), say("reject", beside(left, y=3.0)),
        proposals=TOUCHING,
    )  # fmt: skip
    assert list(results) == ["fdg:C01/1", "fdg:C01/2", "fdg:C02", "fdg:mass"]
    one, two = results["fdg:C01/2"], results["fdg:C01/1"]  # the right one lies higher
    assert (one.kept, two.kept) == (False, True)
    assert (one.name, two.name) == ("conglomerate", "node")
    assert one.reason == "rejected by the reader; split by AB"
    assert dice(mask_of(one.region), inside((-13.0, 0.0, 420.0), 12)) > 0.95
    assert dice(mask_of(two.region), inside((12.0, 0.0, 420.0), 13)) > 0.95


def test_part_of_a_region_left_out_is_accepted():
    proposals = [Proposal(TWO, False, "candidate", "fdg:C01", reason="physiologic uptake")]
    left, right = (-13.0, 0.0, 420.0), (12.0, 0.0, 420.0)
    results = decided(say("split", left), say("split", right), say("accept", left), proposals=proposals)
    holding = {result.kept: mask_of(result.region)[29, 20, 26] for result in results.values()}
    assert holding == {True: True, False: False}
    assert "physiologic uptake; accepted" in next(r.reason for r in results.values() if r.kept)


@settings(max_examples=25, deadline=None)
@given(
    radii=st.tuples(st.floats(8, 16), st.floats(8, 16)),
    uptake=st.tuples(st.floats(5, 15), st.floats(5, 15)),
    way=st.tuples(*[st.floats(-1, 1)] * 3),
    slips=st.tuples(*[st.tuples(*[st.floats(-2, 2)] * 3)] * 2),
)
def test_touching_balls_are_recovered_however_hot_and_however_clicked(radii, uptake, way, slips):
    """The outline of two blurred balls at a fixed SUV, divided at points up to 3.5 mm beside their centres."""
    assume(np.linalg.norm(way) > 0.3)
    half = np.array(way) / np.linalg.norm(way) * sum(radii) / 2.0
    centres = [np.array((-2.0, 0.0, 420.0)) + half, np.array((-2.0, 0.0, 420.0)) - half]
    values = np.ones((60, 40, 60))
    for centre, radius, suv in zip(centres, radii, uptake, strict=True):
        values[inside(centre, radius)] = suv
    outline = ndimage.gaussian_filter(values, 6.0 / 2.3548 / spacing_zyx(GRID)) >= 3.0
    outside = [np.linalg.norm(points_of(GRID) - c, axis=-1) - r for c, r in zip(centres, radii, strict=True)]
    clicks = [say("split", centre + slip) for centre, slip in zip(centres, slips, strict=True)]
    parts = decided(*clicks, proposals=[Proposal(Region.of(outline), True, "candidate", "fdg:C01")])
    truth = [outline & (outside[0] <= outside[1]), outline & (outside[1] < outside[0])]
    for balls in truth:
        assert max(dice(mask_of(part.region), balls) for part in parts.values()) > 0.7


def test_a_small_ball_beside_a_large_one_keeps_its_size():
    """Half-way between the centres would be 4 mm within the large one: a cap of a third of the small one's volume."""
    large, small = (-10.0, 0.0, 420.0), (14.0, 0.0, 420.0)
    both = Proposal(Region.of(inside(large, 16) | inside(small, 8)), True, "candidate", "fdg:C01")
    results = decided(say("split", large), say("split", small), proposals=[both])
    assert dice(mask_of(results["fdg:C01/2"].region), inside(small, 8)) > 0.93
    assert dice(mask_of(results["fdg:C01/1"].region), inside(large, 16)) > 0.98


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_parts_are_the_region_and_each_has_its_point(data, seed):
    random = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(random.normal(size=(9, 10, 11)), data.draw(st.sampled_from([0.0, 1.0, 2.0]))) > 0.0
    region = Region((3, -2, 5), mask)
    count = data.draw(st.integers(2, 5))
    assume(region.voxels >= count)
    points = random.permutation(region.indices())[:count]
    parts = divide(region, points, GRID)
    total = np.sum([part.on_box(region.box) for part in parts], axis=0)
    assert np.array_equal(total, mask)
    for part, point in zip(parts, points.tolist(), strict=True):
        assert point in part.indices().tolist()


def test_a_part_is_not_lost_in_a_larger_one_beside_it():
    """Two points in one ball, which its shape cannot tell: the smaller part has what is nearer to its point."""
    results = decided(
        say("split", (0.0, 0.0, 360.0)), say("split", (15.0, 0.0, 360.0)), say("accept", (15.0, 0.0, 360.0)),
        proposals=[PROPOSALS[1]],
    )  # fmt: skip
    small = next(result for result in results.values() if result.kept)
    cap = inside(BLADDER, 20) & (points_of(GRID)[..., 0] > 12.0)
    assert np.count_nonzero(mask_of(small.region) & cap) > 0.9 * np.count_nonzero(cap)


def test_merged_regions_are_one_with_the_key_of_the_first():
    results = decided(say("merge", NODE, group="a"), say("merge", MASS, group="a", name="both"))
    assert list(results) == ["fdg:C01", "fdg:C02"]
    assert np.array_equal(mask_of(results["fdg:C01"].region), inside(NODE, 12) | inside(MASS, 18))
    assert results["fdg:C01"].name == "both"


def test_what_is_merged_with_a_lesion_is_one_and_bears_its_key():
    results = decided(say("merge", BLADDER, group="a"), say("merge", MASS, group="a"), say("reject", NODE))
    assert list(results) == ["fdg:C01", "fdg:mass"]
    assert (results["fdg:mass"].kept, results["fdg:mass"].name, results["fdg:mass"].source) == (True, "mass", "reader")
    assert results["fdg:mass"].reason == "physiologic uptake; merged by the reader"


def test_a_part_may_be_merged_with_another_region():
    left, right = (-13.0, 0.0, 420.0), (12.0, 0.0, 420.0)
    results = decided(
        say("split", left), say("split", right), say("merge", right, group="a"), say("merge", MASS, group="a"),
        proposals=TOUCHING,
    )  # fmt: skip
    assert len(results) == 3
    assert sum(result.region.voxels for result in results.values()) == sum(p.region.voxels for p in TOUCHING)
    assert any(mask_of(r.region)[29, 20, 33] and mask_of(r.region)[39, 25, 45] for r in results.values())


def test_clicks_that_grow_together_are_added_once_and_split():
    def blob(point):
        return TWO

    left, right = (-13.0, 0.0, 420.0), (12.0, 0.0, 420.0)
    results = decided(say("add", left), say("split", left), say("split", right), proposals=[], grow=blob)
    assert sorted(results) == ["fdg:click(-13,0,420)/1", "fdg:click(-13,0,420)/2"]
    with pytest.raises(TheraflowError, match=r"largely the same voxels.*split it at both points"):
        decided(say("add", left), say("add", right), proposals=[], grow=blob)


def test_a_region_is_replaced_by_a_click():
    results = decided(say("reject", NODE), say("add", NODE))
    assert [(result.source, result.kept) for result in results.values() if result.source != "reader"] == [
        ("candidate", False),
        ("candidate", False),
        ("click", True),
    ]


ORDERLESS = [
    say("split", (-13.0, 0.0, 420.0)),
    say("split", (12.0, 0.0, 420.0), reader="AB"),
    say("reject", (-14.0, 1.0, 420.0)),
    say("merge", (13.0, 0.0, 422.0), group="a"),
    say("merge", MASS, group="a"),
    say("rename", beside(MASS, x=4.0), name="bulk"),
    say("accept", BLADDER),
    say("add", FREE),
    say("add", beside(FREE, y=80.0)),
    say("rename", beside(FREE, x=2.0), name="new"),
]


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(ORDERLESS), twice=st.integers(0, len(ORDERLESS) - 1))
def test_the_order_of_decisions_does_not_matter(order, twice):
    expected = apply_decisions(TOUCHING, ORDERLESS, GRID, grows)
    results = apply_decisions(TOUCHING, [*order, order[twice]], GRID, grows)
    assert len(results) == len(expected) == 5
    for a, b in zip(results, expected, strict=True):
        assert (a.key, a.kept, a.source, a.name, a.reason) == (b.key, b.kept, b.source, b.name, b.reason)
        assert np.array_equal(mask_of(a.region), mask_of(b.region))


@pytest.mark.parametrize(
    ("decisions", "sentence"),
    [
        ([say("accept", NODE), say("reject", NODE)], "'reject' of patient P1, scan fdg, at -60 -20 400 mm: contra"),
        ([say("add", FREE), say("reject", FREE)], "both mean fdg:click(60,-40,380); delete one"),
        (
            [say("merge", NODE, group="a"), say("merge", MASS, group="a"), say("reject", MASS)],
            "contradicts 'merge' of patient P1",
        ),
        (
            [say("rename", NODE, name="a"), say("rename", beside(NODE, x=4.0), name="b")],
            "cannot be called",
        ),
        ([say("split", NODE)], "fdg:C01 can be split only among two or more points in different voxels"),
        ([say("split", NODE), say("split", beside(NODE, x=0.1))], "two or more points in different voxels"),
        (
            [say("split", NODE), say("split", beside(NODE, x=9.0)),
             say("merge", NODE, group="a"), say("merge", beside(NODE, x=9.0), group="a")],
            "both are parts of fdg:C01, which is split",
        ),
        ([say("merge", NODE, group="a")], "the group 'a' has no other region"),
        ([say("merge", NODE, group="a"), say("merge", beside(NODE, x=4.0), group="a")], "has no other region"),
        (
            [say("merge", NODE, group="a"), say("merge", MASS, group="a"),
             say("merge", NODE, group="b"), say("merge", BLADDER, group="b")],
            "one region cannot be in two groups",
        ),
        (
            [say("split", BLADDER), say("split", beside(BLADDER, x=12.0))],
            "is no lesion (physiologic uptake; split by the reader); accept what is one",
        ),
        ([say("rename", BLADDER, name="implant")], "no lesion (physiologic uptake), so it cannot be called 'implant'"),
        ([say("rename", NODE, name="x"), say("reject", NODE)], "is no lesion (rejected)"),
        ([say("reject", FREE)], "no region lies within 5 mm; the nearest are fdg:C02 (5"),
        ([say("reject", (60.0, 20.0, 400.0))], "at -60 -20 400 mm lies fdg:C01: if the point is in RAS"),
        ([say("reject", (0.0, 0.0, 9000.0))], "clear this decision, run again and take the point from the new draft"),
        ([say("add", (0.0, 0.0, 9000.0))], "the point lies outside of the image"),
        ([say("add", (-123.0, 0.0, 400.0))], "the point lies outside of the image"),
        ([say("add", MASS)], "fdg:click(60,20,450) and fdg:mass (mass) are largely the same voxels"),
        ([say("reject", NODE, voxels=100)], "it was decided on a region of 100 voxels, but fdg:C01 has 148"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_a_sentence(decisions, sentence):
    for order in (decisions, decisions[::-1]):
        with pytest.raises(TheraflowError) as error:
            decided(*order)
        assert sentence in str(error.value)
        assert str(error.value).startswith("In the sheet of decisions, '")


def test_merging_what_the_program_left_out_asks_to_accept_it():
    proposals = [PROPOSALS[1], Proposal(ball(FREE, 12), False, "candidate", "fdg:C03")]
    merged = [say("merge", BLADDER, group="a"), say("merge", FREE, group="a")]
    with pytest.raises(TheraflowError, match=r"what becomes of it, fdg:C02, is no lesion .*; accept what is one"):
        decided(*merged, proposals=proposals)
    assert decided(*merged, say("accept", FREE), proposals=proposals)["fdg:C02"].kept


def test_a_click_from_which_nothing_grows_is_refused():
    with pytest.raises(TheraflowError, match="the tracer's rule grows nothing from this point"):
        decided(say("add", FREE), grow=lambda point: None)


def test_a_scan_without_any_region_says_so():
    with pytest.raises(TheraflowError, match="the scan has none"):
        decided(say("accept", FREE), proposals=[])


def test_voxels_counted_otherwise_by_a_tenth_are_the_same_region():
    voxels = PROPOSALS[0].region.voxels
    for factor, refused in ((0.92, False), (1.1, False), (0.88, True), (1.15, True)):
        if refused:
            with pytest.raises(TheraflowError, match="decided on a region of"):
                decided(say("reject", NODE, voxels=voxels * factor))
        else:
            assert not decided(say("reject", NODE, voxels=voxels * factor))["fdg:C01"].kept


@pytest.mark.parametrize("direction", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_the_nearest_within_five_millimetres_is_meant_in_any_orientation(direction):
    grid = a_grid(direction=direction)
    middle = np.array(grid.TransformContinuousIndexToPhysicalPoint((30.0, 20.0, 30.0)))
    proposals = [Proposal(ball(middle, 10, grid), True, "candidate", "fdg:C01")]
    last = max(x for x, y, z in points_of(grid)[inside(middle, 10, grid)] if (y, z) == tuple(middle[1:]))
    for away, refused in ((4.9, False), (5.1, True)):
        point = (last + away, middle[1], middle[2])
        if refused:
            with pytest.raises(TheraflowError, match=r"fdg:C01 \(5 mm away\)"):
                decided(say("reject", point), proposals=proposals, grid=grid)
        else:
            assert not decided(say("reject", point), proposals=proposals, grid=grid)["fdg:C01"].kept


def test_a_point_between_two_regions_means_neither():
    pair = [Proposal(ball((x, 0.0, 420.0), 12), True, "candidate", f"fdg:C{n}") for n, x in enumerate((-15.0, 15.0))]
    with pytest.raises(TheraflowError, match="in no region but near fdg:C0 and fdg:C1"):
        decided(say("reject", (0.0, 0.0, 420.0)), proposals=pair)


def test_a_voxel_holds_a_point_up_to_its_edge():
    halves = (
        inside(MASS, 18) & (points_of(GRID)[..., 0] < MASS[0]),
        inside(MASS, 18) & (points_of(GRID)[..., 0] >= MASS[0]),
    )
    pair = [Proposal(Region.of(half), True, "reader", key) for key, half in zip("ab", halves, strict=True)]
    edge = 59.5 + 2.0  # half-way between the voxel centres on either side
    for x, kept in ((edge - 0.1, [False, True]), (edge + 0.1, [True, False])):
        results = decided(say("reject", (x, *MASS[1:])), proposals=pair)
        assert [result.kept for result in results.values()] == kept


def test_of_nested_regions_the_smaller_is_meant():
    nested = [Proposal(ball(MASS, 18), True, "reader", "oedema"), Proposal(ball(MASS, 9), True, "reader", "mass")]
    assert [r.kept for r in decided(say("reject", MASS), proposals=nested).values()] == [True, False]
    outer = beside(MASS, x=14.0)
    assert [r.kept for r in decided(say("reject", outer), proposals=nested).values()] == [False, True]
    alike = [Proposal(ball(MASS, 9), True, "reader", key) for key in "ab"]
    with pytest.raises(TheraflowError, match="a and b hold the point and are equally large"):
        decided(say("reject", MASS), proposals=alike)


def test_a_candidate_left_out_does_not_hide_the_readers_region_around_it():
    """Rejecting the smaller candidate, which is left out anyway, would silently leave the reader's lesion."""
    proposals = [Proposal(ball(MASS, 9), False, "candidate", "C"), Proposal(ball(MASS, 18), True, "reader", "R")]
    assert not any(r.kept for r in decided(say("reject", MASS), proposals=proposals).values())
    with pytest.raises(TheraflowError, match="C and R are largely the same voxels"):
        decided(say("accept", MASS), proposals=proposals)


@pytest.mark.parametrize("radius", [9, 14, 22])
def test_a_candidate_takes_the_place_of_the_readers_region(radius):
    """At one point, whichever is smaller: what is accepted was left out, what is rejected was kept."""
    proposals = [Proposal(ball(MASS, radius), False, "candidate", "C"), Proposal(ball(MASS, 18), True, "reader", "R")]
    results = decided(say("accept", MASS), say("reject", MASS), proposals=proposals)
    assert [result.kept for result in results.values()] == [True, False]


@pytest.mark.parametrize(("away", "refused"), [(10.0, True), (16.0, True), (26.0, False)])
def test_what_is_accepted_may_overlap_a_little_with_another(away, refused):
    """Balls of 18 mm share 0.59, 0.38 and 0.10 of their volume: (1 - t)^2 (1 + t/2) for t = distance / diameter."""
    other = Proposal(ball(beside(MASS, x=-away), 18), False, "candidate", "C")
    if refused:
        with pytest.raises(TheraflowError, match="largely the same voxels"):
            decided(say("accept", beside(MASS, x=-away)), proposals=[other, PROPOSALS[2]])
    else:
        assert decided(say("accept", beside(MASS, x=-away)), proposals=[other, PROPOSALS[2]])["C"].kept


def test_verdicts_are_of_the_lesion_at_the_point():
    regions = {"L01": ball(MASS, 18), "L02": ball(NODE, 12), "L03": ball(MASS, 8)}
    decisions = [say("negative", MASS), say("positive", beside(MASS, x=14.0)), say("reject", FREE)]
    for order in (decisions, decisions[::-1]):
        assert verdicts(order, regions, GRID) == {"L01": True, "L03": False}
    assert verdicts([], regions, GRID) == {}


def test_verdicts_that_cannot_be_meant_are_refused():
    regions = {"L01": ball(MASS, 18)}
    with pytest.raises(TheraflowError, match=r"'positive' .* contradicts 'negative' .*both lie in L01"):
        verdicts([say("positive", MASS), say("negative", beside(MASS, x=4.0))], regions, GRID)
    with pytest.raises(TheraflowError, match=r"the nearest are L01"):
        verdicts([say("positive", NODE)], regions, GRID)


NESTED = [
    *PROPOSALS,
    Proposal(ball(MASS, 13), True, "reader", "fdg:core"),
    Proposal(ball(MASS, 7), True, "reader", "fdg:necrosis"),
    Proposal(ball(beside(NODE, z=50.0), 12), False, "candidate", "fdg:C03"),
]


def hot(values_seed):
    return np.random.default_rng(values_seed).uniform(1.0, 9.0, size=(60, 40, 60))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_row_of_the_draft_means_its_own_region(seed):
    sheet = draft("P1", "fdg", NESTED, hot(seed), GRID, {})
    for row, proposal in zip(sheet.to_dict("records"), NESTED, strict=True):
        word = "reject" if proposal.kept else "accept"
        results = decided(say(word, (row["x_mm"], row["y_mm"], row["z_mm"]), voxels=row["voxels"]), proposals=NESTED)
        changed = [r.key for r, before in zip(results.values(), NESTED, strict=True) if r.kept != before.kept]
        assert changed == [proposal.key]
        assert {type(row[axis]) for axis in ("x_mm", "y_mm", "z_mm", "voxels")} == {int}


def test_the_draft_says_what_the_program_did_and_where_it_is_hottest():
    values = np.ones((60, 40, 60))
    values[22, 15, 13] = 9.0  # x -68.5, y -20, z 399: in the node
    sheet = draft("P1", "fdg", PROPOSALS, values, GRID, {"fdg:C01": "L02"})
    assert tuple(sheet.columns) == DECISION_COLUMNS
    assert sheet["lesion"].tolist()[0] == "L02"
    assert tuple(sheet.loc[0, ["x_mm", "y_mm", "z_mm"]]) == (-68, -20, 399)
    assert sheet["remark"].tolist()[1:] == [
        f"fdg:C02, {PROPOSALS[1].region.voxels * 0.048:.3g} mL: left out (physiologic uptake)",
        f"fdg:mass (mass), {PROPOSALS[2].region.voxels * 0.048:.3g} mL: kept",
    ]
    assert sheet["decision"].isna().all()


def test_the_point_of_a_draft_is_in_no_other_region():
    """Though the hottest voxel is: only so does every decision mean the row's own region."""
    beneath = Proposal(ball(beside(MASS, x=-24.0), 12), False, "candidate", "C")
    values = np.where(inside(MASS, 18), 9.0, 1.0)
    row = draft("P1", "fdg", [beneath, PROPOSALS[2]], values, GRID, {}).iloc[0]
    point = np.array([row["x_mm"], row["y_mm"], row["z_mm"]], float)
    assert np.linalg.norm(point - MASS) > 18.0
    assert np.linalg.norm(point - beside(MASS, x=-24.0)) < 12.0


def test_voxels_too_small_for_whole_millimetres_keep_their_point():
    grid = a_grid((0.7, 0.7, 0.7), (40, 40, 40), (0.0, 0.0, 0.0))
    proposals = [Proposal(ball((14.0, 14.0, 14.0), 3, grid), True, "candidate", "a")]
    values = np.zeros((40, 40, 40))
    values[19, 20, 22] = 1.0
    row = draft("P1", "fdg", proposals, values, grid, {}).iloc[0]
    assert [row["x_mm"], row["y_mm"], row["z_mm"]] == pytest.approx([15.4, 14.0, 13.3])


def sheet_of(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "decisions.tsv"
    path.write_bytes(text.encode(encoding))
    return read_decisions(path, SCHEMA, SCANS)


HEADER = "patient\tscan\tdecision\tx_mm\ty_mm\tz_mm\taxes\tvoxels\tname\tgroup\tremark\n"
PLAIN = HEADER + "P1\tfdg\trename\t-12.5\t30\t455.25\t\t120\tHüfte\t\t\n"
EXPECTED = {
    "patient": "P1", "scan": "fdg", "decision": "rename", "x_mm": -12.5, "y_mm": 30.0, "z_mm": 455.25, "voxels": 120.0,
    "name": "Hüfte",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8"),
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),  # Excel's "Unicode text", little-endian with its mark
        (PLAIN.replace("\n", "\r\n"), "utf-8-sig"),
        (PLAIN.replace("\n", "\r"), "utf-8"),  # Excel's text for an old Macintosh
        (PLAIN.replace("-12.5", "-12,5").replace("455.25", '"455,25"'), "utf-8"),
        (PLAIN + "\t" * 10 + "\n\n", "utf-8"),
        (PLAIN.replace("rename", "Rename ").replace("\t\t\t\n", "\tNA\tNA\t\t\t\n"), "utf-8"),
        (PLAIN.replace("-12.5\t30", "12.5\t-30").replace("\t\t120", "\tRAS\t120"), "utf-8"),
    ],
)
def test_what_a_spreadsheet_makes_of_the_sheet_is_read(tmp_path, text, encoding):
    assert sheet_of(tmp_path, text, encoding) == {"P1": [EXPECTED]}
    assert Decision(**EXPECTED).point_mm.tolist() == [-12.5, 30.0, 455.25]


ROW = "P1\tfdg\taccept\t1\t2\t3\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEADER + ROW.replace("\t1\t", "\t1,234\t"), "line 2, column 'x_mm': '1,234' is not of type 'number'"),
        (HEADER + ROW.replace("\t1\t", "\t120345\t"), "line 2, column 'x_mm': 120345.0 is greater than"),
        (HEADER + ROW.replace("\t1\t", "\t12. Mai\t"), "'12. Mai' is not of type 'number'"),
        (HEADER + ROW.replace("\t1\t", "\tnan\t"), "'nan' is not of type 'number'"),
        (HEADER + ROW.replace("\t1\t", "\t\t"), "line 2, 'x_mm' is a required property"),
        (HEADER + "\n" + ROW.replace("accept", "keep"), "line 3, column 'decision': 'keep' is not one of"),
        (HEADER.replace("decision\t", "") + "P1\tfdg\t1\t2\t3\n", "lacks the column 'decision'"),
        (HEADER.replace("\t", ";") + ROW, "lacks the column 'patient' (columns are separated by tabs)"),
        (HEADER + ROW.replace("P1", "P3"), "the sheet of scans has no scan 'fdg' of patient 'P3'"),
        (HEADER + ROW.replace("fdg", "pet"), "the sheet of scans has no scan 'pet' of patient 'P1'"),
        (HEADER + ROW.replace("accept", "rename"), "rename needs the new name"),
        (HEADER + ROW.replace("accept", "merge"), "merge needs a word in the column group"),
        (
            HEADER + ROW.replace("accept", "reject").replace("\n", "\t\t\tliver\n"),
            "a name has no meaning beside",
        ),
        (HEADER + ROW.replace("\n", "\t\t\t\tg\n"), "a group has no meaning beside accept"),
        (HEADER + ROW.replace("\n", "\tlps\n"), "column 'axes': 'lps' is not one of ['LPS', 'RAS']"),
        (HEADER + ROW.replace("fdg\taccept", "lu\tpositive"), "scan 'lu' measures activity"),
    ],
)
def test_what_a_sheet_cannot_mean_is_refused_with_its_place(tmp_path, text, sentence):
    with pytest.raises(TheraflowError) as error:
        sheet_of(tmp_path, text)
    assert sentence in str(error.value)
    assert "decisions.tsv" in str(error.value)


def test_letters_that_are_not_unicode_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(TheraflowError, match=r"decisions\.tsv cannot be read .*in Excel: Unicode text"):
        sheet_of(tmp_path, PLAIN, "cp1252")


def test_rows_of_a_patient_change_only_with_what_was_decided(tmp_path):
    rows = [ROW, ROW.replace("accept", "reject").replace("\t1\t", "\t50\t")]
    first = sheet_of(tmp_path, HEADER + "".join(rows))
    other = ROW.replace("P1", "P2")
    undecided = "P1\tfdg\tNA\tanything\t\t\n"
    again = sheet_of(tmp_path, HEADER + other + undecided + rows[1] + rows[0].replace("\n", "\t\t\t\t\twhy?\n"))
    assert first["P1"] == again["P1"]
    assert set(again) == {"P1", "P2"}


def test_a_draft_is_edited_saved_and_taken(tmp_path):
    path = tmp_path / "decisions_draft.tsv"
    sheet = draft("P1", "fdg", NESTED, hot(1), GRID, {})
    write_table(sheet, path, DECISION_COLUMNS)
    assert read_decisions(path, SCHEMA, SCANS) == {}  # undecided rows mean nothing
    sheet["decision"] = ["reject", "accept", None, "reject", None, None]
    write_table(sheet, path, DECISION_COLUMNS)
    rows = read_decisions(path, SCHEMA, SCANS)["P1"]
    results = apply_decisions(NESTED, [Decision(**row) for row in rows], GRID, grows)
    assert [result.kept for result in results] == [False, True, True, False, True, False]


def test_regions_keep_their_place_in_a_real_geometry():
    """Points go through SimpleITK's own geometry: a voxel's centre is the point of its region."""
    image = from_array(mask_of(PROPOSALS[0].region).astype(np.uint8), GRID)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(image)
    assert not decided(say("reject", statistics.GetCentroid(1)))["fdg:C01"].kept
