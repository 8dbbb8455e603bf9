"""Compare what turns time-integrated activity into dose maps: time, memory and error against transport.

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
from pathlib import Path

import numpy as np

SHAPE, VOXEL_MM = (200, 128, 128), 4.8  # z, y, x
REGIONS = 10
NUCLIDES = ("90Y", "177Lu")
TIMES_H = (24.0, 48.0, 96.0, 168.0)
HALF_AXES_MM = (190.0, 125.0)  # of the body, x and y
DENSITY = 1.03
SEED = 11
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
RESOURCES = Path(__file__).resolve().parents[1] / "resources"
PEER_KERNEL = 51  # edge of PyTheranostics' kernels in voxels
Engine = Callable[[], Callable[[dict, str], np.ndarray]]  # of a patient and a nuclide


def make(folder: Path) -> None:
    """Write four SPECT of a body with ten ellipsoids on the benchmark's grid, and where body and ellipsoids lie."""
    random = np.random.default_rng(0)
    z, y, x = (VOXEL_MM * (np.arange(n) - (n - 1) / 2.0) for n in SHAPE)
    body = ((x / HALF_AXES_MM[0]) ** 2 + (y[:, None] / HALF_AXES_MM[1]) ** 2 <= 1.0)[None] * np.ones((SHAPE[0], 1, 1))
    labels = np.zeros(SHAPE, dtype=np.uint8)
    while labels.max() < REGIONS:
        radii = random.uniform(12.0, 60.0) * np.array([1.2, 0.9, 0.9])
        centre = random.uniform([-400, -55, -110], [400, 55, 110])
        parts = [((line - c) / r) ** 2 for line, c, r in zip((z, y, x), centre, radii, strict=True)]
        inside = parts[0][:, None, None] + parts[1][:, None] + parts[2] <= 1.0
        if inside.any() and not labels[inside].any():
            labels[inside] = labels.max() + 1
    level = np.concatenate([[200.0], random.uniform(1500.0, 9000.0, REGIONS)])[labels] * body
    half_life = np.concatenate([[60.0], random.uniform(35.0, 100.0, REGIONS)])[labels]
    spects = [random.poisson(level * 2.0 ** (-time_h / half_life)).astype(np.float32) for time_h in TIMES_H]
    np.savez(
        folder / "patient.npz", spects=spects, body=body > 0, labels=labels, half_life=half_life.astype(np.float32)
    )


def decays_of(patient: dict, name: str) -> np.ndarray:
    """Decays of a nuclide in every voxel per MBq mL of the first scan: what all engines start from."""
    per_h = {"177Lu": 0.0, "90Y": np.log(2.0) / 64.10 - np.log(2.0) / (6.647 * 24.0)}[name]
    rate = np.log(2.0) / patient["half_life"] + per_h
    return patient["spects"].mean(axis=0) * 3600.0 / rate * VOXEL_MM**3 / 1000.0


def theraflow_engine() -> Callable[[dict, str], np.ndarray]:
    """All of the deposition: electrons on voxels of 1.6 mm, photons as far as they fly, each region's self-dose."""
    import scipy.ndimage
    import SimpleITK as sitk

    from theraflow.dosimetry.activity.regions import Region
    from theraflow.dosimetry.maps.deposition import Kernels, kernel_dose, tissue_of
    from theraflow.dosimetry.maps.grids import Grids

    prepared = {}  # what does not depend on the nuclide

    def prepare(patient: dict) -> tuple:
        image = sitk.Image(SHAPE[::-1], sitk.sitkFloat32)
        image.SetSpacing([VOXEL_MM] * 3)
        grids = Grids.around(patient["body"], image)
        inside = grids.repeated(patient["body"][grids.box])
        tissue = tissue_of(np.broadcast_to(DENSITY, inside.shape), inside)
        labels = grids.repeated(patient["labels"][grids.box])
        regions = [
            Region(f"R{number}", "organ", box, (labels[box] == number).astype(np.float32))
            for number, box in enumerate(scipy.ndimage.find_objects(labels), start=1)
        ]
        return grids, tissue, regions

    def dose_map(patient: dict, name: str) -> np.ndarray:
        if not prepared:
            prepared["patient"] = prepare(patient)
        grids, tissue, regions = prepared["patient"]
        kernels = Kernels.of(name, grids, DENSITY)
        decays = grids.repeated((decays_of(patient, name)[grids.box] / np.prod(grids.parts)).astype(np.float32))
        dose = kernel_dose(decays, tissue, grids, kernels)
        for region in regions:
            around, fine = grids.around_fine(region.box)
            kernel_dose(decays[fine] * region.within(fine), tissue[fine], around, kernels)
        result = np.zeros(SHAPE, np.float32)
        result[grids.box] = grids.mean(dose)
        return result

    return dose_map


def direct_engine() -> Callable[[dict, str], np.ndarray]:
    """scipy.signal.fftconvolve of the whole image in double precision with a kernel that reaches as far."""
    import scipy.signal

    from theraflow.dosimetry.s_values.kernels import read_kernel, voxel_s

    def dose_map(patient: dict, name: str) -> np.ndarray:
        reach = int(np.ceil(read_kernel(name).outer[-1] / (VOXEL_MM / 10.0 * DENSITY)))
        eighth = voxel_s(name, [VOXEL_MM] * 3, DENSITY, np.minimum(reach, np.array(SHAPE) - 1))
        return scipy.signal.fftconvolve(decays_of(patient, name), whole(eighth), mode="same") * patient["body"]

    return dose_map


def peer_engine() -> Callable[[dict, str], np.ndarray]:
    """PyTheranostics' own tia_to_dose; its kernels are not in its package, so that it gets theraflow's, of its size."""
    from doodle.dosimetry.dvk import DoseVoxelKernel  # the name under which PyTheranostics 0.1 installs itself

    def dose_map(patient: dict, name: str) -> np.ndarray:
        kernel = DoseVoxelKernel.__new__(DoseVoxelKernel)
        kernel.kernel = patient[f"kernel_{name}"]
        return kernel.tia_to_dose(decays_of(patient, name)) * patient["body"]

    return dose_map


def short_engine() -> Callable[[dict, str], np.ndarray]:
    """The one call of that tia_to_dose: scipy.signal.fftconvolve with a kernel of 51 voxels, 12 cm to each side."""
    import scipy.signal

    def dose_map(patient: dict, name: str) -> np.ndarray:
        return (
            scipy.signal.fftconvolve(decays_of(patient, name), patient[f"kernel_{name}"], mode="same") * patient["body"]
        )

    return dose_map


ENGINES: dict[str, Engine] = {
    "theraflow": theraflow_engine,
    "direct": direct_engine,
    "pytheranostics": peer_engine,
    "as pytheranostics": short_engine,
}


def whole(eighth: np.ndarray) -> np.ndarray:
    """A kernel for offsets of both signs."""
    for axis in range(3):
        eighth = np.concatenate([np.flip(np.delete(eighth, 0, axis), axis), eighth], axis=axis)
    return eighth


def run(engine: str, folder: Path) -> None:
    """Make both maps and write time and memory; in a process of its own."""
    with np.load(folder / "patient.npz") as stored:
        patient = {name: stored[name] for name in stored.files}
    if "pytheranostics" in engine:
        with np.load(folder / "kernels.npz") as stored:
            patient |= {name: stored[name] for name in stored.files}
    dose_map = ENGINES[engine]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    maps = {name: dose_map(patient, name) for name in NUCLIDES}
    cost = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    cost |= {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "before_mib": before / 1024}
    (folder / f"{engine}.json").write_text(json.dumps(cost))
    np.savez(folder / f"{engine}.npz", **maps)


def agreement(folder: Path, engine: str) -> str:
    """Means of the regions against those of the direct convolution."""
    with np.load(folder / "patient.npz") as stored:
        labels = stored["labels"]
    with np.load(folder / f"{engine}.npz") as own, np.load(folder / "direct.npz") as other:
        means = [
            own[name][labels == number].mean() / other[name][labels == number].mean() - 1.0
            for name in NUCLIDES for number in range(1, REGIONS + 1)
        ]  # fmt: skip
    return f"means of regions within {100.0 * np.abs(means).max():.2f} % of the direct convolution"


def transport_errors(histories: int) -> None:
    """Means of a source and of its surroundings by theraflow's deposition and by following histories, and their sd."""
    import SimpleITK as sitk

    from theraflow.dosimetry.maps.deposition import Kernels, convolve
    from theraflow.dosimetry.maps.grids import Grids
    from theraflow.dosimetry.s_values.transport.radial import Emissions
    from theraflow.dosimetry.s_values.transport.voxels import deposit_in_voxels
    from theraflow.nuclides import MEV_IN_J

    spacing = np.array([4.8, 4.4, 4.4])  # z, y, x
    image = sitk.Image([11, 11, 9], sitk.sitkFloat32)
    image.SetSpacing(spacing[::-1].tolist())
    grids = Grids.around(np.ones((9, 11, 11)), image)
    z, y, x = (np.arange(n) - (n - 1) / 2.0 for n in grids.fine.GetSize()[::-1])
    fine = spacing / np.array(grids.parts)
    distance = (z * fine[0])[:, None, None] ** 2 + (y * fine[1])[:, None] ** 2 + (x * fine[2]) ** 2
    decays = np.where(distance <= 14.0**2, 1.0, 0.0)
    shell = (distance > 14.0**2) & (distance <= 18.0**2)
    for name in NUCLIDES:
        mev, sd = deposit_in_voxels(
            Emissions.read(RESOURCES / "emissions.tsv", name), RESOURCES / "photon_cross_sections_water.tsv",
            decays, fine / 10.0 * DENSITY, SEED, histories, histories,
        )  # fmt: skip
        kernels = Kernels.of(name, grids, DENSITY)
        photons = grids.interpolated(convolve(grids.summed(decays), kernels.photons))
        own = (convolve(decays, kernels.electrons) + photons) * DENSITY * np.prod(fine) * 1e-6 / MEV_IN_J
        for words, place in (("source", decays > 0), ("4 mm around it", shell)):
            error = own[place].sum() / mev[place].sum() - 1.0
            chance = np.sqrt((sd[place] ** 2).sum()) / mev[place].sum()
            print(
                f"{name}, {words}: {100 * error:+.2f} % of transport ({histories} histories, sd {100 * chance:.2f} %)"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers", type=Path, help="virtual environment with PyTheranostics; without it only the others"
    )
    parser.add_argument("--histories", type=int, default=100_000, help="of the transport run; 0 leaves it out")
    parser.add_argument("--engines", nargs="+", default=tuple(ENGINES), choices=tuple(ENGINES))
    parser.add_argument("--engine", choices=tuple(ENGINES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.engine:
        run(words.engine, words.folder)
        return
    from theraflow.dosimetry.s_values.kernels import voxel_s

    with tempfile.TemporaryDirectory(prefix="dose_maps_") as temporary:
        folder = Path(temporary)
        make(folder)
        half = [PEER_KERNEL // 2] * 3
        spacing = [VOXEL_MM] * 3
        np.savez(folder / "kernels.npz", **{f"kernel_{n}": whole(voxel_s(n, spacing, DENSITY, half)) for n in NUCLIDES})
        print(f"load before the start: {os.getloadavg()[0]:.2f}; {os.cpu_count()} processors", flush=True)
        print(
            f"{SHAPE[2]} x {SHAPE[1]} x {SHAPE[0]} voxels of {VOXEL_MM} mm, {REGIONS} regions, {' and '.join(NUCLIDES)}"
        )
        costs = {}
        for engine in words.engines:
            if engine == "pytheranostics" and not words.peers:
                continue
            python = words.peers / "bin" / "python" if engine == "pytheranostics" else sys.executable
            command = [str(word) for word in (python, __file__, "--engine", engine, "--folder", folder)]
            done = subprocess.run(command, check=False, env=os.environ | dict.fromkeys(THREADS, "1"),
                                  capture_output=True, text=True)  # fmt: skip
            if done.returncode:
                print(f"{engine}: does not run: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            cost = costs[engine] = json.loads((folder / f"{engine}.json").read_text())
            print(f"{engine}: wall {cost['wall_s']:.1f} s, CPU {cost['cpu_s']:.1f} s; peak {cost['peak_mib']:.0f} MiB "
                  f"({cost['before_mib']:.0f} before)", flush=True)  # fmt: skip
        if {"theraflow", "direct"} <= set(costs):
            ratio = {kind: costs["theraflow"][kind] / costs["direct"][kind] for kind in ("wall_s", "cpu_s")}
            print(f"theraflow / direct: wall {ratio['wall_s']:.2f}, CPU {ratio['cpu_s']:.2f}; asked: 0.5")
            print("theraflow:", agreement(folder, "theraflow"))
        for engine in ("pytheranostics", "as pytheranostics"):
            if {engine, "direct"} <= set(costs):
                print(f"{engine}:", agreement(folder, engine))
    if words.histories:
        transport_errors(words.histories)


if __name__ == "__main__":
    main()
