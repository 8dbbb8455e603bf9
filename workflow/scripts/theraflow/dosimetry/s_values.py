"""S values: absorbed dose in a region per decay in it, the region taken as a sphere of its mass."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J

RESOURCES = Path(__file__).resolve().parents[4] / "resources"


@dataclass(frozen=True)
class SelfDose:
    """S value of a sphere.

    Attributes:
        gy_per_bq_s: absorbed dose per decay.
        source: where it comes from, for the table.
    """

    gy_per_bq_s: float
    source: str


def resource(name: str) -> pd.DataFrame:
    """A small reference table of the repository; its first lines say where it comes from."""
    return pd.read_csv(RESOURCES / name, comment="#")


def density_g_per_ml(region: str) -> float:
    """Density by the table of tissues: lung where the region is one, else soft tissue."""
    table = resource("tissue_densities.csv").set_index("tissue")["density_g_per_ml"]
    return float(table["lung" if region.startswith("lung") else "soft_tissue"])


def sphere_self_dose(nuclide: str, mass_g: float, density: float | None = None) -> SelfDose:
    """S value of a uniform sphere of soft tissue.

    177Lu: Olguin et al. 2020, interpolated in log(mass) and log(S); outside their masses S x mass is kept,
    which the source says. 90Y: the point kernel of Graves et al. 2019 and the geometry of the sphere.

    Args:
        nuclide: `177Lu` or `90Y`.
        mass_g: mass of the sphere, above 0.
        density: g/mL; default soft tissue. It matters for 90Y alone.

    Raises:
        TheraflowError: another nuclide, or no mass.
    """
    if not mass_g > 0:
        raise TheraflowError(f"No S value exists for a mass of {mass_g} g.")
    if nuclide == "177Lu":
        return _interpolated(mass_g)
    if nuclide == "90Y":
        density = density or density_g_per_ml("soft tissue")
        radius_cm = (3.0 * mass_g / (4.0 * math.pi * density)) ** (1.0 / 3.0)
        value = absorbed_energy_mev(radius_cm * density) * MEV_IN_J / (mass_g / 1000.0)
        return SelfDose(value, "sphere S from the point kernel of Graves 2019")
    raise TheraflowError(f"S values exist for 177Lu and 90Y, not for {nuclide}; take one of them as therapy_nuclide.")


def _interpolated(mass_g: float) -> SelfDose:
    table = resource("sphere_s_177Lu.csv")
    masses, values = table["mass_g"].to_numpy(), table["S_Gy_per_Bq_s"].to_numpy()
    nearest = float(np.clip(mass_g, masses[0], masses[-1]))
    value = math.exp(np.interp(math.log(nearest), np.log(masses), np.log(values)))
    source = "sphere S of Olguin 2020"
    if nearest != mass_g:
        source += f" scaled by mass from {nearest:g} g"
    return SelfDose(value * nearest / mass_g, source)


@functools.cache
def beta_kernel() -> tuple[np.ndarray, np.ndarray]:
    """The 90Y beta point kernel in water: inner and outer radius of each shell in cm (n, 2), MeV (n)."""
    table = resource("point_kernel_90Y.csv")
    outer = table["r_outer_cm"].to_numpy()
    return np.stack([np.concatenate([[0.0], outer[:-1]]), outer], axis=1), table["E_MeV"].to_numpy()


def absorbed_energy_mev(radius_g_per_cm2: float) -> float:
    """Energy per 90Y decay that stays in a uniform sphere, in MeV.

    A point at random in a sphere of radius R, displaced by r in a random direction, is still inside with
    probability P(r) = 1 - 3r/(4R) + r^3/(16 R^3); the energy of each shell of the kernel is
    weighted with the mean of P over it.

    Args:
        radius_g_per_cm2: radius times density: tissue stops electrons like water of the same mass per area.
    """
    shells, energy = beta_kernel()
    size = radius_g_per_cm2
    reach = np.minimum(shells, 2.0 * size)
    integral = reach - 3.0 * reach**2 / (8.0 * size) + reach**4 / (64.0 * size**3)
    kept = (integral[:, 1] - integral[:, 0]) / (shells[:, 1] - shells[:, 0])
    return float(energy @ kept)
