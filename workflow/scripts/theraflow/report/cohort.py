"""The report of the cohort."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

import theraflow
from theraflow.files import read_json, write_text
from theraflow.report.display import (
    MISSING,
    Cell,
    Columns,
    Table,
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

LONG_TABLE = 40
CAPTIONS = {
    "paired_uptake": (
        "Uptake of the lesions positive on both tracers at baseline. A line is a lesion, a colour a patient, "
        "a bar the median over lesions."
    ),
    "change": (
        "Uptake before and after therapy of the lesions positive at baseline. A line is a lesion, a colour a "
        "patient, a bar the median over lesions."
    ),
    "dose_coefficients": (
        "Absorbed dose per administered activity. A point is an organ of a patient or a lesion; bars are medians."
    ),
    "survival": ("Kaplan-Meier estimate with 95 % log-log band, censored patients as ticks, patients at risk below."),
}
TITLES = {
    "detection": "Detection at baseline",
    "survival": "Survival from therapy",
    "response": "Response",
    "doses": "Dose coefficients",
    "lesions": "Lesions",
}
NOTES = {
    "comparisons": (
        "a and b are the two sides of a comparison; the difference is that of Hodges and Lehmann, a − b. "
        "P values are two-sided, as computed, not adjusted for multiplicity. “Lesions, pooled” treats the "
        "lesions of one patient as independent, which makes P too small where they are alike; “patients” "
        "compares one mean a patient. “Smallest P” is the least that a test can reach with so few."
    ),
    "descriptions": ("Median with range, mean with standard deviation, P of the Shapiro-Wilk test of normality."),
    "detection": (
        "Of the lesions positive with at least one tracer at baseline; Wilson 95 % intervals. A tracer's "
        "number of lesions leaves out those that it did not assess (not given, out of the field of view, or on a "
        "scan whose registration has failed)."
    ),
    "survival": (
        "Median by the midpoint convention: where the curve is exactly 0.5 over an interval, its midpoint. "
        "Times marked + are censored."
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
        cohort_folder: `results/cohort` with the tables and figures of `summarise_cohort`.
        included: identifiers of the patients in the tables; their reports are at `../{patient}/report.html`.
        missing: (identifier, reason) of the patients that are not.
        output: the HTML file.

    Raises:
        TheraflowError: a table is missing or cannot be read.
    """
    folder = Path(cohort_folder)
    tables = {name: read_table(folder / f"{name}.tsv") for name in ("statistics", *TITLES)}
    files = {name: (folder / f"{name}.tsv").read_text(encoding="utf-8") for name in tables}
    described, compared = _split_statistics(tables["statistics"], files["statistics"])
    shown = [
        ("Comparisons", compared, NOTES["comparisons"], False),
        ("Descriptions", described, NOTES["descriptions"], False),
    ]
    shown += [
        (title, _show(name, tables[name], files[name]), NOTES.get(name, ""), len(tables[name]) > LONG_TABLE)
        for name, title in TITLES.items()
    ]
    page = {
        "title": "Cohort report",
        "subtitle": f"{len(included)} of {len(included) + len(missing)} patients",
        "version": theraflow.__version__,
        "miniature": _is_miniature(folder.parent, included),
        "included": [(patient, f"../{quote(patient)}/report.html") for patient in included],
        "missing": list(missing),
        "unregistered": _unregistered(tables["lesions"]),
        "facts": _facts(tables, included),
        "methods": describe_methods(tables, included, missing),
        "figures": _figures(folder / "figures"),
        "tables": shown,
    }
    write_text(templates().get_template("cohort.html").render(page), output)


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
    facts = [("Patients", str(len(included)), "")]
    for row in tables["detection"].itertuples():
        rate = "" if is_missing(row.rate) else f"{100 * row.rate:.1f} %"
        facts.append((f"Lesions seen by {row.tracer}", f"{row.n_positive} of {row.n_lesions}", rate))
    for row in tables["survival"].itertuples():
        value = "not reached" if is_missing(row.median_days) else f"{row.median_days:g} d"
        facts.append((f"Median {row.endpoint}", value, f"{row.n_events} events of {row.n}"))
    return facts


def describe_methods(
    tables: dict[str, pd.DataFrame], included: Sequence[str], missing: Sequence[tuple[str, str]]
) -> str:
    """The methods of what is really in the tables, as a paragraph."""
    lesions, doses, response = tables["lesions"], tables["doses"], tables["response"]
    evaluated = f"{_count(len(included), 'patient')} {'was' if len(included) == 1 else 'were'} evaluated"
    sentences = [f"{evaluated}; {len(missing)} could not be (see above)" if missing else evaluated]
    uptake = lesions.dropna(subset=["suv_peak"])
    if len(uptake):
        number = _count(len(uptake[["patient", "lesion"]].drop_duplicates()), "lesion")
        sentences.append(
            f"Uptake of {number} was measured with {' and '.join(uptake['tracer'].unique())} as SUVbw on the "
            "voxels of each scan; SUVpeak is the highest mean of a 1 cm³ sphere (PERCIST)"
        )
        regions = uptake["background_region"].dropna().unique()
        if len(regions):
            region = " or ".join(regions).replace("_", " ")
            sentences.append(f"The tumour-to-background ratio (TBR) is SUVpeak over the mean SUV of {region}")
        sentences.append(
            "Values are given as median and range, and mean and standard deviation; normality was tested by "
            "Shapiro-Wilk; detection rates have Wilson intervals"
        )
    statistics = tables["statistics"]
    if (statistics["effect_name"].notna() & (statistics["n"] > 0)).any():
        sentences.append(
            "Paired values were compared by the Wilcoxon signed-rank test over lesions (zero differences "
            "left out) and by a sign-flip test of patient means, with the Hodges-Lehmann difference and its "
            "95 % interval"
        )
    if len(doses):
        sentences.append(
            f"Absorbed doses per administered activity of {' and '.join(doses['nuclide'].unique())} follow "
            "the MIRD scheme, from time-activity curves with the physical decay held fixed"
        )
    if len(response):
        sentences.append(f"Response was judged by {' and '.join(response['criterion'].unique())}")
    if len(tables["survival"]):
        sentences.append("Survival from therapy was estimated by Kaplan-Meier with log-log intervals")
    return f"{'. '.join(sentences)}. Computed with theraflow {theraflow.__version__}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _figures(folder: Path) -> list[tuple[str, str, str]]:
    """Data URI, name and caption of every figure."""
    return [
        (data_uri(path.read_bytes(), "image/png"), path.stem.replace("_", " "), caption)
        for start, caption in CAPTIONS.items()
        for path in sorted(folder.glob(f"{start}*.png"))
    ]


def _show(name: str, table: pd.DataFrame, file: str) -> Table:
    """A table of the cohort on the page, rounded, with the file itself to download."""
    numbers = {column for column in table.columns if pd.api.types.is_numeric_dtype(table[column])
               and not pd.api.types.is_bool_dtype(table[column])}  # fmt: skip
    columns = [column for column in table.columns if (name, column) not in HIDDEN]
    rows = [[_cell(name, column, value, numbers) for column, value in zip(columns, row, strict=True)]
            for row in table[columns].itertuples(index=False)]  # fmt: skip
    numeric = frozenset(i for i, column in enumerate(columns) if column in numbers)
    titles = [column.replace("_", " ") for column in columns]
    return Table(titles, rows, numeric, (), name, file)


NAMES = {"site", "background_region", "region", "kind"}  # the program's own, shown with spaces
# Said in the notes, or the same in every row: in the download only.
HIDDEN = {("survival", "convention"), ("doses", "method")}


def _cell(name: str, column: str, value: Any, numbers: set[str]) -> Cell:
    if column not in numbers:
        return words(value) if column in NAMES else text(value)
    if column.startswith("n_") or column in ("n", "label", "new_lesions"):
        return whole(value)
    if name == "detection":
        return fixed(value, 3)
    if column.startswith("suv") or column in ("tbr", "volume_ml"):
        return fixed(value)
    return significant(value)


def _split_statistics(table: pd.DataFrame, file: str) -> tuple[Table, Table]:
    """Descriptions of one group, and comparisons of two; the former offer the whole table for download."""
    paired = table["effect_name"].notna()
    alone, pairs = table[~paired], table[paired]
    columns = Columns()
    _add_words(columns, alone)
    columns.add("Median (range)", [_median(row, "a") for row in alone.itertuples()], numeric=True)
    columns.add("Mean ± SD", [with_sd(row.mean_a, row.sd_a) for row in alone.itertuples()], numeric=True)
    columns.add("P of normality", [p_value(value) for value in alone["p_value"]], numeric=True)
    columns.add("Note", [text(value) for value in alone["note"]])
    described = replace(columns.table(), name="statistics", tsv=file)
    columns = Columns()
    _add_words(columns, pairs)
    for side in ("a", "b"):
        columns.add(f"Median {side} (range)", [_median(row, side) for row in pairs.itertuples()], numeric=True)
    columns.add("Difference (95 % interval)", [_effect(row) for row in pairs.itertuples()], numeric=True)
    columns.add("Test", [text(value) for value in pairs["test"]])
    columns.add("P", [p_value(value) for value in pairs["p_value"]], numeric=True)
    columns.add("Smallest P", [p_value(value) for value in pairs["smallest_p_value"]], numeric=True)
    columns.add("Note", [text(value) for value in pairs["note"]])
    return described, columns.table()


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
    interval = "no interval"
    if not is_missing(row.ci_low):
        interval = f"{significant(row.ci_low).text} to {significant(row.ci_high).text}"
    return Cell(f"{significant(row.effect).text} ({interval})", float(row.effect))
