"""The immunoreactive score against its published groups."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.cohort.expression import immunoreactive_score, percentage_points, score_class, score_expression
from theraflow.errors import TheraflowError

percentages = st.floats(0.01, 100)


@pytest.mark.parametrize(
    ("percent", "points"),
    [(0, 0), (0.5, 1), (9, 1), (9.9, 1), (10, 2), (50, 2), (51, 3), (80, 3), (80.1, 4), (81, 4), (100, 4), (50.5, 3)],
)
def test_points_of_the_published_groups(percent, points):
    # Remmele & Stegner 1987: none; < 10; 10 to 50; 51 to 80; > 80 %.
    assert percentage_points(percent) == points


@pytest.mark.parametrize(
    ("score", "name"),
    [(0, "negative"), (1, "negative"), (2, "weak"), (3, "weak"), (4, "moderate"), (6, "moderate"), (8, "moderate"),
     (9, "strong"), (12, "strong")],
)  # fmt: skip
def test_classes(score, name):
    assert score_class(score) == name


@pytest.mark.parametrize(("percent", "intensity", "score"), [(80, 2, 6), (95, 2, 8), (95, 3, 12), (5, 1, 1), (0, 0, 0)])
def test_scores(percent, intensity, score):
    assert immunoreactive_score(percent, intensity) == score


@settings(deadline=None)
@given(percentages, percentages, st.integers(1, 3))
def test_scores_are_products_and_grow(one, other, intensity):
    lower, higher = sorted((one, other))
    scores = [immunoreactive_score(percent, intensity) for percent in (lower, higher)]
    assert scores[0] <= scores[1]
    assert set(scores) <= {1, 2, 3, 4, 6, 8, 9, 12}


@pytest.mark.parametrize(("percent", "intensity"), [(0, 2), (30, 0), (101, 1), (-1, 1), (30, 4), (float("nan"), 1)])
def test_contradictions_are_refused(percent, intensity):
    with pytest.raises(ValueError, match=r"stain|percentage|intensity"):
        immunoreactive_score(percent, intensity)


def test_table():
    sheet = pd.DataFrame(
        {
            "patient": ["P1", "P1", "P2", "P3"],
            "specimen": ["a", "b", None, None],
            "marker": "CXCR4",
            "positive_percent": [95, 80, None, 0],
            "intensity": [2, None, 3, 0],
        }
    )
    table = score_expression(sheet)
    assert table["score"].tolist()[::3] == [8, 0]
    assert table["score"].isna().tolist() == [False, True, True, False]
    assert table["percentage_points"].tolist()[:2] == [4, 3]
    assert table["remark"].tolist()[1:3] == ["no score without intensity", "no score without positive_percent"]
    assert table["score_class"].tolist()[::3] == ["moderate", "negative"]


def test_a_row_that_contradicts_itself_is_named():
    sheet = pd.DataFrame({"patient": ["P7"], "marker": ["CXCR4"], "positive_percent": [0], "intensity": [3]})
    with pytest.raises(TheraflowError, match=r"patient P7, CXCR4: 0.* positive cells cannot stain with intensity 3"):
        score_expression(sheet)


def test_no_rows():
    assert score_expression(pd.DataFrame(columns=["patient", "marker", "positive_percent", "intensity"])).empty
