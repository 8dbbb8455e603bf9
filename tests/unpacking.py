"""All that a file holds, also what is packed, encoded or compressed in it: for tests that search for a word."""

import base64
import binascii
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator

import pyarrow.parquet as pq

BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4}){16,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
PDF_STREAM = re.compile(rb"<<(.{0,2000}?)>>\s*stream\r?\n(.*?)\r?\n?endstream", re.DOTALL)
PDF_STRING = re.compile(rb"\(((?:[^()\\]|\\.)*)\)")
PNG = b"\x89PNG\r\n\x1a\n"


def contents(data: bytes) -> Iterator[bytes]:
    """The bytes themselves and, at any depth, those of everything packed in them.

    Knows gzip, zlib and deflated streams, zip (also xlsx), PNG with its text, PDF with its streams, Parquet, and
    base64 wherever it stands, as in HTML, SVG and JavaScript.
    """
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield from contents(gzip.decompress(data))
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from contents(archive.read(name))
    elif data.startswith(PNG):
        yield from _png(data)
    elif data.startswith(b"%PDF"):
        yield from _pdf(data)
    elif data.startswith(b"PAR1"):
        table = pq.read_table(io.BytesIO(data))
        yield repr((table.schema.metadata, [field.metadata for field in table.schema])).encode()
        yield repr(table.to_pydict()).encode()
    else:
        for found in BASE64.finditer(data):
            yield from contents(base64.b64decode(found.group()))


def _png(data: bytes) -> Iterator[bytes]:
    """The text of a picture, and its samples."""
    position, samples = len(PNG), b""
    while position < len(data):
        size, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        chunk = data[position + 8 : position + 8 + size]
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            for start in range(len(chunk)):
                if chunk[start : start + 1] == b"\x78":  # a zlib stream begins so
                    try:
                        yield zlib.decompress(chunk[start:])
                    except zlib.error:
                        continue
        samples += chunk if kind == b"IDAT" else b""
        position += 12 + size
    yield zlib.decompress(samples)


def _pdf(data: bytes) -> Iterator[bytes]:
    """Streams, and the words of those that show text letter by letter."""
    for described, stream in PDF_STREAM.findall(data):
        for name in re.findall(rb"/(ASCII85Decode|FlateDecode)", described):
            try:
                stream = (
                    base64.a85decode(b"<~" + stream.strip().removeprefix(b"<~"), adobe=True)
                    if name == b"ASCII85Decode"
                    else zlib.decompressobj().decompress(stream)
                )
            except (ValueError, zlib.error, binascii.Error):
                break
        yield from contents(stream)
        yield b"".join(PDF_STRING.findall(stream))
