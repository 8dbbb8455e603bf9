"""Swimmer plot and survival: days of events from dates, from counts and from the sheets beside."""

import pandas as pd
import pytest

from theraflow.cohort.figures.course import (
    DEATH,
    PROGRESSION,
    THERAPY,
    collect_events,
    draw_survival,
    draw_swimmers,
    events_of,
)
from theraflow.errors import TheraflowError

NO_SURVIVAL = {}


def days(events, kind):
    return {event.patient: event.start for event in events if event.kind == kind}


def test_days_count_from_the_first_cycle():
    rows = [
        {"patient": "P1", "event": "chemotherapy", "date": "2019-12-02", "end_date": "2019-12-30"},
        {"patient": "P1", "event": "surgery", "date": "2020-02-01"},
    ]
    cycles = [
        {"patient": "P1", "cycle": 2.0, "date": "2020-03-01"},
        {"patient": "P1", "cycle": 1.0, "date": "2020-01-01"},
    ]
    events, origin = collect_events(events_of(rows), cycles, NO_SURVIVAL)
    assert origin == "the first cycle of therapy"
    assert days(events, "chemotherapy") == {"P1": -30.0}
    assert [event.end for event in events if event.kind == "chemotherapy"] == [-2.0]
    assert days(events, "surgery") == {"P1": 31.0}
    # 2020 is a leap year: 31 + 29 days.
    assert sorted(event.start for event in events if event.kind == THERAPY) == [0.0, 60.0]


def test_days_count_from_the_diagnosis_where_all_have_one():
    rows = [
        {"patient": "P1", "event": "diagnosis", "date": "2020-01-01"},
        {"patient": "P1", "event": "surgery", "date": "2020-01-11"},
        {"patient": "P2", "event": "surgery", "day": 5.0, "since": "diagnosis"},
    ]
    events, origin = collect_events(events_of(rows), [], NO_SURVIVAL)
    assert origin == "the diagnosis"
    assert days(events, "surgery") == {"P1": 10.0, "P2": 5.0}


def test_a_patient_of_the_cycles_alone_keeps_a_lane():
    """P2 has no diagnosis to count from: the therapy, which both have, is where days begin."""
    rows = [
        {"patient": "P1", "event": "diagnosis", "date": "2019-01-01"},
        {"patient": "P1", "event": "surgery", "date": "2020-01-11"},
    ]
    cycles = [{"patient": name, "cycle": 1.0, "date": "2020-01-01"} for name in ("P1", "P2")]
    events, origin = collect_events(events_of(rows), cycles, NO_SURVIVAL)
    assert origin == "the first cycle of therapy"
    assert days(events, THERAPY) == {"P1": 0.0, "P2": 0.0}
    assert days(events, "surgery") == {"P1": 10.0}


def test_what_has_no_day_stays_without_one():
    rows = [
        {"patient": "P1", "event": "surgery", "timing": "before imaging"},
        {"patient": "P1", "event": "radiotherapy", "day": 12.0, "since": "surgery"},
        {"patient": "P2", "event": "surgery", "date": "2020-01-11"},  # no therapy to count from
        {"patient": "P1", "event": THERAPY, "cycle": 1.0, "day": 0.0, "since": "radioligand therapy, cycle 1"},
    ]
    events, _ = collect_events(events_of(rows), [], NO_SURVIVAL)
    assert days(events, "surgery") == {"P1": None, "P2": None}
    assert days(events, "radiotherapy") == {"P1": None}
    assert days(events, THERAPY) == {"P1": 0.0}


def test_lanes_are_drawn_in_their_order():
    """And not in that of a set, which differs from run to run: the same events give the same file."""
    cycles = [{"patient": f"P{number:02d}", "cycle": 1.0, "date": "2020-01-01"} for number in range(20)]
    events, origin = collect_events([], cycles, NO_SURVIVAL)
    (axes,) = draw_swimmers(events, origin).figure.axes
    heights = [bar.get_y() for bar in axes.patches]
    assert len(heights) == 20
    assert heights == sorted(heights)


def test_an_event_told_twice_is_drawn_once():
    # As the study's sheet: death counted from either cycle, the second cycle without a day.
    rows = [
        {"patient": "P2", "event": THERAPY, "cycle": 1.0, "day": 0.0, "since": "radioligand therapy, cycle 1"},
        {"patient": "P2", "event": THERAPY, "cycle": 2.0, "timing": "after imaging"},
        {"patient": "P2", "event": "death", "day": 61.0, "since": "radioligand therapy, cycle 1"},
        {"patient": "P2", "event": "death", "day": 15.0, "since": "radioligand therapy, cycle 2"},
    ]
    overall = pd.DataFrame({"patient": ["P2"], "days": [61.0], "event": [True]})
    cycles = [
        {"patient": "P2", "cycle": 1.0, "date": "2016-10-31"},
        {"patient": "P2", "cycle": 2.0, "date": "2016-12-16"},
    ]
    events, _ = collect_events(events_of(rows), cycles, {"OS from therapy": overall})
    assert [event.start for event in events if event.kind == DEATH] == [61.0]
    assert sorted(event.start for event in events if event.kind == THERAPY) == [0.0, 46.0]


def test_progression_and_end_come_from_survival_and_a_death_is_no_progression():
    overall = pd.DataFrame({"patient": ["P1", "P2", "P3"], "days": [143.0, 61.0, 90.0], "event": [True, True, False]})
    free = pd.DataFrame({"patient": ["P1", "P2", "P3"], "days": [65.0, 61.0, 90.0], "event": [True, True, False]})
    events, _ = collect_events([], [], {"OS from therapy": overall, "PFS from therapy": free})
    assert days(events, DEATH) == {"P1": 143.0, "P2": 61.0}
    assert days(events, "last_contact") == {"P3": 90.0}
    assert days(events, PROGRESSION) == {"P1": 65.0}


def test_a_date_that_is_none_is_refused():
    with pytest.raises(TheraflowError, match=r"cycles\.tsv: date of P1 is '1\.4\.2020'; it must be a date"):
        collect_events([], [{"patient": "P1", "cycle": 1.0, "date": "1.4.2020"}], NO_SURVIVAL)


def test_swimmers_are_drawn_at_their_days_and_in_months_where_it_is_long():
    rows = [
        {"patient": "P1", "event": "surgery", "timing": "before imaging"},
        {"patient": "P1", "event": THERAPY, "day": 0.0, "since": "radioligand therapy"},
        {"patient": "P1", "event": "death", "day": 608.75, "since": "radioligand therapy"},
    ]
    drawing = draw_swimmers(*collect_events(events_of(rows), [], NO_SURVIVAL))
    without_scale, axis = drawing.figure.axes
    assert axis.get_xlabel() == "months from the first cycle of therapy"
    places = {line.get_marker(): float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() != "None"}
    assert places["|"] == pytest.approx(20.0)  # 608.75 d / 30.4375 d
    assert [text.get_text() for text in without_scale.texts] == ["before imaging"]
    assert drawing.n == 3
    assert "before imaging" in drawing.caption


def test_no_swimmers_without_events_or_with_too_many_lanes():
    assert draw_swimmers([], "").figure is None
    crowd = [{"patient": f"P{i}", "event": "surgery", "timing": "before"} for i in range(40)]
    drawing = draw_swimmers(*collect_events(events_of(crowd), [], NO_SURVIVAL))
    assert drawing.reason.startswith("40 patients do not fit")


def test_survival_curve_has_the_papers_steps():
    times = pd.DataFrame({"patient": list("abcd"), "days": [28.0, 65.0, 143.0, 176.0], "event": [True] * 4})
    drawing = draw_survival({"PFS from therapy": times})
    axes = drawing.figure.axes[0]
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 5)
    assert curve.get_xdata().tolist() == [0, 28, 65, 143, 176]
    assert curve.get_ydata().tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert [label.get_text().split("\n")[1] for label in axes.get_xticklabels()] == ["4", "3", "2", "1", "0"]
    assert "n = 4, 4 events" in drawing.caption
