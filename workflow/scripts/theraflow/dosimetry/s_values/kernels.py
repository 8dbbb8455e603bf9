"""Radial kernels of nuclides in water, and what follows from them: energy kept in a sphere, voxel S values.

The kernels are computed, see `theraflow.dosimetry.s_values.transport`; here they are read. Radii are in g/cm2: tissue
of another density stops electrons and photons like water of the same mass per area.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J, nuclide

KERNELS = Path(__file__).resolve().parents[5] / "resources" / "kernels"
# Directions in an eighth of the sphere, and steps in radius in parts of a voxel, over which voxel S values are summed.
POLAR, AZIMUTHAL, RADIAL_STEP = 40, 40, 0.1
# So many longest edges of a voxel from the source the kernel is taken at the centres of the voxels.
NEAR = 6.0
# A displacement within two voxels, triangular in each axis, has this second moment about its mean in three points.
TRIANGULAR = (1.0 / 12.0, 10.0 / 12.0, 1.0 / 12.0)
ELECTRONS, PHOTONS = "electrons", "photons"
MM_PER_CM = 10.0


@dataclass(frozen=True)
class Kernel:
    """Energy per decay around a point source in water.

    Attributes:
        name: nuclide.
        outer: outer radius of each shell, g/cm2.
        electrons: MeV by electrons in each shell.
        photons: MeV by photons in each shell.
    """

    name: str
    outer: np.ndarray
    electrons: np.ndarray
    photons: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Radii of the shells from 0."""
        return np.concatenate([[0.0], self.outer])

    def energy_inside(self, radius_g_per_cm2: float | np.ndarray) -> np.ndarray:
        """MeV per decay within a radius of the point source."""
        sums = np.concatenate([[0.0], np.cumsum(self.electrons + self.photons)])
        return np.interp(radius_g_per_cm2, self.edges, sums)

    def energy_in_sphere(self, radius_g_per_cm2: float) -> float:
        """MeV per decay that stays in a uniform sphere of activity, the same medium around it.

        A point at random in a sphere of radius R, displaced by r in a random direction, is still inside with
        probability P(r) = 1 - 3r/(4R) + r^3/(16 R^3); the energy of each shell is weighted with the mean of P over it.
        """
        size = radius_g_per_cm2
        edges = self.edges
        reach = np.minimum(edges, 2.0 * size)
        integral = reach - 3.0 * reach**2 / (8.0 * size) + reach**4 / (64.0 * size**3)
        return float((self.electrons + self.photons) @ (np.diff(integral) / np.diff(edges)))


def available_nuclides() -> list[str]:
    """Nuclides with a kernel."""
    return sorted(path.stem for path in KERNELS.glob("*.tsv"))


@functools.cache
def read_kernel(name: str) -> Kernel:
    """The kernel of a nuclide, however its name is written.

    Raises:
        TheraflowError: none was computed for it.
    """
    known = nuclide(name).name
    path = KERNELS / f"{known}.tsv"
    if not path.exists():
        raise TheraflowError(
            f"S values exist for {', '.join(available_nuclides())}, not for {known}; "
            "take one of them as therapy_nuclide."
        )
    outer, electrons, photons = np.loadtxt(path, skiprows=4).T
    return Kernel(known, outer, electrons, photons)


def voxel_s(
    name: str,
    spacing_mm: Sequence[float],
    density: float,
    reach: Sequence[int] | None = None,
    radiation: Sequence[str] = (ELECTRONS, PHOTONS),
) -> np.ndarray:
    """S values between voxels of one size, source and target averaged over their whole volume.

    The displacement between two points at random in two boxes is what trilinear shares describe: a point of the
    kernel at displacement d gives its energy to the voxels around d in the proportions of linear interpolation.
    Beyond six voxels the kernel hardly bends within a voxel: its value at the centre, and to second order what the
    average over both volumes adds.

    Args:
        name: nuclide.
        spacing_mm: edges of a voxel, any order of axes; the result has the same.
        density: g/mL, of the whole medium.
        reach: farthest voxel along each axis; default: as far as electrons come, at least one voxel.
        radiation: `electrons`, `photons` or both.

    Returns:
        Gy per Bq s for offsets 0 to `reach` along each axis; offsets of the other sign are alike.

    Raises:
        TheraflowError: no kernel, no density or no size.
    """
    kernel = read_kernel(name)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if not (density > 0 and np.all(spacing > 0)):
        raise TheraflowError(f"No voxel S values exist for a density of {density} g/mL and {spacing.tolist()} mm.")
    step = spacing / MM_PER_CM * density  # g/cm2
    if reach is None:
        reach = np.ceil(electron_reach(kernel) / step).astype(int)
    reach = np.maximum(np.asarray(reach, dtype=int), 1)
    energy = np.sum([getattr(kernel, kind) for kind in radiation], axis=0)
    limit = NEAR * step.max()
    near = np.minimum(reach, np.ceil(limit / step).astype(int))
    grid = _far(kernel.edges, energy, step, reach)
    box = tuple(slice(0, last + 1) for last in near)
    close = _near(kernel.edges, energy, step, near, limit + float(np.linalg.norm(step)))
    grid[box] = np.where(_distance(step, near) <= limit, close, grid[box])
    voxel_kg = density * float(spacing.prod()) * 1e-6
    return grid * MEV_IN_J / voxel_kg


def electron_reach(kernel: Kernel) -> float:
    """Radius in g/cm2 that holds all but a hundred-thousandth of the electrons' energy."""
    sums = np.cumsum(kernel.electrons)
    return float(kernel.outer[np.searchsorted(sums, sums[-1] * (1.0 - 1e-5))])


def _octant() -> tuple[np.ndarray, np.ndarray]:
    """Directions with no negative part, and the share of each (their sum is 1)."""
    node, weight = np.polynomial.legendre.leggauss(POLAR)
    cosine, share = 0.5 * (node + 1.0), 0.5 * weight
    sine = np.sqrt(1.0 - cosine**2)
    azimuth = (np.arange(AZIMUTHAL) + 0.5) / AZIMUTHAL * np.pi / 2.0
    x, y = np.outer(sine, np.cos(azimuth)), np.outer(sine, np.sin(azimuth))
    z = np.repeat(cosine[:, None], AZIMUTHAL, axis=1)
    return np.stack([x, y, z], axis=-1).reshape(-1, 3), np.repeat(share / AZIMUTHAL, AZIMUTHAL)


def _near(edges: np.ndarray, energy: np.ndarray, step: np.ndarray, reach: np.ndarray, farthest: float) -> np.ndarray:
    """MeV per decay in the voxels around the source voxel, summed over the points of the kernel up to `farthest`."""
    shape = reach + 2
    directions, shares = _octant()
    radii, energies = _points(edges, energy, farthest, float(step.min()))
    total = np.zeros(int(shape.prod()))
    for first in range(0, radii.size, 64):
        part = slice(first, first + 64)
        place = (radii[part, None, None] * directions / step).reshape(-1, 3)
        amount = (energies[part, None] * shares).ravel()
        within = (place < shape - 1).all(axis=1)
        place, amount = place[within], amount[within]
        left = place.astype(np.intp)
        right = place - left
        for corner in np.ndindex(2, 2, 2):
            weight = np.where(corner, right, 1.0 - right).prod(axis=1)
            index = np.ravel_multi_index((left + corner).T, shape)
            total += np.bincount(index, amount * weight, minlength=total.size)
    grid = total.reshape(shape) / 8.0
    for axis in range(3):  # the plane through the source is reached from both sides
        np.moveaxis(grid, axis, 0)[0] *= 2.0
    return grid[:-1, :-1, :-1]


def _far(edges: np.ndarray, energy: np.ndarray, step: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """MeV per decay in the voxels by the kernel at their centres; in and next to the source voxel it is no number."""
    distance = _distance(step, reach + 1)
    distance[0, 0, 0] = np.inf
    per_radius = np.interp(distance, 0.5 * (edges[1:] + edges[:-1]), energy / np.diff(edges), right=0.0)
    grid = per_radius / (4.0 * np.pi * distance**2) * step.prod()
    for axis in range(3):
        grid = scipy.ndimage.correlate1d(grid, TRIANGULAR, axis=axis, mode="mirror")
    return grid[:-1, :-1, :-1]


def _distance(step: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Distance of the centre of every voxel from that of the source voxel, g/cm2."""
    squares = [(np.arange(last + 1) * length) ** 2 for last, length in zip(reach, step, strict=True)]
    return np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])


def _points(edges: np.ndarray, energy: np.ndarray, farthest: float, finest: float) -> tuple[np.ndarray, np.ndarray]:
    """Radii of the kernel and the energy at each, no two farther apart than a tenth of a voxel."""
    kept = edges[:-1] < farthest
    pieces = np.ceil(np.diff(edges)[kept] / (RADIAL_STEP * finest)).astype(int)
    step = np.repeat(np.diff(edges)[kept] / pieces, pieces)
    place = np.concatenate([np.arange(count) for count in pieces])
    radii = np.repeat(edges[:-1][kept], pieces) + (place + 0.5) * step
    return radii, np.repeat(energy[kept] / pieces, pieces)
