"""Where an object belongs: the series that a scan was imported from, with its study, patient and frame of reference."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.valuerep import DA, TM

from theraflow.dicom.export.choice import Choice, choose_ct, choose_emission
from theraflow.dicom.export.identity import anonymous_errors
from theraflow.dicom.export.index import read_index
from theraflow.dicom.sidecar import own_words
from theraflow.dicom.voxels.volume import stack_slices
from theraflow.errors import TheraflowError
from theraflow.images import axes_of, points_of_index
from theraflow.layout import Scan
from theraflow.nifti import Grid

# What the objects of a study share (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), as far as the series has it.
_PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved",
    "DeidentificationMethod",
)  # fmt: skip
_STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip
_SERIES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "Manufacturer",
           "ManufacturerModelName")  # fmt: skip
# Elements that every object has, with or without a value (type 2).
_ALWAYS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
           "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator")  # fmt: skip
_REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
# What else than the name tells who a patient is.
_TELLING = ("IssuerOfPatientID", "PatientBirthDate", "StudyID", "StudyDescription", "AccessionNumber",
            "ReferringPhysicianName")  # fmt: skip
_NAMES = ("PatientName", "ReferringPhysicianName")
# Values that the standard does not allow are left empty: the objects have to be valid.
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_NUMBER = "[0-9+.eE-]{1,16}"
_PATTERNS = {"PatientSex": "[MFO]", "PatientAge": r"\d{3}[DWMY]", "PatientSize": _NUMBER, "PatientWeight": _NUMBER}


@dataclass(frozen=True, eq=False)
class Origin:
    """The series of a scan's image.

    Attributes:
        images: one data set a file, without pixels: number of the patient, the study, the series and where its slice
            lies; of a file with several frames where each of them does, as an enhanced object tells it.
        names: PatientName and ReferringPhysicianName, which the images lack: highdicom warns of names that it does not
            take for such, and its words would be in the log. `sealed` puts them in.
        grid: the voxels of the image.
        acquired_at: when, or None.
    """

    images: tuple[Dataset, ...]
    names: Mapping[str, str]
    grid: Grid
    acquired_at: datetime | None

    @property
    def header(self) -> Dataset:
        """What is the same in all of its files."""
        return self.images[0]

    @property
    def obstacle(self) -> str | None:
        """Why there can be no objects: old SPECT series have no frame of reference, anonymised ones may lack more."""
        absent = [keyword for keyword in _REQUIRED if not self.header.get(keyword)]
        if absent:
            return f"the series lacks {', '.join(absent)}, to which the object would have to refer"
        return None if self.acquired_at else "the series states no time of acquisition, which the object has to have"


def emission_origin(scan: Scan, tracer: Mapping[str, Any], sidecar: Mapping[str, Any], pseudonym: str | None) -> Origin:
    """The series that the emission image of a scan was imported from.

    Args:
        scan: the row of scans.tsv.
        tracer: configuration of its tracer.
        sidecar: of the imported image.
        pseudonym: who the patient is called in the objects; None: as in the series.

    Raises:
        TheraflowError: the folder holds another series now.
    """
    return _origin(scan, sidecar, tracer.get("photopeak_kev"), pseudonym, of_ct=False)


def ct_origin(scan: Scan, sidecar: Mapping[str, Any], pseudonym: str | None) -> Origin:
    """The series that the CT of a scan was imported from; arguments and errors as of `emission_origin`."""
    return _origin(scan, sidecar, None, pseudonym, of_ct=True)


def _origin(
    scan: Scan, sidecar: Mapping[str, Any], photopeak_kev: float | None, pseudonym: str | None, of_ct: bool
) -> Origin:
    index = read_index(scan.dicom)
    with anonymous_errors(index.identity, own_words(scan)):
        choice = None
        if not of_ct or any(one.modality in ("PT", "NM") for one in index.series):
            choice = choose_emission(index, scan.quantity, scan.series)
        if of_ct:
            choice = choose_ct(index, choice and choice.series, scan.series)
        _refuse_other_series(scan, choice, sidecar)
        stack = stack_slices(choice.series, photopeak_kev)
        # File: index of the slice along the volume, by the number of the frame.
        files: dict[Path, dict[int, int]] = {}
        for position, one in enumerate(stack.slices):
            files.setdefault(one.instance.path, {})[one.frame] = position
        # pydicom's warnings of values that are not valid quote them.
        with disable_value_validation():
            images = tuple(_image(path, stack.grid, positions, pseudonym) for path, positions in files.items())
        names = {keyword: str(images[0][keyword].value) for keyword in _NAMES}
        for image in images:
            image.PatientName = image.ReferringPhysicianName = ""
        acquired_at = sidecar["acquired_at"]
        return Origin(images, names, stack.grid, datetime.fromisoformat(acquired_at) if acquired_at else None)


def _refuse_other_series(scan: Scan, choice: Choice, sidecar: Mapping[str, Any]) -> None:
    if choice.series.uid != sidecar["series_instance_uid"]:
        raise TheraflowError(
            f"The scan {scan.scan} was imported from the series {sidecar['series_instance_uid']}, but in {scan.dicom} "
            f"{choice.series} would be taken now; delete its images so that they are imported again."
        )


def _image(path: Path, grid: Grid, positions: Mapping[int, int], pseudonym: str | None) -> Dataset:
    """The data set of one file, with the places that its slices have on the grid, by the number of the frame."""
    source = dcmread(path, stop_before_pixels=True, specific_tags=[*_PATIENT, *_STUDY, *_SERIES, "NumberOfFrames"])
    image = Dataset()
    for keyword in (*_PATIENT, *_STUDY, *_SERIES):
        value = _value(source, keyword)
        if value is not None and _is_valid(keyword, str(value)):
            # Names as text: they are written in UTF-8, whatever the series was written in.
            setattr(image, keyword, str(value) if keyword in _NAMES else value)
    if pseudonym is not None:
        for keyword in set(_TELLING) & {element.keyword for element in image}:
            delattr(image, keyword)
        image.PatientID = image.PatientName = pseudonym
        image.PatientIdentityRemoved = "YES"
        image.DeidentificationMethod = "theraflow: pseudonym; UIDs and dates kept"
    for keyword in _ALWAYS:
        if keyword not in image:
            setattr(image, keyword, "")
    image.Columns, image.Rows, _ = grid.size
    orientation, measures = _orientation(grid), _measures(grid)
    if "NumberOfFrames" in source:
        image.NumberOfFrames = source.NumberOfFrames
        # What is no slice of this volume, as another energy window, is put beside it.
        places = [_place(grid, positions.get(frame, -1)) for frame in range(int(source.NumberOfFrames))]
        shared = Dataset()
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
        image.SharedFunctionalGroupsSequence = [shared]
        image.PerFrameFunctionalGroupsSequence = [_group("PlanePositionSequence", place) for place in places]
    # Also single slices may state that they have one frame.
    for part in (orientation, measures, _place(grid, min(positions.values()))):
        image.update(part)
    return image


def _value(source: Dataset, keyword: str) -> Any:
    """A value; None also where it cannot be read, as a weight with a decimal comma."""
    try:
        return source.get(keyword)
    except ValueError:
        return None


def _is_valid(keyword: str, value: str) -> bool:
    if keyword in _DATES:
        try:
            _DATES[keyword](value)
        except ValueError:
            return False
    return re.fullmatch(_PATTERNS.get(keyword, r"(?s:.*)"), value.strip()) is not None


def _orientation(grid: Grid) -> Dataset:
    orientation = Dataset()
    orientation.ImageOrientationPatient = axes_of(grid)[:, :2].T.ravel().tolist()
    return orientation


def _measures(grid: Grid) -> Dataset:
    measures = Dataset()
    measures.PixelSpacing = [grid.spacing[1], grid.spacing[0]]
    measures.SliceThickness = grid.spacing[2]
    return measures


def _place(grid: Grid, position: int) -> Dataset:
    place = Dataset()
    place.ImagePositionPatient = points_of_index(np.array([[0.0, 0.0, position]]), grid)[0].tolist()
    return place


def _group(keyword: str, item: Dataset) -> Dataset:
    group = Dataset()
    setattr(group, keyword, [item])
    return group
