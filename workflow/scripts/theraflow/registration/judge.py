"""The verdict on a registration: its own measures, and how well the organs of both scans lie upon each other."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.files import read_json, write_json
from theraflow.images import resample, to_array, voxel_volume_ml
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import GROUPS, ORGAN_IDS, whole_organs
from theraflow.registration.outcome import read_beside_emission
from theraflow.registration.quality import verdict
from theraflow.registration.rigid import IDENTITY, common_grid
from theraflow.registration.stage import SAME_SCAN
from theraflow.registration.transforms import read_transform

logger = logging.getLogger(__name__)

ORGAN_MM = 3.0  # voxels on which organs are compared
BULGE_MM = 15.0  # a deformation may carry an organ this far beyond the mapped corners of its box
# Organs whose shape follows what they hold. That they differ says nothing of the registration.
FILLING = frozenset({"urinary_bladder", "stomach", "gallbladder", "esophagus", *GROUPS["bowel"]})
SMALLEST_ML = 20.0  # of a smaller organ one voxel of the segmentation's border is too large a part
FEWEST_ORGANS = 3  # from which on the median can stand a wrong label
# Dice and surface distance from which on contours agree as well as two readers do: AAPM TG-132 (Brock et al., Med Phys
# 2017;44:e43), 0.8 to 0.9 and 2 to 3 mm. A shift by d moves a surface by d/2 on average: at 7.5 mm the organs are 15 mm
# apart, where lesions are not matched any more.
ORGAN_LIMITS: Mapping[str, Mapping[str, float]] = {
    "organ_dice_median": {"good_from": 0.8, "failed_below": 0.5},
    "organ_surface_median_mm": {"good_to": 3.0, "failed_above": 7.5},
}


@dataclass(frozen=True)
class Agreement:
    """How well one organ of two scans lies upon itself, on the voxels where it was compared.

    Attributes:
        volume_ml, carried_volume_ml: of the reference's organ, and of the scan's carried to the reference.
        dice: overlap of the two, 0 to 1.
        surface_mean_mm: mean distance of each surface from the other.
        surface_p95_mm: 95th percentile of that distance, the larger of the two directions.
    """

    volume_ml: float
    carried_volume_ml: float
    dice: float
    surface_mean_mm: float
    surface_p95_mm: float

    @property
    def size_ml(self) -> float:
        """The smaller of the two volumes."""
        return min(self.volume_ml, self.carried_volume_ml)


def judge(reference: Scan, scan: Scan, folder: PatientFolder) -> None:
    """Write `folder.registration_quality(scan.scan)`: what `register` has measured, the organs, and the verdict.

    Reads `folder.registration_fit(scan.scan)`, the transforms, and of both scans the organ labels and their table where
    there are any. The JSON holds all of the fit, and

    - `organs`: by organ an `Agreement`, and `counts`, whether it has a part in the verdict;
    - `organ_dice_mean`, `organ_dice_median`, `organ_surface_median_mm` over those that do; null where fewer than three;
    - `organs_remark`: why organs have no part in the verdict, or null;
    - `limits`: of each measure that was judged;
    - `verdict`: `failed` where `register` could align nothing or one measure is beyond its limit, `good` where all
      are within theirs and the fit states no `doubt`, else `check`.

    Compared are organs that both scans have, plausible and not cut by the field of view: they are whole, so nothing has
    to be left out for what one scan has not seen. Organs never compared make no registration worse.

    Raises:
        TheraflowError: an input file is missing or unreadable.
    """
    fit = read_json(folder.registration_fit(scan.scan))
    agreements, remark = _compare(reference, scan, folder, fit)
    counted = {organ: agreement for organ, agreement in agreements.items() if _counts(organ, agreement)}
    if remark is None and len(counted) < FEWEST_ORGANS:
        remark = (
            f"{len(counted)} organs could be compared; from {FEWEST_ORGANS} on they have a part in the verdict "
            "(whole and plausible on both scans, at least 20 mL, not of changing filling)"
        )
    measures = summarise(counted) if remark is None else dict.fromkeys((*ORGAN_LIMITS, "organ_dice_mean"))
    limits = {**fit["limits"], **(ORGAN_LIMITS if remark is None else {})}
    decision = "failed" if fit["reason"] else verdict({**fit, **measures}, limits)
    if decision == "good" and fit["doubt"]:
        decision = "check"
    organs = {organ: {**asdict(agreement), "counts": organ in counted} for organ, agreement in agreements.items()}
    content = {**fit, **measures, "organs_remark": remark, "organs": organs, "limits": limits, "verdict": decision}
    write_json(content, folder.registration_quality(scan.scan))
    logger.info("%s to %s: %s, %s", scan.scan, reference.scan, fit["method"], decision)


def summarise(agreements: Mapping[str, Agreement]) -> dict[str, float]:
    """Mean and median Dice and median surface distance (mm) over organs, of which there is at least one."""
    dice = [agreement.dice for agreement in agreements.values()]
    return {
        "organ_dice_mean": float(np.mean(dice)),
        "organ_dice_median": float(np.median(dice)),
        "organ_surface_median_mm": float(np.median([one.surface_mean_mm for one in agreements.values()])),
    }


def compare_organs(
    reference: sitk.Image,
    scan: sitk.Image,
    to_scan: sitk.Transform,
    to_reference: sitk.Transform,
    organs: Collection[str],
) -> dict[str, Agreement]:
    """Lay the organs of two scans upon each other in the space of the reference, on voxels of 3 mm.

    Labels are carried by nearest neighbour. Dice by SimpleITK's LabelOverlapMeasures; distances are those between the
    centres of the outermost voxels of each organ (Taha and Hanbury, BMC Med Imaging 2015;15:29).

    Args:
        reference, scan: organ labels, numbered as `ORGAN_IDS`, each on its own grid.
        to_scan, to_reference: map points (LPS, mm) of the reference to points of the scan, and back.
        organs: names of those to compare.

    Returns:
        By organ; one of which the 3 mm grid has no voxel on either side is left out.
    """
    parts = [_labelled_part(image) for image in (reference, scan)]
    if None in parts:
        return {}
    grid = common_grid(parts, [IDENTITY, to_reference], ORGAN_MM, BULGE_MM)
    here, carried = (
        resample(part, grid, transform, "nearest") for part, transform in zip(parts, (IDENTITY, to_scan), strict=True)
    )
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(here, carried)
    arrays = [to_array(image) for image in (here, carried)]
    boxes = [scipy.ndimage.find_objects(array, max_label=len(ORGAN_IDS)) for array in arrays]
    result = {}
    for organ in organs:
        label = ORGAN_IDS[organ]
        own = [found[label - 1] for found in boxes]
        if None in own:
            continue
        masks = [array[box] == label for array, box in zip(arrays, own, strict=True)]
        surfaces = [_surface_mm(mask, box) for mask, box in zip(masks, own, strict=True)]
        mean, p95 = surface_distances_mm(*surfaces)
        volumes = [float(np.count_nonzero(mask)) * voxel_volume_ml(grid) for mask in masks]
        result[organ] = Agreement(*volumes, float(overlap.GetDiceCoefficient(label)), mean, p95)
    return result


def surface_distances_mm(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """How far two surfaces are apart, each given by points (N, 3) in mm, neither empty.

    Returns:
        Mean over the points of both of the distance to the nearest point of the other, and the 95th percentile of it,
        the larger of the two directions (the robust Hausdorff distance).
    """
    there, back = scipy.spatial.cKDTree(b).query(a)[0], scipy.spatial.cKDTree(a).query(b)[0]
    return float(np.concatenate([there, back]).mean()), float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _counts(organ: str, agreement: Agreement) -> bool:
    return organ not in FILLING and agreement.size_ml >= SMALLEST_ML


def _compare(
    reference: Scan, scan: Scan, folder: PatientFolder, fit: Mapping[str, Any]
) -> tuple[dict[str, Agreement], str | None]:
    """The organs of a scan against those of the reference, and why there are none."""
    if fit["method"] == SAME_SCAN:
        return {}, "the reference scan itself"
    if fit["reason"]:
        return {}, "nothing was aligned"
    without = [one.scan for one in (reference, scan) if not folder.organs(one.scan).exists()]
    if without:
        return {}, f"no organ labels of {' and '.join(without)}"
    common = set.intersection(*(set(whole_organs(folder.organ_table(s.scan))["organ"]) for s in (reference, scan)))
    transforms = [read_transform(path(scan.scan)) for path in (folder.to_scan, folder.to_reference)]
    images = [read_beside_emission(folder, one.scan, folder.organs(one.scan)) for one in (reference, scan)]
    return compare_organs(*images, *transforms, [organ for organ in ORGAN_IDS if organ in common]), None


def _labelled_part(labels: sitk.Image) -> sitk.Image | None:
    """The box of all voxels that are not 0; None where all are."""
    view = sitk.GetArrayViewFromImage(labels)
    found = [np.flatnonzero(view.any(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]
    if not len(found[0]):
        return None
    size = [int(line[-1] - line[0]) + 1 for line in found]
    return sitk.RegionOfInterest(labels, size, [int(line[0]) for line in found])


def _surface_mm(mask: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """Positions (N, 3) in mm on the grid of 3 mm of the voxels of a mask that have a face outside of it."""
    outermost = mask & ~scipy.ndimage.binary_erosion(mask)
    return (np.argwhere(outermost) + [part.start for part in box]) * ORGAN_MM
