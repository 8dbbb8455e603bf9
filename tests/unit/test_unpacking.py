"""The search of the privacy test finds a word wherever it may hide; otherwise its silence would say nothing."""

import base64
import gzip
import io
import json
import zipfile
import zlib

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from unpacking import contents

WORD = "Zyxwvutova"


def html() -> bytes:
    """In a compressed volume that a page carries as base64, as a viewer has it."""
    voxels = np.random.default_rng(1).bytes(300)
    volume = base64.b64encode(gzip.compress(voxels + WORD.encode())).decode()
    return f"<script>const data = {json.dumps({'ct': volume})}</script>".encode()


def svg_with_png() -> bytes:
    return b'<image href="data:image/png;base64,' + base64.b64encode(png()) + b'"/>'


def png() -> bytes:
    picture, file = plt.figure(figsize=(0.2, 0.2)), io.BytesIO()
    picture.savefig(file, metadata={"Comment": WORD * 200})  # long text is compressed
    plt.close(picture)
    return file.getvalue()


def png_compressed() -> bytes:
    text = b"Comment\x00\x00" + zlib.compress(WORD.encode())
    chunk = len(text).to_bytes(4) + b"zTXt" + text + zlib.crc32(b"zTXt" + text).to_bytes(4)
    plain = png().replace(WORD.encode(), b"")
    first = 8 + 25  # signature and header
    return plain[:8] + plain[8:first] + chunk + plain[first:]


def figure_pdf() -> bytes:
    picture, file = plt.figure(), io.BytesIO()
    picture.text(0.1, 0.5, WORD)
    picture.savefig(file, format="pdf")
    plt.close(picture)
    return file.getvalue()


def document_pdf() -> bytes:
    file = io.BytesIO()
    canvas = Canvas(file, pageCompression=1)
    canvas.drawString(100, 100, WORD)
    canvas.save()
    return file.getvalue()


def document_pdf_with_own_font() -> bytes:
    file = io.BytesIO()
    pdfmetrics.registerFont(TTFont("Vera", "Vera.ttf"))  # comes with reportlab
    canvas = Canvas(file, pageCompression=1)
    canvas.setFont("Vera", 10)
    canvas.drawString(100, 100, WORD)
    canvas.save()
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"patient": [WORD] * 50}), file, compression="zstd")
    return file.getvalue()


def parquet_metadata() -> bytes:
    file = io.BytesIO()
    field = pa.field("volume_ml", pa.float64(), metadata={"meaning": WORD})
    pq.write_table(pa.table([[1.0]], schema=pa.schema([field])), file)
    return file.getvalue()


def workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f"<t>{WORD}</t>")
    return file.getvalue()


def nifti_header() -> bytes:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header["descrip"] = WORD
    return gzip.compress(image.to_bytes())


def nifti_extension() -> bytes:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", WORD.encode()))
    return gzip.compress(image.to_bytes())


HIDING = (html, svg_with_png, png, png_compressed, figure_pdf, document_pdf, document_pdf_with_own_font, parquet,
          parquet_metadata, workbook, nifti_header, nifti_extension)  # fmt: skip


@pytest.mark.parametrize("hide", HIDING, ids=lambda hide: hide.__name__)
def test_a_word_is_found_in(hide):
    assert any(WORD.encode() in part for part in contents(hide()))
