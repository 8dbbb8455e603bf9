"""Recovery curve: the part of a sphere's activity that the scanner shows inside its surface, from a site's phantom.

R(v) = 1 / (1 + (b1 / v)^b2) over the volume v, as Gear et al., Eur J Nucl Med Mol Imaging 2018;45:2456, fit it.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy

from theraflow.dosimetry.activity.partial_volume import (
    activity_sensitivity,
    equivalent_radius_mm,
    sphere_edge,
    sphere_recovery,
    volume_cv,
)
from theraflow.errors import TheraflowError

SPHERE_COLUMNS = ("volume_ml", "recovery", "sd")
# A sphere resolved better than this part of its radius is taken as sharp.
SHARPEST = 0.02


@dataclass(frozen=True)
class RecoveryCurve:
    """A recovery curve fitted to a phantom.

    Attributes:
        b1_ml: volume of which half is recovered.
        b2: steepness.
        covariance: of b1 and b2, shape (2, 2).
        smallest_ml, largest_ml: volumes of the spheres it rests on.
        source: name of the table.
    """

    b1_ml: float
    b2: float
    covariance: np.ndarray
    smallest_ml: float
    largest_ml: float
    source: str

    def recovery(self, volume_ml: float) -> float:
        """Part of the activity that is seen, 0 to 1."""
        return float(_model(volume_ml, self.b1_ml, self.b2))

    def relative_sd(self, volume_ml: float) -> float:
        """Relative sd of the recovery by that of the two parameters: one error for all scans of a region."""
        missing = 1.0 - self.recovery(volume_ml)
        gradient = -missing * np.array([self.b2 / self.b1_ml, math.log(self.b1_ml / volume_ml)])
        return math.sqrt(gradient @ self.covariance @ gradient)

    def activity_sensitivity(self, volume_ml: float) -> float:
        """Relative change of a region's activity per relative change of the volume it is measured in.

        d ln A / d ln V = edge / R - d ln R / d ln V: a surface drawn too far out takes in more activity and is
        corrected by a greater recovery (Gear et al. 2018, who take the edge's height from the scanner's resolution;
        here from the Gaussian resolution with which a sphere of this volume has this recovery).
        """
        recovery, radius = self.recovery(volume_ml), equivalent_radius_mm(volume_ml)
        slope = self.b2 * (1.0 - recovery)
        if recovery >= sphere_recovery(radius, SHARPEST * radius):
            return activity_sensitivity(volume_ml, None) - slope
        fwhm = scipy.optimize.brentq(
            lambda width: sphere_recovery(radius, width) - recovery, SHARPEST * radius, 1000.0 * radius
        )
        return sphere_edge(radius, fwhm) / recovery - slope

    @property
    def formula(self) -> str:
        """The curve in words, for tables."""
        return f"R(v) = 1/(1 + ({self.b1_ml:.3g} mL/v)^{self.b2:.3g}) of {self.source}"


def read_recovery(settings: Mapping[str, Any]) -> RecoveryCurve | None:
    """The recovery curve that the configuration asks for; None where it names none.

    Args:
        settings: section `dosimetry` of the configuration.

    Raises:
        TheraflowError: a resolution is given as well, or the phantom's table is no table of recoveries.
    """
    path = settings.get("recovery")
    if path is None:
        return None
    if settings["spect_fwhm_mm"]:
        raise TheraflowError(
            "dosimetry: spect_fwhm_mm and recovery are two corrections of one effect; leave one of them out of the "
            "configuration."
        )
    return fit_recovery(Path(path))


@functools.cache
def fit_recovery(path: Path) -> RecoveryCurve:
    """Fit the curve to a phantom: tab-separated columns volume_ml, recovery, sd, a sphere a row; # begins a remark.

    Least squares with the weights 1 / sd^2; where the spheres scatter about the curve by more than their sd, the
    covariance grows by chi2 / (N - 2).

    Raises:
        TheraflowError: the table cannot be read, or holds no three spheres to which a curve can be fitted.
    """
    spheres = _read_spheres(path)
    volume, recovery, sd = (spheres[column].to_numpy(float) for column in SPHERE_COLUMNS)
    try:
        best, covariance = scipy.optimize.curve_fit(
            _model, volume, recovery, p0=(np.median(volume), 1.0), sigma=sd, absolute_sigma=True,
            bounds=(0.0, np.inf),
        )  # fmt: skip
    except RuntimeError as error:
        raise TheraflowError(f"{path}: no recovery curve fits these spheres ({error}); check the table.") from error
    chi2 = float((((recovery - _model(volume, *best)) / sd) ** 2).sum())
    covariance = covariance * max(1.0, chi2 / (volume.size - 2))
    if not (np.isfinite(covariance).all() and (best > 0.0).all()):
        raise TheraflowError(f"{path}: these spheres do not tell how recovery falls with volume; check the table.")
    return RecoveryCurve(float(best[0]), float(best[1]), covariance, volume.min(), volume.max(), path.name)


def outline_cvs(
    kind: str, volume_ml: float, settings: Mapping[str, Any], curve: RecoveryCurve | None
) -> tuple[float, ...]:
    """Relative sd of an activity by the surface of its region, and by the parameters of the recovery curve.

    Args:
        kind: of the region; what has no surface (whole body, marrow) has neither.
        volume_ml: in which the activity was measured.
        settings: section `dosimetry` of the configuration.
        curve: by which the activity was corrected.
    """
    if kind not in settings["boundary_sd_mm"]:
        return ()
    surface = volume_cv(volume_ml, settings["boundary_sd_mm"][kind])
    if curve is None:
        return (activity_sensitivity(volume_ml, settings["spect_fwhm_mm"]) * surface,)
    return curve.activity_sensitivity(volume_ml) * surface, curve.relative_sd(volume_ml)


def _model(volume_ml: np.ndarray | float, b1_ml: float, b2: float) -> np.ndarray:
    return 1.0 / (1.0 + (b1_ml / np.asarray(volume_ml, float)) ** b2)


def _read_spheres(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", comment="#")
    except (OSError, ValueError) as error:
        raise TheraflowError(f"dosimetry: recovery: {path} cannot be read as a table ({error}).") from error
    missing = [column for column in SPHERE_COLUMNS if column not in table]
    if missing:
        raise TheraflowError(
            f"{path} has no column {', '.join(missing)}; tables of recovery have {', '.join(SPHERE_COLUMNS)}."
        )
    numbers = table[list(SPHERE_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    bad = ~(np.isfinite(numbers) & (numbers > 0)).all(axis=1)
    if bad.any():
        raise TheraflowError(
            f"{path}: row {int(np.flatnonzero(bad)[0]) + 1} has no volume, recovery or sd above 0; sd is that of the "
            "recovery."
        )
    if numbers["volume_ml"].nunique() < 3:
        raise TheraflowError(
            f"{path} has spheres of {numbers['volume_ml'].nunique()} volumes; a curve of two parameters and its "
            "uncertainty need three."
        )
    return numbers
