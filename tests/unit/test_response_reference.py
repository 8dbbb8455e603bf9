"""PERCIST's reference regions in a body of boxes and tubes, against what can be computed by hand."""

import numpy as np
import pytest
import SimpleITK as sitk

from theraflow.organs import ORGAN_IDS
from theraflow.response import Reference, blood_pool_cylinder, liver_sphere

SPACING = 2.0
SIZE = 100  # voxels along each axis; the body is 200 mm wide
# How an array may lie in the body: as NIfTI of a PET mostly does, mirrored, and with slices as its rows.
DIRECTIONS = {
    "straight": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "mirrored": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "coronal": (1, 0, 0, 0, 0, 1, 0, -1, 0),
}


def space(direction="straight"):
    """An empty image whose middle is at 0, and the LPS coordinates (mm) of its voxels as arrays (z, y, x)."""
    grid = sitk.Image([SIZE] * 3, sitk.sitkFloat32)
    grid.SetSpacing([SPACING] * 3)
    grid.SetDirection(DIRECTIONS[direction])
    middle = np.array(grid.TransformContinuousIndexToPhysicalPoint([(SIZE - 1) / 2] * 3))
    grid.SetOrigin((-middle).tolist())
    index = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), axis=-1)[..., ::-1]
    matrix = np.array(grid.GetDirection()).reshape(3, 3)
    points = np.array(grid.GetOrigin()) + SPACING * index @ matrix.T
    return grid, *np.moveaxis(points, -1, 0)


def box(x, y, z, low, high):
    inside = [(axis >= a) & (axis <= b) for axis, a, b in zip((x, y, z), low, high, strict=True)]
    return np.logical_and.reduce(inside)


def organs_of(**masks):
    labels = np.zeros([SIZE] * 3, np.uint8)
    for name, mask in masks.items():
        labels[mask] = ORGAN_IDS[name]
    return labels


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sphere_of_3_cm_in_the_right_lobe(direction, axis):
    grid, *points = space(direction)
    liver = box(*points, (-80, -40, -50), (40, 40, 50))
    slope = 0.02  # g/mL per mm
    found = liver_sphere(2.0 + slope * points[axis], organs_of(liver=liver), np.zeros_like(liver), grid)
    x, y, z = found.centre_mm
    assert found.region == "liver"
    assert x < -20.0  # on the patient's right of the median; the liver reaches from -80 to 40
    # Nowhere is a box deeper than along its middle, which is 40 mm from its nearest sides.
    assert abs(y) < 2 * SPACING and x >= -40.0 - SPACING and abs(z) <= 10.0 + SPACING
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.02)
    # A slope's mean over a sphere is its value in the centre, and its sd is the slope times radius / sqrt(5).
    assert found.mean == pytest.approx(2.0 + slope * found.centre_mm[axis], abs=1e-6)
    assert found.sd == pytest.approx(slope * 15.0 / np.sqrt(5), rel=0.02)


def test_the_sphere_keeps_away_from_lesions():
    grid, x, y, z = space()
    liver = box(x, y, z, (-80, -40, -50), (40, 40, 50))
    lesion = (x + 45) ** 2 + y**2 + z**2 <= 12.0**2
    values = np.where(lesion, 20.0, 2.0)
    found = liver_sphere(values, organs_of(liver=liver), lesion, grid)
    assert (found.mean, found.sd) == (2.0, 0.0)
    distance = np.linalg.norm(np.array(found.centre_mm) - (-45, 0, 0))
    assert distance - 12.0 - 15.0 > 10.0 - SPACING


def test_without_room_there_is_no_sphere_and_the_reason_is_said():
    grid, x, y, z = space()
    nothing = np.zeros([SIZE] * 3, bool)
    values = np.ones([SIZE] * 3)
    assert liver_sphere(values, organs_of(), nothing, grid) == "there is no liver"
    everywhere = box(x, y, z, (-80, -40, -50), (40, 40, 50))
    no_room = "no sphere of 3 cm fits into the right lobe away from lesions"
    # Metastases in all of the right lobe: the left one is not asked.
    lesions = everywhere & (x < -10) & (np.round(x / 20) % 2 == 0)
    assert liver_sphere(values, organs_of(liver=everywhere), lesions, grid) == no_room


@pytest.mark.parametrize(("half_mm", "fits"), [(17.0, True), (13.0, False)])
def test_how_thin_a_liver_may_be(half_mm, fits):
    grid, x, y, z = space()
    flat = box(x, y, z, (-80, -half_mm, -50), (40, half_mm, 50))
    found = liver_sphere(np.ones([SIZE] * 3), organs_of(liver=flat), np.zeros_like(flat), grid)
    assert isinstance(found, Reference) is fits


def chest(direction="straight"):
    """A heart in which the aorta begins; it ascends behind the heart's middle, turns above, and descends behind it."""
    grid, x, y, z = space(direction)
    heart = box(x, y, z, (-20, -60, -10), (50, 0, 70))
    descending = ((x - 10) ** 2 + (y - 25) ** 2 <= 12.0**2) & (z < 85)
    ascending = ((x + 20) ** 2 + (y + 10) ** 2 <= 14.0**2) & (z > 20) & (z < 85)
    arch = box(x, y, z, (-30, -20, 80), (20, 35, 95))
    values = np.where(ascending | arch, 9.0, 1.5 + 0.01 * z)
    return grid, z, values, descending, ascending | arch, heart


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_cylinder_in_the_descending_aorta(direction):
    grid, _, values, descending, ascending, heart = chest(direction)
    organs = organs_of(heart=heart, aorta=descending | ascending)
    found = blood_pool_cylinder(values, organs, np.zeros_like(heart), grid)
    x, y, z = found.centre_mm
    assert found.region == "blood_pool"
    assert abs(x - 10) <= SPACING and abs(y - 25) <= SPACING  # the axis of the tube
    assert 0.0 <= z <= 60.0  # 1 cm above and below lies at the height of the heart, -10 to 70
    assert found.mean == pytest.approx(1.5 + 0.01 * z, abs=1e-6)
    # Eleven slices of 2 mm: the sd of a slope over equidistant places.
    assert found.sd == pytest.approx(0.01 * SPACING * np.sqrt((11**2 - 1) / 12), rel=0.01)
    # Pixels whose centre is within 5 mm of the axis (21 of 4 mm2) in eleven slices.
    assert found.volume_ml == pytest.approx(21 * 4 * 11 * 2 / 1000)


def test_the_cylinder_keeps_away_from_lesions_and_says_why_there_is_none():
    grid, z, values, descending, ascending, heart = chest()
    organs = organs_of(heart=heart, aorta=descending | ascending)
    nothing = np.zeros_like(heart)
    lesion = descending & (z > 30)
    found = blood_pool_cylinder(values, organs, lesion, grid)
    assert found.centre_mm[2] + 10.0 < 30.0 - 10.0 + SPACING
    assert blood_pool_cylinder(values, organs, descending, grid) == (
        "no cylinder of 1 cm by 2 cm fits into the descending aorta away from lesions"
    )
    assert blood_pool_cylinder(values, organs_of(heart=heart), nothing, grid) == "there is no aorta"
    assert blood_pool_cylinder(values, organs_of(heart=heart, aorta=ascending), nothing, grid) == (
        "no cylinder of 1 cm by 2 cm fits into the descending aorta away from lesions"
    )
    assert blood_pool_cylinder(values, organs_of(aorta=descending), nothing, grid) == (
        "there is no heart, so the descending aorta cannot be told"
    )


def test_strays_of_the_heart_do_not_move_the_cylinder():
    grid, _, values, descending, ascending, heart = chest()
    x, y, z = space()[1:]
    stray = box(x, y, z, (-60, -60, -95), (-56, -56, -91)) | box(x, y, z, (-60, -60, 91), (-56, -56, 97))
    found = blood_pool_cylinder(
        values, organs_of(heart=heart | stray, aorta=descending | ascending), np.zeros_like(heart), grid
    )
    assert 0.0 <= found.centre_mm[2] <= 60.0
    assert found.mean == pytest.approx(1.5 + 0.01 * found.centre_mm[2], abs=1e-6)


@pytest.mark.parametrize(("gap_mm", "fits"), [(34.0, False), (46.0, False), (54.0, True)])
def test_a_sphere_needs_its_3_cm_and_10_mm_on_both_sides(gap_mm, fits):
    """Two plates of tumour in a liver of 198 mm: between them 30 + 2 x 10 mm are needed."""
    grid, x, y, z = space()
    liver = box(x, y, z, (-99, -60, -60), (99, 60, 60))
    lesions = liver & (abs(x + 50) > gap_mm / 2)
    found = liver_sphere(np.ones_like(x), organs_of(liver=liver), lesions, grid)
    assert isinstance(found, Reference) is fits


@pytest.mark.parametrize(("gap_mm", "fits"), [(24.0, False), (38.0, False), (44.0, True)])
def test_a_cylinder_needs_its_2_cm_and_10_mm_above_and_below(gap_mm, fits):
    grid, z, values, descending, ascending, heart = chest()
    lesions = descending & (abs(z - 30) > gap_mm / 2)
    found = blood_pool_cylinder(values, organs_of(heart=heart, aorta=descending | ascending), lesions, grid)
    assert isinstance(found, Reference) is fits
