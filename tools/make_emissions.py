"""Write resources/emissions.tsv and resources/photon_cross_sections_water.tsv from published tables.

Run once, with `pip install icrp107-database xraylib`; theraflow itself needs neither.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import xraylib

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
NUCLIDES = {"177Lu": "Lu-177", "90Y": "Y-90", "131I": "I-131", "161Tb": "Tb-161", "67Cu": "Cu-67"}
KINDS = {"auger": "electron", "IE": "electron", "gamma": "photon", "X": "photon"}
# A line that carries less energy per decay is left out.
LEAST_MEV_PER_DECAY = 1e-10
HIGHEST_KEV = 800.0  # of xraylib's table; above it a power law


def main() -> None:
    """Write both tables."""
    folder = Path(importlib.util.find_spec("icrp107_database").origin).parent / "icrp107"
    lines = [
        "# Source: ICRP Publication 107, Nuclear decay data for dosimetric calculations (Ann ICRP 2008;38(3)), as in "
        "the Python package icrp107-database 0.0.3; five nuclides, lines below 0.1 meV per decay left out",
        "# beta: particles per decay and MeV at this energy (a spectrum); electron: conversion and Auger electrons, "
        "photon: gamma and X-rays, per decay",
        "nuclide\tkind\tenergy_mev\tper_decay",
    ]
    for name, theirs in NUCLIDES.items():
        content = json.loads((folder / f"{theirs}.json").read_text())
        emissions = (json.loads(content) if isinstance(content, str) else content)["emissions"]
        for energy, height in emissions["b-spectra"]:
            lines.append(f"{name}\tbeta\t{energy:.6g}\t{height:.6g}")
        for theirs_kind, kind in KINDS.items():
            for energy, count in emissions[theirs_kind]:
                if energy * count > LEAST_MEV_PER_DECAY:
                    lines.append(f"{name}\t{kind}\t{energy:.6g}\t{count:.6g}")
    (RESOURCES / "emissions.tsv").write_text("\n".join(lines) + "\n")

    rows = [
        f"# Source: xraylib {xraylib.__version__} (Schoonjans et al., Spectrochim Acta B 2011;66:776), compound H2O; "
        "above 0.8 MeV a power law for photoelectric absorption, Klein and Nishina for incoherent scattering",
        "# Cross sections of water for photons in cm2/g; coherent scattering left out",
        "energy_mev\tphotoelectric\tincoherent",
    ]
    top = np.array([600.0, HIGHEST_KEV])
    end = np.array([xraylib.CS_Photo_CP("H2O", e) for e in top])
    slope = np.log(end[1] / end[0]) / np.log(top[1] / top[0])
    for energy in np.geomspace(1.0, 3000.0, 140):
        photo = xraylib.CS_Photo_CP("H2O", min(energy, HIGHEST_KEV)) * max(1.0, energy / HIGHEST_KEV) ** slope
        rows.append(f"{energy / 1000.0:.6g}\t{photo:.6g}\t{incoherent(energy):.6g}")
    (RESOURCES / "photon_cross_sections_water.tsv").write_text("\n".join(rows) + "\n")


def incoherent(energy_kev: float) -> float:
    """Incoherent scattering of water in cm2/g; above the table, where binding is nothing, free electrons."""
    below = min(energy_kev, HIGHEST_KEV)
    return xraylib.CS_Compt_CP("H2O", below) * xraylib.CS_KN(energy_kev) / xraylib.CS_KN(below)


if __name__ == "__main__":
    main()
