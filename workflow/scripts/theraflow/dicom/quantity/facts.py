"""Read from headers and scans.tsv what is stated of an emission series; whatever is missing is remembered by name."""

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from theraflow.dicom.export.choice import real_world_bq_per_ml
from theraflow.dicom.export.header import (
    GE_REFERENCE_TIME,
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    SIEMENS_REFERENCE_TIME,
    acquisition_start,
    corrections,
    date,
    moment,
    number,
    numbers,
    tag_name,
    text,
    time,
    words,
)
from theraflow.dicom.export.parse import Header
from theraflow.dicom.quantity.injection import read_injection, sheet_time
from theraflow.dicom.quantity.stated import Facts, agreed, common, each, overrule, positive
from theraflow.errors import TheraflowError
from theraflow.layout import Scan
from theraflow.nuclides import nuclide

__all__ = ["Facts", "read_facts"]

_ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130"
_WEIGHT_IN_G_ABOVE = 1000.0
_WEIGHT_KG = (0.2, 500.0)
_HEIGHT_IN_CM_ABOVE = 3.0
_HEIGHT_M = (0.3, 2.6)
# A body mass index outside these limits is a mistake in weight or height.
_BODY_MASS_INDEX = (8.0, 90.0)


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
        facts.enhanced = text(headers[0], "SOPClassUID") == _ENHANCED_PET
        zone = _zone(headers)
        _read_image(facts, headers, scan)
        _read_decay_correction(facts, headers, scan, zone)
        _read_times(facts, headers, zone)
        _read_private(facts, headers)
        shift = _correct_clock(facts, scan)
        _read_patient(facts, headers, scan)
        read_injection(facts, headers, scan, nuclide(str(tracer["nuclide"])), zone)
        if facts.stated["injected_at"] is not None:
            facts.stated["injected_at"] += shift
        _note_missing_reference_time(facts)
    except TheraflowError as error:
        raise TheraflowError(f"{where}: {error}") from error
    return facts


def _zone(headers: Sequence[Header]) -> str | None:
    """Offset from UTC of the times that have none of their own, as `+0200`; None where it is not stated.

    It is TimezoneOffsetFromUTC. Without that a start of the acquisition that has an offset itself tells it.
    """

    def of(header: Header) -> str | None:
        stated = text(header, "TimezoneOffsetFromUTC")
        if stated is not None:
            return stated
        own = text(header, "FrameAcquisitionDateTime")
        if own is None and not (text(header, "AcquisitionDate") and text(header, "AcquisitionTime")):
            own = text(header, "AcquisitionDateTime")
        found = re.search(r"[+-]\d{4}$", own or "")
        return found and found[0]

    return agreed([of(header) for header in headers], f"The offset from UTC ({tag_name('TimezoneOffsetFromUTC')})")


def _read_image(facts: Facts, headers: Sequence[Header], scan: Scan) -> None:
    mappings = [_real_world(header) for header in headers]
    if None not in mappings:
        facts.real_world = mappings
    units = common(facts, headers, "Units", text)
    if units is None and facts.modality == "PT":
        # An enhanced PET has no Units; its pixel value transformation may name them.
        kinds = {text(header, "RescaleType") for header in headers}
        units = "BQML" if kinds == {"BQML"} else None
    facts.units = overrule(facts, "units", "Units", units, scan.units)
    if facts.units is not None:
        facts.missing.pop("Units", None)
    if scan.units is not None and facts.real_world is not None:
        facts.flags.append(
            f"units of scans.tsv ({scan.units}) taken in place of {tag_name('RealWorldValueMappingSequence')}"
        )
        facts.real_world = None
    facts.suv_type = agreed([text(header, "SUVType") for header in headers], tag_name("SUVType"))
    facts.corrected = common(facts, headers, "CorrectedImage", lambda header, _: corrections(header))
    facts.whole_body = any("WHOLE" in word for word in words(headers[0], "SeriesType") or ())
    calibration = [positive(number(header, "DoseCalibrationFactor")) for header in headers]
    facts.dose_calibration = None if None in calibration else np.array(calibration)
    voxels = []
    for header in headers:
        spacing, thickness = numbers(header, "PixelSpacing", 2), number(header, "SliceThickness")
        voxels.append(spacing and thickness and spacing[0] * spacing[1] * thickness / 1000.0)
    facts.voxel_ml = np.array(voxels) if all(voxels) else None


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


def _read_decay_correction(facts: Facts, headers: Sequence[Header], scan: Scan, zone: str | None) -> None:
    stated = common(facts, headers, "DecayCorrection", text)
    if stated is None:
        flag = agreed([text(header, "DecayCorrected") for header in headers], tag_name("DecayCorrected"))
        stated = {"YES": "START", "NO": "NONE"}.get(flag)
        facts.enhanced = facts.enhanced or stated is not None
    facts.decay_correction = overrule(facts, "decay_correction", "DecayCorrection", stated, scan.decay_correction)
    if facts.decay_correction is not None:
        facts.missing.pop("DecayCorrection", None)
    facts.decay_corrected_to = agreed(
        [moment(header, "DecayCorrectionDateTime", zone) for header in headers], tag_name("DecayCorrectionDateTime")
    )


def _read_times(facts: Facts, headers: Sequence[Header], zone: str | None) -> None:
    acquired = [acquisition_start(header) for header in headers]
    if None in acquired:
        lacking = headers[acquired.index(None)]
        parts = [keyword for keyword in ("AcquisitionDate", "AcquisitionTime") if not text(lacking, keyword)]
        facts.missing["acquired"] = [tag_name(keyword) for keyword in parts]
    else:
        facts.acquired = acquired
    day, clock = common(facts, headers, "SeriesDate", date), common(facts, headers, "SeriesTime", time)
    # Only the PET module makes the series time the one that all others refer to (PS3.3 C.8.9.1.1.2).
    if day and clock is not None and not facts.enhanced:
        facts.series_start = datetime.datetime.combine(day, clock)
    milliseconds = each(facts, headers, "FrameReferenceTime")
    facts.frame_reference_s = None if milliseconds is None else milliseconds / 1000.0
    milliseconds = each(facts, headers, "ActualFrameDuration")
    if milliseconds is None:
        durations = [number(header, "FrameAcquisitionDuration") for header in headers]
        milliseconds = None if None in durations else np.array(durations)
    if milliseconds is None or (milliseconds <= 0).any():
        facts.missing["ActualFrameDuration"] = [tag_name("ActualFrameDuration")]
    else:
        facts.missing.pop("ActualFrameDuration", None)
        facts.frame_s = milliseconds / 1000.0
    moments = [moment(header, "FrameReferenceDateTime", zone) for header in headers]
    facts.frame_moments = None if None in moments else moments


def _read_private(facts: Facts, headers: Sequence[Header]) -> None:
    facts.ge_reference, facts.siemens_reference = (
        agreed([element.moment(header) for header in headers], f"{whose} {element}")
        for whose, element in (("GE's", GE_REFERENCE_TIME), ("Siemens'", SIEMENS_REFERENCE_TIME))
    )
    for name, element in (("suv_factor", PHILIPS_SUV_FACTOR), ("activity_factor", PHILIPS_ACTIVITY_FACTOR)):
        values = [element.number(header) for header in headers]
        if any(value is not None and value < 0 for value in values):
            raise TheraflowError(f"Philips' factor {element} is negative; export the series again.")
        setattr(facts, name, None if None in values else np.array(values))


def _correct_clock(facts: Facts, scan: Scan) -> datetime.timedelta:
    """Move what the scanner has noted by as much as scans.tsv corrects the start of the acquisition; by how much.

    What its decay correction took as times lies as far from the start of the acquisition as it noted.
    """
    none = datetime.timedelta(0)
    stated = facts.stated["acquired_at"] = facts.acquired_at
    override = None if scan.acquired_at is None else sheet_time("acquired_at", scan.acquired_at)
    overrule(facts, "acquired_at", "AcquisitionTime", stated, override)
    if override is None:
        return none
    if stated is None:
        facts.acquired = [override] * facts.slices
        facts.missing.pop("acquired")
        return none
    shift = override - stated
    facts.acquired = [start + shift for start in facts.acquired]
    facts.frame_moments = facts.frame_moments and [instant + shift for instant in facts.frame_moments]
    for name in ("series_start", "ge_reference", "siemens_reference", "decay_corrected_to"):
        noted = getattr(facts, name)
        setattr(facts, name, noted and noted + shift)
    return shift


def _note_missing_reference_time(facts: Facts) -> None:
    stated = (facts.ge_reference, facts.siemens_reference, facts.decay_corrected_to, facts.series_start)
    if any(stated) or ("acquired_at" in facts.overrides and facts.means_start):
        return
    if not facts.means_start:
        name = tag_name("DecayCorrectionDateTime")
        facts.missing["reference_time"] = [f"{name} (with decay_correction START in scans.tsv)"]
    elif facts.frame_reference_s is None or facts.frame_s is None:
        ways = ("SeriesDate", "SeriesTime", "FrameReferenceTime", "ActualFrameDuration")
        facts.missing["reference_time"] = [tag_name(keyword) for keyword in ways if keyword in facts.missing]


def _read_patient(facts: Facts, headers: Sequence[Header], scan: Scan) -> None:
    weight = positive(common(facts, headers, "PatientWeight", number))
    if weight is not None and weight > _WEIGHT_IN_G_ABOVE:
        facts.flags.append(f"{tag_name('PatientWeight')} is {weight:g}: taken as g")
        weight /= 1000.0
    height = _height_m(facts, positive(common(facts, headers, "PatientSize", number)))
    facts.weight_kg = overrule(facts, "weight_kg", "PatientWeight", weight, scan.weight_kg)
    height_cm = overrule(facts, "height_cm", "PatientSize", height and height * 100.0, scan.height_cm)
    facts.height_m = height_cm and height_cm / 100.0
    for name, keyword in (("weight_kg", "PatientWeight"), ("height_m", "PatientSize")):
        facts.missing.pop(keyword, None)
        if getattr(facts, name) is None:
            facts.missing[name] = [tag_name(keyword)]
    if facts.weight_kg is not None and not _WEIGHT_KG[0] <= facts.weight_kg <= _WEIGHT_KG[1]:
        raise TheraflowError(
            f"{tag_name('PatientWeight')} of {facts.weight_kg:g} kg is impossible; give weight_kg in scans.tsv."
        )
    if facts.weight_kg is not None and facts.height_m is not None:
        index = facts.weight_kg / facts.height_m**2
        if not _BODY_MASS_INDEX[0] <= index <= _BODY_MASS_INDEX[1]:
            facts.flags.append(f"weight {facts.weight_kg:g} kg and height {facts.height_m * 100:g} cm do not belong to "
                               f"one person (body mass index {index:.3g}): check both")  # fmt: skip
    sex = common(facts, headers, "PatientSex", text)
    facts.sex = sex if sex in ("M", "F", "O") else None
    if facts.sex is None:
        facts.missing["PatientSex"] = [tag_name("PatientSex")]
    if sex != facts.sex:
        facts.flags.append(f"{tag_name('PatientSex')} is neither M nor F nor O: left out")


def _height_m(facts: Facts, height: float | None) -> float | None:
    if height is None:
        return None
    in_cm = height > _HEIGHT_IN_CM_ABOVE
    metres = height / 100.0 if in_cm else height
    if not _HEIGHT_M[0] <= metres <= _HEIGHT_M[1]:
        facts.flags.append(f"{tag_name('PatientSize')} of {height:g} is implausible in m and in cm: left out")
        return None
    if in_cm:
        facts.flags.append(f"{tag_name('PatientSize')} is {height:g}: taken as cm")
    return metres
