"""An organ label map that somebody already has, in place of segmentation."""

import logging
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from theraflow.dicom.annotation import read_annotation
from theraflow.dicom.regions.labelmaps import names_of_labels
from theraflow.errors import TheraflowError
from theraflow.images import (
    from_array,
    read_image,
    read_sidecar,
    resample,
    same_grid,
    sidecar_path,
    to_array,
    write_image,
)
from theraflow.nifti import refuse_damaged_nifti
from theraflow.organs.labels import ORGAN_IDS, label_names

log = logging.getLogger(__name__)

_LABELS = {name.lower(): label for name, label in ORGAN_IDS.items()}


def import_organs(source: Path | str, ct: Path | str, output: Path | str) -> None:
    """Bring an existing organ label map onto the grid of the CT.

    A NIfTI map is taken as it is where it lies on the CT grid, else resampled (nearest). Its numbers are
    TotalSegmentator's, unless the file brings names: `labels` in a sidecar, or a label table in its header
    (TotalSegmentator writes one; version 1 numbered the organs otherwise). Then the names count. Anything
    else is read as NRRD, DICOM SEG or RTSTRUCT, whose segment names must be organ names. Names of no organ are left
    out with a warning.

    Args:
        source: NIfTI label map; or NRRD label map, DICOM SEG or RTSTRUCT with names.
        ct: CT in HU with its sidecar.
        output: label map to write, uint8 with the numbers of `ORGAN_IDS`, and its sidecar.

    Raises:
        TheraflowError: no label map, labels that are no organs, or nothing of it lies within the CT.
    """
    if not Path(source).is_file():
        raise TheraflowError(f"The organ label map {source} is no file; correct the column organs of scans.tsv.")
    grid, ct_sidecar = read_image(ct), read_sidecar(ct)
    nifti = str(source).endswith((".nii", ".nii.gz"))
    array, ignored = _from_nifti(Path(source), grid) if nifti else _from_dicom(Path(source), grid)
    if ignored and not array.any():
        raise TheraflowError(
            f"{source} has no organ of TotalSegmentator's task total, only {', '.join(ignored)}; name its "
            f"labels so, as kidney_left."
        )
    if not array.any():
        raise TheraflowError(f"No organ of {source} lies within {ct}; give the label map that belongs to this scan.")
    if ignored:
        log.warning("%s: left out, for they are no organs of task total: %s", source, ", ".join(ignored))
    sidecar = {
        **{key: ct_sidecar.get(key) for key in ("patient", "scan", "tracer", "timepoint")},
        "quantity": "organ label",
        "unit": "TotalSegmentator id",
        "source": f"imported from {Path(source).name}",
        "labels": label_names(),
        "left_out": ignored,
        "miniature_model": False,
        "virtual_patient": ct_sidecar.get("virtual_patient") is True,
    }
    write_image(from_array(array, grid), output, sidecar)


def _from_nifti(source: Path, grid: sitk.Image) -> tuple[np.ndarray, list[str]]:
    image = read_image(source)
    refuse_damaged_nifti(source, to_the_end=True)
    array = to_array(image)
    if array.min() < 0 or array.max() > 65535 or not np.array_equal(array, np.floor(array)):
        raise TheraflowError(f"{source} holds values that are no labels; give a NIfTI label map with whole numbers.")
    array = array.astype(np.uint16)
    present = [int(label) for label in np.flatnonzero(np.bincount(array.ravel())) if label]
    names = names_of_labels(source)
    # lookup[label of the source] = label of task total
    lookup = np.zeros(65536, dtype=np.uint8)
    unknown = []
    for label in present:
        lookup[label] = _label_of(names[label]) if label in names else _own_label(label, names, source)
        if not lookup[label]:
            unknown.append(names[label])
    image = from_array(lookup[array], image)
    if not same_grid(image, grid):
        log.warning("%s does not lie on the grid of the CT and is resampled to it (nearest neighbour).", source)
        image = resample(image, grid, interpolation="nearest")
    return to_array(image), unknown


def _label_of(name: str) -> int:
    """The number of the organ called `name`, 0 where there is none; case and spaces do not matter."""
    return _LABELS.get(name.strip().lower().replace(" ", "_"), 0)


def _own_label(label: int, names: dict[int, str], source: Path) -> int:
    """The number of a label that has no name."""
    if names:
        raise TheraflowError(f"{source}: label {label} is missing in the table of names that the file brings; add it.")
    if label > len(ORGAN_IDS):
        raise TheraflowError(
            f"{source}: label {label} is none of TotalSegmentator's task total (1 to {len(ORGAN_IDS)}); give "
            f"names as `labels` in {sidecar_path(source).name}."
        )
    return label


def _from_dicom(source: Path, grid: sitk.Image) -> tuple[np.ndarray, list[str]]:
    organs = np.zeros(grid.GetSize()[::-1], dtype=np.uint8)
    ignored = []
    for annotation in read_annotation(source, grid):
        label = _label_of(annotation.name)
        if label:
            organs[annotation.box][annotation.inside] = label
        else:
            ignored.append(annotation.name)
    return organs, ignored
