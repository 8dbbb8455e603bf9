"""Tables for R and other programs: long, one observation a row, with a table that explains every column."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from theraflow.cohort.comparisons import PAIR_COLUMNS, Kind
from theraflow.cohort.survival import CURVE_COLUMNS, ENDPOINTS, TIME_COLUMNS
from theraflow.tables import write_table

# Column, its type in R, levels of a factor (in their order; empty: as they come), what it is.
_ENDPOINT = ("endpoint", "factor", [endpoint.name for endpoint in ENDPOINTS], "what is waited for, and from when")
COLUMNS: Mapping[str, list[tuple[str, str, list[str], str]]] = {
    "pairs": [
        ("comparison", "factor", [], "name, as in statistics.tsv"),
        ("kind", "factor", [kind.value for kind in Kind], "between tracers, between times, or of dose or expression"),
        ("measure", "factor", [], "what is compared"),
        ("side_a", "character", [], "what a is"),
        ("side_b", "character", [], "what b is"),
        ("patient", "factor", [], "cluster of the lesions"),
        ("lesion", "character", [], "name in lesions.tsv; NA: the pair is of the patient"),
        ("a", "numeric", [], "first value; SUV in g/mL, dose in Gy, expression in % of cells"),
        ("b", "numeric", [], "second value; change in %"),
    ],
    "survival_times": [
        _ENDPOINT,
        ("patient", "factor", [], ""),
        ("days", "numeric", [], "time from the origin; NA: see reason"),
        ("event", "numeric", [], "1: it happened at days; 0: censored at days"),
        ("reason", "character", [], "why there is no time"),
    ],
    "survival_curves": [
        _ENDPOINT,
        ("days", "numeric", [], "time of a step, and 0"),
        ("n_at_risk", "numeric", [], "patients at risk just before"),
        ("n_events", "numeric", [], "events at that time"),
        ("n_censored", "numeric", [], "patients censored at that time"),
        ("survival", "numeric", [], "Kaplan-Meier estimate from that time on"),
        ("ci_low", "numeric", [], "lower 95 % log-log limit; NA where the estimate is 1 or 0"),
        ("ci_high", "numeric", [], "upper 95 % log-log limit"),
    ],
}
EXPORTED = {"pairs": PAIR_COLUMNS, "survival_times": TIME_COLUMNS, "survival_curves": CURVE_COLUMNS}


def export_tables(tables: Mapping[str, pd.DataFrame], folder: Path | str) -> None:
    """Write `pairs.tsv`, `survival_times.tsv`, `survival_curves.tsv` and `columns.tsv`, which says what is in them.

    Args:
        tables: by the names of `EXPORTED`.
        folder: `results/cohort`.
    """
    folder = Path(folder)
    for name, columns in EXPORTED.items():
        write_table(tables[name], folder / f"{name}.tsv", columns)
    rows = [
        (table, column, kind, "|".join(levels) or None, meaning or None)
        for table, columns in COLUMNS.items()
        for column, kind, levels, meaning in columns
    ]
    header = ["table", "column", "type", "levels", "meaning"]
    write_table(pd.DataFrame(rows, columns=header), folder / "columns.tsv", header)
