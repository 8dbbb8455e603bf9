"""SUVpeak on the scan's own voxels: PERCIST's 1 cm3 sphere, and the two peaks of the IBSI beside it.

The main one, `percist_peak`, is the highest mean in a sphere of 1 cm3 centred within the lesion (Wahl et al.,
J Nucl Med 2009;50 Suppl 1:122S). Voxels count by the fraction that lies in the sphere, and the centre moves
by less than a voxel, on an image interpolated by cubic splines to about 1 mm: so the value hardly depends on
where the grid happens to lie. The IBSI's peaks (Zwanenburg et al., Radiology 2020;295:328; codes VJGA and
0F91) move by whole voxels and count a voxel if its centre lies in the sphere, which on common PET grids is a
volume of 0.7 to 1.3 mL.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.signal import fftconvolve

from theraflow.lesions.region import Box, Region, surroundings

RADIUS_MM = 10.0 * (3.0 / (4.0 * np.pi)) ** (1.0 / 3.0)  # of a sphere of 1 cm3: 6.2035 mm
FINENESS_MM = 1.0  # the interpolated image has voxels no larger than this
SUBDIVISION = 11  # a voxel's fraction in the sphere is counted on so many points along each axis
SPLINE_REACH_VOXELS = 6  # a cubic spline forgets a sample by a factor 0.268 a voxel: 4e-4 after six
TILE_MM = 40.0  # a lesion is searched in pieces of this size


def ibsi_peaks(values: np.ndarray, region: Region, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Local (VJGA) and global (0F91) intensity peak.

    The mean over the voxels whose centre is no farther than 6.2035 mm from the centre of a voxel of the
    region: the local peak at its maximum (at several equal maxima the highest), the global peak wherever it
    is highest. Voxels outside the region count; beyond the image's edge there are none, and the mean is over
    those present.

    Args:
        values: the image, shape (z, y, x), finite.
        region: the lesion, not empty, within the image.
        spacing_mm: voxel size (z, y, x).

    Returns:
        Local and global peak, in the unit of `values`.
    """
    box = surroundings(region, values.shape, np.asarray(spacing_mm), RADIUS_MM)
    crop, mask = values[box].astype(float), region.on_box(box)
    half = [int(RADIUS_MM / s) for s in spacing_mm]
    offsets = np.meshgrid(*[np.arange(-h, h + 1) * s for h, s in zip(half, spacing_mm, strict=True)], indexing="ij")
    sphere = (sum(offset**2 for offset in offsets) <= RADIUS_MM**2).astype(float)
    mean = _sphere_mean(crop, sphere, _touches_edge(region.box, half, values.shape))[mask]
    inside = crop[mask]
    return float(mean[inside == inside.max()].max()), float(mean.max())


def percist_peak(values: np.ndarray, region: Region, spacing_mm: Sequence[float]) -> float:
    """The highest mean in a sphere of 1 cm3 whose centre lies in a voxel of the region.

    Args:
        values: the image, shape (z, y, x), finite; voxels outside the region count, those beyond the edge do
            not exist.
        region: the lesion, not empty, within the image.
        spacing_mm: voxel size (z, y, x).

    Returns:
        The peak, in the unit of `values`.
    """
    best = -np.inf
    for bound, tile in _tiles(values, region, spacing_mm):
        # No mean exceeds the highest value within reach, and the tiles come in the order of that.
        if bound <= best:
            break
        best = max(best, _highest_mean(values, region, tile, spacing_mm))
    return best


def _tiles(values: np.ndarray, region: Region, spacing_mm: Sequence[float]) -> list[tuple[float, Box]]:
    """Pieces of the region's box with the highest value a sphere centred there touches, highest first."""
    edges = []
    for a, b, s in zip(region.start, region.stop, spacing_mm, strict=True):
        edges.append(np.linspace(a, b, max(1, round((b - a) * s / TILE_MM)) + 1).round().astype(int).tolist())
    tiles = []
    for z in zip(edges[0], edges[0][1:], strict=False):
        for y in zip(edges[1], edges[1][1:], strict=False):
            for x in zip(edges[2], edges[2][1:], strict=False):
                tile = (slice(*z), slice(*y), slice(*x))
                piece = region.on_box(tile)
                if piece.any():
                    start = tuple(part.start for part in tile)
                    reach = surroundings(Region(start, piece), values.shape, spacing_mm, RADIUS_MM + max(spacing_mm))
                    tiles.append((float(values[reach].max()), tile))
    return sorted(tiles, key=lambda tile: -tile[0])


def _highest_mean(values: np.ndarray, region: Region, tile: Box, spacing_mm: Sequence[float]) -> float:
    """The highest sphere mean centred in the region's part within `tile`."""
    reach = [int(np.ceil(RADIUS_MM / s)) + 1 for s in spacing_mm]
    parts = [int(np.ceil(s / FINENESS_MM)) for s in spacing_mm]
    low = [max(part.start - r, 0) for part, r in zip(tile, reach, strict=True)]
    high = [min(part.stop + r, n) for part, r, n in zip(tile, reach, values.shape, strict=True)]
    first = [max(a - SPLINE_REACH_VOXELS, 0) for a in low]
    samples = tuple(slice(f, b + SPLINE_REACH_VOXELS) for f, b in zip(first, high, strict=True))
    fine = values[samples].astype(float)
    for axis in range(3):
        fine = _refine(fine, axis, low[axis] - first[axis], high[axis] - first[axis], parts[axis])
    sphere = _fractional_sphere(tuple(float(s) / k for s, k in zip(spacing_mm, parts, strict=True)))
    mean = _sphere_mean(fine, sphere, _touches_edge(tile, reach, values.shape))
    mask = region.on_box(tile)
    for axis, k in enumerate(parts):
        mask = mask.repeat(k, axis=axis)
    corner = [(part.start - a) * k for part, a, k in zip(tile, low, parts, strict=True)]
    inner = tuple(slice(c, c + n) for c, n in zip(corner, mask.shape, strict=True))
    return float(_between_voxels(mean, inner)[mask].max())


def _refine(samples: np.ndarray, axis: int, low: int, high: int, parts: int) -> np.ndarray:
    """Voxels `low` to `high` along `axis`, each divided into `parts`, by a cubic spline through `samples`.

    The outer half of an edge voxel has the value of its centre. Fewer than four samples are joined by lines.
    """
    n = samples.shape[axis]
    places = np.arange(low, high)[:, None] + (np.arange(parts) + 0.5) / parts - 0.5
    places = np.clip(places.ravel(), 0, n - 1)
    if n == 1:
        return samples.repeat(places.size, axis=axis)
    # A spline is linear in its samples: the splines of unit vectors are a matrix for all lines.
    weights = make_interp_spline(np.arange(n), np.eye(n), k=3 if n > 3 else 1)(places)
    return np.moveaxis(np.tensordot(samples, weights, axes=(axis, 1)), -1, axis)


def _touches_edge(box: Box, reach: Sequence[int], shape: Sequence[int]) -> bool:
    return any(p.start < r or p.stop + r > n for p, r, n in zip(box, reach, shape, strict=True))


def _sphere_mean(values: np.ndarray, sphere: np.ndarray, at_edge: bool) -> np.ndarray:
    """Mean of `values` weighted by `sphere` (odd shape) centred on every voxel.

    If `at_edge`, over the voxels that exist; else only right where the whole sphere lies within `values`.
    """
    weight = fftconvolve(np.ones_like(values), sphere, mode="same") if at_edge else sphere.sum()
    return fftconvolve(values, sphere, mode="same") / weight


@lru_cache(maxsize=32)
def _fractional_sphere(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Fraction of each voxel that lies in the sphere, centred on the middle voxel."""
    axes = []
    for s in spacing_mm:
        half = int(np.ceil(RADIUS_MM / s - 0.5))
        points = (np.arange((2 * half + 1) * SUBDIVISION) + 0.5) / SUBDIVISION - half - 0.5
        axes.append((points * s) ** 2)
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = z + y + x <= RADIUS_MM**2
    blocks = [part for axis in axes for part in (axis.size // SUBDIVISION, SUBDIVISION)]
    return inside.reshape(blocks).mean(axis=(1, 3, 5))


def _between_voxels(field: np.ndarray, box: Box) -> np.ndarray:
    """The highest value within half a voxel of each voxel in `box`, by parabolas through its neighbours."""
    padded = np.pad(field, 1, mode="edge")
    value = field[box]
    highest = value.copy()
    for axis in range(3):
        before, after = (
            padded[tuple(slice(p.start + 1 + s, p.stop + 1 + s) for p, s in zip(box, step, strict=True))]
            for step in (-np.eye(3, dtype=int)[axis], np.eye(3, dtype=int)[axis])
        )
        slope, bend = (after - before) / 2.0, after + before - 2.0 * value
        vertex = np.divide(-slope, bend, out=np.copysign(np.inf, slope), where=bend < 0)
        step = np.clip(vertex, -0.5, 0.5)
        highest += slope * step + bend * step**2 / 2.0
    return highest
