"""From a table of lesions to the table of response."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions import LESION_COLUMNS
from theraflow.response import RESPONSE_COLUMNS, assess_response
from theraflow.tables import read_table, write_table

SETTINGS = {"criteria": ["PERCIST 1.0", "RECIST 1.1"], "reference_tracer": "FDG"}
SCANS = {
    "fdg0": ("FDG", "baseline", "suv"),
    "cxcr4": ("pentixafor", "baseline", "suv"),
    "lu": ("pentixather", "dosimetry", "activity"),
    "fdg1": ("FDG", "followup", "suv"),
    "fdg2": ("FDG", "later", "suv"),
}
MAN = {"weight_kg": 81.0, "height_cm": 180.0, "sex": "M"}


def lesion(name, **on_scans):
    """Rows of one lesion: scan -> (SUVpeak, longest diameter, positive, source)."""
    rows = []
    for scan, (peak, longest, positive, source) in on_scans.items():
        tracer, timepoint, _ = SCANS[scan]
        rows.append(
            {"patient": "P002", "scan": scan, "tracer": tracer, "timepoint": timepoint, "lesion": name,
             "site": "liver", "suv_peak": peak, "longest_diameter_mm": longest, "short_axis_mm": longest,
             "positive": positive, "source": source}
        )  # fmt: skip
    return rows


def assess(root, scans, rows, facts=None, settings=SETTINGS):
    folder = PatientFolder(root, "P002")
    sheet = [Scan("P002", name, *SCANS[name][:2], "", SCANS[name][2]) for name in scans]
    for scan in sheet:
        sidecar = {"quantity": "SUVbw", "unit": "g/mL", **(facts or {}).get(scan.scan, {})}
        write_image(sitk.Image([2, 2, 2], sitk.sitkFloat32), folder.emission(scan), sidecar)
    write_table(pd.DataFrame(rows, columns=list(LESION_COLUMNS)), folder.table("lesions"), LESION_COLUMNS)
    assess_response(folder, sheet, settings)
    table = read_table(folder.table("response"))
    assert list(table.columns) == list(RESPONSE_COLUMNS)
    return table


def test_old_lesions_respond_but_new_ones_are_progression(tmp_path):
    """Patient 2 of Hartlapp et al. 2023: metabolic response in old lesions, progression by new ones."""
    rows = [
        *lesion("L01", fdg0=(16.0, 60.0, True, "reader"), fdg1=(9.0, 50.0, True, "reader")),
        *lesion("L02", fdg0=(8.0, 30.0, True, "reader"), fdg1=(3.0, 20.0, True, "reader")),
        *lesion("L03", fdg0=(0.5, 18.0, False, "carried"), fdg1=(6.0, 18.0, True, "reader")),
    ]
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    assert table["category"].to_dict() == {"PERCIST 1.0": "PMD", "RECIST 1.1": "PD"}
    assert list(table["new_lesions"]) == [1, 1]
    percist = table.loc["PERCIST 1.0"]
    assert (percist["baseline"], percist["followup"], percist["measure"]) == ("fdg0", "fdg1", "SUVpeak")
    assert (percist["measure_baseline"], percist["measure_followup"]) == (16.0, 9.0)
    assert percist["change_percent"] == pytest.approx(-43.75)
    recist = table.loc["RECIST 1.1"]
    assert (recist["measure_baseline"], recist["measure_followup"]) == (90.0, 70.0)


def test_the_hottest_lesion_may_be_another_one(tmp_path):
    rows = [
        *lesion("L01", fdg0=(10.0, 40.0, True, "reader"), fdg1=(2.0, 40.0, True, "reader")),
        *lesion("L02", fdg0=(5.0, 30.0, True, "reader"), fdg1=(6.0, 30.0, True, "reader")),
    ]
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    assert table.loc["PERCIST 1.0", "measure_followup"] == 6.0
    assert table["category"].to_dict() == {"PERCIST 1.0": "PMR", "RECIST 1.1": "SD"}


def test_a_lesion_seen_by_the_other_tracer_at_baseline_is_not_new(tmp_path):
    rows = lesion(
        "L01",
        fdg0=(1.0, 20.0, False, "carried"),
        cxcr4=(7.0, 20.0, True, "candidate"),
        lu=(np.nan, 20.0, None, "carried"),
        fdg1=(5.0, 20.0, True, "reader"),
    )
    table = assess(tmp_path, ["fdg0", "cxcr4", "lu", "fdg1"], rows).set_index("criterion")
    assert list(table["new_lesions"]) == [0, 0]
    assert table["category"].to_dict() == {"PERCIST 1.0": "NE", "RECIST 1.1": "SD"}


def test_lesions_gone_by_the_readers_word_are_a_complete_response(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(0.8, 40.0, False, "carried"))
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    assert table["category"].to_dict() == {"PERCIST 1.0": "CMR", "RECIST 1.1": "CR"}
    assert list(table["measure_followup"]) == [0.8, 0.0]


def test_positive_but_not_outlined_has_no_size(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(8.0, 40.0, True, "carried"))
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    assert table["category"].to_dict() == {"PERCIST 1.0": "SMD", "RECIST 1.1": "NE"}


def test_outside_the_field_of_view_nothing_is_said(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(np.nan, np.nan, None, "carried"))
    table = assess(tmp_path, ["fdg0", "fdg1"], rows)
    assert list(table["category"]) == ["NE", "NE"]


def failed(rows, *scans):
    """The rows with the verdict on their scans' registration, and NA for what could not be carried there."""
    return [row | {"registration": "failed" if row["scan"] in scans else "good"} for row in rows]


NOT_CARRIED = (np.nan, np.nan, None, None)


def test_an_unmatched_lesion_of_an_unregistered_followup_may_be_an_old_one(tmp_path):
    """L02 was not found again and L03 appears: in truth they may be one lesion, so no progression may be claimed."""
    rows = [
        *lesion("L01", fdg0=(16.0, 60.0, True, "reader"), fdg1=(9.0, 50.0, True, "reader")),
        *lesion("L02", fdg0=(8.0, 30.0, True, "reader"), fdg1=NOT_CARRIED),
        *lesion("L03", fdg0=NOT_CARRIED, fdg1=(6.0, 18.0, True, "reader")),
    ]
    table = assess(tmp_path, ["fdg0", "fdg1"], failed(rows, "fdg1")).set_index("criterion")
    assert table["category"].to_dict() == {"PERCIST 1.0": "NE", "RECIST 1.1": "NE"}
    assert table["new_lesions"].isna().all()
    assert table["remark"].eq("L03 may be new or known under another name: the registration of fdg1 has failed").all()
    assert table.loc["PERCIST 1.0", "change_percent"] == pytest.approx(-43.75)  # the hottest needs no name


def test_what_is_certain_in_spite_of_a_failed_registration_is_said(tmp_path):
    found_again = lesion("L01", fdg0=(10.0, 60.0, True, "reader"), fdg1=(5.0, 50.0, True, "reader"))
    # All old lesions were found again on the follow-up, which outlines the third beside them: that one is new.
    rows = [*found_again, *lesion("L02", fdg0=NOT_CARRIED, fdg1=(6.0, 18.0, True, "reader"))]
    table = assess(tmp_path / "new", ["fdg0", "fdg1"], failed(rows, "fdg1"))
    assert list(table["category"]) == ["PMD", "PD"]
    assert list(table["new_lesions"]) == [1, 1]
    assert table["remark"].isna().all()
    # The peak has risen by more than 30 %: progression, whichever the lesions are.
    rows = [*lesion("L01", fdg0=(10.0, 60.0, True, "reader"), fdg1=NOT_CARRIED),
            *lesion("L02", fdg0=NOT_CARRIED, fdg1=(15.0, 60.0, True, "reader"))]  # fmt: skip
    table = assess(tmp_path / "risen", ["fdg0", "fdg1"], failed(rows, "fdg1")).set_index("criterion")
    assert table.loc["PERCIST 1.0", "category"] == "PMD"
    # One lesion is gone and another has come on scans that were registered; that a third scan was not is no matter.
    rows = [*lesion("L01", fdg0=(10.0, 60.0, True, "reader"), fdg1=(0.5, 60.0, False, "carried")),
            *lesion("L02", fdg0=(0.5, 18.0, False, "carried"), fdg1=(6.0, 18.0, True, "reader"))]  # fmt: skip
    table = assess(tmp_path / "gone", ["fdg0", "cxcr4", "fdg1"], failed(rows, "cxcr4"))
    assert list(table["category"]) == ["PMD", "PD"]
    assert list(table["new_lesions"]) == [1, 1]
    # Another tracer's scan has failed and shows nothing that is not known: all is as without it.
    rows = [*found_again, *lesion("L02", fdg0=(0.5, 18.0, False, "carried"), fdg1=(6.0, 18.0, True, "reader"))]
    rows += lesion("L01", cxcr4=(7.0, 55.0, True, "candidate"))
    table = assess(tmp_path / "other", ["fdg0", "cxcr4", "fdg1"], failed(rows, "cxcr4"))
    assert list(table["category"]) == ["PMD", "PD"]
    # It shows one more, which may be the new lesion of the follow-up.
    rows += lesion("L03", cxcr4=(7.0, 20.0, True, "candidate"))
    table = assess(tmp_path / "more", ["fdg0", "cxcr4", "fdg1"], failed(rows, "cxcr4"))
    assert list(table["category"]) == ["NE", "NE"]


def test_sul_where_both_scans_allow_it(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(3.0, 40.0, True, "reader"))
    table = assess(tmp_path, ["fdg0", "fdg1"], rows, {"fdg0": MAN, "fdg1": MAN}).set_index("criterion")
    percist = table.loc["PERCIST 1.0"]
    assert percist["measure"] == "SULpeak (Janmahasatian)"
    assert percist["measure_baseline"] == pytest.approx(9.0 * 9270 / (6680 + 216 * 25))
    table = assess(tmp_path, ["fdg0", "fdg1"], rows, {"fdg0": MAN, "fdg1": MAN | {"height_cm": None}})
    assert table["measure"].iloc[0] == "SUVpeak"
    assert table["measure_baseline"].iloc[0] == 9.0


def test_every_followup_has_its_rows_and_new_means_new_since_all_before(tmp_path):
    rows = [
        *lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(5.0, 20.0, True, "reader"),
                fdg2=(5.0, 25.0, True, "reader")),
        *lesion("L02", fdg0=(0.5, 20.0, False, "carried"), fdg1=(5.0, 20.0, True, "reader"),
                fdg2=(5.0, 20.0, True, "reader")),
    ]  # fmt: skip
    table = assess(tmp_path, ["fdg0", "fdg1", "fdg2"], rows)
    assert list(table["followup"]) == ["fdg1", "fdg1", "fdg2", "fdg2"]
    assert list(table["baseline"].unique()) == ["fdg0"]
    assert list(table["new_lesions"]) == [1, 1, 0, 0]
    recist = table[table["criterion"] == "RECIST 1.1"]
    assert list(recist["category"]) == ["PD", "PD"]  # the second by +25 % and +5 mm over the smallest sum


@pytest.mark.parametrize("scans", [["fdg0"], ["fdg0", "cxcr4", "lu"], ["lu"], ["cxcr4", "fdg1"]])
def test_without_a_followup_of_the_same_tracer_the_table_is_empty(tmp_path, scans):
    assert len(assess(tmp_path, scans, [])) == 0


def test_without_lesions_nothing_can_be_evaluated(tmp_path):
    assert list(assess(tmp_path, ["fdg0", "fdg1"], [])["category"]) == ["NE", "NE"]


def test_only_the_criteria_asked_for(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(3.0, 40.0, True, "reader"))
    settings = SETTINGS | {"criteria": ["RECIST 1.1"]}
    assert list(assess(tmp_path, ["fdg0", "fdg1"], rows, settings=settings)["criterion"]) == ["RECIST 1.1"]
    with pytest.raises(TheraflowError, match=r"'WHO'.*PERCIST 1.0"):
        assess(tmp_path, ["fdg0", "fdg1"], rows, settings=SETTINGS | {"criteria": ["WHO"]})
