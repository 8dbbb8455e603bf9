"""A CT moved by a known map: rigidly, by breathing, with organs that glide along the chest wall or move with it."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from theraflow.images import from_array, grid_of, points_of_index, to_array
from theraflow.virtual.anatomy import Pose

AIR_HU = -1000.0
WALL_SHARE = 0.2  # of the breathing of the organs, by which a chest wall moves that they glide along
NOISE_GRAIN_VOXELS = 0.6
RIM_MM = 4.0


@dataclass(frozen=True)
class Deformation:
    """A map from points of a moved scan to points of the original one (LPS, mm).

    Attributes:
        pose: how the body lies in the moved scan.
        origin_mm: where the origin of the body's axes (see `theraflow.virtual.anatomy`: midline, fifth lumbar vertebra;
            the diaphragm moves about 240 mm above it) lies in the original scan, shape (3,).
        cavity: image that is not 0 inside chest and abdomen of the original scan, whose organs glide along the wall;
            None: wall and organs move together.
    """

    pose: Pose
    origin_mm: np.ndarray
    cavity: sitk.Image | None = None

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the moved scan as points (N, 3) of the original."""
        whole = self._mapped(points, self.pose)
        if self.cavity is None:
            return whole
        inside = self._in_cavity(whole)
        return np.where(inside[:, None], whole, self._mapped(points, self._wall_pose()))

    def torn(self, points: np.ndarray) -> np.ndarray:
        """Whether points (N, 3) of the moved scan lie within 4 mm of where wall and organs part: nothing is true there.

        Returns:
            bool (N,).
        """
        if self.cavity is None:
            return np.zeros(len(points), dtype=bool)
        inside = to_array(self.cavity) != 0
        spacing = self.cavity.GetSpacing()[::-1]
        outside_mm, inside_mm = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~inside, inside))
        signed = from_array((outside_mm - inside_mm).astype(np.float32), self.cavity)
        organ = _sample(signed, self._mapped(points, self.pose), 1, 1e3)
        wall = _sample(signed, self._mapped(points, self._wall_pose()), 1, 1e3)
        return ((organ > -RIM_MM) & (wall < RIM_MM)) | (np.abs(np.where(organ < 0, organ, wall)) < RIM_MM)

    def moved(self, ct: sitk.Image, grid: sitk.Image, rng: np.random.Generator, noise_hu: float = 10.0) -> sitk.Image:
        """The moved scan of an original CT on `grid`, linearly interpolated, with noise of its own, int16 HU."""
        shape, geometry = grid.GetSize()[::-1], grid_of(grid)
        result = np.empty(shape, np.int16)
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), NOISE_GRAIN_VOXELS)
        noise *= noise_hu / noise.std()
        plane = np.indices(shape[1:]).reshape(2, -1)
        for k in range(shape[0]):
            index = np.stack([plane[1], plane[0], np.full(plane.shape[1], k)], axis=1).astype(float)
            points = self.to_original(points_of_index(index, geometry))
            values = _sample(ct, points, 1, AIR_HU).reshape(shape[1:])
            result[k] = np.clip(values + noise[k], -1024, 3071)
        return from_array(result, grid)

    def _mapped(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        return pose.to_neutral(np.asarray(points, float) - self.origin_mm) + self.origin_mm

    def _wall_pose(self) -> Pose:
        pose = self.pose
        return Pose(pose.rotation, pose.shift_mm, WALL_SHARE * pose.breathing_mm, pose.sag, pose.centre)

    def _in_cavity(self, points: np.ndarray) -> np.ndarray:
        return _sample(self.cavity, points, 0, 0) != 0


def turned_pose(degrees: float, shift_mm: float, breathing_mm: float, rng: np.random.Generator) -> Pose:
    """A pose turned by an angle about a random axis and moved by a length in a random direction."""
    axis, direction = rng.normal(size=(2, 3))
    rotation = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    return Pose(rotation, shift_mm * direction / np.linalg.norm(direction), breathing_mm)


def _sample(image: sitk.Image, points: np.ndarray, order: int, outside: float) -> np.ndarray:
    """Values (N,) of an image at points (N, 3)."""
    grid = grid_of(image)
    axes = np.array(grid.direction).reshape(3, 3)
    index = (points - grid.origin) @ axes / grid.spacing
    array = sitk.GetArrayViewFromImage(image)
    return ndimage.map_coordinates(array, index.T[::-1], np.float32, order=order, cval=outside)
