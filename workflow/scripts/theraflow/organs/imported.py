"""An organ label map that somebody already has, in place of segmentation."""

import logging
from collections.abc import Mapping
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
from theraflow.organs.labels import ORGAN_IDS, label_names, organ_called

log = logging.getLogger(__name__)


def import_organs(
    source: Path | str, ct: Path | str, output: Path | str, names: Mapping[str, str] | None = None
) -> None:
    """Bring an existing organ label map onto the grid of the CT.

    A NIfTI map is taken as it is where it lies on the CT grid, else resampled (nearest). Its numbers are
    TotalSegmentator's, unless the file brings names: `labels` in a sidecar, or a label table in its header
    (TotalSegmentator writes one; version 1 numbered the organs otherwise). Then the names count. Anything
    else is read as NRRD, DICOM SEG or RTSTRUCT, whose segments have names. Which organ a name stands for says
    `organ_called`. Names of no organ are left out with a warning.

    Args:
        source: NIfTI label map; or NRRD label map, DICOM SEG or RTSTRUCT with names.
        ct: CT in HU with its sidecar.
        output: label map to write, uint8 with the numbers of `ORGAN_IDS`, and its sidecar, which lists what was
            `renamed` and what was `left_out`.
        names: organ by the name that it has in the file. A label without a name is called `label 7`; where one of
            these is given for a NIfTI map without names, its numbers are not TotalSegmentator's.

    Raises:
        TheraflowError: `names` that lead to no organ, no label map, labels that are no organs, or nothing of it lies
            within the CT.
    """
    if not Path(source).is_file():
        raise TheraflowError(f"The organ label map {source} is no file; correct the column organs of scans.tsv.")
    names = names or {}
    for name, organ in names.items():
        if organ not in ORGAN_IDS:
            raise TheraflowError(
                f"organs: names in the config takes {name!r} to {organ!r}, which is no organ of TotalSegmentator's "
                f"task total; write it as kidney_left."
            )
    grid, ct_sidecar = read_image(ct), read_sidecar(ct)
    nifti = str(source).endswith((".nii", ".nii.gz"))
    array, organs = (_from_nifti if nifti else _from_named)(Path(source), grid, names)
    ignored = [name for name, organ in organs.items() if organ is None]
    if ignored and not array.any():
        raise TheraflowError(
            f"{source} has no organ of TotalSegmentator's task total, only {', '.join(ignored)}; name its "
            f"labels so, as kidney_left, or say in the config (organs: names) what they are."
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
        "renamed": {name: organ for name, organ in organs.items() if organ and organ != name},
        "left_out": ignored,
        "miniature_model": False,
        "virtual_patient": ct_sidecar.get("virtual_patient") is True,
    }
    write_image(from_array(array, grid), output, sidecar)


def _from_nifti(source: Path, grid: sitk.Image, names: Mapping[str, str]) -> tuple[np.ndarray, dict[str, str | None]]:
    """Labels on the grid, and the organ (or None) by the name that it has in the file."""
    image = read_image(source)
    refuse_damaged_nifti(source, to_the_end=True)
    array = to_array(image)
    if array.min() < 0 or array.max() > 65535 or not np.array_equal(array, np.floor(array)):
        raise TheraflowError(f"{source} holds values that are no labels; give a NIfTI label map with whole numbers.")
    array = array.astype(np.uint16)
    present = [int(label) for label in np.flatnonzero(np.bincount(array.ravel())) if label]
    named = names_of_labels(source)
    if not named and any(organ_called(_unnamed(label), names) for label in present):
        named = {label: _unnamed(label) for label in present}
    # lookup[label of the source] = label of task total
    lookup = np.zeros(65536, dtype=np.uint8)
    organs = {}
    for label in present:
        if label in named:
            organ = organs[named[label]] = organ_called(named[label], names)
            lookup[label] = ORGAN_IDS[organ] if organ else 0
        else:
            lookup[label] = _own_label(label, named, source)
    image = from_array(lookup[array], image)
    if not same_grid(image, grid):
        log.warning("%s does not lie on the grid of the CT and is resampled to it (nearest neighbour).", source)
        image = resample(image, grid, interpolation="nearest")
    return to_array(image), organs


def _unnamed(label: int) -> str:
    """How `read_annotation` calls a label without a name, too."""
    return f"label {label}"


def _own_label(label: int, named: Mapping[int, str], source: Path) -> int:
    """The number of a label that has no name."""
    if named:
        raise TheraflowError(f"{source}: label {label} is missing in the table of names that the file brings; add it.")
    if label > len(ORGAN_IDS):
        raise TheraflowError(
            f"{source}: label {label} is none of TotalSegmentator's task total (1 to {len(ORGAN_IDS)}); give "
            f"names as `labels` in {sidecar_path(source).name}, or in the config (organs: names: label {label})."
        )
    return label


def _from_named(source: Path, grid: sitk.Image, names: Mapping[str, str]) -> tuple[np.ndarray, dict[str, str | None]]:
    """NRRD, SEG or RTSTRUCT as labels on the grid, and the organ (or None) by the name that it has in the file."""
    array = np.zeros(grid.GetSize()[::-1], dtype=np.uint8)
    organs = {}
    for annotation in read_annotation(source, grid):
        organ = organs[annotation.name] = organ_called(annotation.name, names)
        if organ:
            array[annotation.box][annotation.inside] = ORGAN_IDS[organ]
    return array, organs
