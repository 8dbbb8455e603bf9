"""A PACS for tests: Orthanc, alone in a folder and on ports of its own, answering this computer only."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services import free_port, running
from theraflow.errors import TheraflowError
from theraflow.pacs.association import echo
from theraflow.pacs.connection import Connection

STARTS_WITHIN_S = 60.0


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
    with running([program, str(written)], folder / "log") as server:
        _wait_for(connection, server, folder / "log")
        yield connection


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
