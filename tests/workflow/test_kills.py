"""A run killed at random moments, and started again as often, ends with the bytes of one that nobody disturbed."""

import time

import pytest

from kills import Kill, Killer, differing, files, temporary_files
from theraflow.files import read_json
from theraflow.run.progress import FILE, FOLDER
from threshold_model import write_threshold_model

pytestmark = pytest.mark.workflow

RUNS, JOBS = 3, 2  # killed at the least
MOST_STARTS = 24  # a run may end before its kill, which is timed by an undisturbed run: that may have been a slow one
SEED = 20231
RESULTS = (".tsv", ".json", ".nii.gz", ".h5", ".png")


def enough(kills: list[Kill]) -> bool:
    """Whether as many runs and jobs as are wanted have been killed."""
    victims = [kill.victim for kill in kills if kill.victim != "none"]
    runs = victims.count("run")
    return runs >= RUNS and len(victims) - runs >= JOBS


@pytest.fixture(scope="module")
def disturbed(make_run, repository_cases, tmp_path_factory):
    """An undisturbed run of one patient through five stages, a killed one, its kills, and what its last start said."""
    weights = tmp_path_factory.mktemp("weights")
    write_threshold_model(weights, 6)
    case = repository_cases[0]
    targets = [f"results/{case['patient']}/{table}.tsv" for table in ("response", "lesions/lesions")]
    organs = {"backend": "totalsegmentator", "resolution": 6, "device": "cpu", "weights": str(weights)}
    calm, run = make_run("calm"), make_run("killed")
    for one in (calm, run):
        one.write([case], organs=organs)
    began = time.monotonic()
    result = calm.snakemake(*targets)
    whole_s = time.monotonic() - began
    assert result.returncode == 0, result.stdout
    (told,) = calm.results("logs", FOLDER).glob(f"*/{FILE}")
    killer = Killer(run, whole_s, read_json(told)["steps"]["of"], SEED, targets)
    kills = []
    while not enough(kills) and len(kills) < MOST_STARTS:
        kills.append(killer.kill_once())
    return calm, run, kills, killer.finish()


def test_the_runs_were_killed_while_they_worked(disturbed):
    _, _, kills, _ = disturbed
    assert enough(kills), [kill.victim for kill in kills]


def test_a_killed_run_leaves_no_process_at_work(disturbed):
    _, _, kills, _ = disturbed
    assert [kill.orphans for kill in kills if kill.orphans] == []


def test_every_result_has_the_bytes_of_the_undisturbed_run(disturbed):
    calm, run, _, _ = disturbed
    assert len(files(calm, *RESULTS)) > 15
    assert differing(calm, run, *RESULTS) == []


def test_nothing_is_left_over_when_the_run_has_ended(disturbed):
    _, run, _, words = disturbed
    assert temporary_files(run) == []
    assert not list(run.results("logs").rglob("*.failure"))
    assert "Not finished" not in words
