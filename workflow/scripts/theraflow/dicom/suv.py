"""From voxel values to SUVbw and to activity at acquisition: what the header must say, what follows from it.

Sources: Vácha et al. 2026, "Comprehensive Manual for SUV Computation" (IBSI), cited as the manual; QIBA
vendor-neutral pseudo-code (2018); DICOM PS3.3 C.8.9 (PET) and C.8.4 (NM).

`read_facts` collects what the headers and scans.tsv say, and remembers by name whatever is missing.
`quantify_suv` and `quantify_activity` compute from it, or refuse with all missing names at once.
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydicom import Dataset

from theraflow.dicom.header import (
    GE_REFERENCE_TIME,
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    acquisition_start,
    moment,
    number,
    private_moment,
    private_number,
    tag_name,
    text,
    words,
)
from theraflow.dicom.index import real_world_bq_per_ml
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
# An injection longer ago than this many half-lives is a wrong date, not a scan.
_HALF_LIVES_AT_MOST = 10.0
# A series may start this long before its first image (a cropped series lacks its first bed positions).
_LONGEST_EXAMINATION_S = 2 * 3600.0
# Times in headers are cut to seconds.
_SAME_TIME_S = 1.0
# Reference times that differ by more than this are reported.
_REFERENCE_TIMES_AGREE_S = 30.0
# Statements of the injection time that differ by more than this are reported.
_INJECTION_TIMES_AGREE_S = 60.0

# Columns of scans.tsv that can state what a header lacks, by the fact they state.
_COLUMNS = {
    "weight_kg": "weight_kg",
    "height_m": "height_cm",
    "injected_bq": "injected_mbq",
    "injected_at": "injected_at",
}
_NORMALISED_BY = {
    "LBM": "lean body mass (Morgan, 120)",
    "LBMJAMES128": "lean body mass (James, 128)",
    "LBMJANMA": "lean body mass (Janmahasatian)",
    "IBW": "ideal body weight",
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
    corrected: frozenset[str] | None = None
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


@dataclass(frozen=True)
class Quantification:
    """How rescaled voxel values become the quantity: multiply slice k by `factors[k]`.

    Attributes:
        factors: shape (slices,).
        rule: in words, how they came about.
    """

    factors: np.ndarray
    rule: str

    @property
    def factor(self) -> float | None:
        """The factor, or None where it differs between slices."""
        return float(self.factors[0]) if np.ptp(self.factors) == 0 else None


def read_facts(headers: Sequence[Dataset], scan: Scan, tracer: Mapping[str, Any], where: str) -> Facts:
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
        facts = Facts(where, str(headers[0].Modality), len(headers))
        _read_image(facts, headers)
        _read_times(facts, headers)
        _read_private(facts, headers)
        _read_patient(facts, headers, scan)
        _read_injection(facts, headers, scan, nuclide(str(tracer["nuclide"])))
    except TheraflowError as error:
        raise TheraflowError(f"{where}: {error}") from error
    return facts


def _common(facts: Facts, headers: Sequence[Dataset], keyword: str, read: Any) -> Any:
    """The value that all slices share; None and noted as missing where one of them lacks it."""
    values = [read(header, keyword) for header in _distinct(headers)]
    if any(value is None for value in values):
        facts.missing[keyword] = [tag_name(keyword)]
        return None
    if any(value != values[0] for value in values):
        raise TheraflowError(f"{tag_name(keyword)} differs between slices of the series.")
    return values[0]


def _distinct(headers: Sequence[Dataset]) -> list[Dataset]:
    """The headers without repetitions of the same object (frames of one file)."""
    return list({id(header): header for header in headers}.values())


def _each(facts: Facts, headers: Sequence[Dataset], keyword: str) -> np.ndarray | None:
    """A number for every slice; None and noted as missing where one of them lacks it."""
    values = [number(header, keyword) for header in headers]
    if any(value is None for value in values):
        facts.missing[keyword] = [tag_name(keyword)]
        return None
    return np.array(values)


def _read_image(facts: Facts, headers: Sequence[Dataset]) -> None:
    mappings = {id(header): _real_world(header) for header in _distinct(headers)}
    if None not in mappings.values():
        facts.real_world = [mappings[id(header)] for header in headers]
    facts.units = _common(facts, headers, "Units", text)
    facts.suv_type = text(headers[0], "SUVType")
    facts.decay_correction = _common(facts, headers, "DecayCorrection", text)
    facts.corrected = _common(facts, headers, "CorrectedImage", words)


def _real_world(header: Dataset) -> tuple[float, float] | None:
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


def _read_times(facts: Facts, headers: Sequence[Dataset]) -> None:
    acquired = [acquisition_start(header) for header in headers]
    if None in acquired:
        lacking = headers[acquired.index(None)]
        parts = [keyword for keyword in ("AcquisitionDate", "AcquisitionTime") if not text(lacking, keyword)]
        facts.missing["acquired"] = [tag_name(keyword) for keyword in parts]
    else:
        facts.acquired = acquired
    day, time = (_common(facts, headers, keyword, moment) for keyword in ("SeriesDate", "SeriesTime"))
    if day and time is not None:
        facts.series_start = datetime.datetime.combine(day, time)
    milliseconds = _each(facts, headers, "FrameReferenceTime")
    facts.frame_reference_s = None if milliseconds is None else milliseconds / 1000.0
    milliseconds = _each(facts, headers, "ActualFrameDuration")
    if milliseconds is not None and (milliseconds <= 0).any():
        facts.missing["ActualFrameDuration"] = [tag_name("ActualFrameDuration")]
        milliseconds = None
    facts.frame_s = None if milliseconds is None else milliseconds / 1000.0


def _read_private(facts: Facts, headers: Sequence[Dataset]) -> None:
    references = {private_moment(header, GE_REFERENCE_TIME) for header in _distinct(headers)}
    if len(references) > 1:
        raise TheraflowError("GE's PET scan date and time (0009,100D) differs between slices of the series.")
    facts.ge_reference = references.pop()
    for name, tag in (("suv_factor", PHILIPS_SUV_FACTOR), ("activity_factor", PHILIPS_ACTIVITY_FACTOR)):
        values = [private_number(header, tag) for header in headers]
        setattr(facts, name, None if None in values else np.array(values))
    voxels = []
    for header in headers:
        spacing, thickness = header.get("PixelSpacing"), number(header, "SliceThickness")
        voxels.append(spacing and thickness and float(spacing[0]) * float(spacing[1]) * thickness / 1000.0)
    facts.voxel_ml = np.array(voxels) if all(voxels) else None


def _read_patient(facts: Facts, headers: Sequence[Dataset], scan: Scan) -> None:
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
            raise TheraflowError(f"{_COLUMNS[name]} in scans.tsv is {override:g}; it must be positive.")
        facts.overrides.append(_COLUMNS[name])
    setattr(facts, name, stated if override is None else override)
    if getattr(facts, name) is None:
        facts.missing[name] = [tag_name(keyword)]


def _read_injection(facts: Facts, headers: Sequence[Dataset], scan: Scan, known: Nuclide) -> None:
    items = [header.get("RadiopharmaceuticalInformationSequence") or [] for header in _distinct(headers)]
    if any(len(item) > 1 for item in items):
        raise TheraflowError(
            f"{tag_name('RadiopharmaceuticalInformationSequence')} lists several injections; theraflow needs one."
        )
    doses = [item[0] if item else Dataset() for item in items]
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


def _refuse_other_nuclide(item: Dataset, known: Nuclide) -> None:
    for code in item.get("RadionuclideCodeSequence") or ():
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


def _read_injection_time(facts: Facts, doses: Sequence[Dataset], scan: Scan, offset: str | None) -> None:
    whole = _common(facts, doses, "RadiopharmaceuticalStartDateTime", lambda item, name: moment(item, name, offset))
    time = _common(facts, doses, "RadiopharmaceuticalStartTime", moment)
    for keyword in ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"):
        facts.missing.pop(keyword, None)
    stated = whole
    if whole is not None and time is not None:
        apart = abs((datetime.datetime.combine(whole.date(), time) - whole).total_seconds())
        if min(apart, 86400 - apart) > _INJECTION_TIMES_AGREE_S:
            facts.flags.append(
                f"{tag_name('RadiopharmaceuticalStartDateTime')} and "
                f"{tag_name('RadiopharmaceuticalStartTime')} differ by {min(apart, 86400 - apart):.0f} s: "
                "the first taken"
            )
    lacks_date = facts.half_life_s > _HALF_LIFE_WITH_DATE_S
    if whole is None and time is not None and not lacks_date:
        stated = _day_of(facts, time, tag_name("RadiopharmaceuticalStartTime"))
    facts.stated["injected_at"] = stated
    override = None
    if scan.injected_at is not None:
        override = _override_time(facts, scan.injected_at, lacks_date)
        facts.overrides.append("injected_at")
    facts.injected_at = override or stated
    if facts.injected_at is None and not (time is not None and not lacks_date):
        name = tag_name("RadiopharmaceuticalStartDateTime")
        if time is not None:
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


def _require(facts: Facts, what: str, names: Sequence[str]) -> None:
    """Refuse with every missing tag at once.

    Args:
        facts: of the series.
        what: that cannot be computed.
        names: facts, as in `Facts.missing`, that it needs.
    """
    lacking = [name for name in names if name in facts.missing]
    if not lacking:
        return
    tags = {tag: f" [{_COLUMNS[name]}]" if name in _COLUMNS else "" for name in lacking for tag in facts.missing[name]}
    listed = ", ".join(tag + column for tag, column in tags.items())
    advice = "export the series again"
    if any(tags.values()):
        advice = "give the columns in brackets in scans.tsv"
    if any(tags.values()) and not all(tags.values()):
        advice += "; the others can only come from the scanner: export the series again"
    raise TheraflowError(f"{facts.where}: {what} cannot be computed; missing are {listed}; {advice}.")


def _refuse_impossible_injection(facts: Facts) -> None:
    if not _possible_injection(facts):
        elapsed_s = (facts.acquired_at - facts.injected_at).total_seconds()
        raise TheraflowError(
            f"{facts.where}: the injection at {facts.injected_at} and the scan at {facts.acquired_at} are "
            f"{elapsed_s / 3600:.2f} h apart, which is impossible (half-life {facts.half_life_s / 3600:.3g} "
            f"h); correct {tag_name('RadiopharmaceuticalStartDateTime')} by injected_at in scans.tsv."
        )


def _possible_injection(facts: Facts) -> bool:
    if facts.injected_at is None or facts.acquired_at is None:
        return True
    elapsed_s = (facts.acquired_at - facts.injected_at).total_seconds()
    return 0 <= elapsed_s <= _HALF_LIVES_AT_MOST * facts.half_life_s


def _forget_impossible_injection(facts: Facts) -> None:
    """Where the scanner has normalised already the SUV stands without the injection time."""
    if not _possible_injection(facts):
        facts.flags.append("the injection time in the header is impossible and left out")
        facts.injected_at = None


def _refuse_uncorrected(facts: Facts, emission: str) -> None:
    """CorrectedImage must name attenuation, and decay where DecayCorrection says so (QIBA)."""
    if facts.corrected is None:
        return
    if "ATTN" not in facts.corrected:
        raise TheraflowError(
            f"{facts.where}: the {emission} is not attenuation-corrected ({tag_name('CorrectedImage')} lacks "
            "ATTN); set `series` in scans.tsv to the corrected one."
        )
    corrected, says = "DECY" in facts.corrected, facts.decay_correction
    if says in ("START", "ADMIN") and not corrected:
        raise TheraflowError(
            f"{facts.where}: {tag_name('DecayCorrection')} is {says}, but {tag_name('CorrectedImage')} lacks "
            "DECY; export the series again."
        )
    if says == "NONE" and corrected:
        facts.flags.append(f"{tag_name('CorrectedImage')} has DECY, but DecayCorrection is NONE: the latter taken")


def _refuse_contradicting_overrides(facts: Facts, why: str) -> None:
    """Where values are normalised already, an override that differs from the header would change nothing."""
    for name, column in _COLUMNS.items():
        stated, taken = facts.stated.get(name), getattr(facts, name)
        if column not in facts.overrides or stated is None:
            continue
        if name == "injected_at":
            alike = abs((stated - taken).total_seconds()) <= _INJECTION_TIMES_AGREE_S
        else:
            alike = math.isclose(stated, taken, rel_tol=1e-3)
        if not alike:
            raise TheraflowError(
                f"{facts.where}: {column} in scans.tsv contradicts the header, but {why}, so that it would "
                "have no effect; remove it or import the series in Bq/mL."
            )


def quantify_suv(facts: Facts) -> Quantification:
    """Factors from rescaled voxel values to SUV by body weight (g/mL).

    Units BQML: W / (D 2^(-dt/T)) with dt from injection to the time that the values are corrected to
    (DecayCorrection START: `reference_time`; ADMIN: the injection); NONE: the same for the mean of a frame of
    length t that starts at dt, with the factor lambda t / (1 - exp(-lambda t)). GML: 1 for SUVType BW or
    none, W / (lean or ideal mass) for the others. CM2ML: W / body surface. CNTS: Philips' factor to SUV or to
    Bq/mL. CPS: Bq/mL by the voxel volume where CorrectedImage has DCAL. Source: the manual.

    Raises:
        TheraflowError: missing facts, all named; units or corrections that do not allow it.
    """
    needed = ["Units", "CorrectedImage"]
    if facts.units in (None, "BQML"):
        # The units decide what else is needed; without them all that the commonest units need is named.
        needed += _for_bq_per_ml(facts)
    _require(facts, "the SUV", needed)
    _refuse_uncorrected(facts, "PET")
    if facts.units == "BQML":
        return _suv_of_bq_per_ml(facts, 1.0, "Units BQML")
    if facts.units in ("GML", "CM2ML"):
        return _suv_of_suv(facts)
    if facts.units == "CNTS":
        return _suv_of_counts(facts)
    if facts.units == "CPS" and "DCAL" in (facts.corrected or ()) and facts.voxel_ml is not None:
        facts.flags.append("Units CPS: turned into Bq/mL by the voxel volume, because CorrectedImage has DCAL")
        return _suv_of_bq_per_ml(facts, 1.0 / facts.voxel_ml, "Units CPS, dose calibrated")
    raise TheraflowError(
        f"{facts.where}: {tag_name('Units')} {facts.units} cannot be turned into SUV; export the series in Bq/mL."
    )


def _for_bq_per_ml(facts: Facts) -> list[str]:
    """Facts that the SUV of an activity concentration needs."""
    names = ["CorrectedImage", "DecayCorrection", "weight_kg", "injected_bq"]
    if facts.decay_correction == "ADMIN":
        return names
    names += ["injected_at", "acquired"]
    if facts.decay_correction == "NONE":
        return [*names, "ActualFrameDuration"]
    if facts.decay_correction is None:
        names += ["RadionuclideHalfLife"]
    if facts.ge_reference is None and facts.series_start is None:
        names += ["SeriesDate", "SeriesTime", "FrameReferenceTime", "ActualFrameDuration"]
        if "FrameReferenceTime" not in facts.missing and "ActualFrameDuration" not in facts.missing:
            names = [name for name in names if name not in ("SeriesDate", "SeriesTime")]
    return names


def _suv_of_bq_per_ml(facts: Facts, to_bq_per_ml: Any, rule: str) -> Quantification:
    _require(facts, "the SUV", _for_bq_per_ml(facts))
    _refuse_impossible_injection(facts)
    decay, weight_g = facts.decay_constant_per_s, facts.weight_kg * 1000.0
    says = facts.decay_correction
    if says == "NONE":
        since = np.array([(start - facts.injected_at).total_seconds() for start in facts.acquired])
        factors = weight_g / facts.injected_bq * frame_factor(decay, facts.frame_s) * np.exp(decay * since)
        return Quantification(factors * to_bq_per_ml, f"{rule}; DecayCorrection NONE: each frame corrected")
    if says == "ADMIN":
        # Relevant only where scans.tsv corrects the time that the scanner has used.
        reference, source = facts.stated.get("injected_at") or facts.injected_at, "the injection"
    elif says == "START":
        reference, source = reference_time(facts)
    else:
        raise TheraflowError(f"{facts.where}: {tag_name('DecayCorrection')} is {says}, not START, ADMIN or NONE.")
    elapsed = (reference - facts.injected_at).total_seconds() if reference and facts.injected_at else 0.0
    if says == "START" and elapsed < 0:
        raise TheraflowError(
            f"{facts.where}: the injection is {-elapsed:.0f} s later than {source}, which the values are "
            "corrected to; correct it by injected_at in scans.tsv."
        )
    factor = weight_g / (facts.injected_bq * math.exp(-decay * elapsed))
    return Quantification(
        np.full(facts.slices, factor) * to_bq_per_ml,
        f"{rule}; DecayCorrection {says}: reference time is {source}",
    )


def frame_factor(decay_per_s: float, duration_s: np.ndarray) -> np.ndarray:
    """Activity at the start of a frame over its mean during the frame: lambda t / (1 - exp(-lambda t))."""
    return decay_per_s * duration_s / -np.expm1(-decay_per_s * np.asarray(duration_s))


def reference_time(facts: Facts) -> tuple[datetime.datetime, str]:
    """The time that DecayCorrection START has corrected to, and where it comes from.

    In this order (QIBA and the manual): GE's own tag (0009,100D); the series time; both only if not later
    than the first image (later: the series was made afterwards) and not more than two hours before it; then
    computed back as acquisition + t_mean - FrameReferenceTime, with t_mean = ln(lambda t / (1 - exp(-lambda
    t))) / lambda, the moment in a frame of length t when the activity equals its mean. A disagreement of more
    than 30 s becomes a flag.

    Raises:
        TheraflowError: none of them is to be had.
    """
    found: dict[str, datetime.datetime] = {}
    stated = {
        "GE's PET scan date and time (0009,100D)": facts.ge_reference,
        "SeriesDate and SeriesTime": facts.series_start,
    }
    for source, time in stated.items():
        if time is None:
            continue
        before_s = (facts.acquired_at - time).total_seconds()
        if -_SAME_TIME_S <= before_s <= _LONGEST_EXAMINATION_S:
            found[source] = time
        else:
            facts.flags.append(
                f"{source} lie {abs(before_s):.0f} s {'before' if before_s > 0 else 'after'} the first "
                "acquisition: not used as reference time"
            )
    computed = _computed_reference_time(facts)
    if computed:
        found["FrameReferenceTime"] = computed
    if not found:
        _require(facts, "the reference time of the decay correction", ["FrameReferenceTime", "ActualFrameDuration"])
        raise TheraflowError(
            f"{facts.where}: the reference time of the decay correction cannot be told: "
            f"{'; '.join(facts.flags)}; export the original series again."
        )
    source, reference = next(iter(found.items()))
    for other, time in found.items():
        apart = (time - reference).total_seconds()
        if abs(apart) > _REFERENCE_TIMES_AGREE_S:
            percent = 100.0 * abs(math.expm1(facts.decay_constant_per_s * apart))
            facts.flags.append(
                f"reference time by {source}; by {other} it would be {abs(apart):.0f} s "
                f"{'later' if apart > 0 else 'earlier'} ({percent:.2g} % of the values)"
            )
    return reference, source


def _computed_reference_time(facts: Facts) -> datetime.datetime | None:
    if facts.frame_reference_s is None or facts.frame_s is None:
        return None
    decay = facts.decay_constant_per_s
    mean_s = np.log(frame_factor(decay, facts.frame_s)) / decay
    first = facts.acquired_at
    starts = np.array([(start - first).total_seconds() for start in facts.acquired])
    offsets = starts + mean_s - facts.frame_reference_s
    if np.ptp(offsets) > _REFERENCE_TIMES_AGREE_S:
        facts.flags.append(
            "FrameReferenceTime and AcquisitionTime of the slices contradict each other by "
            f"{np.ptp(offsets):.0f} s: no reference time computed from them"
        )
        return None
    return first + datetime.timedelta(seconds=float(np.median(offsets)))


def _suv_of_suv(facts: Facts) -> Quantification:
    _refuse_contradicting_overrides(facts, f"Units {facts.units} are normalised already")
    _forget_impossible_injection(facts)
    kind = facts.suv_type or ("BW" if facts.units == "GML" else "BSA")
    if facts.units == "GML" and kind == "BW":
        return Quantification(np.ones(facts.slices), "Units GML: SUV by body weight already")
    if facts.units == "GML" and kind in _NORMALISED_BY:
        _require(facts, "the SUV by body weight", ["weight_kg", "height_m", "PatientSex"])
        factor = facts.weight_kg / normal_mass_kg(kind, facts.weight_kg, facts.height_m, facts.sex)
        return Quantification(
            np.full(facts.slices, factor), f"Units GML by {_NORMALISED_BY[kind]}: turned to body weight"
        )
    if facts.units == "CM2ML" and kind == "BSA":
        _require(facts, "the SUV by body weight", ["weight_kg", "height_m"])
        factor = facts.weight_kg * 1000.0 / body_surface_cm2(facts.weight_kg, facts.height_m)
        return Quantification(np.full(facts.slices, factor), "Units CM2ML by body surface: turned to body weight")
    raise TheraflowError(
        f"{facts.where}: {tag_name('SUVType')} {kind} with Units {facts.units} is not known; export the "
        "series in Bq/mL."
    )


def normal_mass_kg(kind: str, weight_kg: float, height_m: float, sex: str) -> float:
    """Lean body mass or ideal body weight in kg, by SUVType (0054,1006).

    LBM: Morgan as in DICOM, with 120 for men; LBMJAMES128: James 1976; LBMJANMA: Janmahasatian 2005; IBW. Sex
    O is the mean of both (the manual; Sugawara 1999).
    """
    if sex == "O":
        return sum(normal_mass_kg(kind, weight_kg, height_m, one) for one in "MF") / 2.0
    male, height_cm = sex == "M", height_m * 100.0
    if kind == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if male else 45.5 + 0.91 * (height_cm - 152.0)
    if kind == "LBMJANMA":
        bmi = weight_kg / height_m**2
        return 9270.0 * weight_kg / (6680.0 + 216.0 * bmi if male else 8780.0 + 244.0 * bmi)
    square = (weight_kg / height_cm) ** 2
    if not male:
        return 1.07 * weight_kg - 148.0 * square
    return 1.10 * weight_kg - (120.0 if kind == "LBM" else 128.0) * square


def body_surface_cm2(weight_kg: float, height_m: float) -> float:
    """Body surface by Du Bois 1916 in cm2."""
    return 71.84 * weight_kg**0.425 * (height_m * 100.0) ** 0.725


def _suv_of_counts(facts: Facts) -> Quantification:
    if facts.suv_factor is None and facts.activity_factor is None:
        raise TheraflowError(
            f"{facts.where}: {tag_name('Units')} CNTS without Philips' factor (7053,1000) or (7053,1009) "
            "cannot be turned into SUV; export the series with its private tags or in Bq/mL."
        )
    if facts.suv_factor is None:
        return _suv_of_bq_per_ml(facts, facts.activity_factor, "Units CNTS by (7053,1009)")
    _refuse_contradicting_overrides(facts, "the SUV factor (7053,1000) is normalised already")
    if facts.activity_factor is not None and not any(name in facts.missing for name in _for_bq_per_ml(facts)):
        try:
            other = _suv_of_bq_per_ml(replace(facts, flags=[]), facts.activity_factor, "")
            apart = float(np.abs(other.factors / facts.suv_factor - 1.0).max())
        except TheraflowError as error:
            facts.flags.append(f"(7053,1000) cannot be checked by (7053,1009): {error}")
            apart = 0.0
        if apart > 0.01:
            facts.flags.append(
                f"Philips' factors (7053,1000) and (7053,1009) give SUVs that differ by {100 * apart:.2g} %: "
                "the first taken"
            )
    _forget_impossible_injection(facts)
    return Quantification(facts.suv_factor, "Units CNTS by Philips' SUV factor (7053,1000)")


def quantify_activity(facts: Facts) -> Quantification:
    """Factors from Bq/mL to activity concentration at the start of the acquisition, decay correction undone.

    All slices refer to one time, the start of the first. DecayCorrection ADMIN and START are undone back to
    it; NONE stands at each frame, whose mean is brought to it. An NM series that does not name decay
    correction at all is taken as NONE, because PS3.3 lets only the PET module state it.

    Raises:
        TheraflowError: missing facts, all named; no Bq/mL; an NM series that is decay-corrected to an
            unstated time.
    """
    calibrated = facts.units == "BQML" or facts.real_world is not None
    if not calibrated:
        raise TheraflowError(
            f"{facts.where}: the voxels are not in Bq/mL ({tag_name('Units')} is {facts.units or 'missing'} "
            f"and no {tag_name('RealWorldValueMappingSequence')} to Bq/ml exists); a calibration factor is "
            "needed: export a quantitative reconstruction in Bq/mL."
        )
    names = ["acquired", "injected_bq", "injected_at"]
    if facts.modality == "PT":
        names += ["CorrectedImage", "DecayCorrection"]
    _require(facts, "the activity", names)
    _refuse_impossible_injection(facts)
    if facts.modality == "PT" or facts.corrected is not None:
        _refuse_uncorrected(facts, "SPECT")
    says, decay, start = facts.decay_correction, facts.decay_constant_per_s, facts.acquired_at
    unit = "Units BQML" if facts.units == "BQML" else "real-world value mapping to Bq/ml"
    if says == "ADMIN":
        reference, source = facts.stated.get("injected_at") or facts.injected_at, "the injection"
    elif says == "START":
        reference, source = reference_time(facts)
    elif says in (None, "NONE"):
        return _activity_of_frames(facts, unit)
    else:
        raise TheraflowError(f"{facts.where}: {tag_name('DecayCorrection')} is {says}, not START, ADMIN or NONE.")
    factor = math.exp(-decay * (start - reference).total_seconds())
    return Quantification(
        np.full(facts.slices, factor), f"{unit}; DecayCorrection {says} undone, reference time is {source}"
    )


def _activity_of_frames(facts: Facts, unit: str) -> Quantification:
    if facts.decay_correction is None and "DECY" in (facts.corrected or ()):
        raise TheraflowError(
            f"{facts.where}: {tag_name('CorrectedImage')} has DECY, but {tag_name('DecayCorrection')} does "
            "not say to which time; export the series without decay correction."
        )
    decay, start = facts.decay_constant_per_s, facts.acquired_at
    since = np.array([(slice_ - start).total_seconds() for slice_ in facts.acquired])
    factors = np.exp(decay * since)
    if facts.frame_s is not None:
        factors = factors * frame_factor(decay, facts.frame_s)
        return Quantification(factors, f"{unit}; not decay-corrected: mean of the frame brought to its start")
    return Quantification(factors, f"{unit}; not decay-corrected: values stand at the acquisition")
