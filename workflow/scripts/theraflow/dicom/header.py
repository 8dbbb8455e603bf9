"""Values out of a DICOM header: present and meant, or None; never a default."""

import datetime

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DA, DT, TM

from theraflow.errors import TheraflowError

# Private elements of PET: the reference time of GE's decay correction, Philips' factors from counts to SUV
# and to Bq/mL.
GE_REFERENCE_TIME = Tag(0x0009, 0x100D)
PHILIPS_SUV_FACTOR = Tag(0x7053, 0x1000)
PHILIPS_ACTIVITY_FACTOR = Tag(0x7053, 0x1009)
_CREATORS = {
    GE_REFERENCE_TIME: "GEMS_PETD_01",
    PHILIPS_SUV_FACTOR: "Philips PET Private Group",
    PHILIPS_ACTIVITY_FACTOR: "Philips PET Private Group",
}
_MAKERS = {"GEMS_PETD_01": "GE", "Philips PET Private Group": "PHILIPS"}


def tag_name(keyword: str) -> str:
    """`PatientWeight (0010,1030)` for `PatientWeight`."""
    return f"{keyword} {_digits(Tag(tag_for_keyword(keyword)))}"


def _digits(tag: BaseTag) -> str:
    return f"({tag.group:04X},{tag.element:04X})"


def text(header: Dataset, keyword: str) -> str | None:
    """A string, or None where the tag is absent or empty."""
    return str(header.get(keyword) or "").strip() or None


def words(header: Dataset, keyword: str) -> frozenset[str] | None:
    """The values of a multi-valued code string as a set, or None where absent or empty."""
    value = header.get(keyword)
    if not value:
        return None
    return frozenset([value] if isinstance(value, str) else (str(word) for word in value))


def numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` numbers, or None where the tag is absent or empty.

    Raises:
        TheraflowError: the value is not `count` numbers.
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return None
        found = (float(value),) if count == 1 else tuple(float(part) for part in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TheraflowError(f"{tag_name(keyword)} cannot be read ({error}).") from error
    if not found:
        return None
    if len(found) != count:
        raise TheraflowError(f"{tag_name(keyword)} has {len(found)} values, not {count}.")
    return found


def number(header: Dataset, keyword: str) -> float | None:
    """One number, or None where the tag is absent or empty."""
    found = numbers(header, keyword, 1)
    return found[0] if found else None


def moment(
    header: Dataset, keyword: str, offset: str | None = None
) -> datetime.datetime | datetime.date | datetime.time | None:
    """A date (DA), time (TM) or date with time (DT), or None where the tag is absent or empty.

    A DT with an offset from UTC is turned into the local time that the other tags of the object use, if that
    states its own `offset` (TimezoneOffsetFromUTC); otherwise DT is local time already, as scanners write it.

    Raises:
        TheraflowError: the value is no such thing.
    """
    value = text(header, keyword)
    if value is None:
        return None
    kind = header[keyword].VR
    try:
        if kind == "DA":
            return datetime.date.fromisoformat(DA(value).isoformat())
        if kind == "TM":
            return datetime.time.fromisoformat(TM(value).isoformat())
        return _local(value, offset)
    except ValueError as error:
        raise TheraflowError(f"{tag_name(keyword)} cannot be read as date or time ({value}).") from error


def acquisition_start(header: Dataset) -> datetime.datetime | None:
    """AcquisitionDate with AcquisitionTime, otherwise AcquisitionDateTime; None where neither is complete."""
    day, time = moment(header, "AcquisitionDate"), moment(header, "AcquisitionTime")
    if day and time is not None:
        return datetime.datetime.combine(day, time)
    return moment(header, "AcquisitionDateTime", text(header, "TimezoneOffsetFromUTC"))


def _local(value: str, offset: str | None) -> datetime.datetime:
    found = datetime.datetime.fromisoformat(DT(value).isoformat())
    if found.tzinfo is not None and offset is not None:
        found = found.astimezone(datetime.datetime.strptime(offset, "%z").tzinfo)
    return found.replace(tzinfo=None)


def private(header: Dataset, tag: BaseTag) -> str | None:
    """The text of one of the private elements above, or None.

    It counts when its private creator stands in the header, or, because anonymisation often removes the
    creator but leaves the element, when Manufacturer names its maker.
    """
    creator = _CREATORS[tag]
    element = header.get(tag)
    stated = header.get(Tag(tag.group, tag.element >> 8))
    known = _text(stated.value) == creator if stated is not None else False
    maker = (text(header, "Manufacturer") or "").upper().startswith(_MAKERS[creator])
    if element is None or not (known or (stated is None and maker)):
        return None
    return _text(element.value) or None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return str(value).strip(" \0")


def private_number(header: Dataset, tag: BaseTag) -> float | None:
    """A private factor; None where it is absent, empty or 0.0, which stands for "cannot be converted".

    Raises:
        TheraflowError: not a number.
    """
    value = private(header, tag)
    try:
        return float(value) or None if value else None
    except ValueError as error:
        raise TheraflowError(f"{_digits(tag)} cannot be read as a number ({value}).") from error


def private_moment(header: Dataset, tag: BaseTag) -> datetime.datetime | None:
    """A private date with time, or None.

    Raises:
        TheraflowError: not a date with time.
    """
    value = private(header, tag)
    try:
        return _local(value, text(header, "TimezoneOffsetFromUTC")) if value else None
    except ValueError as error:
        raise TheraflowError(f"{_digits(tag)} cannot be read as date and time ({value}).") from error
