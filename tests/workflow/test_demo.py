"""The demo, three virtual patients from DICOM to report, against the truth that was written beside them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theraflow.images import read_image, same_grid, to_array
from theraflow.organs import ORGAN_IDS
from theraflow.virtual.scoring import count_identity, match_truth, said_concordance, true_concordance
from whole_run import DEMO_PATIENTS as PATIENTS
from whole_run import REPOSITORY, Run

pytestmark = pytest.mark.workflow

TREATED = ("P003", "P007")
# Where the miniature model is not good enough yet; docs/validation.md gives the numbers.
WEAK = {("P003", "kidney_right"): "native CT, 4 mm of fat between kidney and liver: less than a voxel of the model"}
DOSE_ORGANS = ("kidney_left", "kidney_right", "liver", "spleen")


@pytest.fixture(scope="module")
def unread(demo, tmp_path_factory) -> Run:
    """The same patients, as far as to their lesions, where no reader has marked any."""
    run = Run(tmp_path_factory.mktemp("unread"))
    for name in ("config", "config.yaml", "results", ".snakemake/metadata"):  # which inputs made what
        source, target = demo.folder / name, run.folder / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    run.folder.joinpath("data").symlink_to(demo.folder / "data")
    sheet = pd.read_csv(run.folder / "config" / "scans.tsv", sep="\t", keep_default_na=False)
    sheet.assign(lesions="NA").to_csv(run.folder / "config" / "scans.tsv", sep="\t", index=False)
    result = run.snakemake(*(f"results/{patient}/lesions/lesions.tsv" for patient in PATIENTS))
    assert result.returncode == 0, result.stdout
    assert "rule candidates" not in result.stdout  # what no reader has seen is not made again
    return run


def truth(demo: Run, patient: str, name: str) -> pd.DataFrame:
    return pd.read_csv(demo.folder / "data" / "virtual" / "truth" / patient / f"{name}.tsv", sep="\t")


def matched(demo: Run, patient: str) -> pd.DataFrame:
    """True lesions beside the found ones of the same scan, nearest first; `distance_mm` between the centres."""
    found = pd.read_csv(demo.results(patient, "lesions", "lesions.tsv"), sep="\t")
    pairs = truth(demo, patient, "truth_lesions").merge(found, on=["patient", "scan", "tracer"], suffixes=("_true", ""))
    places = [pairs[[f"{axis}_mm{side}" for axis in "xyz"]].to_numpy() for side in ("_true", "")]
    pairs["distance_mm"] = np.linalg.norm(places[0] - places[1], axis=1)
    return pairs.sort_values("distance_mm").drop_duplicates(["scan", "lesion_true"])


@pytest.mark.parametrize("patient", PATIENTS)
def test_every_outlined_lesion_is_found_at_its_place_with_its_uptake(demo, patient):
    pairs = matched(demo, patient)
    outlined = pairs[pairs["positive_true"].astype(bool) & pairs["tracer"].isin(["FDG", "pentixafor"])]
    assert len(outlined) > 0
    assert (outlined["distance_mm"] < 2).all()
    assert (outlined["source"] == "reader").all()
    assert outlined["positive"].all()
    relative = outlined["suv_peak"] / outlined["suv_peak_blurred"] - 1
    assert relative.abs().max() < 0.10


@pytest.mark.parametrize("patient", PATIENTS)
def test_one_lesion_keeps_one_name_through_all_scans(demo, patient):
    pairs = matched(demo, patient).query("source == 'reader'")
    names = pairs.drop_duplicates(["lesion_true", "lesion"])
    assert names["lesion_true"].is_unique and names["lesion"].is_unique


def concordance_of(demo: Run, patient: str, kind: str) -> set[str]:
    """Names of the patient's lesions of one kind of concordance."""
    found = pd.read_csv(demo.results(patient, "lesions", "lesions.tsv"), sep="\t")
    return set(found.loc[found["concordance"] == kind, "lesion"])


def test_concordance_is_that_of_the_truth(demo):
    found = pd.read_csv(demo.results("cohort", "lesions.tsv"), sep="\t").query("timepoint == 'baseline'")
    counts = found.drop_duplicates(["patient", "lesion"]).value_counts(["patient", "concordance"]).to_dict()
    expected = {}
    for patient in PATIENTS:
        table = truth(demo, patient, "truth_lesions").query("scan in ['fdg', 'pentixafor']")
        wide = table.pivot_table(index="lesion", columns="scan", values="positive", aggfunc="max").astype(bool)
        for fdg, pentixafor in wide.itertuples(index=False):
            if fdg or pentixafor:
                name = {
                    (True, True): "concordant",
                    (True, False): "FDG-only",
                    (False, True): "pentixafor-only",
                }
                key = (patient, name[fdg, pentixafor])
                expected[key] = expected.get(key, 0) + 1
    assert {key: count for key, count in counts.items() if key[1] != "none"} == expected


def test_without_a_reader_lesions_are_found_and_followed(unread):
    """Asked for: 95 % of the positive lesions, one false candidate a patient, 98 % of identities, concordance right."""
    found = total = right = pairs = 0
    for patient in PATIENTS:
        lesions = pd.read_csv(unread.results(patient, "lesions", "lesions.tsv"), sep="\t")
        true = truth(unread, patient, "truth_lesions")
        own, positive = match_truth(lesions, true)
        assert own["true"].isna().sum() <= 1, patient
        found, total = found + int(positive["found"].sum()), total + len(positive)
        identity = count_identity(own)
        right, pairs = right + identity[0], pairs + identity[1]
        assert said_concordance(own, lesions) == true_concordance(true), patient
    assert found >= 0.95 * total
    assert right >= 0.98 * pairs


def test_a_readers_decision_changes_one_lesion_of_one_patient(unread):
    """One row of the reader's sheet: what it names goes, other names stay, other patients are not touched."""
    run = unread
    before = pd.read_csv(run.results("P007", "lesions", "lesions.tsv"), sep="\t")
    draft = pd.read_csv(run.results("P007", "lesions", "decisions_draft.tsv"), sep="\t", dtype=object)
    chosen = draft[(draft["scan"] == "fdg") & (draft["lesion"] == "L03")].assign(decision="reject", reader="AB")
    assert len(chosen) == 1
    sheet = run.folder / "decisions.tsv"
    chosen.to_csv(sheet, sep="\t", index=False, na_rep="NA")
    text = sheet.read_bytes()
    tables = [f"results/{patient}/lesions/lesions.tsv" for patient in PATIENTS]
    stamp = {table: (run.folder / table).stat().st_mtime_ns for table in tables}
    result = run.snakemake(*tables, "--config", "decisions=decisions.tsv")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("rule lesions:") == 1 and "rule candidates:" not in result.stdout
    changed = [table for table in tables if (run.folder / table).stat().st_mtime_ns != stamp[table]]
    assert changed == ["results/P007/lesions/lesions.tsv"]
    assert sheet.read_bytes() == text
    after = pd.read_csv(run.results("P007", "lesions", "lesions.tsv"), sep="\t")
    own = before[(before["lesion"] == "L03") & (before["source"] == "candidate")]["scan"]
    gone = set() if len(own) > 1 else {"L03"}  # other scans show it still
    assert set(after["lesion"]) == set(before["lesion"]) - gone
    same = after[after["lesion"] != "L03"].set_index(["lesion", "scan"])[["x_mm", "y_mm", "z_mm", "volume_ml"]]
    pd.testing.assert_frame_equal(same, before.set_index(["lesion", "scan"]).loc[same.index, same.columns])
    mine = after.set_index(["lesion", "scan"])
    assert gone or mine.loc[("L03", "fdg"), "source"] == "carried"


@pytest.mark.parametrize("patient", TREATED)
@pytest.mark.parametrize("organ", DOSE_ORGANS)
def test_organs_used_in_dosimetry_are_segmented(demo, patient, organ):
    for scan in ("lu_24h", "lu_48h", "lu_96h", "lu_168h"):
        found = read_image(demo.results(patient, "scans", scan, "organs.nii.gz"))
        true = read_image(demo.folder / "data/virtual/truth" / patient / "truth_organs" / f"{scan}.nii.gz")
        assert same_grid(found, true)
        a, b = to_array(found) == ORGAN_IDS[organ], to_array(true) == ORGAN_IDS[organ]
        dice = 2 * (a & b).sum() / (a.sum() + b.sum())
        if dice < 0.85 and (patient, organ) in WEAK:
            pytest.xfail(f"Dice {dice:.2f} on {scan}: {WEAK[patient, organ]}")
        assert dice >= 0.85, scan


@pytest.mark.parametrize("patient", TREATED)
def test_dose_coefficients_of_the_therapy_nuclide(demo, patient):
    found = pd.read_csv(demo.results(patient, "dosimetry", "doses.tsv"), sep="\t").query("nuclide == '90Y'")
    found = found.set_index("region")
    relative_sd = found["sd_gy_per_gbq"] / found["dose_gy_per_gbq"]
    found = found["dose_gy_per_gbq"]
    true = truth(demo, patient, "truth_doses").query("nuclide == '90Y'").set_index("region")["dose_gy_per_gbq"]
    names = matched(demo, patient).query("source == 'reader'").drop_duplicates("lesion_true")
    regions = dict(zip(names["lesion_true"], names["lesion"], strict=True)) | {k: k for k in DOSE_ORGANS}
    compared = {region: found[ours] / true[region] - 1 for region, ours in regions.items() if region in true}
    compared = {region: error for region, error in compared.items() if not np.isnan(error)}
    assert set(DOSE_ORGANS) < set(compared)
    assert len(compared) == len(set(regions) & set(true.index))
    # A lesion without uptake of the therapy's ligand has little activity to measure; its own sd must cover the error.
    without = concordance_of(demo, patient, "FDG-only")
    for region, error in compared.items():
        limit = 2 * relative_sd[regions[region]] if regions[region] in without else 0.15
        limit = 0.20 if region in ("liver", "spleen") else limit  # asked for are kidneys and lesions
        assert abs(error) < limit, (region, error)


@pytest.mark.parametrize("patient", PATIENTS)
def test_the_report_says_that_the_model_is_a_miniature(demo, patient):
    html = demo.results(patient, "report.html").read_text()
    assert "miniature model" in html
    sidecar = json.loads(demo.results(patient, "scans", "fdg", "organs.json").read_text())
    assert sidecar["miniature_model"] is True


def test_a_patient_without_dosimetry_and_one_with_are_both_complete(demo):
    assert not demo.results("P005", "dosimetry").exists()
    for name in ("curves", "doses", "cycles", "dvh"):
        assert demo.results("P003", "dosimetry", f"{name}.tsv").exists()
    assert demo.results("P003", "dosimetry", "dose_gy_per_gbq.nii.gz").exists()
    report = demo.results("cohort", "report.html").read_text()
    assert all(f"../{patient}/report.html" in report for patient in PATIENTS)


def test_the_committed_sheets_are_those_of_the_virtual_cohort(tmp_path):
    """What `make demo` reads is what the generator would write."""
    from theraflow.virtual.__main__ import write_sheets
    from theraflow.virtual.cohort import cohort

    for folder, names in (("config", PATIENTS), ("config/eight", None)):
        patients = [p for p in cohort() if names is None or p.patient in names]
        write_sheets(patients, Path("data/virtual"), tmp_path)
        for sheet in ("scans", "patients", "cycles"):
            assert (tmp_path / f"{sheet}.tsv").read_text() == (REPOSITORY / folder / f"{sheet}.tsv").read_text()
