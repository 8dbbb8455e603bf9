"""Lesions: found, measured on every scan's own voxels, named and followed through tracers and time.

- `peak`: SUVpeak, PERCIST's and the two of the IBSI.
- `uptake`: uptake, size, place and background of one lesion on one scan.
- `candidates`: uptake above a fixed SUV that no organ explains.
- `identity`: one lesion through all scans.
- `positivity`: positive or negative; concordant or seen by one tracer only.
- `region`: a mask in its box, and how it is carried to another scan.
- `stage`: `measure_lesions`, which does it all for one patient.
"""

from theraflow.lesions.candidates import find_candidates, physiologic_mask
from theraflow.lesions.identity import Lesion, Observation, follow, match
from theraflow.lesions.peak import ibsi_peaks, percist_peak
from theraflow.lesions.positivity import concordance, is_positive
from theraflow.lesions.region import Region, carry
from theraflow.lesions.stage import CANDIDATE_COLUMNS, LESION_COLUMNS, measure_lesions
from theraflow.lesions.uptake import (
    BACKGROUNDS,
    Background,
    axial_diameters,
    geometry,
    organ_at_site,
    organ_background,
    shell_background,
    site_of,
    uptake,
)

__all__ = [
    "BACKGROUNDS",
    "CANDIDATE_COLUMNS",
    "LESION_COLUMNS",
    "Background",
    "Lesion",
    "Observation",
    "Region",
    "axial_diameters",
    "carry",
    "concordance",
    "find_candidates",
    "follow",
    "geometry",
    "ibsi_peaks",
    "is_positive",
    "match",
    "measure_lesions",
    "organ_at_site",
    "organ_background",
    "percist_peak",
    "physiologic_mask",
    "shell_background",
    "site_of",
    "uptake",
]
