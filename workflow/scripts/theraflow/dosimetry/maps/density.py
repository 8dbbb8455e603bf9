"""Density of the tissue in the voxels of a dose map, from the CT."""

import numpy as np
import SimpleITK as sitk

from theraflow.dosimetry.s_values.spheres import resource
from theraflow.images import from_array, to_array
from theraflow.images.body import shrink
from theraflow.layout import PatientFolder, Scan
from theraflow.registration import read_beside_emission

CT_DENSITIES = "ct_densities.csv"
SOURCE = (
    "CT, by Schneider et al., Phys Med Biol 2000;45:459, with soft tissue held at 1.03 g/mL from 14 to 150 HU, within "
    "organs and lesions from -150 HU on"
)


def density_of_hu(hu: np.ndarray) -> np.ndarray:
    """Density in g/mL of tissue by its HU, linear between the points of `resources/ct_densities.csv`.

    Beyond the last point (metal, padding) the density is that of the last point.
    """
    table = resource(CT_DENSITIES)
    return np.interp(hu, table["hu"], table["density_g_per_ml"])


def read_density(folder: PatientFolder, scan: Scan, grid: sitk.Image) -> np.ndarray | None:
    """Density in g/mL of the voxels of `grid` (z, y, x), from the CT of a scan; None where it has none.

    HU become densities before they are averaged over a voxel, as mass adds up and HU do not. Beyond the ends of the CT
    the tissue goes on as in its last voxels.
    """
    path = folder.ct(scan.scan)
    if not path.exists():
        return None
    ct = read_beside_emission(folder, scan.scan, path)
    density = from_array(density_of_hu(to_array(ct)).astype(np.float32), ct)
    smaller = shrink(density, min(grid.GetSpacing()))
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return to_array(resampler.Execute(smaller))
