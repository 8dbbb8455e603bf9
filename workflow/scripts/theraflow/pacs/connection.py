"""Whom to call, and as whom: the connection to a PACS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from theraflow.errors import TheraflowError

_AE_TITLE = {"type": "string", "pattern": r"^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$"}  # PS3.5, VR AE: no backslash
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "host": {"type": "string", "minLength": 1},
        "port": _PORT,
        "called_ae_title": _AE_TITLE,
        "calling_ae_title": _AE_TITLE,
        "retrieve": {"enum": ["get", "move"]},
        "listen_port": _PORT,
        "timeout_s": {"type": "number", "exclusiveMinimum": 0},
    },
    "required": ["host", "port", "called_ae_title", "calling_ae_title"],
    "additionalProperties": False,
    "if": {"properties": {"retrieve": {"const": "move"}}, "required": ["retrieve"]},
    "then": {"required": ["listen_port"]},
}


@dataclass(frozen=True)
class Connection:
    """A PACS as its administrator describes it.

    Attributes:
        host, port: where it listens.
        called_ae_title: its AE title.
        calling_ae_title: ours, as it has been entered there.
        retrieve: `get` (it answers on our association) or `move` (it calls us back at `listen_port`).
        listen_port: where it reaches us for C-MOVE, as it has been entered there; None without C-MOVE.
        timeout_s: the longest silence, in s.
    """

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    retrieve: str = "get"
    listen_port: int | None = None
    timeout_s: float = 60.0

    def __str__(self) -> str:
        """Whom it calls and as whom, for messages."""
        return f"PACS {self.called_ae_title} at {self.host}:{self.port} (called by {self.calling_ae_title})"


def read_connection(path: Path | str) -> Connection:
    """Read the YAML file of a connection; `docs/pacs.md` explains its keys.

    Raises:
        TheraflowError: the file is missing, or a key is missing, unknown or not what it has to be.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TheraflowError(f"The connection {path} cannot be read as YAML ({error}).") from error
    problem = next(jsonschema.Draft202012Validator(_SCHEMA).iter_errors(content), None)
    if problem:
        where = f"key {problem.path[0]!r}: " if problem.path else ""
        raise TheraflowError(f"The connection {path}, {where}{problem.message}; see docs/pacs.md.")
    return Connection(**content)
