"""DICOM files read element by element (PS3.5 chapter 7), in bounded time and memory. Standard library only.

pydicom parses a slice's header in about a millisecond, which for a CT is most of the time that the whole import takes;
here it is a tenth of that, because values that nobody asks for are stepped over. Damaged files are told from whole
ones on the way: nothing is guessed, nothing is read beyond the end, nesting and number of elements are bounded. Pixels
that are compressed are left to pydicom.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

# Keyword -> tag and value representation (PS3.6) of every element that the import reads.
ELEMENTS: dict[str, tuple[int, str]] = {
    "MediaStorageSOPClassUID": (0x00020002, "UI"),
    "TransferSyntaxUID": (0x00020010, "UI"),
    "SpecificCharacterSet": (0x00080005, "CS"),
    "ImageType": (0x00080008, "CS"),
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "StudyDate": (0x00080020, "DA"),
    "SeriesDate": (0x00080021, "DA"),
    "AcquisitionDate": (0x00080022, "DA"),
    "AcquisitionDateTime": (0x0008002A, "DT"),
    "StudyTime": (0x00080030, "TM"),
    "SeriesTime": (0x00080031, "TM"),
    "AcquisitionTime": (0x00080032, "TM"),
    "AccessionNumber": (0x00080050, "SH"),
    "Modality": (0x00080060, "CS"),
    "Manufacturer": (0x00080070, "LO"),
    "InstitutionName": (0x00080080, "LO"),
    "CodeValue": (0x00080100, "SH"),
    "CodingSchemeDesignator": (0x00080102, "SH"),
    "CodeMeaning": (0x00080104, "LO"),
    "TimezoneOffsetFromUTC": (0x00080201, "SH"),
    "SeriesDescription": (0x0008103E, "LO"),
    "ManufacturerModelName": (0x00081090, "LO"),
    "ReferencedSeriesSequence": (0x00081115, "SQ"),
    "FrameType": (0x00089007, "CS"),
    "PatientName": (0x00100010, "PN"),
    "PatientID": (0x00100020, "LO"),
    "IssuerOfPatientID": (0x00100021, "LO"),
    "PatientBirthDate": (0x00100030, "DA"),
    "PatientSex": (0x00100040, "CS"),
    "PatientSize": (0x00101020, "DS"),
    "PatientWeight": (0x00101030, "DS"),
    "Radiopharmaceutical": (0x00180031, "LO"),
    "EnergyWindowName": (0x00540018, "SH"),
    "SliceThickness": (0x00180050, "DS"),
    "CountsAccumulated": (0x00180070, "IS"),
    "SpacingBetweenSlices": (0x00180088, "DS"),
    "RadiopharmaceuticalStartTime": (0x00181072, "TM"),
    "RadionuclideTotalDose": (0x00181074, "DS"),
    "RadionuclideHalfLife": (0x00181075, "DS"),
    "RadiopharmaceuticalStartDateTime": (0x00181078, "DT"),
    "TableTraverse": (0x00181131, "DS"),
    "ConvolutionKernel": (0x00181210, "SH"),
    "ActualFrameDuration": (0x00181242, "IS"),
    "ScanVelocity": (0x00181300, "DS"),
    "WholeBodyTechnique": (0x00181301, "CS"),
    "ScanLength": (0x00181302, "IS"),
    "ViewPosition": (0x00185101, "CS"),
    "FrameAcquisitionDateTime": (0x00189074, "DT"),
    "FrameReferenceDateTime": (0x00189151, "DT"),
    "FrameAcquisitionDuration": (0x00189220, "FD"),
    "CTImageFrameTypeSequence": (0x00189329, "SQ"),
    "DecayCorrectionDateTime": (0x00189701, "DT"),
    "PETFrameTypeSequence": (0x00189751, "SQ"),
    "DecayCorrected": (0x00189758, "CS"),
    "AttenuationCorrected": (0x00189759, "CS"),
    "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"),
    "SeriesNumber": (0x00200011, "IS"),
    "ImagePositionPatient": (0x00200032, "DS"),
    "ImageOrientationPatient": (0x00200037, "DS"),
    "FrameOfReferenceUID": (0x00200052, "UI"),
    "StackID": (0x00209056, "SH"),
    "FrameContentSequence": (0x00209111, "SQ"),
    "PlanePositionSequence": (0x00209113, "SQ"),
    "PlaneOrientationSequence": (0x00209116, "SQ"),
    "TemporalPositionIndex": (0x00209128, "UL"),
    "SamplesPerPixel": (0x00280002, "US"),
    "NumberOfFrames": (0x00280008, "IS"),
    "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"),
    "PixelSpacing": (0x00280030, "DS"),
    "CorrectedImage": (0x00280051, "CS"),
    "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"),
    "HighBit": (0x00280102, "US"),
    "PixelRepresentation": (0x00280103, "US"),
    "PixelPaddingValue": (0x00280120, "SS"),
    "PixelPaddingRangeLimit": (0x00280121, "SS"),
    "RescaleIntercept": (0x00281052, "DS"),
    "RescaleSlope": (0x00281053, "DS"),
    "RescaleType": (0x00281054, "LO"),
    "LossyImageCompression": (0x00282110, "CS"),
    "PixelMeasuresSequence": (0x00289110, "SQ"),
    "PixelValueTransformationSequence": (0x00289145, "SQ"),
    "MeasurementUnitsCodeSequence": (0x004008EA, "SQ"),
    "RealWorldValueMappingSequence": (0x00409096, "SQ"),
    "RealWorldValueIntercept": (0x00409224, "FD"),
    "RealWorldValueSlope": (0x00409225, "FD"),
    "EnergyWindowVector": (0x00540010, "US"),
    "NumberOfEnergyWindows": (0x00540011, "US"),
    "EnergyWindowInformationSequence": (0x00540012, "SQ"),
    "EnergyWindowRangeSequence": (0x00540013, "SQ"),
    "EnergyWindowLowerLimit": (0x00540014, "DS"),
    "EnergyWindowUpperLimit": (0x00540015, "DS"),
    "RadiopharmaceuticalInformationSequence": (0x00540016, "SQ"),
    "DetectorVector": (0x00540020, "US"),
    "NumberOfDetectors": (0x00540021, "US"),
    "DetectorInformationSequence": (0x00540022, "SQ"),
    "RotationVector": (0x00540050, "US"),
    "NumberOfRotations": (0x00540051, "US"),
    "RotationInformationSequence": (0x00540052, "SQ"),
    "NumberOfFramesInRotation": (0x00540053, "US"),
    "RRIntervalVector": (0x00540060, "US"),
    "TimeSlotVector": (0x00540070, "US"),
    "SliceVector": (0x00540080, "US"),
    "NumberOfSlices": (0x00540081, "US"),
    "AngularViewVector": (0x00540090, "US"),
    "TimeSliceVector": (0x00540100, "US"),
    "ViewCodeSequence": (0x00540220, "SQ"),
    "RadionuclideCodeSequence": (0x00540300, "SQ"),
    "RadiopharmaceuticalCodeSequence": (0x00540304, "SQ"),
    "ImageID": (0x00540400, "SH"),
    "SeriesType": (0x00541000, "CS"),
    "Units": (0x00541001, "CS"),
    "SUVType": (0x00541006, "CS"),
    "DecayCorrection": (0x00541102, "CS"),
    "FrameReferenceTime": (0x00541300, "DS"),
    "DoseCalibrationFactor": (0x00541322, "DS"),
    "SegmentSequence": (0x00620002, "SQ"),
    "SegmentLabel": (0x00620005, "LO"),
    "ReferencedFrameOfReferenceSequence": (0x30060010, "SQ"),
    "RTReferencedStudySequence": (0x30060012, "SQ"),
    "RTReferencedSeriesSequence": (0x30060014, "SQ"),
    "StructureSetROISequence": (0x30060020, "SQ"),
    "ROIName": (0x30060026, "LO"),
    "SharedFunctionalGroupsSequence": (0x52009229, "SQ"),
    "PerFrameFunctionalGroupsSequence": (0x52009230, "SQ"),
}
# Groups with private elements that the import knows (GE, Siemens, Philips): kept whole, because a private creator may
# reserve any block of its group (PS3.5 7.8.1).
_PRIVATE_GROUPS = frozenset({0x0009, 0x0033, 0x0071, 0x7053})
_TEXT = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
# After these the length has two bytes; after the others four, behind two reserved ones (PS3.5 7.1.2).
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def _accepted(vr: str) -> frozenset[bytes]:
    """How the file may represent a value: text may stand for text, unsigned for signed; nothing else is read as it is.

    UN stands for what an archive did not know; no bytes for implicit VR, where nothing is stated.
    """
    code = vr.encode()
    alike = next((kinds for kinds in (_TEXT, frozenset((b"US", b"SS"))) if code in kinds), frozenset((code,)))
    return alike | {b"UN", b""}


_ACCEPTED = {tag: _accepted(vr) for tag, vr in ELEMENTS.values()}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_META_END, _FIRST_PIXELS, _PIXEL_DATA = 0x00030000, 0x7FE00008, 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
# Real headers stay far below these; what lies above was made to exhaust the reader.
_DEEPEST_NESTING = 32
_MOST_ITEMS = 500_000
# A deflated file may inflate to this, or to so many times its own size if that is more: no image is as dense as a bomb.
_INFLATED_BYTES, _INFLATED_TIMES = 1 << 28, 16
_FIRST_READ = 1 << 14


# What a DICOM file without preamble begins with: the meta group, or one of the first elements of group 0008 in either
# byte order.
_FIRST_ELEMENTS = (0x00, 0x01, 0x05, 0x08, 0x12, 0x16)
_BARE_BEGINNINGS = (
    b"\x02\x00\x00\x00",
    *(b"\x08\x00" + bytes([element, 0]) for element in _FIRST_ELEMENTS),
    *(b"\x00\x08\x00" + bytes([element]) for element in _FIRST_ELEMENTS),
)


# Where a compressed image states its size, and the markers of JPEG and JPEG-LS behind which it does.
_CODESTREAM_HEADER = 4096
_FRAME_MARKERS = frozenset({*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC})
_META_BEGINNING = b"\x02\x00\x00\x00UL"


class BrokenDicomError(Exception):
    """The bytes are no whole DICOM object; the text goes on after "it" and says what is wrong."""


class _MoreWantedError(Exception):
    """The part of the file that has been read does not suffice."""


@dataclass(frozen=True, slots=True)
class Header:
    """Elements of a data set or of an item, undecoded; `theraflow.dicom.export.header` gives them meaning.

    Attributes:
        values: tag -> bytes as in the file, or the items of a sequence.
        order: byte order of binary values, `<` or `>`.
    """

    values: Mapping[int, "bytes | tuple[Header, ...]"]
    order: str = "<"

    def raw(self, keyword: str) -> bytes | None:
        """The value as in the file; None where the element is absent."""
        found = self.values.get(ELEMENTS[keyword][0])
        return None if isinstance(found, tuple) else found

    def items(self, keyword: str) -> "tuple[Header, ...]":
        """The items of a sequence; none where it is absent or empty."""
        found = self.values.get(ELEMENTS[keyword][0])
        return found if isinstance(found, tuple) else ()

    def overlaid(self, *others: "Header") -> "Header":
        """This header with the elements of others in place of its own."""
        values = dict(self.values)
        for other in others:
            values.update(other.values)
        return Header(values, self.order)


@dataclass(frozen=True, slots=True)
class DicomFile:
    """One DICOM file without its pixels.

    Attributes:
        header: the elements that the import uses, those of the meta group included.
        transfer_syntax: TransferSyntaxUID; without a meta group, what the first element shows.
        size: bytes of the file, or of the data set that a deflated file inflates to.
        pixels_at: where the value of PixelData begins in them; None without pixel data.
        pixel_bytes: length of that value; None where it is encapsulated (compressed).
        ordered: whether the tags ascend, as PS3.5 7.1 asks: if not, something has tampered with the file.
    """

    header: Header
    transfer_syntax: str
    size: int
    pixels_at: int | None
    pixel_bytes: int | None
    ordered: bool


def read_file(path: Path | str) -> DicomFile | None:
    """Read a DICOM file up to its pixels; None where the content, not the name, says that it is no DICOM.

    Raises:
        BrokenDicomError: not whole, or made to exhaust the reader.
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        wanted = _FIRST_READ
        while True:
            buffer = os.pread(descriptor, min(wanted, size), 0)
            if buffer[128:132] != b"DICM" and not buffer.startswith(_BARE_BEGINNINGS):
                if buffer[132:138] == _META_BEGINNING:
                    raise BrokenDicomError("has no DICM in front of its meta group")
                return None
            try:
                file = parse(buffer, size)
                break
            except _MoreWantedError:
                wanted *= 4
        if file.pixel_bytes is not None and file.transfer_syntax != DEFLATED:
            order = ">HH" if file.transfer_syntax == EXPLICIT_BIG else "<HH"
            if os.pread(descriptor, 4, file.pixels_at + file.pixel_bytes) == struct.pack(order, 0x7FE0, 0x0010):
                raise BrokenDicomError("has pixel data twice")
        return file
    finally:
        os.close(descriptor)


def parse(buffer: bytes, size: int) -> DicomFile:
    """Parse the first bytes of a file of `size` bytes; all of them if they are not more.

    Raises:
        BrokenDicomError: as `read_file`.
    """
    whole = len(buffer) >= size
    start = 132 if buffer[128:132] == b"DICM" else 0
    meta: dict[int, bytes | tuple[Header, ...]] = {}
    if buffer[start : start + 2] == b"\x02\x00":
        meta, start = _Reader(buffer, whole, EXPLICIT_LITTLE).elements(start, len(buffer), _META_END)
    stated = Header(meta).raw("TransferSyntaxUID")
    syntax = stated.decode("ascii", "replace").strip("\0 ") if stated else _guessed_syntax(buffer[start : start + 6])
    if syntax == DEFLATED:
        if not whole:
            raise _MoreWantedError
        buffer, start = _inflated(buffer[start:]), 0
        size = len(buffer)
    reader = _Reader(buffer, whole, syntax)
    values, position = reader.elements(start, len(buffer), _FIRST_PIXELS)
    at, length = reader.pixels(position)
    return DicomFile(Header({**meta, **values}, reader.order), syntax, size, at, length, reader.ordered)


def inflated_data_set(path: Path | str) -> bytes:
    """What a file in Deflated Explicit VR Little Endian inflates to.

    Raises:
        BrokenDicomError: it cannot be inflated.
    """
    content = Path(path).read_bytes()
    start = 132 if content[128:132] == b"DICM" else 0
    _, start = _Reader(content, True, EXPLICIT_LITTLE).elements(start, len(content), _META_END)
    return _inflated(content[start:])


def refuse_broken_fragments(path: Path | str, pixels_at: int, shape: tuple[int, int]) -> None:
    """Walk through compressed pixel data, because a decoder may make up what a truncated file lacks.

    It would also allocate whatever size a damaged stream states.

    Args:
        path, pixels_at: the file, and where its pixel data begin.
        shape: rows and columns that each frame must have.

    Raises:
        BrokenDicomError: they do not end as they should (PS3.5 A.4), or hold images of another size.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        file.seek(pixels_at)
        while len(head := file.read(8)) == 8:
            group, element, length = struct.unpack("<HHI", head)
            tag = group << 16 | element
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                break
            beginning = file.read(min(length, _CODESTREAM_HEADER))
            size = _codestream_size(beginning)
            if size not in (None, shape):
                raise BrokenDicomError(f"holds a compressed image of {size[0]} x {size[1]} pixels")
            file.seek(length - len(beginning), os.SEEK_CUR)
    raise BrokenDicomError("is truncated within its compressed pixel data")


def _codestream_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns by the header of JPEG 2000 (ISO 15444-1 A.5.1) or of JPEG and JPEG-LS (ISO 10918-1 B.2.2)."""
    try:
        if stream.startswith(b"\xff\x4f\xff\x51"):
            right, lower, left, upper = struct.unpack_from(">4I", stream, 8)
            return lower - upper, right - left
        position = 2 if stream.startswith(b"\xff\xd8") else len(stream)
        while True:
            marker, length = struct.unpack_from(">HH", stream, position)
            if marker in _FRAME_MARKERS:
                return struct.unpack_from(">HH", stream, position + 5)
            position += 2 + length
    except struct.error:
        return None


def _guessed_syntax(head: bytes) -> str:
    if head[:1] == b"\0":  # group 0008 with its high byte first
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if head[4:6] in _SHORT | _LONG else IMPLICIT_LITTLE


def _inflated(deflated: bytes) -> bytes:
    most = max(_INFLATED_BYTES, _INFLATED_TIMES * len(deflated))
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = inflater.decompress(deflated, most)
    except zlib.error as error:
        raise BrokenDicomError(f"cannot be inflated ({error})") from error
    if inflater.unconsumed_tail:
        raise BrokenDicomError(f"inflates to more than {most >> 20} MiB")
    if not inflater.eof:
        raise BrokenDicomError("ends within its deflated data set")
    return inflated


class _Reader:
    """Walks through the elements of a data set, and remembers whether their tags ascend."""

    def __init__(self, buffer: bytes, whole: bool, syntax: str) -> None:
        self.buffer, self.whole = buffer, whole
        self.explicit = syntax != IMPLICIT_LITTLE
        self.order = ">" if syntax == EXPLICIT_BIG else "<"
        self.two = struct.Struct(f"{self.order}HH").unpack_from
        self.head = struct.Struct(f"{self.order}HH2sH" if self.explicit else f"{self.order}HHI").unpack_from
        self.long = struct.Struct(f"{self.order}I").unpack_from
        self.seen, self.ordered = 0, True

    def elements(self, position: int, end: int, stop: int, depth: int = 0) -> tuple[dict, int]:
        """The wanted elements from `position` up to `end` or to the first tag from `stop` on, and where that is."""
        values: dict[int, bytes | tuple[Header, ...]] = {}
        buffer, head, long, explicit, previous = self.buffer, self.head, self.long, self.explicit, 0
        try:
            while position < end:
                if explicit:
                    group, element, vr, length = head(buffer, position)
                else:
                    group, element, length = head(buffer, position)
                tag = group << 16 | element
                if tag >= stop:
                    return values, position
                if not explicit:
                    vr, position = b"", position + 8
                elif vr in _SHORT:
                    position += 8
                elif vr in _LONG:
                    (length,) = long(buffer, position + 8)
                    position += 12
                else:
                    raise BrokenDicomError(f"has no value representation at {_digits(tag)}")
                if tag <= previous:
                    if tag in values:
                        raise BrokenDicomError(f"has {_digits(tag)} twice")
                    self.ordered = False
                    self.count()
                previous = tag
                accepted = _ACCEPTED.get(tag)
                if accepted and vr not in accepted:
                    raise BrokenDicomError(f"has the value representation {vr.decode()} at {_digits(tag)}")
                if length == _UNDEFINED or (accepted and b"SQ" in accepted):
                    items, position = self._items(vr, position, length, end, depth)
                    if accepted:
                        values[tag] = items
                    continue
                value_at, position = position, position + length
                if position > end:
                    raise self._beyond(end)
                if accepted or group in _PRIVATE_GROUPS:
                    values[tag] = buffer[value_at:position]
        except struct.error:
            raise self._beyond(len(buffer)) from None
        if end == len(buffer) and not self.whole:
            raise _MoreWantedError
        return values, position

    def _items(self, vr: bytes, position: int, length: int, end: int, depth: int) -> tuple[tuple[Header, ...], int]:
        """The items of a sequence whose value begins at `position`, and where it ends."""
        self.count()
        if depth >= _DEEPEST_NESTING:
            raise BrokenDicomError("nests sequences without end")
        if length != _UNDEFINED:
            if position + length > end:
                raise self._beyond(end)
            end = position + length
        if vr == b"UN":  # PS3.5 6.2.2: then the items are in implicit VR
            inside = _Reader(self.buffer, self.whole, IMPLICIT_LITTLE)
            inside.seen = self.seen
            items, position = inside._items(b"", position, length, end, depth)
            self.seen, self.ordered = inside.seen, self.ordered and inside.ordered
            return items, position
        fragments = vr not in (b"", b"SQ")
        items = []
        while position < end:
            group, element = self.two(self.buffer, position)
            (item_length,) = self.long(self.buffer, position + 4)
            tag, position = group << 16 | element, position + 8
            self.count()
            if tag == _SEQUENCE_END and length == _UNDEFINED:
                return tuple(items), position
            if tag != _ITEM:
                raise BrokenDicomError("has a sequence that holds something else than items")
            if item_length == _UNDEFINED and not fragments:
                values, position = self.elements(position, end, _ITEM_END, depth + 1)
                if self.two(self.buffer, position) != (_ITEM_END >> 16, _ITEM_END & 0xFFFF):
                    raise BrokenDicomError("has an item of a sequence that does not end")
                position += 8
            elif position + item_length > end:
                raise self._beyond(end)
            elif fragments or not item_length:
                values, position = {}, position + item_length
            else:
                stop, position = position, position + item_length
                values, reached = self.elements(stop, position, _ITEM_END, depth + 1)
                if reached != position:
                    raise BrokenDicomError("has an item of a sequence that ends too early")
            items.append(Header(values, self.order))
        if length == _UNDEFINED:
            raise self._beyond(end)
        return tuple(items), position

    def count(self) -> None:
        """Count what only a file that was made for it holds without end: items, and elements that do not ascend."""
        self.seen += 1
        if self.seen > _MOST_ITEMS:
            raise BrokenDicomError(f"has more than {_MOST_ITEMS} items or elements out of order")

    def pixels(self, position: int) -> tuple[int | None, int | None]:
        """Where the pixel data begin, if they begin at this element, and their length, if it is stated."""
        try:
            if position >= len(self.buffer) or self.two(self.buffer, position) != (0x7FE0, 0x0010):
                return None, None
            vr = self.buffer[position + 4 : position + 6]
            if self.explicit and vr in _LONG:
                (length,), position = self.long(self.buffer, position + 8), position + 12
            elif self.explicit:
                raise BrokenDicomError(f"has pixel data of the value representation {vr!r}")
            else:
                (length,), position = self.long(self.buffer, position + 4), position + 8
        except struct.error:
            raise self._beyond(len(self.buffer)) from None
        return position, None if length == _UNDEFINED else length

    def _beyond(self, end: int) -> Exception:
        if end == len(self.buffer) and not self.whole:
            return _MoreWantedError()
        return BrokenDicomError("ends, or ends a sequence, in the middle of an element")


def _digits(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
