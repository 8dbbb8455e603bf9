"""Rounding for the page, and nothing else changed."""

import base64
import math

import pandas as pd
import pytest

from theraflow.report.display import (
    MISSING,
    Columns,
    data_uri,
    fixed,
    p_value,
    signed,
    significant,
    templates,
    text,
    whole,
    with_sd,
    words,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.71, "2.7"), (0.912, "0.91"), (0.0581, "0.058"), (12.04, "12.0"), (123.6, "124"), (-2.0, "−2.0")],
)
def test_significant(value, shown):
    assert significant(value).text == shown
    assert significant(value).sort == value


def test_suv_has_one_decimal_and_no_minus_zero():
    assert [fixed(value).text for value in (5.66, 16.0, -0.01)] == ["5.7", "16.0", "0.0"]


def test_standard_deviation_has_the_decimals_of_its_value():
    assert with_sd(3.752, 0.411).text == "3.8 ± 0.4"
    assert with_sd(0.7071, 0.0411).text == "0.71 ± 0.04"
    assert with_sd(2.7, math.nan).text == "2.7"


def test_p_values_signs_and_counts():
    assert [p_value(value).text for value in (0.0004, 0.125, 1.0)] == ["< 0.001", "0.125", "1.000"]
    assert [signed(value).text for value in (-40.2, 12.0, 0.2)] == ["−40", "+12", "+0"]
    assert whole(3.0).text == "3"


@pytest.mark.parametrize("show", [text, words, fixed, significant, p_value, whole, signed, lambda x: with_sd(x, x)])
@pytest.mark.parametrize("value", [None, math.nan, pd.NA])
def test_missing_is_a_dash_without_a_number_to_sort_by(show, value):
    assert show(value).text == MISSING
    assert show(value).sort is None


def test_data_uri_holds_every_byte():
    content = bytes(range(256))
    head, _, body = data_uri(content, "image/png").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == content


def test_what_is_inserted_is_escaped():
    columns = Columns()
    columns.add("Lesion", [text("<script>alert(1)</script>")])
    columns.add("SUV", [fixed(1)], numeric=True)
    page = templates().from_string('{% from "parts.html" import show_table %}{{ show_table(table) }}')
    html = page.render(table=columns.table())
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert 'class="n" data-sort="1.0">1.0<' in html


def test_identifiers_stay_as_they_are():
    assert text("STS_001").text == "STS_001"
    assert words("kidney_left").text == "kidney left"
