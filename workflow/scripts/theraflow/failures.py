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
        if found := _told(logs, patient):
            told = (path.read_text(encoding="utf-8", errors="replace").strip() or UNTOLD for path in found)
            reasons[patient] = " ".join(dict.fromkeys(told))
    return reasons


def left_reasons(logs: Path | str, patients: Iterable[str], of_jobs: Iterable[Path | str]) -> list[Path]:
    """The reasons that nothing would ever take back: their jobs are not among those of the whole workflow any more.

    Such a job was of a scan that has been taken out of the sheet, or of a rule of an earlier version.

    Args:
        logs: the folder of all logs.
        patients: whose reasons are judged.
        of_jobs: the logs of all jobs of these patients, those that have nothing to do included.
    """
    kept = {Path(f"{log}{FAILURE_SUFFIX}") for log in of_jobs}
    return [path for patient in patients for path in _told(logs, patient) if path not in kept]


def _told(logs: Path | str, patient: str) -> list[Path]:
    return sorted((Path(logs) / patient).glob(f"*{FAILURE_SUFFIX}"))


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
