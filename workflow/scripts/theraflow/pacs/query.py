"""What the PACS holds: C-FIND in the study root information model (PS3.4 C.6.2)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from pynetdicom.status import QR_FIND_SERVICE_CLASS_STATUS

from theraflow.errors import TheraflowError
from theraflow.pacs.association import SUCCESS, answers, associated, meaning
from theraflow.pacs.connection import Connection

# Columns of what is found, by the keyword of the return key.
STUDY_COLUMNS = {
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "StudyDate": "study_date",
    "StudyDescription": "study_description",
    "ModalitiesInStudy": "modalities",
    "AccessionNumber": "accession_number",
    "NumberOfStudyRelatedInstances": "instances",
    "StudyInstanceUID": "study_instance_uid",
}
_PENDING = (0xFF00, 0xFF01)
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class FoundSeries:
    """A series as the PACS lists it; `count` is its own number of instances, where it states one."""

    study_uid: str
    uid: str
    modality: str
    count: int | None


class Query:
    """An association on which a PACS is asked."""

    def __init__(self, connection: Connection, association: Association) -> None:
        self._connection = connection
        self._association = association

    def studies(self, keys: Mapping[str, str], wanted: Sequence[str]) -> list[Dataset]:
        """Studies that match `keys`, with the values of `wanted`; not more is known of them than the PACS answers."""
        return self._find("STUDY", dict.fromkeys(("StudyInstanceUID", *wanted), "") | dict(keys))

    def series(self, study_uid: str) -> list[FoundSeries]:
        """All series of a study.

        Raises:
            TheraflowError: as `query`; a UID that is none.
        """
        _refuse_no_uid(self._connection, study_uid, "StudyInstanceUID")  # an empty one would match the whole archive
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": "", "Modality": ""}
        found = self._find("SERIES", keys | {"NumberOfSeriesRelatedInstances": ""})
        return [
            FoundSeries(
                study_uid,
                self._uid(one, "SeriesInstanceUID"),
                value(one, "Modality"),
                int(count) if (count := value(one, "NumberOfSeriesRelatedInstances")).isdecimal() else None,
            )
            for one in found
        ]

    def instances(self, study_uid: str, series_uid: str) -> dict[str, str]:
        """SOPInstanceUIDs of a series, with SOPClassUIDs, which may be empty: a PACS need not tell them.

        Raises:
            TheraflowError: as `query`; a UID that is none.
        """
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        found = self._find("IMAGE", keys | {"SOPInstanceUID": "", "SOPClassUID": ""})
        return {self._uid(one, "SOPInstanceUID"): value(one, "SOPClassUID") for one in found}

    def _find(self, level: str, keys: Mapping[str, str]) -> list[Dataset]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        if not all(key.isascii() for key in keys.values()):
            identifier.SpecificCharacterSet = "ISO_IR 192"
        for keyword, key in keys.items():
            setattr(identifier, keyword, key or None)
        responses = self._association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind)
        found = []
        for code, match in answers(self._connection, "C-FIND", responses):
            if code in _PENDING and match is not None:
                found.append(match)
            elif code != SUCCESS:
                raise TheraflowError(
                    f"The {self._connection} answers C-FIND at level {level} with "
                    f"{meaning(code, QR_FIND_SERVICE_CLASS_STATUS)}."
                )
        return found

    def _uid(self, match: Dataset, keyword: str) -> str:
        uid = value(match, keyword)
        _refuse_no_uid(self._connection, uid, keyword)
        return uid


def _refuse_no_uid(connection: Connection, uid: str, keyword: str) -> None:
    """Refuse what a PACS calls a UID and is none: UIDs become the names of folders and files."""
    if not _UID.fullmatch(uid) or not uid.strip("."):
        raise TheraflowError(f"The {connection} answers C-FIND with a {keyword} that is no UID.")


@contextmanager
def query(connection: Connection) -> Iterator[Query]:
    """Ask a PACS.

    Raises:
        TheraflowError: there is no association, or C-FIND fails.
    """
    with associated(connection, [build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
        yield Query(connection, association)


def find_studies(
    connection: Connection, keys: Mapping[str, str], modalities: Sequence[str] = ()
) -> list[dict[str, str | None]]:
    """Studies as rows with the columns `STUDY_COLUMNS`: this tells who the patients are.

    Args:
        connection: the PACS.
        keys: matching keys by keyword, as PatientID or StudyDate (PS3.4 C.2.2.2).
        modalities: only studies with one of them; a study whose modalities the PACS does not tell stays.

    Raises:
        TheraflowError: no key, or as `query`.
    """
    if not any(keys.values()):
        raise TheraflowError("Nothing limits the search, which would list the whole archive; give at least one key.")
    with query(connection) as asked:
        found = asked.studies(keys, tuple(STUDY_COLUMNS))
    rows = [{name: value(one, keyword) or None for keyword, name in STUDY_COLUMNS.items()} for one in found]
    rows = [
        row
        for row in rows
        if not modalities or row["modalities"] is None or set(modalities) & set(row["modalities"].split(", "))
    ]
    return sorted(rows, key=lambda row: (row["patient_id"] or "", row["study_date"] or "", row["study_instance_uid"]))


def value(match: Dataset, keyword: str) -> str:
    """A value of a response as one line of text; several are separated by commas, nothing is an empty one."""
    found = match.get(keyword)
    several = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    return ", ".join(" ".join(str(one).split()) for one in several if one is not None)
