"""The files of an export, and what they show. Imports only the standard library: the Snakefile uses it."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from theraflow.dicom.export.header import text, words
from theraflow.dicom.export.parse import BrokenDicomError, read_file


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
    if not Path(folder).is_dir():
        return frozenset()
    folders = [files for files in files_below(folder) if files]
    # One file of every folder first: exports keep a series a folder, so that a few files mostly tell everything.
    for path in itertools.chain((files[0] for files in folders), *(files[1:] for files in folders)):
        try:
            file = read_file(path)
        except (BrokenDicomError, OSError):
            continue
        if file is None:
            continue
        header = file.header
        modality = text(header, "Modality")
        if modality and "LOCALIZER" not in (words(header, "ImageType") or ()):
            found.add(modality)
        if "CT" in found and found & {"PT", "NM"}:
            break
    return frozenset(found)
