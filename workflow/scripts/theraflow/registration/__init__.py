"""One body, many scans: where the points of the reference scan lie in every other scan of a patient.

A transform maps points (LPS, mm): `to_scan` from the reference scan to the scan, `to_reference` from the scan
to the reference scan. Images are never resampled here; points and masks are carried.
"""

from theraflow.registration.emission import align_emission, read_beside_emission
from theraflow.registration.judge import judge, verdict_of
from theraflow.registration.stage import register
from theraflow.registration.transforms import (
    Passage,
    carry_mask,
    carry_points,
    map_points,
    passage,
    read_transform,
    write_transform,
)

__all__ = [
    "Passage",
    "align_emission",
    "carry_mask",
    "carry_points",
    "judge",
    "map_points",
    "passage",
    "read_beside_emission",
    "read_transform",
    "register",
    "verdict_of",
    "write_transform",
]
