"""From labels to images: CT in HU, PET in SUV and SPECT in Bq/mL as a scanner would give them.

The labels are evaluated once per scan on the CT grid. The activity is constant in each voxel of that grid, lesions are
ellipsoids with the exact share of each voxel, and the scanner's point-spread function is integrated exactly over those
voxels at the centres of the emission grid. All grids are axis-aligned; arrays are z, y, x.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from theraflow.nuclides import nuclide
from theraflow.virtual.anatomy import AIR, COUCH, FAT, MUSCLE, RIB, SKIN, Anatomy, Grid, Pose
from theraflow.virtual.cohort import LIVER, SPLEEN, Lesion, ScanPlan, VirtualPatient
from theraflow.virtual.kinetics import concentration_for_dose, sphere_absorbed_fraction_y90

CT_SIZE, CT_SPACING_MM = 256, 1.7
FWHM_MM = {"pet": 5.8, "spect": 9.0}
EMISSION_GRID = {"pet": (144, 3.4, 3.0), "spect": (128, 4.8, 4.8)}  # matrix, voxel in the plane, slice distance
CT_SLICE_MM = {"pet": 3.0, "spect": 5.0}
PEAK_RADIUS_MM = (3 / (4 * math.pi)) ** (1 / 3) * 10.0  # the 1 cm3 sphere of SUVpeak
SIGMA_PER_FWHM = 1 / math.sqrt(8 * math.log(2))
LESION_HU = (38.0, 75.0)  # native, portal venous

BONES = (25, 26, *range(27, 51), 71, 72, 75, 76, 77, 78, 116, RIB)
BRAIN = 90

# HU per label: native, and in the portal venous phase (German guideline levels, rounded). Others: as muscle.
_HU: dict[int, tuple[float, float]] = {
    AIR: (-1000, -1000), FAT: (-100, -98), MUSCLE: (52, 62), SKIN: (20, 25), COUCH: (-350, -350),
    1: (48, 120), 2: (32, 175), 3: (32, 175), 4: (8, 10), 5: (58, 112), 6: (22, 30), 7: (38, 95), 8: (28, 65),
    9: (28, 65), 10: (-840, -835), 11: (-820, -815), 12: (-840, -835), 13: (-840, -835), 14: (-820, -815),
    15: (35, 50), 16: (-980, -980), 18: (32, 75), 19: (34, 75), 20: (5, 20), 21: (6, 10), 22: (40, 70),
    51: (42, 140), 52: (42, 155), 63: (42, 140), 79: (30, 32), **dict.fromkeys(BONES, (240, 255)),
}  # fmt: skip
# Standard deviation in HU of the texture of an organ, at a scale of some 8 mm.
_TEXTURE = {FAT: 6, MUSCLE: 6, 1: 4, 5: 4, 18: 14, 20: 40, 6: 14, **dict.fromkeys(range(10, 15), 25), **dict.fromkeys(BONES, 45)}

# SUV of PET tracers per label. Others: as muscle.
_SUV: dict[str, dict[int, float]] = {
    "FDG": {
        AIR: 0.0, COUCH: 0.0, FAT: 0.3, MUSCLE: 0.6, SKIN: 0.5, 1: 1.8, 2: 2.6, 3: 2.6, 4: 0.9, 5: 2.2, 6: 1.5, 7: 1.3,
        8: 1.5, 9: 1.5, **dict.fromkeys(range(10, 15), 0.4), 15: 1.3, 16: 0.2, 18: 1.1, 19: 1.3, 20: 1.2, 21: 12.0,
        22: 1.2, 51: 2.1, 52: 1.6, 63: 1.6, 79: 1.2, **dict.fromkeys(BONES, 1.0), **dict.fromkeys(range(25, 46), 1.6),
        BRAIN: 8.0, RIB: 0.9, 71: 0.9, 72: 0.9, 75: 0.7, 76: 0.7,
    },
    "pentixafor": {
        AIR: 0.0, COUCH: 0.0, FAT: 0.3, MUSCLE: 0.7, SKIN: 0.6, 1: 3.6, 2: 4.0, 3: 4.0, 4: 1.0, 5: 1.7, 6: 1.3, 7: 1.2,
        8: 2.6, 9: 2.6, **dict.fromkeys(range(10, 15), 0.5), 15: 1.1, 16: 0.2, 18: 1.2, 19: 1.3, 20: 1.1, 21: 12.0,
        22: 1.2, 51: 1.7, 52: 1.65, 63: 1.65, 79: 0.8, **dict.fromkeys(BONES, 1.2), **dict.fromkeys(range(25, 46), 2.0),
        BRAIN: 0.4, RIB: 1.2, 71: 1.2, 72: 1.2, 75: 0.9, 76: 0.9,
    },
}  # fmt: skip

# [177Lu]pentixather. Organs: 90Y self dose coefficient in Gy/GBq and effective half-life of 177Lu in h, medians of
# Haenscheid et al., J Nucl Med 2022;63:754. The rest: SUV at 24 h, effective half-life.
_PENTIXATHER_DOSE = {2: (3.75, 41.0), 3: (3.75, 41.0), 5: (1.61, 109.0), 1: (1.66, 86.0)}
_PENTIXATHER_SUV = {
    AIR: (0.0, 50.0), COUCH: (0.0, 50.0), FAT: (0.06, 50.0), MUSCLE: (0.15, 50.0), SKIN: (0.15, 50.0), 4: (0.8, 60.0),
    **dict.fromkeys(range(10, 15), (0.15, 45.0)), 18: (0.5, 60.0), 19: (0.5, 60.0), 20: (0.6, 60.0), 21: (3.0, 18.0),
    51: (0.35, 40.0), 52: (0.35, 40.0), 63: (0.35, 40.0), **dict.fromkeys(BONES, (0.4, 92.0)),
    **dict.fromkeys(range(25, 46), (0.9, 92.0)), 77: (0.7, 92.0), 78: (0.7, 92.0),
}  # fmt: skip
# 90Y absorbed fractions by which the published dose becomes a concentration; the truth is computed from the shape.
_ABSORBED = {2: 0.92, 3: 0.92, 5: 0.97, 1: 0.92}

# Uptake next to a lesion, from which its blurred peak is planned.
_SURROUNDINGS = {LIVER: 5, SPLEEN: 1, "bone": 77}


@dataclass(frozen=True)
class Ellipsoid:
    """A lesion as it lies in one scan: centre (mm, LPS), semi-axes, and their directions as columns."""

    centre: np.ndarray
    radii_mm: np.ndarray
    axes: np.ndarray

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which points (..., 3) lie inside."""
        return (((points - self.centre) @ self.axes / self.radii_mm) ** 2).sum(axis=-1) <= 1.0

    @property
    def volume_ml(self) -> float:
        """Volume in mL."""
        return 4 / 3 * math.pi * float(np.prod(self.radii_mm)) / 1000.0

    def box(self, grid: Grid, margin_mm: float = 0.0) -> tuple[slice, slice, slice]:
        """The voxels (z, y, x) of `grid` around it."""
        reach = np.sqrt(((self.axes * self.radii_mm) ** 2).sum(axis=1)) + margin_mm
        low = np.floor((self.centre - reach - grid.origin) / grid.spacing).astype(int)
        high = np.ceil((self.centre + reach - grid.origin) / grid.spacing).astype(int) + 1
        low, high = np.clip(low, 0, grid.size), np.clip(high, 0, grid.size)
        return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))

    def coverage(self, grid: Grid) -> tuple[tuple[slice, slice, slice], np.ndarray]:
        """Share of each voxel that lies inside: the box of voxels, and an array (z, y, x) of 0 to 1 for it.

        Voxels are sampled at 5 x 5 x 5 points; the sum is then scaled to the exact volume.
        """
        box = self.box(grid, max(grid.spacing))
        parts = 5
        axes = []
        for axis, part in enumerate(box[::-1]):
            edge = grid.origin[axis] + (np.arange(part.start * parts, part.stop * parts) + 0.5) / parts * grid.spacing[axis]
            axes.append(edge - 0.5 * grid.spacing[axis])
        x, y, z = axes
        points = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), axis=-1)
        fine = self.contains(points)
        shape = [n for size in fine.shape for n in (size // parts, parts)]
        share = fine.reshape(shape).mean(axis=(1, 3, 5))
        volume = share.sum() * np.prod(grid.spacing) / 1000.0
        return box, np.minimum(share * (self.volume_ml / volume if volume else 1.0), 1.0).astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """What a scanner sees in one scan: tissue on the CT grid, and lesions.

    Attributes:
        patient, plan: whose scan, and which.
        pose: how the body lies.
        grid: the CT grid.
        labels: tissue (z, y, x).
        lesions: name -> lesion in the coordinates of this scan.
    """

    patient: VirtualPatient
    plan: ScanPlan
    anatomy: Anatomy
    pose: Pose
    grid: Grid
    labels: np.ndarray
    lesions: Mapping[str, Ellipsoid]

    @property
    def emission(self) -> str:
        """`pet` or `spect`."""
        return emission_of(self.plan)


def emission_of(plan: ScanPlan) -> str:
    """`pet` or `spect`."""
    return "spect" if plan.tracer == "pentixather" else "pet"


def scene(
    patient: VirtualPatient, anatomy: Anatomy, centres: Mapping[str, np.ndarray], plan: ScanPlan
) -> Scene:
    """Lay the patient down for one scan. The first scan is the neutral pose.

    Args:
        patient: from the cohort.
        anatomy: the patient's.
        centres: of the lesions in the neutral body.
        plan: the scan.
    """
    pose = Pose.draw(patient.random(1, plan.number)) if plan.number else Pose()
    grid = ct_grid(anatomy, CT_SLICE_MM[emission_of(plan)])
    lesions = {
        lesion.name: locate(lesion, centres[lesion.name], pose, plan.timepoint)
        for lesion in patient.lesions
        if lesion.present(plan.timepoint)
    }
    return Scene(patient, plan, anatomy, pose, grid, anatomy.labels(grid, pose, couch=True), lesions)


def ct_grid(anatomy: Anatomy, slice_mm: float) -> Grid:
    """The CT grid: 435 mm across, centred on the couch, as long as the body (mid-thigh to neck)."""
    low, high = anatomy.bounding_box()
    count = math.ceil((high[2] - low[2]) / slice_mm)
    x0 = -(CT_SIZE - 1) / 2 * CT_SPACING_MM
    z0 = (low[2] + high[2]) / 2 - (count - 1) / 2 * slice_mm
    return Grid((CT_SIZE, CT_SIZE, count), (CT_SPACING_MM, CT_SPACING_MM, slice_mm), (x0, x0, float(z0)))


def emission_grid(ct: Grid, emission: str) -> Grid:
    """The PET or SPECT grid that belongs to a CT: same centre, same length."""
    matrix, voxel, slice_mm = EMISSION_GRID[emission]
    length = ct.size[2] * ct.spacing[2]
    count = math.floor(length / slice_mm + 1e-6)
    middle = ct.origin[2] + (ct.size[2] - 1) / 2 * ct.spacing[2]
    x0 = -(matrix - 1) / 2 * voxel
    return Grid((matrix, matrix, count), (voxel, voxel, slice_mm), (x0, x0, middle - (count - 1) / 2 * slice_mm))


def locate(lesion: Lesion, centre: np.ndarray, pose: Pose, timepoint: str) -> Ellipsoid:
    """The lesion in a scan: moved and turned with the tissue around it, but not deformed.

    Args:
        lesion: from the cohort.
        centre: in the neutral body.
        pose: of the scan.
        timepoint: `followup` lesions have grown.
    """
    step = 2.0
    around = centre + step * np.vstack([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    there = pose.from_neutral(around)
    jacobian = (there[1:4] - there[4:7]).T / (2 * step)
    u, _, v = np.linalg.svd(jacobian)  # the rotation nearest to the local deformation
    growth = lesion.growth if timepoint == "followup" else 1.0
    return Ellipsoid(there[0], np.array(lesion.radii_mm) * growth, u @ v @ lesion.axes)


def hounsfield(
    labels: np.ndarray,
    grid: Grid,
    lesions: Sequence[Ellipsoid],
    rng: np.random.Generator,
    *,
    portal_venous: bool = False,
    noise_hu: float = 12.0,
) -> np.ndarray:
    """A CT in HU (float32): tissue and lesions, texture, the scanner's blur and correlated noise.

    Args:
        labels: tissue (z, y, x).
        grid: of the labels.
        lesions: ellipsoids of soft tissue.
        rng: random numbers.
        portal_venous: with contrast medium, else native.
        noise_hu: standard deviation of the noise in soft tissue.
    """
    phase = int(portal_venous)
    table = np.full(256, _HU[MUSCLE][phase], np.float32)
    texture = np.zeros(256, np.float32)
    for label, value in _HU.items():
        table[label] = value[phase] + (rng.normal(0, 3) if label not in (AIR, COUCH) else 0.0)
    for label, value in _TEXTURE.items():
        texture[label] = value
    image = table[labels]
    image += texture[labels] * _smooth_noise(grid, 8.0, rng)
    for lesion in lesions:
        box, share = lesion.coverage(grid)
        image[box] += share * (LESION_HU[phase] - image[box])
    image = gaussian_filter(image, (0.3, 0.55, 0.55), truncate=3)
    noise = gaussian_filter(rng.standard_normal(labels.shape, np.float32), (0.4, 0.7, 0.7), truncate=3)
    image += noise * (noise_hu / noise.std())
    return image


def uptake_table(plan: ScanPlan, patient: VirtualPatient, weight_kg: float) -> np.ndarray:
    """Uptake of every label (256 values): SUV for PET, Bq/mL at the start of the scan for SPECT.

    A patient's organs differ from the population's by some 10 %, the same way in all scans of a tracer.
    """
    if emission_of(plan) == "pet":
        values = _SUV[plan.tracer]
        table = np.full(256, values[MUSCLE])
        for label, value in values.items():
            table[label] = value
        return table * _personal(patient, plan.tracer)
    concentration, half_life = pentixather_kinetics(patient, weight_kg)
    return 1e6 * plan.injected_mbq * concentration * 2.0 ** (-plan.hours / half_life)


def pentixather_kinetics(patient: VirtualPatient, weight_kg: float) -> tuple[np.ndarray, np.ndarray]:
    """Concentration at t = 0 per injected activity (1/mL) and effective half-life of 177Lu (h) of every label."""
    concentration, half_life = np.zeros(256), np.full(256, 50.0)
    for label in range(256):
        suv, t_eff = _PENTIXATHER_SUV.get(label, _PENTIXATHER_SUV[MUSCLE])
        concentration[label], half_life[label] = suv / (1000.0 * weight_kg) * 2 ** (24 / t_eff), t_eff
    for label, (dose, t_eff) in _PENTIXATHER_DOSE.items():
        concentration[label], half_life[label] = concentration_for_dose(dose, t_eff, _ABSORBED[label]), t_eff
    personal = _personal(patient, "pentixather")
    # Half-lives, too, but never longer than the physical one.
    longest = 0.9 * nuclide("177Lu").half_life_s / 3600
    return concentration * personal, np.minimum(half_life * _personal(patient, "half-life"), longest)


def lesion_uptake(scan: Scene, lesion: Lesion, table: np.ndarray) -> float:
    """Uniform uptake of a lesion: SUV for PET, Bq/mL at the start of the scan for SPECT.

    For PET it is chosen so that the SUVpeak of the blurred image comes out as planned; a negative lesion takes up as
    muscle does.
    """
    ellipsoid = scan.lesions[lesion.name]
    radius = float(np.prod(ellipsoid.radii_mm)) ** (1 / 3)
    if scan.emission == "spect":
        # Every lesion that exists at the time of a SPECT has kinetics.
        concentration = lesion_concentration(lesion)
        return 1e6 * scan.plan.injected_mbq * concentration * 2.0 ** (-scan.plan.hours / lesion.t_eff_h)
    peak = lesion.planned_peak(scan.plan.tracer, scan.plan.timepoint)
    around = float(table[_SURROUNDINGS.get(lesion.site, FAT)])
    if peak is None:
        return float(table[MUSCLE])
    return around + (peak - around) / peak_recovery(radius, FWHM_MM["pet"])


def lesion_concentration(lesion: Lesion) -> float:
    """Concentration of pentixather at t = 0 per injected activity (1/mL) that gives the planned dose."""
    radius = float(np.prod(lesion.radii_mm)) ** (1 / 3)
    return concentration_for_dose(lesion.dose_gy_per_gbq, lesion.t_eff_h, sphere_absorbed_fraction_y90(radius))


def peak_recovery(radius_mm: float, fwhm_mm: float) -> float:
    """Mean over the central 1 cm3 sphere of a blurred uniform sphere of value 1 in cold surroundings."""
    sigma = fwhm_mm * SIGMA_PER_FWHM
    r = (np.arange(400) + 0.5) / 400 * PEAK_RADIUS_MM
    near, far = (radius_mm - r) / (math.sqrt(2) * sigma), (radius_mm + r) / (math.sqrt(2) * sigma)
    profile = (erf(near) + erf(far)) / 2
    profile -= sigma / (math.sqrt(2 * math.pi) * r) * (np.exp(-(near**2)) - np.exp(-(far**2)))
    return float((profile * r**2).sum() / (r**2).sum())


def activity(scan: Scene, table: np.ndarray, uptakes: Mapping[str, float]) -> np.ndarray:
    """Uptake on the CT grid (float32): tissues by the table, lesions over them by their share of each voxel."""
    image = table.astype(np.float32)[scan.labels]
    for name, ellipsoid in scan.lesions.items():
        box, share = ellipsoid.coverage(scan.grid)
        image[box] += share * (np.float32(uptakes[name]) - image[box])
    return image


def blurred(image: np.ndarray, source: Grid, target: Grid, fwhm_mm: float) -> np.ndarray:
    """The image a scanner with a Gaussian point-spread function makes, at the voxel centres of `target`.

    `image` is taken as constant within each voxel of `source`, and 0 outside; the Gaussian is integrated exactly.
    """
    wx, wy, wz = (
        _psf(source.origin[i], source.spacing[i], source.size[i], target.origin[i], target.spacing[i], target.size[i], fwhm_mm)
        for i in range(3)
    )  # fmt: skip
    out = image @ wx.T
    out = wy @ out
    return np.tensordot(wz, out, axes=1)


def peak(image: np.ndarray, source: Grid, lesion: Ellipsoid, fwhm_mm: float, step_mm: float = 1.0) -> float:
    """Greatest mean of the blurred, noise-free image over a 1 cm3 sphere centred within the lesion.

    Args:
        image: unblurred uptake on `source`.
        source: its grid.
        lesion: where the centre of the sphere may lie.
        fwhm_mm: point-spread function.
        step_mm: fine grid on which the image is made; voxels count by their share in the sphere.
    """
    reach = np.sqrt(((lesion.axes * lesion.radii_mm) ** 2).sum(axis=1)) + PEAK_RADIUS_MM + 2 * step_mm
    fine = Grid.covering(lesion.centre - reach, lesion.centre + reach, (step_mm,) * 3)
    box = lesion.box(source, PEAK_RADIUS_MM + 5 * fwhm_mm)
    corner = tuple(o + s * part.start for o, s, part in zip(source.origin, source.spacing, box[::-1], strict=True))
    local = image[box]
    part = Grid(local.shape[::-1], source.spacing, corner)
    values = blurred(local, part, fine, fwhm_mm)
    half = math.ceil(PEAK_RADIUS_MM / step_mm)
    small = Grid((2 * half + 1,) * 3, (step_mm,) * 3, (-half * step_mm,) * 3)
    _, share = Ellipsoid(np.zeros(3), np.full(3, PEAK_RADIUS_MM), np.eye(3)).coverage(small)
    from scipy.signal import fftconvolve

    means = fftconvolve(values, share / share.sum(), mode="same")
    return float(means[lesion.contains(fine.points())].max())


def noisy(
    image: np.ndarray, grid: Grid, rng: np.random.Generator, *, at: float, variation: float, correlation_mm: float
) -> np.ndarray:
    """The image with noise like that of an OSEM reconstruction: correlated, growing with the root of the uptake.

    Args:
        image: noise-free.
        grid: its grid.
        rng: random numbers.
        at: uptake at which the coefficient of variation is stated.
        variation: coefficient of variation of single voxels there.
        correlation_mm: FWHM of the noise grain.
    """
    sigma = correlation_mm * SIGMA_PER_FWHM / np.array(grid.spacing[::-1])
    noise = gaussian_filter(rng.standard_normal(image.shape, np.float32), sigma, truncate=3)
    noise *= variation / noise.std()
    return np.maximum(image + noise * np.sqrt(np.maximum(image, 0.0) * np.float32(at)), 0.0).astype(np.float32)


def _personal(patient: VirtualPatient, what: str) -> np.ndarray:
    """Factors of some 10 % per label; left and right organs, and the parts of one system, share theirs."""
    number = {"FDG": 2, "pentixafor": 3, "pentixather": 4, "half-life": 5}[what]
    factors = np.exp(patient.random(number).normal(0, 0.08, 256))
    factors[3] = factors[2]
    for group in (range(10, 15), range(25, 51), (51, 52, 63), (71, 72), (75, 76), (77, 78), range(80, 90)):
        factors[list(group)] = factors[group[0]]
    return factors


def _psf(
    origin: float, spacing: float, size: int, to_origin: float, to_spacing: float, to_size: int, fwhm_mm: float
) -> np.ndarray:
    """Matrix (to_size, size) of the Gaussian's integrals over the source voxels along one axis."""
    edges = origin + (np.arange(size + 1) - 0.5) * spacing
    centres = to_origin + np.arange(to_size) * to_spacing
    sigma = fwhm_mm * SIGMA_PER_FWHM
    steps = erf((edges[None, :] - centres[:, None]) / (math.sqrt(2) * sigma))
    return (np.diff(steps, axis=1) / 2).astype(np.float32)


def _smooth_noise(grid: Grid, scale_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance and of that grain, made on a coarse grid."""
    coarse = Grid.covering(
        np.array(grid.origin) - scale_mm,
        np.array(grid.origin) + np.array(grid.spacing) * grid.size + scale_mm,
        (scale_mm / 2,) * 3,
    )
    noise = blurred(rng.standard_normal(coarse.size[::-1], np.float32), coarse, grid, scale_mm)
    return noise / noise.std()
