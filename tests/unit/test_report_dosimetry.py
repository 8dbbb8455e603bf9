"""The part of the report on dosimetry: what stands there, of which administration, and why something does not."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from theraflow.dosimetry.activity import CURVE_COLUMNS
from theraflow.dosimetry.contract import (
    ADMINISTRATION_COLUMNS,
    BUDGET_COLUMNS,
    CYCLE_COLUMNS,
    DOSE_COLUMNS,
    FITTED_COLUMNS,
)
from theraflow.layout import PatientFolder, Scan
from theraflow.report.dosimetry import (
    administration_table,
    budget_table,
    cycle_sources,
    cycle_table,
    dose_table,
    dosimetry_section,
    without_dose,
)
from theraflow.report.plots import TERMS, draw_budget, draw_curves
from theraflow.tables import write_table

pytestmark = pytest.mark.filterwarnings("error")
FIT = "SPECT without partial-volume correction; weighted fit of 4 points"
SCAN = Scan("P1", "spect1", "pentixather", "work-up", "", "activity")


def dose(region: str, nuclide: str, value: float, **other) -> dict:
    sphere = f"sphere S from transport of {nuclide} in water, self-dose only"
    method = f"{FIT}; {sphere}" if nuclide == "177Lu" else f"{FIT}; 90Y from the kinetics of 177Lu; {sphere}"
    return {
        "patient": "P1", "region": region, "kind": "organ", "nuclide": nuclide, "mass_g": 150.0, "n_timepoints": 4,
        "model": "mono-exponential", "t_eff_h": 41.0, "tia_h": 1.5, "dose_gy_per_gbq": value,
        "sd_gy_per_gbq": 0.1 * value, "method": method, "ci_low_gy_per_gbq": 0.82 * value,
        "ci_high_gy_per_gbq": 1.22 * value, "quality": "good", "exponentials": "30.0:0.0169", "timepoint": "work-up",
    } | other  # fmt: skip


def doses() -> pd.DataFrame:
    none = {"dose_gy_per_gbq": math.nan, "sd_gy_per_gbq": math.nan, "ci_low_gy_per_gbq": math.nan,
            "ci_high_gy_per_gbq": math.nan, "kind": "lesion"}  # fmt: skip
    rises = {**none, "model": None, "t_eff_h": math.nan, "tia_h": math.nan, "exponentials": None, "quality": None,
             "method": "the curve rises; a later scan is needed"}  # fmt: skip
    small = {**none, "method": f"{FIT}; no dose: 1.5 mL is below the limit of 2 mL", "quality": "CV of b 60 %"}
    rows = [
        dose("kidney_left", "177Lu", 0.80), dose("kidney_left", "90Y", 3.5),
        *(dose("L01", name, 0.0, **rises) for name in ("177Lu", "90Y")),
        *(dose(region, name, 0.0, **small) for region in ("L02", "L03") for name in ("177Lu", "90Y")),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(DOSE_COLUMNS))


def cells(table) -> dict[str, dict[str, str]]:
    """Text of a table by first cell and title; later columns of one title get a number."""
    titles = [f"{title}{table.columns[:i].count(title) or ''}" for i, title in enumerate(table.columns)]
    return {row[0].text: dict(zip(titles, (cell.text for cell in row), strict=True)) for row in table.rows}


def test_the_coefficients_have_sd_interval_and_the_parts_of_their_method():
    table, methods = dose_table(doses())
    kidney = cells(table)["kidney left"]
    assert kidney["Gy/GBq ± sd"] == "0.80 ± 0.08" and kidney["Gy/GBq ± sd1"] == "3.5 ± 0.4"
    assert kidney["95 %"] == "0.66 to 0.98" and kidney["95 %1"] == "2.9 to 4.3"
    told = dict(methods)
    assert [told[mark] for mark in kidney["How"].split("\u202f")] == dose("", "177Lu", 1.0)["method"].split("; ")
    assert "90Y from the kinetics of 177Lu" in [told[mark] for mark in kidney["How1"].split("\u202f")]
    assert cells(table)["L01"]["Gy/GBq ± sd"] == "–" and cells(table)["L01"]["95 %"] == "–"
    assert len(set(told.values())) == len(told)


def test_a_semicolon_within_brackets_or_a_reason_divides_nothing():
    one = "one time point: A(t) 2 t / ln 2 (Haenscheid 2018; error -12 to +6 %)"
    reason = "no dose: S values of 90Y are computed for spheres of 0.001 to 20000 g; leave this region out"
    _, methods = dose_table(doses().assign(method=f"{FIT}; {one}; {reason}"))
    assert [part for _, part in methods] == [*FIT.split("; "), one, reason]


def test_a_missing_dose_has_its_reason_once():
    assert without_dose(doses()) == [
        ("L01", "the curve rises; a later scan is needed"), ("L02, L03", "1.5 mL is below the limit of 2 mL"),
    ]  # fmt: skip
    unknown = doses().assign(method=None)
    assert without_dose(unknown)[0] == ("L01, L02, L03", "doses.tsv names no reason")


def test_marrow_without_a_dose_has_its_reason_and_a_place_among_the_administrations():
    reason = "no mass of red marrow: the weight is not known; add weight_kg to scans.tsv"
    none = {"dose_gy_per_gbq": math.nan, "method": reason, "kind": "marrow"}
    rows = [dose("red_marrow", "90Y", 0.0, **none), dose("red_marrow_blood", "90Y", 0.02, kind="marrow")]
    assert without_dose(pd.DataFrame(rows)) == [("red marrow", reason)]
    told = pd.DataFrame([row | {"injected_mbq": 200.0, "date": "2024-01-08"} for row in rows])
    assert "0.020" in cells(administration_table(told, "90Y"))["red marrow blood"]["Gy/GBq ± sd"]


def budget() -> pd.DataFrame:
    terms = {"kidney_left": {"fit": 0.03, "uptake": 0.04, "calibration": 0.12}, "L01": {"fit": 0.05, "surface": 0.12}}
    rows = [
        ("P1", region, "90Y", term, sd, sd**2 / sum(other**2 for other in own.values()))
        for region, own in terms.items()
        for term, sd in own.items()
    ]
    return pd.DataFrame(rows, columns=list(BUDGET_COLUMNS))


def test_the_budget_names_the_greatest_part():
    told = cells(budget_table(budget()))
    parts = {"All, %": "13.0", "Fit, %": "3.0", "Uptake not seen, %": "4.0", "Calibration, %": "12.0",
             "Surface of the region, %": "–"}  # fmt: skip
    assert told["kidney left"] == {"Region": "kidney left", **parts, "Greatest": "calibration"}
    assert told["L01"]["Greatest"] == "surface of the region"


def test_the_bars_are_as_long_as_the_sd_and_divided_by_variance():
    (axes,) = draw_budget(budget()).axes
    labels = axes.get_legend_handles_labels()[1]
    bars = {label: [bar.get_width() for bar in own] for own, label in zip(axes.containers, labels, strict=True)}
    assert list(bars) == ["fit", "uptake not seen", "calibration", "surface of the region"]
    np.testing.assert_allclose(np.sum(list(bars.values()), axis=0), [13.0, 13.0])
    assert bars["calibration"][0] == pytest.approx(13.0 * 144.0 / 169.0)
    assert [words.get_text() for words in axes.texts] == [" 13 %, calibration", " 13 %, surface of the region"]


def test_a_term_that_the_page_does_not_know_is_shown_all_the_same():
    more = pd.concat([budget(), pd.DataFrame([("P1", "L01", "90Y", "marrow", 0.5, 0.9)], columns=list(BUDGET_COLUMNS))])
    assert cells(budget_table(more))["L01"]["Greatest"] == "marrow"
    (axes,) = draw_budget(more).axes
    assert axes.get_legend_handles_labels()[1][-1] == "marrow"


def test_every_term_of_the_budget_has_a_name():
    from settings import default_settings
    from theraflow.dosimetry.uncertainty import dose_budget
    from theraflow.nuclides import nuclide

    settings = {**default_settings("dosimetry"), "spect_fwhm_mm": 12.0, "spect_fwhm_sd_mm": 0.5}
    assert set(dose_budget(0.05, "organ", 150.0, 1.03, nuclide("90Y"), settings, 0.1).terms) <= set(TERMS)


def test_administrations_stand_side_by_side_and_borrowing_is_said():
    borrowed = f"{FIT}; one time point: effective half-life of 41 h from the earlier administration work-up (Madsen)"
    rows = [
        dose("kidney_left", "90Y", 3.5) | {"injected_mbq": 200.0, "date": "2024-01-08"},
        dose("kidney_left", "90Y", 3.1, timepoint="cycle1", method=borrowed, n_timepoints=1)
        | {"injected_mbq": 6600.0, "date": "2024-02-05"},
        dose("L01", "90Y", 1.1, kind="lesion") | {"injected_mbq": 200.0, "date": "2024-01-08"},
    ]
    table = administration_table(pd.DataFrame(rows, columns=list(ADMINISTRATION_COLUMNS)), "90Y")
    assert [name for name, _ in table.groups] == ["", "work-up, 200 MBq", "cycle1, 6600 MBq"]
    kidney, lesion = cells(table)["kidney left"], cells(table)["L01"]
    assert (kidney["Gy/GBq ± sd"], kidney["Gy/GBq ± sd1"], kidney["Borrowed"]) == ("3.5 ± 0.4", "3.1 ± 0.3", "yes")
    assert (lesion["Gy/GBq ± sd"], lesion["Gy/GBq ± sd1"], lesion["Borrowed"]) == ("1.1 ± 0.1", "–", "–")


def cycles(second: str) -> pd.DataFrame:
    rows = [
        ("P1", 1, "kidney_left", "177Lu", 6.6, 5.5, 0.5, 6.4, "measured in this cycle (cycle1)", "cycle1"),
        ("P1", 1, "L01", "177Lu", 6.6, 2.2, 0.5, math.nan, second, second),
        ("P1", 2, "kidney_left", "90Y", 6.0, 21.0, 2.0, 40.0, "coefficient of work-up", "work-up"),
    ]
    return pd.DataFrame(rows, columns=list(CYCLE_COLUMNS))


def test_cycles_say_where_their_doses_come_from():
    assert cycle_sources(cycles("coefficient of work-up")) == [
        "Cycle 1: kidney left: measured in this cycle (cycle1); L01: coefficient of work-up.",
        "Cycle 2: coefficient of work-up.",
    ]
    assert cycle_sources(cycles("measured in this cycle (cycle1)"))[0] == "Cycle 1: measured in this cycle (cycle1)."
    assert cycle_sources(cycles("coefficient of work-up").assign(source="coefficient of work-up")) == []
    told = cells(cycle_table(cycles("coefficient of work-up")))
    # A sum without one of its parts would be too small.
    assert told["kidney left"]["All cycles, Gy"] == "26.5" and told["L01"]["All cycles, Gy"] == "–"


def curves(timepoint: str, factor: float = 1.0) -> pd.DataFrame:
    rows = []
    for region in ("kidney_left", "L01"):
        for time in (24.0, 96.0):
            activity = factor * 30.0 * math.exp(-0.0169 * time)
            place = f"{timepoint}{time:g}"
            rows.append({
                "patient": "P1", "region": region, "kind": "organ", "scan": place, "time_h": time,
                "activity_mbq": activity, "sd_mbq": 1.0, "volume_ml": 150.0, "mass_g": 154.0, "timepoint": timepoint,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def fitted(timepoint: str) -> pd.DataFrame:
    times = np.linspace(0.0, 120.0, 9)
    rows = [("P1", timepoint, "kidney_left", "177Lu", t, 30.0 * math.exp(-0.0169 * t), 1.0) for t in times]
    return pd.DataFrame(rows, columns=list(FITTED_COLUMNS))


def test_curves_have_points_line_band_and_residuals():
    figure = draw_curves(curves("work-up", 1.1), doses(), fitted("work-up"), "177Lu")
    kidney, residuals, lesion, nothing = figure.axes
    assert [kidney.get_title(loc="left"), lesion.get_title(loc="left")] == ["kidney left", "L01"]
    assert len(kidney.lines) > len(lesion.lines)  # no curve was fitted to the lesion
    assert len(kidney.collections) == len(lesion.collections) + 1  # nor has it a band
    points = residuals.containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(points, 10.0, rtol=1e-6)  # measured is 10 % above the curve
    assert not nothing.containers


def write(folder: PatientFolder, **tables: pd.DataFrame) -> None:
    for name, table in tables.items():
        write_table(table, folder.table(name), list(table.columns))


def test_the_section_shows_the_administration_that_planning_uses(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    both = pd.concat([curves("work-up"), curves("cycle1", 33.0)])
    told = pd.concat([doses(), doses().assign(timepoint="cycle1")]).assign(injected_mbq=200.0, date="2024-01-08")
    write(folder, curves=both, doses=doses(), fitted=pd.concat([fitted("work-up"), fitted("cycle1")]),
          uncertainty=budget(), administrations=told, cycles=cycles("coefficient of work-up"))  # fmt: skip
    section = dosimetry_section(folder, [SCAN])
    assert section["curves"].startswith("data:image/png") and section["budget"].startswith("data:image/png")
    assert section["curves_caption"].startswith("Activity of 177Lu as measured")
    assert section["gates_passed"] == "1 of 3 curves"
    assert section["gates"] == [("L02, L03", "CV of b 60 %")]
    assert section["administration_table"] is not None and "use work-up" in section["administration_note"]
    assert section["dosimetry_absent"] == [
        "No dose-volume histograms: there is neither an organ nor a lesion in the dose map."
    ]
    assert "2024" not in str({name: value for name, value in section.items() if name not in ("curves", "budget")})


def test_one_administration_needs_no_table_of_them(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    write(folder, doses=doses(), administrations=doses().assign(injected_mbq=200.0, date=None))
    section = dosimetry_section(folder, [SCAN])
    assert section["administration_table"] is None and section["budget"] is None
    assert section["dosimetry_absent"][0].startswith("No time-activity curves")


def test_without_scans_or_tables_the_section_says_so(tmp_path):
    folder = PatientFolder(tmp_path, "P1")
    planar = dosimetry_section(folder, [replace(SCAN, planar=True)])["dosimetry_absent"]
    assert planar[-1].startswith("No dose map and no dose-volume histograms: all scans of activity are planar")
    none = dosimetry_section(folder, [])
    assert none["dosimetry_absent"] == ["No dosimetry: the sheet lists no scan that measures activity."]
    empty = dosimetry_section(folder, [SCAN])
    assert [reason.split(":")[0] for reason in empty["dosimetry_absent"]] == [
        "No time-activity curves", "No dose coefficients", "No doses of therapy cycles", "No dose-volume histograms",
    ]  # fmt: skip
