"""Writes what the cohort's page is made of, from patients on disk."""

from patient_on_disk import SETTINGS

from theraflow.cohort import summarise_cohort
from theraflow.cohort.figures import draw_cohort, write_drawings
from theraflow.files import write_text

METHODS = "Imaging. One PET.\n\nSoftware. None.\n"


def write_cohort(results, patients, patients_table=None):
    """Tables, figures and methods of the patients (folder -> scans)."""
    summarise_cohort(list(patients), results / "cohort", SETTINGS, patients_table)
    listed = {folder.patient: scans for folder, scans in patients.items()}
    drawings = draw_cohort(results, listed, SETTINGS, {"cycles": [], "events": []})
    write_drawings(drawings, results / "cohort" / "figures")
    write_text(METHODS, results / "cohort" / "methods.txt")
