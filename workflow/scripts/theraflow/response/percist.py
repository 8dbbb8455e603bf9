"""PERCIST 1.0 (Wahl et al., J Nucl Med 2009;50 Suppl 1:122S) on the hottest lesion of each scan."""

from dataclasses import dataclass

CHANGE_PERCENT = 30.0
CHANGE_UNITS = 0.8
TOLERANCE = 1e-9  # a change that is exactly on the border has reached it, whatever rounding does


@dataclass(frozen=True)
class Response:
    """One row of the response table, without patient and scans.

    Attributes:
        category: of the criterion; `NE` where it cannot be evaluated.
        baseline, followup: what is compared, or None.
        change_percent: change in percent of the baseline, or None.
    """

    category: str
    baseline: float | None
    followup: float | None
    change_percent: float | None


def percist(baseline: float | None, followup: float | None, any_positive: bool | None, new_lesions: int) -> Response:
    """Category by PERCIST 1.0.

    - PMD: a new lesion, or the peak rose by at least 30 % and by at least 0.8 units;
    - CMR: no lesion is above its background at follow-up;
    - PMR: the peak fell by at least 30 % and by at least 0.8 units;
    - SMD: otherwise; NE: nothing to compare.

    Args:
        baseline: SUVpeak or SULpeak in g/mL of the hottest lesion at baseline; None if no lesion was
            positive.
        followup: of the hottest lesion at follow-up, not necessarily the same one; None if unknown.
        any_positive: whether any lesion is positive at follow-up; None where that cannot be told of all.
        new_lesions: number of new positive lesions at follow-up.
    """
    change = None
    if baseline is not None and followup is not None and baseline > 0:
        change = 100.0 * (followup - baseline) / baseline
    if new_lesions:
        category = "PMD"
    elif baseline is None:
        category = "NE"
    elif any_positive is False:
        category = "CMR"
    elif change is None or any_positive is None:
        category = "NE"
    elif _reached(change, followup - baseline):
        category = "PMD"
    elif _reached(-change, baseline - followup):
        category = "PMR"
    else:
        category = "SMD"
    return Response(category, baseline, followup, change)


def _reached(percent: float, units: float) -> bool:
    return percent >= CHANGE_PERCENT - TOLERANCE and units >= CHANGE_UNITS - TOLERANCE


def lean_body_mass_kg(weight_kg: float, height_cm: float, sex: str) -> float | None:
    """Lean body mass by Janmahasatian (Clin Pharmacokinet 2005;44:1051); None for a sex not `M` or `F`."""
    body_mass_index = weight_kg / (height_cm / 100.0) ** 2
    if sex == "M":
        return 9270.0 * weight_kg / (6680.0 + 216.0 * body_mass_index)
    if sex == "F":
        return 9270.0 * weight_kg / (8780.0 + 244.0 * body_mass_index)
    return None
