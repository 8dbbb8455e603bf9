"""From a table of lesions to the table of response."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import from_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions import LESION_COLUMNS
from theraflow.organs import ORGAN_IDS
from theraflow.registration import write_transform
from theraflow.response import RESPONSE_COLUMNS, assess_response
from theraflow.tables import read_table, write_table

SETTINGS = {"criteria": ["PERCIST 1.0", "RECIST 1.1"], "reference_tracer": "FDG", "minimum_stable_weeks": 6}
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


def assess(root, scans, rows, facts=None, settings=SETTINGS, unsearched=None):
    folder = PatientFolder(root, "P002")
    sheet = [Scan("P002", name, *SCANS[name][:2], "", SCANS[name][2]) for name in scans]
    for scan in sheet:
        sidecar = {"quantity": "SUVbw", "unit": "g/mL", **(facts or {}).get(scan.scan, {})}
        write_image(sitk.Image([2, 2, 2], sitk.sitkFloat32), folder.emission(scan), sidecar)
        about = {"quantity": "lesion label", "unit": "1", "unsearched": (unsearched or {}).get(scan.scan)}
        write_image(sitk.Image([2, 2, 2], sitk.sitkUInt8), folder.lesion_map(scan.scan), about)
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
    doubt = "L03 may be new or known under another name: the registration of fdg1 has failed"
    assert table["remark"].str.split("; ").str[0].eq(doubt).all()
    assert table.loc["PERCIST 1.0", "change_percent"] == pytest.approx(-43.75)  # the hottest needs no name


def test_what_is_certain_in_spite_of_a_failed_registration_is_said(tmp_path):
    found_again = lesion("L01", fdg0=(10.0, 60.0, True, "reader"), fdg1=(5.0, 50.0, True, "reader"))
    # All old lesions were found again on the follow-up, which outlines the third beside them: that one is new.
    rows = [*found_again, *lesion("L02", fdg0=NOT_CARRIED, fdg1=(6.0, 18.0, True, "reader"))]
    table = assess(tmp_path / "new", ["fdg0", "fdg1"], failed(rows, "fdg1"))
    assert list(table["category"]) == ["PMD", "PD"]
    assert list(table["new_lesions"]) == [1, 1]
    assert not table["remark"].str.contains("registration").any()
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


def test_where_nobody_has_looked_new_lesions_are_not_none(tmp_path):
    """No new lesion among those carried to a scan says nothing; progression of the known ones stays one."""
    because = {"fdg1": "it has no annotation"}
    shrunk = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(4.0, 20.0, True, "candidate"))
    looked = assess(tmp_path / "a", ["fdg0", "fdg1"], shrunk)
    assert looked["category"].tolist() == ["PMR", "PR"] and looked["new_lesions"].tolist() == [0, 0]
    not_looked = assess(tmp_path / "b", ["fdg0", "fdg1"], shrunk, unsearched=because)
    assert not_looked["category"].tolist() == ["NE", "NE"] and not_looked["new_lesions"].isna().all()
    assert not_looked["change_percent"].tolist() == looked["change_percent"].tolist()
    told = "nobody has looked for new lesions on fdg1: it has no annotation"
    assert not_looked["remark"].str.startswith(told).all()
    risen = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(18.0, 60.0, True, "candidate"))
    assert assess(tmp_path / "c", ["fdg0", "fdg1"], risen, unsearched=because)["category"].tolist() == ["PMD", "PD"]
    # Before the baseline nothing is new.
    assert assess(tmp_path / "d", ["fdg0", "fdg1"], shrunk, unsearched={"fdg0": "x"})["category"].tolist() == [
        "PMR",
        "PR",
    ]


def test_what_a_reader_has_clicked_at_baseline_is_not_new(tmp_path):
    rows = lesion("L01", fdg0=(2.0, 20.0, False, "click"), fdg1=(4.0, 20.0, True, "candidate"))
    assert assess(tmp_path, ["fdg0", "fdg1"], rows)["new_lesions"].tolist() == [0, 0]


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


FACTS = MAN | {"time_after_injection_h": 1.0, "injected_mbq": 300.0, "scanner": "A", "radiopharmaceutical": "[18F]FDG"}
LEAN = 9270 / (6680 + 216 * 25)  # of MAN: lean body mass over weight
ORGAN_TABLE = ("organ", "plausible", "remark")


def body(liver=2.0, blood=1.5, other=0.5):
    """SUV and organ labels of a body: liver, heart, and behind it the aorta. Voxels of 4 mm; x, y, z in LPS mm."""
    z, y, x = np.meshgrid(*[np.arange(0.0, 200.0, 4.0)] * 3, indexing="ij")
    values, labels = np.full(x.shape, other, np.float32), np.zeros(x.shape, np.uint8)
    where = {
        "liver": (x < 120) & (abs(y - 100) < 50) & (z > 10) & (z < 90),
        "heart": (abs(x - 120) < 30) & (y < 90) & (z > 110) & (z < 180),
        "aorta": ((x - 110) ** 2 + (y - 130) ** 2 < 14**2) & (z > 100),
    }
    for organ, value in (("liver", liver), ("heart", other), ("aorta", blood)):
        labels[where[organ]] = ORGAN_IDS[organ]
        values[where[organ]] = value
    return values, labels


def assess_bodies(root, rows, bodies, facts=None, settings=SETTINGS, read=(), doubtful=None):
    """As `assess`, with organs: `bodies` by scan, `facts` beside FACTS by scan, `read` the annotated scans."""
    folder = PatientFolder(root, "P002")
    sheet = [Scan("P002", name, *SCANS[name][:2], "", "suv", lesions="x" if name in read else None) for name in bodies]
    for scan in sheet:
        values, labels = (from_array(array, like) for array in bodies[scan.scan] for like in [_grid()])
        known = FACTS | (facts or {}).get(scan.scan, {})
        write_image(values, folder.emission(scan), {"quantity": "SUVbw", "unit": "g/mL", **known})
        write_image(labels, folder.organs(scan.scan), {"quantity": "label", "unit": "1"})
        write_image(labels * 0, folder.lesion_map(scan.scan), {"quantity": "lesion label", "unit": "1"})
        write_transform(sitk.Euler3DTransform(), folder.ct_to_emission(scan.scan))
        odd = (doubtful or {}).get(scan.scan, ())
        table = [(organ, "no" if organ in odd else "yes", "odd") for organ in ("liver", "heart", "aorta")]
        write_table(pd.DataFrame(table, columns=list(ORGAN_TABLE)), folder.organ_table(scan.scan), ORGAN_TABLE)
    write_table(pd.DataFrame(rows, columns=list(LESION_COLUMNS)), folder.table("lesions"), LESION_COLUMNS)
    assess_response(folder, sheet, settings)
    return folder, read_table(folder.table("response")).set_index("criterion").loc["PERCIST 1.0"]


def _grid():
    grid = sitk.Image([50, 50, 50], sitk.sitkUInt8)
    grid.SetSpacing((4.0, 4.0, 4.0))
    return grid


def lung(name, **on_scans):
    return [row | {"site": "lung upper lobe left"} for row in lesion(name, **on_scans)]


def test_the_reference_regions_are_measured_and_written(tmp_path):
    rows = lung("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(5.0, 40.0, True, "reader"))
    folder, row = assess_bodies(tmp_path, rows, {"fdg0": body(), "fdg1": body(2.2, 1.6)})
    assert (row["category"], row["reference_region"], row["comparable"]) == ("PMR", "liver", "yes")
    assert pd.isna(row["remark"])
    assert row["measurable_from"] == pytest.approx(1.5 * 2.0 * LEAN)
    table = read_table(folder.table("percist_reference"))
    assert [tuple(one) for one in table[["scan", "region"]].to_numpy()] == [
        ("fdg0", "liver"), ("fdg0", "blood_pool"), ("fdg1", "liver"), ("fdg1", "blood_pool"),
    ]  # fmt: skip
    assert table["mean"].to_numpy() == pytest.approx(np.array([2.0, 1.5, 2.2, 1.6]) * LEAN, rel=1e-6)
    assert table["sd"].to_numpy() == pytest.approx(0.0, abs=1e-6)
    # Points of a cubic lattice of 4 mm within 15 mm of one of them: 251.
    assert table.loc[0, "volume_ml"] == pytest.approx(251 * 0.064)
    assert table.loc[0, "x_mm"] < 60.0  # the patient's right half of the liver


@pytest.mark.parametrize(("now", "category"), [(1.49, "CMR"), (1.51, "PMR")])
def test_a_complete_response_is_below_liver_and_like_blood(tmp_path, now, category):
    """Above its surroundings or not does not matter where liver (2.0) and blood pool (1.5) are known."""
    rows = lung("L01", fdg0=(9.0, 40.0, True, "candidate"), fdg1=(now, 40.0, True, "carried"))
    _, row = assess_bodies(tmp_path, rows, {"fdg0": body(), "fdg1": body()})
    assert row["category"] == category
    rows = lung("L01", fdg0=(9.0, 40.0, True, "candidate"), fdg1=(now, 40.0, False, "carried"))
    _, row = assess_bodies(tmp_path / "unlit", rows, {"fdg0": body(), "fdg1": body()})
    assert row["category"] == category


def test_the_readers_word_overrules_and_the_table_says_so(tmp_path):
    rows = lung("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(4.0, 40.0, False, "carried"))
    bodies = {"fdg0": body(), "fdg1": body()}
    _, row = assess_bodies(tmp_path, rows, bodies, read=("fdg0", "fdg1"))
    assert row["category"] == "CMR"
    assert row["remark"] == f"the reader sees no L01, though its place has {4.0 * LEAN:.2f} g/mL"
    _, row = assess_bodies(tmp_path, rows, bodies)
    assert row["category"] == "PMR"


@pytest.mark.parametrize(("peak", "category"), [(3.0, "PMR"), (2.99, "NE")])
def test_a_lesion_must_be_measurable_at_baseline(tmp_path, peak, category):
    """1.5 x 2.0 SUV and no noise in the liver: 3.0, in SUL the same times the lean fraction."""
    rows = lung("L01", fdg0=(peak, 40.0, True, "candidate"), fdg1=(1.6, 40.0, True, "candidate"))
    _, row = assess_bodies(tmp_path, rows, {"fdg0": body(), "fdg1": body()})
    assert row["category"] == category
    assert pd.isna(row["remark"]) or row["remark"].startswith("not measurable at baseline")
    # A new lesion is progression all the same.
    rows += lung("L02", fdg0=(0.5, 20.0, False, "carried"), fdg1=(5.0, 20.0, True, "candidate"))
    _, row = assess_bodies(tmp_path / "new", rows, {"fdg0": body(), "fdg1": body()})
    assert row["category"] == "PMD"


def test_where_the_liver_may_not_be_used_the_blood_pool_is(tmp_path):
    rows = lung("L01", fdg0=(9.0, 40.0, True, "candidate"), fdg1=(5.0, 40.0, True, "candidate"))
    # The liver is implausible.
    folder, row = assess_bodies(tmp_path, rows, {"fdg0": body(), "fdg1": body()}, doubtful={"fdg0": ("liver",)})
    assert (row["reference_region"], row["comparable"]) == ("blood_pool", "yes")
    assert row["measurable_from"] == pytest.approx(2.0 * 1.5 * LEAN)
    table = read_table(folder.table("percist_reference"))
    assert table["remark"].dropna().to_list() == ["liver is not plausible (odd)"]
    # It has changed by more than 20 %.
    _, row = assess_bodies(tmp_path / "changed", rows, {"fdg0": body(), "fdg1": body(2.5)})
    assert (row["reference_region"], row["comparable"]) == ("blood_pool", "yes")
    assert row["remark"].startswith("mean of the liver changed from")
    # So has the blood pool: the two scans are not comparable.
    _, row = assess_bodies(tmp_path / "both", rows, {"fdg0": body(), "fdg1": body(2.5, 2.5)})
    assert pd.isna(row["reference_region"])
    assert (row["category"], row["comparable"]) == ("PMR", "no")


@pytest.mark.parametrize(
    ("facts", "comparable", "remark"),
    [
        ({"time_after_injection_h": 80 / 60}, "no", "uptake times 20.0 min apart, asked 15 at most"),
        ({"injected_mbq": 400.0}, "no", "injected activities 33.3 % apart, asked 20 at most"),
        ({"scanner": "B"}, "no", "another scanner: A, B"),
        ({"scanner": None}, "unknown", "not known: scanner"),
        ({"time_after_injection_h": None, "injected_mbq": None}, "unknown",
         "not known: uptake times, injected activities"),
        ({"radiopharmaceutical": "[68Ga]PSMA-11"}, "yes",
         "PERCIST-like, exploratory: PERCIST is made for FDG, not for [68Ga]PSMA-11"),
    ],
)  # fmt: skip
def test_the_conditions_are_looked_at_and_said(tmp_path, facts, comparable, remark):
    rows = lung("L01", fdg0=(9.0, 40.0, True, "candidate"), fdg1=(5.0, 40.0, True, "candidate"))
    _, row = assess_bodies(tmp_path, rows, {"fdg0": body(), "fdg1": body()}, {"fdg1": facts})
    assert (row["category"], row["comparable"], row["remark"]) == ("PMR", comparable, remark)


def test_without_organs_what_cannot_be_judged_is_said(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(3.0, 40.0, True, "reader"))
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    row = table.loc["PERCIST 1.0"]
    assert (row["category"], row["comparable"]) == ("PMR", "unknown")
    assert row["remark"] == (
        "measurability and CMR could not be judged by liver or blood pool; "
        "not known: a reference region of both scans, uptake times, injected activities, scanner"
    )
    assert pd.isna(table.loc["RECIST 1.1", "remark"])


def test_the_five_hottest_are_summed_beside_the_hottest(tmp_path):
    peaks = {"L01": (9.0, 6.0), "L02": (8.0, 5.0), "L03": (7.0, 7.0)}
    rows = [
        row
        for name, (before, now) in peaks.items()
        for row in lesion(name, fdg0=(before, 40.0, True, "reader"), fdg1=(now, 40.0, True, "reader"))
    ]
    row = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion").loc["PERCIST 1.0"]
    # All lie in the liver: two of each scan, not the same ones.
    assert (row["exploratory_baseline"], row["exploratory_followup"]) == (17.0, 13.0)
    assert row["exploratory_change_percent"] == pytest.approx(-100 * 4 / 17)
    targets = read_table(PatientFolder(tmp_path, "P002").table("targets"))
    mine = targets[targets["criterion"] == "PERCIST 1.0"]
    assert mine[["scan", "lesion", "role", "value"]].to_numpy().tolist() == [
        ["fdg0", "L01", "hottest", 9.0], ["fdg0", "L02", "exploratory", 8.0],
        ["fdg1", "L03", "hottest", 7.0], ["fdg1", "L01", "exploratory", 6.0],
    ]  # fmt: skip


def test_another_lesion_that_rises_is_no_partial_response(tmp_path):
    rows = [
        *lesion("L01", fdg0=(10.0, 40.0, True, "reader"), fdg1=(5.0, 40.0, True, "reader")),
        *lesion("L02", fdg0=(3.0, 40.0, True, "reader"), fdg1=(4.0, 40.0, True, "reader")),
    ]
    row = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion").loc["PERCIST 1.0"]
    assert row["category"] == "SMD"
    assert "L02 rose by 33.3 % in uptake" in row["remark"]


@pytest.mark.parametrize(("tlg", "category"), [(175.0, "PMD"), (174.0, "SMD")])
def test_growth_without_decline_of_uptake_is_progression(tmp_path, tlg, category):
    rows = lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(9.0, 45.0, True, "reader"))
    rows = [row | {"tlg_ml": value} for row, value in zip(rows, (100.0, tlg), strict=True)]
    row = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion").loc["PERCIST 1.0"]
    assert row["category"] == category
    assert ("TLG rose by 75.0 %" in row["remark"]) is (category == "PMD")


def test_what_recist_sums_is_in_a_table_of_its_own(tmp_path):
    nodal = [
        row | {"site": "lymph node"}
        for row in lesion("L02", fdg0=(8.0, 12.0, True, "reader"), fdg1=(8.0, 4.0, True, "reader"))
    ]
    rows = [*lesion("L01", fdg0=(9.0, 40.0, True, "reader"), fdg1=(3.0, 3.0, True, "reader")), *nodal]
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    row = table.loc["RECIST 1.1"]
    assert (row["category"], row["target_response"], row["non_target_response"]) == ("PR", "PR", "CR")
    assert (row["measure_followup"], row["measure_nadir"]) == (5.0, 40.0)
    targets = read_table(PatientFolder(tmp_path, "P002").table("targets"))
    mine = targets[targets["criterion"] == "RECIST 1.1"]
    assert mine[["scan", "lesion", "role", "value", "unit"]].to_numpy().tolist() == [
        ["fdg0", "L01", "target", 40.0, "longest diameter, mm"], ["fdg0", "L02", "non-target", 12.0, "short axis, mm"],
        ["fdg1", "L01", "target", 5.0, "longest diameter, mm"], ["fdg1", "L02", "non-target", 5.0, "short axis, mm"],
    ]  # fmt: skip


def test_thick_slices_make_small_lesions_not_measurable(tmp_path):
    rows = lesion("L01", fdg0=(9.0, 10.5, True, "reader"), fdg1=(9.0, 5.0, True, "reader"))
    folder = PatientFolder(tmp_path, "P002")
    response = {}
    for slice_mm in (5.0, 6.0):
        sheet = [Scan("P002", name, *SCANS[name][:2], "", "suv") for name in ("fdg0", "fdg1")]
        image = sitk.Image([2, 2, 2], sitk.sitkFloat32)
        image.SetSpacing((2.0, 2.0, slice_mm))
        for scan in sheet:
            write_image(image, folder.emission(scan), {"quantity": "SUVbw", "unit": "g/mL"})
            write_image(image, folder.lesion_map(scan.scan), {"quantity": "lesion label", "unit": "1"})
        write_table(pd.DataFrame(rows, columns=list(LESION_COLUMNS)), folder.table("lesions"), LESION_COLUMNS)
        assess_response(folder, sheet, SETTINGS)
        response[slice_mm] = read_table(folder.table("response")).set_index("criterion").loc["RECIST 1.1", "category"]
    assert response == {5.0: "PR", 6.0: "Non-CR/Non-PD"}


@pytest.mark.parametrize(
    ("days", "best", "confirmed", "remark"),
    [
        (("2020-01-01", "2020-03-01", "2020-03-29"), "PR", "PR", None),  # 28 days apart
        (("2020-01-01", "2020-03-01", "2020-03-28"), "PR", "SD", None),
        (("2020-01-01", None, "2020-03-28"), "PR", "SD", "the day of a scan is not known"),
        (
            ("2020-01-01", "2020-04-28", "2020-03-28"),
            "PR",
            "SD",
            "the sheet does not name the scans in the order of their days",
        ),
    ],
)
def test_best_response_by_the_days_of_the_scans(tmp_path, days, best, confirmed, remark):
    rows = lesion(
        "L01",
        fdg0=(9.0, 40.0, True, "reader"), fdg1=(9.0, 20.0, True, "reader"), fdg2=(9.0, 20.0, True, "reader"),
    )  # fmt: skip
    names = ("fdg0", "fdg1", "fdg2")
    hours = ("T18:00:00", "T08:00:00", "T07:00:00")  # calendar days count, not hours
    facts = {name: {"acquired_at": day and day + hour} for name, day, hour in zip(names, days, hours, strict=True)}
    table = assess(tmp_path, names, rows, facts)
    assert table.loc[table["followup"] == "fdg2", "days_since_baseline"].eq(88 if days[2].endswith("29") else 87).all()
    row = read_table(PatientFolder(tmp_path, "P002").table("best_response")).iloc[0]
    assert (row["criterion"], row["best_response"], row["best_response_confirmed"]) == ("RECIST 1.1", best, confirmed)
    assert (row["followups"], row["minimum_stable_weeks"]) == (2, 6)
    assert row["remark"] == remark if remark else pd.isna(row["remark"])


def test_every_table_is_there_even_without_a_followup(tmp_path):
    assess(tmp_path, ["fdg0"], [])
    folder = PatientFolder(tmp_path, "P002")
    for name in ("targets", "percist_reference", "best_response"):
        assert folder.table(name).parent == folder.root
        assert len(read_table(folder.table(name))) == 0


@pytest.mark.parametrize(("site_by", "size"), [("reader", 16.0), ("organ", 16.0), ("surroundings", 22.0)])
def test_only_a_node_that_is_surely_one_is_measured_by_its_short_axis(tmp_path, site_by, size):
    rows = lesion("L01", fdg0=(10.0, 22.0, True, "reader"), fdg1=(9.0, 22.0, True, "reader"))
    rows = [{**row, "site": "lymph node", "short_axis_mm": 16.0, "site_by": site_by} for row in rows]
    table = assess(tmp_path, ["fdg0", "fdg1"], rows).set_index("criterion")
    assert table.loc["RECIST 1.1", "measure_baseline"] == size
