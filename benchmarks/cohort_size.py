"""How long the cohort's tables and figures take for 1,000 patients with ten lesions each, from their files.

    .venv/bin/python benchmarks/cohort_size.py FOLDER [--patients 1000] [--lesions 10]

Every patient has FDG and pentixafor at baseline and FDG after therapy, doses of one cycle, and survival.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from theraflow.cohort import summarise_cohort
from theraflow.cohort.figures import draw_cohort, write_drawings
from theraflow.cohort.manuscript import write_manuscript_tables
from theraflow.cohort.summary import HEADERS
from theraflow.files import write_json
from theraflow.images import sidecar_path
from theraflow.layout import PatientFolder, Scan
from theraflow.tables import write_table

SETTINGS = {
    "tracers": {
        "FDG": {"quantity": "suv", "radiopharmaceutical": "[18F]FDG", "nuclide": "18F"},
        "pentixafor": {"quantity": "suv", "radiopharmaceutical": "[68Ga]pentixafor", "nuclide": "68Ga"},
    }
}
SCANS = (("fdg", "FDG", "baseline"), ("pentixafor", "pentixafor", "baseline"), ("fdg2", "FDG", "followup"))


def main() -> None:
    """Write the patients' tables and time what is made of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--lesions", type=int, default=10)
    words = parser.parse_args()
    random = np.random.default_rng(8)
    results, sheet = words.folder / "results", words.folder / "patients.tsv"
    names = [f"P{number:04d}" for number in range(1, words.patients + 1)]
    folders = [PatientFolder(results, name) for name in names]
    for folder in folders:
        write_patient(folder, words.lesions, random)
    cycles = write_sheet(sheet, names, random)
    scans = {name: [Scan(name, scan, tracer, time, "", "suv") for scan, tracer, time in SCANS] for name in names}
    cohort, tracers = results / "cohort", dict.fromkeys(SETTINGS["tracers"], names)
    timed("tables and statistics", lambda: summarise_cohort(folders, cohort, SETTINGS, sheet, cycles))
    timed(
        "manuscript tables",
        lambda: write_manuscript_tables(folders, cohort, cohort / "tables", tracers, cycles, sheet),
    )
    timed(
        "figures",
        lambda: write_drawings(
            draw_cohort(results, scans, SETTINGS, {"cycles": cycles, "events": []}), cohort / "figures"
        ),
    )
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def timed(what: str, work: Callable[[], None]) -> None:
    """Run, and print wall and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{what}: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU", flush=True)


def write_patient(folder: PatientFolder, lesions: int, random: np.random.Generator) -> None:
    """Tables of one patient whose lesions resemble each other."""
    own = random.normal()
    uptake = np.exp(1.6 + 0.4 * own + 0.4 * random.normal(size=lesions))
    rows = []
    for scan, tracer, time_point in SCANS:
        image = folder.emission(Scan(folder.patient, scan, tracer, time_point, "", "suv"))
        write_json({"acquired_at": "2024-01-02T10:00:00"}, sidecar_path(image))
        seen = uptake * np.exp(0.3 * random.normal(size=lesions) - (0.2 if time_point == "followup" else 0.0))
        for number, suv in enumerate(seen, start=1):
            rows.append({
                **dict.fromkeys(HEADERS["lesions"], 1.0), "patient": folder.patient, "scan": scan, "tracer": tracer,
                "timepoint": time_point, "lesion": f"L{number:02d}", "label": number, "site": "peritoneum",
                "suv_peak": suv, "suv_max": 1.2 * suv, "suv_mean": 0.7 * suv, "tbr": suv / 1.5,
                "background_region": "blood_pool", "positive": bool(random.random() < 0.95),
                "concordance": "concordant", "source": "reader", "registration": "good",
            })  # fmt: skip
    write_table(pd.DataFrame(rows), folder.table("lesions"), [*HEADERS["lesions"], "registration"])
    response = {"patient": folder.patient, "baseline": "fdg", "followup": "fdg2", "criterion": "PERCIST 1.0",
                "category": "SMD", "measure_baseline": 8.0, "measure_followup": 7.0, "change_percent": -12.5,
                "new_lesions": 0}  # fmt: skip
    write_table(pd.DataFrame([response]), folder.table("response"), HEADERS["response"])


def write_sheet(path: Path, names: list[str], random: np.random.Generator) -> list[dict]:
    """patients.tsv; the rows of cycles.tsv."""
    count = len(names)
    days = random.integers(30, 900, count)
    table = pd.DataFrame({
        "patient": names, "age_y": random.integers(18, 80, count), "pfs_days": days,
        "pfs_event": random.integers(0, 2, count), "os_days": days + random.integers(1, 400, count),
        "os_event": random.integers(0, 2, count),
    })  # fmt: skip
    write_table(table, path, list(table.columns))
    return [{"patient": name, "cycle": 1, "nuclide": "90Y", "activity_gbq": 6.6} for name in names]


if __name__ == "__main__":
    main()
