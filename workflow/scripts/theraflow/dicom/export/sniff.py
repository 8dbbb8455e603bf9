"""The files of an export, and what they show. Imports only the standard library: the Snakefile uses it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from theraflow.dicom.export.header import text, words
from theraflow.dicom.export.parse import BrokenDicomError, Header, read_file

# Values of ImageType (0008,0008) of NM objects: PS3.3 C.8.4.9.1.1.
_VOLUMES, _VIEWS = {"RECON TOMO", "RECON GATED TOMO"}, {"WHOLE BODY", "STATIC"}


def files_below(folder: Path | str) -> Iterator[list[str]]:
    """The files of `folder` and of every folder below, a sorted list a folder.

    Hidden files and whatever is no regular file (pipes, sockets, broken links) are left out; a folder that links lead
    to twice is entered once.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        identity = Path(here).stat()
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        yield [entry.path for entry in entries if not entry.name.startswith(".") and _is(entry.is_file)]
        waiting.extend(entry.path for entry in reversed(entries) if _is(entry.is_dir))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that leads to itself
        return False


def holds_ct(folder: Path | str) -> bool | None:
    """Whether a CT lies below a folder; a survey radiograph (ImageType LOCALIZER) is none.

    None where it cannot be told: no DICOM is to be seen, as in a folder that is missing, or a file is broken, cannot be
    read or is a link that leads nowhere. The search ends at the first slice.
    """
    seen, all_read = False, True
    for header in _headers(folder):
        if header is None:
            all_read = False
        elif text(header, "Modality") == "CT" and "LOCALIZER" not in (words(header, "ImageType") or ()):
            return True
        else:
            seen = True
    return False if seen and all_read and not _has_broken_link(folder) else None


def _has_broken_link(folder: Path | str) -> bool:
    """Whether a link below a folder leads nowhere, as one into an archive that is away."""
    return any(path.is_symlink() and not path.exists() for path in Path(folder).rglob("*"))


def is_planar(folder: Path | str) -> bool:
    """Whether a folder holds planar views of a gamma camera (NM, WHOLE BODY or STATIC) and no SPECT or PET volume.

    The search ends at the first file of a volume. Broken files are passed over here, because the import tells of them;
    a missing folder holds nothing.
    """
    views = False
    for header in filter(None, _headers(folder)):
        modality, what = text(header, "Modality"), words(header, "ImageType") or ()
        if modality == "PT" or (modality == "NM" and _VOLUMES & {*what}):
            return False
        views = views or (modality == "NM" and bool(_VIEWS & {*what}))
    return views


def _headers(folder: Path | str) -> Iterator[Header | None]:
    """The headers of the DICOM below a folder; None for a file that is broken or cannot be read.

    A file of every folder comes first, then the largest and the smallest by turns. Exports keep a series a folder, so
    that a few files mostly tell everything. Where all series lie in one folder, a slice of a CT is larger than one of
    PET, and all slices of a SPECT in one file larger than both.
    """
    if not Path(folder).is_dir():
        return
    folders = []
    for files in filter(None, files_below(folder)):
        yield from _header(files[0])
        folders.append(files[1:])
    for files in folders:
        by_size = sorted(files, key=os.path.getsize)
        for k in range(len(by_size)):
            yield from _header(by_size[k // 2] if k % 2 else by_size[-1 - k // 2])


def _header(path: str) -> Iterator[Header | None]:
    """The header of a file, if it is DICOM; None if it is broken or cannot be read."""
    try:
        file = read_file(path)
    except (BrokenDicomError, OSError):
        yield None
        return
    if file is not None:
        yield file.header
