"""What the patient's report tells of lesions: nothing guessed that is not marked, nothing unknown that looks known."""

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patient_on_disk import SETTINGS, VIEWER, scans, write_patient

from theraflow.lesions import BURDEN_COLUMNS, CANDIDATE_COLUMNS, LESION_COLUMNS, MISMATCH_COLUMNS, TBR_COLUMNS
from theraflow.report import write_patient_report
from theraflow.report.lesions import (
    attention,
    burden_table,
    lesion_table,
    mismatches,
    ratio_table,
    site_cell,
    site_table,
)
from theraflow.tables import read_table, write_table

FDG, CXCR4, LATER = (scan for scan in scans() if scan.quantity == "suv")


def row(scan, lesion, **told):
    """A row of `lesions.tsv` as the stage writes a lesion that the program has found."""
    usual = {
        "site": "liver", "site_by": "organ", "positive": True, "positive_by": "program", "suv_peak": 5.0,
        "suv_max": 6.0, "tbr": 4.0, "volume_ml": 3.0, "source": "candidate", "concordance": "concordant",
        "longest_diameter_mm": 20.4, "short_axis_mm": 14.6,
    }  # fmt: skip
    return {"scan": scan.scan, "tracer": scan.tracer, "timepoint": scan.timepoint, "lesion": lesion} | usual | told


def table(*rows):
    return pd.DataFrame(rows).reindex(columns=list(LESION_COLUMNS))


def column(shown, title, place=0):
    """Texts of the column of that title, of several the one at `place`."""
    index = [i for i, name in enumerate(shown.columns) if name == title][place]
    return [cells[index].text for cells in shown.rows]


@pytest.mark.parametrize(
    ("site", "station", "told_by", "shown", "look"),
    [
        ("lymph node", "retroperitoneal", "reader", "lymph node, retroperitoneal", ""),
        ("lymph node", "iliac", "surroundings", "lymph node, iliac?", "guess"),
        ("peritoneum", None, "surroundings", "peritoneum?", "guess"),
        ("liver", float("nan"), "organ", "liver", ""),
        (None, None, None, "–", ""),
    ],
)
def test_a_site_that_is_a_guess_has_a_question_mark(site, station, told_by, shown, look):
    cell = site_cell(site, station, told_by)
    assert (cell.text, cell.look) == (shown, look)


def test_lesion_table_says_of_an_outline_only_what_is_not_usual():
    lesions = table(
        row(FDG, "L01"), row(FDG, "L02", source="carried", volume_change=0.934), row(FDG, "L03", confidence=0.72),
        row(FDG, "L04", confidence=0.9), row(FDG, "L05", source=None, suv_peak=None, positive=None),
        row(FDG, "L06", matched_by="organ and distance"),
    )  # fmt: skip
    shown = lesion_table(lesions, [FDG], {})
    assert column(shown, "Outline") == ["", "carried × 0.93", "identity 0.72", "", "–", "by organ and distance"]
    assert column(shown, "Axes, mm")[0] == "20 × 15"
    assert column(shown, "Positive") == ["yes"] * 4 + ["–", "yes"]
    # Where a reader and the program have both outlined, each is named.
    both = lesion_table(table(row(FDG, "L01"), row(FDG, "L02", source="reader")), [FDG], {})
    assert column(both, "Outline") == ["candidate", "reader"]
    # Where there is nothing to say there is no column.
    assert "Outline" not in lesion_table(table(row(FDG, "L01")), [FDG], {}).columns


def test_who_has_called_a_lesion_positive_is_marked_only_where_it_differs():
    by_one = table(row(FDG, "L01"), row(FDG, "L02", positive=False))
    assert column(lesion_table(by_one, [FDG], {}), "Positive") == ["yes", "no"]
    mixed = table(
        row(FDG, "L01"), row(FDG, "L02", positive=False, positive_by="reader"),
        row(CXCR4, "L01", positive_by="reader"), row(CXCR4, "L02", positive=None, positive_by=None),
    )  # fmt: skip
    shown = lesion_table(mixed, [FDG, CXCR4], {})
    assert column(shown, "Positive") == ["yes", "no*"]
    assert column(shown, "Positive", 1) == ["yes*", "–"]


def test_change_is_told_of_what_was_a_lesion_before():
    lesions = table(
        row(FDG, "L01", suv_peak=10.0), row(LATER, "L01", suv_peak=6.0),
        row(FDG, "L02", suv_peak=0.4, positive=False, source="carried"), row(LATER, "L02", suv_peak=6.2),
        row(FDG, "L03", suv_peak=None, positive=None), row(LATER, "L03"),
        row(FDG, "L04", suv_peak=4.0), row(LATER, "L04", suv_peak=5.0, positive=False),
    )  # fmt: skip
    shown = lesion_table(lesions, [LATER], {"FDG": FDG})
    assert column(shown, "Δ SUV peak, %") == ["−40", "was negative", "–", "+25"]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["candidate", "reader", "carried", None]), st.sampled_from([True, False, None]),
            st.sampled_from([0.3, 1.0, None]),
        ),
        min_size=1, max_size=4,
    ),
    st.booleans(),
)  # fmt: skip
def test_titles_over_several_columns_cover_all_of_them(told, with_second):
    scans_shown = [FDG, CXCR4] if with_second else [FDG]
    lesions = table(*(row(scan, f"L{i}", source=source, positive=positive, confidence=confidence)
                      for scan in scans_shown for i, (source, positive, confidence) in enumerate(told)))  # fmt: skip
    shown = lesion_table(lesions, scans_shown, {})
    assert sum(width for _, width in shown.groups) == len(shown.columns)
    assert len(shown.rows) == len(told)
    assert all(len(cells) == len(shown.columns) for cells in shown.rows)


def test_what_a_person_should_look_at_is_told_once_a_scan():
    reason = "new or known: a registration has failed"
    lesions = table(
        row(FDG, "L01"), row(LATER, "L01", look=reason), row(LATER, "L02", look="may be L03, 14 mm from it"),
        row(LATER, "L03", look=reason), row(CXCR4, "L03", look=reason),
    )  # fmt: skip
    assert attention(lesions) == [
        ("L01, L03", "fdg1", reason),
        ("L02", "fdg1", "may be L03, 14 mm from it"),
        ("L03", "cxcr4", reason),
    ]
    assert attention(table(row(FDG, "L01"))) == []


def ratios(scan, lesion, background, suv, tbr, remark=None):
    told = {"scan": scan.scan, "lesion": lesion, "background_region": background, "background_suv": suv, "tbr": tbr}
    return told | {"remark": remark}


def test_ratios_stand_beside_each_other_with_what_they_are_over():
    few = "too little tissue is left around it"
    rows = pd.DataFrame([
        ratios(FDG, "L01", "blood_pool", 1.5, 4.0), ratios(FDG, "L01", "shell", 0.5, 12.0),
        ratios(FDG, "L02", "blood_pool", 1.5, 2.0), ratios(FDG, "L02", "shell", None, None, few),
        ratios(CXCR4, "L01", "liver", None, None, "less than 1 mL"),
        ratios(CXCR4, "L02", "liver", None, None, "less than 1 mL"),
        ratios(LATER, "L01", "blood_pool", 9.9, 99.0),
    ]).reindex(columns=list(TBR_COLUMNS))  # fmt: skip
    shown, notes = ratio_table(rows, [FDG, CXCR4])
    assert list(shown.columns) == ["Lesion", "blood pool, SUV 1.50", "shell, SUV 0.50", "liver"]
    assert shown.groups == [("", 1), ("FDG (fdg0)", 2), ("pentixafor (cxcr4)", 1)]
    assert [[cell.text for cell in cells] for cells in shown.rows] == [
        ["L01", "4.0", "12.0", "–"],
        ["L02", "2.0", "–", "–"],
    ]
    assert notes == [f"Shell on fdg0 for L02: {few}.", "Liver on cxcr4: less than 1 mL."]
    assert ratio_table(rows, [CXCR4]) == (None, [])


def burden(scan, site, positive, unmeasured, volume, measured, hottest=None):
    return {
        "scan": scan.scan, "tracer": scan.tracer, "timepoint": scan.timepoint, "site": site, "n_lesions": 5,
        "n_positive": positive, "n_unmeasured": unmeasured, "mtv_ml": volume, "mtv_measured_ml": measured,
        "tlg_ml": None if volume is None else 6 * volume, "tlg_measured_ml": None if measured is None else 6 * measured,
        "hottest": hottest, "suv_peak_max": 9.0 if hottest else None, "suv_max": 11.0 if hottest else None,
    }  # fmt: skip


def test_a_burden_that_is_not_known_is_a_lower_limit():
    rows = pd.DataFrame([
        burden(FDG, "all", 3, 0, 40.04, 40.04, "L02"), burden(FDG, "liver", 3, 0, 40.04, 40.04, "L02"),
        burden(FDG, "lung", 0, 0, 0.0, 0.0), burden(CXCR4, "all", 2, 1, None, 12.5),
        burden(CXCR4, "lung", 0, 1, None, None), burden(LATER, "all", 0, 0, 0.0, 0.0),
    ]).reindex(columns=list(BURDEN_COLUMNS))  # fmt: skip
    shown = burden_table(rows)
    assert column(shown, "Positive lesions") == ["3 of 5", "2 of 5", "0 of 5"]
    assert column(shown, "Not measured") == ["0", "1", "0"]
    assert column(shown, "MTV, mL") == ["40.0", "at least 12.5", "0.0"]
    assert column(shown, "TLG, SUV × mL") == ["240.2", "at least 75.0", "0.0"]
    assert column(shown, "Hottest lesion") == ["L02", "–", "–"]
    sites = site_table(rows)
    assert list(zip(column(sites, "Scan"), column(sites, "Site"), strict=True)) == [
        ("fdg0", "liver"),
        ("cxcr4", "lung"),
    ]
    assert column(sites, "MTV, mL") == ["40.0", "–"]
    assert "Not measured" not in burden_table(rows[rows["scan"] != "cxcr4"]).columns
    assert site_table(rows[rows["scan"] == "fdg1"]) is None


MEASURES = {  # volume in mL and number of lesions
    "a_only_lesions": (7.0, 2), "b_only_lesions": (3.0, 1), "concordant_lesions_a": (68.4, 12),
    "concordant_lesions_b": (68.1, 12), "both": (62.9, 12), "a_not_b": (12.5, 14), "a_not_b_tolerance": (6.5, 14),
    "b_not_a": (10.7, 13), "b_not_a_tolerance": (3.1, 13),
}  # fmt: skip


def mismatch(remarks=None, unknown=0):
    return pd.DataFrame([
        {"timepoint": "baseline", "tracer_a": "FDG", "tracer_b": "pentixafor", "measure": name,
         "volume_ml": None if unknown else volume, "measured_ml": volume, "n_lesions": number,
         "n_unmeasured": unknown, "remark": (remarks or {}).get(name)}
        for name, (volume, number) in MEASURES.items()
    ]).reindex(columns=list(MISMATCH_COLUMNS))  # fmt: skip


def test_mismatch_has_a_row_for_each_tracer_and_one_for_both():
    [(title, shown, notes)] = mismatches(mismatch())
    assert title == "FDG and pentixafor, baseline"
    assert [[cell.text for cell in cells] for cells in shown.rows] == [
        ["FDG only", "2", "7.0", "12.5", "6.5"],
        ["pentixafor only", "1", "3.0", "10.7", "3.1"],
        ["both", "12", "68.4 on FDG; 68.1 on pentixafor", "62.9", ""],
    ]
    assert shown.columns[-1] == "of this beyond 5 mm, mL"
    assert notes == []


def test_mismatch_names_what_is_left_out_of_it():
    same = dict.fromkeys(("a_only_lesions", "both"), "not known on both scans: L03")
    [(_, _, notes)] = mismatches(mismatch(same, unknown=1))
    assert notes == ["By lesions and by voxels: not known on both scans: L03; the volumes are those of the others."]
    [(_, _, notes)] = mismatches(mismatch({"both": "outlined on one scan and carried to the other: L02"}))
    assert notes == ["By voxels: outlined on one scan and carried to the other: L02."]
    assert mismatches(mismatch().iloc[:0]) == []


def candidate(number, **told):
    usual = {"scan": "fdg0", "candidate": f"C{number:02d}", "site": "brain", "volume_ml": 4.2, "suv_max": 9.7,
             "kept": False, "reason": f"physiologic uptake {number}"}  # fmt: skip
    return usual | told


@pytest.fixture
def patient(tmp_path):
    return write_patient(tmp_path, dosimetry=False)


def text_of(folder):
    html = folder.report.read_text(encoding="utf-8")
    return " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_only_what_is_no_lesion_is_listed_as_such(patient):
    folder, listed = patient
    rows = [
        candidate(1), candidate(2, kept=True, lesion="L01"), candidate(3, kept=True),
        candidate(4, kept=True, in_reader_annotation=True),
    ]  # fmt: skip
    found = pd.DataFrame(rows).reindex(columns=list(CANDIDATE_COLUMNS))
    write_table(found, folder.table("candidates"), CANDIDATE_COLUMNS)
    write_patient_report(folder, listed, SETTINGS, VIEWER, folder.report)
    assert re.findall(r"physiologic uptake \d", text_of(folder)) == ["physiologic uptake 1"]
    assert "To overrule the program" not in text_of(folder)


@pytest.mark.parametrize(("number", "is_folded"), [(6, False), (7, True)])
def test_a_long_list_of_no_lesions_is_folded(patient, number, is_folded):
    folder, listed = patient
    found = pd.DataFrame([candidate(i) for i in range(number)]).reindex(columns=list(CANDIDATE_COLUMNS))
    write_table(found, folder.table("candidates"), CANDIDATE_COLUMNS)
    write_table(pd.DataFrame(columns=["patient"]), folder.table("decisions_draft"), ["patient"])
    write_patient_report(folder, listed, SETTINGS, VIEWER, folder.report)
    assert (f"<details><summary>{number} regions</summary>" in folder.report.read_text()) is is_folded
    assert "To overrule the program: lesions/decisions_draft.tsv" in text_of(folder)


def test_page_tells_doubts_first_and_the_burden_on_top(patient):
    folder, listed = patient
    lesions = read_table(folder.table("lesions")).reindex(columns=list(LESION_COLUMNS)).astype(object)
    here = (lesions["scan"] == "fdg1") & lesions["lesion"].isin(["L2", "L4"])
    lesions.loc[here, "look"] = "may be L3, 14 mm from it (probability 0.27)"
    gone = (lesions["scan"] == "cxcr4") & (lesions["lesion"] == "L2")
    lesions.loc[gone, ["positive", "suv_peak"]] = None
    lesions["sul_peak"] = 77.7
    write_table(lesions, folder.table("lesions"), LESION_COLUMNS)
    rows = [burden(FDG, "all", 4, 0, 40.0, 40.0, "L1"), burden(CXCR4, "all", 2, 1, None, 12.5)]
    write_table(pd.DataFrame(rows).reindex(columns=list(BURDEN_COLUMNS)), folder.table("burden"), BURDEN_COLUMNS)
    write_table(mismatch(), folder.table("mismatch"), MISMATCH_COLUMNS)
    ratio = pd.DataFrame([ratios(FDG, "L1", "liver", 2.0, 5.5)]).reindex(columns=list(TBR_COLUMNS))
    write_table(ratio, folder.table("tbr"), TBR_COLUMNS)
    write_patient_report(folder, listed, SETTINGS, VIEWER, folder.report)
    text = text_of(folder)
    facts, _, below = text.partition("Maximum-intensity projections")
    # By hand from the table: L1 to L4 have SUVpeak 11, 7.5, 5, 4.4 in FDG; 6, 9, 1, 3.9 in pentixafor without L2.
    assert "FDG, baseline: positive lesions 4 of 4 40.0 mL, SUVpeak up to 11.0" in facts
    assert "pentixafor, baseline: positive lesions 2 of 4 1 not measured, at least 12.5 mL, SUVpeak up to 6.0" in facts
    assert "A person should look at 2 lesions see Lesions" in facts
    look = "A person should look L2, L4 on fdg1: may be L3, 14 mm from it (probability 0.27)."
    assert below.index(look) < below.index("Axes, mm")
    assert below.index("TBR at baseline against every background") < below.index("liver, SUV 2.00")
    assert "the rest is a lower limit, and the hottest is not known" in below
    assert "What one tracer shows and the other does not: FDG and pentixafor, baseline" in below
    assert "77.7" not in text  # SUL is left to the file
