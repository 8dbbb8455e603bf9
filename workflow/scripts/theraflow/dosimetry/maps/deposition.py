"""From decays to absorbed dose: convolution with voxel S values, or all energy where it is emitted.

Arrays are indexed z, y, x. The medium of the kernels is soft tissue. What electrons bring to a voxel is divided by the
voxel's own mass (Dieudonne et al., J Nucl Med 2013;54:236): right where their tissue is wider than their range, too
high in the first millimetres of lung next to soft tissue, where in truth the energy goes farther. Photons
are another matter: their fluence changes little within an organ, and the dose that it makes per mass hardly depends
on the density, so that their dose is left as in soft tissue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from theraflow.dosimetry.maps.grids import Grids
from theraflow.dosimetry.s_values.kernels import ELECTRONS, MM_PER_CM, PHOTONS, electron_reach, read_kernel, voxel_s
from theraflow.dosimetry.s_values.spheres import LIGHTEST_DENSITY
from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J, nuclide


def convolve(emitted: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sum of `emitted` over all voxels, each weighted with the kernel at its offset; nothing comes in over the border.

    By a Fourier transform. The kernel is even along every axis: its transform is the cosine transform of an eighth.

    Args:
        emitted: any quantity per voxel; the result has its precision.
        kernel: for offsets from 0 on along each axis.
    """
    kernel = kernel[tuple(slice(0, n) for n in emitted.shape)]
    lengths = zip(emitted.shape, kernel.shape, strict=True)
    half = [scipy.fft.next_fast_len(max((n + k) // 2, 1), real=True) for n, k in lengths]
    eighth = np.zeros([m + 1 for m in half], dtype=emitted.dtype)
    eighth[tuple(slice(0, k) for k in kernel.shape)] = kernel
    response = scipy.fft.dctn(eighth, type=1, overwrite_x=True)
    padded = [2 * m for m in half]
    spectrum = scipy.fft.rfftn(emitted, padded)
    first, second = (np.minimum(np.arange(n), n - np.arange(n)) for n in padded[:2])
    for plane, row in enumerate(first):
        spectrum[plane] *= response[row][second]
    result = scipy.fft.irfftn(spectrum, padded, overwrite_x=True)
    return result[tuple(slice(0, n) for n in emitted.shape)]


@dataclass(frozen=True)
class Kernels:
    """Voxel S values of one nuclide on the two grids of a map, Gy per decay.

    Attributes:
        electrons: between divided voxels.
        photons: between voxels of the SPECT.
        density: g/mL, of the medium.
    """

    electrons: np.ndarray
    photons: np.ndarray
    density: float

    @classmethod
    def of(cls, name: str, grids: Grids, density: float) -> "Kernels":
        """S values of a nuclide, as far as the kernel reaches or the grids do."""
        kernel = read_kernel(name)
        fine, spect = grids.fine.GetSpacing()[::-1], grids.spect.GetSpacing()[::-1]
        return cls(
            voxel_s(name, fine, density, _voxels(electron_reach(kernel), fine, density, grids.fine), [ELECTRONS]),
            voxel_s(name, spect, density, _voxels(kernel.outer[-1], spect, density, grids.spect), [PHOTONS]),
            density,
        )


def _voxels(radius: float, spacing_zyx: Sequence[float], density: float, grid: sitk.Image) -> np.ndarray:
    """A radius in g/cm2 in voxels (z, y, x), no farther than from one end of the grid to the other."""
    reach = np.ceil(radius / (np.array(spacing_zyx) / MM_PER_CM * density)).astype(int)
    return np.minimum(reach, np.array(grid.GetSize()[::-1]) - 1)


def kernel_dose(decays: np.ndarray, tissue: np.ndarray, grids: Grids, kernels: Kernels) -> np.ndarray:
    """Gy in every divided voxel: electrons on the divided voxels, photons on those of the SPECT.

    Args:
        decays: in every divided voxel.
        tissue: density of every divided voxel, see `tissue_of`.
        grids: the divided voxels, and those of the SPECT.
        kernels: on these voxels; their reach may be longer.
    """
    # In single precision a transform leaves a millionth of the greatest dose anywhere, of either sign.
    dose = per_mass(np.maximum(convolve(decays, kernels.electrons), 0.0), tissue, kernels.density)
    photons = convolve(grids.summed(decays).astype(decays.dtype), kernels.photons)
    dose += np.where(tissue == 0.0, 0.0, grids.interpolated(np.maximum(photons, 0.0)))
    return dose


def local_dose(decays: np.ndarray, tissue: np.ndarray, voxel_ml: float, name: str) -> np.ndarray:
    """Gy in every voxel if all electrons stop where they start and all photons leave; the nuclide by its name.

    Raises:
        TheraflowError: the energy of the electrons is not known.
    """
    known = nuclide(name)
    if known.electron_mev is None:
        raise TheraflowError(f"No electron energy is known for {known.name}; take another therapy_nuclide.")
    return per_mass(decays * (known.electron_mev * MEV_IN_J / (voxel_ml / 1000.0)), tissue, 1.0)


def per_mass(dose: np.ndarray, tissue: np.ndarray, density: float) -> np.ndarray:
    """Dose in a medium of `density` (g/mL) as dose of the same energy in the voxel's own mass; 0 without tissue."""
    result = np.divide(dose, tissue, out=np.zeros_like(dose), where=tissue != 0.0)
    result *= density
    return result


def tissue_of(density: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Density where there is tissue, 0 where most of a voxel lies outside the body, NaN where there is only gas.

    Below 0.1 g/mL no dose is told: the energy there is next to nothing, and so is the mass.

    Args:
        density: g/mL.
        body: part of every voxel that lies in the body.
    """
    tissue = density.astype(np.float32)
    tissue[tissue < LIGHTEST_DENSITY] = np.nan
    tissue[body < 0.5] = 0.0
    return tissue
