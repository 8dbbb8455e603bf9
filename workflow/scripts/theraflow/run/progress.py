"""The state of a run, from the events that Snakemake tells while it goes on."""

import datetime
import json
import logging
import math
import os
import platform
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import theraflow
from theraflow.errors import TheraflowError
from theraflow.files import write_text
from theraflow.run.time_left import Remaining, TimeLeft, estimate_time_left

FOLDER = "runs"  # below the folder of the logs
FILE = "progress.json"
INTERVAL_S = 5.0
EARLIER_RUNS = 5  # of which durations are read
AS_BEFORE = 0.2  # share of a run that counts as taken at the pace of earlier ones: short jobs alone say little
AS_MANY = 3  # jobs of this run do the earlier runs count, of each rule
COUNTS = ("done", "running", "failed", "of")
MIB = 2**20


@dataclass(frozen=True)
class Step:
    """One job of the plan.

    Attributes:
        rule: its rule.
        stage: the file of rules that it belongs to, as `organs`; None for what makes nothing itself.
        patient, scan: whom it concerns; None for all together.
        benchmark: where Snakemake writes its time and memory, or None.
        log: where it writes what it does, or None.
        outputs: the files that it makes.
    """

    rule: str
    stage: str | None
    patient: str | None = None
    scan: str | None = None
    benchmark: Path | None = None
    log: Path | None = None
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        steps: by the number that Snakemake gives it, each job.
        made: what earlier runs have made already and this one leaves as it is.
        follows: pairs of rules, the second of which uses what the first makes.
        limits: what the run has of each limited resource: `_cores`, `_nodes`, `gpu`, ...
        stages: in the order in which they are shown.
    """

    steps: Mapping[int, Step]
    made: Iterable[Step] = ()
    follows: frozenset[tuple[str, str]] = frozenset()
    limits: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[str, ...] = ()


class Progress:
    """How far a run is. Its methods may be called from any thread.

    Args:
        plan: what the run is going to do.
        earlier_s: mean duration of a job by rule, from earlier runs, in s.
        clock: the time in s.
    """

    def __init__(
        self, plan: Plan, earlier_s: Mapping[str, float] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.plan, self.clock, self._earlier_s = plan, clock, dict(earlier_s or {})
        self.started = clock()
        self.ended: float | None = None
        self.state = "running"
        self.duration_s: dict[int, float] = {}
        self.memory_mib, self.peak_mib = 0.0, 0.0
        self._began: dict[int, float] = {}
        self._failed: dict[int, None] = {}  # in the order of failure
        self._uses: dict[str, Mapping[str, int]] = {}
        self._lock = threading.RLock()
        self._columns = {stage: column for column, stage in enumerate(plan.stages)}
        self._cells: dict[str | None, list[list[int]]] = {}
        self._waiting = Counter(step.rule for step in plan.steps.values())
        self._taken: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        before = AS_BEFORE * sum(self._earlier_s.get(step.rule, 0.0) for step in plan.steps.values())
        self._against_earlier = [
            before,
            before,
        ]  # duration of the jobs that have ended, in this run and in earlier ones
        self._makes_nothing = {step.rule for step in plan.steps.values() if step.stage is None}
        for step in (*plan.made, *plan.steps.values()):
            self._count(step, "of", 1)
        for step in plan.made:
            self._count(step, "done", 1)

    def _count(self, step: Step, what: str, by: int) -> None:
        if step.stage:
            row = self._cells.setdefault(step.patient, [[0] * len(COUNTS) for _ in self._columns])
            row[self._columns[step.stage]][COUNTS.index(what)] += by

    def begin(self, number: int, uses: Mapping[str, Any]) -> None:
        """A job begins, or begins again after it failed.

        Args:
            number: of the job; one that is not in the plan is passed over.
            uses: its resources.
        """
        with self._lock:
            step = self.plan.steps.get(number)
            if step is None or number in self._began or number in self.duration_s:
                return
            if number in self._failed:
                del self._failed[number]
                self._count(step, "failed", -1)
            else:
                self._waiting[step.rule] -= 1
            self._began[number] = self.clock()
            if uses:
                limited = {name: uses.get(name) for name in self.plan.limits}
                self._uses[step.rule] = {name: use for name, use in limited.items() if isinstance(use, int)}
            self._count(step, "running", 1)

    def _leave(self, number: int) -> Step | None:
        """Take a job from those that run; one that fails or ends without having begun has done so now."""
        step = self.plan.steps.get(number)
        if step is None or number in self.duration_s or number in self._failed:
            return None
        self.begin(number, {})
        self._count(step, "running", -1)
        return step

    def finish(self, number: int) -> None:
        """A job has made what it should."""
        with self._lock:
            if step := self._leave(number):
                self._count(step, "done", 1)
                self.duration_s[number] = self.clock() - self._began.pop(number)
                sums = self._taken[step.rule]
                sums[0] += 1
                sums[1] += self.duration_s[number]
                if step.rule in self._earlier_s:
                    self._against_earlier[0] += self.duration_s[number]
                    self._against_earlier[1] += self._earlier_s[step.rule]

    def fail(self, number: int) -> None:
        """A job has failed."""
        with self._lock:
            if step := self._leave(number):
                self._count(step, "failed", 1)
                self._began.pop(number)
                self._failed[number] = None

    def measure_memory(self) -> None:
        """Add up what this process and all it has started hold (resident; shared pages count in each)."""
        own = psutil.Process()
        total = 0
        for process in (own, *own.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
        self.memory_mib = total / MIB
        self.peak_mib = max(self.peak_mib, self.memory_mib)

    def end(self, success: bool) -> None:
        """The run has ended: `finished`, `failed` (of a job), or `stopped` by a person or by Snakemake itself."""
        with self._lock:
            self.ended = self.clock()
            self.state = "finished" if success else "failed" if self._failed else "stopped"

    @property
    def failed(self) -> list[Step]:
        """The jobs that have failed, the first one first."""
        with self._lock:
            return [self.plan.steps[number] for number in self._failed]

    @property
    def not_run(self) -> Counter:
        """How many jobs have never begun, by rule."""
        with self._lock:
            return +self._waiting

    def pace(self) -> float:
        """How much longer jobs take than in earlier runs: on a busier or slower machine, with larger images.

        From the jobs that have ended, and those that have run for longer than they should have; 1 where there is none.
        """
        now, (taken, expected) = self.clock(), self._against_earlier
        for number, began in self._began.items():
            earlier = self._earlier_s.get(self.plan.steps[number].rule, math.inf)
            if now - began > earlier:
                taken, expected = taken + now - began, expected + earlier
        return taken / expected if expected else 1.0

    def mean_s(self) -> dict[str, float]:
        """Mean duration of a job by rule in s: of this run, to which those of earlier runs count as a few jobs more.

        Of earlier runs at the pace of this one.
        """
        pace = self.pace()
        sums = {rule: (n, total) for rule, (n, total) in self._taken.items() if n}
        for rule, earlier in self._earlier_s.items():
            n, total = sums.get(rule, (0, 0.0))
            sums[rule] = (n + AS_MANY, total + AS_MANY * earlier * pace)
        return {rule: total / n for rule, (n, total) in sums.items()}

    def time_left(self) -> TimeLeft:
        """The time left, as far as it can be known."""
        now = self.clock()
        elapsed = defaultdict(list)
        for number, began in self._began.items():
            elapsed[self.plan.steps[number].rule].append(now - began)
        one = {"_cores": 1, "_nodes": 1}
        rules = {*elapsed, *+self._waiting} - self._makes_nothing
        remaining = {
            rule: Remaining(self._waiting[rule], elapsed[rule], self._uses.get(rule, one)) for rule in sorted(rules)
        }
        return estimate_time_left(remaining, self.mean_s(), self.plan.limits, self.plan.follows)

    def snapshot(self) -> dict[str, Any]:
        """What `progress.json` holds."""
        with self._lock:
            left = self.time_left()
            now = self.clock()
            return {
                "theraflow": theraflow.__version__,
                "state": self.state,
                "machine": platform.node(),
                "process": os.getpid(),
                "started_at": moment(self.started),
                "updated_at": moment(now),
                "seconds": round((self.ended or now) - self.started, 1),
                "steps": dict(
                    zip(
                        COUNTS,
                        (len(self.duration_s), len(self._began), len(self._failed), len(self.plan.steps)),
                        strict=True,
                    )
                ),
                "time_left": {
                    "seconds": None if left.seconds is None else round(left.seconds, 1),
                    "unknown_rules": left.unknown,
                },
                "memory_mib": {
                    "now": round(self.memory_mib),
                    "peak": round(self.peak_mib),
                    "machine": psutil.virtual_memory().total // MIB,
                },
                "running": [
                    {**_name(self.plan.steps[number]), "since": moment(began)} for number, began in self._began.items()
                ],
                "failed": [_name(step) for step in self.failed],
                "rules": {
                    rule: {"done": n, "seconds": round(total, 2)} for rule, (n, total) in self._taken.items() if n
                },
                "counts": COUNTS,
                "stages": self.plan.stages,
                "patients": {patient: self._row(patient) for patient in self._cells if patient is not None},
                "together": self._row(None),
            }

    def _row(self, patient: str | None) -> list[list[int]]:
        return [counts.copy() for counts in self._cells.get(patient, [])]


def _name(step: Step) -> dict[str, str | None]:
    return {"rule": step.rule, "patient": step.patient, "scan": step.scan}


def moment(seconds: float) -> str:
    """A time in s as local time with its zone."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def earlier_durations(runs: Path) -> dict[str, float]:
    """Mean duration of a job by rule in s: of the last run that has ended one, as far as a few runs back.

    Args:
        runs: the folder of all runs; need not exist.
    """
    means: dict[str, float] = {}
    for path in sorted(runs.glob(f"*/{FILE}"))[-EARLIER_RUNS:]:
        try:
            rules = json.loads(path.read_text(encoding="utf-8"))["rules"]
            means |= {rule: told["seconds"] / told["done"] for rule, told in rules.items()}
        # Of another version, or damaged: it only serves to guess.
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            continue
    return means


class EventHandler(logging.Handler):
    """Hands the events of Snakemake's logger on (`snakemake_interface_logger_plugins.common.LogEvent`).

    It is added to the logger by the Snakefile and is no logger plugin: with a plugin in the profile Snakemake refuses
    to start wherever that is not installed.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Take one event; an error here is told on standard error and never stops the run."""
        try:
            match getattr(record, "event", None):
                case "job_info":
                    self.progress.begin(record.jobid, dict(record.resources.items()))
                case "job_finished":
                    self.progress.finish(record.job_id)
                case "job_error":
                    self.progress.fail(record.jobid)
        except Exception:
            self.handleError(record)


class Keeper(threading.Thread):
    """Keeps `progress.json` of a run up to date, beside the run.

    Args:
        progress: of the run.
        runs: the folder of all runs; this one makes its own in it.
        record: called with the progress and the folder when the run begins and when it has ended.
    """

    def __init__(
        self, progress: Progress, runs: Path, record: Callable[[Progress, Path], None] = lambda progress, folder: None
    ) -> None:
        super().__init__(name="theraflow progress", daemon=True)
        self.progress, self.record = progress, record
        moment = datetime.datetime.fromtimestamp(progress.started)
        self.folder = runs / f"{moment:%Y%m%dT%H%M%S}_{os.getpid()}"
        self._over = threading.Event()

    def run(self) -> None:
        """Write until the end; a full disk or a share that is away for a while does not stop the run."""
        self.write()
        self._keep_record()
        while not self._over.wait(INTERVAL_S):
            self.write()

    def write(self) -> None:
        """Measure and write once."""
        self.progress.measure_memory()
        try:
            write_text(json.dumps(self.progress.snapshot(), ensure_ascii=False) + "\n", self.folder / FILE)
        except (OSError, TheraflowError) as error:
            logging.getLogger(__name__).warning("%s cannot be written: %s", self.folder / FILE, error)

    def end(self, success: bool) -> None:
        """Write the last state, once: what comes later changes nothing."""
        if not self._over.is_set():
            self._over.set()
            self.join()
            self.progress.end(success)
            self.write()
            self._keep_record()

    def _keep_record(self) -> None:
        try:
            self.record(self.progress, self.folder)
        except (OSError, TheraflowError) as error:
            logging.getLogger(__name__).warning("The record of the run cannot be written: %s", error)
