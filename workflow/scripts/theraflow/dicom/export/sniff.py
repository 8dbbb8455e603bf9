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


def holds_ct(folder: Path | str) -> bool:
    """Whether a CT lies below a folder; a survey radiograph (ImageType LOCALIZER) is none.

    The search ends at the first slice. Broken files are passed over here, because the import tells of them; a missing
    folder holds nothing.
    """
    return any(
        text(header, "Modality") == "CT" and "LOCALIZER" not in (words(header, "ImageType") or ())
        for header in _headers(folder)
    )


def is_planar(folder: Path | str) -> bool:
    """Whether a folder holds planar views of a gamma camera (NM, WHOLE BODY or STATIC) and no SPECT or PET volume.

    The search ends at the first file of a volume. Broken files and a missing folder: as with `holds_ct`.
    """
    views = False
    for header in _headers(folder):
        modality, what = text(header, "Modality"), words(header, "ImageType") or ()
        if modality == "PT" or (modality == "NM" and _VOLUMES & {*what}):
            return False
        views = views or (modality == "NM" and bool(_VIEWS & {*what}))
    return views


def _headers(folder: Path | str) -> Iterator[Header]:
    """The headers below a folder: of a file of every folder, then by turns of the largest and the smallest.

    Exports keep a series a folder, so that a few files mostly tell everything. Where all series lie in one folder, a
    slice of a CT is larger than one of PET, and all slices of a SPECT in one file larger than both.
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


def _header(path: str) -> Iterator[Header]:
    """The header of a file, if it is DICOM and whole."""
    try:
        file = read_file(path)
    except (BrokenDicomError, OSError):
        return
    if file is not None:
        yield file.header
