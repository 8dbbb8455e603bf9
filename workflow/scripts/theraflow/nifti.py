"""NIfTI-1 files with a JSON sidecar, written slice by slice, so that a whole-body volume needs the memory of one slice.

SimpleITK and nibabel hold the whole volume and compress on one thread with zlib, which for a CT takes most of the time
of the import. isal deflates several times faster, to files about 5 % larger.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

import theraflow
from theraflow.errors import TheraflowError
from theraflow.files import whole, write_json

# NIfTI-1 codes (nifti1.h) of the types that images are stored in.
_TYPES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256, "uint16": 512, "uint32": 768}
_SCANNER_ANATOMICAL, _MILLIMETRES = 1, 2
_HEADER_BYTES, _VOXELS_AT = 348, 352
# What to do about a damaged file, which may be from elsewhere or from an earlier step.
_MAKE_ANEW = "export it again, or delete it, then name it to snakemake"
_GZIP_SIGNATURE = b"\x1f\x8b"
_COMPRESSION_LEVEL = 2
_COMPRESSION_THREADS = 2


@dataclass(frozen=True)
class Grid:
    """The voxels of an image in space: LPS, mm.

    Attributes:
        size: columns, rows, slices.
        spacing: distance of voxel centres along each.
        origin: centre of the first voxel.
        direction: row by row, its columns are the unit vectors along columns, rows and slices.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]


def write_nifti(slices: Iterable[np.ndarray], grid: Grid, kind: np.dtype | type, path: Path | str) -> None:
    """Write a volume, whole or not at all; compressed if the name ends with `.gz`.

    Args:
        slices: the slices in order, each of shape (rows, columns); several at once, shape (n, rows, columns), will do.
        grid: where they lie.
        kind: type of the voxels in the file.
        path: `.nii` or `.nii.gz`.

    Raises:
        ValueError: not as many voxels as the grid has.
    """
    kind = np.dtype(kind).newbyteorder("<")
    size = _VOXELS_AT + kind.itemsize * int(np.prod(grid.size))
    with whole(path) as temporary, _opened(temporary, size) as file:
        file.write(nifti_header(grid, kind))
        written = 0
        for part in slices:
            file.write(np.ascontiguousarray(part, kind).data.cast("B"))
            written += part.size
        if written != int(np.prod(grid.size)):
            raise ValueError(f"{path}: {written} voxels for a grid of {grid.size}")


@contextmanager
def _opened(path: Path, size: int) -> Iterator[IO[bytes]]:
    """A new file that will hold `size` bytes before compression."""
    if path.suffix == ".gz":
        from isal import igzip_threaded  # only here: loading it takes as long as writing a PET

        with igzip_threaded.open(path, "wb", _COMPRESSION_LEVEL, threads=_COMPRESSION_THREADS) as file:
            yield file
    else:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):  # halves the time of writing, and a full disk is known at once
                os.posix_fallocate(file.fileno(), 0, size)
            yield file


def nifti_header(grid: Grid, kind: np.dtype, slope: float = 1.0, intercept: float = 0.0, intent: int = 0) -> bytes:
    """The header (nifti1.h) and four bytes that say that no extension follows; the voxels come next.

    Args:
        grid: where the voxels lie.
        kind: type of the voxels in the file, little-endian.
        slope, intercept: the value of a voxel is `slope` times what is stored, plus `intercept`.
        intent: what the values are, by its code.
    """
    spacing = np.array(grid.spacing)
    axes = np.array(grid.direction).reshape(3, 3)
    to_ras = np.diag([-1.0, -1.0, 1.0])  # NIfTI counts to the right and to the front, DICOM to the left and to the back
    axes, origin = to_ras @ axes, to_ras @ np.array(grid.origin)
    handed = 1.0 if np.linalg.det(axes) > 0 else -1.0
    quaternion = _quaternion(axes * [1.0, 1.0, handed])
    header = bytearray(_VOXELS_AT)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, *grid.size, 1, 1, 1, 1)
    struct.pack_into("<h", header, 68, intent)
    struct.pack_into("<hh", header, 70, _TYPES[kind.name], 8 * kind.itemsize)
    struct.pack_into("<8f", header, 76, handed, *spacing, 0.0, 0.0, 0.0, 0.0)
    struct.pack_into("<3f", header, 108, _VOXELS_AT, slope, intercept)
    struct.pack_into("<B", header, 123, _MILLIMETRES)
    struct.pack_into("<hh", header, 252, _SCANNER_ANATOMICAL, _SCANNER_ANATOMICAL)
    struct.pack_into("<6f", header, 256, *quaternion[1:], *origin)
    struct.pack_into("<12f", header, 280, *np.column_stack([axes * spacing, origin]).ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (a, b, c, d) with a >= 0 of a proper rotation: eigenvector of the greatest eigenvalue.

    Source: Bar-Itzhack, J Guid Control Dyn 2000;23:1085, which also holds where the rotation is by half a turn.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    quaternion = np.linalg.eigh(matrix)[1][:, -1]
    return quaternion if quaternion[0] >= 0 else -quaternion


def refuse_damaged_nifti(path: Path | str, to_the_end: bool = False) -> None:
    """Refuse a NIfTI-1 file that SimpleITK would read nevertheless.

    What was cut off, SimpleITK takes as zeros, and a file with a damaged signature as Analyze, without orientation.
    How many bytes a gzip file holds its last four say (ISIZE, RFC 1952, 2.3.1), which takes no time to read. Only
    where they say something else than the header is it inflated: it is cut off, or has several gzip members, or more
    than the voxels.

    Args:
        path: `.nii` or `.nii.gz`.
        to_the_end: inflate it in any case, so that its checksum is compared too. For a CT of 300 MB this takes about
            1 s, as long as reading it: worth it for files from elsewhere.

    Raises:
        OSError: it cannot be opened.
        TheraflowError: another signature, fewer voxels than its header says, a checksum that does not fit.
    """
    path = Path(path)
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_SIGNATURE
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        if header[344:] not in (b"n+1\0", b"ni1\0"):
            raise TheraflowError(f"{path} is no NIfTI file by its signature; {_MAKE_ANEW}.")
        promised = _promised_bytes(header)
        if not compressed:
            present = path.stat().st_size
        elif not to_the_end and _stated_bytes(path) == promised % 2**32:
            present = promised
        else:
            present = _inflated_bytes(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TheraflowError(f"{path} is cut off or damaged; {_MAKE_ANEW}.") from error
    if not present >= promised:  # also where a damaged header promises NaN
        raise TheraflowError(f"{path} is shorter than its header says; {_MAKE_ANEW}.")


def _promised_bytes(header: bytes) -> float:
    """Where the last voxel ends, by the header."""
    # As the NIfTI library knows the order of bytes: there are 1 to 7 dimensions.
    order = "<" if 1 <= struct.unpack_from("<h", header, 40)[0] <= 7 else ">"
    dimensions, *size = struct.unpack_from(f"{order}8h", header, 40)
    (bits,) = struct.unpack_from(f"{order}h", header, 72)
    (voxels_at,) = struct.unpack_from(f"{order}f", header, 108)
    return voxels_at + math.prod(max(n, 1) for n in size[:dimensions]) * bits / 8


def _stated_bytes(path: Path) -> int:
    """How many bytes the last gzip member of a file holds by its trailer, modulo 2^32."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def _inflated_bytes(path: Path) -> int:
    """How many bytes a gzip file holds; inflating holds it to its checksum."""
    from isal import igzip, isal_zlib  # only here, as above

    present = 0
    try:
        with igzip.open(path) as file:
            while block := file.read(1 << 22):
                present += len(block)
    except isal_zlib.error as error:
        raise zlib.error(str(error)) from error
    return present


def sidecar_path(image: Path | str) -> Path:
    """`ct.json` for `ct.nii.gz` and for `ct.nii`."""
    path = Path(image)
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def write_sidecar(sidecar: Mapping[str, Any], image: Path | str) -> None:
    """Write what is to be known of an image beside it; versions are added.

    Raises:
        ValueError: it does not say `quantity` and `unit`.
    """
    missing = {"quantity", "unit"} - set(sidecar)
    if missing:
        raise ValueError(f"{image}: the sidecar lacks {missing}")
    write_json({**sidecar, "theraflow": theraflow.__version__, "numpy": np.__version__}, sidecar_path(image))
