"""Transforms on disk, and what is carried with them: points and masks.

Direction is everything here. A transform always maps POINTS (LPS, mm):

- `to_scan`: point of the reference scan -> point of the scan;
- `to_reference`: point of the scan -> point of the reference scan.

To bring an IMAGE of the scan onto the grid of the reference, `sitk.Resample` and `theraflow.images.resample`
need the transform from grid point to image point, hence `to_scan`; the other way round `to_reference`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from theraflow.errors import TheraflowError
from theraflow.files import whole
from theraflow.images import from_array, resample, to_array, voxel_volume_ml
from theraflow.layout import PatientFolder

FINENESS_MM = 2.0  # supersampling of a carried mask: no farther apart than this, nor than the source's voxels
LATTICE_MM = 10.0  # a deformation is smooth at this length
LINEAR_AT_MOST = 100  # parameters of a transform without a field


def read_transform(path: Path | str) -> sitk.Transform:
    """Read a transform written by `register`. It maps points (LPS, mm) as the file's name says.

    Raises:
        TheraflowError: missing or not a transform.
    """
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise TheraflowError(f"{path} cannot be read as a transform; delete it, then name it to snakemake.") from error


def write_transform(transform: sitk.Transform, path: Path | str) -> None:
    """Write a transform as ITK HDF5, whole or not at all; the same transform gives the same bytes.

    The displacements of a field are rounded to single precision (less than 0.1 µm) and compressed.
    """
    with whole(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))
        _compress(temporary)


def _compress(path: Path) -> None:
    """Write an HDF5 file anew, compressed and without the times at which its parts were made: ITK can do neither."""
    import h5py  # only here: loading it takes longer than reading a transform

    with h5py.File(path) as file:
        parts = {}
        file.visititems(lambda name, item: parts.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        kinds = {name: file[name].dtype for name in parts}
    with h5py.File(path, "w", libver="earliest") as file:
        for name, values in parts.items():
            how: dict[str, object] = {}
            if values.size > LINEAR_AT_MOST:
                values = values.astype(np.float32)
                how = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            file.create_dataset(name, data=values, dtype=kinds[name], track_times=False, **how)


@dataclass(frozen=True)
class Passage:
    """The way from scan `source` to scan `target`, through the patient's reference scan.

    Attributes:
        source_to_target: maps points of the source (LPS, mm) to points of the target.
        target_to_source: the way back; with it `sitk.Resample` brings source images onto target grids.
    """

    source_to_target: sitk.Transform
    target_to_source: sitk.Transform


def passage(folder: PatientFolder, source: str, target: str) -> Passage:
    """The way from scan `source` to scan `target` (names of scans, of which one may be the reference).

    Raises:
        TheraflowError: a transform is missing.
    """
    if source == target:
        return Passage(sitk.CompositeTransform(3), sitk.CompositeTransform(3))
    # A composite applies its last transform first.
    return Passage(
        sitk.CompositeTransform([read_transform(folder.to_scan(target)), read_transform(folder.to_reference(source))]),
        sitk.CompositeTransform([read_transform(folder.to_scan(source)), read_transform(folder.to_reference(target))]),
    )


def map_points(points: np.ndarray, transform: sitk.Transform) -> np.ndarray:
    """Points (N, 3), x y z in LPS mm, each mapped by `transform`; shape (N, 3)."""
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    return np.array([transform.TransformPoint(point) for point in points.tolist()]).reshape(-1, 3)


def carry_points(points: np.ndarray, way: Passage) -> np.ndarray:
    """Points (N, 3) of the source scan, x y z in LPS mm, as points (N, 3) of the target scan."""
    return map_points(points, way.source_to_target)


def carry_mask(mask: sitk.Image, grid: sitk.Image, way: Passage) -> sitk.Image:
    """A binary mask of the source scan on a grid of the target scan.

    Every target voxel gets the fraction of it that the mask occupies (linear interpolation of the mask at
    points finer than either grid). The voxels with the largest fractions are taken, as many as fill the
    volume of the mapped mask: about those with a fraction >= 0.5, but without the shrinkage of small lesions
    that this threshold brings. A mask that lies mostly inside the grid keeps at least one voxel.

    Args:
        mask: non-zero inside, on any grid of the source scan.
        grid: image of the target scan whose geometry the result takes; its voxels are not read.
        way: from the scan of `mask` to the scan of `grid`, see `passage`.

    Returns:
        uint8 image on `grid`, 0 or 1; empty where the mask is empty or maps outside the grid.
    """
    result = np.zeros(grid.GetSize()[::-1], dtype=np.uint8)
    inside = to_array(mask) > 0
    if not inside.any():
        return from_array(result, grid)
    start, stop = _box_on_grid(inside, mask, grid, way)
    if (stop <= start).any():
        return from_array(result, grid)

    factor = np.ceil(np.array(grid.GetSpacing()) / min(FINENESS_MM, *mask.GetSpacing())).clip(min=2).astype(int)
    binary = sitk.Cast(mask != 0, sitk.sitkFloat32)
    occupied = resample(binary, _fine_grid(grid, start, stop, factor), way.target_to_source)
    fraction = to_array(sitk.BinShrink(occupied, factor.tolist()))

    total = float(fraction.sum())
    count = round(total)
    mostly_in_grid = total * voxel_volume_ml(grid) > 0.5 * inside.sum() * voxel_volume_ml(mask)
    if count == 0 and mostly_in_grid:
        count = 1
    chosen = np.zeros(fraction.size, dtype=np.uint8)
    chosen[np.argsort(-fraction, axis=None, kind="stable")[:count]] = 1
    box = tuple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))
    result[box] = chosen.reshape(fraction.shape)
    return from_array(result, grid)


def _box_on_grid(inside: np.ndarray, mask: sitk.Image, grid: sitk.Image, way: Passage) -> tuple[np.ndarray, np.ndarray]:
    """First index and index behind the last (x, y, z) of the part of `grid` that the mask can reach."""
    spacing = np.array(mask.GetSpacing())
    found = np.argwhere(inside)[:, ::-1]
    low, high = found.min(axis=0) - 1, found.max(axis=0) + 1
    counts = np.ceil((high - low) * spacing / LATTICE_MM).astype(int) + 1
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = carry_points([mask.TransformContinuousIndexToPhysicalPoint(index) for index in lattice.tolist()], way)
    reached = np.array([grid.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])
    slack = LATTICE_MM / np.array(grid.GetSpacing())
    start = np.floor(reached.min(axis=0) - slack).astype(int).clip(min=0)
    stop = (np.ceil(reached.max(axis=0) + slack).astype(int) + 1).clip(max=grid.GetSize())
    return start, stop


def _fine_grid(grid: sitk.Image, start: np.ndarray, stop: np.ndarray, factor: np.ndarray) -> sitk.Image:
    """The box `start` to `stop` (x, y, z) of `grid`, each voxel divided into `factor` parts per axis."""
    fine = sitk.Image(((stop - start) * factor).tolist(), sitk.sitkUInt8)
    fine.SetSpacing((np.array(grid.GetSpacing()) / factor).tolist())
    fine.SetDirection(grid.GetDirection())
    first = start - 0.5 + 0.5 / factor
    fine.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint(first.tolist()))
    return fine
