"""Kinetics and absorbed doses of the virtual patients, derived apart from `theraflow.dosimetry`.

The activity concentration of every region is a single exponential from the injection on,
c(t) = A0 * g * 2^(-t / T_eff) with g per mL; 177Lu and 90Y share the biology. Doses of 90Y come from random
walks from points in the target to where a decay would deposit its energy there (reciprocity in a homogeneous
medium), with the published point kernel; doses of 177Lu from published sphere S values.
"""

import math
from collections.abc import Callable

import numpy as np

from theraflow.nuclides import MEV_IN_J, nuclide

DENSITY_G_PER_ML = 1.05

# Distances in mm from a 90Y decay in water within which 2.5, 7.5, ... 97.5 % of the beta energy are
# deposited, from the point kernel of Graves, Flynn and Hyer, Med Phys 2019;46:5284 (Zenodo
# 10.5281/zenodo.2564036, 90Y).
Y90_ENERGY_DISTANCES_MM = (
    0.117, 0.340, 0.563, 0.787, 1.013, 1.243, 1.478, 1.719, 1.968, 2.226,
    2.495, 2.778, 3.078, 3.399, 3.747, 4.133, 4.574, 5.103, 5.798, 6.991,
)  # fmt: skip

# Mass in g of a soft-tissue sphere and its 177Lu self S value in Gy/(Bq s): Olguin et al., Phys Med Biol
# 2020;65:235027.
LU177_SPHERE_S = (
    (0.539, 4.27e-11), (0.932, 2.49e-11), (2.21, 1.06e-11), (4.31, 5.46e-12), (14.6, 1.63e-12),
    (34.5, 6.93e-13), (116.0, 2.07e-13), (276.0, 8.81e-14), (539.0, 4.54e-14), (932.0, 2.65e-14),
)  # fmt: skip


def effective_half_life_y90_h(half_life_lu177_h: float) -> float:
    """Effective half-life of 90Y where that of 177Lu, same ligand, is known: only the physical decay differs
    (h)."""
    biological = 1 / half_life_lu177_h - 3600 / nuclide("177Lu").half_life_s
    return 1 / (biological + 3600 / nuclide("90Y").half_life_s)


def sphere_absorbed_fraction_y90(radius_mm: float) -> float:
    """Part of the 90Y beta energy that a uniform sphere in water keeps.

    The kernel weighted with the sphere's geometry factor P(r) = 1 - 3r/(4R) + r^3/(16R^3) (Berger 1970).
    """
    r = np.array(Y90_ENERGY_DISTANCES_MM)
    factor = 1 - 3 * r / (4 * radius_mm) + r**3 / (16 * radius_mm**3)
    return float(np.where(r < 2 * radius_mm, factor, 0.0).mean())


def concentration_for_dose(dose_gy_per_gbq: float, half_life_lu177_h: float, absorbed_fraction: float) -> float:
    """Concentration at t = 0 per administered activity (1/mL) that gives this 90Y self dose coefficient."""
    residence_s = effective_half_life_y90_h(half_life_lu177_h) * 3600 / math.log(2)
    joule = nuclide("90Y").electron_mev * MEV_IN_J * absorbed_fraction
    return dose_gy_per_gbq * DENSITY_G_PER_ML * 1e-3 / (1e9 * residence_s * joule)


def residence_h(concentration: float, volume_ml: float, half_life_h: float) -> float:
    """Time-integrated activity per administered activity, in h, of a region of uniform concentration
    (1/mL)."""
    return concentration * volume_ml * half_life_h / math.log(2)


def dose_y90(
    points: np.ndarray, residence_per_ml_h: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """Mean absorbed dose of 90Y over `points`, in Gy/GBq, with its standard error (Monte Carlo).

    Args:
        points: (n, 3), uniformly distributed over the target, in mm.
        residence_per_ml_h: time-integrated activity concentration per administered activity (h/mL) at points
            (n, 3).
        rng: random numbers.
    """
    direction = rng.normal(size=points.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # The 20 distances stand for equal parts of the energy.
    distance = rng.choice(Y90_ENERGY_DISTANCES_MM, size=(len(points), 1))
    there = residence_per_ml_h(points + distance * direction)
    gy_per_gbq = 1e9 * 3600 * nuclide("90Y").electron_mev * MEV_IN_J / (DENSITY_G_PER_ML * 1e-3)
    return float(there.mean() * gy_per_gbq), float(there.std() / math.sqrt(len(points)) * gy_per_gbq)


def self_dose_lu177(residence: float, mass_g: float) -> float:
    """Self dose of 177Lu in Gy/GBq of a compact region.

    S values of spheres, interpolated in log(mass) and log(S); outside the table S x mass stays as at its end.

    Args:
        residence: time-integrated activity per administered activity in h.
        mass_g: mass.
    """
    mass, s_value = np.log(np.array(LU177_SPHERE_S)).T
    product = np.interp(math.log(mass_g), mass, mass + s_value)
    return residence * 3600 * 1e9 * math.exp(product - math.log(mass_g))
