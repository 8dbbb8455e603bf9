"""How much activity each region holds at each scan."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "planar": ["PLANAR_COLUMNS", "measure_planar"],
        "stage": ["CURVE_COLUMNS", "measure_activity"],
    },
)
