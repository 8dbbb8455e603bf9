"""The radial kernel of a nuclide: its emissions, put through the transport of electrons and photons in water."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from theraflow.dosimetry.s_values.transport import electrons, photons
from theraflow.dosimetry.s_values.transport.water import Electrons, Photons, csda_range
from theraflow.errors import TheraflowError
from theraflow.files import whole

SHELLS_IN_RANGE = 300
FARTHEST = 60.0  # g/cm2
PHOTON_SHELLS_PER_DECADE = 60
BATCHES = 10
# An electron below this energy, or whose range is a quarter of a shell, deposits where it is.
LEAST_ELECTRON_MEV = 0.002
LEAST_PHOTON_MEV = 0.001
COLUMNS = ("r_outer_g_per_cm2", "electrons_mev", "photons_mev")
# Of the kernels that doses are computed with: the same seed gives the same file on the same machine.
SEED = 1999
ELECTRON_HISTORIES, PHOTON_HISTORIES = 200_000, 1_000_000


@dataclass(frozen=True)
class RadialKernel:
    """Energy per decay in spherical shells of water around a point source.

    Attributes:
        outer: outer radius of each shell, g/cm2.
        electrons: MeV per decay of beta particles, conversion and Auger electrons in it.
        photons: MeV per decay of gamma, X-rays and bremsstrahlung in it.
        beyond: MeV per decay outside the last shell.
        relative_sd: statistical sd of the electrons' energy inside each outer radius, by batches.
    """

    outer: np.ndarray
    electrons: np.ndarray
    photons: np.ndarray
    beyond: float
    relative_sd: np.ndarray


@dataclass(frozen=True)
class Emissions:
    """What a nuclide emits per decay: a beta spectrum (MeV, per decay and MeV) and lines (MeV, per decay)."""

    beta: np.ndarray
    electrons: np.ndarray
    photons: np.ndarray

    @classmethod
    def read(cls, path: Path, nuclide: str) -> "Emissions":
        """From the table of the repository: columns nuclide, kind, energy_mev, per_decay.

        Raises:
            TheraflowError: the table has none of the nuclide.
        """
        table = pd.read_csv(path, sep="\t", comment="#")
        if nuclide not in set(table["nuclide"]):
            raise TheraflowError(
                f"{path} has emissions of {', '.join(table['nuclide'].unique())}, not of {nuclide}; add its rows there."
            )
        table = table[table["nuclide"] == nuclide]
        return cls(*(
            table.loc[table["kind"] == kind, ["energy_mev", "per_decay"]].to_numpy(float)
            for kind in ("beta", "electron", "photon")
        ))  # fmt: skip

    def fine_beta(self, count: int = 4000) -> np.ndarray:
        """Mid-energies (MeV) of even steps of the spectrum, and particles per decay in each; one decay, one beta."""
        edges = np.linspace(0.0, self.beta[-1, 0], count + 1)
        energy = 0.5 * (edges[1:] + edges[:-1])
        height = np.clip(scipy.interpolate.CubicSpline(self.beta[:, 0], self.beta[:, 1])(energy), 0.0, None)
        return np.stack([energy, height / height.sum()], axis=1)


def compute_kernel(
    emissions: Emissions, cross_sections: Path, seed: int, electron_histories: int, photon_histories: int
) -> RadialKernel:
    """Transport the emissions of one nuclide.

    Args:
        emissions: per decay.
        cross_sections: table of photon cross sections of water.
        seed: of the random numbers.
        electron_histories: electrons followed, secondaries not counted.
        photon_histories: photons followed, bremsstrahlung not counted.
    """
    random = np.random.default_rng(seed)
    spectrum = np.concatenate([emissions.fine_beta(), emissions.electrons])
    outer = shells(float(spectrum[:, 0].max()))
    edges = np.concatenate([[0.0], outer])
    least = max(LEAST_ELECTRON_MEV, _energy_with_range(0.25 * outer[0]))
    water = Electrons.above(least / 2.0)

    runs, radiated = [], []
    for _ in range(BATCHES):
        energy, weight = draw(spectrum[spectrum[:, 0] > least], electron_histories // BATCHES, random)
        portion = 20.0 * float(energy @ weight) * 1e-3 / energy.size
        deposit, radiation = electrons.follow(energy, weight, edges, water, least, random, kept_radiation=portion)
        runs.append(deposit)
        radiated.append(radiation)
    slow = spectrum[spectrum[:, 0] <= least]
    runs = np.array(runs)
    runs[:, 0] += float(slow[:, 0] @ slow[:, 1])
    inside = np.cumsum(runs, axis=1)[:, :-1]
    relative_sd = inside.std(axis=0, ddof=1) / math.sqrt(BATCHES) / inside.mean(axis=0)

    tables = Photons.read(cross_sections)
    soft = emissions.photons[:, 0] <= LEAST_PHOTON_MEV
    lines = emissions.photons[~soft]
    light = np.zeros(edges.size)
    light[0] += float(emissions.photons[soft].prod(axis=1).sum())
    if lines.size:
        light += photons.first_interaction(lines[:, 0], lines[:, 1], edges, tables)
        light += photons.follow(*draw(lines, photon_histories, random), edges, tables, random)
    for radiation in radiated:
        energy = bremsstrahlung(radiation.energy, random)
        weight = radiation.radiated / energy / BATCHES
        light += photons.follow(energy, weight, edges, tables, random, radiation.position)
    mean = runs.mean(axis=0)
    return RadialKernel(outer, mean[:-1], light[:-1], float(mean[-1] + light[-1]), relative_sd)


def shells(highest_mev: float) -> np.ndarray:
    """Outer radii: even steps to the range of the fastest electron, then even steps of the logarithm."""
    reach = float(csda_range(np.array([highest_mev]))[0])
    near = reach * np.arange(1, SHELLS_IN_RANGE + 1) / SHELLS_IN_RANGE
    count = math.ceil(PHOTON_SHELLS_PER_DECADE * math.log10(FARTHEST / reach))
    return np.concatenate([near, np.geomspace(reach, FARTHEST, count + 1)[1:]])


def draw(spectrum: np.ndarray, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Energies in proportion to the energy they carry, evenly spread, and the weights that make up for it."""
    carried = np.cumsum(spectrum[:, 0] * spectrum[:, 1])
    place = (np.arange(count) + random.random(count)) / count * carried[-1]
    energy = spectrum[np.searchsorted(carried, place), 0]
    random.shuffle(energy)
    return energy, carried[-1] / count / energy


def bremsstrahlung(energy: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Photon energies in proportion to the energy radiated: per photon energy k it falls as 1 - 0.85 k/E.

    A line through the Seltzer-Berger shapes of light elements, good to some 20 %.
    """
    chance, slope = random.random(energy.size), 0.85
    part = (1.0 - np.sqrt(1.0 - 2.0 * slope * (1.0 - slope / 2.0) * chance)) / slope
    return np.maximum(part * energy, 1e-6)


def _energy_with_range(reach: float) -> float:
    energy = np.geomspace(LEAST_ELECTRON_MEV / 2.0, 1.0, 400)
    return float(np.interp(reach, csda_range(energy), energy))


def make_kernel(name: str, emissions: Path, cross_sections: Path, path: Path) -> None:
    """Transport the emissions of a nuclide in water and write its kernel, with its history in the first lines.

    Args:
        name: nuclide, as in the table of emissions.
        emissions, cross_sections: tables of the repository, `resources/emissions.tsv` and
            `resources/photon_cross_sections_water.tsv`.
        path: file to write.

    Raises:
        TheraflowError: the table has no emissions of the nuclide.
    """
    kernel = compute_kernel(Emissions.read(emissions, name), cross_sections, SEED, ELECTRON_HISTORIES, PHOTON_HISTORIES)
    worst = 100.0 * float(np.max(kernel.relative_sd[9:]))
    comments = (
        f"Made by theraflow's transport: {name} in water, {ELECTRON_HISTORIES} electrons and {PHOTON_HISTORIES} "
        f"photons followed, seed {SEED}; emissions of ICRP Publication 107, see docs/methods.md",
        "Energy per decay in spherical shells around a point, outer radius in g/cm2; electrons: beta particles, "
        "conversion and Auger electrons; photons: gamma, X-rays, bremsstrahlung",
        f"Sum {kernel.electrons.sum():.6g} MeV by electrons, {kernel.photons.sum():.6g} by photons; "
        f"{kernel.beyond:.3g} beyond {FARTHEST:g} g/cm2; statistical sd of the electrons' energy inside a "
        f"radius at most {worst:.2g} % from the tenth shell on",
    )
    write_kernel(kernel, path, comments)


def write_kernel(kernel: RadialKernel, path: Path, comments: Sequence[str]) -> None:
    """Write a kernel as TSV, with its history as comments in the first lines."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"# {comment}\n" for comment in comments)
        table = pd.DataFrame(np.column_stack([kernel.outer, kernel.electrons, kernel.photons]), columns=list(COLUMNS))
        table.to_csv(file, sep="\t", index=False, float_format="%.6g")
