"""Absorbed doses: coefficients of organs and lesions, and lesion dose against change of uptake."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from theraflow.cohort.comparisons import pair_timepoints
from theraflow.cohort.figures.drawing import (
    HEIGHT_CM,
    MANY,
    Drawing,
    Looks,
    absent,
    counted,
    even_steps,
    faintness,
    file_name,
    raised,
    scatter,
    signed,
    typeset,
    write_beside,
)
from theraflow.cohort.figures.stated import Correlation, dose_against_change, median_coefficient, rows_of
from theraflow.cohort.style import (
    COLOURS,
    COLUMN_CM,
    FAINT,
    INK,
    PAGE_CM,
    logarithmic,
    nice_ceiling,
    print_style,
    sheet,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_coefficients(doses: pd.DataFrame, statistics: pd.DataFrame) -> Drawing:
    """Dose coefficients by region, medians as bars, one panel a nuclide.

    Args:
        doses: `doses.tsv` of the cohort.
        statistics: `statistics.tsv`, for the medians.
    """
    name = "dose_coefficients"
    known = doses.dropna(subset=["dose_gy_per_gbq"])
    if known.empty:
        return absent(name, "no region has a dose coefficient")
    nuclides = list(known["nuclide"].unique())
    # (kind, region) of each line; all lesions share one, the last.
    organs = known.loc[known["kind"] != "lesion", ["kind", "region"]].drop_duplicates()
    places = list(organs.itertuples(index=False, name=None))
    places += [("lesion", "lesions")] * bool((known["kind"] == "lesion").any())
    region = known["region"].where(known["kind"] != "lesion", "lesions")
    spread = np.random.default_rng(0)
    with print_style():
        figure = sheet(PAGE_CM if len(nuclides) > 1 else COLUMN_CM, 0.75 * len(places) + 1.9)
        panels = figure.subplots(1, len(nuclides), squeeze=False, sharey=True)[0]
        for axes, nuclide in zip(panels, nuclides, strict=True):
            own = known["nuclide"] == nuclide
            for y, (kind, word) in enumerate(places):
                values = known.loc[own & (known["kind"] == kind) & (region == word), "dose_gy_per_gbq"]
                offset = spread.uniform(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(len(values))
                look = {"color": COLOURS[1 if kind == "lesion" else 0], "markersize": 3.5, "markeredgewidth": 0}
                axes.plot(values, y + offset, "o", **look, alpha=faintness(len(values)), rasterized=len(values) > MANY)
                median = median_coefficient(statistics, nuclide, kind, word)
                if median is not None:
                    axes.plot([median] * 2, [y - 0.34, y + 0.34], color=INK, linewidth=1.4)
            _fit_scale(axes, known.loc[own, "dose_gy_per_gbq"])
            axes.set_xlabel(f"absorbed dose per administered activity of {typeset(nuclide)} (Gy/GBq)")
            axes.set_title(typeset(nuclide))
            axes.grid(axis="x")
        panels[0].set_yticks(range(len(places)), [word.replace("_", " ") for _, word in places])
        panels[0].set_ylim(len(places) - 0.4, -0.6)
    n, patients = len(known), known["patient"].nunique()
    words = " and ".join(map(raised, nuclides))
    caption = (
        f"Absorbed dose per administered activity in Gy/GBq of {words} (n = {n} coefficients, "
        f"{counted(patients, 'patient')}). A point is an organ of a patient or a lesion, a bar the median."
    )
    # A kind that has no coefficient at all, as the whole body, is not missing one.
    missing = len(doses[doses["kind"].isin(known["kind"])]) - n
    caption += f" Without a coefficient: {counted(missing, 'region')}." if missing else ""
    return Drawing(name, figure, n, "coefficients", patients, caption)


def _fit_scale(axes: "Axes", values: pd.Series) -> None:
    """Logarithmic where values span more than a factor of 30, else from 0."""
    if values.min() > 0 and values.max() / values.min() > 30:
        logarithmic(axes.xaxis, values.to_numpy())
    else:
        axes.set_xlim(0, nice_ceiling(1.03 * float(values.max())))


def draw_dose_response(
    lesions: pd.DataFrame,
    course: pd.DataFrame,
    acquired: Mapping[tuple[str, str], str],
    statistics: pd.DataFrame,
    follow_ups: Sequence[tuple[str, str]],
    looks: Looks,
) -> list[Drawing]:
    """Absorbed dose of each lesion up to a later scan against the change of its SUVpeak, per tracer and time point.

    Args:
        lesions: as `read_lesions` returns it.
        course: `course.tsv` of the patients, one below the other.
        acquired: when a scan (patient, scan) was acquired, ISO 8601.
        statistics: `statistics.tsv`.
        follow_ups: (tracer, time point), as `theraflow.cohort.statistics.follow_ups` names them.
        looks: of the patients.
    """
    if not follow_ups or course.empty:
        reason = "no lesion was measured after baseline" if course.size else "no patient has doses of therapy cycles"
        return [absent("dose_response", reason)]
    return [
        _draw_dose_response(
            file_name("dose_response", tracer, later),
            pair_dose_and_change(lesions, course, acquired, tracer, later),
            (tracer, later),
            Correlation(rows_of(statistics, dose_against_change(tracer, later), "test")),
            looks,
        )
        for tracer, later in follow_ups
    ]


def pair_dose_and_change(
    lesions: pd.DataFrame, course: pd.DataFrame, acquired: Mapping[tuple[str, str], str], tracer: str, later: str
) -> pd.DataFrame:
    """Dose of all cycles before a later scan, and change of SUVpeak until then, of lesions positive at baseline.

    Returns:
        Columns `patient`, `lesion`, `dose_gy`, `sd_gy` and `change_percent`; NaN where a cycle's dose or the order of
        cycles and scan is not known. Lesions of patients without a cycle before the scan are left out.
    """
    change = pair_timepoints(lesions, tracer, later, "suv_peak")
    change["change_percent"] = 100 * (change["a"] / change["b"] - 1)
    scans = lesions[(lesions["tracer"] == tracer) & (lesions["timepoint"] == later)]
    change = change.merge(scans[["patient", "lesion", "scan"]], on=["patient", "lesion"], validate="one_to_one")
    rows = []
    for row in change.itertuples():
        given = course[(course["patient"] == row.patient) & (course["region"] == row.lesion)]
        at = acquired.get((row.patient, row.scan))
        known = at is not None and given["date"].notna().all()
        before = given[pd.to_datetime(given["date"]) < pd.Timestamp(at).normalize()] if known else given
        if before.empty:
            continue
        last = before.sort_values("cycle").iloc[-1]
        total = (last["total_dose_gy"], last["total_sd_gy"]) if known else (np.nan, np.nan)
        rows.append([row.patient, row.lesion, *total, row.change_percent])
    return pd.DataFrame(rows, columns=["patient", "lesion", "dose_gy", "sd_gy", "change_percent"])


def _draw_dose_response(
    name: str, pairs: pd.DataFrame, what: tuple[str, str], correlation: Correlation, looks: Looks
) -> Drawing:
    tracer, later = what
    known = pairs.dropna(subset=["dose_gy", "change_percent"])
    if known.empty:
        return absent(name, f"no lesion has both a dose of cycles before {later} and a change of SUVpeak on {tracer}")
    with print_style():
        figure = sheet(COLUMN_CM + 2.0, HEIGHT_CM)
        axes = figure.subplots()
        bars = {"fmt": "none", "ecolor": FAINT, "elinewidth": 0.8, "zorder": 0}
        axes.errorbar(known["dose_gy"], known["change_percent"], xerr=known["sd_gy"].fillna(0), **bars)
        scatter(axes, known, "dose_gy", "change_percent", looks)
        axes.axhline(0, color=INK, linewidth=0.7, zorder=0)
        axes.set_xlim(0, nice_ceiling(float((known["dose_gy"] + known["sd_gy"].fillna(0)).max())))
        axes.set_xlabel("absorbed dose of the lesion (Gy)")
        axes.set_ylabel(f"change of SUVpeak, {tracer} (%)")
        even_steps(axes.xaxis, axes.yaxis)
        axes.yaxis.set_major_formatter(signed)
        axes.set_title(f"{later}, n = {len(known)}")
        lines = correlation.short()
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.08 * len(lines) * (high - low))
        write_beside(axes, lines)
        patients = sorted(known["patient"].unique())
        looks.add_legend(figure, patients)
    left_out = len(pairs) - len(known)
    caption = (
        f"Absorbed dose in Gy of all therapy cycles before {later} against the change of SUVpeak on {tracer} in % of "
        f"baseline, of lesions positive at baseline (n = {len(known)}, {counted(len(patients), 'patient')}). A point "
        f"is a lesion, its colour the patient, a bar the standard deviation of the dose."
    )
    caption += f" Not shown: {counted(left_out, 'lesion')} without dose or uptake." if left_out else ""
    return Drawing(name, figure, len(known), "lesions", len(patients), caption + correlation.sentence())
