"""Where a CT shows the body."""

import numpy as np
from scipy import ndimage

BODY_HU = -300.0  # between air and fat
COARSE_MM = 4.0  # the body is looked for on voxels of about this size
THICK_MM = 16.0  # what is thinner, as the shell of a couch or a cable, is no body of its own
PART = 0.01  # of the largest part of the body, from which on a part apart from it belongs to it, as an arm or a leg
MARGIN_MM = 20.0


def body_box(hu: np.ndarray, spacing_mm: tuple[float, float, float], shortest_mm: float) -> tuple[slice, slice, slice]:
    """The box around the body, with a margin.

    Args:
        hu: CT (z, y, x), HU.
        spacing_mm: of its voxels, z y x.
        shortest_mm: shorter than this no edge is made, as far as the CT reaches.

    Returns:
        slices (z, y, x) into the CT; all of it where it shows no body.
    """
    strides = [max(1, round(COARSE_MM / spacing)) for spacing in spacing_mm]
    coarse_mm = [stride * spacing for stride, spacing in zip(strides, spacing_mm, strict=True)]
    inside = hu[tuple(slice(None, None, stride) for stride in strides)] > BODY_HU
    parts, count = ndimage.label(ndimage.binary_opening(inside, _ball(THICK_MM / 2, coarse_mm)))
    if not count:
        return tuple(slice(0, n) for n in hu.shape)
    voxels = np.bincount(parts.ravel())[1:]
    body = np.isin(parts, np.flatnonzero(voxels >= PART * voxels.max()) + 1)
    (box,) = ndimage.find_objects(body.astype(np.uint8))
    edges = zip(box, strides, spacing_mm, hu.shape, strict=True)
    return tuple(_widened(edge, stride, spacing, n, shortest_mm) for edge, stride, spacing, n in edges)


def _ball(radius_mm: float, spacing_mm: list[float]) -> np.ndarray:
    """A ball of voxels; at least the six neighbours."""
    reach = [max(1, int(radius_mm / spacing)) for spacing in spacing_mm]
    axes = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
    squares = (axis * spacing for axis, spacing in zip(axes, spacing_mm, strict=True))
    return sum(square**2 for square in squares) <= max(radius_mm, *spacing_mm) ** 2


def _widened(edge: slice, stride: int, spacing_mm: float, n: int, shortest_mm: float) -> slice:
    """An edge of the coarse box in voxels of the CT, with the margin and the least length."""
    start, stop = edge.start * stride, edge.stop * stride
    lacking_mm = shortest_mm - (stop - start) * spacing_mm
    more = int(np.ceil(max(MARGIN_MM, lacking_mm / 2) / spacing_mm))
    # What one side lacks because the CT ends there the other side gets, for the sake of the least length.
    missing = max(0, int(np.ceil(shortest_mm / spacing_mm)) - (min(stop + more, n) - max(start - more, 0)))
    return slice(max(0, start - more - missing), min(n, stop + more + missing))
