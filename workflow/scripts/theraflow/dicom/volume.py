"""Slices to a volume: order and geometry first, from headers alone; then the pixels, into one array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from theraflow.dicom.header import number, numbers, tag_name, text
from theraflow.dicom.index import Instance, Series
from theraflow.errors import TheraflowError

# Slices may shift sideways by this much in all before the series counts as tilted (rounding of positions).
_SIDEWAYS_MM = 0.5
# Slices closer than this lie at the same place.
_SAME_PLACE_MM = 0.01
# A gap of this many times the median gap means that a slice is missing in between.
_MISSING_SLICE = 1.5
# Uneven gaps are accepted while no slice lies further than this fraction of the mean spacing from its even
# place.
_UNEVEN = 0.25
# What decoding the pixels of a file takes.
_PIXEL_TAGS: list[str | int] = [
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
]  # fmt: skip
# Lowest value that a CT can measure (air is -1000 HU); what lies below is padding outside the field of view.
_LOWEST_HU = -1024


@dataclass(frozen=True)
class Stack:
    """The slices of a series in the order of the array, and their geometry (LPS, mm).

    Attributes:
        instances: one file a slice, along the slice normal; or one file with several frames.
        frames: for several frames in one file, which frame lies at each slice; otherwise None.
        size: columns, rows, slices.
        spacing, origin, direction: as SimpleITK has them; direction row by row, its columns are row, column,
            normal.
        flags: remarks on the quality.
    """

    instances: tuple[Instance, ...]
    frames: tuple[int, ...] | None
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    flags: tuple[str, ...] = ()

    @property
    def headers(self) -> list[Dataset]:
        """One header a slice."""
        if self.frames is None:
            return [instance.header for instance in self.instances]
        return [self.instances[0].header] * self.size[2]


def stack_slices(series: Series) -> Stack:
    """Put the slices of a series in order along their normal and check that they make a volume.

    Slices with uneven gaps, as scanners and anonymisers round them, are taken as evenly spaced by their mean
    gap, with a flag, as long as no slice lies further than a quarter of that gap from the place it is given.

    Raises:
        TheraflowError: geometry missing; slices that differ in orientation or matrix; two slices at one
            place; a missing slice; a tilted gantry; enhanced multi-frame objects.
    """
    first = series.instances[0]
    if any(int(instance.header.get("NumberOfFrames") or 1) > 1 for instance in series.instances):
        return _stack_frames(series)
    geometry = [_geometry(instance) for instance in series.instances]
    for instance, own in zip(series.instances, geometry, strict=True):
        absent = [tag_name(keyword) for keyword, value in own.items() if value is None]
        if absent:
            raise TheraflowError(f"{instance.path} lacks {', '.join(absent)}; export the series again.")
    _refuse_twins(series)
    for instance, own in zip(series.instances, geometry, strict=True):
        for keyword in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            if not np.allclose(own[keyword], geometry[0][keyword], atol=1e-3):
                raise TheraflowError(
                    f"{tag_name(keyword)} differs between {first.path} and {instance.path} of the same "
                    "series; export the series again or set `series` in scans.tsv to another."
                )
    row, column, normal = _axes(geometry[0]["ImageOrientationPatient"], first)
    positions = np.array([own["ImagePositionPatient"] for own in geometry])
    order = np.argsort(positions @ normal, kind="stable")
    instances = tuple(series.instances[index] for index in order)
    positions = positions[order]
    spacing, flags = _slice_spacing(instances, positions, normal)
    return _stack(instances, None, len(instances), spacing, positions[0], (row, column, normal), flags)


def _geometry(instance: Instance) -> dict[str, tuple[float, ...] | None]:
    lengths = {
        "Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3,
    }  # fmt: skip
    try:
        return {keyword: numbers(instance.header, keyword, count) for keyword, count in lengths.items()}
    except TheraflowError as error:
        raise TheraflowError(f"{instance.path}: {error}") from error


def _axes(orientation: Sequence[float], instance: Instance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    if abs(row @ column) > 1e-3 or not np.allclose([row @ row, column @ column], 1.0, atol=2e-3):
        raise TheraflowError(
            f"{instance.path}: {tag_name('ImageOrientationPatient')} is no pair of perpendicular unit vectors."
        )
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _stack(
    instances: tuple[Instance, ...],
    frames: tuple[int, ...] | None,
    slices: int,
    spacing: float,
    origin: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    flags: Sequence[str],
) -> Stack:
    header = instances[0].header
    between_rows, between_columns = numbers(header, "PixelSpacing", 2)
    return Stack(
        instances,
        frames,
        (int(header.Columns), int(header.Rows), slices),
        (between_columns, between_rows, spacing),
        tuple(float(value) for value in origin),
        tuple(float(value) for value in np.stack(axes, axis=1).ravel()),
        tuple(flags),
    )


def _refuse_twins(series: Series) -> None:
    seen: dict[str, Instance] = {}
    for instance in series.instances:
        uid = text(instance.header, "SOPInstanceUID")
        if uid in seen:
            raise TheraflowError(
                f"{seen[uid].path} and {instance.path} are the same image (SOPInstanceUID {uid}); delete one of them."
            )
        if uid:
            seen[uid] = instance


def _slice_spacing(instances: Sequence[Instance], positions: np.ndarray, normal: np.ndarray) -> tuple[float, list[str]]:
    """Distance between slices in mm and flags.

    Args:
        instances: the slices in order.
        positions: their ImagePositionPatient, shape (slices, 3).
        normal: unit vector.
    """
    header = instances[0].header
    stated = number(header, "NumberOfSlices") if header.Modality == "PT" else None
    if stated and stated > len(instances):
        raise TheraflowError(
            f"The series of {instances[0].path} has {len(instances)} of {stated:.0f} slices "
            f"({tag_name('NumberOfSlices')}); copy the missing files or export it again."
        )
    if len(instances) == 1:
        spacing = number(header, "SpacingBetweenSlices") or number(header, "SliceThickness")
        if not spacing:
            raise TheraflowError(f"{instances[0].path} lacks {tag_name('SliceThickness')}.")
        return abs(spacing), []
    along = positions @ normal
    gaps = np.diff(along)
    sideways = np.linalg.norm(positions - positions[0] - np.outer(along - along[0], normal), axis=1).max()
    if sideways > _SIDEWAYS_MM:
        raise TheraflowError(
            f"The slices of the series of {instances[0].path} shift sideways by {sideways:.1f} mm: a tilted "
            "gantry is not supported; export a reconstruction without tilt."
        )
    for (below, above), gap in zip(pairwise(instances), gaps, strict=True):
        if gap < _SAME_PLACE_MM:
            raise TheraflowError(
                f"{below.path} and {above.path} lie at the same place: the series holds slices twice or "
                "several phases; export one of them."
            )
        if gap > _MISSING_SLICE * np.median(gaps):
            raise TheraflowError(
                f"Between {below.path} and {above.path} a slice is missing (gap {gap:.2f} mm, elsewhere "
                f"{np.median(gaps):.2f} mm); copy the missing files or export the series again."
            )
    spacing = float(gaps.mean())
    uneven = float(np.abs(along - along[0] - spacing * np.arange(len(along))).max())
    if uneven > _UNEVEN * spacing:
        raise TheraflowError(
            f"The slices of the series of {instances[0].path} are unevenly spaced ({gaps.min():.2f} to "
            f"{gaps.max():.2f} mm); export a series with even spacing."
        )
    if uneven > _SAME_PLACE_MM:
        remark = (
            f"slices unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm): taken at the mean of "
            f"{spacing:.4f} mm, which moves a slice by {uneven:.2f} mm at most"
        )
        return spacing, [remark]
    return spacing, []


def _stack_frames(series: Series) -> Stack:
    """One NM file with all slices as frames (DICOM PS3.3 C.8.4.15, NM Reconstruction)."""
    first, header = series.instances[0], series.header
    if len(series.instances) > 1:
        raise TheraflowError(
            f"{first.path} and {series.instances[1].path} are several volumes of one series; keep one of them."
        )
    if series.modality != "NM":
        raise TheraflowError(
            f"{first.path} is an enhanced multi-frame {series.modality}, which is not supported; export single slices."
        )
    frames = int(header.NumberOfFrames)
    detectors = header.get("DetectorInformationSequence") or [Dataset()]
    place = {
        keyword: numbers(detectors[0], keyword, count) or numbers(header, keyword, count)
        for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    }
    place["PixelSpacing"] = numbers(header, "PixelSpacing", 2)
    absent = [tag_name(keyword) for keyword, value in place.items() if value is None]
    between, thickness = number(header, "SpacingBetweenSlices"), number(header, "SliceThickness")
    if not (between or thickness):
        absent.append(tag_name("SpacingBetweenSlices"))
    if absent:
        raise TheraflowError(f"{first.path} lacks {', '.join(absent)}; export the series again.")
    flags = [] if between else ["distance between slices not stated: slice thickness taken"]
    between = between or thickness
    vector = header.get("SliceVector")
    vector = [int(slice_) for slice_ in vector] if vector else list(range(1, frames + 1))
    if sorted(vector) != list(range(1, frames + 1)):
        raise TheraflowError(
            f"{first.path}: {tag_name('SliceVector')} does not number {frames} slices of one volume (several "
            "energy windows, gates or time slots?); export one volume."
        )
    row, column, normal = _axes(place["ImageOrientationPatient"], first)
    order = [vector.index(slice_) for slice_ in range(1, frames + 1)]
    origin = np.array(place["ImagePositionPatient"])
    if between < 0:  # stacked against the normal, which PS3.3 C.8.4.15 allows for NM
        origin = origin + normal * between * (frames - 1)
        order.reverse()
    return _stack(series.instances, tuple(order), frames, abs(between), origin, (row, column, normal), flags)


def read_volume(stack: Stack, slopes: Sequence[float], intercepts: Sequence[float]) -> sitk.Image:
    """Read the pixels: value = stored x slope + intercept, slice by slice.

    Args:
        stack: the slices.
        slopes, intercepts: one a slice, everything between the stored value and the unit of the image.

    Returns:
        float32 image.

    Raises:
        TheraflowError: a truncated, broken or undecodable file, by name.
    """
    columns, rows, slices = stack.size
    array = np.empty((slices, rows, columns), np.float32)
    for index, (stored, _) in enumerate(_stored(stack)):
        array[index] = stored * float(slopes[index]) + float(intercepts[index])
    if not np.isfinite(array).all():
        raise TheraflowError(f"The series of {stack.instances[0].path} holds values that are no numbers.")
    return _image(array, stack)


def read_ct(stack: Stack) -> sitk.Image:
    """Read a CT in HU, rounded to whole numbers; padding outside the field of view becomes -1024.

    Padding is what PixelPaddingValue (with PixelPaddingRangeLimit) names, and everything below -1024 HU.

    Returns:
        int16 image.

    Raises:
        TheraflowError: a truncated, broken or undecodable file, or one without rescale, by name.
    """
    columns, rows, slices = stack.size
    array = np.empty((slices, rows, columns), np.int16)
    for index, (stored, instance) in enumerate(_stored(stack)):
        slope, intercept = rescale(instance)
        unit = text(instance.header, "RescaleType")
        if unit not in (None, "HU"):
            raise TheraflowError(f"{instance.path}: {tag_name('RescaleType')} is {unit}, not HU.")
        values = np.clip(np.rint(stored * slope + intercept), _LOWEST_HU, np.iinfo(np.int16).max)
        values[_padding(stored, instance.header)] = _LOWEST_HU
        array[index] = values
    return _image(array, stack)


def rescale(instance: Instance) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept of one file.

    Raises:
        TheraflowError: missing, or a slope of 0.
    """
    slope, intercept = (number(instance.header, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    absent = [
        tag_name(keyword)
        for keyword, value in (("RescaleSlope", slope or None), ("RescaleIntercept", intercept))
        if value is None
    ]
    if absent:
        raise TheraflowError(f"{instance.path} lacks {' and '.join(absent)}; export the series again.")
    return slope, intercept


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    value = header.get("PixelPaddingValue")
    if value in (None, ""):
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    # Writers confuse signed and unsigned here: both are the same 16 bits.
    low, high = sorted(
        int(np.array(int(end)).astype(stored.dtype)) for end in (value, value if limit in (None, "") else limit)
    )
    return (stored >= low) & (stored <= high)


def _image(array: np.ndarray, stack: Stack) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(stack.spacing)
    image.SetOrigin(stack.origin)
    image.SetDirection(stack.direction)
    return image


def _stored(stack: Stack) -> Iterator[tuple[np.ndarray, Instance]]:
    """Stored values (rows, columns) and file of every slice, in order."""
    if stack.frames is None:
        for instance in stack.instances:
            yield _read_pixels(instance, 1, stack.size)[0], instance
    else:
        pixels = _read_pixels(stack.instances[0], len(stack.frames), stack.size)
        for frame in stack.frames:
            yield pixels[frame], stack.instances[0]


def _read_pixels(instance: Instance, frames: int, size: tuple[int, int, int]) -> np.ndarray:
    """Stored values of one file, shape (frames, rows, columns)."""
    try:
        dataset = pydicom.dcmread(instance.path, force=True, specific_tags=_PIXEL_TAGS)
        _refuse_truncated(dataset, instance)
        if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
            # A file without preamble and meta group: PS3.10 leaves only the default transfer syntax.
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pixels = dataset.pixel_array
    except TheraflowError:
        raise
    except Exception as error:
        # Decoders raise whatever their library raises; all of it means that the file cannot be read.
        raise TheraflowError(f"The pixels of {instance.path} cannot be read ({error}); export it again.") from error
    columns, rows, _ = size
    if pixels.size != frames * rows * columns:
        raise TheraflowError(f"{instance.path} does not hold {frames} grey image(s) of {rows} x {columns} pixels.")
    return pixels.reshape(frames, rows, columns)


def _refuse_truncated(dataset: Dataset, instance: Instance) -> None:
    """Refuse a file that ends before its pixel data do, also where a decoder would make up the rest."""
    element = dataset.get_item("PixelData") if "PixelData" in dataset else None
    complete = element is not None
    if complete and dataset.file_meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        end = element.value_tell + element.length
        if element.length == 0xFFFFFFFF:  # compressed: a sequence delimiter of 8 bytes closes the fragments
            end = element.value_tell + len(element.value) + 8
        complete = end <= instance.path.stat().st_size
    if not complete:
        raise TheraflowError(
            f"{instance.path} is truncated: its pixel data (7FE0,0010) are incomplete; export or copy it again."
        )
