"""Two scans upon each other, before and after registration: whether it worked, at a glance.

Drawn along the patient axes (LPS): the patient's left is on the right of coronal and axial pictures, the head is up,
and in sagittal pictures the face looks to the left.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw, ImageFont

from theraflow.files import read_json, whole
from theraflow.images import from_array, read_image, resample, to_array
from theraflow.images.body import AIR_HU, shrink
from theraflow.layout import PatientFolder, Scan
from theraflow.png import palette_png
from theraflow.registration.outcome import read_beside_emission
from theraflow.registration.rigid import EMISSION_MM, IDENTITY, common_grid, emission_levels, field_of_view
from theraflow.registration.stage import SAME_FRAME, SAME_SCAN
from theraflow.registration.transforms import read_transform

PIXEL_MM = 2.5
HU_WINDOW = (-300.0, 300.0)  # air and lung black, fat dark, bone white
BODY_LEVEL = 0.1  # of grey, above which there is something to see
BODY_SHARE = 0.02  # of the plane with most of it, from which on a plane belongs to the picture
MARGIN_MM = 25.0
UNSEEN = 0.4  # brightness of the reference where the other scan has not looked
# Pixels: what the pictures take at most, the row of a title, and its letters.
WIDTH, HEIGHT, ROW, LETTERS = 1210, 550, 38, 18
GAP_MM = 12.0
COLOURS = 64
PLANES = {"coronal": 1, "sagittal": 2, "axial": 0}  # the array axis (z, y, x) that each looks along


def write_picture(reference: Scan, scan: Scan, folder: PatientFolder) -> None:
    """Write `folder.registration_picture(scan.scan)`, a PNG of `scan` on the reference scan.

    Slices of the CTs where both have one, else maximum-intensity projections of the logarithm of uptake. The reference
    is green, the scan magenta, so that grey is where they agree; where the scan has not looked, the reference is dark.
    Before registration (both in the coordinates of their scanners) and after it; only before where nothing was aligned
    or both share a frame of reference. The reference scan itself is shown alone.

    Raises:
        TheraflowError: an input file is missing or unreadable.
    """
    fit = read_json(folder.registration_fit(scan.scan))
    ways = {"as recorded": IDENTITY}
    if fit["method"] not in (SAME_SCAN, SAME_FRAME) and not fit["reason"]:
        ways = {"before": IDENTITY, "after": read_transform(folder.to_scan(scan.scan))}
    by_ct = all(folder.ct(one.scan).exists() for one in (reference, scan))
    levels = [_ct_levels(folder, one) if by_ct else _uptake_levels(folder, one) for one in (reference, scan)]
    key = f"green: {reference.scan}    magenta: {scan.scan}    grey: both agree    dark: not seen by {scan.scan}"
    if fit["method"] == SAME_SCAN:
        key = "the reference scan"
    picture = draw_overlay(*levels, ways, project=not by_ct, key=key)
    with whole(folder.registration_picture(scan.scan)) as temporary:
        temporary.write_bytes(palette_png(picture, COLOURS))


def draw_overlay(
    reference: sitk.Image, scan: sitk.Image, ways: Mapping[str, sitk.Transform], *, project: bool, key: str
) -> Image.Image:
    """Coronal, sagittal and axial pictures of a scan on the reference, each by every way.

    Args:
        reference, scan: grey levels from 0 to 1.
        ways: by title the map from reference points to scan points (LPS, mm); the last one decides what is shown.
        project: maximum-intensity projections, else slices through the middle of what both have seen.
        key: what the colours mean, in words.
    """
    grid = _view(reference, scan, list(ways.values())[-1])
    spot = _middle(reference, grid)
    columns = []
    for plane, axis in PLANES.items():
        slab = [slice(None)] * 3
        if not project:
            slab[axis] = slice(spot[axis], spot[axis] + 1)
        layer = grid[tuple(slab[::-1])]
        panels = [
            (f"{plane}, {title}", _overlay(reference, scan, layer, way, axis)[:: 1 if plane == "axial" else -1])
            for title, way in ways.items()
        ]
        room = grid.GetSize()[2] >= len(panels) * grid.GetSize()[1]
        columns += [panels] if plane == "axial" and room else [[panel] for panel in panels]
    return _sheet(columns, key)


def _ct_levels(folder: PatientFolder, scan: Scan) -> sitk.Image:
    ct = shrink(sitk.Clamp(read_beside_emission(folder, scan.scan, folder.ct(scan.scan)), lowerBound=AIR_HU), PIXEL_MM)
    return sitk.IntensityWindowing(sitk.Cast(ct, sitk.sitkFloat32), *HU_WINDOW, 0.0, 1.0)


def _uptake_levels(folder: PatientFolder, scan: Scan) -> sitk.Image:
    levels = emission_levels(shrink(read_image(folder.emission(scan)), EMISSION_MM))
    return sitk.RescaleIntensity(levels, 0.0, 1.0)


def _view(reference: sitk.Image, scan: sitk.Image, way: sitk.Transform) -> sitk.Image:
    """An empty grid along the patient axes around that part of the reference's body which the scan has seen."""
    grid = common_grid([reference], [IDENTITY], PIXEL_MM)
    body = to_array(resample(reference, grid)) > BODY_LEVEL
    # Ten millimetres are fine enough to know how far a field of view reaches.
    coarse = common_grid([reference], [IDENTITY], 4 * PIXEL_MM)
    seen = to_array(resample(from_array(field_of_view(scan, coarse, way), coarse), grid, interpolation="nearest")) > 0
    shown = body & seen if (body & seen).any() else body
    low, high = [], []
    for axis in range(3):
        profile = np.count_nonzero(shown, axis=tuple(other for other in range(3) if other != axis))
        planes = np.flatnonzero(profile >= BODY_SHARE * profile.max())
        margin = round(MARGIN_MM / PIXEL_MM)
        low.append(max(0, int(planes[0]) - margin))
        high.append(min(shown.shape[axis], int(planes[-1]) + 1 + margin))
    return grid[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]


def _middle(reference: sitk.Image, grid: sitk.Image) -> tuple[int, ...]:
    """Index (z, y, x) of the middle of the reference's body on the grid."""
    body = np.argwhere(to_array(resample(reference, grid)) > BODY_LEVEL)
    middle = body.mean(axis=0) if len(body) else (np.array(grid.GetSize()[::-1]) - 1) / 2
    return tuple(round(place) for place in middle)


def _overlay(reference: sitk.Image, scan: sitk.Image, layer: sitk.Image, way: sitk.Transform, axis: int) -> np.ndarray:
    """Colours (rows, columns, 3) from 0 to 1 of a layer of the grid, looked at along an axis (z, y, x)."""
    fixed = to_array(resample(reference, layer)).max(axis=axis).clip(0.0, 1.0)
    moved = to_array(resample(scan, layer, way)).max(axis=axis).clip(0.0, 1.0)
    seen = field_of_view(scan, layer, way).any(axis=axis)
    colours = np.stack([moved, fixed, moved], axis=-1)
    return np.where(seen[..., None], colours, UNSEEN * fixed[..., None])


def _sheet(columns: list[list[tuple[str, np.ndarray]]], key: str) -> Image.Image:
    """Columns of pictures side by side, all to one scale: title and colours, the first row of colours above."""
    shapes = [[np.array(colours.shape[:2]) * PIXEL_MM for _, colours in column] for column in columns]
    widths = [max(shape[1] for shape in column) for column in shapes]
    heights = [sum(shape[0] for shape in column) for column in shapes]
    across = sum(widths) + GAP_MM * (len(columns) - 1)
    per_mm = min(WIDTH / across, HEIGHT / max(heights))
    tall = max(per_mm * height + (len(column) + 1) * ROW for column, height in zip(columns, heights, strict=True))
    sheet = Image.new("RGB", (round(per_mm * across), round(tall)), "white")
    write = partial(ImageDraw.Draw(sheet).text, fill="black", font=ImageFont.load_default(LETTERS), anchor="lm")
    left = 0.0
    for column, own, width in zip(columns, shapes, widths, strict=True):
        top = 0.0
        for (title, colours), shape in zip(column, own, strict=True):
            write((left, top + ROW / 2), title)
            size = tuple(np.rint(shape[::-1] * per_mm).astype(int).tolist())
            picture = Image.fromarray(np.rint(255.0 * colours).astype(np.uint8))
            sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), (round(left), round(top + ROW)))
            top += ROW + shape[0] * per_mm
        left += (width + GAP_MM) * per_mm
    write((0.0, sheet.height - ROW / 2), key)
    return sheet
