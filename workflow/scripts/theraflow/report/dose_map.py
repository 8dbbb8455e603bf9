"""Isodose lines of a dose map upon the CT, through the hottest organ or lesion."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from theraflow.cohort.style import INK, new_figure, style
from theraflow.images import read_image, read_sidecar, resample
from theraflow.images.body import AIR_HU
from theraflow.layout import PatientFolder
from theraflow.registration import read_beside_emission
from theraflow.report.pictures import CT_WINDOW, along_patient, picture_uri
from theraflow.report.tables import optional_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXEL_MM = 2.0
WIDTH_IN, LEGEND_IN = 7.6, 1.0
# From the cold to the hot; apart in brightness too.
LINES = ("#3B6FD4", "#29B6C6", "#8BD646", "#FDE725", "#E8384F")
STEPS = (1.0, 2.0, 5.0)


def draw_patient_isodoses(folder: PatientFolder) -> tuple[str, str] | None:
    """Picture (data URI) and caption for the patient's report; None where there is no dose map or no region in it."""
    if not folder.dose_map.is_file():
        return None
    told = read_sidecar(folder.dose_map)
    table = optional_table(folder, "map_doses")
    own = table[table["nuclide"] == told["nuclide"]] if len(table) else table
    if own.empty:
        return None
    hottest = own.loc[own["mean_gy_per_gbq"].idxmax()]
    dose = read_image(folder.dose_map)
    path = folder.ct(told["scan"])
    ct = read_beside_emission(folder, told["scan"], path) if path.is_file() else None
    figure = draw_isodoses(dose, ct, hottest[["x_mm", "y_mm", "z_mm"]].to_numpy(float))
    name = str(hottest["region"]).replace("_", " ")
    ground = "CT of the same examination (−160 to 240 HU)" if ct is not None else "no CT"
    return picture_uri(figure, colours=128), (
        f"{told['nuclide']}: lines of equal dose in Gy/GBq through the hottest voxel of {name}, mean "
        f"{hottest['mean_gy_per_gbq']:.2g} Gy/GBq; {ground}. {told['limits']}"
    )


def draw_isodoses(dose: sitk.Image, ct: sitk.Image | None, point: Sequence[float]) -> "Figure":
    """Coronal and axial slice through a point, with lines of equal dose.

    Args:
        dose: Gy/GBq; what is no number is drawn as nothing.
        ct: HU, where the dose lies; None: lines alone.
        point: x, y, z in LPS mm.
    """
    shown = {name: _plane(dose, ct, point, name) for name in ("coronal", "axial")}
    levels = isodose_levels(max(float(np.nanmax(values, initial=0.0)) for values, *_ in shown.values()))
    heights = {name: np.ptp(up) for name, (_, _, _, up) in shown.items()}
    widths = {name: np.ptp(across) for name, (_, _, across, _) in shown.items()}
    with style():
        inch = (WIDTH_IN - LEGEND_IN) / sum(widths.values())
        figure = new_figure(WIDTH_IN, inch * max(heights.values()), margins=False)
        left = 0.0
        for name, (values, hu, across, up) in shown.items():
            share = inch * widths[name] / WIDTH_IN
            tall = heights[name] / max(heights.values())
            axes = figure.add_axes((left, 1.0 - tall, share, tall))
            _draw(axes, values, hu, across, up, levels)
            if name == "axial":
                axes.invert_yaxis()  # posterior (large y) down
            for letter, place, align in (("R", 0.02, "left"), ("L", 0.98, "right")):
                axes.text(place, 0.98, letter, transform=axes.transAxes, ha=align, va="top", fontweight="bold",
                          color="white" if hu is not None else INK)  # fmt: skip
            left += share
        for level, colour in zip(levels, LINES[-len(levels) :] if levels else (), strict=True):
            axes.plot([], [], color=colour, label=f"{level:g}")
        if levels:
            figure.legend(title="Gy/GBq", loc="center right", handlelength=1.2)
    return figure


def isodose_levels(highest: float) -> list[float]:
    """At most five levels of the series 1, 2, 5 below the highest dose, from the lowest on."""
    if not highest > 0.0:
        return []
    power = math.floor(math.log10(highest))
    series = [step * 10.0**exponent for exponent in range(power - 2, power + 1) for step in STEPS]
    return [level for level in series if level < highest][-len(LINES) :]


def _plane(dose: sitk.Image, ct: sitk.Image | None, point: Sequence[float], name: str) -> tuple[Any, ...]:
    """Dose and HU of a slice with the coordinates of columns and rows, mm."""
    axis = {"coronal": 1, "axial": 2}[name]
    low, high = _extent(dose)
    size = [1 if i == axis else math.ceil((high[i] - low[i]) / PIXEL_MM) for i in range(3)]
    plane = sitk.Image(size, sitk.sitkUInt8)
    plane.SetSpacing([PIXEL_MM] * 3)
    plane.SetOrigin([float(point[i]) if i == axis else low[i] + PIXEL_MM / 2.0 for i in range(3)])
    drop = {"coronal": (slice(None), 0), "axial": (0,)}[name]
    volume = along_patient(resample(dose, plane))
    hu = None if ct is None else along_patient(resample(ct, plane, outside=AIR_HU)).array[drop]
    return volume.array[drop], hu, volume.x, volume.z if name == "coronal" else volume.y


def _extent(dose: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """The corners (LPS mm) of what has a dose, and a margin."""
    volume = along_patient(dose)
    inside = np.nan_to_num(volume.array) > 0.0
    if not inside.any():
        inside = np.ones(inside.shape, bool)
    lines = [volume.x[inside.any(axis=(0, 1))], volume.y[inside.any(axis=(0, 2))], volume.z[inside.any(axis=(1, 2))]]
    margin = 2.0 * PIXEL_MM
    return np.array([line[0] - margin for line in lines]), np.array([line[-1] + margin for line in lines])


def _draw(
    axes: "Axes", dose: np.ndarray, hu: np.ndarray | None, across: np.ndarray, up: np.ndarray, levels: Sequence[float]
) -> None:
    """One slice: the CT in grey and the lines."""
    half = PIXEL_MM / 2.0
    extent = (across[0] - half, across[-1] + half, up[0] - half, up[-1] + half)
    if hu is not None:
        axes.imshow(hu, extent=extent, origin="lower", cmap="gray", vmin=CT_WINDOW[0], vmax=CT_WINDOW[1])
    axes.set_aspect("equal")
    axes.set_axis_off()
    if levels and np.nanmax(dose, initial=0.0) > levels[0]:
        axes.contour(across, up, np.nan_to_num(dose), levels=levels, colors=LINES[-len(levels) :], linewidths=0.9)
