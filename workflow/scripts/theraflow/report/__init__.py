"""Reports: one self-contained HTML file a patient with its essentials as PDF, and one HTML file for the cohort."""

from theraflow.report.cohort import write_cohort_report
from theraflow.report.document import write_patient_document
from theraflow.report.patient import write_patient_report

__all__ = ["write_cohort_report", "write_patient_document", "write_patient_report"]
