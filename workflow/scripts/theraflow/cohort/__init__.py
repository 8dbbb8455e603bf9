"""The cohort: its tables, tests and figures, from the tables of its patients."""

from theraflow.cohort.detection import count_detection, wilson_interval
from theraflow.cohort.statistics import (
    compute_statistics,
    hodges_lehmann,
    shapiro_wilk,
    sign_flip,
    wilcoxon,
)
from theraflow.cohort.summary import summarise_cohort
from theraflow.cohort.survival import compute_survival, fit_kaplan_meier, median_time, read_survival

__all__ = [
    "compute_statistics",
    "compute_survival",
    "count_detection",
    "fit_kaplan_meier",
    "hodges_lehmann",
    "median_time",
    "read_survival",
    "shapiro_wilk",
    "sign_flip",
    "summarise_cohort",
    "wilcoxon",
    "wilson_interval",
]
