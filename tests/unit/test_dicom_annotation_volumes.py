"""Contours of bodies whose volume is known, drawn on other planes than the slices of the image."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from theraflow.dicom.regions.contours import fill_contours
from theraflow.nifti import Grid

ANGLES = np.linspace(0, 2 * np.pi, 144, endpoint=False)


def ellipse(centre, a, b):
    """Points (x, y, z) of an ellipse of half axes a, b in the plane z."""
    flat = np.column_stack([a * np.cos(ANGLES), b * np.sin(ANGLES), np.zeros(len(ANGLES))])
    return flat + centre


def ellipsoid(centre, half_axes, step, offset):
    """Contours `step` apart, the first `offset` steps above the lower pole."""
    a, b, c = half_axes
    heights = np.arange(-c + offset * step, c, step)
    scales = np.sqrt(1 - (heights / c) ** 2)
    return [
        ellipse(centre + np.array([0, 0, height]), a * scale, b * scale)
        for height, scale in zip(heights, scales, strict=True)
        if scale > 0
    ]


def tube(centre, outer, inner, planes, step):
    """Contours in the middle of slabs `step` thick: the tube is `planes` x `step` long."""
    heights = (np.arange(planes) - (planes - 1) / 2) * step
    return [
        ellipse(centre + np.array([0, 0, height]), radius, radius) for height in heights for radius in (outer, inner)
    ]


def upright(size, spacing=(1.0, 1.0, 1.0)):
    return Grid(size, spacing, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))


@dataclass
class Drawing:
    """A grid around a body of some size, and where its contours lie."""

    grid: Grid
    centre: np.ndarray
    step: float
    offset: float

    def volume(self, contours):
        _, inside = fill_contours(contours, self.grid)
        return inside.sum() * np.prod(self.grid.spacing)


RADIUS = 30.0


@st.composite
def drawings(draw, turned=False):
    """12 to 20 voxels and 12 to 30 contour planes to RADIUS; any place between the voxels."""
    spacing = np.array([draw(st.floats(RADIUS / 20, RADIUS / 12)) for _ in range(3)])
    centre = np.array([draw(st.floats(-300, 300)) for _ in range(3)])
    axes = np.eye(3)
    if turned:
        # Never quite upright: the flat end of a tube would take or leave a whole slice.
        axes = Rotation.from_euler("xyz", [draw(st.floats(0.2, 1.3)) for _ in range(3)]).as_matrix()
    size = np.ceil(6 * RADIUS / spacing).astype(int)
    # No axis of symmetry lies on voxel centres or edges, where a disc is up to 1.5 % off its area on any grid.
    shift = np.array([draw(st.floats(0.1, 0.4)) for _ in range(3)])
    origin = centre - axes @ ((size / 2 + shift) * spacing)
    planes = draw(st.integers(12, 30))
    grid = Grid(*(tuple(part.ravel().tolist()) for part in (size, spacing, origin, axes)))
    return Drawing(grid, centre, RADIUS / planes, draw(st.floats(0.01, 0.99)))


@settings(max_examples=30, deadline=None)
@given(drawings(), st.floats(1, 1.8), st.floats(1, 1.8))
def test_ellipsoids_keep_their_volume(drawing, stretch_x, stretch_y):
    half_axes = RADIUS * np.array([stretch_x, stretch_y, 1.0])
    contours = ellipsoid(drawing.centre, half_axes, drawing.step, drawing.offset)
    assert drawing.volume(contours) == pytest.approx(4 / 3 * np.pi * half_axes.prod(), rel=0.01)


@settings(max_examples=15, deadline=None)
@given(drawings(turned=True))
def test_spheres_across_the_slices_keep_their_volume(drawing):
    contours = ellipsoid(drawing.centre, (RADIUS, RADIUS, RADIUS), drawing.step, drawing.offset)
    assert drawing.volume(contours) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(drawings(turned=True), st.floats(0.3, 0.6))
def test_tubes_keep_their_hole(drawing, hole):
    planes = int(3 * RADIUS / drawing.step)
    contours = tube(drawing.centre, RADIUS, hole * RADIUS, planes, drawing.step)
    expected = np.pi * RADIUS**2 * (1 - hole**2) * planes * drawing.step
    assert drawing.volume(contours) == pytest.approx(expected, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(drawings(), st.floats(0.3, 0.6))
def test_tubes_along_the_slices_keep_their_hole(drawing, hole):
    # One contour plane to a slice, at any place between the slices.
    step = drawing.grid.spacing[2]
    radius = 1.5 * RADIUS
    contours = tube(drawing.centre, radius, hole * radius, 24, step)
    assert drawing.volume(contours) == pytest.approx(np.pi * radius**2 * (1 - hole**2) * 24 * step, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(drawings())
def test_two_pieces_of_a_region_stay_two(drawing):
    # One above the other, 40 % of a radius apart, and as wide: only the gap tells them apart.
    apart = np.array([0, 0, 1.2 * RADIUS])
    steps = drawing.step, drawing.offset
    half = (RADIUS, RADIUS, RADIUS)
    contours = ellipsoid(drawing.centre - apart, half, *steps) + ellipsoid(drawing.centre + apart, half, *steps)
    start, inside = fill_contours(contours, drawing.grid)
    volume = inside.sum() * np.prod(drawing.grid.spacing)
    assert volume == pytest.approx(2 * 4 / 3 * np.pi * RADIUS**3, rel=0.01)
    grid = drawing.grid
    between = round((drawing.centre[2] - grid.origin[2]) / grid.spacing[2]) - start[0]
    assert not inside[between].any()
    assert inside[:between].any() and inside[between + 1 :].any()


@pytest.mark.parametrize("every", [2, 3, 5])
def test_sparse_contours_are_filled_along_the_shape(every):
    # A cone with contours on every second to fifth slice: each slice between has the cone's own outline.
    grid = upright((80, 80, 61), (1.0, 1.0, 2.0))
    slices = np.arange(0, 61, every)
    contours = [ellipse((40.2, 39.7, 2.0 * k), 5 + 0.4 * k, 5 + 0.4 * k) for k in slices]
    (first, *corner), inside = fill_contours(contours, grid)
    rows, columns = (np.arange(n) + a for n, a in zip(inside.shape[1:], corner, strict=True))
    for k in range(slices[-1] + 1):
        distance = np.hypot(columns[None] - 40.2, rows[:, None] - 39.7)
        expected = distance < 5 + 0.4 * k
        # No voxel deviates by more than the half pixel that a disc's area leaves open.
        wrong = inside[k - first] != expected
        assert np.all(np.abs(distance[wrong] - (5 + 0.4 * k)) < 0.5)
        if k > 10:  # of smaller discs the pixels themselves make up more than that
            assert inside[k - first].sum() == pytest.approx(np.pi * (5 + 0.4 * k) ** 2, rel=0.03)


def test_steps_of_a_region_that_become_wider_are_no_gap():
    grid = upright((40, 40, 60))
    heights = [5, 6, 7, 8, 11, 14, 17, 20]
    start, inside = fill_contours([ellipse((20, 20, h), 8, 8) for h in heights], grid)
    assert (start[0], len(inside)) == (5, 17)  # half a step of 3 above the last plane, none of it past 21.5
    assert inside.any(axis=(1, 2)).all()


def test_a_part_without_overlap_ends_halfway():
    grid = upright((60, 40, 30))
    contours = [ellipse((15, 20, 5), 6, 6), ellipse((15, 20, 9), 6, 6), ellipse((45, 20, 13), 6, 6)]
    (bottom, _, left), inside = fill_contours(contours, grid)
    one = np.flatnonzero(inside[:, :, : 30 - left].any(axis=(1, 2))) + bottom
    other = np.flatnonzero(inside[:, :, 30 - left :].any(axis=(1, 2))) + bottom
    assert one.tolist() == list(range(3, 11)) and other.tolist() == list(range(11, 15))


@pytest.mark.parametrize(("step_mm", "slices"), [(None, 1), (5.0, 5)])
def test_a_single_plane_is_as_thick_as_the_planes_of_the_file(step_mm, slices):
    grid = upright((40, 40, 30))
    _, inside = fill_contours([ellipse((20, 20, 15), 8, 8)], grid, step_mm=step_mm)
    assert np.count_nonzero(inside.any(axis=(1, 2))) == slices
