"""The next cycle: what the limits of the organs still allow, and what the tumours would get."""

from theraflow.dosimetry.planning.stage import COURSE_COLUMNS, PLAN_COLUMNS, plan_therapy

__all__ = ["COURSE_COLUMNS", "PLAN_COLUMNS", "plan_therapy"]
