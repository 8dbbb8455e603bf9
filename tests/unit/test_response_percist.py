"""PERCIST 1.0 (Wahl et al. 2009, table 7): every rule with values on both sides of its border."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.response import Reference, lean_body_mass_kg
from theraflow.response.percist import (
    Acquisition,
    Lesion,
    acquisition_faults,
    any_left,
    hottest,
    hottest_peaks,
    is_comparable,
    is_left,
    is_measurable,
    overruled,
    percist,
    reference_of_pair,
    risen,
    tlg_change_percent,
)

# baseline, follow-up, any lesion left at follow-up, new lesions -> category
CASES = [
    (10.0, 7.0, True, 0, "PMR"),  # -30 %: reached
    (10.0, 7.01, True, 0, "SMD"),  # -29.9 %
    (10.0, 13.0, True, 0, "PMD"),  # +30 %: reached
    (10.0, 12.99, True, 0, "SMD"),  # +29.9 %
    (2.0, 1.2, True, 0, "PMR"),  # -40 %, -0.80 units: reached
    (2.0, 1.21, True, 0, "SMD"),  # -39.5 %, but -0.79 units
    (2.0, 1.2001, True, 0, "SMD"),
    (2.0, 2.8, True, 0, "PMD"),  # +40 %, +0.80 units: reached
    (2.0, 2.79, True, 0, "SMD"),  # +0.79 units
    (2.4, 1.68, True, 0, "SMD"),  # -30 %, but -0.72 units
    (10.0, 10.0, True, 0, "SMD"),
    (10.0, 1.0, False, 0, "CMR"),
    (10.0, 9.9, False, 0, "CMR"),  # the reader calls nothing positive
    (10.0, 2.0, True, 1, "PMD"),  # the paper's patient 2: old lesions respond, new ones appear
    (10.0, 1.0, True, 3, "PMD"),
    (10.0, 1.0, False, 1, "PMD"),  # no CMR with a new lesion
    (None, 5.0, True, 1, "PMD"),
    (None, 5.0, True, 0, "NE"),
    (None, None, False, 0, "NE"),
    (10.0, None, None, 0, "NE"),
    (10.0, 2.0, None, 0, "NE"),  # what could not be measured might be left
]


@pytest.mark.parametrize(("baseline", "followup", "left", "new", "category"), CASES)
def test_category(baseline, followup, left, new, category):
    assert percist(baseline, followup, left, new).category == category


@pytest.mark.parametrize(
    ("baseline", "followup", "further", "category"),
    [
        # Nothing measurable at baseline: only a new lesion can be judged.
        (2.0, 1.0, {"measurable": True}, "PMR"),
        (2.0, 1.0, {"measurable": False}, "NE"),
        (2.0, 9.0, {"measurable": False}, "NE"),
        (2.0, 1.0, {"measurable": None}, "PMR"),
        # The hottest fell enough, but another lesion rose by more than 30 %: no PMR.
        (10.0, 5.0, {"any_risen": True}, "SMD"),
        (10.0, 13.0, {"any_risen": True}, "PMD"),
        # Extent: TLG +75 % with no decline of the peak.
        (10.0, 10.0, {"tlg_change_percent": 75.0}, "PMD"),
        (10.0, 10.0, {"tlg_change_percent": 74.9}, "SMD"),
        (10.0, 9.9, {"tlg_change_percent": 200.0}, "SMD"),
        (10.0, 5.0, {"tlg_change_percent": 200.0}, "PMR"),
    ],
)
def test_what_else_decides(baseline, followup, further, category):
    assert percist(baseline, followup, True, 0, **further).category == category


def test_a_new_lesion_is_progression_even_where_nothing_is_measurable():
    assert percist(2.0, 1.0, True, 1, measurable=False).category == "PMD"


def test_change_is_in_percent_of_the_baseline():
    response = percist(8.0, 6.0, True, 0)
    assert (response.baseline, response.followup, response.change_percent) == (8.0, 6.0, -25.0)
    assert percist(None, 6.0, True, 1).change_percent is None


@given(st.floats(0.1, 50.0), st.floats(0.1, 50.0))
def test_response_and_progression_are_never_claimed_on_less_than_30_percent_and_0_8_units(before, now):
    category = percist(before, now, True, 0).category
    far = abs(now - before) >= 0.3 * before - 1e-6 and abs(now - before) >= 0.8 - 1e-6
    assert category in ({"PMR", "PMD", "SMD"} if far else {"SMD"})
    assert category != ("PMR" if now > before else "PMD")


def liver(mean, sd=0.2):
    return Reference("liver", mean, sd, 14.0, (0.0, 0.0, 0.0))


def blood(mean, sd=0.1):
    return Reference("blood_pool", mean, sd, 1.6, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("peak", "reference", "measurable"),
    [
        (3.4, liver(2.0), True),  # 1.5 x 2.0 + 2 x 0.2
        (3.39, liver(2.0), False),
        (3.2, blood(1.5), True),  # 2.0 x 1.5 + 2 x 0.1
        (3.19, blood(1.5), False),
    ],
)
def test_measurable_at_baseline(peak, reference, measurable):
    assert is_measurable(peak, reference) is measurable


@pytest.mark.parametrize(
    ("peak", "of_liver", "of_blood", "left"),
    [
        (1.69, liver(2.0), blood(1.5), False),  # below the liver's mean, within 1.5 + 2 x 0.1
        (1.71, liver(2.0), blood(1.5), True),  # to be told from blood
        (1.99, liver(2.0), blood(1.5, 0.5), False),
        (2.0, liver(2.0), blood(1.5, 0.5), True),  # not below the liver's mean
        (1.99, liver(2.0), None, False),
        (2.0, liver(2.0), None, True),
        (1.69, None, blood(1.5), False),
        (1.71, None, blood(1.5), True),
        (1.0, None, None, None),
    ],
)
def test_what_is_left_of_a_lesion(peak, of_liver, of_blood, left):
    assert is_left(peak, of_liver, of_blood) is left


@pytest.mark.parametrize(
    ("before", "now", "comparable"),
    [
        (1.0, 1.2, True),  # 20 %
        (1.0, 1.201, False),
        (1.0, 0.8, True),
        (1.0, 0.799, False),
        (2.0, 2.29, True),  # 0.29 units
        (2.0, 2.3, False),  # 0.3 units is no longer less than 0.3
        (2.0, 1.71, True),
        (2.0, 1.7, False),
    ],
)
def test_how_far_the_reference_may_change(before, now, comparable):
    assert is_comparable(liver(before), liver(now)) is comparable


def test_the_blood_pool_is_asked_where_the_liver_is_not_to_be_used():
    steady = {"liver": liver(2.0), "blood_pool": blood(1.5)}
    assert reference_of_pair(steady, steady) == ("liver", [])
    ill = {"liver": liver(2.6), "blood_pool": blood(1.6)}
    assert reference_of_pair(steady, ill) == (
        "blood_pool",
        ["mean of the liver changed from 2.00 to 2.60 g/mL"],
    )
    both = {"liver": liver(2.6), "blood_pool": blood(1.9)}
    assert reference_of_pair(steady, both)[0] is None
    assert len(reference_of_pair(steady, both)[1]) == 2
    assert reference_of_pair({"blood_pool": blood(1.5)}, steady) == ("blood_pool", [])
    assert reference_of_pair({}, steady) == (None, [])


GOOD = Acquisition(60.0, 300.0, "scanner A")


@pytest.mark.parametrize(
    ("before", "now", "fault"),
    [
        (GOOD, GOOD, None),
        (Acquisition(50.0, 300.0, "scanner A"), GOOD, None),
        (Acquisition(49.9, 300.0, "scanner A"), GOOD, "uptake time at baseline 49.9 min, asked 50 to 70"),
        (Acquisition(70.0, 300.0, "scanner A"), GOOD, None),
        (Acquisition(70.1, 300.0, "scanner A"), GOOD, "uptake time at baseline 70.1 min, asked 50 to 70"),
        (GOOD, Acquisition(75.0, 300.0, "scanner A"), None),
        (GOOD, Acquisition(75.1, 300.0, "scanner A"), "uptake times 15.1 min apart, asked 15 at most"),
        (GOOD, Acquisition(50.0, 300.0, "scanner A"), None),
        (GOOD, Acquisition(49.9, 300.0, "scanner A"), "uptake time at follow-up 49.9 min, asked at least 50"),
        (GOOD, Acquisition(60.0, 360.0, "scanner A"), None),
        (GOOD, Acquisition(60.0, 360.3, "scanner A"), "injected activities 20.1 % apart, asked 20 at most"),
        (GOOD, Acquisition(60.0, 240.0, "scanner A"), None),
        (GOOD, Acquisition(60.0, 239.7, "scanner A"), "injected activities 20.1 % apart, asked 20 at most"),
        (GOOD, Acquisition(60.0, 300.0, "scanner B"), "another scanner: scanner A, scanner B"),
    ],
)
def test_conditions_on_the_two_scans(before, now, fault):
    assert acquisition_faults(before, now) == ([] if fault is None else [fault], [])


@pytest.mark.parametrize(
    ("now", "unknown"),
    [
        (Acquisition(None, 300.0, "scanner A"), "uptake times"),
        (Acquisition(60.0, None, "scanner A"), "injected activities"),
        (Acquisition(60.0, 300.0, None), "scanner"),
    ],
)
def test_what_is_not_known_is_said_and_never_taken_for_good(now, unknown):
    assert acquisition_faults(GOOD, now) == ([], [unknown])
    assert acquisition_faults(now, GOOD) == ([], [unknown])


def one(name, peak, positive=True, site="lung", longest=None, tlg=None, by=None):
    return Lesion(name, site, peak, positive, longest, tlg, by)


@pytest.mark.parametrize(
    ("old", "new", "sentences"),
    [
        (one("L", 5.0), one("L", 6.5), []),  # +30.0 %: not more than 30 %
        (one("L", 5.0), one("L", 6.51), ["L rose by 30.2 % in uptake"]),
        (one("L", 5.0, False), one("L", 9.0), []),  # negative before: it is new or it is nothing
        (one("L", 5.0), one("M", 9.0), []),
        (one("L", 5.0, longest=20.0, by="reader"), one("L", 5.0, longest=26.0, by="reader"), []),
        (
            one("L", 5.0, longest=20.0, by="reader"),
            one("L", 5.0, longest=26.1, by="reader"),
            ["L rose by 30.5 % in size"],
        ),
        # Another way of outlining gives another size.
        (one("L", 5.0, longest=20.0, by="reader"), one("L", 5.0, longest=40.0, by="candidate"), []),
        (one("L", 5.0, longest=20.0, by="reader"), one("L", 5.0), []),
    ],
)
def test_a_lesion_that_rises(old, new, sentences):
    assert risen([old], [new]) == sentences


def test_tlg_is_compared_only_between_outlines_of_one_kind():
    before = [one("L", 5.0, tlg=100.0, by="reader"), one("M", 5.0, tlg=50.0, by="reader"), one("N", 1.0, False)]
    now = [one("L", 5.0, tlg=300.0, by="reader")]
    assert tlg_change_percent(before, now) == pytest.approx(100.0)
    assert tlg_change_percent(before, [one("L", 5.0, tlg=300.0, by="candidate")]) is None
    assert tlg_change_percent(before, [*now, one("M", 5.0)]) is None  # carried, not outlined there
    assert tlg_change_percent(before, []) is None


def test_five_hottest_and_two_an_organ():
    lesions = [
        one("A", 9.0, site="liver"), one("B", 8.0, site="liver"), one("C", 7.0, site="liver"),
        one("D", 6.0), one("E", 5.0), one("F", 4.5), one("G", 4.0, site="bone"), one("H", 3.0, site="bone"),
        one("I", 99.0, False), one("J", None),
    ]  # fmt: skip
    assert [lesion.name for lesion in hottest(lesions)] == ["A", "B", "D", "E", "G"]
    unknown = [one("A", 9.0, site=None), one("B", 8.0, site=None), one("C", 7.0, site=None)]
    assert [lesion.name for lesion in hottest(unknown)] == ["A", "B"]


def test_the_hottest_of_each_scan_are_compared():
    before = [one("A", 9.0), one("B", 5.0), one("C", 20.0, False)]
    assert hottest_peaks(before, [one("A", 2.0), one("B", 4.0), one("C", 20.0, False)]) == (9.0, 4.0)
    # Nothing is positive: the hottest place where a lesion was, not any place that never had one.
    gone = [one("A", 0.8, False), one("B", 1.1, False), one("C", 20.0, False)]
    assert hottest_peaks(before, gone) == (9.0, 1.1)
    assert hottest_peaks([], []) == (None, None)


REFERENCES = {"liver": liver(2.0), "blood_pool": blood(1.5)}


@pytest.mark.parametrize(
    ("now", "references", "read", "left"),
    [
        (one("A", 1.6, True), REFERENCES, False, False),  # above its surroundings, but below liver and blood pool
        (one("A", 2.4, False), REFERENCES, False, True),
        (one("A", 2.4, False), REFERENCES, True, False),  # the reader's word overrules
        (one("A", 1.6, True), REFERENCES, True, True),
        (one("A", 2.1, False, "liver"), REFERENCES, False, False),  # healed liver has the liver's uptake
        (one("A", 2.1, True, "liver"), REFERENCES, False, True),
        (one("A", 1.6, True), {}, False, True),
        (one("A", 9.0, False), {}, False, False),
        (one("A", None, None), REFERENCES, False, None),
    ],
)
def test_whether_a_lesion_is_left(now, references, read, left):
    before = [one("A", 9.0), one("B", 30.0, False)]
    never = one("B", 30.0, False)  # a place that never was positive on this tracer, as a bladder
    assert any_left(before, [now, never], references, read) is left


def test_one_lesion_left_is_enough_and_one_unknown_denies_a_complete_response():
    before = [one("A", 9.0), one("B", 8.0)]
    assert any_left(before, [one("A", None, None), one("B", 5.0)], REFERENCES, False) is True
    assert any_left(before, [one("A", None, None), one("B", 1.0)], REFERENCES, False) is None


def test_a_reader_who_sees_nothing_where_uptake_is_high_is_quoted():
    before = [one("A", 9.0), one("B", 9.0)]
    now = [one("A", 2.4, False), one("B", 1.0, False)]
    assert overruled(before, now, REFERENCES) == ["the reader sees no A, though its place has 2.40 g/mL"]


def test_lean_body_mass_of_janmahasatian():
    """By hand from the published equations: 9270 W / (6680 + 216 BMI), women 9270 W / (8780 + 244 BMI)."""
    assert lean_body_mass_kg(81.0, 180.0, "M") == pytest.approx(9270 * 81 / (6680 + 216 * 25))
    assert lean_body_mass_kg(81.0, 180.0, "M") == pytest.approx(62.158, abs=1e-3)
    assert lean_body_mass_kg(64.0, 160.0, "F") == pytest.approx(39.871, abs=1e-3)
    assert lean_body_mass_kg(64.0, 160.0, "O") is None
