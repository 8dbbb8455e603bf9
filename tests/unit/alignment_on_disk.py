"""Lays down what `align_emission` writes of a scan."""

import SimpleITK as sitk

from theraflow.files import write_json
from theraflow.layout import PatientFolder
from theraflow.registration import write_transform


def write_alignment(
    folder: PatientFolder, scan: str, transform: sitk.Transform | None = None, verdict: str = "good", **content: object
) -> None:
    """The scan's CT lies on its emission image, or, with the verdict `corrected`, where `transform` maps it."""
    measures = {"displacement_mean_mm": 2.0, "information_before": 0.41, "information_after": 0.42}
    write_transform(transform or sitk.Euler3DTransform(), folder.ct_to_emission(scan))
    write_json({"verdict": verdict, "reason": None, **measures, **content}, folder.emission_check(scan))
