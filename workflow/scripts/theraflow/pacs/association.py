"""Associations with a PACS, and in sentences what goes wrong on them.

Nothing of pynetdicom's own log is shown: it prints whole identifiers, which is who the patient is.
"""

import logging
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification
from pynetdicom.status import GENERAL_STATUS

from theraflow.errors import TheraflowError
from theraflow.pacs.connection import Connection

SUCCESS = 0x0000

# Its handlers describe every message and every identifier for a log that is never shown.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


@contextmanager
def associated(
    connection: Connection,
    contexts: Sequence[PresentationContext],
    roles: Sequence[Any] = (),
    handlers: Sequence[tuple] = (),
) -> Iterator[Association]:
    """An association with the PACS, released at the end of the block, aborted where the block fails.

    Args:
        connection: the PACS.
        contexts: presentation contexts to propose, at most 128 (PS3.8 9.3.2.2).
        roles: role selections, for objects that are to come on this association.
        handlers: of pynetdicom's events.

    Raises:
        TheraflowError: the PACS cannot be reached, rejects us, or offers none of the services.
    """
    entity = AE(ae_title=connection.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = connection.timeout_s
    entity.network_timeout = entity.connection_timeout = connection.timeout_s
    with warnings.catch_warnings():
        # pydicom's warnings quote the values that they are about.
        warnings.simplefilter("ignore")
        try:
            association = entity.associate(
                connection.host,
                connection.port,
                contexts=list(contexts),
                ae_title=connection.called_ae_title,
                ext_neg=list(roles),
                evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once), *handlers],
            )
        except OSError as error:  # the name of the host is not known
            raise TheraflowError(_unreachable(connection, error)) from error
        if not association.is_established:
            raise TheraflowError(_why_not_established(association, connection))
        try:
            yield association
        except BaseException:
            association.abort()
            raise
        association.release()


def send_at_once(event: Event) -> None:
    """Let short messages go without waiting for those before them, which costs 40 ms an instance (Nagle)."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _unreachable(connection: Connection, error: OSError) -> str:
    return (
        f"The {connection} cannot be reached ({error.strerror or error}); check host and port, and whether a firewall "
        "lets this computer through."
    )


def _why_not_established(association: Association, connection: Connection) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected:
        return (
            f"The {connection} rejects the association: {answer.reason_str}; check both AE titles, and whether its "
            "administrator has entered ours."
        )
    if answer is not None:
        services = sorted({context.abstract_syntax.name for context in association.requestor.requested_contexts})
        return f"The {connection} offers none of what is asked for: {', '.join(services)}; ask its administrator."
    try:
        socket.create_connection((connection.host, connection.port), connection.timeout_s).close()
    except OSError as error:
        return _unreachable(connection, error)
    return (
        f"The {connection} takes the connection but does not answer as DICOM within {connection.timeout_s:g} s, or "
        "breaks it off; check port and AE titles."
    )


def answers(
    connection: Connection, service: str, responses: Iterator[tuple[Dataset, Dataset | None]]
) -> Iterator[tuple[int, Dataset | None]]:
    """Status and identifier of each response of a C-FIND, C-GET or C-MOVE.

    Raises:
        TheraflowError: the PACS breaks off or falls silent.
    """
    asked = time.monotonic()
    for status, identifier in responses:
        yield status_of(connection, service, status, asked), identifier
        asked = time.monotonic()


def status_of(connection: Connection, service: str, status: Dataset, asked: float) -> int:
    """The code of a response.

    Args:
        connection: the PACS.
        service: as `C-STORE`, for the sentence.
        status: what pynetdicom returns: empty where there was no response.
        asked: when the response began to be waited for, by `time.monotonic`.

    Raises:
        TheraflowError: there was none.
    """
    if "Status" in status:
        return int(status.Status)
    if time.monotonic() - asked < connection.timeout_s:
        raise TheraflowError(
            f"The {connection} broke off the association during {service}; try again, and if it stays so, ask its "
            "administrator whether we may do this."
        )
    raise TheraflowError(
        f"The {connection} was silent for {connection.timeout_s:g} s during {service}; try again, or set a longer "
        "timeout_s."
    )


def meaning(code: int, table: Mapping[int, tuple[str, str]]) -> str:
    """A status in words, as `Failure: Refused: Out of Resources (0xA700)`.

    The comment that a PACS may add is left out: it may name the patient.

    Args:
        code: of a response (PS3.7 annex C).
        table: of the service (PS3.4), from `pynetdicom.status`.
    """
    category, words = table.get(code) or GENERAL_STATUS.get(code) or ("Failure", "unknown status")
    return f"{category}{': ' if words else ''}{words} (0x{code:04X})"


def echo(connection: Connection) -> None:
    """Ask the PACS whether it hears us (C-ECHO).

    Raises:
        TheraflowError: it does not, or answers with a failure.
    """
    with associated(connection, [build_context(Verification)]) as association:
        asked = time.monotonic()
        code = status_of(connection, "C-ECHO", association.send_c_echo(), asked)
    if code != SUCCESS:
        raise TheraflowError(f"The {connection} answers C-ECHO with {meaning(code, GENERAL_STATUS)}.")
