"""Time-activity curves with their fits, parts of the uncertainty, and dose-volume histograms."""

import itertools
import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from theraflow.cohort.style import COLOURS, FAINT, INK, logarithmic, new_figure, nice_ceiling, style
from theraflow.dosimetry.contract import NORMAL_95
from theraflow.dosimetry.curves.kinetics import read_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
MOST_PANELS = 24
# Causes in uncertainty.tsv in the order of the page, and their names there.
TERMS = {
    "fit": "fit", "uptake": "uptake not seen", "calibration": "calibration", "surface": "surface of the region",
    "recovery": "recovery", "s_value": "S value", "planar": "scale of planar views", "cut": "part not seen",
    "red_marrow_fraction": "red part of the marrow",
}  # fmt: skip


def draw_curves(curves: pd.DataFrame, doses: pd.DataFrame, fitted: pd.DataFrame, nuclide: str) -> "Figure":
    """A panel per region: points with sd, the curve of `doses.tsv` with its band, and the points over the curve.

    Args:
        curves: `curves.tsv` of one administration, not empty.
        doses: `doses.tsv`; regions without a curve have points only.
        fitted: `fitted.tsv` of that administration; regions without an sd have no band.
        nuclide: the measured one.
    """
    shapes = doses[(doses["nuclide"] == nuclide) & doses["exponentials"].notna()].set_index("region")["exponentials"]
    regions = curves_in_order(curves)[:MOST_PANELS]
    rows = math.ceil(len(regions) / COLUMNS)
    with style():
        figure = new_figure(10.2, 2.5 * rows + 0.3)
        figure.get_layout_engine().set(h_pad=0.07)
        grid = figure.add_gridspec(2 * rows, COLUMNS, height_ratios=[3, 1] * rows)
        for number, region in enumerate(regions):
            row, column = divmod(number, COLUMNS)
            above, below = figure.add_subplot(grid[2 * row, column]), figure.add_subplot(grid[2 * row + 1, column])
            own = curves[curves["region"] == region].sort_values("time_h")
            band = fitted[(fitted["region"] == region) & fitted["sd_mbq"].notna()]
            _draw_region(above, below, own, shapes.get(region), band)
            above.set_title(region.replace("_", " "))
            if column == 0:
                above.set_ylabel("MBq")
                below.set_ylabel("%")
            if number + COLUMNS >= len(regions):
                below.set_xlabel("h after injection")
    return figure


def curves_in_order(curves: pd.DataFrame) -> list[str]:
    """The regions of `curves.tsv`: whole body, organs, then all others."""
    place = curves["kind"].map({"whole_body": 0, "organ": 1}).fillna(2)
    return list(curves.assign(place=place).sort_values("place", kind="stable")["region"].unique())


def _draw_region(above: "Axes", below: "Axes", own: pd.DataFrame, shape: str | None, band: pd.DataFrame) -> None:
    """Points, curve and band of one region, and the relative residuals below them."""
    time, activity, sd = (own[name].to_numpy(float) for name in ("time_h", "activity_mbq", "sd_mbq"))
    known = np.isfinite(activity)
    end = nice_ceiling(time.max()) if len(time) else 1.0
    look = {"fmt": "o", "color": INK, "markersize": 3, "linewidth": 0.8, "capsize": 2}
    above.errorbar(time, activity, np.nan_to_num(sd), **look)
    if shape is not None:
        amplitudes, rates = read_curve(shape)
        line = np.linspace(0, end, 100)
        above.plot(line, np.exp(-np.outer(line, rates)) @ amplitudes, color=COLOURS[0], linewidth=1.2)
        curve = np.exp(-np.outer(time, rates)) @ amplitudes
        percent, spread = 100.0 * (activity / curve - 1.0), 100.0 * np.nan_to_num(sd) / curve
        below.errorbar(time, percent, spread, **look)
        reach = nice_ceiling(float(np.nanmax(np.abs(percent) + spread, initial=1.0)))
        below.set_ylim(-1.1 * reach, 1.1 * reach)
    if len(band):
        middle, spread = band["activity_mbq"].to_numpy(float), band["sd_mbq"].to_numpy(float)
        positive = middle > 0
        factor = np.exp(NORMAL_95 * spread[positive] / middle[positive])
        ends = middle[positive] / factor, middle[positive] * factor
        above.fill_between(band["time_h"][positive], *ends, color=COLOURS[0], alpha=0.2, linewidth=0)
    if known.any() and (activity[known] > 0).all():
        logarithmic(above.yaxis, activity[known])
    below.axhline(0.0, color=INK, linewidth=0.5)
    for axes in (above, below):
        axes.set_xlim(0, end)
        axes.grid(color=FAINT, linewidth=0.4)
        axes.set_axisbelow(True)
    above.tick_params(labelbottom=False)


def terms_of(budget: pd.DataFrame) -> list[str]:
    """The causes in a budget, in the order of the page; those without a name there last.

    Args:
        budget: `uncertainty.tsv`.
    """
    present = list(budget["term"].unique())
    return [*(term for term in TERMS if term in present), *(term for term in present if term not in TERMS)]


def draw_budget(budget: pd.DataFrame) -> "Figure":
    """A bar per region, as long as its relative sd in %, divided by the shares of the variance.

    Args:
        budget: `uncertainty.tsv` of one nuclide, not empty; the first region is at the top.
    """
    regions = list(budget["region"].unique())
    terms = terms_of(budget)
    total = 100.0 * budget.groupby("region")["relative_sd"].apply(lambda sd: math.hypot(*sd)).reindex(regions)
    shares = budget.pivot_table(index="region", columns="term", values="share").reindex(regions).fillna(0.0)
    with style():
        figure = new_figure(8.4, 0.27 * len(regions) + 1.1)
        axes = figure.subplots()
        place, left = np.arange(len(regions)), np.zeros(len(regions))
        for term, colour in zip(terms, itertools.cycle(COLOURS), strict=False):
            width = (shares[term] * total).to_numpy()
            axes.barh(place, width, 0.7, left, color=colour, label=TERMS.get(term, term))
            left += width
        for at, region in enumerate(regions):
            greatest = shares.loc[region].idxmax()
            axes.text(left[at], at, f" {total[region]:.0f} %, {TERMS.get(greatest, greatest)}", va="center", fontsize=8)
        axes.set_yticks(place, [region.replace("_", " ") for region in regions])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.3 * float(left.max()))
        axes.set_xlabel("relative standard deviation, %")
        axes.grid(axis="x", color=FAINT, linewidth=0.4)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=len(terms), fontsize=8)
    return figure


def draw_dvh(dvh: pd.DataFrame, lesions: Collection[str]) -> "Figure":
    """Cumulative dose-volume histograms, organs and lesions in a panel each.

    Args:
        dvh: `dvh.tsv`, not empty: `region`, `dose_gy_per_gbq`, `volume_percent`.
        lesions: the regions that are lesions.
    """
    is_lesion = dvh["region"].isin(lesions)
    kinds = {"organs": dvh[~is_lesion], "lesions": dvh[is_lesion]}
    kinds = {name: part for name, part in kinds.items() if len(part)}
    with style():
        figure = new_figure(10.2, 3.2)
        for axes, (name, part) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True):
            for i, (region, own) in enumerate(part.groupby("region", sort=False)):
                own = own.sort_values("volume_percent")
                dash = ("-", "--", ":")[i // len(COLOURS) % 3]
                look = {
                    "color": COLOURS[i % len(COLOURS)],
                    "linewidth": 1.3,
                    "label": region.replace("_", " "),
                }
                axes.plot(own["dose_gy_per_gbq"], own["volume_percent"], dash, **look)
            axes.set_xlim(0, nice_ceiling(float(part["dose_gy_per_gbq"].max())))
            axes.set_ylim(0, 102)
            axes.grid(color=FAINT, linewidth=0.4)
            axes.set_xlabel("Gy/GBq")
            axes.set_ylabel("% of volume")
            axes.set_title(name)
            axes.legend(loc="upper right", ncols=1 + part["region"].nunique() // 9)
    return figure
