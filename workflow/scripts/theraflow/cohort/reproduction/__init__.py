"""The first study recomputed: which of its printed numbers follow from its printed tables.

Source of all sheets: Hartlapp, Hartrampf, Serfling et al., J Nucl Med 2023;64:1424, as `resources/dsrct2023`.
"""

from theraflow.cohort.reproduction.formulas import FORMULAS, Formula
from theraflow.cohort.reproduction.stage import COLUMNS, compare_statements, reproduce_paper
from theraflow.cohort.reproduction.study import STUDY, Study, read_study
from theraflow.cohort.reproduction.verdict import AGREES, DISAGREES, NOT_DETERMINED, judge, round_half_up

__all__ = [
    "AGREES",
    "COLUMNS",
    "DISAGREES",
    "FORMULAS",
    "NOT_DETERMINED",
    "STUDY",
    "Formula",
    "Study",
    "compare_statements",
    "judge",
    "read_study",
    "reproduce_paper",
    "round_half_up",
]
