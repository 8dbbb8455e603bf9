"""The emission image of a scan: from the folder of DICOM to SUV or Bq/mL in NIfTI, with a sidecar."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from theraflow.dicom.export.choice import SERIES_COLUMNS, Choice, choose_ct, choose_emission, series_table
from theraflow.dicom.export.header import tag_name
from theraflow.dicom.export.identity import anonymous_errors
from theraflow.dicom.export.index import Index, read_index
from theraflow.dicom.export.series import Kind
from theraflow.dicom.quantity.activity import Counted, is_calibrated, quantify_activity
from theraflow.dicom.quantity.camera import Counting, count_rescale, counting_section, read_calibration, read_counting
from theraflow.dicom.quantity.decay import Quantification
from theraflow.dicom.quantity.facts import Facts, read_facts
from theraflow.dicom.quantity.normalisation import normalisations
from theraflow.dicom.quantity.suv import quantify_suv
from theraflow.dicom.sidecar import injection_section, iso, log_flags, own_words, scan_section
from theraflow.dicom.voxels.frames import window_of
from theraflow.dicom.voxels.volume import Stack, rescale, scaled_slices, stack_slices
from theraflow.errors import TheraflowError
from theraflow.files import write_tsv
from theraflow.layout import Scan
from theraflow.nifti import sidecar_path, write_nifti, write_sidecar

logger = logging.getLogger(__name__)


def import_emission(scan: Scan, tracer: Mapping[str, Any], output: Path | str) -> None:
    """Import the emission series: PET in SUV by body weight, or SPECT in Bq/mL at the start of acquisition.

    Args:
        scan: the row of scans.tsv with its overrides.
        tracer: configuration of its tracer: `radiopharmaceutical`, `nuclide`, `quantity`, and for SPECT with several
            energy windows or in counts `photopeak_kev` and `calibration`.
        output: `pet.nii.gz` or `spect.nii.gz` (float32), with a sidecar; beside it `pet.series.tsv`, which says of
            each series of the folder what it is and why it was taken or not.

    Raises:
        TheraflowError: no or no single such series; missing facts, all named; broken, truncated, missing or
            contradictory slices.
    """
    index = read_index(scan.dicom)
    with anonymous_errors(index.identity, own_words(scan)):
        index.whole()
        choice = choose_emission(index, scan.quantity, scan.series)
        stack = stack_slices(choice.series, tracer.get("photopeak_kev"))
        facts = read_facts(stack.headers, scan, tracer, f"{scan.dicom}, {choice.series}")
        counted = _counted(stack, facts, tracer)
        quantification = quantify_suv(facts) if scan.quantity == "suv" else quantify_activity(facts, counted)
        write_nifti(_emission_slices(stack, facts, quantification), stack.grid, np.float32, output)
        sidecar = _emission_sidecar(scan, tracer, choice, facts, quantification)
        if scan.quantity == "activity":
            counting = counted.counting if counted else Counting(window_kev=window_of(stack.headers[0]))
            sidecar["activity"] |= counting_section(counting, counted.calibration if counted else None)
        sidecar["flags"] = log_flags(scan, index.identity, (*stack.flags, *facts.flags))
        write_sidecar(sidecar, output)
        _write_series(index, scan, choice, sidecar_path(output).with_suffix(".series.tsv"))


def _counted(stack: Stack, facts: Facts, tracer: Mapping[str, Any]) -> Counted | None:
    """What is needed of an NM series in counts; None where it is in Bq/mL, or the configuration has no calibration."""
    calibration = read_calibration(tracer)
    if calibration is None or facts.modality != "NM" or is_calibrated(facts):
        return None
    try:
        return Counted(read_counting(stack.headers), calibration, float(np.prod(stack.grid.spacing)) / 1000.0)
    except TheraflowError as error:
        raise TheraflowError(f"{facts.where}: {error}") from error


def _write_series(index: Index, scan: Scan, emission: Choice, path: Path) -> None:
    choices = [emission]
    if any(one.kind == Kind.CT for one in index.series):
        try:
            choices.append(choose_ct(index, emission.series, scan.series))
        except TheraflowError:
            logger.info("no CT goes with the emission image; the import of the CT says why")
    rows = series_table(index, *choices, allowed=own_words(scan))
    rows.sort(key=lambda row: (row["used_as"] is None, row["acquired_at"] or "9"))  # what was taken comes first
    write_tsv(rows, path, SERIES_COLUMNS)


def _emission_sidecar(
    scan: Scan, tracer: Mapping[str, Any], choice: Choice, facts: Facts, quantification: Quantification
) -> dict[str, Any]:
    suv = scan.quantity == "suv"
    conversion = {
        "factor": quantification.factor,
        "rule": quantification.rule,
        "decay_correction": facts.decay_correction,
        "units": facts.units,
    }
    if suv:
        conversion |= {
            "suv_type": "BW",
            "suv_type_in_header": facts.suv_type,
            "reference_time": iso(quantification.reference_time),
            "reference_time_source": quantification.reference_source,
            "normalisations": normalisations(facts),
        }
    return {
        "quantity": "SUVbw" if suv else "activity concentration",
        "unit": "g/mL" if suv else "Bq/mL",
        **scan_section(scan, choice),
        **injection_section(tracer, facts),
        "suv": conversion if suv else None,
        "activity": None if suv else conversion,
        "overrides": facts.overrides,
    }


def _emission_slices(stack: Stack, facts: Facts, quantification: Quantification) -> Iterator[np.ndarray]:
    if facts.real_world is not None and facts.units != "BQML":
        scales = facts.real_world
    elif facts.modality == "NM" and not is_calibrated(facts):
        scales = [count_rescale(one) for one in stack.slices]
    else:
        scales = [rescale(one) for one in stack.slices]
    factors = quantification.factors
    if facts.modality == "PT" and any(intercept != 0 for _, intercept in scales):
        raise TheraflowError(
            f"{facts.where}: {tag_name('RescaleIntercept')} is not 0, as PET has it (PS3.3 C.8.9.4); export "
            "the series again."
        )
    slopes = [slope * factor for (slope, _), factor in zip(scales, factors, strict=True)]
    intercepts = [intercept * factor for (_, intercept), factor in zip(scales, factors, strict=True)]
    return scaled_slices(stack, slopes, intercepts)
