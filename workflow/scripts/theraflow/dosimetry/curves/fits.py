"""Curves fitted to measured activities: which model, how sure, and when there is none.

Each model is a sum of exponentials with the physical decay inside it. What is fitted are amplitudes and
biological rates, none below 0, by least squares weighted with the part of the uncertainty that is independent
between the points; what the points share (calibration, region) changes no shape and is propagated elsewhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy

from theraflow.dosimetry.curves.kinetics import Curve, decay_per_h
from theraflow.errors import TheraflowError
from theraflow.nuclides import Nuclide

LARGEST_CV = 0.5
LARGEST_CORRELATION = 0.8
TIE = 2.0  # Akaike differences below this are no reason to prefer a model
# The covariance is enlarged where the points scatter more than their sd, at this probability of chance.
SCATTER_P = 0.05
# A biological rate below 0 by more of its sd than this is a curve that rises, not noise.
RISING_SD = 3.0
FASTEST_PER_H = 20.0


class FitRefused(TheraflowError):
    """No curve of the model set describes these points."""


@dataclass(frozen=True, eq=False)
class Model:
    """A sum of exponentials whose amplitudes and rates are linear in the parameters.

    Attributes:
        name: for the table and the configuration.
        parameters: what the parameters are called; the first is an amplitude.
        amplitudes: row i gives A_i from the parameters.
        rates: row i gives b_i; the first is the slowest.
        named: row i gives the parameter that a reader knows (rates in place of their differences).
        starts: values of the last parameter, a difference of rates in 1/h, from which to search.
    """

    name: str
    parameters: tuple[str, ...]
    amplitudes: np.ndarray
    rates: np.ndarray
    named: np.ndarray
    starts: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)


def _model(name: str, parameters: str, amplitudes, rates, named, starts=()) -> Model:
    matrices = (np.array(matrix, dtype=float) for matrix in (amplitudes, rates, named))
    return Model(name, tuple(parameters.split()), *matrices, starts)


PHYSICAL = _model("physical decay", "A", [[1]], [[0]], [[1]])
MONO = _model("mono-exponential", "A b", [[1, 0]], [[0, 1]], np.eye(2))
# A (exp(-(b1 + p) t) - exp(-(b2 + p) t)), b2 = b1 + the third parameter
UPTAKE = _model(
    "uptake and clearance", "A b1 b2", [[1, 0, 0], [-1, 0, 0]], [[0, 1, 0], [0, 1, 1]],
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]], (0.05, 0.3, 1.5),
)  # fmt: skip
BI = _model(
    "bi-exponential", "A1 b1 A2 b2", [[1, 0, 0, 0], [0, 0, 1, 0]], [[0, 1, 0, 0], [0, 1, 0, 1]],
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]], (0.02, 0.1, 0.5),
)  # fmt: skip
MODELS = {model.name: model for model in (PHYSICAL, MONO, UPTAKE, BI)}
# Physical decay alone, the border of the mono-exponential model, is taken only where asked for: with four points and
# 10 % noise AICc prefers it to a true half-life of 109 h, which makes 177Lu 12 % too high and its 95 % interval
# cover 56 %, in place of 97 % without it.
AUTOMATIC = (MONO, UPTAKE, BI)


@dataclass(frozen=True)
class Noise:
    """Sd of a point that is independent of the other points: a part of the true activity, and a constant.

    The part is taken of the fitted curve and not of the measured value, which would give low values too much
    weight.
    """

    relative: np.ndarray
    absolute_mbq: np.ndarray

    def sd_mbq(self, activity_mbq: np.ndarray) -> np.ndarray:
        """Sd of points with this activity."""
        return np.hypot(self.relative * activity_mbq, self.absolute_mbq)


@dataclass(frozen=True)
class HalfLife:
    """A half-life known from elsewhere: a log-normal prior.

    Attributes:
        hours: median; effective, with the measured nuclide.
        cv: relative sd.
        source: for the table.
    """

    hours: float
    cv: float
    source: str


@dataclass(frozen=True)
class Fit:
    """One model fitted to the points of one region.

    Attributes:
        model: which.
        parameters: of the model, amplitudes in MBq, rates in 1/h.
        covariance: of the parameters, without what is common to all points.
        points: number of points.
        scatter: sd of the residuals in units of the stated sd; NaN without a degree of freedom.
        enlarged: whether the covariance is multiplied by its square.
        aicc: corrected Akaike criterion; infinite where it is not defined.
    """

    model: Model
    parameters: np.ndarray
    covariance: np.ndarray
    points: int
    scatter: float
    enlarged: bool
    aicc: float

    @property
    def curve(self) -> Curve:
        """The fitted curve."""
        return Curve(tuple(self.model.amplitudes @ self.parameters), tuple(self.model.rates @ self.parameters))

    @property
    def at_border(self) -> bool:
        """Whether no biological clearance was seen: the slowest rate is 0."""
        return self.model is not PHYSICAL and float(self.model.rates[0] @ self.parameters) < 1e-6

    def time_integrated_activity(self, nuclide: Nuclide) -> tuple[float, float]:
        """Time-integrated activity with `nuclide` and its sd by the covariance, in MBq h."""
        amplitudes, rates = self.model.amplitudes @ self.parameters, self.curve.rates_per_h(nuclide)
        gradient = (1.0 / rates) @ self.model.amplitudes - (amplitudes / rates**2) @ self.model.rates
        return float(np.sum(amplitudes / rates)), math.sqrt(max(0.0, float(gradient @ self.covariance @ gradient)))

    def activity_sd_mbq(self, time_h: np.ndarray, nuclide: Nuclide) -> np.ndarray:
        """Sd of the fitted activity at these times by the covariance."""
        amplitudes, rates = self.model.amplitudes @ self.parameters, self.curve.rates_per_h(nuclide)
        decay = np.exp(-np.multiply.outer(time_h, rates))
        gradient = decay @ self.model.amplitudes - time_h[:, None] * ((decay * amplitudes) @ self.model.rates)
        variance = np.einsum("ti,ij,tj->t", gradient, self.covariance, gradient)
        return np.sqrt(np.maximum(variance, 0.0))

    def uncertain(self) -> list[str]:
        """Parameters with a relative sd of 50 % or more."""
        values, sd = self.model.named @ self.parameters, np.sqrt(np.diag(self._named_covariance()))
        found = []
        for name, value, deviation in zip(self.model.parameters, values, sd, strict=True):
            if name[0] == "b" and value < 1e-6:
                continue
            cv = deviation / abs(value) if value else math.inf
            if not cv < LARGEST_CV:
                found.append(f"CV of {name} {100 * cv:.0f} %" if cv < 100 else f"{name} undetermined")
        return found

    def correlated(self) -> list[str]:
        """Pairs of parameters with a correlation of 0.8 or more."""
        covariance = self._named_covariance()
        sd = np.sqrt(np.diag(covariance))
        found = []
        for i in range(self.model.size):
            for j in range(i):
                product = sd[i] * sd[j]
                value = covariance[i, j] / product if product > 0 else 0.0
                if abs(value) >= LARGEST_CORRELATION:
                    names = f"{self.model.parameters[j]} and {self.model.parameters[i]}"
                    found.append(f"correlation of {names} {value:.2f}")
        return found

    def remarks(self) -> list[str]:
        """The quality gates that this fit does not pass."""
        found = ["clearance at its border, 0"] if self.at_border else []
        if self.enlarged:
            found.append(f"points scatter {self.scatter:.1f} times their sd, which is enlarged by that")
        return found + self.uncertain() + self.correlated()

    def _named_covariance(self) -> np.ndarray:
        return self.model.named @ self.covariance @ self.model.named.T


@dataclass(frozen=True)
class Estimate:
    """The curve of a region: one fit, or the mean of several that tie.

    Attributes:
        fits: each with its weight; the first is the best.
        assumed: what was assumed, for the table.
        prior_used: whether a half-life known from elsewhere had a part in the clearance.
    """

    fits: tuple[tuple[float, Fit], ...]
    assumed: tuple[str, ...] = field(default=())
    prior_used: bool = False

    @property
    def model(self) -> str:
        """For the table."""
        return " + ".join(fit.model.name for _, fit in self.fits)

    @property
    def curve(self) -> Curve:
        """The weighted sum of the curves."""
        curves = [(weight, fit.curve) for weight, fit in self.fits]
        return Curve(
            tuple(weight * a for weight, curve in curves for a in curve.amplitudes_mbq),
            tuple(b for _, curve in curves for b in curve.biological_per_h),
        )

    def half_life_h(self, nuclide: Nuclide) -> float:
        """Effective half-life of the late curve of the best model."""
        return self.fits[0][1].curve.half_life_h(nuclide)

    def time_integrated_activity(self, nuclide: Nuclide) -> tuple[float, float]:
        """Weighted mean of the fits in MBq h; its sd holds their covariance and how far they lie apart."""
        values = [(weight, *fit.time_integrated_activity(nuclide)) for weight, fit in self.fits]
        mean = sum(weight * value for weight, value, _ in values)
        return mean, math.sqrt(sum(weight * (sd**2 + (value - mean) ** 2) for weight, value, sd in values))

    def activity_sd_mbq(self, time_h: np.ndarray, nuclide: Nuclide) -> np.ndarray:
        """Sd of the activity at these times: the covariance of the fits and how far they lie apart."""
        mean = self.curve.activity_mbq(time_h, nuclide)
        variance = sum(
            weight * (fit.activity_sd_mbq(time_h, nuclide) ** 2 + (fit.curve.activity_mbq(time_h, nuclide) - mean) ** 2)
            for weight, fit in self.fits
        )
        return np.sqrt(variance)

    def method(self, wanted: Nuclide) -> str:
        """How the curve was found, for the table."""
        best = self.fits[0][1]
        parts = [f"weighted fit of {best.points} points", *self.assumed]
        if len(self.fits) > 1:
            weights = ", ".join(f"{fit.model.name} {weight:.2f}" for weight, fit in self.fits)
            parts.append(f"mean of models that tie ({weights})")
        if best.at_border:
            parts.append("no biological clearance seen")
        return "; ".join(parts)

    @property
    def quality(self) -> str:
        """`good`, or the quality gates that the best fit does not pass."""
        return "; ".join(self.fits[0][1].remarks()) or "good"


def fit_curve(
    time_h: Sequence[float],
    activity_mbq: Sequence[float],
    noise: Noise,
    nuclide: Nuclide,
    *,
    model: str | None = None,
    clearance: HalfLife | None = None,
    uptake: HalfLife | None = None,
) -> Estimate:
    """The curve through measured activities.

    The model is the one asked for; uptake and clearance where the uptake is known from elsewhere; else it is
    chosen by AICc among those for which that is defined (points > parameters + 1). Models that are no worse by 2
    are averaged with Akaike weights. A model of more than two parameters of which one is uncertain by half or
    more is no candidate. With two or three points, too few for AICc, the half-life known from elsewhere is a prior.

    Args:
        time_h: times after injection.
        activity_mbq: activity at these times (not decay-corrected).
        noise: sd of the points that is independent between them.
        nuclide: the measured nuclide.
        model: name of the model, where it shall not be chosen.
        clearance: effective half-life of the late curve known from elsewhere.
        uptake: effective half-life of the uptake known from elsewhere, a prior. Scans that begin after the uptake
            cannot show it, and a curve without it is too high from the injection on.

    Raises:
        TheraflowError: a time or activity that is missing, an unknown model.
        FitRefused: more parameters than points, no activity, or a curve that rises.
    """
    time, activity = np.asarray(time_h, dtype=float), np.asarray(activity_mbq, dtype=float)
    if time.shape != activity.shape or not (np.isfinite(time).all() and np.isfinite(activity).all()):
        raise TheraflowError("a time or an activity of the curve is missing.")
    if time.size and time.min() < 0:
        raise TheraflowError(f"a time of the curve lies before the injection ({time.min():g} h).")
    if not time.size or not activity.max() > 0:
        raise FitRefused("no activity above zero was measured")
    if model is not None and model not in MODELS:
        raise TheraflowError(f"{model} is no model of a curve; take one of {', '.join(MODELS)}.")
    distinct, assumed = np.unique(time).size, []
    if clearance and not (model is None and distinct < 4):
        clearance = None
    if clearance:
        assumed.append(f"with the prior of an effective half-life of {clearance.hours:g} h from {clearance.source}")

    def fitted(one: Model) -> Fit:
        return fit_model(one, time, activity, noise, nuclide, clearance, uptake)

    if model is not None:
        chosen = [(1.0, fitted(MODELS[model]))]
        assumed.append("model given by the configuration")
    elif uptake:
        chosen = [(1.0, fitted(UPTAKE))]
    else:
        chosen = _choose([fitted(one) for one in AUTOMATIC if one is MONO or distinct > one.size + 1])
    if uptake and chosen[0][1].model is UPTAKE:
        assumed.append(f"with the prior of an uptake half-life of {uptake.hours:g} h from {uptake.source}")
    if chosen[0][1].model is MONO and chosen[0][1].at_border:
        _refuse_rising(time, activity, noise, nuclide)
    return Estimate(tuple(chosen), tuple(assumed), clearance is not None)


def fit_model(
    model: Model,
    time_h: np.ndarray,
    activity_mbq: np.ndarray,
    noise: Noise,
    nuclide: Nuclide,
    clearance: HalfLife | None = None,
    uptake: HalfLife | None = None,
    slowest_per_h: float = 0.0,
) -> Fit:
    """Weighted least squares of one model.

    Args:
        model: which.
        time_h: times after injection.
        activity_mbq: activity at these times, at least one above 0.
        noise: sd of the points.
        nuclide: the measured nuclide.
        clearance: prior of the effective half-life of the slowest exponential.
        uptake: prior of the effective half-life of uptake; other models do not use it.
        slowest_per_h: lower border of the slowest biological rate.

    Raises:
        FitRefused: more parameters than points, or no fit.
    """
    physical, scale = decay_per_h(nuclide), float(np.max(activity_mbq))
    priors = [(0, clearance)] if clearance and model is not PHYSICAL else []
    priors += [(1, uptake)] if uptake and model is UPTAKE else []
    for _, prior in priors:
        check_half_life(prior, nuclide)
    distinct = np.unique(time_h).size
    if model.size > distinct + len(priors):
        raise FitRefused(f"{model.name} has more parameters ({model.size}) than there are points ({distinct})")
    measured = activity_mbq / scale
    absolute = Noise(noise.relative, noise.absolute_mbq / scale)

    def parts(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        amplitudes, rates = model.amplitudes @ parameters, model.rates @ parameters + physical
        decay = np.exp(-np.outer(time_h, rates))
        jacobian = decay @ model.amplitudes - time_h[:, None] * ((decay * amplitudes) @ model.rates)
        return decay @ amplitudes, jacobian, rates

    def solve(start: np.ndarray, sd: np.ndarray) -> scipy.optimize.OptimizeResult:
        def residual(parameters: np.ndarray) -> np.ndarray:
            value, _, rates = parts(parameters)
            known = [math.log(rates[i] * prior.hours / math.log(2.0)) / prior.cv for i, prior in priors]
            return np.concatenate([(value - measured) / sd, known])

        def slope(parameters: np.ndarray) -> np.ndarray:
            _, jacobian, rates = parts(parameters)
            return np.vstack([jacobian / sd[:, None], *(model.rates[i] / rates[i] / prior.cv for i, prior in priors)])

        low, high = _borders(model, slowest_per_h)
        start = np.clip(start, low + 1e-9 * np.isfinite(low), high)
        size = np.maximum(np.abs(start), 1e-3)
        return scipy.optimize.least_squares(residual, start, slope, (low, high), x_scale=size, max_nfev=500)

    best = None
    for start in _starts(model, time_h, measured, physical, clearance, slowest_per_h):
        # A first fit with the sd of the measured values; then that of the curve, until it stays.
        sd = absolute.sd_mbq(np.maximum(measured, 0.1 * measured.max()))
        for _ in range(8):
            result = solve(start, sd)
            next_sd = absolute.sd_mbq(np.maximum(parts(result.x)[0], 1e-3))
            settled = np.allclose(next_sd, sd, rtol=1e-4)
            start, sd = result.x, next_sd
            if settled:
                break
        twice_nll = 2.0 * result.cost + 2.0 * float(np.log(sd).sum())
        if np.isfinite(twice_nll) and (best is None or twice_nll < best[0] - 1e-9):
            best = twice_nll, result
    if best is None or not (model.amplitudes @ best[1].x)[0] > 0:
        raise FitRefused(f"no {model.name} curve fits the activities {np.array2string(activity_mbq, precision=4)} MBq")
    twice_nll, result = best
    parameters = result.x.copy()
    slowest = model.rates[0] @ parameters
    if model is not PHYSICAL and slowest_per_h == 0.0 and slowest < 1e-6:
        parameters = parameters - np.linalg.pinv(model.rates[:1]) @ np.array([slowest])
    covariance = _inverse(result.jac.T @ result.jac)
    rows = time_h.size + len(priors)
    freedom, chi2 = rows - model.size, 2.0 * result.cost
    enlarged = freedom > 0 and chi2 > scipy.special.chdtri(freedom, SCATTER_P)
    scatter = math.sqrt(chi2 / freedom) if freedom > 0 else math.nan
    unit = np.where(np.abs(model.amplitudes).max(axis=0) > 0, scale, 1.0)
    aicc = math.inf
    if rows > model.size + 1:
        aicc = twice_nll + 2.0 * model.size * rows / (rows - model.size - 1)
    covariance = covariance * np.outer(unit, unit) * (scatter**2 if enlarged else 1.0)
    return Fit(model, parameters * unit, covariance, time_h.size, scatter, enlarged, aicc)


def _inverse(information: np.ndarray) -> np.ndarray:
    """Inverse of a Fisher matrix; directions that the points do not determine get a huge variance, never none."""
    size = np.sqrt(np.diag(information))
    size = np.maximum(size, 1e-12 * size.max())
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    return (vectors / np.maximum(values, 1e-14)) @ vectors.T / np.outer(size, size)


def check_half_life(known: HalfLife, nuclide: Nuclide) -> None:
    """Refuse a half-life that cannot be.

    Raises:
        TheraflowError: it is longer than that of physical decay.
    """
    longest = math.log(2.0) / decay_per_h(nuclide)
    if known.hours > longest * (1.0 + 1e-9):
        raise TheraflowError(
            f"dosimetry: an effective half-life of {known.hours:g} h ({known.source}) is longer than the half-life of "
            f"{nuclide.name} ({longest:.1f} h); give the effective half-life."
        )


def _choose(fits: Sequence[Fit]) -> list[tuple[float, Fit]]:
    candidates = [fit for fit in fits if fit.model is MONO or not fit.uncertain()]
    best = min(candidates, key=lambda fit: fit.aicc)
    if not math.isfinite(best.aicc):
        return [(1.0, candidates[0])]
    tied = sorted((fit for fit in candidates if fit.aicc - best.aicc < TIE), key=lambda fit: fit.aicc)
    weights = np.exp([-0.5 * (fit.aicc - best.aicc) for fit in tied])
    return list(zip((weights / weights.sum()).tolist(), tied, strict=True))


def _refuse_rising(time_h: np.ndarray, activity_mbq: np.ndarray, noise: Noise, nuclide: Nuclide) -> None:
    if np.unique(time_h).size < 2:
        return
    free = fit_model(MONO, time_h, activity_mbq, noise, nuclide, slowest_per_h=-1.0)
    rate, sd = free.parameters[1], math.sqrt(free.covariance[1, 1])
    if rate < -RISING_SD * sd:
        raise FitRefused(
            f"the curve rises: its biological rate is below zero ({rate:.4f} +- {sd:.4f} 1/h), so that its integral "
            "is not known; a later scan is needed"
        )


def _borders(model: Model, slowest_per_h: float) -> tuple[np.ndarray, np.ndarray]:
    rate = np.abs(model.amplitudes).max(axis=0) == 0
    low, high = np.zeros(model.size), np.where(rate, FASTEST_PER_H, np.inf)
    low[(model.rates[0] != 0) & rate] = slowest_per_h
    return low, high


def _starts(
    model: Model,
    time_h: np.ndarray,
    measured: np.ndarray,
    physical: float,
    clearance: HalfLife | None,
    slowest_per_h: float,
) -> list[np.ndarray]:
    late = measured > 0.02
    if model.size > 2:
        late &= time_h >= min(time_h[np.argmax(measured)], np.sort(time_h)[-2])
    rate = 0.01
    if clearance:
        rate = max(1e-4, math.log(2.0) / clearance.hours - physical)
    elif np.unique(time_h[late]).size > 1:
        slope = -np.polyfit(time_h[late], np.log(measured[late]), 1)[0]
        rate = max(1e-4 if slowest_per_h >= 0.0 else slowest_per_h, slope - physical)
    first = float(np.median(measured[late] * np.exp((rate + physical) * time_h[late])))
    if model is PHYSICAL:
        return [np.array([first])]
    if model is MONO:
        return [np.array([first, rate])]
    if model is UPTAKE:
        return [np.array([first, rate, difference]) for difference in model.starts]
    return [np.array([0.5 * first, 0.7 * rate, 0.5 * first, difference]) for difference in model.starts]
