"""The cohort: its tables, tests and figures, from the tables of its patients."""

from theraflow.cohort.detection import count_detection, wilson_interval
from theraflow.cohort.paired import hodges_lehmann, rosner_glynn_lee, shapiro_wilk, sign_flip, wilcoxon
from theraflow.cohort.statistics import compute_statistics
from theraflow.cohort.summary import summarise_cohort
from theraflow.cohort.survival import compute_survival, fit_kaplan_meier, list_survival, median_time, read_survival

__all__ = [
    "compute_statistics",
    "compute_survival",
    "count_detection",
    "fit_kaplan_meier",
    "hodges_lehmann",
    "list_survival",
    "median_time",
    "read_survival",
    "rosner_glynn_lee",
    "shapiro_wilk",
    "sign_flip",
    "summarise_cohort",
    "wilcoxon",
    "wilson_interval",
]
