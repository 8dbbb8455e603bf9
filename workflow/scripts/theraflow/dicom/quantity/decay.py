"""To which time voxel values are corrected, and what brings them to another."""

import datetime
import math
from dataclasses import dataclass

import numpy as np

from theraflow.dicom.export.header import GE_REFERENCE_TIME, SIEMENS_REFERENCE_TIME, tag_name
from theraflow.dicom.quantity.checks import require
from theraflow.dicom.quantity.stated import TIMES_AGREE_S, Facts
from theraflow.errors import TheraflowError

# A series may start this long before its first image (a cropped series lacks its first bed positions).
_LONGEST_EXAMINATION_S = 2 * 3600.0
# Times in headers are cut to seconds.
_SAME_TIME_S = 1.0
# Reference times that differ by more than this are reported.
_REFERENCE_TIMES_AGREE_S = 30.0


@dataclass(frozen=True)
class Quantification:
    """How rescaled voxel values become the quantity: multiply slice k by `factors[k]`.

    Attributes:
        factors: shape (slices,).
        rule: in words, how they came about.
        reference_time: the one time that all values were corrected to; None where there is none or it does not matter.
        reference_source: what has told it.
    """

    factors: np.ndarray
    rule: str
    reference_time: datetime.datetime | None = None
    reference_source: str | None = None

    @property
    def factor(self) -> float | None:
        """The factor, or None where it differs between slices."""
        return float(self.factors[0]) if np.ptp(self.factors) == 0 else None


def frame_factor(decay_per_s: float, duration_s: np.ndarray) -> np.ndarray:
    """Activity at the start of a frame over its mean during the frame: lambda t / (1 - exp(-lambda t))."""
    return decay_per_s * duration_s / -np.expm1(-decay_per_s * np.asarray(duration_s))


def reference_time(facts: Facts) -> tuple[datetime.datetime, str]:
    """The time that DecayCorrection START has corrected to, and where it comes from.

    In this order (QIBA and the manual): GE's own tag (0009,100D); Siemens' own tag (0071,1022);
    DecayCorrectionDateTime; the series time; each only if not later than the first image (later: the series was made
    afterwards) and not more than two hours before it; then computed back as acquisition + t_mean - FrameReferenceTime,
    with t_mean = ln(lambda t / (1 - exp(-lambda t))) / lambda, the moment in a frame of length t when the activity
    equals its mean; at last the start of the acquisition in scans.tsv, which is what START means. A disagreement of
    more than 30 s becomes a flag. An enhanced PET may be corrected to any time from the injection on, which it states
    as DecayCorrectionDateTime.

    Raises:
        TheraflowError: none of them is to be had.
    """
    require(facts, "the reference time of the decay correction", ["acquired", "reference_time"])
    stated = {
        f"GE's PET scan date and time {GE_REFERENCE_TIME}": facts.ge_reference,
        f"Siemens' decay correction date and time {SIEMENS_REFERENCE_TIME}": facts.siemens_reference,
        tag_name("DecayCorrectionDateTime"): facts.decay_corrected_to,
        "SeriesDate and SeriesTime": facts.series_start,
    }
    usable = _at_start if facts.means_start else _after_injection
    found = {
        source: stated_at for source, stated_at in stated.items() if stated_at and usable(facts, source, stated_at)
    }
    computed = _computed_reference_time(facts)
    if computed:
        found["FrameReferenceTime"] = computed
    if not found and "acquired_at" in facts.overrides and facts.means_start:
        found["the start of the acquisition (acquired_at in scans.tsv)"] = facts.acquired_at
    if not found:
        raise TheraflowError(
            f"{facts.where}: the reference time of the decay correction cannot be told: "
            f"{'; '.join(facts.flags)}; give the start of the acquisition as acquired_at in scans.tsv, or export the "
            "original series again."
        )
    source, reference = next(iter(found.items()))
    for other, stated_at in found.items():
        apart = (stated_at - reference).total_seconds()
        if abs(apart) > _REFERENCE_TIMES_AGREE_S:
            percent = 100.0 * abs(math.expm1(facts.decay_constant_per_s * apart))
            facts.flags.append(
                f"reference time by {source}; by {other} it would be {abs(apart):.0f} s "
                f"{'later' if apart > 0 else 'earlier'} ({percent:.2g} % of the values)"
            )
    return reference, source


def _at_start(facts: Facts, source: str, stated_at: datetime.datetime) -> bool:
    """Whether a stated reference time can be the start of the acquisition; if not, with a flag."""
    before_s = (facts.acquired_at - stated_at).total_seconds()
    if -_SAME_TIME_S <= before_s <= _LONGEST_EXAMINATION_S:
        return True
    facts.flags.append(
        f"{source} lie {abs(before_s):.0f} s {'before' if before_s > 0 else 'after'} the first acquisition: not used "
        "as reference time"
    )
    return False


def _after_injection(facts: Facts, source: str, stated_at: datetime.datetime) -> bool:
    """Whether a stated reference time lies between injection and scan; if not, with a flag."""
    injected_at = facts.stated.get("injected_at") or facts.injected_at
    late_s = (stated_at - facts.acquired_at).total_seconds()
    if late_s <= _LONGEST_EXAMINATION_S and (stated_at - injected_at).total_seconds() >= -TIMES_AGREE_S:
        return True
    facts.flags.append(
        f"{source} ({stated_at}) lies before the injection ({injected_at}) or long after the scan "
        f"({facts.acquired_at}): not used as reference time"
    )
    return False


def administration_reference(facts: Facts) -> datetime.datetime:
    """The time that DecayCorrection ADMIN has corrected to: the injection as the scanner knew it.

    scans.tsv may correct the time of the injection, but not what the scanner has computed from its own.

    Raises:
        TheraflowError: the header lists several injections.
    """
    if facts.several_injections:
        raise TheraflowError(
            f"{facts.where}: {tag_name('DecayCorrection')} is ADMIN, but the header lists several injections, so that "
            "the time that the values are corrected to cannot be told; export the series corrected to START."
        )
    return facts.stated.get("injected_at") or facts.injected_at


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
