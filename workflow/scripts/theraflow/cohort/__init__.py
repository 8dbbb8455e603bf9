"""The cohort: its tables, tests and figures, from the tables of its patients."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "detection": ["count_detection", "wilson_interval"],
        "paired": ["hodges_lehmann", "rosner_glynn_lee", "shapiro_wilk", "sign_flip", "wilcoxon"],
        "statistics": ["compute_statistics"],
        "summary": ["summarise_cohort"],
        "survival": ["compute_survival", "fit_kaplan_meier", "list_survival", "median_time", "read_survival"],
    },
)
