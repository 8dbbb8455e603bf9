"""The CT of a scan: from the folder of DICOM to HU in NIfTI, with a sidecar."""

from pathlib import Path

import numpy as np

from theraflow.dicom.export.choice import choose_ct, choose_emission
from theraflow.dicom.export.identity import anonymous_errors
from theraflow.dicom.export.index import read_index
from theraflow.dicom.sidecar import iso, log_flags, own_words, scan_section
from theraflow.dicom.voxels.volume import ct_slices, stack_slices
from theraflow.layout import Scan
from theraflow.nifti import write_nifti, write_sidecar


def import_ct(scan: Scan, output: Path | str) -> None:
    """Import the CT that belongs to the scan's emission series.

    Args:
        scan: the row of scans.tsv.
        output: `ct.nii.gz` (int16, HU, padding as -1024), with a sidecar.

    Raises:
        TheraflowError: no or no single such CT; broken, truncated, missing or contradictory slices.
    """
    index = read_index(scan.dicom)
    with anonymous_errors(index.identity, own_words(scan)):
        index.whole()
        emission = None
        if any(one.modality in ("PT", "NM") for one in index.series):
            emission = choose_emission(index, scan.quantity, scan.series).series
        choice = choose_ct(index, emission, scan.series)
        stack = stack_slices(choice.series)
        flags = list(stack.flags)
        if emission is not None and not emission.frame_of_reference:
            flags.append("the emission series states no frame of reference: the only CT of its study was taken")
        write_nifti(ct_slices(stack), stack.grid, np.int16, output)
        sidecar = {
            "quantity": "HU",
            "unit": "HU",
            **scan_section(scan, choice),
            "acquired_at": iso(choice.series.acquired_at),
            "flags": log_flags(scan, index.identity, flags),
        }
        write_sidecar(sidecar, output)
