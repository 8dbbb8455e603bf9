"""A CT moved by a known map: rigidly, by breathing, with organs that glide along the chest wall or move with it.

The map leads from points of the moved scan to points of the original one, as resampling needs it; all are LPS, mm.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from theraflow.images import axes_of, from_array, grid_of, points_of_index, to_array
from theraflow.virtual.anatomy import Pose

AIR_HU = -1000.0
WALL_SHARE = 0.2  # of the breathing of the organs, by which a chest wall moves that they glide along
NOISE_GRAIN_VOXELS = 0.6
RIM_MM = 4.0
FAR_MM = 1e3


@dataclass(frozen=True)
class Deformation:
    """A map from points of a moved scan to points of the original one (LPS, mm).

    Attributes:
        pose: how the body lies in the moved scan.
        origin_mm: where the origin of the body's axes (see `theraflow.virtual.anatomy`: midline, fifth lumbar vertebra;
            the diaphragm moves most about 240 mm above it) lies in the original scan, shape (3,).
        cavity: image that is not 0 inside chest and abdomen of the original scan, whose organs glide along the wall:
            they follow the breathing, the wall only `WALL_SHARE` of it; None: wall and organs move together.
    """

    pose: Pose
    origin_mm: np.ndarray
    cavity: sitk.Image | None = None

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the moved scan as points (N, 3) of the original."""
        as_organ = self._mapped(points, self.pose)
        if self.cavity is None:
            return as_organ
        inside = values_at(self.cavity, as_organ, order=0) != 0
        return np.where(inside[:, None], as_organ, self._mapped(points, self._wall_pose()))

    def torn(self, points: np.ndarray) -> np.ndarray:
        """Whether points (N, 3) of the moved scan lie where nothing is true.

        That is within 4 mm of the tear between wall and organs, and in the gap that organs leave behind, where the
        wall's map shows them a second time. Without a cavity it is nowhere.

        Returns:
            bool (N,).
        """
        if self.cavity is None:
            return np.zeros(len(points), dtype=bool)
        inside = to_array(self.cavity) != 0
        spacing = self.cavity.GetSpacing()[::-1]
        to_cavity, to_wall = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (~inside, inside))
        depth = from_array((to_cavity - to_wall).astype(np.float32), self.cavity)  # negative inside the cavity
        as_organ, as_wall = (
            values_at(depth, self._mapped(points, pose), outside=FAR_MM) for pose in (self.pose, self._wall_pose())
        )
        gap = (as_organ > -RIM_MM) & (as_wall < RIM_MM)
        return gap | (np.abs(np.where(as_organ < 0, as_organ, as_wall)) < RIM_MM)

    def grid(self, ct: sitk.Image) -> sitk.Image:
        """An empty grid for the moved scan: that of `ct`, shifted so that the body stays in it.

        Its middle is where the middle of `ct` comes to lie without breathing and sagging.
        """
        middle = np.array(ct.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in ct.GetSize()]))
        rigid = Pose(self.pose.rotation, self.pose.shift_mm, centre=self.pose.centre)
        moved_middle = rigid.from_neutral((middle - self.origin_mm)[None])[0] + self.origin_mm
        grid = sitk.Image(ct.GetSize(), sitk.sitkUInt8)
        grid.CopyInformation(ct)
        grid.SetOrigin((np.array(ct.GetOrigin()) + moved_middle - middle).tolist())
        return grid

    def moved(self, ct: sitk.Image, grid: sitk.Image, rng: np.random.Generator, noise_hu: float = 10.0) -> sitk.Image:
        """The moved scan of an original CT.

        Args:
            ct: the original, HU.
            grid: the image whose geometry the result takes; its voxels are not read.
            rng: random numbers.
            noise_hu: standard deviation of the noise of its own that the moved scan gets beside the original's.

        Returns:
            int16 HU, linearly interpolated; air where the original has not been seen.
        """
        shape, geometry = grid.GetSize()[::-1], grid_of(grid)
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), NOISE_GRAIN_VOXELS)
        noise *= noise_hu / noise.std()
        result = np.empty(shape, np.int16)
        rows, columns = (axis.ravel() for axis in np.indices(shape[1:]))
        for k in range(shape[0]):  # slice by slice: the points of all voxels take twelve times the memory of the image
            index = np.stack([columns, rows, np.full(rows.shape, k)], axis=1).astype(float)
            points = self.to_original(points_of_index(index, geometry))
            values = values_at(ct, points, outside=AIR_HU).reshape(shape[1:])
            result[k] = np.clip(np.rint(values + noise[k]), -1024, 3071)
        return from_array(result, grid)

    def _mapped(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        return pose.to_neutral(np.asarray(points, float) - self.origin_mm) + self.origin_mm

    def _wall_pose(self) -> Pose:
        pose = self.pose
        return Pose(pose.rotation, pose.shift_mm, WALL_SHARE * pose.breathing_mm, pose.sag, pose.centre)


def turned_pose(
    degrees: float, shift_mm: float, breathing_mm: float, rng: np.random.Generator, sag_mm: float = 0.0
) -> Pose:
    """A pose turned by an angle about a random axis and moved by a length in a random direction.

    Args:
        degrees: angle of the rotation.
        shift_mm: length of the shift.
        breathing_mm: how far the diaphragm lies lower.
        rng: random numbers.
        sag_mm: size of a smooth random displacement with waves of 250 mm and more.
    """
    axis, direction = rng.normal(size=(2, 3))
    rotation = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    sag = Pose.draw(rng, 0.0, 0.0, 0.0, sag_mm).sag
    return Pose(rotation, shift_mm * direction / np.linalg.norm(direction), breathing_mm, sag)


def values_at(image: sitk.Image, points: np.ndarray, order: int = 1, outside: float = 0.0) -> np.ndarray:
    """Values (N,), float32, of a scalar image at points (N, 3): linear (order 1) or of the nearest voxel (order 0).

    Beyond the centres of the outermost voxels it is `outside`.
    """
    grid = grid_of(image)
    index = (points - grid.origin) @ axes_of(grid) / grid.spacing
    voxels = sitk.GetArrayViewFromImage(image)
    return ndimage.map_coordinates(voxels, index.T[::-1], np.float32, order=order, cval=outside)
