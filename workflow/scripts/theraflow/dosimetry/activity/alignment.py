"""Where in a planar view the part of the body lies that a CT shows: a translation, found by what the CT explains.

Views are indexed view (anterior, posterior), row (to the feet), column (to the left).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy

COARSE_MM = 8.0
# At a place on the edge of the view at least this part of the CT's window, or of the view if that is smaller, is seen.
LEAST_SEEN = 0.5


@dataclass(frozen=True)
class Place:
    """Where the window of the projections lies in a view.

    Attributes:
        row, column: pixel of the view on which the first pixel of the window lies; may be negative.
        rest: how many pixels, at most half of one, the window lies farther to the feet and to the left.
        variance: sum of squares of the rates in the window about their mean.
        residual: sum of squares that the projections leave of it.
        activities: of each region, in the unit of the view; none is negative.
    """

    row: int
    column: int
    variance: float
    residual: float
    activities: np.ndarray
    rest: tuple[float, float] = (0.0, 0.0)

    def explained(self, noise: float = 0.0) -> float:
        """Part of the variance that the projections explain, after that of counting (a sum of squares) is taken off."""
        return 1.0 - (self.residual - noise) / (self.variance - noise) if self.variance > noise else 0.0


def find_place(views: np.ndarray, projections: np.ndarray, pixel_mm: tuple[float, float]) -> Place:
    """The translation at which a sum of the projections, none with a negative activity, explains the counts best.

    Outline and organs both count, and no edge has to be found in a noisy image. First on pixels of 8 mm at every place,
    then on those of the view around the best one, and between pixels where a parabola through the neighbours has its
    vertex.

    Args:
        views: count rates, shape (2, rows, columns).
        projections: shape (regions, 2, rows, columns), smaller or larger than the view.
        pixel_mm: height and width of a pixel, the same in both.
    """
    factor = tuple(max(1, round(COARSE_MM / length)) for length in pixel_mm)
    coarse = _best_place(_binned(views, factor), _binned(projections, factor))
    middle = (coarse.row * factor[0], coarse.column * factor[1])
    best = max(
        (
            fit_at(views, projections, middle[0] + row, middle[1] + column)
            for row in range(-factor[0], factor[0] + 1)
            for column in range(-factor[1], factor[1] + 1)
        ),
        key=Place.explained,
    )
    return replace(best, rest=(_vertex(views, projections, best, (1, 0)), _vertex(views, projections, best, (0, 1))))


def _vertex(views: np.ndarray, projections: np.ndarray, best: Place, step: tuple[int, int]) -> float:
    """Where between the pixels along `step` most would be explained, from the best one."""
    before, after = (
        fit_at(views, projections, best.row + sign * step[0], best.column + sign * step[1]).explained()
        for sign in (-1, 1)
    )
    curvature = before - 2.0 * best.explained() + after
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature < 0.0 else 0.0


def moved(projections: np.ndarray, rest: tuple[float, float]) -> np.ndarray:
    """The projections, shape (..., rows, columns), by a part of a pixel farther to the feet and to the left."""
    return scipy.ndimage.shift(projections, (0.0,) * (projections.ndim - 2) + rest, order=1, mode="nearest")


def window(views: np.ndarray, row: int, column: int, shape: tuple[int, int]) -> np.ndarray:
    """The part of the views under a window of `shape` at a place, NaN outside of the views."""
    found = np.full((len(views), *shape), np.nan)
    rows, columns = (
        slice(max(0, -start), min(length, size - start))
        for start, length, size in zip((row, column), shape, views.shape[1:], strict=True)
    )
    if rows.start < rows.stop and columns.start < columns.stop:
        found[:, rows, columns] = views[
            :, row + rows.start : row + rows.stop, column + columns.start : column + columns.stop
        ]
    return found


def _least_pixels(views: np.ndarray, projections: np.ndarray) -> float:
    """Of both views together."""
    return LEAST_SEEN * len(views) * min(math.prod(views.shape[1:]), math.prod(projections.shape[2:]))


def _binned(views: np.ndarray, factor: tuple[int, int]) -> np.ndarray:
    """Means over blocks of pixels in the last two axes, filled up with zeros."""
    rows, columns = (-size % k for size, k in zip(views.shape[-2:], factor, strict=True))
    filled = np.pad(views, [(0, 0)] * (views.ndim - 2) + [(0, rows), (0, columns)])
    *others, height, width = filled.shape
    blocks = filled.reshape(*others, height // factor[0], factor[0], width // factor[1], factor[1])
    return blocks.mean(axis=(-3, -1))


def fit_at(views: np.ndarray, projections: np.ndarray, row: int, column: int) -> Place:
    """The activities at one place; nothing is explained where too little is seen."""
    counts = window(views, row, column, projections.shape[-2:])
    seen = np.isfinite(counts)
    shapes, counts = projections[:, seen], counts[seen]
    if counts.size < _least_pixels(views, projections):
        return Place(row, column, 0.0, 0.0, np.zeros(len(projections)))
    variance = float(((counts - counts.mean()) ** 2).sum())
    activities, residual = _solved(shapes @ shapes.T, shapes @ counts, float(counts @ counts))
    return Place(row, column, variance, residual, activities)


def _solved(products: np.ndarray, with_counts: np.ndarray, counts_squared: float) -> tuple[np.ndarray, float]:
    """Activities >= 0 of the least squares, and their sum, from the normal equations."""
    lower, lengths = _roots(products)
    fitted = scipy.linalg.solve_triangular(lower, with_counts / lengths, lower=True)
    activities = scipy.optimize.nnls(lower.T, fitted)[0] / lengths
    return activities, float(counts_squared - 2.0 * activities @ with_counts + activities @ products @ activities)


def _roots(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factors (..., n, n) of products of shapes (..., n, n) scaled to unit length, and the lengths (..., n).

    What the view does not show, but for rounding, has the length infinity and so takes no part; a millionth in the
    diagonal keeps what coincides soluble.
    """
    squares = np.diagonal(products, axis1=-2, axis2=-1)
    lengths = np.sqrt(np.where(squares > 1e-9 * squares.max(axis=-1, keepdims=True), squares, np.inf))
    scaled = products / (lengths[..., :, None] * lengths[..., None, :])
    return np.linalg.cholesky(scaled + 1e-6 * np.eye(products.shape[-1])), lengths


def _best_place(views: np.ndarray, projections: np.ndarray) -> Place:
    """The best of all places.

    What could be explained with activities of either sign bounds what those >= 0 explain: places are solved in the
    order of that bound until it falls below the best one found.
    """
    best = Place(0, 0, 0.0, 0.0, np.zeros(len(projections)))
    for bound, row, column in _bounds(views, projections):
        if bound <= best.explained():
            break
        best = max(best, fit_at(views, projections, row, column), key=Place.explained)
    return best


def _bounds(views: np.ndarray, projections: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """Upper bound of the explained part, row and column of every place, the greatest first."""
    from scipy.signal import correlate  # only here: it takes as long to load as all else of a job

    height, width = projections.shape[-2:]

    def correlated(image: np.ndarray, shape: np.ndarray) -> np.ndarray:
        return correlate(image, shape, mode="full", method="fft")

    both = range(len(views))
    seen, flat = np.ones(views.shape[1:]), np.ones((height, width))
    pixels = len(views) * correlated(seen, flat)
    total = sum(correlated(views[v], flat) for v in both)
    squares = sum(correlated(views[v] ** 2, flat) for v in both)
    with_counts = np.array([sum(correlated(views[v], one[v]) for v in both) for one in projections])
    products = np.empty((*pixels.shape, len(projections), len(projections)))
    for k, one in enumerate(projections):
        for m in range(k, len(projections)):
            products[..., k, m] = products[..., m, k] = sum(correlated(seen, one[v] * projections[m][v]) for v in both)
    places = np.argwhere(pixels >= _least_pixels(views, projections))
    row, column = places.T
    lower, lengths = _roots(products[row, column])
    fitted = np.linalg.solve(lower, (with_counts[:, row, column].T / lengths)[..., None])[..., 0]
    variance = squares[row, column] - total[row, column] ** 2 / pixels[row, column]
    residual = squares[row, column] - (fitted**2).sum(axis=1)
    bounds = np.divide(variance - residual, variance, out=np.zeros_like(variance), where=variance > 0.0)
    for k in np.argsort(-bounds):
        yield float(bounds[k]), int(row[k]) - height + 1, int(column[k]) - width + 1
