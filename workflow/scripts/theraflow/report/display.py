"""How numbers and tables look on the page. Rounding happens here only; tables on disk keep full precision."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table on the page: what is read, what it is sorted by, its look (a class of style.css)."""

    text: str
    sort: float | str | None = None
    look: str = ""


@dataclass(frozen=True)
class Table:
    """A table on the page.

    Attributes:
        columns: titles; `numeric` names those that are right-aligned.
        rows: cells, one list a row.
        groups: titles over several columns, as (title, number of columns); empty for none.
        name: file name of the download without suffix; empty for none.
        tsv: what the download holds: the whole table.
        choices: columns by whose words the rows can be chosen on the page, with the name of the choice; with any,
            there is a box for words of the whole row too.
        lesions: the lesion that each row is about, which the viewer shows; empty for none.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    groups: Sequence[tuple[str, int]] = ()
    name: str = ""
    tsv: str = ""
    choices: Mapping[int, str] = field(default_factory=dict)
    lesions: Sequence[str] = ()

    @property
    def download(self) -> str:
        """The full table as a data URI."""
        return data_uri(self.tsv.encode(), "text/tab-separated-values;charset=utf-8")


@dataclass
class Columns:
    """Collects columns of a table one after the other: title, whether numeric, and a cell per row."""

    titles: list[str] = field(default_factory=list)
    cells: list[list[Cell]] = field(default_factory=list)
    numeric: list[bool] = field(default_factory=list)
    choices: dict[int, str] = field(default_factory=dict)

    def add(self, title: str, cells: Sequence[Cell], numeric: bool = False, choice: str = "") -> None:
        """Add a column; with the name of a choice, rows can be chosen by its words."""
        if choice:
            self.choices[len(self.titles)] = choice
        self.titles.append(title)
        self.cells.append(list(cells))
        self.numeric.append(numeric)

    def table(self, groups: Sequence[tuple[str, int]] = (), lesions: Sequence[str] = ()) -> Table:
        """The table of all columns added so far."""
        numeric = frozenset(i for i, is_numeric in enumerate(self.numeric) if is_numeric)
        rows = list(zip(*self.cells, strict=True))
        return Table(self.titles, rows, numeric, groups, choices=self.choices, lesions=lesions)


def is_missing(value: Any) -> bool:
    """None, NaN, NA."""
    return value is None or bool(pd.isna(value))


def text(value: Any, look: str = "") -> Cell:
    """Text as it is: identifiers, names, sentences."""
    return Cell(MISSING if is_missing(value) else str(value), None, look)


def words(value: Any, look: str = "") -> Cell:
    """A name of the program's own, as `kidney_left`, with spaces."""
    return Cell(MISSING if is_missing(value) else str(value).replace("_", " "), None, look)


def fixed(value: Any, decimals: int = 1, look: str = "") -> Cell:
    """A number with a fixed number of decimals, as SUV and volume are read."""
    if is_missing(value):
        return Cell(MISSING, None, look)
    return Cell(_minus(f"{_no_minus_zero(round(float(value), decimals)):.{decimals}f}"), float(value), look)


def significant(value: Any, look: str = "") -> Cell:
    """Two significant digits below 1, then one decimal, whole from 100: as dose coefficients are read."""
    if is_missing(value):
        return Cell(MISSING, None, look)
    return Cell(_minus(_significant(float(value))), float(value), look)


def with_sd(value: Any, sd: Any) -> Cell:
    """A number with its standard deviation, both to the digits of the number."""
    if is_missing(value):
        return Cell(MISSING)
    shown = _significant(float(value))
    decimals = len(shown.partition(".")[2])
    spread = "" if is_missing(sd) else f" ± {float(sd):.{decimals}f}"
    return Cell(_minus(shown) + spread, float(value))


def signed(value: Any) -> Cell:
    """A change, whole, with its sign."""
    return Cell(MISSING) if is_missing(value) else Cell(_minus(f"{float(value):+.0f}"), float(value))


def p_value(value: Any) -> Cell:
    """A p value: three decimals, or "< 0.001"."""
    if is_missing(value):
        return Cell(MISSING)
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", float(value))


def count(number: int, thing: str) -> str:
    """A number of things in words, as `1 scan` and `2 scans`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def whole(value: Any) -> Cell:
    """A count."""
    return Cell(MISSING) if is_missing(value) else Cell(f"{int(value)}", float(value))


def _significant(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    if size >= 1 or size == 0:
        return f"{value:.1f}"
    return f"{value:.{1 - math.floor(math.log10(size))}f}"


def _minus(shown: str) -> str:
    return shown.replace("-", "−")


def _no_minus_zero(value: float) -> float:
    return value + 0.0  # -0.0 + 0.0 is 0.0


def data_uri(content: bytes, media_type: str) -> str:
    """`content` as a URI that needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


@cache
def templates() -> jinja2.Environment:
    """The page templates: everything inserted is escaped, and a name that is not given is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
