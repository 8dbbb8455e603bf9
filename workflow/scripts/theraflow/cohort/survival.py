"""Progression-free and overall survival from therapy, diagnosis and first chemotherapy: `survival.tsv`."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from theraflow.errors import TheraflowError

if TYPE_CHECKING:
    from lifelines import KaplanMeierFitter

COLUMNS = (
    "endpoint", "n", "n_events", "median_days", "ci_low_days", "ci_high_days", "convention", "times_days",
    "median_first_days", "median_last_days", "n_missing", "missing",
)  # fmt: skip
TIME_COLUMNS = ("endpoint", "patient", "days", "event", "reason")
CURVE_COLUMNS = ("endpoint", "days", "n_at_risk", "n_events", "n_censored", "survival", "ci_low", "ci_high")
CONVENTION = (
    "Kaplan-Meier; median: first time with S < 0.5, or the midpoint of the interval where S = 0.5; "
    "95 % interval from the log-log limits of S, which do not exist where S is 1 or 0; NA: not reached or not defined"
)
_TOLERANCE = 1e-8
DEATH, PROGRESSION, FIRST_PROGRESSION = "death_date", "progression_date", "first_progression_date"


@dataclass(frozen=True)
class Endpoint:
    """One end point and the columns of `patients.tsv` that it is made of.

    Attributes:
        name: as in `survival.tsv`.
        start: date of the origin.
        days, event: the same as a number of days and 1 or 0, for whom dates are not to be shared.
        progression: date of the progression that counts; None for overall survival.
    """

    name: str
    start: str
    days: str
    event: str
    progression: str | None

    @property
    def ending(self) -> str:
        """Date without whose column the sheet does not speak of the event."""
        return self.progression or DEATH

    @property
    def last_seen(self) -> str:
        """Date at which the patient was last known to be without the event."""
        return "last_contact_date" if self.progression is None else "last_assessment_date"


ENDPOINTS = tuple(
    Endpoint(f"{quantity} from {origin}", start, f"{prefix}{place}_days",
             f"{prefix}{place if progression else ''}_event", progression)
    for origin, place, start, progression_date in (
        ("therapy", "", "therapy_date", PROGRESSION),
        ("diagnosis", "_diagnosis", "diagnosis_date", FIRST_PROGRESSION),
        ("first chemotherapy", "_chemotherapy", "chemotherapy_date", FIRST_PROGRESSION),
    )
    for quantity, prefix, progression in (("PFS", "pfs", progression_date), ("OS", "os", None))
)  # fmt: skip


def list_survival(patients: pd.DataFrame, first_cycles: Mapping[str, datetime.date] | None = None) -> pd.DataFrame:
    """Times and events of every end point of which the sheet knows anything.

    A time is told in days with its event, or by dates: from the origin to progression or death, whichever comes first
    (PFS; overall survival: to death), else to the last assessment without progression (overall survival: the last
    contact), censored. Therapy begins with `therapy_date`, else with the first dated cycle.

    Args:
        patients: `patients.tsv`, columns as in `config/README.md`.
        first_cycles: date of the first therapy cycle by patient.

    Returns:
        Columns `TIME_COLUMNS`, one row per patient and end point, those of an end point sorted by time. `event` is 1.0
        (it happened) or 0.0 (censored); without a time both are NaN and `reason` says why.

    Raises:
        TheraflowError: a patient has two rows; a time, an event or a date is none, dates run backwards, or days and
            dates disagree; names the patient and the column.
    """
    twice = patients.loc[patients["patient"].duplicated(), "patient"].unique()
    if len(twice):
        raise TheraflowError(f"patients.tsv has more than one row of {', '.join(twice)}; leave one row a patient.")
    starts = {"therapy_date": dict(first_cycles or {})}
    tables = []
    for endpoint in ENDPOINTS:
        started = starts.get(endpoint.start, {})
        begun = endpoint.start in patients.columns or set(started) & set(patients["patient"])
        if not (endpoint.days in patients.columns or (begun and endpoint.ending in patients.columns)):
            continue
        rows = [_time(endpoint, row, started.get(row["patient"])) for row in patients.to_dict("records")]
        table = pd.DataFrame(rows, columns=list(TIME_COLUMNS)).astype({"days": float, "event": float})
        tables.append(table.sort_values("days", kind="stable"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(TIME_COLUMNS))


def read_survival(
    patients: pd.DataFrame, first_cycles: Mapping[str, datetime.date] | None = None
) -> dict[str, pd.DataFrame]:
    """Times and events as `list_survival`, by end point and of the patients with a time alone.

    Returns:
        End point -> columns `patient`, `days`, `event` (bool), sorted by time. End points without patients are absent.
    """
    return times_by_endpoint(list_survival(patients, first_cycles))


def _time(endpoint: Endpoint, row: Mapping[str, object], first_cycle: datetime.date | None) -> tuple[object, ...]:
    """One row of `list_survival`."""
    patient = row["patient"]
    told = _told(endpoint, row)
    dated, reason = _dated(endpoint, row, first_cycle) if endpoint.ending in row else (None, f"no {endpoint.days}")
    if told and dated and told != dated:
        raise TheraflowError(
            f"patients.tsv: {patient} has {told[0]:g} days (event {told[1]:g}) in {endpoint.days}, but by its dates it "
            f"is {dated[0]:g} days (event {dated[1]:g}); correct one of the two."
        )
    found = told or dated
    return (endpoint.name, patient, *found, None) if found else (endpoint.name, patient, np.nan, np.nan, reason)


def _told(endpoint: Endpoint, row: Mapping[str, object]) -> tuple[float, float] | None:
    """Days and event where the sheet has them as numbers."""
    if _missing(row.get(endpoint.days)):
        return None
    found = []
    for column, allowed, what in (
        (endpoint.days, lambda number: number >= 0, "a number of days >= 0"),
        (endpoint.event, lambda number: number in (0, 1), "1 (event) or 0 (censored)"),
    ):
        cell = str(row.get(column))
        number = pd.to_numeric({"True": "1", "False": "0"}.get(cell, cell), errors="coerce")
        if not (np.isfinite(number) and allowed(number)):
            raise TheraflowError(f"patients.tsv: {column} of {row['patient']} must be {what}.")
        found.append(float(number))
    return found[0], found[1]


def _dated(
    endpoint: Endpoint, row: Mapping[str, object], first_cycle: datetime.date | None
) -> tuple[tuple[float, float] | None, str]:
    """Days and event by dates, or None and why not."""
    patient = row["patient"]
    start = _date(row, endpoint.start)
    if start and first_cycle and start != first_cycle:
        raise TheraflowError(
            f"patients.tsv: {endpoint.start} of {patient} is {start}, but the first cycle in the sheet of cycles is of "
            f"{first_cycle}; correct one of the two, or leave {endpoint.start} empty."
        )
    start = start or first_cycle
    if not start:
        return None, f"no {endpoint.start}"
    death, last_seen = _date(row, DEATH), _date(row, endpoint.last_seen)
    progression = _date(row, endpoint.progression) if endpoint.progression else None
    ends = {DEATH: death, endpoint.progression: progression, endpoint.last_seen: last_seen}
    for column, end in ends.items():
        if end and end < start and column != endpoint.last_seen:
            raise TheraflowError(f"patients.tsv: {column} of {patient} ({end}) is before {endpoint.start} ({start}).")
        if end and death and end > death:
            raise TheraflowError(f"patients.tsv: {column} of {patient} ({end}) is after {DEATH} ({death}).")
    if endpoint.progression:
        problem = _problem_of_progression(endpoint, row, start)
        if problem:
            return None, problem
    events = [end for end in (progression, death) if end]
    if events:
        return (float((min(events) - start).days), 1.0), ""
    if not last_seen or last_seen < start:
        wanted = [column for column in (endpoint.progression, DEATH) if column]
        return None, f"neither {' nor '.join(wanted)}, nor {endpoint.last_seen} after {endpoint.start}"
    return (float((last_seen - start).days), 0.0), ""


def _problem_of_progression(endpoint: Endpoint, row: Mapping[str, object], start: datetime.date) -> str:
    """Why the progression that counts is not known although the sheet has another one; empty where it is.

    Raises:
        TheraflowError: the first progression is after a later one, or is one after the therapy that is not among those.
    """
    first, later = _date(row, FIRST_PROGRESSION), _date(row, PROGRESSION)
    if first and later and first > later:
        raise TheraflowError(
            f"patients.tsv: {FIRST_PROGRESSION} of {row['patient']} ({first}) is after {PROGRESSION} ({later}); "
            "correct one of the two."
        )
    if endpoint.progression == FIRST_PROGRESSION:
        return f"{PROGRESSION} without {FIRST_PROGRESSION}" if later and not first else ""
    if first and first > start and not later:
        raise TheraflowError(
            f"patients.tsv: {FIRST_PROGRESSION} of {row['patient']} ({first}) is after the therapy began ({start}), "
            f"but {PROGRESSION} is empty; write it there too."
        )
    return ""


def _date(row: Mapping[str, object], column: str) -> datetime.date | None:
    if _missing(row.get(column)):
        return None
    try:
        return datetime.date.fromisoformat(str(row[column]))
    except ValueError:
        raise TheraflowError(
            f"patients.tsv: {column} of {row['patient']} is {row[column]!r}; it must be a date as 2019-04-01."
        ) from None


def _missing(cell: object) -> bool:
    return cell is None or bool(pd.isna(cell))


def times_by_endpoint(survival: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """End point -> `patient`, `days`, `event` (bool) of the patients with a time; without any there is no entry."""
    known = survival.dropna(subset=["days"]).astype({"event": bool})
    return {
        name: own[["patient", "days", "event"]].reset_index(drop=True)
        for name, own in known.groupby("endpoint", sort=False)
    }


def fit_kaplan_meier(times: pd.DataFrame) -> "KaplanMeierFitter":
    """Kaplan-Meier estimate with log-log (exponential Greenwood) limits of `days` and `event`."""
    from lifelines import KaplanMeierFitter  # only here: it takes a second to load

    return KaplanMeierFitter().fit(times["days"], times["event"])


def confidence_limits(fit: "KaplanMeierFitter") -> pd.DataFrame:
    """Lower and upper log-log limit by time, columns `low` and `high`; NaN where S is 1 or 0, as in R's survfit.

    There log(-log S) is infinite; lifelines writes S itself, as if it were known without error.
    """
    curve = fit.survival_function_.iloc[:, 0]
    inside = (curve > _TOLERANCE) & (curve < 1 - _TOLERANCE)
    return fit.confidence_interval_.set_axis(["low", "high"], axis=1).where(inside, axis=0)


def median_time(curve: pd.Series) -> float:
    """Median of a step function of time by the midpoint convention.

    Where S equals 0.5 on an interval the median is its midpoint (R's survfit, SAS, Prism); packages that take an end of
    the interval (`median_ends`) give 65 or 143 d in place of 104 d for events at 28, 65, 143 and 176 d.

    Args:
        curve: survival (or one of its limits) indexed by time, not increasing; NaN where it is not defined.

    Returns:
        Time, or NaN where the curve does not reach 0.5.
    """
    first, last = median_ends(curve)
    return first if np.isnan(last) else (first + last) / 2


def median_ends(curve: pd.Series) -> tuple[float, float]:
    """First time with S <= 0.5 (the median of lifelines), and first time with S < 0.5 (of statsmodels).

    They differ where S equals 0.5 on an interval. NaN where S does not get there.
    """
    reached = curve[curve <= 0.5 + _TOLERANCE]
    passed = curve[curve < 0.5 - _TOLERANCE]
    first, last = (float(part.index[0]) if len(part) else np.nan for part in (reached, passed))
    return first, last


def compute_survival(survival: pd.DataFrame) -> pd.DataFrame:
    """Medians with intervals and all times (`+` marks a censored one), columns `COLUMNS`.

    Args:
        survival: as `list_survival` returns it.
    """
    rows = []
    for endpoint, own in survival.groupby("endpoint", sort=False):
        without = own[own["days"].isna()]
        row = {
            "endpoint": endpoint, "n": len(own) - len(without), "n_events": int(own["event"].sum()),
            "convention": CONVENTION, "n_missing": len(without),
            "missing": "; ".join(f"{row.patient}: {row.reason}" for row in without.itertuples()) or None,
        }  # fmt: skip
        for times in times_by_endpoint(own).values():
            fit = fit_kaplan_meier(times)
            curve, limits = fit.survival_function_.iloc[:, 0], confidence_limits(fit)
            first, last = median_ends(curve)
            row |= {
                "median_days": median_time(curve), "median_first_days": first, "median_last_days": last,
                "ci_low_days": median_time(limits["low"]), "ci_high_days": median_time(limits["high"]),
                "times_days": " ".join(f"{row.days:g}{'' if row.event else '+'}" for row in times.itertuples()),
            }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def list_curves(survival: pd.DataFrame) -> pd.DataFrame:
    """The Kaplan-Meier curves as steps, columns `CURVE_COLUMNS`; `n_at_risk` just before the time.

    Args:
        survival: as `list_survival` returns it.
    """
    tables = []
    for endpoint, times in times_by_endpoint(survival).items():
        fit = fit_kaplan_meier(times)
        limits = confidence_limits(fit)
        tables.append(pd.DataFrame({
            "endpoint": endpoint, "days": fit.event_table.index, "n_at_risk": fit.event_table["at_risk"].to_numpy(),
            "n_events": fit.event_table["observed"].to_numpy(), "n_censored": fit.event_table["censored"].to_numpy(),
            "survival": fit.survival_function_.iloc[:, 0].to_numpy(),
            "ci_low": limits["low"].to_numpy(), "ci_high": limits["high"].to_numpy(),
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(CURVE_COLUMNS))
