"""Which software, which inputs and which settings made the results of a run.

Nothing here tells who a patient is: paths outside the working directory are cut to their last name, and the folders of
the DICOM files stand in the sheet alone, whose digest is kept.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

import theraflow
from theraflow.files import write_json, write_tsv
from theraflow.run.progress import MIB, Progress, moment

FILE, JOBS_FILE = "provenance.json", "jobs.tsv"
JOB_COLUMNS = ("rule", "patient", "scan", "state", "seconds", "outputs")
PATIENCE_S = 10  # with git and nvidia-smi, on a share that does not answer
DECISIVE = ("Snakefile", "workflow", "resources")  # what makes the results, of all that the repository holds
# What stands elsewhere, made by the jobs themselves, and is not repeated here.
ELSEWHERE = {
    "series and header of each scan": "<patient>/scans/<scan>/ct.json, pet.json, spect.json, planar.json",
    "weights, device and deep learning's versions of each organ map": "<patient>/scans/<scan>/organs.json",
    "parameters of each job": ".snakemake/metadata, read by `snakemake --report`",
}
_CUT = "..."
_ABSOLUTE = re.compile(r"""(?:^|(?<=[\s"'{}\[\],:=]))(?:~?/|[A-Za-z]:\\).*""", re.DOTALL)


def describe_run(
    repository: Path,
    command: Sequence[str],
    config: Mapping[str, Any],
    files: Iterable[Path | str],
    codes: Mapping[str, str | None],
) -> dict[str, Any]:
    """What is known of a run when it starts.

    Args:
        repository: the folder of the Snakefile.
        command: the words of the command line.
        config: the checked configuration.
        files: what the results depend on beside the scans: sheets, files of the configuration, resources.
        codes: by rule, the digest of the library's code that its jobs carry; None for a rule that uses none.
    """
    here = Path.cwd()
    return {
        "theraflow": theraflow.__version__,
        "code": {"workflow_sha256": _digest_below(repository / "workflow"), **_git(repository)},
        "python": platform.python_version(),
        "packages": _packages(repository / "pyproject.toml"),
        "machine": _machine(),
        "command": [without_paths(word, here) for word in command],
        "config": without_paths(config, here),
        "files": [{"file": _name_of(Path(path), repository, here), "sha256": _digest(Path(path))} for path in files],
        "rules": {rule: {"code": code} for rule, code in sorted(codes.items())},
        "elsewhere": ELSEWHERE,
    }


def without_paths(value: Any, here: Path) -> Any:
    """A value of the configuration or a word of the command line without paths that could tell who a patient is.

    A path in or below the working directory becomes relative to it; of any other the last name stays. Where a path
    stands within a text, everything from there on is cut.
    """
    match value:
        case Mapping():
            return {without_paths(key, here): without_paths(item, here) for key, item in value.items()}
        case list() | tuple():
            return [without_paths(item, here) for item in value]
        case str() | Path():
            return _without_path(str(value), here)
    return value


def _without_path(text: str, here: Path) -> str:
    name, equals, path = text.partition("=")
    if equals and re.fullmatch(r"-{0,2}[\w-]+", name) and Path(path).is_absolute():  # --directory=/data, scans=/data
        return name + equals + _without_path(path, here)
    if Path(text).is_absolute():
        inside = Path(text).is_relative_to(here)
        return str(Path(text).relative_to(here)) if inside else f"{_CUT}/{Path(text).name}"
    if ".." in Path(text).parts:
        return f"{_CUT}/{Path(text).name}"
    return _ABSOLUTE.sub(_CUT, text)


def _name_of(path: Path, repository: Path, here: Path) -> str:
    """A file as people know it: theraflow's own below its repository."""
    if path.is_relative_to(repository) and not path.is_relative_to(here):
        return f"theraflow/{path.relative_to(repository).as_posix()}"
    return without_paths(str(path), here)


def _git(repository: Path) -> dict[str, Any]:
    """Commit of the repository and whether its files differ from it; None where that cannot be known."""

    def told(*words: str) -> str | None:
        return _output("git", "-C", str(repository), *words)

    top = told("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != repository.resolve():  # copied into somebody else's repository
        return {"commit": os.environ.get("THERAFLOW_COMMIT") or None, "modified": None}  # that of a container's image
    changed = told("status", "--porcelain", "--", *DECISIVE)
    return {"commit": told("rev-parse", "HEAD"), "modified": None if changed is None else bool(changed)}


def _output(*command: str) -> str | None:
    """What a program prints; None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _packages(project: Path) -> dict[str, str | None]:
    """Versions of what theraflow depends on, as the Python has them that runs Snakemake; None: not installed there."""
    listed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = [re.match(r"[\w.-]+", line).group() for line in listed]
    return {name: _version(name) for name in sorted(names, key=str.lower)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the jobs have an environment of their own
        return None


def _machine() -> dict[str, Any]:
    """The machine on which Snakemake runs; on a cluster the jobs run elsewhere."""
    gpus = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // MIB,
        "gpus": gpus.splitlines() if gpus else [],
    }


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return platform.processor()
    model = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return model.group(1) if model else platform.machine()


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _digest_below(folder: Path) -> str:
    """SHA-256 over names and contents of all files below a folder: the code, where there is no git too."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(folder).as_posix()} {_digest(path)}\n".encode())
    return digest.hexdigest()


def write_provenance(told: Mapping[str, Any], progress: Progress, folder: Path) -> None:
    """Write `provenance.json` of a run as it is now, and when it has ended `jobs.tsv`: each job and its outputs.

    Args:
        told: of `describe_run`.
        progress: of the run.
        folder: of the run.
    """
    rows = job_rows(progress) if progress.ended else []
    counts: dict[str, Counter] = {}
    for row in rows:
        counts.setdefault(row["rule"], Counter())[row["state"]] += 1
    planned = {step.rule for step in (*progress.plan.steps.values(), *progress.plan.made)}
    rules = {rule: {**one, **counts.get(rule, {})} for rule, one in told["rules"].items() if rule in planned}
    state = {
        "state": progress.state,
        "started_at": moment(progress.started),
        "ended_at": moment(progress.ended) if progress.ended else None,
    }
    if rows:
        write_tsv(rows, folder / JOBS_FILE, JOB_COLUMNS)
    write_json({**state, **told, "rules": rules}, folder / FILE)


def job_rows(progress: Progress) -> list[dict[str, Any]]:
    """One row a job: `done` or `failed` in this run, `not run`, or `kept`, as an earlier run has made it."""
    failed = {id(step) for step in progress.failed}
    rows = []
    for number, step in progress.plan.steps.items():
        seconds = progress.duration_s.get(number)
        state = "failed" if id(step) in failed else "not run" if seconds is None else "done"
        rows.append((step, state, None if seconds is None else round(seconds, 2)))
    rows += [(step, "kept", None) for step in progress.plan.made]
    return [
        {
            "rule": step.rule,
            "patient": step.patient,
            "scan": step.scan,
            "state": state,
            "seconds": seconds,
            "outputs": " ".join(step.outputs),
        }
        for step, state, seconds in rows
        if step.stage
    ]
