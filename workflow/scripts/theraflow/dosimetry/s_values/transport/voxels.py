"""Transport from a source in voxels to doses in voxels: what convolutions with voxel S values are checked against.

Nothing of the radial kernels is in it: every history begins at a random point of the source and is scored where it
goes. The medium is water without an end.
"""

from pathlib import Path

import numpy as np

from theraflow.dosimetry.s_values.transport import electrons, photons
from theraflow.dosimetry.s_values.transport.bins import Voxels
from theraflow.dosimetry.s_values.transport.radial import BATCHES, Emissions, bremsstrahlung, draw
from theraflow.dosimetry.s_values.transport.water import Electrons, Photons


def deposit_in_voxels(
    emissions: Emissions,
    cross_sections: Path,
    decays: np.ndarray,
    step: np.ndarray,
    seed: int,
    electron_histories: int,
    photon_histories: int,
    absorbed_below: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:
    """Energy in every voxel, and its statistical sd.

    Args:
        emissions: of the nuclide, per decay.
        cross_sections: table of photon cross sections of water.
        decays: in every voxel, evenly within it.
        step: edges of a voxel along the axes of `decays`, g/cm2.
        seed: of the random numbers.
        electron_histories: electrons followed, secondaries not counted.
        photon_histories: photons followed, bremsstrahlung not counted.
        absorbed_below: an electron of less energy (MeV) stops where it is; 0.02 MeV reach 9 micrometres.

    Returns:
        MeV in every voxel, of both kinds of radiation, and its sd by batches.
    """
    random = np.random.default_rng(seed)
    bins = Voxels(decays.shape, step)
    chance = np.cumsum(decays, axis=None) / decays.sum()

    def starts(count: int) -> np.ndarray:
        # Evenly over the decays: every voxel gets its number of histories, and chance only says where in it they start.
        voxel = np.searchsorted(chance, (np.arange(count) + random.random(count)) / count, side="right")
        return (np.stack(np.unravel_index(voxel, decays.shape), axis=1) + random.random((count, 3))) * step

    spectrum = np.concatenate([emissions.fine_beta(), emissions.electrons])
    slow = spectrum[:, 0] <= absorbed_below
    stopped = float(spectrum[slow].prod(axis=1).sum() + _soft(emissions).prod(axis=1).sum())
    water, tables = Electrons.above(absorbed_below / 2.0), Photons.read(cross_sections)
    lines = emissions.photons[emissions.photons[:, 0] > photons.ABSORBED_BELOW]
    runs = []
    for _ in range(BATCHES):
        energy, weight = draw(spectrum[~slow], electron_histories // BATCHES, random)
        portion = 20.0 * float(energy @ weight) * 1e-3 / energy.size
        place = starts(energy.size)
        deposit, radiation = electrons.follow(
            energy, weight, bins, water, absorbed_below, random, kept_radiation=portion, position=place
        )
        if lines.size:
            energy, weight = draw(lines, photon_histories // BATCHES, random)
            deposit += photons.follow(energy, weight, bins, tables, random, starts(energy.size))
        energy = bremsstrahlung(radiation.energy, random)
        deposit += photons.follow(energy, radiation.radiated / energy, bins, tables, random, radiation.position)
        runs.append(deposit[:-1].reshape(decays.shape) * decays.sum() + stopped * decays)
    mean = np.mean(runs, axis=0)
    return mean, np.std(runs, axis=0, ddof=1) / np.sqrt(BATCHES)


def _soft(emissions: Emissions) -> np.ndarray:
    """Photons that stop where they start."""
    return emissions.photons[emissions.photons[:, 0] <= photons.ABSORBED_BELOW]
