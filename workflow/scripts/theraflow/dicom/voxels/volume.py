"""Slices to a volume: order and geometry first, from headers alone; then the pixels, one slice after the other."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby, pairwise

import numpy as np

from theraflow.dicom.export.header import integer, integers, number, numbers, tag_name, text
from theraflow.dicom.export.parse import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    BrokenDicomError,
    Header,
    inflated_data_set,
    refuse_broken_fragments,
)
from theraflow.dicom.export.series import Instance, Series
from theraflow.dicom.voxels.frames import Slice, slices_of
from theraflow.errors import TheraflowError
from theraflow.nifti import Grid

_NATIVE = {IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED}
# Transfer syntaxes that allow loss: JPEG baseline and extended, near-lossless JPEG-LS, JPEG 2000, high-throughput
# JPEG 2000 (PS3.5 chapter 10).
_MAY_LOSE = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203)}
# Slices may shift sideways by this much in all before the series counts as tilted (rounding of positions).
_SIDEWAYS_MM = 0.5
# Slices closer than this lie at the same place.
_SAME_PLACE_MM = 0.01
# A gap of this many times the median gap means that a slice is missing in between.
_MISSING_SLICE = 1.5
# Uneven gaps are accepted while no slice lies further than this fraction of the mean spacing from its even place.
_UNEVEN = 0.25
# Voxels of other sizes, and places farther away, belong to no patient.
_SMALLEST_MM, _LARGEST_MM, _FARTHEST_MM = 1e-3, 1e3, 1e5
# What a slope may be without losing all digits of the product in float32.
_SMALLEST_SLOPE, _LARGEST_SLOPE = 1e-30, 1e30
# What turns stored values into HU: other numbers are damaged ones.
_HU_SLOPES, _HU_INTERCEPT = (1e-3, 1e3), 1e5
# NIfTI-1 counts voxels in 16 bits with sign.
_MOST_VOXELS_ALONG = np.iinfo(np.int16).max
# No compression makes more voxels out of a byte, unless the image is empty.
_VOXELS_PER_COMPRESSED_BYTE = 10_000
# What the files of a series cannot say in different ways.
_SHARED = ("FrameOfReferenceUID", "PixelRepresentation")
# Lowest value that a CT can measure (air is -1000 HU); what lies below is padding outside the field of view.
_LOWEST_HU, _HIGHEST_HU = -1024, np.iinfo(np.int16).max
_GEOMETRY = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}


@dataclass(frozen=True)
class Stack:
    """The slices of a series in the order of the volume, where they lie, and remarks on their quality."""

    slices: tuple[Slice, ...]
    grid: Grid
    flags: tuple[str, ...] = ()

    @property
    def headers(self) -> list[Header]:
        """One header a slice."""
        return [one.header for one in self.slices]


def stack_slices(series: Series, photopeak_kev: float | None = None) -> Stack:
    """Put the slices of a series in order along their normal and check that they make a volume.

    Slices with uneven gaps, as scanners and anonymisers round them, are taken as evenly spaced by their mean gap,
    with a flag, as long as no slice lies further than a quarter of that gap from the place it is given.

    Args:
        series: its files, each a slice or a multi-frame object.
        photopeak_kev: which energy window of an NM reconstruction is wanted.

    Raises:
        TheraflowError: geometry missing; slices that differ in orientation or matrix; two slices at one place; a
            missing slice; a tilted gantry; frames that make no volume.
    """
    expanded = [slices_of(instance, photopeak_kev) for instance in series.instances]
    slices = [one for found, _ in expanded for one in found]
    flags = [*series.flags, *dict.fromkeys(flag for _, remarks in expanded for flag in remarks)]
    geometry = [_geometry(one) for one in slices]
    first = slices[0].instance
    for one, own in zip(slices, geometry, strict=True):
        for keyword in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            if max(abs(a - b) for a, b in zip(own[keyword], geometry[0][keyword], strict=True)) > 1e-3:
                raise TheraflowError(
                    f"{tag_name(keyword)} differs between {first.path} and {one.instance.path} of the same series; "
                    "export the series again or set `series` in scans.tsv to another."
                )
    _refuse_contradictions(series)
    axes = _axes(geometry[0]["ImageOrientationPatient"], first)
    positions = np.array([own["ImagePositionPatient"] for own in geometry])
    order = np.argsort(positions @ axes[2], kind="stable")
    slices, positions = [slices[index] for index in order], positions[order]
    spacing, remarks = _slice_spacing(slices, positions, axes[2])
    if any(_may_have_lost(instance) for instance in series.instances):
        remarks.append(
            "the images were compressed with loss, or in a way that allows it: values may not be what was measured"
        )
    if text(first.header, "Modality") == "CT" and len({_rescale_bytes(one) for one in slices}) > 1:
        remarks.append(f"{tag_name('RescaleSlope')} or {tag_name('RescaleIntercept')} differs between slices")
    between_rows, between_columns = geometry[0]["PixelSpacing"]
    grid = Grid(
        (int(geometry[0]["Columns"][0]), int(geometry[0]["Rows"][0]), len(slices)),
        (between_columns, between_rows, spacing),
        tuple(float(value) for value in positions[0]),
        tuple(float(value) for value in np.stack(axes, axis=1).ravel()),
    )
    _refuse_impossible_grid(grid, series)
    return Stack(tuple(slices), grid, (*flags, *remarks))


def _may_have_lost(instance: Instance) -> bool:
    stated = text(instance.header, "LossyImageCompression")
    return stated == "01" or (stated != "00" and instance.file.transfer_syntax in _MAY_LOSE)


def _rescale_bytes(one: Slice) -> tuple[bytes | None, ...]:
    return one.header.raw("RescaleSlope"), one.header.raw("RescaleIntercept")


def _refuse_contradictions(series: Series) -> None:
    first = series.instances[0]
    for keyword in _SHARED:
        for other in series.instances:
            if other.header.raw(keyword) != first.header.raw(keyword):
                raise TheraflowError(
                    f"{tag_name(keyword)} differs between {first.path} and {other.path} of the same series; export the "
                    "series again."
                )


def _refuse_impossible_grid(grid: Grid, series: Series) -> None:
    """Before anything of that size is allocated or written."""
    path = series.instances[0].path
    if not all(_SMALLEST_MM <= spacing <= _LARGEST_MM for spacing in grid.spacing):
        listed = " x ".join(f"{spacing:g}" for spacing in grid.spacing)
        raise TheraflowError(
            f"The series of {path} has voxels of {listed} mm by {tag_name('PixelSpacing')} and the places of its "
            "slices, which is impossible; export it again."
        )
    if max(map(abs, grid.origin)) > _FARTHEST_MM:
        raise TheraflowError(
            f"The series of {path} lies {max(map(abs, grid.origin)):g} mm away by {tag_name('ImagePositionPatient')}, "
            "which is impossible; export it again."
        )
    voxels = grid.size[0] * grid.size[1] * grid.size[2]
    room = sum(
        one.file.size * (1 if one.file.pixel_bytes is not None else _VOXELS_PER_COMPRESSED_BYTE)
        for one in series.instances
    )
    if not 0 < voxels <= room or max(grid.size) > _MOST_VOXELS_ALONG:
        raise TheraflowError(
            f"The series of {path} has {' x '.join(map(str, grid.size))} voxels by {tag_name('Columns')} and "
            f"{tag_name('Rows')}, which its files do not hold or which are too many; export it again."
        )


def _geometry(one: Slice) -> dict[str, tuple[float, ...]]:
    try:
        found = {keyword: numbers(one.header, keyword, count) for keyword, count in _GEOMETRY.items()}
    except TheraflowError as error:
        raise TheraflowError(f"{one.instance.path}: {error}") from error
    absent = [tag_name(keyword) for keyword, value in found.items() if value is None]
    if absent:
        raise TheraflowError(f"{one.instance.path} lacks {', '.join(absent)}; export the series again.")
    return found


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


def _slice_spacing(slices: Sequence[Slice], positions: np.ndarray, normal: np.ndarray) -> tuple[float, list[str]]:
    """Distance between slices in mm and flags.

    Args:
        slices: in order.
        positions: their ImagePositionPatient, shape (slices, 3).
        normal: unit vector.
    """
    header, path = slices[0].header, slices[0].instance.path
    stated = number(header, "NumberOfSlices") if text(header, "Modality") == "PT" else None
    if stated and stated > len(slices):
        raise TheraflowError(
            f"The series of {path} has {len(slices)} of {stated:.0f} slices ({tag_name('NumberOfSlices')}); copy the "
            "missing files or export it again."
        )
    if len(slices) == 1:
        spacing = number(header, "SpacingBetweenSlices") or number(header, "SliceThickness")
        if not spacing:
            raise TheraflowError(f"{path} lacks {tag_name('SliceThickness')}.")
        return abs(spacing), []
    along = positions @ normal
    gaps = np.diff(along)
    sideways = np.linalg.norm(positions - positions[0] - np.outer(along - along[0], normal), axis=1).max()
    if sideways > _SIDEWAYS_MM:
        raise TheraflowError(
            f"The slices of the series of {path} shift sideways by {sideways:.1f} mm: a tilted gantry is not "
            "supported; export a reconstruction without tilt."
        )
    median = float(np.sort(gaps)[len(gaps) // 2])  # np.median would load numpy.ma, which takes longer than the rest
    for (below, above), gap in zip(pairwise(slices), gaps.tolist(), strict=True):
        if gap < _SAME_PLACE_MM:
            raise TheraflowError(
                f"{below.instance.path} and {above.instance.path} lie at the same place: the series holds slices twice "
                "or several phases; export one of them."
            )
        if gap > _MISSING_SLICE * median:
            raise TheraflowError(
                f"Between {below.instance.path} and {above.instance.path} a slice is missing (gap {gap:.2f} mm, "
                f"elsewhere {median:.2f} mm); copy the missing files or export the series again."
            )
    spacing = float(gaps.mean())
    uneven = float(np.abs(along - along[0] - spacing * np.arange(len(along))).max())
    if uneven > _UNEVEN * spacing:
        raise TheraflowError(
            f"The slices of the series of {path} are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm); export "
            "a series with even spacing."
        )
    remarks = []
    if sideways > _SAME_PLACE_MM:
        remarks.append(f"slices shift sideways by up to {sideways:.2f} mm: taken as lying in one line")
    if uneven > _SAME_PLACE_MM:
        remarks.append(
            f"slices unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm): taken at the mean of {spacing:.4f} mm, "
            f"which moves a slice by {uneven:.2f} mm at most"
        )
    return spacing, remarks


def scaled_slices(stack: Stack, slopes: Sequence[float], intercepts: Sequence[float]) -> Iterator[np.ndarray]:
    """The slices as float32, one after the other: value = stored x slope + intercept.

    Two arrays take turns: each holds until the next but one is drawn. (A new array a slice would take most of the time,
    because the memory allocator gives each back to the system.)

    Args:
        stack: the slices.
        slopes, intercepts: one a slice, everything between the stored value and the unit of the image.

    Raises:
        TheraflowError: a truncated, broken or undecodable file, by name.
    """
    arrays = _in_turns(stack, np.float32)
    for stored, one, slope, intercept in zip(stored_slices(stack), stack.slices, slopes, intercepts, strict=True):
        values = np.multiply(stored, np.float32(slope), out=next(arrays))
        if intercept:
            values += np.float32(intercept)
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise TheraflowError(f"{one.instance.path} holds values that are no numbers; export it again.")
        yield values


def ct_slices(stack: Stack) -> Iterator[np.ndarray]:
    """The slices of a CT in HU as int16, rounded, one after the other; padding outside the field of view is -1024.

    Padding is what PixelPaddingValue (with PixelPaddingRangeLimit) names, and everything below -1024 HU. Two arrays
    take turns, as with `scaled_slices`.

    Raises:
        TheraflowError: a truncated, broken or undecodable file, or one without rescale, by name.
    """
    arrays = _in_turns(stack, np.int16)
    for stored, one in zip(stored_slices(stack), stack.slices, strict=True):
        slope, intercept = rescale(one)
        if not _HU_SLOPES[0] <= slope <= _HU_SLOPES[1] or abs(intercept) > _HU_INTERCEPT:
            raise TheraflowError(
                f"{one.instance.path}: {tag_name('RescaleSlope')} of {slope:g} and {tag_name('RescaleIntercept')} of "
                f"{intercept:g} make no HU; export the series again."
            )
        unit = text(one.header, "RescaleType")
        if unit not in (None, "HU"):
            raise TheraflowError(f"{one.instance.path}: {tag_name('RescaleType')} is {unit}, not HU.")
        values = rounded_hu(stored, slope, intercept, next(arrays))
        padding = _padding(stored, one.header)
        if padding is not None:
            values[padding] = _LOWEST_HU
        yield values


def _in_turns(stack: Stack, kind: type) -> Iterator[np.ndarray]:
    columns, rows, _ = stack.grid.size
    return cycle([np.empty((rows, columns), kind) for _ in range(2)])


def rounded_hu(stored: np.ndarray, slope: float, intercept: float, out: np.ndarray) -> np.ndarray:
    """HU of stored values in `out` (int16), to the nearest whole number, limited to what int16 holds and CT can be."""
    if slope != 1.0 or intercept != int(intercept) or abs(intercept) > 30000 or stored.dtype.itemsize != 2:
        out[:] = np.clip(np.rint(stored * slope + intercept), _LOWEST_HU, _HIGHEST_HU)
        return out
    # As nearly every CT is stored: in 16 bits to the end, where after clipping the sum fits and wraps around rightly.
    whole, kind = int(intercept), np.iinfo(stored.dtype)
    low, high = (min(max(end - whole, kind.min), kind.max) for end in (_LOWEST_HU, _HIGHEST_HU))
    if stored.min() < low or stored.max() > high:  # rarely: clipping takes ten times as long as looking
        stored = np.clip(stored, low, high)
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    np.add(native.view(np.uint16), np.uint16(whole & 0xFFFF), out=out.view(np.uint16))
    return out


def rescale(one: Slice) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept of one slice.

    Raises:
        TheraflowError: missing, or a slope that is 0, negative or beyond float32.
    """
    slope, intercept = (number(one.header, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    absent = [
        tag_name(keyword)
        for keyword, value in (("RescaleSlope", slope or None), ("RescaleIntercept", intercept))
        if value is None
    ]
    if absent:
        raise TheraflowError(f"{one.instance.path} lacks {' and '.join(absent)}; export the series again.")
    if not _SMALLEST_SLOPE < slope < _LARGEST_SLOPE:
        raise TheraflowError(
            f"{one.instance.path}: {tag_name('RescaleSlope')} of {slope:g} is impossible; export the series again."
        )
    return slope, intercept


def _padding(stored: np.ndarray, header: Header) -> np.ndarray | None:
    value, limit = (integers(header, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not value:
        return None
    # Writers confuse signed and unsigned here: both are the same 16 bits.
    low, high = sorted(int(np.array(end).astype(stored.dtype)) for end in (value[0], (limit or value)[0]))
    return stored == low if low == high else (stored >= low) & (stored <= high)


def stored_slices(stack: Stack) -> Iterator[np.ndarray]:
    """The stored values of every slice in order, shape (rows, columns); each array holds until the next is drawn."""
    columns, rows, _ = stack.grid.size
    buffer = bytearray()
    for instance, slices in groupby(stack.slices, lambda one: one.instance):
        frames = [one.frame for one in slices]
        try:
            kind = _stored_type(instance)
            encapsulated, syntax = instance.file.pixel_bytes is None, instance.file.transfer_syntax
            if encapsulated == (syntax in _NATIVE):
                raise TheraflowError(
                    f"its pixels are {'' if encapsulated else 'not '}encapsulated, unlike its transfer syntax "
                    f"{_syntax_text(syntax)}; export it again, uncompressed."
                )
            if encapsulated:
                yield from _decoded(instance, frames, (rows, columns))
            else:
                buffer = (
                    buffer
                    if len(buffer) == rows * columns * kind.itemsize
                    else bytearray(rows * columns * kind.itemsize)
                )
                yield from _plain(instance, frames, (rows, columns), kind, buffer)
        except TheraflowError as error:
            raise TheraflowError(f"{instance.path}: {error}") from error


def _syntax_text(syntax: str) -> str:
    from pydicom.uid import UID

    name = UID(syntax).name
    return syntax if name == syntax else f"{name} ({syntax})"


def _stored_type(instance: Instance) -> np.dtype:
    header = instance.header
    if integer(header, "SamplesPerPixel") not in (1, None):
        raise TheraflowError("it is a colour image and holds no measured values; choose another series.")
    allocated, stored, high, signed = (
        integer(header, keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if allocated not in (8, 16, 32) or signed not in (0, 1) or not stored or stored > allocated or high != stored - 1:
        raise TheraflowError(
            f"{tag_name('BitsAllocated')}, {tag_name('BitsStored')}, {tag_name('HighBit')} and "
            f"{tag_name('PixelRepresentation')} ({allocated}, {stored}, {high}, {signed}) describe no grey image; "
            "export it again."
        )
    order = ">" if instance.file.transfer_syntax == EXPLICIT_BIG else "<"
    return np.dtype(f"{order}{'iu'[1 - signed]}{allocated // 8}")


def _plain(
    instance: Instance, frames: Sequence[int], shape: tuple[int, int], kind: np.dtype, buffer: bytearray
) -> Iterator[np.ndarray]:
    """Frames that are stored uncompressed, one after the other in `buffer`."""
    file, pixels = instance.file, shape[0] * shape[1]
    count = integer(instance.header, "NumberOfFrames") or 1
    length = pixels * kind.itemsize
    if file.pixel_bytes not in (count * length, count * length + 1):  # an even number of bytes, by PS3.5 7.1.1
        raise TheraflowError(f"it does not hold {count} grey image(s) of {shape[0]} x {shape[1]} pixels.")
    bits = integer(instance.header, "BitsStored")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind.kind == "i" else (0, (1 << bits) - 1)
    unused = 8 * kind.itemsize - bits
    for frame in frames:
        _read_pixels(instance, frame * length, buffer)
        stored = np.frombuffer(buffer, kind).reshape(shape)
        if stored.min() < low or stored.max() > high:
            # The bits above BitsStored hold an overlay or are undefined; shifting out and in again keeps the sign.
            stored = np.right_shift(np.left_shift(stored, unused), unused)
        yield stored


def _read_pixels(instance: Instance, offset: int, buffer: bytearray) -> None:
    start = instance.file.pixels_at + offset
    try:
        if instance.file.transfer_syntax == DEFLATED:
            content = inflated_data_set(instance.path)[start : start + len(buffer)]
            buffer[: len(content)] = content
            reached = len(content)
        else:
            with instance.path.open("rb", buffering=0) as file:
                file.seek(start)
                reached = file.readinto(buffer)
    except (OSError, BrokenDicomError) as error:
        raise TheraflowError(f"its pixels cannot be read ({error}); export it again.") from error
    if reached < len(buffer):
        raise TheraflowError("it is truncated within its pixel data (7FE0,0010); export or copy it again.")


def _decoded(instance: Instance, frames: Sequence[int], shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames that are stored compressed, by the decoders of pydicom."""
    import pydicom  # only here: loading it takes longer than reading an uncompressed series

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it logs a traceback for every decoder that fails
    try:
        refuse_broken_fragments(instance.path, instance.file.pixels_at, shape)
    except BrokenDicomError as error:
        raise TheraflowError(f"it {error}; export or copy it again.") from error
    try:
        pydicom.pixels.get_decoder(instance.file.transfer_syntax)
    except NotImplementedError as error:
        raise TheraflowError(
            f"its transfer syntax {_syntax_text(instance.file.transfer_syntax)} cannot be decoded; export it again, "
            "uncompressed."
        ) from error
    try:
        for stored in pydicom.pixels.iter_pixels(instance.path, indices=list(frames)):
            if stored.shape != shape:
                raise ValueError(f"an image of {stored.shape} in place of {shape} pixels")
            yield stored
    except Exception as error:
        # Decoders raise whatever their library raises; all of it means that the file cannot be read.
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise TheraflowError(
            f"its compressed pixels cannot be read ({reason.rstrip(':')}); export it again."
        ) from error
