"""Write virtual patients: `python -m theraflow.virtual --output data/virtual --patients P003 P005 P007`."""

import argparse
import logging
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from theraflow.tables import write_table
from theraflow.virtual import truth
from theraflow.virtual.anatomy import Grid
from theraflow.virtual.cohort import ScanPlan, VirtualPatient, cohort, place_lesions
from theraflow.virtual.render import (
    FWHM_MM,
    Scene,
    activity,
    blurred,
    emission_grid,
    emission_of,
    hounsfield,
    lesion_uptake,
    noisy,
    scene,
    uptake_table,
)
from theraflow.virtual.writer import (
    Header,
    Injection,
    write_ct,
    write_pet,
    write_rtstruct,
    write_seg,
    write_spect,
)

TRACERS = {
    "FDG": ("[18F]FDG", "18F"),
    "pentixafor": ("[68Ga]pentixafor", "68Ga"),
    "pentixather": ("[177Lu]pentixather", "177Lu"),
}
# Noise of the CT in HU: diagnostic, low dose, and that of a SPECT/CT.
CT_NOISE_HU = {"FDG": 12.0, "pentixafor": 16.0, "pentixather": 20.0}
NOTHING = "nothing.nii.gz"  # the file of a reader who saw no lesion
SCAN_COLUMNS = ("patient", "scan", "tracer", "timepoint", "dicom", "lesions")
PATIENT_COLUMNS = ("patient", "sex", "age_y", "stage", "pfs_days", "pfs_event", "os_days", "os_event")
CYCLE_COLUMNS = ("patient", "cycle", "date", "nuclide", "activity_gbq")


def annotation_name(patient: VirtualPatient, plan: ScanPlan) -> str | None:
    """The reader's file of a scan: RTSTRUCT on FDG, SEG on pentixafor, an empty label map where no lesion is positive.

    None on SPECT, which no reader has annotated.
    """
    if emission_of(plan) != "pet":
        return None
    if all(lesion.planned_peak(plan.tracer, plan.timepoint) is None for lesion in patient.lesions):
        return NOTHING
    return {"FDG": "rtstruct.dcm", "pentixafor": "seg.dcm"}[plan.tracer]


def write_patient(patient: VirtualPatient, output: Path | str) -> None:
    """Write all scans of a patient and the truth about them; nothing where the patient is already there.

    `<output>/<patient>` appears last and at once, so that it is whole wherever it exists.
    """
    final = Path(output) / patient.patient
    if final.is_dir():
        logging.info("%s is already there", patient.patient)
        return
    # One thread: patients are what runs in parallel, and sums then come out the same on any number of cores.
    with threadpool_limits(1):
        _write_patient(patient, Path(output))
    logging.info("%s written to %s", patient.patient, final)


def _write_patient(patient: VirtualPatient, output: Path) -> None:
    final, final_truth = output / patient.patient, output / "truth" / patient.patient
    work = output / f".{patient.patient}.partial"
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(final_truth, ignore_errors=True)
    (work / "scans").mkdir(parents=True)
    anatomy = patient.anatomy()
    centres = place_lesions(anatomy, patient.lesions, patient.random(8))
    points, labels = truth.landmarks(patient, anatomy)
    lesion_rows, activity_rows, landmark_rows = [], [], []
    for plan in patient.scans:
        scan = scene(patient, anatomy, centres, plan)
        table = uptake_table(plan, patient, anatomy.weight_kg)
        uptakes = {
            lesion.name: lesion_uptake(scan, lesion, table) for lesion in patient.lesions if lesion.name in scan.lesions
        }
        image = activity(scan, table, uptakes)
        write_scan(scan, image, work / "scans" / plan.scan)
        truth.write_organs(scan, work / "truth" / "truth_organs")
        lesion_rows += truth.lesion_rows(scan, image, uptakes)
        landmark_rows += truth.landmark_rows(scan, points, labels)
        if scan.emission == "spect":
            activity_rows += truth.activity_rows(scan, image, uptakes)
    tables = {
        "truth_lesions": (lesion_rows, truth.LESION_COLUMNS),
        "truth_landmarks": (landmark_rows, truth.LANDMARK_COLUMNS),
    }
    if activity_rows:
        tables["truth_activity"] = (activity_rows, truth.ACTIVITY_COLUMNS)
        tables["truth_doses"] = (truth.dose_rows(patient, anatomy, centres), truth.DOSE_COLUMNS)
    truth.write_tables(tables, work / "truth")
    final_truth.parent.mkdir(parents=True, exist_ok=True)
    (work / "truth").replace(final_truth)
    (work / "scans").replace(final)
    work.rmdir()


def write_scan(scan: Scene, image: np.ndarray, folder: Path) -> None:
    """Write CT, emission and annotation of one scan below `folder`.

    Args:
        scan: the scene.
        image: noise-free, unblurred uptake on the CT grid: SUV, or Bq/mL for SPECT.
        folder: gets CT/, PET/ or SPECT/, and annotation/.
    """
    patient, plan, anatomy = scan.patient, scan.plan, scan.anatomy
    rng = patient.random(9, plan.number)
    radiopharmaceutical, nuclide_name = TRACERS[plan.tracer]
    injection = Injection(radiopharmaceutical, nuclide_name, plan.injected_mbq, plan.injected_at)
    header = Header(
        patient.patient, plan.scan, patient.sex, patient.age_y, anatomy.weight_kg, anatomy.height_cm,
        plan.started_at, f"{radiopharmaceutical} {scan.emission.upper()}/CT",
    )  # fmt: skip
    hu = hounsfield(
        scan.labels, scan.grid, list(scan.lesions.values()), rng,
        portal_venous=plan.tracer == "FDG", noise_hu=CT_NOISE_HU[plan.tracer],
    )  # fmt: skip
    write_ct(scan.grid.image(hu), folder / "CT", header)
    grid = emission_grid(scan.grid, scan.emission)
    clean = blurred(image, scan.grid, grid, FWHM_MM[scan.emission])
    if scan.emission == "spect":
        # The noise of counts: the level is that of the liver one day after the injection.
        level = 30.0 * plan.injected_mbq
        spect = noisy(clean, grid, rng, at=level, variation=0.12, correlation_mm=11.0)
        write_spect(grid.image(spect), folder / "SPECT", header, injection)
        return
    at, variation = {"FDG": (2.2, 0.06), "pentixafor": (1.7, 0.07)}[plan.tracer]
    suv = noisy(clean, grid, rng, at=at, variation=variation, correlation_mm=4.5)
    left = plan.injected_mbq * 1e6 * injection.remaining(plan.started_at)
    write_pet(grid.image(suv * np.float32(left / (anatomy.weight_kg * 1000.0))), folder / "PET", header, injection)
    masks = {
        lesion.name: _on_grid(scan, lesion.name, grid)
        for lesion in patient.lesions
        if lesion.name in scan.lesions and truth.positive(lesion, scan)
    }
    name = annotation_name(patient, plan)
    path = folder / "annotation" / name
    if name == NOTHING:
        path.parent.mkdir()
        sitk.WriteImage(grid.image(np.zeros(grid.size[::-1], np.uint8)), str(path), useCompression=True)
    else:
        write = {"rtstruct.dcm": write_rtstruct, "seg.dcm": write_seg}[name]
        write(masks, folder / "PET", path, header)


def _on_grid(scan: Scene, lesion: str, grid: Grid) -> np.ndarray:
    mask = np.zeros(grid.size[::-1], np.float32)
    box, share = scan.lesions[lesion].coverage(grid)
    mask[box] = share
    return mask


def write_sheets(patients: list[VirtualPatient], output: Path | str, folder: Path | str) -> None:
    """Write `scans.tsv`, `patients.tsv` and `cycles.tsv` of these patients; paths begin as `output` does."""
    scans, people, cycles = [], [], []
    for patient in patients:
        for plan in patient.scans:
            dicom = Path(output) / patient.patient / plan.scan
            name = annotation_name(patient, plan)
            scans.append((patient.patient, plan.scan, plan.tracer, plan.timepoint, str(dicom),
                          str(dicom / "annotation" / name) if name else None))  # fmt: skip
        died = 1 if patient.pfs_days else None
        people.append((patient.patient, patient.sex, patient.age_y, patient.stage,
                       patient.pfs_days, died, patient.os_days, died))  # fmt: skip
        cycles += [
            (patient.patient, number, date.isoformat(), "90Y", gbq)
            for number, (date, gbq) in enumerate(patient.cycles, start=1)
        ]
    folder = Path(folder)
    write_table(pd.DataFrame(scans, columns=SCAN_COLUMNS), folder / "scans.tsv", SCAN_COLUMNS)
    survival = dict.fromkeys(PATIENT_COLUMNS[4:], "Int64")  # whole numbers also where some are missing
    write_table(
        pd.DataFrame(people, columns=PATIENT_COLUMNS).astype(survival),
        folder / "patients.tsv",
        PATIENT_COLUMNS,
    )
    write_table(pd.DataFrame(cycles, columns=CYCLE_COLUMNS), folder / "cycles.tsv", CYCLE_COLUMNS)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    names = [patient.patient for patient in cohort()]
    parser = argparse.ArgumentParser(prog="python -m theraflow.virtual", description="Write virtual patients as DICOM.")
    parser.add_argument("--output", required=True, help="folder of the DICOM and of truth/")
    parser.add_argument(
        "--patients", nargs="+", choices=names, default=names, metavar="P001", help="default: all eight"
    )
    parser.add_argument("--sheets", help="folder that gets scans.tsv, patients.tsv and cycles.tsv of these patients")
    parser.add_argument("--cores", type=int, default=1, help="patients written at the same time")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it reports every attribute that it copies
    patients = [patient for patient in cohort() if patient.patient in options.patients]
    if options.sheets:
        write_sheets(patients, options.output, options.sheets)
    write = partial(write_patient, output=options.output)
    if options.cores > 1:
        with ProcessPoolExecutor(options.cores) as pool:
            list(pool.map(write, patients))
    else:
        for patient in patients:
            write(patient)


if __name__ == "__main__":
    main()
