"""What an electron or a photon meets in liquid water: energies in MeV, lengths in g/cm2 (cm at 1 g/mL).

Electrons. Collision stopping power by Bethe's formula with the mean excitation energy of ICRU Report 90, 78 eV, and
Sternheimer's density effect; radiative stopping power of ESTAR (NIST, Berger et al.). Collisions that transfer more
than a threshold are events of their own (Moller); what is below slows the electron continuously. Elastic scattering:
Rutherford's cross section with Moliere's screening and the spin factor of McKinley and Feshbach, for oxygen and
hydrogen, and for electrons as far as their collisions are no events of their own; large angles are events, small ones
a continuous diffusion.

Photons. Photoelectric and incoherent cross sections of Kissel and of EPDL as xraylib 4.3 gives them for H2O; the
angle by Klein and Nishina. Coherent scattering, which deposits nothing, and pair production are left out.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

ELECTRON_MEV = 0.51099895
FINE_STRUCTURE = 1.0 / 137.035999
ELECTRON_RADIUS_CM = 2.8179403e-13
MOLECULES_PER_G = 6.02214076e23 / 18.01528
ELECTRONS_PER_G = 10.0 * MOLECULES_PER_G
ATOMS = ((1.0, 2.0), (8.0, 1.0))  # atomic number, how many a molecule
MEAN_EXCITATION_MEV = 78e-6
MOLLER = 2.0 * math.pi * ELECTRON_RADIUS_CM**2 * ELECTRON_MEV * ELECTRONS_PER_G  # MeV cm2/g
# ESTAR, liquid water: kinetic energy in MeV, radiative mass stopping power in MeV cm2/g.
RADIATIVE = np.array([
    (0.010, 3.898e-3), (0.020, 3.963e-3), (0.050, 4.031e-3), (0.10, 4.228e-3), (0.15, 4.494e-3), (0.20, 4.801e-3),
    (0.30, 5.514e-3), (0.40, 6.339e-3), (0.50, 7.257e-3), (0.60, 8.254e-3), (0.80, 1.042e-2), (1.00, 1.280e-2),
    (1.25, 1.600e-2), (1.50, 1.942e-2), (1.75, 2.303e-2), (2.00, 2.678e-2), (2.50, 3.468e-2), (3.00, 4.299e-2),
])  # fmt: skip
# Shells of the water molecule: part of its electrons, binding energy in eV (Carlson 1975, as ICRU Report 90 has it).
SHELLS = np.array([(0.2, 13.6), (0.2, 538.0), (0.2, 28.48), (0.4, 13.62)])
PLASMA_EV = 28.816 * math.sqrt(0.998 * 10.0 / 18.01528)
LOWEST_MEV, HIGHEST_MEV, NODES = 5e-4, 3.0, 4000
SOFT_HALF = 0.005  # (1 - cos)/2, some 8 degrees: what turns an electron more is a collision of its own


def beta_squared(energy: np.ndarray) -> np.ndarray:
    """(v/c)^2 of an electron."""
    return energy * (energy + 2.0 * ELECTRON_MEV) / (energy + ELECTRON_MEV) ** 2


def collision_stopping(energy: np.ndarray) -> np.ndarray:
    """Unrestricted collision stopping power in MeV cm2/g."""
    tau = energy / ELECTRON_MEV
    beta2 = beta_squared(energy)
    shape = 1.0 - beta2 + (tau**2 / 8.0 - (2.0 * tau + 1.0) * math.log(2.0)) / (tau + 1.0) ** 2
    logarithm = np.log(tau**2 * (tau + 2.0) / (2.0 * (MEAN_EXCITATION_MEV / ELECTRON_MEV) ** 2))
    return MOLLER / beta2 * (logarithm + shape - density_effect(energy))


def density_effect(energy: np.ndarray) -> np.ndarray:
    """The delta of the Bethe formula, by Sternheimer's oscillators (ICRU Report 90, equations 4.27 to 4.29)."""
    part, binding = SHELLS.T
    wanted = math.log(MEAN_EXCITATION_MEV * 1e6 / PLASMA_EV)

    def excess(factor: float) -> float:
        own = (factor * binding / PLASMA_EV) ** 2 + 2.0 / 3.0 * part
        return 0.5 * float(part @ np.log(own)) - wanted

    levels = (scipy.optimize.brentq(excess, 0.1, 20.0) * binding / PLASMA_EV) ** 2
    own = levels + 2.0 / 3.0 * part
    beta2 = beta_squared(energy)
    # L^2 by the energy at which it holds: 1/beta^2 - 1 falls as L^2 grows
    square = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 6000)])
    ratio = (part / (levels + square[:, None])).sum(axis=1)
    squared = np.interp(-np.log(1.0 / beta2 - 1.0), -np.log(ratio), square)
    delta = (part * np.log1p(squared[:, None] / own)).sum(axis=1) - squared * (1.0 - beta2)
    return np.where(1.0 / beta2 - 1.0 < ratio[0], delta, 0.0)


def radiative_stopping(energy: np.ndarray) -> np.ndarray:
    """Radiative stopping power in MeV cm2/g."""
    return np.exp(np.interp(np.log(energy), np.log(RADIATIVE[:, 0]), np.log(RADIATIVE[:, 1])))


def moller(energy: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """Collisions per g/cm2 and MeV of energy transferred, free electrons at rest."""
    gamma = 1.0 + energy / ELECTRON_MEV
    rest = energy - transfer
    bracket = (
        1.0 / transfer**2
        + 1.0 / rest**2
        - (2.0 * gamma - 1.0) / gamma**2 / (transfer * rest)
        + 1.0 / (energy + ELECTRON_MEV) ** 2
    )
    return MOLLER / beta_squared(energy) * bracket


def angle_after_transfer(energy: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """Cosine of the angle by which an electron is turned when it gives `transfer` to another at rest."""
    twice = 2.0 * ELECTRON_MEV
    return np.sqrt((energy - transfer) * (energy + twice) / (energy * (energy + twice - transfer)))


def screening(energy: np.ndarray, number: float) -> np.ndarray:
    """Moliere's screening of an atom: what is added to (1 - cos)/2 in Rutherford's cross section."""
    momentum2 = energy * (energy + 2.0 * ELECTRON_MEV)
    screened = (FINE_STRUCTURE * ELECTRON_MEV / 0.885) ** 2 / momentum2 * number ** (2.0 / 3.0)
    return screened / 4.0 * (1.13 + 3.76 * (FINE_STRUCTURE * number) ** 2 / beta_squared(energy))


def rutherford(energy: np.ndarray) -> np.ndarray:
    """Factor of the cross section per molecule and g: times charge squared over ((1 - cos)/2 + screening)^2."""
    beta2 = beta_squared(energy)
    return math.pi * MOLECULES_PER_G * ELECTRON_RADIUS_CM**2 * (1.0 - beta2) / beta2**2


def widest_soft(energy: np.ndarray, threshold: float) -> np.ndarray:
    """Largest (1 - cos)/2 by which an electron is turned by a collision below the threshold."""
    return (1.0 - angle_after_transfer(energy, np.minimum(threshold, energy / 2.0))) / 2.0


def charges(energy: np.ndarray, half: np.ndarray, number: float, widest: np.ndarray) -> np.ndarray:
    """Charge squared that an electron sees when (1 - cos)/2 = half: the nucleus with its spin factor, and electrons."""
    beta2, sine = beta_squared(energy), np.sqrt(half)
    spin = 1.0 - beta2 * half + math.pi * FINE_STRUCTURE * number * np.sqrt(beta2) * sine * (1.0 - sine)
    return number**2 * spin + number * (half < widest)


def most_charges(number: float) -> float:
    """Never less than `charges`."""
    return 1.06 * number**2 + number


def soft_transport(energy: np.ndarray, threshold: float, up_to: float = SOFT_HALF) -> np.ndarray:
    """Inverse transport mean free path in cm2/g by scattering with (1 - cos)/2 below a limit."""
    log_half = np.linspace(math.log(1e-12), math.log(up_to), 600)
    half = np.exp(log_half)
    energy = energy[:, None]
    widest = widest_soft(energy, threshold)
    result = np.zeros(energy.size)
    for number, count in ATOMS:
        seen = charges(energy, half, number, widest) * count * rutherford(energy)
        angular = seen * 2.0 * half / (half + screening(energy, number)) ** 2
        result += np.trapezoid(angular * half, log_half, axis=1)
    return result


def hard_elastic(energy: np.ndarray, number: float, count: float) -> np.ndarray:
    """Collisions per g/cm2 with (1 - cos)/2 above the limit, were all charges `most_charges`."""
    eta = screening(energy, number)
    return rutherford(energy) * count * most_charges(number) * (1.0 / (SOFT_HALF + eta) - 1.0 / (1.0 + eta))


@dataclass(frozen=True)
class Electrons:
    """Tables over the logarithm of the energy for one threshold.

    Attributes:
        threshold: transfers above it are collisions of their own, MeV.
        energy: nodes, MeV, evenly spaced in their logarithm.
        reach: residual path by continuous slowing down, g/cm2.
        columns: per node: reach; inverse transport mean free path of soft scattering; radiated part of the continuous
            loss; collisions per g/cm2: Moller, then elastic with each atom.
    """

    threshold: float
    energy: np.ndarray
    reach: np.ndarray
    columns: np.ndarray

    @classmethod
    def above(cls, threshold: float) -> "Electrons":
        """Tables for a threshold in MeV."""
        log_energy = np.linspace(math.log(LOWEST_MEV), math.log(HIGHEST_MEV), NODES)
        energy = np.exp(log_energy)
        largest = np.maximum(energy / 2.0, threshold)
        part = np.linspace(0.0, 1.0, 300)[:, None]
        log_transfer = math.log(threshold) + part * np.log(largest / threshold)
        transfer = np.exp(log_transfer)
        rate = np.where(transfer <= energy / 2.0, moller(energy, np.minimum(transfer, energy / 2.0)), 0.0)
        hard = np.trapezoid(rate * transfer, log_transfer, axis=0)
        hard_loss = np.trapezoid(rate * transfer**2, log_transfer, axis=0)
        radiated = radiative_stopping(energy)
        loss = collision_stopping(energy) - hard_loss + radiated
        reach = scipy.integrate.cumulative_simpson(energy / loss, x=log_energy, initial=0.0) + 0.5 * energy[0] / loss[0]
        elastic = [hard_elastic(energy, number, count) for number, count in ATOMS]
        columns = np.stack([reach, soft_transport(energy, threshold), radiated / loss, hard, *elastic], axis=1)
        return cls(threshold, energy, reach, columns)

    def at(self, energy: np.ndarray) -> np.ndarray:
        """The columns at these energies, (n, 6)."""
        place = (np.log(energy) - math.log(LOWEST_MEV)) * ((NODES - 1) / math.log(HIGHEST_MEV / LOWEST_MEV))
        place = np.clip(place, 0.0, NODES - 1.001)
        left = place.astype(np.intp)
        part = (place - left)[:, None]
        return self.columns[left] * (1.0 - part) + self.columns[left + 1] * part

    def energy_of(self, reach: np.ndarray) -> np.ndarray:
        """Energy of an electron with this residual path."""
        return np.interp(reach, self.reach, self.energy)


def csda_range(energy: np.ndarray) -> np.ndarray:
    """Path of an electron that loses its energy continuously, all collisions together, g/cm2."""
    log_energy = np.linspace(math.log(LOWEST_MEV), math.log(HIGHEST_MEV), NODES)
    nodes = np.exp(log_energy)
    loss = collision_stopping(nodes) + radiative_stopping(nodes)
    reach = scipy.integrate.cumulative_simpson(nodes / loss, x=log_energy, initial=0.0) + 0.5 * nodes[0] / loss[0]
    return np.exp(np.interp(np.log(energy), log_energy, np.log(reach)))


@dataclass(frozen=True)
class Photons:
    """Cross sections of water for photons over the logarithm of the energy, cm2/g."""

    log_energy: np.ndarray
    log_photo: np.ndarray
    log_compton: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "Photons":
        """Read the table of the repository: energy in MeV, photoelectric, incoherent."""
        table = np.loadtxt(path, skiprows=3)
        return cls(*np.log(table.T))

    def photo(self, energy: np.ndarray) -> np.ndarray:
        """Photoelectric absorption."""
        return np.exp(np.interp(np.log(energy), self.log_energy, self.log_photo))

    def compton(self, energy: np.ndarray) -> np.ndarray:
        """Incoherent scattering."""
        return np.exp(np.interp(np.log(energy), self.log_energy, self.log_compton))


def mean_compton_part(energy: np.ndarray) -> np.ndarray:
    """Mean part of its energy that a photon gives to the electron in one Compton scattering (Klein and Nishina)."""
    energy = np.atleast_1d(energy)
    cosine, weight = np.polynomial.legendre.leggauss(64)
    kept = 1.0 / (1.0 + energy[:, None] / ELECTRON_MEV * (1.0 - cosine))
    angular = weight * kept**2 * (kept + 1.0 / kept - (1.0 - cosine**2))
    return 1.0 - (angular * kept).sum(axis=1) / angular.sum(axis=1)
