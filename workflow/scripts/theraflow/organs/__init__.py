"""Organs on the CT: TotalSegmentator on GPU or CPU, its weights, existing label maps, and their volumes.

Label maps are uint8 on the grid of the CT, numbered as TotalSegmentator's task `total`.

The Snakefile asks for devices and weights while it plans, so importing this package loads nothing but the standard
library; most names load numpy and SimpleITK when they are first used.
"""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "imported": ["import_organs"],
        "labels": [
            "GROUPS",
            "ORGAN_IDS",
            "label_names",
            "organ_called",
            "organ_labels",
            "organ_mask",
            "refuse_missing_organs",
        ],
        "measure": ["measure_organs", "organ_statistics"],
        "plausibility": ["implausible_organs", "judge_organs", "whole_organs"],
        "segment": ["segment_organs"],
        "totalsegmentator.weights": ["WEIGHTS", "check_weights", "fetch_weights"],
    },
)
