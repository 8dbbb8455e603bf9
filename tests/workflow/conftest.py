"""Whole runs of the workflow, each made once a session."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COLUMNS = ("patient", "scan", "tracer", "timepoint", "dicom", "lesions", "injected_mbq", "injected_at", "weight_kg")
TRACERS = {
    "FDG": {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"},
    "DOTATATE": {"radiopharmaceutical": "[177Lu]DOTATATE", "nuclide": "177Lu", "quantity": "activity",
                 "therapy_nuclide": "90Y"},
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A working directory outside the repository, as a user has it."""

    folder: Path

    def write(self, scans: Iterable[Mapping[str, object]], **config: object) -> None:
        """Write scans.tsv and config.yaml."""
        rows = ["\t".join(COLUMNS)]
        rows += ["\t".join(str(scan.get(column, "NA")) for column in COLUMNS) for scan in scans]
        (self.folder / "scans.tsv").write_text("\n".join(rows) + "\n")
        full = {"scans": "scans.tsv", "tracers": TRACERS, "reference_tracer": "FDG", "organs": {"backend": "none"}, **config}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(full))

    def snakemake(self, *arguments: str, cores: int = 2) -> subprocess.CompletedProcess:
        """Run Snakemake as the README says; standard output and error together."""
        command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(self.folder)]
        command += ["--configfile", str(self.folder / "config.yaml"), "--cores", str(cores), *arguments]
        environment = {**os.environ, "PYTHONPATH": ""}
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", check=False
        )

    def results(self, *parts: str) -> Path:
        """A path below results/."""
        return self.folder.joinpath("results", *parts)


def cases(folder: Path) -> list[dict[str, object]]:
    """Scan rows of the two real patients that live in the repository."""
    return [sarcoma(folder / "tests" / "data" / name) for name in ("STS_002", "STS_008")]


def sarcoma(folder: Path) -> dict[str, object]:
    """Scan row of one sarcoma patient: PET, CT, and the reader's outline on the PET."""
    outline = next((folder / "PET" / "mask").iterdir())
    return {"patient": folder.name, "scan": "fdg", "tracer": "FDG", "timepoint": "baseline", "dicom": folder, "lesions": outline}


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
