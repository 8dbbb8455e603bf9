"""An analytic anthropomorphic torso, from the upper thighs to the neck.

Every organ is a closed formula in *model coordinates*: mm, LPS axes (x to the patient's left, y to the back, z to the
head), x = 0 in the midline, z = 0 at the lower end plate of the fifth lumbar vertebra, for an adult of 176 cm. Two maps
lead there from a scan:

    scan point --pose--> neutral point --body scale and personal warp--> model point

so that two scans of one person differ by the pose alone, and two persons by scale, warp, and the size and place of
their organs. Sizes and places follow reference anatomy (ICRP Publication 89 organ masses) as far as ellipsoids,
capsules and tubes can.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import SimpleITK as sitk

AIR = 0
FAT, MUSCLE, SKIN, RIB, COUCH = 200, 201, 202, 203, 210

ADULT_HEIGHT_CM = 176.0
LUMBAR_MM, THORACIC_MM, CERVICAL_MM = 34.0, 25.0, 17.0
L5, T12, C7 = 27, 32, 44

# Outline of the trunk: height, half width, half depth, y of the centre, in mm.
_OUTLINE = np.array(
    [
        (-260, 168, 88, 8), (-150, 178, 102, 6), (-100, 182, 112, 4), (-50, 177, 112, 2), (0, 164, 109, 0),
        (50, 154, 108, 0), (120, 152, 112, 0), (200, 160, 116, 0), (300, 172, 117, 2), (380, 178, 110, 6),
        (430, 182, 97, 10), (470, 150, 86, 12), (505, 80, 68, 12), (560, 62, 60, 12),
    ],
    dtype=float,
)  # fmt: skip

# Whether points at x, y, z (model, mm) and at some depth under the skin (mm) belong to a shape.
Inside = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Box = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """An axis-aligned image grid, LPS: `origin` is the centre of voxel (0, 0, 0); sizes and spacings are x, y, z."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @classmethod
    def covering(cls, low: Sequence[float], high: Sequence[float], spacing: Sequence[float]) -> "Grid":
        """The smallest grid, centred, whose voxels cover the box from `low` to `high` (mm)."""
        low, high, step = np.asarray(low, float), np.asarray(high, float), np.asarray(spacing, float)
        size = np.maximum(1, np.ceil((high - low) / step - 1e-9)).astype(int)
        origin = (low + high) / 2 - (size - 1) / 2 * step
        return cls(tuple(int(n) for n in size), tuple(map(float, step)), tuple(map(float, origin)))

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxel centres along x, y and z in mm."""
        return tuple(o + s * np.arange(n) for n, s, o in zip(self.size, self.spacing, self.origin, strict=True))

    def points(self) -> np.ndarray:
        """Voxel centres as an array (nz, ny, nx, 3) of x, y, z in mm."""
        x, y, z = self.axes()
        out = np.empty((len(z), len(y), len(x), 3), np.float32)
        out[..., 0], out[..., 1], out[..., 2] = x[None, None, :], y[None, :, None], z[:, None, None]
        return out

    def image(self, array: np.ndarray) -> sitk.Image:
        """The array (z, y, x) as an image with this geometry."""
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        return image


@dataclass(frozen=True)
class _Waves:
    """A smooth vector field: a sum of plane sine waves."""

    wave: np.ndarray  # (k, 3) wave vectors in 1/mm
    phase: np.ndarray  # (k,)
    amplitude: np.ndarray  # (k, 3) in mm

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude_mm: float, shortest_mm: float, count: int = 6) -> "_Waves":
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.uniform(shortest_mm, 2 * shortest_mm, size=(count, 1))
        amplitude = rng.normal(size=(count, 3)) * amplitude_mm / np.sqrt(3 * count / 2)
        return cls(2 * np.pi * direction / length, rng.uniform(0, 2 * np.pi, count), amplitude)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        flat = points.reshape(-1, 3)
        return (np.sin(flat @ self.wave.T + self.phase) @ self.amplitude).reshape(points.shape)


_STILL = _Waves(np.zeros((1, 3)), np.zeros(1), np.zeros((1, 3)))


def _invert(forward: Callable[[np.ndarray], np.ndarray], target: np.ndarray, steps: int = 30) -> np.ndarray:
    """The points that `forward`, a map close to the identity, takes to `target` (fixed-point iteration)."""
    guess = np.array(target, float)
    for _ in range(steps):
        guess = guess + (target - forward(guess))
    return guess


@dataclass(frozen=True)
class Pose:
    """How the body lies in one scan: a rigid move, breathing, and a little sagging. `Pose()` is the neutral pose.

    Attributes:
        rotation: 3 x 3 matrix; scan axes to body axes, about `centre`.
        shift_mm: scan origin to body origin.
        breathing_mm: how far the diaphragm lies lower (towards the feet) than in the neutral pose.
        sag: a smooth displacement of a few mm.
    """

    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    shift_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))
    breathing_mm: float = 0.0
    sag: _Waves = _STILL
    centre: tuple[float, float, float] = (0.0, 0.0, 150.0)

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        rotation_deg: float = 5.0,
        shift_mm: float = 20.0,
        breathing_mm: float = 12.0,
        sag_mm: float = 2.0,
    ) -> "Pose":
        """A random pose: rotation about each axis and shift along each within +- the limits given."""
        from scipy.spatial.transform import Rotation

        angles = rng.uniform(-rotation_deg, rotation_deg, 3)
        return cls(
            Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
            rng.uniform(-shift_mm, shift_mm, 3),
            rng.uniform(-breathing_mm, breathing_mm),
            _Waves.draw(rng, sag_mm, 250.0),
        )

    def to_neutral(self, points: np.ndarray) -> np.ndarray:
        """Scan points (..., 3) in mm, LPS, to points of the neutral body."""
        centre = np.asarray(self.centre)
        body = (points - centre - self.shift_mm) @ self.rotation.T + centre
        height, around = (
            (body[..., 2] - 240.0) / 130.0,
            (body[..., 0] / 190.0) ** 2 + (body[..., 1] / 150.0) ** 2,
        )
        breath = self.breathing_mm * np.exp(-(height**2) - around)
        moved = body + self.sag(body)
        moved[..., 2] += breath  # what lies here now was higher in the neutral pose
        moved[..., 1] += np.where(body[..., 1] < 0, -0.3, 0.0) * breath * np.tanh(-body[..., 1] / 60.0)
        return moved

    def from_neutral(self, points: np.ndarray) -> np.ndarray:
        """Points of the neutral body (..., 3) to scan points; the inverse of `to_neutral`."""
        centre = np.asarray(self.centre)
        rigid = Pose(self.rotation, self.shift_mm, centre=self.centre)
        start = (np.asarray(points, float) - centre) @ self.rotation + centre + self.shift_mm
        # Iterate in body axes, where the rest of the map is close to the identity.
        body = rigid.to_neutral(start)
        unrotated = Pose(np.eye(3), np.zeros(3), self.breathing_mm, self.sag, self.centre)
        body = _invert(unrotated.to_neutral, body)
        return (body - centre) @ self.rotation + centre + self.shift_mm


class _Canvas:
    """Labels being painted at known model coordinates and depths; each shape is evaluated only inside its box."""

    def __init__(self, points: np.ndarray):
        self.x, self.y, self.z, self.depth = (np.ascontiguousarray(points[..., i]) for i in range(4))
        self.labels = np.zeros(self.x.shape, np.uint8)
        # Extreme model coordinates of every slice, row and column: a box then finds its voxels at once.
        self._range = [
            (self.z.min((1, 2)), self.z.max((1, 2))),
            (self.y.min((0, 2)), self.y.max((0, 2))),
            (self.x.min((0, 1)), self.x.max((0, 1))),
        ]

    def paint(self, label: int, box: Box, inside: Inside, over: Sequence[int] | None = None) -> None:
        """Give `label` to the voxels of `box` (x0, x1, y0, y1, z0, z1) that are `inside`, only `over` those labels."""
        limits = [box[4:6], box[2:4], box[0:2]]
        slices = []
        for (low, high), (first, last) in zip(self._range, limits, strict=True):
            hit = np.flatnonzero((high >= first) & (low <= last))
            if not hit.size:
                return
            slices.append(slice(hit[0], hit[-1] + 1))
        part = tuple(slices)
        where = inside(self.x[part], self.y[part], self.z[part], self.depth[part])
        labels = self.labels[part]
        where &= np.isin(labels, over) if over is not None else labels != AIR
        labels[where] = label


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, optionally tilted about the y axis (in the coronal plane) and the x axis (in the sagittal one)."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    coronal_deg: float = 0.0
    sagittal_deg: float = 0.0

    def value(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Squared radius in units of the surface: below 1 inside."""
        u, v, w = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        if self.coronal_deg:
            c, s = np.cos(np.radians(self.coronal_deg)), np.sin(np.radians(self.coronal_deg))
            u, w = c * u - s * w, s * u + c * w
        if self.sagittal_deg:
            c, s = np.cos(np.radians(self.sagittal_deg)), np.sin(np.radians(self.sagittal_deg))
            v, w = c * v - s * w, s * v + c * w
        return (u / self.radii[0]) ** 2 + (v / self.radii[1]) ** 2 + (w / self.radii[2]) ** 2

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Whether points lie inside."""
        return self.value(x, y, z) < 1

    @property
    def box(self) -> Box:
        """A box around it, whatever the tilt."""
        reach = self.radii if not (self.coronal_deg or self.sagittal_deg) else (max(self.radii),) * 3
        return tuple(c + s * r for c, r in zip(self.centre, reach, strict=True) for s in (-1, 1))


@dataclass(frozen=True)
class Tube:
    """A chain of capsules through `nodes` (x, y, z, radius)."""

    nodes: tuple[tuple[float, float, float, float], ...]

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Whether points lie inside."""
        inside = np.zeros(x.shape, bool)
        for start, end in zip(self.nodes, self.nodes[1:], strict=False):
            axis = np.subtract(end[:3], start[:3])
            along = (x - start[0]) * axis[0] + (y - start[1]) * axis[1] + (z - start[2]) * axis[2]
            t = np.clip(along / (axis @ axis), 0, 1)
            squared = (x - start[0] - t * axis[0]) ** 2
            squared += (y - start[1] - t * axis[1]) ** 2 + (z - start[2] - t * axis[2]) ** 2
            inside |= squared < (start[3] + t * (end[3] - start[3])) ** 2
        return inside

    @property
    def box(self) -> Box:
        """The box around all nodes."""
        nodes = np.array(self.nodes)
        low = (nodes[:, :3] - nodes[:, 3:]).min(0)
        high = (nodes[:, :3] + nodes[:, 3:]).max(0)
        return tuple(v for pair in zip(low, high, strict=True) for v in pair)


def _spine_y(z: np.ndarray) -> np.ndarray:
    """y of the centres of the vertebral bodies: lumbar lordosis, thoracic kyphosis."""
    return np.interp(z, (-20, 60, 150, 320, 450, 540), (52, 40, 44, 62, 46, 30))


def vertebra_levels() -> list[tuple[int, float, float]]:
    """Label, lower and upper z (mm, model) of every vertebra from L5 up to C4."""
    levels, z = [], 0.0
    for label in range(L5, 48):
        height = LUMBAR_MM if label < T12 else THORACIC_MM if label < C7 else CERVICAL_MM
        levels.append((label, z, z + height))
        z += height
    return levels


@dataclass(frozen=True)
class Anatomy:
    """One person: size, personal warp, and the shapes of the organs in model coordinates."""

    sex: str
    age_y: float
    height_cm: float
    weight_kg: float
    girth: float
    fat_mm: float
    warp: _Waves
    shapes: Mapping[str, tuple[Ellipsoid | Tube, ...]]

    @classmethod
    def draw(cls, seed: int, sex: str, age_y: float) -> "Anatomy":
        """A random person of that sex and age; children are smaller (growth curve up to 18 years)."""
        rng = np.random.default_rng(seed)
        adult = rng.normal(178 if sex == "M" else 166, 5)
        height = adult * np.interp(age_y, (1, 5, 8, 12, 15, 18), (0.43, 0.62, 0.725, 0.85, 0.95, 1.0))
        girth = (height / ADULT_HEIGHT_CM) ** 0.9 * rng.uniform(0.93, 1.1)
        weight = 73.0 * (height / ADULT_HEIGHT_CM) * (girth**2) * rng.uniform(0.97, 1.03)
        fat = rng.uniform(8, 26)
        return cls(
            sex,
            age_y,
            round(height, 1),
            round(weight, 1),
            girth,
            fat,
            _Waves.draw(rng, 4.0, 170.0),
            _organs(rng, sex),
        )

    @cached_property
    def scale(self) -> np.ndarray:
        """Size of this body relative to the model along x, y, z."""
        return np.array([self.girth, self.girth, self.height_cm / ADULT_HEIGHT_CM])

    def to_model(self, neutral: np.ndarray) -> np.ndarray:
        """Points of the neutral body (..., 3), mm, to model coordinates."""
        scaled = neutral / self.scale
        return scaled + self.warp(scaled)

    def from_model(self, model: np.ndarray) -> np.ndarray:
        """Model coordinates to points of the neutral body; the inverse of `to_model`."""
        return _invert(lambda p: p + self.warp(p), np.asarray(model, float)) * self.scale

    def bounding_box(self, low_z: float = -200.0, high_z: float = 520.0) -> tuple[np.ndarray, np.ndarray]:
        """Corners of a box (neutral, mm) around the body between two heights given in model coordinates."""
        low = np.array([-195.0, -130.0, low_z]) * self.scale
        high = np.array([195.0, 135.0, high_z]) * self.scale
        return low, high

    def labels(self, grid: Grid, pose: Pose | None = None, couch: bool = False, arms: bool = False) -> np.ndarray:
        """Tissue of every voxel of `grid` in a scan with `pose`, on a couch, with the arms down or out of the image.

        Returns:
            uint8 array (z, y, x): TotalSegmentator `total` ids for organs; FAT, MUSCLE, SKIN, RIB and COUCH beside
            them, AIR outside.
        """
        canvas = _Canvas(self._model_points(grid, pose or Pose()))
        self._paint_trunk(canvas)
        self._paint_organs(canvas)
        if arms:
            _paint_arms(canvas)
        if couch:
            _paint_couch(canvas.labels, grid, self.scale[1])
        return canvas.labels

    def place(self, site: str, radius_mm: float, rng: np.random.Generator) -> np.ndarray:
        """A point (neutral body, mm) where a lesion of that radius at that site may have its centre.

        Raises:
            KeyError: the site is none of `SITES`.
        """
        low, high = SITES[site]
        if site in ("liver", "spleen"):
            organ = self.shapes[site][0]
            inner = Ellipsoid(organ.centre, tuple(max(4.0, r - radius_mm / min(self.scale) - 3) for r in organ.radii))
            while True:
                point = rng.uniform(np.subtract(inner.centre, inner.radii), np.add(inner.centre, inner.radii))
                below_dome = point[2] + radius_mm + 6 < _dome(point[0:1], point[1:2])[0]
                if inner(*point[:, None])[0] and below_dome:
                    break
        else:
            point = rng.uniform(low, high)
            if site == "peritoneum" and rng.random() < 0.35:  # half of these lie in the pelvis
                point = rng.uniform((-60, -20, -70), (60, 20, -15))
        return self.from_model(point)

    def _model_points(self, grid: Grid, pose: Pose) -> np.ndarray:
        """Model coordinates and depth of all voxels (z, y, x, 4): exact on a lattice of 8 mm, linear between."""
        step = np.maximum(1, np.round(8.0 / np.array(grid.spacing))).astype(int)
        coarse_size = [int(-(-(n - 1) // s) + 1) if n > 1 else 1 for n, s in zip(grid.size, step, strict=True)]
        coarse = Grid(tuple(coarse_size), tuple(np.array(grid.spacing) * step), grid.origin)
        points = self.to_model(pose.to_neutral(coarse.points().astype(float)))
        depth = _depth(points[..., 0], points[..., 1], points[..., 2])
        points = np.concatenate([points, depth[..., None]], axis=-1).astype(np.float32)
        for axis, (n, s) in enumerate(zip(grid.size[::-1], step[::-1], strict=True)):
            points = _refine(points, axis, n, int(s))
        return points

    def _paint_trunk(self, canvas: _Canvas) -> None:
        x, y, z, depth, labels = canvas.x, canvas.y, canvas.z, canvas.depth, canvas.labels
        fat = self.fat_mm * np.interp(z, (-200, 0, 100, 300, 480), (1.3, 1.2, 1.0, 0.6, 0.4))
        wall = np.interp(z, (-40, 20, 120, 300), (30, 14, 14, 18))
        labels[depth > 0] = SKIN
        labels[depth > 2] = FAT
        labels[depth > fat] = MUSCLE
        cavity = (depth > fat + wall) & (z > -110) & (z < 475)
        labels[cavity] = FAT
        slope = np.where(y < 0, -0.35 * y, 0.15 * y)
        ring = (depth > fat + 5) & (depth < fat + 13) & (z > 195) & (z < 455) & (y > -85)
        labels[ring & (np.mod(z + 2.2 * slope, 25.0) < 11.0)] = RIB
        thorax = (depth > fat + wall + 1) & (z > _dome(x, y)) & (z < 468)
        chest = Ellipsoid((0, 5, 270), (165, 110, 200))(x, y, z)
        lung = thorax & chest & (np.abs(x) > np.interp(z, (200, 330, 460), (16, 26, 22)))
        x, y, z = x[lung], y[lung], z[lung]
        behind_fissure = z - 320 < 1.1 * y
        left_lobe = np.where(behind_fissure, 11, 10)
        right_lobe = np.where(behind_fissure, 14, np.where(z < 335, 13, 12))
        labels[lung] = np.where(x > 0, left_lobe, right_lobe)

    def _paint_organs(self, canvas: _Canvas) -> None:
        for name, label in _ORDER:
            for shape in self.shapes.get(name, ()):
                limit = _LIMITS.get(name)

                def inside(x, y, z, depth, shape=shape, limit=limit):
                    where = shape(x, y, z)
                    return where & limit(self, x, y, z, depth) if limit else where

                canvas.paint(label, shape.box, inside, _OVER.get(name))
        _paint_spine(canvas)


def _depth(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How deep under the skin, in mm of model space (negative outside)."""
    half_width, half_depth, centre = (np.interp(z, _OUTLINE[:, 0], _OUTLINE[:, i]) for i in (1, 2, 3))
    radius = ((np.abs(x) / half_width) ** 2.5 + (np.abs(y - centre) / half_depth) ** 2.5) ** (1 / 2.5)
    trunk = (1 - radius) * half_depth
    thigh = (1 - np.hypot((np.abs(x) - 88) / 86, (y - 8) / 92)) * 86
    blend = np.clip((-120 - z) / 30, 0, 1)
    return (1 - blend) * trunk + blend * np.minimum(trunk, thigh)


def _refine(points: np.ndarray, axis: int, size: int, step: int) -> np.ndarray:
    """Linear interpolation of `points` along one axis to `size` samples, `step` times denser."""
    if step == 1:
        return np.take(points, np.arange(size), axis)
    index = np.arange(size) / step
    low = np.minimum(np.floor(index).astype(int), points.shape[axis] - 2)
    part = (index - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(points.ndim)])
    first = np.take(points, low, axis)
    return first + part * (np.take(points, low + 1, axis) - first)


def _dome(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the diaphragm over (x, y) in mm of model space."""
    right = 268 - 95 * (((x + 72) / 92) ** 2 + ((y + 15) / 105) ** 2)
    left = 256 - 95 * (((x - 78) / 92) ** 2 + ((y + 15) / 105) ** 2)
    return np.maximum(np.maximum(right, left), 150)


def _below_dome(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return (z < _dome(x, y) - 4) & _in_cavity(anatomy, x, y, z, depth)


def _in_cavity(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return depth > anatomy.fat_mm + 15


def _in_muscle(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return depth > 1.3 * anatomy.fat_mm


def _loops(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Bowel loops with fat between."""
    pattern = np.sin(x / 9.0 + np.sin(z / 14.0)) + np.sin(y / 8.0 + 0.7 * np.sin(x / 17.0)) + np.sin(z / 10.0)
    return (pattern > -0.35) & _in_cavity(anatomy, x, y, z, depth)


def _no_sinus(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Kidney without the renal sinus at its medial side."""
    side = anatomy.shapes["kidney_left"][0] if x.mean() > 0 else anatomy.shapes["kidney_right"][0]
    towards = -np.sign(side.centre[0])
    centre = (side.centre[0] + towards * 0.85 * side.radii[0], side.centre[1] - 4, side.centre[2])
    return ~Ellipsoid(centre, (13, 9, 17))(x, y, z)


def _wing(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The iliac wing: a shell of the ellipsoid, above the hip joint and behind the front."""
    shell = Ellipsoid((0, -5, 5), (128, 86, 105)).value(x, y, z)
    return (shell > 0.80) & (z > -70) & (z < 62) & (np.abs(x) > 42) & (y > -35 + 0.3 * (z - 60))


_LIMITS: dict[str, Callable] = {
    "liver": _below_dome,
    "spleen": _below_dome,
    "stomach": _below_dome,
    "small_bowel": _loops,
    "colon": _in_cavity,
    "gluteus_maximus_left": _in_muscle,
    "gluteus_maximus_right": _in_muscle,
    "gluteus_medius_left": _in_muscle,
    "gluteus_medius_right": _in_muscle,
    "perirenal_fat_left": _in_cavity,
    "perirenal_fat_right": _in_cavity,
    "kidney_left": _no_sinus,
    "kidney_right": _no_sinus,
    "hip_left_wing": _wing,
    "hip_right_wing": _wing,
}

# Later entries are painted over earlier ones.
_ORDER = (
    ("gluteus_maximus_left", 80), ("gluteus_maximus_right", 81), ("gluteus_medius_left", 82),
    ("gluteus_medius_right", 83), ("autochthon_left", 86), ("autochthon_right", 87), ("iliopsoas_left", 88),
    ("iliopsoas_right", 89), ("small_bowel", 18), ("colon", 20), ("stomach", 6), ("duodenum", 19), ("pancreas", 7),
    ("liver", 5), ("gallbladder", 4), ("spleen", 1), ("perirenal_fat_right", FAT), ("perirenal_fat_left", FAT),
    ("kidney_right", 2), ("kidney_left", 3),
    ("adrenal_gland_right", 8), ("adrenal_gland_left", 9), ("urinary_bladder", 21), ("prostate", 22),
    ("hip_left_wing", 77), ("hip_right_wing", 78), ("hip_left", 77), ("hip_right", 78), ("femur_left", 75),
    ("femur_right", 76), ("scapula_left", 71), ("scapula_right", 72), ("sternum", 116), ("sacrum", 25),
    ("esophagus", 15), ("trachea", 16), ("heart", 51), ("inferior_vena_cava", 63), ("aorta", 52),
)  # fmt: skip
_OVER = {"scapula_left": (FAT, MUSCLE), "scapula_right": (FAT, MUSCLE)}

# Boxes of model coordinates in which lesion centres lie.
SITES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "peritoneum": ((-75, -70, 5), (75, -35, 120)),
    "lymph_node_retroperitoneal": ((-32, 5, 55), (38, 14, 120)),
    "lymph_node_mediastinal": ((-20, -25, 375), (18, -5, 425)),
    "lymph_node_cervical": ((28, -5, 490), (36, 15, 512)),
    "lymph_node_iliac": ((48, -15, -40), (62, 5, 10)),
    "liver": ((0, 0, 0), (0, 0, 0)),
    "spleen": ((0, 0, 0), (0, 0, 0)),
    "diaphragm": ((-40, -60, 258), (-20, -45, 266)),
    "pleura": ((-118, 45, 260), (-108, 60, 330)),
    "mediastinum": ((-25, -55, 365), (20, -40, 395)),
    "soft_tissue": ((-128, 40, 10), (-115, 55, 60)),
    "bone": ((-70, 25, 5), (-60, 35, 30)),
}


def _organs(rng: np.random.Generator, sex: str) -> dict[str, tuple[Ellipsoid | Tube, ...]]:
    """The organs of one person in model coordinates; sizes vary by about 8 %, places by some millimetres."""

    def ellipsoid(centre, radii, coronal=0.0, sagittal=0.0, move=5.0) -> Ellipsoid:
        size = rng.normal(1.0, 0.05) * rng.normal(1.0, 0.04, 3)
        place = np.add(centre, rng.uniform(-move, move, 3))
        tilt = rng.uniform(-6, 6, 2) if coronal or sagittal else (0.0, 0.0)
        radii = np.multiply(radii, np.clip(size, 0.8, 1.25))
        return Ellipsoid(tuple(place), tuple(radii), coronal + tilt[0], sagittal + tilt[1])

    def tube(*nodes, move=3.0, width=0.06) -> Tube:
        shift, factor = rng.uniform(-move, move, 3), rng.normal(1.0, width)
        return Tube(tuple((x + shift[0], y + shift[1], z + shift[2], r * factor) for x, y, z, r in nodes))

    fill = rng.uniform(0.8, 1.25)
    right_lobe = ellipsoid((-66, -2, 190), (70, 80, 80), coronal=12, move=4)
    organs: dict[str, tuple[Ellipsoid | Tube, ...]] = {
        "liver": (right_lobe, ellipsoid((2, -45, 217), (72, 40, 38), coronal=-10)),
        "spleen": (ellipsoid((94, 38, 194), (30, 43, 51), coronal=18, sagittal=-10),),
        "kidney_left": (ellipsoid((63, 48, 158), (28, 26, 56), coronal=10),),
        "kidney_right": (ellipsoid((-63, 48, 142), (28, 26, 55), coronal=-10),),
        "stomach": (ellipsoid((62, -32, 212), (42, 38, 44), coronal=20),),
        "gallbladder": (ellipsoid((-52, -52, 143), (15, 15, 26), sagittal=-25),),
        "pancreas": (tube((-42, -2, 146, 15), (-10, -8, 160, 11), (30, 10, 172, 10), (70, 28, 192, 9)),),
        "duodenum": (tube((-40, -10, 165, 13), (-52, 8, 140, 14), (-40, 15, 108, 13), (5, 8, 104, 12)),),
        "adrenal_gland_right": (ellipsoid((-38, 42, 206), (4, 9, 14), move=2),),
        "adrenal_gland_left": (ellipsoid((36, 42, 212), (5, 10, 14), move=2),),
        "small_bowel": (ellipsoid((0, -42, 68), (88, 42, 62)),),
        "colon": (
            tube((-98, 8, 12, 26), (-102, 10, 80, 23), (-92, -18, 132, 22)),
            tube((-92, -18, 132, 22), (-40, -72, 122, 20), (30, -74, 128, 20), (95, -20, 168, 20)),
            tube((95, -20, 168, 19), (110, 18, 110, 18), (106, 15, 30, 18), (70, -5, -5, 17), (25, 22, -28, 17)),
            tube((25, 22, -28, 17), (0, 38, -60, 19), (0, 34, -105, 18)),
        ),
        "urinary_bladder": (ellipsoid((0, -42, -62), (37 * fill, 31 * fill, 30 * fill)),),
        "heart": (ellipsoid((32, -38, 302), (55, 45, 47), coronal=25),),
        "aorta": (
            tube((10, 22, 42, 9), (10, 22, 150, 11), (16, 38, 300, 12), (18, 34, 385, 12.5),
                 (14, 22, 412, 13), (2, 2, 424, 14), (-8, -16, 410, 15), (-8, -22, 345, 16), move=2),
        ),
        "inferior_vena_cava": (tube((-16, 24, 40, 10), (-18, 22, 150, 11), (-22, 8, 262, 13), move=2),),
        "esophagus": (tube((12, 14, 240, 7), (5, 42, 300, 8), (4, 34, 420, 8), (2, 25, 520, 8), move=1),),
        "trachea": (tube((0, 14, 405, 9), (0, 8, 470, 9), (0, -4, 540, 9), move=1),),
        "sternum": (tube((0, -98, 300, 8), (0, -92, 390, 9), (0, -78, 425, 10), move=1),),
        "sacrum": (
            tube((0, 56, -8, 27), (0, 70, -45, 24), (0, 76, -75, 17), (0, 66, -108, 9), move=1),
            tube((-38, 62, -14, 17), (38, 62, -14, 17), move=1),
        ),
    }  # fmt: skip
    if sex == "M":
        organs["prostate"] = (ellipsoid((0, -28, -110), (20, 15, 17), move=2),)
    pairs: dict[str, Callable[[float], tuple[Ellipsoid | Tube, ...]]] = {
        "gluteus_maximus": lambda s: (Ellipsoid((s * 78, 74, -75), (64, 36, 78), s * 12),),
        "gluteus_medius": lambda s: (Ellipsoid((s * 122, 10, -12), (26, 48, 56)),),
        "autochthon": lambda s: (Tube(((s * 34, 84, -30, 16), (s * 38, 76, 80, 24), (s * 36, 88, 200, 20),
                                       (s * 28, 96, 330, 16), (s * 22, 70, 500, 14))),),
        "iliopsoas": lambda s: (Tube(((s * 30, 42, 165, 9), (s * 40, 38, 100, 17), (s * 52, 26, 30, 21),
                                      (s * 72, -8, -40, 21), (s * 88, -28, -75, 16), (s * 100, 5, -120, 9))),),
        "hip": lambda s: (Ellipsoid((s * 90, 2, -76), (33, 33, 33)),
                          Tube(((s * 84, 25, -80, 16), (s * 62, 45, -115, 14), (s * 52, 30, -140, 11))),
                          Tube(((s * 85, -14, -74, 13), (s * 40, -46, -88, 10), (s * 8, -54, -100, 10)))),
        "femur": lambda s: (Ellipsoid((s * 92, 2, -78), (24, 24, 24)),
                            Tube(((s * 92, 2, -78, 15), (s * 128, 12, -98, 17), (s * 124, 10, -130, 17),
                                  (s * 112, 4, -270, 14)))),
        "scapula": lambda s: (Ellipsoid((s * 112, 88, 388), (42, 9, 62), s * 10, 12),),
    }  # fmt: skip
    for name, make in pairs.items():
        organs[f"{name}_left"], organs[f"{name}_right"] = make(1.0), make(-1.0)
    for side in ("left", "right"):
        (kidney,) = organs[f"kidney_{side}"]
        thickness = rng.uniform(4.0, 10.0)
        capsule = replace(kidney, radii=tuple(radius + thickness for radius in kidney.radii))
        organs[f"perirenal_fat_{side}"] = (capsule,)
    wing = {"hip_left_wing": (20.0, 140.0), "hip_right_wing": (-140.0, -20.0)}
    for name, (low, high) in wing.items():
        organs[name] = (_Half(Ellipsoid((0, -5, 5), (128, 86, 105)), low, high),)
    return organs


@dataclass(frozen=True)
class _Half:
    """The part of an ellipsoid between two values of x."""

    whole: Ellipsoid
    low_x: float
    high_x: float

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return self.whole(x, y, z) & (x > self.low_x) & (x < self.high_x)

    @property
    def box(self) -> Box:
        return (self.low_x, self.high_x, *self.whole.box[2:])


def _paint_spine(canvas: _Canvas) -> None:
    """Vertebral bodies with discs between, arches and processes, and the spinal canal."""
    for label, low, high in vertebra_levels():
        size = np.interp(low, (0, 150, 420, 540), (25, 22, 15, 12))

        def bone(x, y, z, _, low=low, high=high, size=size):
            behind = y - _spine_y(z)
            body = (x / size) ** 2 + (behind / (0.74 * size)) ** 2 < 1
            disc = (z < low + 2.5) | (z > high - 2.5)
            arch = (np.hypot(x, behind - 0.74 * size - 8) < 14) & (np.abs(z - (low + high) / 2) < 0.38 * (high - low))
            spine = (np.abs(x) < 4) & (behind > size) & (behind < size + 32) & (z - low < 0.6 * (high - low))
            wings = (np.abs(x) < size + 16) & (np.abs(behind - size + 2) < 5) & (np.abs(z - (low + high) / 2) < 6)
            return (z >= low) & (z < high) & ((body & ~disc) | arch | spine | wings)

        canvas.paint(label, (-50, 50, 0, 140, low, high), bone)
    canvas.paint(
        MUSCLE,
        (-30, 30, 10, 100, 0, 545),
        lambda x, y, z, _: (x / 23) ** 2 + ((y - _spine_y(z)) / 17) ** 2 < 1,
        over=(FAT,),  # the discs
    )
    canvas.paint(79, (-20, 20, 30, 120, -5, 545), lambda x, y, z, _: np.hypot(x, y - _spine_y(z) - 24) < 7)


def _paint_arms(canvas: _Canvas) -> None:
    """Arms beside the trunk, each tissue where nothing lies yet: bones, muscle, fat, skin."""
    for side, humerus in ((1.0, 69), (-1.0, 70)):
        shoulder, elbow, wrist = (side * 226, 10, 415), (side * 234, 14, 125), (side * 228, 4, -115)
        tissues = [(humerus, Tube(((*shoulder, 11), (*elbow, 11)))), (RIB, Tube(((*elbow, 11), (*wrist, 9))))]
        for label, below_skin in ((MUSCLE, 7), (FAT, 2), (SKIN, 0)):
            nodes = ((shoulder, 47), (elbow, 40), (wrist, 27))
            tissues.append((label, Tube(tuple((*place, radius - below_skin) for place, radius in nodes))))
        for label, shape in tissues:
            canvas.paint(label, shape.box, lambda x, y, z, _, shape=shape: shape(x, y, z), over=(AIR,))


def _paint_couch(labels: np.ndarray, grid: Grid, girth: float) -> None:
    """A curved couch under the patient, in scan coordinates."""
    x, y, _ = grid.axes()
    top = 119.0 * girth + 14.0 - (x[None, :] / 230.0) ** 2 * 40.0
    couch = (y[:, None] > top) & (y[:, None] < top + 9.0) & (np.abs(x[None, :]) < 215)
    plane = np.broadcast_to(couch, labels.shape)
    labels[plane & (labels == AIR)] = COUCH
