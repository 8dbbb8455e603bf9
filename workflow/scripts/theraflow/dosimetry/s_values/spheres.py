"""S values: absorbed dose in a region per decay in it, the region taken as a sphere of its mass."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from theraflow.dosimetry.s_values.kernels import read_kernel
from theraflow.errors import TheraflowError
from theraflow.nuclides import MEV_IN_J
from theraflow.nuclides import nuclide as known_nuclide
from theraflow.organs import GROUPS

RESOURCES = Path(__file__).resolve().parents[5] / "resources"
# Below, the shells of the kernels are too coarse; above, a sphere may be wider than the kernels reach.
LIGHTEST_G, HEAVIEST_G = 0.001, 20_000.0
LIGHTEST_DENSITY, HEAVIEST_DENSITY = 0.1, 2.3
SPHERE_COLUMNS = ("nuclide", "mass_g", "s_gy_per_bq_s")


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
    """Density of the organ by ICRP Publication 110, or of lung or average soft tissue where that table has it not."""
    organs = resource("organ_reference_masses.csv").set_index("organ")["density_g_per_ml"]
    organ = GROUPS.get(region, (region,))[0]  # left and right have one density
    if organ in organs.index:
        return float(organs[organ])
    tissues = resource("tissue_densities.csv").set_index("tissue")["density_g_per_ml"]
    return float(tissues["lung" if region.startswith("lung") else "soft_tissue"])


def sphere_self_dose(
    nuclide: str, mass_g: float, density: float | None = None, table: str | Path | None = None
) -> SelfDose:
    """S value of a uniform sphere within a large piece of the same tissue.

    Computed: the radial kernel of the nuclide (`theraflow.dosimetry.s_values.kernels`) and the geometry of the sphere;
    electrons and photons, the photons that come back from outside too.

    Args:
        nuclide: one that has a kernel, or is in the table.
        mass_g: mass of the sphere.
        density: g/mL; default soft tissue. A table knows none.
        table: a table of sphere S values to use in place, see `read_sphere_table`.

    Raises:
        TheraflowError: another nuclide, or a mass or density outside what was computed or tabulated.
    """
    if not mass_g > 0:
        raise TheraflowError(f"No S value exists for a mass of {mass_g} g.")
    if table is not None:
        return _interpolated(nuclide, mass_g, Path(table))
    kernel = read_kernel(nuclide)
    if not LIGHTEST_G <= mass_g <= HEAVIEST_G:
        raise TheraflowError(
            f"S values of {kernel.name} are computed for spheres of {LIGHTEST_G:g} to {HEAVIEST_G:g} g, not for "
            f"{mass_g:.3g} g; leave this region out, or bring a table of S values that holds its mass."
        )
    density = density_g_per_ml("soft tissue") if density is None else density
    if not LIGHTEST_DENSITY <= density <= HEAVIEST_DENSITY:
        raise TheraflowError(
            f"S values are computed for densities of {LIGHTEST_DENSITY:g} to {HEAVIEST_DENSITY:g} g/mL, not for "
            f"{density:.3g} g/mL; check the mass and the volume of this region."
        )
    radius_cm = (3.0 * mass_g / (4.0 * math.pi * density)) ** (1.0 / 3.0)
    value = kernel.energy_in_sphere(radius_cm * density) * MEV_IN_J / (mass_g / 1000.0)
    return SelfDose(value, f"sphere S from transport of {kernel.name} in water")


def marrow_self_dose(nuclide: str, mass_g: float, absorbed: Mapping[str, float] | None = None) -> SelfDose:
    """S value of the red marrow for decays in it, by the electrons alone.

    The electrons' energy is taken to stay in the red marrow unless a part is given: an upper bound, for the cavities
    are no wider than the electrons' ranges, and fat and bone take their share. Of 177Lu, 0.57 stay by OLINDA 2
    (1.15e-5 mGy/(MBq s) in 1170 g, photons included). Photons, those of the rest of the body too, are not counted.

    Args:
        nuclide: one whose electron energy is known.
        mass_g: mass of all red marrow.
        absorbed: part of the electrons' energy that stays in the red marrow, by nuclide.

    Raises:
        TheraflowError: a mass that is none, or a nuclide without a known electron energy.
    """
    known = known_nuclide(nuclide)
    if not mass_g > 0:
        raise TheraflowError(f"No S value exists for a mass of {mass_g} g.")
    if known.electron_mev is None:
        raise TheraflowError(f"No electron energy is known for {known.name}, so that red marrow has no S value of it.")
    given = {known_nuclide(name).name: float(part) for name, part in (absorbed or {}).items()}
    value = known.electron_mev * MEV_IN_J * given.get(known.name, 1.0) / (mass_g / 1000.0)
    if known.name in given:
        return SelfDose(value, f"{100 * given[known.name]:g} % of the electron energy stay in red marrow, no photons")
    return SelfDose(value, "all electron energy stays in red marrow (an upper bound), no photons")


@functools.cache
def read_sphere_table(path: Path) -> pd.DataFrame:
    """A table of sphere S values: tab-separated, columns nuclide, mass_g, s_gy_per_bq_s; lines with # are remarks.

    Raises:
        TheraflowError: a column is missing, or a value is not a number above 0.
    """
    table = pd.read_csv(path, sep="\t", comment="#", dtype={"nuclide": str})
    missing = [column for column in SPHERE_COLUMNS if column not in table]
    if missing:
        raise TheraflowError(f"{path} has no column {', '.join(missing)}; S tables have {', '.join(SPHERE_COLUMNS)}.")
    numbers = table[["mass_g", "s_gy_per_bq_s"]].apply(pd.to_numeric, errors="coerce")
    bad = ~(numbers > 0).all(axis=1)
    if bad.any():
        raise TheraflowError(f"{path}: row {int(np.flatnonzero(bad)[0]) + 1} has no mass or no S value above 0.")
    names = [known_nuclide(str(name)).name for name in table["nuclide"]]
    return numbers.assign(nuclide=names).sort_values("mass_g", ignore_index=True)


def _interpolated(nuclide: str, mass_g: float, path: Path) -> SelfDose:
    """In log(mass) and log(S): a straight line in mass is wrong by 9 % and more."""
    name = known_nuclide(nuclide).name
    table = read_sphere_table(path)
    own = table[table["nuclide"] == name]
    if own.empty:
        raise TheraflowError(f"{path} has no S values of {name}; add them, or leave the table out of the config.")
    masses, values = own["mass_g"].to_numpy(), own["s_gy_per_bq_s"].to_numpy()
    if not masses[0] <= mass_g <= masses[-1]:
        raise TheraflowError(
            f"{path} has S values of {name} for {masses[0]:g} to {masses[-1]:g} g, not for {mass_g:.3g} g; "
            "add that mass, or leave the table out of the config."
        )
    value = math.exp(np.interp(math.log(mass_g), np.log(masses), np.log(values)))
    return SelfDose(value, f"sphere S of {path.name}")
