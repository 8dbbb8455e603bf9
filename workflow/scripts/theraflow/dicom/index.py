"""What lies in a folder of DICOM: its series, the emission series among them, and the CT belonging to it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import MediaStorageDirectoryStorage, SecondaryCaptureImageStorage

from theraflow.dicom.header import (
    GE_REFERENCE_TIME,
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    numbers,
    text,
    words,
)
from theraflow.dicom.sniff import files_below, is_dicom
from theraflow.errors import TheraflowError

logger = logging.getLogger(__name__)

# All that is read of a header; the pixels are read later and only of the series that are wanted.
_TAGS: list[str | int] = [
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "Modality", "Manufacturer", "ManufacturerModelName", "ImageType", "SeriesNumber",
    "SeriesDescription", "SeriesType", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionDateTime", "TimezoneOffsetFromUTC", "Rows", "Columns", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient", "NumberOfFrames",
    "NumberOfSlices", "SliceVector", "DetectorInformationSequence", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RealWorldValueMappingSequence", "Units", "SUVType", "CorrectedImage", "DecayCorrection",
    "FrameReferenceTime", "ActualFrameDuration", "RadiopharmaceuticalInformationSequence", "PatientWeight",
    "PatientSize", "PatientSex", 0x00090010, int(GE_REFERENCE_TIME), 0x70530010, int(PHILIPS_SUV_FACTOR),
    int(PHILIPS_ACTIVITY_FACTOR),
]  # fmt: skip
_IMAGES = {"CT", "PT", "NM"}
# CT series whose axial extent is this fraction of the longest one or more count as equally long.
_SAME_EXTENT = 0.95


@dataclass(frozen=True)
class Instance:
    """One DICOM file and the part of its header that the import uses."""

    path: Path
    header: Dataset


@dataclass(frozen=True)
class Series:
    """The files of one SeriesInstanceUID, in no order."""

    instances: tuple[Instance, ...]

    @property
    def header(self) -> Dataset:
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

    @property
    def slices(self) -> int:
        """Number of slices, in files or frames."""
        return sum(int(instance.header.get("NumberOfFrames") or 1) for instance in self.instances)

    @cached_property
    def extent_mm(self) -> float:
        """Distance between the first and the last ImagePositionPatient."""
        positions = [numbers(instance.header, "ImagePositionPatient", 3) for instance in self.instances]
        known = np.array([position for position in positions if position is not None])
        return float(np.linalg.norm(np.ptp(known, axis=0))) if len(known) else 0.0

    def __str__(self) -> str:
        """How messages name the series."""
        description = text(self.header, "SeriesDescription")
        quoted = f" '{description}'" if description else ""
        return f"{self.modality} series {self.uid or '(without UID)'}{quoted} with {self.slices} slices"


def read_index(folder: Path | str) -> list[Series]:
    """All DICOM series below a folder, in one pass over the headers.

    Names and extensions of files mean nothing, except that a file called `.dcm` has to be DICOM. Other files,
    hidden files and DICOMDIR are passed over.

    Raises:
        TheraflowError: no such folder, no DICOM in it, or a broken file, which is named.
    """
    if not Path(folder).is_dir():
        raise TheraflowError(f"The folder {folder} does not exist; correct the column dicom of scans.tsv.")
    groups: dict[tuple[str, ...], list[Instance]] = {}
    for path in (path for files in files_below(folder) for path in files):
        instance = _read_instance(path)
        if instance is None:
            continue
        header = instance.header
        uid = text(header, "SeriesInstanceUID")
        # Anonymisation may leave the UID empty: then the files of one folder and modality are taken for one
        # series.
        key = (uid,) if uid else ("", str(path.parent), str(header.Modality))
        groups.setdefault(key, []).append(instance)
    if not groups:
        raise TheraflowError(f"No DICOM file lies in {folder}; correct the column dicom of scans.tsv.")
    return [Series(tuple(instances)) for _, instances in sorted(groups.items())]


def _read_instance(path: Path) -> Instance | None:
    if not is_dicom(path):
        if path.suffix.lower() == ".dcm":
            raise TheraflowError(f"{path} is called .dcm but holds no DICOM; export it again or delete it.")
        return None
    with path.open("rb") as file:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            reached, size = file.tell(), path.stat().st_size
            absent = [keyword for keyword in ("Modality", "SeriesInstanceUID") if keyword not in header]
            modality = text(header, "Modality")
        except Exception as error:
            # pydicom has no common exception for a damaged file: struct, EOF, value and attribute errors all
            # occur.
            raise TheraflowError(f"{path} is broken DICOM ({error}); export it again.") from error
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    if absent:
        raise TheraflowError(f"{path} is broken or truncated DICOM without {', '.join(absent)}; export it again.")
    # Reading stops at the pixels; where it came to the end of the file instead there are none.
    if modality in _IMAGES and reached >= size:
        raise TheraflowError(f"{path} is truncated: it ends before its pixel data (7FE0,0010); export it again.")
    return Instance(path, header)


def choose_emission(series: Sequence[Series], quantity: str, forced: str | None, folder: Path | str) -> Series:
    """The series that a scan is measured in.

    `suv`: Modality PT, attenuation corrected (CorrectedImage has ATTN), neither dynamic, gated nor a
    projection.
    `activity`: the same of Modality PT with Units BQML (quantitative SPECT stored as PET), or a tomographic
    reconstruction of Modality NM; one in Bq/mL goes before others, a corrected one before others.

    Args:
        series: all series of the folder.
        quantity: `suv` or `activity`.
        forced: column `series` of scans.tsv: SeriesInstanceUIDs, separated by comma or blank, or None.
        folder: where they lie, for messages.

    Raises:
        TheraflowError: none or several series come into question.
    """
    wanted = {"PT"} if quantity == "suv" else {"PT", "NM"}
    emission = [one for one in series if one.modality in wanted and not _is_screenshot(one)]
    chosen = _forced(emission, series, forced, folder)
    if chosen:
        return _only(chosen, "emission", folder)
    candidates = [one for one in emission if _is_static_volume(one)]
    if quantity == "suv":
        # Without any CorrectedImage nothing is excluded: the tag is then missed by name when the SUV is
        # computed.
        candidates = [one for one in candidates if "ATTN" in (words(one.header, "CorrectedImage") or {"ATTN"})]
    else:
        candidates = [one for one in candidates if one.modality == "NM" or in_bq_per_ml(one.header)]
        candidates = [one for one in candidates if in_bq_per_ml(one.header)] or candidates
        corrected = [one for one in candidates if "ATTN" in (words(one.header, "CorrectedImage") or ())]
        candidates = corrected or candidates
    if not candidates:
        kind = (
            "attenuation-corrected PET (Modality PT, CorrectedImage with ATTN)"
            if quantity == "suv"
            else "tomographic reconstruction (Modality NM, RECON TOMO) or PT in Bq/mL"
        )
        raise TheraflowError(f"{folder} holds no {kind}; it holds {_list(series)}.")
    return _only(candidates, "emission", folder)


def choose_ct(series: Sequence[Series], emission: Series | None, forced: str | None, folder: Path | str) -> Series:
    """The CT of an emission series: same FrameOfReferenceUID, axial, the longest, then most slices.

    Where the emission series states no frame of reference the CT has to be the only one of the same study.
    Without an emission series any CT of the folder comes into question.

    Raises:
        TheraflowError: none or several series come into question.
    """
    all_ct = [one for one in series if one.modality == "CT" and not _is_screenshot(one)]
    chosen = _forced(all_ct, series, forced, folder)
    if chosen:
        return _only(chosen, "CT", folder)
    axial = [one for one in all_ct if _is_axial(one)]
    if emission is not None and emission.frame_of_reference:
        candidates = [one for one in axial if one.frame_of_reference == emission.frame_of_reference]
    elif emission is not None:
        study = emission.header.get("StudyInstanceUID")
        candidates = [one for one in axial if one.header.get("StudyInstanceUID") == study]
        if len(candidates) > 1:
            return _only(candidates, "CT", folder)
    else:
        candidates = axial
    if not candidates:
        raise TheraflowError(
            f"{folder} holds no axial CT in the frame of reference of the emission series; it holds {_list(series)}."
        )
    longest = max(one.extent_mm for one in candidates)
    candidates = [one for one in candidates if one.extent_mm >= _SAME_EXTENT * longest]
    most = max(one.slices for one in candidates)
    return _only([one for one in candidates if one.slices == most], "CT", folder)


def in_bq_per_ml(header: Dataset) -> bool:
    """Whether the header says that the voxels are an activity concentration."""
    return text(header, "Units") == "BQML" or real_world_bq_per_ml(header) is not None


def real_world_bq_per_ml(header: Dataset) -> Dataset | None:
    """The item of RealWorldValueMappingSequence (0040,9096) whose unit is UCUM Bq/ml, or None."""
    for item in header.get("RealWorldValueMappingSequence") or ():
        for code in item.get("MeasurementUnitsCodeSequence") or ():
            if (text(code, "CodeValue") or "").lower() == "bq/ml":
                return item
    return None


def _is_screenshot(series: Series) -> bool:
    return str(series.header.get("SOPClassUID", "")).startswith(SecondaryCaptureImageStorage)


def _is_static_volume(series: Series) -> bool:
    kind = words(series.header, "ImageType") or frozenset()
    if series.modality == "NM":
        return "RECON TOMO" in kind
    projection = any("MIP" in word or "PROJECTION" in word for word in kind)
    return not projection and not {"DYNAMIC", "GATED", "REPROJECTION"} & (
        words(series.header, "SeriesType") or frozenset()
    )


def _is_axial(series: Series) -> bool:
    """Whether slices lie across the body: the normal is closer to the long axis than to any other."""
    if "LOCALIZER" in (words(series.header, "ImageType") or ()):
        return False
    orientation = numbers(series.header, "ImageOrientationPatient", 6)
    if orientation is None:
        return True  # missed by name when the slices are stacked
    return int(np.argmax(np.abs(np.cross(orientation[:3], orientation[3:])))) == 2


def _forced(
    candidates: Sequence[Series], series: Sequence[Series], forced: str | None, folder: Path | str
) -> list[Series]:
    uids = set((forced or "").replace(",", " ").split())
    absent = uids - {one.uid for one in series}
    if absent:
        raise TheraflowError(
            f"{folder} has no series {', '.join(sorted(absent))}, which the column series of scans.tsv "
            f"wants; it holds {_list(series)}."
        )
    return [one for one in candidates if one.uid in uids]


def _only(candidates: Sequence[Series], kind: str, folder: Path | str) -> Series:
    if len(candidates) > 1:
        raise TheraflowError(
            f"{folder} holds {len(candidates)} series that may be the {kind}: {_list(candidates)}; set "
            "`series` in scans.tsv to the SeriesInstanceUID of the right one."
        )
    logger.info("%s: %s", kind, candidates[0])
    return candidates[0]


def _list(series: Sequence[Series]) -> str:
    return "; ".join(str(one) for one in series)
