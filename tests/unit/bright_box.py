"""CTs of water with one bright box, which the network of `threshold_model` calls liver."""

import numpy as np
import SimpleITK as sitk

from theraflow.images import write_image
from theraflow.organs import ORGAN_IDS

LIVER = ORGAN_IDS["liver"]
CENTRE_MM, HALF_MM = np.array([-48.0, 30.0, 42.0]), np.array([36.0, 24.0, 30.0])


def write_ct(path, spacing_mm=(4.0, 4.0, 5.0), direction=None, virtual_patient=False):
    """A cube of water, 180 mm wide, with one bright box off its centre, on any axes."""
    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    size = np.round(180.0 / np.array(spacing_mm)).astype(int)
    image = sitk.Image([int(n) for n in size], sitk.sitkInt16)
    image.SetSpacing(spacing_mm)
    image.SetDirection(direction.ravel())
    image.SetOrigin(tuple(-direction @ ((size - 1) / 2 * np.array(spacing_mm))))
    inside = (np.abs(positions(image) - CENTRE_MM) <= HALF_MM).all(axis=-1)
    ct = sitk.GetImageFromArray(np.where(inside, 1000, 20).astype(np.int16))
    ct.CopyInformation(image)
    sidecar = {
        "quantity": "HU",
        "unit": "HU",
        "patient": "P001",
        "scan": "fdg",
        "virtual_patient": virtual_patient,
    }
    write_image(ct, path, sidecar)
    return path


def positions(image):
    """LPS position in mm of every voxel, (z, y, x, 3)."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in image.GetSize()[::-1]), indexing="ij")
    index = np.stack([x, y, z], axis=-1) * np.array(image.GetSpacing())
    return index @ np.array(image.GetDirection()).reshape(3, 3).T + np.array(image.GetOrigin())


def write_long_ct(path):
    """Water 738 mm long, 123 slices of the 6 mm model, with a bright box across the cut at two thirds."""
    array = np.full((123, 20, 20), 20, np.int16)
    array[70:95, 5:12, 6:14] = 1000
    ct = sitk.GetImageFromArray(array)
    ct.SetSpacing((6.0, 6.0, 6.0))
    write_image(ct, path, {"quantity": "HU", "unit": "HU", "patient": "P001", "scan": "fdg"})
    return path, array == 1000
