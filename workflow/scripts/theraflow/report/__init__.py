"""Reports: one self-contained HTML file a patient with its essentials as PDF, and one HTML file for the cohort."""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "cohort": ["write_cohort_report"],
        "document": ["write_patient_document"],
        "patient": ["write_patient_report"],
    },
)
