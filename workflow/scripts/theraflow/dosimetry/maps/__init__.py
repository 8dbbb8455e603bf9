"""The absorbed dose in every voxel, its histograms, and what the regions get by it."""

from theraflow.dosimetry.maps.stage import DVH_COLUMNS, MAP_DOSE_COLUMNS, compute_dose_map

__all__ = ["DVH_COLUMNS", "MAP_DOSE_COLUMNS", "compute_dose_map"]
