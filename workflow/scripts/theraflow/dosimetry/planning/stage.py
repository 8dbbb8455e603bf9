"""Planning: what the cycles given so far add up to, and how much activity the limits of the organs still allow.

A limit is a cumulative absorbed dose, BED or EQD2 of an organ. Effects of cycles add up: each cycle's dose is delivered
and its damage repaired before the next (`cycles_apart`); repopulation and any other factor of the overall time are left
out. A cycle that was itself scanned has its own coefficient, all others that of the administration in doses.tsv. The
errors of a region's doses are taken as one error: calibration, surface and S value are the same in all of them.
"""

import datetime
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from theraflow.dosimetry.activity.marrow import BLOOD, IMAGE
from theraflow.dosimetry.contract import COURSE_COLUMNS, PLAN_COLUMNS
from theraflow.dosimetry.curves.kinetics import read_curve
from theraflow.dosimetry.planning.statement import summarise
from theraflow.dosimetry.radiobiology import QUANTITIES, Effect, effect, lea_catcheside
from theraflow.errors import TheraflowError
from theraflow.files import write_json
from theraflow.layout import PatientFolder
from theraflow.nuclides import nuclide
from theraflow.organs import GROUPS, ORGAN_IDS
from theraflow.tables import read_table, write_table

# Regions that may have a limit and are no organs of TotalSegmentator.
OTHER_REGIONS = (IMAGE, BLOOD, "whole_body", "remainder")
WITHOUT_DOSE = ("whole_body", "remainder")
# Models of doses.tsv whose effective half-life tells the whole curve.
ONE_EXPONENTIAL = ("mono-exponential", "mono-exponential, half-life given", "physical decay")
LIMIT_KEYS = {f"{quantity}_gy": quantity for quantity in QUANTITIES}
Z_95 = 1.6448536269514722  # one-sided
# Less than a hundredth of the dose of a cycle is still to come after so many effective half-lives.
HALF_LIVES_APART = 7.0

Cycle = Mapping[str, Any]
# Rows of administrations.tsv by region, then by cycle and nuclide.
OwnRows = Mapping[str, Mapping[tuple[float, str], Mapping[str, Any]]]
NOTHING: OwnRows = MappingProxyType({})


@dataclass(frozen=True)
class Coefficient:
    """Absorbed dose per administered activity. Its errors multiply: the relative sd is that of the logarithm."""

    gy_per_gbq: float
    sd_gy_per_gbq: float

    @property
    def relative_sd(self) -> float:
        """Sd over estimate."""
        return self.sd_gy_per_gbq / self.gy_per_gbq

    @property
    def factor_95(self) -> float:
        """With a probability of 95 % the true coefficient is at most so many times the estimate."""
        return math.exp(Z_95 * self.relative_sd)


@dataclass(frozen=True)
class Exposure:
    """What a cycle has given to a region: activity, coefficient of its nuclide, and how that dose counts."""

    activity_gbq: float
    coefficient: Coefficient
    counts: Effect

    @property
    def dose_gy(self) -> float:
        """Absorbed dose."""
        return self.activity_gbq * self.coefficient.gy_per_gbq

    @property
    def sd_gy(self) -> float:
        """Sd of the absorbed dose."""
        return self.activity_gbq * self.coefficient.sd_gy_per_gbq

    def spent_gy(self, factor: float = 1.0) -> float:
        """What it takes of a limit, if the true coefficient is `factor` times the estimate."""
        return self.counts.of_dose(self.dose_gy * factor)


@dataclass(frozen=True)
class Activity:
    """An activity in GBq with its sd, and the one that keeps the limit with a probability of 95 %."""

    gbq: float
    sd_gbq: float
    gbq_95: float


def largest_activity(
    limit_gy: float, coefficient: Coefficient, counts: Effect, given: Sequence[Exposure] = (), cycles: int = 1
) -> Activity:
    """The activity of further equal cycles, all together, at which a region meets its limit.

    sum of E(given doses) + n E(c a / n) = limit, solved for a. The sd is propagated to first order; the error of c is
    that of the doses given too, whatever their nuclide. For the 95 % the coefficients are at their 95th percentile.

    Args:
        limit_gy: the limit, in the quantity of `counts`.
        coefficient: c, of the nuclide to come.
        counts: E, how a dose of that nuclide counts.
        given: what the region has had.
        cycles: n, 1 or more.

    Returns:
        The activity; 0 without sd where the limit is already reached.
    """

    def activity(left_gy: float, factor: float) -> float:
        return cycles * counts.dose_gy(max(left_gy, 0.0) / cycles) / (coefficient.gy_per_gbq * factor)

    left = limit_gy - sum(exposure.spent_gy() for exposure in given)
    if left <= 0.0:
        return Activity(0.0, math.nan, 0.0)
    cautious_left = limit_gy - sum(exposure.spent_gy(exposure.coefficient.factor_95) for exposure in given)
    value = activity(left, 1.0)
    slope = counts.slope(value * coefficient.gy_per_gbq / cycles) * coefficient.gy_per_gbq
    spent_sd = sum(exposure.counts.slope(exposure.dose_gy) * exposure.sd_gy for exposure in given)
    sd = value * coefficient.relative_sd + spent_sd / slope
    return Activity(value, sd, activity(cautious_left, coefficient.factor_95))


def protraction_factor(row: Mapping[str, Any], repair_half_time_h: float) -> float:
    """Lea-Catcheside factor of a row of doses.tsv; NaN where the shape of its curve is not in the row.

    The column `exponentials` (see `theraflow.dosimetry.curves.kinetics.written`) tells any curve; without it the
    effective half-life tells those of one exponential.
    """
    told = row.get("exponentials")
    if isinstance(told, str) and told:
        return lea_catcheside(*read_curve(told), repair_half_time_h)
    model, half_life = row.get("model"), row.get("t_eff_h", math.nan)
    if model in ONE_EXPONENTIAL and half_life > 0:
        return lea_catcheside([1.0], [math.log(2.0) / half_life], repair_half_time_h)
    return math.nan


@dataclass(frozen=True)
class RegionDoses:
    """What is known of the doses of one region.

    Attributes:
        rows: of doses.tsv, by nuclide.
        biology: the tissue's parameters, where they are configured.
        own: rows of administrations.tsv by cycle and nuclide, of cycles that were themselves scanned.
    """

    region: str
    kind: str | None
    rows: Mapping[str, Mapping[str, Any]]
    biology: Mapping[str, float] | None
    own: Mapping[tuple[float, str], Mapping[str, Any]] = field(default_factory=dict)

    def row(self, name: str, cycle: float | None = None) -> Mapping[str, Any] | None:
        """The row of a nuclide: that of a cycle that was itself scanned, else that of doses.tsv."""
        return self.own.get((cycle, name), self.rows.get(name))

    def coefficient(self, name: str, cycle: float | None = None) -> tuple[Coefficient, str]:
        """The coefficient of a nuclide, and why it or its sd is missing ("" where nothing is)."""
        row = self.row(name, cycle)
        if row is None:
            return Coefficient(math.nan, math.nan), f"no coefficient of {name} is known"
        value, sd = float(row["dose_gy_per_gbq"]), float(row["sd_gy_per_gbq"])
        if not (math.isfinite(value) and value > 0.0):
            method = str(row["method"])
            reason = next((part for part in method.split("; ") if part.startswith("no dose")), method)
            return Coefficient(math.nan, math.nan), reason
        if not (math.isfinite(sd) and sd >= 0.0):
            return Coefficient(value, math.nan), "its dose has no sd"
        return Coefficient(value, sd), ""

    def exposure(
        self, name: str, activity_gbq: float, quantity: str = "dose", cycle: float | None = None
    ) -> tuple[Exposure, str]:
        """What an activity of a nuclide gives in a cycle, counted in a quantity, and what is missing."""
        coefficient, reason = self.coefficient(name, cycle)
        row = self.row(name, cycle)
        if quantity == "dose" or row is None:
            return Exposure(activity_gbq, coefficient, Effect()), reason
        if self.biology is None:
            return Exposure(activity_gbq, coefficient, Effect(math.nan, math.nan)), "no alpha/beta is configured"
        factor = protraction_factor(row, self.biology["repair_half_time_h"])
        if math.isnan(factor) and not reason:
            reason = f"no {QUANTITIES[quantity]}: the shape of the curve is not known"
        return Exposure(activity_gbq, coefficient, effect(quantity, factor, self.biology["alpha_beta_gy"])), reason

    def close_cycles(self, cycles: Sequence[Cycle]) -> list[str]:
        """For each pair of following cycles whose effects do not add up, the words that say so."""
        return [
            f"cycles {first['cycle']:g} and {second['cycle']:g} lie less than {HALF_LIVES_APART:g} effective "
            "half-lives apart: their BED do not add up"
            for first, second in itertools.pairwise(cycles)
            if first["nuclide"] in self.rows
            and cycles_apart(first, second, float(self.rows[first["nuclide"]]["t_eff_h"])) is False
        ]


def measured_in_cycles(cycles: pd.DataFrame, administrations: pd.DataFrame) -> OwnRows:
    """The rows of administrations.tsv that a cycle was itself measured in, by region, then by cycle and nuclide.

    Args:
        cycles: cycles.tsv of the patient's results.
        administrations: administrations.tsv.
    """
    rows = administrations.set_index(["timepoint", "region", "nuclide"])
    found: dict[str, dict[tuple[float, str], Mapping[str, Any]]] = {}
    for cycle in cycles[cycles["source"].astype(str).str.startswith("measured")].itertuples():
        key = (cycle.timepoint, cycle.region, cycle.nuclide)
        found.setdefault(cycle.region, {})[cycle.cycle, cycle.nuclide] = rows.loc[key].to_dict()
    return found


def regions_of(doses: pd.DataFrame, settings: Mapping[str, Any], own: OwnRows) -> dict[str, RegionDoses]:
    """The regions of doses.tsv by name, organs before lesions."""
    found: dict[str, RegionDoses] = {}
    for region, rows in doses.groupby("region", sort=False):
        kind = rows["kind"].iloc[0]
        by_nuclide = {row["nuclide"]: row.to_dict() for _, row in rows.iterrows()}
        found[region] = RegionDoses(region, kind, by_nuclide, settings["radiobiology"].get(region), own.get(region, {}))
    return dict(sorted(found.items(), key=lambda item: item[1].kind == "lesion"))


def check_limits(settings: Mapping[str, Any]) -> None:
    """Refuse limits that could never be checked.

    Args:
        settings: section `dosimetry` of the configuration.

    Raises:
        TheraflowError: a limit of a region that is never measured by that name, an unknown quantity, or BED or EQD2
            without parameters of the tissue.
    """
    known = {*ORGAN_IDS, *GROUPS, *OTHER_REGIONS, *settings["organs"]}
    for name, limits in settings.get("limits", {}).items():
        if name not in known:
            raise TheraflowError(
                f"dosimetry: limits: there is no region {name!r}; use an organ (as kidney_left), a group (as kidneys) "
                f"or one of {', '.join(OTHER_REGIONS)}."
            )
        for key in limits:
            if key not in LIMIT_KEYS:
                raise TheraflowError(f"dosimetry: limits: {name}: {key!r} is none of {', '.join(LIMIT_KEYS)}.")
            for region in _members(name, settings["organs"]):
                if key != "dose_gy" and region not in settings["radiobiology"]:
                    raise TheraflowError(
                        f"dosimetry: limits: {name}: {key} needs alpha_beta_gy and repair_half_time_h of {region} in "
                        "dosimetry: radiobiology."
                    )


def limits_by_region(settings: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The limit in Gy by region and quantity, in the configuration's order.

    A limit of a group holds for each of its organs by itself; what is said of the organ itself replaces it.
    """
    own, of_groups = {}, {}
    for name, limits in settings.get("limits", {}).items():
        for region, (key, value) in itertools.product(_members(name, settings["organs"]), limits.items()):
            (own if region == name else of_groups)[region, LIMIT_KEYS[key]] = float(value)
    return of_groups | own


def _members(name: str, measured: Sequence[str]) -> tuple[str, ...]:
    """The regions that a limit holds for: those of a group, unless the group is measured as one region."""
    return (name,) if name in measured else GROUPS.get(name, (name,))


def given_cycles(patient: str, cycles: Sequence[Cycle]) -> list[dict[str, Any]]:
    """The cycles of a patient in the order of their numbers, of whatever nuclide, with its usual name.

    Raises:
        TheraflowError: an activity is missing, a cycle stands there twice, or the nuclide is not known.
    """
    rows = [
        {**row, "nuclide": nuclide(str(row["nuclide"])).name, "activity_gbq": float(row["activity_gbq"])}
        for row in cycles
        if str(row["patient"]) == patient
    ]
    rows.sort(key=lambda row: (float(row["cycle"]), row["nuclide"]))
    for row in rows:
        if not row["activity_gbq"] > 0:
            raise TheraflowError(f"cycles.tsv: activity_gbq of cycle {row['cycle']:g} of {patient} is missing.")
    for row, following in itertools.pairwise(rows):
        if (row["cycle"], row["nuclide"]) == (following["cycle"], following["nuclide"]):
            raise TheraflowError(f"cycles.tsv: cycle {row['cycle']:g} of {patient} stands there twice.")
    return rows


def cycles_apart(first: Cycle, second: Cycle, t_eff_h: float) -> bool | None:
    """Whether two cycles lie so far apart that their effects add up; None where a date or the half-life is missing.

    Two nuclides of one cycle do not.
    """
    if first["cycle"] == second["cycle"]:
        return False
    dates = [_date(cycle.get("date")) for cycle in (first, second)]
    if None in dates or not math.isfinite(t_eff_h):
        return None
    return abs((dates[1] - dates[0]).days) * 24.0 >= HALF_LIVES_APART * t_eff_h


def _date(told: Any) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(str(told))
    except ValueError:
        return None


def accumulate(
    doses: pd.DataFrame, patient: str, cycles: Sequence[Cycle], settings: Mapping[str, Any], own: OwnRows = NOTHING
) -> pd.DataFrame:
    """Dose, BED and EQD2 of every region in each cycle, and their sums up to that cycle.

    Args:
        doses: doses.tsv.
        patient: whose.
        cycles: what `given_cycles` returns.
        settings: section `dosimetry` of the configuration.
        own: what `measured_in_cycles` returns.

    Returns:
        A table with `COURSE_COLUMNS`; a sum is missing where one of its parts is. Sd of one region add up.
    """
    rows = []
    for region in regions_of(doses, settings, own).values():
        if region.kind in WITHOUT_DOSE:
            continue
        total = np.zeros(4)
        for number, cycle in enumerate(cycles, start=1):
            name, activity = cycle["nuclide"], cycle["activity_gbq"]
            plain, reason = region.exposure(name, activity, cycle=cycle["cycle"])
            effects = [math.nan, math.nan]
            if region.biology is not None and math.isfinite(plain.dose_gy):
                counted = [region.exposure(name, activity, quantity, cycle["cycle"]) for quantity in ("bed", "eqd2")]
                effects = [exposure.spent_gy() for exposure, _ in counted]
                reason = reason or counted[0][1]
            amounts = np.array([plain.dose_gy, plain.sd_gy, *effects])
            total = total + amounts
            if close := region.close_cycles(cycles[:number]):
                total[2:] = math.nan
                reason = reason or (close[-1] if region.biology is not None else "")
            rows.append({
                "patient": patient, "cycle": cycle["cycle"], "date": cycle.get("date"), "region": region.region,
                "kind": region.kind, "nuclide": name, "activity_gbq": activity,
                **dict(zip(("dose_gy", "sd_gy", "bed_gy", "eqd2_gy"), amounts, strict=True)),
                **dict(zip(("total_dose_gy", "total_sd_gy", "total_bed_gy", "total_eqd2_gy"), total, strict=True)),
                "remark": reason or None,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=list(COURSE_COLUMNS))


def make_plan(
    doses: pd.DataFrame,
    patient: str,
    cycles: Sequence[Cycle],
    therapy_nuclide: str,
    settings: Mapping[str, Any],
    own: OwnRows = NOTHING,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The largest activity that keeps all limits, the doses at it, and what that means in words.

    Args:
        doses: doses.tsv.
        patient: whose.
        cycles: what `given_cycles` returns.
        therapy_nuclide: nuclide of the cycles to come.
        settings: section `dosimetry` of the configuration; `limits`, `planned_cycles` and `tumour_dose_gy` are
            optional.
        own: what `measured_in_cycles` returns.

    Returns:
        A table with `PLAN_COLUMNS`, one row per limit and one per region without a limit; and the content of plan.json.
    """
    name = nuclide(therapy_nuclide).name
    planned, wanted = settings.get("planned_cycles"), settings.get("tumour_dose_gy")
    to_come = 1 if planned is None else max(0, int(planned) - len({cycle["cycle"] for cycle in cycles}))
    regions, limits = regions_of(doses, settings, own), limits_by_region(settings)
    rows = [
        _limit_row(regions.get(region) or RegionDoses(region, None, {}, None), quantity, limit, cycles, name, to_come)
        for (region, quantity), limit in limits.items()
    ]
    limited = {region for region, _ in limits}
    rows += [
        {"region": region.region, "kind": region.kind, "remarks": []}
        for region in regions.values()
        if region.region not in limited and region.kind not in WITHOUT_DOSE
    ]
    largest, course = _smallest(rows, "max"), _smallest(rows, "course")
    for row in rows:
        row |= {"patient": patient, "nuclide": name, "course_cycles": to_come}
        if largest is not None and "max_activity_gbq" in row:
            row["limiting"] = "yes" if row["max_activity_gbq"] == largest.gbq else "no"
        if row["region"] in regions:
            _add_doses(row, regions[row["region"]], cycles, name, largest, course)
        if row["kind"] == "lesion" and wanted is not None:
            row |= {"wanted_gy": float(wanted), "reached": _reached(row, float(wanted))}
        row["remark"] = "; ".join(dict.fromkeys(row.pop("remarks"))) or None
    plan = pd.DataFrame(rows, columns=list(PLAN_COLUMNS))
    return plan, summarise(plan, patient, name, len(cycles), to_come, (largest, course), wanted)


def _limit_row(
    region: RegionDoses, quantity: str, limit_gy: float, cycles: Sequence[Cycle], name: str, to_come: int
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "region": region.region, "kind": region.kind, "limit_quantity": quantity, "limit_gy": limit_gy,
    }  # fmt: skip
    if not region.rows:
        return row | {"remarks": ["no dose of this region is known"]}
    asked = [*((cycle["nuclide"], cycle["activity_gbq"], quantity, cycle["cycle"]) for cycle in cycles),
             (name, math.nan, quantity)]  # fmt: skip
    (*given, next_one), reasons = zip(*(region.exposure(*one) for one in asked), strict=True)
    close = region.close_cycles(cycles) if quantity != "dose" else []
    row["remarks"] = [reason for reason in (*reasons, *close) if reason]
    if not close:
        spent = float(sum(exposure.spent_gy() for exposure in given))
        row |= {"spent_gy": spent, "remaining_gy": limit_gy - spent}
    if row["remarks"]:
        return row
    coming = limit_gy, next_one.coefficient, next_one.counts, given
    row |= _activity_columns("max", largest_activity(*coming))
    row |= _activity_columns("course", largest_activity(*coming, to_come) if to_come else Activity(0.0, math.nan, 0.0))
    if row["remaining_gy"] <= 0.0:
        row["remarks"].append("the cycles given have reached this limit")
    elif row["max_activity_95_gbq"] == 0.0:
        row["remarks"].append("with a probability above 5 % the cycles given have reached this limit")
    return row


def _activity_columns(which: str, found: Activity) -> dict[str, float]:
    columns = (f"{which}_activity_gbq", f"{which}_activity_sd_gbq", f"{which}_activity_95_gbq")
    return dict(zip(columns, (found.gbq, found.sd_gbq, found.gbq_95), strict=True))


def _smallest(rows: Sequence[Mapping[str, Any]], which: str) -> Activity | None:
    """The activity that keeps all limits that could be checked; its sd is that of the limit that decides."""
    known = [
        Activity(*(row[f"{which}_activity_{part}"] for part in ("gbq", "sd_gbq", "95_gbq")))
        for row in rows
        if f"{which}_activity_gbq" in row
    ]
    if not known:
        return None
    decides = min(known, key=lambda one: one.gbq)
    return Activity(decides.gbq, decides.sd_gbq, min(one.gbq_95 for one in known))


def _add_doses(
    row: dict[str, Any],
    region: RegionDoses,
    cycles: Sequence[Cycle],
    name: str,
    largest: Activity | None,
    course: Activity | None,
) -> None:
    """The doses of a region in a next cycle at the largest activity and at the end of the course, if there is one."""
    coefficient, reason = region.coefficient(name)
    reasons = [reason]
    if largest is not None and course is not None:
        row |= {
            "dose_at_max_gy": coefficient.gy_per_gbq * largest.gbq,
            "dose_at_max_sd_gy": coefficient.sd_gy_per_gbq * largest.gbq,
            "dose_at_95_gy": coefficient.gy_per_gbq * largest.gbq_95,
        }
        parts = [region.exposure(cycle["nuclide"], cycle["activity_gbq"], cycle=cycle["cycle"]) for cycle in cycles]
        reasons += [other for _, other in parts]
        doses = [Exposure(course.gbq, coefficient, Effect()), *(exposure for exposure, _ in parts)]
        row |= {"course_dose_gy": sum(d.dose_gy for d in doses), "course_dose_sd_gy": sum(d.sd_gy for d in doses)}
    row["remarks"] += [found for found in reasons if found]


def _reached(row: Mapping[str, Any], wanted_gy: float) -> str | None:
    """Whether a lesion gets the wanted dose in the whole course: yes or no with 95 %, else uncertain."""
    dose, sd = row.get("course_dose_gy", math.nan), row.get("course_dose_sd_gy", math.nan)
    if dose == 0.0:
        return "no"
    if not (math.isfinite(dose) and math.isfinite(sd)):
        return None
    factor = Coefficient(dose, sd).factor_95
    if dose / factor >= wanted_gy:
        return "yes"
    return "no" if dose * factor < wanted_gy else "uncertain"


def plan_therapy(
    folder: PatientFolder,
    settings: Mapping[str, Any],
    therapy_nuclide: str,
    cycles: Sequence[Cycle],
) -> None:
    """Write course.tsv, plan.tsv and plan.json from the tables of doses, the sheet of cycles and the limits.

    Args:
        folder: the patient's results.
        settings: section `dosimetry` of the configuration.
        therapy_nuclide: nuclide of the cycles to come.
        cycles: rows of cycles.tsv, of all nuclides; those of other patients are left out.

    Raises:
        TheraflowError: a limit that cannot be checked in any patient, or a wrong row in cycles.tsv.
    """
    check_limits(settings)
    doses = read_table(folder.table("doses"))
    own = measured_in_cycles(read_table(folder.table("cycles")), read_table(folder.table("administrations")))
    given = given_cycles(folder.patient, cycles)
    write_table(accumulate(doses, folder.patient, given, settings, own), folder.table("course"), COURSE_COLUMNS)
    plan, summary = make_plan(doses, folder.patient, given, therapy_nuclide, settings, own)
    write_table(plan, folder.table("plan"), PLAN_COLUMNS)
    write_json(summary, folder.plan)
