"""What a run took, at its end: by rule and by patient."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from theraflow.files import write_tsv
from theraflow.run.progress import MIB, Progress
from theraflow.run.words import in_words, memory_in_words

SHOWN_RULES = 5
RULE_COLUMNS = ("rule", "stage", "done", "failed", "not_run", "total_s", "mean_s", "longest_s", "longest_patient",
                "longest_scan", "cpu_s", "peak_mib")  # fmt: skip
PATIENT_COLUMNS = ("patient", "done", "failed", "not_run", "total_s", "results_mib", "report")


@dataclass(frozen=True)
class Benchmark:
    """What Snakemake has measured of one job; None where it has not, as of jobs that end within its first sample."""

    cpu_s: float | None
    peak_mib: float | None


def read_benchmark(path: Path | None) -> Benchmark:
    """Read the last line of a benchmark file of Snakemake; a job without one has measured nothing."""
    try:
        with Path(path or "").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError:
        return Benchmark(None, None)
    row = rows[-1] if rows else {}
    return Benchmark(_number(row.get("cpu_time")), _number(row.get("max_rss")))


def _number(cell: str | None) -> float | None:
    try:
        return float(cell or "")
    except ValueError:  # Snakemake writes NA or -
        return None


def summarise_rules(progress: Progress) -> list[dict[str, Any]]:
    """One row a rule, the one with most time first. Only jobs of this run count.

    Durations are from the start of a job to its end as Snakemake sees it, on a cluster with the time in the queue.
    """
    steps = progress.plan.steps
    done, failed = defaultdict(list), defaultdict(int)
    for number in progress.duration_s:
        done[steps[number].rule].append(number)
    for step in progress.failed:
        failed[step.rule] += 1
    stages = {step.rule: step.stage for step in steps.values() if step.stage}
    rows = []
    for rule, stage in stages.items():
        numbers = done[rule]
        seconds = [progress.duration_s[number] for number in numbers]
        longest = steps[max(numbers, key=progress.duration_s.__getitem__)] if numbers else None
        measured = [read_benchmark(steps[number].benchmark) for number in numbers]
        cpu_s = [one.cpu_s for one in measured if one.cpu_s is not None]
        peaks = [one.peak_mib for one in measured if one.peak_mib is not None]
        rows.append(
            {
                "rule": rule,
                "stage": stage,
                "done": len(numbers),
                "failed": failed[rule],
                "not_run": progress.not_run[rule],
                "total_s": round(sum(seconds), 2),
                "mean_s": round(mean(seconds), 2) if seconds else None,
                "longest_s": round(max(seconds), 2) if seconds else None,
                "longest_patient": longest and longest.patient,
                "longest_scan": longest and longest.scan,
                "cpu_s": round(sum(cpu_s), 2) if cpu_s else None,
                "peak_mib": max(peaks, default=None),
            }
        )
    return sorted(rows, key=lambda row: -row["total_s"])


def summarise_patients(progress: Progress, results: Path, reports: Mapping[str, Path]) -> list[dict[str, Any]]:
    """One row a patient of `reports`: what this run has done, what the results take on the disk, the report.

    Args:
        progress: of the run.
        results: the folder of results.
        reports: by patient, where the report is or would be.
    """
    counts: dict[str | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for number, step in progress.plan.steps.items():
        seconds = progress.duration_s.get(number)
        counts[step.patient]["planned"] += 1
        counts[step.patient]["done"] += seconds is not None
        counts[step.patient]["total_s"] += seconds or 0.0
    for step in progress.failed:
        counts[step.patient]["failed"] += 1
    return [
        {
            "patient": patient,
            "done": int(counts[patient]["done"]),
            "failed": int(counts[patient]["failed"]),
            "not_run": int(counts[patient]["planned"] - counts[patient]["done"] - counts[patient]["failed"]),
            "total_s": round(counts[patient]["total_s"], 2),
            "results_mib": round(_size(results / patient) / MIB, 2),
            "report": report.relative_to(results) if report.is_file() else None,
        }
        for patient, report in reports.items()
    ]


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; one that other names link to counts once."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            told = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - thrice as fast for 10^5 files
            sizes[told.st_dev, told.st_ino] = told.st_size
    return sum(sizes.values())


def write_summary(progress: Progress, folder: Path, results: Path, reports: Mapping[str, Path]) -> str:
    """Write `rules.tsv` and `patients.tsv` of a run that has ended.

    Args:
        progress: of the run.
        folder: of the run.
        results: the folder of results.
        reports: by patient, where the report is or would be.

    Returns:
        The same in some lines for a person.
    """
    rules = summarise_rules(progress)
    patients = summarise_patients(progress, results, reports)
    write_tsv(rules, folder / "rules.tsv", RULE_COLUMNS)
    write_tsv(patients, folder / "patients.tsv", PATIENT_COLUMNS)
    return "\n".join(_words(progress, rules, patients, folder))


def _words(
    progress: Progress, rules: Sequence[Mapping[str, Any]], patients: Sequence[Mapping[str, Any]], folder: Path
) -> list[str]:
    done, planned = len(progress.duration_s), len(progress.plan.steps)
    failed = f", {len(progress.failed)} failed" if progress.failed else ""
    wall = in_words((progress.ended or progress.clock()) - progress.started)
    words = ["", f"{progress.state.capitalize()} after {wall}: {done} of {planned} steps done{failed}."]
    words.append(f"Most memory of all jobs at once on this machine: {memory_in_words(progress.peak_mib)}.")
    slowest = [row for row in rules if row["done"]][:SHOWN_RULES]
    if slowest:
        total = sum(row["total_s"] for row in rules) or 1.0
        words.append("Where the time went (jobs one after the other):")
    for row in slowest:
        peak = "memory not measured" if row["peak_mib"] is None else f"up to {memory_in_words(row['peak_mib'])}"
        jobs = "1 job" if row["done"] == 1 else f"{row['done']} jobs"
        words.append(
            f"  {row['rule']:<20}{row['total_s'] / total:>5.0%}  {in_words(row['total_s'])}: {jobs}, "
            f"{in_words(row['mean_s'])} each, longest {in_words(row['longest_s'])}; {peak}"
        )
    if patients:
        largest = max(patients, key=lambda row: row["results_mib"])
        sizes = [row["results_mib"] for row in patients]
        whose = "1 patient" if len(patients) == 1 else f"{len(patients)} patients"
        words.append(
            f"Results of {whose}: {memory_in_words(sum(sizes))}, "
            f"the largest {memory_in_words(largest['results_mib'])} ({largest['patient']})."
        )
    return [*words, f"More of this run: {folder / 'rules.tsv'}, {folder / 'patients.tsv'}"]
