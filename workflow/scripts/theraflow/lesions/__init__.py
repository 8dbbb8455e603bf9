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

`region` is a mask in its box, which all of them work on.
"""

from theraflow.lesions.background import BACKGROUNDS, Background, organ_background, shell_background
from theraflow.lesions.burden import BURDEN_COLUMNS, MISMATCH_COLUMNS, TracerView, mismatch, tumour_burden
from theraflow.lesions.candidates import (
    Candidate,
    Level,
    OwnUptake,
    Physiologic,
    find_candidates,
    own_uptake,
    physiologic_organs,
    rule_level,
)
from theraflow.lesions.decisions import (
    DECISION_COLUMNS,
    Decision,
    Proposal,
    apply_decisions,
    divide,
    draft,
    verdicts,
)
from theraflow.lesions.detection import FOUND_COLUMNS, list_candidates, read_candidates
from theraflow.lesions.identity import Lesion, Observation, follow, looks, match, name_lesions
from theraflow.lesions.outline import Outline, grown_from, outlined, split
from theraflow.lesions.peak import ibsi_peaks, percist_peak
from theraflow.lesions.positivity import concordance, is_positive
from theraflow.lesions.region import Region, carry
from theraflow.lesions.site import Site, main_pieces, organ_at_site, site_of
from theraflow.lesions.stage import CANDIDATE_COLUMNS, LESION_COLUMNS, TBR_COLUMNS, measure_lesions
from theraflow.lesions.uptake import axial_diameters, geometry, uptake

__all__ = [
    "BACKGROUNDS",
    "BURDEN_COLUMNS",
    "CANDIDATE_COLUMNS",
    "DECISION_COLUMNS",
    "FOUND_COLUMNS",
    "LESION_COLUMNS",
    "MISMATCH_COLUMNS",
    "TBR_COLUMNS",
    "Background",
    "Candidate",
    "Decision",
    "Lesion",
    "Level",
    "Observation",
    "Outline",
    "OwnUptake",
    "Physiologic",
    "Proposal",
    "Region",
    "Site",
    "TracerView",
    "apply_decisions",
    "axial_diameters",
    "carry",
    "concordance",
    "divide",
    "draft",
    "find_candidates",
    "follow",
    "geometry",
    "grown_from",
    "ibsi_peaks",
    "is_positive",
    "list_candidates",
    "looks",
    "main_pieces",
    "match",
    "measure_lesions",
    "mismatch",
    "name_lesions",
    "organ_at_site",
    "organ_background",
    "outlined",
    "own_uptake",
    "percist_peak",
    "physiologic_organs",
    "read_candidates",
    "rule_level",
    "shell_background",
    "site_of",
    "split",
    "tumour_burden",
    "uptake",
    "verdicts",
]
