"""Which lesion is which: one lesion through all scans of a patient.

Every scan's regions are carried to the reference scan's space and there matched with the lesions known so
far, scan by scan, by an optimal assignment (the Hungarian method). A pair costs the distance of the
centroids, less where the regions overlap; pairs too far apart and without overlap are not allowed. Two
regions of one scan never become one lesion. What matches nothing is a new lesion.

A scan whose registration has failed has no place in the reference scan's space. Its regions are matched by organ and
distance only: the same site, in the same organ, and positions relative to the centre of that organ, each in its own
scan, that are not too far apart. What lies in no organ is then a new lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from theraflow.lesions.region import Region

# Two regions of which the smaller lies to this part in the other may be one lesion however far their
# centroids are apart: a mass that grew, shrank or was outlined more widely.
SUFFICIENT_OVERLAP = 0.25
BY_POSITION, BY_ORGAN = "position", "organ and distance"


@dataclass(frozen=True)
class Observation:
    """A region that a scan itself shows.

    Attributes:
        scan: the scan's name.
        region: on the scan's emission grid.
        in_reference: carried to the reference scan's emission grid (or its continuation); None where the registration
            of the scan has failed.
        centroid_mm: of `in_reference`, x y z in LPS mm of the reference scan; without it of `region`, of the scan
            itself.
        source: `reader` or `candidate`.
        annotation: the reader's name for it, or None.
        site: where it lies, or None.
        organ: the organ it lies in, or None where there is none whose centre is known.
        from_organ_mm: from the centre of that organ to that of `region`, x y z in LPS mm of the scan itself, or None.
        matched_by: how it was found to be a lesion known before, `position` or `organ and distance`; None where it is
            the first of its lesion.
    """

    scan: str
    region: Region
    in_reference: Region | None
    centroid_mm: np.ndarray
    source: str
    annotation: str | None = None
    site: str | None = None
    organ: str | None = None
    from_organ_mm: np.ndarray | None = None
    matched_by: str | None = None


Lesion = dict[str, Observation]  # by scan


def follow(observations: Sequence[Sequence[Observation]], match_distance_mm: float) -> list[Lesion]:
    """Join the observations of all scans into lesions.

    Args:
        observations: for every scan, in the order in which scans name new lesions, what it shows.
        match_distance_mm: centroids farther apart are not matched, unless the regions overlap. By organ and distance it
            is the farthest that the positions relative to the organ may be apart.

    Returns:
        The lesions in the order of their names: by the first scan that shows them, therein from head to feet,
        from the patient's right to the left, from front to back.
    """
    lesions: list[Lesion] = []
    for found in observations:
        matched = match(lesions, found, match_distance_mm)
        fresh = []
        for index, observation in enumerate(found):
            if index in matched:
                lesion = lesions[matched[index]]
                lesion[observation.scan] = replace(observation, matched_by=_way(lesion, observation))
            else:
                fresh.append(observation)
        fresh.sort(key=lambda o: (-o.centroid_mm[2], o.centroid_mm[0], o.centroid_mm[1]))
        lesions.extend({observation.scan: observation} for observation in fresh)
    return lesions


def match(lesions: Sequence[Lesion], found: Sequence[Observation], match_distance_mm: float) -> dict[int, int]:
    """Optimal assignment of a scan's observations to known lesions: index of observation -> of lesion."""
    if not lesions or not found:
        return {}
    # What a pair saves against leaving both alone, at least nothing; so the greatest saving needs no dummies.
    saving = np.array([[_saving_of_lesion(lesion, new, match_distance_mm) for lesion in lesions] for new in found])
    saving = saving.clip(min=0.0)
    rows, columns = linear_sum_assignment(saving, maximize=True)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if saving[i, j] > 0.0}


def _way(lesion: Lesion, new: Observation) -> str:
    """By position where both the new and any earlier observation have a place in the reference scan's space."""
    placed = new.in_reference is not None and any(seen.in_reference is not None for seen in lesion.values())
    return BY_POSITION if placed else BY_ORGAN


def _saving_of_lesion(lesion: Lesion, new: Observation, match_distance_mm: float) -> float:
    # What positions say rules: organs are asked only where no two positions can be compared.
    if _way(lesion, new) == BY_POSITION:
        placed = [seen for seen in lesion.values() if seen.in_reference is not None]
        return max(_saving(seen, new, match_distance_mm) for seen in placed)
    return max(_saving_by_organ(seen, new, match_distance_mm) for seen in lesion.values())


def _saving_by_organ(a: Observation, b: Observation, match_distance_mm: float) -> float:
    if None in (a.site, b.site, a.organ, b.organ) or (a.site, a.organ) != (b.site, b.organ):
        return 0.0
    return match_distance_mm - float(np.linalg.norm(a.from_organ_mm - b.from_organ_mm))


def _saving(a: Observation, b: Observation, match_distance_mm: float) -> float:
    distance = float(np.linalg.norm(a.centroid_mm - b.centroid_mm))
    common = overlap_voxels(a.in_reference, b.in_reference)
    sizes = a.in_reference.voxels, b.in_reference.voxels
    dice = 2.0 * common / sum(sizes)
    saving = match_distance_mm - distance * (1.0 - dice)
    # Overlap alone allows a pair; it must then save something, the more the better they overlap.
    return max(saving, 0.01 * match_distance_mm * dice) if common >= SUFFICIENT_OVERLAP * min(sizes) else saving


def overlap_voxels(a: Region, b: Region) -> int:
    """Number of voxels that two regions of one grid have in common."""
    low = [max(i, j) for i, j in zip(a.start, b.start, strict=True)]
    high = [min(i, j) for i, j in zip(a.stop, b.stop, strict=True)]
    if any(i >= j for i, j in zip(low, high, strict=True)):
        return 0
    box = tuple(slice(i, j) for i, j in zip(low, high, strict=True))
    return int(np.count_nonzero(a.on_box(box) & b.on_box(box)))
