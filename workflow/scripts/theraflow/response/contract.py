"""What others read of the response: the criteria, and the columns of its tables.

Apart from what measures it, so that a report that shows it does not load that.
"""

PERCIST, RECIST = "PERCIST 1.0", "RECIST 1.1"
CRITERIA = (PERCIST, RECIST)
RESPONSE_COLUMNS = (
    "patient", "baseline", "followup", "criterion", "category", "measure_baseline", "measure_followup",
    "change_percent", "new_lesions", "measure", "remark", "days_since_baseline", "target_response",
    "non_target_response", "measure_nadir", "change_from_nadir_percent", "reference_region", "measurable_from",
    "comparable", "exploratory_baseline", "exploratory_followup", "exploratory_change_percent",
)  # fmt: skip
TARGET_COLUMNS = ("patient", "criterion", "scan", "timepoint", "lesion", "site", "role", "value", "unit")
REFERENCE_COLUMNS = ("patient", "scan", "region", "mean", "sd", "volume_ml", "x_mm", "y_mm", "z_mm", "measure",
                     "remark")  # fmt: skip
BEST_COLUMNS = ("patient", "criterion", "best_response", "best_response_confirmed", "followups",
                "minimum_stable_weeks", "remark")  # fmt: skip
