"""Which files are DICOM, and what they show. Imports only the standard library: the Snakefile uses it."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

# The elements a DICOM file without preamble begins with: group 0008, little endian, one of its first
# elements.
_BARE_BEGINNINGS = tuple(b"\x08\x00" + bytes([element, 0]) for element in (0x00, 0x01, 0x05, 0x08, 0x12, 0x16))


def files_below(folder: Path | str) -> Iterator[list[Path]]:
    """The files of `folder` and of every folder below, a sorted list a folder; hidden files are left out."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield [Path(root) / name for name in sorted(names) if not name.startswith(".")]


def is_dicom(path: Path) -> bool:
    """Whether the content of a file, not its name, says that it is DICOM."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or head.startswith(_BARE_BEGINNINGS)


def modalities(folder: Path | str) -> frozenset[str]:
    """The DICOM modalities below a folder, as `{"CT", "PT", "RTSTRUCT"}`.

    The search ends as soon as both a CT and an emission image (PT or NM) have been seen: the set may then
    lack others. Survey radiographs (ImageType LOCALIZER) do not count as CT. Broken files are passed over
    here, because the import tells of them; a missing folder has no modalities.
    """
    import pydicom

    found: set[str] = set()
    folders = [files for files in files_below(folder) if files]
    # One file of every folder first: exports keep a series a folder, so that a few files mostly tell
    # everything.
    for path in itertools.chain((files[0] for files in folders), *(files[1:] for files in folders)):
        try:
            if not is_dicom(path):
                continue
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["ImageType", "Modality"])
            modality, kind = str(header.get("Modality") or ""), header.get("ImageType") or ()
        except Exception:
            continue
        if modality and "LOCALIZER" not in kind:
            found.add(modality)
        if "CT" in found and found & {"PT", "NM"}:
            break
    return frozenset(found)
