"""Where a lesion ends: touching lesions are divided, and each is outlined by a rule.

- `threshold`: what lies above the rule that found it.
- `percent_of_maximum`: connected voxels of at least so many percent of SUVmax (41 and 50 are usual).
- `percent_of_contrast`: the same of the way from the uptake around it to SUVpeak (A50 of the EANM guideline: Boellaard
  et al., Eur J Nucl Med Mol Imaging 2015;42:328).
- `gradient`: the watershed of the gradient's magnitude between its core and what surely lies outside (Geets et al., Eur
  J Nucl Med Mol Imaging 2007;34:1427, without their denoising and deblurring).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk
import skimage

from theraflow.images import FWHM_PER_SD
from theraflow.lesions.peak import percist_peak
from theraflow.lesions.region import CONNECTED, Box, Region, distance_outside, moved, spacing_zyx, surroundings

THRESHOLD, MAXIMUM, CONTRAST, GRADIENT = "threshold", "percent_of_maximum", "percent_of_contrast", "gradient"
METHODS = (THRESHOLD, MAXIMUM, CONTRAST, GRADIENT)

SMOOTHING_MM = 6.0  # FWHM: hot spots are told from noise on an image smoothed by about the resolution of a PET
SADDLE = 0.7  # two hot spots are two lesions if the way between them falls below this part of the lesser one
TIE_BREAK = 1e-6  # of equal hot spots the last one in the array counts as hotter by up to this fraction
GROWTH_MM = 15.0  # no outline reaches farther beyond what lies above the rule
RING_MM = (5.0, 10.0)  # the uptake around a lesion is read between these distances from what lies above the rule
CLICK_MM = 10.0  # a click means the hottest voxel within this distance
CLICK_REACH_MM = 40.0  # what it grows to below the rule lies within this distance
CORE = 0.7  # part of SUVmax that surely lies inside


@dataclass(frozen=True)
class Outline:
    """How a lesion is outlined: one of `METHODS`, with the percentage where it has one."""

    method: str = THRESHOLD
    percent: float | None = None


def split(values: np.ndarray, region: Region, grid: sitk.Image) -> list[Region]:
    """The parts of a region, one for each hot spot; the region itself where there is one.

    Two hot spots are two where on every way between them the smoothed uptake falls below 70 % of the lesser one; the
    border is the watershed between them.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        region: within the image, not empty.
        grid: the image's geometry.
    """
    spacing = spacing_zyx(grid)
    box = surroundings(region, values.shape, spacing, SMOOTHING_MM)
    smooth = scipy.ndimage.gaussian_filter(values[box].astype(float), SMOOTHING_MM / FWHM_PER_SD / spacing)
    mask = region.on_box(box)
    # On a logarithmic scale a valley of 70 % has the same depth everywhere.
    heights = np.where(mask, np.log(np.maximum(smooth, 1e-6)), -np.inf)
    # Equal peaks, as phantoms have them, would each be a maximum, however shallow the valley between them.
    heights += np.linspace(0.0, TIE_BREAK, heights.size).reshape(heights.shape)
    heights[~mask] = heights[mask].min() - 1.0
    tops, count = scipy.ndimage.label(
        skimage.morphology.h_maxima(heights, -math.log(SADDLE)) * mask, structure=CONNECTED
    )
    if count < 2:
        return [region]
    parts = skimage.segmentation.watershed(-smooth, tops, connectivity=CONNECTED, mask=mask)
    start = tuple(part.start for part in box)
    return [moved(Region.of(parts == number), start) for number in range(1, count + 1)]


def outlined(values: np.ndarray, regions: Sequence[Region], grid: sitk.Image, outline: Outline) -> list[Region]:
    """The outlines of lesions of which a rule has found the regions.

    An outline never enters another region. Where the method finds no end within 15 mm, as
    with little contrast, it is the region itself.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        regions: disjoint, within the image, none empty.
        grid: the image's geometry.
        outline: the method.
    """
    if outline.method == THRESHOLD:
        return list(regions)
    return [_outlined(values, regions, number, grid, outline) for number in range(1, len(regions) + 1)]


def _outlined(values: np.ndarray, regions: Sequence[Region], number: int, grid: sitk.Image, outline: Outline) -> Region:
    """The outline of one of the regions, by its number from 1 on."""
    region, spacing = regions[number - 1], spacing_zyx(grid)
    box = surroundings(region, values.shape, spacing, GROWTH_MM)
    local, others, itself = values[box].astype(float), _numbered(regions, box), region.on_box(box)
    distance = distance_outside(itself, spacing)
    free = distance <= GROWTH_MM
    maximum = local[itself].max()
    if outline.method == GRADIENT:
        found = _by_gradient(local, itself, others, number, free, spacing)
    else:
        floor = 0.0
        if outline.method == CONTRAST:
            ring = free & (others == 0) & (distance > RING_MM[0]) & (distance <= RING_MM[1])
            floor = float(local[ring].mean()) if ring.any() else 0.0
            maximum = percist_peak(values, region, spacing)
        threshold = floor + outline.percent / 100.0 * (maximum - floor)
        # Each lesion's flank belongs to it: the watershed keeps an outline from running around its neighbour.
        parts = skimage.segmentation.watershed(-local, others, connectivity=CONNECTED, mask=free & (local >= threshold))
        found = parts == number
    found = _piece_at(found, np.where(itself, local, -np.inf))
    leaks = (found & (distance > GROWTH_MM - spacing.max())).any()
    if leaks or not found.any():
        return region
    return moved(Region.of(found), tuple(part.start for part in box))


def _numbered(regions: Sequence[Region], box: Box) -> np.ndarray:
    """The numbers of regions, from 1 on, in their voxels of a box; elsewhere 0."""
    numbers = np.zeros([part.stop - part.start for part in box], dtype=np.int32)
    for number, region in enumerate(regions, start=1):
        if all(a < part.stop and part.start < b for a, b, part in zip(region.start, region.stop, box, strict=True)):
            numbers[region.on_box(box)] = number
    return numbers


def _by_gradient(
    local: np.ndarray, itself: np.ndarray, others: np.ndarray, number: int, free: np.ndarray, spacing: np.ndarray
) -> np.ndarray:
    steepness = scipy.ndimage.gaussian_gradient_magnitude(local, SMOOTHING_MM / 2.0 / FWHM_PER_SD / spacing)
    markers = np.where((others != 0) & (others != number), 2, 0)
    markers[~free] = 2
    markers[distance_outside(itself, spacing) > RING_MM[1]] = 2
    markers[itself & (local >= CORE * local[itself].max())] = 1
    return skimage.segmentation.watershed(steepness, markers, connectivity=CONNECTED) == 1


def _piece_at(mask: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The connected part of `mask` that holds the highest of `heights`; empty where that lies outside."""
    labels, _ = scipy.ndimage.label(mask, structure=CONNECTED)
    label = labels[np.unravel_index(np.argmax(heights), heights.shape)]
    return (labels == label) & (label > 0)


def reaching(values: np.ndarray, box: Box, level_suv: float, own_levels: Sequence[tuple[Region, float]]) -> np.ndarray:
    """Which voxels of a box reach the rule: bool, of the shape of the box.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        box: within the image.
        level_suv: what uptake has to reach.
        own_levels: regions within the image, and what uptake has to reach there besides.
    """
    above = values[box] >= level_suv
    for region, suv in own_levels:
        low = [max(part.start, a) for part, a in zip(box, region.start, strict=True)]
        high = [min(part.stop, b) for part, b in zip(box, region.stop, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            here = tuple(slice(a - p.start, b - p.start) for a, b, p in zip(low, high, box, strict=True))
            above[here] &= ~region.on_box(there) | (values[there] >= suv)
    return above


def grown_from(
    values: np.ndarray,
    grid: sitk.Image,
    point_mm: np.ndarray,
    level_suv: float,
    outline: Outline,
    own_levels: Sequence[tuple[Region, float]] = (),
) -> Region | None:
    """The lesion that a point means: grown from the hottest voxel within 10 mm.

    Where that voxel reaches the rule, its lesion is the part that belongs to it of what is connected above the rule,
    outlined as candidates are. Where it does not, as when a reader sees what a rule cannot, the lesion is what reaches
    half of the way from the uptake around to the voxel's.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        grid: the image's geometry.
        point_mm: x y z in LPS mm, within the image.
        level_suv: what uptake has to reach by the tracer's rule; infinite where it has none.
        outline: how the tracer's candidates are outlined.
        own_levels: regions, and what uptake has to reach there besides: organs of which a lesion has to stand out.

    Returns:
        None where nothing stands out at the point.
    """
    spacing = spacing_zyx(grid)
    voxel = grid.TransformPhysicalPointToIndex(point_mm.tolist())[::-1]
    point = Region(voxel, np.ones((1, 1, 1), dtype=bool))
    near = surroundings(point, values.shape, spacing, CLICK_MM)
    close = distance_outside(point.on_box(near), spacing) <= CLICK_MM
    hottest = np.argmax(np.where(close, values[near], -np.inf))
    top = moved(point, np.subtract(np.add(np.unravel_index(hottest, close.shape), [p.start for p in near]), voxel))
    if reaching(values, top.box, level_suv, own_levels).all():
        whole = _connected_at(top, values, spacing, level_suv, own_levels)
        parts = split(values, whole, grid)
        number = next(number for number, part in enumerate(parts, start=1) if part.on_box(top.box).any())
        return parts[number - 1] if outline.method == THRESHOLD else _outlined(values, parts, number, grid, outline)
    box = surroundings(top, values.shape, spacing, CLICK_REACH_MM)
    local, seed, maximum = values[box].astype(float), top.on_box(box), float(values[top.box].item())
    ring = distance_outside(seed, spacing) > CLICK_REACH_MM - RING_MM[1]
    floor = float(np.median(local[ring])) if ring.any() else 0.0
    found = _piece_at(local >= (floor + maximum) / 2.0, seed)
    return None if maximum <= floor or (found & ring).any() else moved(Region.of(found), [part.start for part in box])


def _connected_at(
    seed: Region,
    values: np.ndarray,
    spacing: np.ndarray,
    level_suv: float,
    own_levels: Sequence[tuple[Region, float]],
) -> Region:
    """What is connected with a voxel above the rule, searched in a box that grows until it holds all of it."""
    reach_mm = CLICK_REACH_MM
    while True:
        box = surroundings(seed, values.shape, spacing, reach_mm)
        piece = _piece_at(reaching(values, box, level_suv, own_levels), seed.on_box(box))
        found = moved(Region.of(piece), [part.start for part in box])
        if all(
            (part.start == 0 or part.start < a) and (part.stop == n or b < part.stop)
            for part, a, b, n in zip(box, found.start, found.stop, values.shape, strict=True)
        ):
            return found
        reach_mm *= 2.0
