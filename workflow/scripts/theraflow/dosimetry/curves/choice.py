"""Which curve a region gets: the noise of its points, what is known from elsewhere, and what no scan has seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from theraflow.dosimetry.curves.fits import Estimate, FitRefused, HalfLife, Noise, fit_curve
from theraflow.dosimetry.curves.kinetics import relabelled
from theraflow.dosimetry.curves.single_time_point import Haenscheid, KnownHalfLife, Measurement, PhysicalDecay
from theraflow.dosimetry.s_values.spheres import resource
from theraflow.errors import TheraflowError
from theraflow.nuclides import Nuclide, nuclide

# No point is known better than this part of the highest one, whatever its relative sd says.
SMALLEST_SD = 0.005
# Of an uptake half-life that the configuration gives.
UPTAKE_CV = 0.5
# A first point that lies below the late curve by more of its sd than this shows that the uptake goes on.
SEEN_SD = 2.0
# An uptake that nobody has seen is taken to be at least twice as fast as the clearance.
LONGEST_UPTAKE = 0.5

AnyEstimate = Estimate | KnownHalfLife | Haenscheid | PhysicalDecay


@dataclass(frozen=True, eq=False)
class RegionCurve:
    """The curve of a region, and what it was made of.

    Attributes:
        estimate: the curve, or what stands for it with one time point.
        time_h: times of the points.
        noise: their sd by what is independent between them.
        clearance, uptake: half-lives known from elsewhere that had a part in a fit.
        unseen_uptake_h: the longest half-life that an uptake may have had before the first scan without being seen;
            0 where the curve has its uptake, or no uptake is to be expected.
    """

    estimate: AnyEstimate
    time_h: np.ndarray
    noise: Noise
    clearance: HalfLife | None
    uptake: HalfLife | None
    unseen_uptake_h: float

    def method(self, wanted: Nuclide) -> str:
        """How the curve was found, for the table."""
        told = self.estimate.method(wanted)
        return f"{told}; uptake before the first scan not seen" if self.unseen_uptake_h > 0 else told


def curve_of_region(
    points: pd.DataFrame, measured: Nuclide, settings: Mapping[str, Any], known: Sequence[Mapping[str, HalfLife]]
) -> RegionCurve:
    """The curve of one region.

    Args:
        points: its rows of curves.tsv, of one administration.
        measured: nuclide of the scans.
        settings: section `dosimetry` of the configuration.
        known: what `known_half_lives` returns.

    Raises:
        TheraflowError: the time or the activity of a point is missing.
        FitRefused: no curve describes these points.
    """
    time, activity = points["time_h"].to_numpy(float), points["activity_mbq"].to_numpy(float)
    missing = ~(np.isfinite(time) & np.isfinite(activity))
    if missing.any():
        first = points[missing].iloc[0]
        raise TheraflowError(
            f"curves.tsv: {'time_h' if math.isnan(first['time_h']) else 'activity_mbq'} of {first['region']} in scan "
            f"{first['scan']} of {first['patient']} is missing."
        )
    if not activity.max() > 0:
        raise FitRefused("no activity above zero was measured")
    noise = independent_noise(points, settings)
    half_life = next(filter(None, (of_region(table, points) for table in known)), None)
    if np.unique(time).size > 1:
        hours = of_region(settings.get("uptake_half_life_h", {}), points)
        uptake = HalfLife(float(hours), UPTAKE_CV, "the configuration") if hours else None
        model = of_region(settings.get("models", {}), points)
        estimate = fit_curve(time, activity, noise, measured, model=model, clearance=half_life, uptake=uptake)
        half_life = half_life if estimate.prior_used else None
    else:
        uptake = None
        relative = float(np.mean(noise.sd_mbq(activity)) / activity.mean() / math.sqrt(activity.size))
        point = Measurement(float(time[0]), float(activity.mean()), relative, measured)
        if half_life is not None:
            estimate = KnownHalfLife(point, half_life)
        elif settings.get("single_time_point") == "haenscheid":
            estimate = Haenscheid(point)
        else:
            estimate = PhysicalDecay(point)
    integral, sd = estimate.time_integrated_activity(measured)
    if not integral > 0 or sd >= integral:
        raise FitRefused("its activity does not stand out of its noise: the time integral is no larger than its sd")
    longest = of_region(settings.get("longest_uptake_h", {}), points)
    unseen = unseen_uptake_h(estimate, time, noise, measured, float(longest)) if longest else 0.0
    return RegionCurve(estimate, time, noise, half_life, uptake, unseen)


def independent_noise(points: pd.DataFrame, settings: Mapping[str, Any]) -> Noise:
    """Sd of the points of one region by what is independent between the scans.

    What exceeds `repeatability_cv`, of planar points their own one, is taken as noise that does not grow with the
    activity (counts). Where `sd_independent_mbq` is not known, `repeatability_cv` alone.
    """
    activity = points["activity_mbq"].to_numpy(float)
    planar = points["method"].str.startswith("planar").to_numpy()
    relative = np.where(planar, settings["planar"]["repeatability_cv"], settings["repeatability_cv"])
    absolute = np.full(activity.shape, SMALLEST_SD * activity.max())
    sd = points["sd_independent_mbq"].to_numpy(float)
    given = np.isfinite(sd)
    positive = given & (activity > 0)
    relative[positive] = np.minimum(relative[positive], sd[positive] / activity[positive])
    rest = sd[given] ** 2 - (relative * activity)[given] ** 2
    absolute[given] = np.maximum(absolute[given], np.sqrt(np.maximum(rest, 0.0)))
    return Noise(relative, absolute)


def unseen_uptake_h(
    estimate: AnyEstimate, time_h: np.ndarray, noise: Noise, measured: Nuclide, longest_h: float
) -> float:
    """The longest half-life of an uptake that the points do not show.

    An uptake of half-life T leaves the first point below the late curve by 2^(-t/T) of it; where that is more than
    two sd of the point, the point shows it.

    Args:
        estimate: the curve; one that has its uptake, or is none, misses nothing that could be told.
        time_h: times of the points.
        noise: their sd.
        measured: nuclide of the points.
        longest_h: the longest half-life that is plausible.
    """
    curve = estimate.curve
    if curve is None or min(curve.amplitudes_mbq) < 0:
        return 0.0
    longest = min(longest_h, LONGEST_UPTAKE * curve.half_life_h(measured))
    first = int(np.argmin(time_h))
    activity = curve.activity_mbq(time_h, measured)
    part = SEEN_SD * float(noise.sd_mbq(activity)[first] / activity[first])
    return longest if part >= 1.0 else min(longest, float(time_h[first]) / -math.log2(part))


def known_half_lives(
    measured: Nuclide, settings: Mapping[str, Any], earlier: Sequence[tuple[str, pd.DataFrame]] = ()
) -> list[dict[str, HalfLife]]:
    """Effective half-lives by region or kind: of the user, of an earlier administration, of the population.

    Args:
        measured: nuclide of the scans.
        settings: section `dosimetry` of the configuration.
        earlier: timepoint and rows of doses.tsv of the administrations before, the first one first. A region borrows
            from the one in which it was measured most often, of several the last.

    Raises:
        TheraflowError: an unknown population.
    """
    cv = settings["t_eff_cv"]
    given = {name: HalfLife(float(hours), cv, "the configuration") for name, hours in settings["t_eff_h"].items()}
    borrowed: dict[str, HalfLife] = {}
    most: dict[str, int] = {}
    for timepoint, doses in earlier:
        rows = doses[(doses["nuclide"] == measured.name) & (doses["n_timepoints"] > 1)].dropna(subset="t_eff_h")
        for row in rows.itertuples():
            if row.n_timepoints >= most.get(row.region, 0):
                most[row.region] = row.n_timepoints
                source = f"the earlier administration {timepoint}"
                borrowed[row.region] = HalfLife(float(row.t_eff_h), cv, source)
    return [given, borrowed, _population(measured, settings)]


def _population(measured: Nuclide, settings: Mapping[str, Any]) -> dict[str, HalfLife]:
    ligand = settings.get("population")
    if not ligand:
        return {}
    table = resource("population_kinetics.csv")
    if ligand not in set(table["ligand"]):
        names = ", ".join(table["ligand"].unique())
        raise TheraflowError(f"dosimetry: no kinetics of the population {ligand} are known, only of {names}.")
    found = {}
    for _, row in table[table["ligand"] == ligand].iterrows():
        rate = relabelled([math.log(2.0) / row["t_eff_h"]], nuclide(row["nuclide"]), measured)[0]
        spread = float(row["cv"]) if math.isfinite(row["cv"]) else settings["t_eff_cv"]
        found[row["region"]] = HalfLife(math.log(2.0) / float(rate), spread, f"the population of {row['source']}")
    return found


def of_region(table: Mapping[str, Any], points: pd.DataFrame) -> Any:
    """What a table by region or kind says of the region of these points; None if nothing."""
    return table.get(points["region"].iloc[0], table.get(points["kind"].iloc[0]))
