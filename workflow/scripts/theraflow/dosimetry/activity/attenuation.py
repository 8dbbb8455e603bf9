"""Linear attenuation coefficients of a body at a gamma energy, from its CT."""

import numpy as np

from theraflow.dosimetry.s_values.spheres import resource
from theraflow.errors import TheraflowError

WATER_G_PER_ML, BONE_G_PER_ML = 1.0, 1.92
# Mean energy of a CT's beam at 120 kV behind its filters. With 60 or 80 keV bone of 800 HU would be 5 % thinner or 6 %
# denser to 208 keV.
CT_KEV = 70.0


def attenuation_per_cm(hu: np.ndarray, energy_kev: float, water_per_cm: float | None = None) -> np.ndarray:
    """Linear attenuation coefficient of each voxel in 1/cm.

    Two straight lines meet at water, since bone stops the CT's photons more than those of a camera: from air to water
    in proportion to 1 + HU/1000, from water to cortical bone towards what both have at either energy (Burger et al.,
    Eur J Nucl Med Mol Imaging 2002;29:922).

    Args:
        hu: CT numbers, any shape.
        energy_kev: of the photons.
        water_per_cm: coefficient of water where it is known by a measurement, as the effective one of a camera whose
            counts hold scatter; default that of a narrow beam.

    Raises:
        TheraflowError: an energy that the table does not reach.
    """
    water, bone = narrow_beam_per_cm(energy_kev)
    ct_water, ct_bone = narrow_beam_per_cm(CT_KEV)
    bone_hu = 1000.0 * (ct_bone / ct_water - 1.0)
    above = (bone / water - 1.0) / bone_hu
    relative = np.where(hu <= 0.0, np.maximum(1.0 + hu / 1000.0, 0.0), 1.0 + hu * above)
    return (water if water_per_cm is None else water_per_cm) * relative


def narrow_beam_per_cm(energy_kev: float) -> tuple[float, float]:
    """Coefficients of water and of cortical bone in 1/cm, interpolated in the logarithms of energy and coefficient.

    Raises:
        TheraflowError: an energy that the table does not reach.
    """
    table = resource("attenuation_coefficients.csv")
    low, high = table["energy_kev"].min(), table["energy_kev"].max()
    if not low <= energy_kev <= high:
        raise TheraflowError(
            f"No attenuation coefficients are known at {energy_kev:g} keV, only from {low:g} to {high:g} keV; check "
            "the energy window, or set dosimetry: planar: energy_kev."
        )
    water, bone = (
        float(np.exp(np.interp(np.log(energy_kev), np.log(table["energy_kev"]), np.log(table[name]))))
        for name in ("water", "bone")
    )
    return water * WATER_G_PER_ML, bone * BONE_G_PER_ML
