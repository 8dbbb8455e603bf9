"""How long Snakemake plans, and with how much memory: `snakemake -n` for cohorts of several sizes.

    .venv/bin/python benchmarks/plan_cohort.py FOLDER [--patients 125 250 500 1000] [--scans 10]

Every patient has PET/CT with FDG and pentixafor at baseline and follow-up, and SPECT/CT for the rest. The DICOM files
are links to one small CT, PET and SPECT: planning reads of them what kind they are, and no more.
"""

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import yaml

from theraflow.virtual.writer import Header, Injection, write_ct, write_pet, write_spect

REPOSITORY = Path(__file__).resolve().parents[1]
PET = (("FDG", "baseline"), ("pentixafor", "baseline"), ("FDG", "followup"), ("pentixafor", "followup"))
START = datetime.datetime(2024, 1, 2, 10)


def main() -> None:
    """Make a cohort of each size and plan it, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--scans", type=int, default=10, help="of each patient")
    words = parser.parse_args()
    images = write_images(words.folder / "images")
    print("patients\tjobs\twall_s\tcpu_s\tpeak_mib")
    for patients in words.patients:
        work = words.folder / str(patients)
        write_cohort(work, images, patients, words.scans)
        print(patients, *plan(work), sep="\t", flush=True)


def write_images(folder: Path) -> dict[str, list[Path]]:
    """A CT with a PET, and with a SPECT: their files by quantity."""
    if not folder.exists():
        header = Header("P", "scan", "F", 60, 60.0, 165.0, START, "Study")
        image = sitk.GetImageFromArray(np.ones((2, 8, 8), np.float32))
        before = START - datetime.timedelta(hours=1)
        write_ct(image, folder / "ct", header)
        write_pet(image, folder / "suv", header, Injection("[18F]FDG", "18F", 300.0, before))
        write_spect(image, folder / "activity", header, Injection("[177Lu]pentixather", "177Lu", 200.0, before))
    first = {name: min((folder / name).iterdir()) for name in ("ct", "suv", "activity")}
    return {quantity: [first["ct"], first[quantity]] for quantity in ("suv", "activity")}


def write_cohort(work: Path, images: dict[str, list[Path]], patients: int, scans: int) -> None:
    """Configuration, sheet and DICOM folders."""
    work.mkdir(exist_ok=True)
    rows = ["patient\tscan\ttracer\ttimepoint\tdicom"]
    for patient in (f"P{number:04d}" for number in range(1, patients + 1)):
        for number in range(scans):
            tracer, timepoint = PET[number] if number < len(PET) else ("pentixather", "dosimetry")
            folder = work / "dicom" / patient / f"s{number}"
            rows.append(f"{patient}\ts{number}\t{tracer}\t{timepoint}\t{folder.relative_to(work)}")
            if not folder.exists():
                folder.mkdir(parents=True)
                for file in images["suv" if number < len(PET) else "activity"]:
                    os.link(file, folder / f"{file.parent.name}.dcm")
    (work / "scans.tsv").write_text("\n".join(rows) + "\n")
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    config = {key: value for key, value in config.items() if key not in ("patients", "cycles")}
    config["scans"] = "scans.tsv"
    config["organs"]["weights"] = str(REPOSITORY / config["organs"]["weights"])
    (work / "config.yaml").write_text(yaml.safe_dump(config))


def plan(work: Path) -> tuple[int, float, float, int]:
    """Jobs, seconds by the clock and of CPU, and MiB at most, of one dry run."""
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(work),
               "--configfile", str(work / "config.yaml"), "--cores", "2", "-n"]  # fmt: skip
    with (work / "plan.log").open("w") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    text = (work / "plan.log").read_text()
    if status:
        sys.exit(text[-2000:])
    total = next(line for line in reversed(text.splitlines()) if line.startswith("total"))
    return int(total.split()[1]), round(wall, 1), round(used.ru_utime + used.ru_stime, 1), used.ru_maxrss // 1024


if __name__ == "__main__":
    main()
