"""What readers decide about the regions that the program or an annotation proposes as lesions.

A decision is a word and a point. It is taken in steps that do not depend on the order of the rows: regions are added,
then divided, then merged; then each that is left is accepted, rejected or named. What contradicts itself, points to
nothing or to two things, or has no effect is refused, for a decision that is misunderstood is a lesion too many or one
too few.

Points are x y z in LPS mm of the scan's emission image, voxel indices z y x.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import pandas as pd
import scipy
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.images import voxel_volume_ml
from theraflow.lesions.contract import CLICK
from theraflow.lesions.identity import SUFFICIENT_OVERLAP, overlap_voxels
from theraflow.lesions.region import Region, moved, physical_points, spacing_zyx, union

DECISION_COLUMNS = ("patient", "scan", "lesion", "decision", "x_mm", "y_mm", "z_mm", "voxels", "name", "group",
                    "reader", "axes", "remark")  # fmt: skip
NEAR_MM = 5.0  # a point may lie this far from the voxels of the region that it means
SAME_SIZE = 0.1  # a region whose voxels differ by more than this part is not the one that was decided on
GREATEST_LEAD = 0.5  # of a divided region, see `divide`
NAMED_WHEN_LOST = 3
_DONE = {"accept": "accepted", "reject": "rejected", "add": "added", "split": "split", "merge": "merged",
         "rename": "renamed"}  # fmt: skip
_AGAINST_REJECT = ("accept", "add", "merge")


@dataclass(frozen=True)
class Decision:
    """One row of the readers' sheet.

    Attributes:
        patient, scan: what it is about.
        decision: `accept`, `reject`, `add`, `split`, `merge`, `rename`, `positive` or `negative`.
        x_mm, y_mm, z_mm: the point, in LPS mm of the scan's emission image.
        voxels: how many the region had when it was decided on, or None.
        name: the reader's name of the lesion, or None.
        group: what is merged with what, or None.
        reader: who decided, or None.
    """

    patient: str
    scan: str
    decision: str
    x_mm: float
    y_mm: float
    z_mm: float
    voxels: float | None = None
    name: str | None = None
    group: str | None = None
    reader: str | None = None

    @property
    def point_mm(self) -> np.ndarray:
        """The point, x y z in LPS mm."""
        return np.array([self.x_mm, self.y_mm, self.z_mm], float)

    def __str__(self) -> str:
        """The decision as a reader finds it in the sheet."""
        return f"{self.decision!r} of patient {self.patient}, scan {self.scan}, at {_written(self.point_mm)}"


@dataclass(frozen=True)
class Proposal:
    """A region of a scan that may be a lesion.

    Attributes:
        region: on the scan's emission grid, not empty.
        kept: whether it is a lesion.
        source: `reader` (an annotation), `candidate` (the program's) or `click` (grown from a reader's point).
        key: unique in the scan, as `fdg:C03`.
        name: the reader's name for it, or None.
        reason: why it is kept or not, and who decided; may be empty.
        marked: whether a reader says that it is a lesion: in an annotation, or by accepting or adding it.
        made_of: the keys of the proposals that it has been made of, where a reader has divided or merged; else empty.
    """

    region: Region
    kept: bool
    source: str
    key: str
    name: str | None = None
    reason: str = ""
    marked: bool = False
    made_of: tuple[str, ...] = ()

    @property
    def roots(self) -> tuple[str, ...]:
        """The keys of the proposals that it has been made of, before any decision; its own where it is one."""
        return self.made_of or (self.key,)

    def __str__(self) -> str:
        """Key and name."""
        return f"{self.key} ({self.name})" if self.name else self.key


def apply_decisions(
    proposals: Sequence[Proposal],
    decisions: Sequence[Decision],
    grid: sitk.Image,
    grow: Callable[[np.ndarray], Region | None],
) -> list[Proposal]:
    """The proposals of one scan as its readers want them.

    A point means the region that holds it, the smaller one of two; outside of all, the only one within 5 mm. Where
    regions overlap, what is accepted is first looked for among those left out, all else among those kept. A region
    that a decision has divided or merged is meant in its new form.

    Args:
        proposals: of the scan, their keys unique.
        decisions: of the scan, in any order; `positive` and `negative` change no region, see `verdicts`.
        grid: the emission image; only its geometry is read.
        grow: from a point (x y z in LPS mm) the region that the tracer's rule grows from it, or None.

    Returns:
        All proposals, rejected ones too, in their order. Parts of a divided one stand in its place, from head to feet,
        with keys `fdg:C03/1`, ...; merged ones in the place of the first, with the key of the first that is a
        lesion; added ones at the end, with keys `fdg:click(12,-30,455)`.

    Raises:
        TheraflowError: a decision that has to be refused; says which and what to do.
    """
    rows = sorted({row for row in decisions if row.decision in _DONE}, key=repr)
    additions = sorted((row for row in rows if row.decision == "add"), key=lambda row: _head_to_feet(row.point_mm))
    base = [*proposals, *(_added(row, grid, grow) for row in additions)]
    meant = {
        row: len(proposals) + additions.index(row) if row.decision == "add" else _meant(row, base, grid) for row in rows
    }
    pieces, origin = [], []
    for index, proposal in enumerate(base):
        cuts = [row for row in rows if row.decision == "split" and meant[row] == index]
        parts = _split(proposal, cuts, grid) if cuts else [proposal]
        pieces += parts
        origin += [index] * len(parts)
    parts_of = {index: [i for i, source in enumerate(origin) if source == index] for index in origin}
    piece = {row: _piece(row, parts_of[meant[row]], pieces, grid) for row in rows}
    owner = _merged(rows, piece, origin, base)
    results, claims = [], []
    for first in sorted(set(owner.values())):
        members = [i for i in range(len(pieces)) if owner[i] == first]
        own = [row for row in rows if piece[row] in members]
        claims.append(own)
        results.append(_judged(_united([pieces[i] for i in members]), own))
    _refuse_double(results, claims)
    _refuse_without_effect(results, claims, {row: meant[row] for row in rows if row.decision == "split"})
    return results


def verdicts(decisions: Sequence[Decision], regions: Mapping[str, Region], grid: sitk.Image) -> dict[str, bool]:
    """Which lesions readers have called positive or negative on one scan.

    Args:
        decisions: of the scan, in any order; only `positive` and `negative` are regarded.
        regions: by the lesion's name, as they are measured on the scan, its own or carried; not empty, no others.
        grid: the grid of `regions`; only its geometry is read.

    Returns:
        By the lesion's name True for positive; lesions of which nothing is said are missing.

    Raises:
        TheraflowError: a point at no lesion or at two; positive and negative of one lesion.
    """
    names = list(regions)
    said: dict[str, Decision] = {}
    for row in sorted({row for row in decisions if row.decision in ("positive", "negative")}, key=repr):
        name = names[_find(row, list(regions.values()), names, [0] * len(names), grid)]
        if said.setdefault(name, row).decision != row.decision:
            _refuse(row, f"contradicts {said[name]}: both lie in {name}; delete one of them")
    return {name: row.decision == "positive" for name, row in said.items()}


def draft(
    patient: str,
    scan: str,
    proposals: Sequence[Proposal],
    values: np.ndarray,
    grid: sitk.Image,
    lesions: Mapping[str, str],
) -> pd.DataFrame:
    """A sheet of what can be decided on a scan, with no decision in it.

    The point of a row is the hottest voxel of the region that no other region holds, in whole mm as far as that is
    still the same voxel: a spreadsheet in any language leaves whole numbers alone.

    Args:
        patient, scan: names.
        proposals: of the scan, before any decision, so that the sheet stays right when decisions are taken.
        values: the emission image, shape (z, y, x).
        grid: its geometry.
        lesions: by the key of a proposal the name of the lesion that has become of it.

    Returns:
        One row for every proposal with `DECISION_COLUMNS`.
    """
    rows = []
    for proposal in proposals:
        alone = _alone(proposal, proposals)
        hottest = np.argmax(np.where(alone.mask, values[alone.box], -np.inf))
        x, y, z = _short_point(np.array(np.unravel_index(hottest, alone.mask.shape)) + alone.start, grid)
        volume = proposal.region.voxels * voxel_volume_ml(grid)
        verdict = "kept" if proposal.kept else "left out"
        reason = f" ({proposal.reason})" if proposal.reason else ""
        rows.append(
            {"patient": patient, "scan": scan, "lesion": lesions.get(proposal.key), "x_mm": x, "y_mm": y, "z_mm": z,
             "voxels": proposal.region.voxels,
             "remark": f"{proposal}, {volume:.3g} mL: {verdict}{reason}"}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(DECISION_COLUMNS), dtype=object)


def divide(region: Region, points: np.ndarray, grid: sitk.Image) -> list[Region]:
    """A region divided among points by its shape.

    A voxel goes to the nearest of the largest balls that fit into the region around each point (an additively weighted
    Voronoi diagram), the point being moved by up to 5 mm to where the ball is largest. Uptake is not asked: a watershed
    of the PET gives nearly all to the hotter part as soon as a point lies on its slope.

    No ball counts as larger than another by more than half of the way between them, so that no part is lost beside a
    large one. Where a point would still come to lie in another's part, the shape does not tell the parts, and each
    voxel goes to the nearest point.

    Args:
        region: not empty.
        points: indices (z, y, x) of different voxels of the region, shape (N, 3).
        grid: the region's grid.

    Returns:
        N regions in the order of the points, each with its point.
    """
    spacing = spacing_zyx(grid)
    depth = scipy.ndimage.distance_transform_edt(np.pad(region.mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    depth = depth[region.mask]
    indices = region.indices()
    places = indices * spacing
    from_points = _distances(places, points * spacing)
    nearest = from_points.argmin(axis=1)
    chosen = [
        np.argmax(np.where((nearest == part) & (from_points[:, part] <= NEAR_MM), depth, -1.0))
        for part in range(len(points))
    ]
    radius = (depth[chosen] + GREATEST_LEAD * _distances(places[chosen], places[chosen])).min(axis=1)
    part_of = (_distances(places, places[chosen]) - radius).argmin(axis=1)
    if (part_of[from_points.argmin(axis=0)] != np.arange(len(points))).any():
        part_of = nearest
    parts = np.full(region.mask.shape, -1)
    parts[region.mask] = part_of
    return [moved(Region.of(parts == part), region.start) for part in range(len(points))]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None, :] - b[None, :, :], axis=-1)


def _added(row: Decision, grid: sitk.Image, grow: Callable[[np.ndarray], Region | None]) -> Proposal:
    voxel = np.floor(_index(row.point_mm, grid) + 0.5)
    if (voxel < 0).any() or (voxel >= grid.GetSize()[::-1]).any():
        _refuse(row, "the point lies outside of the image; points are in LPS mm, or in RAS if the column axes says so")
    region = grow(row.point_mm)
    if region is None:
        _refuse(row, "the tracer's rule grows nothing from this point; move it into the uptake, or draw the lesion")
    x, y, z = (round(coordinate) for coordinate in row.point_mm.tolist())
    return Proposal(region, True, CLICK, f"{row.scan}:click({x},{y},{z})")


def _meant(row: Decision, proposals: Sequence[Proposal], grid: sitk.Image) -> int:
    """Index of the proposal that a decision is about."""
    ranks = [_rank(row, proposal) for proposal in proposals]
    found = _find(row, [proposal.region for proposal in proposals], [str(p) for p in proposals], ranks, grid)
    voxels = proposals[found].region.voxels
    if row.voxels is not None and abs(voxels - row.voxels) > SAME_SIZE * row.voxels:
        _refuse(
            row,
            f"it was decided on a region of {row.voxels:.0f} voxels, but {proposals[found]} has {voxels}; look at it "
            "again, then correct the cell in the column voxels if it is still meant",
        )
    return found


def _rank(row: Decision, proposal: Proposal) -> int:
    """What a decision is looked for first among overlapping regions: 0."""
    if row.decision == "accept":
        return int(proposal.kept)
    # Who rejects a region and adds another in its place means the old one.
    return 2 * (not proposal.kept) + (row.decision == "reject" and proposal.source == CLICK)


def _find(
    row: Decision, regions: Sequence[Region], names: Sequence[str], ranks: Sequence[int], grid: sitk.Image
) -> int:
    """Index of the region that a point means; holding ones of the lowest rank first, then the smallest."""
    distances = _reaches(row.point_mm, regions, grid)
    holding = [i for i, distance in enumerate(distances) if distance == 0.0]
    if holding:
        order = {i: (ranks[i], regions[i].voxels) for i in holding}
        first = [i for i in holding if order[i] == min(order.values())]
        if len(first) == 1:
            return first[0]
        _refuse(row, f"{_listed(names, first)} hold the point and are equally large; delete one of them, or take a "
                     "point that only one holds")  # fmt: skip
    near = [i for i, distance in enumerate(distances) if distance <= NEAR_MM]
    if len(near) == 1:
        return near[0]
    if near:
        _refuse(row, f"the point lies in no region but near {_listed(names, near)}; move it into the one that is meant")
    _refuse(row, _lost(row, regions, names, distances, grid))


def _lost(
    row: Decision, regions: Sequence[Region], names: Sequence[str], distances: Sequence[float], grid: sitk.Image
) -> str:
    nearest = np.argsort(distances, kind="stable")[:NAMED_WHEN_LOST].tolist()
    there = ", ".join(f"{names[i]} ({distances[i]:.0f} mm away)" for i in nearest)
    words = f"no region lies within {NEAR_MM:g} mm; " + (f"the nearest are {there}" if there else "the scan has none")
    turned = row.point_mm * (-1, -1, 1)
    holding = [i for i, distance in enumerate(_reaches(turned, regions, grid)) if distance == 0.0]
    if holding:
        return (
            f"{words}; at {_written(turned)} lies {names[holding[0]]}: if the point is in RAS, as 3D Slicer shows it, "
            "write RAS into the column axes"
        )
    return (
        f"{words}; regions change with the configuration and the annotation: clear this decision, run again and take "
        "the point from the new draft"
    )


def _listed(names: Sequence[str], chosen: Sequence[int]) -> str:
    return " and ".join(names[i] for i in chosen)


def _reaches(point_mm: np.ndarray, regions: Sequence[Region], grid: sitk.Image) -> list[float]:
    """Distances in mm from a point to the nearest voxel centre of regions; 0 where one of the voxels holds it."""
    index, spacing = _index(point_mm, grid), spacing_zyx(grid)
    distances = []
    for region in regions:
        steps = np.abs(region.indices() - index)
        held = (steps <= 0.5).all(axis=1).any()
        distances.append(0.0 if held else float(np.linalg.norm(steps * spacing, axis=1).min()))
    return distances


def _index(point_mm: np.ndarray, grid: sitk.Image) -> np.ndarray:
    """Continuous index z y x of a point."""
    return np.array(grid.TransformPhysicalPointToContinuousIndex(point_mm.tolist()))[::-1]


def _nearest_voxel(row: Decision, region: Region, grid: sitk.Image) -> np.ndarray:
    indices = region.indices()
    return indices[np.linalg.norm((indices - _index(row.point_mm, grid)) * spacing_zyx(grid), axis=1).argmin()]


def _split(proposal: Proposal, rows: Sequence[Decision], grid: sitk.Image) -> list[Proposal]:
    rows = sorted(rows, key=lambda row: _head_to_feet(row.point_mm))
    points = np.array([_nearest_voxel(row, proposal.region, grid) for row in rows])
    if len(np.unique(points, axis=0)) < len(rows) or len(rows) < 2:
        _refuse(rows[0], f"{proposal} can be split only among two or more points in different voxels; give each part a "
                         "row with a point of its own")  # fmt: skip
    return [
        replace(proposal, region=part, key=f"{proposal.key}/{number}", made_of=(proposal.key,))
        for number, part in enumerate(divide(proposal.region, points, grid), start=1)
    ]


def _piece(row: Decision, parts: Sequence[int], pieces: Sequence[Proposal], grid: sitk.Image) -> int:
    """Which of the parts of the region that it means a decision is about."""
    distances = _reaches(row.point_mm, [pieces[i].region for i in parts], grid)
    return parts[int(np.argmin(distances))]


def _merged(
    rows: Sequence[Decision], piece: Mapping[Decision, int], origin: Sequence[int], base: Sequence[Proposal]
) -> dict[int, int]:
    """For every piece the first of those that it is merged with, itself where there is none."""
    groups: dict[str, dict[int, Decision]] = {}
    for row in rows:
        if row.decision == "merge":
            groups.setdefault(row.group, {})[piece[row]] = row
    owner = {index: index for index in range(len(origin))}
    taken: dict[int, Decision] = {}
    for group, members in groups.items():
        if len(members) < 2:
            _refuse(next(iter(members.values())), f"the group {group!r} has no other region; give each region that "
                    "becomes part of the lesion a row with this group")  # fmt: skip
        seen: dict[int, Decision] = {}
        for index, row in members.items():
            if index in taken:
                _refuse(row, f"contradicts {taken[index]}: one region cannot be in two groups; give all the same group")
            if origin[index] in seen:
                _refuse(row, f"contradicts {seen[origin[index]]}: both are parts of {base[origin[index]]}, which is "
                             "split; leave out one of the points of the split")  # fmt: skip
            taken[index] = seen[origin[index]] = row
            owner[index] = min(members)
    return owner


def _united(members: Sequence[Proposal]) -> Proposal:
    """One proposal of several: a lesion where any is; key, source and name are those of the first that is one."""
    if len(members) == 1:
        return members[0]
    first = next((member for member in members if member.kept), members[0])
    reasons = dict.fromkeys(member.reason for member in members if member.reason)
    return replace(
        first,
        region=union([member.region for member in members]),
        kept=any(member.kept for member in members),
        reason="; ".join(reasons),
        marked=any(member.marked for member in members),
        made_of=tuple(dict.fromkeys(key for member in members for key in member.roots)),
    )


def _judged(proposal: Proposal, rows: Sequence[Decision]) -> Proposal:
    """A proposal after what was decided about it in its final form."""
    if not rows:
        return proposal
    said = {row.decision: row for row in rows}
    for other in _AGAINST_REJECT:
        if "reject" in said and other in said:
            _refuse(said["reject"], f"contradicts {said[other]}: both mean {proposal}; delete one of them")
    names = {row.name: row for row in rows if row.name}
    if len(names) > 1:
        one, two = list(names.values())[:2]
        _refuse(two, f"contradicts {one}: {proposal} cannot be called {two.name!r} and {one.name!r}; delete one name")
    kept = "reject" not in said and (proposal.kept or "accept" in said)
    if names and not kept:
        ((name, row),) = names.items()
        _refuse(row, f"{proposal} is no lesion ({_why(proposal, said)}), so it cannot be called {name!r}; accept it or "
                     "delete the name")  # fmt: skip
    done = sorted({f"{_DONE[row.decision]} by {row.reader or 'the reader'}" for row in rows})
    reason = "; ".join(([proposal.reason] if proposal.reason else []) + done)
    marked = kept and (proposal.marked or "accept" in said or "add" in said)
    return replace(proposal, kept=kept, name=next(iter(names), proposal.name), reason=reason, marked=marked)


def _why(proposal: Proposal, said: Mapping[str, Decision]) -> str:
    return "rejected" if "reject" in said else proposal.reason or "left out by the program"


def _refuse_double(results: Sequence[Proposal], claims: Sequence[Sequence[Decision]]) -> None:
    """Refuse a region that a reader brings in where it counts already: only an annotation's regions may overlap."""
    for index, (result, rows) in enumerate(zip(results, claims, strict=True)):
        brought = next((row for row in rows if row.decision in ("accept", "add")), None)
        if brought is None or not result.kept:
            continue
        for other in results[:index] + results[index + 1 :]:
            smaller = min(result.region.voxels, other.region.voxels)
            if other.kept and overlap_voxels(result.region, other.region) >= SUFFICIENT_OVERLAP * smaller:
                _refuse(
                    brought,
                    f"{result} and {other} are largely the same voxels, which would count twice; reject the other one, "
                    "or keep one of them and split it at both points",
                )


def _refuse_without_effect(
    results: Sequence[Proposal], claims: Sequence[Sequence[Decision]], cuts: Mapping[Decision, int]
) -> None:
    """Refuse to merge or split what is no lesion thereafter: the reader will have meant that it is one."""
    pairs = [(result, row) for result, rows in zip(results, claims, strict=True) for row in rows]
    alive = {cuts[row] for result, row in pairs if row in cuts and result.kept}
    for result, row in pairs:
        if (row.decision == "merge" and not result.kept) or (row in cuts and cuts[row] not in alive):
            _refuse(row, f"what becomes of it, {result}, is no lesion ({result.reason}); accept what is one, or delete "
                         "the row")  # fmt: skip


def _alone(proposal: Proposal, proposals: Sequence[Proposal]) -> Region:
    """The part of a region that no other holds; without one, that no smaller one holds; without one, all of it."""
    others = [other.region for other in proposals if other is not proposal]
    smaller = [region for region in others if region.voxels <= proposal.region.voxels]
    for rivals in (others, smaller):
        mask = proposal.region.mask.copy()
        for rival in rivals:
            mask &= ~rival.on_box(proposal.region.box)
        if mask.any():
            return Region(proposal.region.start, mask)
    return proposal.region


def _short_point(voxel: np.ndarray, grid: sitk.Image) -> list[float]:
    """The centre of a voxel (z, y, x), x y z in LPS mm, in whole mm if that point lies in the same voxel."""
    centre = physical_points(voxel[None], grid)[0]
    rounded = np.round(centre)
    same = (np.abs(_index(rounded, grid) - voxel) < 0.5).all()
    return [int(coordinate) for coordinate in rounded] if same else centre.tolist()


def _head_to_feet(point_mm: np.ndarray) -> tuple[float, float, float]:
    x, y, z = point_mm.tolist()
    return -z, x, y


def _written(point_mm: np.ndarray) -> str:
    return " ".join(f"{coordinate:g}" for coordinate in (np.round(point_mm, 1) + 0.0).tolist()) + " mm"


def _refuse(row: Decision, problem: str) -> NoReturn:
    raise TheraflowError(f"In the sheet of decisions, {row}: {problem}.")
