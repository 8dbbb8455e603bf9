"""The next cycle: what the limits of the organs still allow, and what the tumours would get."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "stage": ["plan_therapy"],
    },
)
