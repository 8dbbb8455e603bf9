"""Files that are either whole or not there."""

import contextlib
import csv
import errno
import fcntl
import glob
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from theraflow.errors import TheraflowError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM)
FULL_BYTES = 2**16  # less room than this is none, where a library does not tell why it cannot write
NEW_S = 60.0  # a temporary folder younger than this may not be held yet
ABANDONED_S = 86400.0  # nobody writes one file for as long: what another machine left is removed then
GOES_ON = "then start the same command again: what is done is kept"


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffixes; it becomes `path` only when the block succeeds.

    What a process that was killed has left of the same file is removed: at once on the same machine, else after a day.

    Raises:
        TheraflowError: the disk is full, or nothing may be written there.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as temporary:
            yield temporary
            temporary.replace(path)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`, which takes its place, with all that it had, only when the block succeeds.

    Raises:
        TheraflowError: as `whole`.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as temporary:
            temporary.mkdir()
            yield temporary
            _remove(path)
            temporary.rename(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else uses, also on another machine; nothing of it is left behind.

    It tells the machine and the process, for another may be writing the same file: on another node, or the twin of a
    job that was submitted again.
    """
    for left in path.parent.glob(f".*.{glob.escape(path.name)}"):
        if left.name.count(".") == path.name.count(".") + 2 and _is_abandoned(left):
            _remove(left)
    temporary = path.with_name(f".{_machine()}_{os.getpid()}_{secrets.token_hex(6)}.{path.name}")
    try:
        yield temporary
    finally:
        _remove(temporary)


def _machine() -> str:
    """The name of this machine as a part of file names: neither dot nor underscore, which separate parts."""
    return re.sub("[^A-Za-z0-9-]", "-", platform.node())


def _is_abandoned(temporary: Path) -> bool:
    """Whether nobody writes this temporary file any more: its process, of this machine, is dead, or it is old."""
    import psutil  # takes long to load, and hardly ever is there anything to look at

    machine, _, rest = temporary.name.removeprefix(".").partition("_")
    process = rest.partition("_")[0]
    if machine == _machine() and process.isdecimal() and not psutil.pid_exists(int(process)):
        return True
    try:
        return time.time() - temporary.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:  # it has just become what it was to be
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Say in one sentence that `path` could not be written in the block: for want of room, or of permission."""
    path = Path(path)
    try:
        yield
    except Exception as error:
        causes = list(_causes(error))
        untold = not causes and not isinstance(error, TheraflowError)
        if any(cause.errno in NO_ROOM for cause in causes) or (untold and _is_full(path.parent)):
            raise TheraflowError(
                f"The disk is full: {path} could not be written. Make room in {path.parent}, {GOES_ON}."
            ) from error
        if any(cause.errno in NOT_ALLOWED and _concerns(cause, path) for cause in causes):
            raise TheraflowError(
                f"{path} may not be written: give yourself the right to write in {path.parent}, or name another folder."
            ) from error
        raise


def _causes(error: BaseException | None) -> Iterator[OSError]:
    """What the operating system has said, of an error and of those that led to it: libraries wrap it."""
    seen = set()  # an error that is raised again may lead to itself
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError):
            yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _concerns(cause: OSError, path: Path) -> bool:
    return cause.filename is None or path.parent in (Path(cause.filename), *Path(cause.filename).parents)


def _is_full(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free < FULL_BYTES


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for the block. Where the process is killed, the next on this machine that asks for one removes
    it.

    Whoever uses a folder holds a lock on it, which ends with the process. Other machines may not see it, where they
    share the folder of temporary files: each removes its own only.
    """
    prefix = f"{prefix}{_machine()}_"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _held(left):  # another's, or in use
            if time.time() - left.stat().st_mtime > NEW_S:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix) as name, _held(Path(name)):
        yield Path(name)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock on a folder; BlockingIOError where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def temporary_room() -> Iterator[None]:
    """Say in one sentence that the disk was full while the block worked with temporary files."""
    try:
        yield
    except Exception as error:
        if not any(cause.errno in NO_ROOM for cause in _causes(error)):
            raise
        raise TheraflowError(
            f"There was no room left for temporary files: free some in {tempfile.gettempdir()}, or set the environment "
            f"variable TMPDIR to a folder with room."
        ) from error


def write_text(text: str, path: Path | str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(content: Any, path: Path | str) -> None:
    """Write JSON, whole or not at all. NaN is refused: a missing number is null."""
    write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", path)


def write_tsv(rows: Sequence[Mapping[str, Any]], path: Path | str, columns: Sequence[str]) -> None:
    """Write a small tidy TSV, whole or not at all, without loading pandas; None becomes `NA`."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: "NA" if row[column] is None else row[column] for column in columns} for row in rows)


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        TheraflowError: the file is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TheraflowError(f"{path} cannot be read as JSON ({error}).") from error
