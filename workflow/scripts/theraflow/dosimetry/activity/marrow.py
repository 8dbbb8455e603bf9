"""Activity of the red marrow: from the lumbar vertebrae in the image, or from blood samples.

The image is the main estimate where a ligand binds in the marrow (pentixather does); blood tells only of what passes
through it. Both give the concentration in red marrow; the mass is that of a reference person of the patient's weight.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from theraflow.dosimetry.activity.regions import Region, free_of, occupancy
from theraflow.dosimetry.s_values.spheres import resource
from theraflow.images import from_array, read_sidecar, to_array
from theraflow.layout import PatientFolder, Scan
from theraflow.organs import organ_mask
from theraflow.registration import read_beside_emission

IMAGE, BLOOD = "red_marrow", "red_marrow_blood"
KIND = "marrow"
# Used since MIRD pamphlet 16 and the EANM guideline (Hindorf et al. 2010): the body beside them is thin.
VERTEBRAE = ("vertebrae_L2", "vertebrae_L3", "vertebrae_L4")
# Cortical shell and endplates (about 1 mm), and what a segmentation is wrong by.
CORTEX_MM = 3.0
# ICRP Publication 89: red marrow.
DENSITY_G_PER_ML = 1.03
# With less of a scan, noise and the vertebrae's surroundings decide (about three spheres of 15 mm).
SMALLEST_SPONGIOSA_ML = 5.0


class MarrowUnknown(Exception):
    """Why the marrow cannot be measured here; the other regions go on."""


@dataclass(frozen=True)
class MarrowMass:
    """Mass of all red marrow.

    Attributes:
        mass_g: the mass.
        source: where it comes from, for the table.
    """

    mass_g: float
    source: str

    @property
    def volume_ml(self) -> float:
        """Volume of all red marrow."""
        return self.mass_g / DENSITY_G_PER_ML


def marrow_mass(folder: PatientFolder, scan: Scan) -> MarrowMass:
    """Red marrow of the reference man or woman (ICRP 89), scaled by body weight.

    Dose from the marrow to itself hardly depends on it: the activity is concentration x this mass, and the dose
    activity / mass. Scaling by weight is what the EANM guideline (Hindorf et al., Eur J Nucl Med Mol Imaging
    2010;37:1238) takes.

    Raises:
        MarrowUnknown: the scan's sidecar does not tell the sex or the weight.
    """
    sidecar = read_sidecar(folder.emission(scan))
    sex, weight = sidecar.get("sex"), sidecar.get("weight_kg")
    table = resource("marrow_reference.csv").set_index("sex")
    if sex not in table.index:
        raise MarrowUnknown(f"no mass of red marrow: the sex in the DICOM header is {sex or 'missing'}, not M or F")
    if not weight:
        raise MarrowUnknown("no mass of red marrow: the weight is not known; add weight_kg to scans.tsv")
    reference = table.loc[sex]
    mass = float(reference["red_marrow_g"]) * float(weight) / float(reference["total_body_g"]) * 1000.0
    return MarrowMass(mass, f"mass of ICRP 89 scaled to {weight:g} kg")


def find_spongiosa(
    folder: PatientFolder, scan: Scan, emission: sitk.Image, lesions: Sequence[Region]
) -> tuple[Region, Region]:
    """Spongiosa of the lumbar vertebrae L2 to L4 of a scan, and what else its vertebrae hold, on the emission grid.

    Cortical bone is left out by taking 3 mm (whole voxels) from the surface of each vertebra; lesions (metastases in
    the bone) are no marrow.

    Raises:
        MarrowUnknown: no organ labels, none of the vertebrae, or too little of them in the SPECT.
    """
    path = folder.organs(scan.scan)
    if not path.exists():
        raise MarrowUnknown("no marrow: the scan has no organ labels")
    image = read_beside_emission(folder, scan.scan, path)
    labels = to_array(image)
    masks = [mask for name in VERTEBRAE if (mask := organ_mask(labels, name)).any()]
    if not masks:
        raise MarrowUnknown("no marrow: the organ labels have none of the vertebrae L2 to L4")
    core = np.any([_inner(mask, image) for mask in masks], axis=0)
    regions = []
    for name, mask in (("spongiosa", core), ("rest of the vertebrae", np.any(masks, axis=0) & ~core)):
        place = occupancy(from_array(mask, image), emission)
        if place is None:
            raise MarrowUnknown("no marrow: the inside of the vertebrae L2 to L4 is not in the SPECT")
        box, fraction = place
        regions.append(Region(name, KIND, box, np.minimum(fraction, free_of(lesions, box))))
    volume = regions[0].volume_ml(float(np.prod(emission.GetSpacing())) / 1000.0)
    if volume < SMALLEST_SPONGIOSA_ML:
        raise MarrowUnknown(f"no marrow: {volume:.1f} mL of the vertebrae L2 to L4 are inside the bone, in the SPECT "
                            "and free of lesions")  # fmt: skip
    return regions[0], regions[1]


def blood_ratio(sample: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    """Concentration in red marrow over that in blood (RMBLR).

    0.19 / (1 - haematocrit) (Sgouros, J Nucl Med 1993;34:689): the extracellular part of marrow holds what plasma
    holds; for small molecules that bind neither to blood cells nor in the marrow. Else the number of the configuration.

    Args:
        sample: a row of the sheet of blood samples.
        settings: section `dosimetry: marrow` of the configuration.
    """
    wanted = settings["blood_ratio"]
    return 0.19 / (1.0 - sample["haematocrit"]) if wanted == "haematocrit" else float(wanted)


def _inner(mask: np.ndarray, grid: sitk.Image) -> np.ndarray:
    """A mask (z, y, x) without its outermost voxels, as many as the cortex takes; the image's edge is a surface."""
    layers = [math.ceil(CORTEX_MM / spacing) for spacing in grid.GetSpacing()]
    return to_array(sitk.BinaryErode(from_array(mask, grid), layers, boundaryToForeground=False)).astype(bool)
