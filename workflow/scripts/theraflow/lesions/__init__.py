"""Lesions: found, measured on every scan's own voxels, named and followed through tracers and time.

Of one scan:
- `candidates`, `outline`, `detection`: uptake above a rule that no organ explains, and where it ends.
- `decisions`: what readers decide about it.
- `site`: the organ or region of the body that a lesion lies in.
- `peak`, `uptake`: what it takes up, and its size.
- `background`, `positivity`: the tissue it is compared with; positive or negative.

Of a patient:
- `identity`: one lesion through all scans.
- `stage`: `measure_lesions`, which does it all.
- `burden`: tumour burden of a scan, and what one tracer shows and another does not.

`region` is a mask in its box, which all of them work on; `contract` is what others read of them.
"""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "background": ["Background", "organ_background", "shell_background"],
        "burden": ["TracerView", "mismatch", "tumour_burden"],
        "candidates": [
            "Candidate",
            "Level",
            "OwnUptake",
            "Physiologic",
            "find_candidates",
            "own_uptake",
            "physiologic_organs",
            "rule_level",
        ],
        "contract": [
            "BACKGROUNDS",
            "BURDEN_COLUMNS",
            "CANDIDATE_COLUMNS",
            "FOUND_COLUMNS",
            "LESION_COLUMNS",
            "MISMATCH_COLUMNS",
            "TBR_COLUMNS",
        ],
        "decisions": ["DECISION_COLUMNS", "Decision", "Proposal", "apply_decisions", "divide", "draft", "verdicts"],
        "detection": ["list_candidates", "read_candidates"],
        "identity": ["Lesion", "Observation", "follow", "looks", "match", "name_lesions"],
        "outline": ["Outline", "grown_from", "outlined", "split"],
        "peak": ["ibsi_peaks", "percist_peak"],
        "positivity": ["concordance", "is_positive"],
        "region": ["Region", "carry"],
        "site": ["Site", "main_pieces", "organ_at_site", "site_of"],
        "stage": ["measure_lesions"],
        "uptake": ["axial_diameters", "geometry"],
    },
)
