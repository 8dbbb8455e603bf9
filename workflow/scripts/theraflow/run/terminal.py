"""The progress of a run as lines for a terminal: `theraflow progress`."""

import datetime
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import theraflow
from theraflow.errors import TheraflowError
from theraflow.failures import failures
from theraflow.files import read_json
from theraflow.run.progress import COUNTS, FILE, FOLDER
from theraflow.run.words import in_words, memory_in_words

SILENT_S = 60.0  # without a word for longer than this, a run that should go on does not
REFRESH_S = 2.0
BAR = 20
TOGETHER = "together"


def show_progress(results: Path | str, follow: bool = False) -> None:
    """Print how far the runs are that go on; without any, how the last one ended.

    Args:
        results: the folder of results.
        follow: print again and again until no run goes on.

    Raises:
        TheraflowError: there has been no run.
    """
    logs = Path(results) / "logs"
    while True:
        now = datetime.datetime.now().astimezone()
        runs = find_runs(logs / FOLDER, now)
        rows = shutil.get_terminal_size().lines
        if follow and sys.stdout.isatty():
            print("\033[H\033[J", end="")
        for progress in runs:
            print("\n".join(_tell(progress, logs, now, rows // len(runs) - 2)), flush=True)
        if not follow or not any(goes_on(progress, now) for progress in runs):
            return
        time.sleep(REFRESH_S)


def _tell(progress: Mapping[str, Any], logs: Path, now: datetime.datetime, rows: int) -> list[str]:
    """One run in lines, and why patients failed; a sentence where another version has written it in another form."""
    try:
        return [*describe(progress, now, rows), *_reasons(progress, logs)]
    except (LookupError, TypeError, ValueError, AttributeError):
        if progress.get("theraflow") == theraflow.__version__:
            raise
        return [
            f"The run that began at {progress['started_at']} tells its progress in the form of another version of "
            f"theraflow ({progress.get('theraflow', 'unknown')}; this is {theraflow.__version__}): ask with the one "
            "that it was started with."
        ]


def find_runs(folder: Path, now: datetime.datetime) -> list[dict[str, Any]]:
    """The runs that go on, else the last one; the oldest first.

    Args:
        folder: `logs/runs`.
        now: the present time.

    Raises:
        TheraflowError: there has been no run.
    """
    told = (_read_run(path) for path in sorted(folder.glob(f"*/{FILE}")))
    runs = [progress for progress in told if progress is not None]
    if not runs:
        raise TheraflowError(
            f"No run has left its progress in {folder}, so that it can be read: name the folder of results, as in "
            "`theraflow progress results`."
        )
    return [progress for progress in runs if goes_on(progress, now)] or runs[-1:]


def _read_run(path: Path) -> dict[str, Any] | None:
    """Content of one `progress.json`; None where it is damaged, or of another version that says other things."""
    try:
        progress = read_json(path)
        times = [datetime.datetime.fromisoformat(progress[key]) for key in ("started_at", "updated_at")]
        plain = isinstance(progress["process"], int) and {"state", "machine"} <= progress.keys()
    except (TheraflowError, KeyError, TypeError, ValueError):
        return None
    return progress if plain and all(moment.tzinfo for moment in times) else None


def silence_s(progress: Mapping[str, Any], now: datetime.datetime) -> float:
    """For how long a run has said nothing, in s."""
    return (now - datetime.datetime.fromisoformat(progress["updated_at"])).total_seconds()


def goes_on(progress: Mapping[str, Any], now: datetime.datetime) -> bool:
    """Whether a run has not ended and has lately said something."""
    return progress["state"] == "running" and silence_s(progress, now) <= SILENT_S


def describe(progress: Mapping[str, Any], now: datetime.datetime, rows: int = 40) -> list[str]:
    """One run in lines: its state, the time left, memory, and a table of patients and stages.

    Args:
        progress: content of `progress.json`.
        now: the present time.
        rows: lines there are; patients that change come first, others are counted where there is no room.
    """
    steps = progress["steps"]
    filled = round(BAR * steps["done"] / steps["of"]) if steps["of"] else BAR
    others = "".join(f", {steps[name]} {name}" for name in ("running", "failed") if steps[name])
    lines = [
        _state(progress, now),
        f"[{'#' * filled}{'.' * (BAR - filled)}] {steps['done']} of {steps['of']} steps done{others}",
    ]
    memory = progress["memory_mib"]
    if goes_on(progress, now):
        lines.append(f"Time left: {time_left_in_words(progress['time_left'])}.")
        lines.append(
            f"Memory of all jobs on this machine: {memory_in_words(memory['now'])} now, "
            f"{memory_in_words(memory['peak'])} at most, of {memory_in_words(memory['machine'])}."
        )
    return [*lines, "", *_table(progress, rows - len(lines) - 3)]


def _state(progress: Mapping[str, Any], now: datetime.datetime) -> str:
    began = datetime.datetime.fromisoformat(progress["started_at"])
    lasted = in_words(progress["seconds"])
    if progress["state"] != "running":
        return f"The run of {began:%Y-%m-%d %H:%M} has {progress['state']} after {lasted}."
    if goes_on(progress, now):
        return f"The run of {began:%Y-%m-%d %H:%M} goes on, for {lasted} so far."
    return (
        f"The run of {began:%Y-%m-%d %H:%M} has given no sign of life for {in_words(silence_s(progress, now))}: it was "
        f"killed or its machine stopped, {lasted} after it began. Start it again; it goes on where it was."
    )


def time_left_in_words(left: Mapping[str, Any]) -> str:
    """The time left, and of which rules nothing is known yet.

    Args:
        left: `time_left` of `progress.json`.
    """
    if left["seconds"] is None:
        return "unknown, for no job of the kinds that are left has ended yet"
    seconds = in_words(max(round(left["seconds"]), 1))
    if left["unknown_rules"]:
        return f"at least {seconds}, and what has never ended yet: {', '.join(left['unknown_rules'])}"
    return f"about {seconds}"


def _table(progress: Mapping[str, Any], rows: int) -> list[str]:
    stages = progress["stages"]
    patients = dict(sorted(progress["patients"].items(), key=lambda item: _urgency(item[1])))
    shown = list(patients)[: max(rows - 2, 1)]
    cells = [[patient, *map(_cell, patients[patient])] for patient in sorted(shown)]
    if any(count[COUNTS.index("of")] for count in progress[TOGETHER]):
        cells.append([TOGETHER, *map(_cell, progress[TOGETHER])])
    kept = [0, *(column for column in range(1, len(stages) + 1) if any(row[column] for row in cells))]
    table = [["", *stages], *cells]
    widths = {column: max(len(row[column]) for row in table) for column in kept}
    lines = ["  ".join(f"{row[column]:<{widths[column]}}" for column in kept).rstrip() for row in table]
    if len(patients) > len(shown):
        rest = [patients[patient] for patient in patients if patient not in shown]
        complete = sum(_urgency(row) == 3 for row in rest)
        lines.append(f"... and {len(rest)} more patients: {complete} done, {len(rest) - complete} to come")
    return lines


def _urgency(row: Sequence[Sequence[int]]) -> int:
    """Failed 0, running 1, to come 2, complete 3."""
    done, running, failed, planned = (sum(count) for count in zip(*row, strict=True))
    return 0 if failed else 1 if running else 2 if done < planned else 3


def _cell(counts: Sequence[int]) -> str:
    done, running, failed, planned = counts
    if not planned:
        return ""
    if done == planned:
        return "done"
    marks = (f"{running} running" if running else "", f"{failed} failed" if failed else "")
    return " ".join(filter(None, (f"{done}/{planned}", *marks)))


def _reasons(progress: Mapping[str, Any], logs: Path) -> list[str]:
    """Why jobs have failed, one sentence a patient."""
    names = dict.fromkeys(failed["patient"] or "cohort" for failed in progress["failed"])
    return [f"  {name}: {reason}" for name, reason in failures(logs, names).items()]
