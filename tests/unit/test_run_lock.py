"""What is said where the results are locked: by a run that goes on, here or elsewhere, or by one that was killed."""

import datetime
import logging
import os
import platform
import shutil
import subprocess
import sys

import pytest

from theraflow.files import write_json, write_text
from theraflow.run.lock import LockWords

UNLOCK = "snakemake --unlock"


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def said(runs, exception: str = "LockException") -> str:
    record = logging.LogRecord("snakemake", logging.ERROR, __file__, 1, "Directory cannot be %s.", ("locked",), None)
    record.exception = exception
    assert LockWords(runs, UNLOCK).filter(record)
    return record.getMessage()


@pytest.mark.parametrize(
    ("machine", "lives", "silent_s", "state", "goes_on"),
    [
        (platform.node(), True, 5, "running", True),
        (platform.node(), False, 5, "running", False),
        ("another", False, 5, "running", True),  # its processes cannot be seen from here
        ("another", True, 600, "running", False),
        (platform.node(), True, 5, "finished", False),
    ],
)
def test_who_holds_the_lock_is_told(machine, lives, silent_s, state, goes_on, tmp_path):
    process = os.getpid() if lives else dead_process()
    heard = datetime.datetime.now().astimezone() - datetime.timedelta(seconds=silent_s)
    told = {"machine": machine, "process": process, "state": state, "updated_at": heard.isoformat()}
    write_json({**told, "started_at": "2026-03-04T05:06:07+00:00"}, tmp_path / "20260304T050607_1" / "progress.json")
    sentence = said(tmp_path)
    assert ("Another run has been at work on these results since 2026-03-04 05:06" in sentence) == goes_on
    assert (f"process {process} on {machine}" in sentence) == goes_on
    assert (UNLOCK in sentence) != goes_on


OTHER_VERSIONS = [
    "{ nonsense",
    "[]",
    '{"state": "running"}',
    '{"state": "running", "machine": "a", "process": "seven", "updated_at": "X", "started_at": "X"}',
    '{"state": "running", "machine": "a", "process": 7, "updated_at": "X", "started_at": null}',
    '{"state": "running", "machine": "a", "process": 7, "updated_at": "2026-03-04T05:06:07", "started_at": "X"}',
]


@pytest.mark.parametrize("other", OTHER_VERSIONS)
def test_a_run_whose_progress_cannot_be_read_hides_no_other(other, tmp_path):
    now = datetime.datetime.now().astimezone().isoformat()
    told = {"machine": "another", "process": 7, "state": "running", "updated_at": now, "started_at": now}
    write_json(told, tmp_path / "20260304T050607_7" / "progress.json")
    damaged = tmp_path / "20260305T050607_8" / "progress.json"
    write_text(other.replace("X", now), damaged)
    assert "process 7 on another" in said(tmp_path)
    shutil.rmtree(tmp_path / "20260304T050607_7")
    assert UNLOCK in said(tmp_path)


def test_before_the_first_run_has_said_anything_the_command_is_told(tmp_path):
    assert UNLOCK in said(tmp_path / "runs")


def test_other_messages_stay_as_they_are(tmp_path):
    assert said(tmp_path, "WorkflowError") == "Directory cannot be locked."
