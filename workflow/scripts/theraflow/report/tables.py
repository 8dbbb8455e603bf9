"""What the report reads of a patient's tables."""

from collections.abc import Sequence

import pandas as pd

from theraflow.layout import PatientFolder
from theraflow.tables import read_table


def optional_table(folder: PatientFolder, name: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table that a patient need not have; without rows where it is absent.

    Args:
        folder: the patient's results.
        name: of the table in the contract, as `lesions`.
        columns: those that the result has, NA where the file lacks them; none: the file's own.

    Raises:
        TheraflowError: the file is no table.
    """
    path = folder.table(name)
    table = read_table(path) if path.is_file() else pd.DataFrame()
    return table.reindex(columns=list(columns)) if columns else table
