"""What a command costs: time and memory of all the processes that it starts."""

import os
import resource
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = "THERAFLOW_BENCHMARK"
EVERY_S = 0.2


@dataclass
class Cost:
    """What a command and all processes that it started have cost.

    Attributes:
        wall_s: until it returned.
        cpu_s: of all of its processes.
        peak_mib: largest memory of them together, shared pages counted once.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float


def measure(command: Sequence[object], folder: Path, **variables: str) -> Cost:
    """Run a command and watch its processes, those that outlive it too; they are ended with it."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, "TMPDIR": str(folder), MARK: mark, **variables}
    own: dict[psutil.Process, float] = {}
    others: set[psutil.Process] = set()
    peak, began, ended_before = 0.0, time.monotonic(), _cpu_of_ended()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY
        )
        while process.poll() is None:
            peak = max(peak, _look(mark, own, others))
            time.sleep(EVERY_S)
    wall = time.monotonic() - began
    _look(mark, own, others)
    for left in own:
        if left.is_running():
            left.kill()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n" + (folder / "output.txt").read_text()[-3000:])
    # The looks miss what a process did after the last of them, the kernel's count those that outlived their parents.
    return Cost(wall, max(sum(own.values()), _cpu_of_ended() - ended_before), peak / 2**20)


def _cpu_of_ended() -> float:
    """CPU time in s of all ended children of this process, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _look(mark: str, own: dict[psutil.Process, float], others: set[psutil.Process]) -> float:
    """Note the CPU time of all processes with a mark; their memory in bytes."""
    memory = 0
    for process in psutil.process_iter():
        if process in others:
            continue
        try:
            if process not in own and process.environ().get(MARK) != mark:
                if process.create_time() < time.time() - 1:  # a younger one may not yet be what it will be
                    others.add(process)
                continue
            times = process.cpu_times()
            own[process] = times.user + times.system
            memory += process.memory_full_info().pss
        except psutil.Error:
            continue
    return memory


def show(what: str, cost: Cost) -> None:
    """One line of the result."""
    print(f"{what:45} wall {cost.wall_s:7.1f} s  CPU {cost.cpu_s:7.1f} s  peak {cost.peak_mib:6.0f} MiB", flush=True)
