"""SUVpeak on the scan's own voxels: PERCIST's 1 cm3 sphere, and the two peaks of the IBSI beside it.

The main one, `percist_peak`, is the highest mean in a sphere of 1 cm3 centred within the lesion (Wahl et al.,
J Nucl Med 2009;50 Suppl 1:122S). The image is continued between its voxels by splines of degree 5 and the centre
moves freely: so the value hardly depends on where the grid happens to lie. The IBSI's peaks (Zwanenburg et al.,
Radiology 2020;295:328; codes VJGA and 0F91) move by whole voxels and count a voxel if its centre lies in the
sphere, which on common PET grids is a volume of 0.7 to 1.3 mL.

Both are weighted means of voxels around a place. The mean of a spline over a sphere is linear in the voxels, so that
its weights are computed once for a voxel size.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
import scipy

from theraflow.lesions.region import Box, Region

RADIUS_MM = 10.0 * (3.0 / (4.0 * np.pi)) ** (1.0 / 3.0)  # of a sphere of 1 cm3: 6.2035 mm
DEGREE = 5  # of the splines; of degree 3 they miss a Gaussian of 12 mm on voxels of 5.5 mm by 1.1 %, of 5 by 0.3 %
TAIL_VOXELS = 6  # beyond the sphere weights alternate and fall by 0.43 a voxel (pole of that spline): to 1e-3
TILE_VOXELS = 64  # a lesion is searched in pieces of at most this edge, which bounds the memory
CANDIDATES = 2000  # of a piece's voxels, those with the highest means are compared with their neighbours
# The centre is moved in the voxels that promise most, until no other promises so much more (as a fraction) than has
# been found. So many at a time (by the most nodes along an axis), as promises are rougher on larger voxels: in
# eight images of white noise of 30 % on voxels of 5.5 mm, 4 at a time missed the peak by up to 1.5 %, 16 in none.
AT_ONCE, ENOUGH = {3: 8, 5: 16}, 1e-4
UNRANKED = 6e-3  # of the weights (absolute, in sum), what may be left out at the rim to tell which promise most
LEBEDEV = (11, 17, 23, 29, 35, 41, 53, 59)  # degrees of the quadrature over a sphere's surface that are used
FINE_MM, COARSE = 0.03, 10  # last step of the centre within a voxel, and how many of them make the first


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
    sphere = _whole_voxels(tuple(float(s) for s in spacing_mm))
    local, highest = (-np.inf, -np.inf), -np.inf
    for tile in _tiles(region):
        mask = region.on_box(tile)
        inside, mean = values[tile][mask], _means_on_voxels(values, tile, sphere)[mask]
        local = max(local, (inside.max(), mean[inside == inside.max()].max()))
        highest = max(highest, mean.max())
    return float(local[1]), float(highest)


def percist_peak(values: np.ndarray, region: Region, spacing_mm: Sequence[float]) -> float:
    """The highest mean in a sphere of 1 cm3 whose centre lies in a voxel of the region.

    The image between voxel centres is the spline of degree 5 through them. The mean is computed around the centre
    of every voxel of the region; in those that promise most the centre is moved to the highest place in the voxel.

    Args:
        values: the image, shape (z, y, x), finite; voxels outside the region count, those beyond the edge do
            not exist: the weights of the others are divided by their sum.
        region: the lesion, not empty, within the image.
        spacing_mm: voxel size (z, y, x).

    Returns:
        The peak, in the unit of `values`.
    """
    spacing = tuple(float(s) for s in spacing_mm)
    weights = _weights_of_sphere(spacing)
    ranking = _ranking_weights(spacing)
    promises, places = [], []
    for tile in _tiles(region):
        wide = tuple(slice(max(p.start - 1, 0), min(p.stop + 1, n)) for p, n in zip(tile, values.shape, strict=True))
        field = _means_on_voxels(values, wide, ranking)
        mask, first = region.on_box(tile), [t.start - w.start for t, w in zip(tile, wide, strict=True)]
        means = field[tuple(slice(a, a + n) for a, n in zip(first, mask.shape, strict=True))]
        inside = means[mask]
        if len(inside) > CANDIDATES:
            mask &= means >= np.partition(inside, -CANDIDATES)[-CANDIDATES]
        indices = np.argwhere(mask) + first
        promises.append(_promises(field, indices))
        places.append(indices + [part.start for part in wide])
    promise, place = np.concatenate(promises), np.concatenate(places)
    best = -np.inf
    order, at_once = np.argsort(-promise), AT_ONCE[max(weights.shape[:3])]
    for few in (order[n : n + at_once] for n in range(0, len(order), at_once)):
        if promise[few[0]] <= best + ENOUGH * abs(best):
            break
        best = max(best, _highest_between(_means_in_voxels(values, place[few].tolist(), weights), spacing))
    return best


def _tiles(region: Region) -> Iterator[Box]:
    """Pieces of the region's box that hold some of it."""
    parts = []
    for a, b in zip(region.start, region.stop, strict=True):
        count = -(-(b - a) // TILE_VOXELS)
        parts.append([slice(*pair) for pair in pairwise(a + (b - a) * k // count for k in range(count + 1))])
    return (tile for tile in product(*parts) if region.on_box(tile).any())


def _surrounded(
    values: np.ndarray, box: Box, half: Sequence[int], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of a box and `half` voxels around it, and which of them exist (1 or 0); None if all do.

    Those that do not exist are 0.
    """
    wide = [(part.start - h, part.stop + h) for part, h in zip(box, half, strict=True)]
    padding = [(max(-a, 0), max(b - n, 0)) for (a, b), n in zip(wide, values.shape, strict=True)]
    crop = values[tuple(slice(max(a, 0), b) for a, b in wide)].astype(dtype)
    if not any(map(any, padding)):
        return crop, None
    return np.pad(crop, padding), np.pad(np.ones_like(crop), padding)


def _means_on_voxels(values: np.ndarray, box: Box, weights: np.ndarray) -> np.ndarray:
    """Weighted mean around every voxel of a box; weights of odd shape, along each axis symmetric around the middle."""
    half = [n // 2 for n in weights.shape]
    crop, exists = _surrounded(values, box, half, weights.dtype)
    shape = [scipy.fft.next_fast_len(n, real=True) for n in crop.shape]
    transfer = _transfer(weights, shape)
    # What the period of the transform wraps around lies in the surroundings, which are cut off.
    cut = tuple(slice(h, n - h) for h, n in zip(half, crop.shape, strict=True))
    total = _part_of_inverse(scipy.fft.rfftn(crop, shape) * transfer, shape, cut)
    if exists is None:
        return total / weights.sum()
    return total / _part_of_inverse(scipy.fft.rfftn(exists, shape) * transfer, shape, cut)


def _part_of_inverse(spectrum: np.ndarray, shape: Sequence[int], part: Box) -> np.ndarray:
    """`irfftn` of a spectrum to `shape`, of which only a part is wanted: each axis is cut before the next."""
    planes = scipy.fft.ifft(spectrum, axis=0)[part[0]]
    rows = scipy.fft.ifft(planes, axis=1)[:, part[1]]
    return scipy.fft.irfft(rows, shape[2], axis=2)[..., part[2]]


def _transfer(weights: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """What `rfftn` gives of the weights with their middle in the first of `shape` voxels: sums of cosines."""
    cosines = [_cosines(n, length, weights.dtype) for n, length in zip(shape, weights.shape, strict=True)]
    cosines[2] = cosines[2][: shape[2] // 2 + 1]
    return _along_axes(weights[None], cosines)[0]


@lru_cache(maxsize=256)
def _cosines(period: int, length: int, dtype: np.dtype) -> np.ndarray:
    """Of all frequencies of a period at `length` places around 0, shape (period, length)."""
    angles = np.outer(np.arange(period), np.arange(length) - length // 2) * (2.0 * np.pi / period)
    return np.cos(angles).astype(dtype)


def _means_in_voxels(values: np.ndarray, places: Sequence[Sequence[int]], weights: np.ndarray) -> np.ndarray:
    """The mean in the sphere around all places in a voxel for which there are weights, shape (voxels, p, q, r)."""
    half = [n // 2 for n in weights.shape[3:]]
    matrix = weights.reshape(-1, np.prod(weights.shape[3:]))
    boxes = [tuple(slice(index, index + 1) for index in place) for place in places]
    crops, exists = zip(*[_surrounded(values, box, half, weights.dtype) for box in boxes], strict=True)
    means = np.stack([crop.ravel() for crop in crops]) @ matrix.T
    for number, present in enumerate(exists):
        if present is not None:
            means[number] /= matrix @ present.ravel()
    return means.reshape(-1, *weights.shape[:3])


def _highest_between(means: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The highest value of the polynomials that voxels have through their means, shape (voxels, p, q, r)."""
    steps = [COARSE * int(np.ceil(s / (COARSE * FINE_MM))) for s in spacing_mm]
    matrices = [_to_steps(nodes, count) for nodes, count in zip(means.shape[1:], steps, strict=True)]
    coarse = _along_axes(means, [matrix[::COARSE] for matrix in matrices])
    voxel, *place = np.unravel_index(coarse.argmax(), coarse.shape)
    around = [
        matrix[max(COARSE * k - COARSE // 2, 0) : COARSE * k + COARSE // 2 + 1]
        for matrix, k in zip(matrices, place, strict=True)
    ]
    return float(_along_axes(means[voxel : voxel + 1], around).max())


def _along_axes(arrays: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Each of the arrays (N, p, q, r) times a matrix along each axis: (P, p), (Q, q), (R, r) give (N, P, Q, R)."""
    z, y, x = matrices
    planes = y @ (arrays @ x.T)
    columns = planes.reshape(*planes.shape[:2], -1)
    return (z @ columns).reshape(len(arrays), len(z), len(y), len(x))


@lru_cache(maxsize=16)
def _to_steps(nodes: int, steps: int) -> np.ndarray:
    """From a polynomial's values at the nodes of a voxel to those at even steps along it, shape (steps + 1, nodes)."""
    return np.vander(np.linspace(-0.5, 0.5, steps + 1), nodes) @ np.linalg.inv(np.vander(_nodes(nodes)))


def _nodes(count: int) -> np.ndarray:
    """Places along a voxel, from -0.5 to 0.5, through which a polynomial follows a smooth function (Chebyshev)."""
    return -0.5 * np.cos(np.pi * np.arange(count) / (count - 1))


@lru_cache(maxsize=8)
def _whole_voxels(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """1 for the voxels (z, y, x) whose centre is no farther than the radius from that of the middle one, else 0."""
    half = [int(RADIUS_MM / s) for s in spacing_mm]
    offsets = np.meshgrid(*[np.arange(-h, h + 1) * s for h, s in zip(half, spacing_mm, strict=True)], indexing="ij")
    return (sum(offset**2 for offset in offsets) <= RADIUS_MM**2).astype(float)


@lru_cache(maxsize=8)
def _ranking_weights(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The weights around a voxel's centre, cut at the rim, in single precision: enough to tell which promise most."""
    weights = _weights_of_sphere(spacing_mm)
    central = weights[tuple(n // 2 for n in weights.shape[:3])]
    cuts = (central[tuple(slice(k, n - k) for n in central.shape)] for k in range(TAIL_VOXELS, -1, -1))
    least = np.abs(central).sum() - UNRANKED
    return next(cut for cut in cuts if np.abs(cut).sum() >= least).astype(np.float32)


@lru_cache(maxsize=8)
def _weights_of_sphere(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The weight of every voxel around in the mean of the spline over a sphere centred in a voxel.

    Returns:
        Shape (p, q, r, z, y, x): the centre at `_nodes` along each axis of the middle voxel, then the voxels around;
        for each centre the sum is 1.
    """
    fine = [s < 2.0 for s in spacing_mm]  # fewer nodes and, of smaller weights each, a shorter tail do as well
    counts = [3 if f else 5 for f in fine]
    voxels = [2 * (int(np.ceil(RADIUS_MM / s)) + TAIL_VOXELS - f) + 1 for s, f in zip(spacing_mm, fine, strict=True)]
    # So many that the weights' absolute deviations sum up to 1e-3 at most on voxels of 1 mm and more.
    across = min(RADIUS_MM / min(spacing_mm), 7.0)
    directions, areas = _octant(next(degree for degree in LEBEDEV if degree >= 8.0 * across))
    radii, shells = np.polynomial.legendre.leggauss(int(2.0 * across) + 2)
    radii = (radii + 1.0) / 2.0
    shells = shells * radii**2
    places = RADIUS_MM * (radii[:, None] * directions[:, None])  # (axis, shell, direction)
    z, y, x = (
        _spline_weights(along / s, _nodes(p)[: p // 2 + 1], n)
        for along, s, p, n in zip(places, spacing_mm, counts, voxels, strict=True)
    )
    weights = 0.0
    for shell, of_z, of_y, of_x in zip(shells, z, y, x, strict=True):
        plane = ((of_z * (shell * areas)[:, None])[:, :, None] * of_y[:, None]).reshape(len(areas), -1)
        weights = weights + plane.T @ of_x
    halves = [p // 2 + 1 for p in counts]
    weights = weights.reshape([part for pair in zip(halves, voxels, strict=True) for part in pair])
    weights = weights.transpose(0, 2, 4, 1, 3, 5)
    for axis in range(3):  # the other half of the places is its mirror image
        mirrored = np.flip(weights, (axis, axis + 3))
        weights = np.concatenate([weights, np.delete(mirrored, 0, axis)], axis=axis)
    return np.ascontiguousarray(weights / weights.sum(axis=(3, 4, 5), keepdims=True))


def _octant(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Lebedev's quadrature over a sphere's surface: directions (3, N) without signs, and the area that each stands for.

    Each direction stands for itself and its mirror images.
    """
    from scipy.integrate import lebedev_rule  # only here: it takes time, and most outlines need no peak

    directions, areas = lebedev_rule(degree)
    kept, of_each = np.unique(np.abs(directions.T).round(12), axis=0, return_inverse=True)
    return kept.T, np.bincount(of_each.ravel(), areas)


def _spline_weights(offsets: np.ndarray, nodes: np.ndarray, count: int) -> np.ndarray:
    """Weights of `count` voxels in the spline, mean of each node plus and minus each offset (in voxels).

    Returns:
        Shape (*offsets, nodes x count); nodes and offsets count from the middle voxel.
    """
    from scipy.interpolate import make_interp_spline  # only here, as above

    half = count // 2 + TAIL_VOXELS  # the ends of the row of voxels are far enough not to matter
    row = make_interp_spline(np.arange(-half, half + 1), np.eye(2 * half + 1), k=DEGREE)
    both = (row(nodes + offsets[..., None]) + row(nodes - offsets[..., None])) / 2.0
    return both[..., TAIL_VOXELS:-TAIL_VOXELS].reshape(*offsets.shape, -1)


def _promises(field: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """About the highest value within half a voxel of the places `indices` (N, 3), by parabolas through neighbours."""
    flat, strides = field.ravel(), np.array([field.shape[1] * field.shape[2], field.shape[2], 1])
    position = indices @ strides
    value = flat[position]
    highest = value.copy()
    for along, size, stride in zip(indices.T, field.shape, strides, strict=True):
        before, after = flat[position - stride * (along > 0)], flat[position + stride * (along < size - 1)]
        slope, bend = (after - before) / 2.0, after + before - 2.0 * value
        vertex = np.divide(-slope, bend, out=np.copysign(np.inf, slope), where=bend < 0)
        step = np.clip(vertex, -0.5, 0.5)
        highest += slope * step + bend * step**2 / 2.0
    return highest
