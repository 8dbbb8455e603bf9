"""Organs on the CT: TotalSegmentator on GPU or CPU, its weights, existing label maps, and their volumes.

Label maps are uint8 on the grid of the CT, numbered as TotalSegmentator's task `total`.

The Snakefile asks for devices and weights while it plans, so importing this package loads nothing but the standard
library; most names load numpy and SimpleITK when they are first used.
"""

import importlib
from typing import Any

_HOMES = {
    "GROUPS": "theraflow.organs.labels",
    "ORGAN_IDS": "theraflow.organs.labels",
    "WEIGHTS": "theraflow.organs.totalsegmentator.weights",
    "check_weights": "theraflow.organs.totalsegmentator.weights",
    "fetch_weights": "theraflow.organs.totalsegmentator.weights",
    "implausible_organs": "theraflow.organs.plausibility",
    "import_organs": "theraflow.organs.imported",
    "judge_organs": "theraflow.organs.plausibility",
    "label_names": "theraflow.organs.labels",
    "measure_organs": "theraflow.organs.measure",
    "organ_called": "theraflow.organs.labels",
    "organ_labels": "theraflow.organs.labels",
    "organ_mask": "theraflow.organs.labels",
    "organ_statistics": "theraflow.organs.measure",
    "refuse_missing_organs": "theraflow.organs.labels",
    "segment_organs": "theraflow.organs.segment",
    "whole_organs": "theraflow.organs.plausibility",
}

__all__ = [
    "GROUPS",
    "ORGAN_IDS",
    "WEIGHTS",
    "check_weights",
    "fetch_weights",
    "implausible_organs",
    "import_organs",
    "judge_organs",
    "label_names",
    "measure_organs",
    "organ_called",
    "organ_labels",
    "organ_mask",
    "organ_statistics",
    "refuse_missing_organs",
    "segment_organs",
    "whole_organs",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
