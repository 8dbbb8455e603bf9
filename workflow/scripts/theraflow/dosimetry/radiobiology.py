"""Biologically effective dose of a dose rate that is a sum of exponentials (linear-quadratic model)."""

import math
from collections.abc import Sequence


def lea_catcheside(amplitudes: Sequence[float], rates_per_h: Sequence[float], repair_half_time_h: float) -> float:
    """Lea-Catcheside factor G of the dose rate sum R_i exp(-l_i t), for mono-exponential repair with rate m.

    G = 2/D^2 sum over i, j of R_i R_j / ((l_i + l_j)(l_i + m)), D = sum R_i / l_i: the double integral over
    two times, done term by term. One exponential: l / (l + m).

    Args:
        amplitudes: R_i, any unit.
        rates_per_h: effective rates l_i.
        repair_half_time_h: half-time of sublethal damage repair.
    """
    repair = math.log(2.0) / repair_half_time_h
    terms = list(zip(amplitudes, rates_per_h, strict=True))
    dose = sum(a / rate for a, rate in terms)
    double = sum(a * b / ((k + rate) * (k + repair)) for a, k in terms for b, rate in terms)
    return 2.0 * double / dose**2


def biologically_effective_dose_gy(dose_gy: float, factor: float, alpha_beta_gy: float) -> float:
    """BED = D (1 + G D / (alpha/beta)) in Gy, G the Lea-Catcheside factor."""
    return dose_gy * (1.0 + factor * dose_gy / alpha_beta_gy)


def equivalent_dose_2gy_gy(bed_gy: float, alpha_beta_gy: float) -> float:
    """EQD2 in Gy: the total dose in fractions of 2 Gy that has this BED."""
    return bed_gy / (1.0 + 2.0 / alpha_beta_gy)
