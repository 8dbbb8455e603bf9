"""Registration of one scan to the patient's reference scan: which images are compared, what is written."""

import logging
from typing import Any

import numpy as np
import SimpleITK as sitk

import theraflow
import theraflow.registration.quality as quality
from theraflow.errors import TheraflowError
from theraflow.files import read_json, write_json
from theraflow.images import read_image, read_sidecar
from theraflow.images.body import Body, find_body, shrink
from theraflow.layout import PatientFolder, Scan
from theraflow.registration.deformable import WORKING_MM, as_transform, deform, invert, working_grid
from theraflow.registration.outcome import CORRECTED
from theraflow.registration.rigid import EMISSION_MM, IDENTITY, align_bodies, align_emissions
from theraflow.registration.threads import limited_threads
from theraflow.registration.transforms import read_transform, write_transform

logger = logging.getLogger(__name__)

BODY_MM = 3.0

SAME_SCAN = "identity: the reference scan itself"
SAME_FRAME = "identity: both scans have the same frame of reference"
BY_CT = "CT to CT: rigid, then demons and local correlation"
BY_EMISSION = "emission to emission: rigid by mutual information"

Maps = tuple[sitk.Transform, sitk.Transform, dict[str, Any]]


def register(reference: Scan, scan: Scan, folder: PatientFolder, threads: int) -> None:
    """Find where the points of the reference scan lie in `scan`, and the way back.

    Writes `folder.to_scan(scan.scan)` (maps reference points to scan points),
    `folder.to_reference(scan.scan)` (maps scan points to reference points; both ITK composite transforms in
    HDF5, LPS mm as the emission image lies, see `theraflow.registration.emission`) and
    `folder.registration_fit(scan.scan)` (JSON: method, measures with their limits; `theraflow.registration.judge`
    makes the verdict of them and of the organs). To resample an image of the scan onto a grid of the reference,
    `to_scan` is the one to use.

    Both scans with CT are registered by CT (rigid and deformable); without, by their emission images (rigid).
    A scan is not registered to itself, nor to one in the same frame of reference. The result is the same for
    the same input and number of threads. Where the CT of one of the two does not lie on its emission image, the
    map between the CTs is continued to the emission images, in which lesions are measured.

    Where nothing can be aligned, the transforms are the identity and `reason` says why: no exception, because other
    stages go on with less. They read the verdict, which is then `failed`. What forbids the verdict `good` although all
    measures may be within their limits is `doubt`.

    Raises:
        TheraflowError: an input file is missing or unreadable.
    """
    method = _method(reference, scan, folder)
    with limited_threads(threads):
        if method in (SAME_SCAN, SAME_FRAME):
            to_scan, to_reference, result = _identity(None)
        else:
            align = _align_by_ct if method == BY_CT else _align_by_emission
            try:
                to_scan, to_reference, result = align(reference, scan, folder)
            except _Hopeless as error:
                logger.warning("%s: %s", scan.scan, error)
                to_scan, to_reference, result = _identity(str(error))
    if method in (BY_CT, SAME_FRAME) and not result["reason"]:
        to_scan, to_reference, result = _between_emissions(
            (to_scan, to_reference, result), method, reference, scan, folder
        )
    write_transform(to_scan, folder.to_scan(scan.scan))
    write_transform(to_reference, folder.to_reference(scan.scan))
    content = {
        "patient": scan.patient,
        "scan": scan.scan,
        "reference": reference.scan,
        "method": method,
        **result,
        "threads": threads,
        "theraflow": theraflow.__version__,
        "SimpleITK": sitk.Version_VersionString(),
        "numpy": np.__version__,
    }
    write_json(content, folder.registration_fit(scan.scan))
    logger.info("%s to %s: %s", scan.scan, reference.scan, method)


class _Hopeless(Exception):
    """Two scans that cannot be aligned, with the reason."""


def _method(reference: Scan, scan: Scan, folder: PatientFolder) -> str:
    if scan.scan == reference.scan:
        return SAME_SCAN
    frames = [read_sidecar(folder.emission(s)).get("frame_of_reference_uid") for s in (reference, scan)]
    if frames[0] is not None and frames[0] == frames[1]:
        return SAME_FRAME
    both = all(folder.ct(s.scan).exists() for s in (reference, scan))
    return BY_CT if both else BY_EMISSION


def _identity(reason: str | None) -> Maps:
    measures = {
        "metric": None,
        "metric_before": None,
        "metric_after": None,
        "body_overlap_dice": None,
        **quality.RIGID,
    }
    identity = sitk.CompositeTransform([sitk.Euler3DTransform()])
    return identity, identity, {**measures, "limits": {}, "reason": reason, "doubt": None}


def _align_by_ct(reference: Scan, scan: Scan, folder: PatientFolder) -> Maps:
    bodies = [_read_body(folder, name) for name in (reference.scan, scan.scan)]
    try:
        rigid = align_bodies(*bodies)
    except (RuntimeError, TheraflowError) as error:
        raise _Hopeless(f"The CTs of {reference.scan} and {scan.scan} cannot be aligned: {error}") from error
    field = deform(*bodies, rigid)
    inverse = invert(field)
    # A composite applies its last transform first.
    to_scan = sitk.CompositeTransform([rigid, as_transform(field)])
    to_reference = sitk.CompositeTransform([as_transform(inverse), rigid.GetInverse()])
    grid = working_grid(*bodies, rigid, WORKING_MM)
    before, _ = quality.compare_bodies(*bodies, IDENTITY, grid)
    after_rigid, _ = quality.compare_bodies(*bodies, rigid, grid)
    after, overlap = quality.compare_bodies(*bodies, to_scan, grid)
    measures = {
        "metric": "correlation of HU from -200 to 300 in the union of the bodies",
        "metric_before": before,
        "metric_rigid": after_rigid,
        "metric_after": after,
        "body_overlap_dice": overlap,
        **quality.measure_fields(field, inverse, bodies[0].mask),
    }
    return to_scan, to_reference, {**measures, "limits": quality.LIMITS, "reason": None, "doubt": None}


def _between_emissions(maps: Maps, method: str, reference: Scan, scan: Scan, folder: PatientFolder) -> Maps:
    """Maps between two CTs as maps between the emission images, which may lie elsewhere than their CTs.

    Scans in one frame of reference share a CT, or have CTs of one examination: these are taken to lie on each other.
    Where only one of the two has a CT, nothing says how the other's emission image lies to it; the frame is believed.
    """
    to_scan, to_reference, result = maps
    if not all(folder.ct(s.scan).exists() for s in (reference, scan)):
        return maps
    moved = [s.scan for s in (reference, scan) if read_json(folder.emission_check(s.scan))["verdict"] == CORRECTED]
    result = {**result, "ct_moved_onto_emission": moved}
    if not moved:
        return to_scan, to_reference, result
    if method == SAME_FRAME:
        result["doubt"] = (
            "Both scans state one frame of reference, which does not hold between CT and emission image of "
            f"{' and '.join(moved)}."
        )
    of_reference, of_scan = (read_transform(folder.ct_to_emission(s.scan)) for s in (reference, scan))
    # A composite applies its last transform first; a nested one cannot be written.
    to_scan = sitk.CompositeTransform([of_scan, to_scan, of_reference.GetInverse()])
    to_reference = sitk.CompositeTransform([of_reference, to_reference, of_scan.GetInverse()])
    to_scan.FlattenTransform()
    to_reference.FlattenTransform()
    return to_scan, to_reference, result


def _read_body(folder: PatientFolder, scan: str) -> Body:
    ct = read_image(folder.ct(scan))
    try:
        return find_body(ct, BODY_MM)
    except TheraflowError as error:
        raise _Hopeless(f"{scan}: {error}") from error


def _align_by_emission(reference: Scan, scan: Scan, folder: PatientFolder) -> Maps:
    images = [shrink(read_image(folder.emission(s)), EMISSION_MM) for s in (reference, scan)]
    try:
        rigid = align_emissions(*images)
    except RuntimeError as error:
        raise _Hopeless(
            f"The emission images of {reference.scan} and {scan.scan} cannot be aligned: {error}"
        ) from error
    before, _ = quality.compare_emissions(*images, IDENTITY)
    after, overlap = quality.compare_emissions(*images, rigid)
    measures = {
        "metric": "mutual information of the logarithm of uptake, nats",
        "metric_before": before,
        "metric_after": after,
        "body_overlap_dice": overlap,
        **quality.RIGID,
    }
    to_scan, to_reference = sitk.CompositeTransform([rigid]), sitk.CompositeTransform([rigid.GetInverse()])
    return to_scan, to_reference, {**measures, "limits": quality.EMISSION_LIMITS, "reason": None, "doubt": None}
