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
        electron_mev: mean energy of beta particles, conversion and Auger electrons per decay in MeV; None where unused.
    """

    name: str
    half_life_s: float
    electron_mev: float | None = None

    @property
    def decay_constant_per_s(self) -> float:
        """Physical decay constant in 1/s."""
        return math.log(2) / self.half_life_s


HOUR, DAY = 3600.0, 86400.0
_KNOWN = {
    nuclide.name: nuclide
    for nuclide in (
        Nuclide("18F", 1.82951 * HOUR),
        Nuclide("68Ga", 67.71 * 60.0),
        Nuclide("64Cu", 12.700 * HOUR),
        Nuclide("89Zr", 78.41 * HOUR),
        Nuclide("111In", 2.8047 * DAY),
        Nuclide("177Lu", 6.647 * DAY, 0.14792),
        Nuclide("90Y", 64.10 * HOUR, 0.93311),
        Nuclide("131I", 8.02070 * DAY, 0.19185),
        Nuclide("161Tb", 6.906 * DAY, 0.20249),
        Nuclide("67Cu", 61.83 * HOUR, 0.15039),
    )
}


def nuclide(name: str) -> Nuclide:
    """The nuclide called `name`: `177Lu`, `Lu-177`, `lu177` and `^177^Lutetium` are all understood.

    Raises:
        TheraflowError: not in the table.
    """
    number = re.search(r"\d+", name)
    letters = re.sub(r"[^A-Za-z]", "", name)
    for known in _KNOWN.values():
        symbol = known.name.lstrip("0123456789")
        wanted = {symbol.lower(), _LONG_NAMES.get(symbol, symbol).lower()}
        if number and known.name.startswith(number.group()) and letters.lower() in wanted:
            return known
    raise TheraflowError(f"The nuclide {name!r} is not known; write it as one of {', '.join(_KNOWN)}.")


_LONG_NAMES = {
    "F": "Fluorine", "Ga": "Gallium", "Cu": "Copper", "Zr": "Zirconium", "In": "Indium",
    "Lu": "Lutetium", "Y": "Yttrium", "I": "Iodine", "Tb": "Terbium",
}  # fmt: skip
