"""The doses of a patient's therapy cycles: measured where a cycle was itself scanned, else predicted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from theraflow.dosimetry.administration import Administration
from theraflow.dosimetry.contract import WITH_DOSE
from theraflow.dosimetry.curves.choice import RegionCurve
from theraflow.dosimetry.radiobiology import biologically_effective_dose_gy, lea_catcheside
from theraflow.errors import TheraflowError
from theraflow.nuclides import Nuclide, nuclide

# A cycle and the scans of its day whose activities differ by more contradict each other.
SAME_ACTIVITY = 1.05


@dataclass(frozen=True, eq=False)
class Measured:
    """What one administration has shown.

    Attributes:
        administration: which.
        doses: its rows of doses.tsv.
        curves: by region, those that there are.
        budgets: its rows of uncertainty.tsv.
    """

    administration: Administration
    doses: pd.DataFrame
    curves: Mapping[str, RegionCurve]
    budgets: Sequence[Mapping[str, Any]]

    def coefficients(self, name: str) -> pd.DataFrame:
        """Organs, lesions and red marrow with the coefficients of a nuclide, by region."""
        kept = (self.doses["nuclide"] == name) & self.doses["kind"].isin(WITH_DOSE)
        return self.doses[kept].set_index("region")


def cycle_rows(
    patient: str,
    planned: Measured,
    measured: Sequence[Measured],
    cycles: Sequence[Mapping[str, Any]],
    therapy: Nuclide,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows of cycles.tsv.

    A cycle whose own injection was scanned (same day and nuclide) has the doses that these scans show; all others have
    coefficient times activity.

    Args:
        patient: whose; cycles of others are left out.
        planned: the administration whose coefficients hold for cycles that were not scanned.
        measured: all administrations.
        cycles: rows of the sheet; those of another nuclide than the therapy's count only if they were scanned.
        therapy: nuclide of the therapy.
        settings: section `dosimetry` of the configuration.

    Raises:
        TheraflowError: an activity is missing, or is not the one that the scans of that day tell.
    """
    rows = []
    for cycle in cycles:
        if str(cycle["patient"]) != patient:
            continue
        given = nuclide(str(cycle["nuclide"]))
        own = _scanned(cycle, given, measured)
        if given != therapy and own is None:
            continue
        activity = float(cycle["activity_gbq"])
        if not activity > 0:
            raise TheraflowError(f"cycles.tsv: activity_gbq of cycle {cycle['cycle']} of {patient} is missing.")
        if own is not None:
            _check_activity(patient, cycle, own.administration)
        predicted = planned.coefficients(given.name)
        shown = own.coefficients(given.name) if own else predicted[:0]
        for region in dict.fromkeys((*predicted.index, *shown.index)):
            is_own = region in shown.index and math.isfinite(shown.loc[region, "dose_gy_per_gbq"])
            is_own |= region not in predicted.index
            source, row = (own, shown.loc[region]) if is_own else (planned, predicted.loc[region])
            dose = row["dose_gy_per_gbq"] * activity
            timepoint = source.administration.timepoint
            rows.append({
                "patient": patient, "cycle": cycle["cycle"], "region": region,
                "nuclide": given.name, "activity_gbq": activity, "dose_gy": dose,
                "sd_gy": row["sd_gy_per_gbq"] * activity,
                "bed_gy": _bed(region, dose, source.curves.get(region), given, settings),
                "source": _source(dose, is_own, timepoint),
                "timepoint": timepoint,
            })  # fmt: skip
    return rows


def _source(dose_gy: float, is_own: bool, timepoint: str) -> str:
    """Where a dose comes from, in words."""
    if not math.isfinite(dose_gy):
        return "no dose"
    return f"measured in this cycle ({timepoint})" if is_own else f"coefficient of {timepoint}"


def _scanned(cycle: Mapping[str, Any], given: Nuclide, measured: Sequence[Measured]) -> Measured | None:
    """The administration that is this cycle: of the same day and nuclide."""
    for one in measured:
        told = one.administration
        if told.date is not None and told.date == str(cycle.get("date")) and told.measured == given:
            return one
    return None


def _check_activity(patient: str, cycle: Mapping[str, Any], scanned: Administration) -> None:
    sheet, scans = float(cycle["activity_gbq"]), scanned.injected_mbq / 1000.0
    if max(sheet, scans) > SAME_ACTIVITY * min(sheet, scans):
        raise TheraflowError(
            f"cycles.tsv: cycle {cycle['cycle']} of {patient} has {sheet:g} GBq of {scanned.measured.name}, but the "
            f"scans of that day (timepoint {scanned.timepoint}) say {scans:g} GBq; correct one of them."
        )


def _bed(region: str, dose_gy: float, fitted: RegionCurve | None, given: Nuclide, settings: Mapping[str, Any]) -> float:
    parameters = settings["radiobiology"].get(region)
    curve = fitted and fitted.estimate.curve
    if parameters is None or curve is None or not math.isfinite(dose_gy):
        return math.nan
    factor = lea_catcheside(curve.amplitudes_mbq, curve.rates_per_h(given), parameters["repair_half_time_h"])
    return biologically_effective_dose_gy(dose_gy, factor, parameters["alpha_beta_gy"])
