"""One body, many scans: where the points of the reference scan lie in every other scan of a patient.

A transform maps points (LPS, mm): `to_scan` from the reference scan to the scan, `to_reference` from the scan
to the reference scan. Images are never resampled here; points and masks are carried.
"""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "emission": ["align_emission"],
        "outcome": ["read_beside_emission", "verdict_of"],
        "stage": ["register"],
        "transforms": [
            "Passage",
            "carry_mask",
            "carry_points",
            "map_points",
            "passage",
            "read_transform",
            "write_transform",
        ],
    },
)
