"""One look for all figures: sizes, colours for colour-blind readers too, and how files are written.

matplotlib loads with the first figure: a job reads what it is going to draw before.
"""

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from theraflow.files import whole

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe & Ito 2008, Color Universal Design; grey in place of yellow (unreadable on white) and black (for
# medians).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
INK, FAINT = "#1f2328", "#c9ced6"
STYLE = Path(__file__).parent / "figures" / "theraflow.mplstyle"
SCREEN_PT = 9.0
# Widths of a journal's single and double column, and the height that leaves room for a caption.
COLUMN_CM, PAGE_CM, PAGE_HEIGHT_CM = 8.5, 17.5, 22.0
CM_PER_INCH = 2.54
# What is left out of a font that is embedded is of no use in a job's log.
logging.getLogger("fontTools").setLevel(logging.WARNING)


def new_figure(width_in: float, height_in: float, margins: bool = True) -> "Figure":
    """An empty figure, not known to pyplot, with margins as its axes need, or none; draw in `style()`."""
    from matplotlib.figure import Figure

    layout = "constrained" if margins else "none"
    return Figure(figsize=(width_in, height_in), layout=layout, facecolor="white")


def sheet(width_cm: float, height_cm: float, margins: bool = True) -> "Figure":
    """An empty figure of a size in print; draw in `print_style()`."""
    return new_figure(width_cm / CM_PER_INCH, height_cm / CM_PER_INCH, margins)


def style() -> AbstractContextManager[None]:
    """Context in which figures for the screen are drawn and saved."""
    from matplotlib import rc_context

    return rc_context({**_look(), "font.size": SCREEN_PT})


def print_style() -> AbstractContextManager[None]:
    """Context in which figures for print are drawn and saved."""
    from matplotlib import rc_context

    return rc_context(_look())


@cache
def _look() -> Mapping[str, object]:
    from matplotlib import rc_params_from_file

    return dict(rc_params_from_file(STYLE, use_default_template=False))


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten at or above `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def logarithmic(axis: "Axis", values: np.ndarray) -> None:
    """A logarithmic scale from below the least to above the greatest of `values` (> 0), with plain numbers
    at it.

    Ticks at 1, 2 and 5 times the powers of ten, over two decades and more at the powers only.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = float(np.min(values)) / 1.6, float(np.max(values)) * 1.6
    steps = (1, 2, 5) if high / low < 100 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def save_figure(figure: "Figure", folder: Path | str, name: str) -> None:
    """Write `name`.svg and `name`.pdf, without a date so that equal figures are equal files."""
    # Another pass of the layout would move everything by some hundredths of a point: one for both files.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix, metadata in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
        with whole(Path(folder) / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, metadata=metadata)
