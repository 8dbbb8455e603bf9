"""Made-up moves of a CT: their maps against the poses they are made of, and moved images against closed formulas."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.images import from_array, to_array
from theraflow.virtual.anatomy import Grid, Pose
from theraflow.virtual.deformation import RIM_MM, WALL_SHARE, Deformation, turned_pose, values_at

ORIGIN = np.array([5.0, -12.0, -240.0])
DIAPHRAGM = ORIGIN + np.array([0.0, 0.0, 240.0])  # where it moves most
GRID = Grid.covering((-200, -150, -150), (200, 150, 150), (4.0, 4.0, 5.0))
BALL_MM = 90.0


def points_of_body(rng: np.random.Generator, count: int = 200) -> np.ndarray:
    return rng.uniform((-150, -100, -130), (150, 100, 130), (count, 3))


def wave(points: np.ndarray) -> np.ndarray:
    """A CT in closed form, HU: smooth enough for linear interpolation at voxels of 5 mm."""
    return 200.0 * np.sin(points[..., 0] / 40.0) * np.cos(points[..., 1] / 50.0) + points[..., 2]


def ball() -> sitk.Image:
    """A cavity: a ball around the place where the diaphragm moves most."""
    distance = np.linalg.norm(GRID.points() - DIAPHRAGM, axis=-1)
    return GRID.image((distance < BALL_MM).astype(np.uint8))


@given(
    seed=st.integers(0, 1000),
    degrees=st.floats(0, 20),
    shift_mm=st.floats(0, 60),
    breathing_mm=st.floats(-20, 20),
    sag_mm=st.floats(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_a_smooth_move_undoes_that_of_its_pose(seed, degrees, shift_mm, breathing_mm, sag_mm):
    rng = np.random.default_rng(seed)
    pose = turned_pose(degrees, shift_mm, breathing_mm, rng, sag_mm)
    original = points_of_body(rng)
    moved = pose.from_neutral(original - ORIGIN) + ORIGIN
    assert np.abs(Deformation(pose, ORIGIN).to_original(moved) - original).max() < 0.01


def test_a_turned_pose_turns_and_moves_by_what_it_is_told():
    pose = turned_pose(10.0, 30.0, 15.0, np.random.default_rng(2))
    assert np.degrees(np.arccos((np.trace(pose.rotation) - 1) / 2)) == pytest.approx(10.0)
    assert np.linalg.det(pose.rotation) == pytest.approx(1.0)
    assert np.linalg.norm(pose.shift_mm) == pytest.approx(30.0)
    assert pose.breathing_mm == 15.0
    assert np.abs(pose.sag(points_of_body(np.random.default_rng(3)))).max() == 0.0


def test_a_moved_image_has_at_each_point_what_the_original_has_where_it_comes_from():
    rng = np.random.default_rng(4)
    deformation = Deformation(turned_pose(8.0, 20.0, 15.0, rng, sag_mm=2.0), ORIGIN)
    original = GRID.image(wave(GRID.points()).astype(np.float32))
    grid = deformation.grid(original)
    moved = deformation.moved(original, grid, rng, noise_hu=0.0)
    points = np.array(
        [grid.TransformIndexToPhysicalPoint(i) for i in rng.integers(0, grid.GetSize(), (2000, 3)).tolist()]
    )
    there = deformation.to_original(points)
    seen = (np.abs(there) < np.array([195.0, 145.0, 145.0])).all(axis=1)
    assert seen.sum() > 1000
    # linear interpolation: at most spacing^2 / 8 times the second derivative along each axis, and rounding to whole HU
    bound = 200.0 * (4**2 / 8 / 40**2 + 4**2 / 8 / 50**2) + 0.5
    found = values_at(moved, points)
    assert np.abs(found - wave(there))[seen].max() <= bound + 1e-3
    unseen = (np.abs(there) > np.array([203.0, 153.0, 153.0])).any(axis=1)
    assert unseen.sum() > 50
    assert (found[unseen] == -1000).all()


def test_noise_has_the_size_it_is_told():
    flat = GRID.image(np.full(GRID.size[::-1], 40.0, np.float32))
    moved = Deformation(Pose(), ORIGIN).moved(flat, flat, np.random.default_rng(5), noise_hu=10.0)
    inside = to_array(moved)[1:-1, 1:-1, 1:-1]
    assert inside.mean() == pytest.approx(40.0, abs=0.2)
    assert inside.std() == pytest.approx(10.0, rel=0.02)


def test_the_grid_follows_the_middle_of_the_ct():
    ct = GRID.image(np.zeros(GRID.size[::-1], np.uint8))
    deformation = Deformation(Pose(shift_mm=np.array([30.0, -20.0, 50.0]), breathing_mm=15.0), ORIGIN)
    grid = deformation.grid(ct)
    assert np.allclose(np.subtract(grid.GetOrigin(), ct.GetOrigin()), (30.0, -20.0, 50.0))
    assert grid.GetSize() == ct.GetSize()


def test_organs_follow_the_breathing_and_the_wall_its_share():
    breathing = Pose(breathing_mm=20.0)
    gliding = Deformation(breathing, ORIGIN, ball())
    together = Deformation(breathing, ORIGIN)
    wall = Deformation(Pose(breathing_mm=20.0 * WALL_SHARE), ORIGIN)
    middle = DIAPHRAGM
    rng = np.random.default_rng(6)
    away = rng.normal(size=(500, 3))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    organs = middle + away * rng.uniform(0, BALL_MM - 30, (500, 1))
    outside = middle + away * rng.uniform(BALL_MM + 30, BALL_MM + 40, (500, 1))
    assert np.array_equal(gliding.to_original(organs), together.to_original(organs))
    assert np.array_equal(gliding.to_original(outside), wall.to_original(outside))
    # In the middle, where the breathing is full: 20 mm along the body, from above.
    assert gliding.to_original(middle[None])[0, 2] - middle[2] == pytest.approx(20.0)
    assert not gliding.torn(organs).any()
    assert not gliding.torn(outside).any()


def test_nothing_is_true_at_the_tear_and_in_the_gap():
    """Below the lowest point of the gliding ball after breathing out, the wall's map shows the ball a second time."""
    gliding = Deformation(Pose(breathing_mm=-20.0), ORIGIN, ball())
    lowest = DIAPHRAGM - np.array([0.0, 0.0, BALL_MM])
    column = lowest + np.stack([np.zeros(121), np.zeros(121), np.linspace(-30, 30, 121)], axis=1)
    as_organ = Deformation(Pose(breathing_mm=-20.0), ORIGIN).to_original(column)[:, 2]
    as_wall = Deformation(Pose(breathing_mm=-20.0 * WALL_SHARE), ORIGIN).to_original(column)[:, 2]
    gap = (as_organ < lowest[2]) & (as_wall > lowest[2])
    assert gap.sum() > 5
    torn = gliding.torn(column)
    assert torn[gap].all()
    clear = (np.abs(as_organ - lowest[2]) > RIM_MM + 5) & (np.abs(as_wall - lowest[2]) > RIM_MM + 5) & ~gap
    assert clear.any()
    assert not torn[clear].any()
    assert not Deformation(Pose(breathing_mm=-20.0), ORIGIN).torn(column).any()


def test_values_are_read_on_grids_of_any_direction():
    image = from_array(np.arange(24, dtype=np.int16).reshape(2, 3, 4), sitk.Image([4, 3, 2], sitk.sitkInt16))
    image.SetDirection([0, -1, 0, 1, 0, 0, 0, 0, 1])
    image.SetSpacing((2.0, 3.0, 5.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    index = [(0, 0, 0), (3, 2, 1), (1, 2, 0)]
    points = np.array([image.TransformIndexToPhysicalPoint(i) for i in index])
    assert values_at(image, points, order=0).tolist() == [image[i] for i in index]
    between = np.array([image.TransformContinuousIndexToPhysicalPoint((1.5, 1.0, 0.5))])
    assert values_at(image, between)[0] == pytest.approx(1.5 + 4 + 6)
    assert values_at(image, between + 100.0, outside=-7.0)[0] == -7.0
