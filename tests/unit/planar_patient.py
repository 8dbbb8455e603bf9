"""A patient of ellipsoids before a gamma camera: planar views by ray sums of its own, SPECT/CT, masks and the truth.

Nothing of `theraflow.dosimetry` takes part in what the views show: rays are summed on voxels of 2.5 mm, each plane
along them blurred as wide as the collimator sees it at that depth, and counts drawn by Poisson.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.ndimage
import SimpleITK as sitk
from alignment_on_disk import write_alignment

from theraflow.images import from_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.nifti import Grid, write_nifti, write_sidecar
from theraflow.organs import ORGAN_IDS

# 1/cm at 208 keV: XCOM's 0.1354 cm2/g of water; bone of 1.4 g/mL, half water and half hydroxyapatite.
MU_SOFT, MU_BONE, HU_BONE = 0.1381, 0.1870, 760.0
HU_SOFT, HU_LUNG = 22.0, -740.0
MU_LUNG = 0.26 * 0.1354
LU_HALF_LIFE_H = 6.647 * 24.0
INJECTED_MBQ = 1000.0
SENSITIVITY = 2.0  # counts per second and MBq, over the whole of a sweep
SPECT_FWHM_MM = 9.0
FINE_MM = 2.5
CT_MM, SPECT_MM = 4.0, 4.8
SHOWN_MM = (-190.0, 190.0)  # what CT and SPECT show of the body
BODY = ((0.0, 0.0, -150.0), (165.0, 108.0, 850.0))
SPINE = ((0.0, 62.0), 19.0)
LUNGS = (((-68.0, 0.0, 190.0), (42.0, 55.0, 70.0)), ((68.0, 0.0, 190.0), (42.0, 55.0, 70.0)))


@dataclass(frozen=True)
class Source:
    """An ellipsoid: centre and half axes (LPS, mm), MBq at the injection, effective half-life in h."""

    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    activity_mbq: float
    half_life_h: float

    @property
    def volume_ml(self) -> float:
        return 4.0 / 3.0 * math.pi * float(np.prod(self.half_axes)) / 1000.0

    def at(self, time_h: float) -> float:
        """MBq."""
        return self.activity_mbq * 2.0 ** (-time_h / self.half_life_h)


# Spleen and left kidney lie behind each other, and so do the liver, the right kidney and a lesion. The bowel belongs to
# no region: the remainder of a body is not uniform.
SOURCES = {
    "liver": Source((-75.0, -18.0, 75.0), (78.0, 62.0, 68.0), 100.0, 60.0),
    "kidney_right": Source((-58.0, 58.0, -8.0), (27.0, 24.0, 54.0), 21.0, 41.0),
    "kidney_left": Source((60.0, 58.0, 8.0), (27.0, 24.0, 54.0), 22.5, 43.0),
    "spleen": Source((88.0, 2.0, 55.0), (28.0, 30.0, 48.0), 25.0, 70.0),
    "L01": Source((-30.0, -40.0, -60.0), (17.0, 17.0, 17.0), 6.0, 75.0),
}
REST_MBQ, REST_HALF_LIFE_H = 275.0, 50.0
BOWEL = Source((10.0, -45.0, -110.0), (60.0, 30.0, 45.0), 15.0, 50.0)
ORGANS = ("liver", "kidney_right", "kidney_left", "spleen")


def axes(grid: sitk.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z of the voxels, broadcastable to z, y, x."""
    x, y, z = (
        origin + spacing * np.arange(n)
        for origin, spacing, n in zip(grid.GetOrigin(), grid.GetSpacing(), grid.GetSize(), strict=True)
    )
    return x[None, None, :], y[None, :, None], z[:, None, None]


def inside(grid: sitk.Image, centre: Sequence[float], half_axes: Sequence[float]) -> np.ndarray:
    terms = [((p - c) / a) ** 2 for p, c, a in zip(axes(grid), centre, half_axes, strict=True)]
    return terms[0] + terms[1] + terms[2] <= 1.0


def grid_over(low: Sequence[float], high: Sequence[float], spacing: float) -> sitk.Image:
    """An empty image whose voxels fill a box."""
    size = [round((b - a) / spacing) for a, b in zip(low, high, strict=True)]
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing([spacing] * 3)
    image.SetOrigin([a + 0.5 * spacing for a in low])
    return image


def body_map(grid: sitk.Image, soft: float, bone: float, lung: float, outside: float) -> np.ndarray:
    values = np.where(inside(grid, *BODY), soft, outside)
    for one in LUNGS:
        values[inside(grid, *one)] = lung
    x, y, _ = axes(grid)
    spine = ((x - SPINE[0][0]) ** 2 + (y - SPINE[0][1]) ** 2 <= SPINE[1] ** 2) & inside(grid, *BODY)
    values[spine] = bone
    return values


def shares(middles: np.ndarray, voxel_mm: float, pixel_mm: float, pixels: int) -> np.ndarray:
    """Part of each voxel, whose middle lies there behind the first pixel's edge, in each pixel: (pixels, voxels)."""
    edges = pixel_mm * np.arange(pixels + 1)
    below = np.clip((edges[:, None] - (middles - 0.5 * voxel_mm)[None, :]) / voxel_mm, 0.0, 1.0)
    return np.diff(below, axis=0)


@dataclass
class Phantom:
    """The patient; `sources` may be changed."""

    sources: Mapping[str, Source] = field(default_factory=lambda: SOURCES)
    bowel: bool = True

    def __post_init__(self) -> None:
        self.fine = grid_over((-180.0, -120.0, -300.0), (180.0, 120.0, 300.0), FINE_MM)
        self.body = inside(self.fine, *BODY)
        self.masks = {name: inside(self.fine, one.centre, one.half_axes) for name, one in self.sources.items()}
        if np.sum(list(self.masks.values()), axis=0).max(initial=0) > 1:
            raise ValueError("two sources overlap in space")
        self.rest = self.body & ~np.any(list(self.masks.values()), axis=0)

    def parts(self, time_h: float) -> list[tuple[np.ndarray, float]]:
        """Masks and the MBq that fill them evenly."""
        rest = REST_MBQ * 2.0 ** (-time_h / REST_HALF_LIFE_H)
        parts = [(self.masks[name], one.at(time_h)) for name, one in self.sources.items()]
        parts.append((self.rest, rest))
        if self.bowel:
            parts.append((inside(self.fine, BOWEL.centre, BOWEL.half_axes) & self.rest, BOWEL.at(time_h)))
        return parts

    def total_mbq(self, time_h: float, low_mm: float = -math.inf, high_mm: float = math.inf) -> float:
        z = axes(self.fine)[2].ravel()
        shown = (z > low_mm) & (z < high_mm)
        return sum(mbq * mask[shown].sum() / mask.sum() for mask, mbq in self.parts(time_h))

    def rates(
        self, time_h: float, sensitivity: float, pixel_mm: float, shape: tuple[int, int], corner_mm: tuple[float, float]
    ) -> np.ndarray:
        """Counts per second, (2, rows, columns), of views whose first pixel's corner lies at x, z."""
        voxels = sum(mask * (mbq / mask.sum()) for mask, mbq in self.parts(time_h))
        mu = body_map(self.fine, MU_SOFT, MU_BONE, MU_LUNG, 0.0)
        return sensitivity * camera(voxels, mu, self.fine, pixel_mm, shape, corner_mm)


def camera(
    voxels: np.ndarray,
    mu_per_cm: np.ndarray,
    grid: sitk.Image,
    pixel_mm: float,
    shape: tuple[int, int],
    corner_mm: tuple[float, float],
) -> np.ndarray:
    """What leaves the body towards a camera before and one behind it, (2, rows, columns).

    Args:
        voxels: activity of each, z, y, x.
        mu_per_cm: attenuation coefficient of each.
        grid: where they lie, along LPS.
        pixel_mm, shape: of the views.
        corner_mm: x and z of the corner of the first pixel.
    """
    x, y, z = (axis.ravel() for axis in axes(grid))
    mu = mu_per_cm * grid.GetSpacing()[1] / 10.0
    before = np.cumsum(mu, axis=1) - 0.5 * mu
    to_columns = shares(x - corner_mm[0], grid.GetSpacing()[0], pixel_mm, shape[1])
    to_rows = shares(corner_mm[1] - z, grid.GetSpacing()[2], pixel_mm, shape[0])
    views = []
    for to_head, sign in ((before, 1.0), (mu.sum(axis=1, keepdims=True) - before, -1.0)):
        leaving = voxels * np.exp(-to_head)
        view = np.zeros((z.size, x.size))
        for k, depth in enumerate(sign * y + 150.0):
            sd_mm = (5.0 + 0.04 * depth) / 2.3548  # of a collimator 150 mm from the middle of the table
            sd = sd_mm / grid.GetSpacing()[2], sd_mm / grid.GetSpacing()[0]
            view += scipy.ndimage.gaussian_filter(leaving[:, k], sd, mode="nearest")
        views.append(to_rows @ view @ to_columns.T)
    return np.array(views)


def write_anatomy(folder: PatientFolder, scan: Scan, phantom: Phantom, time_h: float, seed: int = 3) -> None:
    """A SPECT/CT with organ labels and a lesion map."""
    low, high = SHOWN_MM
    ct = grid_over((-200.0, -132.0, low), (200.0, 132.0, high), CT_MM)
    spect = grid_over((-192.0, -134.4, low), (192.0, 134.4, low + 79 * SPECT_MM), SPECT_MM)
    divided = grid_over((-192.0, -134.4, low), (192.0, 134.4, low + 79 * SPECT_MM), SPECT_MM / 3.0)
    hu = body_map(ct, HU_SOFT, HU_BONE, HU_LUNG, -1000.0).astype(np.float32)
    write_image(from_array(hu, ct), folder.ct(scan.scan), {"quantity": "HU", "unit": "HU"})
    labels = np.zeros(hu.shape, np.uint8)
    for name in ORGANS:
        if name in phantom.sources:
            one = phantom.sources[name]
            labels[inside(ct, one.centre, one.half_axes)] = ORGAN_IDS[name]
    write_image(from_array(labels, ct), folder.organs(scan.scan), {"quantity": "label", "unit": "1"})
    lesions = [name for name in phantom.sources if name not in ORGANS]
    lesion_labels = np.zeros(hu.shape, np.uint8)
    for label, name in enumerate(lesions, start=1):
        lesion_labels[inside(ct, phantom.sources[name].centre, phantom.sources[name].half_axes)] = label
    names = {"quantity": "label", "unit": "1", "labels": {str(k): name for k, name in enumerate(lesions, start=1)}}
    write_image(from_array(lesion_labels, ct), folder.lesion_map(scan.scan), names)
    write_alignment(folder, scan.scan)
    values = np.zeros(divided.GetSize()[::-1])
    rest = inside(divided, *BODY)
    for one in phantom.sources.values():
        mask = inside(divided, one.centre, one.half_axes)
        values[mask] = one.at(time_h) / one.volume_ml * 1e6
        rest &= ~mask
    rest_ml = phantom.rest.sum() * FINE_MM**3 / 1000.0
    values[rest] = REST_MBQ * 2.0 ** (-time_h / REST_HALF_LIFE_H) / rest_ml * 1e6
    if phantom.bowel:
        mask = inside(divided, BOWEL.centre, BOWEL.half_axes) & rest
        values[mask] += BOWEL.at(time_h) / mask.sum() / (SPECT_MM / 3.0) ** 3 * 1e9
    values = scipy.ndimage.gaussian_filter(values, SPECT_FWHM_MM / 2.3548 / (SPECT_MM / 3.0), mode="nearest")
    z, y, x = (n // 3 for n in values.shape)
    values = values.reshape(z, 3, y, 3, x, 3).mean(axis=(1, 3, 5))
    noisy = np.random.default_rng(seed).poisson(values * 0.01) / 0.01
    sidecar = {
        "quantity": "activity concentration", "unit": "Bq/mL", "nuclide": "177Lu", "injected_mbq": INJECTED_MBQ,
        "time_after_injection_h": time_h, "acquired_at": None,
    }  # fmt: skip
    write_image(from_array(noisy.astype(np.float32), spect), folder.emission(scan), sidecar)


def write_views(
    folder: PatientFolder,
    scan: Scan,
    rates: np.ndarray,
    time_h: float,
    pixel_mm: float,
    duration_s: float = 1200.0,
    seed: int = 5,
    sensitivity: float | None = None,
    **changes: object,
) -> None:
    """What `import_planar` writes: count rates with the noise of counting, and their sidecar."""
    counts = np.random.default_rng(seed).poisson(rates * duration_s) / duration_s
    _, rows, columns = counts.shape
    grid = Grid((columns, rows, 2), (pixel_mm, pixel_mm, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 0, 1, 0, -1, 0))
    write_nifti([counts], grid, np.float32, folder.emission(scan))
    sidecar = {
        "quantity": "planar count rate", "unit": "1/s", "nuclide": "177Lu", "injected_mbq": INJECTED_MBQ,
        "time_after_injection_h": time_h, "acquired_at": None,
        "whole_body": {"technique": "1PS", "velocity_mm_per_s": 1.6, "length_mm": 1920.0},
        "counting": {"energy_window_kev": [[187.2, 228.8]], "duration_s": duration_s,
                     "sensitivity_cps_per_mbq": sensitivity},
    }  # fmt: skip
    write_sidecar(sidecar | changes, folder.emission(scan))


def write_series(
    results: Path,
    phantom: Phantom,
    times_h: Sequence[float],
    spect_h: float | None,
    *,
    pixel_mm: float = 4.0,
    sensitivity: float = SENSITIVITY,
    calibrated: bool = False,
) -> tuple[PatientFolder, list[Scan]]:
    """Planar scans at `times_h`, the patient each time elsewhere on the table, and a SPECT/CT.

    Without `spect_h` a PET/CT, which gives its masks alone.
    """
    folder = PatientFolder(results, "P1")
    scans = []
    for number, time_h in enumerate(times_h, start=1):
        scan = Scan("P1", f"planar{number}", "pentixather", "dosimetry", "", "activity", planar=True)
        corner = (-255.0 + 3.7 * number, 560.0 - 13.3 * number)
        rates = phantom.rates(time_h, sensitivity, pixel_mm, (280, 128), corner)
        write_views(folder, scan, rates, time_h, pixel_mm, seed=number, sensitivity=sensitivity if calibrated else None)
        scans.append(scan)
    scan = Scan("P1", "spect1", "pentixather", "dosimetry", "", "activity")
    if spect_h is None:
        scan = Scan("P1", "pet1", "FDG", "baseline", "", "suv")
    write_anatomy(folder, scan, phantom, 24.0 if spect_h is None else spect_h)
    return folder, [*scans, scan]
