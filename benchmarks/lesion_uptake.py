"""Compare what measures uptake of many lesions in a large PET: time, memory and agreement of the IBSI's peaks.

Run from the repository root; see benchmarks/README.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

SHAPE, VOXEL_MM = (645, 440, 440), 1.65
USUAL, LARGE = 57, 3
VOLUMES_ML = (*np.geomspace(0.5, 60.0, USUAL), *[300.0] * LARGE)
MARGIN_MM = 10.0  # around a lesion where others get a crop: more than the radius of the sphere
NAMES = ("suv_max", "suv_mean", "suv_median", "suv_peak_ibsi_local", "suv_peak_ibsi_global")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def make(folder: Path) -> None:
    """Write a PET of 440 x 440 x 645 voxels with correlated noise and 60 ellipsoids in it, and their masks."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    noise = gaussian_filter(random.standard_normal((129, 110, 110)), 1.5, mode="wrap")
    image = np.tile((1.0 + 0.1 * noise / noise.std()).astype(np.float32), (5, 4, 4))
    taken = np.zeros(SHAPE, dtype=bool)
    masks = {}
    while len(masks) < 2 * len(VOLUMES_ML):
        number = len(masks) // 2
        axes = np.array([0.8, 1.0, 1.25]) * (VOLUMES_ML[number] * 750.0 / np.pi) ** (1.0 / 3.0) / VOXEL_MM
        centre = random.uniform(axes + 12.0, np.array(SHAPE) - axes - 12.0)
        start, stop = np.floor(centre - axes - 8.0).astype(int), np.ceil(centre + axes + 8.0).astype(int)
        box = tuple(slice(*pair) for pair in zip(start, stop, strict=True))
        if taken[box].any():
            continue
        taken[box] = True
        places = [(np.arange(a, b) - c) / r for a, b, c, r in zip(start, stop, centre, axes, strict=True)]
        z, y, x = np.meshgrid(*places, indexing="ij", sparse=True)
        inside = z**2 + y**2 + x**2 <= 1.0
        image[box] *= 1.0 + random.uniform(4.0, 12.0) * gaussian_filter(inside.astype(float), 5.0 / 2.355 / VOXEL_MM)
        low, high = (part(np.argwhere(inside), axis=0) for part in (np.min, np.max))
        masks[f"mask_{number:02d}"] = inside[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
        masks[f"start_{number:02d}"] = start + low
    np.save(folder / "image.npy", image)
    np.savez_compressed(folder / "masks.npz", **masks)


def theraflow_engine(image: np.ndarray) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """All of the lesion table: maximum, mean, median, three peaks, TLG, volume, centroid, diameters."""
    import SimpleITK as sitk

    from theraflow.lesions import Region, geometry
    from theraflow.lesions.uptake import uptake

    grid = sitk.Image([8, 8, 8], sitk.sitkUInt8)  # of the grid only spacing, origin and direction count here
    grid.SetSpacing([VOXEL_MM] * 3)

    def measure(start: np.ndarray, mask: np.ndarray) -> dict[str, float]:
        region = Region(tuple(start.tolist()), mask)
        return uptake(image, region, grid) | geometry(region, grid)

    return measure


def mirp_engine(image: np.ndarray, morphology: bool = False) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """Both peaks and statistics on a crop around the lesion, which comes as NIfTI: arrays cannot have a voxel size."""
    import logging

    import mirp
    import SimpleITK as sitk

    names = ("stat_max", "stat_mean", "stat_median", "loc_peak_loc", "loc_peak_glob")
    families = ["local_intensity", "statistics"] + ["morphological"] * morphology
    folder = tempfile.TemporaryDirectory(prefix="mirp_")

    def measure(start: np.ndarray, mask: np.ndarray) -> dict[str, float]:
        logging.disable(logging.INFO)
        paths = []
        for name, array in zip(("image", "mask"), _crop(image, start, mask), strict=True):
            crop = sitk.GetImageFromArray(array.astype(np.float32))
            crop.SetSpacing([VOXEL_MM] * 3)
            paths.append(f"{folder.name}/{name}.nii")
            sitk.WriteImage(crop, paths[-1])
        (row,) = mirp.extract_features(
            image=paths[0], mask=paths[1], image_modality="pt", num_cpus=1, base_feature_families=families,
            write_features=False, export_features=True,
        )  # fmt: skip
        return {own: float(row[name].iloc[0]) for own, name in zip(NAMES, names, strict=True)}

    return measure


def zrad_engine(image: np.ndarray, morphology: bool = False) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """Both peaks and statistics on a crop around the lesion."""
    from zrad.image import Image
    from zrad.preprocessing import RoiData
    from zrad.radiomics import Radiomics

    names = ("stat_max", "stat_mean", "stat_median", "loc_peak_loc", "loc_peak_glob")
    more = ("morph_vol_approx", "morph_com", "morph_diam") if morphology else ()

    def wrapped(array: np.ndarray) -> Image:
        return Image(array, (0.0,) * 3, (VOXEL_MM,) * 3, tuple(np.eye(3).ravel()), array.shape[::-1])

    def measure(start: np.ndarray, mask: np.ndarray) -> dict[str, float]:
        crop, inside = _crop(image, start, mask)
        crop = crop.astype(float)
        region = RoiData(
            image=wrapped(crop),
            morphological_mask=wrapped(inside.astype(float)),
            intensity_mask=wrapped(np.where(inside, crop, np.nan)),
        )
        found = Radiomics().extract_features(region, features=[*names, *more])
        return {own: float(found[name]) for own, name in zip(NAMES, names, strict=True)}

    return measure


ENGINES = {
    "theraflow": theraflow_engine,
    "z-rad": zrad_engine,
    "z-rad with morphology": partial(zrad_engine, morphology=True),
    "mirp": mirp_engine,
    "mirp with morphology": partial(mirp_engine, morphology=True),
}


def _crop(image: np.ndarray, start: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = int(np.ceil(MARGIN_MM / VOXEL_MM))
    found = np.argwhere(mask)
    low, high = start + found.min(axis=0) - width, start + found.max(axis=0) + 1 + width
    low, high = np.maximum(low, 0), np.minimum(high, image.shape)
    inside = np.zeros(high - low, dtype=bool)
    inside[tuple((found + start - low).T)] = True
    return image[tuple(slice(*pair) for pair in zip(low, high, strict=True))], inside


def chosen(every: int) -> list[int]:
    """Every n-th of the usual lesions, from the middle of the first n on, and one of the large ones."""
    return [*range(every // 2, USUAL, every), USUAL]


def run(engine: str, numbers: list[int], folder: Path) -> None:
    """Measure lesions and write time, memory and values to `<engine>.json`; in a process of its own."""
    image = np.load(folder / "image.npy")
    with np.load(folder / "masks.npz") as stored:
        lesions = [(stored[f"start_{k:02d}"], stored[f"mask_{k:02d}"]) for k in numbers]
    measure = ENGINES[engine](image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if engine != "theraflow":  # untimed: others load parts of themselves with the first
        measure(*lesions[0])
    rows, times = [], [(time.perf_counter(), time.process_time())]
    for start, mask in lesions:
        rows.append(measure(start, mask))
        times.append((time.perf_counter(), time.process_time()))
    wall, cpu = np.diff(times, axis=0).T.tolist()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"wall_s": wall, "cpu_s": cpu, "rows": rows, "peak_mib": peak / 1024, "before_mib": before / 1024}
    (folder / f"{engine}.json").write_text(json.dumps(result))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="virtual environment with mirp and z-rad; without it only theraflow")
    parser.add_argument("--folder", type=Path, help="keep the data there (0.5 GB), and take them from there next time")
    parser.add_argument("--every", type=int, default=10, help="every so manieth lesion is measured by the others")
    parser.add_argument("--engines", nargs="+", default=tuple(ENGINES)[1:], help="only these of the others")
    parser.add_argument("--engine", choices=tuple(ENGINES), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.engine:
        everything = words.engine == "theraflow"
        run(words.engine, list(range(len(VOLUMES_ML))) if everything else chosen(words.every), words.folder)
        return
    with tempfile.TemporaryDirectory(prefix="lesions_") as temporary:
        folder = (words.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "masks.npz").is_file():
            make(folder)
        print(f"load before the start: {os.getloadavg()[0]:.2f}; {os.cpu_count()} processors", flush=True)
        print(f"image {4 * np.prod(SHAPE) / 2**20:.0f} MiB, {len(VOLUMES_ML)} lesions")
        own = None
        for engine in ("theraflow", *(words.engines if words.peers else ())):
            python = words.peers / "bin" / "python" if own else sys.executable
            command = [python, __file__, "--engine", engine, "--every", words.every, "--folder", folder]
            subprocess.run([str(word) for word in command], check=True, env=os.environ | dict.fromkeys(THREADS, "1"))
            result = json.loads((folder / f"{engine}.json").read_text())
            own = own or result
            memory = f"peak {result['peak_mib']:.0f} MiB ({result['before_mib']:.0f} before)"
            took = "; ".join(_times(own[kind], result[kind], kind) for kind in ("wall_s", "cpu_s"))
            print(f"{engine}, {len(result['rows'])} lesions: {took}; {memory}", flush=True)
            if result is not own:
                pairs = list(zip([own["rows"][k] for k in chosen(words.every)], result["rows"], strict=True))
                worst = {name: max(abs(a[name] / b[name] - 1.0) for a, b in pairs) for name in NAMES}
                print("    largest deviation: " + ", ".join(f"{name} {value:.0e}" for name, value in worst.items()))


def _times(own: list[float], other: list[float], kind: str) -> str:
    """Time for all lesions; that of some is scaled by their number, of the usual and of the large ones apart."""
    if len(other) == len(VOLUMES_ML):
        return f"{kind} {sum(other):.2f}"
    total = np.mean(other[:-1]) * USUAL + other[-1] * LARGE
    return f"{kind} {sum(other):.2f}, scaled to all {total:.0f}, {total / sum(own):.0f} times theraflow's"


if __name__ == "__main__":
    main()
