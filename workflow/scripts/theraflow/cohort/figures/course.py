"""The course of the patients, treatment by treatment (swimmer plot), and survival."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from theraflow.cohort.figures.drawing import HEIGHT_CM, Drawing, absent, counted
from theraflow.cohort.style import COLOURS, COLUMN_CM, FAINT, INK, PAGE_CM, nice_ceiling, print_style, sheet
from theraflow.cohort.survival import fit_kaplan_meier
from theraflow.errors import TheraflowError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THERAPY, PROGRESSION, DEATH, ALIVE = "radioligand_therapy", "progression", "death", "last_contact"
DIAGNOSIS = "diagnosis"
ORIGINS = {DIAGNOSIS: "the diagnosis", THERAPY: "the first cycle of therapy"}
# Event: marker, colour, words. Others get the markers that are left.
SYMBOLS = {
    THERAPY: ("*", COLOURS[1], "radioligand therapy"),
    "chemotherapy": ("o", COLOURS[0], "chemotherapy"),
    "high_dose_chemotherapy": ("s", COLOURS[0], "high-dose chemotherapy"),
    "surgery": ("^", COLOURS[2], "surgery"),
    "hipec": ("D", COLOURS[2], "HIPEC"),
    "radiotherapy": ("P", COLOURS[4], "radiotherapy"),
    PROGRESSION: ("x", INK, "progression"),
    DEATH: ("|", INK, "death"),
    ALIVE: (">", INK, "alive at last contact"),
}
OTHER_SYMBOLS = ("v", "<", "h", "p", "X", "d")
LANE_CM, STEP_CM, NAMES_CM = 0.62, 0.52, 1.6
DAYS_A_MONTH, MOST_DAYS = 30.4375, 450
MOST_LANES = 28
SYMBOLS_A_ROW = 5
NO_DAY = "day not known"


@dataclass(frozen=True)
class Event:
    """An event in the course of a patient.

    Attributes:
        patient: identifier.
        kind: `chemotherapy`, `surgery`, `radioligand_therapy`, ...
        start: date, or day counted from `since`, or None where only `timing` is known.
        end: the same of what lasts, or None.
        since: `diagnosis` or `therapy`, where `start` is a day; None where it is counted from anything else.
        timing: words that place it, as `before imaging`.
        cycle: number of the therapy cycle.
    """

    patient: str
    kind: str
    start: float | date | None = None
    end: float | date | None = None
    since: str | None = None
    timing: str | None = None
    cycle: int | None = None


def events_of(rows: Sequence[Mapping[str, Any]]) -> list[Event]:
    """The events of the rows of `events.tsv`, as `theraflow.sheets.read_sheet` returns them.

    Raises:
        TheraflowError: a date is none.
    """
    events = []
    for row in rows:
        days = {"start": row.get("day"), "end": row.get("end_day")}
        for side, column in (("start", "date"), ("end", "end_date")):
            if column in row:
                days[side] = _date(row, column, "events.tsv")
        cycle = int(row["cycle"]) if "cycle" in row else None
        since = _since(row.get("since", ""))
        events.append(Event(row["patient"], row["event"], **days, since=since, timing=row.get("timing"), cycle=cycle))
    return events


def _date(row: Mapping[str, Any], column: str, name: str) -> date:
    try:
        return date.fromisoformat(row[column])
    except (TypeError, ValueError) as error:
        raise TheraflowError(
            f"{name}: {column} of {row['patient']} is {row[column]!r}; it must be a date written as YYYY-MM-DD."
        ) from error


def _since(words: str) -> str | None:
    """What days are counted from: the diagnosis or the first therapy cycle; None for anything else."""
    plain = words.lower().replace("_", " ")
    if plain == DIAGNOSIS:
        return DIAGNOSIS
    first = plain in ("radioligand therapy", "radioligand therapy, cycle 1", "first cycle of therapy")
    return THERAPY if first else None


def collect_events(
    events: Sequence[Event], cycles: Sequence[Mapping[str, Any]], survival: Mapping[str, pd.DataFrame]
) -> tuple[list[Event], str]:
    """All events in days from the first therapy cycle, or from the diagnosis where that is known for every patient.

    Args:
        events: as `events_of` returns them.
        cycles: rows of `cycles.tsv`; they place the cycles for which `events` has no day.
        survival: as `read_survival` returns it; where `events` has no day for them it places progression and end from
            therapy.

    Returns:
        The events, `start` and `end` in days or None where no day is known, and what day 0 is, in words.

    Raises:
        TheraflowError: the date of a cycle is none.
    """
    given = [
        Event(row["patient"], THERAPY, _date(row, "date", "cycles.tsv"), cycle=int(row["cycle"]))
        for row in cycles
        if pd.notna(row.get("date"))
    ]
    dated = [event for event in events if isinstance(event.start, date)]
    diagnosed = {event.patient: event.start for event in dated if event.kind == DIAGNOSIS}
    counted_since = set(diagnosed) | {event.patient for event in events if event.since == DIAGNOSIS}
    if events and {event.patient for event in (*events, *given)} <= counted_since:
        since, zeros, others = DIAGNOSIS, diagnosed, given
    else:
        therapies = [event for event in (*dated, *given) if event.kind == THERAPY]
        first = sorted(therapies, key=lambda event: event.start, reverse=True)
        since, zeros, others = THERAPY, {event.patient: event.start for event in first}, [*given, *_ends(survival)]
    placed = [_in_days(event, zeros, since) for event in events]
    told = {_once(event) for event in placed if event.start is not None}
    added = [_in_days(event, zeros, since) for event in others]
    placed += [event for event in added if event.start is not None and _once(event) not in told]
    # What the sheet lists once more without a day is not shown twice.
    told = {_once(event) for event in placed if event.start is not None} - {None}
    shown = [event for event in placed if event.start is not None or _once(event) not in told]
    return shown, ORIGINS[since]


def _once(event: Event) -> tuple[str, str, int | None] | None:
    """What makes two events the same one, for those that happen once; None for others, as two operations."""
    if event.kind == THERAPY and event.cycle is not None:
        return event.patient, THERAPY, event.cycle
    kind = DEATH if event.kind == ALIVE else event.kind
    return (event.patient, kind, None) if kind in (DEATH, PROGRESSION) else None


def _in_days(event: Event, zeros: Mapping[str, date], since: str) -> Event:
    """The event in days since diagnosis or therapy; what cannot be counted so has no place on the axis."""
    days: dict[str, float | None] = {}
    for side in ("start", "end"):
        value = getattr(event, side)
        if isinstance(value, date):
            value = float((value - zeros[event.patient]).days) if event.patient in zeros else None
        elif event.since != since:
            value = None
        days[side] = value
    return replace(event, **days)


def _ends(survival: Mapping[str, pd.DataFrame]) -> list[Event]:
    """Progression, death or last sign of life from therapy."""
    none = pd.DataFrame(columns=["patient", "days", "event"])
    overall = list(survival.get("OS from therapy", none).itertuples())
    ends = [Event(row.patient, DEATH if row.event else ALIVE, float(row.days), since=THERAPY) for row in overall]
    deaths = {(row.patient, row.days) for row in overall if row.event}
    # Progression-free survival that ends with death is no progression.
    return ends + [
        Event(row.patient, PROGRESSION, float(row.days), since=THERAPY)
        for row in survival.get("PFS from therapy", none).itertuples()
        if row.event and (row.patient, row.days) not in deaths
    ]


def draw_swimmers(events: Sequence[Event], origin: str) -> Drawing:
    """A lane per patient: what is dated on a time axis, left of it what is only known to come before or after.

    Args:
        events, origin: as `collect_events` returns them.
    """
    from matplotlib.lines import Line2D

    name = "swimmers"
    if not events:
        return absent(name, "neither events.tsv nor cycles.tsv with dates nor survival times are given")
    patients = sorted({event.patient for event in events})
    if len(patients) > MOST_LANES:
        return absent(name, f"{len(patients)} patients do not fit on a page, on which there is room for {MOST_LANES}")
    placed = [event for event in events if event.start is not None]
    loose = [event for event in events if event.start is None]
    zones = _zones(loose, dict.fromkeys(event.timing or NO_DAY for event in events))
    symbols = _symbols([event.kind for event in events])
    lanes = {patient: y for y, patient in enumerate(patients)}
    room = NAMES_CM + sum(width for _, width in zones.values())
    below = 1.2 + 0.45 * math.ceil(len(symbols) / SYMBOLS_A_ROW)
    height = LANE_CM * (len(patients) + 0.4) + 0.7 + below
    with print_style():
        figure = sheet(PAGE_CM, height, margins=False)
        up, tall = below / height, LANE_CM * (len(patients) + 0.4) / height
        if zones:
            axes = figure.add_axes((NAMES_CM / PAGE_CM, up, (room - NAMES_CM) / PAGE_CM, tall))
            _draw_zones(axes, loose, zones, lanes, symbols)
        if placed:
            axes = figure.add_axes((room / PAGE_CM, up, (PAGE_CM - room - 0.5) / PAGE_CM, tall))
            _draw_lanes(axes, placed, lanes, symbols, origin)
        for axes in figure.axes:
            axes.set_ylim(len(patients) - 0.3, -0.7)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        figure.axes[0].set_yticks(range(len(patients)), patients)
        figure.axes[0].tick_params(axis="y", length=0)
        handles = [
            Line2D([], [], linestyle="", **_look(marker, colour), label=words)
            for marker, colour, words in symbols.values()
        ]
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(NAMES_CM / PAGE_CM, 0), ncols=SYMBOLS_A_ROW,
                      columnspacing=1.2, handletextpad=0.3)  # fmt: skip
    caption = f"Course of {counted(len(patients), 'patient')}, a lane each (n = {len(events)} events)."
    if placed:
        caption += f" The axis counts from {origin}; a bar ends with the last event that has a day."
    if zones:
        caption += f" Without a scale, what is known by its order only ({', '.join(zones)})."
    return Drawing(name, figure, len(events), "events", len(patients), caption)


def _zones(loose: Sequence[Event], words: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Start and width (cm) of the part without a scale for each of the `words` that place an event."""
    zones, start = {}, 0.0
    for word in words:
        crowd = Counter(event.patient for event in loose if (event.timing or NO_DAY) == word)
        if not crowd:
            continue
        width = max(max(crowd.values()) * STEP_CM + 0.3, 0.16 * len(word) + 0.3)
        zones[word] = (start, width)
        start += width
    return zones


def _symbols(kinds: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Marker, colour and words of each kind of event, the usual ones in their order first."""
    found = {kind: symbol for kind, symbol in SYMBOLS.items() if kind in kinds}
    for i, kind in enumerate(sorted(set(kinds) - set(SYMBOLS))):
        look = (OTHER_SYMBOLS[i % len(OTHER_SYMBOLS)], COLOURS[(3 + i) % len(COLOURS)])
        found[kind] = (*look, kind.replace("_", " "))
    return found


def _look(marker: str, colour: str) -> dict[str, object]:
    size = {"*": 9, "|": 11, "x": 5.5}.get(marker, 5.5)
    return {"marker": marker, "color": colour, "markersize": size, "markeredgewidth": 1.6 if marker in "x|" else 0}


def _draw_zones(
    axes: "Axes",
    loose: Sequence[Event],
    zones: Mapping[str, tuple[float, float]],
    lanes: Mapping[str, int],
    symbols: Mapping[str, tuple[str, str, str]],
) -> None:
    """Symbols of each patient one beside the other in the part that their timing names."""
    used: Counter[tuple[str, str]] = Counter()
    for event in loose:
        word = event.timing or NO_DAY
        place = zones[word][0] + 0.35 + used[word, event.patient] * STEP_CM
        used[word, event.patient] += 1
        axes.plot(place, lanes[event.patient], **_look(*symbols[event.kind][:2]))
    for word, (start, _) in zones.items():
        axes.annotate(word, (start + 0.1, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points")
        if start:
            axes.axvline(start, color=FAINT, linewidth=0.7)
    axes.set_xlim(0, sum(width for _, width in zones.values()))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _draw_lanes(
    axes: "Axes",
    placed: Sequence[Event],
    lanes: Mapping[str, int],
    symbols: Mapping[str, tuple[str, str, str]],
    origin: str,
) -> None:
    """Bars and symbols on the time axis, in days or, where it is long, in months."""
    first = min(0.0, *(event.start for event in placed))
    last = max(1.0, *(max(event.start, event.end or event.start) for event in placed))
    unit, days = ("months", DAYS_A_MONTH) if last - first > MOST_DAYS else ("days", 1.0)
    for patient, lane in lanes.items():
        own = [event for event in placed if event.patient == patient]
        if not own:
            continue
        low = min(0.0, *(event.start for event in own))
        high = max(max(event.start, event.end or event.start) for event in own)
        axes.barh(lane, (high - low) / days, left=low / days, height=0.42, color="#e4e7eb", zorder=0)
    for event in placed:
        marker, colour, _ = symbols[event.kind]
        if event.end is not None:
            length = (event.end - event.start) / days
            axes.barh(lanes[event.patient], length, left=event.start / days, height=0.42, color=colour, alpha=0.35)
        axes.plot(event.start / days, lanes[event.patient], **_look(marker, colour), clip_on=False)
    axes.axvline(0, color=FAINT, linewidth=0.7, zorder=-1)
    margin = 0.025 * (last - first) / days
    axes.set_xlim(first / days - margin, last / days + margin)
    axes.set_xlabel(f"{unit} from {origin}")


def draw_survival(survival: Mapping[str, pd.DataFrame]) -> Drawing:
    """Kaplan-Meier curves with log-log bands and numbers at risk, one panel an end point.

    Args:
        survival: as `read_survival` returns it.
    """
    name = "survival"
    if not survival:
        return absent(name, "no patient has a survival time")
    with print_style():
        figure = sheet(PAGE_CM if len(survival) > 1 else COLUMN_CM, HEIGHT_CM * (1 + (len(survival) - 1) // 2))
        panels = figure.subplots(1 + (len(survival) - 1) // 2, min(len(survival), 2), squeeze=False).flat
        for axes, (endpoint, times) in zip(panels, survival.items(), strict=False):
            _draw_curve(axes, endpoint, times)
        for axes in list(figure.axes)[len(survival) :]:
            axes.set_axis_off()
    patients = set().union(*(times["patient"] for times in survival.values()))
    numbers = [f"{endpoint} (n = {len(times)}, {counted(int(times['event'].sum()), 'event')})"
               for endpoint, times in survival.items()]  # fmt: skip
    caption = (
        f"Kaplan-Meier estimates with 95 % log-log bands: {'; '.join(numbers)}. Ticks: censored. Below the axis: "
        f"patients at risk. Dashed: one half. Medians and their convention: survival.tsv."
    )
    return Drawing(name, figure, len(patients), "patients", len(patients), caption)


def _draw_curve(axes: "Axes", endpoint: str, times: pd.DataFrame) -> None:
    fit = fit_kaplan_meier(times)
    curve, limits = fit.survival_function_.iloc[:, 0], fit.confidence_interval_
    band = {"step": "post", "color": COLOURS[0], "alpha": 0.15, "linewidth": 0}
    axes.fill_between(limits.index, limits.iloc[:, 0], limits.iloc[:, 1], **band)
    axes.step(curve.index, curve, where="post", color=COLOURS[0], linewidth=1.4)
    censored = times.loc[~times["event"], "days"]
    axes.plot(censored, curve.reindex(censored), "|", color=INK, markersize=7, label="censored")
    axes.axhline(0.5, color=FAINT, linewidth=0.7, linestyle="--", zorder=0)
    end = nice_ceiling(float(times["days"].max()))
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1.03)
    ticks = np.linspace(0, end, 5)
    at_risk = [int((times["days"] >= tick).sum()) for tick in ticks]
    axes.set_xticks(ticks, [f"{tick:g}\n{n}" for tick, n in zip(ticks, at_risk, strict=True)])
    axes.set_xlabel("days; below: patients at risk")
    axes.set_ylabel("fraction without event" if endpoint.startswith("PFS") else "fraction alive")
    axes.set_title(f"{endpoint}, n = {len(times)}")
    if len(censored):
        axes.legend(loc="upper right")
