"""The slices of a file: one, or the frames of a multi-frame object, each with the header of a file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theraflow.dicom.export.header import integer, integers, number, numbers, tag_name, text
from theraflow.dicom.export.parse import ELEMENTS, Header
from theraflow.dicom.export.series import Instance
from theraflow.errors import TheraflowError

# Functional groups of enhanced objects (PS3.3 C.7.6.16) whose elements a classic slice has in its own data set.
_MACROS = (
    "FrameContentSequence", "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)  # fmt: skip
# An energy window: lower and upper limit in keV of each of its ranges.
Window = tuple[tuple[float, float], ...]
# What else than a slice a frame of an NM reconstruction may stand for (PS3.3 C.8.4.8).
_NM_VECTORS = {
    "EnergyWindowVector": "energy windows", "RRIntervalVector": "cardiac intervals", "TimeSlotVector": "time slots",
    "TimeSliceVector": "time slices",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: the frame `frame`, counted from 0, of a file, and its header."""

    instance: Instance
    frame: int
    header: Header


def slices_of(instance: Instance, photopeak_kev: float | None = None) -> tuple[tuple[Slice, ...], tuple[str, ...]]:
    """The slices of a file in the order of its frames, and remarks.

    Args:
        instance: the file.
        photopeak_kev: which energy window of an NM reconstruction is wanted: the one that it lies in.

    Raises:
        TheraflowError: frames that do not make one volume.
    """
    header = instance.header
    try:
        if header.items("PerFrameFunctionalGroupsSequence"):
            return _enhanced(instance), ()
        if text(header, "Modality") == "NM":
            return _nuclear(instance, photopeak_kev)
        if (integer(header, "NumberOfFrames") or 1) > 1:
            raise TheraflowError("several frames without functional groups have no known places; export single slices.")
    except TheraflowError as error:
        raise TheraflowError(f"{instance.path}: {error}") from error
    return (Slice(instance, 0, header),), ()


def _enhanced(instance: Instance) -> tuple[Slice, ...]:
    """The frames of an enhanced CT or PET: shared functional groups below those of the frame."""
    header = instance.header
    shared = header.items("SharedFunctionalGroupsSequence")[:1]
    frames = header.items("PerFrameFunctionalGroupsSequence")
    stated = integer(header, "NumberOfFrames")
    if stated != len(frames):
        raise TheraflowError(
            f"{tag_name('NumberOfFrames')} is {stated}, but {tag_name('PerFrameFunctionalGroupsSequence')} has "
            f"{len(frames)} items; export it again."
        )
    base = header.overlaid(*(item for group in shared for item in _macros(group)))
    slices = tuple(Slice(instance, k, base.overlaid(*_macros(frame))) for k, frame in enumerate(frames))
    for keyword in ("StackID", "TemporalPositionIndex"):
        if len({one.header.raw(keyword) for one in slices}) > 1:
            raise TheraflowError(f"{tag_name(keyword)} tells several volumes in one object; export one volume.")
    return slices


def _macros(group: Header) -> list[Header]:
    items = [item for keyword in _MACROS for item in group.items(keyword)[:1]]
    mapping = "RealWorldValueMappingSequence"
    return [*items, _only(group, mapping)] if group.items(mapping) else items


def _only(header: Header, keyword: str) -> Header:
    tag = ELEMENTS[keyword][0]
    return Header({tag: header.values[tag]}, header.order)


def _nuclear(instance: Instance, photopeak_kev: float | None) -> tuple[tuple[Slice, ...], tuple[str, ...]]:
    """The slices of an NM reconstruction (PS3.3 C.8.4.15): one position for the first, the others by their distance."""
    header = instance.header
    headers = headers_of_frames(instance)
    frames = np.flatnonzero(choose_window([window_of(own) for own in headers], photopeak_kev))
    header = headers[frames[0]]
    for keyword, what in _NM_VECTORS.items():
        values = _vector(header, keyword, None)
        if values and (len(values) <= frames.max() or len({values[frame] for frame in frames}) > 1):
            raise TheraflowError(f"it holds several {what} ({tag_name(keyword)}); export one of them alone.")
    detector = (header.items("DetectorInformationSequence") or (header,))[0]
    place = {
        keyword: numbers(detector, keyword, count) or numbers(header, keyword, count)
        for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    }
    between, thickness = number(header, "SpacingBetweenSlices"), number(header, "SliceThickness")
    absent = [tag_name(keyword) for keyword, value in place.items() if value is None]
    if not (between or thickness):
        absent.append(tag_name("SpacingBetweenSlices"))
    if absent:
        raise TheraflowError(f"it lacks {', '.join(absent)}; export the series again.")
    vector = _vector(header, "SliceVector", None)
    order = (
        [vector[frame] for frame in frames] if vector and len(vector) > frames.max() else [*range(1, len(frames) + 1)]
    )
    if sorted(order) != list(range(1, len(frames) + 1)):
        raise TheraflowError(
            f"{tag_name('SliceVector')} does not number {len(frames)} slices of one volume; export one."
        )
    orientation = np.array(place["ImageOrientationPatient"])
    normal = np.cross(orientation[:3], orientation[3:])
    slices = []
    for frame, number_ in zip(frames, order, strict=True):
        # A negative distance stacks against the normal, which PS3.3 C.8.4.15 allows.
        position = np.array(place["ImagePositionPatient"]) + normal * (between or thickness) * (number_ - 1)
        own = _with_numbers(ImagePositionPatient=position, ImageOrientationPatient=orientation)
        slices.append(Slice(instance, int(frame), header.overlaid(own)))
    flags = () if between else ("distance between slices not stated: slice thickness taken",)
    return tuple(slices), flags


def _vector(header: Header, keyword: str, length: int | None) -> tuple[int, ...]:
    found = integers(header, keyword) or ()
    if length is not None and len(found) != length:
        raise TheraflowError(f"{tag_name(keyword)} has {len(found)} values for {length} frames; export it again.")
    return found


def headers_of_frames(instance: Instance) -> tuple[Header, ...]:
    """A header for each frame of an NM object, in which only the frame's own energy window is left.

    Raises:
        TheraflowError: an impossible number of frames; EnergyWindowVector does not fit the frames or the windows.
    """
    header = instance.header
    count = integer(header, "NumberOfFrames") or 1
    if not 1 <= count <= instance.file.size:
        raise TheraflowError(f"{tag_name('NumberOfFrames')} is {count}, which its pixels do not hold; export it again.")
    windows = header.items("EnergyWindowInformationSequence")
    if len(set(_vector(header, "EnergyWindowVector", None))) < 2:
        return (header,) * count
    numbers_ = _vector(header, "EnergyWindowVector", count)
    if not all(1 <= number_ <= len(windows) for number_ in numbers_):
        raise TheraflowError(
            f"{tag_name('EnergyWindowVector')} does not fit {tag_name('EnergyWindowInformationSequence')} with "
            f"{len(windows)} items; export it again."
        )
    tag = ELEMENTS["EnergyWindowInformationSequence"][0]
    own = {k: header.overlaid(Header({tag: (windows[k - 1],)}, header.order)) for k in set(numbers_)}
    return tuple(own[k] for k in numbers_)


def choose_window(windows: Sequence[Window | None], photopeak_kev: float | None) -> np.ndarray:
    """Which frames are of the energy window that the photopeak lies in, shape (frames,), bool.

    Args:
        windows: of each frame; None where not stated.
        photopeak_kev: None where the configuration does not say it: then there must be one window only.

    Raises:
        TheraflowError: none or several windows come into question.
    """
    found = list(dict.fromkeys(windows))
    listed = "; ".join("not stated" if one is None else window_text(one) for one in found)
    if photopeak_kev is None or None in found:
        if len(found) == 1:
            return np.ones(len(windows), bool)
        raise TheraflowError(
            f"it holds several energy windows ({listed}); set photopeak_kev of its tracer in the configuration."
            if None not in found
            else f"an energy window has no {tag_name('EnergyWindowRangeSequence')}; export it again."
        )
    fitting = [one for one in found if any(low <= photopeak_kev <= high for low, high in one)]
    if len(fitting) != 1:
        raise TheraflowError(
            f"the photopeak of {photopeak_kev:g} keV lies in {len(fitting)} of its energy windows ({listed}); correct "
            "photopeak_kev of its tracer in the configuration or choose another series."
        )
    return np.array([one == fitting[0] for one in windows])


def window_of(header: Header) -> Window | None:
    """The energy window of an image, which may have several ranges; None where it is not stated.

    A PET object, in which some scanners store SPECT, has the ranges without a sequence of windows around them.
    """
    (window, *others) = header.items("EnergyWindowInformationSequence") or (header,)
    ranges = [
        (number(item, "EnergyWindowLowerLimit"), number(item, "EnergyWindowUpperLimit"))
        for item in window.items("EnergyWindowRangeSequence")
    ]
    if others or not ranges or any(None in pair for pair in ranges):
        return None
    return tuple(ranges)


def window_text(window: Window) -> str:
    """`187.2 to 228.8 keV`, for messages."""
    return " and ".join(f"{low:g} to {high:g} keV" for low, high in window)


def _with_numbers(**elements: Sequence[float]) -> Header:
    """Elements of decimal strings, as a classic slice would state them."""
    stated = {keyword: "\\".join(repr(float(value)) for value in values) for keyword, values in elements.items()}
    return Header({ELEMENTS[keyword][0]: value.encode() for keyword, value in stated.items()})
