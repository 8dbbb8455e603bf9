"""What lies in a folder of DICOM, in one pass over the headers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from theraflow.dicom.export.header import tag_name, text, words
from theraflow.dicom.export.identity import identifying_words
from theraflow.dicom.export.parse import BrokenDicomError, read_file
from theraflow.dicom.export.series import Instance, Series, numbers_or_none
from theraflow.dicom.export.sniff import files_below
from theraflow.errors import TheraflowError

_DIRECTORY = b"1.2.840.10008.1.3.10"
_IMAGES = {"CT", "PT", "NM"}
# Parts of one series count as volumes of their own when their orientations differ by more than this (direction
# cosines) and each has this many slices; otherwise a slice is out of order, which is refused when they are stacked.
_OTHER_ORIENTATION = 0.05
_SLICES_OF_A_VOLUME = 3


@dataclass(frozen=True)
class Index:
    """All DICOM series below a folder.

    Attributes:
        folder: as it was asked for.
        series: ordered by SeriesInstanceUID.
        broken: one sentence for each file that is damaged or cannot be read.
        identity: words of the headers that tell who the patient is; none of them may get into any output.
    """

    folder: str
    series: tuple[Series, ...]
    broken: tuple[str, ...]
    identity: frozenset[str]

    def whole(self) -> "Index":
        """Itself, if every file could be read: a damaged one may be a slice of the series that is wanted.

        Raises:
            TheraflowError: naming the first damaged file.
        """
        if self.broken:
            more = f" ({len(self.broken) - 1} more such files)" if len(self.broken) > 1 else ""
            raise TheraflowError(f"{self.broken[0]}{more}")
        return self

    def __str__(self) -> str:
        """The list of its series, for messages."""
        return "; ".join(str(one) for one in self.series)


def read_index(folder: Path | str) -> Index:
    """All DICOM series below a folder, whatever its files are called and however they are nested.

    Other files, hidden files and DICOMDIR are passed over, except that a file called `.dcm` has to be DICOM.

    Raises:
        TheraflowError: no such folder, or no DICOM in it.
    """
    if not Path(folder).is_dir():
        raise TheraflowError(f"The folder {folder} does not exist; correct the column dicom of scans.tsv.")
    groups: dict[tuple[str, ...], list[Instance]] = {}
    broken: list[str] = []
    strangers: list[Path] = []
    identity: set[str] = set()
    for path in _files(folder):
        try:
            instance = _read_instance(path)
        except TheraflowError as error:
            broken.append(str(error))
            continue
        if instance is None:
            strangers.append(path)
            continue
        identity |= identifying_words(instance.header)
        uid = text(instance.header, "SeriesInstanceUID")
        # Anonymisation may leave the UID empty: then the files of one folder and modality are taken for one series.
        key = (uid,) if uid else ("", str(path.parent), text(instance.header, "Modality") or "")
        groups.setdefault(key, []).append(instance)
    if not groups and not broken:
        raise TheraflowError(f"No DICOM file lies in {folder}; correct the column dicom of scans.tsv.")
    series = []
    for _, instances in sorted(groups.items()):
        try:
            once, flags = _without_copies(instances)
        except TheraflowError as error:
            broken.append(str(error))
            continue
        series += [Series(part, flags) for part in _volumes(once)]
    alike = {_name_alike(one.path) for instances in groups.values() for one in instances}
    broken += [
        f"{path} is called like the DICOM files beside it but holds no DICOM; export it again or delete it."
        for path in strangers
        if _name_alike(path) in alike and _is_no_text(path)
    ]
    return Index(str(folder), _with_twins(series), tuple(broken), frozenset(identity))


def _name_alike(path: Path) -> tuple[Path, str]:
    """Folder and suffix; names of DICOM files mostly have none, or end with a number as a UID does."""
    suffix = path.suffix.lower()
    return path.parent, "" if suffix[1:].isdecimal() else suffix


def _is_no_text(path: Path) -> bool:
    """Whether a file that is no DICOM may be what is left of one: empty, or with zeros as no text has them."""
    with path.open("rb") as file:
        head = file.read(1024)
    return not head or (b"\0" in head and head[128:132] != b"DICM")


def _with_twins(series: Sequence[Series]) -> tuple[Series, ...]:
    """The series, with a remark where a damaged SeriesInstanceUID may have split one in two."""
    uids: dict[tuple[str | None, ...], set[str]] = {}
    for one in series:
        uids.setdefault(_number_in_study(one), set()).add(one.uid)
    twins = {key for key, found in uids.items() if len(found) > 1 and None not in key}
    remark = f"another series has the same {tag_name('SeriesNumber')}: a damaged SeriesInstanceUID may have split it"
    return tuple(replace(one, flags=(*one.flags, remark)) if _number_in_study(one) in twins else one for one in series)


def _number_in_study(one: Series) -> tuple[str | None, ...]:
    keywords = ("StudyInstanceUID", "Modality", "FrameOfReferenceUID", "SeriesNumber")
    return tuple(text(one.header, keyword) for keyword in keywords)


def _files(folder: Path | str) -> Iterable[Path]:
    try:
        yield from (Path(path) for files in files_below(folder) for path in files)
    except OSError as error:
        raise TheraflowError(f"{folder} cannot be read ({error.strerror}); correct its permissions.") from error


def _read_instance(path: Path) -> Instance | None:
    try:
        file = read_file(path)
    except BrokenDicomError as error:
        raise TheraflowError(f"{path} is broken or truncated DICOM: it {error}; export it again.") from error
    except OSError as error:
        raise TheraflowError(
            f"{path} cannot be read ({error.strerror}); correct its permissions or export it again."
        ) from error
    if file is None:
        if path.suffix.lower() == ".dcm":
            raise TheraflowError(f"{path} is called .dcm but holds no DICOM; export it again or delete it.")
        return None
    header = file.header
    if (header.raw("MediaStorageSOPClassUID") or b"").strip(b"\0 ") == _DIRECTORY:
        return None
    absent = [keyword for keyword in ("Modality", "SeriesInstanceUID") if header.raw(keyword) is None]
    if absent:
        raise TheraflowError(f"{path} is broken or truncated DICOM without {', '.join(absent)}; export it again.")
    if b"\0" in header.raw("SeriesInstanceUID").strip(b"\0 "):
        raise TheraflowError(
            f"{path} is broken DICOM: {tag_name('SeriesInstanceUID')} runs into the next element; export it again."
        )
    if text(header, "Modality") in _IMAGES:
        if file.pixels_at is None:
            raise TheraflowError(f"{path} is truncated: it ends before its pixel data (7FE0,0010); export it again.")
        if file.pixels_at + (file.pixel_bytes or 0) > file.size:
            raise TheraflowError(
                f"{path} is truncated: its pixel data (7FE0,0010) are incomplete; export or copy it again."
            )
    return Instance(path, file)


def _without_copies(instances: Sequence[Instance]) -> tuple[tuple[Instance, ...], tuple[str, ...]]:
    """The instances without second copies of the same file, which exports to one folder twice leave behind."""
    kept: dict[str, Instance] = {}
    copies = 0
    for instance in instances:
        uid = text(instance.header, "SOPInstanceUID")
        first = kept.get(uid) if uid else None
        if first is None:
            kept.setdefault(uid or str(instance.path), instance)
        elif first.header == instance.header and first.path.read_bytes() == instance.path.read_bytes():
            copies += 1
        elif text(first.header, "Modality") not in _IMAGES:
            kept[str(instance.path)] = instance  # an annotation that was edited and kept its number
        else:
            raise TheraflowError(
                f"{first.path} and {instance.path} are the same image (SOPInstanceUID {uid}) with different content; "
                "delete one of them."
            )
    unordered = sum(not instance.file.ordered for instance in kept.values())
    flags = [f"{copies} files are second copies and left out"] if copies else []
    if unordered:
        flags.append(f"the elements of {unordered} files do not ascend: something has changed them after the scanner")
    return tuple(kept.values()), tuple(flags)


def _volumes(instances: Sequence[Instance]) -> list[tuple[Instance, ...]]:
    """A series taken apart into scouts and volumes of different orientation, where scanners have put them together."""
    parts: list[tuple[bool, np.ndarray, list[Instance]]] = []
    for instance in instances:
        scout = "LOCALIZER" in (words(instance.header, "ImageType") or ())
        orientation = np.array(numbers_or_none(instance.header, "ImageOrientationPatient", 6) or [0.0] * 6)
        for other_scout, other, part in parts:
            if scout == other_scout and (scout or np.abs(orientation - other).max() < _OTHER_ORIENTATION):
                part.append(instance)
                break
        else:
            parts.append((scout, orientation, [instance]))
    scouts = [tuple(part) for scout, _, part in parts if scout]
    images = [tuple(part) for scout, _, part in parts if not scout]
    if any(len(part) < _SLICES_OF_A_VOLUME for part in images):
        images = [tuple(instance for part in images for instance in part)] if images else []
    return scouts + images
