"""Dose coefficients of every region, and the doses of the patient's therapy cycles."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from theraflow.dosimetry.activity import read_fact
from theraflow.dosimetry.kinetics import (
    Fit,
    decay_per_h,
    fit_mono_exponential,
    fit_one_point,
    fit_time_integrated_activity,
    physical_decay_only,
    smallest_bounded_half_life_h,
)
from theraflow.dosimetry.partial_volume import activity_sensitivity, volume_cv
from theraflow.dosimetry.radiobiology import biologically_effective_dose_gy, lea_catcheside
from theraflow.dosimetry.s_values import sphere_self_dose
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import HOUR, Nuclide, nuclide
from theraflow.tables import read_table, write_table

DOSE_COLUMNS = (
    "patient", "region", "kind", "nuclide", "mass_g", "n_timepoints", "model", "t_eff_h", "tia_h",
    "dose_gy_per_gbq", "sd_gy_per_gbq", "method",
)  # fmt: skip
CYCLE_COLUMNS = ("patient", "cycle", "region", "nuclide", "activity_gbq", "dose_gy", "sd_gy", "bed_gy")
BQ_PER_GBQ = 1e9
# No point is known better than this part of the highest one, whatever its relative sd says.
SMALLEST_SD = 0.005

log = logging.getLogger(__name__)


def compute_doses(
    folder: PatientFolder,
    scans: Sequence[Scan],
    settings: Mapping[str, Any],
    therapy_nuclide: str,
    cycles: Sequence[Mapping[str, Any]],
) -> None:
    """Fit the curves of curves.tsv and write doses.tsv and cycles.tsv.

    Dose per administered activity = time-integrated activity x S value of a sphere of the region's mass;
    no dose from other regions. The whole body and the remainder have a time-integrated activity and no dose:
    how much of the body the SPECT shows is not known.

    Args:
        folder: the patient's results.
        scans: the activity scans of one administration.
        settings: section `dosimetry` of the configuration, see `theraflow.dosimetry.settings`.
        therapy_nuclide: nuclide that is predicted with the same kinetics; may be the measured one.
        cycles: rows of cycles.tsv; those of other patients and nuclides are left out.

    Raises:
        TheraflowError: scans of several administrations, a missing injected activity, unknown nuclides.
    """
    measured, injected = administration(folder, scans)
    therapy = nuclide(therapy_nuclide)
    curves = read_table(folder.table("curves"))
    rows, fits = [], {}
    for region, points in curves.groupby("region", sort=False):
        points = points.sort_values("time_h")
        fit = _fit(points, measured, settings)
        fits[region] = fit
        for wanted in dict.fromkeys((measured, therapy)):
            rows.append(_dose_row(points, fit, measured, wanted, injected, settings))
    doses = pd.DataFrame(rows, columns=list(DOSE_COLUMNS))
    write_table(doses, folder.table("doses"), DOSE_COLUMNS)
    given = _cycle_rows(folder.patient, doses, fits, cycles, therapy, settings)
    write_table(pd.DataFrame(given, columns=list(CYCLE_COLUMNS)), folder.table("cycles"), CYCLE_COLUMNS)


def administration(folder: PatientFolder, scans: Sequence[Scan]) -> tuple[Nuclide, float]:
    """Nuclide and administered activity (MBq) that the scans share.

    Raises:
        TheraflowError: they are not scans of one administration, or one does not tell.
    """
    timepoints = sorted({scan.timepoint for scan in scans})
    activities = {s.scan: float(read_fact(folder, s, "injected_mbq", "the injected activity")) for s in scans}
    names = {nuclide(read_fact(folder, scan, "nuclide", "the nuclide")) for scan in scans}
    low, high = min(activities.values()), max(activities.values())
    if len(timepoints) > 1 or len(names) > 1 or high > 1.01 * low:
        raise TheraflowError(
            f"The activity scans of {folder.patient} belong to several administrations (timepoints "
            f"{', '.join(timepoints)}; injected {low:g} to {high:g} MBq); leave one of them in scans.tsv."
        )
    if not low > 0:
        raise TheraflowError(f"The injected activity of {folder.patient} is {low:g} MBq; correct it in scans.tsv.")
    return names.pop(), activities[scans[0].scan]


def _fit(points: pd.DataFrame, measured: Nuclide, settings: Mapping[str, Any]) -> Fit | None:
    time, activity = points["time_h"].to_numpy(float), points["activity_mbq"].to_numpy(float)
    region, kind = points["region"].iloc[0], points["kind"].iloc[0]
    if not activity.max() > 0:
        return None
    sd = np.maximum(settings["repeatability_cv"] * np.abs(activity), SMALLEST_SD * activity.max())
    if np.unique(time).size > 1:
        return fit_mono_exponential(time, activity, sd, measured)
    known = settings["t_eff_h"].get(region, settings["t_eff_h"].get(kind))
    if known is not None:
        return fit_one_point(time[0], activity.mean(), sd[0], measured, known, settings["t_eff_cv"])
    return physical_decay_only(time[0], activity.mean(), measured)


def _dose_row(
    points: pd.DataFrame,
    fit: Fit | None,
    measured: Nuclide,
    wanted: Nuclide,
    injected_mbq: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    first = points.iloc[0]
    mass, volume = points["mass_g"].mean(), points["volume_ml"].mean()
    row = {
        "patient": first["patient"], "region": first["region"], "kind": first["kind"], "nuclide": wanted.name,
        "mass_g": mass, "n_timepoints": len(points), "model": None, "t_eff_h": math.nan, "tia_h": math.nan,
        "dose_gy_per_gbq": math.nan, "sd_gy_per_gbq": math.nan,
        "method": "no activity above zero was measured",
    }  # fmt: skip
    if fit is None:
        return row
    integral, sd = fit_time_integrated_activity(fit, wanted)
    row |= {
        "model": fit.model,
        "t_eff_h": math.log(2.0) / (fit.biological_per_h + decay_per_h(wanted)),
        "tia_h": integral / injected_mbq,
    }
    method = [_activity_method(first["kind"], settings), _fit_method(fit, points, measured, wanted)]
    if wanted != measured:
        method.append(f"{wanted.name} from the kinetics of {measured.name}")
    if first["kind"] not in ("organ", "lesion"):
        method.append("no dose: the mass in the SPECT is not known")
    elif first["kind"] == "lesion" and volume < settings["minimum_lesion_ml"]:
        method.append(f"no dose: {volume:.2g} mL is below the limit of {settings['minimum_lesion_ml']:g} mL")
    else:
        density = mass / volume
        self_dose = sphere_self_dose(wanted.name, mass, density)
        coefficient = row["tia_h"] * HOUR * self_dose.gy_per_bq_s * BQ_PER_GBQ
        surface = _surface_cv(first["kind"], volume, density, wanted, settings)
        relative = np.linalg.norm([sd / integral, settings["calibration_cv"], surface]) if integral > 0 else math.nan
        row |= {"dose_gy_per_gbq": coefficient, "sd_gy_per_gbq": coefficient * float(relative)}
        method.append(f"{self_dose.source}, self-dose only")
    return row | {"method": "; ".join(method)}


def _surface_cv(kind: str, volume_ml: float, density: float, wanted: Nuclide, settings: Mapping[str, Any]) -> float:
    """Relative sd of a dose by the region's surface, which acts on activity and mass in opposite ways."""
    step = 1e-3
    mass = volume_ml * density
    larger, smaller = (sphere_self_dose(wanted.name, mass * math.exp(s), density).gy_per_bq_s for s in (step, -step))
    slope = math.log(larger / smaller) / (2.0 * step)
    sensitivity = activity_sensitivity(volume_ml, settings["spect_fwhm_mm"]) + slope
    return abs(sensitivity) * volume_cv(volume_ml, settings["boundary_sd_mm"][kind])


def _activity_method(kind: str, settings: Mapping[str, Any]) -> str:
    if kind == "whole_body":
        return "sum of all SPECT voxels"
    if kind == "remainder":
        return "whole body less organs and lesions"
    if settings["spect_fwhm_mm"]:
        return f"SPECT, geometric transfer matrix ({settings['spect_fwhm_mm']:g} mm FWHM)"
    return "SPECT without partial-volume correction"


def _fit_method(fit: Fit, points: pd.DataFrame, measured: Nuclide, wanted: Nuclide) -> str:
    if fit.covariance is not None:
        return fit.method
    limit = smallest_bounded_half_life_h(float(points["time_h"].iloc[0]), measured, wanted)
    if limit is None:
        return "one time point: physical decay, no upper bound (scan too late)"
    return f"{fit.method} for effective half-lives above {limit:.2g} h; no sd"


def _cycle_rows(
    patient: str,
    doses: pd.DataFrame,
    fits: Mapping[str, Fit | None],
    cycles: Sequence[Mapping[str, Any]],
    therapy: Nuclide,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    rows = []
    regions = doses[(doses["nuclide"] == therapy.name) & doses["kind"].isin(["organ", "lesion"])]
    for cycle in cycles:
        if str(cycle["patient"]) != patient or nuclide(str(cycle["nuclide"])) != therapy:
            continue
        activity = float(cycle["activity_gbq"])
        if not activity > 0:
            raise TheraflowError(f"cycles.tsv: activity_gbq of cycle {cycle['cycle']} of {patient} is missing.")
        for _, region in regions.iterrows():
            dose = region["dose_gy_per_gbq"] * activity
            rows.append({
                "patient": patient, "cycle": cycle["cycle"], "region": region["region"],
                "nuclide": therapy.name, "activity_gbq": activity, "dose_gy": dose,
                "sd_gy": region["sd_gy_per_gbq"] * activity,
                "bed_gy": _bed(region["region"], dose, fits[region["region"]], therapy, settings),
            })  # fmt: skip
    return rows


def _bed(region: str, dose_gy: float, fit: Fit | None, therapy: Nuclide, settings: Mapping[str, Any]) -> float:
    parameters = settings["radiobiology"].get(region)
    if parameters is None or fit is None or not math.isfinite(dose_gy):
        return math.nan
    rate = fit.biological_per_h + decay_per_h(therapy)
    factor = lea_catcheside([1.0], [rate], parameters["repair_half_time_h"])
    return biologically_effective_dose_gy(dose_gy, factor, parameters["alpha_beta_gy"])
