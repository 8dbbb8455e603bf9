"""Where energy is scored: shells around the origin, or voxels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shells:
    """Spherical shells around the origin; the last bin is what lies beyond.

    Attributes:
        edges: radii from 0, g/cm2.
    """

    edges: np.ndarray

    @property
    def count(self) -> int:
        """Number of bins."""
        return self.edges.size

    def of(self, position: np.ndarray) -> np.ndarray:
        """The bin of every position (N, 3)."""
        distance = np.sqrt(np.einsum("ij,ij->i", position, position))
        return np.searchsorted(self.edges, distance, side="right") - 1


@dataclass(frozen=True)
class Voxels:
    """Voxels from the origin on, numbered as the entries of an array of that shape; the last bin is what lies outside.

    Attributes:
        shape: number along each axis.
        step: edges of a voxel, g/cm2.
    """

    shape: tuple[int, int, int]
    step: np.ndarray

    @property
    def count(self) -> int:
        """Number of bins."""
        return int(np.prod(self.shape)) + 1

    def of(self, position: np.ndarray) -> np.ndarray:
        """The bin of every position (N, 3)."""
        index = np.floor(position / self.step).astype(np.intp)
        inside = ((index >= 0) & (index < self.shape)).all(axis=1)
        return np.where(inside, np.ravel_multi_index(index.T, self.shape, mode="clip"), self.count - 1)
