"""Dosimetry: activity of regions, time-activity curves, absorbed dose per administered activity, dose map.

The scheme is that of MIRD: absorbed dose = time-integrated activity x S value. Kinetics measured with one
nuclide are carried to another by exchanging the physical decay.
"""

from theraflow.dosimetry.activity import CURVE_COLUMNS, measure_activity
from theraflow.dosimetry.dose_map import DVH_COLUMNS, compute_dose_map
from theraflow.dosimetry.doses import CYCLE_COLUMNS, DOSE_COLUMNS, compute_doses

__all__ = [
    "CURVE_COLUMNS",
    "CYCLE_COLUMNS",
    "DOSE_COLUMNS",
    "DVH_COLUMNS",
    "compute_dose_map",
    "compute_doses",
    "measure_activity",
]
