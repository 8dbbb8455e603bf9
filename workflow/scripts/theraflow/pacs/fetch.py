"""Studies out of a PACS into the folder that `theraflow index` reads: `{patient}/{study}/{series}/{instance}.dcm`.

A series is in its place only when every instance has come and can be read; until then it lies beside the folder.
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from theraflow.dicom.export.header import text
from theraflow.dicom.export.index import read_index
from theraflow.errors import TheraflowError
from theraflow.pacs.connection import Connection
from theraflow.pacs.query import FoundSeries, query, value
from theraflow.pacs.retrieve import retrieve
from theraflow.sheets import read_sheet

# What the workflow reads: images, and what readers have drawn.
MODALITIES = ("CT", "PT", "NM", "RTSTRUCT", "SEG")
_KEYS = {
    "patient_id": "PatientID",
    "accession_number": "AccessionNumber",
    "study_instance_uid": "StudyInstanceUID",
}
_TEXT = {"type": "string"}
# Cells that identify are checked here and not by the schema, which would quote them.
_SCHEMA = {
    "type": "object",
    "properties": {
        "patient": {"type": "string", "pattern": "^(?!(cohort|logs|paper)$)[A-Za-z0-9][A-Za-z0-9_-]*$"},
        "modalities": _TEXT,
        **dict.fromkeys(_KEYS, _TEXT),
    },
    "required": ["patient"],
}
_WILDCARDS = re.compile(r"[*?\\]")
_TELLS_PEOPLE_APART = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")


@dataclass(frozen=True)
class Request:
    """One row of the sheet.

    Attributes:
        patient: the name under which theraflow will know the patient.
        keys: what finds the studies: PatientID, AccessionNumber, StudyInstanceUID, by keyword.
        modalities: which series.
    """

    patient: str
    keys: Mapping[str, str]
    modalities: tuple[str, ...]

    def __str__(self) -> str:
        """For messages: whose, and by what, but not the values, which identify."""
        return f"patient {self.patient!r} by {' and '.join(self.keys)}"


@dataclass(frozen=True)
class Wanted:
    """A series to fetch, for whom, and the PatientID that the sheet asks for, or None."""

    patient: str
    series: FoundSeries
    patient_id: str | None

    @property
    def folder(self) -> Path:
        """Below the folder of all."""
        return Path(self.patient) / self.series.study_uid / self.series.uid


@dataclass(frozen=True)
class Fetched:
    """What became of a series.

    Attributes:
        wanted: the series.
        instances: how many the PACS lists.
        problem: why it is not there, or None.
        new: whether it came now, or was there already.
    """

    wanted: Wanted
    instances: int
    problem: str | None = None
    new: bool = False


def read_requests(path: Path | str) -> list[Request]:
    """The sheet of what is to be fetched; `docs/pacs.md` explains its columns.

    Raises:
        TheraflowError: as `read_sheet`; a row without a key, or with one that matches many. No key is quoted.
    """
    requests = []
    for row in read_sheet(path, _SCHEMA):
        keys = {keyword: row[column] for column, keyword in _KEYS.items() if column in row}
        if not keys:
            raise TheraflowError(
                f"The sheet {path} names no study of patient {row['patient']!r}; fill one of {', '.join(_KEYS)}."
            )
        if any(_WILDCARDS.search(key) for key in keys.values()):
            raise TheraflowError(
                f"The sheet {path} has a wildcard or a backslash in a key of patient {row['patient']!r}, which could "
                "match other patients; write the whole key."
            )
        modalities = tuple(row["modalities"].replace(",", " ").upper().split()) if "modalities" in row else MODALITIES
        requests.append(Request(row["patient"], keys, modalities))
    if not requests:
        raise TheraflowError(f"The sheet {path} names nothing to fetch.")
    return requests


def plan(connection: Connection, requests: Iterable[Request]) -> tuple[list[Wanted], list[str]]:
    """Look up in the PACS what the requests mean.

    Returns:
        The series, each once; and a sentence for each request that finds nothing, or more than one person.

    Raises:
        TheraflowError: the PACS cannot be asked, or a study is asked for under two patients.
    """
    found: dict[str, Wanted] = {}
    problems = []
    with query(connection) as asked:
        for request in requests:
            studies = [
                one for one in asked.studies(request.keys, (*_KEYS.values(), *_TELLS_PEOPLE_APART))
                if _matches(one, request.keys)
            ]  # fmt: skip
            series = [
                Wanted(request.patient, one, request.keys.get("PatientID"))
                for study in studies
                for one in asked.series(value(study, "StudyInstanceUID"))
                if one.modality in request.modalities
            ]
            if differing := _differing(studies):
                problems.append(
                    f"{request}: the PACS holds studies of several people that match ({', '.join(differing)} differ); "
                    "name the studies by study_instance_uid."
                )
            elif not series:
                what = f"no series of {', '.join(request.modalities)} in them" if studies else "no such study"
                problems.append(f"{request}: the PACS has {what}; correct the sheet.")
            else:
                _add(found, series)
    return list(found.values()), problems


def _matches(study: Dataset, keys: Mapping[str, str]) -> bool:
    """Whether the PACS has kept to the keys: some match without regard to case, or ignore a key."""
    return all(value(study, keyword) == key for keyword, key in keys.items())


def _differing(studies: Sequence[Dataset]) -> list[str]:
    """What tells people apart and is not the same in all studies that state it."""
    return [
        keyword
        for keyword in _TELLS_PEOPLE_APART
        if len({value(one, keyword) for one in studies if value(one, keyword)}) > 1
    ]


def _add(found: dict[str, Wanted], series: Iterable[Wanted]) -> None:
    owners = {one.series.study_uid: one.patient for one in found.values()}
    for one in series:
        owner = owners.get(one.series.study_uid, one.patient)
        if owner != one.patient:
            raise TheraflowError(
                f"The sheet asks for study {one.series.study_uid} as patient {owner!r} and as {one.patient!r}; "
                "correct it."
            )
        found.setdefault(one.series.uid, one)


def fetch(connection: Connection, wanted: Sequence[Wanted], output: Path | str) -> Iterator[Fetched]:
    """Fetch series after series into `output`; a series that is there whole is not fetched again.

    A series that fails does not stop the others.

    Raises:
        TheraflowError: the PACS cannot be asked, or the folder cannot be written.
    """
    output = Path(output)
    incoming = output.absolute().with_name(f".{output.absolute().name}.incoming")
    try:
        output.mkdir(parents=True, exist_ok=True)
        incoming.mkdir(exist_ok=True)
    except OSError as error:
        raise TheraflowError(f"{output} cannot be written ({error.strerror}); give another with --output.") from error
    if incoming.stat().st_dev != output.stat().st_dev:
        raise TheraflowError(
            f"{output} is a file system of its own, so that nothing can wait beside it; give a folder in it."
        )
    try:
        for one in wanted:
            with query(connection) as asked:
                instances = asked.instances(one.series.study_uid, one.series.uid)
            try:
                new = _fetch_series(connection, one, instances, output, incoming / one.series.uid)
            except TheraflowError as error:
                yield Fetched(one, len(instances), str(error))
            else:
                yield Fetched(one, len(instances), new=new)
    finally:
        with contextlib.suppress(OSError):  # another run may be using it
            incoming.rmdir()


def _fetch_series(
    connection: Connection, wanted: Wanted, instances: Mapping[str, str], output: Path, incoming: Path
) -> bool:
    """Fetch a series unless it is there; whether it was fetched."""
    place = output / wanted.folder
    if place.is_dir():
        there = {path.stem for path in place.glob("*.dcm")}
        if there == set(instances):
            return False
        raise TheraflowError(
            f"{place} holds {len(there)} instances, but the PACS now lists {len(instances)}, not all the same; move "
            "the folder away to fetch it again."
        )
    if not instances or len(instances) < (wanted.series.count or 0):
        raise TheraflowError(
            f"The PACS counts {wanted.series.count} instances but lists {len(instances)}; it may still be receiving "
            "them: try again later."
        )
    shutil.rmtree(incoming, ignore_errors=True)  # what a run that was killed has left
    incoming.mkdir()
    try:
        retrieve(connection, wanted.series, instances, incoming)
        _refuse_others(incoming, wanted, instances)
        place.parent.mkdir(parents=True, exist_ok=True)
        incoming.rename(place)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return True


def _refuse_others(folder: Path, wanted: Wanted, instances: Mapping[str, str]) -> None:
    """Refuse a series that cannot be read, or that is not what was asked for."""
    index = read_index(folder)
    if index.broken:
        raise TheraflowError(
            f"{len(index.broken)} of {len(instances)} instances came damaged: "
            f"{index.broken[0].replace(f'{folder}/', '')}"
        )
    headers = [instance.header for one in index.series for instance in one.instances]

    def stated(*keywords: str) -> set[tuple[str | None, ...]]:
        return {tuple(text(header, keyword) for keyword in keywords) for header in headers}

    series = {(wanted.series.study_uid, wanted.series.uid)}
    if stated("StudyInstanceUID", "SeriesInstanceUID") != series or stated("SOPInstanceUID") != {*zip(instances)}:
        raise TheraflowError("What came is not the series that was asked for: its UIDs differ; tell the administrator.")
    if wanted.patient_id is not None and stated("PatientID") != {(wanted.patient_id,)}:
        raise TheraflowError(
            "Its files hold another PatientID than the PACS lists, as after a correction in the archive; make sure "
            "whose it is, and name the study by study_instance_uid alone."
        )
