"""What others read of the dosimetry: the columns of its tables and how they are meant.

Apart from what computes them, so that a report that shows doses does not load what fits curves.
"""

DOSE_COLUMNS = (
    "patient", "region", "kind", "nuclide", "mass_g", "n_timepoints", "model", "t_eff_h", "tia_h",
    "dose_gy_per_gbq", "sd_gy_per_gbq", "method", "ci_low_gy_per_gbq", "ci_high_gy_per_gbq", "quality",
    "exponentials", "timepoint",
)  # fmt: skip
FITTED_COLUMNS = ("patient", "timepoint", "region", "nuclide", "time_h", "activity_mbq", "sd_mbq")
ADMINISTRATION_COLUMNS = (*DOSE_COLUMNS, "injected_mbq", "date")
CYCLE_COLUMNS = (
    "patient", "cycle", "region", "nuclide", "activity_gbq", "dose_gy", "sd_gy", "bed_gy", "source", "timepoint",
)  # fmt: skip
BUDGET_COLUMNS = ("patient", "region", "nuclide", "term", "relative_sd", "share")
COURSE_COLUMNS = (
    "patient", "cycle", "date", "region", "kind", "nuclide", "activity_gbq", "dose_gy", "sd_gy", "bed_gy", "eqd2_gy",
    "total_dose_gy", "total_sd_gy", "total_bed_gy", "total_eqd2_gy", "remark",
)  # fmt: skip
PLAN_COLUMNS = (
    "patient", "region", "kind", "nuclide", "limit_quantity", "limit_gy", "spent_gy", "remaining_gy",
    "max_activity_gbq", "max_activity_sd_gbq", "max_activity_95_gbq", "limiting",
    "dose_at_max_gy", "dose_at_max_sd_gy", "dose_at_95_gy",
    "course_cycles", "course_activity_gbq", "course_activity_sd_gbq", "course_activity_95_gbq",
    "course_dose_gy", "course_dose_sd_gy", "wanted_gy", "reached", "remark",
)  # fmt: skip
WITH_DOSE = ("organ", "lesion", "marrow")  # kinds of regions
NORMAL_95 = 1.959963984540054  # standard deviations from the middle to the end of a 95 % interval
