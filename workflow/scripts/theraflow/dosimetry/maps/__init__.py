"""The absorbed dose in every voxel, its histograms, and what the regions get by it."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "stage": ["DVH_COLUMNS", "MAP_DOSE_COLUMNS", "compute_dose_map"],
    },
)
