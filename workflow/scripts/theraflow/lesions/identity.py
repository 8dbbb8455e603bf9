"""Which lesion is which: one lesion through all scans of a patient.

Every scan's regions are carried to the reference scan's space and there matched with the lesions known so far, scan by
scan. For every region and lesion stands how many times more likely what is seen is if the two are one than if the
lesion has vanished and the region is a new one (`_compare`). The optimal assignment (the Hungarian method) has the
greatest product of these; pairs too far apart and without overlap are not allowed. What matches nothing is a new
lesion. The same numbers give every identity its probability, which is told as its confidence.

Lesions divide and grow together. A region that matches nothing is a part of a lesion that another region of its scan
has been matched to where both together are as like the lesion as that one alone, and lie in its carried outline once
they have been moved upon it. Likewise a lesion without a region has merged with another one where one region is as like
both. Regions that a reader has outlined are never put together.

A scan whose registration has failed has no place in the reference scan's space. Its regions are matched by organ and
distance only: the same site, in the same organ, and positions relative to the centre of that organ, each in its own
scan, that are not too far apart. What lies in no organ is then a new lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from theraflow.lesions.contract import BY_ORGAN, CANDIDATE, CONFIDENT
from theraflow.lesions.region import Region, union
from theraflow.lesions.site import Site

BY_POSITION = "position"

# The model of what is expected of a lesion from one scan to the next.
RESIDUAL_MM = 5.0  # sd, along each axis, of what registration leaves
ORGAN_RESIDUAL_MM = 10.0  # the same for positions in an organ; assumed, not measured
VANISHED, NEW = 0.15, 0.10  # of the lesions known
CLUSTER_MM = 15.0  # new lesions arise where others are: sd of the kernel along each axis
BODY_MM3 = 60e6  # one may arise anywhere in it
SIZE_CHANGE = np.log(2.0)  # sd of the logarithm of a lesion's volume over that before
SIZES = 1.1  # sd of the logarithm of the volume among lesions
UNLIKE = 0.1  # of the lesions change their size beyond all expectation

# Two regions of which the smaller lies to this part in the other are as likely as not one lesion however far their
# centroids are apart: a mass that grew, shrank or was outlined more widely. Overlap beyond MOST_OVERLAP says no more.
SUFFICIENT_OVERLAP, MOST_OVERLAP = 0.25, 0.9
# Of two regions that may be one lesion, each lies to this part in its outline.
MOSTLY = 0.5
# How much more likely, all else alike, two regions in one outline are its parts than a lesion and a new one beside it.
IN_PARTS = 3.0
# What probabilities leave out: pairs by their odds, and of the ways in which others may be matched the least likely.
NEGLIGIBLE, MOST_STATES = 1e-4, 2000


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
        where: the same, with how it is known, or None.
        organ: the organ it lies in, or None where there is none whose centre is known.
        from_organ_mm: from the centre of that organ to that of `region`, x y z in LPS mm of the scan itself, or None.
        key: what it is called whatever becomes of other regions, `fdg:C03`; what is derived from it has the key
            `fdg:C03/1`. None where names need not last.
        part_keys: the keys of the further regions that have been put together with it.
        matched_by: how it was found to be a lesion known before, `position` or `organ and distance`; None where it is
            the first of its lesion.
        confidence: the probability, from 0 to 1, that it is the lesion that it was matched to, or where it was matched
            to none, that it is a new one. None where no lesion was known, or where it is new and its position cannot
            be compared with that of every lesion known.
        look: why a person should look at its identity: sentences in which `{3}` stands for the name of the lesion at
            index 3, see `looks`.
        covers: the indices of the lesions that have merged with it.
    """

    scan: str
    region: Region
    in_reference: Region | None
    centroid_mm: np.ndarray
    source: str
    annotation: str | None = None
    site: str | None = None
    where: Site | None = None
    organ: str | None = None
    from_organ_mm: np.ndarray | None = None
    key: str | None = None
    part_keys: tuple[str | None, ...] = ()
    matched_by: str | None = None
    confidence: float | None = None
    look: tuple[str, ...] = ()
    covers: tuple[int, ...] = ()

    @property
    def parts(self) -> int:
        """The number of the scan's regions that it consists of."""
        return 1 + len(self.part_keys)


Lesion = dict[str, Observation]  # by scan


def follow(observations: Sequence[Sequence[Observation]], match_distance_mm: float) -> list[Lesion]:
    """Join the observations of all scans into lesions.

    Args:
        observations: for every scan, in the order in which scans name new lesions, what it shows.
        match_distance_mm: centroids farther apart are not matched, unless the regions overlap. By organ and distance it
            is the farthest that the positions relative to the organ may be apart.

    Returns:
        The lesions in the order in which they are found: by the first scan that shows them, therein from head to feet,
        from the patient's right to the left, from front to back.
    """
    lesions: list[Lesion] = []
    for shown in observations:
        pairs = _compare(lesions, shown)
        found, matched = _with_parts(lesions, shown, _assign(pairs, match_distance_mm), pairs.odds)
        if len(found) < len(shown):
            pairs = _compare(lesions, found)
        found = _judged(lesions, found, matched, pairs)
        for index, known in matched.items():
            lesions[known][found[index].scan] = found[index]
        fresh = [observation for index, observation in enumerate(found) if index not in matched]
        fresh.sort(key=lambda o: (-o.centroid_mm[2], o.centroid_mm[0], o.centroid_mm[1]))
        lesions.extend({observation.scan: observation} for observation in fresh)
    return lesions


def match(lesions: Sequence[Lesion], found: Sequence[Observation], match_distance_mm: float) -> dict[int, int]:
    """Optimal assignment of a scan's observations to known lesions: index of observation -> of lesion."""
    return _assign(_compare(lesions, found), match_distance_mm)


def name_lesions(lesions: Sequence[Lesion], automatic: Sequence[Lesion]) -> list[int]:
    """Numbers of lesions that stay the same whatever a reader decides about others.

    The program's own lesions are numbered from 1 on, in order. A lesion has the smallest number of those that hold an
    observation of its own, by the key. Each number is given once: to the first lesion that holds such an observation
    itself, else to the first that holds what has been made of one. Others are numbered on from the last.

    Args:
        lesions: as `follow` has found them after the reader's decisions.
        automatic: as `follow` finds them where the reader has decided nothing.

    Returns:
        The number of every lesion, in their order.
    """
    numbers: dict[int, int] = {}
    keys = [_keys(lesion) for lesion in lesions]
    roots = [{_root(key) for key in own} for own in keys]
    originals = [_keys(lesion) for lesion in automatic]
    for held in (keys, roots):
        for number, original in enumerate(originals, start=1):
            heir = next((i for i, own in enumerate(held) if i not in numbers and own & original), None)
            if heir is not None and number not in numbers.values():
                numbers[heir] = number
    further = (i for i in range(len(lesions)) if i not in numbers)
    numbers |= {i: number for number, i in enumerate(further, start=len(automatic) + 1)}
    return [numbers[i] for i in range(len(lesions))]


def looks(lesions: Sequence[Lesion], scan: str, names: Sequence[str]) -> list[str | None]:
    """Why a person should look at the identity of each lesion on a scan, in words.

    Args:
        lesions: as `follow` returns them, in its order.
        scan: the scan's name.
        names: of all lesions, in the same order.

    Returns:
        For every lesion the reasons, divided by semicolons; None where there is none.
    """
    reasons = [list(lesion[scan].look) if scan in lesion else [] for lesion in lesions]
    for index, lesion in enumerate(lesions):
        for other in lesion[scan].covers if scan in lesion else ():
            reasons[other].append(f"merged with {{{index}}}: its carried outline lies in the region of that")
    return ["; ".join(own).format(*names) or None for own in reasons]


def probabilities(odds: np.ndarray) -> np.ndarray:
    """The probability of every pair where each row and each column has one partner at most.

    An assignment is as probable as the product of the odds of its pairs. All are summed, row by row: what has gone
    before matters only by which of the columns that later rows could take are taken. Left out are pairs whose
    probability cannot exceed `NEGLIGIBLE`, and beyond `MOST_STATES` the least likely histories.

    Args:
        odds: of every pair against leaving both alone, not negative, shape (rows, columns).

    Returns:
        Probabilities of the same shape. What a row lacks of 1 is the probability that it has no partner.
    """
    probable = np.zeros(odds.shape)
    possible = odds >= NEGLIGIBLE
    # Rows that compete for a column follow each other closely, so that few columns are in question at a time.
    competing = scipy.sparse.csr_array(possible.astype(int) @ possible.T.astype(int))
    order = scipy.sparse.csgraph.reverse_cuthill_mckee(competing, symmetric_mode=True).tolist()
    partners = [[(1 << int(j), int(j), float(odds[row, j])) for j in np.flatnonzero(possible[row])] for row in order]
    later = [0] * (len(order) + 1)
    for place in reversed(range(len(order))):
        later[place] = later[place + 1] | sum(bit for bit, _, _ in partners[place])
    forward = [{0: 1.0}]
    for place, open_pairs in enumerate(partners):
        states: dict[int, float] = {}
        for taken, weight in forward[-1].items():
            for bit, pair_odds in ((0, 1.0), *((bit, pair_odds) for bit, _, pair_odds in open_pairs)):
                if not taken & bit:
                    after = (taken | bit) & later[place + 1]
                    states[after] = states.get(after, 0.0) + weight * pair_odds
        kept = sorted(states.items(), key=lambda state: -state[1])[:MOST_STATES]
        forward.append({taken: weight / kept[0][1] for taken, weight in kept})
    backward = {0: 1.0}
    for place, row in reversed(list(enumerate(order))):
        before = {}
        for taken, weight in forward[place].items():
            alone = backward.get(taken & later[place + 1], 0.0)
            before[taken] = alone
            for bit, column, pair_odds in partners[place]:
                if not taken & bit:
                    paired = pair_odds * backward.get((taken | bit) & later[place + 1], 0.0)
                    before[taken] += paired
                    probable[row, column] += weight * paired
        total = sum(weight * before[taken] for taken, weight in forward[place].items())
        probable[row] /= total
        largest = max(before.values())
        backward = {taken: weight / largest for taken, weight in before.items()}
    return probable


def overlap_voxels(a: Region, b: Region) -> int:
    """Number of voxels that two regions of one grid have in common."""
    low = [max(i, j) for i, j in zip(a.start, b.start, strict=True)]
    high = [min(i, j) for i, j in zip(a.stop, b.stop, strict=True)]
    if any(i >= j for i, j in zip(low, high, strict=True)):
        return 0
    box = tuple(slice(i, j) for i, j in zip(low, high, strict=True))
    return int(np.count_nonzero(a.on_box(box) & b.on_box(box)))


@dataclass(frozen=True)
class _Pairs:
    """Every observation of a scan (rows) against every lesion known (columns).

    Attributes:
        odds: of being one, against the lesion having vanished and the observation being a new lesion.
        distance_mm: to the nearest of the lesion's observations that it can be compared with; infinite without any.
        overlap: the part of the smaller region that lies in the other, the largest of the lesion's observations.
        by_position: whether both have a place in the reference scan's space.
    """

    odds: np.ndarray
    distance_mm: np.ndarray
    overlap: np.ndarray
    by_position: np.ndarray


def _compare(lesions: Sequence[Lesion], found: Sequence[Observation]) -> _Pairs:
    """The model: the product of three ratios, each of one lesion over two.

    The residual of registration is Gaussian, against the density of new lesions; the logarithm of the change of volume
    is Gaussian with rare exceptions, against the difference of two lesions' volumes; a share of lesions vanishes. A
    lesion that several scans show is as like the observation as these are on average.
    """
    shape = len(found), len(lesions)
    likelihood, distance, overlap = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    rows = [i for i, new in enumerate(found) if new.in_reference is not None]
    columns = [j for j, lesion in enumerate(lesions) if _placed(lesion)]
    here = np.ix_(rows, columns)
    by_position = np.zeros(shape, dtype=bool)
    by_position[here] = True
    if rows and columns:
        seen = [_placed(lesions[j]) for j in columns]
        compared = _compare_positions([found[i] for i in rows], seen)
        likelihood[here], distance[here], overlap[here] = compared
    # What positions say rules: organs are asked only where no two positions can be compared.
    for i, j in np.argwhere(~by_position):
        away = np.array([_from_organ_mm(seen, found[i]) for seen in lesions[j].values()])
        likelihood[i, j], distance[i, j] = _gaussian(away, ORGAN_RESIDUAL_MM).mean(), away.min()
    density = NEW * _gaussian(distance, CLUSTER_MM).sum(axis=1, keepdims=True) + 1.0 / BODY_MM3
    odds = (1.0 - VANISHED) / VANISHED * likelihood / density
    inside = np.minimum(overlap, MOST_OVERLAP)
    by_overlap = inside / (1.0 - inside) * (1.0 - SUFFICIENT_OVERLAP) / SUFFICIENT_OVERLAP
    return _Pairs(np.maximum(odds, by_overlap), distance, overlap, by_position)


def _compare_positions(
    found: Sequence[Observation], seen: Sequence[Sequence[Observation]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Likelihood (per mm3), least distance and greatest overlap, (observations, lesions), from all that is seen."""
    each = [observation for of_lesion in seen for observation in of_lesion]
    first = np.cumsum([0, *(len(of_lesion) for of_lesion in seen)])[:-1]
    distance = scipy.spatial.distance.cdist(*([o.centroid_mm for o in observations] for observations in (found, each)))
    sizes, sizes_seen = (np.array([o.in_reference.voxels for o in observations]) for observations in (found, each))
    change = np.log(sizes[:, None] / sizes_seen)
    expected = _normal(change, SIZE_CHANGE) / _normal(change, np.sqrt(2.0) * SIZES)
    likelihood = _gaussian(distance, RESIDUAL_MM) * ((1.0 - UNLIKE) * expected + UNLIKE)
    common = np.zeros_like(distance)
    for i, j in np.argwhere(_boxes_touch(found, each)):
        common[i, j] = overlap_voxels(found[i].in_reference, each[j].in_reference)
    overlap = common / np.minimum(sizes[:, None], sizes_seen)
    return (
        np.add.reduceat(likelihood, first, axis=1) / [len(of_lesion) for of_lesion in seen],
        np.minimum.reduceat(distance, first, axis=1),
        np.maximum.reduceat(overlap, first, axis=1),
    )


def _boxes_touch(found: Sequence[Observation], seen: Sequence[Observation]) -> np.ndarray:
    """Whether the boxes of two regions in the reference scan's space have a voxel in common, (found, seen)."""
    start, stop = (np.array([getattr(o.in_reference, end) for o in found])[:, None] for end in ("start", "stop"))
    start_seen, stop_seen = (np.array([getattr(o.in_reference, end) for o in seen]) for end in ("start", "stop"))
    return ((start < stop_seen) & (start_seen < stop)).all(axis=2)


def _from_organ_mm(a: Observation, b: Observation) -> float:
    """Distance of positions relative to the centre of the organ; infinite unless site and organ are the same."""
    if None in (a.site, b.site, a.organ, b.organ) or (a.site, a.organ) != (b.site, b.organ):
        return np.inf
    return float(np.linalg.norm(a.from_organ_mm - b.from_organ_mm))


def _gaussian(distance_mm: np.ndarray, sd_mm: float) -> np.ndarray:
    """Density per mm3 at a distance from the middle of a Gaussian in space, `sd_mm` along each axis."""
    return np.exp(-0.5 * (distance_mm / sd_mm) ** 2) / (np.sqrt(2.0 * np.pi) * sd_mm) ** 3


def _normal(x: np.ndarray, sd: float) -> np.ndarray:
    return np.exp(-0.5 * (x / sd) ** 2) / (np.sqrt(2.0 * np.pi) * sd)


def _assign(pairs: _Pairs, match_distance_mm: float) -> dict[int, int]:
    allowed = (pairs.distance_mm <= match_distance_mm) | (pairs.overlap > 0)
    # What a pair gains against leaving both alone, at least nothing; so the greatest gain needs no dummies.
    gain = np.log(np.where(allowed, pairs.odds, 1.0).clip(min=1.0))
    rows, columns = scipy.optimize.linear_sum_assignment(gain, maximize=True)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if gain[i, j] > 0.0}


def _with_parts(
    lesions: Sequence[Lesion], shown: Sequence[Observation], matched: dict[int, int], odds: np.ndarray
) -> tuple[list[Observation], dict[int, int]]:
    """The observations with parts of one lesion put together, and the assignment of these."""
    found = list(shown)
    while True:
        hosts = {
            index: host
            for index in range(len(found))
            if (host := _host(lesions, found, matched, odds, index)) is not None
            and _may_unite(found[host], found[index])
        }
        if not hosts:
            return found, matched
        part = max(hosts, key=lambda index: odds[index, matched[hosts[index]]])
        found[hosts[part]] = _united(found[hosts[part]], found[part])
        del found[part]
        odds = np.delete(odds, part, axis=0)
        matched = {index - (index > part): known for index, known in matched.items()}


def _host(
    lesions: Sequence[Lesion], found: Sequence[Observation], matched: dict[int, int], odds: np.ndarray, index: int
) -> int | None:
    """The matched observation of the scan to whose lesion one that is left over belongs as well."""
    new = found[index]
    if index in matched or new.in_reference is None:
        return None
    hosts = [
        other
        for other, known in matched.items()
        # It would have been matched to the lesion, had that not been taken. What lies in another region of its scan (a
        # mass in its oedema) is outlined beside it, not broken off.
        if odds[index, known] >= 1.0
        and not overlap_voxels(new.region, found[other].region)
        and _split(_placed(lesions[known]), found[other], new)
    ]
    return max(hosts, key=lambda other: odds[index, matched[other]], default=None)


def _split(seen: Sequence[Observation], host: Observation, part: Observation) -> bool:
    """Whether two observations are parts of a lesion: together as like it as the first alone, and in its outline."""
    return (
        len(seen) > 0
        and IN_PARTS * _likelihood(_united(host, part), seen) >= _likelihood(host, seen)
        and any(_fit_into([host.in_reference, part.in_reference], whole.in_reference) for whole in seen)
    )


def _covered(
    lesions: Sequence[Lesion], found: Sequence[Observation], matched: dict[int, int], odds: np.ndarray
) -> dict[int, list[int]]:
    """By index of observation: the lesions without one that have merged with it."""
    covered: dict[int, list[int]] = {}
    for lost in sorted(set(range(len(lesions))) - set(matched.values())):
        hosts = [
            index
            for index, known in matched.items()
            if odds[index, lost] >= 1.0
            and not _nested(lesions[known], lesions[lost])
            and _merged(_placed(lesions[known]), _placed(lesions[lost]), found[index])
        ]
        if hosts:
            covered.setdefault(max(hosts, key=lambda index: odds[index, lost]), []).append(lost)
    return covered


def _merged(known: Sequence[Observation], lost: Sequence[Observation], now: Observation) -> bool:
    """Whether two lesions are parts of an observation: together as like it as the first alone, and in its outline."""
    if not known or not lost or now.in_reference is None:
        return False
    one, other = known[-1], lost[-1]
    return IN_PARTS * _likelihood(now, [_united(one, other)]) >= _likelihood(now, [one]) and _fit_into(
        [one.in_reference, other.in_reference], now.in_reference
    )


def _likelihood(new: Observation, seen: Sequence[Observation]) -> float:
    return float(_compare_positions([new], [seen])[0][0, 0])


def _fit_into(parts: Sequence[Region], whole: Region) -> bool:
    """Whether each part lies mostly in the whole, once all have been moved together upon it.

    What registration leaves has moved them all alike.
    """
    move = np.round(whole.indices().mean(axis=0) - union(parts).indices().mean(axis=0)).astype(int)
    moved = [Region(tuple((part.start + move).tolist()), part.mask) for part in parts]
    return all(overlap_voxels(part, whole) >= MOSTLY * part.voxels for part in moved)


def _nested(a: Lesion, b: Lesion) -> bool:
    """Whether an earlier scan shows both, one upon the other."""
    return any(overlap_voxels(a[scan].region, b[scan].region) for scan in a.keys() & b.keys())


def _may_unite(a: Observation, b: Observation) -> bool:
    """The program puts together what it has found itself, and not what a reader has divided."""
    divided = a.key is not None and b.key is not None and _root(a.key) == _root(b.key)
    return a.source == b.source == CANDIDATE and not divided


def _united(a: Observation, b: Observation) -> Observation:
    """One observation of two, in the name of the first."""
    places, sizes = [a.in_reference.voxels, b.in_reference.voxels], [a.region.voxels, b.region.voxels]
    one_organ = a.organ is not None and a.organ == b.organ
    return replace(
        a,
        region=union([a.region, b.region]),
        in_reference=union([a.in_reference, b.in_reference]),
        centroid_mm=np.average([a.centroid_mm, b.centroid_mm], axis=0, weights=places),
        organ=a.organ if one_organ else None,
        from_organ_mm=np.average([a.from_organ_mm, b.from_organ_mm], axis=0, weights=sizes) if one_organ else None,
        part_keys=(*a.part_keys, b.key, *b.part_keys),
    )


def _judged(
    lesions: Sequence[Lesion], found: Sequence[Observation], matched: dict[int, int], pairs: _Pairs
) -> list[Observation]:
    """The observations with everything that is to be said of their identity."""
    if not lesions or not found:
        return list(found)
    probable = probabilities(pairs.odds)
    covered = _covered(lesions, found, matched, pairs.odds)
    judged = []
    for index, observation in enumerate(found):
        known, covers = matched.get(index), tuple(covered.get(index, ()))
        if known is None:
            host = _host(lesions, found, matched, pairs.odds, index)
            confidence, look = _judge_new(pairs, probable, index, None if host is None else matched[host])
            way = None
        else:
            way = BY_POSITION if pairs.by_position[index, known] else BY_ORGAN
            confidence = float(probable[index, known])
            look = _judge_known(pairs, probable, index, known)
            look += [f"matched by {BY_ORGAN}"] if way == BY_ORGAN else []
            look += [f"{observation.parts} regions here: split"] if observation.parts > 1 else []
            look += [f"{{{lost}}} has merged with it: its carried outline lies in this region" for lost in covers]
        judged.append(replace(observation, matched_by=way, confidence=confidence, look=tuple(look), covers=covers))
    return judged


def _judge_known(pairs: _Pairs, probable: np.ndarray, index: int, known: int) -> list[str]:
    """What else an observation may be that has been matched."""
    if probable[index, known] >= CONFIDENT:
        return []
    others = np.delete(np.arange(probable.shape[1]), known)
    rival = max(others, key=lambda other: probable[index, other], default=None)
    new = _newness(probable, index)
    if rival is None or new >= probable[index, rival]:
        return [f"may be a new lesion (probability {new:.2f})"]
    return [_may_be(pairs, probable, index, rival)]


def _judge_new(pairs: _Pairs, probable: np.ndarray, index: int, host: int | None) -> tuple[float | None, list[str]]:
    """Confidence of an observation that has been matched to no lesion, and what it may be."""
    if not pairs.by_position[index].all():
        return None, ["new or known: a registration has failed, so that positions cannot be compared"]
    look = (
        [] if host is None else [f"lies in the outline of {{{host}}}, as another region here does: may be a part of it"]
    )
    new = _newness(probable, index)
    if new < CONFIDENT:
        look.append(_may_be(pairs, probable, index, int(probable[index].argmax())))
    return new, look


def _may_be(pairs: _Pairs, probable: np.ndarray, index: int, other: int) -> str:
    away = pairs.distance_mm[index, other]
    return f"may be {{{other}}}, {away:.0f} mm from it (probability {probable[index, other]:.2f})"


def _newness(probable: np.ndarray, index: int) -> float:
    return max(0.0, 1.0 - float(probable[index].sum()))


def _placed(lesion: Lesion) -> list[Observation]:
    """Its observations that have a place in the reference scan's space."""
    return [seen for seen in lesion.values() if seen.in_reference is not None]


def _keys(lesion: Lesion) -> set[str]:
    """The keys of all regions that a lesion has."""
    return {key for seen in lesion.values() for key in (seen.key, *seen.part_keys) if key is not None}


def _root(key: str) -> str:
    """The key of what it was before a reader divided it."""
    return key.split("/")[0]
