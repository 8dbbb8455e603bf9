"""The reader of headers against pydicom: on generated data sets, on files of pydicom's own tests, on real scans."""

import io
import shutil
import struct
import zlib
from pathlib import Path
from unittest import mock

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_series import pet
from theraflow.dicom.export import parse
from theraflow.dicom.export.index import read_index
from theraflow.dicom.export.parse import ELEMENTS, BrokenDicomError, DicomFile, Header, read_file
from theraflow.errors import TheraflowError

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
TAGS = {tag for tag, _ in ELEMENTS.values()}
PRIVATE_GROUPS = (0x0009, 0x0033, 0x0071, 0x7053)
PIXELS = 0x7FE00010


# TransferSyntaxUID, SpecificCharacterSet and PixelRepresentation: pydicom decodes them at once, for its own use.
DECODED = (0x00020010, 0x00080005, 0x00280103)


def wanted(tag: int) -> bool:
    return tag in TAGS or tag >> 16 in PRIVATE_GROUPS


def seen_by_pydicom(dataset: Dataset) -> dict[int, bytes | tuple]:
    """The values of all elements that the import reads, as bytes, or as items for sequences."""
    return {int(tag): _value(dataset, tag) for tag in list(dataset.keys()) if wanted(int(tag))}


def _value(dataset: Dataset, tag) -> bytes | tuple:
    found = dataset.get_item(tag)
    vr = next((vr for other, vr in ELEMENTS.values() if other == tag), found.VR)
    if vr != "SQ" and isinstance(found, RawDataElement):
        return found.value or b""
    found = dataset[tag]
    return tuple(_item(seen_by_pydicom(item)) for item in found.value) if found.VR == "SQ" else found.value or b""


def _item(values: dict) -> dict:
    return {tag: value for tag, value in values.items() if tag not in DECODED}


def seen_by_us(header: Header) -> dict[int, bytes | tuple]:
    return {
        tag: tuple(_item(seen_by_us(item)) for item in value) if isinstance(value, tuple) else value
        for tag, value in header.values.items()
    }


def inflated(content: bytes) -> bytes:
    return zlib.decompress(content[144 + struct.unpack_from("<I", content, 140)[0] :], -zlib.MAX_WBITS)


def same_as_pydicom(content: bytes, found: DicomFile) -> None:
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    expected = {**seen_by_pydicom(dataset.file_meta), **seen_by_pydicom(dataset)}
    ours = seen_by_us(found.header)
    assert set(ours) == set(expected)
    for tag, value in ours.items():
        if tag not in DECODED:
            assert value == expected[tag], f"{tag:08X}"
    if "TransferSyntaxUID" in dataset.file_meta:
        assert found.transfer_syntax == dataset.file_meta.TransferSyntaxUID
    assert (found.pixels_at is not None) == ("PixelData" in dataset)
    if found.pixel_bytes is not None:
        stored = inflated(content) if found.transfer_syntax == DeflatedExplicitVRLittleEndian else content
        assert stored[found.pixels_at :][: found.pixel_bytes] == (dataset.PixelData or b"")


# --- generated data sets ----------------------------------------------------------------------------------------------

CAPITALS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", min_size=1, max_size=16)
BY_VR = {
    "CS": CAPITALS | st.lists(CAPITALS, min_size=2, max_size=3),
    "SH": st.text("abc ÄXYZ-1", max_size=16).map(str.strip),
    "LO": st.text("abc ÄXYZ-1", max_size=64).map(str.strip),
    "PN": st.sampled_from(["", "Quagmire^Zebulon", "Yamada^Tarou=山田^太郎"]),
    "UI": st.lists(st.integers(0, 10**6), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts))),
    "DA": st.dates().map(lambda date: f"{date:%Y%m%d}".zfill(8)),
    "TM": st.times().map(lambda time: f"{time:%H%M%S}"),
    "DT": st.datetimes().map(lambda time: f"{time:%Y%m%d%H%M%S}".zfill(14)),
    "DS": st.lists(st.integers(-(10**6), 10**6).map(lambda value: str(value / 1000)), min_size=1, max_size=6),
    "IS": st.integers(-(2**31), 2**31 - 1).map(str),
    "US": st.integers(0, 2**16 - 1) | st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=9),
    "SS": st.integers(-(2**15), 2**15 - 1),
    "UL": st.integers(0, 2**32 - 1),
    "FD": st.floats(allow_nan=False),
}
PLAIN = sorted((tag, vr) for tag, vr in ELEMENTS.values() if vr != "SQ" and 0x00080005 < tag < PIXELS)
SEQUENCES = sorted(tag for tag, vr in ELEMENTS.values() if vr == "SQ")


@st.composite
def data_sets(draw, depth: int = 0) -> Dataset:
    dataset = Dataset()
    for tag, vr in draw(st.lists(st.sampled_from(PLAIN), max_size=12 if depth == 0 else 4)):
        dataset.add(DataElement(tag, vr, draw(BY_VR[vr])))
    for tag in draw(st.lists(st.sampled_from([0x00091001, 0x00111002, 0x00711003, 0x00310045]), max_size=2)):
        dataset.add(DataElement((tag & 0xFFFF0000) + 0x10, "LO", "SOMEBODY"))
        dataset.add(DataElement(tag, draw(st.sampled_from(["UN", "OB"])), draw(st.binary(max_size=9).map(evened))))
    for tag in draw(st.lists(st.sampled_from([*SEQUENCES, 0x00111010, 0x00311020]), max_size=2 if depth < 3 else 0)):
        items = draw(st.lists(data_sets(depth + 1), max_size=2))
        for item in items:
            item.is_undefined_length_sequence_item = draw(st.booleans())
        dataset.add(DataElement(tag, "SQ", Sequence(items)))
        dataset[tag].is_undefined_length = draw(st.booleans())
    return dataset


def evened(value: bytes) -> bytes:
    return value + bytes(len(value) % 2)


@st.composite
def files(draw) -> bytes:
    dataset = draw(data_sets())
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    if draw(st.booleans()):
        dataset.add(DataElement(PIXELS, "OW", draw(st.binary(max_size=50).map(evened))))
    return encoded(dataset, draw(st.sampled_from(SYNTAXES)))


def encoded(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@given(content=files())
@settings(max_examples=300, deadline=None)
def test_a_generated_data_set_is_read_as_pydicom_reads_it(content):
    same_as_pydicom(content, parse.parse(content, len(content)))


@given(content=files(), first_read=st.integers(140, 3000))
@settings(deadline=None)
def test_a_file_is_read_in_parts_as_it_is_whole(content, first_read, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "in parts"
    path.write_bytes(content)
    with mock.patch.object(parse, "_FIRST_READ", first_read):
        assert read_file(path) == parse.parse(content, len(content))


@given(content=files(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_damage_raises_nothing_but_that_the_file_is_broken(content, data):
    damaged = bytearray(content)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=5)):
        damaged[at] = value
    damaged = bytes(damaged[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        found = parse.parse(damaged, len(damaged))
    except BrokenDicomError:
        return
    assert found.size >= 0


@given(content=st.binary(max_size=2000), beginning=st.sampled_from([b"", bytes(128) + b"DICM", b"\x08\0\x05\0CS"]))
@settings(max_examples=300, deadline=None)
def test_noise_raises_nothing_but_that_the_file_is_broken(content, beginning):
    content = beginning + content
    try:
        parse.parse(content, len(content))
    except BrokenDicomError as error:
        assert "\n" not in str(error)


# --- what pydicom does not write --------------------------------------------------------------------------------------


def items_as(vr: bytes, length: int | None, syntax: str) -> bytes:
    """A PET whose RadiopharmaceuticalInformationSequence an archive has stored as UN (PS3.5 6.2.2, note 2)."""
    dataset = pet()
    content = encoded(dataset, syntax)
    tag = "RadiopharmaceuticalInformationSequence"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    implicit = io.BytesIO()
    within = pydicom.filebase.DicomIO(implicit)
    within.is_implicit_VR, within.is_little_endian = True, True
    pydicom.filewriter.write_sequence(within, dataset[tag], ["utf8"])
    items = implicit.getvalue() + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if length is not None else b"")
    head = struct.pack(f"{order}HH", 0x0054, 0x0016)
    at = content.index(head + b"SQ")
    (old,) = struct.unpack_from(f"{order}I", content, at + 8)
    new = head + vr + struct.pack(f"{order}HI", 0, len(items) if length is None else length) + items
    return content[:at] + new + content[at + 12 + old :]


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF], ids=["defined", "undefined"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_sequence_of_unknown_representation_is_implicit_within(length, syntax):
    content = items_as(b"UN", length, syntax)
    (item,) = parse.parse(content, len(content)).header.items("RadiopharmaceuticalInformationSequence")
    assert item.raw("RadionuclideTotalDose").strip() == b"350000000.0"
    assert item.raw("RadiopharmaceuticalStartDateTime").strip() == b"20230501100000"


def test_a_file_without_preamble_and_meta_group():
    content = encoded(pet(), ImplicitVRLittleEndian)
    bare = content[144 + struct.unpack_from("<I", content, 140)[0] :]
    found = parse.parse(bare, len(bare))
    assert found.transfer_syntax == ImplicitVRLittleEndian
    same_as_pydicom(bare, found)


# --- files that others have written -----------------------------------------------------------------------------------

PYDICOM_FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))


NOT_WHOLE = {
    "SC_rgb_jpeg.dcm": "implicit value representations in an explicit transfer syntax",
    "meta_missing_tsyntax.dcm": "elements of group 0001, which PS3.5 7.1 forbids",
    "nested_priv_SQ.dcm": "elements of group 0001",
    "rtplan_truncated.dcm": "truncated within a sequence",
    "no_meta.dcm": "begins with a blank",
    "MR_truncated.dcm": "truncated within its pixel data, which the index refuses",
}


@pytest.mark.parametrize("path", PYDICOM_FILES, ids=lambda path: path.name)
def test_files_of_pydicom(path, tmp_path):
    if path.name not in NOT_WHOLE:
        same_as_pydicom(path.read_bytes(), read_file(path))
        return
    shutil.copy(path, tmp_path)
    if path.name == "MR_truncated.dcm":  # index looks at the pixels of images that it can use
        damaged = (tmp_path / path.name).read_bytes().replace(b"\x08\0\x60\0CS\2\0MR", b"\x08\0\x60\0CS\2\0CT")
        (tmp_path / path.name).write_bytes(damaged)
    with pytest.raises(TheraflowError, match=path.name):
        read_index(tmp_path).whole()


@pytest.mark.shared_data
def test_real_scans(shared_data):
    seen = 0
    for folder in sorted(folder for folder in shared_data.rglob("*") if folder.is_dir()):
        for path in sorted(path for path in folder.iterdir() if path.is_file())[:2]:
            found = read_file(path)
            if found is not None:
                same_as_pydicom(path.read_bytes(), found)
                seen += 1
    assert seen > 60
