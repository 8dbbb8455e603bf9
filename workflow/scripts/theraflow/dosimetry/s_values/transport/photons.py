"""Photons in water, followed until they are absorbed; their electrons deposit where they are set free.

What the first interaction deposits is known in closed form, exp(-mu r), and is not left to chance: near the source
it is nearly all.
"""

import numpy as np

from theraflow.dosimetry.s_values.transport.bins import Shells, Voxels
from theraflow.dosimetry.s_values.transport.electrons import directions, turn
from theraflow.dosimetry.s_values.transport.water import ELECTRON_MEV, Photons, mean_compton_part

LANES = 50_000
ABSORBED_BELOW = 0.002


def first_interaction(energy: np.ndarray, weight: np.ndarray, edges: np.ndarray, water: Photons) -> np.ndarray:
    """MeV that the first interaction of photons from the origin deposits in each shell, times weight.

    Args:
        energy: MeV.
        weight: photons of each energy.
        edges: radii of the shells from 0, g/cm2.
        water: cross sections.

    Returns:
        One value a shell and one for what lies beyond.
    """
    photo, compton = water.photo(energy), water.compton(energy)
    both = photo + compton
    deposit = weight * energy * (photo + compton * mean_compton_part(energy)) / both
    left = np.exp(-both[:, None] * np.concatenate([edges, [np.inf]]))
    return deposit @ (left[:, :-1] - left[:, 1:])


def follow(
    energy: np.ndarray,
    weight: np.ndarray,
    edges: np.ndarray | Voxels,
    water: Photons,
    random: np.random.Generator,
    position: np.ndarray | None = None,
) -> np.ndarray:
    """Energy deposited in spherical shells, or in voxels, by photons.

    Args:
        energy: start energies, MeV.
        weight: what each photon counts.
        edges: radii of the shells from 0, g/cm2, or voxels.
        water: cross sections.
        random: source of chance.
        position: start points; left out, all start at the origin and their first interaction is not scored:
            it comes from `first_interaction`.

    Returns:
        Weighted MeV per bin and, last, beyond.
    """
    bins = edges if isinstance(edges, Voxels) else Shells(edges)
    deposit = np.zeros(bins.count)
    for start in range(0, energy.size, LANES):
        part = slice(start, start + LANES)
        place = np.zeros((energy[part].size, 3)) if position is None else position[part]
        _run(place, energy[part], weight[part], deposit, bins, water, random, scored=position is not None)
    return deposit


def _run(
    position: np.ndarray,
    energy: np.ndarray,
    weight: np.ndarray,
    deposit: np.ndarray,
    bins: Shells | Voxels,
    water: Photons,
    random: np.random.Generator,
    scored: bool,
) -> None:
    direction = directions(energy.size, random)
    while energy.size:
        photo, compton = water.photo(energy), water.compton(energy)
        position = position + direction * (random.exponential(size=energy.size) / (photo + compton))[:, None]
        scatters = (random.random(energy.size) * (photo + compton) < compton) & (energy > ABSORBED_BELOW)
        cosine = _klein_nishina(energy, random)
        after = np.where(scatters, energy / (1.0 + energy / ELECTRON_MEV * (1.0 - cosine)), 0.0)
        if scored:
            deposit += np.bincount(bins.of(position), (energy - after) * weight, minlength=bins.count)
        scored = True
        direction = turn(direction, cosine, random)
        position, direction, energy, weight = (a[scatters] for a in (position, direction, after, weight))


def _klein_nishina(energy: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Cosine of a Compton scattering (Butcher and Messel)."""
    cosine = np.empty(energy.size)
    open_ = np.arange(energy.size)
    while open_.size:
        ratio = energy[open_] / ELECTRON_MEV
        least = 1.0 / (1.0 + 2.0 * ratio)
        one, two = -np.log(least), 0.5 * (1.0 - least**2)
        chance = random.random(open_.size)
        kept = np.where(
            random.random(open_.size) * (one + two) < one,
            least**chance,
            np.sqrt(least**2 + (1.0 - least**2) * chance),
        )
        turned = (1.0 - kept) / (ratio * kept)
        taken = random.random(open_.size) < 1.0 - kept * turned * (2.0 - turned) / (1.0 + kept**2)
        cosine[open_[taken]] = 1.0 - turned[taken]
        open_ = open_[~taken]
    return np.clip(cosine, -1.0, 1.0)
