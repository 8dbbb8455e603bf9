"""What a job leaves behind when it succeeds, when the input is wrong, and when the program is."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from theraflow.failures import UNBEGUN, failures, left_reasons, tell_end, written_reasons
from theraflow.job import KILLED, OUT_OF_MEMORY

LIBRARY = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


def run(tmp_path: Path, body: str) -> subprocess.CompletedProcess:
    code = f"from theraflow.job import job\nwith job('logs/P1/step.log', 2):\n{textwrap.indent(body, '    ')}"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
    )


def test_success_leaves_no_failure(tmp_path):
    result = run(tmp_path, "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert (result.returncode, result.stdout) == (0, "2\n")
    assert failures(tmp_path / "logs", ["P1"]) == {}


def test_what_a_job_reads_must_be_there(tmp_path):
    code = "from theraflow.job import job\nwith job('logs/P1/step.log', 1, ['here', 'away', 'gone']): print('worked')"
    (tmp_path / "here").touch()
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True)
    sentence = "away is missing (and 1 others): name it to snakemake, which makes it again.\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", sentence)


def test_wrong_input_ends_in_one_sentence(tmp_path):
    body = "from theraflow.errors import TheraflowError\nraise TheraflowError('PatientWeight (0010,1030) is missing.')"
    result = run(tmp_path, body)
    assert result.returncode == 1
    assert result.stderr == "PatientWeight (0010,1030) is missing.\n"
    assert failures(tmp_path / "logs", ["P1", "P2"]) == {"P1": "PatientWeight (0010,1030) is missing."}
    assert "Traceback" not in (tmp_path / "logs/P1/step.log").read_text()
    run(tmp_path, "pass")
    assert failures(tmp_path / "logs", ["P1"]) == {}


def test_an_error_of_the_program_keeps_its_traceback_in_the_log(tmp_path):
    result = run(tmp_path, "1 / 0")
    assert result.returncode == 1
    assert "Unexpected ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in (tmp_path / "logs/P1/step.log").read_text()


def test_a_killed_job_is_told(tmp_path):
    result = run(tmp_path, "import logging, os, signal; logging.info('at work'); os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode < 0
    told = failures(tmp_path / "logs", ["P1"])["P1"]
    assert "was killed before it ended, most likely for lack of memory" in told
    assert "a smaller --cores" in told
    log = tmp_path / "logs" / "P1" / "step.log"
    tell_end(log, {})
    assert log.read_text() == f"INFO at work\nERROR {told}\n"


def test_a_log_that_takes_nothing_more_does_not_keep_the_kill_from_being_told(tmp_path):
    (tmp_path / "P1").mkdir()
    log = tmp_path / "P1" / "step.log"
    log.symlink_to("/dev/full")
    (tmp_path / "P1" / "step.log.failure").write_text(f"{KILLED}\n")
    with pytest.raises(OSError, match="No space left"), log.open("a") as file:
        file.write("x")
    tell_end(log, {})
    assert failures(tmp_path, ["P1"]) == {"P1": KILLED}


def test_a_reason_that_was_cut_within_a_letter_is_told_as_far_as_it_goes(tmp_path):
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "step.log.failure").write_bytes("Bilder für Müller".encode()[:-5])
    assert failures(tmp_path, ["P1"])["P1"].startswith("Bilder für M")


def test_a_job_that_failed_by_itself_is_not_told_as_killed(tmp_path):
    run(tmp_path, "1 / 0")
    log = tmp_path / "logs" / "P1" / "step.log"
    before = log.read_text()
    tell_end(log, {})
    tell_end(None, {})
    assert log.read_text() == before
    assert "division by zero" in failures(tmp_path / "logs", ["P1"])["P1"]


def test_a_job_that_never_began_is_told_and_one_that_does_takes_it_back(tmp_path):
    tell_end(tmp_path / "logs" / "P1" / "step.log", {})
    assert failures(tmp_path / "logs", ["P1"]) == {"P1": UNBEGUN}
    assert "its node was lost" in UNBEGUN and "start the same command again" in UNBEGUN
    run(tmp_path, "pass")
    assert failures(tmp_path / "logs", ["P1"]) == {}


def test_the_reason_of_an_earlier_run_is_not_told_of_a_job_that_never_began(tmp_path):
    run(tmp_path, "1 / 0")
    logs = tmp_path / "logs"
    tell_end(logs / "P1" / "step.log", written_reasons(logs))
    assert failures(logs, ["P1"]) == {"P1": UNBEGUN}


@pytest.mark.parametrize(
    "hunger",
    [
        "import numpy; take = lambda: numpy.ones(2**36, 'u1')",
        "import SimpleITK as sitk; take = lambda: sitk.Image(4096, 4096, 4096, sitk.sitkUInt8)",
    ],
    ids=["numpy", "SimpleITK"],
)
def test_a_lack_of_memory_is_told_with_what_to_do(tmp_path, hunger):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))"
    result = run(tmp_path, f"{hunger}\n{limit}\ntake()")
    assert result.returncode == 1
    assert result.stderr == f"{OUT_OF_MEMORY}\n"
    assert failures(tmp_path / "logs", ["P1"]) == {"P1": OUT_OF_MEMORY}
    assert (tmp_path / "logs/P1/step.log").read_text().endswith(f"ERROR {OUT_OF_MEMORY}\n")


def test_a_job_that_could_not_even_write_why_is_told(tmp_path):
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "step.log.failure").touch()
    assert "the disk is full" in failures(tmp_path, ["P1"])["P1"]


def test_reasons_that_no_job_would_take_back_are_told_from_the_others(tmp_path):
    names = ("P1/report.log", "P1/old_scan.import_ct.log", "P2/report.log", "cohort/a_rule_no_more.log")
    for name in names:
        reason = tmp_path / f"{name}.failure"
        reason.parent.mkdir(exist_ok=True)
        reason.write_text("It failed.\n")
    of_jobs = [str(tmp_path / "P1" / "report.log"), str(tmp_path / "P1" / "done.log")]
    left = left_reasons(tmp_path, ["P1", "cohort"], of_jobs)  # P2 is left out of this run
    assert [str(path.relative_to(tmp_path)) for path in left] == [f"{names[1]}.failure", f"{names[3]}.failure"]


def test_warnings_reach_the_log(tmp_path):
    run(tmp_path, "import warnings; warnings.warn('slices are not equidistant')")
    assert "slices are not equidistant" in (tmp_path / "logs/P1/step.log").read_text()
