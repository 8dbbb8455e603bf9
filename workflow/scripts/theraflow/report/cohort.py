"""The report of the cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

import theraflow
from theraflow.cohort.comparisons import BASELINE
from theraflow.cohort.joined import read_lesions
from theraflow.files import read_json, write_text
from theraflow.report.display import (
    MISSING,
    Cell,
    Columns,
    Table,
    count,
    data_uri,
    fixed,
    is_missing,
    p_value,
    significant,
    templates,
    text,
    whole,
    with_sd,
    words,
)
from theraflow.tables import read_table

# A table with more rows is shown when asked for, and of one with more than that the first rows only.
LONG_TABLE, MOST_ROWS = 40, 200
MOST_BYTES = 2_000_000  # of a table for download within the page; a larger one lies beside it only
POOLED, SIGNIFICANT = "lesions, pooled", 0.05  # a group of statistics.tsv; and below which P something is shown
TITLES = {
    "detection": "Detection at baseline",
    "survival": "Survival",
    "response": "Response",
    "doses": "Dose coefficients",
    "lesions": "Lesions",
}
# What the page shows of tables that have more: the files hold it all.
SHOWN = {
    "response": (
        "patient", "criterion", "category", "baseline", "followup", "days_since_baseline", "measure",
        "measure_baseline", "measure_followup", "change_percent", "new_lesions", "comparable", "remark",
    ),
    "doses": (
        "patient", "region", "kind", "nuclide", "mass_g", "n_timepoints", "model", "t_eff_h", "tia_h",
        "dose_gy_per_gbq", "sd_gy_per_gbq",
    ),
    "lesions": (
        "patient", "scan", "tracer", "timepoint", "lesion", "site", "positive", "suv_peak", "suv_max", "tbr",
        "volume_ml", "tlg_ml", "concordance", "registration", "source",
    ),
}  # fmt: skip
COLUMN_TITLES = {
    "days_since_baseline": "days", "change_percent": "change, %", "mass_g": "mass, g", "n_timepoints": "points",
    "t_eff_h": "T½ eff, h", "tia_h": "TIA, h", "dose_gy_per_gbq": "Gy/GBq", "sd_gy_per_gbq": "sd, Gy/GBq",
    "suv_peak": "SUV peak", "suv_max": "SUV max", "tbr": "TBR", "volume_ml": "mL", "tlg_ml": "TLG, SUV × mL",
    "n": "n", "n_positive": "positive", "n_lesions": "lesions", "n_patients": "patients", "n_events": "events",
    "n_missing": "without time", "median_days": "median, d", "ci_low_days": "95 % from, d", "ci_high_days": "to, d",
    "times_days": "times, d", "median_first_days": "first, d", "median_last_days": "last, d",
    "ci_low": "95 % from", "ci_high": "to", "ci_low_clustered": "clustered from", "ci_high_clustered": "clustered to",
}  # fmt: skip
NOTES = {
    "comparisons": (
        "a and b are the two sides of a comparison; the difference is a − b, with the interval that belongs to the "
        "test. “Lesions, pooled” treats the lesions of one patient as independent, which makes P too small where they "
        "are alike; “clustered by patient” (Rosner, Glynn and Lee) and “patients” (sign flips of one mean a patient) "
        "do not. “Smallest P” is the least that a test can reach with so few. P values are two-sided; “P (Holm)” is "
        "adjusted for the number of comparisons over the same group of values."
    ),
    "effects": (
        "Rank-biserial correlation: 1 where every difference is positive, −1 where every one is negative. Limits of "
        "agreement: where 95 % of the differences of single lesions lie. Intervals over patients are those of the "
        "jackknife and, beside it, of the bootstrap, which is too narrow with few patients."
    ),
    "descriptions": ("Median with range, mean with standard deviation, P of the Shapiro-Wilk test of normality."),
    "detection": (
        "Of the lesions positive with at least one tracer at baseline; Wilson 95 % intervals. A tracer's "
        "number of lesions leaves out those that it did not assess (not given, out of the field of view, or on a "
        "scan whose registration has failed). The clustered interval counts lesions of one patient as less than "
        "independent (Rao and Scott); without an entry they do not tell how much they are alike."
    ),
    "survival": (
        "Median by the midpoint convention: where the curve is exactly 0.5 over an interval, its midpoint; “first” and "
        "“last” are the ends of that interval, which other programs call the median. Intervals are log-log. "
        "Times marked + are censored; days."
    ),
}


def write_cohort_report(
    cohort_folder: Path | str,
    included: Sequence[str],
    missing: Sequence[tuple[str, str]],
    output: Path | str,
) -> None:
    """Write the cohort's report, one HTML file that links to the patients' reports.

    Args:
        cohort_folder: `results/cohort` with its tables, `figures/` and `methods.txt`.
        included: identifiers of the patients in the tables; their reports are at `../{patient}/report.html`.
        missing: (identifier, reason) of the patients that are not.
        output: the HTML file.

    Raises:
        TheraflowError: a table is missing or cannot be read.
    """
    folder = Path(cohort_folder)
    tables = {name: read_table(folder / f"{name}.tsv") for name in ("statistics", *TITLES)}
    figures = read_table(folder / "figures" / "figures.tsv")
    page = {
        "title": "Cohort report",
        "subtitle": f"{len(included)} of {count(len(included) + len(missing), 'patient')}",
        "version": theraflow.__version__,
        "miniature": _is_miniature(folder.parent, included),
        "patients": _patient_table(included, folder, tables) if included else None,
        "missing": list(missing),
        "unregistered": _unregistered(tables["lesions"]),
        "facts": _facts(tables, included),
        "methods": _methods(folder / "methods.txt"),
        "figures": _figures(folder / "figures", figures),
        "not_drawn": _not_drawn(figures),
        "parts": [
            *_statistics_parts(tables["statistics"], folder),
            *(_part(name, tables[name], folder) for name in TITLES),
        ],
    }
    write_text(templates().get_template("cohort.html").render(page), output)


@dataclass(frozen=True)
class Part:
    """A table of the page and what stands around it.

    Attributes:
        anchor: name of the place on the page.
        title: heading.
        table: as shown; with the file for download where the page holds it.
        note: what the columns mean.
        rows: of the whole table, of which the page may show only the first.
        files: names of the files beside the page that hold it.
    """

    anchor: str
    title: str
    table: Table
    note: str
    rows: int
    files: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        """Whether it is shown only when asked for."""
        return self.rows > LONG_TABLE


def _statistics_parts(statistics: pd.DataFrame, folder: Path) -> list[Part]:
    """What `statistics.tsv` holds, as three tables; under the last one is the whole for download."""
    alone = statistics["effect_name"].isna()
    compared = statistics["family"].fillna("").str.startswith("paired")
    within_reach = " ".join([NOTES["comparisons"], *_within_reach(statistics[compared])])
    tables = (
        ("comparisons", "Comparisons", _show_comparisons(statistics[compared]), within_reach),
        ("effects", "Effects, agreement and association", _show_effects(statistics[~alone & ~compared]),
         NOTES["effects"]),
        ("descriptions", "Descriptions", _with_file(_show_descriptions(statistics[alone]), folder / "statistics.tsv"),
         NOTES["descriptions"]),
    )  # fmt: skip
    return [
        Part(anchor, title, table, words, len(table.rows), _files(folder, "statistics"))
        for anchor, title, table, words in tables
    ]


def _part(name: str, table: pd.DataFrame, folder: Path) -> Part:
    shown = _with_file(_show(name, table.head(MOST_ROWS)), folder / f"{name}.tsv")
    return Part(name, TITLES[name], shown, NOTES.get(name, ""), len(table), _files(folder, name))


def _with_file(table: Table, file: Path) -> Table:
    """The table with the file to download, unless that would make the page unwieldy."""
    if file.stat().st_size > MOST_BYTES:
        return table
    return replace(table, name=file.stem, tsv=file.read_text(encoding="utf-8"))


def _files(folder: Path, name: str) -> tuple[str, ...]:
    """The files beside the page that hold a table: for spreadsheets, and for programs where it was made."""
    return tuple(file for file in (f"{name}.tsv", f"{name}.parquet") if (folder / file).is_file())


def _patient_table(included: Sequence[str], folder: Path, tables: Mapping[str, pd.DataFrame]) -> Table:
    """A row a patient: the reports, lesions at baseline, response, and the highest dose of a lesion."""
    columns = Columns()
    columns.add("Patient", [_link(patient, "report.html", patient) for patient in included])
    columns.add("For paper", [_link(patient, "report.pdf", "PDF") for patient in included])
    lesions, response, doses = (tables[name] for name in ("lesions", "response", "doses"))
    number = lesions.groupby("patient")["lesion"].nunique()
    columns.add("Lesions", [whole(number.get(patient, 0)) for patient in included], numeric=True)
    tracers = list(lesions.loc[lesions["suv_peak"].notna(), "tracer"].unique())
    seen = read_lesions(folder / "lesions.tsv", tracers)
    groups = [("", 3)]
    for tracer, own in seen[seen["timepoint"] == BASELINE].groupby("tracer", sort=False):
        rows = _by_patient(own, included)
        columns.add("Positive", [_positive(row["positive"]) for row in rows], numeric=True)
        columns.add("SUV peak up to", [fixed(row["suv_peak"].max()) for row in rows], numeric=True)
        groups.append((f"{tracer}, {BASELINE}", 2))
    judged = response[response["category"].notna()]
    criteria = list(judged["criterion"].unique())
    for criterion in criteria:
        rows = _by_patient(judged[judged["criterion"] == criterion], included)
        columns.add(criterion, [_categories(row) for row in rows])
    groups += [("Response", len(criteria))] if criteria else []
    # Of each patient the therapy's nuclide is last.
    therapy = doses["patient"].map(doses.groupby("patient")["nuclide"].last())
    treated = doses[(doses["kind"] == "lesion") & (doses["nuclide"] == therapy) & doses["dose_gy_per_gbq"].notna()]
    for nuclide, own in treated.groupby("nuclide", sort=False):
        highest = [row["dose_gy_per_gbq"].max() for row in _by_patient(own, included)]
        columns.add("Highest, Gy/GBq", [significant(value) for value in highest], numeric=True)
        groups.append((f"Lesion dose, {nuclide}", 1))
    return columns.table(groups)


def _by_patient(table: pd.DataFrame, patients: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of each patient, none where there are none."""
    found = dict(list(table.groupby("patient")))
    return [found.get(patient, table.iloc[:0]) for patient in patients]


def _link(patient: str, file: str, words: str) -> Cell:
    """A link to a file of a patient, sorted by the patient."""
    return Cell(Markup('<a href="../{}/{}">{}</a>').format(quote(patient), file, words), patient)


def _positive(positive: pd.Series) -> Cell:
    """How many of the lesions that were assessed are positive, and how many were not assessed."""
    if positive.empty:
        return Cell(MISSING)
    number, assessed = int(positive.sum()), int(positive.notna().sum())
    left = len(positive) - assessed
    return Cell(f"{number} of {assessed}" + (f", {left} not assessed" if left else ""), float(number))


def _categories(response: pd.DataFrame) -> Cell:
    """The category of the follow-up; of several each with its scan."""
    if len(response) > 1:
        told = zip(response["category"], response["followup"], strict=True)
        return text(", ".join(f"{category} ({scan})" for category, scan in told))
    return text(response["category"].iloc[0], "strong") if len(response) else Cell(MISSING)


def _unregistered(lesions: pd.DataFrame) -> list[str]:
    """`patient scan` of every scan in the table whose registration has failed."""
    if "registration" not in lesions:
        return []
    failed = lesions.loc[lesions["registration"] == "failed", ["patient", "scan"]].drop_duplicates()
    return [f"{row.patient} {row.scan}" for row in failed.itertuples()]


def _is_miniature(results: Path, patients: Sequence[str]) -> bool:
    sidecars = [path for patient in patients for path in (results / patient / "scans").glob("*/organs.json")]
    return any(read_json(path).get("miniature_model") for path in sidecars)


def _facts(tables: dict[str, pd.DataFrame], included: Sequence[str]) -> list[tuple[str, str, str]]:
    lesions = len(tables["lesions"][["patient", "lesion"]].drop_duplicates())
    facts = [("Patients", str(len(included)), ""), ("Lesions", str(lesions), "")]
    for row in tables["detection"].itertuples():
        rate = "" if is_missing(row.rate) else f"{100 * row.rate:.1f} %"
        facts.append((f"Lesions seen by {row.tracer}", f"{row.n_positive} of {row.n_lesions}", rate))
    for row in tables["survival"].query("n > 0").itertuples():
        value = "not reached" if is_missing(row.median_days) else f"{row.median_days:g} d"
        facts.append((f"Median {row.endpoint}", value, f"{row.n_events} events of {row.n}"))
    return facts


def _methods(file: Path) -> list[tuple[str, str]]:
    """Heading and words of each part of the methods."""
    parts = [" ".join(part.split()).partition(". ") for part in file.read_text(encoding="utf-8").split("\n\n")]
    return [(head, words) for head, _, words in parts]


@dataclass(frozen=True)
class Shown:
    """A figure of the page: its name in words and on disk, its caption, and the URI of its picture."""

    name: str
    file: str
    caption: str
    uri: str


def _figures(folder: Path, table: pd.DataFrame) -> list[Shown]:
    shown = []
    for row in table[table["drawn"]].itertuples():
        uri = data_uri((folder / f"{row.figure}.svg").read_bytes(), "image/svg+xml")
        name = row.figure.replace("_", " ").replace("bland altman", "Bland-Altman plot")
        shown.append(Shown(f"{name[:1].upper()}{name[1:]}", row.figure, row.caption, uri))
    return shown


def _not_drawn(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and reason of every figure without data."""
    return [(row.figure.replace("_", " "), row.reason) for row in table[~table["drawn"]].itertuples()]


def _show(name: str, table: pd.DataFrame) -> Table:
    """A table of the cohort on the page, rounded."""
    numbers = {column for column in table.columns if pd.api.types.is_numeric_dtype(table[column])
               and not pd.api.types.is_bool_dtype(table[column])}  # fmt: skip
    wanted = SHOWN.get(name, table.columns)
    columns = [column for column in wanted if column in table.columns and (name, column) not in HIDDEN]
    rows = [[_cell(name, column, value, numbers) for column, value in zip(columns, row, strict=True)]
            for row in table[columns].itertuples(index=False)]  # fmt: skip
    numeric = frozenset(i for i, column in enumerate(columns) if column in numbers)
    return Table([COLUMN_TITLES.get(column, column.replace("_", " ")) for column in columns], rows, numeric)


NAMES = {"site", "background_region", "region", "kind"}  # the program's own, shown with spaces
HIDDEN = {("survival", "convention")}  # said in the notes


def _cell(name: str, column: str, value: Any, numbers: set[str]) -> Cell:
    if column not in numbers:
        return words(value) if column in NAMES else text(value)
    if column.startswith("n_") or column in ("n", "new_lesions", "days_since_baseline"):
        return whole(value)
    if column.endswith("_days"):
        return Cell(MISSING) if is_missing(value) else Cell(f"{value:g}", float(value))
    if name == "detection":
        return fixed(value, 3)
    if column.startswith("suv") or column in ("tbr", "volume_ml"):
        return fixed(value)
    return significant(value)


def _within_reach(comparisons: pd.DataFrame) -> list[str]:
    """A sentence per number of patients with which no test over patients can reach P < 0.05."""
    tested = comparisons[(comparisons["group"] != POOLED) & comparisons["p_value"].notna()]
    small = tested[tested["smallest_p_value"] > SIGNIFICANT]
    least = small.groupby("n_patients")["smallest_p_value"].min()
    return [
        f"With {count(int(number), 'patient')} no test over patients can reach a P below {least[number]:.3g}."
        for number in least.index
    ]


def _show_descriptions(table: pd.DataFrame) -> Table:
    columns = Columns()
    _add_words(columns, table)
    columns.add("Median (range)", [_median(row, "a") for row in table.itertuples()], numeric=True)
    columns.add("Mean ± SD", [with_sd(row.mean_a, row.sd_a) for row in table.itertuples()], numeric=True)
    columns.add("P of normality", [p_value(value) for value in table["p_value"]], numeric=True)
    columns.add("Note", [text(value) for value in table["note"]])
    return columns.table()


def _show_comparisons(table: pd.DataFrame) -> Table:
    columns = Columns()
    _add_words(columns, table)
    for side in ("a", "b"):
        columns.add(f"Median {side} (range)", [_median(row, side) for row in table.itertuples()], numeric=True)
    columns.add("Difference (95 % interval)", [_effect(row) for row in table.itertuples()], numeric=True)
    columns.add("Test", [text(value) for value in table["test"]])
    _add_p(columns, table)
    columns.add("Note", [text(value) for value in table["note"]])
    return columns.table()


def _show_effects(table: pd.DataFrame) -> Table:
    columns = Columns()
    _add_words(columns, table)
    columns.add("Measure", [text(value) for value in table["effect_name"]])
    columns.add("Value (95 % interval)", [_effect(row) for row in table.itertuples()], numeric=True)
    columns.add("Bootstrap interval", [_interval(row.bootstrap_low, row.bootstrap_high) for row in table.itertuples()])
    _add_p(columns, table)
    columns.add("Note", [text(value) for value in table["note"]])
    return columns.table()


def _add_p(columns: Columns, table: pd.DataFrame) -> None:
    for title, column in (("P", "p_value"), ("P (Holm)", "p_holm"), ("Smallest P", "smallest_p_value")):
        if table[column].notna().any():
            columns.add(title, [p_value(value) for value in table[column]], numeric=True)


def _add_words(columns: Columns, table: pd.DataFrame) -> None:
    columns.add("What", [text(value, "strong") for value in table["comparison"]])
    columns.add("Over", [words(value) for value in table["group"]])
    columns.add("n", [whole(value) for value in table["n"]], numeric=True)
    columns.add("Patients", [whole(value) for value in table["n_patients"]], numeric=True)


def _median(row: Any, side: str) -> Cell:
    median, spread = getattr(row, f"median_{side}"), getattr(row, f"range_{side}")
    if is_missing(median):
        return Cell(MISSING)
    low, high = (significant(float(part)).text for part in str(spread).split(" to "))
    return Cell(f"{significant(median).text} ({low} to {high})", float(median))


def _effect(row: Any) -> Cell:
    if is_missing(row.effect):
        return Cell(MISSING)
    interval = "no interval" if is_missing(row.ci_low) else _interval(row.ci_low, row.ci_high).text
    return Cell(f"{significant(row.effect).text} ({interval})", float(row.effect))


def _interval(low: Any, high: Any) -> Cell:
    if is_missing(low) or is_missing(high):
        return Cell(MISSING)
    return Cell(f"{significant(low).text} to {significant(high).text}", float(low))
