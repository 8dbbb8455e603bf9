"""What all figures of the cohort share: a figure with its caption or why there is none, looks of patients, words."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from theraflow.cohort.style import COLOURS, INK, print_style, save_figure
from theraflow.files import whole_folder
from theraflow.tables import write_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLUMNS = ("figure", "drawn", "n", "counted", "n_patients", "caption", "reason")
# Okabe and Ito's black in place of grey, which is green to some, and wine of Paul Tol's muted scheme: under simulated
# protanopia, deuteranopia and tritanopia any two are at least 16 apart in CIELAB.
PATIENT_COLOURS = (*COLOURS[:6], "#000000", "#882255")
MARKERS = ("o", "s", "^", "D")
# From so many on lines are fainter, so that those below others are seen, and are stored as a picture.
MANY = 500
HEIGHT_CM = 7.2


@dataclass(frozen=True)
class Drawing:
    """A figure, or why it is not drawn.

    Attributes:
        name: of its files, without suffix.
        figure: None where the data are not there.
        n: number of observations drawn.
        counted: what these are, as `lesions`.
        n_patients: patients they are of.
        caption: what is seen, with n, units and tests; empty without a figure.
        reason: why there is no figure; empty with one.
    """

    name: str
    figure: "Figure | None"
    n: int = 0
    counted: str = ""
    n_patients: int = 0
    caption: str = ""
    reason: str = ""


def absent(name: str, reason: str) -> Drawing:
    """A figure whose data are not there."""
    return Drawing(name, None, reason=reason)


def write_drawings(drawings: Iterable[Drawing], folder: Path | str) -> None:
    """Write each figure as SVG and PDF, and `figures.tsv` with all of them, drawn or not: the folder, replaced."""
    with whole_folder(folder) as place:
        rows = [_write_drawing(drawing, place) for drawing in drawings]
        write_table(pd.DataFrame(rows, columns=list(COLUMNS)), place / "figures.tsv", COLUMNS)


def _write_drawing(drawing: Drawing, folder: Path) -> dict[str, object]:
    """Write a figure, if there is one; its row of the table."""
    if drawing.figure is not None:
        with print_style():
            save_figure(drawing.figure, folder, drawing.name)
    return {
        "figure": drawing.name,
        "drawn": drawing.figure is not None,
        "n": drawing.n,
        "counted": drawing.counted or None,
        "n_patients": drawing.n_patients,
        "caption": drawing.caption or None,
        "reason": drawing.reason or None,
    }


@dataclass(frozen=True)
class Looks:
    """Colour and marker of each patient, the same in every figure of a cohort.

    Neighbours differ in both, so that no one depends on the colour. Beyond 32 patients they are no longer told apart:
    all look alike then, and there is no legend.
    """

    patients: Sequence[str]

    @property
    def distinct(self) -> bool:
        """Whether each patient has a look of its own."""
        return len(self.patients) <= len(PATIENT_COLOURS) * len(MARKERS)

    @property
    def coloured(self) -> bool:
        """Whether each patient has a colour of its own."""
        return len(self.patients) <= len(PATIENT_COLOURS)

    def of(self, patient: str) -> dict[str, object]:
        """Colour and marker of a patient, as matplotlib takes them."""
        n = self.patients.index(patient) if self.distinct else 0
        colour, again = n % len(PATIENT_COLOURS), n // len(PATIENT_COLOURS)
        return {"color": PATIENT_COLOURS[colour], "marker": MARKERS[(n + again) % len(MARKERS)], "markeredgewidth": 0}

    def groups(self, values: pd.DataFrame) -> Iterable[tuple[dict[str, object], pd.DataFrame]]:
        """The rows of each look; all at once where patients are not told apart."""
        if not self.distinct:
            yield self.of(self.patients[0]), values
            return
        for patient, own in values.groupby("patient"):
            yield self.of(str(patient)), own

    def add_legend(self, figure: "Figure", shown: Iterable[str], lines: bool = False) -> None:
        """Legend of the patients that the figure shows, to the right of its panels."""
        from matplotlib.lines import Line2D

        if self.distinct:
            dash, named = "-" if lines else "", set(shown)
            handles = [Line2D([], [], **self.of(p), linestyle=dash, label=p) for p in self.patients if p in named]
            figure.legend(handles=handles, loc="outside right upper", ncols=1 + (len(handles) - 1) // 16)


def faintness(n: int) -> float:
    """Opacity at which `n` lines or points may lie upon each other."""
    return 0.85 if n <= MANY else max(0.08, 0.85 * MANY / n)


def counted(n: int, what: str) -> str:
    """`1 lesion`, `5 lesions`."""
    return f"{n} {what}" if n == 1 else f"{n} {what.removesuffix('y')}{'ies' if what.endswith('y') else 's'}"


def file_name(*parts: str) -> str:
    """Parts of a name in which only letters, digits, `-` and `_` are left, joined by `_`."""
    return "_".join(re.sub(r"[^0-9A-Za-z_]+", "-", part).strip("-") for part in parts)


def typeset(text: str) -> str:
    """Mass numbers raised: `[18F]FDG`, `90Y`, as matplotlib writes them."""
    return re.sub(r"(?<![0-9A-Za-z])(\d{1,3})([A-Z][a-z]?)(?![0-9A-Za-z])", r"$^{\1}$\2", text)


def raised(text: str) -> str:
    """The same for plain text."""
    digits = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    pattern = r"(?<![0-9A-Za-z])(\d{1,3})([A-Z][a-z]?)(?![0-9A-Za-z])"
    return re.sub(pattern, lambda found: found[1].translate(digits) + found[2], text)


def p_value(value: float) -> str:
    """`P = 0.012`, `P < 0.001`; a test may have none."""
    if np.isnan(value):
        return "P not computable"
    if value < 0.001:
        return "P < 0.001"
    text = f"{value:.2g}" if value < 0.1 else f"{value:.2f}"
    return f"P = {text}"


def write_beside(axes: "Axes", lines: Sequence[str], where: str = "upper right") -> None:
    """Write lines of text into a corner of a panel."""
    up, side = where.split()
    place = (0.98 if side == "right" else 0.02, 0.985 if up == "upper" else 0.015)
    axes.annotate(
        "\n".join(lines), place, xycoords="axes fraction", ha=side, va="top" if up == "upper" else "bottom", color=INK
    )


def scatter(axes: "Axes", values: pd.DataFrame, x: str, y: str, looks: Looks) -> None:
    """A point per row of `values` in the looks of its `patient`."""
    for look, own in looks.groups(values):
        axes.plot(own[x], own[y], linestyle="", markersize=4, alpha=faintness(len(values)),
                  rasterized=len(values) > MANY, **look)  # fmt: skip


def join(axes: "Axes", values: pd.DataFrame, looks: Looks) -> None:
    """A line per row of `values` from its `a` at 0 to its `b` at 1, in the looks of its `patient`."""
    for look, own in looks.groups(values):
        gap = np.full(len(own), np.nan)
        across = np.tile([0.0, 1.0, np.nan], len(own))
        up = np.column_stack([own["a"], own["b"], gap]).ravel()
        axes.plot(across, up, linewidth=0.8, markersize=3, alpha=faintness(len(values)),
                  rasterized=len(values) > MANY, **look)  # fmt: skip


def even_steps(*axis: "Axis") -> None:
    """Ticks at steps of 1, 2 or 5."""
    from matplotlib.ticker import MaxNLocator

    for one in axis:
        one.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))


def signed(value: float, _: object = None) -> str:
    """A number of an axis of changes: `+10`, `0`, `−10`."""
    return f"{value:+g}".replace("-", "−") if value else "0"
