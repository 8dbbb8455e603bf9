"""Progression-free and overall survival from therapy: `survival.tsv`."""

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter

from theraflow.errors import TheraflowError

COLUMNS = (
    "endpoint", "n", "n_events", "median_days", "ci_low_days", "ci_high_days", "convention", "times_days",
)  # fmt: skip
ENDPOINTS = {"PFS from therapy": ("pfs_days", "pfs_event"), "OS from therapy": ("os_days", "os_event")}
CONVENTION = (
    "Kaplan-Meier; median: first time with S < 0.5, or the midpoint of the interval where S = 0.5; "
    "95 % interval from the log-log limits of S, which end at 0 where S does; NA: not reached or not defined"
)
_TOLERANCE = 1e-8


def read_survival(patients: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Times and events per end point that the sheet holds.

    Args:
        patients: `patients.tsv`; an end point needs both its columns (days, and event as 1 or 0). Patients
            without time are left out (not treated).

    Returns:
        End point -> columns `patient`, `days`, `event` (bool), sorted by time. End points without patients
        are absent.

    Raises:
        TheraflowError: a time is negative or no number, or an event is neither 0 nor 1.
    """
    found = {}
    for endpoint, (days, event) in ENDPOINTS.items():
        if not {days, event} <= set(patients.columns):
            continue
        rows = patients[["patient", days, event]].set_axis(["patient", "days", "event"], axis=1)
        rows = rows.dropna(subset=["days"])
        for column, name, allowed in (
            ("days", days, lambda x: x >= 0),
            ("event", event, lambda x: x.isin([0, 1])),
        ):
            text = rows[column].astype(str).map(lambda cell: {"True": "1", "False": "0"}.get(cell, cell))
            numbers = pd.to_numeric(text, errors="coerce")
            wrong = rows["patient"][~(numbers.notna() & allowed(numbers))]
            if len(wrong):
                what = "a number of days >= 0" if column == "days" else "1 (event) or 0 (censored)"
                raise TheraflowError(f"patients.tsv: {name} of {', '.join(wrong)} must be {what}.")
            rows[column] = numbers
        if len(rows):
            found[endpoint] = rows.astype({"event": bool}).sort_values("days", ignore_index=True)
    return found


def fit_kaplan_meier(times: pd.DataFrame) -> KaplanMeierFitter:
    """Kaplan-Meier estimate with log-log (exponential Greenwood) limits of `days` and `event`."""
    return KaplanMeierFitter().fit(times["days"], times["event"])


def median_time(curve: pd.Series) -> float:
    """Median of a step function of time by the midpoint convention.

    Where S equals 0.5 on an interval the median is its midpoint (R's survfit, SAS, Prism); packages that
    take an end of the interval give 65 or 143 d in place of 104 d for events at 28, 65, 143 and 176 d.

    Args:
        curve: survival (or one of its limits) indexed by time, not increasing.

    Returns:
        Time, or NaN where the curve does not reach 0.5.
    """
    reached = curve[curve <= 0.5 + _TOLERANCE]
    if reached.empty:
        return np.nan
    first = float(reached.index[0])
    below = reached[reached < reached.iloc[0] - _TOLERANCE]
    if abs(reached.iloc[0] - 0.5) <= _TOLERANCE and len(below):
        return (first + float(below.index[0])) / 2
    return first


def compute_survival(survival: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Medians with intervals and all times (`+` marks a censored one), columns `COLUMNS`."""
    rows = []
    for endpoint, times in survival.items():
        fit = fit_kaplan_meier(times)
        curve = fit.survival_function_.iloc[:, 0]
        limits = fit.confidence_interval_
        # Without a step between 1 and 0 there is no Greenwood variance; the limits would be one point.
        if not ((curve > 0) & (curve < 1)).any():
            limits = limits * np.nan
        rows.append(
            {
                "endpoint": endpoint,
                "n": len(times),
                "n_events": int(times["event"].sum()),
                "median_days": median_time(curve),
                "ci_low_days": median_time(limits.iloc[:, 0]),
                "ci_high_days": median_time(limits.iloc[:, 1]),
                "convention": CONVENTION,
                "times_days": " ".join(f"{row.days:g}{'' if row.event else '+'}" for row in times.itertuples()),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))
