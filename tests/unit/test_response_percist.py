"""PERCIST 1.0: every rule with values on both sides of its border."""

import pytest

from theraflow.response import lean_body_mass_kg, percist

# baseline, follow-up, any positive at follow-up, new lesions -> category
CASES = [
    (10.0, 7.0, True, 0, "PMR"),  # -30 %: reached
    (10.0, 7.01, True, 0, "SMD"),
    (10.0, 13.0, True, 0, "PMD"),  # +30 %: reached
    (10.0, 12.99, True, 0, "SMD"),
    (2.0, 1.2, True, 0, "PMR"),  # -40 %, -0.8 units: reached
    (2.0, 1.21, True, 0, "SMD"),  # -39.5 %, but -0.79 units
    (2.0, 2.8, True, 0, "PMD"),  # +40 %, +0.8 units: reached
    (2.0, 2.79, True, 0, "SMD"),
    (2.4, 1.68, True, 0, "SMD"),  # -30 %, but -0.72 units
    (10.0, 10.0, True, 0, "SMD"),
    (10.0, 1.0, False, 0, "CMR"),
    (10.0, 9.9, False, 0, "CMR"),  # the reader calls nothing positive
    (10.0, 2.0, True, 1, "PMD"),  # the paper's patient 2: old lesions respond, new ones appear
    (10.0, 1.0, True, 3, "PMD"),
    (None, 5.0, True, 1, "PMD"),
    (None, 5.0, True, 0, "NE"),
    (None, None, False, 0, "NE"),
    (10.0, None, None, 0, "NE"),
    (10.0, 2.0, None, 0, "NE"),  # what could not be measured might be positive
]


@pytest.mark.parametrize(("baseline", "followup", "any_positive", "new", "category"), CASES)
def test_category(baseline, followup, any_positive, new, category):
    assert percist(baseline, followup, any_positive, new).category == category


def test_change_is_in_percent_of_the_baseline():
    response = percist(8.0, 6.0, True, 0)
    assert (response.baseline, response.followup, response.change_percent) == (8.0, 6.0, -25.0)
    assert percist(None, 6.0, True, 1).change_percent is None


def test_lean_body_mass_of_janmahasatian():
    """By hand from the published equations: 9270 W / (6680 + 216 BMI), women 9270 W / (8780 + 244 BMI)."""
    assert lean_body_mass_kg(81.0, 180.0, "M") == pytest.approx(9270 * 81 / (6680 + 216 * 25))
    assert lean_body_mass_kg(81.0, 180.0, "M") == pytest.approx(62.158, abs=1e-3)
    assert lean_body_mass_kg(64.0, 160.0, "F") == pytest.approx(39.871, abs=1e-3)
    assert lean_body_mass_kg(64.0, 160.0, "O") is None
