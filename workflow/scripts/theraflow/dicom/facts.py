"""What headers and scans.tsv say about an emission series; whatever is missing is remembered by name."""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theraflow.dicom.choice import real_world_bq_per_ml
from theraflow.dicom.header import (
    GE_REFERENCE_TIME,
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    acquisition_start,
    corrections,
    date,
    moment,
    number,
    numbers,
    tag_name,
    text,
    time,
)
from theraflow.dicom.parse import Header
from theraflow.errors import TheraflowError
from theraflow.layout import Scan
from theraflow.nuclides import Nuclide, nuclide

# A dose below this is in MBq, not Bq (the manual's histogram of 3433 series has its peaks at 4e2 and 4e8).
_DOSE_IN_MBQ_BELOW = 1e4
# A dose between that and this is neither a plausible number of MBq nor of Bq.
_DOSE_IN_BQ_ABOVE = 1e6
_DOSE_BQ_AT_MOST = 1e11
_WEIGHT_IN_G_ABOVE = 1000.0
_WEIGHT_KG_AT_MOST = 500.0
_HEIGHT_IN_CM_ABOVE = 3.0
# The half-life in the header and that of the configured nuclide may differ by this fraction.
_SAME_HALF_LIFE = 0.02
# With a longer half-life a time without date does not tell the day of the injection.
_HALF_LIFE_WITH_DATE_S = 6 * 3600.0
# Statements of the injection time that differ by more than this are reported.
INJECTION_TIMES_AGREE_S = 60.0
# Columns of scans.tsv that can state what a header lacks, by the fact they state.
OVERRIDES = {
    "weight_kg": "weight_kg",
    "height_m": "height_cm",
    "injected_bq": "injected_mbq",
    "injected_at": "injected_at",
}


@dataclass
class Facts:
    """What headers and scans.tsv say about one series. None: not stated; then `missing` has the names.

    Attributes:
        where: the series, for messages; `slices`: their number.
        modality, units, suv_type, decay_correction: as in DICOM; `corrected`: CorrectedImage.
        acquired: start of acquisition of every slice; `series_start`: SeriesDate and SeriesTime.
        ge_reference: GE's own reference time of the decay correction.
        frame_reference_s, frame_s: FrameReferenceTime and ActualFrameDuration of every slice, in s.
        half_life_s: as the header says, otherwise of the configured nuclide.
        injected_at, injected_bq, weight_kg, height_m: with the overrides of scans.tsv.
        sex: M, F or O.
        suv_factor, activity_factor: Philips' factors of every slice.
        voxel_ml: voxel volume of every slice by PixelSpacing and SliceThickness.
        real_world: slope and intercept of every slice's real-world value mapping to Bq/mL.
        stated: the header's own values of what scans.tsv overrides.
        overrides: columns of scans.tsv in use; `flags`: remarks; `missing`: fact -> names of the missing
            tags.
    """

    where: str
    modality: str
    slices: int
    units: str | None = None
    suv_type: str | None = None
    decay_correction: str | None = None
    corrected: tuple[str, ...] | None = None
    acquired: list[datetime.datetime] | None = None
    series_start: datetime.datetime | None = None
    ge_reference: datetime.datetime | None = None
    frame_reference_s: np.ndarray | None = None
    frame_s: np.ndarray | None = None
    half_life_s: float | None = None
    injected_at: datetime.datetime | None = None
    injected_bq: float | None = None
    weight_kg: float | None = None
    height_m: float | None = None
    sex: str | None = None
    suv_factor: np.ndarray | None = None
    activity_factor: np.ndarray | None = None
    voxel_ml: np.ndarray | None = None
    real_world: list[tuple[float, float]] | None = None
    stated: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def acquired_at(self) -> datetime.datetime | None:
        """Start of the acquisition: the earliest slice."""
        return min(self.acquired) if self.acquired else None

    @property
    def decay_constant_per_s(self) -> float:
        """Physical decay constant in 1/s."""
        return math.log(2) / self.half_life_s


def read_facts(headers: Sequence[Header], scan: Scan, tracer: Mapping[str, Any], where: str) -> Facts:
    """Collect the facts of a series.

    Args:
        headers: one a slice.
        scan: the row of scans.tsv; its overrides go before the header.
        tracer: the configuration of its tracer (`nuclide`).
        where: names the series in messages.

    Raises:
        TheraflowError: contradictory or unreadable values. Missing ones are only noted.
    """
    try:
        facts = Facts(where, text(headers[0], "Modality") or "", len(headers))
        _read_image(facts, headers)
        _read_times(facts, headers)
        _read_private(facts, headers)
        _read_patient(facts, headers, scan)
        _read_injection(facts, headers, scan, nuclide(str(tracer["nuclide"])))
    except TheraflowError as error:
        raise TheraflowError(f"{where}: {error}") from error
    return facts


def _common(facts: Facts, headers: Sequence[Header], keyword: str, read: Any) -> Any:
    """The value that all slices share; None and noted as missing where one of them lacks it."""
    values = [read(header, keyword) for header in headers]
    if any(value is None for value in values):
        facts.missing[keyword] = [tag_name(keyword)]
        return None
    if any(value != values[0] for value in values):
        raise TheraflowError(f"{tag_name(keyword)} differs between slices of the series.")
    return values[0]


def _each(facts: Facts, headers: Sequence[Header], keyword: str) -> np.ndarray | None:
    """A number for every slice; None and noted as missing where one of them lacks it."""
    values = [number(header, keyword) for header in headers]
    if any(value is None for value in values):
        facts.missing[keyword] = [tag_name(keyword)]
        return None
    return np.array(values)


def _read_image(facts: Facts, headers: Sequence[Header]) -> None:
    mappings = [_real_world(header) for header in headers]
    if None not in mappings:
        facts.real_world = mappings
    facts.units = _common(facts, headers, "Units", text)
    facts.suv_type = text(headers[0], "SUVType")
    facts.decay_correction = _common(facts, headers, "DecayCorrection", text)
    facts.corrected = _common(facts, headers, "CorrectedImage", lambda header, _: corrections(header))


def _real_world(header: Header) -> tuple[float, float] | None:
    mapping = real_world_bq_per_ml(header)
    if mapping is None:
        return None
    slope, intercept = number(mapping, "RealWorldValueSlope"), number(mapping, "RealWorldValueIntercept")
    if not slope or intercept is None:
        raise TheraflowError(
            f"{tag_name('RealWorldValueMappingSequence')} lacks {tag_name('RealWorldValueSlope')} or "
            f"{tag_name('RealWorldValueIntercept')}."
        )
    return slope, intercept


def _read_times(facts: Facts, headers: Sequence[Header]) -> None:
    acquired = [acquisition_start(header) for header in headers]
    if None in acquired:
        lacking = headers[acquired.index(None)]
        parts = [keyword for keyword in ("AcquisitionDate", "AcquisitionTime") if not text(lacking, keyword)]
        facts.missing["acquired"] = [tag_name(keyword) for keyword in parts]
    else:
        facts.acquired = acquired
    day, clock = _common(facts, headers, "SeriesDate", date), _common(facts, headers, "SeriesTime", time)
    if day and clock is not None:
        facts.series_start = datetime.datetime.combine(day, clock)
    milliseconds = _each(facts, headers, "FrameReferenceTime")
    facts.frame_reference_s = None if milliseconds is None else milliseconds / 1000.0
    milliseconds = _each(facts, headers, "ActualFrameDuration")
    if milliseconds is not None and (milliseconds <= 0).any():
        facts.missing["ActualFrameDuration"] = [tag_name("ActualFrameDuration")]
        milliseconds = None
    facts.frame_s = None if milliseconds is None else milliseconds / 1000.0


def _read_private(facts: Facts, headers: Sequence[Header]) -> None:
    references = {GE_REFERENCE_TIME.moment(header) for header in headers}
    if len(references) > 1:
        raise TheraflowError("GE's PET scan date and time (0009,100D) differs between slices of the series.")
    facts.ge_reference = references.pop()
    for name, element in (("suv_factor", PHILIPS_SUV_FACTOR), ("activity_factor", PHILIPS_ACTIVITY_FACTOR)):
        values = [element.number(header) for header in headers]
        setattr(facts, name, None if None in values else np.array(values))
    voxels = []
    for header in headers:
        spacing, thickness = numbers(header, "PixelSpacing", 2), number(header, "SliceThickness")
        voxels.append(spacing and thickness and spacing[0] * spacing[1] * thickness / 1000.0)
    facts.voxel_ml = np.array(voxels) if all(voxels) else None


def _read_patient(facts: Facts, headers: Sequence[Header], scan: Scan) -> None:
    weight = _common(facts, headers, "PatientWeight", number)
    if weight is not None and weight > _WEIGHT_IN_G_ABOVE:
        facts.flags.append(f"{tag_name('PatientWeight')} is {weight:g}: taken as g")
        weight /= 1000.0
    height = _common(facts, headers, "PatientSize", number)
    if height is not None and height > _HEIGHT_IN_CM_ABOVE:
        facts.flags.append(f"{tag_name('PatientSize')} is {height:g}: taken as cm")
        height /= 100.0
    _take(facts, "weight_kg", "PatientWeight", weight, scan.weight_kg)
    _take(facts, "height_m", "PatientSize", height, scan.height_cm and scan.height_cm / 100.0)
    if facts.weight_kg is not None and facts.weight_kg > _WEIGHT_KG_AT_MOST:
        raise TheraflowError(
            f"{tag_name('PatientWeight')} of {facts.weight_kg:g} kg is impossible; give weight_kg in scans.tsv."
        )
    sex = _common(facts, headers, "PatientSex", text)
    facts.sex = sex if sex in ("M", "F", "O") else None
    if facts.sex is None:
        facts.missing["PatientSex"] = [tag_name("PatientSex")]


def _take(facts: Facts, name: str, keyword: str, stated: float | None, override: float | None) -> None:
    """Set a fact from scans.tsv or from the header; empty, zero and negative count as missing."""
    facts.missing.pop(keyword, None)
    stated = stated if stated is not None and math.isfinite(stated) and stated > 0 else None
    facts.stated[name] = stated
    if override is not None:
        if not (math.isfinite(override) and override > 0):
            raise TheraflowError(f"{OVERRIDES[name]} in scans.tsv is {override:g}; it must be positive.")
        facts.overrides.append(OVERRIDES[name])
    setattr(facts, name, stated if override is None else override)
    if getattr(facts, name) is None:
        facts.missing[name] = [tag_name(keyword)]


def _read_injection(facts: Facts, headers: Sequence[Header], scan: Scan, known: Nuclide) -> None:
    items = [header.items("RadiopharmaceuticalInformationSequence") for header in headers]
    if any(len(item) > 1 for item in items):
        raise TheraflowError(
            f"{tag_name('RadiopharmaceuticalInformationSequence')} lists several injections; theraflow needs one."
        )
    doses = [item[0] if item else Header({}) for item in items]
    for item in doses:
        _refuse_other_nuclide(item, known)
    half_life = _common(facts, doses, "RadionuclideHalfLife", number)
    facts.half_life_s = half_life or known.half_life_s
    if abs(facts.half_life_s / known.half_life_s - 1.0) > _SAME_HALF_LIFE:
        raise TheraflowError(
            f"{tag_name('RadionuclideHalfLife')} of {half_life:g} s does not belong to {known.name} "
            f"({known.half_life_s:g} s), the nuclide of tracer {scan.tracer}; correct the tracer in "
            "scans.tsv or the configuration."
        )
    if not half_life and facts.modality == "PT" and all(items):
        facts.flags.append(
            f"{tag_name('RadionuclideHalfLife')} missing: that of {known.name}, the tracer's nuclide, taken"
        )
    dose = _common(facts, doses, "RadionuclideTotalDose", number)
    if dose is not None and scan.injected_mbq is None:
        dose = _dose_bq(facts, dose)
    elif dose is not None:
        dose = dose * 1e6 if dose < _DOSE_IN_MBQ_BELOW else dose
    override = None if scan.injected_mbq is None else scan.injected_mbq * 1e6
    _take(facts, "injected_bq", "RadionuclideTotalDose", dose, override)
    _read_injection_time(facts, doses, scan, text(headers[0], "TimezoneOffsetFromUTC"))
    if not all(items):
        for name in ("injected_bq", "injected_at"):
            if name in facts.missing:
                within = tag_name("RadiopharmaceuticalInformationSequence")
                facts.missing[name] = [f"{tag} of {within}" for tag in facts.missing[name]]


def _refuse_other_nuclide(item: Header, known: Nuclide) -> None:
    for code in item.items("RadionuclideCodeSequence"):
        meaning = text(code, "CodeMeaning") or ""
        try:
            stated = nuclide(meaning)
        except TheraflowError:
            continue  # written in no way that we know; the half-life is compared, too
        if stated != known:
            raise TheraflowError(
                f"{tag_name('RadionuclideCodeSequence')} says {meaning}, but the nuclide of the tracer is "
                f"{known.name}; correct the tracer in scans.tsv or the configuration."
            )


def _dose_bq(facts: Facts, dose: float) -> float:
    """The dose in Bq by its size; NM states MBq (PS3.3 C.8.4.10), PET Bq, and practice confuses them."""
    in_mbq_below = _DOSE_IN_BQ_ABOVE / 10 if facts.modality == "NM" else _DOSE_IN_MBQ_BELOW
    if 0 < dose < in_mbq_below:
        if facts.modality != "NM":
            facts.flags.append(f"{tag_name('RadionuclideTotalDose')} is {dose:g}: taken as MBq")
        return dose * 1e6
    if in_mbq_below <= dose < _DOSE_IN_BQ_ABOVE or dose > _DOSE_BQ_AT_MOST:
        raise TheraflowError(
            f"{tag_name('RadionuclideTotalDose')} of {dose:g} is plausible neither in Bq nor in MBq; give "
            "injected_mbq in scans.tsv."
        )
    return dose


def _read_injection_time(facts: Facts, doses: Sequence[Header], scan: Scan, offset: str | None) -> None:
    whole = _common(facts, doses, "RadiopharmaceuticalStartDateTime", lambda item, name: moment(item, name, offset))
    clock = _common(facts, doses, "RadiopharmaceuticalStartTime", time)
    for keyword in ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"):
        facts.missing.pop(keyword, None)
    stated = whole
    if whole is not None and clock is not None:
        apart = abs((datetime.datetime.combine(whole.date(), clock) - whole).total_seconds())
        if min(apart, 86400 - apart) > INJECTION_TIMES_AGREE_S:
            facts.flags.append(
                f"{tag_name('RadiopharmaceuticalStartDateTime')} and "
                f"{tag_name('RadiopharmaceuticalStartTime')} differ by {min(apart, 86400 - apart):.0f} s: "
                "the first taken"
            )
    lacks_date = facts.half_life_s > _HALF_LIFE_WITH_DATE_S
    if whole is None and clock is not None and not lacks_date:
        stated = _day_of(facts, clock, tag_name("RadiopharmaceuticalStartTime"))
    facts.stated["injected_at"] = stated
    override = None
    if scan.injected_at is not None:
        override = _override_time(facts, scan.injected_at, lacks_date)
        facts.overrides.append("injected_at")
    facts.injected_at = override or stated
    if facts.injected_at is None and not (clock is not None and not lacks_date):
        name = tag_name("RadiopharmaceuticalStartDateTime")
        if clock is not None:
            name += f" (a time alone does not tell the day, half-life {facts.half_life_s / 3600:.3g} h)"
        facts.missing["injected_at"] = [name]


def _day_of(facts: Facts, time: datetime.time, source: str) -> datetime.datetime | None:
    """The last such time before the scan; None where the time of the scan is not known either."""
    if facts.acquired_at is None:
        return None
    found = datetime.datetime.combine(facts.acquired_at.date(), time)
    if found > facts.acquired_at:
        facts.flags.append(f"{source} is later in the day than the scan: taken as the day before")
        found -= datetime.timedelta(days=1)
    return found


def _override_time(facts: Facts, value: str, lacks_date: bool) -> datetime.datetime | None:
    refusal = TheraflowError(
        f"injected_at in scans.tsv is {value!r}; write date and time as 2023-05-31T09:45:00"
        + ("." if lacks_date else ", or the time alone as 09:45:00.")
    )
    value = value.strip()
    try:
        if ":" in value[:3]:
            if lacks_date:
                raise refusal
            return _day_of(facts, datetime.time.fromisoformat(value), "injected_at in scans.tsv")
        if len(value) <= len("2023-05-31"):
            raise refusal
        return datetime.datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError as error:
        raise refusal from error
