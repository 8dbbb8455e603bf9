"""RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009;45:228) from the diameters of segmented lesions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from theraflow.response.percist import TOLERANCE, Response

NODE = "lymph node"
TARGET_MM = 10.0  # longest diameter of a target
NODE_TARGET_MM = 15.0  # short axis of a nodal target
NODE_NORMAL_MM = 10.0  # a node below this short axis is no disease
TARGETS, TARGETS_A_SITE = 5, 2
DECREASE_PERCENT, INCREASE_PERCENT, INCREASE_MM = 30.0, 20.0, 5.0


@dataclass(frozen=True)
class Measured:
    """A lesion's size at one time point.

    Attributes:
        site: `lymph node`, an organ, or None where unknown.
        longest_mm, short_mm: longest axial diameter and short axis; 0 where the lesion is gone, None where
            unknown.
    """

    site: str | None
    longest_mm: float | None
    short_mm: float | None

    @property
    def size_mm(self) -> float | None:
        """What RECIST sums: the short axis of a node, else the longest diameter."""
        return self.short_mm if self.site == NODE else self.longest_mm

    @property
    def gone(self) -> bool | None:
        """Whether no disease is left: nothing, or a node below 10 mm."""
        if self.size_mm is None:
            return None
        return self.size_mm < NODE_NORMAL_MM if self.site == NODE else self.size_mm == 0


def choose_targets(baseline: Mapping[str, Measured]) -> list[str]:
    """Target lesions: the largest measurable ones, at most five, at most two of one site.

    Measurable are a longest diameter of at least 10 mm and a node's short axis of at least 15 mm. Lesions
    whose site is unknown count as one site together, so that an organ never has more than two.

    Args:
        baseline: the lesions present at baseline, by name.
    """
    measurable = [
        name
        for name, lesion in baseline.items()
        if lesion.size_mm is not None
        and lesion.size_mm >= (NODE_TARGET_MM if lesion.site == NODE else TARGET_MM) - TOLERANCE
    ]
    targets: list[str] = []
    for name in sorted(measurable, key=lambda n: (-(baseline[n].longest_mm or 0.0), n)):
        of_site = sum(baseline[other].site == baseline[name].site for other in targets)
        if len(targets) < TARGETS and of_site < TARGETS_A_SITE:
            targets.append(name)
    return targets


def recist(
    baseline: Mapping[str, Measured],
    followup: Mapping[str, Measured],
    new_lesions: int,
    earlier: Sequence[Mapping[str, Measured]] = (),
) -> Response:
    """Category by RECIST 1.1 at one follow-up.

    - PD: a new lesion, or the sum of the targets at least 20 % and 5 mm above its smallest value so far;
    - CR: all lesions gone, nodes below 10 mm short axis;
    - PR: the sum at least 30 % below baseline;
    - SD: otherwise; without targets `Non-CR/Non-PD`; NE where a target cannot be measured.

    Args:
        baseline: the lesions present at baseline, by name.
        followup: the same lesions at the follow-up.
        new_lesions: number of new lesions.
        earlier: the same lesions at the follow-ups before, for the smallest sum.

    Returns:
        The category, with the sums of diameters in mm.
    """
    targets = choose_targets(baseline)
    before, now = _sum(baseline, targets), _sum(followup, targets)
    change = 100.0 * (now - before) / before if before and now is not None else None
    others = [followup[name].gone for name in baseline if name not in targets]
    if new_lesions:
        category = "PD"
    elif not baseline:
        category = "NE"
    elif targets:
        sums = [total for total in (_sum(visit, targets) for visit in earlier) if total is not None]
        category = _of_targets(before, now, min([before, *sums]), all(followup[name].gone for name in targets))
        if category == "CR" and not all(others):
            category = "NE" if None in others and False not in others else "PR"
    else:
        category = "CR" if all(others) else "NE" if None in others and False not in others else "Non-CR/Non-PD"
    return Response(category, before if targets else None, now if targets else None, change)


def _of_targets(before: float, now: float | None, nadir: float, all_gone: bool) -> str:
    if now is None:
        return "NE"
    rise = now - nadir
    if rise >= INCREASE_MM - TOLERANCE and rise >= INCREASE_PERCENT / 100.0 * nadir - TOLERANCE:
        return "PD"
    if all_gone:
        return "CR"
    return "PR" if before - now >= DECREASE_PERCENT / 100.0 * before - TOLERANCE else "SD"


def _sum(lesions: Mapping[str, Measured], targets: Sequence[str]) -> float | None:
    sizes = [lesions[name].size_mm for name in targets]
    return None if any(size is None for size in sizes) else math.fsum(sizes)
