"""Which tracer shows which lesion: the detection matrix."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from theraflow.cohort.comparisons import BASELINE
from theraflow.cohort.figures.drawing import Drawing, absent, counted, typeset
from theraflow.cohort.style import COLOURS, INK, PAGE_CM, PAGE_HEIGHT_CM, print_style, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LESIONS_A_ROW = 51
COLUMN_WIDTH_CM, CELL_CM, TRACERS_CM, NAMES_CM, BETWEEN_CM, LEGEND_CM = 0.285, 0.45, 2.6, 0.75, 0.95, 0.7
CONCORDANT, DISCORDANT, NEGATIVE, UNKNOWN = COLOURS[0], COLOURS[1], "white", "#e4e7eb"
HATCH = "////"


def draw_detection(lesions: pd.DataFrame, detection: pd.DataFrame, tracers: Mapping[str, str]) -> Drawing:
    """Matrix of lesions x tracers at baseline: positive, negative or not assessed, with the class of concordance.

    As in `detection.tsv` the lesions are those positive with at least one tracer, and a scan whose registration has
    failed assesses none that it does not show itself.

    Args:
        lesions: as `read_lesions` returns it.
        detection: `detection.tsv`.
        tracers: radiopharmaceutical of each SUV tracer, in the order of the configuration.
    """
    from matplotlib.patches import Patch

    name = "detection_matrix"
    baseline = lesions[(lesions["timepoint"] == BASELINE) & (lesions["registration"] != "failed")]
    seen = baseline.set_index(["patient", "lesion", "tracer"])["positive"].unstack("tracer")  # noqa: PD010
    seen = seen.reindex(columns=list(tracers))
    seen = seen[(seen == 1).any(axis=1)].sort_index()
    if seen.empty:
        return absent(name, f"no lesion is positive at {BASELINE}")
    rows = _rows(seen)
    height = len(rows) * (len(tracers) * CELL_CM + NAMES_CM + BETWEEN_CM) + LEGEND_CM
    if height > PAGE_HEIGHT_CM:
        fitting = math.floor((PAGE_HEIGHT_CM - LEGEND_CM) / (height - LEGEND_CM) * len(rows)) * LESIONS_A_ROW
        return absent(name, f"{len(seen)} lesions do not fit on a page, on which there is room for {fitting}")
    with print_style():
        figure = sheet(PAGE_CM, height, margins=False)
        top = height
        for row in rows:
            top -= BETWEEN_CM
            tall, wide = len(tracers) * CELL_CM, LESIONS_A_ROW * COLUMN_WIDTH_CM
            place = (TRACERS_CM / PAGE_CM, (top - tall) / height, wide / PAGE_CM, tall / height)
            _draw_row(figure.add_axes(place), row, tracers)
            top -= tall + NAMES_CM
        kinds = (
            ("positive on all tracers assessed", CONCORDANT, ""),
            ("positive, not on all", DISCORDANT, ""),
            ("negative", NEGATIVE, ""),
            ("not assessed", UNKNOWN, HATCH),
        )
        handles = [Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, hatch=hatch, label=word)
                   for word, colour, hatch in kinds]  # fmt: skip
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(TRACERS_CM / PAGE_CM, 0), ncols=4, borderpad=0)
    patients = seen.index.get_level_values("patient").nunique()
    told = [f"{row.tracer} {row.n_positive} of {row.n_lesions}" for row in detection.itertuples()]
    caption = (
        f"Lesions positive with at least one tracer at {BASELINE} (n = {len(seen)}, {counted(patients, 'patient')}), a "
        f"column each, and whether each tracer shows them; names of discordant lesions are bold. "
        f"Positive (detection.tsv): {', '.join(told)}."
    )
    return Drawing(name, figure, len(seen), "lesions", patients, caption)


def _rows(seen: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of the matrix, each with as many whole patients as fit; only a patient too long for one is divided."""
    rows: list[list[pd.DataFrame]] = []
    room = 0
    for _, own in seen.groupby("patient"):
        if len(own) > room or not rows:
            rows.append([])
            room = LESIONS_A_ROW
        for start in range(0, len(own), LESIONS_A_ROW):
            part = own.iloc[start : start + LESIONS_A_ROW]
            if start:
                rows.append([])
                room = LESIONS_A_ROW
            rows[-1].append(part)
            room -= len(part)
    return [pd.concat(parts) for parts in rows]


def _draw_row(axes: "Axes", seen: pd.DataFrame, tracers: Mapping[str, str]) -> None:
    """One row of lesions, patients apart by a line and named above."""
    from matplotlib.patches import Rectangle

    values = seen.to_numpy(float)
    discordant = (values == 0).any(axis=1)
    for (column, line), value in np.ndenumerate(values):
        colour = {1.0: DISCORDANT if discordant[column] else CONCORDANT, 0.0: NEGATIVE}.get(value, UNKNOWN)
        look = {"facecolor": colour, "edgecolor": INK, "linewidth": 0.4, "hatch": HATCH if np.isnan(value) else ""}
        axes.add_patch(Rectangle((column, line), 1, 1, **look))
    axes.set_xlim(0, LESIONS_A_ROW)
    axes.set_ylim(len(tracers), 0)
    axes.set_yticks(np.arange(len(tracers)) + 0.5, [typeset(name) for name in tracers.values()])
    axes.set_xticks(np.arange(len(seen)) + 0.5, seen.index.get_level_values("lesion"), rotation=90)
    for label, bold in zip(axes.get_xticklabels(), discordant, strict=True):
        label.set_fontweight("bold" if bold else "normal")
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    patients = seen.index.get_level_values("patient")
    for patient in patients.unique():
        columns = np.flatnonzero(patients == patient)
        axes.plot([columns[0] + 0.1, columns[-1] + 0.9], [-0.25] * 2, color=INK, linewidth=0.9, clip_on=False)
        axes.annotate(str(patient), (columns.mean() + 0.5, -0.45), ha="center", va="bottom", annotation_clip=False,
                      rotation=0 if len(columns) > 2 else 35)  # fmt: skip
