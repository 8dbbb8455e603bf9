"""RECIST 1.1 (Eisenhauer et al. 2009): every rule with values on both sides of its border."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.response import Measured, best_response, choose_targets, confirmed_best_response
from theraflow.response.recist import (
    choose_non_targets,
    grown_nodes,
    non_target_response,
    recist,
    target_response,
)

NODE = "lymph node"


def lesion(longest, short=None, site="liver", slice_mm=3.0):
    return Measured(site, longest, longest * 0.8 if short is None and longest is not None else short, slice_mm)


def node(short, longest=30.0):
    return lesion(longest, short, NODE)


def named(*lesions):
    return {f"L{number:02d}": one for number, one in enumerate(lesions, start=1)}


@pytest.mark.parametrize(
    ("one", "measurable"),
    [
        (lesion(10.0), True),
        (lesion(9.9), False),
        (node(15.0), True),
        (node(14.9), False),
        (lesion(None), False),
        (lesion(12.0, 2.0, None), True),
        # Slices above 5 mm: at least twice their distance.
        (lesion(10.0, slice_mm=5.0), True),
        (lesion(10.1, slice_mm=5.1), False),
        (lesion(10.2, slice_mm=5.1), True),
        (lesion(15.9, slice_mm=8.0), False),
        (lesion(16.0, slice_mm=8.0), True),
        (lesion(30.0, 15.9, NODE, 8.0), False),
        (lesion(30.0, 16.0, NODE, 8.0), True),
        (lesion(30.0, slice_mm=None), False),
    ],
)
def test_what_may_be_a_target(one, measurable):
    assert choose_targets(named(one)) == (["L01"] if measurable else [])


@pytest.mark.parametrize(
    ("one", "disease"),
    [(node(10.0), True), (node(9.9), False), (node(14.9), True), (lesion(9.9), True), (lesion(None), True)],
)
def test_what_is_non_target_disease(one, disease):
    """Nodes of 10 to below 15 mm are pathological and no targets; below 10 mm they are normal."""
    assert choose_non_targets(named(one)) == (["L01"] if disease else [])


def test_a_normal_node_that_grows_is_shown_to_a_reader():
    before = named(node(9.9), node(12.0), lesion(9.0))
    assert grown_nodes(before, named(node(10.0), node(20.0), lesion(30.0))) == ["L01"]
    assert grown_nodes(before, named(node(9.9), node(20.0), lesion(30.0))) == []


def test_targets_are_the_largest_five_and_two_of_a_site():
    livers = [lesion(size) for size in (50, 40, 30)]
    lungs = [lesion(size, site="lung") for size in (35, 25, 15)]
    bones = [lesion(size, site="bone") for size in (20, 18)]
    assert choose_targets(named(*livers, *lungs, *bones)) == ["L01", "L02", "L04", "L05", "L07"]


def test_lesions_of_unknown_site_count_as_one_site():
    assert choose_targets(named(*[lesion(size, site=None) for size in (50, 40, 30)])) == ["L01", "L02"]


sizes = st.lists(
    st.tuples(st.floats(1, 120), st.floats(0.2, 1.0), st.sampled_from(["liver", "lung", NODE, None])), max_size=14
)


@given(sizes)
def test_no_choice_of_targets_breaks_the_limits(sizes):
    lesions = named(*[lesion(longest, longest * ratio, site) for longest, ratio, site in sizes])
    targets, others = choose_targets(lesions), choose_non_targets(lesions)
    sites = [lesions[name].site for name in targets]
    assert len(targets) <= 5 and all(sites.count(site) <= 2 for site in sites)
    assert not set(targets) & set(others)
    left_out = set(lesions) - set(targets) - set(others)
    assert all(lesions[name].site == NODE and lesions[name].short_mm < 10 for name in left_out)
    # What is measurable and not taken had to give way to one of its site, or to five.
    for name in others:
        if lesions[name].measurable:
            assert len(targets) == 5 or sites.count(lesions[name].site) == 2


@pytest.mark.parametrize(
    ("before", "now", "category"),
    [
        (100.0, 70.0, "PR"),  # -30.0 %: reached
        (100.0, 70.1, "SD"),  # -29.9 %
        (100.0, 120.0, "PD"),  # +20.0 %: reached
        (100.0, 119.9, "SD"),  # +19.9 %
        (20.0, 25.0, "PD"),  # +25 % and +5.0 mm: reached
        (20.0, 24.9, "SD"),  # +24.5 %, but +4.9 mm
        (100.0, 0.0, "CR"),
        (100.0, 5.0, "PR"),  # too small to measure is not gone
    ],
)
def test_sum_of_targets(before, now, category):
    response = recist(named(lesion(before)), named(lesion(now)), 0)
    assert (response.category, response.targets, response.non_targets) == (category, category, None)
    assert (response.baseline, response.followup, response.nadir) == (before, now, before)
    assert response.change_percent == pytest.approx(100 * (now - before) / before)


@pytest.mark.parametrize(("size", "summed"), [(0.0, 0.0), (0.1, 5.0), (4.9, 5.0), (5.0, 5.0), (5.1, 5.1)])
def test_what_is_present_counts_5_mm_at_least(size, summed):
    assert lesion(size).summed_mm == summed
    assert node(size, 12.0).summed_mm == summed
    assert recist(named(lesion(40.0)), named(lesion(size)), 0).followup == summed


def test_progression_is_judged_against_the_smallest_sum_and_response_against_baseline():
    baseline, best, now = named(lesion(100.0)), named(lesion(50.0)), named(lesion(60.0))
    assert recist(baseline, now, 0).category == "PR"
    response = recist(baseline, now, 0, [best])
    assert (response.category, response.nadir) == ("PD", 50.0)
    assert response.change_from_nadir_percent == pytest.approx(20.0)
    assert response.change_percent == pytest.approx(-40.0)
    assert recist(baseline, named(lesion(59.9)), 0, [best]).category == "PR"
    # The baseline is the smallest sum where all later ones are larger; one without sum is passed over.
    assert recist(baseline, named(lesion(119.9)), 0, [named(lesion(110.0)), named(lesion(None))]).nadir == 100.0


@pytest.mark.parametrize(("size", "category"), [(0.0, "CR"), (5.0, "PD"), (0.1, "PD")])
def test_a_target_that_comes_back_after_it_was_gone_is_progression(size, category):
    """Present means at least 5 mm, which is 5 mm and infinitely many percent above 0."""
    assert recist(named(lesion(40.0)), named(lesion(size)), 0, [named(lesion(0.0))]).category == category


@pytest.mark.parametrize(("short", "category"), [(9.9, "CR"), (10.0, "PR"), (0.0, "CR")])
def test_a_node_below_10_mm_is_normal(short, category):
    response = recist(named(node(20.0)), named(node(short, 12.0)), 0)
    assert response.category == category
    assert response.baseline == 20.0  # the short axis is what is summed
    assert response.followup == short  # normal nodes stay in the sum, so that a CR need not be 0 mm


def test_normal_nodes_are_a_complete_response_even_above_the_smallest_sum():
    baseline, best, now = (named(*[node(short) for short in pair]) for pair in ((20, 20), (5, 5), (9.9, 9.9)))
    assert recist(baseline, now, 0, [best]).category == "CR"


@pytest.mark.parametrize(
    ("sizes", "category"),
    [
        ((60.0, None), "PD"),  # 100 -> at least 60, nadir 50: +20 % and +10 mm without the missing one
        ((59.9, None), "NE"),
        ((0.0, None), "NE"),
        ((None, None), "NE"),
    ],
)
def test_missing_targets(sizes, category):
    assert target_response(100.0, 50.0, [lesion(size) for size in sizes]) == category


@pytest.mark.parametrize(
    ("gone", "unequivocal", "response"),
    [
        ((), False, "CR"),
        ((True, True), False, "CR"),
        ((True, False), False, "Non-CR/Non-PD"),
        ((True, None), False, "NE"),
        ((False, None), False, "NE"),
        ((True, False), True, "PD"),
        ((None,), True, "PD"),
    ],
)
def test_non_target_lesions(gone, unequivocal, response):
    assert non_target_response(gone, unequivocal) == response


# Targets, and what a follow-up makes of them.
TARGETS = {
    "CR": lesion(0.0),
    "PR": lesion(20.0),
    "SD": lesion(40.0),
    "PD": lesion(60.0),
    "NE": lesion(None),
}
# Other lesions: was present with 8 mm; PD is the reader's word.
OTHERS = {"CR": lesion(0.0), "Non-CR/Non-PD": lesion(8.0), "NE": lesion(None), "PD": lesion(30.0)}
TABLE_1 = [
    # targets, non-targets, new lesions, overall: every row of the paper's table 1, "any" spelt out
    ("CR", "CR", 0, "CR"),
    ("CR", "Non-CR/Non-PD", 0, "PR"),
    ("CR", "NE", 0, "PR"),
    ("PR", "CR", 0, "PR"),
    ("PR", "Non-CR/Non-PD", 0, "PR"),
    ("PR", "NE", 0, "PR"),
    ("SD", "CR", 0, "SD"),
    ("SD", "Non-CR/Non-PD", 0, "SD"),
    ("SD", "NE", 0, "SD"),
    ("NE", "CR", 0, "NE"),
    ("NE", "Non-CR/Non-PD", 0, "NE"),
    ("NE", "NE", 0, "NE"),
    *[("PD", other, new, "PD") for other in OTHERS for new in (0, 1)],
    *[(target, "PD", new, "PD") for target in TARGETS for new in (0, 1)],
    *[(target, other, 1, "PD") for target in TARGETS for other in OTHERS],
]
TABLE_2 = [
    ("CR", 0, "CR"),
    ("Non-CR/Non-PD", 0, "Non-CR/Non-PD"),
    ("NE", 0, "NE"),
    *[("PD", new, "PD") for new in (0, 1)],
    *[(other, 1, "PD") for other in OTHERS],
]


def test_the_tables_are_complete():
    assert {row[:3] for row in TABLE_1} == set(itertools.product(TARGETS, OTHERS, (0, 1)))
    assert {row[:2] for row in TABLE_2} == set(itertools.product(OTHERS, (0, 1)))


@pytest.mark.parametrize(("targets", "others", "new", "overall"), TABLE_1)
def test_overall_response_with_targets(targets, others, new, overall):
    before, now = named(lesion(40.0), lesion(8.0)), named(TARGETS[targets], OTHERS[others])
    response = recist(before, now, new, unequivocal_progression=others == "PD")
    assert (response.targets, response.non_targets, response.category) == (targets, others, overall)


@pytest.mark.parametrize(("others", "new", "overall"), TABLE_2)
def test_overall_response_without_targets(others, new, overall):
    response = recist(named(lesion(9.9)), named(OTHERS[others]), new, unequivocal_progression=others == "PD")
    assert (response.targets, response.non_targets, response.category) == (None, others, overall)
    assert (response.baseline, response.followup, response.nadir) == (None, None, None)


def test_without_disease_only_a_new_lesion_says_something():
    assert recist({}, {}, 0).category == "NE"
    assert recist({}, {}, 1).category == "PD"
    assert recist(named(node(9.0)), named(node(9.0)), 0).category == "NE"


def test_old_lesions_respond_but_new_ones_are_progression():
    """The paper's case (Hartlapp et al. 2023, patient 2) in diameters."""
    response = recist(named(lesion(60.0), lesion(30.0)), named(lesion(30.0), lesion(20.0)), 1)
    assert (response.targets, response.category) == ("PR", "PD")
    assert response.change_percent == pytest.approx(-100 * 40 / 90)


WEEK = 7
# Response at the first and at the second time point, weeks after baseline, best response without and with confirmation.
COURSES = [
    # The paper's table 3; the minimum duration of SD is 6 weeks.
    (("CR", 8), ("CR", 12), "CR", "CR"),
    (("CR", 8), ("PR", 12), "CR", "SD"),  # disease after a CR is PD, so what remains is SD of 8 weeks
    (("CR", 5), ("PR", 12), "CR", "PD"),
    (("CR", 8), ("SD", 12), "CR", "SD"),
    (("CR", 5), ("SD", 12), "CR", "PD"),
    (("CR", 8), ("PD", 12), "CR", "SD"),
    (("CR", 5), ("PD", 12), "CR", "PD"),
    (("CR", 8), ("NE", 12), "CR", "SD"),
    (("CR", 5), ("NE", 12), "CR", "NE"),
    (("PR", 8), ("CR", 12), "PR then CR", "PR"),
    (("PR", 8), ("PR", 12), "PR", "PR"),
    (("PR", 8), ("SD", 12), "PR", "SD"),
    (("PR", 8), ("PD", 12), "PR", "SD"),
    (("PR", 5), ("PD", 12), "PR", "PD"),
    (("PR", 8), ("NE", 12), "PR", "SD"),
    (("PR", 5), ("NE", 12), "PR", "NE"),
    (("NE", 8), ("NE", 12), "NE", "NE"),
    # SD must last 6 weeks from baseline; before that the next assessments decide.
    (("SD", 6), ("PD", 12), "SD", "SD"),
    (("SD", 5.9), ("PD", 12), "PD", "PD"),
    (("SD", 5.9), ("NE", 12), "NE", "NE"),
    (("SD", 5.9), ("SD", 6), "SD", "SD"),
    (("SD", 8), ("PR", 12), "PR", "SD"),
    (("PD", 8), ("CR", 12), "PD", "PD"),  # what comes after progression does not count
    (("NE", 8), ("PD", 12), "PD", "PD"),
]


@pytest.mark.parametrize(("first", "second", "best", "confirmed"), COURSES)
def test_best_response(first, second, best, confirmed):
    course = [(category, round(weeks * WEEK)) for category, weeks in (first, second)]
    assert best_response(course, 6 * WEEK) == ("CR" if best == "PR then CR" else best)
    assert confirmed_best_response(course, 6 * WEEK) == confirmed


@pytest.mark.parametrize(("days", "confirmed"), [(28, "PR"), (27, "SD")])
def test_confirmation_takes_four_weeks(days, confirmed):
    assert confirmed_best_response([("PR", 56), ("PR", 56 + days)], 42) == confirmed
    complete = confirmed_best_response([("CR", 56), ("CR", 56 + days)], 42)
    assert complete == ("CR" if confirmed == "PR" else "SD")


@pytest.mark.parametrize(
    ("categories", "confirmed"),
    [
        (("PR", "NE", "PR"), "PR"),
        (("PR", "SD", "PR"), "SD"),
        (("SD", "PR", "CR", "CR"), "CR"),
        (("PR", "CR", "NE", "PD"), "PR"),
        (("PR", "PD", "PR"), "SD"),
        ((), "NE"),
    ],
)
def test_confirmation_over_several_followups(categories, confirmed):
    course = [(category, 60 + 30 * place) for place, category in enumerate(categories)]
    assert confirmed_best_response(course, 42) == confirmed


def test_without_targets_what_persists_bears_its_own_name():
    course = [("Non-CR/Non-PD", 60), ("PD", 120)]
    assert best_response(course, 42, "Non-CR/Non-PD") == "Non-CR/Non-PD"
    assert confirmed_best_response([("CR", 60)], 42, "Non-CR/Non-PD") == "Non-CR/Non-PD"
    assert best_response([("Non-CR/Non-PD", 41), ("PD", 120)], 42, "Non-CR/Non-PD") == "PD"


def test_an_unknown_day_confirms_nothing_and_lasts_no_time():
    assert best_response([("PR", None)], 42) == "PR"
    assert confirmed_best_response([("PR", None), ("PR", None)], 42) == "NE"
    assert best_response([("SD", None), ("PD", None)], 42) == "NE"


@given(
    st.lists(
        st.tuples(st.sampled_from(["CR", "PR", "SD", "PD", "NE"]), st.integers(1, 400)),
        max_size=7,
        unique_by=lambda v: v[1],
    )
)
def test_confirmation_never_makes_a_response_better(visits):
    order = ["CR", "PR", "SD", "PD", "NE"]
    course = sorted(visits, key=lambda visit: visit[1])
    best, confirmed = best_response(course, 42), confirmed_best_response(course, 42)
    assert order.index(confirmed) >= order.index(best)
