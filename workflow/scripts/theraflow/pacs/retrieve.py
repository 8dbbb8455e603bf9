"""One series out of a PACS: the instances that C-GET or C-MOVE bring, written as they come."""

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from pynetdicom.status import QR_GET_SERVICE_CLASS_STATUS, QR_MOVE_SERVICE_CLASS_STATUS

from theraflow.errors import TheraflowError
from theraflow.pacs.association import SUCCESS, answers, associated, meaning, send_at_once
from theraflow.pacs.connection import Connection
from theraflow.pacs.query import FoundSeries

# What archives keep images in. Each is proposed in a presentation context of its own: of several syntaxes in one
# context the PACS takes a single one, and then has to convert or to fail what it keeps in another.
_SYNTAXES = (
    uids.ExplicitVRLittleEndian,
    uids.ImplicitVRLittleEndian,
    uids.DeflatedExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
    uids.RLELossless,
    uids.JPEGBaseline8Bit,
    uids.JPEGExtended12Bit,
    uids.JPEGLossless,
    uids.JPEGLosslessSV1,
    uids.JPEGLSLossless,
    uids.JPEGLSNearLossless,
    uids.JPEG2000Lossless,
    uids.JPEG2000,
    uids.HTJ2KLossless,
    uids.HTJ2K,
)
# Where a PACS does not tell the SOP classes of a series.
_CLASSES = {
    "CT": (uids.CTImageStorage, uids.EnhancedCTImageStorage, uids.SecondaryCaptureImageStorage),
    "PT": (
        uids.PositronEmissionTomographyImageStorage,
        uids.EnhancedPETImageStorage,
        uids.SecondaryCaptureImageStorage,
    ),
    "NM": (uids.NuclearMedicineImageStorage, uids.SecondaryCaptureImageStorage),
    "RTSTRUCT": (uids.RTStructureSetStorage,),
    "RTDOSE": (uids.RTDoseStorage,),
    "SEG": (uids.SegmentationStorage,),
}
_MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: identifiers are the odd numbers up to 255
_OUT_OF_RESOURCES, _NOT_AUTHORISED = 0xA700, 0x0124


@dataclass
class Reception:
    """The instances of one series, written to a folder as they come, each as the PACS has encoded it.

    Attributes:
        folder: where they go, as `SOPInstanceUID.dcm`.
        promised: SOPInstanceUIDs that are taken; anything else is refused.
        came: those that were written.
        failure: why one could not be written.
    """

    folder: Path
    promised: frozenset[str]
    came: set[str] = field(default_factory=set)
    failure: Exception | None = None

    def __call__(self, event: Event) -> int:
        """Answer a C-STORE request: the status."""
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid not in self.promised:
            return _NOT_AUTHORISED
        try:
            (self.folder / f"{uid}.dcm").write_bytes(event.encoded_dataset())
        except Exception as error:  # it is raised where the series is waited for; pynetdicom would only log it
            self.failure = error
            return _OUT_OF_RESOURCES
        self.came.add(uid)
        return SUCCESS


def retrieve(connection: Connection, series: FoundSeries, instances: Mapping[str, str], folder: Path) -> None:
    """Bring all instances of a series into a folder.

    Args:
        connection: the PACS.
        series: as `Query.series` finds it.
        instances: SOPInstanceUIDs with their SOP classes, as `Query.instances` finds them.
        folder: exists and is empty.

    Raises:
        TheraflowError: not all of them came, and why.
    """
    reception = Reception(folder, frozenset(instances))
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = series.study_uid, series.uid
    bring = _move if connection.retrieve == "move" else _get
    try:
        outcome = bring(connection, identifier, _classes(series, instances), reception)
    except OSError as error:
        raise TheraflowError(_not_written(folder, error)) from error
    if len(reception.came) < len(instances):
        raise TheraflowError(
            f"Of {len(instances)} instances that the {connection} lists, {len(reception.came)} came ({outcome})."
        )


def _not_written(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"There is no room left in {folder.parent}; free some, or give another folder with --output."
    return f"{folder.parent} cannot be written ({error.strerror}); give another folder with --output."


def _classes(series: FoundSeries, instances: Mapping[str, str]) -> list[UID]:
    """The SOP classes of a series: as the PACS tells them, else those of its modality."""
    told = {UID(uid) for uid in instances.values() if uid}
    classes = sorted(told) if told and all(instances.values()) else list(_CLASSES.get(series.modality, ()))
    if not classes:
        raise TheraflowError(
            f"The PACS does not tell the SOP classes of its instances, and of modality {series.modality} none are "
            "known here; leave this modality out."
        )
    if 1 + len(classes) * len(_SYNTAXES) > _MOST_CONTEXTS:
        raise TheraflowError(f"Its instances are of {len(classes)} SOP classes, too many for one association.")
    return classes


def _storage(classes: Iterable[UID]) -> list[PresentationContext]:
    return [build_context(uid, syntax) for uid in classes for syntax in _SYNTAXES]


def _get(connection: Connection, identifier: Dataset, classes: list[UID], reception: Reception) -> str:
    """Bring what `identifier` names on the association itself; the outcome in words."""
    model = StudyRootQueryRetrieveInformationModelGet
    contexts = [build_context(model), *_storage(classes)]
    roles = [build_role(uid, scp_role=True) for uid in classes]
    with associated(connection, contexts, roles, [(evt.EVT_C_STORE, reception)]) as association:
        if not any(context.abstract_syntax == model for context in association.accepted_contexts):
            raise TheraflowError(f"The {connection} gives no C-GET; set retrieve: move and a listen_port.")
        responses = association.send_c_get(identifier, model)
        return _outcome(connection, "C-GET", responses, reception, QR_GET_SERVICE_CLASS_STATUS)


def _move(connection: Connection, identifier: Dataset, classes: list[UID], reception: Reception) -> str:
    """Let the PACS send what `identifier` names to us on an association of its own; the outcome in words."""
    model = StudyRootQueryRetrieveInformationModelMove
    with (
        associated(connection, [build_context(model)]) as association,
        _listening(connection, association, classes, reception),
    ):
        responses = association.send_c_move(identifier, connection.calling_ae_title, model)
        outcome = _outcome(connection, "C-MOVE", responses, reception, QR_MOVE_SERVICE_CLASS_STATUS)
    return f"{outcome}; it has to know {connection.calling_ae_title} at this computer's port {connection.listen_port}"


@contextmanager
def _listening(
    connection: Connection, association: Association, classes: Iterable[UID], reception: Reception
) -> Iterator[None]:
    """Take what the PACS sends, on that network only over which it was reached, and for our AE title only."""
    entity = AE(ae_title=connection.calling_ae_title)
    entity.require_called_aet = True
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = connection.timeout_s
    entity.supported_contexts = [build_context(uid, list(_SYNTAXES)) for uid in classes]
    address = (association.requestor.address_info.address, connection.listen_port)
    try:
        handlers = [(evt.EVT_CONN_OPEN, send_at_once), (evt.EVT_C_STORE, reception)]
        server = entity.start_server(address, block=False, evt_handlers=handlers)
    except OSError as error:
        raise TheraflowError(
            f"Port {connection.listen_port} cannot be listened at ({error.strerror}); another program uses it, or it "
            "is reserved: correct listen_port, also in the PACS."
        ) from error
    try:
        yield
    finally:
        server.shutdown()


def _outcome(
    connection: Connection,
    service: str,
    responses: Iterator[tuple[Dataset, Dataset | None]],
    reception: Reception,
    table: Mapping[int, tuple[str, str]],
) -> str:
    """Wait for the last response; what could not be written ends it, so that a full disk is not sent to any longer."""
    codes = [SUCCESS]
    for code, _ in answers(connection, service, responses):
        if reception.failure is not None:
            raise reception.failure
        codes.append(code)
    return f"{service}: {meaning(codes[-1], table)}"
