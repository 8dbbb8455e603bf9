"""From voxel values to activity concentration at the start of the acquisition (DICOM PS3.3 C.8.4 and C.8.9)."""

import math
from dataclasses import dataclass

import numpy as np

from theraflow.dicom.export.header import tag_name
from theraflow.dicom.quantity.camera import Calibration, Counting, dead_time_factor
from theraflow.dicom.quantity.checks import (
    refuse_impossible_injection,
    refuse_uncorrected,
    require,
)
from theraflow.dicom.quantity.decay import Quantification, administration_reference, frame_factor, reference_time
from theraflow.dicom.quantity.facts import Facts
from theraflow.errors import TheraflowError


@dataclass(frozen=True)
class Counted:
    """A reconstruction in counts with all that turns it into activity.

    Attributes:
        counting: how it was counted.
        calibration: of the camera.
        voxel_ml: volume of a voxel of the stacked image.
    """

    counting: Counting
    calibration: Calibration
    voxel_ml: float

    @property
    def bq_per_ml(self) -> float:
        """Mean activity concentration during the acquisition for one count in a voxel, dead time corrected."""
        cps_per_bq = self.calibration.sensitivity_cps_per_mbq / 1e6
        factor = dead_time_factor(self.counting, self.calibration)
        return factor / (self.counting.duration_s * cps_per_bq * self.voxel_ml)


def is_calibrated(facts: Facts) -> bool:
    """Whether the series states Bq/mL itself."""
    return facts.units == "BQML" or facts.real_world is not None


def quantify_activity(facts: Facts, counted: Counted | None = None) -> Quantification:
    """Factors from Bq/mL or counts to activity concentration at the start of the acquisition, decay correction undone.

    All slices refer to one time, the start of the first. DecayCorrection ADMIN and START are undone back to it; NONE
    stands at each frame of a PET, whose mean is brought to its start, and for a SPECT in counts at the whole
    acquisition, whose mean is brought to its start. An NM series that does not name decay correction at all is taken as
    NONE, because PS3.3 lets only the PET module state it; one in Bq/mL is taken to stand at the start.

    Args:
        facts: of the series.
        counted: of an NM series that is not in Bq/mL; None where the configuration has no calibration.

    Raises:
        TheraflowError: missing facts, all named; neither Bq/mL nor a calibration; an NM series that is decay-corrected
            to an unstated time; a count rate beyond what the dead time allows.
    """
    names = ["acquired", "injected_bq", "injected_at"]
    if facts.modality == "PT":
        names += ["CorrectedImage", "DecayCorrection"]
    if is_calibrated(facts):
        counted = None
    else:
        _refuse_uncalibrated(facts, counted)
        facts.missing |= counted.counting.missing
        names += ["duration_s"] + (["counts"] if counted.calibration.dead_time_us else [])
        facts.flags += counted.counting.flags
    require(facts, "the activity", names)
    refuse_impossible_injection(facts)
    if facts.corrected is None:
        facts.flags.append(f"{tag_name('CorrectedImage')} missing: that attenuation is corrected for is not stated")
    refuse_uncorrected(facts, "SPECT")
    if counted is None:
        unit, scale = "Units BQML" if facts.units == "BQML" else "real-world value mapping to Bq/ml", 1.0
    else:
        unit, scale = "counts over duration, sensitivity and voxel volume", _bq_per_ml(facts, counted)
    factors, when = _to_start(facts, counted)
    return Quantification(scale * factors, f"{unit}; {when}")


def _refuse_uncalibrated(facts: Facts, counted: Counted | None) -> None:
    if counted is not None and facts.modality == "NM" and facts.units in (None, "CNTS"):
        return
    raise TheraflowError(
        f"{facts.where}: the voxels are not in Bq/mL ({tag_name('Units')} is {facts.units or 'missing'} and no "
        f"{tag_name('RealWorldValueMappingSequence')} to Bq/ml exists); a calibration factor is needed: export a "
        "quantitative reconstruction in Bq/mL, or for an NM series in counts give calibration with "
        "sensitivity_cps_per_mbq to its tracer in the configuration."
    )


def _bq_per_ml(facts: Facts, counted: Counted) -> float:
    try:
        return counted.bq_per_ml
    except TheraflowError as error:
        raise TheraflowError(f"{facts.where}: {error}") from error


def _to_start(facts: Facts, counted: Counted | None) -> tuple[np.ndarray, str]:
    """What brings each slice to the start of the acquisition, and in words."""
    says, decay, start = facts.decay_correction, facts.decay_constant_per_s, facts.acquired_at
    if says == "ADMIN":
        reference, source = administration_reference(facts), "the injection"
    elif says == "START":
        reference, source = reference_time(facts)
    elif says in (None, "NONE"):
        return _frames_to_start(facts, counted)
    else:
        raise TheraflowError(f"{facts.where}: {tag_name('DecayCorrection')} is {says}, not START, ADMIN or NONE.")
    factor = math.exp(-decay * (start - reference).total_seconds())
    return np.full(facts.slices, factor), f"DecayCorrection {says} undone, reference time is {source}"


def _frames_to_start(facts: Facts, counted: Counted | None) -> tuple[np.ndarray, str]:
    if facts.decay_correction is None and "DECY" in (facts.corrected or ()):
        raise TheraflowError(
            f"{facts.where}: {tag_name('CorrectedImage')} has DECY, but {tag_name('DecayCorrection')} does "
            "not say to which time; export the series without decay correction."
        )
    decay, start = facts.decay_constant_per_s, facts.acquired_at
    since = np.array([(slice_ - start).total_seconds() for slice_ in facts.acquired])
    factors = np.exp(decay * since)
    if counted is not None:
        mean = float(frame_factor(decay, counted.counting.duration_s))
        return factors * mean, "not decay-corrected: mean of the acquisition brought to its start"
    if facts.modality == "PT" and facts.frame_s is not None:
        return (
            factors * frame_factor(decay, facts.frame_s),
            "not decay-corrected: mean of the frame brought to its start",
        )
    return factors, "not decay-corrected: values stand at the acquisition"
