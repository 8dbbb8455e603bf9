"""Who the patient is: kept out of everything that is written."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

from theraflow.dicom.export.header import printable, text
from theraflow.dicom.export.parse import Header
from theraflow.errors import TheraflowError

_IDENTIFYING = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "InstitutionName")
# Shorter parts (initials, "DR", a patient number of two digits) occur in any text by chance.
_SHORTEST = 3


def identifying_words(header: Header) -> frozenset[str]:
    """The words of a header that tell who the patient is, in lower case."""
    return _words(tuple(text(header, keyword) or "" for keyword in _IDENTIFYING))


@cache  # as many different ones as there are patients
def _words(found: tuple[str, ...]) -> frozenset[str]:
    words = (word for value in found for word in (value, *re.split(r"[\s^=,;._-]+", value)))
    return frozenset(word.lower() for word in words if len(word) >= _SHORTEST)


def without_identity(sentence: str, identity: Iterable[str], allowed: str = "") -> str:
    """A printable sentence in which every identifying word is blotted out, except those that occur in `allowed`.

    File names and descriptions of series often hold the patient's name. `allowed` is what the user has written
    himself: his pseudonym may be the PatientID of data that are anonymous already.
    """
    lower, allowed = sentence.lower(), allowed.lower()
    for word in sorted((word for word in identity if word in lower), key=len, reverse=True):
        if word not in allowed:
            sentence = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", "…", sentence, flags=re.IGNORECASE)
    return printable(sentence)


@contextmanager
def anonymous_errors(identity: Iterable[str], allowed: str) -> Iterator[None]:
    """Within this block errors are told without identifying words."""
    try:
        yield
    except TheraflowError as error:
        raise TheraflowError(without_identity(str(error), identity, allowed)) from None
