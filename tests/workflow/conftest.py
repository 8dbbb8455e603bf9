"""Whole runs of the workflow, each made once a session."""

from pathlib import Path

import pytest

from whole_run import REPOSITORY, Run


def cases(folder: Path) -> list[dict[str, object]]:
    """Scan rows of the two real patients that live in the repository."""
    return [sarcoma(folder / "tests" / "data" / name) for name in ("STS_002", "STS_008")]


def sarcoma(folder: Path) -> dict[str, object]:
    """Scan row of one sarcoma patient: PET, CT, and the reader's outline on the PET."""
    outline = next((folder / "PET" / "mask").iterdir())
    return {
        "patient": folder.name,
        "scan": "fdg",
        "tracer": "FDG",
        "timepoint": "baseline",
        "dicom": folder,
        "lesions": outline,
    }


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Make a new working directory."""
    return lambda name: Run(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def sarcoma_row():
    """How to name a sarcoma patient in the sheet."""
    return sarcoma


@pytest.fixture(scope="session")
def repository_cases():
    """Scan rows of the two real patients in tests/data."""
    return cases(REPOSITORY)
