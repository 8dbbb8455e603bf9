"""Figures of the cohort: paired uptake, dose coefficients, survival."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theraflow.cohort.statistics import BASELINE, MEASURES, follow_ups, pair_timepoints, pair_tracers
from theraflow.cohort.style import COLOURS, FAINT, INK, logarithmic, new_figure, nice_ceiling, style
from theraflow.cohort.survival import fit_kaplan_meier


def draw_figures(
    lesions: pd.DataFrame,
    doses: pd.DataFrame,
    survival: Mapping[str, pd.DataFrame],
    tracers: Sequence[str],
) -> dict[str, Figure]:
    """All figures that the tables have data for, by file name without suffix.

    Args:
        lesions: as `read_lesions` returns it.
        doses: `doses.tsv` of the cohort.
        survival: as `read_survival` returns it.
        tracers: SUV tracers in the order of the configuration.
    """
    figures = {}
    if len(tracers) > 1:
        first, second = tracers[:2]
        pairs = {measure: pair_tracers(lesions, first, second, column) for measure, column in MEASURES}
        figures["paired_uptake"] = draw_pairs(pairs, (first, second))
    for tracer, later in follow_ups(lesions, tracers):
        pairs = {measure: pair_timepoints(lesions, tracer, later, column) for measure, column in MEASURES}
        # In the table a is the later scan; on paper time runs from left to right.
        swapped = {name: values.rename(columns={"a": "b", "b": "a"}) for name, values in pairs.items()}
        labels = (f"{tracer}\n{BASELINE}", f"{tracer}\n{later}")
        figures[f"change_{_file_name(tracer)}_{_file_name(later)}"] = draw_pairs(swapped, labels)
    figures["dose_coefficients"] = draw_doses(doses)
    figures["survival"] = draw_survival(survival)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def draw_pairs(pairs: Mapping[str, pd.DataFrame], labels: tuple[str, str]) -> Figure | None:
    """A line per lesion from a (left) to b (right), one panel a measure, one colour a patient, medians as
    bars.

    Returns:
        The figure, or None where there is no pair.
    """
    pairs = {measure: values.dropna(subset=["a", "b"]) for measure, values in pairs.items()}
    pairs = {measure: values for measure, values in pairs.items() if len(values)}
    if not pairs:
        return None
    patients = sorted(set().union(*(values["patient"] for values in pairs.values())))
    colours = {patient: COLOURS[i % len(COLOURS)] for i, patient in enumerate(patients)}
    with style():
        figure = new_figure(3.1 * len(pairs) + 1.2, 3.4)
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, (measure, values) in zip(panels, pairs.items(), strict=True):
            for row in values.itertuples():
                colour = colours[row.patient]
                axes.plot([0, 1], [row.a, row.b], "-o", color=colour, markersize=3, linewidth=0.8, alpha=0.8)
            for x, side in ((0, "a"), (1, "b")):
                outwards = -0.12 if x == 0 else 0.12
                median = float(values[side].median())
                axes.plot([x + outwards - 0.08, x + outwards + 0.08], [median] * 2, color=INK, linewidth=2)
                axes.annotate(
                    f"{median:.1f}", (x + outwards * 2, median), ha="right" if x == 0 else "left", va="center"
                )
            axes.set_xticks([0, 1], labels)
            axes.set_xlim(-0.55, 1.55)
            axes.set_ylim(0, nice_ceiling(float(values[["a", "b"]].to_numpy().max())))
            axes.set_ylabel("SUVpeak (g/mL)" if measure == "SUVpeak" else measure)
            axes.set_title(f"{measure}, {len(values)} {'lesion' if len(values) == 1 else 'lesions'}")
        if len(patients) <= len(COLOURS):
            for patient in patients:
                panels[-1].plot([], [], "-o", color=colours[patient], markersize=3, label=patient)
            figure.legend(loc="outside right upper")
    return figure


def draw_doses(doses: pd.DataFrame) -> Figure | None:
    """Dose coefficients by region, medians as bars, one panel a nuclide; or None without doses."""
    doses = doses.dropna(subset=["dose_gy_per_gbq"])
    if doses.empty:
        return None
    nuclides = list(doses["nuclide"].unique())
    place = doses["region"].where(doses["kind"] != "lesion", "lesions").str.replace("_", " ")
    places = [name for name in place.unique() if name != "lesions"] + ["lesions"] * bool((place == "lesions").any())
    spread = np.random.default_rng(0)
    with style():
        figure = new_figure(3.2 * len(nuclides) + 1.4, 0.34 * len(places) + 1.2)
        panels = figure.subplots(1, len(nuclides), squeeze=False, sharey=True)[0]
        for axes, nuclide in zip(panels, nuclides, strict=True):
            for y, name in enumerate(places):
                values = doses.loc[(doses["nuclide"] == nuclide) & (place == name), "dose_gy_per_gbq"]
                colour = COLOURS[1] if name == "lesions" else COLOURS[0]
                offset = spread.uniform(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(len(values))
                axes.plot(values, y + offset, "o", color=colour, markersize=3.5, alpha=0.7)
                if len(values):
                    axes.plot([values.median()] * 2, [y - 0.32, y + 0.32], color=INK, linewidth=1.6)
            _logarithmic_where_wide(axes, doses.loc[doses["nuclide"] == nuclide, "dose_gy_per_gbq"])
            axes.set_xlabel("Gy/GBq")
            axes.set_title(nuclide)
            axes.grid(axis="x", color=FAINT, linewidth=0.5)
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(places)), places)
        panels[0].set_ylim(len(places) - 0.4, -0.6)
    return figure


def _logarithmic_where_wide(axes: Axes, values: pd.Series) -> None:
    if values.min() > 0 and values.max() / values.min() > 30:
        logarithmic(axes.xaxis, values.to_numpy())
    else:
        axes.set_xlim(0, nice_ceiling(float(values.max())))


def draw_survival(survival: Mapping[str, pd.DataFrame]) -> Figure | None:
    """Kaplan-Meier curves with log-log bands and numbers at risk, one panel an end point; or None."""
    if not survival:
        return None
    with style():
        figure = new_figure(3.6 * len(survival), 3.2)
        panels = figure.subplots(1, len(survival), squeeze=False)[0]
        for axes, (endpoint, times) in zip(panels, survival.items(), strict=True):
            fit = fit_kaplan_meier(times)
            curve, limits = fit.survival_function_.iloc[:, 0], fit.confidence_interval_
            band = {"step": "post", "color": COLOURS[0], "alpha": 0.15, "linewidth": 0}
            axes.fill_between(limits.index, limits.iloc[:, 0], limits.iloc[:, 1], **band)
            axes.step(curve.index, curve, where="post", color=COLOURS[0], linewidth=1.6)
            censored = times.loc[~times["event"], "days"]
            axes.plot(censored, curve.reindex(censored), "|", color=INK, markersize=9, label="censored")
            axes.axhline(0.5, color=FAINT, linewidth=0.7, linestyle="--", zorder=0)
            end = nice_ceiling(float(times["days"].max()))
            axes.set_xlim(0, end)
            axes.set_ylim(0, 1.03)
            ticks = np.linspace(0, end, 5)
            at_risk = [int((times["days"] >= tick).sum()) for tick in ticks]
            labels = [f"{tick:g}\n{n}" for tick, n in zip(ticks, at_risk, strict=True)]
            axes.set_xticks(ticks, labels)
            axes.set_xlabel("days; below: patients at risk")
            axes.set_ylabel("fraction without event" if endpoint.startswith("PFS") else "fraction alive")
            axes.set_title(f"{endpoint}, n = {len(times)}, {int(times['event'].sum())} events")
            if len(censored):
                axes.legend(loc="upper right")
    return figure
