"""The patient's figure for a paper: all tracers before and after therapy, projections and fused slices.

Directions are those of `theraflow.report.pictures`: the patient's left on the right of coronal and axial pictures, the
head up, and in sagittal pictures the face to the left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from theraflow.cohort.figures.drawing import Drawing, absent, counted, typeset
from theraflow.cohort.style import COLOURS, INK, PAGE_CM, PAGE_HEIGHT_CM, print_style, sheet
from theraflow.images import label_boxes, read_image, resample, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.registration.outcome import read_beside_emission
from theraflow.report.pictures import (
    CT_WINDOW,
    SLICE_SPACING_MM,
    SUV_WINDOW,
    Volume,
    along_patient,
    body_range,
    choose_scans,
)
from theraflow.tables import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "panel"
SLICED_LESIONS = 2
# Projections are inverted grey, fused slices colour on dark: an outline must stand out of both.
STATES = {
    True: ("positive", "-", COLOURS[1], "#00E5FF"),
    False: ("negative", (0, (2, 1)), COLOURS[0], "#FFFFFF"),
    None: ("not assessed", (0, (1, 1)), COLOURS[6], "#BBBBBB"),
}
ARROW_PT, NAME_PT = 22.0, 20.0
LABEL_CM, BARS_CM, GAP_CM, HEAD_CM, FOOT_CM = 0.9, 1.35, 0.12, 0.55, 0.6


@dataclass(frozen=True)
class View:
    """A projection or slice: pixels (up, across) and their coordinates in mm, and the outlines upon it.

    Attributes:
        uptake: SUVbw.
        density: HU on the same pixels, or None for a projection or a scan without CT.
        across, up: coordinates of columns and rows; up is -y in an axial slice, so that posterior is down.
        outlines: name, state and mask of each lesion that it shows.
    """

    uptake: np.ndarray
    density: np.ndarray | None
    across: np.ndarray
    up: np.ndarray
    outlines: Sequence[tuple[str, bool | None, np.ndarray]]


@dataclass(frozen=True)
class ScanViews:
    """All views of one scan; a slice is None where the scan does not hold the lesion.

    Attributes:
        scan: the scan.
        coronal, sagittal: maximum-intensity projections.
        fused: coronal slice through the hottest voxel of the first lesion sliced.
        axial: axial slices through the hottest voxels of all lesions sliced.
        middle: x, y and z of the middle of the body, mm.
        extent: size of the body along x and y, and of the image along z, mm.
    """

    scan: Scan
    coronal: View
    sagittal: View
    fused: View | None
    axial: Sequence[View | None]
    middle: tuple[float, float, float]
    extent: tuple[float, float, float]


def draw_patient_panel(folder: PatientFolder, scans: Sequence[Scan], settings: Mapping[str, Any]) -> Drawing:
    """The figure of one patient.

    Args:
        folder: the patient's results: images, lesion maps and `lesions.tsv`.
        scans: the patient's scans, in the order of the sheet.
        settings: `tracers` of the configuration.

    Raises:
        TheraflowError: an image, a lesion map or the table is missing or cannot be read.
    """
    pets = [scan for scan in scans if scan.quantity == "suv"]
    if not pets:
        return absent(NAME, "the patient has no scan in SUV")
    lesions = read_table(folder.table("lesions"))
    shown = choose_scans(pets)
    sliced = choose_lesions(lesions, shown[0].scan)
    views = [_view_scan(folder, scan, lesions[lesions["scan"] == scan.scan], sliced) for scan in shown]
    names = {name: typeset(tracer["radiopharmaceutical"]) for name, tracer in settings["tracers"].items()}
    with print_style():
        figure = _draw(views, sliced, names, lesions)
    left_out = [scan.scan for scan in pets if scan not in shown]
    marked = lesions.loc[lesions["scan"].isin([scan.scan for scan in shown]), "lesion"].nunique()
    return Drawing(NAME, figure, marked, "lesions", 1, _caption(folder.patient, views, sliced, marked, left_out))


def choose_lesions(lesions: pd.DataFrame, scan: str) -> list[str]:
    """The lesions that are sliced: the hottest positive one of `scan`, then a discordant one, else the next hottest."""
    own = lesions[(lesions["scan"] == scan) & lesions["suv_peak"].notna()].sort_values("suv_peak", ascending=False)
    seen = lesions.loc[lesions["positive"].astype(str) == "True", "lesion"].unique()
    own = own[own["lesion"].isin(seen)]
    positive = own["positive"].astype(str) == "True"
    ranked = [*own.loc[positive, "lesion"], *own.loc[~positive, "lesion"]]
    discordant = own.loc[own["concordance"].astype(str).str.endswith("-only"), "lesion"]
    return list(dict.fromkeys([*ranked[:1], *discordant, *ranked]))[:SLICED_LESIONS]


def _view_scan(folder: PatientFolder, scan: Scan, lesions: pd.DataFrame, sliced: Sequence[str]) -> ScanViews:
    pet, labels = read_image(folder.emission(scan)), read_image(folder.lesion_map(scan.scan))
    path = folder.ct(scan.scan)
    ct = read_beside_emission(folder, scan.scan, path) if path.is_file() else None
    volume, regions = along_patient(pet), along_patient(labels)
    states = {
        int(row.label): (str(row.lesion), {"True": True, "False": False}.get(str(row.positive)))
        for row in lesions.itertuples()
    }
    numbers = {name: label for label, (name, _) in states.items()}
    spots = [_hottest(volume, regions, numbers.get(name)) for name in sliced]
    x_range = body_range(volume.array.sum(axis=(0, 1)), volume.x)
    y_range = body_range(volume.array.sum(axis=(0, 2)), volume.y)
    z_range = float(volume.z[0]), float(volume.z[-1])
    return ScanViews(
        scan,
        _project(volume, regions, states, drop=1),
        _project(volume, regions, states, drop=2),
        _slice(pet, ct, labels, states, volume, spots[0], drop=1) if spots and spots[0] else None,
        [_slice(pet, ct, labels, states, volume, spot, drop=0) if spot else None for spot in spots],
        tuple(sum(side) / 2 for side in (x_range, y_range, z_range)),
        (x_range[1] - x_range[0], y_range[1] - y_range[0], max(z_range[1] - z_range[0], 100.0)),
    )


def _hottest(volume: Volume, regions: Volume, label: int | None) -> tuple[float, float, float] | None:
    """x, y, z of the hottest voxel of a region, mm; None where the scan has no voxel of it."""
    mask = regions.array == label if label is not None else np.zeros(1, bool)
    if not mask.any():
        return None
    z, y, x = np.unravel_index(np.argmax(np.where(mask, volume.array, -np.inf)), mask.shape)
    return float(volume.x[x]), float(volume.y[y]), float(volume.z[z])


def _project(volume: Volume, regions: Volume, states: Mapping[int, tuple[str, bool | None]], drop: int) -> View:
    """Maximum-intensity projection along y (`drop` 1: coronal) or x (2: sagittal)."""
    outlines = []
    for label, box in label_boxes(regions.array).items():
        if label in states:
            mask = np.zeros(tuple(n for axis, n in enumerate(regions.array.shape) if axis != drop), bool)
            mask[tuple(side for axis, side in enumerate(box) if axis != drop)] = (regions.array[box] == label).max(
                axis=drop
            )
            outlines.append((*states[label], mask))
    return View(volume.array.max(axis=drop), None, volume.x if drop == 1 else volume.y, volume.z, outlines)


def _slice(
    pet: sitk.Image,
    ct: sitk.Image | None,
    labels: sitk.Image,
    states: Mapping[int, tuple[str, bool | None]],
    volume: Volume,
    spot: tuple[float, float, float],
    drop: int,
) -> View:
    """Axial (`drop` 0) or coronal (1) slice through a point, PET on CT, on pixels of 1.5 mm."""
    axes = [volume.x, volume.y, volume.z]
    flat = 2 - drop
    plane = sitk.Image(
        [1 if i == flat else int(np.ptp(line) // SLICE_SPACING_MM) + 1 for i, line in enumerate(axes)], sitk.sitkUInt8
    )
    plane.SetSpacing([SLICE_SPACING_MM] * 3)
    plane.SetOrigin([spot[i] if i == flat else float(line[0]) for i, line in enumerate(axes)])
    lines = [plane.GetOrigin()[i] + SLICE_SPACING_MM * np.arange(plane.GetSize()[i]) for i in range(3)]

    def flatten(image: sitk.Image) -> np.ndarray:
        return to_array(image).squeeze(axis=drop)

    found = flatten(resample(labels, plane, interpolation="nearest"))
    return View(
        flatten(resample(pet, plane)),
        None if ct is None else flatten(resample(ct, plane, outside=-1000.0)),
        lines[0],
        -lines[1] if drop == 0 else lines[2],
        [(*states[int(label)], found == label) for label in np.unique(found[found > 0]) if int(label) in states],
    )


def _draw(
    views: Sequence[ScanViews], sliced: Sequence[str], tracers: Mapping[str, str], lesions: pd.DataFrame
) -> "Figure":
    """One row a scan, all pictures of a kind to one scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    wide, deep, tall = (max(view.extent[i] for view in views) for i in range(3))
    # cm per mm: of projections, so that the row is as wide as the page; axial slices share its height.
    room = PAGE_CM - LABEL_CM - BARS_CM - 4 * GAP_CM
    share = 2 * wide + deep + (tall / SLICED_LESIONS) / deep * wide
    scale = min(room / share, ((PAGE_HEIGHT_CM - HEAD_CM - FOOT_CM) / len(views) - GAP_CM) / tall)
    row_cm = scale * tall
    axial = ((row_cm - GAP_CM * (SLICED_LESIONS - 1)) / SLICED_LESIONS) / deep
    height = HEAD_CM + FOOT_CM + len(views) * (row_cm + GAP_CM)
    columns = np.cumsum([LABEL_CM, *(scale * size + GAP_CM for size in (wide, deep, wide)), axial * wide + GAP_CM])
    figure = sheet(columns[-1] + BARS_CM, height, margins=False)
    width = float(columns[-1] + BARS_CM)

    def place(left: float, top: float, wide_cm: float, tall_cm: float) -> "Axes":
        return figure.add_axes((left / width, 1 - (top + tall_cm) / height, wide_cm / width, tall_cm / height))

    heads = ("coronal projection", "sagittal projection", f"coronal slice, {sliced[0]}" if sliced else "",
             "axial slices" if sliced else "")  # fmt: skip
    for left, head in zip(columns, heads, strict=False):
        figure.text((left + 0.05) / width, 1 - (HEAD_CM - 0.15) / height, head, va="bottom")
    for i, view in enumerate(views):
        top = HEAD_CM + i * (row_cm + GAP_CM)
        x, y, z = view.middle
        label = f"{tracers[view.scan.tracer]}, {view.scan.timepoint}"
        figure.text(0.1 / width, 1 - (top + row_cm / 2) / height, f"{'ABCD'[i]}   {label}", rotation=90, va="center",
                    ha="left", fontweight="bold")  # fmt: skip
        coronal = place(columns[0], top, scale * wide, row_cm)
        _show(coronal, view.coronal, (x, z), (wide, tall), sliced)
        _show(place(columns[1], top, scale * deep, row_cm), view.sagittal, (y, z), (deep, tall), sliced)
        _show(place(columns[2], top, scale * wide, row_cm), view.fused, (x, z), (wide, tall), sliced[:1])
        own = lesions[lesions["scan"] == view.scan.scan].set_index("lesion")["suv_peak"]
        for j, (name, cut) in enumerate(zip(sliced, view.axial, strict=True)):
            axes = place(columns[3], top + j * (axial * deep + GAP_CM), axial * wide, axial * deep)
            _show(axes, cut, (x, -y), (wide, deep), [name])
            peak = own.get(name, np.nan)
            words = f"{name}, SUVpeak {peak:.1f}" if pd.notna(peak) else f"{name}, SUVpeak NA"
            axes.annotate(words, (0.02, 0.02), xycoords="axes fraction", va="bottom",
                          color="white" if cut is not None and cut.density is not None else INK)  # fmt: skip
        if i == 0:
            for letter, side, align in (("R", 0.01, "left"), ("L", 0.99, "right")):
                coronal.annotate(letter, (side, 0.99), xycoords="axes fraction", va="top", ha=align, fontweight="bold")
    bar_cm = min(row_cm, 5.0)
    for left, colours in ((columns[-1], "gray_r"), (columns[-1] + 0.35, "inferno")):
        axes = place(left, HEAD_CM, 0.25, bar_cm)
        bar = figure.colorbar(ScalarMappable(Normalize(0, SUV_WINDOW), colours), cax=axes)
        bar.set_ticks([] if colours == "gray_r" else [0, SUV_WINDOW / 2, SUV_WINDOW])
        bar.outline.set_linewidth(0.5)
    axes.set_title("SUV", fontweight="normal", pad=3)
    shown = {state for view in views for _, state, _ in view.coronal.outlines}
    handles = [Line2D([], [], linestyle=dash, color=colour, linewidth=1.2, label=f"lesion, {word}")
               for state, (word, dash, colour, _) in STATES.items() if state in shown]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(LABEL_CM / width, 0), ncols=3, handlelength=2)
    return figure


def _show(
    axes: "Axes",
    view: View | None,
    middle: tuple[float, float],
    extent: tuple[float, float],
    pointed: Sequence[str],
) -> None:
    """Draw a view around its middle, to scale, with outlines of its lesions and an arrow at those `pointed` at."""
    axes.set_axis_off()
    axes.set_xlim(middle[0] - extent[0] / 2, middle[0] + extent[0] / 2)
    axes.set_ylim(middle[1] - extent[1] / 2, middle[1] + extent[1] / 2)
    if view is None:
        axes.annotate("not on this scan", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        return
    order = np.argsort(view.up)
    up, uptake = view.up[order], view.uptake[order]
    step = [np.ptp(line) / max(len(line) - 1, 1) for line in (view.across, up)]
    borders = [(line[0] - size / 2, line[-1] + size / 2) for line, size in zip((view.across, up), step, strict=True)]
    look = {"extent": (*borders[0], *borders[1]), "origin": "lower", "aspect": "auto", "interpolation": "antialiased"}
    limits = axes.get_xlim(), axes.get_ylim()
    if view.density is None:
        axes.imshow(uptake, cmap="gray_r", vmin=0, vmax=SUV_WINDOW, **look)
    else:
        axes.imshow(view.density[order], cmap="gray", vmin=CT_WINDOW[0], vmax=CT_WINDOW[1], **look)
        share = np.clip(uptake / SUV_WINDOW, 0, 1)
        axes.imshow(uptake, cmap="inferno", vmin=0, vmax=SUV_WINDOW, alpha=0.75 * share**0.6, **look)
    marks = []
    for name, state, mask in view.outlines:
        _, dash, on_white, on_dark = STATES[state]
        colour = on_white if view.density is None else on_dark
        _outline(axes, mask[order], view.across, up, colour, dash)
        if name in pointed:
            z, x = np.argwhere(mask[order]).mean(axis=0)
            marks.append((float(up[round(z)]), float(view.across[round(x)]), name, colour))
    axes.set(xlim=limits[0], ylim=limits[1])
    # The highest is pointed at from above, the others from below, so that names of neighbours do not meet.
    for i, (height, across, name, colour) in enumerate(sorted(marks, reverse=True)):
        _point_at(axes, name, (across, height), colour, "white" if view.density is None else "black", above=i == 0)


def _outline(axes: "Axes", mask: np.ndarray, across: np.ndarray, up: np.ndarray, colour: str, dash: object) -> None:
    """Outline of a mask, closed where it ends at the border of the picture."""
    across, up = (np.pad(line, 1, mode="reflect", reflect_type="odd") for line in (across, up))
    axes.contour(across, up, np.pad(mask.astype(float), 1), levels=[0.5], colors=[colour], linewidths=0.7,
                 linestyles=[dash])  # fmt: skip


def _point_at(axes: "Axes", name: str, spot: tuple[float, float], colour: str, ground: str, above: bool) -> None:
    """An arrow with a name to a lesion, from the nearer side of the picture if the name has room there."""
    from matplotlib.patheffects import withStroke

    left, right = axes.get_xlim()
    width_pt = axes.get_position().width * axes.figure.get_figwidth() * 72
    share = (spot[0] - left) / (right - left)
    outwards = -1 if share < 0.5 else 1
    side = outwards if min(share, 1 - share) * width_pt >= ARROW_PT + NAME_PT else -outwards
    axes.annotate(
        name, spot, (side * ARROW_PT, 12 if above else -12), textcoords="offset points", color=colour, va="center",
        ha="right" if side < 0 else "left", path_effects=[withStroke(linewidth=1.5, foreground=ground)],
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 0.8, "mutation_scale": 7, "shrinkB": 4},
    )  # fmt: skip


def _caption(
    patient: str, views: Sequence[ScanViews], sliced: Sequence[str], marked: int, left_out: Sequence[str]
) -> str:
    rows = [f"({letter}) {view.scan.tracer}, {view.scan.timepoint} ({view.scan.scan})"
            for letter, view in zip("ABCD", views, strict=False)]  # fmt: skip
    words = f"Patient {patient}: {'; '.join(rows)}. Maximum-intensity projections of the PET (inverted grey)"
    if sliced:
        fused = any(cut.density is not None for view in views for cut in view.axial if cut)
        kind = "PET in colour on CT, or alone where the scan has no CT" if fused else "PET alone, no scan has a CT"
        words += f", and slices ({kind}) through the hottest voxel of {' and '.join(sliced)} on each scan"
    words += (
        f". SUVbw from 0 to {SUV_WINDOW:g} g/mL in all pictures. Outlines: {counted(marked, 'lesion')}, solid where "
        f"positive on that scan, dashed where negative. R, L: the patient's right and left."
    )
    return words + (f" Not shown: {', '.join(left_out)}." if left_out else "")
