"""Whose series they are."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from theraflow.dicom.export.header import text
from theraflow.dicom.export.series import Series


@dataclass(frozen=True)
class Patient:
    """The series of one patient; `doubt` says why that may be wrong, or is empty. Nothing here identifies him."""

    series: tuple[Series, ...]
    doubt: str = ""


def group_patients(series: Iterable[Series]) -> tuple[list[Patient], list[Series]]:
    """Series by PatientID; IssuerOfPatientID and PatientBirthDate tell apart what has the same PatientID.

    A study without issuer or birth date, where others of its PatientID have several, is a patient of its own, and so is
    a study without PatientID: both in doubt.

    Returns:
        The patients; and series that cannot be anybody's, because their files name several patients.
    """
    by_id: dict[str, list[Series]] = defaultdict(list)
    mixed = []
    for one in series:
        identifiers = {text(instance.header, "PatientID") or "" for instance in one.instances}
        if len(identifiers) > 1:
            mixed.append(one)
        else:
            by_id[identifiers.pop()].append(one)
    patients = []
    for identifier, group in by_id.items():
        if identifier:
            patients += _told_apart(group)
        else:
            doubt = "the header holds no PatientID: every study counts as a patient of its own"
            patients += [Patient(tuple(study), doubt) for study in _studies(group)]
    return [_with_one_sex(patient) for patient in patients], mixed


def study_uid(series: Series) -> str:
    """StudyInstanceUID, or nothing."""
    return text(series.header, "StudyInstanceUID") or ""


def _studies(series: Iterable[Series]) -> list[list[Series]]:
    found: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        found[study_uid(one)].append(one)
    return list(found.values())


def _told_apart(group: list[Series]) -> list[Patient]:
    """Series of one PatientID by issuer and birth date, which may be missing in some objects of a study."""
    studies = _studies(group)
    keys = [
        tuple(_values(study, keyword) for keyword in ("IssuerOfPatientID", "PatientBirthDate")) for study in studies
    ]
    several = [len(set().union(*(key[k] for key in keys))) > 1 for k in range(2)]
    if not any(several):
        return [Patient(tuple(group))]
    people: dict[tuple, list[Series]] = defaultdict(list)
    doubtful = []
    for study, key in zip(studies, keys, strict=True):
        telling = tuple(values for values, differs in zip(key, several, strict=True) if differs)
        if all(len(values) == 1 for values in telling):
            people[telling] += study
        else:
            doubtful.append(study)
    doubt = (
        "other studies with the same PatientID have different issuers or birth dates, this one lacks them or has two"
    )
    return [Patient(tuple(one)) for one in people.values()] + [Patient(tuple(one), doubt) for one in doubtful]


def _values(study: Iterable[Series], keyword: str) -> frozenset[str]:
    return frozenset(value for one in study if (value := text(one.header, keyword)))


def _with_one_sex(patient: Patient) -> Patient:
    sexes = _values(patient.series, "PatientSex") & {"M", "F"}
    if len(sexes) < 2 or patient.doubt:
        return patient
    return Patient(patient.series, "its studies are of a man and of a woman with the same PatientID")
