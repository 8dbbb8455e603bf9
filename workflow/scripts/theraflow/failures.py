"""Why patients are missing: the reasons that failed jobs have left beside their logs (see `theraflow.job`)."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from theraflow.files import GOES_ON
from theraflow.job import FAILURE_SUFFIX, KILLED

UNTOLD = f"The job could not even write why it failed, most likely because the disk is full: make room, {GOES_ON}."


def failures(logs: Path | str, patients: Iterable[str]) -> dict[str, str]:
    """Reason by patient, for those for whom a job has failed since it last succeeded."""
    reasons = {}
    for patient in patients:
        found = sorted((Path(logs) / patient).glob(f"*{FAILURE_SUFFIX}"))
        if found:
            told = (path.read_text(encoding="utf-8", errors="replace").strip() or UNTOLD for path in found)
            reasons[patient] = " ".join(dict.fromkeys(told))
    return reasons


def tell_kill(log: Path | None) -> None:
    """Add to the log of a job that it was killed, if it was: the job itself could not.

    Where there is no room for it, the log stays as it is: the reason of the failure tells it, too.
    """
    with contextlib.suppress(OSError):
        if log is not None and _was_killed(log):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"ERROR {KILLED}\n")


def _was_killed(log: Path) -> bool:
    failure = Path(f"{log}{FAILURE_SUFFIX}")
    return failure.is_file() and failure.read_text(encoding="utf-8", errors="replace").strip() == KILLED
