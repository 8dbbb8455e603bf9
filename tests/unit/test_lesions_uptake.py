"""Geometry, uptake, backgrounds, sites and candidates of one scan against closed forms."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.lesions import (
    Region,
    axial_diameters,
    find_candidates,
    geometry,
    organ_at_site,
    organ_background,
    physiologic_mask,
    shell_background,
    site_of,
    uptake,
)
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
    bladder = physiologic_mask(organs, ["urinary_bladder"], image)
    found = shell_background(values, Region.of(lesion), lesion | other, bladder, image)
    assert found.mean == pytest.approx(0.6)
    assert shell_background(values, Region.of(lesion), lesion, None, image).mean > 0.8


def test_a_lesion_in_a_physiologic_organ_is_compared_with_that_organ(torso):
    values, organs, image = torso
    lesion = ellipsoid(image, (-50, 0, 30), (9, 9, 9))
    values[lesion] = 8.0
    liver = physiologic_mask(organs, ["liver"], image)
    assert shell_background(values, Region.of(lesion), lesion, liver, image).mean == pytest.approx(2.5)


def test_candidates_are_what_no_organ_explains(torso):
    values, organs, image = torso
    big, small = ellipsoid(image, (-50, 0, 30), (12, 12, 12)), ellipsoid(image, (60, -40, 0), (4, 4, 4))
    values[big], values[small] = 8.0, 8.0
    values[ellipsoid(image, (0, -20, -50), (29, 29, 24))] = 10.0  # the bladder's blur
    physiologic = physiologic_mask(organs, ["urinary_bladder"], image)
    (found,) = find_candidates(values, image, 4.0, 1.0, physiologic)
    np.testing.assert_array_equal(found.mask, big[found.box])
    assert len(find_candidates(values, image, 4.0, 0.1, physiologic)) == 2
    assert len(find_candidates(values, image, 4.0, 1.0, None)) == 2
    assert find_candidates(values, image, 40.0, 0.0, None) == []


def test_candidates_touching_by_a_corner_are_one():
    values = np.zeros((6, 6, 6))
    values[1:3, 1:3, 1:3] = values[3:5, 3:5, 3:5] = 5.0
    (found,) = find_candidates(values, grid((5.0, 5.0, 5.0), (6, 6, 6)), 4.0, 0.0, None)
    assert found.voxels == 16


@pytest.mark.parametrize(
    ("centre", "annotation", "site"),
    [
        ((-50, 0, 30), None, "liver"),
        ((60, 40, 45), None, "lung"),
        ((40, 60, -40), None, "bone"),
        ((0, -20, -50), None, "urinary bladder"),
        ((60, -60, 0), None, None),
        ((60, -60, 0), "LN_3", "lymph node"),
        ((60, -60, 0), "peritoneal metastasis 2", "peritoneum"),
        ((-50, 0, 30), "GTV_Mass", "liver"),
        ((-50, 0, 30), "Lymph node", "lymph node"),
    ],
)
def test_site_is_the_readers_word_or_the_organ_around(torso, centre, annotation, site):
    _, organs, image = torso
    region = Region.of(ellipsoid(image, centre, (9, 9, 9)))
    assert site_of(region, organs, annotation) == site


def test_site_without_organs_is_unknown():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    assert site_of(Region.of(mask), None) is None
    assert organ_at_site(Region.of(mask), None, "liver") is None


def test_the_organ_of_a_site_is_the_site_or_of_many_the_one_around():
    organs = np.zeros((10, 10, 10), np.uint8)
    organs[:5], organs[5:8] = ORGAN_IDS["vertebrae_T12"], ORGAN_IDS["vertebrae_L1"]
    mask = np.zeros(organs.shape, bool)
    mask[3:8, 2:4, 2:4] = True  # two layers of T12, three of L1
    assert organ_at_site(Region.of(mask), organs, "bone") == "vertebrae_L1"
    mask[8:] = True  # now most of it outside
    assert organ_at_site(Region.of(mask), organs, "bone") is None
    assert organ_at_site(Region.of(mask), organs, "kidney left") == "kidney_left"
    assert organ_at_site(Region.of(mask), organs, "lymph node") is None
    assert organ_at_site(Region.of(mask), organs, None) is None


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
