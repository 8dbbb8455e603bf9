"""The stage `candidates`: what one PET shows above its tracer's rule, before any reader has seen it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from theraflow.images import from_array, read_image, to_array, voxel_volume_ml, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions.background import BACKGROUND_ORGANS
from theraflow.lesions.candidates import (
    REFERENCES,
    Candidate,
    Level,
    find_candidates,
    own_uptake,
    rule_level,
)
from theraflow.lesions.contract import FOUND_COLUMNS
from theraflow.lesions.emission import Emission, read_emission
from theraflow.lesions.outline import Outline
from theraflow.lesions.region import Region, centroid_mm, hottest_mm, regions_of
from theraflow.lesions.site import site_of
from theraflow.organs import implausible_organs
from theraflow.tables import read_table, write_table

log = logging.getLogger(__name__)

NO_ORGANS = "without organ labels it cannot be told from physiologic uptake"


def list_candidates(folder: PatientFolder, scan: Scan, settings: Mapping[str, Any]) -> None:
    """Find what a PET shows above its tracer's rule; write a table and a label map of it.

    Writes `folder.candidate_files(scan.scan)`: a label map on the emission grid with a sidecar, and a table with one
    row a candidate, kept and left out, each with its reason. Where organs are configured as physiologic but the scan
    has no organ labels, nothing is kept, for then brain and bladder would be lesions.

    Args:
        folder: the patient's results.
        scan: a scan in SUV whose tracer has a rule.
        settings: `candidates` (by tracer: the rule, see `rule_level`, and `outline`), `minimum_ml`, `physiologic`.

    Raises:
        TheraflowError: an input cannot be read.
    """
    emission = read_emission(folder, scan, settings["physiologic"])
    rule = settings["candidates"][scan.tracer]
    level = rule_level(rule, reference_uptake(folder, scan, emission))
    candidates, remark = [], None
    if level is None:
        remark = "the rule is made of organs that cannot be measured on this scan"
        log.warning("Scan %s has no candidates: %s; add a threshold_suv to the rule.", scan.scan, remark)
    else:
        candidates = find_candidates(
            emission.voxels, emission.grid, level, settings["minimum_ml"], outline_of(rule), emission.physiologic or ()
        )
    if emission.organs is None and settings["physiologic"].get(scan.tracer):
        candidates = [Candidate(one.region, False, NO_ORGANS) for one in candidates]
        remark = NO_ORGANS
    _write(folder, scan, emission, candidates, level, remark)


def reference_uptake(folder: PatientFolder, scan: Scan, emission: Emission) -> dict[str, Any]:
    """What liver and blood pool of a scan take up; None where there is none that is plausible."""
    if emission.organs is None:
        return dict.fromkeys(REFERENCES)
    doubtful = implausible_organs(folder.organ_table(scan.scan))
    names = {name: BACKGROUND_ORGANS[name][0] for name in REFERENCES}
    return {
        name: None if organ in doubtful else own_uptake(emission.voxels, emission.organs, organ, emission.grid)
        for name, organ in names.items()
    }


def outline_of(rule: Mapping[str, Any]) -> Outline:
    """How a rule outlines: a word, or a mapping of a word and a percentage."""
    outline = rule["outline"]
    return Outline(outline) if isinstance(outline, str) else Outline(*next(iter(outline.items())))


def read_candidates(folder: PatientFolder, scan: Scan) -> tuple[pd.DataFrame, list[Region]]:
    """The table of a scan's candidates, and their regions on its emission grid in the order of the rows.

    Raises:
        TheraflowError: a file is missing or damaged.
    """
    labels, table = folder.candidate_files(scan.scan)
    found = read_table(table)
    return found, regions_of(to_array(read_image(labels)), len(found))


def _write(
    folder: PatientFolder,
    scan: Scan,
    emission: Emission,
    candidates: Sequence[Candidate],
    level: Level | None,
    remark: str | None,
) -> None:
    grid = emission.grid
    labels = np.zeros(emission.voxels.shape, dtype=np.uint16)
    for number, candidate in reversed(list(enumerate(candidates, start=1))):  # what is kept lies above what is not
        labels[candidate.region.box][candidate.region.mask] = number
    rows = []
    for number, candidate in enumerate(candidates, start=1):
        region = candidate.region
        inside = emission.voxels[region.box][region.mask]
        centre, hottest = centroid_mm(region, grid).tolist(), hottest_mm(emission.voxels, region, grid).tolist()
        rows.append(
            {"patient": scan.patient, "scan": scan.scan, "tracer": scan.tracer, "candidate": f"C{number:02d}",
             "site": site_of(region, emission.landmarks, grid).site,
             "volume_ml": region.voxels * voxel_volume_ml(grid),
             "suv_max": float(inside.max()), **dict(zip(("x_mm", "y_mm", "z_mm"), centre, strict=True)),
             "kept": candidate.kept, "reason": candidate.reason,
             **dict(zip(("hottest_x_mm", "hottest_y_mm", "hottest_z_mm"), hottest, strict=True))}
        )  # fmt: skip
    map_path, table_path = folder.candidate_files(scan.scan)
    sidecar = {
        "quantity": "candidate label", "unit": "1", "patient": scan.patient, "scan": scan.scan,
        "labels": {str(number): row["candidate"] for number, row in enumerate(rows, start=1)},
        "rule": None if level is None else {"suv": level.suv, "reason": level.reason}, "remark": remark,
    }  # fmt: skip
    write_table(pd.DataFrame(rows, columns=list(FOUND_COLUMNS)), table_path, FOUND_COLUMNS)
    write_image(from_array(labels, grid), map_path, sidecar)
