"""From voxel values to SUV by body weight.

Sources: Vácha et al. 2026, "Comprehensive Manual for SUV Computation" (IBSI), cited as the manual; QIBA vendor-neutral
pseudo-code (2018); DICOM PS3.3 C.8.9.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from theraflow.dicom.checks import (
    forget_impossible_injection,
    refuse_contradicting_overrides,
    refuse_impossible_injection,
    refuse_uncorrected,
    require,
)
from theraflow.dicom.decay import Quantification, frame_factor, reference_time
from theraflow.dicom.facts import Facts
from theraflow.dicom.header import tag_name
from theraflow.dicom.normalisation import NORMALISED_BY, body_surface_cm2, normal_mass_kg
from theraflow.errors import TheraflowError


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
    require(facts, "the SUV", needed)
    refuse_uncorrected(facts, "PET")
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
    require(facts, "the SUV", _for_bq_per_ml(facts))
    refuse_impossible_injection(facts)
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


def _suv_of_suv(facts: Facts) -> Quantification:
    refuse_contradicting_overrides(facts, f"Units {facts.units} are normalised already")
    forget_impossible_injection(facts)
    kind = facts.suv_type or ("BW" if facts.units == "GML" else "BSA")
    if facts.units == "GML" and kind == "BW":
        return Quantification(np.ones(facts.slices), "Units GML: SUV by body weight already")
    if facts.units == "GML" and kind in NORMALISED_BY:
        require(facts, "the SUV by body weight", ["weight_kg", "height_m", "PatientSex"])
        factor = facts.weight_kg / normal_mass_kg(kind, facts.weight_kg, facts.height_m, facts.sex)
        return Quantification(
            np.full(facts.slices, factor), f"Units GML by {NORMALISED_BY[kind]}: turned to body weight"
        )
    if facts.units == "CM2ML" and kind == "BSA":
        require(facts, "the SUV by body weight", ["weight_kg", "height_m"])
        factor = facts.weight_kg * 1000.0 / body_surface_cm2(facts.weight_kg, facts.height_m)
        return Quantification(np.full(facts.slices, factor), "Units CM2ML by body surface: turned to body weight")
    raise TheraflowError(
        f"{facts.where}: {tag_name('SUVType')} {kind} with Units {facts.units} is not known; export the "
        "series in Bq/mL."
    )


def _suv_of_counts(facts: Facts) -> Quantification:
    if facts.suv_factor is None and facts.activity_factor is None:
        raise TheraflowError(
            f"{facts.where}: {tag_name('Units')} CNTS without Philips' factor (7053,1000) or (7053,1009) "
            "cannot be turned into SUV; export the series with its private tags or in Bq/mL."
        )
    if facts.suv_factor is None:
        return _suv_of_bq_per_ml(facts, facts.activity_factor, "Units CNTS by (7053,1009)")
    refuse_contradicting_overrides(facts, "the SUV factor (7053,1000) is normalised already")
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
    forget_impossible_injection(facts)
    return Quantification(facts.suv_factor, "Units CNTS by Philips' SUV factor (7053,1000)")
