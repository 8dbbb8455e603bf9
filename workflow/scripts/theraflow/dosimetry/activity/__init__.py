"""How much activity each region holds at each scan."""

from theraflow.dosimetry.activity.planar import PLANAR_COLUMNS, measure_planar
from theraflow.dosimetry.activity.stage import CURVE_COLUMNS, measure_activity

__all__ = ["CURVE_COLUMNS", "PLANAR_COLUMNS", "measure_activity", "measure_planar"]
