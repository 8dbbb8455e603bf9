"""Time-activity curves: sums of exponentials whose physical decay is known and never fitted.

A(t) = sum of A_i exp(-(b_i + p) t): amplitudes A_i in MBq, biological rates b_i and the physical decay
constant p in 1/h, t in h after the injection. The same ligand with another nuclide has the same A_i and b_i,
and another p.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theraflow.nuclides import HOUR, Nuclide


def decay_per_h(nuclide: Nuclide) -> float:
    """Physical decay constant in 1/h."""
    return nuclide.decay_constant_per_s * HOUR


def time_integrated_activity(amplitudes: Sequence[float], rates_per_h: Sequence[float]) -> float:
    """Integral of sum A_i exp(-l_i t) from 0 to infinity, in the unit of the amplitudes times h.

    Uptake and clearance is the pair (A, -A) with the effective rates of clearance and of uptake.
    """
    return float(np.sum(np.asarray(amplitudes) / np.asarray(rates_per_h)))


def relabelled(rates_per_h: Sequence[float], measured: Nuclide, other: Nuclide) -> np.ndarray:
    """Effective rates (1/h) of the same ligand with another nuclide: all change alike, that of uptake too.

    Raises:
        ValueError: a rate below the physical decay of the measured nuclide.
    """
    biological = np.asarray(rates_per_h, dtype=float) - decay_per_h(measured)
    if np.any(biological < -1e-12):
        raise ValueError(f"an effective rate is slower than the physical decay of {measured.name}")
    return biological + decay_per_h(other)


def written(amplitudes: Sequence[float], rates_per_h: Sequence[float]) -> str:
    """A curve as tables have it: "amplitude:rate" in MBq and 1/h (effective), divided by spaces."""
    return " ".join(f"{float(a)!r}:{float(rate)!r}" for a, rate in zip(amplitudes, rates_per_h, strict=True))


def read_curve(words: str) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes in MBq and effective rates in 1/h of a curve as `written` writes it."""
    return tuple(np.array([[float(part) for part in term.split(":")] for term in words.split()]).T)


@dataclass(frozen=True)
class Curve:
    """The activity of a ligand in a region, with any nuclide on it.

    Attributes:
        amplitudes_mbq: A_i at the time of injection; below 0 for uptake.
        biological_per_h: biological rates b_i, not below 0.
    """

    amplitudes_mbq: tuple[float, ...]
    biological_per_h: tuple[float, ...]

    def rates_per_h(self, nuclide: Nuclide) -> np.ndarray:
        """Effective rates b_i + p in 1/h."""
        return np.array(self.biological_per_h) + decay_per_h(nuclide)

    def activity_mbq(self, time_h: np.ndarray | float, nuclide: Nuclide) -> np.ndarray:
        """Activity at these times after the injection."""
        time = np.asarray(time_h, dtype=float)
        return np.exp(-np.multiply.outer(time, self.rates_per_h(nuclide))) @ np.array(self.amplitudes_mbq)

    def time_integrated_activity(self, nuclide: Nuclide) -> float:
        """Time-integrated activity in MBq h."""
        return time_integrated_activity(self.amplitudes_mbq, self.rates_per_h(nuclide))

    def half_life_h(self, nuclide: Nuclide) -> float:
        """Effective half-life of the slowest exponential: that of the late curve."""
        return math.log(2.0) / float(self.rates_per_h(nuclide).min())


def with_uptake(curve: Curve, uptake_h: float, measured: Nuclide) -> Curve:
    """The same late curve, taken up with a half-life in place of from the injection on.

    Each exponential A exp(-b t) becomes A (exp(-b t) - exp(-(b + u) t)): u is the difference between the effective
    rates of the uptake and of the late curve. An uptake that is no faster than the clearance is none.

    Args:
        curve: without uptake, all amplitudes above 0.
        uptake_h: effective half-life of the uptake, with the measured nuclide.
        measured: that nuclide.
    """
    difference = math.log(2.0) / uptake_h - float(curve.rates_per_h(measured).min())
    if not difference > 0:
        raise ValueError(f"an uptake half-life of {uptake_h} h is no shorter than that of the clearance")
    amplitudes, rates = curve.amplitudes_mbq, curve.biological_per_h
    return Curve((*amplitudes, *(-a for a in amplitudes)), (*rates, *(b + difference for b in rates)))
