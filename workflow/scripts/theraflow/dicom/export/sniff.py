"""The files of an export, and what they show. Imports only the standard library: the Snakefile uses it."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from theraflow.dicom.export.header import text, words
from theraflow.dicom.export.parse import BrokenDicomError, Header, read_file

# Values of ImageType (0008,0008) of NM objects: PS3.3 C.8.4.9.1.1.
_VOLUMES, _VIEWS = {"RECON TOMO", "RECON GATED TOMO"}, {"WHOLE BODY", "STATIC"}


def files_below(folder: Path | str) -> Iterator[list[Path]]:
    """The files of `folder` and of every folder below, a sorted list a folder.

    Hidden files and whatever is no regular file (pipes, sockets, broken links) are left out; a folder that links lead
    to twice is entered once.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [Path(folder)]
    while waiting:
        here = waiting.pop()
        identity = here.stat()
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        yield [Path(entry.path) for entry in entries if not entry.name.startswith(".") and _is(entry.is_file)]
        waiting.extend(Path(entry.path) for entry in reversed(entries) if _is(entry.is_dir))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that leads to itself
        return False


def modalities(folder: Path | str) -> frozenset[str]:
    """The DICOM modalities below a folder, as `{"CT", "PT", "RTSTRUCT"}`.

    The search ends as soon as both a CT and an emission image (PT or NM) have been seen: the set may then lack others.
    Survey radiographs (ImageType LOCALIZER) do not count as CT. Broken files are passed over here, because the import
    tells of them; a missing folder has no modalities.
    """
    found: set[str] = set()
    for header in _headers(folder):
        modality = text(header, "Modality")
        if modality and "LOCALIZER" not in (words(header, "ImageType") or ()):
            found.add(modality)
        if "CT" in found and found & {"PT", "NM"}:
            break
    return frozenset(found)


def is_planar(folder: Path | str) -> bool:
    """Whether a folder holds planar views of a gamma camera (NM, WHOLE BODY or STATIC) and no SPECT or PET volume.

    The search ends at the first file of a volume. Broken files and a missing folder: as with `modalities`.
    """
    views = False
    for header in _headers(folder):
        modality, what = text(header, "Modality"), words(header, "ImageType") or ()
        if modality == "PT" or (modality == "NM" and _VOLUMES & {*what}):
            return False
        views = views or (modality == "NM" and bool(_VIEWS & {*what}))
    return views


def _headers(folder: Path | str) -> Iterator[Header]:
    """The headers below a folder, one file of every folder first.

    Exports keep a series a folder, so that a few files mostly tell everything.
    """
    if not Path(folder).is_dir():
        return
    folders = [files for files in files_below(folder) if files]
    for path in itertools.chain((files[0] for files in folders), *(files[1:] for files in folders)):
        try:
            file = read_file(path)
        except (BrokenDicomError, OSError):
            continue
        if file is not None:
            yield file.header
