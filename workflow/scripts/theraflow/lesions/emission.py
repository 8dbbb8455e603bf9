"""An emission image in memory, with what the organ labels say about its voxels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk

from theraflow.images import read_image, resample, to_array
from theraflow.images.body import AIR_HU
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.candidates import SKELETON, Physiologic, names_of, physiologic_organs
from theraflow.lesions.site import main_pieces
from theraflow.organs import GROUPS, implausible_organs
from theraflow.registration import read_beside_emission

BONE_HU = 200.0  # above soft tissue and enhanced vessels on the voxels of a PET


@dataclass(frozen=True)
class Emission:
    """One scan.

    Attributes:
        voxels: PET in SUVbw (g/mL) or SPECT in Bq/mL, shape (z, y, x).
        grid: the image's geometry.
        organs: organ labels on the same grid; None where the scan has none.
        landmarks: the same without crumbs, by which a place in the body is told; None where the scan has none.
        physiologic: organs with physiologic uptake of the scan's tracer; None where the scan has no organ labels.
    """

    voxels: np.ndarray
    grid: sitk.Image
    organs: np.ndarray | None
    landmarks: np.ndarray | None
    physiologic: list[Physiologic] | None


def read_emission(folder: PatientFolder, scan: Scan, physiologic: Mapping[str, Any]) -> Emission:
    """A scan's emission image, and its organ labels by nearest neighbour on its grid.

    Args:
        folder: the patient's results.
        scan: which scan.
        physiologic: by tracer, the organs as `physiologic_organs` takes them.

    Raises:
        TheraflowError: an image cannot be read, or no organ has a name that `physiologic` uses.
    """
    grid = read_image(folder.emission(scan))
    voxels = to_array(grid)
    if not folder.organs(scan.scan).exists():
        return Emission(voxels, grid, None, None, None)
    labels = read_beside_emission(folder, scan.scan, folder.organs(scan.scan))
    organs = to_array(resample(labels, grid, interpolation="nearest"))
    entries = physiologic.get(scan.tracer, ())
    bone = None
    if SKELETON in names_of(entries) and folder.ct(scan.scan).exists():
        ct = read_beside_emission(folder, scan.scan, folder.ct(scan.scan))
        bone = (to_array(resample(ct, grid, outside=AIR_HU)) > BONE_HU) & (organs == 0)
    found = physiologic_organs(voxels, organs, entries, grid, bone)
    doubtful = implausible_organs(folder.organ_table(scan.scan)) if found else {}
    judged = [replace(organ, doubt=_doubt(organ.organ, doubtful)) for organ in found]
    return Emission(voxels, grid, organs, main_pieces(organs), judged)


def _doubt(name: str, doubtful: Mapping[str, str]) -> str | None:
    """Why an organ, or organs of a group, are not plausible."""
    own = [f"{organ} is not plausible ({doubtful[organ]})" for organ in GROUPS.get(name, (name,)) if organ in doubtful]
    return "; ".join(own) or None
