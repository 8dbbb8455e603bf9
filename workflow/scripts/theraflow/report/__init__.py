"""Reports: one self-contained HTML file a patient, and one for the cohort."""

from theraflow.report.cohort import write_cohort_report
from theraflow.report.patient import write_patient_report

__all__ = ["write_cohort_report", "write_patient_report"]
