"""What a job leaves behind when it succeeds, when the input is wrong, and when the program is."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from theraflow.failures import failures
from theraflow.files import whole

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
    result = run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode < 0
    assert "was killed" in failures(tmp_path / "logs", ["P1"])["P1"]


def test_warnings_reach_the_log(tmp_path):
    run(tmp_path, "import warnings; warnings.warn('slices are not equidistant')")
    assert "slices are not equidistant" in (tmp_path / "logs/P1/step.log").read_text()


def test_a_file_is_whole_or_not_there(tmp_path):
    with pytest.raises(RuntimeError), whole(tmp_path / "a" / "table.tsv") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == []
