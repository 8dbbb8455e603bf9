"""From voxel values to activity concentration at the start of the acquisition (DICOM PS3.3 C.8.4 and C.8.9)."""

import math

import numpy as np

from theraflow.dicom.checks import (
    refuse_impossible_injection,
    refuse_uncorrected,
    require,
)
from theraflow.dicom.decay import Quantification, frame_factor, reference_time
from theraflow.dicom.facts import Facts
from theraflow.dicom.header import tag_name
from theraflow.errors import TheraflowError


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
    require(facts, "the activity", names)
    refuse_impossible_injection(facts)
    if facts.modality == "PT" or facts.corrected is not None:
        refuse_uncorrected(facts, "SPECT")
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
