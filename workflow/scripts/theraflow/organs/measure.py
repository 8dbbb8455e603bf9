"""How large every organ is, how dense, and whether the field of view cuts it."""

from pathlib import Path

import numpy as np
import pandas as pd

from theraflow.errors import TheraflowError
from theraflow.images import read_image, same_grid, to_array, voxel_volume_ml
from theraflow.organs.labels import ORGAN_IDS, label_names
from theraflow.tables import write_table

COLUMNS = ("patient", "scan", "organ", "label", "volume_ml", "mean_hu", "touches_edge")


def organ_statistics(labels: np.ndarray, hu: np.ndarray, voxel_ml: float) -> pd.DataFrame:
    """One row for every organ in a label map.

    Args:
        labels: organ labels (z, y, x), uint8, numbered as `ORGAN_IDS`.
        hu: CT on the same voxels, HU.
        voxel_ml: volume of a voxel in mL.

    Returns:
        columns organ, label, volume_ml, mean_hu, touches_edge (whether the organ reaches the border of the
        image, so that its volume may be that of a part). Every voxel of the label counts.
    """
    slices = list(zip(labels, hu, strict=True))  # slice by slice: bincount makes 8-byte copies
    voxels = sum(np.bincount(label.ravel(), minlength=256) for label, _ in slices)
    sums = sum(np.bincount(label.ravel(), weights=value.ravel(), minlength=256) for label, value in slices)
    at_edge = np.zeros(256, dtype=bool)
    for axis in range(labels.ndim):
        for side in (0, -1):
            at_edge[labels.take(side, axis)] = True
    present = [label for label in range(1, len(ORGAN_IDS) + 1) if voxels[label]]
    return pd.DataFrame(
        {
            "organ": list(label_names(present).values()),
            "label": present,
            "volume_ml": voxels[present] * voxel_ml,
            "mean_hu": sums[present] / voxels[present],
            "touches_edge": at_edge[present],
        }
    )


def measure_organs(ct: Path | str, organs: Path | str, output_tsv: Path | str, patient: str, scan: str) -> None:
    """Write volume and mean HU of every organ of a scan.

    Args:
        ct: CT in HU.
        organs: label map on the grid of `ct`.
        output_tsv: table with the columns patient, scan, organ, label, volume_ml, mean_hu, touches_edge.
        patient: written into every row.
        scan: written into every row.

    Raises:
        TheraflowError: the images do not share their grid.
    """
    image, label_image = read_image(ct), read_image(organs)
    if not same_grid(image, label_image):
        raise TheraflowError(f"{organs} does not lie on the grid of {ct}; delete it so that it is made again.")
    table = organ_statistics(to_array(label_image), to_array(image), voxel_volume_ml(image))
    write_table(table.assign(patient=patient, scan=scan), output_tsv, COLUMNS)
