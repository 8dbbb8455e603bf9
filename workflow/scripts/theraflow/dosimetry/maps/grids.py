"""The two grids of a dose map: the body's part of a SPECT grid, and the same with its voxels divided.

Electrons stop within millimetres, so that their dose is computed on divided voxels; photons fly far, and their dose
changes little within a voxel of the SPECT. The divided voxels are those of the lesion maps, so that a lesion's edge
runs between voxels and not through them. Arrays are indexed z, y, x.
"""

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from theraflow.dosimetry.activity.regions import Box
from theraflow.images import divided, voxel_volume_ml
from theraflow.lesions.contract import FINEST_MAP_MM

MOST_VOXELS = 40_000_000  # of the divided ones: 2.5 GB while they are worked on
COARSER = 1.25


@dataclass(frozen=True)
class Grids:
    """Geometry of one dose map; the voxels of the images are not read.

    Attributes:
        box: slices (z, y, x) of the SPECT grid that enclose the body.
        spect: that part of the SPECT grid.
        fine: the same volume, its voxels divided as those of a lesion map are: none is longer than 2 mm, unless there
            would be more than 40 million of them.
    """

    box: Box
    spect: sitk.Image
    fine: sitk.Image

    @classmethod
    def around(cls, body: np.ndarray, emission: sitk.Image) -> "Grids":
        """The grids that enclose the part of `emission` where `body` (z, y, x) is above 0; all of it where it is not.

        Args:
            body: part of every voxel that lies in the body.
            emission: image whose geometry is taken.
        """
        box = tuple(
            slice(int(planes[0]), int(planes[-1]) + 1) if (planes := np.flatnonzero(body.any(axis=other))).size
            else slice(0, length)
            for other, length in zip(((1, 2), (0, 2), (0, 1)), body.shape, strict=True)
        )  # fmt: skip
        spect = _cropped(emission, box)
        longest_mm = FINEST_MAP_MM
        while _count(spect, longest_mm) > MOST_VOXELS and longest_mm < max(spect.GetSpacing()):
            longest_mm *= COARSER
        return cls(box, spect, divided(spect, longest_mm))

    @property
    def parts(self) -> tuple[int, ...]:
        """Into how many a voxel is divided along z, y, x."""
        return tuple(f // s for f, s in zip(self.fine.GetSize()[::-1], self.spect.GetSize()[::-1], strict=True))

    def around_fine(self, box: Box) -> tuple["Grids", Box]:
        """The part of both grids that encloses a box of divided voxels, and the divided voxels that it has."""
        spans = list(zip(box, self.parts, strict=True))
        coarse = tuple(slice(part.start // n, math.ceil(part.stop / n)) for part, n in spans)
        fine = tuple(slice(part.start * n, part.stop * n) for part, n in zip(coarse, self.parts, strict=True))
        own = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(self.box, coarse, strict=True))
        return Grids(own, _cropped(self.spect, coarse), _cropped(self.fine, fine)), fine

    @property
    def fine_ml(self) -> float:
        """Volume of a divided voxel in mL."""
        return voxel_volume_ml(self.fine)

    @property
    def spect_ml(self) -> float:
        """Volume of a voxel in mL."""
        return voxel_volume_ml(self.spect)

    def summed(self, fine: np.ndarray) -> np.ndarray:
        """Sum of the divided voxels in every voxel, float64."""
        z, y, x = self.parts
        planes = sum(fine[first::z].astype(np.float64) for first in range(z))
        rows = sum(planes[:, first::y] for first in range(y))
        return sum(rows[:, :, first::x] for first in range(x))

    def mean(self, fine: np.ndarray) -> np.ndarray:
        """Mean of the divided voxels in every voxel."""
        return self.summed(fine) / math.prod(self.parts)

    def repeated(self, values: np.ndarray) -> np.ndarray:
        """Every divided voxel with the value of its voxel."""
        for axis, count in enumerate(self.parts):
            values = np.repeat(values, count, axis=axis)
        return values

    def interpolated(self, values: np.ndarray) -> np.ndarray:
        """`values` (z, y, x) of the voxels at the centres of the divided ones, float32.

        Linear along each axis; beyond the outermost centres the value stays.
        """
        z, y, x = (_interpolation(n, count) for n, count in zip(values.shape, self.parts, strict=True))
        values = values.astype(np.float32)
        return np.matmul(y, np.tensordot(z, values, axes=1)) @ x.T


def _count(image: sitk.Image, longest_mm: float) -> float:
    """About how many voxels `image` would have, divided until none is longer."""
    return math.prod(size * max(1.0, spacing / longest_mm) for size, spacing in
                     zip(image.GetSize(), image.GetSpacing(), strict=True))  # fmt: skip


def _interpolation(length: int, count: int) -> np.ndarray:
    """Matrix that takes values of `length` voxels to the centres of their `count` parts each, float32."""
    centres = (np.arange(length * count) + 0.5) / count - 0.5
    centres = np.clip(centres, 0.0, length - 1.0)
    return np.clip(1.0 - np.abs(centres[:, None] - np.arange(length)), 0.0, None).astype(np.float32)


def _cropped(image: sitk.Image, box: Box) -> sitk.Image:
    z, y, x = box
    return image[x, y, z]
