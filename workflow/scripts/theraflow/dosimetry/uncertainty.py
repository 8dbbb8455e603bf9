"""Uncertainty of a dose coefficient to first order: which part comes from where.

After Gear et al., Eur J Nucl Med Mol Imaging 2018;45:2456. Points that scatter by themselves go into the
fit; what they share scales or bends the result as a whole and is kept apart: calibration, position of the region's
surface (which acts on activity and mass in opposite ways), resolution used for the recovery, S value. An uptake before
the first scan that nobody has seen has a term of its own. `theraflow.dosimetry.draws` does the same by drawing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from theraflow.dosimetry.activity.marrow import IMAGE
from theraflow.dosimetry.activity.partial_volume import (
    activity_sensitivity,
    equivalent_radius_mm,
    sphere_recovery,
    volume_cv,
)
from theraflow.dosimetry.activity.recovery import read_recovery
from theraflow.dosimetry.contract import NORMAL_95
from theraflow.dosimetry.curves.kinetics import Curve, with_uptake
from theraflow.dosimetry.s_values.spheres import sphere_self_dose
from theraflow.nuclides import Nuclide

# Where the configuration has no `s_value_cv`: how far computed sphere and published organ S values lie apart.
S_VALUE_CV = 0.02
STEP = 1e-3
UPTAKE_STEPS = 50
NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Budget:
    """Independent parts of the relative variance of one number.

    Attributes:
        terms: relative sd by cause.
    """

    terms: Mapping[str, float]

    @property
    def relative_sd(self) -> float:
        """Relative sd of the number."""
        return math.sqrt(sum(sd**2 for sd in self.terms.values()))

    def share(self, term: str) -> float:
        """Part of the variance that a cause has."""
        return self.terms[term] ** 2 / self.relative_sd**2 if self.relative_sd else math.nan

    def interval_95(self, value: float) -> tuple[float, float]:
        """95 % interval of a number above 0: normal for its logarithm, so that it does not reach 0."""
        factor = math.exp(NORMAL_95 * self.relative_sd)
        return value / factor, value * factor


def dose_budget(
    fit_relative_sd: float,
    kind: str,
    volume_ml: float,
    density: float,
    wanted: Nuclide,
    settings: Mapping[str, Any],
    uptake: float = 0.0,
    scans: Mapping[str, float] = NOTHING,
    *,
    conjugate: bool = False,
) -> Budget:
    """The parts of a region's dose coefficient.

    Args:
        fit_relative_sd: of the time-integrated activity, by what is independent between the scans.
        kind: `organ` or `lesion`.
        volume_ml: of the region.
        density: g/mL.
        wanted: nuclide of the coefficient.
        settings: section `dosimetry` of the configuration.
        uptake: relative sd by an uptake that no scan has seen, see `uptake_relative_sd`.
        scans: by term, relative sd that the points share beyond calibration, surface and recovery: of the scale of
            planar views (`planar`), of what the field of view cuts off (`cut`).
        conjugate: whether the activity was measured in planar views alone: no surface has gone into it and no recovery,
            but the surface into the mass.
    """
    curve = None if conjugate else read_recovery(settings)
    width, width_sd = None if conjugate else settings["spect_fwhm_mm"], settings.get("spect_fwhm_sd_mm")
    surface = surface_sensitivity(volume_ml, density, wanted, width, settings.get("s_values"))
    if conjugate:
        surface -= activity_sensitivity(volume_ml, None)
    if curve is not None:
        surface += curve.activity_sensitivity(volume_ml) - activity_sensitivity(volume_ml, None)
    terms = {"fit": fit_relative_sd}
    if uptake > 0:
        terms["uptake"] = uptake
    terms |= {
        **scans,
        "calibration": settings["calibration_cv"],
        "surface": abs(surface) * volume_cv(volume_ml, settings["boundary_sd_mm"][kind]),
    }
    if width and width_sd:
        terms["recovery"] = abs(recovery_sensitivity(volume_ml, width)) * width_sd / width
    if curve is not None:
        terms["recovery"] = curve.relative_sd(volume_ml)
    terms["s_value"] = settings.get("s_value_cv", S_VALUE_CV)
    return Budget(terms)


def marrow_budget(fit_relative_sd: float, region: str, settings: Mapping[str, Any], uptake: float = 0.0) -> Budget:
    """The parts of the red marrow's dose coefficient that are known.

    Neither the ratio of marrow to blood nor the part of the electrons' energy that stays in the marrow has a known sd:
    they are not in here, and without `absorbed_fraction` the dose is an upper bound. The mass cancels.

    Args:
        fit_relative_sd: of the time-integrated activity, by what is independent between the points.
        region: `red_marrow` or `red_marrow_blood`.
        settings: section `dosimetry` of the configuration.
        uptake: relative sd by an uptake that no scan has seen, see `uptake_relative_sd`.
    """
    terms = {"fit": fit_relative_sd}
    if uptake > 0:
        terms["uptake"] = uptake
    if region == IMAGE:
        marrow = settings["marrow"]
        terms |= {
            "calibration": settings["calibration_cv"],
            "red_marrow_fraction": marrow["red_marrow_fraction_sd"] / marrow["red_marrow_fraction"],
        }
    return Budget(terms)


def surface_sensitivity(
    volume_ml: float, density: float, wanted: Nuclide, fwhm_mm: float | None, table: str | None = None
) -> float:
    """Relative change of a dose per relative change of the volume that the region is drawn with."""
    mass = volume_ml * density
    larger, smaller = (
        sphere_self_dose(wanted.name, mass * math.exp(s), density, table).gy_per_bq_s for s in (STEP, -STEP)
    )
    return activity_sensitivity(volume_ml, fwhm_mm) + math.log(larger / smaller) / (2.0 * STEP)


def recovery_sensitivity(volume_ml: float, fwhm_mm: float) -> float:
    """Relative change of an activity per relative change of the resolution, for a sphere in cold surroundings."""
    radius = equivalent_radius_mm(volume_ml)
    wider, narrower = (sphere_recovery(radius, fwhm_mm * math.exp(s)) for s in (STEP, -STEP))
    return -math.log(wider / narrower) / (2.0 * STEP)


def uptake_relative_sd(curve: Curve, unseen_h: float, measured: Nuclide, wanted: Nuclide) -> float:
    """By how much a curve drawn from the injection on is too high, for an uptake that no scan has seen.

    The half-life of the uptake may be anything up to a longest one, all alike. The error has one sign; its root mean
    square is taken as an sd, which covers 1.13 times the greatest error.

    Args:
        curve: without uptake.
        unseen_h: the longest half-life of an uptake that could have gone unseen, with the measured nuclide; 0 for none.
        measured: nuclide of the scans.
        wanted: nuclide of the time-integrated activity.
    """
    if not unseen_h > 0:
        return 0.0
    hours = unseen_h * (np.arange(UPTAKE_STEPS) + 0.5) / UPTAKE_STEPS
    value = curve.time_integrated_activity(wanted)
    low = np.array([with_uptake(curve, one, measured).time_integrated_activity(wanted) for one in hours])
    return math.sqrt(float(np.mean((1.0 - low / value) ** 2)))
