"""What is measured of a lesion on one scan, on that scan's own voxels: uptake, size, place and background.

Functions take the emission image as an array (z, y, x), a `Region` on the same grid and the grid itself; they
read the lesion's surroundings only, never the whole image. Organ labels have been brought to the emission
grid before.
"""

import logging
import math
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from theraflow.images import voxel_volume_ml
from theraflow.lesions.peak import ibsi_peaks, percist_peak
from theraflow.lesions.region import Region, centroid_mm, distance_outside, spacing_zyx, surroundings
from theraflow.organs import GROUPS, ORGAN_IDS, organ_mask

log = logging.getLogger(__name__)

# Of each background organ its name in the segmentation and how far inside its edge a voxel must lie: beyond
# the blur of a PET (FWHM about 6 mm), farther in the liver, which moves with breathing and is large enough to
# give it.
BACKGROUND_ORGANS = {
    "blood_pool": ("aorta", 4.0),
    "liver": ("liver", 10.0),
    "gluteal_muscle": ("gluteus_maximus", 5.0),
}
SHELL = "shell"
BACKGROUNDS = (*BACKGROUND_ORGANS, SHELL)
AWAY_FROM_LESIONS_MM = 10.0  # a background organ's voxel must be farther than this from every lesion
SHELL_GAP_MM, SHELL_THICKNESS_MM = 5.0, 10.0  # between the lesions' blur and tissue that is no longer local
MINIMUM_BACKGROUND_ML = 1.0


def uptake(values: np.ndarray, region: Region, grid: sitk.Image) -> dict[str, float]:
    """SUVmax, mean, the three peaks, and TLG of a lesion.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        region: the lesion, not empty, within the image.
        grid: the image's geometry.

    Returns:
        `suv_max`, `suv_mean`, `suv_peak` (PERCIST), `suv_peak_ibsi_local`, `suv_peak_ibsi_global` in g/mL and
        `tlg_ml` = mean x volume in g/mL x mL.
    """
    inside = values[region.box][region.mask].astype(float)
    spacing = spacing_zyx(grid)
    local, highest = ibsi_peaks(values, region, spacing)
    return {
        "suv_max": float(inside.max()),
        "suv_mean": float(inside.mean()),
        "suv_peak": percist_peak(values, region, spacing),
        "suv_peak_ibsi_local": local,
        "suv_peak_ibsi_global": highest,
        "tlg_ml": float(inside.sum()) * voxel_volume_ml(grid),
    }


def geometry(region: Region, grid: sitk.Image) -> dict[str, float]:
    """Volume in mL, centroid in LPS mm, longest axial diameter and short axis in mm of a lesion."""
    x, y, z = centroid_mm(region, grid).tolist()
    longest, short = axial_diameters(region, grid)
    volume = region.voxels * voxel_volume_ml(grid)
    return {"volume_ml": volume, "x_mm": x, "y_mm": y, "z_mm": z,
            "longest_diameter_mm": longest, "short_axis_mm": short}  # fmt: skip


def axial_diameters(region: Region, grid: sitk.Image) -> tuple[float, float]:
    """Longest diameter in any axial slice, and the extent perpendicular to it in that slice, both in mm.

    Measured between the points where the outline crosses the lines that join voxel centres (those of marching
    squares), so that a disc has on average its true diameter. Axial slices are those of the array's axis that
    is closest to the patient's long axis.
    """
    along = int(np.argmax(np.abs(np.array(grid.GetDirection()).reshape(3, 3)[2])))
    slices = np.moveaxis(region.mask, 2 - along, 0)
    spacing = np.delete(spacing_zyx(grid), 2 - along)
    return max(_diameters(piece, spacing) for piece in slices if piece.any())


def _diameters(mask: np.ndarray, spacing: np.ndarray) -> tuple[float, float]:
    padded = np.pad(mask, 1).astype(np.int8)
    crossings = [np.argwhere(np.diff(padded, axis=axis)) + 0.5 * np.eye(2)[axis] for axis in (0, 1)]
    points = np.concatenate(crossings) * spacing
    outline = points[ConvexHull(points).vertices]
    distances = squareform(pdist(outline))
    a, b = np.unravel_index(np.argmax(distances), distances.shape)
    along = (outline[b] - outline[a]) / distances[a, b]
    across = outline @ np.array([-along[1], along[0]])
    return float(distances[a, b]), float(np.ptp(across))


@dataclass(frozen=True)
class Background:
    """Mean uptake of a reference tissue: its name, mean in the unit of the image, and volume in mL."""

    region: str
    mean: float
    volume_ml: float


def organs_of_background(name: str) -> tuple[str, ...]:
    """The organs that the background `name` of `BACKGROUND_ORGANS` is made of."""
    organ, _ = BACKGROUND_ORGANS[name]
    return GROUPS.get(organ, (organ,))


def organ_background(
    name: str,
    values: np.ndarray,
    organs: np.ndarray,
    lesions: np.ndarray,
    grid: sitk.Image,
    without: Collection[str] = (),
) -> Background | None:
    """Mean of a background organ, away from its edge and from lesions; None, with a warning, if too small.

    Args:
        name: `blood_pool` (lumen of the aorta), `liver` or `gluteal_muscle`.
        values: the emission image, shape (z, y, x).
        organs: organ labels on the same grid.
        lesions: bool on the same grid, True in any lesion.
        grid: the image's geometry.
        without: organs that must not be used, for they are not plausible.
    """
    _, inside_mm = BACKGROUND_ORGANS[name]
    usable = [organ for organ in organs_of_background(name) if organ not in without]
    region = Region.of(organ_mask(organs, *usable))
    spacing = spacing_zyx(grid)
    box = surroundings(region, values.shape, spacing, AWAY_FROM_LESIONS_MM)
    mask = region.on_box(box)
    # Distances are between voxel centres; the organ's edge lies half a voxel before the first centre outside.
    deep = ndimage.distance_transform_edt(mask, sampling=spacing) - spacing.min() / 2.0 > inside_mm
    chosen = deep & (distance_outside(lesions[box], spacing) > AWAY_FROM_LESIONS_MM)
    return _mean(name, values[box], chosen, grid)


def shell_background(
    values: np.ndarray, region: Region, lesions: np.ndarray, physiologic: np.ndarray | None, grid: sitk.Image
) -> Background | None:
    """Mean of a shell around the lesion, 5 to 15 mm from it; None, with a warning, if nothing is left.

    Organs with physiologic uptake of the tracer are left out, so that a bladder nearby is no background; a
    lesion inside such an organ is compared with that organ.

    Args:
        values: the emission image, shape (z, y, x).
        region: the lesion, not empty.
        lesions: bool on the same grid, True in any lesion; their surroundings of 5 mm are left out.
        physiologic: bool on the same grid, True in organs with physiologic uptake; None where organs are
            unknown.
        grid: the image's geometry.
    """
    spacing = spacing_zyx(grid)
    box = surroundings(region, values.shape, spacing, SHELL_GAP_MM + SHELL_THICKNESS_MM)
    itself = region.on_box(box)
    near = distance_outside(itself, spacing) <= SHELL_GAP_MM + SHELL_THICKNESS_MM
    chosen = near & (distance_outside(lesions[box] | itself, spacing) > SHELL_GAP_MM)
    if physiologic is not None and not (itself & physiologic[box]).any():
        chosen &= ~physiologic[box]
    return _mean(SHELL, values[box], chosen, grid)


def _mean(name: str, values: np.ndarray, chosen: np.ndarray, grid: sitk.Image) -> Background | None:
    volume = int(np.count_nonzero(chosen)) * voxel_volume_ml(grid)
    if volume < MINIMUM_BACKGROUND_ML:
        log.warning("Background %s: only %.2f mL are left after erosion and without lesions; it is NA.", name, volume)
        return None
    return Background(name, float(values[chosen].mean(dtype=float)), volume)


BONES = ("vertebrae", "sacrum", "rib", "hip", "femur", "humerus", "scapula", "clavicula", "sternum", "skull",
         "costal")  # fmt: skip
MUSCLES = ("gluteus", "autochthon", "iliopsoas")
# What a reader's name of a lesion says about its site.
SITE_WORDS = {
    "lymph node": r"lymph|nod(e|al)|\bln\b",
    "liver": r"liver|hepat",
    "spleen": r"spleen|splenic",
    "lung": r"lung|pulmon",
    "bone": r"bone|osse",
    "peritoneum": r"periton|oment",
    "soft tissue": r"soft[ _-]?tissue",
}


def site_of(region: Region, organs: np.ndarray | None, annotation: str | None = None) -> str | None:
    """Where a lesion lies: as the reader's name says, else the organ that holds half of it, else None.

    Bones are `bone`, lung lobes `lung`, muscles `soft tissue`, other organs bear their own names. Lymph nodes
    and the peritoneum are in no organ's label, so only a reader can say them; what lies in no organ stays
    None.

    Args:
        region: the lesion, within the grid, not empty.
        organs: organ labels on the same grid, or None.
        annotation: the reader's name of the lesion, or None.
    """
    words = re.sub(r"[_\d]+", " ", annotation or "").lower()
    for site, pattern in SITE_WORDS.items():
        if re.search(pattern, words):
            return site
    if organs is None:
        return None
    volumes: dict[str, int] = {}
    for organ, voxels in _voxels_in_organs(region, organs).items():
        site = _site_of_organ(organ)
        volumes[site] = volumes.get(site, 0) + voxels
    site = max(volumes, key=volumes.__getitem__, default=None)
    return site if site and volumes[site] >= math.ceil(region.voxels / 2) else None


def organ_at_site(region: Region, organs: np.ndarray | None, site: str | None) -> str | None:
    """The one organ of a lesion's site, as `ORGAN_IDS` names it.

    A site that is one organ (`liver`, also by the reader's word) is that organ. Of a site of many organs (`bone`,
    `lung`, `soft tissue`) it is the one that holds half of the lesion. Nodes and the peritoneum have none.

    Args:
        region: the lesion, within the grid, not empty.
        organs: organ labels on the same grid, or None.
        site: as `site_of` gives it.
    """
    if organs is None or site is None:
        return None
    name = site.replace(" ", "_")
    if name in ORGAN_IDS:
        return name
    voxels = {organ: n for organ, n in _voxels_in_organs(region, organs).items() if _site_of_organ(organ) == site}
    organ = max(voxels, key=voxels.__getitem__, default=None)
    return organ if organ and voxels[organ] >= math.ceil(region.voxels / 2) else None


def _voxels_in_organs(region: Region, organs: np.ndarray) -> dict[str, int]:
    counts = np.bincount(organs[region.box][region.mask])
    return {_NAMES[label]: int(counts[label]) for label in np.flatnonzero(counts).tolist() if label in _NAMES}


_NAMES = {label: name for name, label in ORGAN_IDS.items()}


def _site_of_organ(name: str) -> str:
    if name.startswith(BONES):
        return "bone"
    if name.startswith("lung"):
        return "lung"
    return "soft tissue" if name.startswith(MUSCLES) else name.replace("_", " ")
