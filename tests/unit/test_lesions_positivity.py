"""Positive or negative; concordant or seen by one tracer only."""

import pytest

from theraflow.lesions import concordance, is_positive


@pytest.mark.parametrize(
    ("reader_says", "peak", "shell", "blood", "expected"),
    [
        (True, 1.0, 5.0, 2.0, True),
        (False, 9.0, 1.0, 1.0, False),
        (None, 3.0, 2.0, None, True),
        (None, 2.99, 2.0, None, False),
        (None, 1.6, 0.5, 1.6, True),
        (None, 1.59, 0.5, 1.6, False),
        (None, 3.0, 2.5, 1.6, False),
        (None, 3.0, None, None, None),
        (None, 3.0, None, 1.6, None),
        (None, 1.0, None, 1.6, False),
        (True, 3.0, None, None, True),
    ],
)
def test_positive_is_the_readers_word_or_more_than_shell_and_blood(reader_says, peak, shell, blood, expected):
    assert is_positive(reader_says, peak, shell, blood, 1.5) is expected


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ({"FDG": [True], "pentixafor": [True]}, "concordant"),
        ({"FDG": [True], "pentixafor": [False]}, "FDG-only"),
        ({"FDG": [False], "pentixafor": [True]}, "pentixafor-only"),
        ({"FDG": [False], "pentixafor": [False]}, "none"),
        ({"FDG": [True]}, None),
        ({"FDG": [True], "pentixafor": [None]}, None),
        ({"FDG": [False, True], "pentixafor": [False]}, "FDG-only"),
        ({"FDG": [True], "PSMA": [True], "DOTA": [False]}, "FDG+PSMA-only"),
    ],
)
def test_concordance(positive, expected):
    assert concordance(positive) == expected
