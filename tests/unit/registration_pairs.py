"""Pairs of CTs whose true correspondence is known, laid down as a patient's folder."""

import numpy as np
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from scipy.spatial.transform import Rotation

from theraflow.images import write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.virtual.anatomy import COUCH, FAT, MUSCLE, RIB, SKIN, Anatomy, Grid, Pose

HU = {
    0: -1000, FAT: -100, MUSCLE: 55, SKIN: 20, RIB: 300, COUCH: -300, 1: 110, 2: 160, 3: 160, 4: 10, 5: 100,
    6: 30, 7: 80, 15: 40, 16: -980, 18: 40, 19: 40, 20: 10, 21: 8, 51: 120, 52: 150, 63: 140, 79: 30,
    **dict.fromkeys((10, 11, 12, 13, 14), -830),
    **dict.fromkeys((25, *range(27, 48), 71, 72, 75, 76, 77, 78, 116), 250),
}  # fmt: skip
ORGANS = {
    "liver": 5, "spleen": 1, "kidney_right": 2, "kidney_left": 3, "heart": 51, "bladder": 21, "stomach": 6,
}  # fmt: skip


def scan_row(name: str) -> Scan:
    return Scan("P1", name, "FDG", "baseline", "", "suv")


def pose(degrees=(7.0, -5.0, 5.0), shift_mm=(20.0, -10.0, 20.0), breathing_mm=15.0) -> Pose:
    """10 degrees about an oblique axis, 30 mm and 15 mm of the diaphragm, unless told otherwise."""
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return Pose(rotation, np.array(shift_mm), breathing_mm)


def torso(anatomy: Anatomy, grid: Grid, where: Pose, seed: int) -> sitk.Image:
    """A CT with noise and couch."""
    labels = anatomy.labels(grid, where, couch=True)
    table = np.full(256, 50.0, np.float32)
    table[list(HU)] = list(HU.values())
    noise = np.random.default_rng(seed).normal(0, 15, labels.shape)
    return grid.image(np.clip(table[labels] + noise, -1024, 3000).astype(np.int16))


def write_scan(folder: PatientFolder, name: str, ct: sitk.Image | None, frame: str, emission=None) -> Scan:
    """Lay down a scan: CT, emission sidecar and, if given, the emission image."""
    scan = scan_row(name)
    if ct is not None:
        folder.ct(name).parent.mkdir(parents=True, exist_ok=True)
        write_image(ct, folder.ct(name), {"quantity": "HU", "unit": "HU"})
    write_alignment(folder, name)
    path = folder.emission(scan)
    path.parent.mkdir(parents=True, exist_ok=True)
    emission = emission if emission is not None else sitk.Image([2, 2, 2], sitk.sitkFloat32)
    write_image(emission, path, {"quantity": "SUVbw", "unit": "g/mL", "frame_of_reference_uid": frame})
    return scan


def errors(transform: sitk.Transform, points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance in mm of each mapped point from where it should lie."""
    mapped = np.array([transform.TransformPoint(point) for point in points.tolist()])
    return np.linalg.norm(mapped - truth, axis=1)


def organ_points(anatomy: Anatomy, low, high, per_organ: int = 60) -> dict[str, np.ndarray]:
    """Random points (neutral body, mm) of each organ between two corners."""
    grid = Grid.covering(low, high, (5.0, 5.0, 5.0))
    labels = anatomy.labels(grid)
    rng = np.random.default_rng(7)
    points = {}
    for name, label in ORGANS.items():
        found = grid.points()[labels == label].astype(float)
        if len(found) >= per_organ:
            points[name] = rng.choice(found, per_organ, replace=False)
    return points
