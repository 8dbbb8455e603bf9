"""Figures of the cohort at the quality of print: each as SVG and PDF, with a caption, from the result tables alone."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "cohort": ["draw_cohort"],
        "drawing": ["write_drawings"],
    },
)
