"""What all objects have in common: who made them, and UIDs that their content decides."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, generate_uid

import theraflow
from theraflow.objects.codes import OWN_SCHEME
from theraflow.objects.origin import Origin

if TYPE_CHECKING:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

# Until the content is there, every object has these.
_UNNAMED = "2.25.0"
CHARACTER_SET = "ISO_IR 192"  # UTF-8
_APART = {"PixelData", "PerFrameFunctionalGroupsSequence"}
_LONGEST = 64  # of a long string (LO)
RESEARCH_USE = "For research use only."


def derived_uid(*words: str) -> UID:
    """A UID that is always the same for the same words."""
    return generate_uid(entropy_srcs=[part for word in words for part in (word, "\0")])


def common(series_number: int, series_description: str) -> dict[str, Any]:
    """Arguments that the constructors of all objects take; the UIDs are set by `sealed`."""
    return {
        "series_instance_uid": _UNNAMED,
        "sop_instance_uid": _UNNAMED,
        "series_number": series_number,
        "instance_number": 1,
        "manufacturer": "theraflow",
        "manufacturer_model_name": "theraflow",
        "software_versions": theraflow.__version__,
        "device_serial_number": "none",
        "series_description": long_string(series_description),
        "specific_character_set": CHARACTER_SET,
    }


def own_scheme() -> list["CodingSchemeIdentificationItem"]:
    """What the designator of theraflow's own codes stands for."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return [CodingSchemeIdentificationItem(OWN_SCHEME, name="theraflow")]


def long_string(value: str) -> str:
    """A text as the elements of type LO hold it: no backslash, no more than 64 characters."""
    value = value.replace("\\", "/")
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"


def sealed(dataset: Dataset, origin: Origin) -> Dataset:
    """The object with names and UIDs: the same results give the same bytes, others another object in another series.

    The standard allows no two contents under one SOPInstanceUID, so that nothing may tell when the object was made.
    ContentDate and ContentTime, which it has to have, are those of the scan.

    Args:
        dataset: the object, changed in place.
        origin: where it belongs.
    """
    for keyword, name in origin.names.items():
        dataset.add_new(keyword, "PN", name)  # not into the element that is there: highdicom shares it with the images
    if "ContentDate" in dataset:
        dataset.ContentDate = origin.acquired_at.strftime("%Y%m%d")
        dataset.ContentTime = origin.acquired_at.strftime("%H%M%S")
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    organisation = derived_uid("dimensions", str(origin.header.SeriesInstanceUID), str(dataset.SOPClassUID))
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(keyword, ()):
            item.DimensionOrganizationUID = organisation
    digest = _digest(dataset)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid("instance", digest)
    dataset.SeriesInstanceUID = derived_uid("series", digest)
    return dataset


def _digest(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for part in _parts(dataset):
        digest.update(part)
    return digest.hexdigest()


def _parts(dataset: Dataset) -> Iterator[bytes | memoryview]:
    """What the content of an object is made of, as bytes.

    Frames of a segmentation take most of the time to write: of them the first, and the places of all among the others
    (DimensionIndexValues: segment and slice), which tell the rest.
    """
    yield memoryview(dataset.get("PixelData", b""))
    frames = dataset.get("PerFrameFunctionalGroupsSequence", ())
    for frame in frames:
        yield str(frame.FrameContentSequence[0].DimensionIndexValues).encode()
    rest = Dataset({element.tag: element for element in dataset if element.keyword not in _APART})
    for part in (rest, *frames[:1]):
        file = DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = False, True
        write_dataset(file, part, "utf-8")
        yield file.getvalue()


def write_object(dataset: Dataset, path: Path) -> None:
    """Save an object as a DICOM file."""
    dataset.save_as(path, enforce_file_format=True)
