"""From labels to images: CT in HU, PET in SUV and SPECT in Bq/mL as a scanner would give them.

The labels are evaluated once per scan on the CT grid. The activity is constant in each voxel of that grid,
lesions are ellipsoids with their share of each voxel, and the scanner's point-spread function is
integrated exactly over those voxels at the centres of the emission grid. All grids are axis-aligned; arrays
are z, y, x.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from scipy.special import erf

from theraflow.nuclides import nuclide
from theraflow.virtual.anatomy import AIR, COUCH, FAT, MUSCLE, RIB, SKIN, Anatomy, Grid, Pose
from theraflow.virtual.cohort import LIVER, SPLEEN, Lesion, ScanPlan, VirtualPatient
from theraflow.virtual.kinetics import concentration_for_dose, sphere_absorbed_fraction_y90

CT_SIZE, CT_SPACING_MM = 256, 1.7
FWHM_MM = {"pet": 5.8, "spect": 9.0}
EMISSION_GRID = {
    "pet": (144, 3.4, 3.0),
    "spect": (128, 4.8, 4.8),
}  # matrix, voxel in the plane, slice distance
CT_SLICE_MM = {"pet": 3.0, "spect": 5.0}
PEAK_RADIUS_MM = (3 / (4 * math.pi)) ** (1 / 3) * 10.0  # the 1 cm3 sphere of SUVpeak
SIGMA_PER_FWHM = 1 / math.sqrt(8 * math.log(2))
LESION_HU = (38.0, 75.0)  # native, portal venous

# What a tissue looks like, typical of adults: HU native and in the portal venous phase, standard deviation of
# the texture in HU; SUV of FDG and of pentixafor; [177Lu]pentixather as SUV at 24 h and effective half-life
# in h.
_COLUMNS = ("native", "portal_venous", "texture", "FDG", "pentixafor", "pentixather", "half_life_h")
_MUSCLE = (52, 62, 6, 0.6, 0.7, 0.15, 50)
_TISSUES = (
    ((AIR,), (-1000, -1000, 0, 0, 0, 0, 50)),
    ((COUCH,), (-350, -350, 0, 0, 0, 0, 50)),
    ((FAT,), (-100, -98, 6, 0.3, 0.3, 0.06, 50)),
    ((SKIN,), (20, 25, 0, 0.5, 0.6, 0.15, 50)),
    ((1,), (48, 120, 4, 1.8, 3.6, 1.6, 86)),  # spleen
    ((2, 3), (32, 175, 0, 2.6, 4.0, 8.0, 41)),  # kidneys
    ((4,), (8, 10, 0, 0.9, 1.0, 0.8, 60)),  # gallbladder
    ((5,), (58, 112, 4, 2.2, 1.7, 2.5, 109)),  # liver
    ((6,), (22, 30, 14, 1.5, 1.3, 0.3, 50)),  # stomach
    ((7,), (38, 95, 0, 1.3, 1.2, 0.3, 50)),  # pancreas
    ((8, 9), (28, 65, 0, 1.5, 2.6, 0.6, 60)),  # adrenal glands
    ((10, 12, 13), (-840, -835, 25, 0.4, 0.5, 0.15, 45)),  # lungs, upper and middle lobes
    ((11, 14), (-820, -815, 25, 0.4, 0.5, 0.15, 45)),  # lungs, lower lobes
    ((15,), (35, 50, 0, 1.3, 1.1, 0.3, 50)),  # oesophagus
    ((16,), (-980, -980, 0, 0.2, 0.2, 0.0, 50)),  # trachea
    ((18, 19), (33, 75, 14, 1.1, 1.2, 0.5, 60)),  # small bowel
    ((20,), (5, 20, 40, 1.2, 1.1, 0.6, 60)),  # colon
    ((21,), (6, 10, 0, 12.0, 12.0, 3.0, 18)),  # urinary bladder
    ((22,), (40, 70, 0, 1.2, 1.2, 0.3, 50)),  # prostate
    ((51,), (42, 140, 0, 2.1, 1.7, 0.35, 40)),  # heart
    ((52, 63), (42, 150, 0, 1.6, 1.65, 0.35, 40)),  # blood
    ((25, 26, *range(27, 51)), (240, 255, 45, 1.6, 2.0, 0.9, 92)),  # sacrum and spine: red marrow
    ((77, 78, 116), (240, 255, 45, 1.2, 1.4, 0.7, 92)),  # pelvis, sternum
    ((69, 70, 71, 72, 75, 76, RIB), (240, 255, 45, 0.8, 1.1, 0.4, 92)),  # other bones
    ((79,), (30, 32, 0, 1.2, 0.8, 0.2, 50)),  # spinal cord
    ((90,), (36, 40, 4, 8.0, 0.4, 0.1, 50)),  # brain
)

# [177Lu]pentixather in the organs of dosimetry: 90Y self dose coefficient in Gy/GBq, in place of the SUV
# above; medians of Haenscheid et al., J Nucl Med 2022;63:754, as are the half-lives.
_PENTIXATHER_DOSE = {1: 1.66, 2: 3.75, 3: 3.75, 5: 1.61}
# 90Y absorbed fractions by which that becomes a concentration; the truth is computed from the organ's shape.
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

        Voxels are sampled at 5 x 5 x 5 points.
        """
        box = self.box(grid, max(grid.spacing))
        parts = 5
        axes = []
        for axis, part in enumerate(box[::-1]):
            edge = (
                grid.origin[axis]
                + (np.arange(part.start * parts, part.stop * parts) + 0.5) / parts * grid.spacing[axis]
            )
            axes.append(edge - 0.5 * grid.spacing[axis])
        x, y, z = axes
        points = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), axis=-1)
        fine = self.contains(points)
        shape = [n for size in fine.shape for n in (size // parts, parts)]
        share = fine.reshape(shape).mean(axis=(1, 3, 5))
        return box, share.astype(np.float32)


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


def scene(patient: VirtualPatient, anatomy: Anatomy, centres: Mapping[str, np.ndarray], plan: ScanPlan) -> Scene:
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
    return Scene(patient, plan, anatomy, pose, grid, _labels(anatomy, grid, pose), lesions)


def _labels(anatomy: Anatomy, grid: Grid, pose: Pose, slices: int = 24) -> np.ndarray:
    """The labels, made in slabs: the same labels in half the time and a fraction of the memory.

    `slices` is a multiple of the lattice on which `Anatomy.labels` evaluates (2 slices of 5 mm, 3 of 3 mm).
    """
    parts = []
    for first in range(0, grid.size[2], slices):
        size = (*grid.size[:2], min(slices, grid.size[2] - first))
        origin = (*grid.origin[:2], grid.origin[2] + first * grid.spacing[2])
        parts.append(anatomy.labels(Grid(size, grid.spacing, origin), pose, couch=True))
    return np.concatenate(parts)


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
    offset = rng.normal(0, 3, 256)
    offset[[AIR, COUCH]] = 0.0
    table = (tissue("portal_venous" if portal_venous else "native") + offset).astype(np.float32)
    texture = tissue("texture").astype(np.float32)
    image = table[labels]
    image += texture[labels] * _smooth_noise(grid, 8.0, rng)
    for lesion in lesions:
        box, share = lesion.coverage(grid)
        image[box] += share * (LESION_HU[int(portal_venous)] - image[box])
    image = gaussian_filter(image, (0.3, 0.55, 0.55), truncate=3)
    noise = gaussian_filter(rng.standard_normal(labels.shape, np.float32), (0.4, 0.7, 0.7), truncate=3)
    image += noise * (noise_hu / noise.std())
    return image


def uptake_table(plan: ScanPlan, patient: VirtualPatient, weight_kg: float) -> np.ndarray:
    """Uptake of every label (256 values): SUV for PET, Bq/mL at the start of the scan for SPECT.

    A patient's organs differ from the population's by some 10 %, the same way in all scans of a tracer.
    """
    if emission_of(plan) == "pet":
        return tissue(plan.tracer) * _personal(patient, plan.tracer)
    concentration, half_life = pentixather_kinetics(patient, weight_kg)
    return 1e6 * plan.injected_mbq * concentration * 2.0 ** (-plan.hours / half_life)


def pentixather_kinetics(patient: VirtualPatient, weight_kg: float) -> tuple[np.ndarray, np.ndarray]:
    """Concentration at t = 0 per injected activity (1/mL) and effective half-life of 177Lu (h) of every
    label."""
    half_life = tissue("half_life_h")
    concentration = tissue("pentixather") / (1000.0 * weight_kg) * 2.0 ** (24.0 / half_life)
    for label, dose in _PENTIXATHER_DOSE.items():
        concentration[label] = concentration_for_dose(dose, half_life[label], _ABSORBED[label])
    personal = _personal(patient, "pentixather")
    # Half-lives, too, but never longer than the physical one.
    longest = 0.9 * nuclide("177Lu").half_life_s / 3600
    return concentration * personal, np.minimum(half_life * _personal(patient, "half-life"), longest)


def lesion_uptake(scan: Scene, lesion: Lesion, table: np.ndarray) -> float:
    """Uniform uptake of a lesion: SUV for PET, Bq/mL at the start of the scan for SPECT.

    For PET it is chosen so that the SUVpeak of the blurred image comes out as planned; a negative lesion
    takes up as muscle does.
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
    """Uptake on the CT grid (float32): tissues by the table, lesions over them by their share of each
    voxel."""
    image = table.astype(np.float32)[scan.labels]
    for name, ellipsoid in scan.lesions.items():
        box, share = ellipsoid.coverage(scan.grid)
        image[box] += share * (np.float32(uptakes[name]) - image[box])
    return image


def blurred(image: np.ndarray, source: Grid, target: Grid, fwhm_mm: float) -> np.ndarray:
    """The image a scanner with a Gaussian point-spread function makes, at the voxel centres of `target`.

    `image` is taken as constant within each voxel of `source`, and 0 outside; the Gaussian is integrated
    exactly.
    """
    wx, wy, wz = (_psf(source, target, axis, fwhm_mm) for axis in range(3))
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
    steps = np.ceil(reach / step_mm).astype(int)
    origin = tuple(map(float, lesion.centre - steps * step_mm))
    fine = Grid(tuple(int(2 * n + 1) for n in steps), (step_mm,) * 3, origin)
    box = lesion.box(source, PEAK_RADIUS_MM + 5 * fwhm_mm)
    corner = tuple(o + s * part.start for o, s, part in zip(source.origin, source.spacing, box[::-1], strict=True))
    local = image[box]
    part = Grid(local.shape[::-1], source.spacing, corner)
    values = blurred(local, part, fine, fwhm_mm)
    half = math.ceil(PEAK_RADIUS_MM / step_mm)
    small = Grid((2 * half + 1,) * 3, (step_mm,) * 3, (-half * step_mm,) * 3)
    _, share = Ellipsoid(np.zeros(3), np.full(3, PEAK_RADIUS_MM), np.eye(3)).coverage(small)
    means = fftconvolve(values, share / share.sum(), mode="same")
    return float(means[lesion.contains(fine.points())].max())


def noisy(
    image: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    *,
    at: float,
    variation: float,
    correlation_mm: float,
) -> np.ndarray:
    """The image with noise like that of an OSEM reconstruction: correlated, lognormal, growing with the uptake.

    The standard deviation goes with the root of the uptake. Voxels of EM reconstructions are close to lognormal
    (Barrett, Wilson and Tsui, Phys Med Biol 1994;39:833): never negative, and unbiased where counts are few.

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
    noise /= noise.std()
    # Beyond 200 % (air next to the body) there is nothing to see.
    relative = variation * np.sqrt(np.float32(at) / np.maximum(image, np.float32(1e-6 * at)))
    spread = np.log1p(np.minimum(relative, 2.0) ** 2)
    return (image * np.exp(noise * np.sqrt(spread) - spread / 2)).astype(np.float32)


def tissue(column: str) -> np.ndarray:
    """One column of the table of tissues for all 256 labels; what is not in the table looks like muscle."""
    number = _COLUMNS.index(column)
    values = np.full(256, float(_MUSCLE[number]))
    for labels, row in _TISSUES:
        values[list(labels)] = row[number]
    return values


def _personal(patient: VirtualPatient, what: str) -> np.ndarray:
    """Factors of some 10 % per label; left and right organs, and the parts of one system, share theirs."""
    number = {"FDG": 2, "pentixafor": 3, "pentixather": 4, "half-life": 5}[what]
    factors = np.exp(patient.random(number).normal(0, 0.08, 256))
    for group in (
        (2, 3),
        range(10, 15),
        range(25, 51),
        (51, 52, 63),
        (71, 72),
        (75, 76),
        (77, 78),
        (MUSCLE, *range(80, 90)),
    ):
        factors[list(group)] = factors[group[0]]
    return factors


def _psf(source: Grid, target: Grid, axis: int, fwhm_mm: float) -> np.ndarray:
    """Matrix (target, source) of the Gaussian's integrals over the source voxels along one axis."""
    edges = source.origin[axis] + (np.arange(source.size[axis] + 1) - 0.5) * source.spacing[axis]
    centres = target.axes()[axis]
    steps = erf((edges[None, :] - centres[:, None]) / (math.sqrt(2) * fwhm_mm * SIGMA_PER_FWHM))
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
