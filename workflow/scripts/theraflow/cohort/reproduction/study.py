"""The study's printed data: sheets whose first lines cite it."""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from theraflow.errors import TheraflowError

STUDY = Path(__file__).resolve().parents[5] / "resources" / "dsrct2023"


@dataclass(frozen=True)
class Study:
    """The sheets of `resources/dsrct2023`, one table each; what a column means stands in the first lines of its sheet.

    Attributes:
        patients: one row a patient; survival of the treated ones.
        cycles: one row a therapy cycle, with the activity.
        doses: the greatest calculated tumour dose of each cycle.
        expression: one row a specimen.
        toxicity: one row a patient, cycle and parameter.
        response: one row a cycle.
        events: the course, as far as it is printed.
        lesion_counts: lesions by group, as the text counts them.
        selection: why patients were not treated.
        statements: the printed numbers that are compared.
    """

    patients: pd.DataFrame
    cycles: pd.DataFrame
    doses: pd.DataFrame
    expression: pd.DataFrame
    toxicity: pd.DataFrame
    response: pd.DataFrame
    events: pd.DataFrame
    lesion_counts: pd.DataFrame
    selection: pd.DataFrame
    statements: pd.DataFrame

    @property
    def treated(self) -> pd.DataFrame:
        """Patients with endoradiotherapy."""
        return self.patients[self.patients["endoradiotherapy"] == "yes"]

    @property
    def myeloablative(self) -> pd.DataFrame:
        """Cycles with stem cells planned after them; without a graft the activity was not myeloablative."""
        return self.cycles[self.cycles["stem_cells_day"].notna()]

    def count(self, group: str) -> int:
        """The printed number of lesions of a group that has one row."""
        return int(self.lesion_counts.set_index("group").loc[group, "lesions"])

    def of_parameter(self, parameter: str) -> pd.DataFrame:
        """Rows of the toxicity sheet."""
        return self.toxicity[self.toxicity["parameter"] == parameter]


def read_study(folder: Path | str = STUDY) -> Study:
    """Read the sheets.

    Args:
        folder: with one TSV for each attribute of `Study`; lines that begin with `#` are remarks.

    Raises:
        TheraflowError: a sheet is missing or no table.
    """
    return Study(**{field.name: _read(Path(folder) / f"{field.name}.tsv") for field in fields(Study)})


def _read(path: Path) -> pd.DataFrame:
    words = dict.fromkeys(("patient", "item", "section", "printed", "unit", "note"), str)
    try:
        return pd.read_csv(path, sep="\t", comment="#", na_values=["NA"], keep_default_na=False, dtype=words)
    except (OSError, ValueError) as error:
        raise TheraflowError(
            f"{path} cannot be read as a table ({error}); it belongs to theraflow, take it anew from the repository."
        ) from error
