"""Servers that tests start and end themselves."""

import contextlib
import random
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port that nothing listens at, and below those that Linux gives to whoever asks for any port."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """Run a server while the block lasts, in a session of its own: Ctrl-C is for the tests, which end it in order.

    Args:
        command: program and arguments.
        log: takes what it prints, after what is there.
        environment: in place of that of the tests.
    """
    with log.open("ab") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
