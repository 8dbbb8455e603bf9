"""Dose coefficients of every region in every administration, and the doses of the patient's therapy cycles."""

import contextlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from theraflow.dosimetry.activity.blood import METHOD as SAMPLES
from theraflow.dosimetry.activity.hybrid import CONJUGATE, SPECT
from theraflow.dosimetry.activity.marrow import BLOOD
from theraflow.dosimetry.activity.marrow import KIND as MARROW
from theraflow.dosimetry.activity.recovery import outline_cvs, read_recovery
from theraflow.dosimetry.administration import Administration, administrations
from theraflow.dosimetry.contract import (
    ADMINISTRATION_COLUMNS,
    BUDGET_COLUMNS,
    CYCLE_COLUMNS,
    DOSE_COLUMNS,
    FITTED_COLUMNS,
    WITH_DOSE,
)
from theraflow.dosimetry.curves.choice import RegionCurve, curve_of_region, known_half_lives
from theraflow.dosimetry.curves.fits import Estimate, FitRefused, HalfLife
from theraflow.dosimetry.curves.kinetics import written
from theraflow.dosimetry.cycles import Measured, cycle_rows
from theraflow.dosimetry.draws import Drawn, draw_coefficients
from theraflow.dosimetry.s_values.spheres import marrow_self_dose, sphere_self_dose
from theraflow.dosimetry.uncertainty import dose_budget, marrow_budget, uptake_relative_sd
from theraflow.errors import TheraflowError
from theraflow.layout import PatientFolder, Scan
from theraflow.nuclides import HOUR, Nuclide, nuclide
from theraflow.tables import read_table, write_table

BQ_PER_GBQ = 1e9
# From so many scans on an administration tells its curves by itself: the choice of a model is defined.
COMPLETE = 4
MONTE_CARLO = "monte carlo"
DRAWS = 1000
# A fitted curve is written at so many times, from the injection to a fifth beyond the last scan.
FITTED_TIMES, FITTED_BEYOND = 49, 1.2
# A smaller relative variance is what rounding leaves of none.
ROUNDING = 1e-9

log = logging.getLogger(__name__)


def compute_doses(
    folder: PatientFolder,
    scans: Sequence[Scan],
    settings: Mapping[str, Any],
    therapy_nuclide: str,
    cycles: Sequence[Mapping[str, Any]],
) -> None:
    """Fit the curves of curves.tsv and write doses, administrations, uncertainty, fitted and cycles.tsv.

    Dose per administered activity = time-integrated activity x S value of a sphere of the region's mass;
    no dose from other regions. The whole body and the remainder have a time-integrated activity and no dose:
    how much of the body the SPECT shows is not known.

    Each administration has its own curves and doses. Where a later one has too few points, it borrows the half-lives
    that an earlier one of the same tracer has shown. doses.tsv and uncertainty.tsv are of the administration that
    planning uses: the first with four scans, or where none has, the first of those with the most. fitted.tsv has all
    curves with the sd of their fit.

    Args:
        folder: the patient's results.
        scans: the patient's activity scans; those of one timepoint are of one administration.
        settings: section `dosimetry` of the configuration.
        therapy_nuclide: nuclide that is predicted with the same kinetics; may be the measured one.
        cycles: rows of cycles.tsv; those of other patients are left out, and those of another nuclide that
            were not scanned.

    Raises:
        TheraflowError: scans of one timepoint that contradict each other, a missing injected activity, time or
            activity of a point, unknown nuclides, a cycle that contradicts its own scans.
    """
    therapy = nuclide(therapy_nuclide)
    curves = read_table(folder.table("curves"))
    measured: list[Measured] = []
    for one in administrations(folder, scans):
        before = [known for known in measured if known.administration.tracer == one.tracer]
        earlier = [(known.administration.timepoint, known.doses) for known in before]
        known = known_half_lives(one.measured, settings, earlier)
        measured.append(_measure(curves[curves["timepoint"] == one.timepoint], one, therapy, settings, known))
    planned = max(measured, key=lambda one: min(len(one.administration.scans), COMPLETE))
    write_table(planned.doses, folder.table("doses"), DOSE_COLUMNS)
    every = [
        one.doses.assign(injected_mbq=one.administration.injected_mbq, date=one.administration.date) for one in measured
    ]
    write_table(pd.concat(every, ignore_index=True), folder.table("administrations"), ADMINISTRATION_COLUMNS)
    budgets = pd.DataFrame(planned.budgets, columns=list(BUDGET_COLUMNS))
    write_table(budgets, folder.table("uncertainty"), BUDGET_COLUMNS)
    fitted = [row for one in measured for row in _fitted_rows(folder.patient, one)]
    write_table(pd.DataFrame(fitted, columns=list(FITTED_COLUMNS)), folder.table("fitted"), FITTED_COLUMNS)
    given = cycle_rows(folder.patient, planned, measured, cycles, therapy, settings)
    write_table(pd.DataFrame(given, columns=list(CYCLE_COLUMNS)), folder.table("cycles"), CYCLE_COLUMNS)


def _measure(
    curves: pd.DataFrame,
    administration: Administration,
    therapy: Nuclide,
    settings: Mapping[str, Any],
    known: Sequence[Mapping[str, HalfLife]],
) -> Measured:
    """Curves and coefficients of all regions in one administration."""
    rows, fitted, budgets = [], {}, []
    for region, points in curves.groupby("region", sort=False):
        # Rows without activity that say why are of scans that cannot measure the region: the others make the curve.
        told = points["activity_mbq"].notna() | points["remark"].isna()
        refused, points = points[~told], (points[told] if told.any() else points).sort_values("time_h")
        try:
            if not told.any():
                raise FitRefused("; ".join(refused["remark"].unique()))
            curve = curve_of_region(points, administration.measured, settings, known)
        except FitRefused as refusal:
            log.warning("%s, %s: no curve, %s", points["patient"].iloc[0], region, refusal)
            curve = refusal
        else:
            fitted[region] = curve
        own, parts = _dose_rows(points, curve, administration, therapy, settings)
        rows += own
        budgets += parts
    return Measured(administration, pd.DataFrame(rows, columns=list(DOSE_COLUMNS)), fitted, budgets)


def _fitted_rows(patient: str, measured: Measured) -> list[dict[str, Any]]:
    """The curves of the measured nuclide at times that follow one another; sd only of what was fitted."""
    one = measured.administration
    rows = []
    for region, found in measured.curves.items():
        estimate = found.estimate
        if estimate.curve is None:
            continue
        times = np.linspace(0.0, FITTED_BEYOND * float(found.time_h.max()), FITTED_TIMES)
        activity = estimate.curve.activity_mbq(times, one.measured)
        sd = np.full(times.size, math.nan)
        if isinstance(estimate, Estimate):
            sd = estimate.activity_sd_mbq(times, one.measured)
        rows += [
            dict(zip(FITTED_COLUMNS, (patient, one.timepoint, region, one.measured.name, *values), strict=True))
            for values in zip(times.tolist(), activity.tolist(), sd.tolist(), strict=True)
        ]
    return rows


def _dose_rows(
    points: pd.DataFrame,
    curve: RegionCurve | FitRefused,
    administration: Administration,
    therapy: Nuclide,
    settings: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of doses.tsv and of uncertainty.tsv of one region, for the measured and the therapy nuclide."""
    measured, first = administration.measured, points.iloc[0]
    wanted = list(dict.fromkeys((measured, therapy)))
    mass, volume = points["mass_g"].mean(), points["volume_ml"].mean()
    empty = {
        **dict.fromkeys(DOSE_COLUMNS, math.nan), "model": None, "method": None, "quality": None, "exponentials": None,
        "patient": first["patient"], "region": first["region"], "kind": first["kind"], "mass_g": mass,
        "n_timepoints": int(points["activity_mbq"].notna().sum()), "timepoint": administration.timepoint,
    }  # fmt: skip
    if isinstance(curve, FitRefused):
        return [empty | {"nuclide": one.name, "method": str(curve)} for one in wanted], []
    no_dose = _no_dose(first["kind"], volume, settings)
    scans = {} if no_dose or first["kind"] == MARROW else _terms_of_scans(points, settings)
    conjugate = bool((points["method"] == CONJUGATE).all())
    drawn = {}
    by_draws = (
        settings["uncertainty"] == MONTE_CARLO and first["kind"] != MARROW and not settings["recovery"] and not scans
    )
    if by_draws and no_dose is None and isinstance(curve.estimate, Estimate):
        seed = f"{first['patient']} {first['region']} {administration.timepoint}"
        with contextlib.suppress(TheraflowError):  # no S value for this mass, which the row says
            drawn = draw_coefficients(
                curve, measured, wanted, first["kind"], volume, mass / volume, settings, seed, DRAWS
            )
    rows, budgets = [], []
    for one in wanted:
        row = empty | _curve_columns(curve, one, administration.injected_mbq)
        method = [_activity_method(points, settings), curve.method(one)]
        method += points["remark"].dropna().unique().tolist()
        if one != measured:
            method.append(f"{one.name} from the kinetics of {measured.name}")
        if no_dose is not None:
            method.append(no_dose)
        else:
            try:
                told, budget = _dose(row, curve, measured, one, volume, settings, drawn.get(one), scans, conjugate)
            except TheraflowError as error:  # no S value for this mass: the other regions go on
                method.append(f"no dose: {str(error).removesuffix('.')}")
            else:
                method += told.pop("words")
                row |= told
                budgets += budget
        rows.append(row | {"method": "; ".join(method)})
    return rows, budgets


def _curve_columns(curve: RegionCurve, wanted: Nuclide, injected_mbq: float) -> dict[str, Any]:
    estimate, shape = curve.estimate, curve.estimate.curve
    return {
        "nuclide": wanted.name, "model": estimate.model, "quality": estimate.quality,
        "exponentials": shape and written(shape.amplitudes_mbq, shape.rates_per_h(wanted)),
        "t_eff_h": estimate.half_life_h(wanted),
        "tia_h": estimate.time_integrated_activity(wanted)[0] / injected_mbq,
    }  # fmt: skip


def _no_dose(kind: str, volume_ml: float, settings: Mapping[str, Any]) -> str | None:
    """Why a region has a curve and no dose; None where it has one."""
    if kind not in WITH_DOSE:
        return "no dose: the mass in the SPECT is not known"
    if kind == "lesion" and volume_ml < settings["minimum_lesion_ml"]:
        return f"no dose: {volume_ml:.2g} mL is below the limit of {settings['minimum_lesion_ml']:g} mL"
    return None


def _dose(
    row: Mapping[str, Any],
    curve: RegionCurve,
    measured: Nuclide,
    wanted: Nuclide,
    volume_ml: float,
    settings: Mapping[str, Any],
    drawn: Drawn | None,
    scans: Mapping[str, float],
    conjugate: bool,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Columns of doses.tsv that need an S value, with `words` for the method, and rows of uncertainty.tsv.

    Raises:
        TheraflowError: there is no S value for the region.
    """
    density = row["mass_g"] / volume_ml
    marrow = row["kind"] == MARROW
    if marrow:
        self_dose = marrow_self_dose(wanted.name, row["mass_g"], settings["marrow"].get("absorbed_fraction"))
    else:
        self_dose = sphere_self_dose(wanted.name, row["mass_g"], density, settings.get("s_values"))
    coefficient = row["tia_h"] * HOUR * self_dose.gy_per_bq_s * BQ_PER_GBQ
    told: dict[str, Any] = {"dose_gy_per_gbq": coefficient, "words": [f"{self_dose.source}, self-dose only"]}
    integral, sd = curve.estimate.time_integrated_activity(wanted)
    if not math.isfinite(sd):
        return told, []
    uptake = uptake_relative_sd(curve.estimate.curve, curve.unseen_uptake_h, measured, wanted)
    if marrow:
        parts = marrow_budget(sd / integral, row["region"], settings, uptake)
        if row["region"] == BLOOD:
            told["words"].append("sd without that of the ratio of red marrow to blood")
    else:
        parts = dose_budget(
            sd / integral, row["kind"], volume_ml, density, wanted, settings, uptake, scans, conjugate=conjugate
        )
    if drawn is not None:
        told["words"].append(f"sd and interval by {DRAWS} draws")
    elif settings["uncertainty"] == MONTE_CARLO:
        told["words"].append(
            "sd and interval to first order: nothing is drawn for one time point, red marrow, planar views, "
            "what the field of view cuts or a recovery curve"
        )
    spread = drawn or parts
    low, high = spread.interval_95(coefficient)
    told |= {
        "sd_gy_per_gbq": coefficient * spread.relative_sd, "ci_low_gy_per_gbq": low, "ci_high_gy_per_gbq": high,
    }  # fmt: skip
    budget = [
        {**{key: row[key] for key in ("patient", "region", "nuclide")},
         "term": term, "relative_sd": value, "share": parts.share(term)}
        for term, value in parts.terms.items()
    ]  # fmt: skip
    return told, budget


def _activity_method(points: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """How the activity of a region was measured: each way once, in the order of its points."""
    region, kind = points[["region", "kind"]].iloc[0]
    told = {SPECT: _spect_method(kind, settings)}
    if region == BLOOD:
        told[SAMPLES] = f"{SAMPLES}, red marrow to blood {settings['marrow']['blood_ratio']}"
    return " and ".join(told.get(way, way) for way in dict.fromkeys(points["method"]))


def _spect_method(kind: str, settings: Mapping[str, Any]) -> str:
    if kind == "whole_body":
        return "sum of all SPECT voxels"
    if kind == "remainder":
        return "whole body less the organs and lesions that all scans show"
    if settings["spect_fwhm_mm"]:
        return f"SPECT, geometric transfer matrix ({settings['spect_fwhm_mm']:g} mm FWHM)"
    if kind != MARROW and (curve := read_recovery(settings)):
        return f"SPECT, {curve.formula}"
    return "SPECT without partial-volume correction"


def _terms_of_scans(points: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, float]:
    """Terms of the budget that only some scans have: relative sd that a region's points share beyond those of all.

    It is what calibration, surface and recovery curve leave of the shared part of `sd_mbq`: of planar points the error
    of their scale, which holds that of a cut region in the SPECT that scales them; of others that of the cut.
    """
    known = points[(points["activity_mbq"] > 0) & points["sd_independent_mbq"].notna()]
    planar = known[known["method"].str.startswith("planar")]
    term, own = ("cut", known) if planar.empty else ("planar", planar)
    if own.empty:
        return {}
    shared = (own["sd_mbq"] ** 2 - own["sd_independent_mbq"] ** 2) / own["activity_mbq"] ** 2
    curve = read_recovery(settings)
    told = [
        # No surface is in what a camera's sensitivity tells of a count rate.
        math.hypot(settings["calibration_cv"], *(() if method == CONJUGATE else outline_cvs(kind, ml, settings, curve)))
        for method, kind, ml in zip(own["method"], own["kind"], own["volume_ml"], strict=True)
    ]
    rest = float(np.mean(shared - np.square(told)))
    return {term: math.sqrt(rest)} if rest > ROUNDING else {}
