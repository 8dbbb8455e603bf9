"""The box around the body against bodies whose place is known."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.images.body import BOX_MARGIN_MM as MARGIN_MM
from theraflow.images.body import body_box, find_body


def ct_of(hu, spacing):
    """A CT of an array (z, y, x), columns and slices running the other way."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(hu))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((-170.0, 20.0, 1000.0))
    image.SetDirection(np.diag([-1.0, 1.0, -1.0]).ravel())
    return image


def ellipsoid(shape, spacing, centre, radii):
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    parts = zip(axes, spacing, centre, radii, strict=True)
    return sum(((axis * step - c) / r) ** 2 for axis, step, c, r in parts) <= 1


@settings(max_examples=40, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(1.0, 6.0)] * 3),
    centre=st.tuples(*[st.floats(0.4, 0.6)] * 3),
    radii_mm=st.tuples(*[st.floats(40.0, 90.0)] * 3),
    noise_hu=st.floats(0.0, 60.0),
    couch=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_box_holds_the_body_and_its_margin_and_little_more(spacing, centre, radii_mm, noise_hu, couch, seed):
    shape = tuple(int(320.0 / step) for step in spacing)
    extent = np.array(shape) * spacing
    body = ellipsoid(shape, spacing, np.array(centre) * extent, radii_mm)
    rng = np.random.default_rng(seed)
    hu = np.where(body, 30.0, -1000.0) + rng.normal(0.0, noise_hu, shape)
    if couch:  # a shell of one voxel, apart from the body
        hu[:, -2] = 100.0
    box = body_box(ct_of(hu.astype(np.int16), spacing), 0.0)
    for axis, edge in enumerate(box):
        along = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        before, after = along[0] - edge.start, edge.stop - 1 - along[-1]
        for voxels, room in ((before, along[0]), (after, shape[axis] - 1 - along[-1])):
            # The body is looked for on voxels of 3 to 6 mm, of which the noise and the opening may cost one.
            assert min(2.0, room * spacing[axis]) - 1e-6 <= voxels * spacing[axis] <= MARGIN_MM + 15.0


def test_legs_and_arms_apart_belong_to_the_body():
    hu = np.full((100, 100, 100), -1000, np.int16)
    hu[10:60, 30:70, 30:70] = 0
    hu[60:90, 40:60, 35:45] = 0
    hu[60:90, 40:60, 55:65] = 0
    hu[20:50, 45:55, 5:12] = 0  # an arm
    box = body_box(ct_of(hu, (4.0, 4.0, 4.0)), 0.0)
    assert box == (slice(7, 93), slice(27, 73), slice(2, 73))


@pytest.mark.parametrize("wall_mm", [8.0, 12.0, 20.0])
def test_a_chest_wall_over_the_lung_is_body(wall_mm):
    spacing = (5.0, 1.0, 1.0)
    shape, middle = (40, 300, 360), (100.0, 150.0, 180.0)
    outside = ellipsoid(shape, spacing, middle, (1e6, 110.0, 150.0))
    lungs = ellipsoid(shape, spacing, middle, (1e6, 110.0 - wall_mm, 150.0 - wall_mm))
    heart = ellipsoid(shape, spacing, (100.0, 190.0, 180.0), (1e6, 40.0, 50.0))
    hu = np.where(outside, 40, -1000).astype(np.int16)
    hu[lungs] = -850
    hu[heart] = 40
    box = body_box(ct_of(hu, spacing), 0.0)
    assert np.count_nonzero(outside[box]) == np.count_nonzero(outside)


def test_no_edge_is_shorter_than_wanted_unless_the_ct_is():
    hu = np.full((60, 60, 60), -1000, np.int16)
    hu[25:35, 5:15, 48:58] = 0
    box = body_box(ct_of(hu, (4.0, 4.0, 4.0)), 160.0)
    assert [edge.stop - edge.start >= 40 for edge in box] == [True] * 3
    assert all(
        edge.start <= start and edge.stop >= stop
        for edge, (start, stop) in zip(box, [(25, 35), (5, 15), (48, 58)], strict=True)
    )
    assert body_box(ct_of(hu, (4.0, 4.0, 4.0)), 1000.0) == (slice(0, 60),) * 3


@pytest.mark.parametrize("value", [-1000, 50])
def test_a_ct_of_nothing_or_of_body_alone_stays_whole(value):
    hu = np.full((20, 30, 40), value, np.int16)
    assert body_box(ct_of(hu, (3.0, 2.0, 2.0)), 0.0) == (slice(0, 20), slice(0, 30), slice(0, 40))


def test_an_oblique_ct_has_the_same_body():
    """As one that was turned onto its emission image."""
    hu = np.full((30, 30, 30), -1000, np.int16)
    hu[5:25, 5:25, 5:25] = 30
    hu[10:20, 10:15, 10:15] = -1000
    straight, oblique = ct_of(hu, (6.0, 6.0, 6.0)), ct_of(hu, (6.0, 6.0, 6.0))
    oblique.SetDirection(sitk.VersorTransform((1.0, 2.0, 3.0), 0.1).GetMatrix())
    masks = [sitk.GetArrayFromImage(find_body(ct, 6.0).mask) for ct in (straight, oblique)]
    assert masks[0].any() and np.array_equal(*masks)
    assert body_box(straight, 0.0) == body_box(oblique, 0.0)


def test_a_cavity_belongs_to_the_body_where_the_plane_closes_around_it():
    """An air-filled bowel does; what opens to the front, as the gap between arm and chest, does not."""
    hu = np.full((60, 60, 60), -1000, np.int16)
    hu[5:55, 10:50, 10:50] = 30
    bowel, gap = (slice(20, 40), slice(20, 30), slice(20, 30)), (slice(20, 40), slice(10, 16), slice(34, 44))
    hu[bowel] = hu[gap] = -1000
    mask = sitk.GetArrayFromImage(find_body(ct_of(hu, (6.0, 6.0, 6.0)), 6.0).mask) > 0
    assert mask[bowel].all()
    assert not mask[gap][2:-2, :-2, 2:-2].any()  # the body grows by one voxel
