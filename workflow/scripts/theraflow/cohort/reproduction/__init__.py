"""The first study recomputed: which of its printed numbers follow from its printed tables.

Source of all sheets: Hartlapp, Hartrampf, Serfling et al., J Nucl Med 2023;64:1424, as `resources/dsrct2023`.
"""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "formulas": ["FORMULAS", "Formula"],
        "stage": ["COLUMNS", "compare_statements", "reproduce_paper"],
        "study": ["STUDY", "Study", "read_study"],
        "verdict": ["AGREES", "DISAGREES", "NOT_DETERMINED", "judge", "round_half_up"],
    },
)
