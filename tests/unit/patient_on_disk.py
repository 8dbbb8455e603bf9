"""Writes small synthetic files as the stages before `cohort` and `report` leave them of a patient."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from alignment_on_disk import write_alignment

from theraflow.cohort.joined import HEADERS
from theraflow.dosimetry.curves.kinetics import written
from theraflow.images import from_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import measure_organs
from theraflow.tables import write_table

TRACERS = {
    "FDG": {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"},
    "pentixafor": {"radiopharmaceutical": "[68Ga]pentixafor", "nuclide": "68Ga", "quantity": "suv"},
    "pentixather": {
        "radiopharmaceutical": "[177Lu]pentixather", "nuclide": "177Lu", "quantity": "activity",
        "therapy_nuclide": "90Y",
    },
}  # fmt: skip
SETTINGS = {"tracers": TRACERS, "reference_tracer": "FDG"}
# In place of NiiVue, so that pages are small and nothing is fetched.
VIEWER = Path(__file__).parent / "stand_in_viewer" / "script" / "niivue.umd.js"


@dataclass(frozen=True)
class Lesion:
    """A sphere: where (LPS, mm), how large, and its uptake by tracer."""

    name: str
    site: str
    centre: tuple[float, float, float]
    radius_mm: float
    suv: Mapping[str, float]


# Left in the patient is positive x. L1 lies in the liver (right), L2 in the left groin, L3 in the neck.
LESIONS = (
    Lesion("L1", "liver", (-70, 5, 60), 14, {"FDG": 11.0, "pentixafor": 6.0}),
    Lesion("L2", "peritoneum", (60, -20, -150), 18, {"FDG": 7.5, "pentixafor": 9.0}),
    Lesion("L3", "lymph node", (30, 0, 290), 9, {"FDG": 5.0, "pentixafor": 1.0}),
    Lesion("L4", "peritoneum", (-40, -50, -60), 12, {"FDG": 4.4, "pentixafor": 3.9}),
)
# Organ: TotalSegmentator id, centre, semi-axes (mm), HU, SUV of FDG, SUV of pentixafor.
ORGANS = {
    "lung_lower_lobe_right": (12, (-75, 10, 170), (50, 70, 95), -800, 0.5, 0.5),
    "lung_lower_lobe_left": (11, (75, 10, 170), (45, 70, 95), -800, 0.5, 0.5),
    "heart": (51, (20, -25, 130), (50, 40, 45), 40, 3.0, 1.8),
    "liver": (5, (-60, 0, 45), (75, 70, 65), 60, 2.3, 2.0),
    "spleen": (1, (95, 40, 45), (28, 38, 50), 50, 2.0, 5.5),
    "kidney_right": (2, (-55, 55, -40), (28, 26, 52), 35, 3.5, 7.0),
    "kidney_left": (3, (55, 55, -25), (28, 26, 52), 35, 3.5, 7.0),
    "vertebrae_L3": (29, (0, 70, 20), (20, 22, 270), 300, 1.6, 1.5),
    "urinary_bladder": (21, (0, -10, -215), (38, 32, 30), 5, 14.0, 12.0),
    "brain": (90, (0, -5, 390), (62, 75, 55), 38, 9.0, 0.4),
}


def scans(patient: str = "P001") -> list[Scan]:
    """Baseline with two tracers, three dosimetry scans, follow-up with FDG. The folders do not exist."""
    suv = [("fdg0", "FDG", "baseline"), ("cxcr4", "pentixafor", "baseline")]
    activity = [(f"lu{i}", "pentixather", "dosimetry") for i in (1, 2, 3)]
    later = [("fdg1", "FDG", "followup")]
    return [
        Scan(patient, scan, tracer, timepoint, "/hospital/Mustermann^Max/export", TRACERS[tracer]["quantity"])
        for scan, tracer, timepoint in suv + activity + later
    ]


def grid(spacing: tuple[float, float, float], size: tuple[int, int, int]) -> sitk.Image:
    """An empty image along LPS, centred on (0, 0, 80), sizes x, y, z."""
    image = sitk.Image(list(size), sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin([-(n - 1) / 2 * s + shift for n, s, shift in zip(size, spacing, (0, 0, 80), strict=True)])
    return image


def points(image: sitk.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates x, y, z in mm of all voxels, each of shape z, y, x (broadcastable)."""
    x, y, z = (
        origin + spacing * np.arange(n)
        for origin, spacing, n in zip(image.GetOrigin(), image.GetSpacing(), image.GetSize(), strict=True)
    )
    return x[None, None, :], y[None, :, None], z[:, None, None]


def inside(image: sitk.Image, centre: tuple[float, ...], axes: tuple[float, ...]) -> np.ndarray:
    """Voxels of an ellipsoid, bool, shape z, y, x."""
    return sum(((p - c) / a) ** 2 for p, c, a in zip(points(image), centre, axes, strict=True)) <= 1


def body(image: sitk.Image) -> np.ndarray:
    """Trunk, neck and head."""
    x, y, z = points(image)
    trunk = ((x / 165) ** 4 + (y / 110) ** 4 + ((z + 10) / 290) ** 8) <= 1
    return trunk | inside(image, (0, 0, 390), (75, 92, 95)) | (inside(image, (0, 10, 290), (55, 55, 80)))


def write_ct(path: Path, image: sitk.Image) -> None:
    rng = np.random.default_rng(1)
    values = np.where(body(image), 20.0, -1000.0)
    for _, centre, axes, hu, *_ in ORGANS.values():
        values[inside(image, centre, axes)] = hu
    values = np.clip(values + rng.normal(0, 12, values.shape), -1024, 3000)
    sidecar = {
        "quantity": "HU",
        "unit": "HU",
        "series_instance_uid": "1.2.826.0.1.3680043.8.498.1",
        "flags": [],
    }
    write_image(from_array(values.astype(np.int16), image), path, sidecar)


def write_organs(path: Path, image: sitk.Image, miniature: bool) -> None:
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    for label, centre, axes, *_ in ORGANS.values():
        labels[inside(image, centre, axes)] = label
    sidecar = {
        "quantity": "organ label", "unit": "1", "task": "total", "device": "cpu",
        "model": "miniature" if miniature else "total_3mm", "miniature_model": miniature,
        "labels": {str(label): name for name, (label, *_) in ORGANS.items()},
    }  # fmt: skip
    write_image(from_array(labels, image), path, sidecar)


def write_pet(
    folder: PatientFolder,
    scan: Scan,
    image: sitk.Image,
    lesions: tuple[Lesion, ...],
    factor: float,
    flags: list[str],
) -> None:
    """The PET, and the lesions' labels on its grid."""
    rng = np.random.default_rng(2)
    column = 4 if scan.tracer == "FDG" else 5
    values = np.where(body(image), 0.7, 0.02)
    for organ in ORGANS.values():
        values[inside(image, organ[1], organ[2])] = organ[column]
    labels = np.zeros(values.shape, np.uint8)
    for label, lesion in enumerate(lesions, 1):
        region = inside(image, lesion.centre, (lesion.radius_mm,) * 3)
        values[region] = lesion.suv[scan.tracer] * factor
        labels[region] = label
    blurred = sitk.SmoothingRecursiveGaussian(from_array(values.astype(np.float32), image), 2.5)
    values = np.maximum(sitk.GetArrayFromImage(blurred) * rng.normal(1, 0.07, values.shape), 0)
    nuclide = TRACERS[scan.tracer]["nuclide"]
    sidecar = {
        "quantity": "SUVbw", "unit": "g/mL", "patient": scan.patient, "scan": scan.scan,
        "tracer": scan.tracer, "timepoint": scan.timepoint,
        "series_instance_uid": f"1.2.826.0.1.3680043.8.498.{len(scan.scan)}",
        "acquired_at": "2019-03-04T10:15:00", "injected_at": "2019-03-04T09:14:00", "injected_mbq": 301.4,
        "nuclide": nuclide, "radiopharmaceutical": TRACERS[scan.tracer]["radiopharmaceutical"],
        "weight_kg": 71.0, "time_after_injection_h": 1.0167, "virtual_patient": True, "flags": flags,
        "overrides": ["weight_kg"] if flags else [],
        "suv": {"factor": 2.4e-4, "rule": "BQML, START, series time", "decay_correction": "START",
                "reference_time": "2019-03-04T10:15:00"},
    }  # fmt: skip
    write_image(from_array(values.astype(np.float32), image), folder.emission(scan), sidecar)
    write_image(from_array(labels, image), folder.lesion_map(scan.scan), {"quantity": "lesion label", "unit": "1"})


def lesion_rows(patient: str, scan: Scan, lesions: tuple[Lesion, ...], factor: float) -> list[dict[str, object]]:
    rows = []
    for label, lesion in enumerate(lesions, 1):
        suv = lesion.suv[scan.tracer] * factor
        seen = {tracer: value > 1.5 for tracer, value in lesion.suv.items()}
        word = "concordant" if all(seen.values()) else f"{next(t for t in seen if seen[t])}-only"
        rows.append(
            dict(zip(HEADERS["lesions"], [
                patient, scan.scan, scan.tracer, scan.timepoint, lesion.name, label, lesion.site,
                4 / 3 * np.pi * lesion.radius_mm**3 / 1000, suv * 1.21, suv * 0.83, suv, suv / 1.37,
                "blood_pool", 1.37, suv * 8.1, suv > 1.5, word, *lesion.centre,
                2.0 * lesion.radius_mm, 1.7 * lesion.radius_mm, "reader",
            ], strict=True))
        )  # fmt: skip
    return rows


DOSE_REGIONS = (
    ("kidney_left", "organ", 160.0, 41.0, 5.1), ("kidney_right", "organ", 152.0, 42.5, 4.8),
    ("liver", "organ", 1650.0, 109.0, 21.0), ("spleen", "organ", 170.0, 86.0, 3.9),
    ("whole_body", "whole_body", 71000.0, 60.0, 170.0),
    ("L1", "lesion", 11.5, 70.0, 0.8), ("L2", "lesion", 24.4, 62.0, 2.1),
)  # fmt: skip


def write_dosimetry(folder: PatientFolder, activity: list[Scan]) -> None:
    """Curves, doses, one cycle and histograms of `DOSE_REGIONS`, and the SPECT images."""
    curves, doses, cycles, dvh = [], [], [], []
    rng = np.random.default_rng(3)
    patient = folder.patient
    for region, kind, mass, half_life, start in DOSE_REGIONS:
        for scan, time in zip(activity, (4.0, 24.0, 96.0), strict=True):
            value = start * 0.5 ** (time / half_life) * rng.normal(1, 0.03)
            curves.append([patient, region, kind, scan.scan, time, value, 0.07 * value, mass / 1.05, mass])
        for nuclide, coefficient, tia, t_eff in (
            ("177Lu", 85 * start / mass, start * half_life / 120, half_life),
            ("90Y", 350 * start / mass, start * 0.6, half_life * 0.6),
        ):
            method = "weighted fit of 3 points"
            if kind == "whole_body":
                coefficient, method = np.nan, f"{method}; no dose: the mass in the SPECT is not known"
            numbers = [t_eff, tia, coefficient, coefficient * 0.11]
            curve = written([start], [np.log(2.0) / t_eff])
            doses.append([patient, region, kind, nuclide, mass, 3, "mono-exponential", *numbers, method, curve])
            if nuclide == "90Y" and kind != "whole_body":
                cycles.append([patient, 1, region, nuclide, 6.6, coefficient * 6.6, coefficient * 0.73, np.nan])
                dvh += [[patient, region, nuclide, coefficient * (1.5 - percent / 100), percent]
                        for percent in range(0, 101, 2)]  # fmt: skip
    tables = {
        "curves": (curves, "patient region kind scan time_h activity_mbq sd_mbq volume_ml mass_g"),
        "doses": (doses, " ".join([*HEADERS["doses"], "exponentials"])),
        "cycles": (cycles, "patient cycle region nuclide activity_gbq dose_gy sd_gy bed_gy"),
        "dvh": (dvh, "patient region nuclide dose_gy_per_gbq volume_percent"),
    }
    for name, (rows, columns) in tables.items():
        write_table(pd.DataFrame(rows, columns=columns.split()), folder.table(name), columns.split())
    for scan, time in zip(activity, (4.0, 24.0, 96.0), strict=True):
        image = grid((16, 16, 20), (12, 10, 30))
        sidecar = {
            "quantity": "activity concentration", "unit": "Bq/mL", "nuclide": "177Lu", "injected_mbq": 180.2,
            "time_after_injection_h": time, "suv": None, "flags": [], "overrides": [],
        }  # fmt: skip
        write_image(from_array(body(image).astype(np.float32), image), folder.emission(scan), sidecar)


def write_patient(results: Path, patient: str = "P001", *, fine: bool = False, miniature: bool = True,
                  dosimetry: bool = True) -> tuple[PatientFolder, list[Scan]]:  # fmt: skip
    """A patient with all there can be: CT, organs, registration, lesions, dosimetry, response.

    Args:
        results: the results folder.
        patient: identifier.
        fine: voxels as in a real scan, for looking at the report; else coarse, for tests.
        miniature: organs by the miniature model.
        dosimetry: with the dosimetry scans and tables.
    """
    folder = PatientFolder(results, patient)
    listed = [scan for scan in scans(patient) if dosimetry or scan.quantity == "suv"]
    pet_grid = grid((4, 4, 4), (100, 72, 210)) if fine else grid((10, 10, 10), (40, 30, 84))
    ct_grid = grid((1.6, 1.6, 4), (240, 160, 210)) if fine else grid((8, 8, 10), (48, 32, 84))
    rows = []
    for scan in listed:
        write_alignment(folder, scan.scan, verdict="good" if scan.quantity == "suv" else "no CT")
        if scan.quantity == "suv":
            factor = 0.6 if scan.timepoint == "followup" else 1.0
            flags = ["Series time and acquisition time differ by 41 s."] if scan.scan == "cxcr4" else []
            write_pet(folder, scan, pet_grid, LESIONS, factor, flags)
            rows += lesion_rows(patient, scan, LESIONS, factor)
            write_ct(folder.ct(scan.scan), ct_grid)
            organs = folder.organs(scan.scan)
            write_organs(organs, ct_grid, miniature)
            measure_organs(folder.ct(scan.scan), organs, folder.organ_table(scan.scan), patient, scan.scan)
    write_table(pd.DataFrame(rows), folder.table("lesions"), HEADERS["lesions"])
    if dosimetry:
        write_dosimetry(folder, [scan for scan in listed if scan.quantity == "activity"])
    response = [
        [patient, "fdg0", "fdg1", "PERCIST 1.0", "PMR", 11.0, 6.6, -40.0, 0],
        [patient, "fdg0", "fdg1", "RECIST 1.1", "SD", 84.0, 80.0, -4.8, 0],
    ]
    write_table(pd.DataFrame(response, columns=HEADERS["response"]), folder.table("response"), HEADERS["response"])
    return folder, listed


def write_bare_patient(results: Path, patient: str = "P002") -> tuple[PatientFolder, list[Scan]]:
    """One PET without CT, no lesion, nothing else."""
    folder = PatientFolder(results, patient)
    scan = replace(scans(patient)[0], scan="only")
    write_pet(folder, scan, grid((12, 12, 12), (34, 25, 70)), (), 1.0, [])
    write_alignment(folder, scan.scan, verdict="no CT")
    write_table(pd.DataFrame(columns=HEADERS["lesions"]), folder.table("lesions"), HEADERS["lesions"])
    return folder, [scan]


def change_sidecar(path: Path, **changes: object) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
