"""One look for all figures: sizes, colours for colour-blind readers too, and how files are written."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from theraflow.files import whole

# Okabe & Ito 2008, Color Universal Design; grey in place of yellow (unreadable on white) and black (for
# medians).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
INK, FAINT = "#1f2328", "#c9ced6"
STYLE: Mapping[str, object] = MappingProxyType(
    {
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.linewidth": 0.7,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "theraflow",
    }
)


def new_figure(width_in: float, height_in: float, margins: bool = True) -> Figure:
    """An empty figure, not known to pyplot, with margins as its axes need, or none; draw in `style()`."""
    layout = "constrained" if margins else "none"
    return Figure(figsize=(width_in, height_in), layout=layout, facecolor="white")


def style() -> mpl.RcParams:
    """Context in which figures are drawn and saved."""
    return mpl.rc_context(dict(STYLE))


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten at or above `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def logarithmic(axis: Axis, values: np.ndarray) -> None:
    """A logarithmic scale from below the least to above the greatest of `values` (> 0), with plain numbers
    at it.

    Ticks at 1, 2 and 5 times the powers of ten, over two decades and more at the powers only.
    """
    low, high = float(np.min(values)) / 1.6, float(np.max(values)) * 1.6
    steps = (1, 2, 5) if high / low < 100 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def save_figure(figure: Figure, folder: Path | str, name: str) -> None:
    """Write `name`.png (200 dpi) and `name`.svg, without a date so that equal figures are equal files."""
    for suffix, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
        with whole(Path(folder) / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, **options)
