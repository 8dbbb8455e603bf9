"""Which software, which inputs and which settings made the results of a run.

Folders may bear the name of a patient. Of a path outside the working directory nothing is kept but the name of a file,
known by its suffix; the folders of the DICOM files stand in the sheet alone, whose digest is kept. The names of sheets,
and of folders in the working directory, stay as the user has chosen them.
"""

import hashlib
import importlib.metadata
import logging
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
# A folder may have a dot in its name, too: only what ends like this counts as a file.
_FILES = {".csv", ".js", ".json", ".lock", ".py", ".smk", ".toml", ".tsv", ".txt", ".xlsx", ".yaml", ".yml"}
_CUT = "..."
_ENDS = r"""\s"'`{}()\[\],;:=|<>"""  # of what stands before a path within a text
# From the root, of a person, of Windows, and anything with `..` in it.
_PATH = re.compile(
    rf"(?:^|(?<=[{_ENDS}]))(?:~[^/\\{_ENDS}]*[/\\]|/|[A-Za-z]:\\|\\\\|"
    rf"(?:[^{_ENDS}]*[/\\])?\.\.(?=[/\\{_ENDS}]|$)).*",
    re.DOTALL,
)
_OPTION = re.compile(r"-{0,2}[\w-]+=|-[A-Za-z]|")  # --directory=/data, scans=/data, -d/data, or none


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
        "code": {
            "workflow_sha256": _known("digest of the workflow", _digest_below, repository / "workflow"),
            **_git(repository),
        },
        "python": platform.python_version(),
        "packages": _known("versions of the packages", _packages, repository / "pyproject.toml"),
        "machine": _known("machine", _machine),
        "command": _known("command", _command, command, here, config.get("results", "")),
        "config": without_paths(config, here),
        "files": [{"file": _name_of(Path(path), repository, here), "sha256": _digest(Path(path))} for path in files],
        "rules": {rule: {"code": code} for rule, code in sorted(codes.items())},
        "elsewhere": ELSEWHERE,
    }


def _known(what: str, find: Callable[..., Any], *given: Any) -> Any:
    """What is found; None, with a warning, where that fails for whatever reason: no run ends for want of its record."""
    try:
        return find(*given)
    except Exception as error:
        logging.getLogger(__name__).warning("The record of the run goes without the %s: %s", what, error)
        return None


def without_paths(value: Any, here: Path) -> Any:
    """A value of the configuration or a word of the command line without paths that could tell who a patient is.

    A path in or below the working directory becomes relative to it. Of any other nothing stays but the name of a file,
    known by its suffix: the last folder may bear a patient's name as well. Where a path stands within a text,
    everything from there on is cut.

    Args:
        value: text, number, or lists and mappings of them.
        here: the working directory.
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
    option = _OPTION.match(text).group()
    path = text.removeprefix(option)
    if not _PATH.match(path):
        return _PATH.sub(_CUT, text)
    elsewhere = path.startswith("~") or "\\" in path
    inside = None if elsewhere else _relative(here / path, here)
    return option + (_file_name(path) if inside is None else inside)


def _command(words: Sequence[str], here: Path, results: str) -> list[str]:
    """The command line without the folders of paths elsewhere.

    A relative path may count from where Snakemake was started, before `--directory` moved it: such a path stays only
    where it begins with the results or with what there is in the working directory.
    """
    names = {*Path(results).parts[:1], *(path.name for path in here.iterdir())}
    return [Path(words[0]).name, *(_word(word, here, names) for word in words[1:])]


def _word(word: str, here: Path, names: set[str]) -> str:
    option = _OPTION.match(word).group()
    path = Path(word.removeprefix(option))
    if path.is_absolute() or not path.parts or path.parts[0] in names:
        return without_paths(word, here)
    from_elsewhere = len(path.parts) > 1 or path.name in here.parts
    return option + _file_name(path.name) if from_elsewhere else without_paths(word, here)


def _relative(path: Path | str, folder: Path) -> str | None:
    """A path relative to a folder in which it lies; None where it does not."""
    relative = os.path.relpath(path, folder)
    return None if relative.partition("/")[0] == ".." else relative


def _file_name(path: str) -> str:
    """What is told of a path elsewhere: the name of a file, nothing of a folder."""
    name = re.split(r"[/\\]", path)[-1]
    return f"{_CUT}/{name}" if Path(name).suffix.lower() in _FILES else _CUT


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
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE_S)
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
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
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
    """SHA-256 over names and contents of all files below a folder: the code, where there is no git too.

    Raises:
        OSError: it is not there, or a folder in it may not be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    digest = hashlib.sha256()
    paths = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names]
    for path in sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(folder).as_posix()} {_digest(path)}\n".encode())
    return digest.hexdigest()


def write_provenance(told: Mapping[str, Any], results: Path, progress: Progress, folder: Path) -> None:
    """Write `provenance.json` of a run as it is now, and when it has ended `jobs.tsv`: each of its jobs.

    Args:
        told: of `describe_run`.
        results: the folder of results.
        progress: of the run.
        folder: of the run.
    """
    rows = job_rows(progress, results) if progress.ended else []
    kept = [step.rule for step in progress.plan.made if step.stage]
    counts: dict[str, Counter] = {}
    for rule, state in (*((row["rule"], row["state"]) for row in rows), *((rule, "kept") for rule in kept)):
        counts.setdefault(rule, Counter())[state] += 1
    planned = {step.rule for step in (*progress.plan.steps.values(), *progress.plan.made)}
    rules = {rule: {**one, **counts.get(rule, {})} for rule, one in told["rules"].items() if rule in planned}
    course = {
        "state": progress.state,
        "started_at": moment(progress.started),
        "ended_at": moment(progress.ended) if progress.ended else None,
        "kept": len(kept),
    }
    if rows:
        write_tsv(rows, folder / JOBS_FILE, JOB_COLUMNS)
    write_json({**course, **told, "rules": rules}, folder / FILE)


def job_rows(progress: Progress, results: Path) -> list[dict[str, Any]]:
    """One row a job of this run: `done`, `failed` or `not run`; outputs relative to the results, separated by `; `.

    Args:
        progress: of the run.
        results: the folder of results.
    """
    here = Path.cwd()
    failed = {id(step) for step in progress.failed}
    rows = []
    for number, step in progress.plan.steps.items():
        seconds = progress.duration_s.get(number)
        state = "failed" if id(step) in failed else "not run" if seconds is None else "done"
        rows.append((step, state, None if seconds is None else round(seconds, 2)))
    return [
        {
            "rule": step.rule,
            "patient": step.patient,
            "scan": step.scan,
            "state": state,
            "seconds": seconds,
            "outputs": "; ".join(_relative(path, results) or without_paths(path, here) for path in step.outputs),
        }
        for step, state, seconds in rows
        if step.stage
    ]
