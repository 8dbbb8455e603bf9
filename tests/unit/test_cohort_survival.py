"""Kaplan-Meier against R and published examples; conventions of the median; dates; sheets with nothing or nonsense."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.cohort import compute_survival, fit_kaplan_meier, list_survival, median_time, read_survival
from theraflow.cohort.survival import list_curves
from theraflow.errors import TheraflowError

pytestmark = pytest.mark.filterwarnings("error")

# Freireich et al. 1963, Blood 21:699: weeks of remission, 6-mercaptopurine (9 relapses of 21) and placebo.
TREATED = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
# Miller 1981 (R: survival::aml), maintained: weeks to relapse.
MAINTAINED = "9 13 13+ 18 23 28+ 31 34 45+ 48 161+"
# The first 30 patients of R's survival::lung (Loprinzi et al. 1994), days; S is exactly 0.5 from 361 to 371.
LUNG = (
    "306 455 1010+ 210 883 1022+ 310 361 218 166 170 654 728 71 567 144 613 707 61 88 301 81 624 371 394 520 574 118 "
    "390 12"
)
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def sheet(times: str, column: str = "pfs") -> pd.DataFrame:
    cells = times.split()
    return pd.DataFrame(
        {
            "patient": [f"P{i}" for i in range(len(cells))],
            f"{column}_days": [float(cell.rstrip("+")) for cell in cells],
            f"{column}_event": [int(not cell.endswith("+")) for cell in cells],
        }
    )


def summary(times: str) -> pd.Series:
    return compute_survival(list_survival(sheet(times))).iloc[0]


def test_conventions_of_the_paper():
    """Hartlapp 2023, table 3: PFS 65, 28, 143, 176 d, all events; the text prints a median of 104 d (28-176 d).

    The curve is 0.5 from 65 to 143 d. lifelines takes its beginning, statsmodels its end, R's survfit and Prism its
    middle; only that agrees with the paper.
    """
    row = summary("65 28 143 176")
    assert (row["median_first_days"], row["median_days"], row["median_last_days"]) == (65, 104, 143)
    assert (row["n"], row["n_events"]) == (4, 4)
    assert row["times_days"] == "28 65 143 176"
    times = read_survival(sheet("65 28 143 176"))["PFS from therapy"]
    assert fit_kaplan_meier(times).median_survival_time_ == 65


def test_overall_survival_of_the_paper():
    row = compute_survival(list_survival(sheet("143 61 282 225", "os"))).iloc[0]
    assert row["endpoint"] == "OS from therapy"
    assert (row["median_first_days"], row["median_days"], row["median_last_days"]) == (143, 184, 225)


@pytest.mark.parametrize(
    # R 4.2, survival 3.5-3: survfit(..., conf.type = "log-log"): median, 0.95LCL, 0.95UCL.
    ("times", "median", "low", "high"),
    [
        ("65 28 143 176", 104, 28, np.nan),
        ("143 61 282 225", 184, 61, np.nan),
        (TREATED, 23, 13, np.nan),
        (PLACEBO, 8, 4, 11),
        (MAINTAINED, 31, 13, np.nan),
        (LUNG, 366, 210, 567),
        ("20 40+", 20, 20, np.nan),
        ("10 20+ 30+", np.nan, 10, np.nan),
        ("65+ 28+", np.nan, np.nan, np.nan),
        ("65+", np.nan, np.nan, np.nan),
        ("65", 65, np.nan, np.nan),
        ("65 65 65", 65, np.nan, np.nan),
    ],
)
def test_medians_and_limits_as_in_r(times, median, low, high):
    row = summary(times)
    found = row[["median_days", "ci_low_days", "ci_high_days"]].to_numpy(float)
    assert found == pytest.approx([median, low, high], nan_ok=True)


def test_steps_and_limits_as_in_r():
    # R 4.2: summary(survfit(...)) of the paper's four times.
    curve = list_curves(list_survival(sheet("65 28 143 176"))).set_index("days")
    expected = {
        0: (4, 1, np.nan, np.nan),
        28: (4, 0.75, 0.127946917595, 0.9605486423),
        65: (3, 0.50, 0.057847082995, 0.8448612812),
        143: (2, 0.25, 0.008947824417, 0.6653253428),
        176: (1, 0, np.nan, np.nan),
    }
    for days, values in expected.items():
        found = curve.loc[days, ["n_at_risk", "survival", "ci_low", "ci_high"]].to_numpy(float)
        assert found == pytest.approx(values, nan_ok=True, abs=1e-9)


def test_remissions_of_freireich():
    # S(t) of the treated as printed in the textbooks (Kleinbaum & Klein, table 2.1).
    treated = read_survival(sheet(TREATED))["PFS from therapy"]
    curve = fit_kaplan_meier(treated).survival_function_.iloc[:, 0]
    expected = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert curve.loc[list(expected)].to_list() == pytest.approx(list(expected.values()), abs=6e-4)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30, unique=True))
@settings(deadline=None)
def test_without_censoring_the_median_is_the_ordinary_one(days):
    """Uncensored, distinct times: the midpoint convention is the sample median."""
    curve = pd.Series([1 - (i + 1) / len(days) for i in range(len(days))], index=pd.Index(sorted(days), dtype=float))
    assert median_time(curve) == pytest.approx(np.median(days))


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=20))
@settings(deadline=None, max_examples=30)
def test_the_conventions_enclose_each_other(times):
    row = summary(" ".join(f"{days}{'' if event else '+'}" for days, event in times))
    first, median, last = row[["median_first_days", "median_days", "median_last_days"]]
    if not np.isnan(last):
        assert first <= median <= last
    assert np.isnan(first) == np.isnan(median)


def test_sheet_without_survival_columns_gives_an_empty_table():
    found = list_survival(pd.DataFrame({"patient": ["P1"], "age_y": [20]}), {"P1": datetime.date(2020, 1, 1)})
    assert found.empty
    assert list(compute_survival(found).columns)[:2] == ["endpoint", "n"]
    assert compute_survival(found).empty
    assert list_curves(found).empty


def test_untreated_patients_are_named_and_words_understood():
    patients = pd.DataFrame(
        {"patient": ["P1", "P2", "P3"], "os_days": [10, np.nan, 30], "os_event": ["True", np.nan, "False"]}
    )
    times = read_survival(patients)["OS from therapy"]
    assert times["patient"].to_list() == ["P1", "P3"]
    assert times["event"].to_list() == [True, False]
    row = compute_survival(list_survival(patients)).iloc[0]
    assert (row["n"], row["n_missing"], row["missing"]) == (2, 1, "P2: no os_days")


def test_nobody_treated_is_a_row_without_numbers():
    patients = pd.DataFrame({"patient": ["P1", "P2"], "pfs_days": [np.nan, np.nan], "pfs_event": [np.nan, np.nan]})
    row = compute_survival(list_survival(patients)).iloc[0]
    assert (row["n"], row["n_events"], row["n_missing"]) == (0, 0, 2)
    assert np.isnan(row["median_days"])


DATES = {
    "patient": ["P1", "P2", "P3", "P4"],
    "diagnosis_date": ["2015-01-01", "2016-03-01", "2017-01-10", "2018-05-05"],
    "chemotherapy_date": ["2015-01-21", "2016-03-11", "2017-01-20", None],
    "therapy_date": ["2016-02-01", None, "2018-01-01", None],
    "first_progression_date": ["2015-07-01", None, "2017-09-01", None],
    "progression_date": ["2016-04-06", None, None, None],
    "last_assessment_date": ["2016-04-06", "2017-05-01", "2018-03-02", "2018-11-05"],
    "death_date": ["2016-06-23", "2017-06-09", None, None],
    "last_contact_date": [None, None, "2018-12-27", "2019-05-05"],
}


def test_times_by_dates_counted_by_hand():
    # P2 began therapy with a cycle of 2017-03-01 and died without progression: an event of both. P4 was not treated.
    times = list_survival(pd.DataFrame(DATES), {"P2": datetime.date(2017, 3, 1)}).set_index(["endpoint", "patient"])
    expected = {
        "PFS from therapy": {"P1": (65, 1), "P2": (100, 1), "P3": (60, 0)},
        "OS from therapy": {"P1": (143, 1), "P2": (100, 1), "P3": (360, 0)},
        "PFS from diagnosis": {"P1": (181, 1), "P2": (465, 1), "P3": (234, 1), "P4": (184, 0)},
        "OS from diagnosis": {"P1": (539, 1), "P2": (465, 1), "P3": (716, 0), "P4": (365, 0)},
        "PFS from first chemotherapy": {"P1": (161, 1), "P2": (455, 1), "P3": (224, 1)},
        "OS from first chemotherapy": {"P1": (519, 1), "P2": (455, 1), "P3": (706, 0)},
    }
    for endpoint, patients in expected.items():
        for patient, (days, event) in patients.items():
            assert tuple(times.loc[(endpoint, patient), ["days", "event"]]) == (days, event), (endpoint, patient)
    assert times.loc[("OS from therapy", "P4"), "reason"] == "no therapy_date"
    assert times.loc[("PFS from first chemotherapy", "P4"), "reason"] == "no chemotherapy_date"
    assert compute_survival(times.reset_index())["n"].to_list() == [3, 3, 4, 4, 3, 3]


def test_a_progression_after_therapy_alone_does_not_tell_the_first_one():
    """Without the first progression the patient would be free of it until death, a year too long."""
    rows = {**{column: cells[:1] for column, cells in DATES.items()}, "first_progression_date": [None]}
    times = list_survival(pd.DataFrame(rows)).set_index("endpoint")
    assert times.loc["PFS from therapy", "days"] == 65
    for endpoint in ("PFS from diagnosis", "PFS from first chemotherapy"):
        assert np.isnan(times.loc[endpoint, "days"])
        assert times.loc[endpoint, "reason"] == "progression_date without first_progression_date"
    assert times.loc["OS from diagnosis", "days"] == 539


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"first_progression_date": ["2016-05-01"]}, r"first_progression_date of P1 \(2016-05-01\) is after progr"),
        ({"first_progression_date": ["2016-03-01"], "progression_date": [None]}, "progression_date is empty"),
    ],
)
def test_progressions_that_contradict_each_other_are_refused(changes, words):
    rows = {**{column: cells[:1] for column, cells in DATES.items()}, **changes}
    with pytest.raises(TheraflowError, match=words):
        list_survival(pd.DataFrame(rows))


def test_patient_of_whom_no_end_is_known_has_the_reason():
    patients = pd.DataFrame(DATES).iloc[[3]].assign(last_contact_date=None)
    times = list_survival(patients).set_index("endpoint")
    assert times.loc["OS from diagnosis", "reason"] == "neither death_date, nor last_contact_date after diagnosis_date"


def test_days_of_one_patient_and_dates_of_another_stand_beside_each_other():
    patients = pd.DataFrame(DATES).assign(os_days=[np.nan, 70, np.nan, np.nan], os_event=[np.nan, 1, np.nan, np.nan])
    row = compute_survival(list_survival(patients)).set_index("endpoint").loc["OS from therapy"]
    assert row["times_days"] == "70 143 360+"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"death_date": "2015-12-31"}, "death_date of P1 .2015-12-31. is before therapy_date"),
        ({"progression_date": "2016-07-01"}, "progression_date of P1 .2016-07-01. is after death_date"),
        ({"last_contact_date": "2016-07-01"}, "last_contact_date of P1 .2016-07-01. is after death_date"),
        ({"death_date": "23.06.2016"}, "death_date of P1 is '23.06.2016'; it must be a date as 2019-04-01"),
        ({"os_days": 144, "os_event": 1}, "P1 has 144 days .event 1. in os_days, but by its dates it is 143 days"),
    ],
)
def test_dates_that_contradict_are_refused(changes, words):
    patients = pd.DataFrame(DATES).iloc[[0]].assign(**changes)
    with pytest.raises(TheraflowError, match=words):
        list_survival(patients)


def test_patient_with_two_rows_is_refused():
    with pytest.raises(TheraflowError, match=r"patients\.tsv has more than one row of P1"):
        list_survival(pd.DataFrame({"patient": ["P1", "P1", "P2"], "os_days": [1, 2, 3], "os_event": 1}))


def test_start_of_therapy_in_two_sheets_must_be_one():
    with pytest.raises(TheraflowError, match="therapy_date of P1 is 2016-02-01, but the first cycle"):
        list_survival(pd.DataFrame(DATES), {"P1": datetime.date(2016, 2, 2)})


@pytest.mark.parametrize(
    ("days", "event", "word"), [(-1, 1, "days"), ("soon", 1, "days"), (5, 2, "event"), (5, np.nan, "event")]
)
def test_nonsense_is_refused_with_patient_and_column(days, event, word):
    patients = pd.DataFrame({"patient": ["P7"], "pfs_days": [days], "pfs_event": [event]})
    with pytest.raises(TheraflowError, match=f"patients.tsv: pfs_{word} of P7"):
        read_survival(patients)
