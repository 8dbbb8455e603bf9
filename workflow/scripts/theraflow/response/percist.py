"""PERCIST 1.0 as functions of numbers.

Wahl et al., J Nucl Med 2009;50 Suppl 1:122S, table 7 (its rules) and O et al., Radiology 2016;280:576 (their practice).
Uptake is SUL (SUV by lean body mass) in g/mL; where only SUV by body weight is known, the caller says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIVER, BLOOD_POOL = "liver", "blood_pool"

CHANGE_PERCENT = 30.0
CHANGE_UNITS = 0.8
TLG_RISE_PERCENT = 75.0
TOLERANCE = 1e-9  # a change that is exactly on the border has reached it, whatever rounding does

# A lesion is measurable at baseline from this multiple of the reference region's mean on, plus two of its sd.
MEASURABLE_FROM = {LIVER: 1.5, BLOOD_POOL: 2.0}
MEASURABLE_SD = 2.0
BLOOD_POOL_SD = 2.0  # up to the blood pool's mean and so many of its sd, uptake is taken as indistinguishable from it

REFERENCE_PERCENT, REFERENCE_UNITS = 20.0, 0.3  # how far a reference region's mean may change between two scans
UPTAKE_MIN = (50.0, 70.0)  # minutes from injection to baseline scan; the follow-up has the lower limit only
UPTAKE_DIFFERENCE_MIN = 15.0
ACTIVITY_PERCENT = 20.0

EXPLORATORY_LESIONS, EXPLORATORY_AN_ORGAN = 5, 2
# Organs whose own uptake is near the liver's mean.
LIVER_LIKE = ("liver", "spleen")


@dataclass(frozen=True)
class Response:
    """What a criterion says of one follow-up.

    Attributes:
        category: of the criterion; `NE` where it cannot be evaluated.
        baseline, followup: what is compared, or None.
        change_percent: change in percent of the baseline, or None.
    """

    category: str
    baseline: float | None
    followup: float | None
    change_percent: float | None


@dataclass(frozen=True)
class Reference:
    """Uptake of a reference region of one scan.

    Attributes:
        region: `liver` or `blood_pool`.
        mean, sd: of its voxels, g/mL.
        volume_ml: of the voxels measured.
        centre_mm: of the sphere or cylinder, x y z in LPS mm of the emission image.
    """

    region: str
    mean: float
    sd: float
    volume_ml: float
    centre_mm: tuple[float, float, float]

    def times(self, factor: float) -> "Reference":
        """The same region in another unit of uptake."""
        return Reference(self.region, self.mean * factor, self.sd * factor, self.volume_ml, self.centre_mm)


@dataclass(frozen=True)
class Acquisition:
    """How a scan was made, as far as it is known; None where it is not.

    Attributes:
        uptake_min: minutes from injection to the start of the scan.
        injected_mbq: injected activity.
        scanner: manufacturer and model.
    """

    uptake_min: float | None
    injected_mbq: float | None
    scanner: str | None


@dataclass(frozen=True)
class Lesion:
    """One lesion on one scan.

    Attributes:
        name: of the lesion, the same on all scans.
        site: an organ, or None where unknown.
        peak: SULpeak in g/mL; None where it was not measured.
        positive: above its surroundings, or the reader's word; None where that cannot be told.
        longest_mm: longest diameter of the outline on this scan itself; None without one.
        tlg: mean uptake times volume, g/mL x mL, of that outline; None without one.
        outlined_by: how that outline was made, `reader` or `candidate`; None without one.
    """

    name: str
    site: str | None
    peak: float | None
    positive: bool | None
    longest_mm: float | None = None
    tlg: float | None = None
    outlined_by: str | None = None


def percist(
    baseline: float | None,
    followup: float | None,
    any_left: bool | None,
    new_lesions: int,
    measurable: bool | None = None,
    any_risen: bool = False,
    tlg_change_percent: float | None = None,
) -> Response:
    """Category by PERCIST 1.0 on the hottest lesion of each scan.

    - PMD: a new lesion; or the peak rose by at least 30 % and by at least 0.8 units; or TLG rose by at least 75 % and
      the peak did not fall;
    - NE: nothing to compare, or nothing measurable at baseline;
    - CMR: no lesion is left at follow-up, and none is new;
    - PMR: the peak fell by at least 30 % and by at least 0.8 units, and no lesion rose by more than 30 %;
    - SMD: otherwise.

    Args:
        baseline: peak in g/mL of the hottest lesion at baseline; None if no lesion was positive.
        followup: of the hottest lesion at follow-up, not necessarily the same one; None if unknown.
        any_left: whether any lesion is left at follow-up (see `is_left`); None where that cannot be told of all.
        new_lesions: number of new lesions at follow-up.
        measurable: whether the hottest lesion at baseline is (see `measurable_from`); None where no reference region
            is known: then the category is given, and it is for the caller to say what it lacks.
        any_risen: whether a lesion's uptake or size rose by more than 30 % (see `risen`).
        tlg_change_percent: of all lesions together, in percent of the baseline; None where it cannot be compared.
    """
    change = percent_change(baseline, followup)
    if new_lesions:
        category = "PMD"
    elif baseline is None or measurable is False:
        category = "NE"
    elif any_left is False:
        category = "CMR"
    elif change is None or any_left is None:
        category = "NE"
    elif _reached(change, followup - baseline) or _spread(tlg_change_percent, change):
        category = "PMD"
    elif _reached(-change, baseline - followup) and not any_risen:
        category = "PMR"
    else:
        category = "SMD"
    return Response(category, baseline, followup, change)


def _reached(percent: float, units: float) -> bool:
    return percent >= CHANGE_PERCENT - TOLERANCE and units >= CHANGE_UNITS - TOLERANCE


def _spread(tlg_change_percent: float | None, peak_change_percent: float) -> bool:
    risen = tlg_change_percent is not None and tlg_change_percent >= TLG_RISE_PERCENT - TOLERANCE
    return risen and peak_change_percent >= -TOLERANCE


def measurable_from(reference: Reference) -> float:
    """Lowest peak of a measurable lesion: 1.5 x liver mean + 2 sd, or 2.0 x blood pool mean + 2 sd (g/mL)."""
    return MEASURABLE_FROM[reference.region] * reference.mean + MEASURABLE_SD * reference.sd


def is_measurable(peak: float, reference: Reference) -> bool:
    """Whether a lesion's peak at baseline is high enough for PERCIST; the limit itself is."""
    return peak >= measurable_from(reference) - TOLERANCE


def is_left(peak: float, liver: Reference | None, blood_pool: Reference | None) -> bool | None:
    """Whether a lesion is left: not below the liver's mean, or to be told from the blood pool.

    As published, a lesion that has gone has less uptake than the liver's mean and cannot be told from the blood pool.
    Of what is not known of the two only the other is asked.

    Args:
        peak: of the lesion at follow-up, g/mL.
        liver, blood_pool: of the follow-up scan, or None.

    Returns:
        None where neither is known.
    """
    above = [] if liver is None else [peak >= liver.mean]
    if blood_pool is not None:
        above.append(peak > blood_pool.mean + BLOOD_POOL_SD * blood_pool.sd)
    return any(above) if above else None


def is_comparable(before: Reference, now: Reference) -> bool:
    """Whether a reference region's mean changed by no more than 20 % and by less than 0.3 units."""
    change = abs(now.mean - before.mean)
    return change <= REFERENCE_PERCENT / 100.0 * before.mean + TOLERANCE and change < REFERENCE_UNITS - TOLERANCE


def reference_of_pair(before: Mapping[str, Reference], now: Mapping[str, Reference]) -> tuple[str | None, list[str]]:
    """The region by which two scans are comparable: the liver, or, where it is not, the blood pool.

    Args:
        before, now: by region, what could be measured.

    Returns:
        The region, or None where neither serves; and in words what changed too much.
    """
    changed = []
    for region in (LIVER, BLOOD_POOL):
        if region in before and region in now:
            if is_comparable(before[region], now[region]):
                return region, changed
            name = region.replace("_", " ")
            changed.append(f"mean of the {name} changed from {before[region].mean:.2f} to {now[region].mean:.2f} g/mL")
    return None, changed


def acquisition_faults(before: Acquisition, now: Acquisition) -> tuple[list[str], list[str]]:
    """What keeps two scans from being comparable, and what of it is not known.

    The uptake time is 50 to 70 min at baseline, at follow-up at least 50 min and within 15 min of the baseline's;
    injected activities differ by no more than 20 % of the baseline's; the scanner is the same model.

    Returns:
        Faults and names of unknown facts, each in words.
    """
    faults, unknown = [], []
    first, last = UPTAKE_MIN
    if before.uptake_min is None or now.uptake_min is None:
        unknown.append("uptake times")
    if before.uptake_min is not None and not first - TOLERANCE <= before.uptake_min <= last + TOLERANCE:
        faults.append(f"uptake time at baseline {before.uptake_min:.1f} min, asked {first:.0f} to {last:.0f}")
    if now.uptake_min is not None and now.uptake_min < first - TOLERANCE:
        faults.append(f"uptake time at follow-up {now.uptake_min:.1f} min, asked at least {first:.0f}")
    if before.uptake_min is not None and now.uptake_min is not None:
        apart = abs(now.uptake_min - before.uptake_min)
        if apart > UPTAKE_DIFFERENCE_MIN + TOLERANCE:
            faults.append(f"uptake times {apart:.1f} min apart, asked {UPTAKE_DIFFERENCE_MIN:.0f} at most")
    if before.injected_mbq is None or now.injected_mbq is None:
        unknown.append("injected activities")
    else:
        percent = 100.0 * abs(now.injected_mbq - before.injected_mbq) / before.injected_mbq
        if percent > ACTIVITY_PERCENT + TOLERANCE:
            faults.append(f"injected activities {percent:.1f} % apart, asked {ACTIVITY_PERCENT:.0f} at most")
    if before.scanner is None or now.scanner is None:
        unknown.append("scanner")
    elif before.scanner != now.scanner:
        faults.append(f"another scanner: {before.scanner}, {now.scanner}")
    return faults, unknown


def risen(before: Sequence[Lesion], now: Sequence[Lesion]) -> list[str]:
    """In words, the lesions whose uptake or size rose by more than 30 % between two scans.

    Uptake is compared of lesions positive on both, size where both scans outline them alike.
    """
    then = {lesion.name: lesion for lesion in before}
    sentences = []
    for lesion in now:
        old = then.get(lesion.name)
        if old is None or not old.positive or not lesion.positive:
            continue
        rises = {"uptake": percent_change(old.peak, lesion.peak)}
        if old.outlined_by is not None and old.outlined_by == lesion.outlined_by:
            rises["size"] = percent_change(old.longest_mm, lesion.longest_mm)
        sentences += [
            f"{lesion.name} rose by {percent:.1f} % in {what}"
            for what, percent in rises.items()
            if percent is not None and percent > CHANGE_PERCENT + TOLERANCE
        ]
    return sentences


def percent_change(before: float | None, now: float | None) -> float | None:
    """Change in percent of `before`; None where one of them is unknown or there was nothing."""
    return 100.0 * (now - before) / before if before and now is not None else None


def tlg_change_percent(before: Sequence[Lesion], now: Sequence[Lesion]) -> float | None:
    """Change of TLG, summed over the positive lesions of each scan, in percent of the baseline.

    None unless every one of them is outlined on its own scan, and all in one way: a volume by another rule is another
    volume.
    """
    lit = [[lesion for lesion in lesions if lesion.positive] for lesions in (before, now)]
    ways = {lesion.outlined_by for lesions in lit for lesion in lesions}
    if not all(lit) or len(ways) != 1 or None in ways:
        return None
    if any(lesion.tlg is None for lesions in lit for lesion in lesions):
        return None
    return percent_change(*(sum(lesion.tlg for lesion in lesions) for lesions in lit))


def hottest(lesions: Sequence[Lesion]) -> list[Lesion]:
    """Up to five hottest positive lesions, at most two of one site: what PERCIST sums for exploration.

    The first is the hottest lesion of the scan. Lesions whose site is unknown count as one site together.
    """
    chosen: list[Lesion] = []
    measured = [lesion for lesion in lesions if lesion.positive and lesion.peak is not None]
    for lesion in sorted(measured, key=lambda one: (-one.peak, one.name)):
        of_site = sum(other.site == lesion.site for other in chosen)
        if len(chosen) < EXPLORATORY_LESIONS and of_site < EXPLORATORY_AN_ORGAN:
            chosen.append(lesion)
    return chosen


def hottest_peaks(before: Sequence[Lesion], now: Sequence[Lesion]) -> tuple[float | None, float | None]:
    """The hottest positive lesion's peak at baseline and at follow-up.

    Where nothing is positive at follow-up, the peak is that of the hottest place where a lesion was.
    """
    lit_before, lit_now = ([lesion for lesion in lesions if lesion.positive] for lesions in (before, now))
    places = {lesion.name for lesion in lit_before}
    return _highest(lit_before), _highest(lit_now or [lesion for lesion in now if lesion.name in places])


def any_left(
    before: Sequence[Lesion], now: Sequence[Lesion], references: Mapping[str, Reference], reader_says: bool
) -> bool | None:
    """Whether any lesion is left at follow-up; None where that cannot be told of all.

    By liver and blood pool (see `is_left`), as far as the follow-up scan has them. Not so: on a scan that a reader has
    annotated, for the reader's word overrules; in the liver and the spleen, for what has healed there has their uptake;
    and where the uptake is not known. Such lesions are left if they are positive.

    Args:
        before, now: the lesions on both scans.
        references: of the follow-up scan, by region.
        reader_says: whether the follow-up scan is annotated.
    """
    lit = {lesion.name for lesion in (*before, *now) if lesion.positive}
    left = []
    for lesion in now:
        if lesion.positive is not None and lesion.name not in lit:
            continue
        answer = lesion.positive
        if not reader_says and lesion.site not in LIVER_LIKE and lesion.peak is not None and references:
            answer = is_left(lesion.peak, references.get(LIVER), references.get(BLOOD_POOL))
        left.append(answer)
    return True if True in left else None if None in left else False


def _highest(lesions: Sequence[Lesion]) -> float | None:
    return max((lesion.peak for lesion in lesions if lesion.peak is not None), default=None)


def overruled(before: Sequence[Lesion], now: Sequence[Lesion], references: Mapping[str, Reference]) -> list[str]:
    """In words, where a reader sees no lesion any more although uptake is not below liver and blood pool.

    Args and their meaning: as of `any_left`.
    """
    lit = {lesion.name for lesion in before if lesion.positive}
    return [
        f"the reader sees no {lesion.name}, though its place has {lesion.peak:.2f} g/mL"
        for lesion in now
        if lesion.name in lit and lesion.positive is False and lesion.peak is not None
        and is_left(lesion.peak, references.get(LIVER), references.get(BLOOD_POOL))
    ]  # fmt: skip


def lean_body_mass_kg(weight_kg: float, height_cm: float, sex: str) -> float | None:
    """Lean body mass by Janmahasatian (Clin Pharmacokinet 2005;44:1051); None for a sex not `M` or `F`."""
    body_mass_index = weight_kg / (height_cm / 100.0) ** 2
    if sex == "M":
        return 9270.0 * weight_kg / (6680.0 + 216.0 * body_mass_index)
    if sex == "F":
        return 9270.0 * weight_kg / (8780.0 + 244.0 * body_mass_index)
    return None
