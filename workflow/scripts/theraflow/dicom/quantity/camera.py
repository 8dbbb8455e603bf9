"""A gamma camera: what its headers say of the counting, its calibration, and its dead time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theraflow.dicom.export.header import PrivateElement, integer, number, tag_name, text
from theraflow.dicom.export.parse import Header
from theraflow.dicom.voxels.frames import Slice, Window, window_of
from theraflow.dicom.voxels.volume import rescale
from theraflow.errors import TheraflowError

# Stored values of Siemens are counts times this where there is no rescale.
_SIEMENS_PIXEL_SCALE = PrivateElement("SIEMENS MED NM", "SIEMENS", 0x0033, 0x38)
# UCUM's and DICOM's words for counts.
_COUNTS = {"{counts}", "{count}", "cnt", "1"}
# Positions of the table that differ by less are one.
_SAME_BED_MM = 1.0


@dataclass(frozen=True)
class Calibration:
    """A camera's calibration, out of the configuration of a tracer.

    Attributes:
        sensitivity_cps_per_mbq: counts per second and MBq, of the image as it is imported.
        sensitivity_sd_cps_per_mbq: its standard deviation, or None.
        dead_time_us: dead time of the paralysable model in us, or None where no correction is wanted.
    """

    sensitivity_cps_per_mbq: float
    sensitivity_sd_cps_per_mbq: float | None = None
    dead_time_us: float | None = None


def read_calibration(tracer: Mapping[str, Any]) -> Calibration | None:
    """The calibration in a tracer's configuration; None without."""
    stated = tracer.get("calibration")
    return None if stated is None else Calibration(**stated)


@dataclass(frozen=True)
class Counting:
    """How gamma rays were counted. None: not stated; then `missing` has the names, as in `Facts`.

    Attributes:
        duration_s: for how long each voxel or pixel was looked at.
        counts: events of the whole acquisition.
        window_kev: energy window of the image.
    """

    duration_s: float | None = None
    counts: float | None = None
    window_kev: Window | None = None
    missing: dict[str, list[str]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def observed_cps(self) -> float | None:
        """Events per second, of all detectors together."""
        return None if None in (self.duration_s, self.counts) else self.counts / self.duration_s


def read_counting(headers: Sequence[Header]) -> Counting:
    """How a tomographic reconstruction was counted.

    Its duration is, by convention, ActualFrameDuration times NumberOfFramesInRotation, summed over the rotations
    (RotationInformationSequence) of one position of the table: what one detector has counted. Whether a camera with two
    heads states the views of one head or of both makes a factor of two; the calibration must have been derived from a
    phantom by the same rule.

    Args:
        headers: one a slice.

    Raises:
        TheraflowError: rotations that contradict each other.
    """
    missing: dict[str, list[str]] = {}
    found = {_rotations(header) for header in headers}
    if len(found) > 1:
        raise TheraflowError(f"{tag_name('RotationInformationSequence')} differs between files of the series.")
    ((duration_s, beds, absent),) = found
    if absent:
        missing["duration_s"] = [tag_name(keyword) for keyword in absent]
    events = {number(header, "CountsAccumulated") or None for header in headers}
    counts = events.pop() if len(events) == 1 else None
    if counts is None:
        missing["counts"] = [tag_name("CountsAccumulated")]
    flags = (f"{beds} positions of the table: activity of all at the start of the first",) if beds > 1 else ()
    return Counting(duration_s, counts, window_of(headers[0]), missing, flags)


def _rotations(header: Header) -> tuple[float | None, int, tuple[str, ...]]:
    """Duration at one position of the table, number of positions, keywords that are missing."""
    rotations = header.items("RotationInformationSequence")
    if not rotations:
        return None, 0, ("RotationInformationSequence",)
    stated = integer(header, "NumberOfRotations")
    if stated is not None and stated != len(rotations):
        raise TheraflowError(
            f"{tag_name('NumberOfRotations')} is {stated}, but {tag_name('RotationInformationSequence')} has "
            f"{len(rotations)} items; export it again."
        )
    views = [integer(item, "NumberOfFramesInRotation") or 0 for item in rotations]
    milliseconds = [
        number(item, "ActualFrameDuration") or number(header, "ActualFrameDuration") or 0.0 for item in rotations
    ]
    beds = [number(item, "TableTraverse") for item in rotations]
    absent = [
        *(["NumberOfFramesInRotation"] if min(views) <= 0 else []),
        *(["ActualFrameDuration"] if min(milliseconds) <= 0 else []),
        # Without it two turns at one place cannot be told from one turn at each of two places.
        *(["TableTraverse"] if len(rotations) > 1 and None in beds else []),
    ]
    if absent:
        return None, 0, tuple(absent)
    durations: dict[float, float] = {}
    for count, duration, bed in zip(views, milliseconds, beds, strict=True):
        place = next((known for known in durations if abs(known - (bed or 0.0)) < _SAME_BED_MM), bed or 0.0)
        durations[place] = durations.get(place, 0.0) + count * duration / 1000.0
    if not math.isclose(min(durations.values()), max(durations.values()), rel_tol=1e-3):
        raise TheraflowError(
            "its positions of the table were counted for different times "
            f"({tag_name('RotationInformationSequence')}); export one volume a position."
        )
    return max(durations.values()), len(durations), ()


def count_rescale(one: Slice) -> tuple[float, float]:
    """Slope and intercept from stored values to counts.

    NM objects have no rescale by the standard (PS3.3 A.5): stored values are counts. What scanners state all the same
    is taken: RescaleSlope and RescaleIntercept, or else Siemens' pixel scale factor (0033,1038), by which the counts
    were multiplied.

    Raises:
        TheraflowError: the header says that the values are something else than counts.
    """
    header = one.header
    for item in header.items("RealWorldValueMappingSequence"):
        for code in item.items("MeasurementUnitsCodeSequence"):
            unit = text(code, "CodeValue") or ""
            if unit.lower() not in _COUNTS:
                raise TheraflowError(
                    f"{one.instance.path}: {tag_name('RealWorldValueMappingSequence')} says {unit!r}, neither Bq/ml "
                    "nor counts; export it in Bq/mL or in counts."
                )
    if header.raw("RescaleSlope") is not None or header.raw("RescaleIntercept") is not None:
        return rescale(one)
    return 1.0 / (_SIEMENS_PIXEL_SCALE.number(header) or 1.0), 0.0


def true_rate_cps(observed_cps: float, dead_time_s: float) -> float:
    """True rate n behind an observed rate m of a paralysable detector: m = n exp(-n tau).

    Of the two solutions the one below the maximum is taken, n = -W(-m tau) / tau with the principal branch of Lambert's
    function. Source: Sorenson, J Nucl Med 1975;16:284; Cherry, Sorenson and Phelps, Physics in Nuclear Medicine,
    chapter 11.

    Raises:
        TheraflowError: a rate beyond the maximum, 1 / (e tau).
    """
    highest = 1.0 / (math.e * dead_time_s)
    if observed_cps > highest:
        raise TheraflowError(
            f"the observed rate of {observed_cps:.6g} counts/s ({tag_name('CountsAccumulated')} by the duration) is "
            f"beyond {highest:.6g} counts/s, the most that a camera with a dead time of {dead_time_s * 1e6:g} us can "
            "count; correct dead_time_us of the tracer's calibration in the configuration."
        )
    from scipy.special import lambertw  # only here: few scans need it, and loading it takes time

    return float(-lambertw(-observed_cps * dead_time_s).real / dead_time_s)


def dead_time_factor(counting: Counting, calibration: Calibration | None) -> float:
    """True over observed rate; 1 without a dead time in the configuration or without counts.

    The observed rate is CountsAccumulated over the duration: all detectors together, in the energy windows that the
    header counts there. The dead time must hold for that rate.

    Raises:
        TheraflowError: a rate that the camera cannot have observed.
    """
    if calibration is None or not calibration.dead_time_us or not counting.observed_cps:
        return 1.0
    return true_rate_cps(counting.observed_cps, calibration.dead_time_us * 1e-6) / counting.observed_cps


def counting_section(counting: Counting, calibration: Calibration | None) -> dict[str, Any]:
    """What a sidecar tells of counting and calibration; `calibration` is None where none was applied."""
    corrected = calibration is not None and calibration.dead_time_us is not None
    return {
        "energy_window_kev": counting.window_kev,
        "duration_s": counting.duration_s,
        "counts_accumulated": counting.counts,
        "observed_cps": counting.observed_cps,
        "dead_time_us": calibration.dead_time_us if corrected else None,
        "dead_time_factor": dead_time_factor(counting, calibration) if corrected else None,
        "sensitivity_cps_per_mbq": calibration.sensitivity_cps_per_mbq if calibration else None,
        "sensitivity_sd_cps_per_mbq": calibration.sensitivity_sd_cps_per_mbq if calibration else None,
    }
