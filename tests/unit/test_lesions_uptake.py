"""Geometry, uptake and backgrounds of one scan against closed forms."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from theraflow.lesions import (
    Region,
    axial_diameters,
    geometry,
    organ_background,
    physiologic_organs,
    shell_background,
)
from theraflow.lesions.uptake import sum_of_parts, uptake
from theraflow.organs import ORGAN_IDS

SHAPE = (50, 52, 54)


def grid(spacing=(4.0, 4.0, 3.0), size=SHAPE[::-1], origin=(-108.0, -104.0, -75.0)):
    """An empty image; spacing, size and origin in the order x, y, z."""
    image = sitk.Image(list(size), sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def ellipsoid(image, centre, semi_axes):
    """Voxels whose centres lie in an axis-parallel ellipsoid; centre and semi-axes x, y, z in mm."""
    axes = [
        (origin + spacing * np.arange(n) - c) / a
        for origin, spacing, n, c, a in zip(
            image.GetOrigin(), image.GetSpacing(), image.GetSize(), centre, semi_axes, strict=True
        )
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.transpose(x**2 + y**2 + z**2 <= 1.0, (2, 1, 0))


@settings(max_examples=12, deadline=None)
@given(
    centre=st.tuples(*[st.floats(-20, 20)] * 3),
    semi_axes=st.tuples(st.floats(20, 40), st.floats(12, 19), st.floats(12, 30)),
)
def test_an_ellipsoid_has_its_volume_centre_and_diameters(centre, semi_axes):
    image = grid((2.0, 2.0, 2.5), (90, 90, 60), (-90.0, -90.0, -75.0))
    found = geometry(Region.of(ellipsoid(image, centre, semi_axes)), image)
    assert found["volume_ml"] == pytest.approx(4 / 3 * np.pi * np.prod(semi_axes) / 1000, rel=0.03)
    assert (found["x_mm"], found["y_mm"], found["z_mm"]) == pytest.approx(centre, abs=0.5)
    assert found["longest_diameter_mm"] == pytest.approx(2 * semi_axes[0], abs=2.0)
    assert found["short_axis_mm"] == pytest.approx(2 * semi_axes[1], abs=3.5)


def test_a_split_lesion_has_the_diameters_of_its_parts_added():
    image = grid((2.0, 2.0, 2.5), (90, 90, 60), (-90.0, -90.0, -75.0))
    balls = [ellipsoid(image, (-40, 0, 0), (16, 16, 16)), ellipsoid(image, (40, 0, 20), (10, 10, 10))]
    alone = [axial_diameters(Region.of(ball), image) for ball in balls]
    found = sum_of_parts(Region.of(balls[0] | balls[1]), image)
    assert found["longest_diameter_mm"] == pytest.approx(sum(longest for longest, _ in alone))
    assert found["longest_diameter_mm"] == pytest.approx(2 * (16 + 10), abs=5.0)
    assert found["short_axis_mm"] == pytest.approx(sum(short for _, short in alone))


@settings(max_examples=25, deadline=None)
@given(
    turn=st.integers(0, 2**32 - 1),
    semi_axes=st.tuples(*[st.floats(8, 35)] * 3),
    offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_a_turned_ellipsoid_has_its_axial_diameters(turn, semi_axes, offset):
    """Its axial slices are similar ellipses, of which the one through the centre is the largest.

    The matrix of that ellipse is the shape matrix's axial part; its axes are the inverse roots of the eigenvalues.
    """
    axes = Rotation.random(random_state=turn).as_matrix()
    shape = axes @ np.diag(1.0 / np.square(semi_axes)) @ axes.T
    short, longest = 2.0 / np.sqrt(np.linalg.eigvalsh(shape[:2, :2])[::-1])
    image = grid((1.0, 1.0, 1.0), (76, 76, 76), tuple(-37.5 + part for part in offset))
    z, y, x = np.meshgrid(*[np.arange(76) - 37.5 + part for part in offset[::-1]], indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    mask = np.einsum("...i,ij,...j->...", points, shape, points) <= 1.0
    found = axial_diameters(Region.of(mask), image)
    assert found[0] == pytest.approx(longest, abs=1.2)
    assert found[1] == pytest.approx(short, abs=2.0)


@pytest.mark.parametrize("radius", [2.0, 4.0, 9.3, 22.0])
def test_a_disc_has_its_diameter_to_a_pixel(radius):
    """Sampling takes no disc's size away: the longest of many directions is up to a pixel too long."""
    places = np.random.default_rng(2).uniform(-0.5, 0.5, (40, 2))
    axis = np.arange(-25, 26)
    image = grid((1.0, 1.0, 1.0), (51, 51, 1))
    masks = [(axis[:, None] - y) ** 2 + (axis - x) ** 2 <= radius**2 for y, x in places]
    longest, short = np.array([axial_diameters(Region.of(mask[None]), image) for mask in masks]).T - 2 * radius
    assert longest.min() > 0.0 and longest.max() < 1.0
    assert short.min() > -0.7 and short.max() < 1.0


def test_both_diameters_are_of_the_slice_with_the_longest():
    """A long thin ellipse below a disc: nothing is combined."""
    axis = np.arange(60) - 29.7
    squares = axis[:, None] ** 2, axis**2
    mask = np.stack([squares[0] / 25**2 + squares[1] / 4**2 <= 1, squares[0] + squares[1] <= 20**2])
    longest, short = axial_diameters(Region.of(mask), grid((1.0, 1.0, 1.0), (60, 60, 2)))
    assert longest == pytest.approx(50.0, abs=1.2)
    assert short == pytest.approx(8.0, abs=1.2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blur=st.floats(0.3, 3.0), share=st.floats(0.3, 0.99))
def test_diameters_are_those_of_all_crossings_of_all_slices(seed, blur, share):
    """Any mask, also with holes and pieces: every pair of points where the outline crosses a row or a column."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((5, 14, 12)), blur)
    mask, spacing = field > np.quantile(field, share), np.array([3.0, 2.0])
    expected = []
    for piece in mask:
        padded = np.pad(piece, 1)
        rows = np.argwhere(padded[1:] != padded[:-1]) + np.array([0.5, 0.0])
        columns = np.argwhere(padded[:, 1:] != padded[:, :-1]) + np.array([0.0, 0.5])
        points = np.concatenate([rows, columns]) * spacing
        if len(points):
            expected.append(cdist(points, points).max())
    longest, short = axial_diameters(Region.of(mask), grid((2.0, 3.0, 4.0), (12, 14, 5)))
    assert longest == pytest.approx(max(expected))
    assert 0.0 < short <= longest


def test_one_voxel_has_the_diameters_of_a_voxel():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    longest, short = axial_diameters(Region.of(mask), grid((4.0, 3.0, 2.0), (3, 3, 3)))
    assert (longest, short) == (4.0, 3.0)


def test_axial_means_axial_whatever_the_order_of_the_axes():
    """A rod along the patient's axis has a small axial diameter, also in coronal slices."""
    mask = np.zeros((4, 30, 4), dtype=bool)
    mask[1:3, 2:28, 1:3] = True
    image = grid((2.0, 2.0, 2.0), (4, 30, 4))
    image.SetDirection((1, 0, 0, 0, 0, 1, 0, -1, 0))  # the array's y runs against the patient's z
    longest, _ = axial_diameters(Region.of(mask), image)
    assert longest < 6.0


def test_a_turned_image_gives_positions_in_the_patient():
    mask = np.zeros((4, 30, 4), dtype=bool)
    mask[1, 7, 2] = True
    image = grid((2.0, 2.0, 2.0), (4, 30, 4), (10.0, 20.0, 30.0))
    image.SetDirection((1, 0, 0, 0, 0, 1, 0, -1, 0))
    found = geometry(Region.of(mask), image)
    expected = image.TransformIndexToPhysicalPoint((2, 7, 1))
    assert (found["x_mm"], found["y_mm"], found["z_mm"]) == pytest.approx(expected)


def test_uptake_of_a_mask_with_known_values():
    image = grid((10.0, 10.0, 10.0), (8, 8, 8), (0.0, 0.0, 0.0))
    values = np.full((8, 8, 8), 1.0)
    values[4, 4, 3:6] = (2.0, 5.0, 3.0)
    mask = np.zeros(values.shape, dtype=bool)
    mask[4, 4, 3:6] = True
    found = uptake(values, Region.of(mask), image)
    assert found["suv_max"] == 5.0
    assert found["suv_mean"] == pytest.approx(10 / 3)
    assert found["suv_median"] == 3.0
    assert found["tlg_ml"] == pytest.approx(10.0)  # three voxels of 1 mL
    # At 10 mm no neighbour's centre lies in the sphere: the IBSI's peaks are the voxel itself.
    assert (found["suv_peak_ibsi_local"], found["suv_peak_ibsi_global"]) == pytest.approx((5.0, 5.0))
    assert found["suv_peak"] < 5.0


@pytest.fixture
def torso():
    """Emission values, organ labels and grid: aorta 24 mm wide (SUV 1.5), liver 2.5, bladder 30, rest 0.6."""
    image = grid()
    organs = np.zeros(SHAPE, dtype=np.uint8)
    values = np.full(SHAPE, 0.6)
    for name, centre, semi_axes, suv in (
        ("aorta", (10, 40, 0), (12, 12, 60), 1.5),
        ("liver", (-50, 0, 30), (40, 40, 40), 2.5),
        ("urinary_bladder", (0, -20, -50), (25, 25, 20), 30.0),
        ("lung_lower_lobe_left", (60, 40, 45), (25, 25, 25), 0.4),
        ("vertebrae_L3", (40, 60, -40), (15, 15, 15), 1.0),
    ):
        inside = ellipsoid(image, centre, semi_axes)
        organs[inside], values[inside] = ORGAN_IDS[name], suv
    return values, organs, image


@pytest.mark.parametrize(("name", "suv"), [("blood_pool", 1.5), ("liver", 2.5)])
def test_organ_backgrounds_have_the_organs_value(torso, name, suv):
    values, organs, image = torso
    found = organ_background(name, values, organs, np.zeros(SHAPE, dtype=bool), image)
    assert found.mean == pytest.approx(suv)
    assert found.region == name
    assert found.volume_ml > 5.0


def test_lesions_and_their_surroundings_are_no_background(torso):
    values, organs, image = torso
    lesion = ellipsoid(image, (-50, 0, 30), (12, 12, 12))
    glow = ellipsoid(image, (-50, 0, 30), (20, 20, 20))
    values[glow] = 9.0
    found = organ_background("liver", values, organs, lesion, image)
    assert found.mean == pytest.approx(2.5)


def test_an_organ_that_is_too_small_or_absent_gives_no_background(torso, caplog):
    values, organs, image = torso
    organs[organs == ORGAN_IDS["aorta"]] = 0
    assert organ_background("blood_pool", values, organs, np.zeros(SHAPE, dtype=bool), image) is None
    assert "blood_pool" in caplog.text
    organs[ellipsoid(image, (10, 40, 0), (6, 6, 60))] = ORGAN_IDS["aorta"]
    assert organ_background("blood_pool", values, organs, np.zeros(SHAPE, dtype=bool), image) is None


def test_one_side_of_a_background_may_be_left_out(torso):
    values, organs, image = torso
    for side, centre, suv in (("left", (40, 0, 0), 1.0), ("right", (-40, 0, 0), 3.0)):
        muscle = ellipsoid(image, centre, (20, 20, 20))
        organs[muscle], values[muscle] = ORGAN_IDS[f"gluteus_maximus_{side}"], suv
    nothing = np.zeros(SHAPE, dtype=bool)
    both = organ_background("gluteal_muscle", values, organs, nothing, image)
    left = organ_background("gluteal_muscle", values, organs, nothing, image, without=["gluteus_maximus_right"])
    assert (both.mean, left.mean) == pytest.approx((2.0, 1.0), abs=0.05)


def test_a_shell_leaves_out_other_lesions_and_physiologic_organs(torso):
    values, organs, image = torso
    lesion, other = ellipsoid(image, (0, -20, -5), (9, 9, 9)), ellipsoid(image, (22, -20, -5), (8, 8, 8))
    values[lesion], values[other] = 8.0, 12.0
    (bladder,) = physiologic_organs(values, organs, ["urinary_bladder"], image)
    found = shell_background(values, Region.of(lesion), lesion | other, [bladder.near], image)
    assert found.mean == pytest.approx(0.6)
    assert shell_background(values, Region.of(lesion), lesion, [], image).mean > 0.8


def test_a_lesion_in_a_physiologic_organ_is_compared_with_that_organ(torso):
    values, organs, image = torso
    lesion = ellipsoid(image, (-50, 0, 30), (9, 9, 9))
    values[lesion] = 8.0
    (liver,) = physiologic_organs(values, organs, ["liver"], image)
    assert shell_background(values, Region.of(lesion), lesion, [liver.near], image).mean == pytest.approx(2.5)


@given(start=st.tuples(*[st.integers(-3, 5)] * 3), low=st.tuples(*[st.integers(0, 3)] * 3))
def test_a_region_on_another_box_is_what_the_whole_mask_has_there(start, low):
    mask = np.random.default_rng(0).random((3, 4, 5)) > 0.5
    whole = np.zeros((20, 20, 20), dtype=bool)
    offset = tuple(s + 5 for s in start)
    whole[tuple(slice(o, o + n) for o, n in zip(offset, mask.shape, strict=True))] = mask
    box = tuple(slice(a, a + 4) for a in low)
    shifted = tuple(slice(p.start + 5, p.stop + 5) for p in box)
    region = Region(start, mask)
    np.testing.assert_array_equal(region.on_box(box), whole[shifted])
    clipped = region.clipped((7, 7, 7))
    assert clipped.voxels == np.count_nonzero(whole[5:12, 5:12, 5:12])
    assert min(clipped.start) >= 0


def test_a_region_of_an_empty_mask_has_no_voxel():
    assert Region.of(np.zeros((3, 3, 3), dtype=bool)).voxels == 0
