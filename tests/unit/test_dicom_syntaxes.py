"""The same series in every transfer syntax and pixel format gives the same voxels."""

import re

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_series import ct, pet, stacked, write_slices
from theraflow.dicom import holds_ct
from theraflow.dicom.export.index import read_index
from theraflow.dicom.voxels.volume import ct_slices, rescale, scaled_slices, stack_slices
from theraflow.errors import TheraflowError

SHAPE = (32, 40)
# Values of all sizes, among them such that a swapped or cut byte would be seen.
STORED = np.random.default_rng(3).integers(0, 4096, (3, *SHAPE))
SLOPES = [0.5, 1.25, 2.0]
LEFT_OUT = object()


def native(path, syntax):
    """Write one file again, uncompressed, without looking at the values."""
    dataset = pydicom.dcmread(path)
    for _ in dataset.iterall():
        pass  # pydicom translates only elements that it has decoded
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        path,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        force_encoding=True,
    )


def compressed(path, syntax):
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)


def jpeg_lossless(path, _):
    """Process 14, selection value 1, by GDCM, which alone here can write it."""
    dataset, writer = pydicom.dcmread(path), sitk.ImageFileWriter()
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    other = path.with_name("gdcm.dcm")
    writer.SetFileName(str(other))
    writer.Execute(sitk.GetImageFromArray(dataset.pixel_array))
    written = pydicom.dcmread(other)
    assert written.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    other.unlink()
    dataset.PixelData = written.PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
    dataset.save_as(path)


def bare(path, keep_meta):
    """Without preamble, and without the meta group, too: then the default transfer syntax holds."""
    native(path, ImplicitVRLittleEndian)
    content = path.read_bytes()[132:]
    if not keep_meta:
        content = content[12 + int.from_bytes(content[8:12], "little") :]
    path.write_bytes(content)


WAYS = {
    "implicit little endian": (native, ImplicitVRLittleEndian),
    "explicit little endian": (native, ExplicitVRLittleEndian),
    "explicit big endian": (native, ExplicitVRBigEndian),
    "deflated": (native, DeflatedExplicitVRLittleEndian),
    "no preamble": (bare, True),
    "no meta group": (bare, False),
    "RLE": (compressed, RLELossless),
    "JPEG 2000": (compressed, JPEG2000Lossless),
    "JPEG-LS": (compressed, JPEGLSLossless),
    "JPEG lossless": (jpeg_lossless, None),
}


def stack(folder):
    (series,) = read_index(folder).whole().series
    return stack_slices(series)


def series(template, folder, stored=STORED, **changes):
    template.Rows, template.Columns = stored.shape[1:]
    for keyword, value in changes.items():
        setattr(template, keyword, value)
    slopes = [{"RescaleSlope": slope} for slope in SLOPES] if template.Modality == "PT" else ()
    return write_slices(template, stored, folder, slopes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("template", [ct, pet])
def test_every_transfer_syntax_gives_the_same_voxels(tmp_path, template, way):
    change, syntax = WAYS[way]
    for path in series(template(), tmp_path):
        change(path, syntax)
    found = stack(tmp_path)
    if template is ct:
        assert np.array_equal(stacked(ct_slices(found)), STORED - 1024)
    else:
        slopes = [rescale(one)[0] for one in found.slices]
        assert slopes == SLOPES
        expected = STORED * np.array(SLOPES)[:, None, None]
        assert np.array_equal(stacked(scaled_slices(found, slopes, [0.0] * 3)), expected)
    assert found.grid.origin == (10.0, 20.0, 30.0) and found.grid.spacing == (3.0, 2.0, 4.0)
    assert not found.flags
    assert holds_ct(tmp_path) is (template is ct)


def test_mixed_syntaxes_in_one_series(tmp_path):
    ways = [WAYS["explicit big endian"], WAYS["RLE"], WAYS["deflated"]]
    for path, (change, syntax) in zip(series(ct(), tmp_path), ways, strict=True):
        change(path, syntax)
    assert np.array_equal(stacked(ct_slices(stack(tmp_path))), STORED - 1024)


@pytest.mark.parametrize("way", ["explicit little endian", "explicit big endian", "RLE"])
@pytest.mark.parametrize(("signed", "offset"), [(0, 0), (1, 2048)], ids=["unsigned", "signed"])
def test_twelve_bits_below_an_overlay(tmp_path, way, signed, offset):
    """The four bits above BitsStored hold an overlay (PS3.5 8.1.2, retired) and are no part of the value."""
    overlay = np.random.default_rng(4).integers(0, 16, STORED.shape) << 12
    values = STORED - offset
    words = (values & 0x0FFF) | overlay
    change, syntax = WAYS[way]
    template = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed, "RescaleIntercept": 0}
    for path in series(ct(), tmp_path, words, **template):
        change(path, syntax)
    assert np.array_equal(stacked(ct_slices(stack(tmp_path))), np.maximum(values, -1024))


@pytest.mark.parametrize("way", ["explicit little endian", "RLE", "JPEG 2000", "JPEG-LS"])
def test_signed_sixteen_bits(tmp_path, way):
    values = STORED * 8 - 16000
    paths = series(ct(), tmp_path, values & 0xFFFF, PixelRepresentation=1, RescaleIntercept=0)
    change, syntax = WAYS[way]
    for path in paths:
        change(path, syntax)
    slices = scaled_slices(stack(tmp_path), [1.0] * 3, [0.0] * 3)
    assert np.array_equal(stacked(slices), values)


@pytest.mark.parametrize(("bits", "columns"), [(8, 16), (8, 15), (32, 16)])
@pytest.mark.parametrize("signed", [0, 1])
def test_eight_and_thirty_two_bits(tmp_path, bits, columns, signed):
    kind = np.dtype(f"{'ui'[signed]}{bits // 8}")
    limits = np.iinfo(kind)
    # 11 x 15 voxels of 8 bits are padded to an even number of bytes.
    values = np.random.default_rng(5).integers(limits.min, limits.max, (3, 11, columns), kind, endpoint=True)
    paths = series(ct(), tmp_path, np.zeros(values.shape))
    for path, pixels in zip(paths, values, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, signed
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        dataset.save_as(path)
    slices = stacked(scaled_slices(stack(tmp_path), [1.0] * 3, [0.0] * 3))
    assert np.array_equal(slices, values.astype(np.float32))


@pytest.mark.parametrize("stated", ["01", LEFT_OUT])
def test_compression_with_loss_is_flagged(tmp_path, stated):
    for path in series(ct(), tmp_path, **({} if stated is LEFT_OUT else {"LossyImageCompression": stated})):
        dataset = pydicom.dcmread(path)
        dataset.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
        if stated is LEFT_OUT and "LossyImageCompression" in dataset:
            del dataset.LossyImageCompression
        dataset.save_as(path)
    found = stack(tmp_path)
    assert any("compressed with loss" in flag for flag in found.flags)
    apart = np.abs(stacked(ct_slices(found)) - (STORED - 1024)).max()
    assert 0 < apart <= 2


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
        ("1.3.46.670589.33.1.4.1", "1.3.46.670589.33.1.4.1"),  # Philips' own
    ],
)
@pytest.mark.parametrize("encapsulated", [True, False])
def test_what_cannot_be_decoded_is_refused_by_the_name_of_its_syntax(tmp_path, syntax, name, encapsulated):
    for path in series(ct(), tmp_path):
        if encapsulated:
            compressed(path, RLELossless)
        content = path.read_bytes()
        before = b"1.2.840.10008.1.2.5\0" if encapsulated else b"1.2.840.10008.1.2.1\0"
        at = content.index(before)
        replaced = syntax.encode() + b"\0" * (len(syntax) % 2)
        length = len(replaced).to_bytes(2, "little")
        content = content[: at - 2] + length + replaced + content[at + len(before) :]
        path.write_bytes(content)
    with pytest.raises(TheraflowError, match=rf"09[567]: .*transfer syntax.*{re.escape(name)}"):
        stacked(ct_slices(stack(tmp_path)))


@pytest.mark.parametrize(
    ("stated", "encapsulated"), [(JPEG2000Lossless, False), (ExplicitVRLittleEndian, True)], ids=["raw", "compressed"]
)
def test_pixels_that_contradict_the_stated_syntax_are_refused(tmp_path, stated, encapsulated):
    for path in series(ct(), tmp_path):
        dataset = pydicom.dcmread(path)
        if encapsulated:
            dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
        content = path.read_bytes()
        before = dataset.file_meta.TransferSyntaxUID.encode()
        after = UID(stated).encode()
        at = content.index(before)
        before, after = (one + b"\0" * (len(one) % 2) for one in (before, after))
        length = len(after).to_bytes(2, "little")
        path.write_bytes(content[: at - 2] + length + after + content[at + len(before) :])
    with pytest.raises(TheraflowError, match=r"09[567].*transfer syntax"):
        stacked(ct_slices(stack(tmp_path)))
