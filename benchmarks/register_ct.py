"""Compare engines of CT registration on pairs whose true correspondence is known: error, folding, time and memory.

Run from the repository root; see benchmarks/README.md.
"""

import argparse
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from cost import REPOSITORY, Cost, measure
from registration_engines import ENGINES

from theraflow.images import from_array, grid_of, points_of_index, read_image, to_array
from theraflow.images.body import find_body
from theraflow.registration import map_points, read_transform
from theraflow.virtual.anatomy import Anatomy, Grid, Pose
from theraflow.virtual.deformation import Deformation, turned_pose, values_at
from theraflow.virtual.render import Ellipsoid, hounsfield, tissue

SCRIPT = Path(__file__).with_name("registration_engines.py")
OURS = ("bodies", "rigid", "theraflow")
THREADS = 2
SPINE, LUNG = range(27, 45), range(10, 15)
# TotalSegmentator's ids. Organs glide along the chest wall and the spine; aorta, vena cava and spine stay with these.
GLIDING = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 18, 19, 20, 51, 53, 61, 62)
STAYING = (52, 63, *range(25, 51))
MEASURED = ((5,), (1,), (2, 3), (6,), (51,), (52,), tuple(LUNG), tuple(SPINE))  # one group of points each
POINTS_OF_AN_ORGAN, POINTS_OF_TISSUE = 100, 1500
CLOSING_MM = 15.0
LESION_MM = np.array([8.0, 9.0, 10.0])
DIAPHRAGM_MM = 240.0  # above the origin of the body's axes
COLUMNS = ("pair", "engine", "mean_mm", "p95_mm", "max_mm", "back_mean_mm", "back_p95_mm", "folding_fraction",
           "smallest_jacobian", "cpu_s", "cpu_of_start_s", "wall_s", "peak_mib", "failure")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two CTs and points (N, 3; LPS, mm) that belong to each other."""

    reference: sitk.Image
    moved: sitk.Image
    reference_points: np.ndarray
    moved_points: np.ndarray


def virtual_pair(
    seed: int, sex: str, age_y: float, portal_venous: tuple[bool, bool] = (False, False), glide: bool = False
) -> Pair:
    """A virtual patient in two poses, 10 degrees, 30 mm and 15 mm of breathing apart, with noise of its own in each.

    Args:
        seed, sex, age_y: of the patient.
        portal_venous: whether reference and moved scan have contrast medium.
        glide: the moved scan is made from the reference's voxels, organs gliding, instead of from the anatomy.
    """
    rng = np.random.default_rng(seed)
    anatomy = Anatomy.draw(seed, sex, age_y)
    low, high = anatomy.bounding_box()
    grid = Grid.covering((-215, -215, low[2]), (215, 215, high[2]), (2.0, 2.0, 3.0))
    labels = anatomy.labels(grid, Pose(), couch=True)
    centres = [anatomy.place(site, LESION_MM.max(), rng) for site in ("liver", "peritoneum", "peritoneum")]

    def scan(pose: Pose, tissues: np.ndarray, contrast: bool) -> sitk.Image:
        lesions = [Ellipsoid(pose.from_neutral(centre[None])[0], LESION_MM, np.eye(3)) for centre in centres]
        hu = hounsfield(tissues, grid, lesions, rng, portal_venous=contrast)
        return grid.image(np.clip(hu, -1024, 3071).astype(np.int16))

    reference = scan(Pose(), labels, portal_venous[0])
    if glide:
        return moved_pair(reference, grid.image(labels), np.zeros(3), turned_pose(10, 30, 15.0, rng), rng, glide=True)
    pose = turned_pose(10, 30, 15.0, rng, sag_mm=2.0)
    moved = scan(pose, anatomy.labels(grid, pose, couch=True), portal_venous[1])
    balls = [centre + LESION_MM.min() * directions(rng, POINTS_OF_AN_ORGAN) for centre in centres]
    points = np.concatenate([organ_points(grid.image(labels), rng), *balls])
    return Pair(reference, moved, points, pose.from_neutral(points))


def real_pair(ct: sitk.Image, seed: int, pose: tuple[float, float, float, float], diaphragm_mm: float = 0.0,
              labels: sitk.Image | None = None, glide: bool = False) -> Pair:  # fmt: skip
    """A real CT and what a made-up move makes of it.

    Args:
        ct: HU.
        seed: of the move.
        pose: degrees, shift, breathing and sag in mm, see `theraflow.virtual.deformation.turned_pose`.
        diaphragm_mm: how far above the middle of the CT the breathing is greatest.
        labels: TotalSegmentator's organs in the CT.
        glide: organs glide along the wall.
    """
    rng = np.random.default_rng(seed)
    ct = sitk.Cast(ct, sitk.sitkInt16)
    middle = np.array(ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()]))
    origin = middle + np.array([0.0, 0.0, diaphragm_mm - DIAPHRAGM_MM])
    return moved_pair(ct, labels, origin, turned_pose(*pose[:3], rng, sag_mm=pose[3]), rng, glide)


def moved_pair(
    ct: sitk.Image, labels: sitk.Image | None, origin: np.ndarray, pose: Pose, rng: np.random.Generator, glide: bool
) -> Pair:
    """A CT and the same moved; the points lie in soft tissue and in its organs, where the reference has seen them."""
    deformation = Deformation(pose, origin, cavity_of(labels) if glide else None)
    moved = deformation.moved(ct, deformation.grid(ct), rng)
    body = find_body(moved, 5.0)
    grid, hu = grid_of(body.mask), to_array(body.image)
    inside = np.argwhere(to_array(body.mask) > 0)[:, ::-1]
    soft = np.argwhere((to_array(body.mask) > 0) & (hu > -200))[:, ::-1]
    points = [points_of_index(rng.choice(soft, POINTS_OF_TISSUE) + rng.uniform(-0.5, 0.5, (POINTS_OF_TISSUE, 3)), grid)]
    if labels is not None:
        anywhere = points_of_index(inside + rng.uniform(-0.5, 0.5, inside.shape), grid)
        organ = values_at(labels, deformation.to_original(anywhere), order=0).astype(int)
        for group in MEASURED:
            found = anywhere[np.isin(organ, group)]
            if len(found) > POINTS_OF_AN_ORGAN:
                points.append(rng.choice(found, POINTS_OF_AN_ORGAN, replace=False))
    there = np.concatenate(points)
    here = deformation.to_original(there)
    index = np.array([ct.TransformPhysicalPointToContinuousIndex(point) for point in here.tolist()])
    kept = ((index >= 0) & (index <= np.array(ct.GetSize()) - 1)).all(axis=1) & ~deformation.torn(there)
    return Pair(ct, moved, here[kept], there[kept])


def whole_body_pair() -> Pair:
    """A virtual patient, 512 x 512 x 400 voxels of 1 x 1 x 2.5 mm, in two poses; made in slabs for the memory."""
    rng = np.random.default_rng(61)
    anatomy = Anatomy.draw(61, "M", 35.0)
    grid = Grid((512, 512, 400), (1.0, 1.0, 2.5), (-255.5, -255.5, -348.75))
    pose = turned_pose(10, 30, 15.0, rng, sag_mm=2.0)
    table, slab = tissue("native"), 24
    scans, points = [], []
    for where in (Pose(), pose):
        hu = np.empty(grid.size[::-1], np.int16)
        for first in range(0, grid.size[2], slab):
            size = (*grid.size[:2], min(slab, grid.size[2] - first))
            part = Grid(size, grid.spacing, (*grid.origin[:2], grid.origin[2] + first * grid.spacing[2]))
            labels = anatomy.labels(part, where, couch=True)
            if where is not pose:
                points.append(organ_points(part.image(labels), rng))
            noise = rng.normal(0, 15, labels.shape)
            hu[first : first + slab] = np.clip(table[labels] + noise, -1024, 3071)
        scans.append(grid.image(hu))
    points = np.concatenate(points)
    return Pair(*scans, points, pose.from_neutral(points))


def organ_points(labels: sitk.Image, rng: np.random.Generator) -> np.ndarray:
    """Centres of voxels (N, 3), 100 of each of the organs measured."""
    array, points = to_array(labels), []
    for group in MEASURED:
        index = np.argwhere(np.isin(array, group))[:, ::-1]
        if len(index) > POINTS_OF_AN_ORGAN:
            points.append(rng.choice(index, POINTS_OF_AN_ORGAN, replace=False))
    return points_of_index(np.concatenate(points).astype(float), grid_of(labels)) if points else np.empty((0, 3))


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points (N, 3) spread evenly over the inside of the unit ball."""
    points = rng.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True) * rng.random((count, 1)) ** (1 / 3)


def cavity_of(labels: sitk.Image) -> sitk.Image:
    """What glides along the wall: the organs with all between them, without spine and great vessels."""
    array = to_array(labels)
    radius = [round(CLOSING_MM / spacing) for spacing in labels.GetSpacing()]
    padded = sitk.ConstantPad(from_array(np.isin(array, GLIDING), labels), radius, radius)
    closed = sitk.Crop(sitk.BinaryMorphologicalClosing(padded, radius), radius, radius)
    return from_array((to_array(closed) > 0) & ~np.isin(array, STAYING), labels)


def all_pairs(data: Path | None) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """Name of each pair, and how it is made."""
    yield "virtual adult", lambda: virtual_pair(3, "M", 25.0)
    yield "virtual child", lambda: virtual_pair(11, "F", 8.0)
    yield "virtual, contrast against none", lambda: virtual_pair(21, "M", 40.0, portal_venous=(True, False))
    yield "virtual, gliding", lambda: virtual_pair(31, "M", 30.0, glide=True)
    if data is not None:
        folder = data / "ct_totalsegmentator"
        torso, organs = (folder / f"example_{what}.nii.gz" for what in ("ct", "seg"))
        top = diaphragm(read_image(organs))
        pose = (10, 30, 15.0, 3.0)
        yield "torso", lambda: real_pair(read_image(torso), 41, pose, top, read_image(organs))
        yield "torso, gliding", lambda: real_pair(read_image(torso), 42, pose, top, read_image(organs), glide=True)
        abdomen = data / "ct_abdomen" / "CRLM-CT-1004" / "image"
        yield "abdomen", lambda: real_pair(read_series(abdomen), 43, pose)
        for number, seed in (("003", 51), ("008", 52)):
            case = next(
                folder for folder in sorted((data / "sts_cohort" / f"STS_{number}").rglob("*")) if is_ct(folder)
            )
            yield (
                f"thigh, STS_{number}",
                lambda case=case, seed=seed: real_pair(read_series(case), seed, (10, 30, 0.0, 6.0)),
            )
    yield "whole body", whole_body_pair


def diaphragm(labels: sitk.Image) -> float:
    """How far above the middle of the image the top of the liver lies, less 20 mm for its dome; mm."""
    liver = points_of_index(np.argwhere(to_array(labels) == 5)[:, ::-1].astype(float), grid_of(labels))
    middle = labels.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in labels.GetSize()])
    return float(liver[:, 2].max()) - 20.0 - middle[2]


def is_ct(folder: Path) -> bool:
    """Whether a folder holds the slices of a CT."""
    files = [path for path in folder.glob("*") if path.is_file()]
    return bool(files) and pydicom.dcmread(files[0], stop_before_pixels=True).Modality == "CT"


def read_series(folder: Path) -> sitk.Image:
    """The one series in a folder."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def write_pair(make: Callable[[], Pair], folder: Path) -> None:
    """Make a pair and write what the engines read, and the points."""
    pair = make()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, image in (("reference", pair.reference), ("moved", pair.moved)):
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    np.savez(folder / "points.npz", reference=pair.reference_points, moved=pair.moved_points)


def maps_of(engine: str, folder: Path) -> tuple[Callable[[np.ndarray], np.ndarray], sitk.Image | None]:
    """The map that an engine found, from points (N, 3) of the reference, and its displacement field."""
    if engine == "theraflow":
        transform = read_transform(folder / "to_scan.h5")
        deformable = sitk.DisplacementFieldTransform(transform.GetNthTransform(transform.GetNumberOfTransforms() - 1))
        return lambda points: map_points(points, transform), deformable.GetDisplacementField()
    if engine == "rigid":
        transform = sitk.ReadTransform(str(folder / "rigid.tfm"))
        return lambda points: map_points(points, transform), None
    field = sitk.ReadImage(str(folder / f"{engine}.mha"))
    grid = grid_of(field)
    low, high = (points_of_index(np.array([index], float), grid)[0] for index in ((0, 0, 0), np.subtract(grid.size, 1)))

    def move(points: np.ndarray) -> np.ndarray:
        # The field lies close around the body; at the last voxels' outer half it goes on as at their centres.
        nearest = np.clip(points, np.minimum(low, high), np.maximum(low, high))
        parts = [values_at(sitk.VectorIndexSelectionCast(field, axis), nearest, outside=np.nan) for axis in range(3)]
        return points + np.stack(parts, axis=1)

    return move, field


def judged(engine: str, folder: Path) -> dict[str, float]:
    """Error and folding of what an engine found for the pair in `folder`."""
    points = np.load(folder / "points.npz")
    move, field = maps_of(engine, folder)
    error = np.linalg.norm(move(points["reference"]) - points["moved"], axis=1)
    row = {"mean_mm": error.mean(), "p95_mm": np.percentile(error, 95), "max_mm": error.max()}
    if engine == "theraflow":
        found = map_points(points["moved"], read_transform(folder / "to_reference.h5"))
        back = np.linalg.norm(found - points["reference"], axis=1)
        row |= {"back_mean_mm": back.mean(), "back_p95_mm": np.percentile(back, 95)}
    if field is not None:
        jacobian = to_array(sitk.DisplacementFieldJacobianDeterminant(field))
        row |= {"folding_fraction": (jacobian <= 0).mean(), "smallest_jacobian": jacobian.min()}
    return {key: float(value) for key, value in row.items()}


def run(engine: str, folder: Path, peers: Path) -> Cost:
    """Measure one engine, a process of its own, on the pair in `folder`."""
    python = sys.executable if engine in OURS else peers / "bin" / "python"
    return measure(
        [python, SCRIPT, engine, folder, THREADS],
        folder,
        PYTHONPATH=str(REPOSITORY / "workflow" / "scripts"),
        OMP_NUM_THREADS=str(THREADS),
        ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=str(THREADS),
    )


def start_of(engine: str) -> str | None:
    """The part of theraflow whose result an engine works on."""
    if engine in OURS:
        return None
    return "rigid" if engine.endswith("_from_rigid") else "bodies"


def compare(name: str, folder: Path, engines: list[str], peers: Path) -> Iterator[dict]:
    """One row for each engine on one pair, and for what these start from."""
    starts = [start for start in ("bodies", "rigid") if start in map(start_of, engines)]
    costs: dict[str, Cost] = {}
    for engine in (*starts, *(engine for engine in engines if engine not in starts)):
        row = {"pair": name, "engine": engine}
        try:
            cost = costs[engine] = run(engine, folder, peers)
        except SystemExit as failure:
            yield row | {"failure": str(failure).strip().splitlines()[-1]}
            continue
        start = start_of(engine)
        row |= {"cpu_s": cost.cpu_s, "cpu_of_start_s": costs[start].cpu_s if start else 0.0}
        row |= {"wall_s": cost.wall_s, "peak_mib": cost.peak_mib}
        yield row if engine == "bodies" else row | judged(engine, folder)


def markdown(row: dict) -> str:
    """A row of the table for a reader."""
    if row.get("failure"):
        return f"| {row['pair']} | {row['engine']} | failed: {row['failure']} |" + " |" * 8

    def cell(form: str, *keys: str) -> str:
        return " / ".join(format(row[key], form) for key in keys) if keys[0] in row else ""

    return (
        f"| {row['pair']} | {row['engine']} | {cell('.2f', 'mean_mm', 'p95_mm')} | {cell('.1f', 'max_mm')} "
        f"| {cell('.2f', 'back_mean_mm', 'back_p95_mm')} | {cell('.6f', 'folding_fraction')} "
        f"| {cell('.2f', 'smallest_jacobian')} | {row['cpu_s']:.1f} | {row['cpu_of_start_s']:.1f} "
        f"| {row['wall_s']:.1f} | {row['peak_mib']:.0f} |"
    )


def main() -> None:
    """Command line."""
    beside = Path(os.environ.get("THERAFLOW_DATA", REPOSITORY.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True, help="virtual environment with registration_peers.txt")
    parser.add_argument("--data", type=Path, default=beside, help="the published CTs; without them virtual ones only")
    parser.add_argument("--folder", type=Path, help="keep the pairs there, and take them from there the next time")
    parser.add_argument("--pairs", nargs="+", help="only pairs whose name begins so")
    parser.add_argument("--engines", nargs="+", choices=tuple(ENGINES), default=list(ENGINES))
    parser.add_argument("--output", type=Path, help="the table as TSV; rows are added")
    words = parser.parse_args()
    print(f"load before the start: {os.getloadavg()[0]:.2f}; {os.cpu_count()} processors, {THREADS} threads\n")
    print("| pair | engine | error mean / p95 mm | greatest | back mean / p95 mm | folding | smallest Jacobian | CPU s "
          "| CPU s of the start | wall s | peak MiB |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="register_") as temporary:
        root = (words.folder or Path(temporary)).absolute()
        for name, make in all_pairs(words.data if words.data.is_dir() else None):
            if words.pairs and not any(name.startswith(start) for start in words.pairs):
                continue
            folder = root / name.replace(",", "").replace(" ", "_")
            if not (folder / "points.npz").exists():
                write_pair(make, folder)
            for row in compare(name, folder, words.engines, words.peers):
                print(markdown(row), flush=True)
                if words.output:
                    add_row(row, words.output)


def add_row(row: dict, table: Path) -> None:
    """Add a row to a TSV, which is begun if it is not there."""
    new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n", restval="NA")
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
