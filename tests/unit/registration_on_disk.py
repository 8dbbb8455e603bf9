"""Lays down what the registration writes of a scan."""

import SimpleITK as sitk

from theraflow.files import write_json
from theraflow.layout import PatientFolder
from theraflow.registration import write_transform


def write_registration(
    folder: PatientFolder, scan: str, reference: str, to_scan: sitk.Transform | None = None, **content: object
) -> None:
    """`scan` registered to `reference`: by default, it lies there as it is, and the verdict is good.

    Args:
        folder: the patient's results.
        scan: the registered scan.
        reference: the reference scan.
        to_scan: maps points of the reference to points of the scan (LPS, mm); invertible.
        content: entries of the quality file that are others than usual.
    """
    transform = to_scan or sitk.Euler3DTransform()
    usual = {"verdict": "good", "method": "CT to CT: rigid, then demons", "reason": None, "limits": {}}
    write_json({**usual, "reference": reference, **content}, folder.registration_quality(scan))
    write_transform(transform, folder.to_scan(scan))
    write_transform(transform.GetInverse(), folder.to_reference(scan))
