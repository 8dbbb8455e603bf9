"""Tables as documents that go into a manuscript: one Excel workbook with a sheet a table, and one TSV each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import xlsxwriter

from theraflow.files import whole
from theraflow.tables import write_table

ROMAN = {0: "0", 1: "I", 2: "II", 3: "III", 4: "IV", 5: "V"}
_WIDEST = 46
# The same tables give the same file, whenever it is written.
_CREATED = datetime(2000, 1, 1)


@dataclass(frozen=True)
class Document:
    """A table of a manuscript.

    Attributes:
        name: of its file and sheet, as `table_1`.
        title: above it.
        table: its cells; the columns are its header.
        footnotes: below it: abbreviations and remarks.
    """

    name: str
    title: str
    table: pd.DataFrame
    footnotes: tuple[str, ...] = ()


def write_documents(documents: Sequence[Document], workbook: Path | str) -> None:
    """Write all tables into an Excel workbook, and each as TSV beside it (`table_1.tsv`).

    Args:
        documents: the tables, in order.
        workbook: the path of the `.xlsx`.
    """
    for document in documents:
        write_table(document.table, Path(workbook).with_name(f"{document.name}.tsv"), list(document.table.columns))
    with whole(workbook) as temporary, xlsxwriter.Workbook(temporary) as book:
        book.set_properties({"created": _CREATED})
        for document in documents:
            _write_sheet(book, document)


def _write_sheet(book: xlsxwriter.Workbook, document: Document) -> None:
    cells = {"font_name": "Arial", "font_size": 9, "valign": "top"}
    title = book.add_format({**cells, "bold": True})
    header = book.add_format({**cells, "bold": True, "bottom": 1, "top": 1, "text_wrap": True})
    cell, note = book.add_format({**cells, "text_wrap": True}), book.add_format(cells)
    sheet = book.add_worksheet(document.name)
    sheet.write_string(0, 0, document.title, title)
    for column, name in enumerate(document.table.columns):
        values = document.table[name]
        sheet.write_string(1, column, str(name), header)
        for row, value in enumerate(values, start=2):
            if pd.isna(value):
                sheet.write_string(row, column, "NA", cell)
            else:
                sheet.write(row, column, value, cell)
        longest = max([len(str(value)) for value in values] + [max(map(len, str(name).split()))])
        sheet.set_column(column, column, min(longest + 2, _WIDEST))
    for row, words in enumerate(document.footnotes, start=len(document.table) + 3):
        sheet.write_string(row, 0, words, note)
    sheet.freeze_panes(2, 1)
    sheet.set_landscape()
    sheet.fit_to_pages(1, 0)


def lay_out_toxicity(worst: pd.DataFrame) -> pd.DataFrame:
    """Worst grades as a table of a paper: a parameter a row, a patient and cycle a column, Roman grades.

    Args:
        worst: columns patient, cycle, parameter, grade; as `theraflow.cohort.toxicity.worst_grades` returns it.

    Returns:
        First column `Parameter`; cells without a grade are missing.
    """
    columns = {
        (row.patient, row.cycle): f"{row.patient}, cycle {row.cycle:g}"
        for row in worst[["patient", "cycle"]].drop_duplicates().itertuples()
    }
    cells = worst.set_index(["parameter", "patient", "cycle"])["grade"]
    rows = []
    for parameter in worst["parameter"].unique():
        grades = {name: cells.get((parameter, *key)) for key, name in columns.items()}
        roman = {name: None if pd.isna(grade) else ROMAN[int(grade)] for name, grade in grades.items()}
        rows.append({"Parameter": str(parameter).replace("_", " "), **roman})
    return pd.DataFrame(rows, columns=["Parameter", *columns.values()])
