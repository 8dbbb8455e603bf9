"""Tidy tables as Parquet, with the type, unit and meaning of every column in the file."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import theraflow
from theraflow.errors import TheraflowError
from theraflow.files import whole
from theraflow.tables import NAMES

MISSING = ("NA", "")
TRUTH = {"True": True, "False": False}
NUMBER = r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf)"
# The type of a column is the same in every cohort, whatever it holds there, so that the tables of two cohorts lie one
# below the other: whole numbers where something is counted or numbered, float64 for all other numbers.
WHOLE = re.compile(
    r"n|n_.+|label|cycle|day|parts|new_lesions|event|.+_event|grade|grade_.+|intensity|percentage_points|score|"
    r"days_since_baseline"
)
FLOAT = re.compile(
    r"a|b|value|tbr|rate|effect|statistic|(smallest_)?p_value|p_holm|survival|confidence|design_effect|volume_change|"
    r"(median|mean|sd)_[ab]|(ci|bootstrap)_(low|high)(_clustered)?|(measure|exploratory)_(baseline|followup|nadir)|"
    r"measurable_from|lln|uln"
)
TRUE_OR_FALSE = re.compile(r"positive")
# Words, also where they look like numbers.
WORDS = {*NAMES, "specimen", "tissue", "marker", "parameter", "term", "times_days", "exponentials"}
# UCUM units by what a column's name ends with, the longest first.
UNITS = {
    "_gy_per_gbq": "Gy/GBq", "_percent": "%", "_years": "a", "_days": "d", "_gbq": "GBq", "_mbq": "MBq", "_gy": "Gy",
    "_ml": "mL", "_mm": "mm", "_hu": "[hnsf'U]", "_g": "g", "_h": "h", "_y": "a",
}  # fmt: skip
OWN_UNITS = {"tlg_ml": "g", "tia_h": "h", "days": "d"}  # SUV in g/mL times mL; Bq h per Bq
SUV = re.compile(r"(suv|sul)_.+|.+_suv")  # g/mL


def unit_of(column: str) -> str | None:
    """UCUM unit of a column by its name, or None.

    Args:
        column: its name, which ends with the unit as in all tables of theraflow.
    """
    if column in OWN_UNITS:
        return OWN_UNITS[column]
    if SUV.fullmatch(column):
        return "g/mL"
    return next((unit for ending, unit in UNITS.items() if column.endswith(ending)), None)


def to_arrow(cells: pd.Series) -> pa.Array:
    """The cells of a column of a TSV in the type that they have.

    Words stay words where one cell is none of a number, True, False and NA. A column without any value has the type
    that its name says, else text.

    Args:
        cells: text, named as the column.
    """
    name, there = str(cells.name), cells[~cells.isin(MISSING)]
    empty = not len(there)
    whole_number, number = bool(WHOLE.fullmatch(name)), bool(FLOAT.fullmatch(name) or unit_of(name))
    if name in WORDS:
        return _array(cells, str, pa.string())
    if TRUE_OR_FALSE.fullmatch(name) if empty else there.isin(list(TRUTH)).all():
        return _array(cells, TRUTH.__getitem__, pa.bool_())
    if (whole_number or number) if empty else there.str.fullmatch(NUMBER).all():
        if whole_number and all(float(cell).is_integer() for cell in there):
            return _array(cells, lambda cell: int(float(cell)), pa.int64())
        return _array(cells, float, pa.float64())
    return _array(cells, str, pa.string())


def _array(cells: pd.Series, read: Callable[[str], Any], kind: pa.DataType) -> pa.Array:
    return pa.array([None if cell in MISSING else read(cell) for cell in cells], type=kind)


def write_parquet(source: Path | str, path: Path | str, meanings: Mapping[str, str]) -> None:
    """Write a TSV as Parquet: the same columns and values, `NA` as null; the same bytes for the same table.

    Each field carries its `unit` (UCUM) and `meaning` as metadata where they are known.

    Args:
        source: the TSV.
        path: the Parquet file.
        meanings: by column, what it is.

    Raises:
        TheraflowError: the TSV cannot be read.
    """
    source = Path(source)
    try:
        table = pd.read_csv(source, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise TheraflowError(f"{source} cannot be read as a table ({error}).") from error
    arrays = [to_arrow(table[column]) for column in table.columns]
    fields = [
        pa.field(column, array.type, metadata=_told(unit=unit_of(column), meaning=meanings.get(column)))
        for column, array in zip(table.columns, arrays, strict=True)
    ]
    told = {"table": source.stem, "theraflow": theraflow.__version__}
    with whole(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=told)), temporary)


def _told(**facts: str | None) -> dict[str, str] | None:
    return {name: fact for name, fact in facts.items() if fact} or None


def read_meanings(path: Path | str) -> dict[str, dict[str, str]]:
    """By table and column, what `columns.tsv` says about it."""
    rows = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    rows = rows[~rows["meaning"].isin(MISSING)]
    return {table: dict(zip(own["column"], own["meaning"], strict=True)) for table, own in rows.groupby("table")}


def export_parquet(tables: Sequence[Path | str], columns: Path | str) -> None:
    """Write each table of the cohort as Parquet beside itself.

    Args:
        tables: `results/cohort/*.tsv`.
        columns: `columns.tsv`, which explains some of them.

    Raises:
        TheraflowError: a table cannot be read.
    """
    meanings = read_meanings(columns)
    for table in map(Path, tables):
        write_parquet(table, table.with_suffix(".parquet"), meanings.get(table.stem, {}))
