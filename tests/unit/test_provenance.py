"""What a run is known by afterwards: software, inputs, settings, jobs; and nobody's name."""

import hashlib
import json
import os
import shutil
import subprocess
from functools import partial
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
        ("/study/../hospital/Doe^Jane", "..."),
        ("sheets/../scans.tsv", "scans.tsv"),
        ("--directory=/hospital/Doe Jane/run", "--directory=..."),
        ("--directory=../Doe^Jane/run", "--directory=..."),
        ("-d/hospital/Doe^Jane", "-d..."),
        ("-d../Doe^Jane", "-d..."),
        ("results=/data/Doe^Jane", "results=..."),
        ("results=/data/Doe.Jane", "results=..."),  # a folder that looks as if it had a suffix
        ("/data/Doe^Jane/", "..."),
        ("/data/Doe^Jane", "..."),
        ("..", "..."),
        ("exports/../../Doe^Jane", "..."),
        ("scans=../Doe^Jane/scans.tsv", "scans=.../scans.tsv"),
        ("scans=/hospital/Doe Jane/scans.tsv", "scans=.../scans.tsv"),
        ("../Doe^Jane/scans.tsv", ".../scans.tsv"),
        ("organs={weights: /hospital/Doe Jane/weights}", "organs={weights: ..."),
        ("organs={weights: ../Doe Jane/weights}", "organs={weights: ..."),
        ("organs={weights: exports/../../Doe Jane/weights}", "organs={weights: ..."),
        (r"organs={weights: \\server\Doe\x}", "organs={weights: ..."),
        ("organs={weights: ~jane/Doe}", "organs={weights: ..."),
        (r"\\server\Doe\x", "..."),
        (r"\\server\Doe\scans.tsv", ".../scans.tsv"),
        (r"..\Doe\x", "..."),
        (r"C:\Doe\x", "..."),
        ("~/Doe/weights", "..."),
        ("~doe/weights", "..."),
        ("-j2", "-j2"),
        ("1..3", "1..3"),
        ("cohort={incomplete: skip}", "cohort={incomplete: skip}"),
        ("results/P003/report.html", "results/P003/report.html"),
        ("[177Lu]DOTATATE", "[177Lu]DOTATATE"),
        ("g/mL", "g/mL"),
    ],
)
def test_no_path_outside_the_working_directory_is_kept(word, kept):
    assert without_paths(word, HERE) == kept
    assert without_paths({"a": [word, 3, None]}, HERE) == {"a": [kept, 3, None]}


def test_the_command_tells_no_folder_from_above_the_working_directory(tmp_path, monkeypatch):
    """Snakemake goes to its directory; what stands beside that in the command counts from where it was started."""
    here = tmp_path / "Doe^Jane" / "run"
    (here / "sheets").mkdir(parents=True)
    monkeypatch.chdir(here)
    words = ["/home/doe/bin/snakemake", "--directory", "Doe^Jane/run", "--directory=Doe^Jane/run", "-dDoe^Jane/run",
             "-s", "for Doe/theraflow/Snakefile", "--configfile", "of Doe/config.yaml", "--cores", "2", "--config",
             "scans=sheets/scans.tsv", f"cohort={{incomplete: {'very ' * 99}/odd}}",
             "results/P1/report.html"]  # fmt: skip
    assert describe(command=words, config={"results": "results"})["command"] == [
        "snakemake", "--directory", "...", "--directory=...", "-d...", "-s", "...", "--configfile", ".../config.yaml",
        "--cores", "2", "--config", "scans=sheets/scans.tsv", "cohort=...", "results/P1/report.html",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [None, "damaged [", "[project]\n", "[project]\ndependencies = ['!']\n"])
def test_a_repository_that_cannot_be_read_does_not_stop_the_run(content, tmp_path, caplog):
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    told = describe(tmp_path)
    assert told["packages"] is None and told["code"]["workflow_sha256"] is None  # it has no workflow either
    assert told["machine"]["cores"] >= 1
    assert "without the versions of the packages" in caplog.text and "without the digest of the workflow" in caplog.text


def test_programs_that_print_no_text_do_not_stop_the_run(tmp_path, monkeypatch):
    for name in ("git", "nvidia-smi"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nprintf '\\377\\376 A100\\n'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told = describe()
    assert told["code"]["commit"] is None
    (gpu,) = told["machine"]["gpus"]
    assert gpu.endswith(" A100")


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


RESULTS = Path("/hospital/Doe^Jane/results")


def progress_of_three() -> Progress:
    steps = {
        1: Step("ct", "dicom", "P1", "fdg", outputs=(f"{RESULTS}/P1/ct.nii.gz", f"{RESULTS}/P1/ct of P1.json")),
        2: Step("ct", "dicom", "P2", "fdg", outputs=(f"{RESULTS}/P2/ct.nii.gz",)),
        3: Step("ct", "dicom", "P3", "fdg", outputs=("/hospital/Doe^Jane/weights/manifest.json", "made/../here.tsv")),
        4: Step("all", None),
    }
    made = [Step("pet", "dicom", "P1", "fdg", outputs=(f"{RESULTS}/P1/pet.nii.gz",)), Step("patients", None)]
    return Progress(Plan(steps, made, stages=("dicom",)), clock=iter(range(100, 200)).__next__)


def test_a_run_is_recorded_when_it_begins_and_when_it_has_ended(tmp_path):
    told = describe(codes={"ct": "1a2b", "pet": "3c4d", "all": None, "never": "5e6f"})
    progress = progress_of_three()
    keeper = Keeper(progress, tmp_path, partial(write_provenance, told, RESULTS))
    write_provenance(told, RESULTS, progress, keeper.folder)
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
    assert last["kept"] == 1
    assert last["rules"] == {
        "all": {"code": None},
        "ct": {"code": "1a2b", "done": 1, "failed": 1, "not run": 1},
        "pet": {"code": "3c4d", "kept": 1},
    }
    rows = [line.split("\t") for line in (keeper.folder / "jobs.tsv").read_text().splitlines()]
    assert [(row[1], row[3], row[5]) for row in rows[1:]] == [
        ("P1", "done", "P1/ct.nii.gz; P1/ct of P1.json"),
        ("P2", "failed", "P2/ct.nii.gz"),
        ("P3", "not run", ".../manifest.json; here.tsv"),
    ]


@pytest.mark.parametrize("place", ["a file", "/sys"])  # the latter may not be written by root either
def test_a_record_that_cannot_be_written_does_not_stop_the_run(place, tmp_path, caplog):
    (tmp_path / "a file").write_text("where the folder should be")
    told = describe()
    progress_was_told = []

    def write(progress, folder):
        progress_was_told.append((folder / "progress.json").is_file())
        write_provenance(told, RESULTS, progress, tmp_path / place / "run")

    keeper = Keeper(progress_of_three(), tmp_path / "runs", write)
    keeper.start()
    keeper.end(success=True)
    assert progress_was_told == [True, True]
    assert caplog.text.count("The record of the run cannot be written") == 2
    assert json.loads((keeper.folder / "progress.json").read_text())["state"] == "finished"
