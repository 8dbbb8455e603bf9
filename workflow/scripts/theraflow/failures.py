"""Why patients are missing: the reasons that failed jobs have left beside their logs (see `theraflow.job`)."""

from collections.abc import Iterable
from pathlib import Path

from theraflow.job import FAILURE_SUFFIX


def failures(logs: Path | str, patients: Iterable[str]) -> dict[str, str]:
    """Reason by patient, for those for whom a job has failed since it last succeeded."""
    reasons = {}
    for patient in patients:
        found = sorted((Path(logs) / patient).glob(f"*{FAILURE_SUFFIX}"))
        if found:
            reasons[patient] = " ".join(path.read_text(encoding="utf-8").strip() for path in found)
    return reasons
