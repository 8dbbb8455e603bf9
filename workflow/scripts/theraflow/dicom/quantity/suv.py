"""From voxel values to SUV by body weight.

Sources: Vácha et al. 2026, "Comprehensive Manual for SUV Computation" (IBSI), cited as the manual; QIBA vendor-neutral
pseudo-code (2018); DICOM PS3.3 C.8.9 and, for enhanced PET, C.8.22.
"""

import math
from dataclasses import replace

import numpy as np

from theraflow.dicom.export.header import PHILIPS_ACTIVITY_FACTOR, PHILIPS_SUV_FACTOR, tag_name
from theraflow.dicom.quantity.checks import (
    forget_impossible_injection,
    refuse_contradicting_overrides,
    refuse_impossible_injection,
    refuse_uncorrected,
    require,
)
from theraflow.dicom.quantity.decay import Quantification, administration_reference, frame_factor, reference_time
from theraflow.dicom.quantity.normalisation import NORMALISATIONS, from_body_weight
from theraflow.dicom.quantity.stated import Facts
from theraflow.errors import TheraflowError

# What must have been corrected before a count rate is proportional to activity (PS3.3 C.8.9.4, by the beginning of
# the word: the correction of randoms has several names), besides attenuation and decay.
_FOR_COUNT_RATES = ("NORM", "DTIM", "SCAT", "RAN")
_REASONS = {
    "PROPCNTS": "the factor between the values and counts is not stated",
    "PROPCPS": "the factor between the values and count rates is not stated",
    "1CM": "they are an attenuation map",
    "NONE": "the values have no unit",
}
_MAPPING = "real-world value mapping to Bq/ml"


def quantify_suv(facts: Facts) -> Quantification:
    """Factors from rescaled voxel values to SUV by body weight (g/mL).

    Units BQML: W / (D 2^(-dt/T)) with dt from injection to the time that the values are corrected to
    (DecayCorrection START: `reference_time`; ADMIN: the injection); NONE: the same for the mean of a frame of
    length t that starts at dt, with the factor lambda t / (1 - exp(-lambda t)). GML: 1 for SUVType BW or
    none, W / (lean or ideal mass) for the others. CM2ML: W / body surface. CNTS: Philips' factor to SUV or to
    Bq/mL, otherwise a count rate by the duration of the frame. CPS: Bq/mL by the voxel volume where CorrectedImage has
    DCAL, by that and DoseCalibrationFactor where not, if all corrections were made. Source: the manual.

    Raises:
        TheraflowError: missing facts, all named; units or corrections that do not allow it.
    """
    mapped = facts.real_world is not None and facts.units != "BQML"
    needed = ["CorrectedImage"] if mapped else ["Units", "CorrectedImage"]
    if mapped or facts.units in (None, "BQML"):
        # The units decide what else is needed; without them all that the commonest units need is named.
        needed += _for_bq_per_ml(facts)
    require(facts, "the SUV", needed)
    refuse_uncorrected(facts, "PET")
    if mapped:
        if facts.units is not None:
            facts.flags.append(f"{tag_name('Units')} {facts.units}, but a {_MAPPING} exists: the latter taken")
        return _suv_of_bq_per_ml(facts, 1.0, _MAPPING)
    if facts.units == "BQML":
        return _suv_of_bq_per_ml(facts, 1.0, "Units BQML")
    if facts.units in ("GML", "CM2ML"):
        return _suv_of_suv(facts)
    if facts.units == "CNTS":
        return _suv_of_counts(facts)
    if facts.units == "CPS":
        return _suv_of_count_rate(facts, 1.0, "Units CPS")
    raise TheraflowError(
        f"{facts.where}: {tag_name('Units')} {facts.units} cannot be turned into SUV: "
        f"{_REASONS.get(facts.units, 'they are no activity concentration')}; export the series in Bq/mL."
    )


def _for_bq_per_ml(facts: Facts) -> list[str]:
    """Facts that the SUV of an activity concentration needs."""
    names = ["CorrectedImage", "DecayCorrection", "weight_kg", "injected_bq"]
    if facts.decay_correction == "ADMIN":
        return names
    names += ["injected_at", "acquired"]
    if facts.decay_correction == "NONE":
        return names if facts.frame_moments else [*names, "ActualFrameDuration"]
    return [*names, "reference_time"]


def _suv_of_bq_per_ml(facts: Facts, to_bq_per_ml: float | np.ndarray, rule: str) -> Quantification:
    require(facts, "the SUV", _for_bq_per_ml(facts))
    refuse_impossible_injection(facts)
    decay, per_bq = facts.decay_constant_per_s, facts.weight_kg * 1000.0 / facts.injected_bq
    says = facts.decay_correction
    if says == "NONE":
        factors, how = _from_frames(facts)
        return Quantification(per_bq * factors * to_bq_per_ml, f"{rule}; DecayCorrection NONE: {how}")
    if says == "ADMIN":
        reference, source = administration_reference(facts), "the injection"
    elif says == "START":
        reference, source = reference_time(facts)
    else:
        raise TheraflowError(f"{facts.where}: {tag_name('DecayCorrection')} is {says}, not START, ADMIN or NONE.")
    elapsed = (reference - facts.injected_at).total_seconds() if reference and facts.injected_at else 0.0
    if says == "START" and facts.means_start and elapsed < 0:
        raise TheraflowError(
            f"{facts.where}: the injection is {-elapsed:.0f} s later than {source}, which the values are "
            "corrected to; correct it by injected_at in scans.tsv."
        )
    factor = per_bq * math.exp(decay * elapsed)
    return Quantification(
        np.full(facts.slices, factor) * to_bq_per_ml,
        f"{rule}; DecayCorrection {says}: reference time is {source}",
        reference,
        source,
    )


def _from_frames(facts: Facts) -> tuple[np.ndarray, str]:
    """Factors from values that are not decay-corrected to the injection, and how."""
    decay = facts.decay_constant_per_s
    if facts.frame_s is None:
        since = np.array([(instant - facts.injected_at).total_seconds() for instant in facts.frame_moments])
        return np.exp(decay * since), f"each frame corrected from {tag_name('FrameReferenceDateTime')}"
    if facts.whole_body and "acquired_at" in facts.overrides and facts.stated["acquired_at"] is None:
        raise TheraflowError(
            f"{facts.where}: without decay correction each bed position needs its own {tag_name('AcquisitionTime')}, "
            "which acquired_at in scans.tsv cannot give; export the series again."
        )
    since = np.array([(start - facts.injected_at).total_seconds() for start in facts.acquired])
    return frame_factor(decay, facts.frame_s) * np.exp(decay * since), "each frame corrected"


def _suv_of_suv(facts: Facts) -> Quantification:
    why = f"Units {facts.units} are normalised already"
    refuse_contradicting_overrides(facts, why)
    forget_impossible_injection(facts)
    kind = facts.suv_type or ("BW" if facts.units == "GML" else "BSA")
    if facts.units == "GML" and kind == "BW":
        return Quantification(np.ones(facts.slices), "Units GML: SUV by body weight already")
    normalisation = NORMALISATIONS.get(kind)
    if normalisation is None or (kind == "BSA") != (facts.units == "CM2ML"):
        raise TheraflowError(
            f"{facts.where}: {tag_name('SUVType')} {kind} with Units {facts.units} is not known; export the "
            "series in Bq/mL."
        )
    # The scanner has used the height in its header.
    refuse_contradicting_overrides(facts, why, "height_cm")
    require(facts, "the SUV by body weight", ["weight_kg", *normalisation.needs])
    try:
        factor = 1.0 / from_body_weight(kind, facts.weight_kg, facts.height_m, facts.sex)
    except TheraflowError as error:
        raise TheraflowError(f"{facts.where}: {error}") from error
    return Quantification(
        np.full(facts.slices, factor), f"Units {facts.units} by {normalisation.divisor}: turned to body weight"
    )


def _suv_of_counts(facts: Facts) -> Quantification:
    if facts.suv_factor is None and facts.activity_factor is None:
        without = f"Units CNTS without Philips' factor {PHILIPS_SUV_FACTOR} or {PHILIPS_ACTIVITY_FACTOR}"
        if facts.frame_s is None:
            require(facts, f"a count rate from {without}", ["ActualFrameDuration"])
        return _suv_of_count_rate(facts, 1.0 / facts.frame_s, without)
    if facts.suv_factor is None:
        return _suv_of_bq_per_ml(facts, facts.activity_factor, f"Units CNTS by {PHILIPS_ACTIVITY_FACTOR}")
    refuse_contradicting_overrides(facts, f"the SUV factor {PHILIPS_SUV_FACTOR} is normalised already")
    if facts.activity_factor is not None:
        _compare_philips_factors(facts)
    forget_impossible_injection(facts)
    return Quantification(facts.suv_factor, f"Units CNTS by Philips' SUV factor {PHILIPS_SUV_FACTOR}")


def _compare_philips_factors(facts: Facts) -> None:
    """Flag an SUV factor that the activity factor contradicts, or that it cannot confirm."""
    try:
        other = _suv_of_bq_per_ml(replace(facts, flags=[]), facts.activity_factor, "")
    except TheraflowError as error:
        why = str(error).removeprefix(f"{facts.where}: ")
        facts.flags.append(f"{PHILIPS_SUV_FACTOR} cannot be checked by {PHILIPS_ACTIVITY_FACTOR}: {why}")
        return
    apart = float(np.abs(other.factors / facts.suv_factor - 1.0).max())
    if apart > 0.01:
        facts.flags.append(
            f"Philips' factors {PHILIPS_SUV_FACTOR} and {PHILIPS_ACTIVITY_FACTOR} give SUVs that differ by "
            f"{100 * apart:.2g} %: the first taken"
        )


def _suv_of_count_rate(facts: Facts, to_per_s: float | np.ndarray, rule: str) -> Quantification:
    """SUV of a count rate per voxel, where header and corrections prove that it is an activity (the manual)."""
    refusal = f"{facts.where}: {rule} cannot be turned into SUV:"
    uncorrected = [
        word for word in _FOR_COUNT_RATES if not any(done.startswith(word) for done in facts.corrected or ())
    ]
    if uncorrected:
        raise TheraflowError(
            f"{refusal} {tag_name('CorrectedImage')} lacks {', '.join(uncorrected)}; export the series in Bq/mL."
        )
    if facts.voxel_ml is None:
        raise TheraflowError(f"{refusal} {tag_name('SliceThickness')} is missing; export the series in Bq/mL.")
    if "DCAL" in facts.corrected:
        how = "CorrectedImage has DCAL"
        calibration = 1.0
    else:
        # PS3.3 C.8.9.4.1.8: the factor is one where no dose calibration was applied.
        if facts.dose_calibration is None or (facts.dose_calibration == 1.0).any():
            raise TheraflowError(
                f"{refusal} {tag_name('CorrectedImage')} lacks DCAL and {tag_name('DoseCalibrationFactor')} does not "
                "give the calibration; export the series in Bq/mL."
            )
        how, calibration = f"{tag_name('DoseCalibrationFactor')} applied", facts.dose_calibration
    facts.flags.append(f"{rule}: turned into Bq/mL by the voxel volume, {how}")
    return _suv_of_bq_per_ml(facts, to_per_s * calibration / facts.voxel_ml, f"{rule}, {how}")
