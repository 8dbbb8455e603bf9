"""Judges the miniature segmentation model on virtual patients that it has never seen.

    python tools/judge_miniature_model.py --patients 4 --cores 2

Every patient lies in a CT of every condition below, with lesions, native or in the portal venous phase in turn; the CT
goes through `segment_organs` as the workflow calls it (TotalSegmentator at 6 mm, logits resampled to the CT), and the
labels are held against those that the CT was made of. Prints a Markdown table of the Dice: mean and, in brackets, the
smallest. An organ counts where at least LEAST_ML of it lie in the image.
"""

import argparse
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from theraflow.images import read_image, to_array, write_image
from theraflow.organs import ORGAN_IDS, segment_organs
from theraflow.virtual.anatomy import FAT, Anatomy, Grid, Pose
from theraflow.virtual.cohort import LIVER, NODE_I, NODE_M, NODE_R, PERITONEUM, SOFT, SPLEEN, Lesion
from theraflow.virtual.render import hounsfield, locate

WEIGHTS = Path(__file__).resolve().parents[1] / "resources" / "miniature_weights"
FIRST_SEED = 1 << 31  # training draws its people from seeds below
LEAST_ML = 5.0
LUMBAR, THORACIC = (tuple(f"vertebrae_{part}{n}" for n in range(1, last + 1)) for part, last in (("L", 5), ("T", 12)))
SITES = (LIVER, SPLEEN, PERITONEUM, PERITONEUM, NODE_R, NODE_I, NODE_M, SOFT)
COLUMNS: dict[str, tuple[str, ...]] = {
    "liver": ("liver",),
    "spleen": ("spleen",),
    "right kidney": ("kidney_right",),
    "left kidney": ("kidney_left",),
    "aorta": ("aorta",),
    "L1 to L5": LUMBAR,
    "T1 to T12": THORACIC,
}


@dataclass(frozen=True)
class Condition:
    """How a patient is scanned.

    Attributes:
        spacing_mm: of the voxels, x, y, z.
        width_mm: of the square field of view.
        height_mm: lower and upper end in model coordinates.
        pose: largest rotation (degrees), shift, breathing and sagging (mm); none is the neutral pose.
        noise_hu: standard deviation of the noise.
        child: whether the patient is 6 to 12 years old.
        arms: whether the arms lie beside the body.
    """

    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0)
    width_mm: float = 435.0
    height_mm: tuple[float, float] = (-200.0, 520.0)
    pose: tuple[float, float, float, float] | None = (5.0, 20.0, 12.0, 2.0)
    noise_hu: float = 16.0
    child: bool = False
    arms: bool = False


CONDITIONS = {
    "PET/CT of the demo, 1.7 x 1.7 x 3 mm": Condition((1.7, 1.7, 3.0), noise_hu=12.0, pose=None),
    "SPECT/CT of the demo, 1.7 x 1.7 x 5 mm": Condition((1.7, 1.7, 5.0), noise_hu=20.0),
    "wide poses (10 degrees, 25 mm, breathing 15 mm)": Condition(pose=(10.0, 25.0, 15.0, 3.0)),
    "0.98 x 0.98 x 1.5 mm, 380 mm long": Condition((0.98, 0.98, 1.5), height_mm=(-40.0, 340.0)),
    "1.37 x 1.37 x 5 mm": Condition((1.37, 1.37, 5.0)),
    "2 mm isotropic": Condition((2.0, 2.0, 2.0)),
    "arms down, 500 mm wide": Condition(width_mm=500.0, arms=True),
    "abdomen alone, 280 mm long": Condition(height_mm=(0.0, 280.0)),
    "narrow, 320 mm wide": Condition(width_mm=320.0),
    "child": Condition(child=True),
}


def dice(found: np.ndarray, true: np.ndarray, organ: str, voxel_ml: float) -> float | None:
    """Dice of one organ in two label maps; None where less than LEAST_ML of it is to be found."""
    ours, theirs = found == ORGAN_IDS[organ], true == ORGAN_IDS[organ]
    if theirs.sum() * voxel_ml < LEAST_ML:
        return None
    return float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))


def draw_scan(condition: Condition, number: int) -> tuple[Grid, np.ndarray, np.ndarray]:
    """Grid, true labels (uint8, z y x) and CT (float32 HU, z y x) of the patient with that number."""
    rng = np.random.default_rng([FIRST_SEED, number])
    age = rng.uniform(6, 12) if condition.child else rng.uniform(16, 75)
    anatomy = Anatomy.draw(FIRST_SEED + number, rng.choice(["M", "F"]), float(age))
    pose = Pose.draw(rng, *condition.pose) if condition.pose else Pose()
    low, high = anatomy.bounding_box(*condition.height_mm)
    low[:2], high[:2] = -condition.width_mm / 2, condition.width_mm / 2
    grid = Grid.covering(low, high, condition.spacing_mm)
    labels = anatomy.labels(grid, pose, couch=True, arms=condition.arms)
    ellipsoids = []
    for site in rng.choice(SITES, 6):
        radii = rng.uniform(15.0, 32.0) / 2 * min(anatomy.scale) * np.array([1.0, *rng.uniform(0.8, 1.0, 2)])
        lesion = Lesion("lesion", str(site), tuple(radii), np.linalg.qr(rng.normal(size=(3, 3)))[0], {})
        ellipsoids.append(locate(lesion, anatomy.place(lesion.site, max(radii), rng), pose, "baseline"))
    hu = hounsfield(labels, grid, ellipsoids, rng, portal_venous=number % 2 == 1, noise_hu=condition.noise_hu)
    return grid, labels, hu


def judge(task: tuple[str, int], weights: Path) -> dict[str, float]:
    """Dice of every organ of COLUMNS that lies in the image, for the name of a condition and a patient's number."""
    name, number = task
    grid, labels, hu = draw_scan(CONDITIONS[name], number)
    true = np.where(labels < FAT, labels, 0)
    with tempfile.TemporaryDirectory() as folder:
        ct, organs = Path(folder) / "ct.nii.gz", Path(folder) / "organs.nii.gz"
        sidecar = {"quantity": "HU", "unit": "HU", "virtual_patient": True}
        write_image(grid.image(np.rint(np.clip(hu, -1024, 3071)).astype(np.int16)), ct, sidecar)
        segment_organs(ct, organs, task="total", resolution_mm=6.0, device="cpu", weights=weights, threads=1)
        found = to_array(read_image(organs))
    voxel_ml = float(np.prod(grid.spacing)) / 1000.0
    values = {organ: dice(found, true, organ, voxel_ml) for organ in itertools.chain(*COLUMNS.values())}
    return {organ: value for organ, value in values.items() if value is not None}


def table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """The results of every condition's patients as Markdown."""
    lines = ["| " + " | ".join(("condition", *COLUMNS)) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, patients in results.items():
        cells = [name]
        for organs in COLUMNS.values():
            values = [patient[organ] for patient in patients for organ in organs if organ in patient]
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f})" if values else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=4, help="number of patients")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    tasks = list(itertools.product(CONDITIONS, range(arguments.patients)))
    # Spawned: torch's threads do not outlive a fork.
    with ProcessPoolExecutor(arguments.cores, mp_context=get_context("spawn")) as pool:
        found = pool.map(partial(judge, weights=arguments.weights), tasks)
        results: dict[str, list[dict[str, float]]] = defaultdict(list)
        for (name, _), values in zip(tasks, found, strict=True):
            results[name].append(values)
    print(table(results))


if __name__ == "__main__":
    main()
