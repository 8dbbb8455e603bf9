"""What all tests share."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from whole_run import REPOSITORY, Run, make_demo, sarcoma

# Debian's packages that tests need, by the program they are asked for.
DEBIAN_PACKAGES = {
    "chromium": "chromium",
    "dciodvfy": "dicom3tools",
    "Orthanc": "orthanc",
    "pdftotext": "poppler-utils",
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "locale-gen": "locales",
}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the published real data; the test skips where it is absent (a user's clone)."""
    folder = Path(os.environ.get("THERAFLOW_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the published scans are not in {folder} (set THERAFLOW_DATA to their folder)")
    return folder


@pytest.fixture(scope="session")
def debian_program() -> Callable[[str], str]:
    """Path of a program of Debian, installed where root may do so; the test skips where it cannot be had."""

    def install(package: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run(["apt-get", *words], env=environment, **quiet)

    def path_of(program: str) -> str:
        package = DEBIAN_PACKAGES[program]
        with (Path(tempfile.gettempdir()) / "theraflow.apt-get").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # xdist's workers install one after the other
            if shutil.which(program) is None and os.geteuid() == 0 and shutil.which("apt-get"):
                install(package)
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} (Debian package {package}) is not installed and cannot be")
        return found

    return path_of


@pytest.fixture(scope="module")
def chromium(debian_program) -> Iterator[Any]:
    """A real browser, without a window."""
    from playwright.sync_api import sync_playwright

    from in_browser import ARGUMENTS, PATIENCE_MS

    with sync_playwright() as playwright:
        program = debian_program("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def make_run(tmp_path_factory) -> Callable[[str], Run]:
    """Make a new working directory."""
    return lambda name: Run(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def sarcoma_row() -> Callable[[Path], dict[str, object]]:
    """How to name a sarcoma patient in the sheet."""
    return sarcoma


@pytest.fixture(scope="session")
def repository_cases() -> list[dict[str, object]]:
    """Scan rows of the two real patients in tests/data."""
    return [sarcoma(REPOSITORY / "tests" / "data" / name) for name in ("STS_002", "STS_008")]


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Run:
    """`make demo`, once for all files of tests; THERAFLOW_DEMO names a working directory where it has run already."""
    if "THERAFLOW_DEMO" in os.environ:
        return Run(Path(os.environ["THERAFLOW_DEMO"]))
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers
    with (shared / "demo.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (shared / "demo").exists():
            folder = tmp_path_factory.mktemp("demo")
            result = make_demo(folder).snakemake()
            assert result.returncode == 0, result.stdout
            folder.rename(shared / "demo")
    return Run(shared / "demo")
