"""Occupancy, recovery and its uncertainty, against analytic spheres."""

import math

import numpy as np
import pytest
import scipy.ndimage
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.dosimetry.activity.partial_volume import (
    activity_sensitivity,
    equivalent_radius_mm,
    mean_concentration,
    recovered_concentration,
    sphere_edge,
    sphere_recovery,
    volume_cv,
)
from theraflow.dosimetry.activity.regions import Region, occupancy
from theraflow.images import FWHM_PER_SD, from_array


def grid(size: int, spacing: float, origin: float = 0.0) -> sitk.Image:
    image = sitk.Image([size] * 3, sitk.sitkUInt8)
    image.SetSpacing([spacing] * 3)
    image.SetOrigin([origin] * 3)
    return image


def distance_mm(image: sitk.Image, centre: tuple[float, float, float]) -> np.ndarray:
    """Distance of every voxel centre (z, y, x) from `centre` (x, y, z)."""
    size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
    axes = [origin[i] + spacing[i] * np.arange(size[i]) - centre[i] for i in range(3)]
    x, y, z = axes
    return np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)


@given(
    radius=st.floats(8.0, 20.0),
    shift=st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2)),
)
@settings(max_examples=20, deadline=None)
def test_occupancy_keeps_volume_and_place(radius, shift):
    fine, coarse = grid(70, 1.0, -35.0), grid(20, 4.8, -45.6)
    centre = tuple(shift)
    mask = distance_mm(fine, centre) <= radius
    box, fraction = occupancy(from_array(mask, fine), coarse)
    assert fraction.min() >= 0 and fraction.max() <= 1
    assert fraction.sum() * 4.8**3 == pytest.approx(mask.sum(), rel=0.02)
    full = np.zeros((20, 20, 20))
    full[box] = fraction
    index = np.array(scipy.ndimage.center_of_mass(full))[::-1]
    assert np.allclose(-45.6 + 4.8 * index, centre, atol=0.25)


def test_occupancy_in_turned_axes():
    """A mask stored with flipped axes is the same region."""
    fine, coarse = grid(60, 1.0, -30.0), grid(20, 4.0, -38.0)
    mask = from_array(distance_mm(fine, (5.0, -3.0, 8.0)) <= 12.0, fine)
    flipped = sitk.Flip(mask, [True, False, True])
    straight, turned = occupancy(mask, coarse), occupancy(flipped, coarse)
    one, other = np.zeros((2, 20, 20, 20))
    one[straight[0]], other[turned[0]] = straight[1], turned[1]
    assert np.abs(one - other).max() < 0.15
    assert one.sum() == pytest.approx(other.sum(), rel=0.01)


def test_occupancy_on_the_same_grid_is_the_mask_and_outside_is_none():
    image = grid(10, 4.0)
    mask = distance_mm(image, (18.0, 18.0, 18.0)) < 9.0
    box, fraction = occupancy(from_array(mask, image), image)
    assert np.array_equal(fraction > 0, mask[box])
    assert fraction.sum() == mask.sum()
    assert occupancy(from_array(np.zeros_like(mask), image), image) is None
    assert occupancy(from_array(mask, image), grid(10, 4.0, 500.0)) is None


@pytest.mark.parametrize("diameter", [20.0, 30.0, 60.0])
@pytest.mark.parametrize("background", [0.0, 0.2])
def test_recovery_of_a_sphere_blurred_on_a_fine_grid(diameter, background):
    """Blurring is done on a 1.2 mm grid, measurement on one four times as coarse."""
    fwhm, radius = 12.0, diameter / 2.0
    fine = grid(4 * 28, 1.2, -66.6)
    truth = np.where(distance_mm(fine, (0.7, -1.1, 0.4)) <= radius, 1.0, background)
    blurred = scipy.ndimage.gaussian_filter(truth, fwhm / FWHM_PER_SD / 1.2, mode="nearest")
    values = blurred.reshape(28, 4, 28, 4, 28, 4).mean(axis=(1, 3, 5))
    coarse = grid(28, 4.8, -64.8)
    place = occupancy(from_array(distance_mm(fine, (0.7, -1.1, 0.4)) <= radius, fine), coarse)
    region = Region("L01", "lesion", *place)
    body = np.ones(values.shape)
    corrected = recovered_concentration(values, region, [], body, fwhm, (4.8, 4.8, 4.8))
    assert corrected == pytest.approx(1.0, abs=0.02)
    if background == 0.0 and diameter > 20.0:
        # Without correction the mean is the recovery of a sphere; partial voxels lower it a little more.
        assert mean_concentration(values, region) == pytest.approx(sphere_recovery(radius, fwhm), abs=0.04)


def test_two_neighbours_are_told_apart():
    """Two touching spheres of 4 : 1: spill-over between them is undone."""
    fine, coarse, fwhm = grid(4 * 30, 1.2, -71.4), grid(30, 4.8, -69.6), 12.0
    masks = [distance_mm(fine, (x, 0.0, 0.0)) <= 14.0 for x in (-14.5, 14.5)]
    truth = 4.0 * masks[0] + 1.0 * masks[1] + 0.1 * ~(masks[0] | masks[1])
    blurred = scipy.ndimage.gaussian_filter(truth, fwhm / FWHM_PER_SD / 1.2, mode="nearest")
    values = blurred.reshape(30, 4, 30, 4, 30, 4).mean(axis=(1, 3, 5))
    regions = [Region(str(i), "lesion", *occupancy(from_array(mask, fine), coarse)) for i, mask in enumerate(masks)]
    body = np.ones(values.shape)
    for region, other, expected in ((*regions, 4.0), (*regions[::-1], 1.0)):
        value = recovered_concentration(values, region, [other], body, fwhm, (4.8,) * 3)
        assert value == pytest.approx(expected, rel=0.03)
    # Uncorrected, one loses more than the other gives.
    assert mean_concentration(values, regions[1]) < 0.8


def test_recovery_and_edge_of_a_sphere_by_sampling():
    random = np.random.default_rng(5)
    radius, fwhm, count = 10.0, 12.0, 400_000
    directions = random.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = directions * radius * random.random((count, 1)) ** (1 / 3)
    seen = np.linalg.norm(points + random.standard_normal((count, 3)) * fwhm / FWHM_PER_SD, axis=1)
    assert sphere_recovery(radius, fwhm) == pytest.approx((seen <= radius).mean(), abs=0.003)
    shell = (np.abs(seen - radius) < 0.1).sum() / (4.0 * math.pi * radius**2 * 0.2)
    assert sphere_edge(radius, fwhm) == pytest.approx(shell / (count / (4.0 / 3.0 * math.pi * radius**3)), rel=0.05)


def test_sensitivity_of_the_activity_to_the_surface():
    # Large and sharp: half of what a shell adds is activity. A point: all of it is seen whatever is drawn.
    assert activity_sensitivity(1e5, 5.0) == pytest.approx(0.5, abs=0.02)
    assert activity_sensitivity(0.001, 15.0) == pytest.approx(0.0, abs=0.02)
    assert activity_sensitivity(10.0, None) == 0.5
    # By hand: measure a 30 mm sphere with a radius 5 % too large, correct by the recovery of the larger one.
    radius, fwhm, step = 15.0, 12.0, 0.002
    sd = fwhm / FWHM_PER_SD
    r = np.linspace(1e-3, 60.0, 60_001)
    profile = 0.5 * (
        scipy.special.erf((r + radius) / (math.sqrt(2) * sd)) - scipy.special.erf((r - radius) / (math.sqrt(2) * sd))
    ) - sd / (r * math.sqrt(2 * math.pi)) * (
        np.exp(-0.5 * ((r - radius) / sd) ** 2) - np.exp(-0.5 * ((r + radius) / sd) ** 2)
    )
    counts = scipy.integrate.cumulative_trapezoid(4 * math.pi * r**2 * profile, r, initial=0.0)

    def estimate(drawn: float) -> float:
        return float(np.interp(drawn, r, counts)) / sphere_recovery(drawn, fwhm)

    by_hand = math.log(estimate(radius * (1 + step)) / estimate(radius * (1 - step))) / (6.0 * step)
    assert activity_sensitivity(4 / 3 * math.pi * 1.5**3, fwhm) == pytest.approx(by_hand, abs=0.005)


def test_volume_sd():
    # 30 mm sphere: +- 2 mm at both ends of the diameter, 2.83 mm in 30 mm, three times for the volume.
    assert volume_cv(4 / 3 * math.pi * 1.5**3, 2.0) == pytest.approx(3 * 2 * math.sqrt(2) / 30.0, rel=1e-9)
    assert equivalent_radius_mm(4 / 3 * math.pi) == pytest.approx(10.0)
