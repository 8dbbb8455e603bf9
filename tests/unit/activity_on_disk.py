"""Writes SPECT/CT scans of boxes of known activity: volumes and activities are exact, nothing is blurred."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from alignment_on_disk import write_alignment

from theraflow.images import from_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import ORGAN_IDS

SPACING_MM = 4.0
VOXEL_ML = SPACING_MM**3 / 1000.0
SIZE = (50, 40, 50)  # x, y, z
Box = tuple[slice, slice, slice]  # z, y, x, in voxels of the SPECT

# Organs lie on both sides of the middle; each holds 10 x 10 x 10 voxels = 64 mL.
KIDNEY_LEFT: Box = (slice(10, 20), slice(15, 25), slice(30, 40))
KIDNEY_RIGHT: Box = (slice(10, 20), slice(15, 25), slice(10, 20))
SPLEEN: Box = (slice(30, 40), slice(15, 25), slice(30, 40))
ORGANS = {"kidney_left": KIDNEY_LEFT, "kidney_right": KIDNEY_RIGHT, "spleen": SPLEEN}
ORGAN_ML = 1000 * VOXEL_ML


def grid(size: tuple[int, int, int] = SIZE, first_slice: int = 0) -> sitk.Image:
    """An empty image whose first slice is that of the whole grid with this number."""
    image = sitk.Image(list(size), sitk.sitkFloat32)
    image.SetSpacing([SPACING_MM] * 3)
    image.SetOrigin([0.0, 0.0, first_slice * SPACING_MM])
    return image


def write_scan(
    results: Path,
    name: str,
    time_h: float,
    kbq_per_ml: Mapping[str, float],
    *,
    background: float = 1.0,
    organs: Mapping[str, Box] | None = ORGANS,
    lesions: Mapping[str, Box] | None = None,
    slices: slice = slice(0, SIZE[2]),
    hu: Mapping[str, float] | None = None,
    ct: bool = True,
    sidecar: Mapping[str, Any] | None = None,
) -> Scan:
    """Write one scan of patient P1.

    Args:
        results: the results folder.
        name: of the scan.
        time_h: after the injection.
        kbq_per_ml: concentration in each organ or lesion, `background` elsewhere.
        background: kBq/mL.
        organs: boxes of the organ labels; None writes no labels.
        lesions: boxes of the lesions, each a label; None writes no map.
        slices: of the whole grid, those that the SPECT shows.
        hu: mean HU of a region, 40 elsewhere.
        ct: whether there is a CT (of the whole grid).
        sidecar: further entries of the SPECT's.
    """
    folder, scan = PatientFolder(results, "P1"), Scan("P1", name, "pentixather", "dosimetry", "", "activity")
    boxes = {**(organs or {}), **(lesions or {})}
    values = np.full(SIZE[::-1], background * 1000.0, np.float32)
    density = np.full(SIZE[::-1], 40.0, np.float32)
    labels = np.zeros(SIZE[::-1], np.uint8)
    numbers = np.zeros(SIZE[::-1], np.uint8)
    for region, box in boxes.items():
        values[box] = kbq_per_ml.get(region, background) * 1000.0
        density[box] = (hu or {}).get(region, 40.0)
        if region in ORGAN_IDS:
            labels[box] = ORGAN_IDS[region]
        else:
            numbers[box] = list(lesions).index(region) + 1
    spect = grid((SIZE[0], SIZE[1], slices.stop - slices.start), slices.start)
    told = {
        "quantity": "activity concentration", "unit": "Bq/mL", "nuclide": "177Lu", "injected_mbq": 200.0,
        "time_after_injection_h": time_h, "sex": "M", "weight_kg": 73.0, **(sidecar or {}),
    }  # fmt: skip
    write_image(from_array(values[slices], spect), folder.emission(scan), told)
    write_alignment(folder, scan.scan)
    if ct:
        write_image(from_array(density, grid()), folder.ct(name), {"quantity": "HU", "unit": "HU"})
    if ct and organs is not None:
        write_image(from_array(labels, grid()), folder.organs(name), {"quantity": "label", "unit": "1"})
    if lesions is not None:
        names = {str(number): lesion for number, lesion in enumerate(lesions, start=1)}
        write_image(
            from_array(numbers[slices], spect), folder.lesion_map(name),
            {"quantity": "label", "unit": "1", "labels": names},
        )  # fmt: skip
    return scan
