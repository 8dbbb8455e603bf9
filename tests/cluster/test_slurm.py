"""Whole runs through a real Slurm: the demo, jobs without enough memory, cancelled, with a lost node, on a GPU."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
from one_machine_slurm import Slurm, slurm

from kills import differing, rule_of
from theraflow.failures import UNBEGUN
from theraflow.job import KILLED
from whole_run import REPOSITORY, Run, wait_until

pytestmark = [pytest.mark.workflow, pytest.mark.slurm]

PATIENT = "P007"  # of the demo, and one PET and one SPECT of it
SCANS = ("pentixafor", "lu_96h")
PROFILE = ("--workflow-profile", "slurm")
IMPORTED_CT = "results/STS_002/scans/fdg/ct.nii.gz"
LESIONS = "results/STS_002/lesions/lesions.tsv"
RESULTS = (".tsv", ".json", ".nii.gz", ".h5", ".png")


@pytest.fixture(scope="module")
def cluster(debian_program, tmp_path_factory) -> Iterator[Slurm]:
    """A Slurm of this machine alone, which `snakemake` and the commands of Slurm find."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of this machine alone has to be started by root")
    for program in ("munged", "slurmctld"):
        debian_program(program)
    with slurm(tmp_path_factory.mktemp("slurm")) as found, pytest.MonkeyPatch.context() as environment:
        for name, value in found.environment.items():
            environment.setenv(name, value)
        yield found


def tables(run: Run) -> dict[str, bytes]:
    """All tables of the patient and of the cohort, without logs and benchmarks."""
    found = [path for part in (PATIENT, "cohort") for path in run.results(part).rglob("*.tsv")]
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def through_slurm(demo, cluster, tmp_path_factory) -> Run:
    """The demo where Slurm makes two scans of a patient, all of the patient that rests on them, and the cohort anew.

    Each rule of the demo is run so; of the other scans and patients stays what one machine has made.
    """
    run = Run(tmp_path_factory.mktemp("demo through slurm"))
    for name in ("config", "config.yaml", ".snakemake/metadata", "results"):
        source, target = demo.folder / name, run.folder / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    run.folder.joinpath("data").symlink_to(demo.folder / "data")
    for folder in (run.results("cohort"), run.results("logs")):
        shutil.rmtree(folder)
    patient = run.results(PATIENT)
    of_scans = [path for path in patient.rglob("*") if any(path.name.startswith(scan) for scan in SCANS)]
    of_patient = [*patient.iterdir(), *patient.joinpath("lesions").iterdir()]
    kept = [patient / name for name in ("scans", "registration", "lesions", "lesions/candidates")]
    for path in {*of_scans, *of_patient} - {*kept}:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    result = run.snakemake(*PROFILE, cores=None)
    assert result.returncode == 0, result.stdout
    return run


def rules_of_jobs(run: Run) -> Counter:
    """How many jobs of each rule the runs in a folder have done, as their progress tells."""
    done = Counter()
    for path in run.results("logs", "runs").glob("*/progress.json"):
        told = json.loads(path.read_text())
        assert told["state"] == "finished"
        assert told["steps"]["done"] == told["steps"]["of"]
        done.update({rule: counts["done"] for rule, counts in told["rules"].items()})
    return done


def test_tables_are_those_of_a_run_on_one_machine(demo, through_slurm):
    expected, found = tables(demo), tables(through_slurm)
    assert len(expected) > 40
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_progress_tells_of_the_jobs_of_a_cluster(demo, through_slurm):
    here, there = rules_of_jobs(demo), rules_of_jobs(through_slurm)
    assert here.keys() - there.keys() <= {"viewer"}  # which is downloaded once
    for rule in ("import_ct", "organs", "register"):
        assert there[rule] == len(SCANS)


@pytest.fixture
def imported(make_run, repository_cases) -> Run:
    """A real patient whose next step is to find lesions."""
    run = make_run("imported")
    run.write(repository_cases[:1])
    result = run.snakemake(LESIONS, "--until", "candidates", "register")
    assert result.returncode == 0, result.stdout
    return run


def test_a_job_that_lacked_memory_is_repeated_with_more(imported, cluster):
    earlier = {job["JobId"] for job in cluster.jobs()}
    little = "lesions:mem_mb=180 * attempt ** 2"
    result = imported.snakemake(*PROFILE, LESIONS, "--set-resources", little, cores=None)
    assert result.returncode == 0, result.stdout
    jobs = [job for job in cluster.jobs() if job["JobId"] not in earlier]
    first, *_, last = sorted(jobs, key=lambda job: int(job["JobId"]))
    assert (first["JobState"], last["JobState"]) == ("FAILED", "COMPLETED")
    assert first["MinMemoryNode"] == "180M" and last["MinMemoryNode"] in ("720M", "1620M")
    (log,) = imported.folder.glob(f".snakemake/slurm_logs/rule_lesions/*/{first['JobId']}.log")
    assert f"StepId={first['JobId']}.0 exceeded memory limit" in log.read_text()
    assert (imported.folder / LESIONS).exists()


def test_a_cancelled_job_is_made_by_the_next_start(make_run, repository_cases, cluster):
    run = make_run("cancelled")
    run.write(repository_cases[:1])
    earlier = {job["JobId"] for job in cluster.jobs()}
    with run.start(*PROFILE, "--retries", "0", IMPORTED_CT, cores=None) as process:
        wait_until(lambda: [j for j in cluster.jobs() if j["JobId"] not in earlier and j["JobState"] == "RUNNING"])
        cluster.say("scancel", "--user=root")
        output, _ = process.communicate()
    assert process.returncode != 0 and "CANCELLED" in output
    assert f"STS_002: {UNBEGUN}" in output.split("Not finished:")[1]  # a job of Slurm takes seconds to begin its work
    assert not (run.folder / IMPORTED_CT).exists()
    again = run.snakemake(*PROFILE, IMPORTED_CT, cores=None)
    assert again.returncode == 0, again.stdout
    assert (run.folder / IMPORTED_CT).exists()
    assert not list(run.results("logs").rglob("*.failure"))


def process_of_job(number: str, rule: str) -> tuple[psutil.Process, dict[str, str]] | None:
    """The process that runs a rule's script in a job, if it runs, and its environment, which it loses when it ends."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if rule_of(process) == rule and (environment := process.environ()).get("SLURM_JOB_ID") == number:
                return process, environment
    return None


def lose_node_of_lesions(run: Run, cluster: Slurm, *options: str) -> tuple[int, str, dict[str, str]]:
    """Run to the lesions, and take their node away while it is at work on them; it comes back soon.

    Returns:
        Status and words of the run, and what Slurm knows of the job.
    """
    earlier = {job["JobId"] for job in cluster.jobs()}
    with run.start(*PROFILE, *options, LESIONS, cores=None) as process:
        (job,) = wait_until(lambda: [j for j in cluster.jobs() if j["JobId"] not in earlier])
        worker, _ = wait_until(lambda: process_of_job(job["JobId"], "measure_lesions"))
        wait_until(run.results("logs", "STS_002", "lesions.log.failure").exists)  # it has begun
        worker.suspend()  # so that it cannot end before its node
        cluster.lose_node()
        cluster.start_node()
        output, _ = process.communicate()
    (job,) = cluster.jobs(job["JobId"])
    return process.returncode, output, job


@pytest.fixture
def undisturbed(imported, tmp_path) -> Run:
    """The same patient with lesions, by one machine."""
    run = Run(tmp_path / "undisturbed")
    shutil.copytree(imported.folder, run.folder)
    result = run.snakemake(LESIONS)
    assert result.returncode == 0, result.stdout
    return run


def test_where_slurm_repeats_jobs_of_a_lost_node_the_run_goes_on(imported, undisturbed, cluster):
    status, output, job = lose_node_of_lesions(imported, cluster)
    assert (status, job["JobState"], job["Restarts"]) == (0, "COMPLETED", "1"), output
    assert differing(imported, undisturbed, *RESULTS) == []
    assert not list(imported.results("logs").rglob("*.failure"))


def test_where_slurm_does_not_the_end_tells_of_the_lost_node_and_the_next_start_goes_on(imported, undisturbed, cluster):
    status, output, job = lose_node_of_lesions(imported, cluster, "--slurm-no-requeue", "--retries", "0")
    assert (status, job["JobState"], job["Restarts"]) == (1, "NODE_FAIL", "0"), output
    assert "failed due to a node failure" in output
    assert f"STS_002: {KILLED}" in output.split("Not finished:")[1] and "or with its machine" in KILLED
    again = imported.snakemake(*PROFILE, LESIONS, cores=None)
    assert again.returncode == 0, again.stdout
    assert differing(imported, undisturbed, *RESULTS) == []
    assert not list(imported.results("logs").rglob("*.failure"))


def test_a_job_on_a_gpu_asks_for_it_and_sees_it(make_run, repository_cases, cluster):
    """The GPU is a stand-in: torch finds none or may not use this model, and the run says which in one sentence."""
    run = make_run("gpu")
    weights = str(REPOSITORY / "resources" / "miniature_weights")
    organs = {"backend": "totalsegmentator", "resolution": 6, "device": "gpu", "weights": weights}
    run.write(repository_cases, organs=organs)
    assert run.snakemake(IMPORTED_CT).returncode == 0
    earlier = {job["JobId"] for job in cluster.jobs()}
    place = (*PROFILE, "-e", "slurm", "-j", "4")
    with run.start(*place, "--retries", "0", IMPORTED_CT.replace("ct.", "organs."), cores=None) as process:
        (job,) = wait_until(lambda: [j for j in cluster.jobs() if j["JobId"] not in earlier])
        _, environment = wait_until(lambda: process_of_job(job["JobId"], "label_organs"))
        output, _ = process.communicate()
    assert job["TresPerJob"] in ("gres:gpu:1", "gres/gpu:1")
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert process.returncode != 0
    assert "Not finished:" in output and "Traceback" not in output
    place_again = "--workflow-profile slurm --executor slurm --jobs 4 --config"
    assert place_again in output.split("The cohort report of the other patients:")[1]
