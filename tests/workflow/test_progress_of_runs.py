"""The progress of real runs: while they go on, at their end, killed, and two at once."""

import datetime
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pydicom
import pytest

from theraflow.run.terminal import describe, find_runs, goes_on
from whole_run import REPOSITORY, Run, wait_until

pytestmark = pytest.mark.workflow

PATIENTS = ("STS_002", "STS_008")


def imports(patient: str) -> list[str]:
    return [f"results/{patient}/scans/fdg/{image}.nii.gz" for image in ("ct", "pet")]


def progress_files(run: Run) -> list[Path]:
    return sorted(run.results("logs", "runs").glob("*/progress.json"))


@pytest.fixture(scope="module")
def watched(make_run, repository_cases):
    """A run of two patients, looked at all the time: what it printed, and all states of its progress."""
    run = make_run("watched")
    run.write(repository_cases)
    states = []
    with run.start(*imports("STS_002"), *imports("STS_008"), cores=1) as process:
        while process.poll() is None:
            for path in progress_files(run):
                told = json.loads(path.read_text())  # whole at any time
                if not states or told != states[-1]:
                    states.append(told)
            time.sleep(0.05)
        output = process.stdout.read()
    assert process.returncode == 0, output
    states.append(json.loads(progress_files(run)[-1].read_text()))
    return run, states, output


def test_every_state_is_right_in_itself_and_they_go_forward(watched):
    _, states, _ = watched
    assert len(states) >= 2
    for told in states:
        cells = dict(zip(told["stages"], zip(*told["patients"].values(), strict=True), strict=True))
        done = sum(counts[0] for counts in cells["dicom"])
        running = sum(counts[1] for counts in cells["dicom"])
        assert (done, running) == (told["steps"]["done"], told["steps"]["running"])
        assert running == len(told["running"]) <= 1  # one core
        assert told["steps"]["of"] == 4
        assert told["memory_mib"]["now"] <= told["memory_mib"]["peak"]
    assert [told["steps"]["done"] for told in states] == sorted(told["steps"]["done"] for told in states)
    assert states[0]["state"] == "running"


def test_the_end_says_what_was_made(watched):
    run, states, _ = watched
    last = states[-1]
    assert last["state"] == "finished" and last["steps"] == {"done": 4, "running": 0, "failed": 0, "of": 4}
    assert last["rules"]["import_ct"]["done"] == last["rules"]["import_emission"]["done"] == 2
    assert last["time_left"] == {"seconds": 0.0, "unknown_rules": []}
    assert set(last["patients"]) == set(PATIENTS)
    assert "has finished" in describe(last, datetime.datetime.now().astimezone())[0]
    rows = (progress_files(run)[0].parent / "rules.tsv").read_text().splitlines()
    assert {row.split("\t")[0] for row in rows[1:]} == {"import_ct", "import_emission"}


def test_the_run_says_what_made_its_results(watched):
    """Software, inputs by their digest, settings; each job with its outputs, which are there; nobody's folders."""
    run, _, _ = watched
    (folder,) = (path.parent for path in progress_files(run))
    text = (folder / "provenance.json").read_text()
    told = json.loads(text)
    assert told["state"] == "finished" and told["started_at"] <= told["ended_at"]
    assert told["config"]["organs"]["backend"] == "none" and told["packages"]["pydicom"] == pydicom.__version__
    digests = {one["file"]: one["sha256"] for one in told["files"]}
    for sheet in ("scans.tsv", "config.yaml"):
        assert digests[sheet] == hashlib.sha256((run.folder / sheet).read_bytes()).hexdigest()
    assert None not in digests.values() and "theraflow/resources/tissue_densities.csv" in digests
    assert {rule: one["done"] for rule, one in told["rules"].items()} == {"import_ct": 2, "import_emission": 2}
    assert all(len(one["code"]) == 16 for one in told["rules"].values())
    rows = [line.split("\t") for line in (folder / "jobs.tsv").read_text().splitlines()[1:]]
    assert sorted((row[0], row[1], row[3]) for row in rows) == [
        (rule, patient, "done") for rule in ("import_ct", "import_emission") for patient in PATIENTS
    ]
    assert all(run.results(output).is_file() for row in rows for output in row[5].split("; "))
    assert str(run.folder) not in text and str(REPOSITORY) not in text


def test_the_last_words_are_a_summary(watched):
    run, _, output = watched
    assert "4 of 4 steps done." in output
    assert "import_emission" in output.split("Where the time went")[1]
    sizes = {row.split("\t")[0]: row.split("\t")[5] for row in
             (progress_files(run)[0].parent / "patients.tsv").read_text().splitlines()[1:]}  # fmt: skip
    for patient in PATIENTS:
        size = sum(path.stat().st_size for path in run.results(patient).rglob("*") if path.is_file())
        assert float(sizes[patient]) == pytest.approx(size / 2**20, abs=0.01)


def test_a_killed_run_and_two_at_once(make_run, repository_cases):
    """A kill leaves a last state that is found to be dead; the next two runs do not mix."""
    run = make_run("killed and two")
    run.write(repository_cases)
    with run.start(*imports("STS_002"), cores=1) as process:
        wait_until(lambda: progress_files(run), 150.0)  # told before the first job begins
        os.killpg(process.pid, signal.SIGKILL)
    told = json.loads(progress_files(run)[-1].read_text())
    assert told["state"] == "running"
    minutes_later = datetime.datetime.now().astimezone() + datetime.timedelta(minutes=5)
    assert not goes_on(told, minutes_later)
    assert "killed" in describe(told, minutes_later)[0]
    assert find_runs(run.results("logs", "runs"), minutes_later) == [told]

    assert run.snakemake("--unlock").returncode == 0
    with run.start(*imports("STS_002"), cores=1) as one, run.start(*imports("STS_008"), cores=1) as other:
        outputs = [process.communicate()[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), outputs
    first, *both = [json.loads(path.read_text()) for path in progress_files(run)]
    assert first == told
    assert sorted(list(state["patients"]) for state in both) == [["STS_002"], ["STS_008"]]
    assert [state["state"] for state in both] == ["finished", "finished"]
