"""Time-integrated activity from one scan: what can be said, by which method, and how wrong it may be."""

import math
from dataclasses import dataclass

import numpy as np
import scipy

from theraflow.dosimetry.curves.fits import HalfLife, check_half_life
from theraflow.dosimetry.curves.kinetics import Curve, decay_per_h
from theraflow.nuclides import Nuclide

# Haenscheid 2018: error of the estimate, while the effective half-life lies between t / 2.5 and t / 0.75.
HAENSCHEID_REACH = (0.75, 2.5)
HAENSCHEID_BAND = (-0.116, 0.062)
QUANTILES = 2000


def haenscheid_time_integrated_activity(activity_mbq: float, time_h: float) -> float:
    """Time-integrated activity (MBq h) from one measurement: A(t) 2 t / ln 2.

    Haenscheid et al., J Nucl Med 2018;59:75. For a mono-exponential curve and t between 0.75 and 2.5
    effective half-lives the error lies between -12 % and +6 %.
    """
    return activity_mbq * 2.0 * time_h / math.log(2.0)


def madsen_time_integrated_activity(activity_mbq: float, time_h: float, rate_per_h: float) -> float:
    """Time-integrated activity (MBq h) from one measurement and the mean effective rate of a population.

    Madsen et al., Med Phys 2018;45:2318: A(t) exp(l t) / l. Where t = 1 / l, an error of the rate counts in
    second order only.
    """
    return activity_mbq * math.exp(rate_per_h * time_h) / rate_per_h


@dataclass(frozen=True)
class Measurement:
    """One scan, or several at one time.

    Attributes:
        time_h: after injection.
        activity_mbq: then.
        relative_sd: of the activity, without what is common to all scans.
        nuclide: the measured nuclide.
    """

    time_h: float
    activity_mbq: float
    relative_sd: float
    nuclide: Nuclide

    def activity_with(self, wanted: Nuclide) -> float:
        """Activity at that time, had the ligand carried another nuclide of the same activity at injection."""
        return self.activity_mbq * math.exp((decay_per_h(self.nuclide) - decay_per_h(wanted)) * self.time_h)


@dataclass(frozen=True)
class KnownHalfLife:
    """The curve through one point with an effective half-life known from elsewhere (Madsen et al. 2018).

    Its sd is that of the whole distribution of the half-life, not of its first order, which vanishes at the
    best time.
    """

    point: Measurement
    known: HalfLife
    model = "mono-exponential, half-life given"
    quality = "one time point"

    def __post_init__(self):
        check_half_life(self.known, self.point.nuclide)

    @property
    def curve(self) -> Curve:
        """The curve with the median half-life."""
        rate = math.log(2.0) / self.known.hours
        amplitude = self.point.activity_mbq * math.exp(rate * self.point.time_h)
        return Curve((amplitude,), (max(0.0, rate - decay_per_h(self.point.nuclide)),))

    def half_life_h(self, nuclide: Nuclide) -> float:
        """Effective half-life with `nuclide`."""
        return self.curve.half_life_h(nuclide)

    def time_integrated_activity(self, nuclide: Nuclide) -> tuple[float, float]:
        """Time-integrated activity with `nuclide` and the root mean square of its error, in MBq h."""
        value = self.curve.time_integrated_activity(nuclide)
        errors = self._possible(nuclide) / value - 1.0
        return value, value * math.hypot(self.point.relative_sd, math.sqrt(float(np.mean(errors**2))))

    def band(self, nuclide: Nuclide) -> tuple[float, float]:
        """Relative error of the estimate, from the 2.5th to the 97.5th percentile of the half-life."""
        errors = self.time_integrated_activity(nuclide)[0] / self._possible(nuclide) - 1.0
        low, high = np.quantile(errors, (0.025, 0.975))
        return float(low), float(high)

    def method(self, wanted: Nuclide) -> str:
        """How the curve was found, for the table."""
        low, high = self.band(wanted)
        return (
            f"one time point: effective half-life of {self.known.hours:g} h from {self.known.source} "
            f"(Madsen 2018; error by the half-life {100 * low:+.0f} to {100 * high:+.0f} %)"
        )

    def _possible(self, nuclide: Nuclide) -> np.ndarray:
        """Time-integrated activities for the half-lives that may be, none beyond physical decay."""
        physical = decay_per_h(self.point.nuclide)
        quantiles = scipy.special.ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES)
        rates = math.log(2.0) / self.known.hours * np.exp(self.known.cv * quantiles)
        rates = rates[rates >= physical]
        if not rates.size:
            rates = np.array([physical])
        return self.point.activity_mbq * np.exp(rates * self.point.time_h) / (rates - physical + decay_per_h(nuclide))


@dataclass(frozen=True)
class Haenscheid:
    """A(t) 2 t / ln 2 with the activity of the wanted nuclide at that time (Haenscheid et al. 2018).

    No half-life is known, so there is no curve. The sd is that of an error anywhere in the band.
    """

    point: Measurement
    model = "single time point, Haenscheid"
    quality = "one time point"
    curve = None

    def half_life_h(self, nuclide: Nuclide) -> float:
        """NaN: not known."""
        return math.nan

    def time_integrated_activity(self, nuclide: Nuclide) -> tuple[float, float]:
        """Time-integrated activity with `nuclide` and its sd in MBq h."""
        value = haenscheid_time_integrated_activity(self.point.activity_with(nuclide), self.point.time_h)
        band = (HAENSCHEID_BAND[1] - HAENSCHEID_BAND[0]) / math.sqrt(12.0)
        return value, value * math.hypot(self.point.relative_sd, band)

    def method(self, wanted: Nuclide) -> str:
        """How the integral was found, and for which half-lives of the measured nuclide its error holds."""
        shift = decay_per_h(wanted) - decay_per_h(self.point.nuclide)
        near, far = HAENSCHEID_REACH
        shortest = math.log(2.0) / (far * math.log(2.0) / self.point.time_h - shift)
        slowest = near * math.log(2.0) / self.point.time_h - shift
        physical = decay_per_h(self.point.nuclide)
        longest = math.log(2.0) / max(slowest, physical)
        if not 0.0 < shortest < longest:
            return "one time point: A(t) 2 t / ln 2 (Haenscheid 2018); its error is not bounded at this time"
        return (
            f"one time point: A(t) 2 t / ln 2 (Haenscheid 2018; error -12 to +6 % if the effective half-life with "
            f"{self.point.nuclide.name} lies between {shortest:.3g} and {longest:.3g} h)"
        )


@dataclass(frozen=True)
class PhysicalDecay:
    """The curve through one point if nothing but physical decay removed the activity.

    Nothing is known of the clearance, so the curve has no sd. See `smallest_bounded_half_life_h` for what it
    bounds.
    """

    point: Measurement
    model = "physical decay"
    quality = "one time point"

    @property
    def curve(self) -> Curve:
        """The curve without clearance."""
        return Curve((self.point.activity_mbq * math.exp(decay_per_h(self.point.nuclide) * self.point.time_h),), (0.0,))

    def half_life_h(self, nuclide: Nuclide) -> float:
        """Physical half-life."""
        return self.curve.half_life_h(nuclide)

    def time_integrated_activity(self, nuclide: Nuclide) -> tuple[float, float]:
        """Time-integrated activity with `nuclide` in MBq h; the sd is not known (NaN)."""
        return self.curve.time_integrated_activity(nuclide), math.nan

    def method(self, wanted: Nuclide) -> str:
        """What it bounds, for the table."""
        limit = smallest_bounded_half_life_h(self.point.time_h, self.point.nuclide, wanted)
        if limit is None:
            return "one time point: physical decay, no upper bound (scan too late)"
        return f"one time point: physical decay, upper bound for effective half-lives above {limit:.2g} h; no sd"


def smallest_bounded_half_life_h(time_h: float, measured: Nuclide, wanted: Nuclide) -> float | None:
    """The effective half-life above which physical decay through one point is an upper bound.

    Faster clearance lowers the part after the measurement and raises the part before it: with the effective
    rate l of the wanted nuclide, TIA = A(t) exp(l t) / l, least at l = 1/t. Physical decay thus overestimates
    the time-integrated activity between its own rate and the second rate with the same value.

    Args:
        time_h: time of the measurement.
        measured: nuclide of the measurement, for which the half-life is given.
        wanted: nuclide of the time-integrated activity.

    Returns:
        Half-life in h, or None where the measurement is so late that physical decay is no upper bound at all.
    """
    least = decay_per_h(wanted) * time_h
    if least >= 1.0:
        return None
    second = scipy.optimize.brentq(lambda x: x - math.log(x) - least + math.log(least), 1.0, 1e3)
    return math.log(2.0) / (second / time_h - decay_per_h(wanted) + decay_per_h(measured))
