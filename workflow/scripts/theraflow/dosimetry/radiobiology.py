"""Biologically effective dose of a dose rate that is a sum of exponentials (linear-quadratic model)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

QUANTITIES = {"dose": "absorbed dose", "bed": "BED", "eqd2": "EQD2"}


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


@dataclass(frozen=True)
class Effect:
    """What an absorbed dose D counts for in a quantity that has a limit: E(D) = s (D + q D^2).

    Absorbed dose: s = 1, q = 0. BED: s = 1, q = G / (alpha/beta). EQD2: that BED with s = 1 / (1 + 2 / (alpha/beta)).

    Attributes:
        scale: s.
        curvature_per_gy: q, not below 0.
    """

    scale: float = 1.0
    curvature_per_gy: float = 0.0

    def of_dose(self, dose_gy: float) -> float:
        """E(D) in Gy."""
        return self.scale * dose_gy * (1.0 + self.curvature_per_gy * dose_gy)

    def slope(self, dose_gy: float) -> float:
        """dE/dD."""
        return self.scale * (1.0 + 2.0 * self.curvature_per_gy * dose_gy)

    def dose_gy(self, effect_gy: float) -> float:
        """The dose D >= 0 with E(D) = `effect_gy` >= 0: the root of the quadratic, without cancellation at q = 0."""
        plain = effect_gy / self.scale
        return 2.0 * plain / (1.0 + math.sqrt(1.0 + 4.0 * self.curvature_per_gy * plain))


def effect(quantity: str, factor: float = math.nan, alpha_beta_gy: float = math.nan) -> Effect:
    """How dose counts in a quantity.

    Args:
        quantity: one of `QUANTITIES`; `dose` needs nothing else.
        factor: Lea-Catcheside factor G of the dose rate.
        alpha_beta_gy: alpha/beta of the tissue.
    """
    if quantity == "dose":
        return Effect()
    scale = equivalent_dose_2gy_gy(1.0, alpha_beta_gy) if quantity == "eqd2" else 1.0
    return Effect(scale, factor / alpha_beta_gy)
