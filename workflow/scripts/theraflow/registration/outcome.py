"""What other stages read of the registration: its verdicts, and images of a scan's CT grid where its emission image is.

Apart from what registers, so that a stage that reads a result does not load it.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.files import read_json
from theraflow.images import read_image
from theraflow.layout import PatientFolder
from theraflow.registration.transforms import read_transform

# Verdicts on how a scan's CT and emission image lie on each other.
ALIGNED, DOUBTFUL, CORRECTED, NOT_CHECKABLE, NO_CT = "good", "check", "corrected", "not checkable", "no CT"


def verdict_of(folder: PatientFolder, scan: str) -> str:
    """`good`, `check` or `failed`: the verdict on the registration of `scan`.

    Raises:
        TheraflowError: its file is missing, or has no verdict.
    """
    path = folder.registration_quality(scan)
    try:
        return str(read_json(path)["verdict"])
    except KeyError as error:
        raise TheraflowError(f"{path} has no verdict; delete it, then name it to snakemake.") from error


def read_beside_emission(folder: PatientFolder, scan: str, path: Path | str) -> sitk.Image:
    """Read an image on the grid of a scan's CT, as the CT or the organ labels, to lie where the emission image does.

    The voxels are those of the file; where `align_emission` has corrected, origin and direction are others.

    Raises:
        TheraflowError: the image or the transform of `align_emission` is missing or cannot be read.
    """
    return move_header(read_image(path), read_transform(folder.ct_to_emission(scan)))


def move_header(image: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """The same voxels, each at the point to which a rigid `transform` (LPS, mm) maps it."""
    matrix, _ = affine_parts(transform)
    moved = sitk.Image(image)
    moved.SetOrigin(transform.TransformPoint(image.GetOrigin()))
    moved.SetDirection((matrix @ np.array(image.GetDirection()).reshape(3, 3)).ravel().tolist())
    return moved


def affine_parts(transform: sitk.Transform) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (3, 3) and offset (3,) in mm of an affine transform: x becomes matrix x + offset."""
    offset = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(unit)) - offset for unit in np.eye(3).tolist()]
    return np.stack(columns, axis=1), offset
