"""CTCAE 5.0 grades: both sides of every published limit, typed here from the criteria's text."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.cohort.toxicity import grade_toxicity, grade_value, read_limits, worst_grades
from theraflow.errors import TheraflowError

# Lower limit of normal, then the lowest value of grade 1, 2, 3 (10.0 g/dL is grade 1, what is below is grade 2).
LOW = {
    "haemoglobin": ("g/dL", 13.5, (10.0, 8.0)),
    "leukocytes": ("10^9/L", 4.0, (3.0, 2.0, 1.0)),
    "neutrophils": ("10^9/L", 2.0, (1.5, 1.0, 0.5)),
    "platelets": ("10^9/L", 150.0, (75.0, 50.0, 25.0)),
    "lymphocytes": ("10^9/L", 1.0, (0.8, 0.5, 0.2)),
}
# Highest value of grade 0, 1, 2, 3 in upper limits of normal, baseline normal.
HIGH = {
    "creatinine": (1.0, 1.5, 3.0, 6.0),
    "bilirubin": (1.0, 1.5, 3.0, 10.0),
    "alt": (1.0, 3.0, 5.0, 20.0),
    "ast": (1.0, 3.0, 5.0, 20.0),
}
LOW_CASES = [
    case
    for parameter, (unit, lln, limits) in LOW.items()
    for grade, limit in enumerate((lln, *limits))
    for case in ((parameter, unit, lln, limit, grade), (parameter, unit, lln, limit * 0.999, grade + 1))
]
HIGH_CASES = [
    case
    for parameter, limits in HIGH.items()
    for grade, limit in enumerate(limits)
    for case in ((parameter, limit, grade), (parameter, limit * 1.001, grade + 1))
]


@pytest.mark.parametrize(("parameter", "unit", "lln", "value", "grade"), LOW_CASES)
def test_blood_counts_at_their_limits(parameter, unit, lln, value, grade):
    assert grade_value(parameter, value, unit, lln=lln) == (grade, "")


@pytest.mark.parametrize(("parameter", "factor", "grade"), HIGH_CASES)
@pytest.mark.parametrize("uln", [1.2, 35.0, 0.7])
def test_chemistry_at_its_limits(parameter, factor, grade, uln):
    # A baseline at the ULN is normal, and for creatinine its limits then are those of the ULN.
    assert grade_value(parameter, factor * uln, uln=uln, baseline=uln) == (grade, "")


@pytest.mark.parametrize(
    ("parameter", "ratio", "grade"),
    [("bilirubin", 1.0, 0), ("bilirubin", 1.01, 1), ("bilirubin", 1.5, 1), ("bilirubin", 1.51, 2),
     ("bilirubin", 3.0, 2), ("bilirubin", 3.01, 3), ("bilirubin", 10.0, 3), ("bilirubin", 10.1, 4),
     ("alt", 1.49, 0), ("alt", 1.5, 1), ("alt", 3.0, 1), ("alt", 3.01, 2), ("alt", 5.0, 2), ("alt", 5.01, 3),
     ("ast", 20.0, 3), ("ast", 20.1, 4)],
)  # fmt: skip
def test_an_abnormal_baseline_is_its_own_measure(parameter, ratio, grade):
    assert grade_value(parameter, ratio * 90.0, uln=40.0, baseline=90.0) == (grade, "")


@pytest.mark.parametrize(
    ("value", "grade"), [(0.45, 0), (0.46, 2), (0.9, 2), (0.91, 3), (1.0, 3)]
)  # 1.5 and 3 times a baseline of 0.3, all within the ULN of 1.0
def test_creatinine_rises_from_its_baseline(value, grade):
    assert grade_value("creatinine", value, uln=1.0, baseline=0.3) == (grade, "")


@pytest.mark.parametrize(
    ("parameter", "value", "unit", "same", "other"),
    [("haemoglobin", 7.9, "g/dL", 79.0, "g/L"), ("haemoglobin", 8.0, "g/dL", 80.0, "g/L"),
     ("haemoglobin", 9.669, "g/dL", 6.0, "mmol/L"), ("neutrophils", 0.5, "10^9/L", 500.0, "/uL"),
     ("platelets", 25.0, "10^9/L", 25000.0, "/mm3"), ("leukocytes", 1.0, "10^9/L", 1.0, "G/L")],
)  # fmt: skip
def test_units(parameter, value, unit, same, other):
    assert grade_value(parameter, value, unit) == grade_value(parameter, same, other)


def test_what_is_missing_is_said_where_it_matters():
    assert grade_value("haemoglobin", 11.0, "g/dL") == (None, "no grade without the lower limit of normal")
    assert grade_value("haemoglobin", 9.0, "g/dL") == (2, "")
    assert grade_value("creatinine", 0.9, uln=1.0) == (None, "no grade without the value before therapy")
    assert grade_value("creatinine", 3.5, uln=1.0) == (3, "")  # a baseline could not raise it
    assert grade_value("creatinine", 7.0, uln=1.0) == (4, "")
    assert grade_value("bilirubin", 1.0, uln=1.2) == (0, "")
    assert grade_value("bilirubin", 30.0, uln=1.2) == (None, "no grade without the value before therapy")
    assert grade_value("alt", 50.0, baseline=20.0) == (None, "no grade without the upper limit of normal")
    reason = "no grade without the upper limit of normal and the value before therapy"
    assert grade_value("ast", 50.0) == (None, reason)


def test_what_has_no_limits_is_refused():
    with pytest.raises(TheraflowError, match="no CTCAE limits of 'ferritin'; graded are haemoglobin"):
        grade_value("ferritin", 1.0)
    with pytest.raises(TheraflowError, match="The unit mg/dL of platelets is not known; write one of 10"):
        grade_value("platelets", 1.0, "mg/dL")
    with pytest.raises(TheraflowError, match="The unit NA of haemoglobin"):
        grade_value("haemoglobin", 1.0)


@settings(deadline=None)
@given(st.sampled_from(sorted(LOW)), st.floats(0, 300), st.floats(0, 300))
def test_lower_counts_are_never_better(parameter, one, other):
    unit, lln, _ = LOW[parameter]
    worse, better = sorted((one, other))
    assert grade_value(parameter, worse, unit, lln=lln)[0] >= grade_value(parameter, better, unit, lln=lln)[0]


@settings(deadline=None)
@given(st.sampled_from(sorted(HIGH)), st.floats(0, 1000), st.floats(0, 1000), st.floats(1, 100), st.floats(1, 100))
def test_higher_chemistry_is_never_better(parameter, one, other, uln, baseline):
    better, worse = sorted((one, other))
    grades = [grade_value(parameter, value, uln=uln, baseline=baseline)[0] for value in (better, worse)]
    assert grades[0] <= grades[1]


def test_anaemia_has_no_fourth_grade_by_value():
    limits = read_limits()
    assert limits.loc[limits["parameter"] == "haemoglobin", "grade"].max() == 3
    assert grade_value("haemoglobin", 1.0, "g/dL") == (3, "")


def sheet(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame([{"patient": "P1", "cycle": 1.0, **row} for row in rows])


def test_table_and_worst_grades():
    graded = grade_toxicity(
        sheet(
            {"day": 7, "parameter": "platelets", "value": 60.0, "unit": "10^9/L"},
            {"day": 14, "parameter": "platelets", "value": 24.0, "unit": "10^9/L"},
            {"day": 21, "parameter": "platelets", "value": 120.0, "unit": "10^9/L"},
            {"parameter": "febrile_neutropenia", "grade": 3.0},
            {"parameter": "ast", "value": 90.0, "uln": 40.0},
            {"cycle": 2.0, "parameter": "platelets", "value": 200.0, "unit": "10^9/L", "lln": 150.0},
        )
    )
    assert graded["grade"].tolist()[:2] == [2, 4]
    assert graded["remark"].tolist()[2] == "no grade without the lower limit of normal"
    worst = worst_grades(graded).set_index(["cycle", "parameter"])
    assert worst.loc[(1.0, "platelets"), "grade"] == 4
    assert worst.loc[(1.0, "platelets"), "n_ungraded"] == 1
    assert worst.loc[(1.0, "platelets"), "remark"] == "at least this: 1 of 3 values have no grade"
    assert worst.loc[(1.0, "febrile_neutropenia"), "grade"] == 3
    assert pd.isna(worst.loc[(1.0, "ast"), "grade"])  # never 0 for what is not known
    assert worst.loc[(2.0, "platelets"), "grade"] == 0


def test_a_stated_grade_stands_and_a_difference_is_told():
    row = grade_toxicity(sheet({"parameter": "haemoglobin", "value": 7.0, "unit": "g/dL", "grade": 4.0})).iloc[0]
    assert (row["grade"], row["grade_laboratory"]) == (4, 3)
    assert row["remark"] == "the laboratory value gives grade 3"


def test_a_counted_value_with_a_stated_grade_needs_no_limits():
    row = grade_toxicity(sheet({"parameter": "ferritin", "value": 900.0, "unit": "ug/L", "grade": 1.0})).iloc[0]
    assert row["grade"] == 1
    assert pd.isna(row["grade_laboratory"])


def test_a_bad_row_is_named():
    with pytest.raises(TheraflowError, match=r"patient P1, cycle 1.*unit mmol of platelets"):
        grade_toxicity(sheet({"parameter": "platelets", "value": 60.0, "unit": "mmol"}))
