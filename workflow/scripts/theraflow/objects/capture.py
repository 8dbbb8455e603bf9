"""A picture for reading rooms that show nothing else: the projections of a PET with its lesions."""

import io

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from theraflow.objects.instance import RESEARCH_USE, common, sealed
from theraflow.objects.origin import Origin

_BAND, _MARGIN, _LETTERS = 34, 10, 16  # pixels


def build_capture(png: bytes, caption: str, origin: Origin, series_number: int) -> Dataset:
    """A picture as secondary capture, with a caption above it.

    Args:
        png: the picture.
        caption: one line without anything that tells who the patient is.
        origin: the series that it shows.
        series_number: of the series in its study.
    """
    header = origin.header
    capture = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=header,
        pixel_array=_captioned(png, f"{caption}. {RESEARCH_USE}"),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **common(series_number, caption),
    )
    capture.PatientOrientation = ""  # two projections side by side
    capture.Laterality = ""
    capture.ConversionType = "WSD"
    capture.BurnedInAnnotation = "NO"
    capture.copy_patient_and_study_information(header)
    return sealed(capture, origin)


def _captioned(png: bytes, caption: str) -> np.ndarray:
    """The picture below a white band with the caption, RGB, shape (rows, columns, 3)."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    font = ImageFont.load_default(_LETTERS)
    width = max(picture.width, int(font.getlength(caption)) + 2 * _MARGIN)
    whole = Image.new("RGB", (width, picture.height + _BAND), "white")
    whole.paste(picture, ((width - picture.width) // 2, _BAND))
    ImageDraw.Draw(whole).text((_MARGIN, _MARGIN // 2), caption, fill="black", font=font)
    return np.asarray(whole)
