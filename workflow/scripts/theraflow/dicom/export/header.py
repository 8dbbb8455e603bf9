"""Values out of a DICOM header: present and meant, or None; never a default."""

import datetime
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from theraflow.dicom.export.parse import ELEMENTS, Header
from theraflow.errors import TheraflowError

# Binary value representations by their format; all others that are read as numbers are text (DS, IS).
_BINARY = {"US": "H", "SS": "h", "UL": "I", "FL": "f", "FD": "d"}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# Far longer than PS3.5 lets a number or a date be; more of a value is not shown in a message.
_LONGEST_NUMBER = 64
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")  # with the points of ACR-NEMA, which PS3.5 still lets one read
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
_DATE_TIME = re.compile(r"(\d{8})(\d\d(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?)?([+-]\d{4})?")


def tag_name(keyword: str) -> str:
    """`PatientWeight (0010,1030)` for `PatientWeight`."""
    tag = ELEMENTS[keyword][0]
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _decoded(raw: bytes) -> str:
    """Text of a header; what is not UTF-8 is read as Latin-1, which holds for the codes that numbers depend on."""
    try:
        value = raw.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        value = raw.decode("latin-1").strip(" \0")
    return printable(value)


def printable(value: str) -> str:
    """Text without line feeds, escapes and bytes of unreadable file names, which would break a sentence or a table."""
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)


def text(header: Header, keyword: str) -> str | None:
    """A string, or None where the element is absent or empty."""
    # Behind a zero within lies what a wrong length has swallowed, or what an old vendor's buffer held before.
    return _decoded((header.raw(keyword) or b"").strip(b" \0").partition(b"\0")[0]) or None


def words(header: Header, keyword: str) -> tuple[str, ...] | None:
    """The values of a multi-valued code string, or None where absent or empty."""
    value = text(header, keyword)
    return None if value is None else tuple(word.strip() for word in value.split("\\"))


def numbers(header: Header, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """`count` numbers, or as many as there are; None where the element is absent or empty.

    Raises:
        TheraflowError: the value is not `count` numbers.
    """
    raw = header.raw(keyword)
    if not raw:
        return None
    try:
        found = _numbers(raw, header.order + _BINARY.get(ELEMENTS[keyword][1], ""))
    except (struct.error, ValueError) as error:
        raise TheraflowError(f"{tag_name(keyword)} cannot be read as a number ({error}).") from error
    if count is not None and len(found) not in (0, count):
        raise TheraflowError(f"{tag_name(keyword)} has {len(found)} values, not {count}.")
    return found or None


@lru_cache(maxsize=1024)  # most values are the same in all slices of a series
def _numbers(raw: bytes, kind: str) -> tuple[float, ...]:
    """Numbers out of text, or of binary values of the type `kind`, as struct writes it: byte order and letter."""
    if len(kind) > 1:
        return tuple(_finite(float(value)) for (value,) in struct.iter_unpack(kind, raw))
    value = _decoded(raw)
    return tuple(_number(part) for part in value.split("\\")) if value else ()


def _number(value: str) -> float:
    value = value.strip()
    if len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value):
        raise ValueError(_shown(value))
    return _finite(float(value))


def _shown(value: str) -> str:
    """A value that cannot be read, for messages: no more than its beginning, because a wrong length swallows others."""
    return repr(value.partition("\N{REPLACEMENT CHARACTER}")[0][:_LONGEST_NUMBER])


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value}")
    return value


def number(header: Header, keyword: str) -> float | None:
    """One number, or None where the element is absent or empty."""
    found = numbers(header, keyword, 1)
    return found[0] if found else None


def integers(header: Header, keyword: str) -> tuple[int, ...] | None:
    """Whole numbers, or None where the element is absent or empty.

    Raises:
        TheraflowError: a value is no whole number.
    """
    found = numbers(header, keyword)
    return None if found is None else tuple(_whole(value, keyword) for value in found)


def integer(header: Header, keyword: str) -> int | None:
    """One whole number, or None where the element is absent or empty."""
    found = number(header, keyword)
    return None if found is None else _whole(found, keyword)


def _whole(value: float, keyword: str) -> int:
    if not value.is_integer():
        raise TheraflowError(f"{tag_name(keyword)} must be a whole number, not {value:g}.")
    return int(value)


def date(header: Header, keyword: str) -> datetime.date | None:
    """A date (DA), or None where the element is absent or empty.

    Raises:
        TheraflowError: the value is no date.
    """
    return _read(header, keyword, _parse_date)


def time(header: Header, keyword: str) -> datetime.time | None:
    """A time of day (TM), or None where the element is absent or empty.

    Raises:
        TheraflowError: the value is no time.
    """
    return _read(header, keyword, _parse_time)


def moment(header: Header, keyword: str, offset: str | None = None) -> datetime.datetime | None:
    """A date with time (DT), or None where the element is absent or empty.

    A value with an offset from UTC is turned into the local time that the other elements of the object use, if that
    states its own `offset` (TimezoneOffsetFromUTC); otherwise it is local time already, as scanners write it.

    Raises:
        TheraflowError: the value is no date with time.
    """
    return _read(header, keyword, lambda value: _parse_moment(value, offset))


def _read(header: Header, keyword: str, parse: Callable[[str], Any]) -> Any:
    value = _decoded(header.raw(keyword) or b"")
    try:
        return parse(value) if value else None
    except (ValueError, OverflowError) as error:  # an offset may lead out of the years that Python knows
        raise TheraflowError(f"{tag_name(keyword)} cannot be read as date or time ({_shown(value)}).") from error


def _parse_date(value: str) -> datetime.date:
    found = _DATE.fullmatch(value)
    if not found:
        raise ValueError(value)
    return datetime.date(*(int(part) for part in found.groups()))


def _parse_time(value: str) -> datetime.time:
    found = _TIME.fullmatch(value)
    if not found:
        raise ValueError(value)
    hour, minute, second, fraction = (part or "0" for part in found.groups())
    # A leap second is written as 60 (PS3.5 6.2); Python knows none.
    return datetime.time(int(hour), int(minute), min(int(second), 59), int(fraction.ljust(6, "0")))


def _parse_moment(value: str, offset: str | None) -> datetime.datetime:
    found = _DATE_TIME.fullmatch(value)
    if not found or found[2] is None:
        raise ValueError(value)
    moment = datetime.datetime.combine(_parse_date(found[1]), _parse_time(found[2]))
    if found[3] is None or offset is None:
        return moment
    stated, wanted = (datetime.datetime.strptime(zone, "%z").utcoffset() for zone in (found[3], offset))
    return moment - stated + wanted


def readable(read: Callable[..., Any], header: Header, *arguments: Any) -> Any:
    """A value for the table and for comparisons; None where it is broken, which the import then says by name."""
    try:
        return read(header, *arguments)
    except TheraflowError:
        return None


def corrections(header: Header) -> tuple[str, ...] | None:
    """CorrectedImage; of an enhanced PET, which has a flag for each correction instead, ATTN and DECY by those."""
    found = words(header, "CorrectedImage")
    flags = {"AttenuationCorrected": "ATTN", "DecayCorrected": "DECY"}
    if found is not None or not any(text(header, keyword) for keyword in flags):
        return found
    return tuple(word for keyword, word in flags.items() if text(header, keyword) == "YES") or ("NONE",)


def acquisition_start(header: Header) -> datetime.datetime | None:
    """AcquisitionDate with AcquisitionTime, otherwise AcquisitionDateTime; None where neither is complete.

    A frame of an enhanced object has its own FrameAcquisitionDateTime, which goes first.
    """
    offset = text(header, "TimezoneOffsetFromUTC")
    of_frame = moment(header, "FrameAcquisitionDateTime", offset)
    if of_frame is not None:
        return of_frame
    day, clock = date(header, "AcquisitionDate"), time(header, "AcquisitionTime")
    if day and clock is not None:
        return datetime.datetime.combine(day, clock)
    return moment(header, "AcquisitionDateTime", offset)


@dataclass(frozen=True)
class PrivateElement:
    """An element of a vendor, found by its private creator (PS3.5 7.8.1).

    Where anonymisation has removed the creator but left the element, Manufacturer must name the vendor, and the
    element is looked for in the block that the vendor uses, the first.

    Attributes:
        creator: value of the private creator; `vendor`: how Manufacturer begins; `group`, `element`: of the tag.
    """

    creator: str
    vendor: str
    group: int
    element: int

    def __str__(self) -> str:
        return f"({self.group:04X},10{self.element:02X})"

    def raw(self, header: Header) -> bytes | None:
        """The value as in the file, or None."""
        first, last = self.group << 16 | 0x10, self.group << 16 | 0xFF
        creators = {tag & 0xFF: name for tag, name in header.values.items() if first <= tag <= last}
        for block, name in creators.items():
            if isinstance(name, bytes) and _decoded(name) == self.creator:
                return self._at(header, block)
        vendor = (text(header, "Manufacturer") or "").upper()
        return self._at(header, 0x10) if not creators and vendor.startswith(self.vendor) else None

    def _at(self, header: Header, block: int) -> bytes | None:
        found = header.values.get(self.group << 16 | block << 8 | self.element)
        return found if isinstance(found, bytes) else None

    def number(self, header: Header) -> float | None:
        """A factor (DS) or an activity (FL); None where absent, empty or 0, which stands for "not known".

        Raises:
            TheraflowError: not a number.
        """
        raw = self.raw(header)
        if not raw or not raw.strip(b" \0"):
            return None
        try:
            return _number(_decoded(raw)) or None
        except ValueError as error:
            if len(raw) == 4:
                (value,) = struct.unpack(header.order + "f", raw)
                if math.isfinite(value):
                    return value or None
            raise TheraflowError(f"{self} cannot be read as a number ({error}).") from error

    def moment(self, header: Header) -> datetime.datetime | None:
        """A date with time, or None where absent or empty.

        Raises:
            TheraflowError: not a date with time.
        """
        value = _decoded(self.raw(header) or b"")
        try:
            return _parse_moment(value, text(header, "TimezoneOffsetFromUTC")) if value else None
        except (ValueError, OverflowError) as error:
            raise TheraflowError(f"{self} cannot be read as date and time ({_shown(value)}).") from error


# The time to which GE has corrected the decay, and what GE notes of the syringe.
GE_REFERENCE_TIME = PrivateElement("GEMS_PETD_01", "GE", 0x0009, 0x0D)
GE_TRACER_ACTIVITY = PrivateElement("GEMS_PETD_01", "GE", 0x0009, 0x38)
GE_TRACER_MEASURED_AT = PrivateElement("GEMS_PETD_01", "GE", 0x0009, 0x39)
GE_ADMINISTERED_AT = PrivateElement("GEMS_PETD_01", "GE", 0x0009, 0x3B)
GE_RESIDUAL_ACTIVITY = PrivateElement("GEMS_PETD_01", "GE", 0x0009, 0x3C)
GE_RESIDUAL_MEASURED_AT = PrivateElement("GEMS_PETD_01", "GE", 0x0009, 0x3D)
# The time to which Siemens has corrected the decay.
SIEMENS_REFERENCE_TIME = PrivateElement("SIEMENS MED PT", "SIEMENS", 0x0071, 0x22)
# Philips' factors from counts to SUV and to Bq/mL.
PHILIPS_SUV_FACTOR = PrivateElement("Philips PET Private Group", "PHILIPS", 0x7053, 0x00)
PHILIPS_ACTIVITY_FACTOR = PrivateElement("Philips PET Private Group", "PHILIPS", 0x7053, 0x09)
