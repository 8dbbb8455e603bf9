"""Slurm for tests: a cluster of this machine alone, with a folder, ports and keys of its own and no systemd."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from services import free_port, running

STARTS_WITHIN_S = 300.0
ENDS_WITHIN_S = 300.0
NODE = "localhost"
# Twice as many as there are, so that jobs overlap on a small machine, too.
CPUS = 2 * (os.cpu_count() or 1)
DAEMONS = ("munged", "slurmctld", "slurmd")


@dataclass(frozen=True)
class Slurm:
    """A cluster that answers.

    Attributes:
        folder: its configuration, state and logs.
        environment: what its commands need to find it.
        daemons: ends what has been started.
    """

    folder: Path
    environment: Mapping[str, str]
    daemons: contextlib.ExitStack

    def start(self, name: str, *arguments: str) -> None:
        """Start a daemon, which lasts as long as the cluster unless it is killed."""
        environment = {**os.environ, **self.environment}
        self.daemons.enter_context(running((name, *arguments), self.folder / f"{name}.log", environment))

    def start_node(self) -> None:
        """Start the daemon of the node, and wait until it takes jobs."""
        self.start("slurmd", "-D", "-f", f"{self.folder}/slurm.conf")
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            with contextlib.suppress(AssertionError):
                if "idle" in self.say("sinfo", "--noheader", "--format=%T"):
                    return
            if time.monotonic() > until:
                logs = [(self.folder / f"{name}.log").read_text(errors="replace") for name in DAEMONS]
                raise RuntimeError("Slurm did not start:\n" + "\n".join(logs))
            time.sleep(0.2)

    def lose_node(self) -> None:
        """Take the node away with all that runs on it, as a power cut would, and let Slurm know."""
        own = [one for one in psutil.process_iter(["name", "environ"]) if self._is_of_cluster(one)]
        daemon = [one for one in own if one.info["name"] == "slurmd"]
        of_jobs = [one for one in own if "SLURM_JOB_ID" in one.info["environ"]]
        keepers = {above for one in of_jobs for above in _above(one, "slurmstepd")}
        for process in (*daemon, *keepers, *of_jobs):  # in this order nobody is left to tell Slurm how a job ended
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.say("scontrol", "update", f"nodename={NODE}", "state=down", "reason=lost")

    def _is_of_cluster(self, process: psutil.Process) -> bool:
        places = (process.info["environ"] or {}).get("PATH", "").split(os.pathsep)
        return str(self.folder / "bin") in places

    def say(self, *command: str) -> str:
        """What a command of Slurm prints."""
        result = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
        return result.stdout

    def jobs(self, *options: str) -> list[dict[str, str]]:
        """The jobs that the cluster knows, ended ones too, each with the fields that scontrol shows.

        Args:
            options: of `scontrol show`, as the number of a job.
        """
        lines = self.say("scontrol", "--oneliner", "show", "job", *options).splitlines()
        fields = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return [found for found in fields if "JobId" in found]


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Run a cluster of one node while the block lasts: a stand-in GPU, memory limits that hold.

    Args:
        folder: exists; everything of it goes there.
    """
    _configure(folder)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    with contextlib.ExitStack() as daemons:
        cluster = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}, daemons)
        cluster.start("munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
                      f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
                      f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log")  # fmt: skip
        cluster.start("slurmctld", "-D", "-i", "-f", f"{folder}/slurm.conf")
        cluster.start_node()
        try:
            yield cluster
        finally:
            _empty(cluster)


def _configure(folder: Path) -> None:
    """Write the key and the configuration."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    os.mknod(folder / "gpu0", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # no GPU, but a device that can be lent
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # Snakemake's plugin takes SLURM_CONF from the job's environment before it calls srun.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    (folder / "cgroup.conf").write_text("")
    (folder / "gres.conf").write_text(f"AutoDetect=off\nNodeName={NODE} Name=gpu Count=1 File={folder}/gpu0\n")
    memory_mib = psutil.virtual_memory().total // 2**20
    host = socket.gethostname().partition(".")[0]
    settings = {
        "ClusterName": "theraflow",
        "SlurmctldHost": NODE,
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        # After so many s a job that has lost its node may start again.
        "AuthInfo": f"socket={folder}/munge.socket,cred_expire=10",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        # No cgroups: each step's memory is sampled every second, and what takes more than it asked for is killed.
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "JobAcctGatherParams": "OverMemoryKill,UsePss",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "SchedulerParameters": "sched_interval=2,bf_interval=2",
        "KillWait": 5,
        "MinJobAge": 3600,  # s for which jobs that have ended are shown
        # s of patience with a machine that is busy with other tests, too
        "BatchStartTimeout": 300,
        "MessageTimeout": 60,
        "UnkillableStepTimeout": 300,
        "ReturnToService": 2,
        "GresTypes": "gpu",
        "SlurmdParameters": "config_overrides",  # the CPUs that the node has not
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines.append(
        f"NodeName={NODE} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={memory_mib} Gres=gpu:1"
    )
    lines.append(f"PartitionName=cpu Nodes={NODE} Default=YES MaxTime=UNLIMITED")
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")


def _above(process: psutil.Process, name: str) -> list[psutil.Process]:
    """The processes of a name that a process has come from; none if it has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [one for one in process.parents() if one.name() == name]
    return []


def _empty(cluster: Slurm) -> None:
    """End all jobs and wait until none is left: without slurmd nobody would end them."""
    cluster.say("scancel", "--user=root")
    until = time.monotonic() + ENDS_WITHIN_S
    while cluster.say("squeue", "--noheader") and time.monotonic() < until:
        time.sleep(0.2)
