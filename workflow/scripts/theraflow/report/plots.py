"""Time-activity curves with their fits, and dose-volume histograms."""

import math
from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from theraflow.cohort.style import COLOURS, FAINT, INK, logarithmic, new_figure, nice_ceiling, style

COLUMNS = 4
MOST_PANELS = 24


def fit_amplitude_mbq(time_h: np.ndarray, activity_mbq: np.ndarray, sd_mbq: np.ndarray, t_eff_h: float) -> float:
    """Activity at injection of the exponential with half-life `t_eff_h` through the points, in MBq.

    Weighted least squares, of which this is the closed solution: sum(w a e) / sum(w e^2), w = 1 / sd^2,
    e = 2^(-t / t_eff). Points without sd weigh alike.
    """
    shape = 2.0 ** (-time_h / t_eff_h)
    usable = np.isfinite(sd_mbq).all() and (sd_mbq > 0).all()
    weight = 1 / sd_mbq**2 if usable else np.ones_like(activity_mbq)
    return float((weight * activity_mbq * shape).sum() / (weight * shape**2).sum())


def draw_curves(curves: pd.DataFrame, doses: pd.DataFrame, nuclide: str) -> Figure:
    """A panel per region: points with sd, and the exponential of the half-life in `doses.tsv`.

    Args:
        curves: `curves.tsv`, not empty.
        doses: `doses.tsv`; regions without a half-life for `nuclide` have points only.
        nuclide: the measured one.
    """
    half_lives = doses[doses["nuclide"] == nuclide].set_index("region")["t_eff_h"]
    place = curves["kind"].map({"whole_body": 0, "organ": 1}).fillna(2)
    regions = curves.assign(place=place).sort_values("place", kind="stable")["region"].unique()[:MOST_PANELS]
    rows = math.ceil(len(regions) / COLUMNS)
    with style():
        figure = new_figure(10.2, 2.0 * rows + 0.3)
        panels = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes, region in zip(panels.flat, regions, strict=False):
            own = curves[curves["region"] == region].sort_values("time_h")
            time, activity, sd = (own[name].to_numpy(float) for name in ("time_h", "activity_mbq", "sd_mbq"))
            known = np.isfinite(activity)
            end = nice_ceiling(time.max()) if len(time) else 1.0
            half_life = half_lives.get(region, np.nan)
            if known.any() and np.isfinite(half_life):
                amplitude = fit_amplitude_mbq(time[known], activity[known], sd[known], half_life)
                line = np.linspace(0, end, 100)
                axes.plot(line, amplitude * 2.0 ** (-line / half_life), color=COLOURS[0], linewidth=1.2)
            look = {"fmt": "o", "color": INK, "markersize": 3, "linewidth": 0.8, "capsize": 2}
            axes.errorbar(time, activity, np.nan_to_num(sd), **look)
            if known.any() and (activity[known] > 0).all():
                logarithmic(axes.yaxis, activity[known])
            axes.set_xlim(0, end)
            axes.grid(color=FAINT, linewidth=0.4)
            axes.set_axisbelow(True)
            axes.set_title(region.replace("_", " "))
        for axes in panels.flat[len(regions) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel("MBq")
        for axes in panels.flat[max(0, len(regions) - COLUMNS) : len(regions)]:
            axes.set_xlabel("h after injection")
    return figure


def draw_dvh(dvh: pd.DataFrame, lesions: Collection[str]) -> Figure:
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
