"""What a night may bring: full disks, killed jobs, odd places, two runs at once. Each ends well, or in a sentence."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kills import files, rule_of, temporary_files
from theraflow.job import KILLED
from whole_run import Run, wait_until

pytestmark = pytest.mark.workflow

ROOT = os.geteuid() == 0
PATIENT = "STS_002"
IMPORTS = [f"results/{PATIENT}/scans/fdg/{image}.nii.gz" for image in ("ct", "pet")]
ODD_PLACE = "Zürich – Ärzte & Co"
GERMAN = "de_DE.UTF-8"  # decimal commas, and umlauts in the names of months


def mount(*words: object) -> None:
    """Mount something, or skip the test where this machine does not allow it."""
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True) if ROOT else None
    if done is None or done.returncode:
        pytest.skip(f"a file system must be mounted: {done.stderr.strip() if done else 'needs root'}")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below `folder` can be written: by permissions, or for root, whom they do not bind, by a mount."""
    if ROOT:
        mount("--bind", folder, folder)
        try:
            mount("-o", "remount,bind,ro", folder)
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        paths = [folder, *folder.rglob("*")]
        try:
            for path in paths:
                path.chmod(path.stat().st_mode & ~0o222)
            yield
        finally:
            for path in paths:
                path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture(scope="module")
def one(make_run, repository_cases):
    """Make a working directory for one patient."""

    def make(name: str) -> Run:
        run = make_run(name)
        run.write(repository_cases[:1])
        return run

    return make


@pytest.fixture(scope="module")
def ordinary(one):
    """A run as it should be."""
    run = one("ordinary")
    result = run.snakemake()
    assert result.returncode == 0, result.stdout
    return run


def has_locale(name: str) -> bool:
    """Whether this machine knows a locale."""
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.lower().replace("-", "")
    return name.lower().replace("-", "") in known.split()


@pytest.fixture(scope="module")
def speaks_german(debian_program) -> bool:
    """Whether programs on this machine can speak German, which root teaches them."""
    if ROOT and not has_locale(GERMAN):
        with contextlib.suppress(pytest.skip.Exception):  # only the test of the language needs it
            debian_program("locale-gen")
            place, letters = GERMAN.split(".")
            subprocess.run(["localedef", "-i", place, "-f", letters, GERMAN])
    return has_locale(GERMAN)


@pytest.fixture(scope="module")
def odd(tmp_path_factory, repository_cases, speaks_german):
    """The same run in a place with spaces and umlauts, in another language and time, from files of tomorrow that may
    only be read."""
    run = Run(tmp_path_factory.mktemp("odd") / ODD_PLACE)
    dicom = run.folder / "Bilder für Müller" / PATIENT
    shutil.copytree(repository_cases[0]["dicom"], dicom)
    tomorrow = time.time() + 86400.0
    for number, path in enumerate(sorted(dicom.rglob("*"))):
        os.utime(path, (tomorrow, tomorrow - 1e6 * (number % 3)))  # and not in order
    lesions = dicom / Path(repository_cases[0]["lesions"]).relative_to(repository_cases[0]["dicom"])
    run.write([{**repository_cases[0], "dicom": dicom.relative_to(run.folder), "lesions": lesions}])
    language = GERMAN if speaks_german else "C"
    with pytest.MonkeyPatch.context() as patch, read_only(dicom):
        for name, value in {"LC_ALL": language, "LANG": language, "TZ": "Pacific/Auckland"}.items():
            patch.setenv(name, value)
        result = run.snakemake()
    return run, result


def test_a_place_with_spaces_and_umlauts_serves(odd):
    run, result = odd
    assert result.returncode == 0, result.stdout
    for name in (f"{PATIENT}/report.html", f"{PATIENT}/report.pdf", "cohort/report.html"):
        assert run.results(name).stat().st_size > 5000
    assert "Reports:" in result.stdout


def test_language_clock_and_place_change_no_byte_of_a_table(odd, ordinary, speaks_german):
    if not speaks_german:
        pytest.skip(f"{GERMAN} is not there and cannot be made (as root, of Debian package locales)")
    run, _ = odd
    expected, found = (files(one, ".tsv") for one in (ordinary, run))
    assert len(expected) > 10
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_inputs_of_tomorrow_are_not_made_again_and_again(odd):
    run, _ = odd
    assert "Nothing to be done" in run.snakemake().stdout


def test_no_temporary_file_is_left_by_a_run(ordinary):
    assert temporary_files(ordinary) == []


@pytest.mark.parametrize("whole_place", [False, True], ids=["results", "working directory"])
def test_a_full_disk_is_told_and_the_same_command_goes_on(one, whole_place):
    run = one("full disk")
    disk = run.folder if whole_place else run.results()
    sheets = {name: (run.folder / name).read_text() for name in ("scans.tsv", "config.yaml")}
    with small_disk(disk, "600k"):
        for name, text in sheets.items():
            (run.folder / name).write_text(text)
        full = run.snakemake(*IMPORTS, cores=1)
        assert full.returncode != 0
        problem = full.stdout.split("Not finished:")[1]
        assert f"{PATIENT}: The disk is full: results/{PATIENT}/scans/fdg/" in problem
        assert "Make room in" in problem
        assert "Traceback" not in full.stdout
        made = {path.name for path in run.results(PATIENT, "scans").rglob("*.nii.gz")}
        assert made < {"ct.nii.gz", "pet.nii.gz"}
        assert temporary_files(run) == []
        mount("-o", "remount,size=100m", disk)
        again = run.snakemake(*IMPORTS, cores=1)
        assert again.returncode == 0, again.stdout
        assert all((run.folder / path).exists() for path in IMPORTS)
        assert not list(run.results("logs").rglob("*.failure"))


def job_of(process: subprocess.Popen, rule: str, log: Path) -> psutil.Process:
    """The process that works for a rule in a run, as soon as it has begun."""

    def found() -> psutil.Process | None:
        children = psutil.Process(process.pid).children(recursive=True)
        return next((child for child in children if rule_of(child) == rule), None)

    job = wait_until(found)
    wait_until(Path(f"{log}.failure").exists)
    return job


def test_a_job_killed_as_for_its_memory_is_told_and_made_again(one):
    run = one("killed job")
    log = run.results("logs", PATIENT, "fdg.import_ct.log")
    with run.start(*IMPORTS, cores=1) as process:
        # SIGKILL, as the kernel's out-of-memory killer sends
        job_of(process, "import_ct", log).kill()
        output, _ = process.communicate()
    assert process.returncode != 0
    assert f"{PATIENT}: {KILLED}" in output.split("Not finished:")[1]
    assert "other patients" not in output  # there are none
    assert "most likely for lack of memory" in KILLED and "a smaller --cores" in KILLED
    assert log.read_text().endswith(f"ERROR {KILLED}\n")
    assert not (run.folder / IMPORTS[0]).exists()
    assert (run.folder / IMPORTS[1]).exists()  # the other job of the patient went on
    result = run.snakemake(*IMPORTS)
    assert result.returncode == 0, result.stdout
    assert KILLED not in log.read_text() and temporary_files(run) == []


def test_a_second_run_at_once_is_sent_away_and_breaks_nothing(one):
    run = one("two at once")
    with run.start(*IMPORTS, cores=1) as first:
        job = job_of(first, "import_ct", run.results("logs", PATIENT, "fdg.import_ct.log"))
        job.suspend()  # so that the first run is at work for as long as this takes
        second = run.snakemake(*IMPORTS)
        job.resume()
        output, _ = first.communicate()
    assert second.returncode != 0
    assert "Another run has been at work on these results since" in second.stdout
    assert f"(process {first.pid} on " in second.stdout and "wait until it has ended" in second.stdout
    assert "Directory cannot be locked" not in second.stdout and "Traceback" not in second.stdout
    assert first.returncode == 0, output
    assert "Nothing to be done" in run.snakemake(*IMPORTS).stdout


def test_after_a_kill_the_next_run_gives_the_command_that_takes_the_lock_away(one):
    run = one("killed run")
    with run.start(*IMPORTS, cores=1) as process:
        wait_until(lambda: list(run.results("logs", PATIENT).glob("*.failure")))
        os.killpg(process.pid, signal.SIGKILL)
    locked = run.snakemake(*IMPORTS)
    assert locked.returncode != 0
    (before, after) = locked.stdout.split("An earlier run was killed and has left its lock on these results.")
    assert "Another run" not in before + after
    command = after.splitlines()[1].strip()
    assert command.endswith("--unlock")
    pasted = subprocess.run(
        command.replace("snakemake", f"{sys.executable} -m snakemake", 1), shell=True, capture_output=True, cwd="/"
    )
    assert pasted.returncode == 0, pasted.stderr
    result = run.snakemake(*IMPORTS)
    assert result.returncode == 0, result.stdout
    assert temporary_files(run) == []


def test_results_that_may_not_be_written_are_told_in_a_sentence(one):
    run = one("read-only results")
    run.results().mkdir()
    with read_only(run.results()):
        result = run.snakemake(*IMPORTS)
    assert result.returncode != 0
    assert f"{run.results()} may not be written: give yourself the right to write there" in result.stdout
    assert "Traceback" not in result.stdout and "rule import_ct" not in result.stdout


def test_old_results_that_cannot_be_removed_after_a_failure_are_told_with_what_makes_them_anew(
    ordinary, repository_cases, tmp_path
):
    run, lesions = Run(tmp_path / "old results"), f"results/{PATIENT}/lesions/lesions.tsv"
    shutil.copytree(ordinary.folder, run.folder)
    run.write([{**repository_cases[0], "dicom": "nowhere"}])
    mount("--bind", run.folder / lesions, run.folder / lesions)  # it can be written, but not removed
    try:
        result = run.snakemake()
    finally:
        subprocess.run(["umount", "--lazy", str(run.folder / lesions)], check=True)
    assert result.returncode != 0 and "Traceback" not in result.stdout
    assert "What rests on a job that failed cannot be removed" in result.stdout
    assert "Not finished:" in result.stdout
    command = result.stdout.split("start with this command:")[1].splitlines()[1].strip()
    assert set(command.split("--forcerun ")[1].split()) == set(IMPORTS)
    run.write(repository_cases[:1])
    pasted = subprocess.run(
        f"{command.replace('snakemake', f'{sys.executable} -m snakemake', 1)} -n",
        shell=True, capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert pasted.returncode == 0 and lesions in pasted.stdout, pasted.stderr
