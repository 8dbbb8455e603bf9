"""Tidy TSV tables: one observation a row, units in the column names, `NA` for what is missing."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from theraflow.errors import TheraflowError
from theraflow.files import whole

NAMES = ("patient", "scan", "timepoint", "annotation", "lesion", "region")  # words, also where they look like numbers


def write_table(table: pd.DataFrame, path: Path | str, columns: Sequence[str]) -> None:
    """Write `table` with exactly `columns`, in that order; numbers keep full precision.

    Raises:
        ValueError: the table has other columns than those named.
    """
    if set(table.columns) != set(columns) and len(table):
        raise ValueError(f"{path}: columns differ from the contract: {set(table.columns) ^ set(columns)}")
    with whole(path) as temporary:
        table.reindex(columns=list(columns)).to_csv(temporary, sep="\t", index=False, na_rep="NA")


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a TSV; only `NA` and empty cells are missing.

    Raises:
        TheraflowError: the file is missing or no table.
    """
    try:
        return pd.read_csv(
            path, sep="\t", na_values=["NA"], keep_default_na=False, dtype=dict.fromkeys(NAMES, str),
            float_precision="round_trip",  # the default is off by one unit in the last place
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise TheraflowError(f"{path} cannot be read as a table ({error}).") from error
