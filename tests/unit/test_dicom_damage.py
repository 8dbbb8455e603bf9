"""Damaged input: at least 500 corrupted variants of small series, each refused by name or imported unharmed.

Allowed is (a) a TheraflowError of one line that names the file, the folder or the tag, with nothing left in the folder
of results, or (b) an image whose bytes and sidecar are those of the undamaged series, or differ together with a remark
in the sidecar that the undamaged series does not have. Another exception, a hang, a leftover or an image that differs
in silence fails the test; so does identifying text of the header in a message.

DICOM has no checksum. What no reader can notice is therefore left alone here, and nothing else:

- PixelData, compressed or not, and the stream of a deflated data set, where a flipped bit may be any of its values;
- digits of what slices legally state each for themselves: RescaleSlope of a PET, AcquisitionTime and AcquisitionDate,
  and UIDs of instances;
- digits of a value that all slices share where all of them are changed in the same way to another legal value, and so
  every value of a series that is one file (NM): of these only the structure is damaged.
"""

import io
import os
import re
import resource
import signal
import socket
import struct
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_series import ct, pet, spect, write_slices
from theraflow.dicom import import_ct, import_emission
from theraflow.dicom.export.sniff import holds_ct
from theraflow.errors import TheraflowError
from theraflow.images import read_sidecar
from theraflow.layout import Scan

SEED = 20240501
CPU_SECONDS, SECONDS = 20, 60  # a million items take 4 s on a machine that does nothing else
MEMORY_BYTES = 1 << 30
IDENTITY = ("Quagmire", "Zebulon", "19500203", "ACC4711", "Mercy-Hospital", "PID-0815")
FDG = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
LUTETIUM = {"radiopharmaceutical": "[177Lu]DOTATATE", "nuclide": "177Lu", "quantity": "activity"}
PIXELS = 0x7FE00010
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

Files = Mapping[str, bytes]


class Hang(BaseException):
    """Not an Exception, so that no handler in the import can swallow it."""


def untouched(folder: Path) -> None:
    """What is done to a folder of which only files are damaged."""


@dataclass(frozen=True)
class Variant:
    """A damaged series: its files, and what else is done to the folder."""

    name: str
    base: str
    files: Files
    also: Callable[[Path], None] = untouched


@dataclass(frozen=True)
class Place:
    """Where an element, or an item of a sequence, lies in a file: its tag at `start`, its value at `value`."""

    tag: int
    vr: bytes
    start: int
    value: int
    length: int
    order: str

    @property
    def end(self) -> int:
        return self.value + self.length

    @property
    def keyword(self) -> str:
        return keyword_for_tag(self.tag) or f"{self.tag:08X}"


# --- the undamaged series ---------------------------------------------------------------------------------------------


def with_identity(dataset):
    dataset.PatientName, dataset.PatientID = "Quagmire^Zebulon", "PID-0815"
    dataset.PatientBirthDate, dataset.AccessionNumber = "19500203", "ACC4711"
    dataset.InstitutionName = "Mercy-Hospital"
    dataset.SeriesDescription, dataset.SeriesNumber = "WB 3D MAC", 4
    dataset.TimezoneOffsetFromUTC = "+0100"
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    private = dataset.private_block(0x0009, "GEMS_PETD_01", create=True)
    private.add_new(0x0A, "LO", "something else")
    return dataset


@cache
def files_of(base: str) -> Files:
    """The files of an undamaged series by name: `pet`, `ct` or `nm`, with the transfer syntax behind a colon."""
    import tempfile

    kind, _, syntax = base.partition(":")
    stored = np.random.default_rng(SEED).integers(0, 4000, (4, 4, 5))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "nm":
            with_identity(spect(stored)).save_as(folder / "1", enforce_file_format=True)
        elif kind == "pet":
            dataset = with_identity(pet())
            dataset.NumberOfSlices = 4
            slopes = [{"RescaleSlope": slope} for slope in (1.25, 1.5, 1.75, 1.125)]
            write_slices(dataset, stored, folder, slopes)
        else:
            dataset = with_identity(ct())
            dataset.RescaleType = "HU"
            dataset.PixelPaddingValue = 63536
            dataset["PixelPaddingValue"].VR = "US"
            write_slices(dataset, stored, folder)
        contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {name: recoded(content, syntax, name) for name, content in contents.items()}


def recoded(content: bytes, syntax: str, name: str) -> bytes:
    """The same object in another transfer syntax, with a UID that is not random, so that the variants are not."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{int(name)}"
    if not syntax:
        return saved(dataset)
    if syntax == "rle":
        dataset.compress(RLELossless, generate_instance_uid=False)
        return saved(dataset)
    return saved(dataset, {"implicit": SYNTAXES[0], "big": SYNTAXES[2], "deflated": SYNTAXES[3]}[syntax])


def saved(dataset, syntax=None) -> bytes:
    if syntax == ExplicitVRBigEndian and dataset.file_meta.TransferSyntaxUID != syntax:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    if syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True, force_encoding=False)
    return file.getvalue()


def import_folder(base: str, folder: Path, output: Path) -> Path:
    kind = base.partition(":")[0]
    scan = Scan("P001", "scan1", "tracer", "baseline", str(folder), "activity" if kind == "nm" else "suv")
    image = output / {"ct": "ct.nii", "pet": "pet.nii", "nm": "spect.nii"}[kind]
    if kind == "ct":
        import_ct(scan, image)
    else:
        import_emission(scan, FDG if kind == "pet" else LUTETIUM, image)
    return image


def places(content: bytes) -> list[Place]:
    """Every element and item of a file without undefined lengths, in order, those of sequences included."""
    meta_end = 144 + struct.unpack_from("<I", content, 140)[0]
    found = list(_walk(content, 132, meta_end, "<", False))
    syntax = next(content[one.value : one.end] for one in found if one.keyword == "TransferSyntaxUID").strip(b"\0")
    order, implicit = ">" if syntax.endswith(b".1.2.2") else "<", syntax.endswith(b".1.2")
    found += _walk(content, meta_end, len(content), order, implicit)
    return found


def _walk(content: bytes, at: int, end: int, order: str, implicit: bool) -> Iterator[Place]:
    while at < end:
        group, element = struct.unpack_from(order + "HH", content, at)
        tag = group << 16 | element
        if tag == 0xFFFEE000 or implicit:
            head, (length,) = 8, struct.unpack_from(order + "I", content, at + 4)
            vr = b"" if tag == 0xFFFEE000 or group % 2 else dictionary_VR(tag).encode()
        else:
            vr = content[at + 4 : at + 6]
            head, form = (12, "I") if vr in LONG else (8, "H")
            (length,) = struct.unpack_from(order + form, content, at + head - struct.calcsize(form))
        if length == 0xFFFFFFFF:
            length = end - at - head
        yield Place(tag, vr, at, at + head, length, order)
        if vr == b"SQ" or tag == 0xFFFEE000:
            yield from _walk(content, at + head, at + head + length, order, implicit)
        at += head + length


def header_places(content: bytes) -> list[Place]:
    return [one for one in places(content) if one.tag != PIXELS]


def place(content: bytes, keyword: str) -> Place:
    return next(one for one in places(content) if one.tag == tag_for_keyword(keyword))


# --- kinds of damage --------------------------------------------------------------------------------------------------


def changed(base: str, name: str, content: bytes) -> Files:
    return {**files_of(base), name: content}


def some_file(base: str, random: np.random.Generator) -> tuple[str, bytes]:
    files = files_of(base)
    name = str(random.choice(sorted(files)))
    return name, files[name]


def truncated() -> Iterator[Variant]:
    random = np.random.default_rng(SEED)
    for base in ("pet", "ct", "nm", "pet:implicit", "pet:big"):
        name, content = some_file(base, random)
        cuts = {0, 1, 127, 128, 130, 132, 140, len(content) - 1, len(content) - 2, place(content, "PixelData").value}
        for one in places(content):
            cuts |= {one.start + 2, one.value - 1, one.value + one.length // 2}
            if base in ("pet", "ct"):
                cuts.add(one.start)
        step = 1 if base == "pet" else 4
        for cut in sorted(cuts)[::step]:
            yield Variant(f"cut at {cut}", base, changed(base, name, content[:cut]))
    for base in ("pet:deflated", "ct:rle"):
        name, content = some_file(base, random)
        for cut in np.linspace(0, len(content) - 1, 24).astype(int):
            yield Variant(f"cut at {cut}", base, changed(base, name, content[:cut]))


def flipped(content: bytes, at: int, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def flipped_structure() -> Iterator[Variant]:
    """A bit of a tag, of a value representation or of a length, or of the meta group."""
    random = np.random.default_rng(SEED)
    for base in ("pet", "ct", "nm", "pet:implicit", "pet:big"):
        for number in range(len(places(min(files_of(base).values())))):
            name, content = some_file(base, random)
            one = places(content)[number]
            parts = {"tag": (one.start, one.start + 4), "length": (one.start + 4, one.value)}
            if one.vr and base in ("pet", "ct", "nm"):
                parts |= {"VR": (one.start + 4, one.start + 6), "length": (one.start + 6, one.value)}
            if one.tag < 0x00030000 and one.length:
                parts["value"] = (one.value, one.end)
            for part, (first, end) in parts.items():
                at, bit = int(random.integers(first, end)), int(random.integers(8))
                what = f"{part} of {one.keyword}, byte {at - one.start}, bit {bit}"
                yield Variant(what, base, changed(base, name, flipped(content, at, bit)))
    for base in ("pet", "ct"):
        for at, bit in ((128, 0), (129, 1), (130, 2), (131, 3)):
            name, content = some_file(base, random)
            yield Variant(f"magic, byte {at}", base, changed(base, name, flipped(content, at, bit)))


OWN_OF_A_SLICE = {"AcquisitionTime", "AcquisitionDate", "SOPInstanceUID", "PixelData"}


def flipped_values() -> Iterator[Variant]:
    """A bit of any value but those that slices legally state each for themselves."""
    random = np.random.default_rng(SEED)
    for base in ("pet", "ct", "pet:implicit", "pet:big"):
        left_alone = OWN_OF_A_SLICE | ({"RescaleSlope"} if base != "ct" else set())
        for number, one in enumerate(places(min(files_of(base).values()))):
            if one.keyword in left_alone or one.vr in (b"SQ", b"") or not one.length:
                continue
            for _ in range(3 if base in ("pet", "ct") else 1):
                name, content = some_file(base, random)
                one = places(content)[number]
                at, bit = int(random.integers(one.value, one.end)), int(random.integers(8))
                what = f"value of {one.keyword} in {name}, byte {at - one.value}, bit {bit}"
                yield Variant(what, base, changed(base, name, flipped(content, at, bit)))


MANDATORY = (
    "Modality", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns",
    "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
    "PixelData", "PatientWeight", "RadiopharmaceuticalInformationSequence", "Units", "DecayCorrection",
    "CorrectedImage", "TransferSyntaxUID",
)  # fmt: skip


def elements() -> Iterator[Variant]:
    """Elements of a wrong value representation, missing, empty, doubled or out of order."""
    for base in ("pet", "ct"):
        for number, keyword in enumerate(MANDATORY):
            name, content = sorted(files_of(base).items())[number % 4]
            found = [one for one in places(content) if one.keyword == keyword]
            if not found:
                continue
            one = found[0]
            start, value, end = one.start, one.value, one.end
            element, without = content[start:end], content[:start] + content[end:]
            emptied = content[:value][: -4 if one.vr in LONG else -2] + bytes(4 if one.vr in LONG else 2)
            other = element[: value - start] + bytes([element[value - start] ^ 1]) + element[value - start + 1 :]
            pixels = place(content, "PixelData").start
            damages = {
                "missing": without,
                "empty": emptied + content[end:],
                "doubled, the second differs": content[:end] + other + content[end:],
                "doubled, the first differs": content[:start] + other + content[start:],
                "behind the pixels": without + element,
            }
            if end < pixels:
                damages["doubled at the end"] = content[:pixels] + other + content[pixels:]
                damages["at the end"] = content[:start] + content[end:pixels] + element + content[pixels:]
            for vr in (b"OB", b"PN", b"FD", b"US", b"SQ", b"UN", b"ZZ"):
                if (vr in LONG) == (one.vr in LONG) and vr != one.vr:
                    damages[f"VR {vr.decode()}"] = content[: start + 4] + vr + content[start + 6 :]
            for damage, damaged in damages.items():
                yield Variant(f"{keyword} {damage}", base, changed(base, name, damaged))


def syntaxes() -> Iterator[Variant]:
    """The data set in one transfer syntax, the meta group with another."""
    stated = (*SYNTAXES, RLELossless, "1.2.840.10008.1.2.4.90", "1.2.840.113619.5.2", "1.2.3.4.5", "", "garbage")
    for base in ("pet", "pet:implicit", "pet:big", "pet:deflated", "ct:rle"):
        for syntax in stated:
            for count in (1, 4):
                files = dict(files_of(base))
                for name in sorted(files)[:count]:
                    files[name] = with_syntax(files[name], syntax)
                if files != files_of(base):
                    yield Variant(f"{count} files say {syntax!r}", base, files)
    for base, other in (("pet", "pet:big"), ("pet:big", "pet"), ("pet", "pet:implicit")):
        files = dict(files_of(base))
        for name in sorted(files):  # the data set of one, the pixels of the other
            pixels = files_of(other)[name][-40:]
            files[name] = files[name][:-40] + pixels if "big" not in base + other else files[name][:-41] + pixels[:-1]
        yield Variant(f"pixels of {other}", base, files)


def with_syntax(content: bytes, syntax: str) -> bytes:
    """Another TransferSyntaxUID in the meta group; the data set stays as it is."""
    one = place_in_meta(content, "TransferSyntaxUID")
    value = str(syntax).encode()
    value += b"\0" * (len(value) % 2)
    meta = content[: one.value - 2] + struct.pack("<H", len(value)) + value + content[one.end :]
    length = struct.unpack_from("<I", content, 140)[0] + len(value) - one.length
    return meta[:140] + struct.pack("<I", length) + meta[144:]


def place_in_meta(content: bytes, keyword: str) -> Place:
    meta_end = 144 + struct.unpack_from("<I", content, 140)[0]
    return next(one for one in _walk(content, 132, meta_end, "<", False) if one.keyword == keyword)


def with_value(content: bytes, keyword: str, value: bytes) -> bytes:
    """Another value in an explicit little endian file; the lengths of sequences around it are put right."""
    value += b" " * (len(value) % 2)
    all_places = places(content)
    one = next(other for other in all_places if other.keyword == keyword)
    longer = len(value) - one.length
    damaged = bytearray(content)
    for around in all_places:
        if around.start < one.start and around.end >= one.end and around.length:
            struct.pack_into("<I", damaged, around.value - 4, around.length + longer)
    form = "<I" if one.vr in LONG else "<H"
    struct.pack_into(form, damaged, one.value - struct.calcsize(form), len(value))
    return bytes(damaged[: one.value]) + value + bytes(damaged[one.end :])


NO_NUMBERS = (b"NaN", b"Inf", b"-inf", b"1e400", b"-1e400", b"1,5", b"abc", b"1\\2\\3\\4\\5\\6\\7", b"0x10", b"1_000",
              b"--1", b"1e", b".", b"\\", b"\xff\xfe", b"1" * 60_000 + b"x", b"\0\0\x01")  # fmt: skip
NO_DATES = (b"20231332", b"20230230", b"00000000", b"2023", b"99999999", b"tomorrow", b"2023-05-01", b"20230501\\1")
NO_TIMES = (b"256060", b"116099", b"noon", b"11:0", b"110000.1234567", b"-10000", b"110000\\120000")


def values() -> Iterator[Variant]:
    """Values that mean nothing: of one slice, and of all."""
    numbers = {
        "PixelSpacing": (b"0\\0", b"-2\\3", b"1e300\\1e300", b"1e-300\\1e-300", b"2"),
        "ImagePositionPatient": (b"1e300\\0\\0", b"0\\0", b"1e39\\2e39\\3e39"),
        "ImageOrientationPatient": (b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0", b"2\\0\\0\\0\\2\\0",
                                    b"1e200\\0\\0\\0\\1\\0"),
        "RescaleSlope": (b"0", b"-0.0", b"-1", b"1e-60", b"1e60"),
        "RescaleIntercept": (b"1e30", b"-1e300"),
    }  # fmt: skip
    of_pet = {
        "PatientWeight": (b"0", b"-70", b"1e-320", b"1e30", b"0.001"),
        "RadionuclideTotalDose": (b"0", b"-1", b"1e-320", b"1e30"),
        "RadionuclideHalfLife": (b"-6586", b"1e30", b"600"),
        "NumberOfSlices": (),
    }
    for base, table in (("pet", {**numbers, **of_pet}), ("ct", numbers)):
        for keyword, wrong in table.items():
            for value in (*wrong, *(NO_NUMBERS if keyword != "NumberOfSlices" else ())):
                if base == "ct" and value in NO_NUMBERS[5:]:
                    continue
                yield from everywhere_and_once(base, keyword, value, keyword == "RescaleIntercept")
    no_moments = (*NO_DATES, b"00010101000000+2359", b"20230501100000+9999", b"99991231235959-2359", b"20230501")
    for keyword, wrong in (("SeriesDate", NO_DATES), ("SeriesTime", NO_TIMES),
                           ("RadiopharmaceuticalStartDateTime", no_moments)):  # fmt: skip
        for value in wrong:
            yield from everywhere_and_once("pet", keyword, value, False)
    words = {
        "Modality": (b"", b"XX", b"PT\\CT", b"pt", b"\xc3\x28"), "Units": (b"", b"BQML\\GML", b"BQ", b"bqml"),
        "DecayCorrection": (b"", b"STRT", b"START\\NONE"), "CorrectedImage": (b"", b"DECY", b"ATTN"),
    }  # fmt: skip
    for keyword, wrong in words.items():
        for value in wrong:
            yield from everywhere_and_once("pet", keyword, value, False)
    for keyword, form, wrong in (("Rows", "<H", (0, 1, 65535)), ("Columns", "<H", (0, 65535)),
                                 ("BitsAllocated", "<H", (0, 1, 12, 32, 64)), ("BitsStored", "<H", (0, 17, 65535)),
                                 ("HighBit", "<H", (0, 65535)), ("PixelRepresentation", "<H", (2, 65535)),
                                 ("SamplesPerPixel", "<H", (0, 3))):  # fmt: skip
        for value in wrong:
            yield from everywhere_and_once("ct", keyword, struct.pack(form, value), False)


def everywhere_and_once(base: str, keyword: str, value: bytes, only_everywhere: bool) -> Iterator[Variant]:
    files = files_of(base)
    first = min(files)
    shown = value if len(value) < 30 else value[:10] + b"..."
    if not only_everywhere:
        yield Variant(f"{keyword} is {shown!r}", base, changed(base, first, with_value(files[first], keyword, value)))
    every = {name: with_value(content, keyword, value) for name, content in files.items()}
    yield Variant(f"every {keyword} is {shown!r}", base, every)


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<HI", 0, length) if vr in LONG else struct.pack("<H", length)) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


END_OF_ITEM, END_OF_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
PRIVATE = 0x00111001
OPEN = 0xFFFFFFFF


def nested(depth: int, vr: bytes = b"SQ") -> bytes:
    """Sequences of undefined length, each the only item of the one before, all of them closed."""
    opening = element(PRIVATE, vr, item(b"", OPEN), OPEN)
    return opening * depth + (END_OF_ITEM + END_OF_SEQUENCE) * depth


def bombs() -> Iterator[Variant]:
    million = 1_000_000
    inside = {
        "40 deep": nested(40),
        "5000 deep": nested(5000),
        "5000 deep in UN": element(PRIVATE, b"UN", nested(5000)[12:], OPEN),
        "100000 open": element(PRIVATE, b"SQ", item(b"", OPEN), OPEN) * 100_000,
        "a million empty items": element(PRIVATE, b"SQ", item(b"") * million),
        "a million empty items without end": element(PRIVATE, b"SQ", item(b"") * million, OPEN),
        "a million items in UN": element(PRIVATE, b"UN", item(b"") * million + END_OF_SEQUENCE, OPEN),
        "two million empty sequences": element(PRIVATE, b"SQ", b"") * (2 * million),
        "two million empty elements": element(PRIVATE, b"UL", b"") * (2 * million),
        "a wanted sequence of a million items": element(0x00091001, b"SQ", item(b"") * million),
        "length 0xFFFFFFFE": element(PRIVATE, b"OB", b"", 0xFFFFFFFE),
        "length 0xFFFFFFFE of a sequence": element(PRIVATE, b"SQ", item(b""), 0xFFFFFFFE),
        "length 0xFFFFFFFE of an item": element(PRIVATE, b"SQ", item(b"", 0xFFFFFFFE), OPEN),
        "undefined length of text": element(PRIVATE, b"UT", b"text", OPEN),
        "undefined length of UN": element(PRIVATE, b"UN", b"text", OPEN),
        "an item that ends outside": element(PRIVATE, b"SQ", item(element(PRIVATE, b"OB", b"", 100)), OPEN),
        "an end without beginning": END_OF_SEQUENCE,
        "an item without sequence": item(b""),
        "a name of a megabyte": element(0x00100010, b"UT", b"Quagmire^Zebulon " * 60_000),
    }
    for name, bomb in inside.items():
        for base in ("pet", "nm") if len(bomb) < million else ("nm",):
            first, content = min(files_of(base).items())
            at = place(content, "PatientName").start
            kept = place(content, "PatientName").end if "a name" in name else at
            yield Variant(name, base, changed(base, first, content[:at] + bomb + content[kept:]))
    first, content = min(files_of("pet:deflated").items())
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    data_set = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    bit_by_bit = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"".join(bit_by_bit.compress(bytes(1 << 24)) for _ in range(128)) + bit_by_bit.flush()
    many = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    empty = element(PRIVATE, b"UL", b"") * (1 << 18)
    sequences = many.compress(data_set[:8]) + b"".join(many.compress(empty) for _ in range(64)) + many.flush()
    for name, stream in {"2 GiB of zeros": zeros, "128 MiB of elements": sequences, "no stream": b"\xff" * 500}.items():
        yield Variant(name, "pet:deflated", changed("pet:deflated", first, content[:start] + stream))
    for frames in (b"1000000000", b"2147483647", b"1e400", b"-1", b"0", b"3.5", b"65536"):
        content = with_value(files_of("nm")["1"], "NumberOfFrames", frames)
        yield Variant(f"NumberOfFrames {frames!r}", "nm", {"1": content})
    for base in ("ct", "ct:rle", "nm"):
        for rows, columns in ((65535, 65535), (40000, 1), (1, 40000)):
            files = {}
            for name, content in files_of(base).items():
                content = with_value(content, "Rows", struct.pack("<H", rows)) if base != "ct:rle" else content
                files[name] = sized(content, rows, columns)
            yield Variant(f"{rows} x {columns} pixels", base, files)
    files = {}
    for name, content in files_of("ct").items():
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.Rows, dataset.Columns, dataset.PixelData = 40000, 1, bytes(80000)
        files[name] = saved(dataset)
    yield Variant("more rows than NIfTI has", "ct", files)


def sized(content: bytes, rows: int, columns: int) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.Rows, dataset.Columns = rows, columns
    return saved(dataset)


def folders() -> Iterator[Variant]:
    """Trees that are nasty, beside a whole series."""

    def link(target):
        return lambda folder: (folder / "link").symlink_to(target)

    def loop(folder):
        (folder / "a").symlink_to("b")
        (folder / "b").symlink_to("a")

    def deep(folder):
        for _ in range(60):
            folder = folder / "deep"
            folder.mkdir()
        (folder / "up").symlink_to("../../..")

    def speak(folder):
        here = os.open(folder, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{here}/socket.dcm")
        os.close(here)

    trees = {
        "a link to the folder itself": link("."),
        "a link to the folder above": link(".."),
        "a link to itself": link("link"),
        "a link to nothing": link("nothing.dcm"),
        "a link to endless zeros": link("/dev/zero"),
        "two links in a circle": loop,
        "sixty folders and a link back": deep,
        "a pipe": lambda folder: os.mkfifo(folder / "pipe.dcm"),
        "a link to a pipe": lambda folder: (os.mkfifo(folder / "pipe"), (folder / "x.dcm").symlink_to("pipe")),
        "a socket": speak,
        "a folder called .dcm": lambda folder: (folder / "1.dcm").mkdir(),
        "an empty file called .dcm": lambda folder: (folder / "1.dcm").touch(),
        "an empty file": lambda folder: (folder / "95").touch(),
        "zeros called .dcm": lambda folder: (folder / "1.dcm").write_bytes(bytes(5000)),
        "zeros": lambda folder: (folder / "95").write_bytes(bytes(5000)),
        "text called .dcm": lambda folder: (folder / "read me.DCM").write_text("not an image"),
        "text": lambda folder: (folder / "README").write_text("not an image"),
        "hidden rubbish": lambda folder: (folder / "._1.dcm").write_bytes(bytes(10)),
        "no more than DICM": lambda folder: (folder / "1").write_bytes(bytes(128) + b"DICM"),
        "a broken file with a name that is not UTF-8": lambda folder: (folder / "\udcff.dcm").write_bytes(b"x"),
        "a broken file with a line in its name": lambda folder: (folder / "a\nb.dcm").write_bytes(b"x"),
        "a broken file called as the patient": lambda folder: (folder / "QUAGMIRE.dcm").write_bytes(b"x"),
        "an unreadable file": lambda folder: ((folder / "1.dcm").touch(), (folder / "1.dcm").chmod(0)),
    }  # fmt: skip
    for base in ("pet", "ct", "nm"):
        for name, damage in trees.items():
            yield Variant(name, base, files_of(base), damage)
    for base in ("pet", "ct"):
        first = min(files_of(base))
        for content in (b"", bytes(len(files_of(base)[first])), bytes(100), b"\x7fELF\0" * 300):
            yield Variant(f"{content[:4]!r} in place of a slice", base, changed(base, first, content))
        renamed = {os.fsdecode(b"\xff\xfe" + name.encode()): content for name, content in files_of(base).items()}
        yield Variant("names that are not UTF-8", base, renamed)
        renamed[os.fsdecode(b"\xff\xfe" + first.encode())] = files_of(base)[first][:900]
        yield Variant("a broken one of names that are not UTF-8", base, renamed)


def headers_that_quote() -> Iterator[Variant]:
    """Identifying text, or text of several lines, in elements that messages tell of."""
    files = files_of("pet")
    for keyword, value in {
        "SeriesDescription": b"Quagmire^Zebulon\r\nborn 19500203",
        "SeriesDate": b"19500203 Quagmire",
        "PatientWeight": b"Quagmire",
        "Units": b"Mercy-Hospital",
        "DecayCorrection": b"PID-0815",
        "CorrectedImage": b"ACC4711\\ATTN",
    }.items():
        every = {name: with_value(content, keyword, value) for name, content in files.items()}
        yield Variant(f"{keyword} is {value!r}", "pet", every)
        if keyword == "SeriesDescription":  # and a reason to list the series
            every = {name: with_value(content, "Modality", b"CT") for name, content in every.items()}
            yield Variant(f"{keyword} is {value!r} of no PET", "pet", every)


KINDS = (truncated, flipped_structure, flipped_values, elements, syntaxes, values, bombs, folders, headers_that_quote)


# --- the judgement ----------------------------------------------------------------------------------------------------


@contextmanager
def limits() -> Iterator[None]:
    """Seconds of work, seconds of waiting (for a pipe, say), and memory beyond what the process has now."""

    def stop(*_):
        raise Hang

    before = [signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)]
    memory = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, memory[1]))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, memory)
        for kind, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(kind, handler)


@dataclass(frozen=True)
class Outcome:
    """What an import came to: the sentence that refuses, or the image and its sidecar."""

    refused: str | None
    image: bytes = b""
    sidecar: Mapping = None

    @property
    def flags(self) -> set[str]:
        return set(self.sidecar["flags"])


def written(files: Files, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def outcome(base: str, folder: Path, output: Path) -> Outcome:
    output.mkdir()
    try:
        image = import_folder(base, folder, output)
    except TheraflowError as error:
        return Outcome(str(error))
    return Outcome(None, image.read_bytes(), read_sidecar(image))


def faults(variant: Variant, found: Outcome, whole: Outcome, folder: Path, output: Path) -> Iterator[str]:
    """What is wrong with an outcome; nothing, if it is one of those that the docstring of this module allows."""
    left = {path.name for path in output.iterdir()}
    if found.refused is not None:
        sentence = found.refused
        if left:
            yield f"leaves {left}"
        if not re.search(r"\([0-9A-F]{4},[0-9A-F]{4}\)", sentence) and str(folder) not in sentence:
            yield f"names neither file nor tag: {sentence}"
        if (
            "\n" in sentence
            or not sentence.isprintable()
            or len(sentence.replace(str(folder), "")) > 600
            or sentence[-1] not in ".)"
        ):
            yield f"is not one sentence: {sentence!r}"
        if re.search(r"Traceback|Exception|object at 0x|Errno", sentence):
            yield f"speaks of the program: {sentence}"
    else:
        name = {"pet": "pet", "ct": "ct", "nm": "spect"}[variant.base.partition(":")[0]]
        if not left <= {f"{name}.nii", f"{name}.json", "series.tsv", f"{name}.series.tsv"}:
            yield f"leaves {left}"
        differ = [
            key for key, value in whole.sidecar.items() if key != "flags" and contradicts(found.sidecar[key], value)
        ]
        if (found.image != whole.image or differ) and found.flags <= whole.flags:
            yield f"differs in silence: image {found.image != whole.image}, sidecar {differ}"
    told = (found.refused or "") + "".join(path.read_text() for path in output.iterdir() if path.suffix != ".nii")
    leaked = [word for word in IDENTITY if word.lower() in told.lower()]
    if leaked:
        yield f"tells {leaked}: {found.refused}"


def contradicts(found: Any, whole: Any) -> bool:
    """Whether a value of the sidecar is another one; one that is null or has a reason says so itself."""
    if isinstance(found, dict) and isinstance(whole, dict):
        if found.get("reason"):
            return False
        return any(contradicts(found.get(key), value) for key, value in whole.items())
    return found is not None and found != whole


def examine(variant: Variant, whole: Outcome, root: Path) -> tuple[str, list[str]]:
    """What becomes of a variant, in one word, and what is wrong with that."""
    folder, output = written(variant.files, root / "dicom"), root / "results"
    variant.also(folder)
    try:
        with limits():
            holds_ct(folder)
            found = outcome(variant.base, folder, output)
    except Hang:
        return "hangs", [f"works more than {CPU_SECONDS} s or waits more than {SECONDS} s"]
    except Exception as error:
        return "crashes", [f"{type(error).__name__}: {error} {traceback.extract_tb(error.__traceback__)[-3:]}"]
    wrong = list(faults(variant, found, whole, folder, output))
    if found.refused is not None:
        return "refused", wrong
    return "unharmed" if found.image == whole.image else "flagged", wrong


def test_the_variants_see_the_elements_that_pydicom_sees():
    for base in ("pet", "ct", "nm", "pet:implicit", "pet:big"):
        for content in files_of(base).values():
            dataset = pydicom.dcmread(io.BytesIO(content))
            listed = [one.tag for one in (*dataset.file_meta.iterall(), *dataset.iterall())]
            assert [one.tag for one in places(content) if one.tag != 0xFFFEE000] == listed


def judge(kinds: Mapping[str, Iterator[Variant]], undamaged: Callable[[str], Files], root: Path):
    """How many distinct variants of each kind came to what, and what is wrong with any."""
    whole, seen, counts, wrong = {}, set(), Counter(), []
    for kind, variants in kinds.items():
        for number, variant in enumerate(variants):
            base = variant.base
            if base not in whole:
                whole[base] = outcome(base, written(undamaged(base), root / base), root / f"{base} results")
                assert whole[base].refused is None, whole[base].refused
            content = hash((base, tuple(sorted(variant.files.items()))))
            if variant.files != undamaged(base):
                if content in seen:
                    continue
                seen.add(content)
            elif variant.also is untouched:
                continue
            result, faults_ = examine(variant, whole[base], root / f"{kind} {number}")
            counts[kind, result] += 1
            wrong += [f"{kind}, {base}: {variant.name}: {fault}" for fault in faults_]
    summary = "\n".join(f"{kind} {result}: {number}" for (kind, result), number in sorted(counts.items()))
    assert not wrong, "\n".join([*wrong, f"{len(wrong)} faults", summary])
    return counts, summary


def refused(counts: Counter) -> float:
    return sum(number for (_, result), number in counts.items() if result == "refused") / counts.total()


def test_damaged_input_is_refused_in_one_sentence_or_imported_unharmed(tmp_path):
    counts, summary = judge({kind.__name__: kind() for kind in KINDS}, files_of, tmp_path)
    assert counts.total() >= 500
    assert refused(counts) > 0.75, summary
    assert all(counts[kind.__name__, "refused"] for kind in KINDS), summary


@pytest.mark.shared_data
def test_damaged_real_series(shared_data, tmp_path):
    jpeg_2000 = sorted((shared_data / "ct_totalsegmentator" / "example_ct_dicom").iterdir(), key=height)[:3]
    in_suv = (shared_data / "sts_cohort" / "STS_001" / "PET" / "image").iterdir()
    series = {
        base: {path.name: path.read_bytes() for path in paths}
        for base, paths in (("ct:jpeg 2000", jpeg_2000), ("pet:in SUV", in_suv))
    }
    kinds = {"truncated": truncated_anywhere(series), "compressed pixels": compressed(series["ct:jpeg 2000"])}
    counts, summary = judge(kinds, series.__getitem__, tmp_path)
    assert refused(counts) == 1.0, summary
    assert counts.total() >= 90


def height(path: Path) -> float:
    return float(pydicom.dcmread(path, specific_tags=["ImagePositionPatient"]).ImagePositionPatient[2])


def truncated_anywhere(series: Mapping[str, Files]) -> Iterator[Variant]:
    for base, files in series.items():
        name = max(files)
        for cut in np.linspace(140, len(files[name]) - 1, 40).astype(int):
            yield Variant(f"cut at {cut}", base, {**files, name: files[name][:cut]})


def compressed(files: Files) -> Iterator[Variant]:
    """A stream of JPEG 2000 that is cut, or states another size, in fragments that are whole."""
    name = min(files)

    def with_stream(what, stream):
        dataset = pydicom.dcmread(io.BytesIO(files[name]))
        dataset.PixelData = encapsulate([stream])
        return Variant(what, "ct:jpeg 2000", {**files, name: saved(dataset)})

    (whole,) = generate_frames(pydicom.dcmread(io.BytesIO(files[name])).PixelData, number_of_frames=1)
    for part in (0.001, 0.1, 0.5, 0.9, 0.99):
        yield with_stream(f"{part} of the stream", whole[: int(part * len(whole)) // 2 * 2])
    for columns, rows in ((513, 512), (512, 33280), (65535, 65535), (0, 0), (1 << 31, 1 << 31)):
        yield with_stream(f"{columns} x {rows} pixels", whole[:8] + struct.pack(">II", columns, rows) + whole[16:])
    yield with_stream("no stream", bytes(2))
    yield with_stream("zeros", bytes(1000))
