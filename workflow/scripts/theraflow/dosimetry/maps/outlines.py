"""Regions in whole voxels. Arrays are indexed z, y, x."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from theraflow.dosimetry.activity.regions import Box, Region


def in_whole_voxels(regions: Sequence[Region], shape: Sequence[int]) -> list[Region]:
    """The regions with every voxel wholly in one of them or in none; their volumes stay.

    A voxel that is half kidney would mix the kidney's energy and its own with that of fat. Electrons of 177Lu do not
    cross a voxel, so that every half voxel at the edge would cost the kidney dose: 4 % of it on voxels of 1.6 mm. Each
    region takes the voxels of which it has the largest part, as many as fill its volume; of two that want the same
    voxel the one with the larger part gets it, in a tie the first.

    Args:
        regions: on one grid, with parts of voxels.
        shape: of the grid.
    """
    largest = np.zeros(shape, dtype=np.float32)
    owner = np.zeros(shape, dtype=np.uint16)
    for number, region in enumerate(regions, start=1):
        count = round(float(region.fraction.sum()))
        wanted = np.zeros(region.fraction.size, dtype=bool)
        wanted[np.argsort(-region.fraction, axis=None, kind="stable")[:count]] = True
        won = wanted.reshape(region.fraction.shape) & (region.fraction > largest[region.box])
        largest[region.box][won] = region.fraction[won]
        owner[region.box][won] = number
    return [
        replace(region, fraction=_own(owner, region.box, number)) for number, region in enumerate(regions, start=1)
    ]  # fmt: skip


def _own(owner: np.ndarray, box: Box, number: int) -> np.ndarray:
    return (owner[box] == number).astype(np.float32)
