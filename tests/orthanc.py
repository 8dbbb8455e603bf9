"""A PACS for tests: Orthanc, alone in a folder and on ports of its own, answering this computer only."""

import contextlib
import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from theraflow.errors import TheraflowError
from theraflow.pacs.association import echo
from theraflow.pacs.connection import Connection

STARTS_WITHIN_S = 60.0


def free_port() -> int:
    """A port that nothing listens at, and below those that Linux gives to whoever asks for any port."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@contextmanager
def orthanc(program: str, folder: Path, **settings: Any) -> Iterator[Connection]:
    """Run Orthanc while the block lasts.

    Args:
        program: path of Orthanc.
        folder: exists; its configuration, store and log go there.
        settings: of its configuration.

    Yields:
        The connection to it by C-GET; it knows `listen_port` as the place to which C-MOVE sends.
    """
    connection = Connection("127.0.0.1", free_port(), "ARCHIVE", "THERAFLOW", "get", free_port())
    written = folder / "orthanc.json"
    written.write_text(json.dumps(_configuration(connection, folder) | settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, str(written)], stdout=log, stderr=log)
    try:
        _wait_for(connection, server, folder / "log")
        yield connection
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _configuration(connection: Connection, folder: Path) -> Mapping[str, Any]:
    return {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "TemporaryDirectory": str(folder),
        "Plugins": [],
        "HttpServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": connection.called_ae_title,
        "DicomPort": connection.port,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowStore": False,
        "DicomModalities": {
            "theraflow": {
                "AET": connection.calling_ae_title,
                "Host": connection.host,
                "Port": connection.listen_port,
                "AllowEcho": True,
                "AllowFind": True,
                "AllowGet": True,
                "AllowMove": True,
                "AllowStore": True,
            }
        },
    }


def _wait_for(connection: Connection, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            echo(connection)
            return
        except TheraflowError:
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Orthanc did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.2)
