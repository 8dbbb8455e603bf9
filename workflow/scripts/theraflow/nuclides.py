"""Radionuclides that the workflow knows: half-life and emitted energy per decay.

Source: ICRP Publication 107 (2008), Nuclear decay data for dosimetric calculations; PET nuclides from the same.
"""

import math
import re
from dataclasses import dataclass

from theraflow.errors import TheraflowError

MEV_IN_J = 1.602176634e-13


@dataclass(frozen=True)
class Nuclide:
    """A radionuclide.

    Attributes:
        name: as in `177Lu`.
        half_life_s: physical half-life in s.
        positron_emitter: whether PET shows it; if not, a reconstruction stored as PET is a SPECT.
        electron_mev: mean energy of beta particles, conversion and Auger electrons per decay in MeV; None where unused.
    """

    name: str
    half_life_s: float
    positron_emitter: bool = False
    electron_mev: float | None = None

    @property
    def decay_constant_per_s(self) -> float:
        """Physical decay constant in 1/s."""
        return math.log(2) / self.half_life_s


MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
_KNOWN = {
    nuclide.name: nuclide
    for nuclide in (
        Nuclide("11C", 20.39 * MINUTE, positron_emitter=True),
        Nuclide("13N", 9.965 * MINUTE, positron_emitter=True),
        Nuclide("15O", 122.24, positron_emitter=True),
        Nuclide("18F", 1.82951 * HOUR, positron_emitter=True),
        Nuclide("44Sc", 3.97 * HOUR, positron_emitter=True),
        Nuclide("64Cu", 12.700 * HOUR, positron_emitter=True),
        Nuclide("68Ga", 67.71 * MINUTE, positron_emitter=True),
        Nuclide("82Rb", 1.273 * MINUTE, positron_emitter=True),
        Nuclide("89Zr", 78.41 * HOUR, positron_emitter=True),
        Nuclide("90Y", 64.10 * HOUR, positron_emitter=True, electron_mev=0.93311),
        Nuclide("124I", 4.1760 * DAY, positron_emitter=True),
        Nuclide("67Cu", 61.83 * HOUR, electron_mev=0.15039),
        Nuclide("67Ga", 3.2612 * DAY),
        Nuclide("99mTc", 6.015 * HOUR),
        Nuclide("111In", 2.8047 * DAY),
        Nuclide("123I", 13.27 * HOUR),
        Nuclide("131I", 8.02070 * DAY, electron_mev=0.19185),
        Nuclide("161Tb", 6.906 * DAY, electron_mev=0.20249),
        Nuclide("166Ho", 26.80 * HOUR),
        Nuclide("177Lu", 6.647 * DAY, electron_mev=0.14792),
    )
}


def nuclide(name: str) -> Nuclide:
    """The nuclide called `name`: `177Lu`, `Lu-177`, `lu177` and `^177^Lutetium` are all understood.

    Raises:
        TheraflowError: not in the table.
    """
    number = re.search(r"\d+", name)
    letters = re.sub(r"[^A-Za-z]", "", name).lower()
    for known in _KNOWN.values():
        mass, state, symbol = re.fullmatch(r"(\d+)(m?)([A-Z][a-z]?)", known.name).groups()
        elements = {symbol.lower(), _ELEMENTS[symbol].lower()}
        if (
            number
            and number.group() == mass
            and letters in {state + e for e in elements} | {e + state for e in elements}
        ):
            return known
    raise TheraflowError(f"The nuclide {name!r} is not known; write it as one of {', '.join(_KNOWN)}.")


_ELEMENTS = {
    "C": "Carbon", "N": "Nitrogen", "O": "Oxygen", "F": "Fluorine", "Sc": "Scandium", "Cu": "Copper", "Ga": "Gallium",
    "Rb": "Rubidium", "Y": "Yttrium", "Zr": "Zirconium", "Tc": "Technetium", "In": "Indium", "I": "Iodine",
    "Tb": "Terbium", "Ho": "Holmium", "Lu": "Lutetium",
}  # fmt: skip
