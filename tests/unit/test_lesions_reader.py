"""The stage with a reader's decisions: what changes, and that everything else stays as it was."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from test_lesions_stage import LESIONS, SETTINGS, run, shifted, write_judgement, write_scan

from theraflow.files import write_json
from theraflow.images import from_array, read_image, read_sidecar, same_grid, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions import Decision, list_candidates, measure_lesions
from theraflow.sheets import read_decisions
from theraflow.tables import read_table

NAMES = {"both": "L01", "only FDG": "L02", "only pentixafor": "L03", "new": "L04"}
OF_A_LESION = ["lesion", "scan", "label", "source", "volume_ml", "suv_peak", "x_mm", "y_mm", "z_mm", "positive",
               "concordance", "site", "matched_by", "carried_from"]  # fmt: skip


def sphere_ml(lesion):
    return 4 / 3 * np.pi * LESIONS[lesion][1] ** 3 / 1000


def decision(word, scan, place, **further):
    """A decision on a scan at a lesion, or at a point of the reference scan."""
    point = shifted(scan, LESIONS[place][0] if isinstance(place, str) else place)
    return Decision("P001", scan, word, *map(float, point), **further)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """Three PETs without annotation, their candidates, and the tables without any decision."""
    folder = PatientFolder(tmp_path_factory.mktemp("reader"), "P001")
    scans = [
        Scan("P001", name, tracer, timepoint, "", "suv")
        for name, tracer, timepoint in (
            ("fdg0", "FDG", "baseline"), ("cxcr4", "pentixafor", "baseline"), ("fdg1", "FDG", "followup")
        )
    ]  # fmt: skip
    for scan in scans:
        write_scan(folder, scan)
    run(folder, scans, scans[0], SETTINGS)
    return folder, scans, read_table(folder.table("lesions"))


@pytest.fixture
def after(patient):
    """The tables `lesions` and `candidates` and the draft after some decisions."""
    folder, scans, _ = patient

    def decide(*decisions):
        measure_lesions(folder, scans, scans[0], SETTINGS, decisions)
        lesions, candidates, draft = (
            read_table(folder.table(name)) for name in ("lesions", "candidates", "decisions_draft")
        )
        return lesions, candidates.set_index(["scan", "candidate"]), draft.set_index(["scan", "remark"])

    return decide


def assert_others_stay(patient, lesions, changed):
    before, now = (
        table.loc[~table["lesion"].isin(changed), OF_A_LESION].reset_index(drop=True) for table in (patient[2], lesions)
    )
    assert len(before)
    pd.testing.assert_frame_equal(before, now)


def row(table, lesion, scan):
    (found,) = table[(table["lesion"] == lesion) & (table["scan"] == scan)].to_dict("records")
    return found


def of_lesion(table, lesion, scan="fdg0"):
    """Rows of the table of candidates or of the draft that have become a lesion."""
    here = table.loc[scan]
    return here[here["lesion"].fillna("").str.split(", ").map(lambda names: lesion in names)]


def test_rejected_it_is_gone_and_all_others_keep_their_names(patient, after):
    lesions, candidates, draft = after(decision("reject", "fdg0", "only FDG", reader="AB"))
    assert set(lesions["lesion"]) == {"L01", "L03", "L04"}
    assert_others_stay(patient, lesions, ["L02"])
    rejected = candidates.loc["fdg0"].query("reason.str.contains('rejected')")
    assert rejected["kept"].tolist() == [False] and rejected["lesion"].isna().all()
    assert rejected["reason"].str.endswith("; rejected by AB").all()
    assert draft["decision"].isna().all()
    kept = draft.loc["fdg0"].filter(like="kept", axis=0)
    assert len(kept) == 2 and kept["lesion"].isna().sum() == 1  # the draft says what the program proposes


def test_accepted_it_is_a_lesion_that_the_reader_calls_positive(patient, after):
    lesions, candidates, _ = after(decision("accept", "fdg0", (0, 0, -105), reader="AB"))
    assert set(lesions["lesion"]) == {*NAMES.values(), "L05"}
    assert_others_stay(patient, lesions, ["L05"])
    bladder = row(lesions, "L05", "fdg0")
    assert (bladder["source"], bladder["positive"], bladder["positive_by"]) == ("candidate", True, "reader")
    assert bladder["volume_ml"] == pytest.approx(4 / 3 * np.pi * 28 * 28 * 18 / 1000, rel=0.35)
    (listed,) = of_lesion(candidates, "L05").to_dict("records")
    assert listed["kept"] and listed["reason"] == "physiologic uptake of urinary bladder; accepted by AB"
    assert {row(lesions, "L05", scan)["source"] for scan in ("cxcr4", "fdg1")} == {"carried"}


def test_divided_between_two_points_it_is_two_lesions(patient, after):
    x, y, z = LESIONS["both"][0]
    halves = [(x, y, z + 7), (x, y, z - 7)]
    lesions, candidates, draft = after(*(decision("split", "fdg0", half) for half in halves))
    assert set(lesions["lesion"]) == {*NAMES.values(), "L05"}
    assert_others_stay(patient, lesions, ["L01", "L05"])
    parts = [row(lesions, name, "fdg0") for name in ("L01", "L05")]
    whole = row(patient[2], "L01", "fdg0")
    assert sum(part["volume_ml"] for part in parts) == pytest.approx(whole["volume_ml"])
    assert [part["volume_ml"] for part in parts] == pytest.approx([whole["volume_ml"] / 2] * 2, rel=0.25)
    assert parts[0]["z_mm"] > z > parts[1]["z_mm"]
    for table in (candidates, draft):
        assert of_lesion(table, "L01")["lesion"].tolist() == ["L01, L05"]


def test_a_candidate_of_which_a_part_is_rejected_still_is_a_lesion(patient, after):
    x, y, z = LESIONS["both"][0]
    low = (x, y, z - 7)
    lesions, candidates, _ = after(
        decision("split", "fdg0", (x, y, z + 7)), decision("split", "fdg0", low), decision("reject", "fdg0", low)
    )
    assert set(lesions["lesion"]) == set(NAMES.values())
    assert row(lesions, "L01", "fdg0")["z_mm"] > z
    (listed,) = of_lesion(candidates, "L01").to_dict("records")
    assert listed["kept"] and listed["reason"].endswith("split by the reader")


def test_merged_they_are_one_and_all_their_candidates_say_so(patient, after):
    lesions, candidates, draft = after(
        *(decision("merge", "fdg0", lesion, group="a") for lesion in ("both", "only FDG"))
    )
    assert_others_stay(patient, lesions, ["L01", "L02"])
    assert "L02" not in set(lesions["lesion"])
    before = [row(patient[2], name, "fdg0") for name in ("L01", "L02")]
    one = row(lesions, "L01", "fdg0")
    assert one["volume_ml"] == pytest.approx(sum(part["volume_ml"] for part in before))
    assert one["tlg_ml"] == pytest.approx(sum(part["tlg_ml"] for part in before))
    for table in (candidates, draft):
        assert of_lesion(table, "L01")["lesion"].tolist() == ["L01", "L01"]
    assert of_lesion(candidates, "L01")["reason"].str.endswith("merged by the reader").all()


def test_renamed_it_lies_where_the_reader_says(patient, after):
    lesions, _, _ = after(decision("rename", "fdg0", "only FDG", name="axillary lymph node, left"))
    named = lesions[lesions["lesion"] == "L02"]
    assert set(named["site"]) == {"lymph node"} and set(named["station"]) == {"axillary"}
    assert set(named["site_by"]) == {"reader"}
    assert named["annotation"].dropna().tolist() == ["axillary lymph node, left"]  # on the scan where it was said
    assert_others_stay(patient, lesions, ["L02"])
    same = [column for column in OF_A_LESION if column != "site"]
    pd.testing.assert_frame_equal(lesions[same], patient[2][same])


def test_positive_and_negative_overrule_the_program_on_that_scan_only(patient, after):
    lesions, _, _ = after(decision("positive", "cxcr4", "only FDG"), decision("negative", "fdg0", "both"))
    called = lesions.set_index(["lesion", "scan"])
    before = patient[2].set_index(["lesion", "scan"])
    changed = [("L02", "cxcr4"), ("L01", "fdg0")]
    assert called.loc[changed, "positive"].tolist() == [True, False]
    assert before.loc[changed, "positive"].tolist() == [False, True]
    assert called["positive_by"].eq("reader").groupby(level=["lesion", "scan"]).first().sum() == 2
    assert called["concordance"].groupby("lesion").first()[["L01", "L02"]].tolist() == ["pentixafor-only", "concordant"]
    numbers = [column for column in OF_A_LESION if column not in ("positive", "concordance")]
    pd.testing.assert_frame_equal(lesions[numbers], patient[2][numbers])


def single(root, settings, scan="fdg0", quantity="suv", annotated=False):
    """One scan, its candidates found by `settings`."""
    folder = PatientFolder(root, "P001")
    found = Scan("P001", scan, "FDG" if quantity == "suv" else "pentixather", "baseline", "", quantity,
                 str(root / "reader.nii.gz") if annotated else None)  # fmt: skip
    write_scan(folder, found)
    if quantity == "suv":
        list_candidates(folder, found, settings)

    def decide(*decisions):
        measure_lesions(folder, [found], found, settings, decisions)
        return read_table(folder.table("lesions"))

    return folder, found, decide


def rule(**other):
    return SETTINGS | {
        "candidates": {"FDG": {"threshold_suv": 4.0, "combine": "highest", "outline": "threshold"} | other}
    }


def test_a_click_finds_what_the_rule_does_not_reach_and_is_the_readers_word(tmp_path):
    _, _, decide = single(tmp_path, rule(threshold_suv=9.0))
    assert decide()["lesion"].tolist() == ["L01"]
    added = row(decide(decision("add", "fdg0", "only FDG")), "L02", "fdg0")
    assert added["source"] == "click"
    assert added["volume_ml"] == pytest.approx(sphere_ml("only FDG"), rel=0.15)
    assert [added[f"{axis}_mm"] for axis in "xyz"] == pytest.approx(LESIONS["only FDG"][0], abs=1.0)
    assert (added["positive"], added["positive_by"]) == (True, "reader")


def test_a_click_is_positive_although_the_program_would_not_say_so(tmp_path, monkeypatch):
    """Three times its surroundings, where four times are asked: who adds a lesion says that it is one."""
    monkeypatch.setitem(LESIONS["only FDG"][2], "fdg0", 1.6)
    _, _, decide = single(tmp_path, rule() | {"positivity_ratio": 4.0})
    added = row(decide(decision("add", "fdg0", "only FDG")), "L02", "fdg0")
    assert added["suv_peak"] < 4.0 * added["shell_suv"]
    assert (added["positive"], added["positive_by"]) == (True, "reader")
    called = row(decide(decision("add", "fdg0", "only FDG"), decision("negative", "fdg0", "only FDG")), "L02", "fdg0")
    assert not called["positive"]


def test_a_click_in_an_organ_with_a_level_of_its_own_grows_the_lesion_and_not_the_organ(tmp_path):
    settings = rule(threshold_suv=1.8)
    inside = {"organ": "liver", "inside": {"times": 1.5, "plus_sd": 2}}
    settings = settings | {"physiologic": {"FDG": ["urinary_bladder", inside]}}
    _, _, decide = single(tmp_path, settings)
    found = row(decide(), "L01", "fdg0")
    # Above 3 of 10, in 2, and blurred by 6 mm: some more than the sphere; the liver has 339 mL.
    assert sphere_ml("both") < found["volume_ml"] < 2 * sphere_ml("both")
    table = decide(decision("reject", "fdg0", "both"), decision("add", "fdg0", "both"))
    clicked = table[table["source"] == "click"]
    assert clicked["volume_ml"].tolist() == pytest.approx([found["volume_ml"]])


def test_a_click_on_a_spect_is_outlined_by_its_contrast(tmp_path, monkeypatch):
    monkeypatch.setitem(LESIONS["both"][2], "lu", 10.0)
    folder, scan, decide = single(tmp_path, SETTINGS, "lu", "activity")
    added = row(decide(decision("add", "lu", "both")), "L01", "lu")
    assert added["source"] == "click"
    assert added["volume_ml"] == pytest.approx(sphere_ml("both"), rel=0.15)
    assert np.isnan(added["suv_peak"]) and np.isnan(added["positive"])
    assert same_grid(read_image(folder.lesion_map()), read_image(folder.emission(scan)))
    assert (
        decide(decision("add", "lu", "both"), decision("rename", "lu", "both", name="liver"))["site"].eq("liver").all()
    )


def test_decisions_overrule_an_annotation(tmp_path):
    _, _, decide = single(tmp_path, SETTINGS, annotated=True)
    assert decide()["annotation"].tolist() == ["both", "only FDG"]
    table = decide(decision("reject", "fdg0", "both"), decision("accept", "fdg0", (0, 0, -105)))
    assert table["lesion"].tolist() == ["L02", "L03"]
    assert table["source"].tolist() == ["reader", "candidate"]
    assert table["positive"].eq(True).all() and table["positive_by"].eq("reader").all()


def test_the_readers_sheet_is_read_and_never_written(patient, tmp_path, request):
    folder, scans, _ = patient
    sheet = tmp_path / "decisions.tsv"
    x, y, z = LESIONS["only FDG"][0]
    # As 3D Slicer shows it, in RAS.
    sheet.write_text(f"patient\tscan\tdecision\tx_mm\ty_mm\tz_mm\taxes\nP001\tfdg0\treject\t{-x}\t{-y}\t{z}\tRAS\n")
    before, time = sheet.read_bytes(), sheet.stat().st_mtime_ns
    schema = yaml.safe_load((request.config.rootpath / "workflow/schemas/decisions.schema.yaml").read_text())
    rows = read_decisions(sheet, schema, {"P001": scans})["P001"]
    measure_lesions(folder, scans, scans[0], SETTINGS, [Decision(**one) for one in rows])
    assert set(read_table(folder.table("lesions"))["lesion"]) == {"L01", "L03", "L04"}
    assert (sheet.read_bytes(), sheet.stat().st_mtime_ns) == (before, time)
    assert list(tmp_path.iterdir()) == [sheet] and not list(folder.root.rglob("decisions.tsv"))


def test_three_hundred_lesions_have_labels_beyond_a_byte_and_stand_in_order(tmp_path):
    """A lattice of single voxels that a reader has marked."""
    folder = PatientFolder(tmp_path, "P001")
    scan = Scan("P001", "fdg0", "FDG", "baseline", "", "suv", str(tmp_path / "reader.nii.gz"))
    write_scan(folder, scan)
    folder.organs("fdg0").unlink()
    marked = np.zeros(to_array(read_image(folder.emission(scan))).shape, dtype=np.uint16)
    places = np.argwhere(np.ones((10, 6, 5), dtype=bool)) * (8, 9, 11) + 2
    marked[tuple(places.T)] = np.arange(1, len(places) + 1)
    sitk.WriteImage(from_array(marked, read_image(folder.emission(scan))), scan.lesions)
    write_json({"labels": {str(label): f"spot {label}" for label in range(1, 301)}}, scan.lesions[:-6] + "json")
    run(folder, [scan], scan, SETTINGS | {"candidates": {}})
    table = read_table(folder.table("lesions"))
    assert table["label"].tolist() == list(range(1, 301))
    assert table["lesion"].tolist()[98:101] == ["L99", "L100", "L101"]
    labels = to_array(read_image(folder.lesion_map()))
    assert sorted(np.unique(labels[labels > 0]).tolist()) == table["label"].tolist()
    image = read_image(folder.emission(scan))
    for one in table.iloc[[0, 98, 99, 255, 256, 299]].to_dict("records"):
        index = image.TransformPhysicalPointToIndex([one["x_mm"], one["y_mm"], one["z_mm"]])[::-1]
        assert labels[index] == one["label"]
    ratios = read_table(folder.table("tbr"))
    assert ratios["lesion"].drop_duplicates().tolist() == table["lesion"].tolist()


@pytest.mark.parametrize(
    ("candidates", "organs", "annotated", "why"),
    [
        ({"threshold_suv": 4.0}, True, False, None),
        ({"threshold_suv": 4.0}, False, True, None),
        ({}, True, False, "its tracer no rule for candidates"),
        ({"threshold_suv": 4.0}, False, False, "without organ labels"),
        ({"liver": {"times": 1.5, "plus_sd": 2}}, False, False, "without organ labels"),
    ],
)
def test_a_scan_on_which_nobody_looks_for_lesions_says_so(tmp_path, candidates, organs, annotated, why):
    folder = PatientFolder(tmp_path, "P001")
    scan = Scan("P001", "fdg0", "FDG", "baseline", "", "suv", str(tmp_path / "r.nii.gz") if annotated else None)
    write_scan(folder, scan)
    if not organs:
        folder.organs("fdg0").unlink()
    found = {"FDG": candidates | {"combine": "highest", "outline": "threshold"}} if candidates else {}
    run(folder, [scan], scan, SETTINGS | {"candidates": found})
    told = read_sidecar(folder.lesion_map("fdg0"))["unsearched"]
    assert told is None if why is None else why in told


def test_uptake_hidden_by_an_organ_that_is_not_plausible_says_so(tmp_path):
    folder = PatientFolder(tmp_path, "P001")
    scan = Scan("P001", "fdg0", "FDG", "baseline", "", "suv")
    write_scan(folder, scan)
    write_judgement(folder, "fdg0", urinary_bladder="it lies in the chest")
    run(folder, [scan], scan, SETTINGS)
    table = read_table(folder.table("candidates"))
    assert table.loc[~table["kept"], "reason"].tolist() == [
        "physiologic uptake of urinary bladder, which may lie elsewhere: urinary_bladder is not plausible "
        "(it lies in the chest)"
    ]
