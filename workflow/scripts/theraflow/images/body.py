"""The patient in a CT, without table, clothes and air."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import label_boxes, to_array, voxel_volume_ml

AIR_HU = -1000.0
BODY_HU = -300.0  # between fat (-100) and air or cushions
TABLE_MM = 6.0  # links thinner than twice this between body and table are cut
SMALLEST_BODY_ML = 500.0
BOX_SPACING_MM, BOX_MARGIN_MM = 4.0, 10.0  # on which voxels a box of the body is looked for, and what is left around it


@dataclass(frozen=True)
class Body:
    """A shrunken CT.

    Attributes:
        image: HU (float32), everything outside the body is air.
        mask: uint8, 1 in the body (with lungs and bowel gas), on the grid of `image`.
    """

    image: sitk.Image
    mask: sitk.Image


def shrink(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average neighbouring voxels until they measure about `spacing_mm`; never work at full resolution."""
    factors = [max(1, int(spacing_mm / spacing + 0.25)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, [min(factor, size) for factor, size in zip(factors, image.GetSize(), strict=True)])


def find_body(ct: sitk.Image, spacing_mm: float) -> Body:
    """Shrink a CT to about `spacing_mm` and remove what is not the patient.

    The body is the largest connected part above -300 HU after thin links have been cut, with its cavities
    filled slice by slice.

    Raises:
        TheraflowError: less than 0.5 L of body.
    """
    small = _shrunken(ct, spacing_mm)
    radius = [max(1, round(TABLE_MM / length)) for length in small.GetSpacing()]
    opened = sitk.BinaryMorphologicalOpening(small > BODY_HU, radius)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True)
    body = _filled(sitk.BinaryDilate(parts == 1, [1, 1, 1]))
    if np.count_nonzero(to_array(body)) * voxel_volume_ml(small) < SMALLEST_BODY_ML:
        raise TheraflowError("The CT shows no body: less than 0.5 L above -300 HU in one piece.")
    return Body(sitk.Mask(small, body, AIR_HU), body)


def body_box(ct: sitk.Image, shortest_mm: float) -> tuple[slice, slice, slice]:
    """The box around all parts of the body, with a margin.

    Args:
        ct: HU.
        shortest_mm: shorter than this no edge is made, as far as the CT reaches.

    Returns:
        slices (z, y, x) into the CT's array; all of it where it shows no body.
    """
    inside = _shrunken(ct, BOX_SPACING_MM) > BODY_HU
    # What is nowhere thicker than two voxels and holds nothing that is, is a couch's shell or a cable. The rest is kept
    # as thin as it is: a chest wall over the lung is no thicker.
    seeds = sitk.BinaryMorphologicalOpening(inside, [1, 1, 1])
    body = sitk.BinaryReconstructionByDilation(seeds, _filled(inside), fullyConnected=True)
    box = label_boxes(to_array(body)).get(1)
    if box is None:
        return tuple(slice(0, n) for n in ct.GetSize()[::-1])
    corners = [[edge.start - 0.5 for edge in box[::-1]], [edge.stop - 0.5 for edge in box[::-1]]]
    points = [inside.TransformContinuousIndexToPhysicalPoint(corner) for corner in corners]
    first, last = (np.array(ct.TransformPhysicalPointToContinuousIndex(point)) + 0.5 for point in points)
    edges = zip(first, last, ct.GetSpacing(), ct.GetSize(), strict=True)
    return tuple(_widened(*edge, shortest_mm) for edge in edges)[::-1]


def _filled(mask: sitk.Image) -> sitk.Image:
    """A mask with its cavities filled slice by slice."""
    plain = sitk.Image(mask)
    plain.SetDirection(np.eye(3).ravel().tolist())  # planes of an oblique image lie at places that cannot be joined
    planes = [sitk.BinaryFillhole(plain[:, :, k], fullyConnected=False) for k in range(mask.GetSize()[2])]
    filled = sitk.JoinSeries(planes)
    filled.CopyInformation(mask)
    return filled


def _shrunken(ct: sitk.Image, spacing_mm: float) -> sitk.Image:
    """A CT averaged to about `spacing_mm`, float32, no value below air: padding as -3024 would spoil the averages."""
    return sitk.Cast(shrink(sitk.Clamp(ct, lowerBound=AIR_HU), spacing_mm), sitk.sitkFloat32)


def _widened(first: float, last: float, spacing_mm: float, n: int, shortest_mm: float) -> slice:
    """An edge from voxel `first` to before `last`, with the margin and of the least length, within `n` voxels."""
    margin = max(BOX_MARGIN_MM, (shortest_mm - (last - first) * spacing_mm) / 2) / spacing_mm
    start, stop = max(0, int(np.floor(first - margin))), min(n, int(np.ceil(last + margin)))
    # What one side lacks because the CT ends there the other side gets, for the sake of the least length.
    missing = max(0, int(np.ceil(shortest_mm / spacing_mm)) - (stop - start))
    return slice(max(0, start - missing), min(n, stop + missing))
