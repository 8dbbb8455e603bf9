"""DICOM files grouped to series, and what each series is."""

import datetime
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np

from theraflow.dicom.export.header import acquisition_start, corrections, integer, numbers, readable, text, words
from theraflow.dicom.export.parse import DicomFile, Header
from theraflow.errors import TheraflowError
from theraflow.nuclides import nuclide

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DOSE_REPORTS = ("1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.68")


class Kind(StrEnum):
    """What a series shows, in the words of the table of series."""

    CT = "CT axial"
    CT_REFORMATTED = "CT not axial"
    CT_PROJECTION = "CT projection"
    CT_SCOUT = "CT scout"
    PET = "PET attenuation-corrected"
    PET_UNCORRECTED = "PET not attenuation-corrected"
    PET_DYNAMIC = "PET dynamic"
    PET_GATED = "PET gated"
    PET_PROJECTION = "PET projection"
    PET_PARAMETRIC = "PET parametric"
    SPECT_AS_PET = "SPECT stored as PT"
    SPECT = "SPECT reconstruction"
    SPECT_GATED = "SPECT gated"
    SPECT_PROJECTIONS = "SPECT projections"
    SPECT_TRANSMISSION = "SPECT transmission"
    PLANAR_WHOLE_BODY = "planar whole body"
    PLANAR = "planar"
    SEGMENTATION = "segmentation"
    STRUCTURES = "structure set"
    REPORT = "structured report"
    DOSE_REPORT = "dose report"
    SCREENSHOT = "secondary capture"
    OTHER = "other"


# By the third value of ImageType (PS3.3 C.8.4.9).
_NM_KINDS = {
    "RECON TOMO": Kind.SPECT,
    "RECON GATED TOMO": Kind.SPECT_GATED,
    "TOMO": Kind.SPECT_PROJECTIONS,
    "GATED TOMO": Kind.SPECT_PROJECTIONS,
    "WHOLE BODY": Kind.PLANAR_WHOLE_BODY,
    "STATIC": Kind.PLANAR,
    "DYNAMIC": Kind.PLANAR,
    "GATED": Kind.PLANAR,
}
# What ImageType says of maximum and minimum intensity projections and of renderings: GE `PROJECTION IMAGE`, Siemens
# `CT_SOM5 MIP`, enhanced objects `MAXIMUM` and `MAX_IP`.
_PROJECTED = re.compile(r"\b(MIP|M(IN|AX)[ _]?IP|MAXIMUM|MINIMUM|VRT|VOLUME[ _]RENDER\w*|(RE)?PROJECTION)\b")
# Pages of text and pictures that scanners store as images: GE `SCREEN SAVE`, Siemens `CT_SOM5 PROT`.
_PAGE = re.compile(r"\b(SCREEN[ _]?SAVE|SCREENSHOT|PROT)\b")
# Units (PS3.3 C.8.9.1.1.3) of quantities that models compute, and of attenuation (1CM), not of measured activity.
_PARAMETRIC = {"CM2", "PCNT", "MGMINML", "UMOLMINML", "MLMING", "MLG", "1CM", "UMOLML", "MLMINML", "MLML", "STDDEV"}
_OTHER_KINDS = {"SEG": Kind.SEGMENTATION, "RTSTRUCT": Kind.STRUCTURES, "SR": Kind.REPORT}


@dataclass(frozen=True, eq=False)
class Instance:
    """One DICOM file and the part of its header that the import uses."""

    path: Path
    file: DicomFile

    @property
    def header(self) -> Header:
        """Its elements."""
        return self.file.header


@dataclass(frozen=True, eq=False)
class Series:
    """The files of one SeriesInstanceUID, in no order; `flags` are remarks on them."""

    instances: tuple[Instance, ...]
    flags: tuple[str, ...] = ()

    @property
    def header(self) -> Header:
        """The header of the first file, for what is the same in all of them."""
        return self.instances[0].header

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; empty where anonymisation emptied it."""
        return text(self.header, "SeriesInstanceUID") or ""

    @property
    def modality(self) -> str:
        """Modality."""
        return text(self.header, "Modality") or ""

    @property
    def frame_of_reference(self) -> str | None:
        """FrameOfReferenceUID."""
        return text(self.header, "FrameOfReferenceUID")

    @cached_property
    def kind(self) -> Kind:
        """What the series shows."""
        kind = _kind(self.header)
        return Kind.CT_REFORMATTED if kind == Kind.CT and not self.axial else kind

    @cached_property
    def slices(self) -> int:
        """Number of slices, in files or frames."""
        return sum(readable(integer, instance.header, "NumberOfFrames") or 1 for instance in self.instances)

    @cached_property
    def extent_mm(self) -> float:
        """Distance between the first and the last slice; of one file with frames, by their spacing."""
        if len(self._positions) < 2:
            spacing = numbers_or_none(self.header, "SpacingBetweenSlices", 1)
            return abs(spacing[0]) * (self.slices - 1) if spacing else 0.0
        return float(np.linalg.norm(np.ptp(np.array(self._positions), axis=0)))

    @cached_property
    def places(self) -> int:
        """Number of different places of the slices: less than `slices` where one is shown at several times."""
        if len(self._positions) < 2:
            return self.slices
        return len({tuple(round(value, 2) for value in position) for position in self._positions})

    @cached_property
    def _positions(self) -> list[tuple[float, ...]]:
        found = (position for instance in self.instances for position in _positions(instance.header))
        return [position for position in found if position is not None]

    @cached_property
    def axial(self) -> bool:
        """Whether slices lie across the body: their normal is closer to its long axis than to any other."""
        orientation = _orientation(self.header)
        # Without orientation it is missed by name when the slices are stacked.
        return orientation is None or int(np.argmax(np.abs(np.cross(orientation[:3], orientation[3:])))) == 2

    @cached_property
    def acquired_at(self) -> datetime.datetime | None:
        """Start of the acquisition: the earliest of its files, or None."""
        times = [readable(acquisition_start, instance.header) for instance in self.instances]
        return min((time for time in times if time is not None), default=None)

    def __str__(self) -> str:
        """How messages name the series."""
        description = text(self.header, "SeriesDescription")
        quoted = f" '{description}'" if description else ""
        when = f", acquired {self.acquired_at:%Y-%m-%d %H:%M}" if self.acquired_at else ""
        name = self.uid or "(without UID)"
        return f"{self.modality} series {name}{quoted} ({self.kind}) with {self.slices} slices{when}"


def numbers_or_none(header: Header, keyword: str, count: int) -> tuple[float, ...] | None:
    """Numbers, or None also where they cannot be read: for choosing, not for computing."""
    return readable(numbers, header, keyword, count)


def _positions(header: Header) -> list[tuple[float, ...] | None]:
    frames = header.items("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [numbers_or_none(header, "ImagePositionPatient", 3)]
    planes = (plane for frame in frames for plane in frame.items("PlanePositionSequence"))
    return [numbers_or_none(plane, "ImagePositionPatient", 3) for plane in planes]


def _kind(header: Header) -> Kind:
    modality, what = text(header, "Modality") or "", words(header, "ImageType") or ()
    sop_class = text(header, "SOPClassUID") or ""
    if modality in _OTHER_KINDS:
        return Kind.DOSE_REPORT if sop_class in _DOSE_REPORTS else _OTHER_KINDS[modality]
    if sop_class.startswith(_SECONDARY_CAPTURE) or (modality in ("CT", "PT", "NM") and _is_page(header, what)):
        return Kind.SCREENSHOT
    if modality == "CT":
        return _kind_of_ct(what)
    if modality == "NM":
        return _kind_of_nm(what)
    return _kind_of_pet(header, what) if modality == "PT" else Kind.OTHER


def _is_page(header: Header, what: tuple[str, ...]) -> bool:
    placeless = "DERIVED" in what and _orientation(header) is None and text(header, "Modality") != "NM"
    coloured = readable(integer, header, "SamplesPerPixel") not in (None, 1)
    return coloured or placeless or any(map(_PAGE.search, what))


def _kind_of_ct(what: tuple[str, ...]) -> Kind:
    if "LOCALIZER" in what:
        return Kind.CT_SCOUT
    return Kind.CT_PROJECTION if any(map(_PROJECTED.search, what)) else Kind.CT


def _kind_of_nm(what: tuple[str, ...]) -> Kind:
    kind = _NM_KINDS.get(what[2] if len(what) > 2 else "", Kind.OTHER)
    # Attenuation maps are reconstructions, too.
    return Kind.SPECT_TRANSMISSION if kind == Kind.SPECT and "TRANSMISSION" in what[3:] else kind


def _kind_of_pet(header: Header, what: tuple[str, ...]) -> Kind:
    series_type = words(header, "SeriesType") or ()
    if any(map(_PROJECTED.search, (*series_type, *what))):
        return Kind.PET_PROJECTION
    if text(header, "Units") in _PARAMETRIC:
        return Kind.PET_PARAMETRIC
    if "DYNAMIC" in series_type:
        return Kind.PET_DYNAMIC
    if "GATED" in series_type:
        return Kind.PET_GATED
    # Without any word on corrections nothing is excluded: the tag is then missed by name when the SUV is computed.
    if "ATTN" not in (corrections(header) or ("ATTN",)):
        return Kind.PET_UNCORRECTED
    return Kind.SPECT_AS_PET if _emits_single_photons(header) else Kind.PET


def _emits_single_photons(header: Header) -> bool:
    for item in header.items("RadiopharmaceuticalInformationSequence"):
        for code in item.items("RadionuclideCodeSequence"):
            try:
                return not nuclide(text(code, "CodeMeaning") or "").positron_emitter
            except TheraflowError:
                continue  # written in no way that we know
    return False


def _orientation(header: Header) -> tuple[float, ...] | None:
    """Directions of rows and columns of the first slice, from wherever the kind of object has them."""
    planes = [
        header,
        *header.items("DetectorInformationSequence"),
        *header.items("SharedFunctionalGroupsSequence"),
        *header.items("PerFrameFunctionalGroupsSequence"),
    ]
    planes += [plane for one in planes for plane in one.items("PlaneOrientationSequence")]
    found = (numbers_or_none(plane, "ImageOrientationPatient", 6) for plane in planes)
    return next((one for one in found if one is not None), None)
