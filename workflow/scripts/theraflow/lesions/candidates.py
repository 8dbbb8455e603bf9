"""Candidates: uptake above a tracer's rule that no organ explains, each with the reason why it was kept or left out.

The rule of a tracer is one SUV for the whole image: fixed, or made from the scan's own liver or blood pool, or the
highest or lowest of these. It does not hold in an organ whose uptake is physiologic, nor in the margin that this uptake
spills into: such an organ either hides what lies in it, or shows only what stands out of its own uptake. What is
connected is divided where a valley parts two hot spots (`outline.split`), and then outlined (`outline.outlined`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.images import voxel_volume_ml
from theraflow.lesions.outline import Outline, outlined, reaching, split
from theraflow.lesions.region import CONNECTED, Region, distance_outside, regions_of, spacing_zyx, surroundings
from theraflow.organs import organ_mask

SPILL_OUT_MM = 8.0  # a hot bladder stands above the threshold this far beyond its wall
SKELETON = "skeleton"
REFERENCES = ("liver", "blood_pool")  # tissues that a rule may be made of
MEDIAN_DEVIATION = 0.6744897501960817  # median absolute deviation of a normal distribution of standard deviation 1
INSIDE_MM = 5.0  # what an organ itself takes up is read this far inside its outline, beyond the blur of a PET


@dataclass(frozen=True)
class Candidate:
    """Connected uptake above the rule.

    Attributes:
        region: on the emission grid.
        kept: whether it is a lesion where no reader says otherwise.
        reason: why it was kept or left out.
    """

    region: Region
    kept: bool
    reason: str


@dataclass(frozen=True)
class Level:
    """An SUV (g/mL) that uptake has to reach, and in words where it comes from."""

    suv: float
    reason: str


@dataclass(frozen=True)
class OwnUptake:
    """What an organ takes up itself: median, standard deviation in g/mL (both robust against lesions in it)."""

    organ: str
    median: float
    sd: float

    def times(self, factor: float, plus_sd: float) -> Level:
        """`factor` times the median and `plus_sd` standard deviations more."""
        suv = factor * self.median + plus_sd * self.sd
        words = f"{factor:g} x {self.median:.2f} + {plus_sd:g} x {self.sd:.2f} of {self.organ.replace('_', ' ')}"
        return Level(suv, f"{suv:.2f} ({words})")


@dataclass(frozen=True)
class Physiologic:
    """An organ with physiologic uptake of a tracer, where it lies in an image.

    Attributes:
        organ: its name.
        near: the organ and the margin that its uptake spills into, on the emission grid.
        level: what uptake therein has to reach to be a candidate; None: nothing is one.
        doubt: why its labels are not plausible; None where they are.
    """

    organ: str
    near: Region
    level: Level | None
    doubt: str | None = None


def own_uptake(values: np.ndarray, organs: np.ndarray, name: str, grid: sitk.Image) -> OwnUptake | None:
    """Median and standard deviation of an organ, 5 mm inside its outline; None where nothing is that deep.

    The standard deviation is 1.4826 times the median absolute deviation, which is that of a normal distribution: with
    less than a quarter of the organ in lesions, neither value follows them.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        organs: organ labels on the same grid.
        name: organ or group, as `theraflow.organs.organ_mask` knows it.
        grid: the image's geometry.
    """
    region = Region.of(organ_mask(organs, name))
    spacing = spacing_zyx(grid)
    mask = np.pad(region.mask, 1)
    deep = scipy.ndimage.distance_transform_edt(mask, sampling=spacing)[1:-1, 1:-1, 1:-1] > INSIDE_MM
    inside = values[region.box][deep]
    if not inside.size:
        return None
    median = np.median(inside)
    return OwnUptake(name, float(median), float(np.median(np.abs(inside - median)) / MEDIAN_DEVIATION))


def physiologic_organs(
    values: np.ndarray,
    organs: np.ndarray,
    entries: Sequence[str | Mapping[str, Any]],
    grid: sitk.Image,
    unlabelled_bone: np.ndarray | None = None,
) -> list[Physiologic]:
    """The organs of a tracer's `physiologic` that an image shows, those that hide everything first.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        organs: organ labels on the same grid.
        entries: an organ's name, or a mapping with `organ`, and optionally `margin_mm` and `inside` (`times`,
            `plus_sd`): lesions in this organ are those that reach so much of its own uptake. An organ too small to say
            what it takes up itself hides what lies in it.
        grid: the image's geometry.
        unlabelled_bone: bool on the same grid, True where the CT shows bone without a label; it is part of `skeleton`,
            for marrow beyond what the segmentation knows would be candidates.

    Raises:
        TheraflowError: no organ and no group has that name.
    """
    found = []
    for known in map(_entry, entries):
        mask = organ_mask(organs, known["organ"])
        if known["organ"] == SKELETON and unlabelled_bone is not None:
            mask |= unlabelled_bone
        organ = Region.of(mask)
        if not organ.voxels:
            continue
        margin = known.get("margin_mm", SPILL_OUT_MM)
        box = surroundings(organ, values.shape, spacing_zyx(grid), margin)
        near = distance_outside(organ.on_box(box), spacing_zyx(grid)) <= margin
        own = own_uptake(values, organs, known["organ"], grid) if "inside" in known else None
        level = own.times(**_factors(known["inside"])) if own else None
        found.append(Physiologic(known["organ"], Region(tuple(part.start for part in box), near), level))
    return sorted(found, key=lambda organ: organ.level is not None)


def names_of(entries: Sequence[str | Mapping[str, Any]]) -> list[str]:
    """The organs that a tracer's `physiologic` names."""
    return [_entry(entry)["organ"] for entry in entries]


def _entry(entry: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"organ": entry} if isinstance(entry, str) else entry


def rule_level(rule: Mapping[str, Any], references: Mapping[str, OwnUptake | None]) -> Level | None:
    """What uptake has to reach outside of physiologic organs; None where this scan cannot tell.

    Args:
        rule: of one tracer: `threshold_suv`, `liver`, `blood_pool` (the latter with `times` and `plus_sd`), any of
            them; of several the `highest` or the `lowest` counts, as `combine` says (PERCIST 1.0: liver 1.5 and 2 sd;
            blood pool, where the liver is diseased, 2.0 and 2 sd: Wahl et al., J Nucl Med 2009;50 Suppl 1:122S).
        references: what liver and blood pool take up; None where the scan does not tell.
    """
    levels = []
    if "threshold_suv" in rule:
        levels.append(Level(rule["threshold_suv"], f"{rule['threshold_suv']:g} (fixed)"))
    wanted = [name for name in REFERENCES if name in rule]
    levels += [references[name].times(**_factors(rule[name])) for name in wanted if references[name]]
    if not levels:
        return None
    chosen = (min if rule["combine"] == "lowest" else max)(levels, key=lambda level: level.suv)
    missing = [name.replace("_", " ") for name in wanted if not references[name]]
    return Level(chosen.suv, chosen.reason + (f"; {' and '.join(missing)} not measurable" if missing else ""))


def _factors(part: Mapping[str, float]) -> dict[str, float]:
    return {"factor": part["times"], "plus_sd": part["plus_sd"]}


def find_candidates(
    values: np.ndarray,
    grid: sitk.Image,
    level: Level,
    minimum_ml: float,
    outline: Outline,
    physiologic: Sequence[Physiologic] = (),
) -> list[Candidate]:
    """Everything connected (26 neighbours) that reaches the rule and has `minimum_ml` of volume, kept or left out.

    Args:
        values: SUV in g/mL, shape (z, y, x).
        grid: the image's geometry.
        level: what uptake has to reach outside of physiologic organs, see `rule_level`.
        minimum_ml: smallest volume of a candidate, of what lies above the rule.
        outline: how candidates that are kept are outlined.
        physiologic: see `physiologic_organs`.

    Returns:
        First those that are kept, then those in organs that hide them, in the order of their first voxel in the array.
    """
    everywhere = tuple(slice(0, n) for n in values.shape)
    above = reaching(values, everywhere, level.suv, own_levels(physiologic))
    parts = _components(above, grid, minimum_ml)
    pieces = [piece for part in parts for piece in split(values, part, grid) if _ml(piece, grid) >= minimum_ml]
    verdicts = [_judge(values, piece, level, physiologic) for piece in pieces]
    regions = outlined(values, pieces, grid, outline)
    kept = [Candidate(region, True, reason) for region, (keep, reason) in zip(regions, verdicts, strict=True) if keep]
    left_out = [
        Candidate(piece, False, reason) for piece, (keep, reason) in zip(pieces, verdicts, strict=True) if not keep
    ]
    return kept + left_out


def own_levels(physiologic: Sequence[Physiologic]) -> list[tuple[Region, float]]:
    """Where lesions have to stand out of an organ's own uptake, and the SUV (g/mL) that they have to reach there."""
    return [(organ.near, organ.level.suv) for organ in physiologic if organ.level is not None]


def _components(mask: np.ndarray, grid: sitk.Image, minimum_ml: float) -> list[Region]:
    """Connected parts of at least `minimum_ml`, in the order of their first voxel."""
    labels, count = scipy.ndimage.label(mask, structure=CONNECTED)
    large = np.bincount(labels[mask], minlength=count + 1) * voxel_volume_ml(grid) >= minimum_ml
    large[0] = False  # what is not in the mask
    # Noise has tens of thousands of parts: only the large ones become regions.
    numbers = np.where(large, np.cumsum(large), 0).astype(labels.dtype)
    labels[mask] = numbers[labels[mask]]
    return regions_of(labels, int(large.sum()))


def _ml(region: Region, grid: sitk.Image) -> float:
    return region.voxels * voxel_volume_ml(grid)


def _judge(values: np.ndarray, region: Region, level: Level, physiologic: Sequence[Physiologic]) -> tuple[bool, str]:
    """Whether a piece is kept, and why.

    What is connected belongs to its hottest voxel: where that lies in an organ that hides what is in it, the whole
    piece is the organ's uptake, beyond its margin too (a bladder's label may end too early).
    """
    inside = np.where(region.mask, values[region.box], -np.inf)
    hottest = np.unravel_index(np.argmax(inside), inside.shape)
    there = [organ for organ in physiologic if organ.near.on_box(region.box)[hottest]]
    for organ in there:
        if organ.level is None:
            doubt = f", which may lie elsewhere: {organ.doubt}" if organ.doubt else ""
            return False, f"physiologic uptake of {organ.organ.replace('_', ' ')}{doubt}"
    highest = max([level, *(organ.level for organ in there if organ.level)], key=lambda own: own.suv)
    return True, f"SUVmax {inside.max():.2f} reaches {highest.reason}"
