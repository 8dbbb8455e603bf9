"""A run of the workflow in a working directory of its own, as a user starts it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
COLUMNS = (
    "patient",
    "scan",
    "tracer",
    "timepoint",
    "dicom",
    "lesions",
    "organs",
    "injected_mbq",
    "injected_at",
    "weight_kg",
)
TRACERS = {
    "FDG": {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"},
    "DOTATATE": {"radiopharmaceutical": "[177Lu]DOTATATE", "nuclide": "177Lu", "quantity": "activity",
                 "therapy_nuclide": "90Y"},
}  # fmt: skip
DEMO_PATIENTS = ("P003", "P005", "P007")


def wait_until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What a condition gives when it first gives something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.01)
    return found


@dataclass(frozen=True)
class Run:
    """A working directory outside the repository, as a user has it."""

    folder: Path

    def write(self, scans: Iterable[Mapping[str, object]], **config: object) -> None:
        """Write scans.tsv and config.yaml."""
        rows = ["\t".join(COLUMNS)]
        rows += ["\t".join(str(scan.get(column, "NA")) for column in COLUMNS) for scan in scans]
        (self.folder / "scans.tsv").write_text("\n".join(rows) + "\n")
        full = {
            "scans": "scans.tsv",
            "tracers": TRACERS,
            "reference_tracer": "FDG",
            "organs": {"backend": "none"},
            **config,
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(full))

    def snakemake(self, *arguments: str, cores: int | None = 2) -> subprocess.CompletedProcess:
        """Run Snakemake as the README says; standard output and error together. Without cores a profile says them."""
        with self.start(*arguments, cores=cores) as process:
            output, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(self, *arguments: str, cores: int | None = 2) -> subprocess.Popen:
        """The same without waiting for its end, in a session of its own."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "-s",
            str(REPOSITORY / "Snakefile"),
            "--directory",
            str(self.folder),
        ]
        command += ["--configfile", str(self.folder / "config.yaml")]
        command += [*([] if cores is None else ["--cores", str(cores)]), *arguments]
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow" / "scripts")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            start_new_session=True,
        )

    def results(self, *parts: str) -> Path:
        """A path below results/."""
        return self.folder.joinpath("results", *parts)


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


def make_demo(folder: Path) -> Run:
    """What `make demo` reads, in a working directory of its own."""
    library = str(REPOSITORY / "workflow" / "scripts")
    command = [sys.executable, "-m", "theraflow.virtual", "--output", "data/virtual", "--patients", *DEMO_PATIENTS]
    subprocess.run([*command, "--cores", "2"], cwd=folder, env={**os.environ, "PYTHONPATH": library}, check=True)
    shutil.copytree(REPOSITORY / "config", folder / "config")
    config = (folder / "config" / "config.yaml").read_text()
    weights = REPOSITORY / "resources" / "miniature_weights"
    (folder / "config.yaml").write_text(config.replace("resources/miniature_weights", str(weights)))
    return Run(folder)
