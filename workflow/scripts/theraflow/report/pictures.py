"""Pictures of the patient: maximum-intensity projections and fused slices, to scale and the right way round.

Everything is drawn along the patient axes (LPS): as in any reading room the patient's left is on the right
of coronal and axial pictures, the head is up, and in sagittal pictures the face looks to the left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from theraflow.cohort.comparisons import BASELINE
from theraflow.cohort.style import INK, new_figure, style
from theraflow.images import label_boxes, resample, to_array
from theraflow.layout import Scan
from theraflow.png import small_png
from theraflow.report.display import data_uri

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUV_WINDOW = 10.0  # upper end of the grey and colour scale of every PET, so that tracers and dates compare
CT_WINDOW = (-160.0, 240.0)  # soft tissue: level 40, width 400
OUTLINE = "#C4320A"
MARGIN_MM = 15.0
NAME_MM = 52.0  # room for the name of a lesion beside the patient
SLICE_SPACING_MM = 1.5
SMALLEST_ORGAN_MM2 = 150.0
PICTURE_HEIGHT_IN, PICTURE_WIDTH_IN = 6.6, 8.0
SLICE_WIDTH_IN, LEGEND_WIDTH_IN = 4.2, 1.3
MOST_SCANS = 4


@dataclass(frozen=True)
class Volume:
    """An image along the patient axes: array (z, y, x) and the coordinates of its voxels in mm (LPS)."""

    array: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def choose_scans(pets: Sequence[Scan]) -> list[Scan]:
    """The scans that are shown: the first of each tracer and time point, at most four, those in between left out."""
    first: dict[tuple[str, str], Scan] = {}
    for scan in sorted(pets, key=lambda scan: scan.timepoint != BASELINE):
        first.setdefault((scan.tracer, scan.timepoint), scan)
    scans = list(first.values())
    if len(scans) <= MOST_SCANS:
        return scans
    baseline = [scan for scan in scans if scan.timepoint == BASELINE][: MOST_SCANS - 1]
    return baseline + scans[len(baseline) - MOST_SCANS :]


def along_patient(image: sitk.Image) -> Volume:
    """`image` with its axes turned to left, posterior, superior; an oblique image is resampled onto them."""
    turned = sitk.DICOMOrient(image, "LPS")
    if not np.allclose(turned.GetDirection(), np.eye(3).ravel(), atol=0.02):
        turned = resample(turned, _straight_grid(turned))
    geometry = zip(turned.GetOrigin(), turned.GetSpacing(), turned.GetSize(), strict=True)
    axes = [origin + spacing * np.arange(size) for origin, spacing, size in geometry]
    return Volume(to_array(turned), *axes)


def _straight_grid(image: sitk.Image) -> sitk.Image:
    """An empty image along x, y, z that covers `image`, with its spacing."""
    size = np.array(image.GetSize())
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in size])).reshape(3, -1).T
    points = np.array([image.TransformContinuousIndexToPhysicalPoint(corner.tolist()) for corner in corners])
    spacing = np.array(image.GetSpacing())
    low, high = points.min(axis=0), points.max(axis=0)
    grid = sitk.Image([int(n) for n in np.ceil((high - low) / spacing - 1e-6)], sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin((low + spacing / 2).tolist())
    return grid


def body_range(profile: np.ndarray, coordinates: np.ndarray) -> tuple[float, float]:
    """Where along an axis the patient lies: all but a thousandth of the signal at either end, and a margin.

    Args:
        profile: sum of the image in each plane across the axis.
        coordinates: of those planes, mm, rising.

    Returns:
        First and last coordinate, not beyond the image.
    """
    share = np.cumsum(np.maximum(profile, 0), dtype=float)
    if share[-1] <= 0:
        return float(coordinates[0]), float(coordinates[-1])
    share /= share[-1]
    first, last = coordinates[np.searchsorted(share, 0.001)], coordinates[np.searchsorted(share, 0.999)]
    return max(first - MARGIN_MM, float(coordinates[0])), min(last + MARGIN_MM, float(coordinates[-1]))


def draw_projections(pet: sitk.Image, lesions: sitk.Image, names: Mapping[int, str]) -> "Figure":
    """Coronal and sagittal maximum-intensity projection, inverted grey, with lesion outlines and names.

    Args:
        pet: SUVbw.
        lesions: labels on the grid of `pet`.
        names: name of each label that is drawn.
    """
    volume, labels = along_patient(pet), along_patient(lesions)
    x_range = body_range(volume.array.sum(axis=(0, 1)), volume.x)
    y_range = body_range(volume.array.sum(axis=(0, 2)), volume.y)
    boxes = label_boxes(labels.array)
    margin = NAME_MM + 8.0
    widths = [x_range[1] - x_range[0] + 2 * margin, y_range[1] - y_range[0] + 2 * margin]
    # A single slice has no height; so that something is drawn, a hand's breadth.
    height = max(float(volume.z[-1] - volume.z[0]), 100.0)
    share = widths[0] / sum(widths)
    with style():
        inch = min(PICTURE_HEIGHT_IN / height, PICTURE_WIDTH_IN / sum(widths))
        figure = new_figure(inch * sum(widths), inch * height, margins=False)
        coronal, sagittal = figure.add_axes((0, 0, share, 1)), figure.add_axes((share, 0, 1 - share, 1))
        for axes, across, first, last, drop in (
            (coronal, volume.x, x_range[0] - margin, x_range[1] + margin, 1),
            (sagittal, volume.y, y_range[0] - margin, y_range[1] + margin, 2),
        ):
            _show(axes, volume.array.max(axis=drop), across, volume.z, cmap="gray_r", vmin=0, vmax=SUV_WINDOW)
            axes.set_facecolor("white")
            axes.set_xlim(first, last)
            axes.set_ylim(volume.z[0], volume.z[-1])
            marks = []
            for label, name in names.items():
                if label not in boxes:
                    continue
                box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in boxes[label])
                mask = (labels.array[box] == label).max(axis=drop)
                spots = labels.x[box[2]] if drop == 1 else labels.y[box[1]]
                _outline(axes, mask, spots, labels.z[box[0]], OUTLINE, 1.1)
                z, side = np.argwhere(mask).mean(axis=0)
                marks.append((name, float(spots[round(side)]), float(labels.z[box[0]][round(z)])))
            _name_marks(axes, marks, (first + NAME_MM, last - NAME_MM), volume.z[0], volume.z[-1])
        _letters(coronal, "R", "L", x_range)
        _letters(sagittal, "A", "P", y_range)
    return figure


def draw_fused(
    pet: sitk.Image,
    lesions: sitk.Image,
    label: int,
    ct: sitk.Image | None,
    organs: sitk.Image | None,
    organ_names: Mapping[int, str],
) -> "Figure":
    """The axial slice through the hottest voxel of one lesion: PET in colour on CT, outlines of organs and
    lesions.

    Args:
        pet: SUVbw.
        lesions: labels on the grid of `pet`.
        label: the lesion, present in `lesions`.
        ct: in HU, same frame of reference; None: PET alone, in inverted grey.
        organs: labels on the grid of `ct`, or None.
        organ_names: their names.
    """
    values, mask = to_array(pet), to_array(lesions) == label
    hottest = np.unravel_index(np.argmax(np.where(mask, values, -np.inf)), values.shape)
    z = pet.TransformIndexToPhysicalPoint([int(i) for i in hottest[::-1]])[2]
    plane = _axial_plane(ct if ct is not None else pet, z)
    uptake = along_patient(resample(pet, plane)).array[0]
    across = along_patient(resample(lesions, plane, interpolation="nearest"))
    x, y, spots = across.x, across.y, across.array[0]
    density = None if ct is None else along_patient(resample(ct, plane, outside=-1000.0)).array[0]
    signal = uptake if density is None else np.maximum(density + 300.0, 0)
    x_range, y_range = body_range(signal.sum(axis=0), x), body_range(signal.sum(axis=1), y)
    with style():
        ratio = (y_range[1] - y_range[0]) / (x_range[1] - x_range[0])
        figure = new_figure(SLICE_WIDTH_IN + LEGEND_WIDTH_IN, SLICE_WIDTH_IN * ratio, margins=False)
        axes = figure.add_axes((0, 0, SLICE_WIDTH_IN / (SLICE_WIDTH_IN + LEGEND_WIDTH_IN), 1))
        if density is None:
            _show(axes, uptake, x, y, cmap="gray_r", vmin=0, vmax=SUV_WINDOW)
        else:
            _show(axes, density, x, y, cmap="gray", vmin=CT_WINDOW[0], vmax=CT_WINDOW[1])
            share = np.clip(uptake / SUV_WINDOW, 0, 1)
            _show(axes, uptake, x, y, cmap="inferno", vmin=0, vmax=SUV_WINDOW, alpha=0.75 * share**0.6)
        axes.set_xlim(*x_range)
        axes.set_ylim(y_range[1], y_range[0])  # posterior (large y) down
        if organs is not None:
            shown = along_patient(resample(organs, plane, interpolation="nearest")).array[0]
            _outline_organs(axes, shown, x, y, organ_names)
        for spot in np.unique(spots[spots > 0]):
            _outline(axes, spots == spot, x, y, "#00E5FF", 1.3)
        _letters(axes, "R", "L", x_range, inside=density is not None)
    return figure


def _axial_plane(image: sitk.Image, z: float) -> sitk.Image:
    """One axial layer of 1.5 mm pixels through `z` that covers `image`, along x, y, z."""
    cover = _straight_grid(image)
    extent = np.array(cover.GetSize()[:2]) * np.array(cover.GetSpacing()[:2])
    low = np.array(cover.GetOrigin()[:2]) - np.array(cover.GetSpacing()[:2]) / 2
    plane = sitk.Image([*(int(n) for n in np.ceil(extent / SLICE_SPACING_MM)), 1], sitk.sitkUInt8)
    plane.SetSpacing([SLICE_SPACING_MM] * 3)
    plane.SetOrigin([*(low + SLICE_SPACING_MM / 2).tolist(), z])
    return plane


def _show(axes: "Axes", array: np.ndarray, across: np.ndarray, up: np.ndarray, **look: object) -> None:
    """Draw an array whose rows lie at `up` and columns at `across` (mm): to scale, no axis."""
    dx, dy = np.ptp(across) / max(len(across) - 1, 1), np.ptp(up) / max(len(up) - 1, 1)
    extent = (across[0] - dx / 2, across[-1] + dx / 2, up[0] - dy / 2, up[-1] + dy / 2)
    axes.imshow(array, extent=extent, origin="lower", aspect="equal", interpolation="antialiased", **look)
    axes.set_axis_off()


def _outline(axes: "Axes", mask: np.ndarray, across: np.ndarray, up: np.ndarray, colour: str, width: float) -> None:
    """Draw the outline of a mask (at least 2 x 2 pixels), closed where the mask ends at the border."""
    padded = np.pad(mask.astype(float), 1)
    across, up = (np.pad(line, 1, mode="reflect", reflect_type="odd") for line in (across, up))
    axes.contour(across, up, padded, levels=[0.5], colors=[colour], linewidths=width)


def _outline_organs(axes: "Axes", labels: np.ndarray, x: np.ndarray, y: np.ndarray, names: Mapping[int, str]) -> None:
    """Outline the organs of a slice, ribs, vertebrae and lung lobes each as one, with a legend by size."""
    organs: dict[str, np.ndarray] = {}
    for label in np.unique(labels[labels > 0]):
        name = shared_name(names.get(int(label), f"label {label}"))
        organs[name] = organs.get(name, np.zeros(labels.shape, bool)) | (labels == label)
    pixel_mm2 = SLICE_SPACING_MM**2
    sizes = {name: mask.sum() * pixel_mm2 for name, mask in organs.items()}
    shown = [name for name in sizes if sizes[name] >= SMALLEST_ORGAN_MM2]
    largest = sorted(shown, key=sizes.get, reverse=True)
    palette = ("#56B4E9", "#009E73", "#E6D800", "#CC79A7", "#E69F00", "#9A86F0", "#9BAAB8", "#7CCBA2")
    for i, name in enumerate(largest):
        colour = palette[i % len(palette)]
        _outline(axes, organs[name], x, y, colour, 0.8)
        if i < len(palette):
            axes.plot([], [], color=colour, label=name)
    if largest:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=1.0)
        for line in legend.get_lines():
            line.set_linewidth(3)


def shared_name(organ: str) -> str:
    """The name in pictures: `ribs` for `rib_left_4`, `vertebrae`, `lungs`; otherwise with spaces."""
    for start, name in (("rib_", "ribs"), ("vertebrae_", "vertebrae"), ("lung_", "lungs")):
        if organ.startswith(start):
            return name
    return organ.replace("_", " ")


def _name_marks(
    axes: "Axes", marks: list[tuple[str, float, float]], edges: tuple[float, float], low: float, high: float
) -> None:
    """Write names beside the patient, near the height of their lesions, never over each other, with a line.

    Args:
        marks: name, position across, position up.
        edges: where names end on the left side and start on the right.
        low, high: range of positions up.
    """
    middle = sum(edges) / 2
    left = [mark for mark in marks if mark[1] < middle]
    right = [mark for mark in marks if mark[1] >= middle]
    for edge, outwards, align, side in ((edges[0], -2.0, "right", left), (edges[1], 2.0, "left", right)):
        if not side:
            continue
        side.sort(key=lambda mark: mark[2])
        step = min((high - low) / 38, (high - low) / len(side))
        heights = spread([mark[2] for mark in side], step, low + step / 2, high - step / 2)
        for (name, across, up), height in zip(side, heights, strict=True):
            axes.plot([across, edge], [up, height], color=OUTLINE, linewidth=0.4)
            axes.text(edge + outwards, height, name, fontsize=8, color=OUTLINE, va="center", ha=align)


def spread(wanted: list[float], step: float, low: float, high: float) -> list[float]:
    """The positions nearest to the rising `wanted` ones and `step` apart, in low to high if they fit."""
    from scipy.optimize import isotonic_regression  # only here: it takes as long to load as all else of a job

    ladder = step * np.arange(len(wanted))
    # Without the ladder they need only not fall, which is isotonic regression.
    positions = isotonic_regression(np.array(wanted) - ladder).x
    return list(np.clip(positions, low, max(high - ladder[-1], low)) + ladder)


def _letters(axes: "Axes", left: str, right: str, sides: tuple[float, float], inside: bool = False) -> None:
    """Letters of orientation in the upper corners."""
    look = {"va": "top", "fontsize": 10, "fontweight": "bold", "color": "white" if inside else INK}
    inset = 4.0 if inside else 0.0
    for letter, position, align in ((left, sides[0] + inset, "left"), (right, sides[1] - inset, "right")):
        axes.annotate(letter, (position, 0.99), xycoords=("data", "axes fraction"), ha=align, **look)


def picture_uri(figure: "Figure", dpi: int = 110, colours: int = 256) -> str:
    """The figure as a PNG data URI with a palette, a third as large as true colour."""
    with style():
        return data_uri(small_png(figure, dpi, colours), "image/png")
