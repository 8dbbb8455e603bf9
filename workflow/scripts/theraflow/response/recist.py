"""RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009;45:228) from the diameters of segmented lesions, in mm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from theraflow.response.percist import TOLERANCE, Response, percent_change

NODE = "lymph node"
TARGET_MM = 10.0  # longest diameter of a target
NODE_TARGET_MM = 15.0  # short axis of a nodal target
NODE_NORMAL_MM = 10.0  # a node below this short axis is no disease
THICK_SLICE_MM = 5.0  # on thicker slices nothing below twice their thickness is measurable
TOO_SMALL_MM = 5.0  # what is present counts at least so much
TARGETS, TARGETS_A_SITE = 5, 2
DECREASE_PERCENT, INCREASE_PERCENT, INCREASE_MM = 30.0, 20.0, 5.0

COMPLETE, PARTIAL, STABLE, PROGRESSIVE, NOT_EVALUABLE = "CR", "PR", "SD", "PD", "NE"
PERSISTENT = "Non-CR/Non-PD"
_ANY_TARGET = frozenset({COMPLETE, PARTIAL, STABLE, PROGRESSIVE, NOT_EVALUABLE})
_ANY_NON_TARGET = frozenset({COMPLETE, PERSISTENT, PROGRESSIVE, NOT_EVALUABLE})
_NOT_PROGRESSIVE = _ANY_NON_TARGET - {PROGRESSIVE}  # "non-PD or not all evaluated"
_NO, _YES, _YES_OR_NO = frozenset({False}), frozenset({True}), frozenset({False, True})
# The paper's table 1: target lesions, non-target lesions, new lesions, overall response.
OVERALL_WITH_TARGETS = (
    (frozenset({COMPLETE}), frozenset({COMPLETE}), _NO, COMPLETE),
    (frozenset({COMPLETE}), frozenset({PERSISTENT}), _NO, PARTIAL),
    (frozenset({COMPLETE}), frozenset({NOT_EVALUABLE}), _NO, PARTIAL),
    (frozenset({PARTIAL}), _NOT_PROGRESSIVE, _NO, PARTIAL),
    (frozenset({STABLE}), _NOT_PROGRESSIVE, _NO, STABLE),
    (frozenset({NOT_EVALUABLE}), _NOT_PROGRESSIVE, _NO, NOT_EVALUABLE),
    (frozenset({PROGRESSIVE}), _ANY_NON_TARGET, _YES_OR_NO, PROGRESSIVE),
    (_ANY_TARGET, frozenset({PROGRESSIVE}), _YES_OR_NO, PROGRESSIVE),
    (_ANY_TARGET, _ANY_NON_TARGET, _YES, PROGRESSIVE),
)
# Its table 2, for disease without targets: non-target lesions, new lesions, overall response.
OVERALL_WITHOUT_TARGETS = (
    (frozenset({COMPLETE}), _NO, COMPLETE),
    (frozenset({PERSISTENT}), _NO, PERSISTENT),
    (frozenset({NOT_EVALUABLE}), _NO, NOT_EVALUABLE),
    (frozenset({PROGRESSIVE}), _YES_OR_NO, PROGRESSIVE),
    (_ANY_NON_TARGET, _YES, PROGRESSIVE),
)

CONFIRMATION_DAYS = 28
Visit = tuple[str, int | None]  # category, days since baseline


@dataclass(frozen=True)
class Measured:
    """A lesion's size at one time point.

    Attributes:
        site: `lymph node`, an organ, or None where unknown.
        longest_mm, short_mm: longest axial diameter and short axis; 0 where the lesion is gone, None where
            unknown.
        slice_mm: distance of the slices on which it was measured; None where it was not.
    """

    site: str | None
    longest_mm: float | None
    short_mm: float | None
    slice_mm: float | None

    @property
    def size_mm(self) -> float | None:
        """What RECIST measures: the short axis of a node, else the longest diameter."""
        return self.short_mm if self.site == NODE else self.longest_mm

    @property
    def summed_mm(self) -> float | None:
        """What it adds to the sum: 5 mm where it is present and smaller, as of what is too small to measure."""
        return max(self.size_mm, TOO_SMALL_MM) if self.size_mm else self.size_mm

    @property
    def gone(self) -> bool | None:
        """Whether no disease is left: nothing, or a node below 10 mm."""
        if self.size_mm is None:
            return None
        return self.size_mm < NODE_NORMAL_MM - TOLERANCE if self.site == NODE else self.size_mm == 0

    @property
    def measurable(self) -> bool:
        """Whether it may be a target: 10 mm, a node 15 mm; on slices above 5 mm at least twice their distance."""
        if self.size_mm is None or self.slice_mm is None:
            return False
        least = NODE_TARGET_MM if self.site == NODE else TARGET_MM
        if self.slice_mm > THICK_SLICE_MM + TOLERANCE:
            least = max(least, 2.0 * self.slice_mm)
        return self.size_mm >= least - TOLERANCE


@dataclass(frozen=True)
class Overall(Response):
    """Response at one time point by RECIST 1.1, and what it is made of.

    Attributes:
        targets: response of the target lesions; None without any.
        non_targets: of the others; None without any.
        nadir: smallest sum so far, the baseline's included, in mm; None without targets.
        change_from_nadir_percent: of the sum, or None.
    """

    targets: str | None
    non_targets: str | None
    nadir: float | None
    change_from_nadir_percent: float | None


def choose_targets(baseline: Mapping[str, Measured]) -> list[str]:
    """Target lesions: the largest measurable ones by longest diameter, at most five, at most two of one site.

    Lesions whose site is unknown count as one site together, so that an organ never has more than two.

    Args:
        baseline: the lesions present at baseline, by name.
    """
    measurable = [name for name, lesion in baseline.items() if lesion.measurable]
    targets: list[str] = []
    for name in sorted(measurable, key=lambda n: (-(baseline[n].longest_mm or 0.0), n)):
        of_site = sum(baseline[other].site == baseline[name].site for other in targets)
        if len(targets) < TARGETS and of_site < TARGETS_A_SITE:
            targets.append(name)
    return targets


def choose_non_targets(baseline: Mapping[str, Measured]) -> list[str]:
    """All other disease at baseline; a node below 10 mm is none."""
    targets = choose_targets(baseline)
    return [name for name, lesion in baseline.items() if name not in targets and lesion.gone is not True]


def grown_nodes(baseline: Mapping[str, Measured], now: Mapping[str, Measured]) -> list[str]:
    """Nodes normal at baseline (below 10 mm) and pathological now: whether they are new is for a reader to say."""
    return [
        name
        for name, lesion in baseline.items()
        if lesion.site == NODE and lesion.gone is True and now[name].gone is False
    ]


def recist(
    baseline: Mapping[str, Measured],
    followup: Mapping[str, Measured],
    new_lesions: int,
    earlier: Sequence[Mapping[str, Measured]] = (),
    unequivocal_progression: bool = False,
) -> Overall:
    """Category by RECIST 1.1 at one follow-up, by the paper's tables 1 and 2.

    Args:
        baseline: the lesions present at baseline, by name.
        followup: the same lesions at the follow-up.
        new_lesions: number of new lesions.
        earlier: the same lesions at the follow-ups before, for the smallest sum.
        unequivocal_progression: of the non-target lesions, as a reader sees it; no diameter can say it.

    Returns:
        The category, with the sums of diameters in mm; `NE` where there was no disease and none is new.
    """
    targets, others = choose_targets(baseline), choose_non_targets(baseline)
    new = new_lesions > 0
    of_others = non_target_response([followup[name].gone for name in others], unequivocal_progression)
    if not targets:
        category = _overall_without_targets(of_others, new) if others or new else NOT_EVALUABLE
        return Overall(category, None, None, None, None, of_others if others else None, None, None)
    before, now = _sum(baseline, targets), _sum(followup, targets)
    sums = [total for total in (_sum(visit, targets) for visit in earlier) if total is not None]
    nadir = min([before, *sums])
    of_targets = target_response(before, nadir, [followup[name] for name in targets])
    return Overall(
        _overall_with_targets(of_targets, of_others, new), before, now, percent_change(before, now),
        of_targets, of_others if others else None, nadir, percent_change(nadir, now),
    )  # fmt: skip


def target_response(before: float, nadir: float, now: Sequence[Measured]) -> str:
    """Response of the target lesions.

    - CR: all gone, nodes below 10 mm short axis;
    - PD: the sum at least 20 % and 5 mm above its smallest value so far; also where targets are missing, if those that
      were measured reach it alone;
    - NE: otherwise, where targets are missing;
    - PR: the sum at least 30 % below baseline;
    - SD: otherwise.

    Args:
        before, nadir: sum at baseline and smallest sum so far, mm.
        now: the targets at the follow-up.
    """
    missing = any(lesion.summed_mm is None for lesion in now)
    total = math.fsum(lesion.summed_mm or 0.0 for lesion in now)
    rise = total - nadir
    if all(lesion.gone for lesion in now):
        return COMPLETE
    if rise >= INCREASE_MM - TOLERANCE and rise >= INCREASE_PERCENT / 100.0 * nadir - TOLERANCE:
        return PROGRESSIVE
    if missing:
        return NOT_EVALUABLE
    return PARTIAL if before - total >= DECREASE_PERCENT / 100.0 * before - TOLERANCE else STABLE


def non_target_response(gone: Sequence[bool | None], unequivocal_progression: bool = False) -> str:
    """Response of the non-target lesions: whether each is gone; None where that is unknown. Without any, CR."""
    if unequivocal_progression:
        return PROGRESSIVE
    if None in gone:
        return NOT_EVALUABLE
    return COMPLETE if all(gone) else PERSISTENT


def _overall_with_targets(targets: str, non_targets: str, new: bool) -> str:
    return next(overall for a, b, c, overall in OVERALL_WITH_TARGETS if targets in a and non_targets in b and new in c)


def _overall_without_targets(non_targets: str, new: bool) -> str:
    return next(overall for a, b, overall in OVERALL_WITHOUT_TARGETS if non_targets in a and new in b)


def _sum(lesions: Mapping[str, Measured], targets: Sequence[str]) -> float | None:
    sizes = [lesions[name].summed_mm for name in targets]
    return None if any(size is None for size in sizes) else math.fsum(sizes)


def best_response(visits: Sequence[Visit], minimum_stable_days: float, stable: str = STABLE) -> str:
    """Best overall response where it need not be confirmed: the best one before progression.

    SD counts from a minimum time after baseline on only; before that the next assessments decide: PD if there is one,
    else NE.

    Args:
        visits: category and days since baseline of every follow-up, in order; None where a date is unknown.
        minimum_stable_days: from baseline.
        stable: `Non-CR/Non-PD` in place of SD where there are no target lesions.

    Returns:
        The category; `NE` also where only an unknown date stands between SD and PD.
    """
    before, progressed = _until_progression(visits)
    for category in (COMPLETE, PARTIAL):
        if any(category == found for found, _ in before):
            return category
    return _stable_or_less([day for found, day in before if found == stable], progressed, stable, minimum_stable_days)


def confirmed_best_response(visits: Sequence[Visit], minimum_stable_days: float, stable: str = STABLE) -> str:
    """Best overall response where CR and PR must be confirmed at least 4 weeks later (the paper's table 3).

    CR is confirmed by CR, PR by PR or CR; time points that could not be evaluated may lie between. Disease after a CR
    has come back, which is PD. An unconfirmed CR or PR counts as SD where it came late enough.

    Args and returns: as of `best_response`.
    """
    before, progressed = _until_progression(visits, after_complete=True)
    for category, confirming in ((COMPLETE, (COMPLETE,)), (PARTIAL, (PARTIAL, COMPLETE))):
        if _confirmed(before, confirming):
            return category
    days = [day for found, day in before if found in (COMPLETE, PARTIAL, stable)]
    return _stable_or_less(days, progressed, stable, minimum_stable_days)


def _until_progression(visits: Sequence[Visit], after_complete: bool = False) -> tuple[list[Visit], bool]:
    """The visits before PD, and whether there was any."""
    before: list[Visit] = []
    for category, day in visits:
        returned = after_complete and any(found == COMPLETE for found, _ in before)
        if category == PROGRESSIVE or (returned and category in (PARTIAL, STABLE, PERSISTENT)):
            return before, True
        before.append((category, day))
    return before, False


def _confirmed(visits: Sequence[Visit], confirming: Sequence[str]) -> bool:
    for place, (category, day) in enumerate(visits):
        if category not in confirming or day is None:
            continue
        for later, later_day in visits[place + 1 :]:
            if later not in (*confirming, NOT_EVALUABLE):
                break
            if later in confirming and later_day is not None and later_day - day >= CONFIRMATION_DAYS:
                return True
    return False


def _stable_or_less(days: Sequence[int | None], progressed: bool, stable: str, minimum_days: float) -> str:
    if any(day is not None and day >= minimum_days - TOLERANCE for day in days):
        return stable
    if None in days:
        return NOT_EVALUABLE
    return PROGRESSIVE if progressed else NOT_EVALUABLE
