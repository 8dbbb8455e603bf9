"""What is true of a virtual patient: lesions, organs, activities, doses, and where every point of the body
lies.

Everything here is computed from the plan and the noise-free scene, never from the DICOM and never with the
stages whose results it judges.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from theraflow.images import write_image
from theraflow.tables import write_table
from theraflow.virtual.anatomy import AIR, COUCH, FAT, Anatomy, Grid
from theraflow.virtual.cohort import Lesion, VirtualPatient
from theraflow.virtual.kinetics import (
    DENSITY_G_PER_ML,
    dose_y90,
    effective_half_life_y90_h,
    residence_h,
    self_dose_lu177,
)
from theraflow.virtual.render import (
    FWHM_MM,
    Ellipsoid,
    Scene,
    lesion_concentration,
    peak,
    pentixather_kinetics,
)

LESION_COLUMNS = (
    "patient", "scan", "tracer", "lesion", "site", "x_mm", "y_mm", "z_mm", "diameter_mm", "volume_ml",
    "suv_true", "suv_peak_blurred", "bq_per_ml_true", "positive",
)  # fmt: skip
ACTIVITY_COLUMNS = ("patient", "scan", "region", "kind", "time_h", "activity_mbq", "volume_ml")
DOSE_COLUMNS = (
    "patient", "region", "kind", "nuclide", "mass_g", "t_eff_h", "tia_h", "dose_gy_per_gbq",
    "dose_total_gy_per_gbq",
)  # fmt: skip
LANDMARK_COLUMNS = ("patient", "scan", "landmark", "label", "x_mm", "y_mm", "z_mm")

ORGANS = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5}
LANDMARKS = 300


def lesion_rows(scan: Scene, image: np.ndarray, uptakes: Mapping[str, float]) -> list[dict]:
    """Rows of `truth_lesions.tsv` of one scan.

    Args:
        scan: the scene.
        image: noise-free, unblurred uptake on the CT grid.
        uptakes: of every lesion, in the unit of the image.
    """
    rows = []
    pet = scan.emission == "pet"
    for lesion in scan.patient.lesions:
        if lesion.name not in scan.lesions:
            continue
        where = scan.lesions[lesion.name]
        rows.append({
            "patient": scan.patient.patient, "scan": scan.plan.scan, "tracer": scan.plan.tracer,
            "lesion": lesion.name, "site": lesion.site,
            **dict(zip(("x_mm", "y_mm", "z_mm"), map(float, where.centre), strict=True)),
            "diameter_mm": 2 * float(max(where.radii_mm)), "volume_ml": where.volume_ml,
            "suv_true": uptakes[lesion.name] if pet else None,
            "suv_peak_blurred": peak(image, scan.grid, where, FWHM_MM["pet"]) if pet else None,
            "bq_per_ml_true": None if pet else uptakes[lesion.name],
            "positive": positive(lesion, scan) if pet else None,
        })  # fmt: skip
    return rows


def positive(lesion: Lesion, scan: Scene) -> bool:
    """Whether the lesion takes up the tracer of a PET scan above its surroundings."""
    return lesion.planned_peak(scan.plan.tracer, scan.plan.timepoint) is not None


def activity_rows(scan: Scene, image: np.ndarray, uptakes: Mapping[str, float]) -> list[dict]:
    """Rows of `truth_activity.tsv` of one SPECT scan: activity at acquisition of organs (without lesions) and
    lesions.

    Args:
        scan: the scene.
        image: noise-free, unblurred activity concentration on the CT grid in Bq/mL.
        uptakes: of every lesion in Bq/mL.
    """
    voxel_ml = float(np.prod(scan.grid.spacing)) / 1000.0
    free = np.ones(image.shape, np.float32)
    for where in scan.lesions.values():
        box, share = where.coverage(scan.grid)
        free[box] -= share
    head = {"patient": scan.patient.patient, "scan": scan.plan.scan, "time_h": scan.plan.hours}
    total = float(image.sum(dtype=float)) * voxel_ml
    body = float(((scan.labels != AIR) & (scan.labels != COUCH)).sum()) * voxel_ml
    rows = [{**head, "region": "whole_body", "kind": "whole_body", "activity_mbq": total / 1e6, "volume_ml": body}]
    for name, label in ORGANS.items():
        inside = scan.labels == label
        volume = float(free[inside].sum(dtype=float)) * voxel_ml
        tissue = inside & (free >= 0.999)
        level = float(image[tissue].mean())  # uniform
        rows.append(
            {
                **head,
                "region": name,
                "kind": "organ",
                "activity_mbq": level * volume / 1e6,
                "volume_ml": volume,
            }
        )
    for name, where in scan.lesions.items():
        volume = where.volume_ml
        mbq = uptakes[name] * volume / 1e6
        rows.append({**head, "region": name, "kind": "lesion", "activity_mbq": mbq, "volume_ml": volume})
    return rows


def dose_rows(
    patient: VirtualPatient,
    anatomy: Anatomy,
    centres: Mapping[str, np.ndarray],
    *,
    spacing_mm: float = 2.5,
    walks: int = 40000,
) -> list[dict]:
    """Rows of `truth_doses.tsv`: organs (without the lesions in them) and baseline lesions, 177Lu and 90Y.

    `dose_gy_per_gbq` is the self dose; `dose_total_gy_per_gbq` (90Y) also counts what the neighbourhood
    gives.

    Args:
        patient: with kinetics planned for the lesions.
        anatomy: the patient's body.
        centres: of the lesions in the neutral body.
        spacing_mm: of the label map that is walked in.
        walks: Monte Carlo histories per region.
    """
    grid = Grid.covering(*anatomy.bounding_box(), (spacing_mm,) * 3)
    labels = anatomy.labels(grid)
    lesions = [lesion for lesion in patient.lesions if lesion.t_eff_h]
    shapes = [Ellipsoid(centres[lesion.name], np.array(lesion.radii_mm), lesion.axes) for lesion in lesions]
    concentration, t_eff = pentixather_kinetics(patient, anatomy.weight_kg)
    # One list of regions: the 256 labels, and the lesions behind them.
    concentration = np.concatenate([concentration, [lesion_concentration(lesion) for lesion in lesions]])
    t_eff = np.concatenate([t_eff, [lesion.t_eff_h for lesion in lesions]])
    t_eff_y90 = np.array([effective_half_life_y90_h(hours) for hours in t_eff])
    per_ml_y90 = concentration * t_eff_y90 / math.log(2)

    def region(points: np.ndarray) -> np.ndarray:
        index = np.rint((points - grid.origin) / grid.spacing).astype(int)
        within = ((index >= 0) & (index < grid.size)).all(axis=1)
        found = np.zeros(len(points), int)
        x, y, z = index[within].T
        found[within] = labels[z, y, x]
        for number, shape in enumerate(shapes):
            found[shape.contains(points)] = 256 + number
        return found

    rng = patient.random(6)
    rows = []
    targets = [(name, "organ", (label,)) for name, label in ORGANS.items()]
    targets += [(lesion.name, "lesion", (256 + number,)) for number, lesion in enumerate(lesions)]
    for name, kind, (target,) in targets:
        if kind == "organ":
            voxels = np.argwhere(labels == target)[:, ::-1]
            jitter = rng.uniform(-0.5, 0.5, (walks, 3))
            points = grid.origin + (voxels[rng.integers(0, len(voxels), walks)] + jitter) * grid.spacing
            inside = region(points) == target
            volume_ml = len(voxels) * spacing_mm**3 / 1000.0 * inside.mean()
            points = points[inside]
        else:
            shape = shapes[target - 256]
            points = shape.centre + (_in_ball(walks, rng) * shape.radii_mm) @ shape.axes.T
            volume_ml = shape.volume_ml
        mass = volume_ml * DENSITY_G_PER_ML
        only = np.where(np.arange(len(per_ml_y90)) == target, per_ml_y90, 0.0)
        self_dose, _ = dose_y90(points, lambda p, only=only: only[region(p)], rng)
        total_dose, _ = dose_y90(points, lambda p: per_ml_y90[region(p)], rng)
        residence = {
            nuclide: residence_h(concentration[target], volume_ml, hours[target])
            for nuclide, hours in (("177Lu", t_eff), ("90Y", t_eff_y90))
        }
        head = {"patient": patient.patient, "region": name, "kind": kind, "mass_g": mass}
        rows.append({
            **head, "nuclide": "177Lu", "t_eff_h": t_eff[target], "tia_h": residence["177Lu"],
            "dose_gy_per_gbq": self_dose_lu177(residence["177Lu"], mass), "dose_total_gy_per_gbq": None,
        })  # fmt: skip
        rows.append({
            **head, "nuclide": "90Y", "t_eff_h": t_eff_y90[target], "tia_h": residence["90Y"],
            "dose_gy_per_gbq": self_dose, "dose_total_gy_per_gbq": total_dose,
        })  # fmt: skip
    return rows


def landmarks(patient: VirtualPatient, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Points in the body, fixed in its tissue: neutral coordinates (n, 3) in mm, and labels (n,).

    Half of them lie in organs and bones, half in fat and muscle.
    """
    grid = Grid.covering(*anatomy.bounding_box(), (4.0,) * 3)
    labels = anatomy.labels(grid)
    rng = patient.random(7)
    found = []
    for where in ((labels > AIR) & (labels < FAT), (labels >= FAT) & (labels != COUCH)):
        voxels = np.argwhere(where)
        found.append(voxels[rng.choice(len(voxels), LANDMARKS // 2, replace=False)])
    index = np.concatenate(found)
    return grid.origin + index[:, ::-1] * np.array(grid.spacing), labels[tuple(index.T)]


def landmark_rows(scan: Scene, points: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Rows of `truth_landmarks.tsv` of one scan: the same points of the body, in this scan's coordinates.

    A registration T from scan a to scan b has the error |T(point in a) - point in b|.
    """
    there = scan.pose.from_neutral(points)
    return [
        {"patient": scan.patient.patient, "scan": scan.plan.scan, "landmark": number, "label": int(label),
         "x_mm": float(x), "y_mm": float(y), "z_mm": float(z)}
        for number, ((x, y, z), label) in enumerate(zip(there, labels, strict=True))
    ]  # fmt: skip


def write_organs(scan: Scene, folder: Path | str) -> None:
    """The true organ labels (TotalSegmentator ids) on the CT grid; voxels of a lesion keep their organ."""
    labels = np.where(scan.labels < FAT, scan.labels, 0).astype(np.uint8)
    sidecar = {
        "quantity": "organ label",
        "unit": "TotalSegmentator total id",
        "patient": scan.patient.patient,
    }
    write_image(scan.grid.image(labels), Path(folder) / f"{scan.plan.scan}.nii.gz", sidecar)


def write_tables(tables: Mapping[str, tuple[Sequence[dict], Sequence[str]]], folder: Path | str) -> None:
    """Write `<name>.tsv` for every name -> (rows, columns)."""
    for name, (rows, columns) in tables.items():
        write_table(pd.DataFrame(list(rows), columns=list(columns)), Path(folder) / f"{name}.tsv", columns)


def _in_ball(count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 3) uniformly distributed in the unit ball."""
    points = rng.normal(size=(count, 3))
    points *= rng.uniform(size=(count, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    return points
