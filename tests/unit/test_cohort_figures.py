"""Figures of the cohort: what is drawn is what the tables say, NA is never 0, and equal figures are equal files."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from patient_on_disk import SETTINGS, write_bare_patient, write_patient
from skimage.color import rgb2lab

from theraflow.cohort import statistics, summarise_cohort
from theraflow.cohort.figures import draw_cohort, write_drawings
from theraflow.cohort.figures.doses import draw_coefficients, draw_dose_response, pair_dose_and_change
from theraflow.cohort.figures.drawing import PATIENT_COLOURS, Looks, absent, p_value, raised, typeset
from theraflow.cohort.figures.lesions import LESIONS_A_ROW, draw_detection
from theraflow.cohort.figures.uptake import draw_changes, draw_patient_changes, draw_tracers
from theraflow.tables import read_table

TRACERS = {"FDG": "[18F]FDG", "pentixafor": "[68Ga]pentixafor"}
LOOKS = Looks(["P1", "P2", "P3"])
DETECTION = pd.DataFrame({"tracer": ["FDG"], "n_positive": [3], "n_lesions": [4]})
NO_STATISTICS = pd.DataFrame(columns=list(statistics.COLUMNS))


def lesion_rows(values, timepoint="baseline"):
    """Rows of (patient, lesion, {tracer: SUVpeak}); None is negative with an uptake of 1, NaN not measured."""
    rows = []
    for patient, lesion, uptake in values:
        for tracer, suv in uptake.items():
            known = suv is None or np.isfinite(suv)
            rows.append({
                "patient": patient, "scan": f"{tracer}_{timepoint}", "tracer": tracer, "timepoint": timepoint,
                "lesion": lesion, "suv_peak": 1.0 if suv is None else suv, "tbr": np.nan,
                "positive": (0.0 if suv is None else 1.0) if known else np.nan, "registration": "good",
            })  # fmt: skip
    return pd.DataFrame(rows)


def statistic(comparison, **values):
    return {"comparison": comparison, "group": "lesions, pooled", "n": 2, "effect_name": "x", **values}


def lines_of(figure, panel=0):
    """(x, y) of every line of a panel that has a marker."""
    axes = figure.axes[panel]
    return [(line.get_xdata(), line.get_ydata()) for line in axes.lines if line.get_marker() not in ("None", None, "")]


def pairs_drawn(figure):
    """(a, b) of every line from 0 to 1."""
    drawn = []
    for x, y in lines_of(figure):
        points = np.column_stack([x, y])
        drawn += [tuple(points[i : i + 2, 1]) for i in range(0, len(points), 3)]
    return sorted(drawn)


BOTH = lesion_rows(
    [("P1", "L1", {"FDG": 8.0, "pentixafor": 4.0}), ("P1", "L2", {"FDG": 6.0, "pentixafor": None}),
     ("P2", "L1", {"FDG": 5.0, "pentixafor": 7.0}), ("P3", "L1", {"FDG": np.nan, "pentixafor": 3.0})]
)  # fmt: skip


def test_pairs_are_those_of_lesions_positive_on_both_and_the_rest_of_the_numbers_those_of_the_statistics():
    name = "SUVpeak, FDG (a) and pentixafor (b), baseline"
    table = pd.DataFrame([
        # Medians that the values do not have: what is drawn comes from the table.
        statistic(name, test="Wilcoxon", p_value=0.5, smallest_p_value=0.25, median_a=6.25, median_b=5.25),
        statistic(name, effect_name="Bland-Altman bias a - b", effect=1.125),
        statistic(name, effect_name="Bland-Altman lower limit of agreement", effect=-4.5),
        statistic(name, effect_name="Bland-Altman upper limit of agreement", effect=6.75),
    ]).reindex(columns=list(statistics.COLUMNS))  # fmt: skip
    paired, agreement = draw_tracers(BOTH, table, TRACERS, LOOKS)
    assert pairs_drawn(paired.figure) == [(5.0, 7.0), (8.0, 4.0)]
    texts = [text.get_text() for text in paired.figure.findobj(Text)]
    assert {"6.2", "5.2"} <= set(texts)
    assert any("lesions, pooled: P = 0.50" in text for text in texts)
    assert "Wilcoxon (lesions, pooled, n = 2): P = 0.50, the least possible 0.25" in paired.caption
    assert (paired.n, paired.counted, paired.n_patients) == (2, "lesions", 2)
    drawn = sorted((*x, *y) for x, y in lines_of(agreement.figure))
    assert drawn == [(6.0, -2.0), (6.0, 4.0)]
    levels = {float(line.get_ydata()[0]) for line in agreement.figure.axes[0].lines if len(line.get_ydata()) == 2}
    assert {1.125, -4.5, 6.75} <= levels
    assert "bias 1.12, limits −4.50 to 6.75" in agreement.caption


def test_a_figure_draws_no_line_that_no_table_states():
    paired, agreement = draw_tracers(BOTH, NO_STATISTICS, TRACERS, LOOKS)
    assert len(paired.figure.axes[0].lines) == 2  # two patients, no medians
    assert "P =" not in paired.caption
    assert len(agreement.figure.axes[0].lines) == 3  # two patients and zero
    assert "Lines:" not in agreement.caption


def test_an_uptake_that_is_not_known_is_left_out_and_told():
    rows = pd.concat([BOTH, lesion_rows([("P2", "L2", {"FDG": 9.0, "pentixafor": 3.0})])], ignore_index=True)
    unknown = (rows["patient"] == "P2") & (rows["lesion"] == "L2") & (rows["tracer"] == "FDG")
    rows.loc[unknown, "suv_peak"] = np.nan
    paired, _ = draw_tracers(rows, NO_STATISTICS, TRACERS, LOOKS)
    assert pairs_drawn(paired.figure) == [(5.0, 7.0), (8.0, 4.0)]
    assert "Not shown: 1 lesion without SUVpeak on one side." in paired.caption


def test_reasons_why_there_is_no_figure():
    one = draw_tracers(BOTH, NO_STATISTICS, {"FDG": "[18F]FDG"}, LOOKS)
    assert all(drawing.figure is None and "fewer than two tracers" in drawing.reason for drawing in one)
    none = draw_tracers(BOTH.iloc[:0], NO_STATISTICS, TRACERS, LOOKS)
    assert all("no lesion is positive on both" in drawing.reason for drawing in none)
    assert "no lesion was measured after baseline" in draw_changes(BOTH, NO_STATISTICS, TRACERS, [], LOOKS)[0].reason
    assert draw_patient_changes(pd.DataFrame(columns=["criterion"]))[0].figure is None


def test_waterfall_of_lesions():
    after = lesion_rows(
        [("P1", "L1", {"FDG": 4.0}), ("P1", "L2", {"FDG": 9.0}), ("P2", "L1", {"FDG": np.nan})], "later"
    )
    rows = pd.concat([BOTH, after], ignore_index=True)
    before_after, change = draw_changes(rows, NO_STATISTICS, TRACERS, [("FDG", "later")], LOOKS)
    assert pairs_drawn(before_after.figure) == [(6.0, 9.0), (8.0, 4.0)]
    # 9 of 6 is 50 % more, 4 of 8 half; the lesion that was not measured again has no bar.
    heights = [bar.get_height() for bar in change.figure.axes[0].patches]
    assert heights == pytest.approx([50.0, -50.0])
    assert "Not shown: 1 lesion without SUVpeak on one side." in change.caption


def test_waterfall_of_patients_names_those_without_a_change():
    response = pd.DataFrame({
        "patient": ["P1", "P2", "P3"], "followup": ["f1", "f2", "f3"], "criterion": "PERCIST 1.0",
        "category": ["PMR", "PMD", "NE"], "change_percent": [-41.0, 12.0, np.nan], "new_lesions": [0, 2, np.nan],
    })  # fmt: skip
    (drawing,) = draw_patient_changes(response)
    axes = drawing.figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == [12.0, -41.0]
    texts = {text.get_text() for text in axes.texts}
    assert {"PMR", "PMD*"} <= texts
    assert "Without a change: P3 at f3 (NE)." in drawing.caption
    assert drawing.n == 2


def test_detection_matrix_tells_negative_from_not_assessed():
    drawing = draw_detection(BOTH, DETECTION, TRACERS)
    cells = {(patch.get_x(), patch.get_y()): patch for patch in drawing.figure.axes[0].patches}
    # Columns: P1 L1, P1 L2, P2 L1, P3 L1; rows: FDG, pentixafor.
    assert cells[0, 0].get_facecolor() == cells[0, 1].get_facecolor() == cells[2, 0].get_facecolor()
    assert to_rgb(cells[1, 1].get_facecolor()) == (1, 1, 1)
    assert cells[1, 0].get_facecolor() != cells[0, 0].get_facecolor()
    assert cells[3, 0].get_hatch()
    assert not cells[3, 1].get_hatch()
    assert (drawing.n, drawing.n_patients) == (4, 3)
    assert "FDG 3 of 4" in drawing.caption


def test_detection_matrix_keeps_patients_whole_and_refuses_what_no_page_holds():
    def matrix(numbers):
        values = [
            (f"P{p:03}", f"L{i:03}", {"FDG": 3.0, "pentixafor": 3.0}) for p, n in enumerate(numbers) for i in range(n)
        ]
        return draw_detection(lesion_rows(values), DETECTION, TRACERS)

    drawing = matrix([LESIONS_A_ROW - 1, 3, LESIONS_A_ROW + 2])
    columns = [len(axes.get_xticks()) for axes in drawing.figure.axes]
    assert columns == [LESIONS_A_ROW - 1, 3, LESIONS_A_ROW, 2]
    refused = matrix([10] * 100)
    assert refused.figure is None
    assert re.fullmatch(r"1000 lesions do not fit on a page, on which there is room for \d+", refused.reason)


COURSE = pd.DataFrame(
    [("P1", 1, "2020-01-01", "L1", 10.0, 1.0), ("P1", 2, "2020-03-01", "L1", 25.0, 2.0),
     ("P1", 1, "2020-01-01", "L2", np.nan, np.nan), ("P2", 1, None, "L1", 8.0, 1.0)],
    columns=["patient", "cycle", "date", "region", "total_dose_gy", "total_sd_gy"],
)  # fmt: skip
ACQUIRED = {(p, "FDG_later"): "2020-02-01T09:00:00" for p in ("P1", "P2", "P3")}


def test_lesion_dose_is_that_of_the_cycles_before_the_scan():
    after = lesion_rows([("P1", "L1", {"FDG": 4.0}), ("P1", "L2", {"FDG": 9.0}), ("P2", "L1", {"FDG": 5.0})], "later")
    rows = pd.concat([BOTH, after], ignore_index=True)
    pairs = pair_dose_and_change(rows, COURSE, ACQUIRED, "FDG", "later").set_index(["patient", "lesion"])
    assert pairs.loc[("P1", "L1"), ["dose_gy", "sd_gy", "change_percent"]].to_list() == [10.0, 1.0, -50.0]
    assert np.isnan(pairs.loc[("P1", "L2"), "dose_gy"])  # no dose is no dose of 0
    assert np.isnan(pairs.loc[("P2", "L1"), "dose_gy"])  # a cycle without date may have come after
    (drawing,) = draw_dose_response(rows, COURSE, ACQUIRED, NO_STATISTICS, [("FDG", "later")], LOOKS)
    assert [(*x, *y) for x, y in lines_of(drawing.figure)] == [(10.0, -50.0)]
    assert "Not shown: 2 lesions without dose or uptake." in drawing.caption


def test_correlation_of_dose_and_change_is_that_of_the_statistics_also_where_there_is_none():
    after = lesion_rows([("P1", "L1", {"FDG": 4.0})], "later")
    rows = pd.concat([BOTH, after], ignore_index=True)
    name = "absorbed dose until later (a, Gy) and change of SUVpeak of FDG (b, %)"
    table = pd.DataFrame([
        statistic(name, test="Spearman", effect_name="Spearman's rho", effect=-0.6, p_value=0.0125),
        statistic(name, test="Spearman", effect_name="Spearman's rho", group="patients", n=1),
    ]).reindex(columns=list(statistics.COLUMNS))  # fmt: skip
    (drawing,) = draw_dose_response(rows, COURSE, ACQUIRED, table, [("FDG", "later")], LOOKS)
    assert "lesions, pooled: ρ = −0.60, P = 0.013\npatients: P not computable" in [
        text.get_text() for text in drawing.figure.findobj(Text)
    ]
    assert "Spearman's rho (patients, n = 1): P not computable." in drawing.caption


def test_a_patient_without_a_cycle_before_the_scan_has_no_point():
    after = lesion_rows([("P1", "L1", {"FDG": 4.0})], "later")
    rows = pd.concat([BOTH, after], ignore_index=True)
    early = {("P1", "FDG_later"): "2019-12-01T09:00:00"}
    (drawing,) = draw_dose_response(rows, COURSE, early, NO_STATISTICS, [("FDG", "later")], LOOKS)
    assert drawing.figure is None
    assert "no lesion has both a dose of cycles before later" in drawing.reason


def test_medians_of_coefficients_are_those_of_the_statistics():
    doses = pd.DataFrame(
        [("P1", "liver", "organ", "90Y", 1.0), ("P2", "liver", "organ", "90Y", 3.0),
         ("P1", "spleen", "organ", "90Y", 2.0), ("P1", "L1", "lesion", "90Y", 4.0),
         ("P1", "L2", "lesion", "90Y", np.nan), ("P1", "whole_body", "whole_body", "90Y", np.nan)],
        columns=["patient", "region", "kind", "nuclide", "dose_gy_per_gbq"],
    )  # fmt: skip
    name = "dose coefficient of 90Y, Gy/GBq"
    table = pd.DataFrame([
        statistic(name, group="organ", median_a=9.0), statistic(name, group="organ: liver", median_a=2.5),
        statistic(name, group="organ: spleen", median_a=2.25), statistic(name, group="lesion", median_a=4.5),
    ]).reindex(columns=list(statistics.COLUMNS))  # fmt: skip
    drawing = draw_coefficients(doses, table)
    bars = [line.get_xdata()[0] for line in drawing.figure.axes[0].lines if line.get_marker() == "None"]
    assert bars == [2.5, 2.25, 4.5]
    assert drawing.n == 4
    assert "Without a coefficient: 1 region." in drawing.caption


@pytest.fixture
def drawings():
    after = lesion_rows([("P1", "L1", {"FDG": 4.0}), ("P1", "L2", {"FDG": 9.0})], "later")
    rows = pd.concat([BOTH, after], ignore_index=True)
    return [
        draw_detection(rows, DETECTION, TRACERS),
        *draw_tracers(rows, NO_STATISTICS, TRACERS, LOOKS),
        *draw_changes(rows, NO_STATISTICS, TRACERS, [("FDG", "later")], LOOKS),
        absent("survival", "no patient has a survival time"),
    ]


def test_equal_figures_are_equal_files_at_the_width_of_a_page_with_their_fonts(drawings, tmp_path):
    for folder in ("one", "two"):
        write_drawings(drawings, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "paired_uptake.svg" in names
    assert "paired_uptake.pdf" in names
    assert not any(name.startswith("survival") for name in names)
    for name in names:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two, name
        assert b"CreationDate" not in one, name
        assert b"dc:date" not in one, name
    svg = (tmp_path / "one" / "paired_uptake.svg").read_text()
    assert "<text" not in svg  # letters are outlines
    width_pt = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    assert width_pt / 72 * 2.54 == pytest.approx(17.5, abs=0.01)
    assert b"/FontFile2" in (tmp_path / "one" / "paired_uptake.pdf").read_bytes()


def test_table_of_figures_says_what_is_drawn_and_why_not(drawings, tmp_path):
    stale = tmp_path / "old_figure.svg"
    stale.write_text("from an earlier run")
    write_drawings(drawings, tmp_path)
    assert not stale.exists()
    table = read_table(tmp_path / "figures.tsv").set_index("figure")
    assert table.loc["detection_matrix", ["drawn", "n", "counted", "n_patients"]].to_list() == [True, 4, "lesions", 3]
    assert table.loc["survival", "reason"] == "no patient has a survival time"
    assert not table.loc["survival", "drawn"]
    drawn = table[table["drawn"]]
    assert drawn["caption"].str.contains("n = ").all()


def test_no_letter_is_below_seven_points(drawings):
    sizes = [text.get_fontsize() for drawing in drawings if drawing.figure for text in drawing.figure.findobj(Text)]
    assert min(sizes) >= 7


# Machado, Oliveira and Fernandes, IEEE Trans Vis Comput Graph 2009;15:1291, severity 1, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("sight", DEFICIENCIES)
def test_patients_can_be_told_apart_by_all_readers(sight):
    rgb = np.array([to_rgb(colour) for colour in PATIENT_COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[sight]).T, 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert apart.min() > 15  # 2.3 is just noticeable


def test_looks_differ_between_patients_as_long_as_there_are_enough():
    looks = Looks([f"P{i}" for i in range(32)])
    assert len({(look["color"], look["marker"]) for look in map(looks.of, looks.patients)}) == 32
    assert not Looks([f"P{i}" for i in range(33)]).distinct


@pytest.mark.parametrize(
    ("text", "set_in_type", "plain"),
    [("[18F]FDG", "[$^{18}$F]FDG", "[¹⁸F]FDG"), ("90Y", "$^{90}$Y", "⁹⁰Y"),
     ("[177Lu]Lu-DOTATATE", "[$^{177}$Lu]Lu-DOTATATE", "[¹⁷⁷Lu]Lu-DOTATATE"), ("PSMA-11", "PSMA-11", "PSMA-11")],
)  # fmt: skip
def test_mass_numbers_are_raised(text, set_in_type, plain):
    assert typeset(text) == set_in_type
    assert raised(text) == plain


def test_p_values_as_journals_print_them():
    assert p_value(np.nan) == "P not computable"
    assert [p_value(p) for p in (0.0004, 0.001, 0.0123, 0.049, 0.125, 1.0)] == [
        "P < 0.001", "P = 0.001", "P = 0.012", "P = 0.049", "P = 0.12", "P = 1.00",
    ]  # fmt: skip


def write_cohort(results, *patients, sheet=None):
    """Tables of the cohort; the scans of each patient."""
    summarise_cohort([folder for folder, _ in patients], results / "cohort", SETTINGS, sheet)
    return {folder.patient: listed for folder, listed in patients}


def test_a_whole_cohort_has_every_figure_for_which_there_are_data(tmp_path):
    patients = tmp_path / "patients.tsv"
    patients.write_text("patient\tpfs_days\tpfs_event\tos_days\tos_event\nP001\t65\t1\t143\t1\nP999\t9\t1\t9\t1\n")
    listed = write_cohort(tmp_path, write_patient(tmp_path), write_bare_patient(tmp_path), sheet=patients)
    cycles = [{"patient": "P001", "cycle": 1.0, "date": "2019-04-01"}, {"patient": "P999", "cycle": 1.0}]
    drawn = draw_cohort(tmp_path, listed, SETTINGS, {"cycles": cycles, "events": []})
    by_name = {drawing.name: drawing for drawing in drawn}
    assert [name for name, drawing in by_name.items() if drawing.figure is None] == ["dose_response"]
    assert by_name["dose_response"].reason == "no patient has doses of therapy cycles"
    # L1, L2 and L4 are positive on both tracers; four are measured again.
    assert by_name["paired_uptake"].n == 3
    assert by_name["change_of_lesions_FDG_followup"].n == 4
    assert by_name["swimmers"].n_patients == by_name["survival"].n_patients == 1  # P999 is not in the tables
    assert {"change_of_patients_PERCIST-1-0", "change_of_patients_RECIST-1-1"} <= set(by_name)
    for drawing in drawn:
        assert bool(drawing.caption) == (drawing.figure is not None)


def test_a_patient_with_nothing_has_reasons_alone(tmp_path):
    listed = write_cohort(tmp_path, write_bare_patient(tmp_path))
    drawn = draw_cohort(tmp_path, listed, SETTINGS, {"cycles": [], "events": []})
    assert all(drawing.figure is None and drawing.reason for drawing in drawn)
    write_drawings(drawn, tmp_path / "figures")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["figures.tsv"]


def test_a_cohort_of_nobody_has_reasons_alone(tmp_path):
    listed = write_cohort(tmp_path)
    drawn = draw_cohort(tmp_path, listed, SETTINGS, {"cycles": [], "events": []})
    assert all(drawing.figure is None and drawing.reason for drawing in drawn)
