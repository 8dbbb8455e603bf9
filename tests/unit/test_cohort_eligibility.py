"""Eligibility: each criterion at its limit, and nothing assumed where something is missing."""

import pandas as pd
import pytest

from theraflow.cohort.eligibility import ALL_CRITERIA, judge_eligibility
from theraflow.errors import TheraflowError

UPTAKE = {"uptake": {"tracer": "pentixafor", "background": "liver", "at_least": 1.5}}
DOSE = {"dose": {"nuclide": "90Y", "activity_gbq": 5.0, "at_most_gy": {"kidneys": 20.0}, "lesions_at_least_gy": 10.0}}
LABORATORY = {
    "laboratory": {"neutrophils": {"at_least": 1.5, "unit": "10^9/L"}, "creatinine": {"at_most_uln": 1.5}}
}  # fmt: skip


def tbr(*ratios: float | None, patient: str = "P1") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient": patient,
            "tracer": "pentixafor",
            "timepoint": "baseline",
            "background_region": "liver",
            "tbr": ratios,
        }
    ).astype({"tbr": float})


def doses(rows: list[tuple[str, str, float | None]], patient: str = "P1") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["region", "kind", "dose_gy_per_gbq"])
    return table.assign(patient=patient, nuclide="90Y", sd_gy_per_gbq=0.1).astype({"dose_gy_per_gbq": float})


def laboratory(*rows: dict) -> pd.DataFrame:
    columns = ["patient", "cycle", "day", "parameter", "value", "unit", "uln"]
    return pd.DataFrame([{"patient": "P1", "cycle": 1.0, "day": -1.0, **row} for row in rows], columns=columns)


def judge(criteria: dict, **tables: pd.DataFrame) -> pd.DataFrame:
    empty = {
        "tbr": tbr(),
        "doses": doses([]),
        "laboratory": laboratory(),
        "facts": pd.DataFrame(columns=["patient"]),
    }
    return judge_eligibility(["P1"], criteria, **{**empty, **tables})


def verdicts(table: pd.DataFrame) -> list[str]:
    return table["verdict"].tolist()


@pytest.mark.parametrize(
    ("ratios", "verdict", "total", "value"),
    [
        ((1.5, 4.0), "met", "eligible", 1.5),
        ((1.49, 4.0), "not met", "not eligible", 1.49),
        ((2.0, None), "not assessable", "undecided", None),
        ((1.0, None), "not met", "not eligible", 1.0),  # whatever the other one is
        ((), "not assessable", "undecided", None),
    ],
)
def test_uptake_of_every_lesion(ratios, verdict, total, value):
    table = judge(UPTAKE, tbr=tbr(*ratios))
    assert verdicts(table) == [verdict, total]
    assert table["criterion"].tolist() == ["uptake of pentixafor in all lesions over liver", ALL_CRITERIA]
    if value is None:
        assert table["value"].isna().all()
        assert table["remark"].iloc[0]
    else:
        assert table["value"].iloc[0] == value


def test_lesions_at_follow_up_and_of_others_do_not_count():
    later = tbr(0.5).assign(timepoint="followup")
    other = tbr(0.5, patient="P2")
    fdg = tbr(0.5).assign(tracer="FDG")
    assert verdicts(judge(UPTAKE, tbr=pd.concat([tbr(2.0), later, other, fdg]))) == ["met", "eligible"]


def test_doses_of_each_kidney_and_of_every_lesion():
    own = [("kidney_left", "organ", 4.0), ("kidney_right", "organ", 4.01), ("L1", "lesion", 2.0), ("L2", "lesion", 1.9)]
    table = judge(DOSE, doses=doses(own))
    assert verdicts(table) == ["met", "not met", "not met", "not eligible"]
    assert table["value"].tolist()[:3] == pytest.approx([20.0, 20.05, 9.5])
    assert table["remark"].tolist()[2] == "L2, sd 0.5 Gy"
    assert table["limit"].tolist()[:3] == ["<= 20", "<= 20", ">= 10"]


def test_a_dose_that_is_missing_leaves_the_matter_open():
    own = [
        ("kidney_left", "organ", None),
        ("kidney_right", "organ", 1.0),
        ("L1", "lesion", 3.0),
        ("L2", "lesion", None),
    ]
    table = judge(DOSE, doses=doses(own))
    assert verdicts(table) == ["not assessable", "met", "not assessable", "undecided"]
    assert table["remark"].tolist()[0] == "no dose"
    assert table["remark"].tolist()[2] == "1 of 2 regions have no dose"
    assert verdicts(judge(DOSE)) == ["not assessable"] * 3 + ["undecided"]
    failing = [*own[:3], ("L3", "lesion", 1.0), ("L2", "lesion", None)]
    assert verdicts(judge(DOSE, doses=doses(failing)))[-1] == "not eligible"


def test_doses_of_another_nuclide_do_not_count():
    own = doses([("kidneys", "organ", 1.0), ("L1", "lesion", 9.0)]).assign(nuclide="177Lu")
    assert set(verdicts(judge(DOSE, doses=own))) == {"not assessable", "undecided"}


def test_the_last_values_before_therapy():
    rows = laboratory(
        {"parameter": "neutrophils", "value": 1000.0, "unit": "/uL", "day": -20.0},
        {"parameter": "neutrophils", "value": 1500.0, "unit": "/uL", "day": 0.0},
        {"parameter": "neutrophils", "value": 100.0, "unit": "/uL", "day": 10.0},
        {"parameter": "creatinine", "value": 1.8, "uln": 1.2},
    )
    table = judge(LABORATORY, laboratory=rows)
    assert verdicts(table) == ["met", "met", "eligible"]
    assert table["value"].tolist()[:2] == pytest.approx([1.5, 1.5])
    assert table["remark"].tolist()[0] == "day 0 of cycle 1"
    next_cycle = laboratory({"parameter": "neutrophils", "value": 1.0, "unit": "10^9/L", "cycle": 2.0, "day": -30.0})
    assert verdicts(judge(LABORATORY, laboratory=pd.concat([rows, next_cycle])))[0] == "not met"


def test_a_laboratory_value_that_is_missing():
    table = judge(LABORATORY, laboratory=laboratory({"parameter": "creatinine", "value": 1.0}))
    assert verdicts(table) == ["not assessable", "not assessable", "undecided"]
    assert table["remark"].tolist()[:2] == ["no value on day 0 or before", "the upper limit of normal is missing"]


def test_a_unit_that_cannot_be_compared():
    with pytest.raises(TheraflowError, match="The unit mg/dL of neutrophils is not known"):
        judge(LABORATORY, laboratory=laboratory({"parameter": "neutrophils", "value": 1.0, "unit": "mg/dL"}))


@pytest.mark.parametrize(
    ("facts", "verdict", "total"),
    [({"stem_cells": ["yes"]}, "met", "eligible"), ({"stem_cells": ["no"]}, "not met", "not eligible"),
     ({"stem_cells": [None]}, "not assessable", "undecided"), ({}, "not assessable", "undecided")],
)  # fmt: skip
def test_facts(facts, verdict, total):
    table = judge({"facts": {"stem_cells": "yes"}}, facts=pd.DataFrame({"patient": ["P1"], **facts}))
    assert verdicts(table) == [verdict, total]


def test_a_criterion_not_met_outweighs_an_open_one():
    table = judge({**UPTAKE, **LABORATORY}, tbr=tbr(0.1))
    assert verdicts(table)[-1] == "not eligible"


def test_every_patient_has_a_verdict():
    table = judge_eligibility(
        ["P2", "P1"], UPTAKE, tbr(2.0), doses([]), laboratory(), pd.DataFrame(columns=["patient"])
    )
    assert table["patient"].tolist() == ["P2", "P2", "P1", "P1"]
    assert verdicts(table) == ["not assessable", "undecided", "met", "eligible"]
