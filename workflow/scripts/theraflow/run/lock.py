"""What to do where Snakemake finds the results locked, in words of this workflow."""

import contextlib
import datetime
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from theraflow.errors import TheraflowError
from theraflow.run.terminal import find_runs, goes_on


class LockWords(logging.Filter):
    """Puts a sentence in the place of Snakemake's own about a lock: whether another run goes on, and what to do.

    Args:
        runs: the folder of all runs.
        unlock: the command that takes the lock away.
    """

    def __init__(self, runs: Path, unlock: str) -> None:
        super().__init__()
        self.runs, self.unlock = runs, unlock

    def filter(self, record: logging.LogRecord) -> bool:
        """Change that one message; all pass."""
        if getattr(record, "exception", None) == "LockException":
            record.msg, record.args = self.words(datetime.datetime.now().astimezone()), ()
        return True

    def words(self, now: datetime.datetime) -> str:
        """What a person needs to know."""
        working = []
        with contextlib.suppress(TheraflowError):  # there has been no run yet
            working = [run for run in find_runs(self.runs, now) if is_at_work(run, now)]
        if working:
            began = datetime.datetime.fromisoformat(working[-1]["started_at"])
            return (
                f"Another run has been at work on these results since {began:%Y-%m-%d %H:%M} (process "
                f"{working[-1]['process']} on {working[-1]['machine']}): wait until it has ended, then start this one "
                "again; `theraflow progress` says how far it is."
            )
        return (
            "An earlier run was killed and has left its lock on these results. Unless you have just started another "
            f"one, take the lock away with this command and start again; what is done is kept:\n  {self.unlock}"
        )


def is_at_work(progress: Mapping[str, Any], now: datetime.datetime) -> bool:
    """Whether a run goes on, by its last word and, on its own machine, by its process."""
    return goes_on(progress, now) and (progress["machine"] != platform.node() or psutil.pid_exists(progress["process"]))
