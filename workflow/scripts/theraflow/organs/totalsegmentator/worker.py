"""A process that keeps PyTorch, TotalSegmentator and its networks loaded, for one scan after the other.

A job of the workflow is one scan: one output, made again by itself. To import and to load takes a job seconds, though,
on a GPU longer than the network. So the first job starts a worker, which serves the jobs that follow, one at a time,
and leaves when none has come for a minute; a job that finds every worker busy starts another. They meet at a socket in
a folder that only this user can enter, and only jobs of the same session (terminal or cluster job), interpreter, code,
threads and visible GPUs share a worker. Where a job goes away, its worker ends at once; where a worker is killed, its
job says so and the next starts another. After an unexpected error or one of the GPU a worker serves nobody any more.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import logging
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from theraflow.errors import TheraflowError
from theraflow.organs.totalsegmentator.devices import Gpu
from theraflow.organs.totalsegmentator.predict import Outcome, Request, predict
from theraflow.source import code_digest

log = logging.getLogger(__name__)

IDLE_S = 60.0
NAMESPACES = (Path("/proc/self/ns/pid"), Path("/proc/self/ns/mnt"))  # on Linux
LIBRARY = Path(__file__).resolve().parents[3]
LONGEST_FOLDER = 80  # the path of a socket may have 103 bytes, of which its name takes some 20


def ask(request: Request, threads: int, *, without_gpu: bool = False) -> Outcome:
    """Let a worker segment a CT.

    Args:
        request: the CT and what is wanted.
        threads: number of CPU threads of the worker.
        without_gpu: whether the worker may see no GPU.

    Raises:
        TheraflowError: what the worker has to say, or that it was killed.
        RuntimeError: an unexpected error in the worker; its traceback is in the log.
    """
    environment = _environment(threads, without_gpu)
    with _place(environment) as place:
        # A worker that is killed resets the connection or just ends it.
        with contextlib.suppress(ConnectionError), _connected(place, environment) as lines:
            _send(lines, dataclasses.asdict(request))
            for line in lines:
                kind, content = json.loads(line)
                match kind:
                    case "log":
                        log.log(*content)
                    case "done":
                        gpu = content["gpu"] and Gpu(**content["gpu"])
                        return Outcome(**{**content, "gpu": gpu})
                    case "sentence":
                        raise TheraflowError(content)
                    case "error":
                        raise RuntimeError(content)
        for line in _log_of(place).read_text(errors="replace").splitlines()[-20:]:
            log.error("worker: %s", line)
    raise TheraflowError(
        "The process that segments the organs ended before it was done: it was killed, most likely for lack of memory; "
        "run fewer jobs at a time, or give the job more memory."
    )


def _environment(threads: int, without_gpu: bool) -> dict[str, str]:
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "nnUNet_def_n_proc")
    return {
        **os.environ,
        **dict.fromkeys(variables, str(threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(LIBRARY), os.environ.get("PYTHONPATH")])),
        **({"CUDA_VISIBLE_DEVICES": ""} if without_gpu else {}),
    }


def _rendezvous() -> Path:
    """The folder of this user's workers, which nobody else can enter."""
    folder = Path(tempfile.gettempdir()) / f"theraflow-{os.getuid()}"
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise TheraflowError(
            f"The path {tempfile.gettempdir()} is too long; set TMPDIR to a folder with a shorter one."
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise TheraflowError(f"{folder} is no folder of yours alone; remove it, or set TMPDIR to another folder.")
    return folder


@contextlib.contextmanager
def _place(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where the worker of this job is or will be, held for the block: the first that no other job holds."""
    settings = [environment.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
    # Two containers may share a folder and a number of a session, but see other files.
    spaces = [
        str(space.readlink()) for space in map(Path, ("/proc/self/ns/pid", "/proc/self/ns/mnt")) if space.exists()
    ]
    sharing = [sys.executable, code_digest("theraflow.organs"), os.getsid(0), *settings, *spaces]
    digest = hashlib.sha256(json.dumps(sharing).encode()).hexdigest()[:12]
    folder = _rendezvous()
    for number in itertools.count():
        place = folder / f"{digest}-{number}"
        with _held(place) as held:
            if held:
                yield place
                return


@contextlib.contextmanager
def _held(place: Path) -> Iterator[bool]:
    """Hold a place for the block, if it can be had; it is given back with the block or with the process."""
    while True:
        with _lock_of(place).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if _is_still(_lock_of(place), file):  # a worker that left may have removed it in between
                yield True
                return


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _lock_of(place: Path) -> Path:
    return place.with_suffix(".lock")


def _socket_of(place: Path) -> Path:
    return place.with_suffix(".socket")


def _log_of(place: Path) -> Path:
    return place.with_suffix(".log")


@contextlib.contextmanager
def _connected(place: Path, environment: Mapping[str, str]) -> Iterator[IO[str]]:
    """A connection to the worker of a place, started if there is none."""
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(_connection(place))
        if lines is None:
            _start(place, environment)
            lines = stack.enter_context(_connection(place))
        if lines is None:
            raise ConnectionRefusedError
        yield lines


@contextlib.contextmanager
def _connection(place: Path) -> Iterator[IO[str] | None]:
    """A connection to the worker of a place that has greeted; None if there is none, or one that was killed."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        try:
            connection.connect(str(_socket_of(place)))
            lines = stack.enter_context(connection.makefile("rw", encoding="utf-8"))
            greeted = bool(lines.readline())
        except (FileNotFoundError, ConnectionError):
            greeted = False
        yield lines if greeted else None


def _start(place: Path, environment: Mapping[str, str]) -> None:
    """Start a worker: it inherits a socket that already listens, so that nobody need wait for it."""
    _remove(place)
    _remove_leftovers(place.parent)
    place.mkdir()
    command = [sys.executable, "-P", "-m", __name__, str(place)]
    with socket.socket(socket.AF_UNIX) as listener, _log_of(place).open("w") as messages:
        listener.bind(str(_socket_of(place)))
        listener.listen(1)
        subprocess.run(
            [*command, str(listener.fileno())],
            env={**environment, "TMPDIR": str(place)},
            cwd=place.parent,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # what a terminal sends to the job is not for the worker
            check=True,
        )


def _remove_leftovers(folder: Path) -> None:
    """Remove what workers left that were killed, those of earlier sessions too."""
    for lock in folder.glob("*.lock"):
        with _held(place := lock.with_suffix("")) as held:
            if not held:  # its worker may be busy and would keep us waiting
                continue
            with _connection(place) as lines:
                if lines is None:
                    _remove_all(place)


def _send(lines: IO[str], message: Any) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


def serve(place: Path, listener: socket.socket) -> None:
    """Serve one job after the other until none has come for `IDLE_S`, or this process is no longer fit to."""
    listener.settimeout(IDLE_S)
    fit = True
    while fit:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            with _held(place) as held:
                if held:  # otherwise a job is about to call
                    _remove_all(place)
                    return
        else:
            connection.setblocking(True)
            with (
                contextlib.suppress(ConnectionError),  # the job went away before all was sent
                connection,
                connection.makefile("rw", encoding="utf-8") as lines,
            ):
                fit = _serve_job(place, connection, lines)


def _remove(place: Path) -> None:
    """Remove a worker's socket, so that nobody calls it, and its temporary files."""
    _socket_of(place).unlink(missing_ok=True)
    # Moved away first: a network at work in another thread would write new files into what is being removed.
    moved = place.with_suffix(".removed")
    shutil.rmtree(moved, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        place.rename(moved)
    shutil.rmtree(moved, ignore_errors=True)


def _remove_all(place: Path) -> None:
    """Remove all that belongs to a place; it is held."""
    _remove(place)
    _log_of(place).unlink(missing_ok=True)
    _lock_of(place).unlink(missing_ok=True)


def _serve_job(place: Path, connection: socket.socket, lines: IO[str]) -> bool:
    """Serve one job; whether the worker is fit for another."""
    line = ""
    with contextlib.suppress(ConnectionError):  # nobody is there any more
        _send(lines, ["hello", os.getpid()])
        line = lines.readline()
    if not line:
        return True
    words = json.loads(line)
    request = Request(**{**words, "organs": tuple(words["organs"])})
    answered = threading.Event()
    threading.Thread(target=_end_without_job, args=(connection, answered, place), daemon=True).start()
    handler = _ToJob(lines)
    logging.getLogger().addHandler(handler)
    answer, fit = _answer(request)
    logging.getLogger().removeHandler(handler)
    answered.set()
    if not fit:
        _remove(place)
    with contextlib.suppress(ConnectionError):
        _send(lines, answer)
    return fit


def _answer(request: Request) -> tuple[tuple[str, Any], bool]:
    """What a job is told, and whether this process is fit for another job."""
    began, spent = time.monotonic(), time.process_time()
    try:
        outcome = predict(request)
    except TheraflowError as error:
        return ("sentence", str(error)), True
    except Exception as error:
        log.error(traceback.format_exc())
        return ("error", f"{type(error).__name__}: {error}"), False
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    wall, spent = time.monotonic() - began, time.process_time() - spent
    log.info("segmented in %.1f s, %.1f s of CPU; %.0f MiB at most in this process so far", wall, spent, peak)
    # Where a GPU's memory did not suffice, threads of nnU-Net hold on to some of it.
    failed = any(step["result"] not in ("done", "not used") for step in outcome.steps)
    return ("done", dataclasses.asdict(outcome)), not failed


class _ToJob(logging.Handler):
    """Sends the log to the job, whose log it belongs to."""

    def __init__(self, lines: IO[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        _send(self._lines, ["log", [record.levelno, record.getMessage()]])


def _end_without_job(connection: socket.socket, answered: threading.Event, place: Path) -> None:
    """End this process when its job goes away before it has its answer."""
    with contextlib.suppress(OSError):
        connection.recv(1)  # a job says nothing more; this returns when it closes
    if not answered.is_set():
        _remove(place)
        os._exit(1)


def _main() -> None:
    """The worker's process: leave the job that started it, then serve."""
    place, number = Path(sys.argv[1]), int(sys.argv[2])
    if os.fork():
        os._exit(0)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    logging.captureWarnings(True)
    with socket.socket(fileno=number) as listener:
        serve(place, listener)


if __name__ == "__main__":
    _main()
