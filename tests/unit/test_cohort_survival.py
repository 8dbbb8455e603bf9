"""Kaplan-Meier against published examples; the midpoint convention; sheets that hold nothing or nonsense."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theraflow.cohort import compute_survival, fit_kaplan_meier, median_time, read_survival
from theraflow.errors import TheraflowError

pytestmark = pytest.mark.filterwarnings("error")

# Freireich et al. 1963, Blood 21:699: weeks of remission, 6-mercaptopurine (9 relapses of 21) and placebo.
TREATED = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
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
    return compute_survival(read_survival(sheet(times))).iloc[0]


def test_median_of_the_paper_is_the_midpoint():
    # Hartlapp 2023, table 3: PFS 65, 28, 143, 176 d, all events; the text prints a median of 104 d (range,
    # 28-176 d).
    row = summary("65 28 143 176")
    assert row["median_days"] == 104
    assert (row["n"], row["n_events"]) == (4, 4)
    assert (row["ci_low_days"], row["ci_high_days"]) == (28, 176)
    assert row["times_days"] == "28 65 143 176"


def test_overall_survival_of_the_paper():
    row = compute_survival(read_survival(sheet("143 61 282 225", "os"))).iloc[0]
    assert row["endpoint"] == "OS from therapy"
    assert row["median_days"] == 184
    assert (row["ci_low_days"], row["ci_high_days"]) == (61, 282)


def test_remissions_of_freireich():
    # Medians 23 and 8 weeks; S(t) of the treated as printed in the textbooks (Kleinbaum & Klein, table 2.1).
    treated = read_survival(sheet(TREATED))["PFS from therapy"]
    curve = fit_kaplan_meier(treated).survival_function_.iloc[:, 0]
    expected = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert curve.loc[list(expected)].to_list() == pytest.approx(list(expected.values()), abs=6e-4)
    assert summary(TREATED)["median_days"] == 23
    assert summary(PLACEBO)["median_days"] == 8
    # Brookmeyer & Crowley with log-log transformation, as SAS prints it: 13 to not reached, and 4 to 11.
    assert summary(TREATED)["ci_low_days"] == 13
    assert np.isnan(summary(TREATED)["ci_high_days"])
    assert (summary(PLACEBO)["ci_low_days"], summary(PLACEBO)["ci_high_days"]) == (4, 11)


@pytest.mark.parametrize("times", ["65+ 28+", "65+", "10 20+ 30+"])
def test_median_that_is_not_reached_is_missing(times):
    row = summary(times)
    assert np.isnan(row["median_days"])
    assert np.isnan(row["ci_high_days"])


@pytest.mark.parametrize("times", ["65", "65 65 65"])
def test_one_step_has_a_median_but_no_interval(times):
    row = summary(times)
    assert row["median_days"] == 65
    assert np.isnan([row["ci_low_days"], row["ci_high_days"]]).all()


def test_half_without_further_event_is_the_event_time():
    # S = 0.5 from day 20 to the end: there is no later step to average with (as in R's survfit).
    assert summary("20 40+")["median_days"] == 20


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30, unique=True))
def test_without_censoring_the_median_is_the_ordinary_one(days):
    """Uncensored, distinct times: the midpoint convention is the sample median."""
    curve = pd.Series([1 - (i + 1) / len(days) for i in range(len(days))], index=pd.Index(sorted(days), dtype=float))
    assert median_time(curve) == pytest.approx(np.median(days))


def test_sheet_without_survival_columns_gives_an_empty_table():
    found = read_survival(pd.DataFrame({"patient": ["P1"], "age_y": [20], "pfs_days": [3]}))
    assert found == {}
    assert list(compute_survival(found).columns)[:2] == ["endpoint", "n"]
    assert compute_survival(found).empty


def test_untreated_patients_are_left_out_and_words_understood():
    patients = pd.DataFrame(
        {"patient": ["P1", "P2", "P3"], "os_days": [10, np.nan, 30], "os_event": ["True", np.nan, "False"]}
    )
    times = read_survival(patients)["OS from therapy"]
    assert times["patient"].to_list() == ["P1", "P3"]
    assert times["event"].to_list() == [True, False]


@pytest.mark.parametrize(
    ("days", "event", "word"), [(-1, 1, "days"), ("soon", 1, "days"), (5, 2, "event"), (5, np.nan, "event")]
)
def test_nonsense_is_refused_with_patient_and_column(days, event, word):
    patients = pd.DataFrame({"patient": ["P7"], "pfs_days": [days], "pfs_event": [event]})
    with pytest.raises(TheraflowError, match=f"patients.tsv: pfs_{word} of P7"):
        read_survival(patients)
