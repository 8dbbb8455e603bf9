"""Figures of the cohort at the quality of print: each as SVG and PDF, with a caption, from the result tables alone."""

from theraflow.cohort.figures.cohort import draw_cohort
from theraflow.cohort.figures.drawing import write_drawings

__all__ = ["draw_cohort", "write_drawings"]
