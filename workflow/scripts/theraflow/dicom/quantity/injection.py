"""What a header says about the injection: when, how much, and what was left in the syringe."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

from theraflow.dicom.export.header import (
    GE_ADMINISTERED_AT,
    GE_RESIDUAL_ACTIVITY,
    GE_RESIDUAL_MEASURED_AT,
    GE_TRACER_ACTIVITY,
    GE_TRACER_MEASURED_AT,
    moment,
    number,
    tag_name,
    text,
    time,
)
from theraflow.dicom.export.parse import Header
from theraflow.dicom.quantity.stated import TIMES_AGREE_S, Facts, agreed, common, overrule, positive
from theraflow.errors import TheraflowError
from theraflow.layout import Scan
from theraflow.nuclides import Nuclide, nuclide

# An activity below this is in MBq, not Bq (the manual's histogram of 3433 series has its peaks at 4e2 and 4e8).
_IN_MBQ_BELOW = 1e4
# One between that and this is neither a plausible number of MBq nor of Bq.
_IN_BQ_ABOVE = 1e6
_BQ_AT_MOST = 1e11
# The half-life in the header and that of the configured nuclide may differ by this fraction.
_SAME_HALF_LIFE = 0.02
# With a longer half-life a time without date does not tell the day of the injection.
_HALF_LIFE_WITH_DATE_S = 6 * 3600.0
# A syringe is measured on the day of the injection; a time farther away was changed by anonymisation.
_MEASURED_WITHIN_S = 86400.0
# The dose in the header and what was measured in the syringe may differ by this fraction without remark.
_SAME_ACTIVITY = 0.02

_SEQUENCE = "RadiopharmaceuticalInformationSequence"


@dataclass(frozen=True)
class Syringe:
    """A syringe measured before and after the injection.

    Attributes:
        before_bq, before_at: activity in it, and when that was measured.
        after_bq, after_at: what was left in it.
    """

    before_bq: float
    before_at: datetime.datetime
    after_bq: float
    after_at: datetime.datetime | None

    @property
    def measured_at(self) -> tuple[datetime.datetime, ...]:
        """The times of its measurements that count."""
        return (self.before_at, self.after_at) if self.after_bq else (self.before_at,)

    def net_bq(self, administered_at: datetime.datetime, decay_per_s: float) -> float:
        """Activity that went into the patient, at the administration: both measurements brought to it."""
        waited_s = (administered_at - self.before_at).total_seconds()
        net = self.before_bq * math.exp(-decay_per_s * waited_s)
        if self.after_bq:
            net -= self.after_bq * math.exp(decay_per_s * (self.after_at - administered_at).total_seconds())
        return net


def read_injection(facts: Facts, headers: Sequence[Header], scan: Scan, known: Nuclide, zone: str | None) -> None:
    """Read nuclide, time and activity of the injection into `facts`.

    Args:
        facts: of the series, with the times of the acquisition.
        headers: one a slice.
        scan: its overrides go before the header.
        known: nuclide of the tracer.
        zone: offset from UTC of the header's times, as `+0200`, or None.

    Raises:
        TheraflowError: contradictory, implausible or unreadable values.
    """
    items = [header.items(_SEQUENCE) for header in headers]
    doses = _one_injection(facts, items, scan)
    _refuse_other_nuclide([item for listed in items for item in listed], known)
    _read_half_life(facts, doses, scan, known)
    _read_time(facts, headers, doses, scan, zone)
    _read_dose(facts, headers, doses, scan)
    if not all(items):
        for name in {"injected_bq", "injected_at"} & set(facts.missing):
            facts.missing[name] = [f"{tag} of {tag_name(_SEQUENCE)}" for tag in facts.missing[name]]


def _one_injection(facts: Facts, items: Sequence[Sequence[Header]], scan: Scan) -> list[Header]:
    """The item of each slice; an empty one where there is none, or where only scans.tsv can tell which it is."""
    if all(_contents(item) == _contents(listed[0]) for listed in items for item in listed[1:]):
        return [listed[0] if listed else Header({}) for listed in items]
    facts.several_injections = True
    if scan.injected_mbq is None or scan.injected_at is None:
        raise TheraflowError(
            f"{tag_name(_SEQUENCE)} lists several injections; give in injected_mbq and injected_at of scans.tsv the "
            "one that the image shows, with what was left of earlier ones."
        )
    facts.flags.append(f"{tag_name(_SEQUENCE)} lists several injections: the one of scans.tsv taken")
    return [Header({}) for _ in items]


def _contents(item: Header) -> tuple:
    """What makes two items the same injection: writers repeat an item, and fill in names more or less."""
    codes = tuple(text(code, "CodeValue") for code in item.items("RadionuclideCodeSequence"))
    return (
        number(item, "RadionuclideTotalDose"), number(item, "RadionuclideHalfLife"), codes,
        moment(item, "RadiopharmaceuticalStartDateTime"), time(item, "RadiopharmaceuticalStartTime"),
    )  # fmt: skip


def _refuse_other_nuclide(items: Sequence[Header], known: Nuclide) -> None:
    codes = (code for item in items for code in item.items("RadionuclideCodeSequence"))
    for meaning in sorted({text(code, "CodeMeaning") or "" for code in codes}):
        try:
            stated = nuclide(meaning)
        except TheraflowError:
            continue  # written in no way that we know; the half-life is compared, too
        if stated != known:
            raise TheraflowError(
                f"{tag_name('RadionuclideCodeSequence')} says {meaning}, but the nuclide of the tracer is "
                f"{known.name}; correct the tracer in scans.tsv or the configuration."
            )


def _read_half_life(facts: Facts, doses: Sequence[Header], scan: Scan, known: Nuclide) -> None:
    half_life = positive(common(facts, doses, "RadionuclideHalfLife", number))
    facts.nuclide, facts.half_life_s = known.name, half_life or known.half_life_s
    if abs(facts.half_life_s / known.half_life_s - 1.0) > _SAME_HALF_LIFE:
        raise TheraflowError(
            f"{tag_name('RadionuclideHalfLife')} of {half_life:g} s does not belong to {known.name} "
            f"({known.half_life_s:g} s), the nuclide of tracer {scan.tracer}; correct the tracer in scans.tsv or the "
            "configuration."
        )
    if half_life is None and facts.modality != "PT":
        facts.missing.pop("RadionuclideHalfLife", None)  # NM has no such element
    elif half_life is None:
        facts.missing["RadionuclideHalfLife"] = [tag_name("RadionuclideHalfLife")]
        facts.flags.append(
            f"{tag_name('RadionuclideHalfLife')} missing: that of {known.name}, the tracer's nuclide, taken"
        )


def _read_time(facts: Facts, headers: Sequence[Header], doses: Sequence[Header], scan: Scan, zone: str | None) -> None:
    whole = common(facts, doses, "RadiopharmaceuticalStartDateTime", lambda item, name: moment(item, name, zone))
    clock = common(facts, doses, "RadiopharmaceuticalStartTime", time)
    for keyword in ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"):
        facts.missing.pop(keyword, None)
    stated = whole
    if whole is not None and zone is None and _has_offset(text(doses[0], "RadiopharmaceuticalStartDateTime")):
        facts.flags.append(f"{tag_name('RadiopharmaceuticalStartDateTime')} has an offset from UTC, the other times "
                           "have none: taken as local time")  # fmt: skip
    if whole is not None and clock is not None:
        apart = abs((datetime.datetime.combine(whole.date(), clock) - whole).total_seconds())
        apart = min(apart, 86400 - apart)
        if apart > TIMES_AGREE_S:
            facts.flags.append(
                f"{tag_name('RadiopharmaceuticalStartDateTime')} and {tag_name('RadiopharmaceuticalStartTime')} "
                f"differ by {apart:.0f} s: the first taken"
            )
    lacks_date = facts.half_life_s > _HALF_LIFE_WITH_DATE_S
    if whole is None and clock is not None and not lacks_date:
        stated = _day_of(facts, clock, tag_name("RadiopharmaceuticalStartTime"))
    stated = _with_ge_time(facts, headers, stated, clock)
    override = None if scan.injected_at is None else _override_time(facts, scan.injected_at, lacks_date)
    facts.injected_at = overrule(facts, "injected_at", "RadiopharmaceuticalStartDateTime", stated, override)
    facts.stated["injected_at"] = stated
    if facts.injected_at is None and (clock is None or lacks_date):
        name = tag_name("RadiopharmaceuticalStartDateTime")
        if clock is not None:
            name += f" (a time alone does not tell the day, half-life {facts.half_life_s / 3600:.3g} h)"
        facts.missing["injected_at"] = [name]


def _has_offset(value: str | None) -> bool:
    return value is not None and any(sign in value for sign in "+-")


def _with_ge_time(
    facts: Facts, headers: Sequence[Header], stated: datetime.datetime | None, clock: datetime.time | None
) -> datetime.datetime | None:
    """The time of the injection, by GE's own element where the standard ones say nothing."""
    administered = agreed([GE_ADMINISTERED_AT.moment(header) for header in headers], f"GE's {GE_ADMINISTERED_AT}")
    if administered is None or facts.several_injections:
        return stated
    name = tag_name("RadiopharmaceuticalStartDateTime")
    if stated is None and clock is None:
        facts.flags.append(f"{name} missing: GE's time of administration {GE_ADMINISTERED_AT} taken")
        return administered
    if stated is not None and abs((stated - administered).total_seconds()) > TIMES_AGREE_S:
        facts.flags.append(f"GE's time of administration {GE_ADMINISTERED_AT} differs from the time of the injection "
                           f"by {abs((stated - administered).total_seconds()):.0f} s: the latter taken")  # fmt: skip
    return stated


def _day_of(facts: Facts, clock: datetime.time, source: str) -> datetime.datetime | None:
    """The last such time before the scan; None where the time of the scan is not known either."""
    if facts.acquired_at is None:
        return None
    found = datetime.datetime.combine(facts.acquired_at.date(), clock)
    if found > facts.acquired_at:
        facts.flags.append(f"{source} is later in the day than the scan: taken as the day before")
        found -= datetime.timedelta(days=1)
    return found


def _override_time(facts: Facts, value: str, lacks_date: bool) -> datetime.datetime | None:
    value = value.strip()
    if ":" in value[:3] and not lacks_date:
        try:
            clock = datetime.time.fromisoformat(value)
        except ValueError as error:
            raise TheraflowError(f"injected_at in scans.tsv is {value!r}, which is no time of day.") from error
        return _day_of(facts, clock, "injected_at in scans.tsv")
    return sheet_time("injected_at", value, "" if lacks_date else ", or the time alone as 09:45:00")


def sheet_time(column: str, value: str, otherwise: str = "") -> datetime.datetime:
    """Date and time as written in scans.tsv, on the clock of the room.

    Raises:
        TheraflowError: not date and time.
    """
    try:
        if len(value.strip()) <= len("2023-05-31"):
            raise ValueError
        return datetime.datetime.fromisoformat(value.strip()).replace(tzinfo=None)
    except ValueError as error:
        raise TheraflowError(
            f"{column} in scans.tsv is {value!r}; write date and time as 2023-05-31T09:45:00{otherwise}."
        ) from error


def _read_dose(facts: Facts, headers: Sequence[Header], doses: Sequence[Header], scan: Scan) -> None:
    keyword = "RadionuclideTotalDose"
    stated = positive(common(facts, doses, keyword, number))
    facts.missing.pop(keyword, None)
    overridden = scan.injected_mbq is not None
    # NM and enhanced PET state MBq (PS3.3 C.8.4.10, C.8.22.4), PET Bq; practice confuses them.
    states_mbq = facts.modality == "NM" or facts.enhanced
    if stated is not None:
        factor = _bq_per_unit(stated, states_mbq)
        if factor is None and not overridden:
            raise TheraflowError(
                f"{tag_name(keyword)} of {stated:g} is plausible neither in Bq nor in MBq; give injected_mbq in "
                "scans.tsv."
            )
        if factor == 1e6 and not states_mbq and not overridden:
            facts.flags.append(f"{tag_name(keyword)} is {stated:g}: taken as MBq")
        if factor == 1.0 and facts.enhanced and not overridden:
            facts.flags.append(f"{tag_name(keyword)} is {stated:g}: taken as Bq")
        stated = factor and stated * factor
    stated = _with_syringe(facts, _syringe(facts, headers, overridden), stated)
    mbq = overrule(facts, "injected_mbq", keyword, stated and stated / 1e6, scan.injected_mbq)
    facts.injected_bq = mbq and mbq * 1e6
    if facts.injected_bq is None:
        facts.missing["injected_bq"] = [tag_name(keyword)]


def _bq_per_unit(value: float, states_mbq: bool) -> float | None:
    """The unit of an activity by its size: 1e6 (MBq), 1 (Bq), or None where neither is plausible."""
    if value < (_IN_BQ_ABOVE / 10 if states_mbq else _IN_MBQ_BELOW):
        return 1e6
    return 1.0 if _IN_BQ_ABOVE <= value <= _BQ_AT_MOST else None


def _syringe(facts: Facts, headers: Sequence[Header], overridden: bool) -> Syringe | None:
    """GE's measurements of the syringe; None where they are not complete.

    A residual of 0 has been stated; one that is absent is not known.
    """
    if facts.several_injections or not GE_TRACER_ACTIVITY.raw(headers[0]):
        return None
    before, after = (
        agreed([element.number(header) for header in headers], f"GE's {element}")
        for element in (GE_TRACER_ACTIVITY, GE_RESIDUAL_ACTIVITY)
    )
    before_at, after_at = (
        agreed([element.moment(header) for header in headers], f"GE's {element}")
        for element in (GE_TRACER_MEASURED_AT, GE_RESIDUAL_MEASURED_AT)
    )
    if before is None or before_at is None:
        return None
    if after is None and not GE_RESIDUAL_ACTIVITY.raw(headers[0]):
        return None
    if after is not None and after_at is None:
        return None
    factor = _bq_per_unit(before, states_mbq=False)
    if factor is None:
        if overridden:
            return None
        raise TheraflowError(
            f"GE's tracer activity {GE_TRACER_ACTIVITY} of {before:g} is plausible neither in Bq nor in MBq; give "
            "injected_mbq in scans.tsv."
        )
    # The two have one unit, whatever the size of the residual.
    return Syringe(before * factor, before_at, (after or 0.0) * factor, after_at)


def _with_syringe(facts: Facts, syringe: Syringe | None, stated: float | None) -> float | None:
    """The activity in Bq: RadionuclideTotalDose where it is stated, otherwise what has left the syringe.

    RadionuclideTotalDose rules, because the standard defines it as what the patient was given, and scanner and other
    programs compute their SUV by it.
    """
    if syringe is None or facts.injected_at is None:
        return stated
    apart_s = max(abs((at - facts.injected_at).total_seconds()) for at in syringe.measured_at)
    if apart_s > _MEASURED_WITHIN_S:
        facts.flags.append(
            f"GE's activities of the syringe were measured {apart_s / 3600:.3g} h from the injection: left out"
        )
        return stated
    net = syringe.net_bq(facts.injected_at, facts.decay_constant_per_s)
    if stated is None:
        if net <= 0 or net > _BQ_AT_MOST:
            facts.flags.append(f"GE's activities of the syringe give {net / 1e6:.6g} MBq, impossible: left out")
            return None
        facts.flags.append(
            f"{tag_name('RadionuclideTotalDose')} missing: {net / 1e6:.6g} MBq taken, GE's activity of the syringe "
            f"{GE_TRACER_ACTIVITY} less its residual {GE_RESIDUAL_ACTIVITY}, both brought to the injection"
        )
        return net
    if not math.isclose(net, stated, rel_tol=_SAME_ACTIVITY):
        facts.flags.append(
            f"GE's activities of the syringe give {net / 1e6:.6g} MBq, {tag_name('RadionuclideTotalDose')} "
            f"{stated / 1e6:.6g} MBq: the latter taken"
        )
    return stated
