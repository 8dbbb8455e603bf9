"""Objects into a PACS (C-STORE), and whether it lists them afterwards."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.status import STATUS_WARNING, STORAGE_SERVICE_CLASS_STATUS, code_to_category

from theraflow.dicom.export.header import text
from theraflow.dicom.export.parse import BrokenDicomError, read_file
from theraflow.dicom.export.sniff import files_below
from theraflow.errors import TheraflowError
from theraflow.pacs.association import SUCCESS, associated, meaning, status_of
from theraflow.pacs.connection import Connection
from theraflow.pacs.query import query

_MOST_PAIRS = 64  # each takes up to two of the 128 presentation contexts of an association
_NEEDED = ("MediaStorageSOPClassUID", "TransferSyntaxUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True)
class StoredObject:
    """A DICOM file that is to be sent: what it is, where it belongs."""

    path: Path
    sop_class: UID
    transfer_syntax: UID
    uid: str
    series_uid: str
    study_uid: str


@dataclass(frozen=True)
class Sent:
    """What became of an object.

    Attributes:
        sent: the object.
        outcome: the answer of the PACS in words.
        stored: whether it was taken.
    """

    sent: StoredObject
    outcome: str
    stored: bool


def find_objects(places: Iterable[Path | str]) -> tuple[list[StoredObject], int]:
    """The DICOM files below folders (or files by name), and how many other files lie there, which are not sent.

    Raises:
        TheraflowError: no DICOM is there, or a file is damaged or lacks what C-STORE has to state.
    """
    objects, others = [], 0
    for place in map(Path, places):
        if not place.exists():
            raise TheraflowError(f"{place} does not exist; name a folder of DICOM objects.")
        for path in [place] if place.is_file() else [path for files in files_below(place) for path in files]:
            found = _read_object(Path(path))
            if found is None:
                others += 1
            else:
                objects.append(found)
    if not objects:
        raise TheraflowError(f"No DICOM file lies in {', '.join(map(str, places))}; nothing was sent.")
    return sorted(objects, key=lambda one: (one.sop_class, one.transfer_syntax, str(one.path))), others


def _read_object(path: Path) -> StoredObject | None:
    try:
        file = read_file(path)
    except BrokenDicomError as error:
        raise TheraflowError(f"{path} is broken DICOM: it {error}; nothing was sent.") from error
    except OSError as error:
        raise TheraflowError(f"{path} cannot be read ({error.strerror}); nothing was sent.") from error
    if file is None:
        return None
    stated = [text(file.header, keyword) for keyword in _NEEDED]
    if None in stated:
        absent = ", ".join(keyword for keyword, value in zip(_NEEDED, stated, strict=True) if value is None)
        raise TheraflowError(f"{path} lacks {absent}, without which it cannot be sent; nothing was sent.")
    sop_class, syntax, uid, series_uid, study_uid = stated
    return StoredObject(path, UID(sop_class), UID(syntax), uid, series_uid, study_uid)


def send(connection: Connection, objects: Sequence[StoredObject]) -> Iterator[Sent]:
    """Send objects one after the other; one that is refused does not stop the others.

    Everything is sent, also what the PACS has: an archive that holds an object of the same SOPInstanceUID may keep it.

    Raises:
        TheraflowError: there is no association, or it breaks.
    """
    pairs = list(dict.fromkeys((one.sop_class, one.transfer_syntax) for one in objects))
    for first in range(0, len(pairs), _MOST_PAIRS):
        together = pairs[first : first + _MOST_PAIRS]
        with associated(connection, _contexts(together)) as association:
            for one in objects:
                if (one.sop_class, one.transfer_syntax) in together:
                    yield _store(connection, association, one)


def _contexts(pairs: Sequence[tuple[UID, UID]]) -> list[PresentationContext]:
    """One for each pair as it is; uncompressed ones also in the syntax that every PACS has to know (PS3.5 10.1)."""
    plain = {
        (sop_class, ImplicitVRLittleEndian)
        for sop_class, syntax in pairs
        if syntax.is_transfer_syntax and not syntax.is_compressed  # of a maker's own nothing is known
    }
    return [build_context(*pair) for pair in sorted({*pairs, *plain})]


def _store(connection: Connection, association: Association, one: StoredObject) -> Sent:
    asked = time.monotonic()
    try:
        status = association.send_c_store(dcmread(one.path, force=True))  # force: without preamble, too
    except ValueError as error:  # as: no presentation context was accepted
        return Sent(one, f"not stored: {error}", False)
    code = status_of(connection, f"C-STORE of {one.uid}", status, asked)
    if code == SUCCESS:
        return Sent(one, "stored", True)
    words = meaning(code, STORAGE_SERVICE_CLASS_STATUS)
    if code_to_category(code) == STATUS_WARNING:
        return Sent(one, f"stored; {words}", True)
    return Sent(one, f"not stored: {words}", False)


def not_listed(connection: Connection, objects: Iterable[StoredObject]) -> list[StoredObject]:
    """Those of the objects that the PACS does not list (C-FIND at level IMAGE).

    Raises:
        TheraflowError: it cannot be asked.
    """
    objects = list(objects)
    series = {(one.study_uid, one.series_uid) for one in objects}
    with query(connection) as asked:
        listed = {uid for study_uid, series_uid in sorted(series) for uid in asked.instances(study_uid, series_uid)}
    return [one for one in objects if one.uid not in listed]
