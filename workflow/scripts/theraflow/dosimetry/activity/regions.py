"""The regions of a scan, as parts of the voxels of its emission image.

Arrays are indexed z, y, x. A region is kept as its fractions of voxels in a box of the emission grid.
"""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import from_array, read_image, read_sidecar, resample, same_grid, to_array, voxel_volume_ml
from theraflow.images.body import find_body
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import organ_mask
from theraflow.registration import read_beside_emission

BODY_SPACING_MM = 4.0
FINEST_DIVISION = 8  # parts of a voxel along an axis
SHARED_VOXEL = 1e-3  # part of a voxel that two regions may both claim: rounding
AIR_HU = -700.0  # below, a region has less than a third of the density of tissue
# What planar views count as a whole: the body, and all that the camera sees.
WHOLE_BODY, WHOLE_VIEW = "whole_body", "whole_view"
Box = tuple[slice, slice, slice]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """A region on the emission grid.

    Attributes:
        name, kind: as in curves.tsv; kind is `organ` or `lesion`.
        box: slices (z, y, x) of the emission grid that enclose the region.
        fraction: for every voxel of the box the part that belongs to the region, 0 to 1.
        in_view: part of the region, as its label map has it, that lies in the emission image.
        map_cuts: whether the region reaches the edge of its label map, so that this may hold a part only.
    """

    name: str
    kind: str
    box: Box
    fraction: np.ndarray
    in_view: float = 1.0
    map_cuts: bool = False

    def volume_ml(self, voxel_ml: float) -> float:
        """Volume inside the emission image in mL."""
        return float(self.fraction.sum()) * voxel_ml

    def within(self, box: Box) -> np.ndarray:
        """Fractions of the region in the voxels of another box of the same grid."""
        result = np.zeros([part.stop - part.start for part in box], dtype=np.float32)
        here, there = [], []
        for own, other in zip(self.box, box, strict=True):
            start, stop = max(own.start, other.start), min(own.stop, other.stop)
            if start >= stop:
                return result
            here.append(slice(start - other.start, stop - other.start))
            there.append(slice(start - own.start, stop - own.start))
        result[tuple(here)] = self.fraction[tuple(there)]
        return result


def occupancy(mask: sitk.Image, grid: sitk.Image) -> tuple[Box, np.ndarray] | None:
    """The part of every voxel of `grid` that lies in `mask`.

    Voxels of `grid` are divided until the parts are as fine as the voxels of `mask` (at most 8 along an
    axis). The mask is read at the centres of the parts, interpolated linearly, so that it is not shifted
    where centres fall between its voxels. On its own grid the mask is taken as it is.

    Args:
        mask: non-zero inside the region, on any grid.
        grid: the emission image; only its geometry is used.

    Returns:
        Box and fractions (float32, z, y, x), or None where the mask is empty or outside `grid`.
    """
    filled = np.nonzero(to_array(mask))
    if not filled[0].size:
        return None
    low = np.array([axis.min() for axis in filled])[::-1] - 1.0
    high = np.array([axis.max() for axis in filled])[::-1] + 1.0
    corners = [
        grid.TransformPhysicalPointToContinuousIndex(mask.TransformContinuousIndexToPhysicalPoint(list(corner)))
        for corner in itertools.product(*zip(low.tolist(), high.tolist(), strict=True))
    ]
    start = np.maximum(np.floor(np.min(corners, axis=0) + 0.5).astype(int), 0)
    stop = np.minimum(np.ceil(np.max(corners, axis=0) + 0.5).astype(int), grid.GetSize())
    if np.any(start >= stop):
        return None
    own = same_grid(mask, grid)
    wanted = np.ceil(np.array(grid.GetSpacing()) / min(mask.GetSpacing()) - 1e-6)  # spacings read from files
    division = np.ones(3, dtype=int) if own else np.clip(wanted, 1, FINEST_DIVISION).astype(int)
    parts = sitk.Image([int(n) for n in (stop - start) * division], sitk.sitkUInt8)
    parts.SetSpacing((np.array(grid.GetSpacing()) / division).tolist())
    parts.SetDirection(grid.GetDirection())
    parts.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint((start - 0.5 + 0.5 / division).tolist()))
    binary = sitk.Cast(mask != 0, sitk.sitkFloat32)
    values = to_array(resample(binary, parts, interpolation="nearest" if own else "linear"))
    shape = np.stack([(stop - start)[::-1], division[::-1]], axis=1).ravel()
    fraction = values.reshape(shape).mean(axis=(1, 3, 5))
    if not fraction.any():
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(start[::-1], stop[::-1], strict=True)), fraction


def grow(box: Box, margin_mm: float, spacing_zyx: Sequence[float], shape: Sequence[int]) -> Box:
    """`box` with a margin on all sides, as far as the image goes."""
    margin = [math.ceil(margin_mm / spacing) for spacing in spacing_zyx]
    return tuple(
        slice(max(0, part.start - more), min(length, part.stop + more))
        for part, more, length in zip(box, margin, shape, strict=True)
    )


def find_regions(folder: PatientFolder, scan: Scan, settings: Mapping[str, Any], emission: sitk.Image) -> list[Region]:
    """Organs and lesions of a scan on its emission grid; a lesion's voxels are taken away from the organs.

    Args:
        folder: the patient's results.
        scan: an activity scan.
        settings: section `dosimetry` of the configuration.
        emission: the emission image; only its geometry is used.

    Raises:
        TheraflowError: two regions share voxels.
    """
    lesions = _find_lesions(folder, scan, emission)
    organs = []
    path = folder.organs(scan.scan)
    if not path.exists():
        log.info("%s: no organs, scan %s has no organ labels", folder.patient, scan.scan)
        return lesions
    image = read_beside_emission(folder, scan.scan, path)
    labels = to_array(image)
    for name in settings["organs"]:
        mask = organ_mask(labels, name)
        place = occupancy(from_array(mask, image), emission)
        if place is None:
            log.info("%s: %s is not in scan %s", folder.patient, name, scan.scan)
            continue
        box, fraction = place
        free = np.minimum(fraction, free_of(lesions, box))
        if not free.sum() > 0:
            log.warning("%s: lesions take all of %s in scan %s", folder.patient, name, scan.scan)
            continue
        in_view = float(fraction.sum()) * voxel_volume_ml(emission) / (mask.sum() * voxel_volume_ml(image))
        organs.append(Region(name, "organ", box, free, min(in_view, 1.0), _reaches_edge(mask)))
    regions = organs + lesions
    refuse_overlap(regions, scan)
    return regions


def free_of(regions: Sequence[Region], box: Box) -> np.ndarray:
    """For every voxel of a box of the grid the part that none of the regions takes, 0 to 1."""
    free = np.ones([part.stop - part.start for part in box], dtype=np.float32)
    for region in regions:
        free -= region.within(box)
    return np.clip(free, 0.0, 1.0)


def refuse_overlap(regions: Sequence[Region], scan: Scan) -> None:
    """Refuse two regions that claim the same part of a voxel: its activity would count twice.

    Labels of one map never do; organs and groups that hold one another (`kidneys` and `kidney_left`) do.

    Raises:
        TheraflowError: names the two.
    """
    for one, other in itertools.combinations(regions, 2):
        shared = one.fraction + other.within(one.box) - 1.0
        if shared.max() > SHARED_VOXEL:
            part = float(np.clip(shared, 0.0, None).sum() / min(one.fraction.sum(), other.fraction.sum()))
            raise TheraflowError(
                f"Scan {scan.scan} of {scan.patient}: {one.name} and {other.name} overlap ({100 * part:.0f} % of the "
                "smaller one), so that activity would count twice; leave one of them out (dosimetry: organs in the "
                "configuration, or the label map)."
            )


def mean_hu(folder: PatientFolder, scan: Scan, emission: sitk.Image, regions: Sequence[Region]) -> dict[str, float]:
    """Mean HU of every region by the CT of its scan, NaN outside the CT; empty if there is no CT."""
    path = folder.ct(scan.scan)
    if not path.exists():
        return {}
    ct = sitk.Cast(read_beside_emission(folder, scan.scan, path), sitk.sitkFloat32)
    hu = to_array(resample(ct, emission, outside=math.nan))
    means = {}
    for region in regions:
        own = hu[region.box]
        weight = np.where(np.isfinite(own), region.fraction, 0.0)
        means[region.name] = float((np.nan_to_num(own) * weight).sum() / weight.sum()) if weight.any() else math.nan
    return means


def in_air(region: Region, hu: float) -> bool:
    """Whether a region of this mean HU holds no tissue. Lungs are what they are: a breath lowers them to -850."""
    return hu < AIR_HU and not region.name.startswith("lung")


def find_body_fraction(folder: PatientFolder, scan: Scan, emission: sitk.Image) -> np.ndarray:
    """Part of every voxel of the emission image (z, y, x) that is body by the CT; 1 if there is no CT.

    Beyond the ends of the CT the body goes on as in its last slice.
    """
    path = folder.ct(scan.scan)
    if not path.exists():
        return np.ones(emission.GetSize()[::-1], dtype=np.float32)
    ct = read_beside_emission(folder, scan.scan, path)
    body = sitk.Cast(find_body(ct, BODY_SPACING_MM).mask, sitk.sitkFloat32)
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(emission)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return to_array(resampler.Execute(body))


def _find_lesions(folder: PatientFolder, scan: Scan, emission: sitk.Image) -> list[Region]:
    path = folder.lesion_map(scan.scan)
    if not path.exists():
        log.info("%s: scan %s has no lesion map", folder.patient, scan.scan)
        return []
    image = read_image(path)
    lesions = []
    for label, name in sorted(read_sidecar(path)["labels"].items(), key=lambda item: int(item[0])):
        mask = image == int(label)
        place = occupancy(mask, emission)
        if place is None:
            log.info("%s: lesion %s is not in scan %s", folder.patient, name, scan.scan)
        else:
            lesions.append(Region(name, "lesion", *place, map_cuts=_reaches_edge(sitk.GetArrayViewFromImage(mask))))
    return lesions


def _reaches_edge(mask: np.ndarray) -> bool:
    """Whether a mask (z, y, x) holds a voxel on the border of its image."""
    return any(mask.take(end, axis).any() for axis in range(3) for end in (0, -1))
