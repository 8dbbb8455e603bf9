"""Kill a run again and again at random moments, and start it as often, as its user would."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from theraflow.files import read_json
from theraflow.organs.totalsegmentator.worker import __name__ as WORKER
from theraflow.run.progress import FILE, FOLDER
from whole_run import Run

SINGLE = 3  # every third kill hits one job, as the kernel does for want of memory
SHORTEST = 0.1  # of a whole run, from which a moment is drawn: else the last step, longer than what is left, never ends
GRACE_S = 60.0  # within which all that a killed run has started must have ended


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        after_s: time from the start of the run.
        victim: `run`, the rule whose job was killed, or `none` where the run ended before.
        left: how many steps were still to do afterwards.
        orphans: processes that outlived it, apart from a worker that waits for work.
        temporary: temporary files that it left among the results.
    """

    after_s: float
    victim: str
    left: int
    orphans: tuple[str, ...] = ()
    temporary: tuple[str, ...] = ()


@dataclass
class Killer:
    """Starts a run and kills it.

    Args:
        run: the working directory.
        whole_s: how long an undisturbed run takes.
        steps: how many steps that has.
        seed: of the moments and victims.
        targets: of the run; none means all.
        cores: of the run.
    """

    run: Run
    whole_s: float
    steps: int
    seed: int
    targets: Sequence[str] = ()
    cores: int = 2
    left: int = field(init=False)
    kills: int = 0
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random, self.left = Random(self.seed), self.steps

    def kill_once(self) -> Kill:
        """Start, kill between the start and the end that is to be expected, and take the lock away."""
        after_s = self.random.uniform(0.0, self.whole_s * max(self.left / self.steps, SHORTEST))
        process = self.run.start(*self.targets, cores=self.cores)
        with process:
            try:
                output, _ = process.communicate(timeout=after_s)
                victim, started = "none", []
            except subprocess.TimeoutExpired:
                victim, started = self._kill(process, single=self.kills % SINGLE == SINGLE - 1)
                output, _ = process.communicate()
        if victim == "none":
            assert process.returncode == 0, output
            return self._begin_anew(after_s)
        kill = Kill(after_s, victim, self._count_left(), self._orphans(started), self._temporary())
        if victim == "run":
            unlocked = self.run.snakemake("--unlock")
            assert unlocked.returncode == 0, unlocked.stdout
        self.left = kill.left
        self.kills += 1
        return kill

    def _kill(self, process: subprocess.Popen, single: bool) -> tuple[str, list[psutil.Process]]:
        """Kill the whole run, or a job as soon as there is one; what was killed, and all that was at work."""
        while process.poll() is None:
            started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            jobs = {one: rule for one in started if (rule := rule_of(one))}
            if not single:
                os.killpg(process.pid, signal.SIGKILL)
                return "run", started
            if jobs:
                chosen = self.random.choice(list(jobs))
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended: another one
                    chosen.kill()
                    return jobs[chosen], started
            time.sleep(0.01)
        return "none", []

    def _begin_anew(self, after_s: float) -> Kill:
        """The run has ended before it was killed: take the results of one patient away."""
        patients = sorted(path.name for path in self.run.results().iterdir() if path.name not in ("cohort", "logs"))
        shutil.rmtree(self.run.results(self.random.choice(patients)))
        self.left = -(-self.steps // len(patients))
        return Kill(after_s, "none", 0)

    def _count_left(self) -> int:
        """Steps still to do by the last word of the last run; of one killed before it said any, as before."""
        told = [read_json(path) for path in sorted(self.run.results("logs", FOLDER).glob(f"*/{FILE}"))]
        return told[-1]["steps"]["of"] - told[-1]["steps"]["done"] if told else self.left

    def _orphans(self, started: Sequence[psutil.Process]) -> tuple[str, ...]:
        end = time.monotonic() + GRACE_S
        while (alive := [one for one in started if _at_work(one)]) and time.monotonic() < end:
            time.sleep(0.1)
        return tuple(" ".join(one.cmdline()) for one in alive)

    def _temporary(self) -> tuple[str, ...]:
        return tuple(sorted(str(path.relative_to(self.run.folder)) for path in temporary_files(self.run)))

    def finish(self) -> str:
        """Run to the end, undisturbed; what the run says."""
        result = self.run.snakemake(*self.targets, cores=self.cores)
        assert result.returncode == 0, result.stdout
        return result.stdout


def rule_of(process: psutil.Process) -> str | None:
    """The script that a process runs for Snakemake, by its name."""
    try:
        words = [Path(word).name for word in process.cmdline()[1:3]]
    except psutil.Error:
        return None
    return next((word.split(".")[1] for word in words if word.startswith("tmp") and word.endswith(".py")), None)


def _at_work(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and WORKER not in process.cmdline()
    except psutil.Error:
        return False


def temporary_files(run: Run) -> list[Path]:
    """Temporary files below results, apart from the marks that Snakemake itself sets into folders."""
    return [path for path in run.results().rglob(".*") if path.name != ".snakemake_timestamp"]


def files(run: Run, *suffixes: str) -> dict[str, bytes]:
    """Content of all results with these suffixes, by their names; without logs."""
    folder = run.results()
    paths = [path for path in folder.rglob("*") if path.name.endswith(suffixes)]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.relative_to(folder).parts[0] != "logs" and path.is_file()
    }


def differing(one: Run, other: Run, *suffixes: str) -> list[str]:
    """Names of the results that one has and the other has not, or not the same byte by byte."""
    a, b = files(one, *suffixes), files(other, *suffixes)
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
