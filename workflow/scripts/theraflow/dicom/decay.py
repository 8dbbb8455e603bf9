"""To which time voxel values are corrected, and what brings them to another."""

import datetime
import math
from dataclasses import dataclass

import numpy as np

from theraflow.dicom.checks import require
from theraflow.dicom.facts import Facts
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
    """

    factors: np.ndarray
    rule: str

    @property
    def factor(self) -> float | None:
        """The factor, or None where it differs between slices."""
        return float(self.factors[0]) if np.ptp(self.factors) == 0 else None


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
    for source, stated_at in stated.items():
        if stated_at is None:
            continue
        before_s = (facts.acquired_at - stated_at).total_seconds()
        if -_SAME_TIME_S <= before_s <= _LONGEST_EXAMINATION_S:
            found[source] = stated_at
        else:
            facts.flags.append(
                f"{source} lie {abs(before_s):.0f} s {'before' if before_s > 0 else 'after'} the first "
                "acquisition: not used as reference time"
            )
    computed = _computed_reference_time(facts)
    if computed:
        found["FrameReferenceTime"] = computed
    if not found:
        require(facts, "the reference time of the decay correction", ["FrameReferenceTime", "ActualFrameDuration"])
        raise TheraflowError(
            f"{facts.where}: the reference time of the decay correction cannot be told: "
            f"{'; '.join(facts.flags)}; export the original series again."
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
