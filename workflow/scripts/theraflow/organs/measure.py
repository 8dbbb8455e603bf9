"""How large every organ is, how dense, where it lies, whether the field of view cuts it, and whether that can be."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import read_image, same_grid, to_array, voxel_volume_ml
from theraflow.images.body import BODY_HU
from theraflow.organs.labels import ORGAN_IDS
from theraflow.organs.plausibility import IN_ONE_PIECE, PIECE_FRACTION, judge_organs, spine_x_mm
from theraflow.tables import write_table

MEASURES = ("organ", "label", "volume_ml", "mean_hu", "touches_edge", "x_mm", "y_mm", "z_mm", "pieces", "gap_mm")
COLUMNS = ("patient", "scan", *MEASURES, "plausible", "remark")


def organ_statistics(labels: np.ndarray, hu: np.ndarray, grid: sitk.Image) -> pd.DataFrame:
    """One row for every organ in a label map.

    Args:
        labels: organ labels (z, y, x), uint8, numbered as `ORGAN_IDS`.
        hu: CT on the same voxels, HU.
        grid: their geometry (LPS, mm).

    Returns:
        columns organ, label, volume_ml, mean_hu, touches_edge (whether the organ reaches the border of the
        image, so that its volume may be that of a part), x_mm, y_mm, z_mm (centroid), pieces (connected ones of at
        least a tenth of the organ; voxels are connected by faces, edges and corners) and gap_mm (the widest distance
        from the largest piece to another; NaN unless the organ is one that grows in one piece and has several).
        Every voxel of the label counts.
    """
    rows = []
    boxes = scipy.ndimage.find_objects(labels, max_label=len(ORGAN_IDS))
    for (organ, label), box in zip(ORGAN_IDS.items(), boxes, strict=True):
        if box is None:
            continue
        mask = labels[box] == label
        pieces = _pieces(mask)
        x, y, z = _centroid_mm(mask, box, grid)
        rows.append(
            {"organ": organ, "label": label, "volume_ml": np.count_nonzero(mask) * voxel_volume_ml(grid),
             "mean_hu": float(hu[box][mask].mean(dtype=float)),
             "touches_edge": any(part.start == 0 or part.stop == n for part, n in zip(box, labels.shape, strict=True)),
             "x_mm": x, "y_mm": y, "z_mm": z, "pieces": len(pieces),
             "gap_mm": _gap_mm(pieces, grid) if organ in IN_ONE_PIECE and len(pieces) > 1 else np.nan}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(MEASURES))


def measure_organs(ct: Path | str, organs: Path | str, output_tsv: Path | str, patient: str, scan: str) -> None:
    """Write what every organ of a scan measures, and whether it is plausible.

    Args:
        ct: CT in HU.
        organs: label map on the grid of `ct`.
        output_tsv: table with the columns patient, scan, those of `organ_statistics` and those of `judge_organs`.
        patient: written into every row.
        scan: written into every row.

    Raises:
        TheraflowError: the images do not share their grid.
    """
    image, label_image = read_image(ct), read_image(organs)
    if not same_grid(image, label_image):
        raise TheraflowError(f"{organs} does not lie on the grid of {ct}; delete it, then name it to snakemake.")
    hu = to_array(image)
    table = organ_statistics(to_array(label_image), hu, image)
    if len(table):
        midplane = spine_x_mm(table)
        table = judge_organs(table, _body_x_mm(hu, image) if midplane is None else midplane)
    write_table(table.assign(patient=patient, scan=scan), output_tsv, COLUMNS)


def _pieces(mask: np.ndarray) -> list[np.ndarray]:
    """The connected pieces of a mask that are worth a mention, largest first, each a mask of the same box."""
    numbered, count = scipy.ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count == 1:
        return [mask]
    voxels = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-voxels, kind="stable")
    # A shape of dust has no piece of a tenth; its largest grain is one all the same.
    large = [piece for place, piece in enumerate(order) if not place or voxels[piece] >= PIECE_FRACTION * voxels.sum()]
    return [numbered == piece + 1 for piece in large]


def _gap_mm(pieces: list[np.ndarray], grid: sitk.Image) -> float:
    """The widest of the distances from the first piece to each other one, between voxel centres."""
    distance = scipy.ndimage.distance_transform_edt(~pieces[0], sampling=grid.GetSpacing()[::-1])
    return max(float(distance[piece].min()) for piece in pieces[1:])


def _centroid_mm(mask: np.ndarray, box: tuple[slice, slice, slice], grid: sitk.Image) -> tuple[float, float, float]:
    """Mean position of the voxels, x y z in LPS mm."""
    index = []
    for axis, part in enumerate(box):
        along = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        index.append(float(np.average(np.arange(part.start, part.stop), weights=along)))
    return grid.TransformContinuousIndexToPhysicalPoint(index[::-1])


def _body_x_mm(hu: np.ndarray, grid: sitk.Image) -> float:
    """Mean position of the body's voxels, x in LPS mm; of the image's where there is no body."""
    body = hu > BODY_HU
    whole = tuple(slice(0, n) for n in hu.shape)
    return _centroid_mm(body if body.any() else ~body, whole, grid)[0]
