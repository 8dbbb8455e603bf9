"""A scan's CT and its emission image: from the folder of DICOM to NIfTI with a sidecar."""

import datetime
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
import SimpleITK as sitk

from theraflow.dicom.header import acquisition_start, tag_name, text
from theraflow.dicom.index import Series, choose_ct, choose_emission, read_index
from theraflow.dicom.suv import Facts, Quantification, quantify_activity, quantify_suv, read_facts
from theraflow.dicom.volume import Stack, read_ct, read_volume, rescale, stack_slices
from theraflow.errors import TheraflowError
from theraflow.images import write_image
from theraflow.layout import Scan

logger = logging.getLogger(__name__)


def import_ct(scan: Scan, output: Path | str) -> None:
    """Import the CT that belongs to the scan's emission series.

    Args:
        scan: the row of scans.tsv.
        output: `ct.nii.gz` (int16, HU, padding as -1024), with a sidecar.

    Raises:
        TheraflowError: no or no single such CT; broken, truncated, missing or contradictory slices.
    """
    series = read_index(scan.dicom)
    emission = None
    if any(one.modality in ("PT", "NM") for one in series):
        emission = choose_emission(series, scan.quantity, scan.series, scan.dicom)
    ct = choose_ct(series, emission, scan.series, scan.dicom)
    stack = stack_slices(ct)
    flags = list(stack.flags)
    if emission is not None and not emission.frame_of_reference:
        flags.append("the emission series states no frame of reference: the only CT of its study was taken")
    times = [acquisition_start(header) for header in stack.headers]
    started = None if None in times else min(times)
    write_image(
        read_ct(stack),
        output,
        {"quantity": "HU", "unit": "HU", **_identity(scan, ct), "acquired_at": _iso(started), "flags": flags},
    )


def import_emission(scan: Scan, tracer: Mapping[str, Any], output: Path | str) -> None:
    """Import the emission series: PET in SUV by body weight, or SPECT in Bq/mL at the start of acquisition.

    Args:
        scan: the row of scans.tsv with its overrides.
        tracer: configuration of its tracer: `radiopharmaceutical`, `nuclide`, `quantity`.
        output: `pet.nii.gz` or `spect.nii.gz` (float32), with a sidecar.

    Raises:
        TheraflowError: no or no single such series; missing facts, all named; broken, truncated, missing or
            contradictory slices.
    """
    series = choose_emission(read_index(scan.dicom), scan.quantity, scan.series, scan.dicom)
    stack = stack_slices(series)
    facts = read_facts(stack.headers, scan, tracer, f"{scan.dicom}, {series}")
    suv = scan.quantity == "suv"
    quantification = quantify_suv(facts) if suv else quantify_activity(facts)
    flags = [*stack.flags, *facts.flags]
    for flag in flags:
        logger.warning("%s: %s", scan.scan, flag)
    conversion = {
        "factor": quantification.factor,
        "rule": quantification.rule,
        "decay_correction": facts.decay_correction,
        "units": facts.units,
    }
    sidecar = {
        "quantity": "SUVbw" if suv else "activity concentration",
        "unit": "g/mL" if suv else "Bq/mL",
        **_identity(scan, series),
        "acquired_at": _iso(facts.acquired_at),
        "flags": flags,
        "radiopharmaceutical": tracer["radiopharmaceutical"],
        "nuclide": tracer["nuclide"],
        "injected_at": _iso(facts.injected_at),
        "injected_mbq": None if facts.injected_bq is None else facts.injected_bq / 1e6,
        "weight_kg": facts.weight_kg,
        "height_cm": None if facts.height_m is None else facts.height_m * 100.0,
        "sex": facts.sex,
        "time_after_injection_h": _hours_after_injection(facts),
        "suv": conversion if suv else None,
        "activity": None if suv else conversion,
        "overrides": facts.overrides,
    }
    write_image(_read_emission(stack, facts, quantification), output, sidecar)


def _read_emission(stack: Stack, facts: Facts, quantification: Quantification) -> sitk.Image:
    if facts.real_world is not None and facts.units != "BQML":
        scales = facts.real_world
    elif stack.frames is None:
        scales = [rescale(instance) for instance in stack.instances]
    else:
        scales = [rescale(stack.instances[0])] * stack.size[2]
    factors = quantification.factors
    if facts.modality == "PT" and any(intercept != 0 for _, intercept in scales):
        raise TheraflowError(
            f"{facts.where}: {tag_name('RescaleIntercept')} is not 0, as PET has it (PS3.3 C.8.9.4); export "
            "the series again."
        )
    slopes = [slope * factor for (slope, _), factor in zip(scales, factors, strict=True)]
    intercepts = [intercept * factor for (_, intercept), factor in zip(scales, factors, strict=True)]
    return read_volume(stack, slopes, intercepts)


def _identity(scan: Scan, series: Series) -> dict[str, Any]:
    header = series.header
    return {
        "patient": scan.patient,
        "scan": scan.scan,
        "tracer": scan.tracer,
        "timepoint": scan.timepoint,
        "series_instance_uid": series.uid,
        "frame_of_reference_uid": series.frame_of_reference,
        "virtual_patient": text(header, "Manufacturer") == "theraflow"
        and text(header, "ManufacturerModelName") == "virtual patient",
        "pydicom": pydicom.__version__,
    }


def _iso(time: datetime.datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _hours_after_injection(facts: Facts) -> float | None:
    if facts.acquired_at is None or facts.injected_at is None:
        return None
    return (facts.acquired_at - facts.injected_at).total_seconds() / 3600.0
