"""Time-activity curves: sums of exponentials whose physical decay is known and never fitted.

A(t) = sum of A_i exp(-(b_i + p) t): amplitudes A_i in MBq, biological rates b_i and the physical decay
constant p in 1/h, t in h after the injection. The same ligand with another nuclide has the same A_i and b_i,
and another p.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from theraflow.errors import TheraflowError
from theraflow.nuclides import HOUR, Nuclide


@dataclass(frozen=True)
class Fit:
    """A mono-exponential curve and its uncertainty.

    Attributes:
        amplitude_mbq: A at the time of injection.
        biological_per_h: biological rate, not below 0.
        covariance: of (amplitude, biological rate), without what is common to all points; None where it is
            not known.
        model: for the table.
        method: what was assumed, for the table.
    """

    amplitude_mbq: float
    biological_per_h: float
    covariance: np.ndarray | None
    model: str
    method: str


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


def haenscheid_time_integrated_activity(activity_mbq: float, time_h: float) -> float:
    """Time-integrated activity (MBq h) from one measurement: A(t) 2 t / ln 2.

    Haenscheid et al., J Nucl Med 2018;59:75. For a mono-exponential curve and t between 0.75 and 2.5
    effective half-lives the error lies between -12 % and +6 %.
    """
    return activity_mbq * 2.0 * time_h / math.log(2.0)


def fit_mono_exponential(time_h: np.ndarray, activity_mbq: np.ndarray, sd_mbq: np.ndarray, nuclide: Nuclide) -> Fit:
    """Weighted least squares of A exp(-(b + p) t) with b >= 0.

    Args:
        time_h: times after injection, at least two different ones.
        activity_mbq: activity at these times (not decay-corrected), at least one above 0.
        sd_mbq: sd of each point that is independent of the other points, above 0.
        nuclide: the measured nuclide.

    Returns:
        The curve; its covariance is enlarged where the points scatter more than their sd say.

    Raises:
        TheraflowError: no fit was found.
    """
    physical = decay_per_h(nuclide)
    scale = float(np.max(activity_mbq))
    positive = activity_mbq > 0.02 * scale
    start = 0.01
    if np.unique(time_h[positive]).size > 1:
        start = max(1e-4, -np.polyfit(time_h[positive], np.log(activity_mbq[positive]), 1)[0] - physical)

    def curve(time: np.ndarray, amplitude: float, biological: float) -> np.ndarray:
        return amplitude * np.exp(-(biological + physical) * time)

    first = max(0.1, activity_mbq[0] / scale * math.exp((start + physical) * time_h[0]))
    try:
        (amplitude, biological), covariance = scipy.optimize.curve_fit(
            curve, time_h, activity_mbq / scale, p0=(first, start), sigma=sd_mbq / scale, absolute_sigma=True,
            bounds=([0.0, 0.0], [np.inf, np.inf]), x_scale=(first, max(start, 1e-3)), max_nfev=2000,
        )  # fmt: skip
    except RuntimeError as error:
        raise TheraflowError(
            f"no exponential could be fitted to the activities {activity_mbq} MBq ({error})"
        ) from error
    freedom = len(time_h) - 2
    if freedom > 0:
        residual = (activity_mbq / scale - curve(time_h, amplitude, biological)) / (sd_mbq / scale)
        covariance = covariance * max(1.0, float(residual @ residual) / freedom)
    covariance = covariance * np.outer((scale, 1.0), (scale, 1.0))
    method = f"weighted fit of {len(time_h)} points"
    if biological < 1e-6:
        biological, method = 0.0, f"{method}; no biological clearance seen"
    return Fit(float(amplitude * scale), float(biological), covariance, "mono-exponential", method)


def fit_one_point(
    time_h: float, activity_mbq: float, sd_mbq: float, nuclide: Nuclide, t_eff_h: float, t_eff_cv: float
) -> Fit:
    """The curve through one point with an effective half-life that is known from elsewhere.

    Args:
        time_h: time after injection.
        activity_mbq: activity then.
        sd_mbq: its sd, without what is common to all scans.
        nuclide: the measured nuclide.
        t_eff_h: effective half-life with this nuclide.
        t_eff_cv: its relative sd.

    Raises:
        TheraflowError: the half-life is longer than the physical one.
    """
    physical = decay_per_h(nuclide)
    rate = math.log(2.0) / t_eff_h
    if rate < physical * (1.0 - 1e-9):
        raise TheraflowError(
            f"dosimetry: t_eff_h of {t_eff_h:g} h is longer than the half-life of {nuclide.name} "
            f"({math.log(2.0) / physical:.1f} h); give the effective half-life."
        )
    growth = math.exp(rate * time_h)
    # A = a exp(l t): the two inputs a and l are independent, A and b are not.
    jacobian = np.array([[growth, activity_mbq * growth * time_h], [0.0, 1.0]])
    covariance = jacobian @ np.diag([sd_mbq**2, (rate * t_eff_cv) ** 2]) @ jacobian.T
    method = f"one time point: effective half-life of {t_eff_h:g} h from the configuration"
    biological = max(0.0, rate - physical)
    return Fit(activity_mbq * growth, biological, covariance, "mono-exponential, half-life given", method)


def physical_decay_only(time_h: float, activity_mbq: float, nuclide: Nuclide) -> Fit:
    """The curve through one point if nothing but physical decay removed the activity.

    Nothing is known of the clearance, so the curve has no sd. See `smallest_bounded_half_life_h` for what it
    bounds.
    """
    amplitude = activity_mbq * math.exp(decay_per_h(nuclide) * time_h)
    return Fit(amplitude, 0.0, None, "physical decay", "one time point: physical decay, upper bound")


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


def fit_time_integrated_activity(fit: Fit, nuclide: Nuclide) -> tuple[float, float]:
    """Time-integrated activity of a fit with `nuclide` and its sd by the covariance of the fit, in MBq h."""
    rate = fit.biological_per_h + decay_per_h(nuclide)
    value = time_integrated_activity([fit.amplitude_mbq], [rate])
    if fit.covariance is None:
        return value, math.nan
    gradient = np.array([1.0 / rate, -fit.amplitude_mbq / rate**2])
    return value, math.sqrt(float(gradient @ fit.covariance @ gradient))
