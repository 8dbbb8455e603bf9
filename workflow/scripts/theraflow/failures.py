"""Why patients are missing: the reasons that failed jobs have left beside their logs (see `theraflow.job`)."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from theraflow.files import GOES_ON
from theraflow.job import FAILURE_SUFFIX, KILLED

UNBEGUN = (
    "A job failed before it had begun, or without a word of what it did (the run was stopped, its node was lost, a "
    f"cluster ended it, the software is not there): the messages of Snakemake say what is known; mend that, {GOES_ON}."
)
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


def written_reasons(logs: Path | str) -> dict[Path, int]:
    """When each reason that is there was written, in ns: a job that begins writes its own anew."""
    return {path: path.stat().st_mtime_ns for path in Path(logs).glob(f"*/*{FAILURE_SUFFIX}")}


def tell_end(log: Path | None, earlier: Mapping[Path, int]) -> None:
    """Say of a job that failed what it could not say itself: in its log that it was killed, or that it never began.

    Where there is no room for it, all stays as it is: the reason of a kill is told already.

    Args:
        log: of the job, if it has one.
        earlier: `written_reasons` before the run.
    """
    with contextlib.suppress(OSError):
        if log is None:
            return
        failure = Path(f"{log}{FAILURE_SUFFIX}")
        if failure.exists() and failure.stat().st_mtime_ns == earlier.get(failure):
            failure.unlink()
        if _was_killed(failure):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"ERROR {KILLED}\n")
        else:
            _tell_unbegun(failure)


def _tell_unbegun(failure: Path) -> None:
    failure.parent.mkdir(parents=True, exist_ok=True)
    # A reason that a shared disk does not show yet is not replaced: to create a file the disk itself is asked.
    with contextlib.suppress(FileExistsError), failure.open("x", encoding="utf-8") as file:
        file.write(f"{UNBEGUN}\n")


def _was_killed(failure: Path) -> bool:
    return failure.is_file() and failure.read_text(encoding="utf-8", errors="replace").strip() == KILLED
