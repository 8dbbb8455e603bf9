"""Monte Carlo mode: every input of a dose coefficient is drawn anew, and every curve is fitted anew.

What `theraflow.dosimetry.uncertainty` propagates to first order is done here in full. The fitted curve is the truth of
the draws (a parametric bootstrap); a half-life known from elsewhere is one more measurement and is drawn like one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theraflow.dosimetry.activity.partial_volume import (
    activity_sensitivity,
    equivalent_radius_mm,
    sphere_recovery,
    volume_cv,
)
from theraflow.dosimetry.curves.choice import RegionCurve
from theraflow.dosimetry.curves.fits import Estimate, Fit, FitRefused, HalfLife, fit_model
from theraflow.dosimetry.curves.kinetics import decay_per_h, with_uptake
from theraflow.dosimetry.uncertainty import S_VALUE_CV, surface_sensitivity
from theraflow.nuclides import Nuclide

LARGEST_DRAW = 4.0  # in sd
# Nodes in units of an sd between which the effect of a drawn surface or resolution is interpolated.
NODES = np.linspace(-LARGEST_DRAW, LARGEST_DRAW, 17)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a number may truly be, by draws.

    Attributes:
        relative: true value over estimate, one a draw.
    """

    relative: np.ndarray

    @property
    def relative_sd(self) -> float:
        """Root mean square of the relative deviation, a bias included."""
        return math.sqrt(float(np.mean((self.relative - 1.0) ** 2)))

    def interval_95(self, value: float) -> tuple[float, float]:
        """The true values that 95 % of the draws have around an estimate."""
        low, high = np.quantile(self.relative, (0.025, 0.975))
        return value * float(low), value * float(high)


def draw_coefficients(
    region: RegionCurve,
    measured: Nuclide,
    wanted: Sequence[Nuclide],
    kind: str,
    volume_ml: float,
    density: float,
    settings: Mapping[str, Any],
    seed: str,
    draws: int,
) -> dict[Nuclide, Drawn]:
    """The dose coefficients of a region by draws.

    Drawn are: the noise of each scan (as large as the points scatter, where the fit is enlarged by that), the half-life
    of an uptake that no scan has seen, half-lives known from elsewhere, one calibration, one shift of the surface with
    its effect on activity, mass and S value, one resolution, one error of the S value. Models are not chosen anew: a
    draw's truth is one of those that tie, with its weight. Normal draws end at four sd.

    Args:
        region: curve of the region; its estimate is an `Estimate`.
        measured: nuclide of the scans.
        wanted: nuclides of the coefficients.
        kind: `organ` or `lesion`.
        volume_ml: of the region.
        density: g/mL.
        settings: section `dosimetry` of the configuration.
        seed: any text; the same one gives the same draws.
        draws: number of draws.

    Raises:
        TheraflowError: there is no S value for the region.
    """
    fwhm, table = settings["spect_fwhm_mm"], settings.get("s_values")
    here = activity_sensitivity(volume_ml, fwhm)
    # S changes with the mass to a power that stays the same over a shift of the surface.
    powers = {one: surface_sensitivity(volume_ml, density, one, fwhm, table) - here for one in wanted}
    random = np.random.default_rng(list(seed.encode()))
    curves = draw_integrals(region, measured, wanted, random, draws)
    growth, factor = _draw_shared(kind, volume_ml, settings, random, len(curves[wanted[0]]))
    return {one: Drawn(1.0 / (curves[one] * factor * growth ** powers[one])) for one in wanted}


def draw_integrals(
    region: RegionCurve, measured: Nuclide, wanted: Sequence[Nuclide], random: np.random.Generator, draws: int
) -> dict[Nuclide, np.ndarray]:
    """Fitted over true time-integrated activity, one a draw; draws that no curve fits are left out."""
    estimate = region.estimate
    if not isinstance(estimate, Estimate):
        raise TypeError(f"draws need a fitted curve, not {type(estimate).__name__}")
    weights = np.array([weight for weight, _ in estimate.fits])
    ratios = {one: [] for one in wanted}
    for _ in range(draws):
        fit = estimate.fits[random.choice(len(weights), p=weights / weights.sum())][1]
        true, scatter = fit.curve, fit.scatter if fit.enlarged else 1.0
        uptake_h = region.unseen_uptake_h * random.random()
        late = true
        if uptake_h > 0:
            true = with_uptake(true, uptake_h, measured)
        activity = true.activity_mbq(region.time_h, measured)
        seen = activity + scatter * region.noise.sd_mbq(activity) * _normal(random, activity.size)
        clearance = _redrawn(region.clearance, late.biological_per_h[0], measured, random)
        uptake = _redrawn(region.uptake, late.biological_per_h[-1], measured, random)
        try:
            refits = [
                (weight, fit_model(one.model, region.time_h, seen, region.noise, measured, clearance, uptake))
                for weight, one in estimate.fits
            ]
        except FitRefused:
            continue
        for one in wanted:
            ratios[one].append(_mean_integral(refits, one) / true.time_integrated_activity(one))
    return {one: np.array(values) for one, values in ratios.items()}


def _mean_integral(fits: Sequence[tuple[float, Fit]], wanted: Nuclide) -> float:
    return sum(weight * fit.time_integrated_activity(wanted)[0] for weight, fit in fits)


def _redrawn(
    known: HalfLife | None, biological_per_h: float, measured: Nuclide, random: np.random.Generator
) -> HalfLife | None:
    """A half-life known from elsewhere as it might have been found around the truth, no longer than physical decay."""
    if known is None:
        return None
    physical = decay_per_h(measured)
    rate = (biological_per_h + physical) * math.exp(known.cv * float(_normal(random)))
    return HalfLife(math.log(2.0) / max(rate, physical), known.cv, known.source)


def _normal(random: np.random.Generator, size: int | None = None) -> np.ndarray:
    return np.clip(random.standard_normal(size), -LARGEST_DRAW, LARGEST_DRAW)


def _draw_shared(
    kind: str, volume_ml: float, settings: Mapping[str, Any], random: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drawn over true volume, and estimated over true dose by what all scans share but the S value of that volume.

    Each draw has one of each, the same for all nuclides.
    """
    calibration, surface, resolution, s_value = (_normal(random, draws) for _ in range(4))
    fwhm, fwhm_sd = settings["spect_fwhm_mm"], settings.get("spect_fwhm_sd_mm")
    nodes = np.exp(volume_cv(volume_ml, settings["boundary_sd_mm"][kind]) * NODES)
    here = activity_sensitivity(volume_ml, fwhm)
    # The activity changes with the volume to the power of its sensitivity, of which the mean over the way is taken.
    activities = [grown ** (0.5 * (here + activity_sensitivity(volume_ml * grown, fwhm))) for grown in nodes]
    factor = np.exp(settings["calibration_cv"] * calibration + settings.get("s_value_cv", S_VALUE_CV) * s_value)
    factor *= np.interp(surface, NODES, activities)
    if fwhm and fwhm_sd:
        radius = equivalent_radius_mm(volume_ml)
        recoveries = [sphere_recovery(radius, max(0.1 * fwhm, fwhm + fwhm_sd * node)) for node in NODES]
        factor *= sphere_recovery(radius, fwhm) / np.interp(resolution, NODES, recoveries)
    return np.interp(surface, NODES, nodes), factor
