"""Uptake of lesions between tracers and before and after therapy, lesion by lesion, and its change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from theraflow.cohort.comparisons import BASELINE, MEASURES, pair_timepoints, pair_tracers
from theraflow.cohort.figures.drawing import (
    HEIGHT_CM,
    Drawing,
    Looks,
    absent,
    counted,
    even_steps,
    file_name,
    join,
    scatter,
    signed,
    typeset,
    write_beside,
)
from theraflow.cohort.figures.stated import Agreement, Tests, between_timepoints, between_tracers, rows_of
from theraflow.cohort.style import COLOURS, COLUMN_CM, FAINT, INK, PAGE_CM, nice_ceiling, print_style, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {"SUVpeak": "SUVpeak (g/mL)", "TBR": "TBR"}
# Changes from which on a category may follow, %: PERCIST 1.0 (Wahl 2009), RECIST 1.1 (Eisenhauer 2009).
CATEGORY_LIMITS = {"PERCIST 1.0": (-30.0, 30.0), "RECIST 1.1": (-30.0, 20.0)}
MEASURED = {"PERCIST 1.0": "SULpeak of the hottest lesion", "RECIST 1.1": "sum of diameters"}
MOST_NAMED_BARS = 60
GREY = COLOURS[-1]
BARS_PT = 400.0  # width of all bars of a figure as wide as a page


@dataclass(frozen=True)
class Pairs:
    """The pairs of one measure: those with both values, and how many lack one.

    Attributes:
        measure: `SUVpeak` or `TBR`.
        complete: columns `patient`, `lesion`, `a`, `b` as `theraflow.cohort.statistics` pairs them.
        incomplete: number of pairs that lack a value.
    """

    measure: str
    complete: pd.DataFrame
    incomplete: int

    @classmethod
    def of(cls, measure: str, pairs: pd.DataFrame) -> "Pairs":
        """Pairs with both values, and the number of others."""
        complete = pairs.dropna(subset=["a", "b"])
        return cls(measure, complete, len(pairs) - len(complete))


def draw_tracers(
    lesions: pd.DataFrame, statistics: pd.DataFrame, tracers: Mapping[str, str], looks: Looks
) -> list[Drawing]:
    """Paired uptake and Bland-Altman plot of the first two tracers at baseline.

    Args:
        lesions: as `read_lesions` returns it.
        statistics: `statistics.tsv`.
        tracers: radiopharmaceutical of each SUV tracer, in the order of the configuration.
        looks: of the patients.
    """
    names = ("paired_uptake", "bland_altman")
    if len(tracers) < 2:
        return [absent(name, "the configuration has fewer than two tracers with quantity suv") for name in names]
    first, second = list(tracers)[:2]
    measures = [Pairs.of(measure, pair_tracers(lesions, first, second, column)) for measure, column in MEASURES]
    measures = [pairs for pairs in measures if len(pairs.complete)]
    if not measures:
        return [absent(name, f"no lesion is positive on both {first} and {second} at {BASELINE}") for name in names]
    comparisons = {pairs.measure: between_tracers(pairs.measure, first, second, BASELINE) for pairs in measures}
    tests = {
        measure: Tests(rows_of(statistics, comparison, "effect_name")) for measure, comparison in comparisons.items()
    }
    agreements = {measure: Agreement.of(statistics, comparison) for measure, comparison in comparisons.items()}
    labels = (typeset(tracers[first]), typeset(tracers[second]))
    medians = {pairs.measure: tests[pairs.measure].medians(len(pairs.complete)) for pairs in measures}
    about = f"of lesions positive on both {first} (left) and {second} (right) at {BASELINE}"
    return [
        _draw_pairs(names[0], measures, labels, about, tests, medians, looks),
        _draw_agreement(names[1], measures, (first, second), agreements, looks),
    ]


def draw_changes(
    lesions: pd.DataFrame,
    statistics: pd.DataFrame,
    tracers: Mapping[str, str],
    follow_ups: Sequence[tuple[str, str]],
    looks: Looks,
) -> list[Drawing]:
    """Paired uptake before and after, and the change of each lesion, for each tracer and later time point.

    Args:
        lesions, statistics, tracers, looks: as above.
        follow_ups: (tracer, time point), as `theraflow.cohort.statistics.follow_ups` names them.
    """
    names = ("uptake_before_after", "change_of_lesions")
    if not follow_ups:
        return [absent(name, f"no lesion was measured after {BASELINE}") for name in names]
    drawings = []
    for tracer, later in follow_ups:
        before_after, change = (file_name(name, tracer, later) for name in names)
        measures = [Pairs.of(measure, pair_timepoints(lesions, tracer, later, column)) for measure, column in MEASURES]
        measures = [pairs for pairs in measures if len(pairs.complete)]
        if not measures:
            reason = f"no lesion positive on {tracer} at {BASELINE} was measured at {later}"
            drawings += [absent(name, reason) for name in (before_after, change)]
            continue
        tests = {
            pairs.measure: Tests(
                rows_of(statistics, between_timepoints(pairs.measure, tracer, later, BASELINE), "effect_name")
            )
            for pairs in measures
        }
        medians = {pairs.measure: tests[pairs.measure].medians(len(pairs.complete)) for pairs in measures}
        # In the table a is the later scan; on paper time runs from left to right.
        medians = {measure: stated and stated[::-1] for measure, stated in medians.items()}
        swapped = [
            Pairs(pairs.measure, pairs.complete.rename(columns={"a": "b", "b": "a"}), pairs.incomplete)
            for pairs in measures
        ]
        about = f"on {tracer} of lesions positive at {BASELINE} (left) and measured again at {later} (right)"
        labels = (BASELINE, later)
        title = typeset(tracers[tracer])
        drawings.append(_draw_pairs(before_after, swapped, labels, about, tests, medians, looks, title))
        drawings += [_draw_lesion_changes(change, pairs, tracer, later, looks)
                     for pairs in measures if pairs.measure == "SUVpeak"]  # fmt: skip
    return drawings


def _draw_pairs(
    name: str,
    measures: Sequence[Pairs],
    labels: tuple[str, str],
    about: str,
    tests: Mapping[str, Tests],
    medians: Mapping[str, tuple[float, float] | None],
    looks: Looks,
    title: str = "",
) -> Drawing:
    """A line per lesion from a (left) to b (right), one panel a measure, medians as bars."""
    with print_style():
        figure = sheet(PAGE_CM, HEIGHT_CM)
        for axes, pairs in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
            join(axes, pairs.complete, looks)
            for x, median in enumerate(medians[pairs.measure] or ()):
                outwards = -0.14 if x == 0 else 0.14
                axes.plot([x + outwards - 0.07, x + outwards + 0.07], [median] * 2, color=INK, linewidth=1.8)
                place, align = (x + outwards * 1.75, median), "right" if x == 0 else "left"
                axes.annotate(f"{median:.1f}", place, ha=align, va="center")
            axes.set_xticks([0, 1], labels)
            axes.set_xlim(-0.6, 1.6)
            _head_room(axes, float(pairs.complete[["a", "b"]].to_numpy().max()), len(tests[pairs.measure].tested))
            even_steps(axes.yaxis)
            axes.set_ylabel(UNITS[pairs.measure])
            axes.set_title(f"{title} {pairs.measure}, n = {len(pairs.complete)}".strip())
            write_beside(axes, tests[pairs.measure].short())
        patients = _patients(measures)
        looks.add_legend(figure, patients, lines=True)
    numbers = " and ".join(f"{pairs.measure} (n = {len(pairs.complete)})" for pairs in measures)
    caption = (
        f"{numbers} {about}. SUVpeak in g/mL (SUVbw); TBR is SUVpeak over the mean SUV of the background. A line is a "
        f"lesion, its colour the patient ({counted(len(patients), 'patient')}), a bar the median over lesions."
    )
    caption += _left_out(measures)
    caption += "".join(tests[pairs.measure].sentence(pairs.measure) for pairs in measures)
    return Drawing(name, figure, max(len(pairs.complete) for pairs in measures), "lesions", len(patients), caption)


def _head_room(axes: "Axes", highest: float, lines: int) -> None:
    """Limits from 0 to above `highest`, with room for so many lines of text above the data."""
    share = 1 - 0.065 * lines
    axes.set_ylim(0, max(nice_ceiling(highest), highest / share))


def _patients(measures: Sequence[Pairs]) -> list[str]:
    return sorted(set().union(*(pairs.complete["patient"] for pairs in measures)))


def _left_out(measures: Sequence[Pairs]) -> str:
    parts = [f"{counted(p.incomplete, 'lesion')} without {p.measure} on one side" for p in measures if p.incomplete]
    return f" Not shown: {', '.join(parts)}." if parts else ""


def _draw_agreement(
    name: str,
    measures: Sequence[Pairs],
    tracers: tuple[str, str],
    agreements: Mapping[str, Agreement | None],
    looks: Looks,
) -> Drawing:
    """Difference against mean of two tracers; bias and limits of agreement as `statistics.tsv` states them."""
    first, second = tracers
    with print_style():
        figure = sheet(PAGE_CM, HEIGHT_CM)
        for axes, pairs in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
            agreement, own = agreements[pairs.measure], pairs.complete
            own = own.assign(mean=(own["a"] + own["b"]) / 2, difference=own["a"] - own["b"])
            scatter(axes, own, "mean", "difference", looks)
            axes.axhline(0, color=FAINT, linewidth=0.7, zorder=0)
            right = 1.05 * float(own["mean"].max())
            axes.set_xlim(0, right if agreement is None else 1.24 * right)
            even_steps(axes.xaxis, axes.yaxis)
            for value, word, dash in agreement.lines() if agreement else ():
                axes.plot([0, right], [value] * 2, dash, color=INK, linewidth=0.9, zorder=1)
                axes.annotate(f"{word}\n{value:+.2f}".replace("-", "−"), (right * 1.015, value), va="center")
            axes.set_xlabel(f"mean of both, {UNITS[pairs.measure]}")
            axes.set_ylabel(f"{first} − {second}, {UNITS[pairs.measure]}")
            axes.set_title(f"{pairs.measure}, n = {len(own)}")
            axes.yaxis.set_major_formatter(signed)
        patients = _patients(measures)
        looks.add_legend(figure, patients)
    numbers = " and ".join(f"{pairs.measure} (n = {len(pairs.complete)})" for pairs in measures)
    caption = (
        f"Bland-Altman plot of {numbers} of lesions positive on both {first} and {second} at {BASELINE}: difference "
        f"{first} − {second} against the mean of both. A point is a lesion, its colour the patient "
        f"({counted(len(patients), 'patient')}). SUVpeak in g/mL (SUVbw)."
    )
    if any(agreements.values()):
        caption += " Lines: bias and 95 % limits of agreement."
    caption += _left_out(measures)
    caption += "".join(a.sentence(measure) for measure, a in agreements.items() if a is not None)
    return Drawing(name, figure, max(len(pairs.complete) for pairs in measures), "lesions", len(patients), caption)


def _draw_lesion_changes(name: str, pairs: Pairs, tracer: str, later: str, looks: Looks) -> Drawing:
    """Waterfall of the change of SUVpeak, a bar per lesion, from the greatest rise to the deepest fall."""
    from matplotlib.patches import Patch

    own = pairs.complete.assign(change=100 * (pairs.complete["a"] / pairs.complete["b"] - 1))
    own = own.sort_values(["change", "patient", "lesion"], ascending=[False, True, True], ignore_index=True)
    with print_style():
        figure = sheet(PAGE_CM, HEIGHT_CM)
        axes = figure.subplots()
        named = len(own) <= MOST_NAMED_BARS
        _draw_bars(axes, own["change"], [looks.of(p)["color"] if looks.coloured else GREY for p in own["patient"]], 0.8)
        words = own["lesion"] if looks.coloured else own["patient"] + " " + own["lesion"]
        axes.set_xticks(range(len(own)) if named else [], words if named else [], rotation=90)
        axes.set_xlabel("lesion")
        axes.set_title(f"{tracer}, {later} against {BASELINE}, n = {len(own)}")
        patients = list(own["patient"].unique())
        if looks.coloured:
            handles = [Patch(color=looks.of(patient)["color"], label=patient) for patient in sorted(patients)]
            figure.legend(handles=handles, loc="outside right upper")
    caption = (
        f"Change of SUVpeak on {tracer} from {BASELINE} to {later} in % of {BASELINE}, a bar a lesion "
        f"(n = {len(own)}, {counted(len(patients), 'patient')}), of lesions positive at {BASELINE}. Dashed: ±30 %. A "
        f"lesion's change is no category of response."
    )
    return Drawing(name, figure, len(own), "lesions", len(patients), caption + _left_out([pairs]))


def _draw_bars(axes: "Axes", change: pd.Series, colours: Sequence[str], width: float) -> None:
    """A bar for each change; beyond those that can be named they stand side by side as lines, much faster drawn."""
    if len(change) <= MOST_NAMED_BARS:
        axes.bar(range(len(change)), change, width=width, color=colours)
    else:
        look = {"colors": colours, "linewidth": max(0.3, BARS_PT / len(change)), "rasterized": True}
        axes.vlines(range(len(change)), 0, change, **look)


def _finish_waterfall(axes: "Axes", change: pd.Series, limits: tuple[float, float], label: str) -> None:
    axes.axhline(0, color=INK, linewidth=0.7)
    for limit in limits:
        axes.axhline(limit, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    low, high = min(float(change.min()), limits[0]), max(float(change.max()), limits[1])
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set_xlim(-0.7, len(change) - 0.3)
    even_steps(axes.yaxis)
    axes.yaxis.set_major_formatter(signed)
    axes.set_ylabel(label)


def draw_patient_changes(response: pd.DataFrame) -> list[Drawing]:
    """Waterfall of the change that each criterion rests on, a bar per patient and follow-up, with its category.

    Args:
        response: `response.tsv` of the cohort.
    """
    if response.empty:
        return [absent("change_of_patients", "no patient has a follow-up scan whose response was judged")]
    return [_draw_criterion(str(criterion), own) for criterion, own in response.groupby("criterion", sort=False)]


def _draw_criterion(criterion: str, response: pd.DataFrame) -> Drawing:
    name = file_name("change_of_patients", criterion)
    shown = response.dropna(subset=["change_percent"])
    missing = response[response["change_percent"].isna()]
    told = [f"{row.patient} at {row.followup} ({row.category})" for row in missing.itertuples()]
    if shown.empty:
        return absent(name, f"no change is stated by {criterion}: {', '.join(told)}")
    shown = shown.sort_values(["change_percent", "patient"], ascending=[False, True], ignore_index=True)
    several = shown["patient"].duplicated().any()
    labels = [f"{row.patient}\n{row.followup}" if several else row.patient for row in shown.itertuples()]
    with print_style():
        figure = sheet(COLUMN_CM if len(shown) <= 10 else PAGE_CM, HEIGHT_CM)
        axes = figure.subplots()
        _draw_bars(axes, shown["change_percent"], [GREY] * len(shown), min(0.7, 0.16 * len(shown)))
        limits = CATEGORY_LIMITS[criterion]
        _finish_waterfall(axes, shown["change_percent"], limits, f"change of {MEASURED[criterion]} (%)")
        named, turned = len(shown) <= MOST_NAMED_BARS, 90 if len(shown) > 10 else 0
        axes.set_xticks(range(len(shown)) if named else [], labels if named else [], rotation=turned)
        for x, row in enumerate(shown.itertuples() if named else ()):
            news = "" if pd.isna(row.new_lesions) or row.new_lesions == 0 else "*"
            below = row.change_percent < 0
            place = (x, row.change_percent)
            shift = (0, -3 if below else 3)
            axes.annotate(f"{row.category}{news}", place, shift, textcoords="offset points", ha="center",
                          va="top" if below else "bottom", rotation=turned)  # fmt: skip
        axes.set_title(f"{criterion}, n = {len(shown)}")
        patients = shown["patient"].nunique()
    caption = (
        f"Change of the {MEASURED[criterion]} from baseline in %, a bar a follow-up (n = {len(shown)}, "
        f"{counted(patients, 'patient')}), with the category by {criterion}; * new lesions. Dashed: "
        f"{signed(limits[0])} and {signed(limits[1])} %."
    )
    caption += f" Without a change: {', '.join(told)}." if told else ""
    return Drawing(name, figure, len(shown), "follow-ups", patients, caption)
