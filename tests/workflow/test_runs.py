"""What a user does: run the workflow, run it again, ask for one patient, meet a broken one. On two real scans."""

import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pydicom
import pytest
import SimpleITK as sitk

from dicom_series import detector, planar, view_code, write
from theraflow.organs.totalsegmentator.worker import __name__ as WORKER
from theraflow.virtual.writer import Header, Injection, write_pet
from threshold_model import write_threshold_model
from whole_run import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def finished(make_run, repository_cases):
    """A complete run of two patients."""
    run = make_run("two patients")
    run.write(repository_cases)
    result = run.snakemake()
    assert result.returncode == 0, result.stdout
    return run, result


def jobs(text: str) -> set[str]:
    """The results that a dry run would make."""
    lines = [line.split(":", 1)[1] for line in text.splitlines() if line.strip().startswith("output:")]
    return {name.strip() for line in lines for name in line.split(",")}


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_run_ends_with_the_paths_of_the_reports(finished):
    run, result = finished
    tail = result.stdout.split("Reports:")[1]
    for name in ("STS_002/report.html", "STS_008/report.html", "cohort/report.html"):
        assert f"results/{name}" in tail
        assert run.results(name).stat().st_size > 5000
    assert run.results("STS_008", "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_second_run_has_nothing_to_do(finished):
    run, _ = finished
    before = stamps(run.results())
    result = run.snakemake()
    assert "Nothing to be done" in result.stdout
    assert stamps(run.results()) == before


def test_one_patient_is_made_again_by_name_and_no_other(finished):
    run, _ = finished
    before = stamps(run.results("STS_008"))
    shutil.rmtree(run.results("STS_002"))
    result = run.snakemake("results/STS_002/report.html")
    assert result.returncode == 0, result.stdout
    assert run.results("STS_002", "report.html").exists()
    made = {path.split("/")[1] for path in jobs(result.stdout) if path}
    assert made == {"STS_002"}
    assert stamps(run.results("STS_008")) == before


def test_what_came_out_the_same_does_not_hide_what_was_made_anew_behind_it(make_run, repository_cases):
    """The verdict on the reference scan says the same whatever the image shows."""
    run = make_run("made anew")
    run.write(repository_cases[:1])
    lesions, verdict = (f"results/STS_002/{name}" for name in ("lesions/lesions.tsv", "registration/fdg.json"))
    assert run.snakemake(lesions).returncode == 0
    same = (run.folder / verdict).read_bytes()
    assert run.snakemake(verdict, "--forcerun", "import_emission").returncode == 0
    assert (run.folder / verdict).read_bytes() == same
    assert lesions in jobs(run.snakemake(lesions, "-n").stdout)


def test_after_a_failure_nothing_old_passes_for_what_was_asked(make_run, repository_cases, tmp_path):
    """The sheet then names another export, where the PET holds twice the values and one file is damaged."""
    run, case, twice = make_run("failed"), repository_cases[0], tmp_path / "twice"
    table = "results/STS_002/lesions/lesions.tsv"

    def suv_max():
        return pd.read_csv(run.folder / table, sep="\t")["suv_max"].to_numpy()

    shutil.copytree(case["dicom"], twice)
    files = sorted((twice / "PET" / "image").iterdir())
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.RescaleSlope = 2 * dataset.RescaleSlope
        dataset.save_as(path)
    run.write([case])
    assert run.snakemake(table).returncode == 0
    before = suv_max()

    run.write([{**case, "dicom": twice}])
    whole = files[-1].read_bytes()
    files[-1].write_bytes(whole[: len(whole) // 2])
    result = run.snakemake(table)
    assert result.returncode != 0 and "they rest on a job that failed" in result.stdout
    assert not (run.folder / table).exists()

    files[-1].write_bytes(whole)
    result = run.snakemake(table)
    assert result.returncode == 0, result.stdout
    np.testing.assert_allclose(suv_max(), 2 * before, rtol=1e-6)

    files[-1].write_bytes(whole[: len(whole) // 2])
    run.write([{**case, "dicom": twice}, {**case, "scan": "new", "timepoint": "followup", "dicom": twice}])
    assert run.snakemake(table).returncode != 0
    np.testing.assert_allclose(suv_max(), 2 * before, rtol=1e-6)  # of the scan that was there
    assert table in jobs(run.snakemake(table, "-n").stdout)  # and still seen to lack the new one


def test_another_kind_of_suv_is_made_by_name(finished):
    run, _ = finished
    result = run.snakemake("results/STS_002/scans/fdg/pet_LBMJANMA.nii.gz")
    assert result.returncode == 0, result.stdout
    folder = run.results("STS_002", "scans", "fdg")
    by_weight, by_lean_mass = (
        sitk.GetArrayFromImage(sitk.ReadImage(folder / name)) for name in ("pet.nii.gz", "pet_LBMJANMA.nii.gz")
    )
    body_mass_index = 99.0 / 1.74**2  # a man of 99 kg and 1.74 m; Janmahasatian et al. 2005
    assert by_lean_mass.max() / by_weight.max() == pytest.approx(9270 / (6680 + 216 * body_mass_index), rel=1e-5)


def test_planar_views_are_imported_by_name(make_run, repository_cases):
    run = make_run("planar")
    views = np.array([np.full((6, 5), 1200), np.full((6, 5), 2400)])
    codes = (view_code("399321004"), view_code("399001007"))
    write(planar(views, [detector(code) for code in codes]), run.folder / "planar" / "image")
    with_ct = repository_cases[0]  # the planar scan's organs come from this one
    patient = with_ct["patient"]
    day1 = {"patient": patient, "scan": "day1", "tracer": "DOTATATE", "timepoint": "dosimetry", "dicom": "planar"}
    run.write([with_ct, day1])
    result = run.snakemake(f"results/{patient}/scans/day1/planar.nii.gz")
    assert result.returncode == 0, result.stdout
    image = sitk.GetArrayFromImage(sitk.ReadImage(run.results(patient, "scans", "day1", "planar.nii.gz")))
    assert np.allclose(image[0], 1.0) and np.allclose(image[1], 2.0)  # counts over a sweep of 1200 s


def test_every_table_keeps_the_columns_of_the_contract(finished):
    run, _ = finished
    contract = {
        "lesions": "patient scan tracer timepoint lesion label site volume_ml suv_max suv_mean suv_peak tbr "
        "background_region background_suv tlg_ml positive concordance x_mm y_mm z_mm longest_diameter_mm short_axis_mm "
        "source",
        "response": "patient baseline followup criterion category measure_baseline measure_followup change_percent "
        "new_lesions",
        "doses": "patient region kind nuclide mass_g n_timepoints model t_eff_h tia_h dose_gy_per_gbq sd_gy_per_gbq "
        "method",
        "statistics": "comparison group n median_a range_a median_b range_b test statistic p_value effect ci_low "
        "ci_high",
    }
    for table, columns in contract.items():
        header = run.results("cohort", f"{table}.tsv").read_text().splitlines()[0].split("\t")
        assert header[: len(columns.split())] == columns.split(), table


def test_snakemakes_own_report_has_the_results_with_their_captions(finished):
    run, _ = finished
    assert run.snakemake().returncode == 0  # tests before this one may have left something to be made
    result = run.snakemake("--report", "own.html")
    assert result.returncode == 0, result.stdout
    html = (run.folder / "own.html").read_text()
    for name in ("STS_002/report.html", "STS_002/report.pdf", "STS_008/report.pdf", "cohort/report.html"):
        assert f"results/{name}" in html
    for caption in (
        "The essentials of the report of patient STS_002",
        "Report of patient STS_008",
        "are missing and why",
    ):
        assert caption in html, caption
    assert not re.findall(r'(?:src|href)="http', html)  # it can be opened without a network


def write_pet_without_weight(folder: Path) -> None:
    """A small genuine PET series whose headers lack the patient's weight."""
    image = sitk.GetImageFromArray(np.full((12, 24, 24), 5000.0, np.float32))
    image.SetSpacing((4.0, 4.0, 4.0))
    start = datetime.datetime(2020, 5, 4, 10, 0)
    header = Header("P9", "fdg", "F", 40, 60.0, 165.0, start, "PET")
    write_pet(image, folder, header, Injection("[18F]FDG", "18F", 250.0, start - datetime.timedelta(hours=1)))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.PatientWeight
        dataset.save_as(path)


def test_broken_patients_stop_alone_and_are_named(make_run, repository_cases):
    """A truncated file, a missing weight: the third patient is complete, each cause is one sentence."""
    run = make_run("one broken")
    broken = run.folder / "dicom" / "STS_002"
    shutil.copytree(repository_cases[0]["dicom"], broken)
    victim = sorted((broken / "PET" / "image").iterdir())[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    light = run.folder / "dicom" / "P9"
    write_pet_without_weight(light)
    weightless = {"patient": "P9", "scan": "fdg", "tracer": "FDG", "timepoint": "baseline", "dicom": light}
    rows = [{**repository_cases[0], "dicom": broken}, repository_cases[1], weightless]
    run.write(rows)
    result = run.snakemake()
    assert result.returncode != 0
    assert run.results("STS_008", "report.html").exists()
    assert not run.results("STS_002", "scans", "fdg", "pet.nii.gz").exists()
    assert not run.results("cohort", "report.html").exists()
    truncated, missing = (line.strip() for line in result.stdout.split("Not finished:")[1].splitlines()[1:3])
    assert truncated.startswith("STS_002:") and victim.name in truncated
    assert missing.startswith("P9:") and "PatientWeight (0010,1030)" in missing
    assert "Traceback" not in result.stdout

    # The further command that the failed run prints, as a user would paste it.
    command = result.stdout.split("The cohort report of the other patients:")[1].splitlines()[1].strip()
    snakemake = f"{sys.executable} -m snakemake"
    again = subprocess.run(
        command.replace("snakemake", snakemake, 1), shell=True, capture_output=True, text=True, cwd="/"
    )
    assert again.returncode == 0, again.stderr
    report = run.results("cohort", "report.html").read_text()
    assert "STS_002" in report and victim.name in report
    assert set(pd.read_csv(run.results("cohort", "lesions.tsv"), sep="\t")["patient"]) == {"STS_008"}

    # Mended, the patients come back without further ado.
    victim.write_bytes(whole)
    rows[2]["weight_kg"] = 60
    run.write(rows)
    mended = run.snakemake()
    assert mended.returncode == 0, mended.stdout
    assert set(pd.read_csv(run.results("cohort", "lesions.tsv"), sep="\t")["patient"]) == {
        "STS_002",
        "STS_008",
    }
    missing_box = run.results("cohort", "report.html").read_text()
    assert victim.name not in missing_box


def test_reasons_of_scans_and_rules_that_are_no_more_do_not_count_for_ever(make_run):
    run = make_run("left reasons")
    light = run.folder / "dicom"
    write_pet_without_weight(light)
    run.write([{"patient": "P9", "scan": "fdg", "tracer": "FDG", "timepoint": "baseline", "dicom": light}])
    left = {"P9/old.import_pet.log", "P9/fdg.a_rule_no_more.log", "cohort/a_rule_no_more.log"}
    kept = {"P9/report.log", "cohort/report.log"}  # of jobs that wait for what fails
    for name in left | kept:
        reason = run.results("logs", f"{name}.failure")
        reason.parent.mkdir(parents=True, exist_ok=True)
        reason.write_text(f"The reason of {name}.\n")

    def reasons() -> set[str]:
        found = run.results("logs").rglob("*.failure")
        return {str(path.relative_to(run.results("logs"))).removesuffix(".failure") for path in found}

    # A part of the workflow does not know all jobs.
    assert run.snakemake("results/P9/scans/fdg/pet.nii.gz").returncode != 0
    assert reasons() == left | kept | {"P9/fdg.import_pet.log"}
    assert run.snakemake("all", "--until", "import_emission").returncode != 0
    assert reasons() == left | kept | {"P9/fdg.import_pet.log"}
    whole = run.snakemake()
    assert whole.returncode != 0
    assert reasons() == kept | {"P9/fdg.import_pet.log"}
    problems = whole.stdout.split("Not finished:")[1]
    assert "PatientWeight (0010,1030)" in problems and "The reason of P9/report.log." in problems
    assert "no_more" not in problems and "old.import_pet" not in problems


def test_the_miniature_model_is_refused_for_a_real_scan(make_run, repository_cases):
    run = make_run("miniature")
    weights = str(REPOSITORY / "resources" / "miniature_weights")
    organs = {"backend": "totalsegmentator", "resolution": 6, "device": "cpu", "weights": weights}
    run.write(repository_cases[:1], organs=organs)
    result = run.snakemake()
    assert result.returncode != 0
    assert "knows only virtual patients" in result.stdout.split("Not finished:")[1]
    assert not run.results("STS_002", "scans", "fdg", "organs.nii.gz").exists()


def test_weights_that_are_not_there_are_told_before_anything_is_computed(make_run, repository_cases):
    run = make_run("no weights")
    run.write(repository_cases[:1], organs={"backend": "totalsegmentator", "device": "cpu"})
    result = run.snakemake()
    assert result.returncode != 0
    assert "fetch_weights" in result.stdout.split("Not finished:")[1]


def test_a_segmentation_that_is_killed_half_way_is_resumed(make_run, repository_cases, tmp_path):
    write_threshold_model(tmp_path, 6)
    run = make_run("killed")
    organs = {"backend": "totalsegmentator", "resolution": 6, "device": "cpu", "weights": str(tmp_path)}
    run.write(repository_cases, organs=organs)
    first, second = (run.results(name, "scans", "fdg", "organs.nii.gz") for name in ("STS_002", "STS_008"))
    targets = [str(path.relative_to(run.folder)) for path in (first, second)]
    process = run.start(*targets, cores=1)
    made = wait_until(lambda: [path for path in (first, second) if path.exists()])
    left = {first: second, second: first}[made[0]]
    wait_until(left.with_name("ct.nii.gz").exists)
    started = run.results("logs", left.parts[-4], "fdg.organs.log")
    wait_until(started.exists)
    workers = [one for one in psutil.process_iter(["cmdline"]) if WORKER in (one.info["cmdline"] or [])]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = stamps(made[0].parent)
    assert not left.exists()
    assert run.snakemake("--unlock").returncode == 0  # as Snakemake asks for after a kill
    result = run.snakemake(*targets, cores=1)
    assert result.returncode == 0, result.stdout
    assert left.exists()
    assert {name: time for name, time in stamps(made[0].parent).items() if name in before} == before
    assert workers  # one of them was at work for the killed job, and has ended with it
    wait_until(lambda: not all(one.is_running() for one in workers))


def test_the_workflow_is_lint_clean():
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Congratulations" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"orgnas": {"backend": "none"}}, "orgnas"),
        ({"dosimetry": {"spect_fwhm_mm": -1}}, "spect_fwhm_mm"),
        ({"tracers": {"FDG": {"nuclide": "18F", "quantity": "suv"}}}, "radiopharmaceutical"),
        ({"organs": {"backend": "none", "device": "tpu"}}, "device"),
        ({"organs": {"only": ["liver"]}}, "only in the config leaves out kidney_left, which dosimetry: organs names"),
    ],
)
def test_a_wrong_configuration_is_refused(make_run, repository_cases, change, sentence):
    run = make_run("wrong config")
    run.write(repository_cases, **change)
    result = run.snakemake("-n")
    assert result.returncode != 0
    assert sentence in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("results/STS_999/report.html", "scans.tsv has no patient 'STS_999'."),
        ("results/STS_999/dosimetry/plan.tsv", "scans.tsv has no patient 'STS_999'."),
        ("results/STS_002/scans/fgd/ct.nii.gz", "scans.tsv has no scan 'fgd' of patient 'STS_002'."),
        ("results/STS_002/scans/fgd/pet_LBM.nii.gz", "scans.tsv has no scan 'fgd' of patient 'STS_002'."),
        (
            "results/STS_002/lesions/candidates/fdg.tsv",
            "Scan 'fdg' of patient 'STS_002' has no candidates, for `lesions: candidates` in the configuration has no "
            "rule for FDG.",
        ),
        ("results/STS_002/registration/fgd.json", "scans.tsv has no scan 'fgd' of patient 'STS_002'."),
    ],
)
def test_a_patient_or_scan_that_the_sheet_lacks_is_refused_in_a_sentence(make_run, repository_cases, name, sentence):
    run = make_run("unknown name")
    run.write(repository_cases)
    result = run.snakemake("-n", name)
    assert result.returncode != 0
    assert sentence in result.stdout.splitlines()
    assert "Traceback" not in result.stdout
    assert "Exception" not in result.stdout
