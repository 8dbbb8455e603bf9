"""What theraflow has measured as DICOM objects, in the patient's original studies, for other systems.

- `origin`: the series that a scan came from: study, patient, frame of reference, slices.
- `codes`: names to codes of SNOMED CT, DICOM and UCUM.
- `instance`: what all objects have in common, and their UIDs, which the content alone decides.
- `segments`: what the labels of a map stand for.
- `segmentation` (SEG), `measurements` (SR, TID 1500), `dose` (RTDOSE), `capture` (secondary capture): the objects.
- `stage`: `write_dicom_objects`, which makes them all of one patient.
"""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "capture": ["build_capture"],
        "dose": ["build_dose"],
        "measurements": ["build_report"],
        "segmentation": ["build_segmentation"],
        "stage": ["write_dicom_objects"],
    },
)
