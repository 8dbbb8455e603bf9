"""RECIST 1.1: every rule with values on both sides of its border."""

import pytest

from theraflow.response import Measured, choose_targets, recist

NODE = "lymph node"


def lesion(longest, short=None, site="liver"):
    return Measured(site, longest, longest * 0.8 if short is None and longest is not None else short)


def named(*lesions):
    return {f"L{number:02d}": one for number, one in enumerate(lesions, start=1)}


@pytest.mark.parametrize(
    ("one", "measurable"),
    [
        (lesion(10.0), True),
        (lesion(9.9), False),
        (lesion(30.0, 15.0, NODE), True),
        (lesion(30.0, 14.9, NODE), False),
        (lesion(None), False),
        (lesion(12.0, 2.0, None), True),
    ],
)
def test_what_may_be_a_target(one, measurable):
    assert choose_targets(named(one)) == (["L01"] if measurable else [])


def test_targets_are_the_largest_five_and_two_of_a_site():
    livers = [lesion(size) for size in (50, 40, 30)]
    lungs = [lesion(size, site="lung") for size in (35, 25, 15)]
    bones = [lesion(size, site="bone") for size in (20, 18)]
    assert choose_targets(named(*livers, *lungs, *bones)) == ["L01", "L02", "L04", "L05", "L07"]


def test_lesions_of_unknown_site_count_as_one_site():
    assert choose_targets(named(*[lesion(size, site=None) for size in (50, 40, 30)])) == ["L01", "L02"]


@pytest.mark.parametrize(
    ("before", "now", "category"),
    [
        (100.0, 70.0, "PR"),  # -30 %: reached
        (100.0, 70.1, "SD"),
        (100.0, 120.0, "PD"),  # +20 %: reached
        (100.0, 119.9, "SD"),
        (20.0, 25.0, "PD"),  # +25 % and +5 mm: reached
        (20.0, 24.9, "SD"),  # +24.5 %, but +4.9 mm
        (100.0, 0.0, "CR"),
        (100.0, 5.0, "PR"),  # too small to measure is not gone
    ],
)
def test_sum_of_targets(before, now, category):
    response = recist(named(lesion(before)), named(lesion(now)), 0)
    assert response.category == category
    assert (response.baseline, response.followup) == (before, now)
    assert response.change_percent == pytest.approx(100 * (now - before) / before)


def test_progression_is_judged_against_the_smallest_sum_and_response_against_baseline():
    baseline, best, now = named(lesion(100.0)), named(lesion(50.0)), named(lesion(60.0))
    assert recist(baseline, now, 0).category == "PR"
    assert recist(baseline, now, 0, [best]).category == "PD"
    assert recist(baseline, named(lesion(59.9)), 0, [best]).category == "PR"


@pytest.mark.parametrize(("short", "category"), [(9.9, "CR"), (10.0, "PR"), (0.0, "CR")])
def test_a_node_below_10_mm_is_normal(short, category):
    response = recist(named(lesion(30.0, 20.0, NODE)), named(lesion(12.0, short, NODE)), 0)
    assert response.category == category
    assert response.baseline == 20.0  # the short axis is what is summed


@pytest.mark.parametrize(
    ("others", "category"),
    [((0.0,), "CR"), ((4.0,), "PR"), ((None,), "NE"), ((0.0, None), "NE"), ((4.0, None), "PR")],
)
def test_other_lesions_stand_between_the_targets_and_a_complete_response(others, category):
    before = named(lesion(40.0), *[lesion(8.0) for _ in others])
    now = named(lesion(0.0), *[lesion(size) for size in others])
    assert recist(before, now, 0).category == category


def test_a_new_lesion_is_progression_whatever_the_targets_do():
    assert recist(named(lesion(40.0)), named(lesion(0.0)), 1).category == "PD"
    assert recist({}, {}, 1).category == "PD"


def test_a_target_without_size_cannot_be_evaluated():
    response = recist(named(lesion(40.0), lesion(30.0)), named(lesion(40.0), lesion(None)), 0)
    assert (response.category, response.followup, response.change_percent) == ("NE", None, None)


@pytest.mark.parametrize(("now", "category"), [(0.0, "CR"), (8.0, "Non-CR/Non-PD"), (None, "NE")])
def test_without_targets_the_other_lesions_decide(now, category):
    response = recist(named(lesion(9.0)), named(lesion(now)), 0)
    assert (response.category, response.baseline) == (category, None)


def test_without_lesions_there_is_nothing_to_evaluate():
    assert recist({}, {}, 0).category == "NE"
