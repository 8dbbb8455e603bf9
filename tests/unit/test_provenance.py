"""What a run is known by afterwards: software, inputs, settings, jobs; and nobody's name."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from theraflow.run.progress import Keeper, Plan, Progress, Step
from theraflow.run.provenance import describe_run, without_paths, write_provenance

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("/study")


def describe(repository: Path = ROOT, **changed) -> dict:
    given = {"command": ["snakemake"], "config": {}, "files": [], "codes": {"ct": "1a2b", "all": None}}
    return describe_run(repository, **{**given, **changed})


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("/hospital/Doe^Jane/scans.tsv", ".../scans.tsv"),
        ("/study/sheets/scans.tsv", "sheets/scans.tsv"),
        ("/study", "."),
        ("--directory=/hospital/Doe Jane/run", "--directory=.../run"),
        ("scans=/hospital/Doe Jane/scans.tsv", "scans=.../scans.tsv"),
        ("../Doe^Jane/scans.tsv", ".../scans.tsv"),
        ("organs={weights: /hospital/Doe Jane/weights}", "organs={weights: ..."),
        ("~/Doe/weights", "..."),
        ("cohort={incomplete: skip}", "cohort={incomplete: skip}"),
        ("results/P003/report.html", "results/P003/report.html"),
        ("[177Lu]DOTATATE", "[177Lu]DOTATATE"),
        ("g/mL", "g/mL"),
    ],
)
def test_no_path_outside_the_working_directory_is_kept(word, kept):
    assert without_paths(word, HERE) == kept
    assert without_paths({"a": [word, 3, None]}, HERE) == {"a": [kept, 3, None]}


def test_software_is_that_which_is_installed():
    from importlib.metadata import version

    told = describe()
    for name in ("numpy", "torch", "snakemake", "TotalSegmentator"):
        assert told["packages"][name] == version(name)
    assert told["machine"]["cores"] >= 1 and told["machine"]["memory_mib"] > 100


def test_files_are_known_by_their_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scans.tsv").write_text("patient\n")
    kernel = ROOT / "resources" / "kernels" / "90Y.tsv"
    told = describe(files=[Path("scans.tsv"), kernel, tmp_path / "gone.tsv"])["files"]
    assert told == [
        {"file": "scans.tsv", "sha256": hashlib.sha256(b"patient\n").hexdigest()},
        {"file": "theraflow/resources/kernels/90Y.tsv", "sha256": hashlib.sha256(kernel.read_bytes()).hexdigest()},
        {"file": "gone.tsv", "sha256": None},
    ]


@pytest.fixture
def repository(tmp_path) -> Path:
    """A small repository of git, in which everything is committed."""
    root = tmp_path / "repository"
    (root / "workflow").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "workflow" / "a.py").write_text("a = 1\n")
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    return root


def test_the_commit_is_known_and_whether_files_differ_from_it(repository):
    first = describe(repository)["code"]
    head = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert first["commit"] == head.stdout.strip() and first["modified"] is False
    (repository / "workflow" / "a.py").write_text("a = 2\n")
    changed = describe(repository)["code"]
    assert changed["commit"] == first["commit"] and changed["modified"] is True
    assert changed["workflow_sha256"] != first["workflow_sha256"]


def test_a_copy_within_another_repository_does_not_bear_its_commit(repository):
    copied = repository / "vendored"
    (copied / "workflow").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", copied)
    shutil.copy(repository / "workflow" / "a.py", copied / "workflow")
    code = describe(copied)["code"]
    assert code["commit"] is None and code["modified"] is None
    assert code["workflow_sha256"] == describe(repository)["code"]["workflow_sha256"]


def progress_of_three() -> Progress:
    steps = {
        1: Step("ct", "dicom", "P1", "fdg", outputs=("P1/ct.nii.gz", "P1/ct.json")),
        2: Step("ct", "dicom", "P2", "fdg", outputs=("P2/ct.nii.gz",)),
        3: Step("ct", "dicom", "P3", "fdg", outputs=("P3/ct.nii.gz",)),
        4: Step("all", None),
    }
    made = [Step("pet", "dicom", "P1", "fdg", outputs=("P1/pet.nii.gz",))]
    return Progress(Plan(steps, made, stages=("dicom",)), clock=iter(range(100, 200)).__next__)


def test_a_run_is_recorded_when_it_begins_and_when_it_has_ended(tmp_path):
    told = describe(codes={"ct": "1a2b", "pet": "3c4d", "all": None, "never": "5e6f"})
    progress = progress_of_three()
    keeper = Keeper(progress, tmp_path, lambda progress, folder: write_provenance(told, progress, folder))
    write_provenance(told, progress, keeper.folder)
    first = json.loads((keeper.folder / "provenance.json").read_text())
    assert first["state"] == "running" and first["ended_at"] is None
    assert not (keeper.folder / "jobs.tsv").exists()
    keeper.start()
    progress.begin(1, {})
    progress.finish(1)
    progress.fail(2)
    keeper.end(success=False)
    last = json.loads((keeper.folder / "provenance.json").read_text())
    assert last["state"] == "failed" and last["ended_at"] > first["started_at"]
    assert last["rules"] == {
        "all": {"code": None},
        "ct": {"code": "1a2b", "done": 1, "failed": 1, "not run": 1},
        "pet": {"code": "3c4d", "kept": 1},
    }
    rows = [line.split("\t") for line in (keeper.folder / "jobs.tsv").read_text().splitlines()]
    assert [(row[1], row[3], row[5]) for row in rows[1:]] == [
        ("P1", "done", "P1/ct.nii.gz P1/ct.json"),
        ("P2", "failed", "P2/ct.nii.gz"),
        ("P3", "not run", "P3/ct.nii.gz"),
        ("P1", "kept", "P1/pet.nii.gz"),
    ]


def test_a_record_that_cannot_be_written_does_not_stop_the_run(tmp_path, caplog):
    def refuse(progress, folder):
        raise OSError("the disk is full")

    keeper = Keeper(progress_of_three(), tmp_path, refuse)
    keeper.start()
    keeper.end(success=True)
    assert "the disk is full" in caplog.text
    assert (keeper.folder / "progress.json").is_file()
