"""What the patient's report tells of response: the category, and what it rests on."""

import re

import pandas as pd
from patient_on_disk import SETTINGS, VIEWER, write_patient

from theraflow.report import write_patient_report
from theraflow.report.response import (
    best_responses,
    reference_table,
    response_remarks,
    response_table,
    target_tables,
)
from theraflow.response import RESPONSE_COLUMNS
from theraflow.response.contract import BEST_COLUMNS, REFERENCE_COLUMNS, TARGET_COLUMNS
from theraflow.tables import write_table

PERCIST = {
    "baseline": "fdg0", "followup": "fdg1", "criterion": "PERCIST 1.0", "category": "PMR", "measure_baseline": 10.49,
    "measure_followup": 6.14, "change_percent": -41.5, "new_lesions": 0, "measure": "SULpeak (Janmahasatian)",
    "remark": "not known: scanner", "days_since_baseline": 77, "reference_region": "liver", "measurable_from": 2.792,
    "comparable": "unknown", "exploratory_baseline": 37.6, "exploratory_followup": 23.78,
    "exploratory_change_percent": -36.7,
}  # fmt: skip
RECIST = {
    "baseline": "fdg0", "followup": "fdg1", "criterion": "RECIST 1.1", "category": "PD", "measure_baseline": 142.05,
    "measure_followup": 132.12, "change_percent": -7.0, "measure": "sum of diameters (mm)", "days_since_baseline": 77,
    "target_response": "SD", "non_target_response": "Non-CR/Non-PD", "measure_nadir": 101.0,
    "change_from_nadir_percent": 30.8,
}  # fmt: skip
BEST = {"criterion": "RECIST 1.1", "best_response": "PR", "best_response_confirmed": "SD", "followups": 2,
        "minimum_stable_weeks": 6.0}  # fmt: skip


def table(columns, *rows):
    return pd.DataFrame(rows).reindex(columns=list(columns))


def shown(one):
    return [dict(zip(one.columns, (cell.text for cell in cells), strict=True)) for cells in one.rows]


def test_table_has_category_days_and_whether_the_scans_compare():
    percist, recist = shown(response_table(table(RESPONSE_COLUMNS, PERCIST, RECIST)))
    assert (percist["Category"], percist["Days"], percist["Change, %"]) == ("PMR", "77", "−42")
    assert percist["Scans comparable"] == "unknown"
    assert (recist["Category"], recist["New lesions"], recist["Scans comparable"]) == ("PD", "–", "–")


def test_sentences_say_what_a_category_is_made_of():
    assert response_remarks(table(RESPONSE_COLUMNS, PERCIST, RECIST)) == [
        (
            "PERCIST 1.0, fdg1",
            "not known: scanner; measurable from 2.79 at baseline; for exploration, the hottest lesions together "
            "37.6 to 23.8 (−37 %).",
        ),
        (
            "RECIST 1.1, fdg1",
            "target lesions SD; other lesions Non-CR/Non-PD; +31 % from the smallest sum, 101.0.",
        ),
    ]
    bare = {name: RECIST[name] for name in ("criterion", "followup", "category")}
    assert response_remarks(table(RESPONSE_COLUMNS, bare)) == []
    assert response_remarks(table(RESPONSE_COLUMNS)) == []


def test_best_response_says_what_would_be_left_of_it_if_it_must_be_confirmed():
    [(criterion, category, how)] = best_responses(table(BEST_COLUMNS, BEST))
    assert (criterion, category) == ("RECIST 1.1", "PR")
    assert how == (
        "of 2 follow-ups; SD if CR and PR must be confirmed by a later scan; SD counts from 6 weeks after baseline on"
    )
    [(_, _, how)] = best_responses(table(BEST_COLUMNS, BEST | {"remark": "the day of a scan is not known"}))
    assert how.endswith("; the day of a scan is not known")


def target(criterion, scan, lesion, role, value, site="liver"):
    return {"criterion": criterion, "scan": scan, "timepoint": {"fdg0": "baseline"}.get(scan, "followup"),
            "lesion": lesion, "site": site, "role": role, "value": value, "unit": "mm"}  # fmt: skip


def test_lesions_that_count_have_a_column_for_every_scan():
    rows = table(
        TARGET_COLUMNS,
        target("PERCIST 1.0", "fdg0", "L09", "hottest", 10.49),
        target("PERCIST 1.0", "fdg0", "L11", "exploratory", 7.9),
        target("RECIST 1.1", "fdg0", "L01", "target", 29.04), target("RECIST 1.1", "fdg0", "L02", "non-target", 18.3),
        target("PERCIST 1.0", "fdg1", "L14", "hottest", 6.1), target("PERCIST 1.0", "fdg1", "L09", "exploratory", 5.2),
        target("RECIST 1.1", "fdg1", "L01", "target", 27.41), target("RECIST 1.1", "fdg1", "L02", "non-target", None),
    )  # fmt: skip
    (first, percist, note), (second, recist, no_note) = target_tables(rows)
    assert (first, second, no_note) == ("PERCIST 1.0", "RECIST 1.1", "")
    assert "hottest lesion of each scan" in note
    before, now = "fdg0 (baseline)", "fdg1 (followup)"
    assert [(row["Lesion"], row[before], row[now]) for row in shown(percist)] == [
        ("L09", "10.5", "5.2"), ("L11", "7.9", "–"), ("L14", "–", "6.1"),
    ]  # fmt: skip
    bold = [[cell.text for cell in cells[2:] if cell.look == "strong"] for cells in percist.rows]
    assert bold == [["10.5"], [], ["6.1"]]
    assert [(row["Role"], row[before], row[now]) for row in shown(recist)] == [
        ("target", "29.0", "27.4"), ("non-target", "18.3", "–"),
    ]  # fmt: skip
    assert target_tables(rows.iloc[:0]) == []


def test_a_reference_region_that_is_missing_has_its_reason():
    there = {"scan": "fdg0", "region": "liver", "mean": 1.718, "sd": 0.107, "volume_ml": 13.84, "x_mm": -83.3,
             "y_mm": 15.3, "z_mm": 230.0, "measure": "SUL (Janmahasatian), g/mL"}  # fmt: skip
    missing = {"scan": "fdg0", "region": "blood_pool", "remark": "the aorta is not plausible"}
    liver, blood = shown(reference_table(table(REFERENCE_COLUMNS, there, missing)))
    assert (liver["Mean"], liver["sd"], liver["Centre x, y, z, mm (LPS)"]) == ("1.72", "0.11", "−83, 15, 230")
    assert (blood["Region"], blood["Mean"], blood["Centre x, y, z, mm (LPS)"]) == ("blood pool", "–", "–")
    assert blood["Remark"] == "the aorta is not plausible"


def test_page_has_the_category_on_top_and_what_it_rests_on_below(tmp_path):
    folder, listed = write_patient(tmp_path, dosimetry=False)
    percist = PERCIST | {"category": "PMD", "new_lesions": 3}
    target_row = target("RECIST 1.1", "fdg0", "L01", "target", 29.05)
    reference = {"scan": "fdg0", "region": "liver", "mean": 1.7, "sd": 0.1, "measure": "SUL"}
    for name, columns, row in (
        ("response", RESPONSE_COLUMNS, percist), ("best_response", BEST_COLUMNS, BEST),
        ("targets", TARGET_COLUMNS, target_row), ("percist_reference", REFERENCE_COLUMNS, reference),
    ):  # fmt: skip
        write_table(table(columns, row), folder.table(name), columns)
    write_patient_report(folder, listed, SETTINGS, VIEWER, folder.report)
    html = folder.report.read_text()
    text = " ".join(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL).split())
    assert "PERCIST 1.0, fdg1 PMD −42 %, 3 new lesions" in text.partition("Quality checks")[0]
    response = text.partition("Response Criterion")[2]
    for words in ("PERCIST 1.0, fdg1: not known: scanner;", "Best response by RECIST 1.1: PR (of 2 follow-ups;",
                  "Lesions that count for RECIST 1.1", "Reference regions of PERCIST"):  # fmt: skip
        assert words in response, words
