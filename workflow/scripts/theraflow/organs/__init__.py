"""Organs on the CT: TotalSegmentator on GPU or CPU, its weights, existing label maps, and their volumes.

Label maps are uint8 on the grid of the CT, numbered as TotalSegmentator's task `total`.
"""

from theraflow.organs.imported import import_organs
from theraflow.organs.labels import GROUPS, ORGAN_IDS, label_names, organ_labels, organ_mask
from theraflow.organs.measure import measure_organs, organ_statistics
from theraflow.organs.segment import segment_organs
from theraflow.organs.weights import WEIGHTS, check_weights, fetch_weights

__all__ = [
    "GROUPS",
    "ORGAN_IDS",
    "WEIGHTS",
    "check_weights",
    "fetch_weights",
    "import_organs",
    "label_names",
    "measure_organs",
    "organ_labels",
    "organ_mask",
    "organ_statistics",
    "segment_organs",
]
